package mlscore_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// What members see and an observer does not. Where an observer accepts and a
// member refuses, it is for one of these; the member's error tells which.
// Members judge the public part by the same PublicGroup.Stage: they are an
// independent witness of tags, decryption, pre-shared keys and the epochs that
// the committer's own derivation leads to, and of nothing else; checkOperations
// judges LeafOperationProposals anew. Of a PrivateMessage an observer sees
// nothing but the group and the epoch: judgeHidden has the rule for it.
const (
	rowMembershipTag   = "membership_tag: its value (RFC 9420, Section 6.2)"
	rowConfirmationTag = "confirmation_tag: its value (RFC 9420, Section 6.1)"
	rowPathSecret      = "encrypted_path_secret: what it decrypts to (RFC 9420, Section 7.5)"
	rowOwnLeaf         = "encryption_key: whether a leaf's owner has the private key (RFC 9420, Section 7.5)"
	rowKEMOutput       = "kem_output: whether ExternalInit opens (RFC 9420, Section 8.3)"
	rowPSK             = "psk: whether members have it (RFC 9420, Section 8.4)"
)

// rowOf is the row of a member's refusal; "" where an observer should refuse too.
func rowOf(err error) string {
	if errors.Is(err, member.ErrUnknownPSK) {
		return rowPSK
	}
	var refusal *mlscore.Error
	if !errors.As(err, &refusal) {
		return ""
	}
	section := strings.TrimPrefix(refusal.Section, "RFC 9420, Section ")
	for _, r := range []struct{ section, detail, row string }{
		{"6.2", "the membership tag of ", rowMembershipTag},
		{"12.4.2", "the confirmation tag of ", rowConfirmationTag},
		{"7.5", "the encryption key of our leaf ", rowOwnLeaf},
		{"7.5", "the path secret of node ", rowPathSecret},
		{"7.5", "no path secret is encrypted to leaf ", rowPathSecret},
		{"7.4", "a path secret of ", rowPathSecret},
		{"5.1.3", "the ciphertext under label \"UpdatePathNode\"", rowPathSecret},
		{"5.1.3", "kem_output of ", rowKEMOutput}, // of a path secret or of ExternalInit
	} {
		if section == r.section && strings.HasPrefix(refusal.Detail, r.detail) {
			return r.row
		}
	}
	if section == "7.5" && strings.Contains(refusal.Detail, "encrypted path secrets for a resolution of") {
		return rowPathSecret // what FlagPathSecretCount flags
	}
	return ""
}

// tally counts what became of mutants.
type tally struct {
	mutants, accepted, refused int
	rows                       map[string]int    // disagreements by row
	kinds                      map[string][2]int // refused and accepted by kind of mutation
}

func (c *tally) add(o *tally) {
	c.mutants, c.accepted, c.refused = c.mutants+o.mutants, c.accepted+o.accepted, c.refused+o.refused
	for k, n := range o.rows {
		c.rows[k] += n
	}
	for k, n := range o.kinds {
		c.kinds[k] = [2]int{c.kinds[k][0] + n[0], c.kinds[k][1] + n[1]}
	}
}

func newTally() *tally {
	return &tally{rows: make(map[string]int), kinds: make(map[string][2]int)}
}

func (c *tally) log(t *testing.T) {
	t.Helper()
	t.Logf("%d mutants: %d refused by all, %d accepted by all", c.mutants, c.refused, c.accepted)
	for _, row := range slices.Sorted(maps.Keys(c.rows)) {
		t.Logf("  %6d accepted by the observer only: %s", c.rows[row], row)
	}
	if testing.Verbose() {
		for _, kind := range slices.Sorted(maps.Keys(c.kinds)) {
			t.Logf("    %-40s %6d refused, %6d accepted by the observer", kind, c.kinds[kind][0], c.kinds[kind][1])
		}
	}
}

// adversary plays the life of a real group, whose keys it holds, and brings
// mutants of every handshake to the members and to an observer.
type adversary struct {
	t        *testing.T
	suite    *mlscore.Suite
	rng      *rand.Rand
	random   *rand.ChaCha8
	group    []byte
	members  []*member.Group
	signers  map[string]mlscore.Signer // by public key, of everybody who ever was
	keys     [][]byte                  // the same public keys, in order of creation
	broker   mlscore.Signer
	points   intents.CodePoints
	registry *mlscore.Registry
	users    map[string]int // by identity: what the Authentication Service knows
	astray   bool           // its answers are other ones
	observer *mlscore.PublicGroup
	start    *mlscore.PublicGroup // the observer's first state
	welcome  []byte               // into that
	past     [][]byte             // messages of this group
	contexts [][]byte             // of past epochs
	foreign  [][]byte             // messages of another group
	packages []*member.KeyPackage
	tally    *tally
	serial   int
	silent   *member.Group // never sends anything
	author   *member.Group // of the handshake that is under way
}

