package mixed

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/stack"
)

// recordDir is where the logs of the differential run go.
var recordDir = flag.String("record", "", "write the beginnings of the logs of the differential run into this `folder`, as JSON Lines")

// recordBytes bounds what -record writes of a log.
const recordBytes = 48 << 10

// mixes are the stacks of the groups of the differential run, in turn.
var mixes = [][]string{
	{stack.OpenMLS, stack.MLSRS, stack.Ours},
	{stack.OpenMLS, stack.Ours},
	{stack.OpenMLS, stack.MLSRS, stack.TSMLS, stack.Ours},
	{stack.MLSRS, stack.Ours},
	{stack.OpenMLS, stack.MLSRS},
	{stack.OpenMLS, stack.MLSRS, stack.TSMLS, stack.BCMLS, stack.Ours},
	{stack.BCMLS, stack.Ours, stack.MLSRS},
	{stack.TSMLS, stack.OpenMLS},
}

const (
	smallEpochs = 30
	largeEpochs = 8
	// largeEvery tells how often a group is large, in groups.
	largeEvery = 10
)

// plannedGroup is a group of the differential run.
type plannedGroup struct {
	number  int
	stacks  []string
	suite   mlscore.CipherSuite
	members int // at most, about
	epochs  int
}

// plan lays out groups of so many epochs in all.
func plan(s *settings, available func(string) bool) (groups []plannedGroup) {
	random := rand.New(rand.NewPCG(s.seed, 0))
	for left := s.epochs; left > 0; {
		g := plannedGroup{number: len(groups), suite: 1, members: 5 + random.IntN(26), epochs: smallEpochs}
		large := g.number%largeEvery == largeEvery-1
		stacks := slices.DeleteFunc(slices.Clone(mixes[g.number%len(mixes)]), func(name string) bool {
			return !available(name) || large && name == stack.TSMLS // too slow for its driver's deadline
		})
		if len(stacks) == 0 {
			stacks = []string{stack.Ours}
		}
		g.stacks = stacks
		if large {
			g.members, g.epochs = 60+random.IntN(141), largeEpochs
		}
		if random.IntN(3) == 0 && !slices.Contains(stacks, stack.TSMLS) {
			g.suite = []mlscore.CipherSuite{2, 3}[random.IntN(2)]
		}
		g.epochs = min(g.epochs, left)
		left -= g.epochs
		groups = append(groups, g)
	}
	return groups
}

// TestDifferential lets members of several stacks do at random what members do,
// in seeded histories of many groups, and compares all members and trackers
// after each epoch. LEAVEBROKER_INTEROP=epochs=5000,seed=7 plays more of them.
// The histories are the same for a seed; keys and secrets are not, as the stacks
// draw them.
func TestDifferential(t *testing.T) {
	s := interoperate(t)
	total := &tally{counts: map[string]int{}}
	t.Cleanup(func() { t.Log(total) })
	groups := plan(s, func(name string) bool { return name == stack.Ours || available(t, name) })
	t.Logf("LEAVEBROKER_INTEROP=epochs=%d,seed=%d: %d groups", s.epochs, s.seed, len(groups))
	for _, g := range groups {
		t.Run(fmt.Sprintf("group-%d", g.number), func(t *testing.T) {
			t.Parallel()
			h := newHistory(t, s.seed, g)
			h.live(g.epochs)
			total.add(h.counts)
		})
	}
}

// available says whether a driver can be had; if not, that is said loudly.
func available(t *testing.T, name string) bool {
	t.Helper()
	d := builtDriver(t, name)
	if d.Missing != "" {
		t.Logf("!! SKIPPED: %s is NOT in the groups: %s", name, d.Missing)
	}
	return d.Missing == ""
}

// tally counts what happened in all groups.
type tally struct {
	mu     sync.Mutex
	counts map[string]int // guarded by mu
}

func (t *tally) add(counts map[string]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for what, n := range counts {
		t.counts[what] += n
	}
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(t.counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", t.counts[what], what))
	}
	return strings.Join(parts, "\n")
}

// history is the random life of one group.
type history struct {
	*world
	plan   plannedGroup
	random *rand.Rand
	signer mlscore.Signer // the external sender
	second []byte         // another one, encoded
	counts map[string]int

	said []string // what happened, for a person
	log  []logLine

	// Of the present epoch:
	waiting map[string]*peer           // whose Add is proposed, by signature key
	touched map[mlscore.LeafIndex]bool // leaves that a proposal is about
	context bool                       // new extensions are proposed
	psks    map[string]bool            // proposed
}

// logLine is a message and what the group is after it.
type logLine struct {
	SelfRemove              mlscore.ProposalType `json:"self_remove,omitempty"` // in the first line
	Message                 []byte               `json:"mls_message"`
	Epoch                   uint64               `json:"epoch"`
	Members                 int                  `json:"members"`
	TreeHash                string               `json:"tree_hash"`
	ConfirmedTranscriptHash string               `json:"confirmed_transcript_hash"`
}

