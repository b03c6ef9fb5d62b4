package intents

import (
	"bytes"
	"slices"

	"leavebroker/mlscore"
)

// finish reports what the input changed.
func (x *step) finish() {
	x.reportOpen()
	x.updateWanting()
	x.reportConfirmed()
	x.reportUnauthorised()
	x.dropReceipts()
}

// notify adds a notice; its epoch is the current one.
func (x *step) notify(n Notice) {
	if x.group != nil {
		n.Epoch = x.group.Epoch()
	}
	x.notices = append(x.notices, n)
}

// flag reports what is wrong with a message that is accepted all the same,
// because members accept it; once for each message.
func (x *step) flag(n Notice) {
	if len(n.Flags) > 0 {
		n.Type = NoticeFlagged
		x.notices = append(x.notices, n)
	}
}

// flagHandshake reports what is wrong with a handshake, by its own epoch.
func (x *step) flagHandshake(m *mlscore.MLSMessage, staged *mlscore.Staged) {
	n := Notice{Flags: staged.Flags, Epoch: epochOf(m), Detail: "a proposal"}
	if staged.Kind != mlscore.StagedProposal {
		n.Detail, n.Commit = "a commit", hexOf(staged.CommitHash[:])
	}
	x.flag(n)
}

// view is the state of an open record.
func (x *step) view(r *record) (state, reason string) {
	a := r.association
	switch {
	case x.gap, r.lostInGap:
		return StateHeld, ReasonGap
	case !x.trusted:
		return StateHeld, ReasonUnproven
	case a != nil && a.guard:
		return StateHeld, ReasonGuard
	case a != nil && a.heldBack(x.policy) && len(a.associated) > 0:
		return StateHeld, ReasonApproval
	case a != nil && a.unanswered(), x.stuck():
		return StateHeld, ReasonAssociation
	case x.sole && len(r.targets()) > 0:
		return StatePending, ReasonSoleMember
	case r.senderOnly:
		return StatePending, ReasonSenderOnly
	case r.replaced() && !r.senderGone:
		return StatePending, ReasonReplaced
	}
	return StatePending, ""
}

// reportOpen reports the open intents whose state looks different now.
func (x *step) reportOpen() {
	x.sole = x.targetsAreAll()
	look := x.open
	if !x.afresh && x.gap == x.old.gap && x.trusted == x.old.trusted && x.sole == x.old.sole && x.stuck() == x.old.stuck() {
		look = nil
		for _, id := range x.touched {
			if r, ok := x.records.get(id); ok && !isTerminal(r.state) {
				look = append(look, r)
			}
		}
	}
	for _, r := range slices.Clone(look) {
		state, reason := x.view(r)
		if state == r.state && reason == r.reason {
			continue
		}
		n := *r
		n.state, n.reason = state, reason
		x.put(&n)
		x.notify(Notice{Type: state, Intent: n.id, Reason: reason, Leaves: n.targets()})
	}
}

// targetsAreAll says whether nobody would remain who could commit.
func (s *State) targetsAreAll() bool {
	if s.group == nil || len(s.open) == 0 || s.wanted < s.group.Tree().Members() {
		return false
	}
	return len(s.targets()) >= s.group.Tree().Members()
}

// targets are the leaves that open intents want removed now, ascending.
func (s *State) targets() []mlscore.LeafIndex {
	var list []mlscore.LeafIndex
	for _, r := range s.open {
		list = append(list, r.actionable(s.policy)...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// updateWanting keeps the set of intents that Due looks at: those with a
// removal that is not out. After a new epoch or an output all are looked at,
// otherwise those that changed.
func (x *step) updateWanting() {
	if len(x.open) == 0 || x.group == nil {
		x.wanting = trie[struct{}]{}
		return
	}
	switch {
	case x.afresh || x.epochs != x.old.epochs:
		x.wanting = trie[struct{}]{}
		for _, r := range x.open {
			x.want(r.id)
		}
	case x.sent:
		for id := range x.wanting.all() {
			x.want(id)
		}
	}
	for _, id := range x.touched {
		x.want(id)
	}
}

// want enters an intent into the set, or takes it out.
func (x *step) want(id string) {
	r, ok := x.records.get(id)
	if ok && slices.Contains(x.operations, id) { // perhaps from before we knew its targets
		x.takeOut(r.targets(), "")
	}
	if ok && !isTerminal(r.state) && r.unsent(x.policy, x.out) {
		x.wanting = x.wanting.with(id, struct{}{})
	} else {
		x.wanting = x.wanting.without(id)
	}
}

// reportConfirmed reports the removals whose epoch is proven now, and forgets
// the other ends that are certain.
func (x *step) reportConfirmed() {
	if !x.isProven || len(x.unsettled) == 0 {
		return
	}
	var left []string
	for _, id := range x.unsettled {
		r, ok := x.records.get(id)
		switch {
		case !ok || !isTerminal(r.state):
		case r.endedEpoch > x.proven, r.state == StateRemoved && x.stillThere(r), x.fork.hasTwin(x.head, r.endedEpoch):
			left = append(left, id)
		case r.state == StateRemoved && !r.confirmed:
			n := *r
			n.confirmed = true
			n.forget(false)
			x.put(&n)
			x.notify(Notice{Type: NoticeConfirmed, Intent: id, Leaves: n.gone, Commit: n.commit})
		}
	}
	x.unsettled = left
}

// stillThere says whether the leaf of a sender is as it was, whatever a line that
// was given up said.
func (s *State) stillThere(r *record) bool {
	return r.leaf != nil && bytes.Equal(s.group.Tree().LeafBytes(r.intent.SenderIndex), r.leaf.Bytes())
}

// reportUnauthorised reports once that none of our keys may propose.
func (x *step) reportUnauthorised() {
	unauthorised := x.group != nil && x.closed == "" && len(x.open) > 0 && !x.authorised()
	if unauthorised && !x.unauthorised {
		x.notify(Notice{Type: NoticeUnauthorised, Leaves: x.targets(), Detail: "no key of ours is in external_senders"})
	}
	x.unauthorised = unauthorised
}

// authorised says whether a key of ours is in external_senders.
func (s *State) authorised() bool {
	return slices.ContainsFunc(s.policy.SenderKeys, func(key []byte) bool {
		_, ok := s.group.ExternalSenderIndex(key)
		return ok
	})
}

// minSweep is the number of records below which receipts are not looked
// through for expired ones.
const minSweep = 64

// dropReceipts forgets old receipts, each time that the records doubled.
func (x *step) dropReceipts() {
	if x.policy.ReceiptTTL == 0 || x.records.n < x.sweep {
		return
	}
	for id, r := range x.records.all() {
		if isTerminal(r.state) && x.now.Sub(r.ended) > x.policy.ReceiptTTL {
			x.records = x.records.without(id)
		}
	}
	x.sweep = max(minSweep, 2*x.records.n)
}
