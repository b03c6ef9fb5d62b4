package intents_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// world is a real group with a delivery service that brings every message to
// every member and into a log, and the State that folds the log.
type world struct {
	t       testing.TB
	policy  *intents.Policy
	suite   *mlscore.Suite
	clients map[string]*member.Client
	keys    map[string]*member.KeyPackage
	members map[string]*member.Group     // those who follow the group
	liars   map[string]*member.Group     // those who follow commits that no honest member takes
	drawer  map[string]*mlscore.LeafNode // that members signed and nobody used yet
	signed  map[string][]byte            // intents by name
	names   map[string]string            // names of intents by identifier
	signers map[string]mlscore.Signer

	now            time.Time
	seq            uint64
	log            []intents.Input
	state          *intents.State
	lines          []string // what the command printed
	last           []byte   // the last message of the broker
	kept           []byte   // the last commit
	later          []byte   // a proposal that the log gets later
	welcomeMessage []byte   // of the last commit
	serial         uint32
	private        bool
	snapshots      int               // that were checked
	registry       *mlscore.Registry // of the clients; nil: the default
}

var forever = mlscore.Lifetime{NotAfter: 1 << 40}

var groupID = []byte("group")

func newWorld(t testing.TB, id mlscore.CipherSuite) *world {
	suite, err := mlscore.LookupSuite(id)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, suite: suite, clients: map[string]*member.Client{}, keys: map[string]*member.KeyPackage{},
		members: map[string]*member.Group{}, liars: map[string]*member.Group{}, drawer: map[string]*mlscore.LeafNode{}, signed: map[string][]byte{}, names: map[string]string{}, signers: map[string]mlscore.Signer{},
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	w.policy = &intents.Policy{
		Tenant: "default", Association: true, ParkTTL: 24 * time.Hour, LagWindow: time.Minute, StalledAfter: 3,
		SenderKeys: [][]byte{w.signer("broker").PublicKey()},
	}
	w.state = intents.NewState(w.policy, groupID)
	return w
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *world) signer(name string) mlscore.Signer {
	if w.signers[name] == nil {
		w.serial++
		w.signers[name] = must[mlscore.Signer](w.t)(mlscore.GenerateSigner(w.suite.Signature, &seeded{b: w.serial}))
	}
	return w.signers[name]
}

// seeded is a reproducible source of bytes.
type seeded struct {
	b uint32
	n uint32
}

func (s *seeded) Read(b []byte) (int, error) {
	for i := range b {
		s.n = s.n*1664525 + 1013904223 + s.b
		b[i] = byte(s.n >> 24)
	}
	return len(b), nil
}

// client is the client of a name; "alice/phone" and "alice/tablet" are
// devices of one user, whose credential is the part before the slash.
func (w *world) client(name string) *member.Client {
	if w.clients[name] == nil {
		user, _, _ := strings.Cut(name, "/")
		signer := w.signer("client " + name)
		w.clients[name] = &member.Client{
			CipherSuite: w.suite.ID, Signer: signer, Credential: mlscore.BasicCredential([]byte(user)), Random: &seeded{b: w.serial<<16 + 100},
		}
	}
	w.clients[name].EncryptHandshakes = w.private
	w.clients[name].Registry, w.clients[name].Associate = w.registry, sameUser
	return w.clients[name]
}

// sameUser is the members' Authentication Service: a user is a credential.
func sameUser(g *mlscore.PublicGroup, sender mlscore.LeafIndex) (same []mlscore.LeafIndex, known bool) {
	user := g.Tree().Leaf(sender).Credential.Identity
	for index, leaf := range g.Tree().All() {
		if index != sender && string(leaf.Credential.Identity) == string(user) {
			same = append(same, index)
		}
	}
	return same, true
}

// operation is the LeafOperationProposal of an intent.
func (w *world) operation(name string) *mlscore.Proposal {
	w.t.Helper()
	in := must[*intents.LeafOperationIntent](w.t)(intents.ParseMessage(w.signed[name], intents.DefaultWireFormat))
	return intents.DefaultCodePoints().Proposal(&intents.LeafOperationProposal{Intent: in})
}