// pskIDs are external PSKs that all clients know.
var pskIDs = []string{"blue", "green", "red"}

func newHistory(t *testing.T, seed uint64, g plannedGroup) *history {
	t.Helper()
	h := &history{plan: g, random: rand.New(rand.NewPCG(seed, 1+uint64(g.number))), counts: map[string]int{}}
	h.world = newDaemonlessWorld(t, worldForm{stacks: g.stacks, suite: g.suite})
	h.heard = h.record
	var err error
	h.signer, err = mlscore.GenerateSigner(h.suite.Signature, rand.NewChaCha8([32]byte{byte(seed), byte(g.number)}))
	h.check(err)
	other, err := mlscore.GenerateSigner(h.suite.Signature, rand.NewChaCha8([32]byte{byte(seed), byte(g.number), 1}))
	h.check(err)
	h.senders, h.second = [][]byte{encodedSender(h.signer, "first")}, encodedSender(other, "second")
	t.Cleanup(h.tell)
	h.newEpoch()
	return h
}

func encodedSender(s mlscore.Signer, name string) []byte {
	sender := mlscore.ExternalSender{SignatureKey: s.PublicKey(), Credential: mlscore.BasicCredential([]byte(name))}
	return sender.Append(nil)
}

func (h *history) newEpoch() {
	h.waiting, h.touched, h.psks = map[string]*peer{}, map[mlscore.LeafIndex]bool{}, map[string]bool{}
	h.context = false
}

// say notes what happens, and counts it.
func (h *history) say(what string, format string, args ...any) {
	h.counts[what]++
	h.said = append(h.said, fmt.Sprintf("epoch %d: %s: %s", h.epoch(), what, fmt.Sprintf(format, args...)))
}

func (h *history) record(message []byte) {
	g := h.public.Group()
	line := logLine{
		Message: message, Epoch: g.Epoch(), Members: g.Tree().Members(), TreeHash: hex.EncodeToString(g.Tree().TreeHash()),
		ConfirmedTranscriptHash: hex.EncodeToString(g.ConfirmedTranscriptHash()),
	}
	if len(h.log) == 0 {
		line.SelfRemove = h.reg.SelfRemove
	}
	h.log = append(h.log, line)
}

// tell tells the history of a group that failed, and writes its log where that
// is wanted.
func (h *history) tell() {
	dir, most := *recordDir, recordBytes
	if h.Failed() {
		h.Logf("%s, suite %d, %d members:\n%s", &h.form, h.suite.ID, h.plan.members, strings.Join(h.said, "\n"))
		dir, most = h.ArtifactDir(), math.MaxInt
	}
	if dir == "" {
		return
	}
	var b []byte
	for _, line := range h.log {
		text, err := json.Marshal(line)
		if err != nil {
			h.Error(err)
		}
		if len(b)+len(text) >= most {
			break
		}
		b = append(append(b, text...), '\n')
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-suite%d-%d.jsonl", strings.ReplaceAll(h.form.String(), "+", "-"), h.suite.ID, h.plan.number))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		h.Error(err)
	}
	h.Logf("the log is in %s", path)
}

// live is the life of the group.
func (h *history) live(epochs int) {
	h.turn = h.random.IntN(len(h.stacks))
	first := 2 + h.random.IntN(3)
	if h.plan.members > 30 {
		first = h.plan.members * 9 / 10
	}
	h.found(h.names(first)...)
	for _, p := range h.peers {
		h.storePSKs(p)
	}
	for range epochs {
		h.proposals()
		switch n := h.random.IntN(100); {
		case n < 15:
			h.joinExternally()
		case n < 25, len(h.lost) > 0 && n < 50:
			h.resync()
		default:
			h.commitSomething()
		}
		h.newEpoch()
		h.counts["epochs"]++
		h.counts["members"] += len(h.peers)
	}
}

func (h *history) storePSKs(p *peer) {
	h.Helper()
	for _, id := range pskIDs {
		if err := p.StorePSK([]byte(id), fmt.Appendf(nil, "the secret of %32s", id)); limitation(err, nil) == "" {
			h.check(err)
		}
	}
}

// newcomer is a client that knows the PSKs.
func (h *history) newcomer() *peer {
	h.Helper()
	h.turn = h.random.IntN(len(h.stacks))
	p := h.next(h.name())
	h.storePSKs(p)
	return p
}

func (h *history) any() *peer { return h.peers[h.random.IntN(len(h.peers))] }

// free are the members that no proposal is about.
func (h *history) free() []*peer {
	return slices.DeleteFunc(slices.Clone(h.peers), func(p *peer) bool { return h.touched[h.leaf(p)] })
}