const adversaryMembers = 5

// newStranger is an adversary without a group. Its deployment wraps the intents
// in LeafOperationProposals or not, and takes them by reference in external
// commits or not, as the seed says.
func newStranger(t *testing.T, id mlscore.CipherSuite, seed uint64, group string) *adversary {
	x := &adversary{
		t: t, suite: must(mlscore.DefaultRegistry().LookupSuite(id)), group: []byte(group),
		rng:     rand.New(rand.NewPCG(seed, uint64(id))),
		random:  rand.NewChaCha8([32]byte{byte(id), byte(id >> 8), byte(seed), byte(seed >> 8), byte(len(group))}),
		signers: make(map[string]mlscore.Signer), users: make(map[string]int), tally: newTally(),
		points: intents.DefaultCodePoints(), registry: mlscore.DefaultRegistry(),
	}
	if seed%2 == 1 {
		x.points.Body = intents.BodyOpaque
	}
	operation := x.points.CustomProposal()
	operation.AcceptReferences = seed%4 > 1
	x.registry.Custom = []mlscore.CustomProposal{operation}
	x.broker = x.newSigner()
	return x
}

// senders is an external_senders extension with the broker in it.
func (x *adversary) senders() mlscore.Extension {
	return mlscore.Extension{
		Type: mlscore.ExtensionTypeExternalSenders, Data: mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{
			{SignatureKey: x.broker.PublicKey(), Credential: mlscore.BasicCredential([]byte("broker"))},
		}),
	}
}

func newAdversary(t *testing.T, id mlscore.CipherSuite, seed uint64, group string) *adversary {
	t.Helper()
	x := newStranger(t, id, seed, group)
	x.members = []*member.Group{must(x.client().Create(x.group, mlscore.Extensions{x.senders()}, forever))}
	var adds []*mlscore.Proposal
	for range adversaryMembers - 1 {
		k := must(x.client().NewKeyPackage(forever))
		x.packages, adds = append(x.packages, k), append(adds, member.Add(k.KeyPackage))
	}
	commit := must(x.members[0].Commit(member.CommitOptions{Proposals: adds}))
	if err := x.members[0].ConfirmCommit(); err != nil {
		t.Fatal(err)
	}
	for _, k := range x.packages {
		x.members = append(x.members, must(k.Join(commit.Welcome, nil)))
	}
	x.observer = x.observe(must(x.members[0].GroupInfo()))
	x.start, x.welcome = x.observer, commit.Welcome
	return x
}

// observe is an observer who starts from a GroupInfo.
func (x *adversary) observe(groupInfo []byte) *mlscore.PublicGroup {
	info := must(mlscore.ParseMLSMessage(groupInfo, x.registry)).GroupInfo
	return must(mlscore.NewPublicGroup(info, nil, mlscore.Options{Registry: x.registry}))
}

func (x *adversary) newSigner() mlscore.Signer {
	s := must(mlscore.GenerateSigner(x.suite.Signature, x.random))
	x.signers[string(s.PublicKey())] = s
	x.keys = append(x.keys, s.PublicKey())
	return s
}

func (x *adversary) client() *member.Client {
	x.serial++
	name := fmt.Sprintf("client %d", x.serial)
	x.users[name] = x.serial / 3
	return &member.Client{
		CipherSuite: x.suite.ID, Signer: x.newSigner(), Random: x.random, Registry: x.registry,
		Credential: mlscore.BasicCredential([]byte(name)), PSK: knownPSK, Associate: x.associated,
	}
}

// knownPSK is the external PSK that all clients have.
func knownPSK(id mlscore.PreSharedKeyID) ([]byte, bool) {
	return []byte("secret"), id.Type == mlscore.PSKTypeExternal && string(id.ID) == "known"
}

