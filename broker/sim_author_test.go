package broker

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

var (
	simGroup = []byte("book club")
	simKey   = groupKey{testTenant, GroupToken(simGroup)}
)

// stayer is a member who never leaves and whom nobody removes.
const stayer = "zoe/1"

// author plays the members of a group, and the delivery service, and writes a
// script of it.
type author struct {
	t       testing.TB
	random  *rand.Rand
	source  *rand.ChaCha8
	shared  *member.Shared
	signer  mlscore.Signer // the broker's
	suite   *mlscore.Suite
	clients map[string]*member.Client
	keys    map[string]*member.KeyPackage
	serial  int

	members  map[string]*member.Group // those who follow the group
	ids      map[*member.Group]int
	names    map[int]string
	leavers  map[string]bool
	liar     *member.Group             // who follows its own false commit
	away     map[mlscore.LeafIndex]int // the liar's leaf in the true tree
	leaving  []mlscore.LeafIndex       // SelfRemoves of this epoch
	departed []string                  // names whose KeyPackage can be used again
	drawer   []heldIntent

	script *simScript
	based  bool   // a GroupInfo since commits were lost, if any
	proven bool   // a member signed since
	until  uint64 // the epoch over which a member has to sign to refute a lie
	doubt  bool
}

type heldIntent struct {
	wish *simWish
	data []byte
	text string
}

// writeScript plays the group of a number.
func writeScript(t testing.TB, number uint64) *simScript {
	a := &author{
		t: t, random: rand.New(rand.NewPCG(number, 7)), source: rand.NewChaCha8([32]byte{1: byte(number), 2: byte(number >> 8), 3: byte(number >> 16)}),
		shared: new(member.Shared), suite: must[*mlscore.Suite](t)(mlscore.LookupSuite(testSuiteID)),
		clients: map[string]*member.Client{}, keys: map[string]*member.KeyPackage{}, members: map[string]*member.Group{},
		ids: map[*member.Group]int{}, names: map[int]string{}, leavers: map[string]bool{}, away: map[mlscore.LeafIndex]int{},
	}
	a.signer = must[mlscore.Signer](t)(mlscore.GenerateSigner(mlscore.Ed25519, a.source))
	a.script = &simScript{
		signers: []mlscore.Signer{a.signer}, trustDS: number%4 == 0, hostile: number%3 == 1, lossy: number%5 == 2,
		rosters: map[uint64]roster{}, lies: map[uint64][]roster{},
	}
	a.found()
	for range 7 + a.random.IntN(10) {
		a.act()
	}
	a.finish()
	for _, w := range a.script.wishes {
		w.follow(a.script.rosters)
	}
	return a.script
}

func (a *author) client(name string) *member.Client {
	if a.clients[name] == nil {
		user, _, _ := strings.Cut(name, "/")
		a.clients[name] = &member.Client{
			CipherSuite: testSuiteID, Random: a.source, Shared: a.shared, Credential: mlscore.BasicCredential([]byte(user)),
			Signer: must[mlscore.Signer](a.t)(mlscore.GenerateSigner(mlscore.Ed25519, a.source)),
		}
	}
	return a.clients[name]
}

// found creates the group. Its GroupInfo may come after some of its handshakes.
func (a *author) found() {
	senders := mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{{SignatureKey: a.signer.PublicKey(), Credential: mlscore.BasicCredential([]byte("leavebroker"))}})
	extensions := mlscore.Extensions{{Type: mlscore.ExtensionTypeExternalSenders, Data: senders}}
	a.members[stayer] = must[*member.Group](a.t)(a.client(stayer).Create(simGroup, extensions, forever))
	a.enter()
	names := []string{"alice/1", "bob/1", "alice/2", "carol/1", "mallory/1"}
	c := a.propose(stayer, member.CommitOptions{Proposals: a.adds(names)})
	a.accept(stayer, c, names)
	for range a.random.IntN(3) {
		if a.random.IntN(2) == 0 {
			a.leave(a.anyone(), 0)
		}
		a.empty()
	}
	a.info()
	if a.random.IntN(3) > 0 {
		a.empty()
	}
}

// say publishes a message.
func (a *author) say(what kind, data []byte, format string, args ...any) *simStep {
	a.script.steps = append(a.script.steps, simStep{
		kind: what, data: data, text: fmt.Sprintf("epoch %d: ", a.epoch()) + fmt.Sprintf(format, args...),
		epoch: a.epoch(), sure: a.sure(), leaving: slices.Clone(a.leaving),
	})
	return &a.script.steps[len(a.script.steps)-1]
}

