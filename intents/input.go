package intents

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"leavebroker/mlscore"
)

// Kind is what an entry of the log is.
type Kind uint8

// The kinds of entries. Data is an encoded MLSMessage in the first four, JSON
// in the others.
const (
	KindIntent   Kind = iota + 1 // from a leaving client
	KindCommit                   // as the delivery service accepted and ordered it
	KindProposal                 // likewise
	KindInfo                     // a GroupInfo with its ratchet tree
	KindClosed                   // the group was deleted or reset: Closed
	KindRemoval                  // what the broker sent out: Output
	KindAnswer                   // what the Authentication Service said: Answer
	KindControl                  // an operator, or a timer that came due: Control
)

var kindNames = [...]string{
	KindIntent: "intent", KindCommit: "commit", KindProposal: "proposal", KindInfo: "info",
	KindClosed: "closed", KindRemoval: "removal", KindAnswer: "answer", KindControl: "control",
}

func (k Kind) String() string {
	if k >= KindIntent && k <= KindControl {
		return kindNames[k]
	}
	return fmt.Sprintf("kind_%d", uint8(k))
}

// Input is one entry of a group's log.
type Input struct {
	Seq  uint64    // position in the log: from 1, ascending, with gaps
	Time time.Time // when the log stored it
	Kind Kind
	Data []byte // the stored body; it must not be changed
}

// Output is a set of external proposals that the broker made for one epoch.
type Output struct {
	GroupID   []byte   `json:"group_id"`
	Epoch     uint64   `json:"epoch"`
	Proposals [][]byte `json:"proposals"` // encoded MLSMessages
	Intents   []string `json:"intents"`   // the identifiers they answer
}

// Answer is what the Authentication Service said to a Question. It is in the
// log before any proposal relies on it. Leaves of the question that it does not
// name stay open.
type Answer struct {
	Intent string `json:"intent"`
	Epoch  uint64 `json:"epoch"`
	// Position is that of the question.
	Position uint64 `json:"position,omitempty"`
	// Status is resolved, or why there is no answer at all: unknown where the
	// sender's credential belongs to nobody, error where the call failed. Then
	// the lists are empty.
	Status     string              `json:"status"`
	Associated []mlscore.LeafIndex `json:"associated,omitempty"`
	Unrelated  []mlscore.LeafIndex `json:"unrelated,omitempty"`
	Undecided  []mlscore.LeafIndex `json:"undecided,omitempty"` // asked again
	Revision   string              `json:"revision,omitempty"`  // of the service's data
	Hash       string              `json:"hash,omitempty"`      // SHA-256 of its answer, lowercase hex
}

// The statuses of an Answer.
const (
	StatusResolved = "resolved"
	StatusUnknown  = "unknown"
	StatusError    = "error"
)

// Control is an operator's word or a timer that came due.
type Control struct {
	Op     string `json:"op"`               // approve, cancel, expire, reject or reset
	Intent string `json:"intent,omitempty"` // identifier; none for reset
	// Seq is the position of the submission that a timer is about; without it,
	// all submissions of the intent are meant.
	Seq uint64 `json:"seq,omitempty"`
	By  string `json:"by,omitempty"` // who
}

// The operations of a Control.
const (
	OpApprove = "approve" // lift the holds of a guard, of the policy, and of a sender lost or come back in a gap
	OpCancel  = "cancel"  // end an intent
	OpExpire  = "expire"  // a parked intent reached ParkTTL
	OpReject  = "reject"  // a parked intent's reference stayed unknown
	OpReset   = "reset"   // declare a gap: the next GroupInfo is the new base
)

// Closed says that the delivery service deleted or reset the group.
type Closed struct {
	Reason string `json:"reason"`
}

// decodeJSON decodes a body of one JSON object.
func decodeJSON(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return nil
}

// Candidate is a leaf that may be associated with a sender.
type Candidate struct {
	Leaf         mlscore.LeafIndex
	Credential   mlscore.Credential
	SignatureKey []byte
}

func candidate(index mlscore.LeafIndex, leaf *mlscore.LeafNode) Candidate {
	return Candidate{index, leaf.Credential, leaf.SignatureKey}
}

// Question asks which candidates are associated with a sender, as of an epoch.
type Question struct {
	Intent     string
	Epoch      uint64
	Position   uint64      // in the log, when it was asked
	Sender     Candidate   // as it signed; it may have left the tree since
	Candidates []Candidate // ascending
	// Failed counts the answers so far that left candidates open. The question
	// stays due, so whoever asks has to wait longer each time.
	Failed int
}

// Check refuses an answer that is not one to this question.
func (q Question) Check(a Answer) error {
	if a.Intent != q.Intent || a.Epoch != q.Epoch {
		return fmt.Errorf("an answer for intent %q in epoch %d to a question for %q in %d", a.Intent, a.Epoch, q.Intent, q.Epoch)
	}
	lists := slices.Concat(a.Associated, a.Unrelated, a.Undecided)
	switch a.Status {
	case StatusResolved:
	case StatusUnknown, StatusError:
		if len(lists) > 0 {
			return fmt.Errorf("an answer %q with %d leaves", a.Status, len(lists))
		}
	default:
		return fmt.Errorf("an answer with status %q", a.Status)
	}
	slices.Sort(lists)
	for i, leaf := range lists {
		if i > 0 && lists[i-1] == leaf {
			return fmt.Errorf("an answer with leaf %d twice", leaf)
		}
		if _, asked := slices.BinarySearchFunc(q.Candidates, leaf, func(c Candidate, l mlscore.LeafIndex) int {
			return int(int64(c.Leaf) - int64(l))
		}); !asked {
			return fmt.Errorf("an answer about leaf %d, which was not asked", leaf)
		}
	}
	return nil
}
