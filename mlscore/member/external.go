package member

import (
	"slices"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// ExternalJoinOptions say how to join by an external commit. The zero value
// joins with nothing but the own leaf.
type ExternalJoinOptions struct {
	// RatchetTree is the data of a ratchet_tree extension; nil where the
	// GroupInfo carries it.
	RatchetTree []byte
	// Resync removes the leaf that has this client's signature key, if there is
	// one: the client was a member and lost its state.
	Resync bool
	// Pending are proposals sent in this epoch, encoded MLSMessages. The
	// SelfRemoves among them are included by reference; others cannot be.
	Pending [][]byte
	// LeafOperations are encoded Proposals of a custom type, as a leave broker
	// lists them for joiners. Those that can be are included by value: not one
	// whose leaf is gone or changed, that removes a leaf which something else
	// here removes, or whose type a member does not list in its capabilities.
	LeafOperations [][]byte
	// Proposals are further proposals by value: PSK proposals, and in place of
	// Resync the Remove of an old leaf of this client that has another key.
	Proposals []*mlscore.Proposal
	// AuthenticatedData travels in the clear with the commit.
	AuthenticatedData []byte
}

// JoinExternal joins a group by an external commit (RFC 9420, Section
// 12.4.3.2). The GroupInfo is an encoded MLSMessage with external_pub. The
// result is the group in its new epoch and the commit: the caller drops the
// group if the delivery service refuses the commit, and does not process the
// commit if it comes back.
func (c *Client) JoinExternal(groupInfo []byte, opts ExternalJoinOptions) (*Group, *Commit, error) {
	m, err := mlscore.ParseMLSMessage(groupInfo, c.registry())
	if err != nil {
		return nil, nil, err
	}
	if m.GroupInfo == nil {
		return nil, nil, invalid("12.4.3.2", "wire_format %d is no GroupInfo", m.WireFormat)
	}
	s, err := c.suite()
	if err != nil {
		return nil, nil, err
	}
	if suite := m.GroupInfo.GroupContext.CipherSuite; suite != c.CipherSuite {
		return nil, nil, invalid("12.4.3.2", "a group of suite 0x%04x for a client of suite 0x%04x", uint16(suite), uint16(c.CipherSuite))
	}
	public, err := c.Shared.publicGroup(s, m.GroupInfo, opts.RatchetTree, mlscore.Options{Registry: c.registry()})
	if err != nil {
		return nil, nil, err
	}
	b := &commitBuilder{
		client: c, next: c, suite: s, public: public, findPSK: c.findPSK,
		content: &mlscore.AuthenticatedContent{WireFormat: mlscore.WireFormatPublicMessage, Content: mlscore.FramedContent{
			GroupID: public.GroupID(), Epoch: public.Epoch(), ContentType: mlscore.ContentTypeCommit,
			Sender: mlscore.Sender{Type: mlscore.SenderTypeNewMemberCommit}, AuthenticatedData: opts.AuthenticatedData,
		}},
	}
	list, err := b.externalProposals(m.GroupInfo, opts)
	if err != nil {
		return nil, nil, err
	}
	if err := b.build(list); err != nil {
		return nil, nil, err
	}
	return b.finishExternal()
}

// externalProposals lists what an external commit contains, and draws its init
// secret (RFC 9420, Section 8.3).
func (b *commitBuilder) externalProposals(gi *mlscore.GroupInfo, opts ExternalJoinOptions) ([]mlscore.ProposalOrRef, error) {
	data, ok := gi.Extensions.Find(mlscore.ExtensionTypeExternalPub)
	if !ok {
		return nil, invalid("12.4.3.2", "a GroupInfo without external_pub")
	}
	r := codec.NewReader(data)
	externalPub := r.Opaque()
	if err := r.Finish(); err != nil {
		return nil, err
	}
	kemOutput, init, err := b.suite.externalInit(b.client.random(), externalPub)
	if err != nil {
		return nil, err
	}
	b.init = init
	leaving := make(map[mlscore.LeafIndex]bool)
	for _, p := range opts.Proposals {
		if p.Type == mlscore.ProposalTypeRemove {
			leaving[p.Removed] = true
		}
	}
	references, err := b.stagePending(opts.Pending, leaving)
	if err != nil {
		return nil, err
	}
	list := []mlscore.ProposalOrRef{{Proposal: &mlscore.Proposal{Type: mlscore.ProposalTypeExternalInit, KEMOutput: kemOutput}}}
	if opts.Resync {
		// Beside its SelfRemove, a Remove of the old leaf would be invalid.
		leaf, found := b.public.Tree().FindSignatureKey(b.client.Signer.PublicKey())
		if found && claim(leaving, leaf) {
			list = append(list, mlscore.ProposalOrRef{Proposal: Remove(leaf)})
		}
	}
	for _, p := range opts.Proposals {
		list = append(list, mlscore.ProposalOrRef{Proposal: p})
	}
	operations, err := b.leafOperations(opts.LeafOperations, leaving)
	return slices.Concat(list, operations, references), err
}

// leafOperations decodes custom proposals and gives those by value that go
// together with what is chosen.
func (b *commitBuilder) leafOperations(encoded [][]byte, leaving map[mlscore.LeafIndex]bool) (list []mlscore.ProposalOrRef, err error) {
	s := &selection{public: b.public, client: b.client, changed: leaving, removed: make(map[mlscore.LeafIndex]bool)}
	for _, e := range encoded {
		r := codec.NewReader(e)
		p := mlscore.ReadProposal(r, b.client.registry())
		if err := r.Finish(); err != nil {
			return nil, err
		}
		if s.custom(p) {
			list = append(list, mlscore.ProposalOrRef{Proposal: p})
		}
	}
	return list, nil
}

// stagePending receives the pending proposals and gives references to the
// SelfRemoves among them, one for each leaf, if every member supports them.
func (b *commitBuilder) stagePending(pending [][]byte, leaving map[mlscore.LeafIndex]bool) (refs []mlscore.ProposalOrRef, err error) {
	for _, message := range pending {
		m, err := mlscore.ParseMLSMessage(message, b.client.registry())
		if err != nil {
			return nil, err
		}
		if m.PublicMessage == nil || m.PublicMessage.Content.ContentType != mlscore.ContentTypeProposal {
			return nil, invalid("12.4.3.2", "a pending message that is no proposal in a PublicMessage")
		}
		staged, err := b.client.stage(b.public, &m.PublicMessage.AuthenticatedContent, m.PublicMessage.MembershipTag)
		if err != nil {
			return nil, err
		}
		p := staged.Proposal
		usable := p.Invalid == nil && p.Proposal.IsSelfRemove() && b.public.Tree().SupportsProposal(p.Proposal.Type)
		if usable && claim(leaving, p.Sender.LeafIndex) {
			refs = append(refs, mlscore.ProposalOrRef{Reference: p.Ref})
		}
		b.public = staged.Next()
	}
	return refs, nil
}

// finishExternal judges the external commit as a receiver would, and enters the
// epoch that it leads to.
func (b *commitBuilder) finishExternal() (*Group, *Commit, error) {
	message, tag, err := protect(b.client.Mutate, b.suite, nil, b.client.random(), b.content)
	if err != nil {
		return nil, nil, err
	}
	commit := &Commit{Message: message}
	if commit.Staged, err = b.stage(tag); err != nil {
		if b.client.Mutate != nil {
			return nil, commit, nil
		}
		return nil, nil, err
	}
	e, err := b.epoch(b.client.Shared.canonical(commit.Staged.Next()))
	if err != nil {
		return nil, nil, err
	}
	return newGroup(b.client, b.suite, e), commit, nil
}
