package intents

import (
	"slices"
	"time"

	"leavebroker/mlscore"
)

// Due is what ought to be done now. It is level-triggered: what it names stays
// due until an input says that it was done. Effects come in this order: an
// Order's proposals are stored in the log before anybody sees them, and folded
// as KindRemoval after; an answer is stored before a proposal relies on it.
type Due struct {
	Propose *Order     // nil: nothing
	Ask     []Question // for the Authentication Service
	Control []Control  // timers that came due, to be stored in the log
	Wake    time.Time  // when to look again if no input comes; zero: never
}

// Order is the removals to sign and store for one epoch, as one Output.
type Order struct {
	Epoch      uint64
	Leaves     []mlscore.LeafIndex // by plain Removes, ascending
	Operations []*mlscore.Proposal // LeafOperationProposals
	Intents    []string            // those that they answer, by submission
}

// Due tells what ought to be done at a time.
func (s *State) Due(now time.Time) Due {
	var d Due
	s.dueTimers(&d, now)
	if s.able() {
		if s.blocked == nil {
			s.dueProposals(&d, now)
		}
		s.dueQuestions(&d)
	}
	s.dueBlocked(&d)
	return d
}

// wakeAt asks to look again at a time, unless that is asked for earlier.
func (d *Due) wakeAt(t time.Time) {
	if d.Wake.IsZero() || t.Before(d.Wake) {
		d.Wake = t
	}
}

// dueTimers ends parked intents that waited for too long.
func (s *State) dueTimers(d *Due, now time.Time) {
	for _, p := range s.parked {
		op, at := s.timer(p)
		switch {
		case op == "":
		case at.After(now):
			d.wakeAt(at)
		default:
			d.Control = append(d.Control, Control{Op: op, Intent: p.id, Seq: p.seq, By: "timer"})
		}
	}
}

// timer is what ends a parked intent next, and when; "" if time alone does not.
func (s *State) timer(p *parkedIntent) (op string, at time.Time) {
	if s.policy.ParkTTL > 0 {
		op, at = OpExpire, p.since.Add(s.policy.ParkTTL)
	}
	if reject := p.since.Add(s.policy.LagWindow); s.lagged(p) && (op == "" || reject.Before(at)) {
		op, at = OpReject, reject
	}
	return op, at
}

// lagged says that a parked intent has the reference of no leaf, and did not
// come before its leaf.
func (s *State) lagged(p *parkedIntent) bool {
	return p.reason == ErrLeafRefMismatch.Error() && p.epochs < s.epochs && !s.gap && s.trusted
}

// able says whether the group is in a state to act on at all.
func (s *State) able() bool {
	return s.group != nil && s.closed == "" && !s.gap && s.trusted && len(s.open) > 0
}

func (s *State) dueProposals(d *Due, now time.Time) {
	if !s.authorised() || s.sole {
		return
	}
	order := s.order()
	if order == nil {
		return
	}
	if at := s.epochBegan.Add(s.policy.MinEpoch); s.policy.MinEpoch > 0 && at.After(now) {
		d.wakeAt(at)
		return
	}
	d.Propose = order
}

// maxOrdered is the most intents that one order answers, so that their
// identifiers fit into a message; the next order answers the rest.
const maxOrdered = 256

// order is the removals that are wanted and not out in this epoch; nil if none.
func (s *State) order() *Order {
	if s.wanting.n == 0 {
		return nil
	}
	order := &Order{Epoch: s.group.Epoch()}
	wanting := make([]*record, 0, s.wanting.n)
	for id := range s.wanting.all() {
		r, _ := s.records.get(id)
		wanting = append(wanting, r)
	}
	slices.SortFunc(wanting, func(a, b *record) int { return compareSeq(a.seq, b.seq) })
	chosen := &ordering{Order: order, out: s.selfRemoves()}
	for _, r := range wanting {
		if s.choose(chosen, r); len(order.Intents) == maxOrdered {
			break
		}
	}
	if len(order.Intents) == 0 {
		return nil
	}
	slices.Sort(order.Leaves)
	return order
}

// selfRemoves are the leaves that proposed to remove themselves in this epoch.
func (s *State) selfRemoves() map[mlscore.LeafIndex]bool {
	var leaving map[mlscore.LeafIndex]bool
	for p := range s.group.Proposals() {
		if s.isSelfRemove(p) {
			if leaving == nil {
				leaving = make(map[mlscore.LeafIndex]bool)
			}
			leaving[p.Sender.LeafIndex] = true
		}
	}
	return leaving
}

// isSelfRemove says whether a proposal is a SelfRemove that a commit can
// contain: in a group in which a member does not support them, none can
// (draft-ietf-mls-extensions), and the leaf would wait in vain.
func (s *State) isSelfRemove(p *mlscore.PendingProposal) bool {
	return p.Proposal.IsSelfRemove() && p.Invalid == nil && s.group.Tree().SupportsProposal(p.Proposal.Type)
}

// dueQuestions asks for the candidates without an answer.
func (s *State) dueQuestions(d *Due) {
	for _, r := range s.open {
		a := r.association
		if a == nil {
			continue
		}
		if q := s.question(r.id, r.intent.SenderIndex, r.sender, a); len(q.Candidates) > 0 {
			d.Ask = append(d.Ask, q)
		}
	}
}

// question asks for the open candidates of an association.
func (s *State) question(intent string, sender mlscore.LeafIndex, leaf *mlscore.LeafNode, a *association) Question {
	q := Question{Intent: intent, Epoch: s.group.Epoch(), Position: s.position, Sender: candidate(sender, leaf), Failed: a.failed}
	for _, index := range a.candidates(s.group, sender) {
		if leaf := s.group.Tree().Leaf(index); leaf != nil {
			q.Candidates = append(q.Candidates, candidate(index, leaf))
		}
	}
	return q
}

// Pending is what an external joiner includes, and what a delivery service may
// demand of a commit.
type Pending struct {
	Epoch                  uint64   `json:"epoch"`
	Proposals              [][]byte `json:"proposals"`                // ours of this epoch: MLSMessages
	SelfRemoves            [][]byte `json:"self_removes"`             // MLSMessages
	LeafOperationProposals [][]byte `json:"leaf_operation_proposals"` // Proposals, for external commits by value
	MustReference          [][]byte `json:"must_reference"`           // ProposalRefs
}

// Pending gives what is pending in the current epoch; nothing while the group
// is not known.
func (s *State) Pending() Pending {
	p := Pending{Proposals: [][]byte{}, SelfRemoves: [][]byte{}, LeafOperationProposals: [][]byte{}, MustReference: [][]byte{}}
	if s.group == nil {
		return p
	}
	p.Epoch, p.LeafOperationProposals = s.group.Epoch(), s.joinable()
	for q := range s.group.Proposals() {
		switch {
		case q.Invalid != nil:
			continue
		case s.isSelfRemove(q):
			p.SelfRemoves = append(p.SelfRemoves, q.Message())
		case s.pendingOurs(q):
			p.Proposals = append(p.Proposals, q.Message())
		default:
			continue
		}
		p.MustReference = append(p.MustReference, q.Ref)
	}
	return p
}
