package broker

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
)

// checks are what has to hold.
type checks struct {
	out map[string]bool // "epoch/leaf" of the outputs that were accepted
	// folds are the group after each position of the log, and fold is that which
	// was looked at last: with all outputs, wherever they are in the log.
	folds    []group
	fold     *group
	removals []*received
	asked    map[[32]byte]map[int]bool // members by the leaf that they signed an intent with
	in       inbound
}

func (c *checks) begin(s *simulation) {
	t := newTenant(Tenant{Name: testTenant, Signers: s.script.signers, AuthService: sameName{}, Policy: intents.Policy{
		LagWindow: time.Minute, StalledAfter: 3, InfoTrustDS: s.script.trustDS,
	}})
	t.policy.Parallel = nil
	c.out, c.asked = map[string]bool{}, map[[32]byte]map[int]bool{}
	c.in = inbound{s.server.names, Limits{IntentBytes: defaultIntentBytes, MessageBytes: defaultMessageBytes}, map[string]*tenant{testTenant: t}}
	c.folds = []group{*newGroup(simKey, t, simGroup)}
}

// published notes who asks to leave.
func (s *simulation) published(step *simStep) {
	for _, w := range s.script.wishes {
		if w.published == s.next-1 && step.kind == kindIntent {
			if s.asked[w.seat.ref] == nil {
				s.asked[w.seat.ref] = map[int]bool{}
			}
			s.asked[w.seat.ref][w.who] = true
		}
	}
}

// checkOutput: an output that was accepted names no leaf twice in its epoch, and
// only leaves that asked to leave or are associated with one that did.
func (s *simulation) checkOutput(e entry) {
	s.counts.outputs++
	if r, err := s.in.receive(e); err == nil {
		s.removals = append(s.removals, r)
	}
	if owner, _ := s.server.owner(s.server.leader()); s.running != nil && owner.Instance != s.running.in.name {
		s.counts.zombies++
	}
	out, leaves := readOutput(e.data)
	if len(leaves) == 0 || len(leaves) != len(out.Proposals) {
		s.fail("an output with %d proposals that removes %v", len(out.Proposals), leaves)
	}
	for _, leaf := range leaves {
		key := fmt.Sprintf("%d/%d", out.Epoch, leaf)
		if s.out[key] {
			s.fail("leaf %d is proposed twice in epoch %d", leaf, out.Epoch)
		}
		s.out[key] = true
		s.checkAsked(out.Epoch, leaf)
	}
}

func (s *simulation) checkAsked(epoch uint64, leaf mlscore.LeafIndex) {
	truth, real := s.script.rosters[epoch][leaf]
	switch {
	case real && s.mayRemove(epoch, leaf, truth):
		return
	case slices.ContainsFunc(s.script.lies[epoch], func(r roster) bool {
		seat, ok := r[leaf]
		return ok && s.mayRemoveFalse(seat)
	}):
		s.counts.astray++
		return
	}
	s.fail("leaf %d is proposed in epoch %d and did not ask, nor is it associated with one that did", leaf, epoch)
}

// mayRemove says whether somebody wants a leaf removed. While commits are missing
// or false, an epoch may be that of the broker for longer than it is the group's.
func (s *simulation) mayRemove(epoch uint64, leaf mlscore.LeafIndex, at seat) bool {
	for _, w := range s.script.wishes {
		if w.published < s.next && slices.Contains(w.fates[epoch].targets, leaf) {
			return true
		}
	}
	if s.authority.associated[at.key] || s.asked[at.ref][at.id] {
		return true
	}
	return (s.script.lossy || s.script.hostile) && s.wantsUser(at)
}

func (s *simulation) mayRemoveFalse(at seat) bool {
	return len(s.asked[at.ref]) > 0 || s.wantsUser(at) || s.authority.associated[at.key]
}

func (s *simulation) wantsUser(at seat) bool {
	return slices.ContainsFunc(s.script.wishes, func(w *simWish) bool {
		return w.published < s.next && w.associated && w.seat.user == at.user
	})
}

