package mixed

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"leavebroker/broker/delivery"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/stack"
)

// worldForm says what group a test wants.
type worldForm struct {
	stacks     []string // they take turns
	suite      mlscore.CipherSuite
	selfRemove bool // all members have to know the same SelfRemove
	operations bool // removals are LeafOperationProposals, which all members expand
	users      [][]string
}

// world is a group of members of several stacks, its delivery service, and who
// tracks it. The delivery service accepts one commit for each epoch and hands
// every message to everybody before the next.
type world struct {
	*testing.T
	form   worldForm
	house  *house
	tenant string
	ds     *delivery.Service
	suite  *mlscore.Suite
	id     []byte
	reg    *mlscore.Registry

	stacks   []stack.Stack
	turn     int // whose member is next
	peers    []*peer
	public   *stack.Public
	trackers []foreignTracker
	named    int
	before   *mlscore.RatchetTree // before the last message
	lost     []*peer              // who is in the tree and cannot follow any more
	notes    []string             // what stacks could not do, though the test went on
	between  func()               // called before every message
	heard    func(message []byte) // called with every message, when our tracker has it
	senders  [][]byte             // encoded ExternalSenders that the group installs
}

// peer is a member that is in the group and has its state.
type peer struct {
	stack.Member
	name  string // its identity
	stack string
	key   []byte
}

type foreignTracker struct {
	stack.Tracker
	name string
}

func newWorld(t *testing.T, h *house, form worldForm) *world {
	t.Helper()
	w := newDaemonlessWorld(t, form)
	w.house = h
	w.tenant = tenantForm{w.reg.SelfRemove, form.operations}.name()
	w.ds = h.service(t, w.tenant)
	w.senders = [][]byte{h.sender(w.suite)}
	return w
}

// newDaemonlessWorld is a world in which no daemon hears what is delivered.
func newDaemonlessWorld(t *testing.T, form worldForm) *world {
	t.Helper()
	w := &world{T: t, form: form, id: []byte(t.Name()), between: func() {}, heard: func([]byte) {}}
	if len(w.id) > 60 {
		w.id = w.id[len(w.id)-60:]
	}
	var err error
	w.suite, err = mlscore.LookupSuite(form.suite)
	w.check(err)
	w.reg = w.startStacks().Registry()
	return w
}

// startStacks starts the stacks of the group, and gives its code points, that of
// SelfRemove from a foreign stack if there is one.
func (w *world) startStacks() stack.Points {
	w.Helper()
	code := mlscore.ProposalType(0)
	w.stacks = make([]stack.Stack, len(w.form.stacks))
	for i, name := range w.form.stacks {
		if name == stack.Ours {
			continue
		}
		w.stacks[i] = startStack(w.T, name)
		h := w.stacks[i].Hello()
		if !slices.Contains(h.Suites, w.suite.ID) {
			w.Skipf("LIMITATION: %s %s has not cipher suite %d", h.Stack, h.Version, w.suite.ID)
		}
		switch {
		case !w.form.selfRemove:
		case h.SelfRemove == 0:
			w.Skipf("LIMITATION: %s %s has no SelfRemove", h.Stack, h.Version)
		case code != 0 && code != h.SelfRemove:
			w.Skipf("LIMITATION: SelfRemove is 0x%04x in %s and 0x%04x in another stack; a group has one code point", uint16(h.SelfRemove), h.Stack, uint16(code))
		}
		if code == 0 {
			code = h.SelfRemove
		}
	}
	points := stack.Points{SelfRemove: code, Custom: w.custom()}
	defaults := mlscore.DefaultRegistry()
	if code == 0 {
		points.SelfRemove = defaults.SelfRemove
	}
	if !slices.Contains(w.form.stacks, stack.BCMLS) {
		// bcmls 1.84 takes the type of an extension in a leaf, as a signed number, for
		// an index of those it knows (codec/Extension.java): no leaf of ours has one there.
		points.LeafNodeEpoch = defaults.LeafNodeEpoch
	}
	for i := range w.stacks {
		if w.stacks[i] == nil {
			w.stacks[i] = stack.Own(points)
		}
	}
	return points
}

func (w *world) custom() mlscore.ProposalType {
	if w.form.operations {
		return customType
	}
	return 0
}

// check ends the test on an error. What a stack cannot do skips it, and says so:
// the stacks are those that the error may be about.
func (w *world) check(err error, stacks ...string) {
	w.Helper()
	switch limit := limitation(err, w.circumstances(nil), stacks...); {
	case err == nil:
	case limit != "":
		w.Skipf("LIMITATION: %s", limit)
	default:
		w.Fatalf("epoch %d: %v", w.epoch(), err)
	}
}