func (w *world) printf(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

// feed appends to the log and folds, and checks that the state before is as it
// was.
func (w *world) feed(kind intents.Kind, data []byte) {
	w.now = w.now.Add(time.Second)
	w.seq++
	w.fold(intents.Input{Seq: w.seq, Time: w.now, Kind: kind, Data: data})
}

func (w *world) fold(in intents.Input) {
	w.t.Helper()
	w.log = append(w.log, in)
	before := describe(w.state, w.now)
	next, notices := w.state.Step(in)
	if after := describe(w.state, w.now); after != before {
		w.t.Fatalf("%s changed the state before it:\n%s\nwas\n%s", in.Kind, after, before)
	}
	w.state = next
	for _, n := range notices {
		w.printf("%s", w.notice(n))
	}
}

// describe is everything that a state tells.
func describe(s *intents.State, now time.Time) string {
	b, err := json.Marshal(map[string]any{
		"records": s.Records(), "due": s.Due(now), "later": s.Due(now.Add(1000 * time.Hour)), "pending": s.Pending(), "open": s.Open(),
	})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (w *world) feedJSON(kind intents.Kind, v any) {
	w.feed(kind, must[[]byte](w.t)(json.Marshal(v)))
}

// notice writes a notice on one line.
func (w *world) notice(n intents.Notice) string {
	s := n.Type
	if n.Intent != "" {
		s += " " + w.nameOf(n.Intent)
	}
	if n.Reason != "" {
		s += " (" + n.Reason + ")"
	}
	s += fmt.Sprintf(" epoch=%d", n.Epoch)
	if len(n.Leaves) > 0 {
		s += fmt.Sprintf(" leaves=%v", n.Leaves)
	}
	if n.Commit != "" {
		s += " commit"
	}
	if len(n.Flags) > 0 {
		s += fmt.Sprintf(" flags=%v", n.Flags)
	}
	return s
}

func (w *world) nameOf(id string) string {
	if name, ok := w.names[id]; ok {
		return name
	}
	return id
}

func (w *world) group(name string) *member.Group {
	w.t.Helper()
	if w.members[name] == nil {
		w.t.Fatalf("%q is no member", name)
	}
	return w.members[name]
}

// extensions lists external senders by the names of their signers.
func (w *world) extensions(senders ...string) mlscore.Extensions {
	var list []mlscore.ExternalSender
	for _, name := range senders {
		list = append(list, mlscore.ExternalSender{SignatureKey: w.signer(name).PublicKey(), Credential: mlscore.BasicCredential([]byte(name))})
	}
	return mlscore.Extensions{}.With(mlscore.ExtensionTypeExternalSenders, mlscore.AppendExternalSenders(nil, list))
}

// create makes a group; the first creates it and adds the others.
func (w *world) create(senders []string, names ...string) {
	w.t.Helper()
	g := must[*member.Group](w.t)(w.client(names[0]).Create(groupID, w.extensions(senders...), forever))
	w.members[names[0]] = g
	if len(names) > 1 {
		w.deliver(w.commitOf(names[0], member.CommitOptions{Proposals: w.adds(names[1:])}), nil)
		w.welcome(names[1:])
	}
}

func (w *world) adds(names []string) []*mlscore.Proposal {
	var list []*mlscore.Proposal
	for _, name := range names {
		if w.keys[name] == nil {
			w.keys[name] = must[*member.KeyPackage](w.t)(w.client(name).NewKeyPackage(forever))
		}
		list = append(list, member.Add(w.keys[name].KeyPackage))
	}
	return list
}

func (w *world) commitOf(name string, opts member.CommitOptions) []byte {
	w.t.Helper()
	c := must[*member.Commit](w.t)(w.group(name).Commit(opts))
	w.welcomeMessage = c.Welcome
	return c.Message
}

func (w *world) welcome(names []string) {
	w.t.Helper()
	for _, name := range names {
		w.members[name] = must[*member.Group](w.t)(w.keys[name].Join(w.welcomeMessage, nil))
	}
}

// deliver brings a message to all members, and drops those whom it removes.
func (w *world) deliver(message []byte, except *member.Group) {
	w.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(w.members)) {
		m := w.members[name]
		if m == except {
			continue
		}
		received, err := m.Process(message)
		if err != nil {
			w.t.Fatalf("%s: %v", name, err)
		}
		if received.Removed {
			delete(w.members, name)
		}
	}
}

// any is a member, the same one each time.
func (w *world) any() *member.Group {
	for _, name := range slices.Sorted(maps.Keys(w.members)) {
		return w.members[name]
	}
	w.t.Fatal("no members")
	return nil
}

// sign makes an intent of a member and gives it a name.
func (w *world) sign(name, by string, mode intents.RemovalMode) {
	w.t.Helper()
	g := w.group(by)
	leaf := g.Public().Tree().Leaf(g.OwnLeaf())
	in := must[*intents.LeafOperationIntent](w.t)(intents.New(g.Client().Signer, w.suite, g.GroupID(), g.OwnLeaf(), leaf, mode))
	w.signed[name] = in.Message(intents.DefaultWireFormat)
	w.names[in.ID(w.policy.Tenant)] = name
}

func (w *world) idOf(name string) string {
	for id, n := range w.names {
		if n == name {
			return id
		}
	}
	w.t.Fatalf("no intent %q", name)
	return ""
}

// act does what is due: it stores proposals and timers, and brings the
// proposals to all members. Questions are only printed.
func (w *world) act(perform bool) {
	w.t.Helper()
	due := w.state.Due(w.now)
	if o := due.Propose; o != nil {
		var names []string
		for _, id := range o.Intents {
			names = append(names, w.nameOf(id))
		}
		operations := ""
		if len(o.Operations) > 0 {
			operations = fmt.Sprintf(" operations=%d", len(o.Operations))
		}
		w.printf("propose epoch=%d leaves=%v%s for %s", o.Epoch, o.Leaves, operations, strings.Join(names, " "))
		if perform {
			w.propose(o)
		}
	}
	for _, q := range due.Ask {
		var leaves []mlscore.LeafIndex
		for _, c := range q.Candidates {
			leaves = append(leaves, c.Leaf)
		}
		w.printf("ask for %s epoch=%d sender=%d (%s) candidates=%v failed=%d", w.nameOf(q.Intent), q.Epoch, q.Sender.Leaf, q.Sender.Credential.Identity, leaves, q.Failed)
	}
	for _, c := range due.Control {
		w.printf("control %s %s", c.Op, w.nameOf(c.Intent))
		if perform {
			w.feedJSON(intents.KindControl, c)
		}
	}
	if !due.Wake.IsZero() {
		w.printf("wake in %s", due.Wake.Sub(w.now))
	}
}

func (w *world) propose(o *intents.Order) {
	w.t.Helper()
	for _, message := range w.store(o) {
		w.deliver(message, nil)
		w.last = message
	}
}

// store signs an order and puts it into the log.
func (w *world) store(o *intents.Order) [][]byte {
	w.t.Helper()
	out := intents.Output{GroupID: groupID, Epoch: o.Epoch, Intents: o.Intents}
	g := w.state.Group()
	for _, leaf := range o.Leaves {
		out.Proposals = append(out.Proposals, must[[]byte](w.t)(mlscore.ExternalRemove(g, w.sender(g), leaf)))
	}
	for _, p := range o.Operations {
		out.Proposals = append(out.Proposals, must[[]byte](w.t)(mlscore.ExternalProposal(g, w.sender(g), p)))
	}
	w.feedJSON(intents.KindRemoval, out)
	return out.Proposals
}

// sender is the first signer of ours that the group accepts.
func (w *world) sender(g *mlscore.PublicGroup) mlscore.Signer {
	for _, key := range w.policy.SenderKeys {
		for _, name := range slices.Sorted(maps.Keys(w.signers)) {
			signer := w.signers[name]
			if _, ok := g.ExternalSenderIndex(key); ok && string(signer.PublicKey()) == string(key) {
				return signer
			}
		}
	}
	w.t.Fatal("no signer of ours is an external sender")
	return nil
}