// checkAck: what is acknowledged has had its effects. Of all that was acknowledged
// and all outputs, nothing is left to propose; an intent that has not ended is in
// the ledger, so that whoever comes next knows of it.
func (s *simulation) checkAck(seq uint64) {
	if seq != s.server.consumer.hand {
		return // it says nothing any more
	}
	entry, err := s.server.check(simKey)
	s.foldUpTo(max(seq, entry.Position)) // it may be delivered again, and have been folded before
	if order := s.fold.state.Due(s.server.now).Propose; order != nil {
		s.fail("seq %d is acknowledged before the removal of leaves %v in epoch %d is stored", seq, order.Leaves, order.Epoch)
	}
	if err != nil || s.fold.state.Open() && !entry.Open && !s.isCertainSince() {
		s.fail("seq %d is acknowledged, and the ledger does not know that the group is open (%v)", seq, err)
	}
	for _, r := range s.fold.state.Records() {
		if !s.isTold(r.ID, r.State) {
			s.fail("seq %d is acknowledged, and nobody was told that intent %s is %s", seq, short(r.ID), r.State)
		}
	}
	if isEndedIntent := s.intentAt(seq); isEndedIntent != "" {
		r, known := s.fold.state.Intent(isEndedIntent)
		if _, receipt := entry.find(isEndedIntent); known && isEnded(r.State) && !receipt && !entry.Open && !entry.Truncated {
			s.fail("intent %s is acknowledged as %s without a receipt", short(isEndedIntent), r.State)
		}
	}
}

// isCertainSince says whether all intents have ended, and events told that a
// removal is certain which is not yet: a snapshot knows that by what came later.
func (s *simulation) isCertainSince() bool {
	certain := false
	for _, r := range s.fold.state.Records() {
		if !isEnded(r.State) {
			return false
		}
		certain = certain || r.State == intents.StateRemoved && !r.Confirmed && s.server.told[r.ID+"/"+intents.NoticeConfirmed]
	}
	return certain
}

// isTold says whether events told of the state of an intent. After a lie a group
// may have nothing to do before it is known how an intent has ended: it was told
// that it has.
func (s *simulation) isTold(intent, state string) bool {
	told := func(state string) bool { return s.server.told[intent+"/"+state] }
	return told(state) || s.script.hostile && isEnded(state) &&
		slices.ContainsFunc(eventTypes, func(t string) bool { return isState(t) && isEnded(t) && told(t) })
}

// intentAt is the identifier of the intent at a position, "" for none.
func (s *simulation) intentAt(seq uint64) string {
	r, err := s.in.receive(s.server.log[seq-1])
	if err != nil || r.kind != kindIntent {
		return ""
	}
	in, err := checkIntent(r.tenant, r.data)
	if err != nil {
		return ""
	}
	return in.ID(testTenant)
}

// foldUpTo folds the log up to a position, and all outputs.
func (s *simulation) foldUpTo(seq uint64) {
	for uint64(len(s.folds)) <= seq {
		at := len(s.folds) - 1
		g := s.folds[at]
		if r, err := s.in.receive(s.server.log[at]); err == nil && r.kind != kindRemoval {
			g.fold(r)
		}
		s.folds = append(s.folds, g)
	}
	g := s.folds[seq]
	for _, r := range s.removals {
		g.fold(r) // if it is new
	}
	s.folds[seq], s.fold = g, &g
}

// allOut says whether the removals that a commit refers to are there.
func (s *simulation) allOut(step *simStep) bool {
	epoch := s.script.steps[s.next-1].epoch
	return !slices.ContainsFunc(step.needs, func(leaf mlscore.LeafIndex) bool { return !s.out[fmt.Sprintf("%d/%d", epoch, leaf)] })
}

// rest lets everything come to rest: nothing fails any more, clocks go on.
func (s *simulation) rest() {
	trouble, flaky, wrong := s.trouble, s.authority.flaky, s.authority.wrong
	s.authority.flaky, s.authority.wrong, s.behind = false, false, nil
	s.note("from here on nothing fails, up to rest")
	pause := time.Second
	for turns := 0; s.failure == ""; turns++ {
		if s.busyTurn() {
			if turns > 20_000 {
				s.fail("no rest")
			}
			continue
		}
		s.foldUpTo(uint64(len(s.server.log)))
		due := s.fold.state.Due(s.server.now)
		if due.Propose == nil && len(due.Ask) == 0 && len(due.Control) == 0 || pause > 4*time.Hour {
			break
		}
		s.server.now = s.server.now.Add(pause)
		pause *= 2
	}
	s.counts.quiet++
	s.note("at rest")
	s.trouble, s.authority.flaky, s.authority.wrong = trouble, flaky, wrong
}