// circumstances are those of an error of a member, or of anybody.
func (w *world) circumstances(p *peer) *circumstances {
	if w.public == nil {
		return nil
	}
	c := &circumstances{before: w.before, after: w.tree()}
	if p != nil {
		c.key = p.key
	}
	return c
}

// tree is that of the present epoch, nil before there is one.
func (w *world) tree() *mlscore.RatchetTree {
	if w.public == nil {
		return nil
	}
	return w.public.Group().Tree()
}

// lose drops a member that cannot go on because of a limit of its stack, and
// notes it. Its leaf stays.
func (w *world) lose(p *peer, err error) {
	w.Helper()
	limit := limitation(err, w.circumstances(p), p.stack)
	if limit == "" {
		w.check(err)
	}
	if note := fmt.Sprintf("%s is left behind: %s", p.stack, limit); !slices.Contains(w.notes, note) {
		w.notes = append(w.notes, note)
		w.Logf("LIMITATION in epoch %d: %s", w.epoch(), note)
	}
	w.lost = append(w.lost, p)
}

// got gives a value that came without an error.
func got[T any](w *world) func(T, error) T {
	return func(v T, err error) T {
		w.Helper()
		w.check(err)
		return v
	}
}

func (w *world) epoch() uint64 {
	if w.public == nil {
		return 0
	}
	return w.public.Group().Epoch()
}

// next makes a client of the stack whose turn it is.
func (w *world) next(identity string) *peer {
	w.Helper()
	s := w.stacks[w.turn%len(w.stacks)]
	w.turn++
	return w.client(s, identity)
}

func (w *world) client(s stack.Stack, identity string) *peer {
	w.Helper()
	o := stack.MemberOptions{Suite: w.suite.ID, Identity: []byte(identity), Custom: w.custom(), Associated: w.users()}
	m := got[stack.Member](w)(s.NewMember(o))
	return &peer{m, identity, s.Hello().Stack, m.Keys().Public}
}

func (w *world) users() [][][]byte {
	var users [][][]byte
	for _, user := range w.form.users {
		var identities [][]byte
		for _, name := range user {
			identities = append(identities, []byte(name))
		}
		users = append(users, identities)
	}
	return users
}

// name is an identity that nobody has.
func (w *world) name() string {
	w.named++
	return fmt.Sprintf("member-%d:only", w.named)
}

func (w *world) names(n int) (names []string) {
	for range n {
		names = append(names, w.name())
	}
	return names
}

// found makes the group: everybody who tracks it gets the first GroupInfo, and
// the commit by which its creator adds the others.
func (w *world) found(names ...string) {
	w.Helper()
	creator := w.next(names[0])
	w.check(creator.Create(w.id, stack.Context{ExternalSenders: w.senders}))
	w.peers = []*peer{creator}
	info := got[[]byte](w)(creator.GroupInfo())
	w.deliver("info", info)
	w.public = got[*stack.Public](w)(stack.NewPublic(info, w.reg, w.users()))
	w.heard(info)
	w.track(info)
	w.agree()
	w.add(creator, names[1:]...)
}

// track starts the trackers of the foreign stacks.
func (w *world) track(info []byte) {
	w.Helper()
	for i, s := range w.stacks {
		hello := s.Hello()
		if hello.Stack == stack.Ours || !hello.Has("track") || slices.Contains(w.form.stacks[:i], hello.Stack) {
			continue
		}
		t, state, err := s.NewTracker(info, stack.TrackerOptions{Custom: w.custom(), Associated: w.users()})
		w.check(err)
		if err := w.public.State().Differs(state); err != nil {
			w.Fatalf("the tracker of %s starts with %v", hello.Stack, err)
		}
		w.trackers = append(w.trackers, foreignTracker{t, hello.Stack})
	}
}

// add lets a member add others, who join.
func (w *world) add(by *peer, names ...string) {
	w.Helper()
	var o stack.CommitOptions
	var joiners []*peer
	for _, name := range names {
		p := w.next(name)
		joiners = append(joiners, p)
		o.Proposals = append(o.Proposals, stack.Add(got[[]byte](w)(p.KeyPackage())))
	}
	w.commit(by, o, joiners...)
}

// deliver hands a message to the daemon, which may be away for a moment.
func (w *world) deliver(kind string, message []byte) {
	w.Helper()
	w.between()
	ctx := w.Context()
	if w.ds == nil {
		return
	}
	switch kind {
	case "info":
		w.check(w.ds.GroupInfo(ctx, w.id, message))
	case "proposal":
		w.check(w.ds.Proposal(ctx, w.id, message))
	case "commit":
		w.check(w.ds.Commit(ctx, w.id, message))
	}
}