// sure says whether one who reads everything so far can know the truth.
func (a *author) sure() bool { return a.based && (a.proven || a.script.trustDS) && !a.doubt }

func (a *author) epoch() uint64 { return a.members[stayer].Epoch() }

// enter notes the leaves of a new epoch.
func (a *author) enter() {
	g := a.members[stayer]
	for leaf := range a.away {
		if now := g.Public().Tree().Leaf(leaf); now == nil || !bytes.Equal(now.SignatureKey, a.client(mallory).Signer.PublicKey()) {
			delete(a.away, leaf)
		}
	}
	ids := maps.Clone(a.away)
	for _, name := range a.sorted() {
		m := a.members[name]
		if a.ids[m] == 0 {
			a.ids[m] = len(a.ids) + 1
			a.names[a.ids[m]] = name
		}
		ids[m.OwnLeaf()] = a.ids[m]
	}
	a.script.rosters[a.epoch()] = rosterOf(g.Public(), ids)
	a.leaving = nil
}

func (a *author) sorted() []string { return slices.Sorted(maps.Keys(a.members)) }

// anyone is a member, but never the one who stays.
func (a *author) anyone() string {
	names := slices.DeleteFunc(a.sorted(), func(name string) bool { return name == stayer })
	if len(names) == 0 {
		return a.join("")
	}
	return names[a.random.IntN(len(names))]
}

// committer is a member who is not leaving.
func (a *author) committer() string {
	names := slices.DeleteFunc(a.sorted(), func(name string) bool { return a.leavers[name] })
	return names[a.random.IntN(len(names))]
}

func (a *author) newName() string {
	a.serial++
	return fmt.Sprintf("%s/n%d", []string{"alice", "bob", "carol"}[a.random.IntN(3)], a.serial)
}

func (a *author) adds(names []string) []*mlscore.Proposal {
	var list []*mlscore.Proposal
	for _, name := range names {
		if a.keys[name] == nil {
			a.keys[name] = must[*member.KeyPackage](a.t)(a.client(name).NewKeyPackage(forever))
		}
		list = append(list, member.Add(a.keys[name].KeyPackage))
	}
	return list
}

// propose makes a commit that nobody has seen yet.
func (a *author) propose(name string, o member.CommitOptions) *member.Commit {
	a.t.Helper()
	return must[*member.Commit](a.t)(a.members[name].Commit(o))
}

// accept brings a commit to all members.
func (a *author) accept(name string, c *member.Commit, added []string) {
	a.t.Helper()
	if err := a.members[name].ConfirmCommit(); err != nil {
		a.t.Fatal(err)
	}
	a.deliver(c.Message, name)
	for _, n := range added {
		a.members[n] = must[*member.Group](a.t)(a.keys[n].Join(c.Welcome, nil))
	}
	a.enter()
}

// deliver brings a message to all members but its sender, and drops those whom
// it removes.
func (a *author) deliver(message []byte, sender string) {
	a.t.Helper()
	for _, name := range a.sorted() {
		if name == sender {
			continue
		}
		r, err := a.members[name].Process(message)
		if err != nil {
			a.t.Fatalf("%s: %v", name, err)
		}
		if r.Removed {
			if a.keys[name] != nil && a.sure() {
				a.departed = append(a.departed, name)
			}
			delete(a.members, name)
			delete(a.leavers, name)
		}
	}
}

// signed notes that a member's signature over the epoch is in the log.
func (a *author) signed(epoch uint64) {
	a.proven = a.proven || a.based
	a.doubt = a.doubt && epoch < a.until
}

// commit plays a commit: perhaps nobody tells the log, or its GroupInfo comes first.
func (a *author) commit(name string, o member.CommitOptions, added []string, format string, args ...any) *simStep {
	epoch := a.epoch()
	c := a.propose(name, o)
	if a.script.lossy && a.based && a.random.IntN(6) == 0 {
		a.accept(name, c, added)
		a.based, a.proven = false, false
		return nil
	}
	spoiled := a.script.hostile && a.random.IntN(8) == 0
	if spoiled {
		a.lied(epoch+2, nil)
		a.say(kindCommit, a.spoil(c), "the commit that follows, with a confirmation tag that was changed on its way")
	}
	a.accept(name, c, added)
	if a.based && (a.proven || a.script.trustDS) && a.random.IntN(8) == 0 { // or it would be the base
		a.say(kindInfo, must[[]byte](a.t)(a.members[stayer].GroupInfo()), "its GroupInfo, before the commit that leads to it").sure = false
	}
	a.signed(epoch)
	return a.say(kindCommit, c.Message, "%s commits%s", name, fmt.Sprintf(format, args...))
}

