package intents

import (
	"fmt"
	"iter"
	"slices"

	"leavebroker/mlscore"
)

// elsewhere yields what may be true beside the State, of one epoch.
func (s *State) elsewhere(epoch uint64) iter.Seq[*node] {
	return func(yield func(*node) bool) {
		if s.fork == nil {
			return
		}
		for _, n := range s.fork.nodes {
			if n.id != s.head && n.group.Epoch() == epoch && !yield(n) {
				return
			}
		}
	}
}

// spoken notes that a member signed over epochs.
func (x *step) spoken(hits []hit) {
	if x.fork == nil {
		x.prove(x.group.Epoch())
		return
	}
	var ids []int
	for _, h := range hits {
		ids = append(ids, h.epoch)
	}
	epoch := x.group.Epoch()
	if n := x.fork.at(ids[0]); n.id != x.head {
		epoch = n.group.Epoch()
	}
	x.fork = x.fork.settle(ids)
	if x.fork.at(x.head) == nil {
		x.turn(x.fork.deepest().id)
	} else {
		x.prove(epoch)
	}
	if len(ids) == 1 && ids[0] == x.head {
		x.fork = nil
	}
}

// advance takes a commit into every epoch for which it was made. The State
// follows it, unless it is in a deeper epoch.
func (x *step) advance(hits []hit) {
	next := -1
	for i, h := range hits {
		if h.epoch == x.head {
			next = i
		}
	}
	if next < 0 {
		if h := hits[0]; x.fork.at(h.epoch).group.Epoch() == x.group.Epoch() {
			x.turn(h.epoch)
			next = 0
		}
	}
	if next >= 0 {
		x.follows(hits[next].staged)
	}
	for i, h := range hits {
		if i != next && x.fork != nil && x.fork.at(h.epoch) != nil {
			x.addRival(h, next >= 0)
		}
	}
	x.recall()
}

// follows merges a commit into the State's epoch and remembers the way back.
func (x *step) follows(staged *mlscore.Staged) {
	if x.fork == nil {
		x.fork = newFork(x.stem(), x.head)
		x.fork.left, x.fork.clean = x.in.Seq-1, x.in.Seq == x.position && len(x.notices) == 0
	}
	x.fork = x.fork.withGroup(x.head, x.group)
	if _, way := x.fork.path(x.head); len(way) >= maxUnproven {
		x.fork = x.fork.cut(x.head, x.stem())
	}
	x.merge(staged, staged.Next())
	x.head = x.grow(x.head, staged, x.group)
}

// stem is the State as it is, to come back to.
func (x *step) stem() *State {
	stem := *x.State
	stem.fork = nil
	x.ownsOpen, x.ownsParked = false, false // it has these lists too
	return &stem
}

// addRival keeps a commit beside the State's line, which may follow it too.
func (x *step) addRival(h hit, followed bool) {
	g := h.staged.Next()
	if x.fork.rivals(x.head) >= maxRivals {
		x.refuse(mlscore.ErrStale.Error(), "more than %d commits beside those that we follow", maxRivals)
		return
	}
	if out := x.outputs[g.Epoch()]; out != nil {
		g = stageAll(g, out.messages)
	}
	x.grow(h.epoch, h.staged, g)
	if !followed {
		x.notify(Notice{
			Type: NoticeDiverged, Reason: ReasonCompeting, Commit: hexOf(h.staged.CommitHash[:]),
			Detail: fmt.Sprintf("another commit of epoch %d, and no member has signed over what came of either", g.Epoch()-1),
		})
	}
}

// grow adds an epoch that the commit in hand leads to.
func (x *step) grow(parent int, staged *mlscore.Staged, g *mlscore.PublicGroup) (id int) {
	n := &node{
		id: x.fork.nextID(), parent: parent, seq: x.in.Seq, commit: hexOf(staged.CommitHash[:]), staged: staged, group: g,
	}
	x.fork = x.fork.with(n)
	if e := x.fork.since; e == nil || e.in.Seq != x.in.Seq {
		x.fork = x.fork.after(Input{Seq: x.in.Seq, Time: x.in.Time, Kind: KindCommit})
	}
	return n.id
}

// stageElsewhere puts proposals of ours into the epochs of a number that may turn
// out to be true.
func (x *step) stageElsewhere(epoch uint64, messages []*mlscore.MLSMessage) {
	for n := range x.elsewhere(epoch) {
		x.fork = x.fork.withGroup(n.id, stageAll(n.group, messages))
	}
}

// stageAll puts proposals into an epoch, as far as they verify there.
func stageAll(g *mlscore.PublicGroup, messages []*mlscore.MLSMessage) *mlscore.PublicGroup {
	for _, m := range messages {
		g, _ = withProposal(g, m)
	}
	return g
}

// turn goes to another epoch of the fork.
func (x *step) turn(to int) {
	lost := *x.State
	f := x.fork
	if f.at(x.head) != nil {
		f = f.withGroup(x.head, x.group)
	}
	s := *f.refold(to, x.in.Seq)
	s.position, s.now, s.fork, s.head = lost.position, lost.now, f, to
	s.ahead, s.reset = lost.ahead, lost.reset
	s.gap = lost.gap && s.group.Epoch() <= lost.group.Epoch()
	if !s.trusted {
		s.doubted, s.heard = lost.doubted, lost.heard
	}
	*x.State = s
	x.old, x.afresh, x.ownsOpen, x.ownsParked, x.touched = &s, true, false, false, nil
	x.notify(Notice{Type: NoticeDiverged, Reason: ReasonReverted, Commit: lost.lastCommit, Detail: "members took another commit"})
	x.reportTurn(&lost)
}

// reportTurn reports the intents that stand otherwise than they did.
func (x *step) reportTurn(lost *State) {
	var changed []*record
	for id := range x.records.changed(lost.records) {
		now, known := x.records.get(id)
		was, before := lost.records.get(id)
		same := before && known && now.state == was.state && now.reason == was.reason && now.commit == was.commit &&
			slices.Equal(now.targets(), was.targets())
		if known && !same {
			changed = append(changed, now)
		}
	}
	slices.SortFunc(changed, func(a, b *record) int { return compareSeq(a.seq, b.seq) })
	for _, r := range slices.Compact(changed) {
		leaves := r.targets()
		if isTerminal(r.state) {
			leaves = r.gone
		}
		x.notify(Notice{Type: r.state, Intent: r.id, Reason: r.reason, Leaves: leaves, Commit: r.commit})
	}
}

// remember keeps an input that was folded, if it may have to be folded again.
func (x *step) remember() {
	if x.fork == nil {
		return
	}
	switch x.in.Kind {
	case KindCommit, KindProposal, KindInfo: // the epochs have them
	case KindIntent:
		if x.moved {
			x.fork = x.fork.after(x.in)
		}
	default:
		x.fork = x.fork.after(x.in)
	}
	if x.fork.since.n > maxSince {
		x.fork = nil
	}
}

// disputed says whether a leaf is another one in an epoch that may turn out to
// be the current one: a removal of it would be valid there too.
func (s *State) disputed(leaf mlscore.LeafIndex) bool {
	if s.fork == nil {
		return false
	}
	ours := s.group.Tree().LeafBytes(leaf)
	return slices.ContainsFunc(s.fork.nodes, func(n *node) bool {
		theirs := n.group.Tree().LeafBytes(leaf)
		return n.id != s.head && n.group.Epoch() == s.group.Epoch() && theirs != nil && !slices.Equal(theirs, ours)
	})
}
