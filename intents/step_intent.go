package intents

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"leavebroker/mlscore"
)

// ReasonMalformed is the reason code of ErrMalformed.
const ReasonMalformed = "malformed"

// parkedIntent is a submission that cannot be judged yet. Submissions of one
// identifier are kept apart, since all but one may be forged: the identifier
// is not over the signature.
type parkedIntent struct {
	id     string
	seq    uint64
	hash   [sha256.Size]byte // of the message
	intent *LeafOperationIntent
	since  time.Time
	epochs uint64 // State.epochs when it came
	reason string
}

// refuse reports an input that is not folded.
func (x *step) refuse(reason, format string, args ...any) {
	x.notify(Notice{Type: NoticeRefused, Reason: reason, Detail: fmt.Sprintf(format, args...)})
}

func (x *step) foldIntent() {
	in, err := ParseMessage(x.in.Data, x.policy.codePoints().WireFormat)
	if err != nil {
		x.notify(Notice{Type: StateRejected, Reason: Reason(err), Detail: err.Error()})
		return
	}
	p := &parkedIntent{
		id: in.ID(x.policy.Tenant), seq: x.in.Seq, hash: sha256.Sum256(x.in.Data), intent: in, since: x.in.Time, epochs: x.epochs,
	}
	old, known := x.records.get(p.id)
	if known && x.again(old, p) {
		return
	}
	x.decide(p)
	now, _ := x.records.get(p.id)
	x.moved = !known || now.state != old.state || len(x.parked) != len(x.old.parked)
}

// again answers the submission of an intent that is known, and says whether
// that was all there is to do.
func (x *step) again(r *record, p *parkedIntent) bool {
	switch r.state {
	case StateRejected, StateExpired:
		return false
	case StateParked:
		return slices.ContainsFunc(x.parked, func(q *parkedIntent) bool { return q.hash == p.hash }) && x.repeat(r)
	case StateRemoved, StateAlreadyGone:
		if d, known := x.departed.get(string(p.intent.SenderLeafRef)); known && d.back {
			n := *r
			x.unsettled = slices.DeleteFunc(slices.Clone(x.unsettled), func(id string) bool { return id == r.id })
			x.end(&n, judgeDeparted(d, p.intent, x.lives, x.group), nil)
			return true
		}
	}
	return x.repeat(r)
}

// repeat reports the present state of an intent.
func (x *step) repeat(r *record) bool {
	x.notify(Notice{Type: r.state, Intent: r.id, Reason: r.reason, Leaves: r.targets(), Commit: r.commit})
	return true
}

// decide judges a submission and stores the verdict.
func (x *step) decide(p *parkedIntent) {
	o, err := x.judge(p.intent)
	old, known := x.records.get(p.id)
	mayReplace := !known || old.state == StateParked || old.state == StateRejected || old.state == StateExpired
	switch {
	case o.state == StateParked:
		p.reason = o.reason
		x.park(p)
	case !mayReplace && o.state == StatePending:
		x.repeat(old)
	case !mayReplace, o.state == StateRejected && x.othersParked(p.id):
		// Another submission of this identifier stands, or waits.
		x.notify(Notice{Type: NoticeRefused, Intent: p.id, Reason: o.reason, Detail: detail(err)})
	case o.state == StatePending:
		x.accept(p)
	default:
		r := p.record()
		x.end(r, o, nil)
		x.notices[len(x.notices)-1].Detail = detail(err)
	}
}

