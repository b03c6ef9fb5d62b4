package intents

import (
	"slices"
	"time"

	"leavebroker/mlscore"
)

// The states of an intent.
const (
	StateParked      = "parked"       // stored, not judged
	StateHeld        = "held"         // verified, but something stops it
	StatePending     = "pending"      // verified, proposed in every epoch
	StateRemoved     = "removed"      // every target is gone
	StateSuperseded  = "superseded"   // the sender's leaf changed, or the sender came back
	StateAlreadyGone = "already_gone" // the leaf had left before
	StateRejected    = "rejected"
	StateCancelled   = "cancelled" // by an operator
	StateExpired     = "expired"   // parked for too long
)

// The reasons of states and notices, besides those of Reason.
const (
	ReasonUnknownGroup    = "unknown_group"    // parked
	ReasonReferenceReused = "reference_reused" // rejected
	ReasonGroupClosed     = "group_closed"     // rejected
	ReasonAssociation     = "association"      // held: the Authentication Service gives no answer
	ReasonGuard           = "guard"            // held: too many others
	ReasonApproval        = "approval"         // held: an operator has to approve
	ReasonUnproven        = "unproven"         // held: no member has signed over the base yet
	ReasonGap             = "gap"              // held: commits were missed; removed: seen after a gap
	ReasonSenderOnly      = "sender_only"      // pending: remove_associated_members is not acted on
	ReasonSoleMember      = "sole_member"      // pending: nobody would remain who could commit
	ReasonReplaced        = "replaced"         // superseded by a Replace; pending: in spite of one
	ReasonOtherKey        = "other_key"        // superseded: by a Replace with another signature key
	ReasonNewLeaf         = "new_leaf"         // superseded: by a Replace with a leaf made after the intent
	ReasonCompeting       = "competing"        // diverged: two commits of an epoch, and no member has said which is true
	ReasonReverted        = "reverted"         // diverged: members took another commit than we had
)

// The reasons why a GroupInfo is needed, besides the classes of mlscore's errors.
const (
	ReasonStricter      = "stricter_than_members" // members may have taken a commit that we refused
	ReasonMissedCommits = "missed_commits"        // bridged by a GroupInfo that came before its time
	ReasonReset         = "reset"                 // an operator wants one
)

// The types of notices that are no state of an intent.
const (
	NoticeProposed       = "proposed"         // stored removals
	NoticeConfirmed      = "confirmed"        // a member's signature proves the epoch of a removal
	NoticeUnauthorised   = "unauthorised"     // no key of ours is in external_senders
	NoticeNeedsGroupInfo = "needs_group_info" // commits cannot be followed
	NoticeDiverged       = "diverged"         // a member contradicts our view
	NoticeStalled        = "stalled"          // proposed and left out again and again
	NoticeRefused        = "refused"          // an input that was not folded
	NoticeFlagged        = "flagged"          // one that was, with what is wrong and members accept
)

// Notice reports what a step did.
type Notice struct {
	Type   string              `json:"type"` // a state, or one of the Notice constants
	Intent string              `json:"intent,omitempty"`
	Reason string              `json:"reason,omitempty"`
	Epoch  uint64              `json:"epoch"`
	Leaves []mlscore.LeafIndex `json:"leaves,omitempty"`
	Detail string              `json:"detail,omitempty"` // for a person
	Commit string              `json:"commit,omitempty"` // SHA-256 of the commit, lowercase hex
	Flags  []string            `json:"flags,omitempty"`  // what is wrong: mlscore's Flag constants, each once
}

// Record is what is known of one intent.
type Record struct {
	ID            string              `json:"id"`
	State         string              `json:"state"`
	Reason        string              `json:"reason,omitempty"`
	Mode          string              `json:"mode"`
	SenderIndex   mlscore.LeafIndex   `json:"sender_index"`
	Targets       []mlscore.LeafIndex `json:"targets,omitempty"` // still to be removed, ascending
	Gone          []mlscore.LeafIndex `json:"gone,omitempty"`    // targets that left, in order
	Received      time.Time           `json:"received"`
	VerifiedEpoch uint64              `json:"verified_epoch,omitempty"`
	// RemovedEpoch and Commit name the epoch that began, and the commit, when
	// the last target left. There is no commit where the log has a gap.
	RemovedEpoch uint64 `json:"removed_epoch,omitempty"`
	Commit       string `json:"commit,omitempty"`
	Confirmed    bool   `json:"confirmed,omitempty"`
	// Association is the last answer of the Authentication Service.
	Association *RecordedAnswer `json:"association,omitempty"`
}

