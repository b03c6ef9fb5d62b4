package intents

import (
	"bytes"
	"errors"
	"slices"

	"leavebroker/mlscore"
)

// blocked is a commit that cannot be judged before the Authentication Service
// has said who is associated with the senders of its LeafOperationProposals:
// members asked it too. Handshakes and GroupInfos wait behind it. It is an
// immutable value.
type blocked struct {
	commit  Input
	senders []blockedSender
	behind  []Input
	size    int // bytes of those behind
}

// blockedSender is a sender of remove_associated_members in a blocked commit.
type blockedSender struct {
	intent      string // identifier
	index       mlscore.LeafIndex
	association *association
}

// What waits behind a blocked commit is bounded: beyond it, the commit is given
// up for a gap.
const (
	maxBehind     = 1 << 10
	maxBehindSize = 8 << 20 // bytes
)

// needsAssociation says that a commit verifies and cannot be judged yet.
func needsAssociation(err error) bool { return errors.As(err, new(*mlscore.AssociationNeeded)) }

// associatedWith is the association of a sender, if it is known: by its own
// intent, or since it was asked for the commit in hand.
func (x *step) associatedWith(sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
	for _, r := range x.open {
		if a := r.association; r.intent.SenderIndex == sender && !r.senderGone && a != nil && a.answered() {
			return a.associated, true
		}
	}
	for _, s := range x.known {
		if s.index == sender && s.association.answered() {
			return s.association.associated, true
		}
	}
	return nil, false
}

// associatedIn is what is known of associations in an epoch beside the State's:
// as far as the leaves are the same in both.
func (x *step) associatedIn(g *mlscore.PublicGroup) mlscore.Associations {
	return func(sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
		associated, known := x.associatedWith(sender)
		same := known && bytes.Equal(g.Tree().TreeHash(), x.group.Tree().TreeHash())
		return associated, same
	}
}

// answered says that no candidate is open.
func (a *association) answered() bool { return !a.all && len(a.open) == 0 }

// block keeps a commit that was refused for want of an association, and says
// whether it was. Where nobody can be asked, it was not.
func (x *step) block(err error) bool {
	needed, ok := err.(*mlscore.AssociationNeeded) // not one of another line
	if !ok || !x.policy.Association {
		return false
	}
	b := &blocked{commit: x.in}
	for _, p := range needed.Proposals {
		operation, err := x.policy.codePoints().ParseProposal(p.Proposal.Body)
		if err != nil {
			return false // of another kind
		}
		b.senders = append(b.senders, blockedSender{operation.Intent.ID(x.policy.Tenant), p.Expansion.Sender, &association{all: true}})
	}
	x.blocked = b
	return true
}

// queue keeps an input behind a blocked commit, and says whether it has to wait.
func (x *step) queue() bool {
	b := x.blocked
	if b == nil || x.in.Kind != KindCommit && x.in.Kind != KindProposal && x.in.Kind != KindInfo {
		return false
	}
	if len(b.behind) >= maxBehind || b.size+len(x.in.Data) > maxBehindSize {
		x.giveUp("too much waits behind a commit whose association is not known")
		return false
	}
	n := *b
	n.behind, n.size = append(slices.Clip(b.behind), x.in), b.size+len(x.in.Data)
	x.blocked = &n
	return true
}

// answerBlocked takes an answer to a blocked commit.
func (x *step) answerBlocked(answer *Answer) {
	b := x.blocked
	if b == nil || answer.Epoch > x.group.Epoch() || answer.Position < x.turned && answer.Epoch > x.turnedFrom {
		return // none, or about the leaves of another line
	}
	n := *b
	n.senders = slices.Clone(b.senders)
	for i, s := range n.senders {
		if s.intent == answer.Intent {
			n.senders[i].association = s.association.apply(answer, x.policy, x.group, s.index, x.lives)
		}
	}
	x.blocked = &n
}

// resume folds a blocked commit and what waits behind it, once all is known.
func (x *step) resume() {
	for b := x.blocked; b != nil; b = x.blocked {
		x.known = b.senders
		missing := slices.ContainsFunc(b.senders, func(s blockedSender) bool {
			_, ok := x.associatedWith(s.index)
			return !ok
		})
		if missing {
			break
		}
		x.blocked = nil
		x.replay(append([]Input{b.commit}, b.behind...))
	}
	x.known = nil
}

// giveUp counts a blocked commit as missed, and folds what waits behind it.
func (x *step) giveUp(why string) {
	b := x.blocked
	if b == nil {
		return
	}
	x.blocked, x.gap = nil, true
	x.needInfo(mlscore.ErrUnresolvable.Error(), why)
	x.bridge()
	x.replay(b.behind)
}

// replay folds inputs whose positions were passed before.
func (x *step) replay(inputs []Input) {
	last := x.in
	for _, in := range inputs {
		x.in = in
		if !x.queue() {
			x.fold()
			x.remember()
		}
		x.known = nil // it was asked for the first
	}
	x.in = last
}

// stuck says that the Authentication Service was asked about a blocked commit
// and gave no full answer.
func (s *State) stuck() bool {
	return s.blocked != nil && slices.ContainsFunc(s.blocked.senders, func(b blockedSender) bool { return b.association.unanswered() })
}

// dueBlocked asks what a blocked commit waits for, unless it is asked already.
func (s *State) dueBlocked(d *Due) {
	if s.blocked == nil {
		return
	}
	for _, b := range s.blocked.senders {
		asked := slices.ContainsFunc(d.Ask, func(q Question) bool { return q.Intent == b.intent })
		if asked || b.association.answered() {
			continue
		}
		leaf := s.group.Tree().Leaf(b.index)
		d.Ask = append(d.Ask, s.question(b.intent, b.index, leaf, b.association))
	}
}
