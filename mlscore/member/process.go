package member

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"leavebroker/mlscore"
)

// Received is what a processed message meant.
type Received struct {
	// ContentType tells whether it was application data, a proposal or a commit.
	ContentType mlscore.ContentType
	Sender      mlscore.Sender
	// AuthenticatedData was sent in the clear with the message.
	AuthenticatedData []byte
	// ApplicationData is set for application data.
	ApplicationData []byte
	// Staged tells what a proposal or commit does to the public state.
	Staged *mlscore.Staged
	// Removed says that the commit removed this member: the group is of no more
	// use to it, and its state is that of the last epoch it was in.
	Removed bool
	// ReInit is set where the commit closed the group in favour of another.
	ReInit *mlscore.ReInit
}

// Process takes a message in: an encoded MLSMessage with a PublicMessage or
// PrivateMessage of this group. A commit changes the epoch. The own pending
// commit is confirmed by processing it. On an error nothing changes. Own
// PrivateMessages other than the pending commit cannot be read.
func (g *Group) Process(message []byte) (*Received, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	if g.pending != nil && bytes.Equal(message, g.pending.message) {
		return g.processOwn()
	}
	m, err := mlscore.ParseMLSMessage(message, g.client.registry())
	if err != nil {
		return nil, err
	}
	switch m.WireFormat {
	case mlscore.WireFormatPublicMessage:
		return g.processPublic(m.PublicMessage)
	case mlscore.WireFormatPrivateMessage:
		return g.processPrivate(m.PrivateMessage)
	}
	return nil, invalid("6", "wire_format %d is no message within a group", m.WireFormat)
}

func (g *Group) processOwn() (*Received, error) {
	p := g.pending
	received := &Received{
		ContentType: mlscore.ContentTypeCommit, Staged: p.staged, ReInit: reInitOf(p.staged),
		Sender: mlscore.Sender{Type: mlscore.SenderTypeMember, LeafIndex: g.OwnLeaf()},
	}
	return received, g.ConfirmCommit()
}

func (g *Group) processPublic(m *mlscore.PublicMessage) (*Received, error) {
	if err := g.checkGroup(m.Content.GroupID, m.Content.Epoch); err != nil {
		return nil, err
	}
	if m.Content.Sender.Type == mlscore.SenderTypeMember {
		if err := g.suite.verifyMembershipTag(g.epoch.secrets.membershipKey, m, g.epoch.public.ContextBytes()); err != nil {
			return nil, err
		}
	}
	return g.processHandshake(&m.AuthenticatedContent, m.MembershipTag)
}

func (g *Group) processPrivate(m *mlscore.PrivateMessage) (*Received, error) {
	if m.ContentType == mlscore.ContentTypeApplication {
		if r := g.pastReader(m); r != nil {
			return r.read(m, g.client.registry())
		}
	}
	if err := g.checkGroup(m.GroupID, m.Epoch); err != nil {
		return nil, err
	}
	if m.ContentType == mlscore.ContentTypeApplication {
		return g.epoch.reader().read(m, g.client.registry())
	}
	a, use, err := g.epoch.messages.decrypt(g.epoch.secrets.senderData, m, g.client.registry())
	if err != nil {
		return nil, err
	}
	received, err := g.processHandshake(a, nil)
	if err == nil {
		use()
	}
	return received, err
}

// reader is what it takes to read the application data of an epoch.
type reader struct {
	public     *mlscore.PublicGroup
	senderData []byte
	messages   *secretTree
}

func (e *epoch) reader() *reader { return &reader{e.public, e.secrets.senderData, e.messages} }

// pastReader finds what reads a message of an earlier epoch; nil if nothing does.
func (g *Group) pastReader(m *mlscore.PrivateMessage) *reader {
	i := slices.IndexFunc(g.past, func(r *reader) bool {
		return r.public.Epoch() == m.Epoch && bytes.Equal(r.public.GroupID(), m.GroupID)
	})
	if i < 0 {
		return nil
	}
	return g.past[i]
}

// read decrypts application data and verifies who sent it (RFC 9420, Section 6.3).
func (r *reader) read(m *mlscore.PrivateMessage, reg *mlscore.Registry) (*Received, error) {
	a, use, err := r.messages.decrypt(r.senderData, m, reg)
	if err != nil {
		return nil, err
	}
	leaf := r.public.Tree().Leaf(a.Content.Sender.LeafIndex)
	if leaf == nil {
		return nil, invalid("6.1", "the sender's leaf %d is blank", a.Content.Sender.LeafIndex)
	}
	if err := a.VerifySignature(r.public.Suite(), leaf.SignatureKey, r.public.ContextBytes()); err != nil {
		return nil, err
	}
	use()
	received := receive(a)
	received.ApplicationData = a.Content.ApplicationData
	return received, nil
}

func receive(a *mlscore.AuthenticatedContent) *Received {
	return &Received{ContentType: a.Content.ContentType, Sender: a.Content.Sender, AuthenticatedData: a.Content.AuthenticatedData}
}

// checkGroup compares a message's group and epoch with ours.
func (g *Group) checkGroup(groupID []byte, epoch uint64) error {
	switch ours := g.Epoch(); {
	case !bytes.Equal(groupID, g.GroupID()):
		return invalid("6", "a message of group %x", groupID)
	case epoch < ours:
		return &mlscore.Error{Class: mlscore.ErrStale, Section: "RFC 9420, Section 6", Detail: fmt.Sprintf("a message of epoch %d in epoch %d", epoch, ours)}
	case epoch > ours:
		return &mlscore.Error{Class: mlscore.ErrAhead, Section: "RFC 9420, Section 6", Detail: fmt.Sprintf("a message of epoch %d in epoch %d", epoch, ours)}
	}
	return nil
}