// commit lets a member commit, and brings it to everybody.
func (w *world) commit(by *peer, o stack.CommitOptions, joiners ...*peer) *mlscore.Staged {
	w.Helper()
	made, err := by.Commit(o)
	w.check(err, by.stack)
	return w.accept(by, made, joiners...)
}

// accept takes a commit for the epoch, and brings it to everybody.
func (w *world) accept(by *peer, made *stack.Commit, joiners ...*peer) *mlscore.Staged {
	w.Helper()
	w.deliver("commit", made.Commit)
	w.check(by.Confirm())
	staged := w.spread(by, made.Commit)
	for _, p := range joiners {
		if err := p.Join(made.Welcome); err != nil {
			w.lose(p, fmt.Errorf("%s, welcomed by %s: %w", p.name, by.stack, err))
			continue
		}
		w.peers = append(w.peers, p)
	}
	w.agree()
	return staged
}

// commitPending lets a member commit what the members know.
func (w *world) commitPending(by *peer) *mlscore.Staged {
	w.Helper()
	return w.commit(by, stack.CommitOptions{ByReference: true})
}

// empty lets a member commit nothing but a path.
func (w *world) empty(by *peer) *mlscore.Staged {
	w.Helper()
	return w.commit(by, stack.CommitOptions{ForcePath: true})
}

// propose lets a member propose, and brings it to everybody.
func (w *world) propose(by *peer, p stack.Proposal) []byte {
	w.Helper()
	message := got[[]byte](w)(by.Propose(p))
	w.deliver("proposal", message)
	w.spread(by, message)
	return message
}

// join lets a client join by an external commit.
func (w *world) join(p *peer, o stack.ExternalJoin) *mlscore.Staged {
	w.Helper()
	o.GroupInfo = w.info()
	commit := got[[]byte](w)(p.ExternalJoin(o))
	return w.joined(p, commit)
}

// info describes the group, by the first member that can.
func (w *world) info() []byte {
	w.Helper()
	var info []byte
	err := errors.New("no members")
	for _, by := range w.peers {
		if info, err = by.GroupInfo(); err == nil {
			break
		}
	}
	w.check(err)
	return info
}

// joined takes an external commit for the epoch, and brings it to everybody.
func (w *world) joined(p *peer, commit []byte) *mlscore.Staged {
	w.Helper()
	w.deliver("commit", commit)
	staged := w.spread(p, commit)
	w.peers = append(w.peers, p)
	w.agree()
	return staged
}

// spread brings a message to all who track the group and to all members but
// its sender. It tells what the message did.
func (w *world) spread(from *peer, message []byte) *mlscore.Staged {
	w.Helper()
	w.before = w.tree()
	staged, err := w.public.Stage(message)
	if err != nil {
		w.check(fmt.Errorf("our tracker refuses a message of %s: %w", sender(from), err))
	}
	w.heard(message)
	for _, t := range w.trackers {
		state, err := t.Track(message)
		if err == nil {
			err = w.public.State().Differs(state)
		}
		if err != nil {
			w.check(fmt.Errorf("the tracker of %s, about a message of %s: %w", t.name, sender(from), err), t.name)
		}
	}
	commit := staged.Kind != mlscore.StagedProposal
	left := w.peers[:0:0]
	for _, p := range w.peers {
		if p == from {
			left = append(left, p)
			continue
		}
		r, err := p.Process(message)
		if err != nil {
			err = fmt.Errorf("%s of %s, about a message of %s: %w", p.name, p.stack, sender(from), err)
			if _, stays := w.tree().FindSignatureKey(p.key); !stays && missesRemoval(p, err) {
				continue
			}
			if commit && limitation(err, w.circumstances(p), p.stack) != "" {
				w.lose(p, err)
				continue
			}
			w.check(err, append(stackOf(from), p.stack)...)
		}
		if commit != (r.Kind == "commit") {
			w.Fatalf("%s of %s takes a message for a %s", p.name, p.stack, r.Kind)
		}
		_, stays := w.public.Group().Tree().FindSignatureKey(p.key)
		if r.Removed == stays {
			w.Fatalf("%s of %s: removed is %t, in the tree is %t", p.name, p.stack, r.Removed, stays)
		}
		if stays {
			left = append(left, p)
		}
	}
	w.peers = left
	return staged
}

func stackOf(p *peer) []string {
	if p == nil {
		return nil
	}
	return []string{p.stack}
}

