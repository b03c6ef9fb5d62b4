package mlscore_test

import (
	"bytes"
	"slices"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
)

// operation is a LeafOperationProposal of a leaf, in either mode. It is mostly
// valid if the leaf is in use.
func (x *adversary) operation(leaf mlscore.LeafIndex) *mlscore.Proposal {
	in := &intents.LeafOperationIntent{
		GroupID: x.observer.GroupID(), SenderIndex: leaf, SenderLeafRef: make([]byte, x.suite.HashLen()),
		RemovalMode: intents.RemovalMode(1 + x.rng.IntN(2)),
	}
	if node := x.observer.Tree().Leaf(leaf); node != nil {
		in.SenderLeafRef = node.Ref(x.suite)
	}
	x.signIntent(in)
	return x.points.Proposal(&intents.LeafOperationProposal{Intent: in})
}

// signIntent signs an intent, mostly by the key of its sender's leaf.
func (x *adversary) signIntent(in *intents.LeafOperationIntent) {
	var signer mlscore.Signer
	if node := x.observer.Tree().Leaf(in.SenderIndex); node != nil {
		signer = x.signers[string(node.SignatureKey)]
	}
	if signer == nil || x.rng.IntN(12) == 0 {
		signer = x.signers[string(pick(x.rng, x.keys))]
	}
	in.Signature = must(mlscore.SignWithLabel(signer, intents.Label, in.TBS()))
}

// leaving is what a broker gives to a joiner: mostly nothing.
func (x *adversary) leaving() (operations [][]byte) {
	for len(x.members) > 4 && x.rng.IntN(3) == 0 {
		operations = append(operations, x.operation(x.occupied()).Bytes())
	}
	return operations
}

// concerned is a leaf that something in a commit's list concerns: whose owner
// sent it, which it removes or replaces, or any other leaf.
func (x *adversary) concerned(c *mlscore.Commit) mlscore.LeafIndex {
	if len(c.Proposals) == 0 {
		return x.occupied()
	}
	entry, sender := pick(x.rng, c.Proposals), x.occupied()
	if pending := x.observer.Proposal(entry.Reference); pending != nil {
		entry.Proposal, sender = pending.Proposal, pending.Sender.LeafIndex
	}
	p := entry.Proposal
	switch {
	case p == nil:
		return x.occupied()
	case p.Type == mlscore.ProposalTypeRemove:
		return p.Removed
	case p.IsReplace():
		return p.Replaced
	case p.Type == x.points.ProposalType:
		if operation, err := x.points.ParseProposal(p.Body); err == nil {
			return operation.Intent.SenderIndex
		}
	}
	return sender
}

// subject is the LeafOperationProposal that a kind of spoiler is about, a pending
// one if there is one; nil where it is about something else.
func (x *adversary) subject(kind string) *mlscore.Proposal {
	if kind != "other associations" && kind != "same effect" {
		return nil
	}
	for p := range x.observer.Proposals() {
		if p.Expansion != nil {
			return p.Proposal
		}
	}
	return x.operation(x.occupied())
}

// restate says the same removal another way, or twice: the tree and the path stay
// right, and only the rules about lists can tell.
func (x *adversary) restate(c *mlscore.Commit) {
	i := slices.IndexFunc(c.Proposals, func(p mlscore.ProposalOrRef) bool {
		return p.Proposal != nil && p.Proposal.Type == x.points.ProposalType
	})
	if i < 0 {
		return
	}
	c.Proposals = slices.Clone(c.Proposals)
	p := c.Proposals[i].Proposal
	for pending := range x.observer.Proposals() {
		if bytes.Equal(pending.Proposal.Bytes(), p.Bytes()) && x.rng.IntN(2) == 0 {
			c.Proposals[i] = mlscore.ProposalOrRef{Reference: pending.Ref}
			return
		}
	}
	again, sender := p, must(x.points.ParseProposal(p.Body)).Intent.SenderIndex
	switch x.rng.IntN(3) {
	case 0:
		again = x.operation(sender)
	case 1:
		again = member.Remove(sender)
	}
	c.Proposals = append(c.Proposals, mlscore.ProposalOrRef{Proposal: again})
}

