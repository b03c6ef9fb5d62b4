package intents

import (
	"bytes"
	"encoding/hex"
	"slices"
	"time"

	"leavebroker/mlscore"
)

// State is what one group's log says: the group, the intents of its members
// and what was done about them. It is an immutable value: Step gives another
// and leaves this one as it was, and both share what did not change. The same
// inputs in the same order give the same State and notices.
type State struct {
	policy   *Policy
	groupID  []byte
	position uint64
	now      time.Time // of the last input

	group      *mlscore.PublicGroup // nil: no GroupInfo yet
	trusted    bool                 // a member has signed over the base, or the delivery service vouches
	doubtFrom  *mlscore.PublicGroup // the last group before a base that is not trusted yet; nil: none
	gap        bool                 // commits were missed
	ahead      *mlscore.GroupInfo   // of a later epoch, kept until somebody's handshake speaks for it
	reset      bool                 // the next GroupInfo is the base, whatever its epoch
	closed     string               // why nothing follows; "": open
	deleted    bool                 // the delivery service said so: another group may come under the same group_id
	proven     uint64               // the last epoch that a member's signature proves
	isProven   bool                 // there is one
	epochs     uint64               // how often the epoch changed
	epochBegan time.Time
	lastCommit string // hash of the commit that began the epoch
	misjudged  bool   // a commit of this epoch was refused as invalid

	lives    trie[life]
	departed trie[departure]

	records     trie[*record] // all, by identifier
	open        []*record     // verified and not ended, by seq
	unconfirmed []string      // removed and not confirmed
	parked      []*parkedIntent
	sweep       int // size of records at which expired receipts are dropped

	outputs map[uint64]*output // by epoch: this one and later ones
	wanting trie[struct{}]     // open intents with a removal that is not out
	wanted  int                // targets of all open intents that may be proposed, some twice
	sole    bool               // the targets are all members

	unauthorised bool // reported
	asked        bool // a GroupInfo was asked for

	// previous is the State before the merge that began this epoch, while no
	// member's signature proves the epoch.
	previous *State
}

// output is what we sent out in one epoch.
type output struct {
	leaves   []mlscore.LeafIndex // ascending
	messages []*mlscore.MLSMessage
	raw      [][]byte
}

// NewState is the State of a group before its log's first entry.
func NewState(p *Policy, groupID []byte) *State {
	return &State{policy: p, groupID: bytes.Clone(groupID), sweep: minSweep}
}

// Group is the tracked group; nil while no GroupInfo came.
func (s *State) Group() *mlscore.PublicGroup { return s.group }

// Position is the log position of the last input.
func (s *State) Position() uint64 { return s.position }

// Open says whether there is an intent to be followed: one that has not ended,
// or whose removal is not confirmed.
func (s *State) Open() bool { return len(s.open)+len(s.parked)+len(s.unconfirmed) > 0 }

// Intent gives the record of an identifier.
func (s *State) Intent(id string) (Record, bool) {
	r, ok := s.records.get(id)
	if !ok {
		return Record{}, false
	}
	return r.export(), true
}

// Records gives all records by the order of their submissions.
func (s *State) Records() []Record {
	list := make([]*record, 0, s.records.n)
	for _, r := range s.records.all() {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *record) int { return compareSeq(a.seq, b.seq) })
	out := make([]Record, len(list))
	for i, r := range list {
		out[i] = r.export()
	}
	return out
}