// associated is the Authentication Service: the other leaves of the sender's
// user, if it knows that. Where it goes astray, somebody else instead.
func (x *adversary) associated(g *mlscore.PublicGroup, sender mlscore.LeafIndex) (list []mlscore.LeafIndex, known bool) {
	user, known := x.users[string(g.Tree().Leaf(sender).Credential.Identity)]
	if !known {
		return nil, x.astray
	}
	for i, leaf := range g.Tree().All() {
		other, known := x.users[string(leaf.Credential.Identity)]
		if i != sender && (known && other == user) != x.astray {
			list = append(list, i)
		}
	}
	if x.astray && len(list) > 0 {
		list = list[:1]
	}
	return list, true
}

// stage lets an observer judge, with the answers of the Authentication Service.
func (x *adversary) stage(g *mlscore.PublicGroup, m *mlscore.MLSMessage) (*mlscore.Staged, error) {
	return g.StageWith(m, func(sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) { return x.associated(g, sender) })
}

// someone is a random member who speaks.
func (x *adversary) someone() *member.Group {
	for {
		if g := pick(x.rng, x.members); g != x.silent {
			return g
		}
	}
}

// occupied is a random leaf in use.
func (x *adversary) occupied() mlscore.LeafIndex {
	for {
		i := mlscore.LeafIndex(x.rng.IntN(int(x.observer.Tree().LeafWidth())))
		if x.observer.Tree().Leaf(i) != nil {
			return i
		}
	}
}

// live says whether the group is still worth an adversary's time.
func (x *adversary) live() bool { return len(x.members) >= 3 && !x.observer.Closed() }

// spoiled is a copy of a member whose client spoils what it sends. What it does
// leaves the member as it is: a commit replaces its epoch as a whole. Only the
// resumption PSK that it remembers for the epoch to come is the copy's, until it
// gets there.
func spoiled(g *member.Group, hooks *member.Mutate, f func(g *member.Group)) {
	sacrificed, client := *g, g.Client()
	client.Mutate = hooks
	defer func() { client.Mutate = nil }()
	f(&sacrificed)
}

// verdict is what an observer and the members say about one message.
type verdict struct {
	staged   *mlscore.Staged
	observer error
	members  []*member.Group // copies, after the message
	errs     []error
	received []*member.Received
}

// ask brings a message to the observer and to copies of all members but the
// committer, who knows only its own pending commit. A proposal that is accepted
// counts as received by the members themselves.
func (x *adversary) ask(message []byte) verdict {
	var v verdict
	m, err := mlscore.ParseMLSMessage(bytes.Clone(message), x.registry)
	v.observer = err
	var content *mlscore.FramedContent
	if err == nil {
		v.staged, v.observer = x.stage(x.observer, m)
		if m.PublicMessage != nil {
			content = &m.PublicMessage.Content
		}
	}
	x.askMembers(&v, message, content, nil)
	return v
}

// askMembers brings a message to copies of all members but one, and the
// committer.
func (x *adversary) askMembers(v *verdict, message []byte, c *mlscore.FramedContent, except *member.Group) {
	for _, g := range x.members {
		committer := c != nil && c.Commit != nil && c.Sender.Type == mlscore.SenderTypeMember && c.Sender.LeafIndex == g.OwnLeaf()
		if g == except || committer {
			continue
		}
		sacrificed := *g
		received, err := sacrificed.Process(bytes.Clone(message))
		v.members, v.errs, v.received = append(v.members, &sacrificed), append(v.errs, err), append(v.received, received)
	}
}

// judge brings a mutant to everybody and checks that they agree.
func (x *adversary) judge(kind string, message []byte) {
	x.t.Helper()
	v := x.ask(message)
	if len(v.members) == 0 {
		return // a commit by the only one who could tell
	}
	row := x.settle(kind, &v)
	if v.observer != nil || row != "" {
		return
	}
	x.checkAssociations(kind, message, v.staged)
	if v.staged.Kind == mlscore.StagedProposal {
		x.observer = v.staged.Next() // the members have it as well
	} else if x.rng.IntN(4) == 0 {
		x.past = append(x.past, message)
	}
}

// settle checks that all agree on a mutant, counts it, and gives the row of what
// the observer could not see.
func (x *adversary) settle(kind string, v *verdict) (row string) {
	x.t.Helper()
	x.tally.mutants++
	row = x.agree(kind, v)
	n := x.tally.kinds[kind]
	if v.observer != nil {
		x.tally.refused++
		n[0]++
	} else {
		n[1]++
		x.checkNext(kind, v.staged.Next())
		x.checkOperations(kind, v.staged)
		if row == "" {
			x.tally.accepted++
		} else {
			x.tally.rows[row]++
		}
		if taggedRight(kind) && row != "" && row != rowPSK && row != rowOwnLeaf {
			x.t.Errorf("%s, by somebody who has all secrets, is refused: %s", kind, row)
		}
	}
	x.tally.kinds[kind] = n
	return row
}