// changeOperation changes the intent in a LeafOperationProposal, mostly signs it
// again, and wraps it as the deployment does or the other way.
func (x *adversary) changeOperation(p *mlscore.Proposal) {
	operation, err := x.points.ParseProposal(p.Body)
	if err != nil {
		p.Body = x.spoil1(p.Body)
		return
	}
	in := operation.Intent
	switch x.rng.IntN(9) {
	case 0:
		in.GroupID = x.spoil1(in.GroupID)
	case 1:
		in.SenderIndex = x.leafIndex()
	case 2:
		in.SenderLeafRef = x.spoil1(in.SenderLeafRef)
	case 3:
		in.SenderLeafRef = x.observer.Tree().Leaf(x.occupied()).Ref(x.suite)
	case 4: // all of another leaf
		in.SenderIndex = x.occupied()
		in.SenderLeafRef = x.observer.Tree().Leaf(in.SenderIndex).Ref(x.suite)
	case 5, 6:
		in.RemovalMode = intents.RemovalMode(x.rng.IntN(4))
	case 7: // by another leaf
		in.Signature = must(mlscore.SignWithLabel(x.signers[string(pick(x.rng, x.keys))], intents.Label, in.TBS()))
		p.Body = x.points.Proposal(operation).Body
		return
	default:
		in.Signature = x.spoil1(in.Signature)
		p.Body = x.points.Proposal(operation).Body
		return
	}
	if x.rng.IntN(8) > 0 {
		x.signIntent(in)
	}
	p.Body = x.points.Proposal(operation).Body
	switch {
	case x.rng.IntN(12) > 0:
	case x.points.Body == intents.BodyOpaque:
		p.Body = in.Bytes()
	default:
		p.Body = codec.AppendOpaque(nil, in.Bytes())
	}
}

// checkOperations judges again, by the text of the draft, the
// LeafOperationProposals in what the observer accepts. Members cannot: they
// judge by the same code.
func (x *adversary) checkOperations(kind string, staged *mlscore.Staged) {
	x.t.Helper()
	if p := staged.Proposal; p != nil {
		if p.Proposal.Type == x.points.ProposalType && (p.Invalid == nil) != x.sound(p.Proposal) {
			x.t.Errorf("%s: a LeafOperationProposal by %s: %v", kind, p.Sender.Type, p.Invalid)
		}
		return
	}
	external := staged.Kind == mlscore.StagedExternalCommit
	touched := map[mlscore.LeafIndex]int{staged.Committer: 1}
	if external {
		touched = make(map[mlscore.LeafIndex]int)
	}
	operations := 0
	for _, a := range staged.Applied {
		for _, leaf := range x.touches(&a) {
			touched[leaf]++
		}
		if a.Proposal.Type != x.points.ProposalType {
			continue
		}
		operations++
		if !x.sound(a.Proposal) || external && a.Ref != nil && !x.registry.Custom[0].AcceptReferences {
			x.t.Errorf("%s: accepted with a LeafOperationProposal that is not valid", kind)
			continue
		}
		for _, leaf := range x.touches(&a) {
			before, after := x.observer.Tree().Leaf(leaf), staged.Next().Tree().Leaf(leaf)
			if !slices.Contains(staged.Removed, leaf) || after != nil && bytes.Equal(before.Bytes(), after.Bytes()) {
				x.t.Errorf("%s: leaf %d is still there", kind, leaf)
			}
		}
	}
	for leaf, n := range touched {
		if n > 1 && operations > 0 {
			x.t.Errorf("%s: accepted, and leaf %d is changed by %d", kind, leaf, n)
		}
	}
}

// sound makes the checks of the draft's Section 2.3 on a proposal's intent.
func (x *adversary) sound(p *mlscore.Proposal) bool {
	operation, err := x.points.ParseProposal(p.Body)
	if err != nil {
		return false
	}
	in := operation.Intent
	leaf := x.observer.Tree().Leaf(in.SenderIndex)
	return leaf != nil && bytes.Equal(in.GroupID, x.observer.GroupID()) && bytes.Equal(in.SenderLeafRef, leaf.Ref(x.suite)) &&
		(in.RemovalMode == intents.SenderRemovalOnly || in.RemovalMode == intents.RemoveAssociatedMembers) &&
		x.suite.VerifyWithLabel(leaf.SignatureKey, intents.Label, in.TBS(), in.Signature) == nil
}

// touches lists the leaves that a proposal changes or removes.
func (x *adversary) touches(a *mlscore.AppliedProposal) []mlscore.LeafIndex {
	p := a.Proposal
	switch {
	case p.Type == x.points.ProposalType:
		in := must(x.points.ParseProposal(p.Body)).Intent
		if in.RemovalMode == intents.SenderRemovalOnly {
			return []mlscore.LeafIndex{in.SenderIndex}
		}
		others, _ := x.associated(x.observer, in.SenderIndex)
		return append(slices.Clone(others), in.SenderIndex)
	case p.Type == mlscore.ProposalTypeRemove:
		return []mlscore.LeafIndex{p.Removed}
	case p.IsReplace():
		return []mlscore.LeafIndex{p.Replaced}
	case p.Type == mlscore.ProposalTypeUpdate || p.IsSelfRemove():
		return []mlscore.LeafIndex{a.Sender.LeafIndex}
	}
	return nil
}
