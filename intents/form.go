package intents

import (
	"slices"

	"leavebroker/mlscore"
)

// Form is what removals are proposed as.
type Form uint8

const (
	// FormRemove is a plain Remove for each leaf.
	FormRemove Form = iota
	// FormLeafOperation is one LeafOperationProposal for each intent, where every
	// member's capabilities list the type.
	FormLeafOperation

	formHeld Form = 255 // nothing for now
)

// formOf is what an intent is proposed as in this epoch.
func (s *State) formOf(r *record) Form {
	switch {
	case s.policy.Form != FormLeafOperation || !s.membersExpand() || s.fellBack(r) || r.senderGone || r.lostInGap || r.replaced() || r.misread(s.policy):
		return FormRemove
	case r.association != nil && (!r.association.answered() || r.association.heldBack(s.policy)):
		return formHeld
	}
	return FormLeafOperation
}

// misread says that members would understand more of the intent than we do.
func (r *record) misread(p *Policy) bool {
	if r.intent.RemovalMode != RemoveAssociatedMembers {
		return false
	}
	return r.senderOnly || r.association == nil || r.association.givenUp || !p.SharedAssociation
}

// fellBack says that too many epochs passed since the intent was verified or
// last got a target removed.
func (s *State) fellBack(r *record) bool {
	since, now := max(r.verifiedEpoch, r.removedEpoch), s.group.Epoch()
	return s.policy.FallbackEpochs > 0 && now > since && now-since >= uint64(s.policy.FallbackEpochs)
}

// membersExpand says whether every member's capabilities list the
// LeafOperationProposal, and we can read it too.
func (s *State) membersExpand() bool {
	t := s.policy.codePoints().ProposalType
	known := slices.ContainsFunc(s.group.Registry().Custom, func(c mlscore.CustomProposal) bool { return c.Type == t && c.Expand != nil })
	return known && s.group.Tree().SupportsProposal(t)
}

func (s *State) operation(r *record) *mlscore.Proposal {
	return s.policy.codePoints().Proposal(&LeafOperationProposal{Intent: r.intent})
}

// joinable are the LeafOperationProposals that an external joiner may include
// by value, all together, beside the SelfRemoves.
func (s *State) joinable() [][]byte {
	list := [][]byte{}
	if !s.able() || s.blocked != nil || s.sole || !s.membersExpand() {
		return list
	}
	taken := s.selfRemoves()
	for _, r := range s.open {
		a := r.association
		if r.senderGone || r.lostInGap || r.replaced() || r.misread(s.policy) || a != nil && (!a.answered() || a.heldBack(s.policy)) {
			continue
		}
		leaves := r.targets()
		if slices.ContainsFunc(leaves, func(leaf mlscore.LeafIndex) bool { return taken[leaf] }) {
			continue
		}
		list, taken = append(list, s.operation(r).Bytes()), claimed(taken, leaves)
	}
	return list
}

// sentProposal is a removal by a key of ours.
type sentProposal struct {
	raw       []byte
	message   *mlscore.MLSMessage
	leaves    []mlscore.LeafIndex // that it removes, as far as we know
	operation string              // the intent of a LeafOperationProposal
}

// readRemoval tells what a proposal removes; false where it is no removal.
func (s *State) readRemoval(p *mlscore.Proposal) (leaves []mlscore.LeafIndex, operation string, ok bool) {
	if p.Type == mlscore.ProposalTypeRemove {
		return []mlscore.LeafIndex{p.Removed}, "", true
	}
	if p.Type != s.policy.codePoints().ProposalType {
		return nil, "", false
	}
	o, err := s.policy.codePoints().ParseProposal(p.Body)
	if err != nil {
		return nil, "", false
	}
	operation, leaves = o.Intent.ID(s.policy.Tenant), []mlscore.LeafIndex{o.Intent.SenderIndex}
	if r, known := s.records.get(operation); known && r.association != nil && !isTerminal(r.state) {
		for _, leaf := range r.association.associated {
			leaves = with(leaves, leaf)
		}
	}
	return leaves, operation, true
}

// pendingOurs says whether a pending proposal is a removal by a key of ours.
func (s *State) pendingOurs(p *mlscore.PendingProposal) bool {
	_, _, ok := s.removes(s.group, p)
	return ok
}

// ordering is an order in the making.
type ordering struct {
	*Order
	out   map[mlscore.LeafIndex]bool // SelfRemoves, and what the LeafOperationProposals remove
	plain map[mlscore.LeafIndex]bool // the Removes
}

// choose enters what an intent wants now: its LeafOperationProposal only if no
// other proposal concerns one of its leaves.
func (s *State) choose(o *ordering, r *record) {
	form := s.formOf(r)
	if form == formHeld {
		return
	}
	targets := r.actionable(s.policy)
	whole, wanted := form == FormLeafOperation, false
	for _, leaf := range targets {
		whole = whole && s.mayRemove(o, leaf) && !o.plain[leaf]
	}
	if whole {
		o.out = claimed(o.out, targets)
		o.Operations, o.Intents = append(o.Operations, s.operation(r)), append(o.Intents, r.id)
		return
	}
	for _, leaf := range targets {
		if !s.mayRemove(o, leaf) {
			continue
		}
		if wanted = true; !o.plain[leaf] {
			o.Leaves = append(o.Leaves, leaf)
			o.plain = claimed(o.plain, []mlscore.LeafIndex{leaf})
		}
	}
	if wanted {
		o.Intents = append(o.Intents, r.id)
	}
}

// mayRemove says whether a removal of a leaf can go out now.
func (s *State) mayRemove(o *ordering, leaf mlscore.LeafIndex) bool {
	return !o.out[leaf] && !has(s.out, leaf) && s.group.Tree().LeafBytes(leaf) != nil && !s.disputed(leaf)
}

func claimed(set map[mlscore.LeafIndex]bool, leaves []mlscore.LeafIndex) map[mlscore.LeafIndex]bool {
	if set == nil {
		set = make(map[mlscore.LeafIndex]bool)
	}
	for _, leaf := range leaves {
		set[leaf] = true
	}
	return set
}