// proposals lets members and the external sender propose.
func (h *history) proposals() {
	for range h.random.IntN(4) {
		h.proposal()
	}
}

func (h *history) proposal() {
	by := h.any()
	free := h.free()
	few := len(free) < 3 // somebody has to commit
	other := free[h.random.IntN(len(free))]
	switch what := h.random.IntN(8); {
	case what < 2 && h.tree().Members() < h.plan.members:
		p := h.newcomer()
		if h.sent(by, stack.Add(got[[]byte](h.world)(p.KeyPackage())), "%s is to be added", sender(p)) {
			h.waiting[string(p.key)] = p
		}
	case what == 2 && !few:
		leaf := h.leaf(other)
		if h.sent(other, stack.Proposal{Kind: stack.KindUpdate}, "leaf %d", leaf) {
			h.touched[leaf] = true
		}
	case what == 3 && !few && other != by:
		leaf := h.leaf(other)
		if h.sent(by, stack.Remove(leaf), "of %s at leaf %d", sender(other), leaf) {
			h.touched[leaf] = true
		}
	case what == 4 && !few:
		leaf := h.leaf(other)
		message := got[[]byte](h.world)(mlscore.ExternalRemove(h.public.Group(), h.signer, leaf))
		h.say("removes by the external sender", "of %s at leaf %d", sender(other), leaf)
		h.touched[leaf] = true
		h.spread(nil, message)
	case what == 5 && !h.context:
		h.context = h.sent(by, stack.NewContext(h.newContext()), "")
	case what == 6:
		id := h.newPSK()
		if id != nil && h.sent(by, stack.PSK(id), "%s", id) {
			h.psks[string(id)] = true
		}
	case what == 7 && !few && h.selfRemoves():
		leaf := h.leaf(other)
		if h.sent(other, stack.Proposal{Kind: stack.KindSelfRemove}, "leaf %d", leaf) {
			h.touched[leaf] = true
		}
	}
}

// selfRemoves says whether all stacks have the SelfRemove of the group: others
// cannot even decode it.
func (h *history) selfRemoves() bool {
	return !slices.ContainsFunc(h.stacks, func(s stack.Stack) bool { return s.Hello().SelfRemove != h.reg.SelfRemove })
}

// sent lets a member propose, unless its stack cannot.
func (h *history) sent(by *peer, p stack.Proposal, format string, args ...any) bool {
	h.Helper()
	message, err := by.Propose(p)
	if h.cannot(by, err) {
		return false
	}
	h.say("proposals: "+p.Kind, "by %s at leaf %d: %s", sender(by), h.leaf(by), fmt.Sprintf(format, args...))
	h.spread(by, message)
	return true
}

// cannot says whether an error is a limit of a member's stack, and counts it. Any
// other error ends the test.
func (h *history) cannot(p *peer, err error) bool {
	h.Helper()
	limit := limitation(err, h.circumstances(p), p.stack)
	if limit == "" {
		if err != nil {
			h.check(fmt.Errorf("%s: %w", sender(p), err))
		}
		return false
	}
	h.say("times: "+limit, "%s", sender(p))
	return true
}

// newContext has our external sender, and a second one or not.
func (h *history) newContext() stack.Context {
	c := stack.Context{ExternalSenders: slices.Clone(h.senders)}
	if h.random.IntN(2) == 0 {
		c.ExternalSenders = append(c.ExternalSenders, h.second)
	}
	return c
}

// newPSK is one that is not proposed yet, nil if none is.
func (h *history) newPSK() []byte {
	id := pskIDs[h.random.IntN(len(pskIDs))]
	if h.psks[id] {
		return nil
	}
	return []byte(id)
}

// commitSomething lets a member commit, one whose stack can.
func (h *history) commitSomething() {
	o := stack.CommitOptions{ByReference: h.random.IntN(8) > 0, ForcePath: h.random.IntN(2) == 0}
	free := h.free()
	h.random.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	var added []*peer
	for range h.random.IntN(3) {
		switch what := h.random.IntN(4); {
		case what < 2 && h.tree().Members() < h.plan.members:
			p := h.newcomer()
			added = append(added, p)
			o.Proposals = append(o.Proposals, stack.Add(got[[]byte](h.world)(p.KeyPackage())))
		case what == 2 && len(free) > 2:
			o.Proposals = append(o.Proposals, stack.Remove(h.leaf(free[0])))
			free = free[1:]
		case what == 3 && !h.context:
			h.context = true
			o.Proposals = append(o.Proposals, stack.NewContext(h.newContext()))
		}
	}
	if id := h.newPSK(); id != nil && h.random.IntN(6) == 0 {
		o.Proposals = append(o.Proposals, stack.PSK(id))
	}
	for _, by := range free {
		if h.tryCommit(by, o, added) {
			return
		}
	}
	h.say("commits by nobody", "")
	h.joinExternally()
}

