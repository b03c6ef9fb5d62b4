package member

import (
	"io"
	"slices"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

func appendOpaque(v []byte) []byte { return codec.AppendOpaque(nil, v) }

// Propose signs a proposal for the current epoch and gives the encoded
// MLSMessage. The proposal counts as received. One that no commit could contain
// is refused. Update proposals are made by ProposeUpdate.
func (g *Group) Propose(p *mlscore.Proposal) ([]byte, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	wire := g.wireFormat()
	if p.IsSelfRemove() {
		wire = mlscore.WireFormatPublicMessage // external joiners have to read it
	}
	a := g.content(wire, mlscore.ContentTypeProposal)
	a.Content.Proposal = p
	message, tag, err := g.send(a)
	if err != nil {
		return nil, err
	}
	staged, err := g.client.stage(g.epoch.public, a, tag)
	if err == nil {
		err = staged.Proposal.Invalid
	}
	switch {
	case err == nil:
		g.epoch.public = staged.Next()
	case g.client.Mutate == nil:
		return nil, err
	}
	return message, nil
}

// ProposeAdd proposes to add a client (RFC 9420, Section 12.1.1).
func (g *Group) ProposeAdd(k *mlscore.KeyPackage) ([]byte, error) { return g.Propose(Add(k)) }

// ProposeRemove proposes to remove a member (RFC 9420, Section 12.1.3).
func (g *Group) ProposeRemove(leaf mlscore.LeafIndex) ([]byte, error) { return g.Propose(Remove(leaf)) }

// ProposeUpdate proposes a fresh leaf for this member (RFC 9420, Section
// 12.1.2). The leaf is that of client, which replaces the member's client once
// the proposal is committed; nil keeps it.
func (g *Group) ProposeUpdate(client *Client) ([]byte, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	leaf, own, err := g.freshLeaf(client)
	if err != nil {
		return nil, err
	}
	message, err := g.Propose(&mlscore.Proposal{Type: mlscore.ProposalTypeUpdate, LeafNode: leaf})
	if err != nil {
		return nil, err
	}
	g.updates = append(g.updates, own)
	if len(g.updates) > maxOwnLeaves {
		g.updates = slices.Delete(g.updates, 0, 1)
	}
	return message, nil
}

// freshLeaf makes a leaf for this member with source update. It carries the
// current epoch where the client supports that, so that others may later
// propose it by Replace (draft-barnes-mls-replace).
func (g *Group) freshLeaf(client *Client) (*mlscore.LeafNode, ownLeaf, error) {
	if client == nil {
		client = g.client
	}
	key, err := g.suite.generateKeyPair(g.client.random())
	if err != nil {
		return nil, ownLeaf{}, err
	}
	leaf := client.newLeaf(mlscore.LeafNodeSourceUpdate, key.public)
	client.markEpoch(leaf, g.Epoch())
	client.Mutate.leafNode(leaf)
	return leaf, ownLeaf{key, client}, leaf.Sign(client.Signer, g.GroupID(), g.OwnLeaf())
}

// markEpoch sets leaf_node_epoch if the leaf's capabilities list it.
func (c *Client) markEpoch(leaf *mlscore.LeafNode, epoch uint64) {
	if t := c.registry().LeafNodeEpoch; t != 0 && leaf.Capabilities.SupportsExtension(t) {
		leaf.Extensions = leaf.Extensions.With(t, codec.AppendUint64(nil, epoch))
	}
}

// Add is a proposal to add a client.
func Add(k *mlscore.KeyPackage) *mlscore.Proposal {
	return &mlscore.Proposal{Type: mlscore.ProposalTypeAdd, KeyPackage: k}
}

// Remove is a proposal to remove a member.
func Remove(leaf mlscore.LeafIndex) *mlscore.Proposal {
	return &mlscore.Proposal{Type: mlscore.ProposalTypeRemove, Removed: leaf}
}

// ReInit is a proposal to close the group in favour of another (RFC 9420,
// Section 12.1.5).
func ReInit(r mlscore.ReInit) *mlscore.Proposal {
	return &mlscore.Proposal{Type: mlscore.ProposalTypeReInit, ReInit: r}
}

// GroupContextExtensions is a proposal to replace the GroupContext's extensions
// (RFC 9420, Section 12.1.7).
func GroupContextExtensions(x mlscore.Extensions) *mlscore.Proposal {
	return &mlscore.Proposal{Type: mlscore.ProposalTypeGroupContextExtensions, Extensions: x}
}

// ExternalPSK is a proposal to use an external pre-shared key, with a fresh
// nonce (RFC 9420, Section 12.1.4).
func (c *Client) ExternalPSK(id []byte) (*mlscore.Proposal, error) {
	return c.pskProposal(mlscore.PreSharedKeyID{Type: mlscore.PSKTypeExternal, ID: id})
}

// ResumptionPSK is a proposal to use the resumption PSK of an epoch of a group,
// with a fresh nonce (RFC 9420, Section 12.1.4).
func (c *Client) ResumptionPSK(usage mlscore.ResumptionPSKUsage, groupID []byte, epoch uint64) (*mlscore.Proposal, error) {
	return c.pskProposal(mlscore.PreSharedKeyID{Type: mlscore.PSKTypeResumption, Usage: usage, GroupID: groupID, Epoch: epoch})
}

func (c *Client) pskProposal(id mlscore.PreSharedKeyID) (*mlscore.Proposal, error) {
	s, err := c.suite()
	if err != nil {
		return nil, err
	}
	if id.Nonce, err = s.randomSecret(c.random()); err != nil {
		return nil, err
	}
	return &mlscore.Proposal{Type: mlscore.ProposalTypePSK, PSK: id}, nil
}

// Encrypt protects application data as an encoded MLSMessage (RFC 9420,
// Section 6.3). The authenticated data travels in the clear.
func (g *Group) Encrypt(data, authenticatedData []byte) ([]byte, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	a := g.content(mlscore.WireFormatPrivateMessage, mlscore.ContentTypeApplication)
	a.Content.ApplicationData, a.Content.AuthenticatedData = data, authenticatedData
	message, _, err := g.send(a)
	return message, err
}

// wireFormat is how this member sends handshakes.
func (g *Group) wireFormat() mlscore.WireFormat {
	if g.client.EncryptHandshakes {
		return mlscore.WireFormatPrivateMessage
	}
	return mlscore.WireFormatPublicMessage
}

// content is an empty content by this member in the current epoch.
func (g *Group) content(wire mlscore.WireFormat, t mlscore.ContentType) *mlscore.AuthenticatedContent {
	return &mlscore.AuthenticatedContent{WireFormat: wire, Content: mlscore.FramedContent{
		GroupID: g.GroupID(), Epoch: g.Epoch(), ContentType: t,
		Sender: mlscore.Sender{Type: mlscore.SenderTypeMember, LeafIndex: g.OwnLeaf()},
	}}
}

// send signs a proposal or application data and protects it.
func (g *Group) send(a *mlscore.AuthenticatedContent) (message, membershipTag []byte, err error) {
	g.client.Mutate.content(&a.Content)
	if err := a.Sign(g.client.Signer, g.epoch.public.ContextBytes()); err != nil {
		return nil, nil, err
	}
	return protect(g.client.Mutate, g.suite, g.epoch, g.client.random(), a)
}

// protect turns a signed content into an encoded MLSMessage (RFC 9420, Section 6).
func protect(mutate *Mutate, s *suite, e *epoch, random io.Reader, a *mlscore.AuthenticatedContent) (message, membershipTag []byte, err error) {
	mutate.auth(a)
	if a.WireFormat == mlscore.WireFormatPrivateMessage {
		private, err := e.messages.encrypt(random, e.secrets.senderData, a)
		if err != nil {
			return nil, nil, err
		}
		return (&mlscore.MLSMessage{WireFormat: a.WireFormat, PrivateMessage: private}).Bytes(), nil, nil
	}
	public := &mlscore.PublicMessage{AuthenticatedContent: *a}
	if a.Content.Sender.Type == mlscore.SenderTypeMember {
		public.MembershipTag = s.membershipTag(e.secrets.membershipKey, a, e.public.ContextBytes())
	}
	return (&mlscore.MLSMessage{WireFormat: a.WireFormat, PublicMessage: public}).Bytes(), public.MembershipTag, nil
}