func compareSeq(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// step builds the State after an input.
type step struct {
	*State
	old        *State
	in         Input
	notices    []Notice
	touched    []string // records that were put and are or were open
	sent       bool     // the outputs changed
	ownsOpen   bool     // open is a copy of ours
	ownsParked bool
}

// Step folds one input. It is total: an input that is refused changes nothing
// but the position and gives a notice. An input at or before the position is
// ignored. A KindRemoval is a fact whenever it is learned, early or late, and
// does not move the position.
func (s *State) Step(in Input) (*State, []Notice) {
	if in.Seq <= s.position && in.Kind != KindRemoval {
		return s, nil
	}
	n := *s
	x := &step{State: &n, old: s, in: in}
	if in.Kind != KindRemoval {
		n.position, n.now = in.Seq, in.Time
	}
	switch in.Kind {
	case KindIntent:
		x.foldIntent()
	case KindCommit, KindProposal:
		x.foldHandshake()
	case KindInfo:
		x.foldInfo()
	case KindClosed:
		x.foldClosed()
	case KindRemoval:
		x.foldRemoval()
	case KindAnswer:
		x.foldAnswer()
	case KindControl:
		x.foldControl()
	default:
		x.refuse(ReasonMalformed, "an entry of %s", in.Kind)
	}
	x.finish()
	return x.State, x.notices
}

// finish reports what the input changed.
func (x *step) finish() {
	x.reportOpen()
	x.updateWanting()
	x.reportConfirmed()
	x.reportUnauthorised()
	x.dropReceipts()
}

// put stores a record and keeps the lists in step with it.
func (x *step) put(r *record) {
	x.records = x.records.with(r.id, r)
	i, found := slices.BinarySearchFunc(x.open, r, func(a, b *record) int { return compareSeq(a.seq, b.seq) })
	open := r.sender != nil && !isTerminal(r.state)
	if !found && !open {
		return
	}
	if found {
		x.wanted -= len(x.open[i].actionable(x.policy))
	}
	if open {
		x.wanted += len(r.actionable(x.policy))
	}
	x.touched = append(x.touched, r.id)
	if !x.ownsOpen {
		x.open, x.ownsOpen = slices.Clone(x.open), true
	}
	switch {
	case found && open:
		x.open[i] = r
	case found:
		x.open = slices.Delete(x.open, i, i+1)
	default:
		x.open = slices.Insert(x.open, i, r)
	}
}

// end ends an intent and reports it.
func (x *step) end(r *record, o outcome, leaves []mlscore.LeafIndex) {
	n := *r
	n.state, n.reason, n.ended = o.state, o.reason, x.now
	if o.state == StateRemoved {
		x.unconfirmed = append(slices.Clone(x.unconfirmed), n.id)
	}
	x.put(&n)
	x.notify(Notice{Type: o.state, Intent: n.id, Reason: o.reason, Leaves: leaves, Commit: n.commit})
}

// notify adds a notice; its epoch is the current one.
func (x *step) notify(n Notice) {
	if x.group != nil {
		n.Epoch = x.group.Epoch()
	}
	x.notices = append(x.notices, n)
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
	case a != nil && a.unanswered():
		return StateHeld, ReasonAssociation
	case x.sole && len(r.targets()) > 0:
		return StatePending, ReasonSoleMember
	case r.senderOnly:
		return StatePending, ReasonSenderOnly
	}
	return StatePending, ""
}

// reportOpen reports the open intents whose state looks different now.
func (x *step) reportOpen() {
	x.sole = x.targetsAreAll()
	look := x.open
	if x.gap == x.old.gap && x.trusted == x.old.trusted && x.sole == x.old.sole {
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
	case x.epochs != x.old.epochs:
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
	if ok && !isTerminal(r.state) && r.unsent(x.policy, x.outputs[x.group.Epoch()]) {
		x.wanting = x.wanting.with(id, struct{}{})
	} else {
		x.wanting = x.wanting.without(id)
	}
}

// reportConfirmed reports the removals whose epoch is proven now.
func (x *step) reportConfirmed() {
	if !x.isProven || len(x.unconfirmed) == 0 {
		return
	}
	var left []string
	for _, id := range x.unconfirmed {
		r, ok := x.records.get(id)
		switch {
		case !ok:
		case r.removedEpoch > x.proven:
			left = append(left, id)
		default:
			n := *r
			n.confirmed = true
			x.put(&n)
			x.notify(Notice{Type: NoticeConfirmed, Intent: id, Leaves: n.gone, Commit: n.commit})
		}
	}
	x.unconfirmed = left
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

func hexOf(b []byte) string { return hex.EncodeToString(b) }