// tryCommit lets a member commit, if its stack can.
func (h *history) tryCommit(by *peer, o stack.CommitOptions, added []*peer) bool {
	made, err := by.Commit(o)
	if h.cannot(by, err) {
		return false
	}
	staged := h.judge(by, made.Commit)
	if staged == nil {
		h.check(by.Discard())
		return false
	}
	h.say("commits by "+by.stack, "by %s at leaf %d: removes %v, updates %v, adds %v by %d proposals, reference %t, path forced %t",
		sender(by), h.leaf(by), staged.Removed, staged.Updated, staged.Added, len(staged.Applied), o.ByReference, o.ForcePath)
	for _, p := range added {
		h.waiting[string(p.key)] = p
	}
	var joiners []*peer
	for _, leaf := range staged.Added {
		p := h.waiting[string(staged.Next().Tree().Leaf(leaf).SignatureKey)]
		if p == nil {
			h.Fatalf("somebody unknown was added at leaf %d", leaf)
		}
		joiners = append(joiners, p)
	}
	h.accept(by, made, joiners...)
	h.findLost()
	return true
}

// judge is the delivery service's look at a commit: nil for one that is known to
// be wrong, by a limit of its stack.
func (h *history) judge(by *peer, commit []byte) *mlscore.Staged {
	h.Helper()
	m := got[*mlscore.MLSMessage](h.world)(mlscore.ParseMLSMessage(commit, h.reg))
	if by.stack == tsMLS || by.stack == stack.BCMLS {
		wrong, err := rootLeftOut(h.public.Group(), m)
		h.check(err)
		if wrong {
			h.say("commits of "+by.stack+" refused: the root is blank", "%s", sender(by))
			return nil
		}
	}
	staged, err := h.public.Group().Stage(m)
	if err != nil {
		h.check(fmt.Errorf("our tracker refuses a commit of %s: %w", sender(by), err))
	}
	return staged
}

// findLost drops those from the lost who are not in the tree any more.
func (h *history) findLost() {
	h.lost = slices.DeleteFunc(h.lost, func(p *peer) bool {
		_, found := h.tree().FindSignatureKey(p.key)
		return !found
	})
}

// joinExternally lets a newcomer join by an external commit.
func (h *history) joinExternally() {
	for range 10 { // until there is one whose stack can
		p := h.newcomer()
		o := stack.ExternalJoin{GroupInfo: h.anyInfo()}
		if h.random.IntN(4) == 0 {
			o.PSKs = [][]byte{[]byte(pskIDs[h.random.IntN(len(pskIDs))])}
		}
		for pending := range h.public.Group().Proposals() {
			if pending.Proposal.IsSelfRemove() {
				o.SelfRemoves = append(o.SelfRemoves, pending.Message())
			}
		}
		if ok, _ := h.external(p, o, "external joins"); ok {
			return
		}
	}
	h.say("external joins by nobody", "")
}

// external lets a client send an external commit, if its stack can. If nothing
// came of it, intact says whether the client is as it was before.
func (h *history) external(p *peer, o stack.ExternalJoin, what string) (ok, intact bool) {
	commit, err := p.ExternalJoin(o)
	if h.cannot(p, err) {
		return false, true
	}
	staged := h.judge(p, commit)
	if staged == nil {
		return false, false
	}
	h.say(what, "of %s: removes %v, adds %v, %d PSKs", sender(p), staged.Removed, staged.Added, len(o.PSKs))
	h.joined(p, commit)
	h.findLost()
	return true, true
}

// resync lets a member come back that has lost its state, or might have.
func (h *history) resync() {
	p := h.any()
	if len(h.lost) > 0 {
		p = h.lost[h.random.IntN(len(h.lost))]
	}
	peers, lost := h.peers, h.lost
	is := func(o *peer) bool { return o == p }
	h.peers, h.lost = slices.DeleteFunc(slices.Clone(peers), is), slices.DeleteFunc(slices.Clone(lost), is)
	ok, intact := false, true
	if len(h.peers) > 0 {
		ok, intact = h.external(p, stack.ExternalJoin{GroupInfo: h.anyInfo(), Resync: true}, "resyncs")
	}
	switch {
	case ok:
		return
	case intact:
		h.peers, h.lost = peers, lost
	default:
		h.lost = append(h.lost, p)
	}
	h.joinExternally()
}

// anyInfo describes the group, by a member that can.
func (h *history) anyInfo() []byte {
	for range 100 {
		by := h.any()
		info, err := by.GroupInfo()
		if !h.cannot(by, err) {
			return info
		}
	}
	h.Fatal("no member describes the group")
	return nil
}
