package biggroup

import (
	"fmt"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// Handshake is a message that was sent in a group.
type Handshake struct {
	Message    []byte      // an MLSMessage
	Signatures []Signature // what whoever follows the group has to verify for it
}

// Commit makes a member commit all proposals of the epoch, with a path
// (RFC 9420, Section 12.4), and begins the next epoch.
func (g *Group) Commit(committer mlscore.LeafIndex) (Handshake, error) {
	leaf := g.tree.Leaf(committer)
	if leaf == nil {
		return Handshake{}, fmt.Errorf("no member at leaf %d", committer)
	}
	edit := g.tree.Edit()
	for _, i := range g.removed {
		if i == committer {
			return Handshake{}, fmt.Errorf("leaf %d is to be removed: it cannot commit", committer)
		}
		if err := edit.Remove(i); err != nil {
			return Handshake{}, err
		}
	}
	edit.Truncate()
	sender := mlscore.Sender{Type: mlscore.SenderTypeMember, LeafIndex: committer}
	return g.commit(edit, committer, leaf, sender, g.proposals)
}

// ExternalCommit makes a new member join at the leftmost blank leaf by an
// external commit (RFC 9420, Section 12.4.3.2), which drops the proposals of
// the epoch, and begins the next epoch.
func (g *Group) ExternalCommit() (Handshake, mlscore.LeafIndex, error) {
	edit := g.tree.Edit()
	joiner := edit.LeftmostBlank()
	leaf, err := g.join(joiner, false)
	if err != nil {
		return Handshake{}, 0, err
	}
	if err := edit.SetLeaf(joiner, leaf); err != nil {
		return Handshake{}, 0, err
	}
	init := &mlscore.Proposal{Type: mlscore.ProposalTypeExternalInit, KEMOutput: g.bytes(g.kemOutputLen())}
	sender := mlscore.Sender{Type: mlscore.SenderTypeNewMemberCommit}
	h, err := g.commit(edit, joiner, leaf, sender, []mlscore.ProposalOrRef{{Proposal: init}})
	return h, joiner, err
}

// commit commits a path on top of an edited tree.
func (g *Group) commit(edit *mlscore.TreeEdit, i mlscore.LeafIndex, leaf *mlscore.LeafNode, sender mlscore.Sender, proposals []mlscore.ProposalOrRef) (Handshake, error) {
	path, err := g.mergePath(edit, i, leaf)
	if err != nil {
		return Handshake{}, err
	}
	g.encryptPath(edit, i, path)
	m := &mlscore.PublicMessage{AuthenticatedContent: mlscore.AuthenticatedContent{
		WireFormat: mlscore.WireFormatPublicMessage,
		Content: mlscore.FramedContent{
			GroupID: g.context.GroupID, Epoch: g.context.Epoch, Sender: sender,
			ContentType: mlscore.ContentTypeCommit,
			Commit:      &mlscore.Commit{Proposals: proposals, Path: path},
		},
		ConfirmationTag: g.bytes(g.suite.HashLen()),
	}}
	context := g.context.Append(nil)
	if err := m.Sign(g.signers[i], context); err != nil {
		return Handshake{}, err
	}
	if sender.Type == mlscore.SenderTypeMember {
		m.MembershipTag = g.bytes(g.suite.HashLen())
	}
	h := handshake(m)
	h.Signatures = []Signature{
		g.signature(leaf.SignatureKey, "FramedContentTBS", m.TBS(context), m.Signature),
		g.leafSignature(i, path.LeafNode),
	}
	g.advance(edit.Tree(), &m.AuthenticatedContent)
	return h, nil
}

// encryptPath fills in the ciphertexts of a path: a path secret for each node
// in the resolution of the copath (RFC 9420, Section 7.6).
func (g *Group) encryptPath(edit *mlscore.TreeEdit, i mlscore.LeafIndex, path *mlscore.UpdatePath) {
	const tag = 16 // of every AEAD in suites 1 to 7
	for k, x := range edit.FilteredDirectPath(i) {
		sibling := x.Left()
		if x > i.NodeIndex() { // the leaf is below the left child
			sibling = x.Right()
		}
		secrets := make([]mlscore.HPKECiphertext, len(edit.Resolution(sibling)))
		for j := range secrets {
			secrets[j] = mlscore.HPKECiphertext{
				KEMOutput:  g.bytes(g.kemOutputLen()),
				Ciphertext: g.bytes(g.suite.HashLen() + tag),
			}
		}
		path.Nodes[k].EncryptedPathSecret = secrets
	}
}

// advance begins the epoch after a commit.
func (g *Group) advance(tree *mlscore.RatchetTree, commit *mlscore.AuthenticatedContent) {
	g.tree = tree
	g.context.Epoch++
	g.context.TreeHash = tree.TreeHash()
	g.context.ConfirmedTranscriptHash = mlscore.ConfirmedTranscriptHash(g.suite, g.interim, commit)
	g.confirmationTag = commit.ConfirmationTag
	g.interim = mlscore.InterimTranscriptHash(g.suite, g.context.ConfirmedTranscriptHash, g.confirmationTag)
	g.proposals, g.removed = nil, nil
}

// ProposeRemove is a Remove of a member by the external sender, which the next
// commit of the epoch refers to (RFC 9420, Section 12.1.8).
func (g *Group) ProposeRemove(i mlscore.LeafIndex) (Handshake, error) {
	m := &mlscore.PublicMessage{AuthenticatedContent: mlscore.AuthenticatedContent{
		WireFormat: mlscore.WireFormatPublicMessage,
		Content: mlscore.FramedContent{
			GroupID: g.context.GroupID, Epoch: g.context.Epoch, Sender: mlscore.Sender{Type: mlscore.SenderTypeExternal},
			ContentType: mlscore.ContentTypeProposal,
			Proposal:    &mlscore.Proposal{Type: mlscore.ProposalTypeRemove, Removed: i},
		},
	}}
	if err := m.Sign(g.sender, nil); err != nil {
		return Handshake{}, err
	}
	g.proposals = append(g.proposals, mlscore.ProposalOrRef{Reference: m.ProposalRef(g.suite)})
	g.removed = append(g.removed, i)
	h := handshake(m)
	h.Signatures = []Signature{g.signature(g.sender.PublicKey(), "FramedContentTBS", m.TBS(nil), m.Signature)}
	return h, nil
}

func handshake(m *mlscore.PublicMessage) Handshake {
	return Handshake{Message: (&mlscore.MLSMessage{WireFormat: mlscore.WireFormatPublicMessage, PublicMessage: m}).Bytes()}
}

// LeafSignatures are those of all leaves, from left to right.
func (g *Group) LeafSignatures() []Signature {
	var list []Signature
	for i, leaf := range g.tree.All() {
		list = append(list, g.leafSignature(i, leaf))
	}
	return list
}

func (g *Group) leafSignature(i mlscore.LeafIndex, leaf *mlscore.LeafNode) Signature {
	return g.signature(leaf.SignatureKey, "LeafNodeTBS", leaf.TBS(g.context.GroupID, i), leaf.Signature)
}

func (g *Group) signature(key []byte, label string, content, signature []byte) Signature {
	return Signature{Scheme: g.suite.Signature, Key: key, Message: mlscore.SignContent(label, content), Signature: signature}
}

func opaque(b []byte) []byte { return codec.AppendOpaque(nil, b) }