func (a *author) spoil(c *member.Commit) []byte {
	m := must[*mlscore.MLSMessage](a.t)(mlscore.ParseMLSMessage(c.Message, nil))
	m.PublicMessage.ConfirmationTag = bytes.Clone(m.PublicMessage.ConfirmationTag)
	m.PublicMessage.ConfirmationTag[0] ^= 1
	return m.Bytes()
}

// empty commits nothing.
func (a *author) empty() {
	a.commit(a.committer(), member.CommitOptions{References: [][]byte{}}, nil, " nothing")
}

// info publishes the GroupInfo.
func (a *author) info() {
	a.based = true
	a.say(kindInfo, must[[]byte](a.t)(a.members[stayer].GroupInfo()), "the GroupInfo")
}

// join lets a new member join by an external commit; it may leave again before
// the log has the commit.
func (a *author) join(name string) string {
	resync := name != ""
	if !resync {
		name = a.newName()
	}
	info := must[[]byte](a.t)(a.members[stayer].GroupInfo())
	g, c, err := a.client(name).JoinExternal(info, member.ExternalJoinOptions{Resync: resync})
	if err != nil {
		a.t.Fatal(err)
	}
	delete(a.members, name)
	delete(a.leavers, name)
	a.deliver(c.Message, name)
	a.members[name] = g
	a.enter()
	if a.random.IntN(5) == 0 {
		a.leave(name, 0)
		a.script.steps[len(a.script.steps)-1].sure = false // the commit is not there yet
	}
	what := "joins by an external commit"
	if resync {
		what = "comes back by an external commit with resync"
	}
	a.say(kindCommit, c.Message, "%s %s (leaf %d)", name, what, g.OwnLeaf())
	return name
}

// leave signs an intent, published after some acts.
func (a *author) leave(name string, later int) {
	g, mode := a.members[name], intents.RemovalMode(1+a.random.IntN(2))
	leaf := g.OwnLeaf()
	in := must[*intents.LeafOperationIntent](a.t)(intents.New(g.Client().Signer, a.suite, simGroup, leaf, g.Public().Tree().Leaf(leaf), mode))
	h := heldIntent{
		wish: &simWish{id: in.ID(testTenant), who: a.ids[g], seat: a.script.rosters[a.epoch()][leaf], associated: mode == intents.RemoveAssociatedMembers},
		data: in.Message(intents.DefaultWireFormat),
		text: fmt.Sprintf("%s (leaf %d in epoch %d) leaves by intent %s, %s", name, leaf, a.epoch(), short(in.ID(testTenant)), mode),
	}
	a.leavers[name] = true
	if later > 0 {
		a.drawer = append(a.drawer, h)
		return
	}
	a.publish(h)
}

// publish publishes an intent.
func (a *author) publish(h heldIntent) {
	for _, w := range a.script.wishes {
		if w.id == h.wish.id {
			return
		}
	}
	h.wish.from, h.wish.published = a.epoch(), len(a.script.steps)
	a.script.wishes = append(a.script.wishes, h.wish)
	a.say(kindIntent, h.data, "%s", h.text)
}

// ours has a member commit the broker's removals: they are the same bytes
// whoever signs them, so the script need not wait for the broker's.
func (a *author) ours() {
	if !a.sure() {
		return
	}
	var leaves []mlscore.LeafIndex
	for _, w := range a.script.wishes {
		if w.follow(a.script.rosters); w.reused {
			continue
		}
		for _, leaf := range w.fates[a.epoch()].targets {
			if !slices.Contains(leaves, leaf) && !slices.Contains(a.leaving, leaf) {
				leaves = append(leaves, leaf)
			}
		}
	}
	slices.Sort(leaves)
	committer := a.committerBut(leaves)
	var messages [][]byte
	for _, leaf := range leaves {
		message := must[[]byte](a.t)(mlscore.ExternalRemove(a.members[stayer].Public(), a.signer, leaf))
		messages = append(messages, message)
		a.deliver(message, "")
	}
	before := len(a.script.steps)
	a.commit(committer, member.CommitOptions{}, nil, " everything that is pending, with our removals of leaves %v", leaves)
	if len(a.script.steps) > before {
		a.script.steps[before].needs, a.script.steps[before].echo = leaves, messages
	}
}

func (a *author) committerBut(leaves []mlscore.LeafIndex) string {
	for _, name := range a.sorted() {
		g := a.members[name]
		if !a.leavers[name] && !slices.Contains(leaves, g.OwnLeaf()) && !slices.Contains(a.leaving, g.OwnLeaf()) {
			return name
		}
	}
	return stayer
}
