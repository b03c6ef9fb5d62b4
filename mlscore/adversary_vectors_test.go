package mlscore_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
	"leavebroker/mlscore/mlstest"
)

// vectorLog is the log of a real group of another implementation.
type vectorLog struct {
	Case        int                 `json:"case"`
	CipherSuite mlscore.CipherSuite `json:"cipher_suite"`
	Log         []struct {
		MLSMessage mlstest.Hex `json:"mls_message"`
	} `json:"log"`
}

func (l *vectorLog) groupInfo() []byte { return l.Log[0].MLSMessage }

func (l *vectorLog) messages() (log [][]byte) {
	for _, m := range l.Log[1:] {
		log = append(log, m.MLSMessage)
	}
	return log
}

// passiveCase is a client of the MLS working group's vectors, with its keys.
type passiveCase struct {
	CipherSuite  mlscore.CipherSuite `json:"cipher_suite"`
	ExternalPSKs []struct {
		ID  mlstest.Hex `json:"psk_id"`
		PSK mlstest.Hex `json:"psk"`
	} `json:"external_psks"`
	KeyPackage     mlstest.Hex  `json:"key_package"`
	SignaturePriv  mlstest.Hex  `json:"signature_priv"`
	EncryptionPriv mlstest.Hex  `json:"encryption_priv"`
	InitPriv       mlstest.Hex  `json:"init_priv"`
	Welcome        mlstest.Hex  `json:"welcome"`
	RatchetTree    *mlstest.Hex `json:"ratchet_tree"`
}

// psk knows what the client was given, and what an adversary's clients know.
func (c *passiveCase) psk(id mlscore.PreSharedKeyID) ([]byte, bool) {
	for _, p := range c.ExternalPSKs {
		if id.Type == mlscore.PSKTypeExternal && bytes.Equal(p.ID, id.ID) {
			return p.PSK, true
		}
	}
	return knownPSK(id)
}

// join makes the client a member, with the adversary's randomness.
func (c *passiveCase) join(x *adversary) *member.Group {
	signer := must(mlscore.NewSigner(x.suite.Signature, c.SignaturePriv))
	public := must(mlscore.ParseMLSMessage(c.KeyPackage, x.registry)).KeyPackage
	client := &member.Client{
		CipherSuite: c.CipherSuite, Signer: signer, Credential: public.LeafNode.Credential,
		PSK: c.psk, Random: x.random, Registry: x.registry, Associate: x.associated,
	}
	var tree []byte
	if c.RatchetTree != nil {
		tree = *c.RatchetTree
	}
	return must(must(client.ImportKeyPackage(public, c.InitPriv, c.EncryptionPriv)).Join(c.Welcome, tree))
}

// TestAdversaryVectors does all this to the groups of replay/handling-commit.json.
// Each is that of a client of the working group's vectors, whose keys are there:
// it is the member who is asked. What the others sent is changed, but cannot be
// signed again, as nobody has their keys; then our client adds some of ours, and
// the group lives on among them and the leaves of the vectors.
func TestAdversaryVectors(t *testing.T) {
	var logs []vectorLog
	var clients []passiveCase
	mlstest.JSON(t, "replay/handling-commit.json", &logs)
	mlstest.JSON(t, "mlswg/passive-client-handling-commit.json", &clients)
	n, seed := adversaryBudget(t)
	total := newTally()
	elsewhere := logs[len(logs)-1].messages()
	for i, l := range logs {
		t.Run(fmt.Sprintf("suite%d/case%d", l.CipherSuite, l.Case), func(t *testing.T) {
			x := newVectorAdversary(t, &l, seed<<32+uint64(i), elsewhere)
			x.start, x.tally = x.observer, total
			for range 1 + n/4000 {
				f := follower{t: t, group: clients[l.Case].join(x), observer: x.start, tally: total, agree: x}
				if !bytes.Equal(f.group.Public().ContextBytes(), f.observer.ContextBytes()) {
					t.Fatal("the client is not of this group")
				}
				for _, message := range shuffled(x.rng, l.messages(), elsewhere) {
					if !f.hear("vector", message) {
						break
					}
				}
			}
			x.take(clients[l.Case].join(x))
			x.replay(l.messages(), 2+n/2000)
			if x.invite(); x.live() && (n > 4000 || i%4 == 0) {
				x.step()
			}
		})
		elsewhere = append(elsewhere, l.messages()...)
	}
	total.log(t)
	if total.accepted == 0 || total.refused == 0 {
		t.Error("the mutants are all alike")
	}
}