func sender(p *peer) string {
	if p == nil {
		return "the daemon"
	}
	return p.name + " of " + p.stack
}

// agree compares what everybody makes of the epoch.
func (w *world) agree() {
	w.Helper()
	want := w.public.State()
	var secret []byte
	for _, p := range w.peers {
		s := got[*stack.State](w)(p.State())
		if err := want.Differs(s); err != nil {
			w.Fatalf("epoch %d: %s of %s has %v", want.Epoch, p.name, p.stack, err)
		}
		leaf := w.leaf(p)
		if s.OwnLeaf != nil && *s.OwnLeaf != leaf {
			w.Fatalf("epoch %d: %s of %s is at leaf %d and takes itself for %d", want.Epoch, p.name, p.stack, leaf, *s.OwnLeaf)
		}
		switch {
		case len(s.EpochAuthenticator) == 0:
			w.Fatalf("epoch %d: %s of %s has no epoch authenticator", want.Epoch, p.name, p.stack)
		case secret == nil:
			secret = s.EpochAuthenticator
		case !bytes.Equal(secret, s.EpochAuthenticator):
			w.Fatalf("epoch %d: %s of %s has another epoch authenticator", want.Epoch, p.name, p.stack)
		}
	}
	if w.ds != nil {
		w.agreeWithDaemon(want)
	}
}

// agreeWithDaemon compares with what the daemon shows of the group.
func (w *world) agreeWithDaemon(want *stack.State) {
	w.Helper()
	var shown struct {
		Epoch                   uint64 `json:"epoch"`
		Members                 int    `json:"members"`
		TreeHash                string `json:"tree_hash"`
		ConfirmedTranscriptHash string `json:"confirmed_transcript_hash"`
	}
	w.await(func() string {
		err := w.again(func(ctx context.Context) error {
			return w.ds.Request(ctx, "group.show", map[string][]byte{"group_id": w.id}, &shown)
		})
		switch {
		case err != nil:
			return fmt.Sprintf("the daemon shows no group: %v", err)
		case shown.Epoch != want.Epoch:
			return fmt.Sprintf("the daemon is in epoch %d, not %d", shown.Epoch, want.Epoch)
		}
		return ""
	})
	if shown.TreeHash != hex.EncodeToString(want.TreeHash) || shown.Members != len(want.Members) ||
		shown.ConfirmedTranscriptHash != hex.EncodeToString(want.ConfirmedTranscriptHash) {
		w.Fatalf("epoch %d: the daemon shows %+v", want.Epoch, shown)
	}
}

// await waits until nothing is missing any more.
func (w *world) await(missing func() string) {
	w.Helper()
	for begin := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		what := missing()
		if what == "" {
			return
		}
		if time.Since(begin) > patience {
			w.Fatalf("after %s: %s", patience, what)
		}
	}
}

// again calls the daemon until it answers, and gives what it says of its own.
func (w *world) again(call func(context.Context) error) error {
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(w.Context(), 3*time.Second)
		err := call(ctx)
		cancel()
		refusal := (*delivery.Refusal)(nil)
		if err == nil || errors.As(err, &refusal) && refusal.Code != "503" || time.Since(begin) > patience {
			return err
		}
	}
}

// leaf is where a member is in the tree.
func (w *world) leaf(p *peer) mlscore.LeafIndex {
	w.Helper()
	leaf, found := w.public.Group().Tree().FindSignatureKey(p.key)
	if !found {
		w.Fatalf("%s of %s is not in the tree", p.name, p.stack)
	}
	return leaf
}

// sign gives a member's intent, with the key that its stack keeps.
func (w *world) sign(p *peer, mode intents.RemovalMode) []byte {
	w.Helper()
	signer := got[mlscore.Signer](w)(mlscore.NewSigner(w.suite.Signature, p.Keys().Private))
	leaf := w.leaf(p)
	in := got[*intents.LeafOperationIntent](w)(intents.New(signer, w.suite, w.id, leaf, w.public.Group().Tree().Leaf(leaf), mode))
	return in.Message(intents.DefaultWireFormat)
}

// submit hands an intent to the daemon and gives its verdict.
func (w *world) submit(intent []byte) *delivery.Verdict {
	w.Helper()
	w.between()
	var v *delivery.Verdict
	w.check(w.again(func(ctx context.Context) (err error) {
		v, err = w.ds.SubmitIntent(ctx, intent, 2*time.Second)
		return err
	}))
	return v
}