// RecordedAnswer names an answer of the Authentication Service.
type RecordedAnswer struct {
	Status   string `json:"status"`
	Revision string `json:"revision,omitempty"`
	Hash     string `json:"hash,omitempty"`
}

// record is the memory of one intent, an immutable value: update makes
// another. Until it is verified it holds no sender.
type record struct {
	id       string
	seq      uint64 // of the submission that is judged
	intent   *LeafOperationIntent
	received time.Time
	state    string // as last reported
	reason   string // as last reported
	ended    time.Time
	// endedEpoch is the epoch that the end rests on, 0 for none.
	endedEpoch uint64

	sender        *mlscore.LeafNode // the leaf that signed
	leaf          *mlscore.LeafNode // the sender's leaf: that which signed, unless the intent survived a Replace
	senderGone    bool
	association   *association // nil: the sender only
	senderOnly    bool         // remove_associated_members, and not acted on
	lostInGap     bool         // the sender left where commits were missed, perhaps after it changed its leaf; or may have come back there
	verifiedEpoch uint64

	gone         []mlscore.LeafIndex
	removedEpoch uint64
	commit       string
	confirmed    bool

	leftOut    int // epochs that ended without a removal we proposed
	committers []mlscore.LeafIndex
}

// forget drops what an ended intent has no use for: its leaves, but that of a
// removal which may not have happened, and whom it wanted removed.
func (r *record) forget(keepLeaf bool) {
	if r.sender = nil; !keepLeaf {
		r.leaf = nil
	}
	if r.association != nil {
		r.association = &association{answer: r.association.answer}
	}
}

// outcome is how an intent ends.
type outcome struct {
	state, reason string
	// epoch is the one that it rests on: if this turns out to be false, so does
	// the outcome. 0 for an outcome that rests on none.
	epoch uint64
}

func isTerminal(state string) bool {
	switch state {
	case "", StateParked, StateHeld, StatePending: // "": accepted by this very step
		return false
	}
	return true
}

// replaced says whether the intent survived a Replace of the sender's leaf: its
// reference is not that of the leaf any more.
func (r *record) replaced() bool { return r.leaf != r.sender }

// targets are the leaves that the record wants removed, ascending.
func (r *record) targets() []mlscore.LeafIndex {
	if r.sender == nil || isTerminal(r.state) {
		return nil
	}
	var list []mlscore.LeafIndex
	if !r.senderGone {
		list = append(list, r.intent.SenderIndex)
	}
	if r.association != nil {
		list = append(list, r.association.associated...)
	}
	slices.Sort(list)
	return list
}

// actionable are the targets that may be proposed: not those that a gap, a
// guard or an operator's approval holds back.
func (r *record) actionable(p *Policy) []mlscore.LeafIndex {
	if r.lostInGap {
		return nil
	}
	list := r.targets()
	if r.association == nil || !r.association.heldBack(p) {
		return list
	}
	return slices.DeleteFunc(list, func(leaf mlscore.LeafIndex) bool {
		return r.senderGone || leaf != r.intent.SenderIndex
	})
}

// unsent says whether a target that may be proposed is not out.
func (r *record) unsent(p *Policy, out []mlscore.LeafIndex) bool {
	return slices.ContainsFunc(r.actionable(p), func(leaf mlscore.LeafIndex) bool { return !has(out, leaf) })
}

// done says whether every target is gone and none can come.
func (r *record) done() bool {
	return r.senderGone && (r.association == nil || r.association.done())
}

func (r *record) export() Record {
	out := Record{
		ID: r.id, State: r.state, Reason: r.reason, Mode: r.intent.RemovalMode.String(), SenderIndex: r.intent.SenderIndex,
		Targets: r.targets(), Gone: slices.Clone(r.gone), Received: r.received, VerifiedEpoch: r.verifiedEpoch,
		RemovedEpoch: r.removedEpoch, Commit: r.commit, Confirmed: r.confirmed,
	}
	if r.association != nil {
		out.Association = r.association.answer
	}
	return out
}
