package mlscore_test

import (
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
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