// busyTurn does something that is to be done, and says whether there was
// something.
func (s *simulation) busyTurn() bool {
	for _, in := range s.instances {
		in.watch(len(s.server.ledger))
		for _, t := range in.tasks {
			if !t.asking || !in.busy() {
				s.note("%s goes on at: %s", t.in.name, t.at)
				s.resume(t, nil)
				return true
			}
		}
		if !in.busy() && (in.receive() || in.runSpawned() || in.wakeDue()) {
			return true
		}
	}
	if len(s.instances) == 0 {
		s.start()
	}
	c := &s.server.consumer
	if c.pinned == nil {
		c.pinTo(s.instances[0])
	}
	if _, more := s.server.next(); more {
		c.pinned.send()
		return true
	}
	owner, _ := s.server.owner(s.server.leader())
	if owner.Instance != c.pinned.name || !c.pinned.o.holds.Load() {
		in := c.pinned
		in.begin("a partition that nobody works on", func() { _ = in.o.claimFree() })
		return true
	}
	return false
}

// checkRest: every pending intent has an accepted removal in the current epoch,
// and no intent is lost.
func (s *simulation) checkRest() {
	if s.failure != "" || s.next == 0 {
		return
	}
	step := &s.script.steps[s.next-1]
	s.foldUpTo(uint64(len(s.server.log)))
	if due := s.fold.state.Due(s.server.now); due.Propose != nil || len(due.Ask) > 0 {
		s.fail("at rest there is something to do: %+v", due)
	}
	if !s.server.caughtUp() {
		s.fail("at rest not everything is acknowledged")
	}
	for _, w := range s.script.wishes {
		if w.published < s.next {
			s.checkWish(w, step)
		}
	}
}

func (s *simulation) checkWish(w *simWish, step *simStep) {
	r, known := s.fold.state.Intent(w.id)
	if !known {
		s.fail("intent %s is lost", short(w.id))
		return
	}
	if !step.sure || w.reused || s.authority.wronged[w.id] || len(s.authority.wronged) > 0 && r.Reason == intents.ReasonSoleMember {
		return
	}
	if (w.doubtful || s.liedAway(w)) && r.State == intents.StateHeld && r.Reason == intents.ReasonGap && !s.decided(w) {
		s.counts.doubtful++
		return
	}
	f := w.fates[step.epoch]
	waits := !f.pending && r.State == intents.StateParked && (s.script.lossy || s.script.hostile) // its departure is not in the log
	if f.pending == isEnded(r.State) && !waits && !(s.script.lossy && f.senderGone) {
		s.fail("intent %s is %s (%s) in epoch %d; that it is pending is %t", short(w.id), r.State, r.Reason, step.epoch, f.pending)
	}
	if s.script.lossy && f.senderGone {
		return // an operator has to approve the rest
	}
	// After a gap, or a lie, nobody knows of others whether they came before the intent.
	unknown := s.script.lossy || s.script.hostile && r.VerifiedEpoch > w.from
	for _, leaf := range f.targets {
		at := s.script.rosters[step.epoch][leaf]
		if unknown && at.id != w.who || slices.Contains(step.leaving, leaf) {
			continue
		}
		if !s.out[fmt.Sprintf("%d/%d", step.epoch, leaf)] {
			s.fail("at rest the removal of leaf %d, for intent %s (%s %s), is not out in epoch %d", leaf, short(w.id), r.State, r.Reason, step.epoch)
		}
	}
}

// liedAway says whether a lie showed a group without the one who leaves: where the
// commits are missing that would show that nothing was true of it, its leaf may have
// come back.
func (s *simulation) liedAway(w *simWish) bool {
	for epoch, lies := range s.script.lies {
		for _, lie := range lies {
			isThere := false
			for _, at := range lie {
				isThere = isThere || at.id == w.who
			}
			if epoch >= w.from && !isThere {
				return true
			}
		}
	}
	return false
}

// decided says whether an operator has decided about an intent.
func (s *simulation) decided(w *simWish) bool { return w.decided > 0 && w.decided < s.next }

// checkFresh: an instance that comes new finds the same and has nothing to add.
func (s *simulation) checkFresh() {
	if s.failure != "" {
		return
	}
	for len(s.instances) > 0 {
		s.crash(s.instances[0])
	}
	outputs := len(s.removals)
	s.start()
	s.rest()
	for _, r := range s.removals[outputs:] {
		// A snapshot shows an earlier epoch as it was understood later.
		if out, _ := readOutput(r.data); s.server.snapshot.rev == 0 || out.Epoch >= s.fold.state.Group().Epoch() {
			s.fail("an instance that comes new proposes what was proposed")
		}
	}
	in := s.instances[0]
	if isOpen := in.b.open.has(simKey); isOpen != s.fold.state.Open() {
		s.fail("an instance that comes new takes the group for open: %t", isOpen)
	}
	if got := in.o.peek(simKey); got != nil {
		have, want := remember(got).comparable(), remember(s.fold.state).comparable()
		if !bytes.Equal(have, want) {
			s.fail("an instance that comes new has %s, want %s", have, want)
		}
	}
}