func newVectorAdversary(t *testing.T, l *vectorLog, seed uint64, foreign [][]byte) *adversary {
	x := newStranger(t, l.CipherSuite, seed, "vector")
	x.observer, x.foreign = x.observe(l.groupInfo()), foreign
	return x
}

// take makes a member of the vectors one of ours.
func (x *adversary) take(g *member.Group) {
	signer := g.Client().Signer
	x.members = []*member.Group{g}
	x.signers[string(signer.PublicKey())] = signer
	x.keys = append(x.keys, signer.PublicKey())
}

// replay brings a log to everybody, and mutants of each message before it.
func (x *adversary) replay(log [][]byte, mutants int) {
	x.t.Helper()
	for _, message := range log {
		for range mutants {
			if kind, mutant := x.mutant(message); !bytes.Equal(mutant, message) {
				x.judge("vector, "+kind, mutant)
			}
		}
		x.deliver(message, nil)
	}
}

// invite lets our member of a group add others of ours, and the broker.
func (x *adversary) invite() {
	x.t.Helper()
	if len(x.members) == 0 {
		return
	}
	g := x.members[0]
	list := []*mlscore.Proposal{member.GroupContextExtensions(x.observer.Context().Extensions.With(x.senders().Type, x.senders().Data))}
	var packages []*member.KeyPackage
	for range adversaryMembers - 1 {
		k := must(x.client().NewKeyPackage(forever))
		packages, list = append(packages, k), append(list, member.Add(k.KeyPackage))
	}
	commit := must(g.Commit(member.CommitOptions{Proposals: list, References: [][]byte{}}))
	x.deliver(commit.Message, nil)
	for _, k := range packages {
		x.members = append(x.members, must(k.Join(commit.Welcome, nil)))
	}
}

// TestAdversaryWithoutMembers does to replay/commit.json what can be done where
// nobody has a member's keys. There is no oracle then but what RFC 9420 says of
// a message whose author's key nobody else has: it is one of the log or it is
// refused, and only tags may differ, as an observer cannot check them (rows
// membership_tag and confirmation_tag). Not done, because it cannot be: to change
// a field and sign it again as a member, for want of the key; and to ask about
// what strangers sign with keys of their own, for want of a member.
func TestAdversaryWithoutMembers(t *testing.T) {
	var logs, others []vectorLog
	mlstest.JSON(t, "replay/commit.json", &logs)
	mlstest.JSON(t, "replay/handling-commit.json", &others)
	n, seed := adversaryBudget(t)
	total := newTally()
	for i, l := range logs {
		t.Run(fmt.Sprintf("suite%d/case%d", l.CipherSuite, l.Case), func(t *testing.T) {
			x := newVectorAdversary(t, &l, seed<<32+uint64(i), others[i].messages())
			x.tally = total
			w := witness{adversary: x, start: x.observer, genuine: l.messages()}
			for range 4 + n/1000 {
				w.restart()
				for _, message := range shuffled(x.rng, w.genuine, x.foreign) {
					w.hear("vector", message)
				}
			}
			w.restart()
			for _, message := range w.genuine {
				x.past = append(x.past, message)
				for range 4 + n/1000 {
					w.hear(x.mutant(message))
				}
				w.hear("vector", message)
			}
			if x.observer.Epoch() == w.start.Epoch() {
				t.Error("the log led nowhere")
			}
		})
	}
	total.log(t)
	if total.accepted == 0 || total.refused == 0 || total.rows[rowMembershipTag] == 0 || total.rows[rowConfirmationTag] == 0 {
		t.Error("the mutants are all alike")
	}
}

// witness says what has to become of a message of a log, by a slow and obvious
// rule.
type witness struct {
	*adversary
	start   *mlscore.PublicGroup
	genuine [][]byte
	refs    map[string]bool // ProposalRefs heard in this epoch
}

