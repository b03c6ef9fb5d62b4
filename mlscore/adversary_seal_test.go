package mlscore_test

import (
	"bytes"
	"slices"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// resign signs a mutant: mostly by the key of its sender, with the membership
// tag that members expect.
func (x *adversary) resign(a *mlscore.AuthenticatedContent) []byte {
	x.sign(a)
	message := x.seal(a)
	if m, err := mlscore.ParseMLSMessage(message, x.registry); err == nil && x.rng.IntN(16) == 0 {
		m.PublicMessage.MembershipTag = x.spoil1(m.PublicMessage.MembershipTag)
		message = m.Bytes()
	}
	return message
}

func (x *adversary) sign(a *mlscore.AuthenticatedContent) {
	signer, context := x.signerOf(&a.Content), x.observer.ContextBytes()
	switch x.rng.IntN(12) {
	case 0:
		signer = x.signers[string(pick(x.rng, x.keys))]
	case 1:
		signer = nil // the signature of the original
	case 2:
		if len(x.contexts) > 0 {
			context = pick(x.rng, x.contexts)
		}
	}
	if signer != nil && a.Sign(signer, context) != nil {
		x.t.Fatal("a signer that does not sign")
	}
	switch x.rng.IntN(16) {
	case 0:
		a.Signature = x.spoil1(a.Signature)
	case 1:
		a.ConfirmationTag = x.spoil1(a.ConfirmationTag)
	}
}

// seal frames a signed content as a PublicMessage. A member computes the
// membership tag: it is made to send this content in place of its own. Where no
// member is ours, nobody can tell the tag from another of its length.
func (x *adversary) seal(a *mlscore.AuthenticatedContent) []byte {
	if a.Content.Sender.Type != mlscore.SenderTypeMember || len(x.members) == 0 {
		return (&mlscore.MLSMessage{WireFormat: mlscore.WireFormatPublicMessage, PublicMessage: &mlscore.PublicMessage{
			AuthenticatedContent: *a, MembershipTag: make([]byte, x.suite.HashLen()),
		}}).Bytes()
	}
	return must(x.protect(a))
}

// protect makes the first member send a signed content in place of its own.
func (x *adversary) protect(a *mlscore.AuthenticatedContent) (message []byte, err error) {
	spoiled(x.members[0], &member.Mutate{Auth: func(own *mlscore.AuthenticatedContent) { *own = *a }}, func(g *member.Group) {
		message, err = g.Encrypt(nil, nil)
	})
	return message, err
}

// signerOf is whose signature a content needs; nil where nobody has that key.
func (x *adversary) signerOf(c *mlscore.FramedContent) mlscore.Signer {
	var key []byte
	switch c.Sender.Type {
	case mlscore.SenderTypeMember:
		if leaf := x.observer.Tree().Leaf(c.Sender.LeafIndex); leaf != nil {
			key = leaf.SignatureKey
		}
	case mlscore.SenderTypeExternal:
		key = x.broker.PublicKey()
	case mlscore.SenderTypeNewMemberProposal:
		if c.Proposal != nil && c.Proposal.KeyPackage != nil {
			key = c.Proposal.KeyPackage.LeafNode.SignatureKey
		}
	case mlscore.SenderTypeNewMemberCommit:
		if c.Commit != nil && c.Commit.Path != nil {
			key = c.Commit.Path.LeafNode.SignatureKey
		}
	}
	return x.signers[string(key)]
}

// decode reads a message and forgets the bytes that it was in, so that what is
// changed is also sent.
func (x *adversary) decode(message []byte) *mlscore.AuthenticatedContent {
	m, err := mlscore.ParseMLSMessage(bytes.Clone(message), x.registry)
	if err != nil || m.PublicMessage == nil {
		x.t.Fatalf("a message that does not decode: %v", err)
	}
	a := m.PublicMessage.AuthenticatedContent
	c := a.Content
	a.Content = mlscore.FramedContent{
		GroupID: c.GroupID, Epoch: c.Epoch, Sender: c.Sender, AuthenticatedData: c.AuthenticatedData, ContentType: c.ContentType,
	}
	if c.Proposal != nil {
		a.Content.Proposal = x.fresh(c.Proposal)
	}
	if c.Commit != nil {
		a.Content.Commit = c.Commit
		for i := range c.Commit.Proposals {
			if p := c.Commit.Proposals[i].Proposal; p != nil {
				c.Commit.Proposals[i].Proposal = x.fresh(p)
			}
		}
		if path := c.Commit.Path; path != nil {
			path.LeafNode = freshLeaf(path.LeafNode)
		}
	}
	return &a
}

func (x *adversary) fresh(p *mlscore.Proposal) *mlscore.Proposal {
	reg := x.observer.Registry()
	switch {
	case p.IsSelfRemove():
		return mlscore.NewSelfRemove(reg)
	case p.IsReplace():
		return mlscore.NewReplace(reg, p.Replaced, freshLeaf(p.LeafNode))
	}
	q := &mlscore.Proposal{
		Type: p.Type, Removed: p.Removed, PSK: p.PSK, ReInit: p.ReInit, KEMOutput: p.KEMOutput, Extensions: p.Extensions, Body: p.Body,
	}
	if p.LeafNode != nil {
		q.LeafNode = freshLeaf(p.LeafNode)
	}
	if k := p.KeyPackage; k != nil {
		q.KeyPackage = &mlscore.KeyPackage{
			Version: k.Version, CipherSuite: k.CipherSuite, InitKey: k.InitKey, LeafNode: freshLeaf(k.LeafNode),
			Extensions: k.Extensions, Signature: k.Signature,
		}
	}
	return q
}

func freshLeaf(n *mlscore.LeafNode) *mlscore.LeafNode {
	return &mlscore.LeafNode{
		EncryptionKey: n.EncryptionKey, SignatureKey: n.SignatureKey, Credential: n.Credential, Capabilities: n.Capabilities,
		Source: n.Source, Lifetime: n.Lifetime, ParentHash: n.ParentHash, Extensions: slices.Clone(n.Extensions), Signature: n.Signature,
	}
}