// checkAssociations lets the observer judge a commit that all accept by other
// associations: it can only say that it does not understand.
func (x *adversary) checkAssociations(kind string, message []byte, staged *mlscore.Staged) {
	x.t.Helper()
	if !slices.ContainsFunc(staged.Applied, func(a mlscore.AppliedProposal) bool { return a.Expansion != nil && a.Expansion.Associated }) {
		return
	}
	m := must(mlscore.ParseMLSMessage(message, x.registry))
	x.astray = true
	_, err := x.stage(x.observer, m)
	x.astray = false
	if mlscore.Reason(err) != "unresolvable" || errors.Is(err, mlscore.ErrInvalid) {
		x.t.Errorf("%s: by other associations: %v", kind, err)
	}
	if _, err = x.observer.Stage(m); mlscore.Reason(err) != "unresolvable" {
		x.t.Errorf("%s: by no association: %v", kind, err)
	}
	x.tally.kinds["associations"] = [2]int{x.tally.kinds["associations"][0] + 2, 0}
}

// taggedRight says whether members cannot find fault with the tags and secrets of
// a kind of mutant: its sender derived them from what it sent. Where they do, it
// went to another epoch than they and the observer.
func taggedRight(kind string) bool {
	return slices.ContainsFunc([]string{"commit, unspoiled", "commit, leaf", "commit, same effect", "commit, authenticated_data"}, func(right string) bool {
		return strings.HasSuffix(kind, right)
	})
}

// agree fails the test where members and observer disagree, and gives the row
// of what the observer could not see.
func (x *adversary) agree(kind string, v *verdict) (row string) {
	x.t.Helper()
	var authenticator []byte
	for i, g := range v.members {
		err := v.errs[i]
		switch {
		case v.observer == nil && err == nil:
			if g.Removed() {
				continue
			}
			x.sameState(kind, v, i, &authenticator)
		case v.observer == nil:
			r := rowOf(err)
			if r == "" {
				x.t.Errorf("%s: accepted, but leaf %d refuses: %v", kind, g.OwnLeaf(), err)
			}
			if row == "" {
				row = r
			}
		case err == nil:
			x.t.Errorf("%s: %v, but leaf %d accepts", kind, v.observer, g.OwnLeaf())
		default:
			x.sameClass(kind, v.observer, err)
		}
	}
	return row
}

// sameState compares what the members and the observer took a message for.
func (x *adversary) sameState(kind string, v *verdict, i int, authenticator *[]byte) {
	x.t.Helper()
	g := v.members[i]
	if v.staged.Kind == mlscore.StagedProposal {
		ours, theirs := v.staged.Proposal, v.received[i].Staged.Proposal
		if !bytes.Equal(ours.Ref, theirs.Ref) || (ours.Invalid == nil) != (theirs.Invalid == nil) {
			x.t.Errorf("%s: proposal %x, %v; leaf %d has %x, %v", kind, ours.Ref, ours.Invalid, g.OwnLeaf(), theirs.Ref, theirs.Invalid)
		}
		return
	}
	next := v.staged.Next()
	if !bytes.Equal(g.Public().ContextBytes(), next.ContextBytes()) || !bytes.Equal(g.Public().InterimTranscriptHash(), next.InterimTranscriptHash()) {
		x.t.Errorf("%s: leaf %d is in another epoch than the observer", kind, g.OwnLeaf())
	}
	if *authenticator != nil && !bytes.Equal(*authenticator, g.EpochAuthenticator()) {
		x.t.Errorf("%s: leaf %d has other secrets than those before it", kind, g.OwnLeaf())
	}
	*authenticator = g.EpochAuthenticator()
}

// sameClass compares the classes of two refusals. A member knows its own
// GroupContext, and looks at the membership tag first.
func (x *adversary) sameClass(kind string, observer, member error) {
	x.t.Helper()
	ours, theirs := mlscore.Reason(observer), mlscore.Reason(member)
	if ours == "error" || theirs == "error" {
		x.t.Errorf("%s: refused without a class: %v; %v", kind, observer, member)
	}
	if strings.Contains(observer.Error(), "carries no handshake") {
		return // nothing of a group at all: either class will do
	}
	if ours != theirs && ours != "diverged" && rowOf(member) != rowMembershipTag {
		x.t.Errorf("%s: %v; a member: %v", kind, observer, member)
	}
}