// restart goes back to the begin of the log.
func (w *witness) restart() { w.observer, w.refs = w.start, make(map[string]bool) }

// anyRefusal is what a message gets that nobody in the group has signed.
var anyRefusal = []string{"invalid", "diverged", "malformed"}

// want is the class of a message, "" where it is accepted, and the row of what
// an observer does not see in one that is accepted. known is false for what a
// stranger has signed.
func (w *witness) want(message []byte) (classes []string, row string, known bool) {
	m, err := mlscore.ParseMLSMessage(message, w.registry)
	switch {
	case err != nil:
		return []string{"malformed"}, "", true
	case m.PrivateMessage != nil:
		return []string{w.wantFrame(m.PrivateMessage.GroupID, m.PrivateMessage.Epoch, "unresolvable")}, "", true
	case m.PublicMessage == nil:
		return []string{"malformed"}, "", true
	}
	c := &m.PublicMessage.Content
	if frame := w.wantFrame(c.GroupID, c.Epoch, ""); frame != "" {
		return []string{frame}, "", true
	}
	if c.Sender.Type == mlscore.SenderTypeNewMemberCommit || c.Sender.Type == mlscore.SenderTypeNewMemberProposal {
		return nil, "", false
	}
	for _, b := range w.genuine {
		original := must(mlscore.ParseMLSMessage(b, w.registry)).PublicMessage
		if bytes.Equal(original.Content.Bytes(), c.Bytes()) && bytes.Equal(original.Signature, m.PublicMessage.Signature) {
			class, row := w.wantGenuine(m.PublicMessage, original)
			return []string{class}, row, true
		}
	}
	return anyRefusal, "", true
}

// wantFrame is the class that a group and an epoch alone lead to.
func (w *witness) wantFrame(group []byte, epoch uint64, otherwise string) string {
	switch ours := w.observer.Epoch(); {
	case !bytes.Equal(group, w.observer.GroupID()):
		return "invalid"
	case epoch < ours:
		return "stale"
	case epoch > ours:
		return "ahead"
	}
	return otherwise
}

// wantGenuine is the class of a message that its author signed for this epoch,
// with the tags that it came with.
func (w *witness) wantGenuine(m, original *mlscore.PublicMessage) (class, row string) {
	if len(m.MembershipTag) != len(original.MembershipTag) || len(m.ConfirmationTag) != len(original.ConfirmationTag) {
		return "malformed", ""
	}
	if m.Content.Commit != nil {
		for _, p := range m.Content.Commit.Proposals {
			if p.Reference != nil && !w.refs[string(p.Reference)] {
				return "unresolvable", ""
			}
		}
	}
	switch {
	case !bytes.Equal(m.ConfirmationTag, original.ConfirmationTag):
		return "", rowConfirmationTag
	case !bytes.Equal(m.MembershipTag, original.MembershipTag):
		return "", rowMembershipTag
	}
	return "", ""
}

// hear brings a message to the observer, who goes on with it if it is one of the
// log.
func (w *witness) hear(kind string, message []byte) {
	w.t.Helper()
	classes, row, known := w.want(message)
	if !known {
		return
	}
	before := state(w.observer)
	m, err := mlscore.ParseMLSMessage(bytes.Clone(message), w.registry)
	var staged *mlscore.Staged
	if err == nil {
		staged, err = w.stage(w.observer, m)
	}
	class := ""
	if err != nil {
		class = mlscore.Reason(err)
	}
	if !slices.Contains(classes, class) {
		w.t.Errorf("%s: %v, want %q", kind, err, classes)
	}
	if !bytes.Equal(before, state(w.observer)) {
		w.t.Fatalf("%s: staging changed the observer", kind)
	}
	w.tally.mutants++
	switch {
	case err != nil:
		w.tally.refused++
		return
	case row != "":
		w.tally.rows[row]++
		return
	}
	w.tally.accepted++
	w.observer = staged.Next()
	if staged.Kind != mlscore.StagedProposal {
		w.refs = make(map[string]bool)
	} else {
		w.refs[string(m.PublicMessage.AuthenticatedContent.ProposalRef(w.suite))] = true
	}
}