// vanish drops a member: nobody hears of it any more.
func (w *world) vanish(p *peer) {
	w.Helper()
	w.check(p.Forget())
	w.peers = slices.DeleteFunc(w.peers, func(o *peer) bool { return o == p })
}

// leave lets a member sign an intent, hand it over and vanish. It gives the
// intent's id.
func (w *world) leave(p *peer, mode intents.RemovalMode) string {
	w.Helper()
	intent := w.sign(p, mode)
	w.vanish(p)
	return w.submit(intent).ID
}

// awaitState waits until an intent stands as wanted.
func (w *world) awaitState(id, state string, confirmed bool) {
	w.Helper()
	w.awaitReason(id, state, "", confirmed)
}

func (w *world) awaitReason(id, state, reason string, confirmed bool) {
	w.Helper()
	w.await(func() string {
		var v *delivery.Verdict
		err := w.again(func(ctx context.Context) (err error) {
			v, err = w.ds.IntentStatus(ctx, w.id, id)
			return err
		})
		if err != nil {
			return err.Error()
		}
		if v.State == state && v.Confirmed == confirmed && (reason == "" || v.Reason == reason) {
			return ""
		}
		return fmt.Sprintf("the intent is %+v, not %s %s, confirmed %t", v, state, reason, confirmed)
	})
}

// awaitRemovals waits until the daemon has sent proposals for this epoch that
// remove exactly these leaves, and hands them on.
func (w *world) awaitRemovals(leaves ...mlscore.LeafIndex) {
	w.Helper()
	var proposals [][]byte
	w.await(func() string {
		proposals = w.house.arrived(w.id, w.epoch())
		var removed []mlscore.LeafIndex
		for _, p := range proposals {
			removed = append(removed, w.removedBy(p)...)
		}
		slices.Sort(removed)
		if slices.Equal(removed, leaves) {
			return ""
		}
		return fmt.Sprintf("the daemon proposes to remove %v in epoch %d, not %v", removed, w.epoch(), leaves)
	})
	for _, p := range proposals {
		w.between()
		w.spread(nil, p)
	}
}

// removedBy are the leaves that a proposal of the daemon removes.
func (w *world) removedBy(message []byte) []mlscore.LeafIndex {
	w.Helper()
	m := got[*mlscore.MLSMessage](w)(mlscore.ParseMLSMessage(message, w.reg))
	p := m.PublicMessage.Content.Proposal
	if m.PublicMessage.Content.Sender.Type != mlscore.SenderTypeExternal {
		w.Fatalf("a proposal of the daemon by %+v", m.PublicMessage.Content.Sender)
	}
	g := w.public.Group()
	x := got[*mlscore.Expansion](w)(g.Expand(p))
	switch {
	case x != nil:
		return got[[]mlscore.LeafIndex](w)(g.Removes(x, func(sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
			return stack.Associated(g, w.users(), sender), true
		}))
	case w.form.operations:
		w.Fatalf("the daemon proposes a %s, not a LeafOperationProposal", p.Type)
	case p.Type != mlscore.ProposalTypeRemove:
		w.Fatalf("the daemon proposes a %s", p.Type)
	}
	return []mlscore.LeafIndex{p.Removed}
}

// pending asks what the daemon has for this epoch.
func (w *world) pending() *delivery.Pending {
	w.Helper()
	var p *delivery.Pending
	w.await(func() string {
		err := w.again(func(ctx context.Context) (err error) {
			p, err = w.ds.Pending(ctx, w.id)
			return err
		})
		if err != nil {
			return err.Error()
		}
		if p.Epoch != w.epoch() {
			return fmt.Sprintf("the daemon is in epoch %d, not %d", p.Epoch, w.epoch())
		}
		return ""
	})
	return p
}

// quiet checks that the daemon proposes nothing in this epoch.
func (w *world) quiet() {
	w.Helper()
	if p := w.pending(); len(p.Proposals) != 0 {
		w.Fatalf("the daemon proposes %d removals in epoch %d", len(p.Proposals), w.epoch())
	}
	if n := len(w.house.arrived(w.id, w.epoch())); n != 0 {
		w.Fatalf("the daemon sent %d removals for epoch %d", n, w.epoch())
	}
}

// gone checks that a commit removed exactly these leaves.
func (w *world) gone(staged *mlscore.Staged, leaves ...mlscore.LeafIndex) {
	w.Helper()
	if !slices.Equal(staged.Removed, leaves) {
		w.Fatalf("the commit into epoch %d removed %v, not %v", w.epoch(), staged.Removed, leaves)
	}
}

// String names the stacks.
func (f *worldForm) String() string { return strings.Join(f.stacks, "+") }