// checkNext checks that a newcomer takes the tree that a commit leads to.
func (x *adversary) checkNext(kind string, next *mlscore.PublicGroup) {
	x.t.Helper()
	tree, err := mlscore.ParseRatchetTree(x.suite, next.Tree().Bytes())
	if err != nil {
		x.t.Errorf("%s: accepted, and the tree does not decode: %v", kind, err)
		return
	}
	if !bytes.Equal(tree.TreeHash(), next.Context().TreeHash) {
		x.t.Errorf("%s: the cached tree hash is wrong", kind)
	}
	if next.Epoch() == x.observer.Epoch() {
		return
	}
	if err := tree.Verify(next.GroupID()); err != nil {
		x.t.Errorf("%s: accepted, and a newcomer refuses the tree: %v", kind, err)
	}
}

// deliver brings what members really sent to everybody. Members who cannot
// follow, for a reason that an observer cannot see, are left behind.
func (x *adversary) deliver(message []byte, joined *member.Group) {
	x.t.Helper()
	m, err := mlscore.ParseMLSMessage(bytes.Clone(message), x.registry)
	if err != nil {
		x.t.Fatal(err)
	}
	staged, err := x.stage(x.observer, m)
	if err != nil {
		x.t.Fatalf("a real message: %v", err)
	}
	x.checkOperations("a real message", staged)
	x.members = slices.DeleteFunc(x.members, func(g *member.Group) bool {
		_, err := g.Process(message)
		if row := rowOf(err); err != nil && row != rowOwnLeaf && row != rowPSK {
			x.t.Fatalf("leaf %d refuses a real message: %v", g.OwnLeaf(), err)
		}
		return err != nil || g.Removed()
	})
	if joined != nil {
		x.members = append(x.members, joined)
	}
	if staged.Kind != mlscore.StagedProposal {
		x.contexts = append(x.contexts, x.observer.ContextBytes())
	}
	x.observer, x.past = staged.Next(), append(x.past, message)
}

// adversaryBudget is how many mutants to make in all:
//
//	LEAVEBROKER_ADVERSARY_MUTANTS=200000 go test -timeout 2h -run TestAdversary -v ./mlscore
func adversaryBudget(t *testing.T) (n int, seed uint64) {
	n, seed = 4000, 1
	if s := os.Getenv("LEAVEBROKER_ADVERSARY_MUTANTS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("LEAVEBROKER_ADVERSARY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return n, seed
}

// TestAdversary lets groups live in every suite. Each of their handshakes is
// changed in one or two places, and signed again by the right key, by a wrong
// one or not at all, and encrypted or not; members also make commits that are wrong in one place and
// right, with all their tags, in all others. The suite with the fastest
// signatures gets two thirds of the mutants.
func TestAdversary(t *testing.T) {
	n, seed := adversaryBudget(t)
	suites := member.Suites(mlscore.DefaultRegistry())
	sum := newTally()
	for _, id := range suites {
		budget := n / 3 / len(suites)
		if id == 1 {
			budget += n - n/3
		}
		t.Run(fmt.Sprintf("suite 0x%04x", uint16(id)), func(t *testing.T) {
			total := newTally()
			for life := seed << 32; total.mutants < budget && !t.Failed(); life++ {
				x := newAdversary(t, id, life, "group")
				x.foreign = newForeign(t, id, life)
				for epochs := 0; x.live() && epochs < 24 && total.mutants+x.tally.mutants < budget && !t.Failed(); epochs++ {
					x.step()
				}
				x.goDark()
				total.add(x.tally)
			}
			total.log(t)
			sum.add(total)
		})
	}
	sum.log(t)
	for _, row := range []string{rowMembershipTag, rowConfirmationTag, rowPathSecret, rowOwnLeaf, rowKEMOutput, rowPSK} {
		if n >= 4000 && sum.rows[row] == 0 { // fewer mutants may miss one
			t.Errorf("no mutant shows what an observer cannot see: %s", row)
		}
	}
	if sum.accepted == 0 || sum.refused == 0 {
		t.Error("the mutants are all alike")
	}
}

// newForeign is the log of another group of the same suite.
func newForeign(t *testing.T, id mlscore.CipherSuite, seed uint64) [][]byte {
	x := newAdversary(t, id, seed, "another group")
	for range 6 {
		if message, joined := x.act(); message != nil {
			x.deliver(message, joined)
		}
	}
	return x.past
}