func detail(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (p *parkedIntent) record() *record {
	return &record{id: p.id, seq: p.seq, intent: p.intent, received: p.since}
}

// judge gives the verdict on an intent as things are: StatePending where it
// verifies.
func (x *step) judge(in *LeafOperationIntent) (outcome, error) {
	if err := errors.Join(in.checkMode(), in.checkGroup(x.groupID)); err != nil {
		return outcome{state: StateRejected, reason: Reason(err)}, err
	}
	if x.group == nil && x.closed == "" {
		return outcome{state: StateParked, reason: ReasonUnknownGroup}, nil
	}
	if x.group != nil {
		if d, known := x.departed.get(string(in.SenderLeafRef)); known {
			return judgeDeparted(d, in, x.lives, x.group), nil
		}
	}
	if x.closed != "" {
		end := outcome{state: StateRejected, reason: ReasonGroupClosed}
		if !x.deleted {
			end.epoch = x.group.Epoch() // a ReInit, which may be false
		}
		return end, fmt.Errorf("the group is closed: %s", x.closed)
	}
	err := in.Verify(x.group.Suite(), x.groupID, leafAt(x.group))
	switch {
	case err == nil:
		return outcome{state: StatePending}, nil
	case errors.Is(err, ErrLeafRefMismatch):
		return outcome{state: StateParked, reason: ErrLeafRefMismatch.Error()}, nil
	}
	return outcome{state: StateRejected, reason: Reason(err)}, err
}

// park keeps a submission for later.
func (x *step) park(p *parkedIntent) {
	if !x.ownsParked {
		x.parked, x.ownsParked = slices.Clone(x.parked), true
	}
	x.parked = append(x.parked, p)
	r := p.record()
	if old, known := x.records.get(p.id); known && old.state == StateParked {
		r.received, r.seq = old.received, old.seq
	}
	r.state, r.reason = StateParked, p.reason
	x.put(r)
	if x.group == nil {
		x.needInfo(ReasonUnknownGroup, "an intent for a group that no GroupInfo described")
	}
	x.notify(Notice{Type: StateParked, Intent: p.id, Reason: p.reason})
}

func (x *step) othersParked(id string) bool {
	return slices.ContainsFunc(x.parked, func(q *parkedIntent) bool { return q.id == id })
}

// accept begins the life of a verified intent.
func (x *step) accept(p *parkedIntent) {
	r := p.record()
	r.sender = x.group.Tree().Leaf(p.intent.SenderIndex)
	r.leaf = r.sender
	r.verifiedEpoch = x.group.Epoch()
	if p.intent.RemovalMode == RemoveAssociatedMembers {
		if x.policy.associates() {
			r.association = &association{all: true}
		} else {
			r.senderOnly = true
		}
	}
	x.put(r)
}

// wake judges parked submissions again: those of the given leaves, or all.
func (x *step) wake(leaves []mlscore.LeafIndex, all bool) {
	var ready []*parkedIntent
	var rest []*parkedIntent
	for _, p := range x.parked {
		if all || has(leaves, p.intent.SenderIndex) {
			ready = append(ready, p)
		} else {
			rest = append(rest, p)
		}
	}
	if len(ready) == 0 {
		return
	}
	x.ownsParked = true
	for i, p := range ready {
		// While one is judged, those behind it still wait.
		x.parked = slices.Concat(rest, ready[i+1:])
		o, _ := x.judge(p.intent)
		if o.state == StateParked {
			n := *p
			n.reason = o.reason
			if x.old.group == nil {
				n.epochs = x.epochs // the base is no newer than the intent
			}
			rest = append(rest, &n)
			x.relabel(&n)
			continue
		}
		x.decide(p)
	}
	slices.SortFunc(rest, func(a, b *parkedIntent) int { return compareSeq(a.seq, b.seq) })
	x.parked = rest
}

// relabel reports that a submission still waits, if for another reason.
func (x *step) relabel(p *parkedIntent) {
	r, known := x.records.get(p.id)
	if !known || r.state != StateParked || r.reason == p.reason {
		return
	}
	n := *r
	n.reason = p.reason
	x.put(&n)
	x.notify(Notice{Type: StateParked, Intent: p.id, Reason: p.reason})
}

// unpark ends the parked submissions of a control; the record follows when no
// other submission of the identifier waits.
func (x *step) unpark(id string, seq uint64, o outcome) {
	var rest []*parkedIntent
	hit := false
	for _, p := range x.parked {
		if p.id == id && (seq == 0 || p.seq == seq) {
			hit = true
		} else {
			rest = append(rest, p)
		}
	}
	if !hit {
		return
	}
	x.parked, x.ownsParked = rest, true
	if r, known := x.records.get(id); known && r.state == StateParked && !x.othersParked(id) {
		x.end(r, o, nil)
	}
}