// processHandshake judges a proposal or commit, first in public, then with our
// secrets (RFC 9420, Section 12.4.2).
func (g *Group) processHandshake(a *mlscore.AuthenticatedContent, membershipTag []byte) (*Received, error) {
	staged, err := g.client.stage(g.epoch.public, a, membershipTag)
	if err != nil {
		return nil, knownContext(err)
	}
	received := receive(a)
	received.Staged = staged
	if staged.Kind == mlscore.StagedProposal {
		g.epoch.public = staged.Next()
		return received, nil
	}
	if sender := a.Content.Sender; sender.Type == mlscore.SenderTypeMember && sender.LeafIndex == g.OwnLeaf() {
		return nil, invalid("12.4.2", "a commit by our leaf %d that is not our pending one", sender.LeafIndex)
	}
	if slices.Contains(staged.Removed, g.OwnLeaf()) {
		g.removed, g.pending, received.Removed = true, nil, true
		return received, nil
	}
	next, client, err := g.nextEpoch(a, staged)
	if err != nil {
		return nil, err
	}
	g.client, g.reInit = client, reInitOf(staged)
	g.enter(next)
	received.ReInit = g.reInit
	return received, nil
}

// knownContext turns what an observer doubts into what a member knows: our
// GroupContext is confirmed, so a signature that contradicts it is invalid.
func knownContext(err error) error {
	var refusal *mlscore.Error
	if errors.As(err, &refusal) && refusal.Class == mlscore.ErrDiverged {
		return &mlscore.Error{Class: mlscore.ErrInvalid, Section: refusal.Section, Detail: refusal.Detail}
	}
	return err
}

// nextEpoch derives the epoch after a commit by another (RFC 9420, Section
// 12.4.2), and the client that this member is in it.
func (g *Group) nextEpoch(a *mlscore.AuthenticatedContent, staged *mlscore.Staged) (*epoch, *Client, error) {
	s, public := g.suite, g.client.Shared.canonical(staged.Next())
	psks, err := collectPSKs(staged.Applied, g.findPSK)
	if err != nil {
		return nil, nil, err
	}
	private, client, err := g.privateAfter(public.Tree())
	if err != nil {
		return nil, nil, err
	}
	commitSecret := s.zero()
	if path := a.Content.Commit.Path; path != nil {
		provisional := *public.Context()
		provisional.ConfirmedTranscriptHash = g.epoch.public.ConfirmedTranscriptHash()
		fresh, secret, err := private.openPath(s, public.Tree(), staged.Committer, path, staged.Added, provisional.Append(nil))
		if err != nil {
			return nil, nil, err
		}
		if private, err = private.after(public.Tree(), fresh); err != nil {
			return nil, nil, err
		}
		commitSecret = secret
	}
	init, err := g.initSecret(staged)
	if err != nil {
		return nil, nil, err
	}
	joiner := s.joinerSecret(init, commitSecret, public.ContextBytes())
	secrets := s.epochSecrets(s.memberSecret(joiner, s.pskSecret(psks)), public.ContextBytes())
	if !sameMAC(a.ConfirmationTag, s.confirmationTag(secrets, public.ConfirmedTranscriptHash())) {
		return nil, nil, invalid("12.4.2", "the confirmation tag of %d bytes is wrong", len(a.ConfirmationTag))
	}
	return newEpoch(s, public, a.ConfirmationTag, private, secrets), client, nil
}

// privateAfter is the private view of a tree before its path is opened, with
// the key of an own Update if the commit took one.
func (g *Group) privateAfter(tree *mlscore.RatchetTree) (*privateTree, *Client, error) {
	fresh, client := make(map[mlscore.NodeIndex]*privateKey), g.client
	leaf := g.OwnLeaf().NodeIndex()
	for _, own := range g.updates {
		if bytes.Equal(own.key.public, tree.EncryptionKeyOf(leaf)) {
			fresh[leaf], client = own.key, own.client
		}
	}
	private, err := g.epoch.private.after(tree, fresh)
	return private, client, err
}

// initSecret is that of our epoch, or what an external commit brings (RFC 9420,
// Section 8.3).
func (g *Group) initSecret(staged *mlscore.Staged) ([]byte, error) {
	if staged.Kind != mlscore.StagedExternalCommit {
		return g.epoch.secrets.init, nil
	}
	external, err := g.suite.deriveKeyPair(g.epoch.secrets.external)
	if err != nil {
		return nil, err
	}
	for _, a := range staged.Applied {
		if a.Proposal.Type == mlscore.ProposalTypeExternalInit {
			return g.suite.openExternalInit(external, a.Proposal.KEMOutput)
		}
	}
	return nil, invalid("12.4.3.2", "an external commit without ExternalInit")
}

// reInitOf is the ReInit that a commit contains; nil if there is none.
func reInitOf(staged *mlscore.Staged) *mlscore.ReInit {
	for _, a := range staged.Applied {
		if a.Proposal.Type == mlscore.ProposalTypeReInit {
			return &a.Proposal.ReInit
		}
	}
	return nil
}
