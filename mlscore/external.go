package mlscore

// ExternalProposal builds and signs a proposal by an external sender for the
// group's current epoch (RFC 9420, Section 12.1.8): an encoded MLSMessage. The
// signer's key is looked up in external_senders; a key that is not there is
// ErrInvalid, as is a proposal type that external senders may not send.
func ExternalProposal(g *PublicGroup, signer Signer, proposal *Proposal) ([]byte, error) {
	index, ok := g.ExternalSenderIndex(signer.PublicKey())
	if !ok {
		return nil, invalid("12.1.8.1", "key %x is not in external_senders", signer.PublicKey())
	}
	if !g.externalMaySend(proposal) {
		return nil, invalid("12.1.8", "%s by an external sender", proposal.Type)
	}
	return signExternal(g, signer, Sender{Type: SenderTypeExternal, SenderIndex: index}, proposal)
}

// ExternalRemove is ExternalProposal for the removal of a leaf, which must not
// be blank (RFC 9420, Section 12.1.3).
func ExternalRemove(g *PublicGroup, signer Signer, removed LeafIndex) ([]byte, error) {
	if g.tree.Leaf(removed) == nil {
		return nil, invalid("12.1.3", "leaf %d is blank or outside the tree", removed)
	}
	return ExternalProposal(g, signer, &Proposal{Type: ProposalTypeRemove, Removed: removed})
}

// NewMemberAdd builds and signs an Add of the sender's own key package by a
// client that is not a member (RFC 9420, Section 12.1.8): an encoded
// MLSMessage. The signer holds the key of the key package's leaf.
func NewMemberAdd(g *PublicGroup, signer Signer, keyPackage *KeyPackage) ([]byte, error) {
	return signExternal(g, signer, Sender{Type: SenderTypeNewMemberProposal}, &Proposal{Type: ProposalTypeAdd, KeyPackage: keyPackage})
}

func signExternal(g *PublicGroup, signer Signer, sender Sender, proposal *Proposal) ([]byte, error) {
	m := &PublicMessage{AuthenticatedContent: AuthenticatedContent{
		WireFormat: WireFormatPublicMessage,
		Content: FramedContent{
			GroupID: g.context.GroupID, Epoch: g.context.Epoch, Sender: sender,
			ContentType: ContentTypeProposal, Proposal: proposal,
		},
	}}
	if err := m.Sign(signer, nil); err != nil {
		return nil, err
	}
	return (&MLSMessage{WireFormat: WireFormatPublicMessage, PublicMessage: m}).Bytes(), nil
}
