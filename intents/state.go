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
	ground     ground               // what was certain before a base that is not trusted yet
	doubted    bool                 // a commit contradicts the base; never if it is trusted
	heard      trie[struct{}]       // commits since then, by SHA-256; none if it is trusted
	gap        bool                 // commits were missed
	ahead      *mlscore.GroupInfo   // of a later epoch, or one that contradicts ours: aside until a handshake speaks for it
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

	records   trie[*record] // all, by identifier
	open      []*record     // verified and not ended, by seq
	unsettled []string      // ended by an epoch that is not proven
	parked    []*parkedIntent
	sweep     int // size of records at which expired receipts are dropped

	outputs map[uint64]*output  // by epoch: those that are not over
	out     []mlscore.LeafIndex // whose removal is out in this epoch, ascending
	// operations are the intents whose LeafOperationProposals are out in this
	// epoch: all their targets are in out.
	operations []string
	wanting    trie[struct{}] // open intents with a removal that is not out
	wanted     int            // targets of all open intents that may be proposed, some twice
	sole       bool           // the targets are all members

	unauthorised bool // reported
	asked        bool // a GroupInfo was asked for

	blocked *blocked // a commit that waits for an association; nil: none

	fork *fork // nil: this epoch is certain, or the base
	head int   // the epoch of the fork that this is
	// What was asked of the Authentication Service before the log position
	// turned, in an epoch after turnedFrom, was asked about another line.
	turned, turnedFrom uint64

	restored bool // from a snapshot: the next step looks at everything
}

// ground is what a base has to be held against.
type ground struct {
	group    *mlscore.PublicGroup // nil: none
	lives    trie[life]
	departed trie[departure]
	epoch    uint64 // the last that could not turn out to be false
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
// or whose end no member's signature proves.
func (s *State) Open() bool { return len(s.open)+len(s.parked)+len(s.unsettled) > 0 }

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
	touched    []string        // records that were put and are or were open
	sent       bool            // the outputs changed
	moved      bool            // an intent changed what is known of it
	afresh     bool            // everything has to be looked at
	known      []blockedSender // whose associations were asked for the commit in hand
	ownsOpen   bool            // open is a copy of ours
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
	x := begin(s, in)
	if !x.queue() {
		x.fold()
	}
	x.resume()
	x.finish()
	x.remember()
	return x.State, x.notices
}

func begin(s *State, in Input) *step {
	n := *s
	if in.Kind != KindRemoval {
		n.position, n.now = in.Seq, in.Time
	}
	n.restored = false
	return &step{State: &n, old: s, in: in, afresh: s.restored}
}

func (x *step) fold() {
	switch x.in.Kind {
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
		x.refuse(ReasonMalformed, "an entry of %s", x.in.Kind)
	}
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
	n.endedEpoch = o.epoch
	n.forget(o.state == StateRemoved && o.epoch > 0)
	if o.epoch > 0 {
		x.unsettled = append(slices.Clone(x.unsettled), n.id)
	}
	x.put(&n)
	x.notify(Notice{Type: o.state, Intent: n.id, Reason: o.reason, Leaves: leaves, Commit: n.commit})
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
