package member

import (
	"errors"

	"leavebroker/mlscore"
)

// CommitOptions say what a commit contains. The zero value commits all pending
// proposals that can go together, with a path.
type CommitOptions struct {
	// Proposals are included by value.
	Proposals []*mlscore.Proposal
	// References are ProposalRefs of pending proposals to include. nil means
	// those that Selectable gives for Proposals, or only the removals among
	// these if the group cannot bear the others; an empty list means none.
	References [][]byte
	// OmitPath leaves the path out where the proposals allow it.
	OmitPath bool
	// OmitRatchetTree leaves the ratchet tree out of the Welcome: joiners need
	// it from elsewhere.
	OmitRatchetTree bool
	// AuthenticatedData travels in the clear with the commit.
	AuthenticatedData []byte
	// Client replaces this member's client in its leaf, once confirmed: for a
	// new signature key or credential. nil keeps it.
	Client *Client
}

// Commit is a commit that was made and not confirmed yet.
type Commit struct {
	// Message is the commit, an encoded MLSMessage.
	Message []byte
	// Welcome is for those whom the commit adds, an encoded MLSMessage; nil if
	// there are none.
	Welcome []byte
	// Staged tells what the commit does; nil only for one that Mutate spoiled.
	Staged *mlscore.Staged
}

// pendingCommit is an own commit and the epoch that it leads to.
type pendingCommit struct {
	message []byte
	staged  *mlscore.Staged
	epoch   *epoch
	client  *Client
}

// Commit makes a commit and remembers it as pending: nothing else changes until
// ConfirmCommit, or Process of the commit's own message. A commit by someone
// else drops it. A pending commit is replaced.
func (g *Group) Commit(opts CommitOptions) (*Commit, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	if opts.References != nil {
		return g.commit(opts, opts.References)
	}
	selected := g.Selectable(opts.Proposals)
	commit, err := g.commit(opts, selected)
	if removals := g.removalsOf(selected); errors.Is(err, mlscore.ErrInvalid) && len(removals) < len(selected) {
		return g.commit(opts, removals)
	}
	return commit, err
}

func (g *Group) commit(opts CommitOptions, references [][]byte) (*Commit, error) {
	list := make([]mlscore.ProposalOrRef, 0, len(opts.Proposals)+len(references))
	for _, ref := range references {
		list = append(list, mlscore.ProposalOrRef{Reference: ref})
	}
	for _, p := range opts.Proposals {
		list = append(list, mlscore.ProposalOrRef{Proposal: p})
	}
	b := &commitBuilder{
		client: g.client, next: g.client, suite: g.suite, public: g.epoch.public, private: g.epoch.private,
		init: g.epoch.secrets.init, findPSK: g.findPSK,
		content: g.content(g.wireFormat(), mlscore.ContentTypeCommit), omitPath: opts.OmitPath,
	}
	if opts.Client != nil {
		b.next = opts.Client
	}
	b.content.Content.AuthenticatedData = opts.AuthenticatedData
	if err := b.build(list); err != nil {
		return nil, err
	}
	return g.finishCommit(b, treeForm(!opts.OmitRatchetTree))
}

// finishCommit protects a built commit, judges it as a receiver would, and
// makes its Welcome.
func (g *Group) finishCommit(b *commitBuilder, form treeForm) (*Commit, error) {
	message, tag, err := protect(g.client.Mutate, g.suite, g.epoch, g.client.random(), b.content)
	if err != nil {
		return nil, err
	}
	staged, err := b.stage(tag)
	if err != nil {
		if g.client.Mutate != nil {
			return &Commit{Message: message}, nil
		}
		return nil, err
	}
	next, err := b.epoch(g.client.Shared.canonical(staged.Next()))
	if err != nil {
		return nil, err
	}
	commit := &Commit{Message: message, Staged: staged}
	if commit.Welcome, err = b.welcome(next, staged, form); err != nil {
		return nil, err
	}
	g.pending = &pendingCommit{message, staged, next, b.next}
	return commit, nil
}

// ConfirmCommit enters the epoch of the pending commit: the delivery service
// has accepted it.
func (g *Group) ConfirmCommit() error {
	p := g.pending
	if p == nil {
		return ErrNoPendingCommit
	}
	g.client, g.reInit = p.client, reInitOf(p.staged)
	g.enter(p.epoch)
	return nil
}

// DropCommit forgets the pending commit: the delivery service has refused it.
// If it is accepted after all, this member can only come back by JoinExternal
// with Resync.
func (g *Group) DropCommit() { g.pending = nil }

// HasPendingCommit says whether an own commit waits to be confirmed.
func (g *Group) HasPendingCommit() bool { return g.pending != nil }

// commitBuilder makes a commit of a member or of an external joiner (RFC 9420,
// Sections 12.4.1 and 12.4.3.2). The first fields are given, the rest is what
// build finds.
type commitBuilder struct {
	client   *Client // signs the commit
	next     *Client // is shown in the new leaf
	suite    *suite
	public   *mlscore.PublicGroup
	private  *privateTree // nil for an external joiner
	init     []byte
	findPSK  func(mlscore.PreSharedKeyID) ([]byte, error)
	content  *mlscore.AuthenticatedContent // signed and tagged by build
	omitPath bool

	provisional *mlscore.Provisional
	context     mlscore.GroupContext // of the new epoch
	path        *newPath             // nil without path
	psks        []psk
	joiner      []byte
	member      []byte
	secrets     *epochSecrets
}

// build applies the proposals, makes the path, signs the commit and derives the
// secrets of the new epoch.
func (b *commitBuilder) build(proposals []mlscore.ProposalOrRef) (err error) {
	c := &b.content.Content
	if b.provisional, err = b.public.Prepare(c.Sender, proposals, b.client.associations(b.public)); err != nil {
		return err
	}
	if b.psks, err = collectPSKs(b.provisional.Applied, b.findPSK); err != nil {
		return err
	}
	b.context = *b.public.Context()
	b.context.Epoch++
	b.context.Extensions = b.provisional.Extensions
	c.Commit = &mlscore.Commit{Proposals: proposals}
	if b.provisional.PathRequired || !b.omitPath {
		if c.Commit.Path, err = b.makePath(); err != nil {
			return err
		}
		b.client.Mutate.path(c.Commit.Path)
	} else {
		b.context.TreeHash = b.provisional.Edit.Tree().TreeHash()
	}
	b.client.Mutate.content(c)
	signer := b.client.Signer
	if b.private == nil {
		signer = b.next.Signer
	}
	if err := b.content.Sign(signer, b.public.ContextBytes()); err != nil {
		return err
	}
	b.deriveSecrets()
	return nil
}

// makePath draws new keys for the committer's path, puts them into the tree and
// encrypts the path secrets (RFC 9420, Section 7.5).
func (b *commitBuilder) makePath() (*mlscore.UpdatePath, error) {
	committer, s, random := b.provisional.Committer, b.suite, b.client.random()
	edit := b.provisional.Edit.Tree().Edit() // the provisional group stays as it is, to judge the commit
	if b.private == nil {                    // room for the new leaf
		if err := edit.SetLeaf(committer, b.next.newLeaf(mlscore.LeafNodeSourceCommit, nil)); err != nil {
			return nil, err
		}
	}
	var err error
	if b.path, err = s.newPath(random, edit.FilteredDirectPath(committer)); err != nil {
		return nil, err
	}
	leaf := b.next.newLeaf(mlscore.LeafNodeSourceCommit, b.path.leaf.public)
	b.next.markEpoch(leaf, b.public.Epoch())
	if leaf.ParentHash, err = edit.PathParentHash(committer, b.path.publicKeys()); err != nil {
		return nil, err
	}
	b.client.Mutate.leafNode(leaf)
	if err := leaf.Sign(b.next.Signer, b.public.GroupID(), committer); err != nil {
		return nil, err
	}
	path := &mlscore.UpdatePath{LeafNode: leaf}
	for _, key := range b.path.publicKeys() {
		path.Nodes = append(path.Nodes, mlscore.UpdatePathNode{EncryptionKey: key})
	}
	if err := edit.MergePath(committer, path); err != nil && b.client.Mutate == nil {
		return nil, err
	}
	tree := edit.Tree()
	b.context.TreeHash = tree.TreeHash()
	path.Nodes, err = b.path.encrypt(s, random, tree, committer, b.provisional.Added, b.context.Append(nil))
	return path, err
}

// deriveSecrets completes the new GroupContext with the signed commit, derives
// the epoch's secrets from it and tags the commit (RFC 9420, Section 8).
func (b *commitBuilder) deriveSecrets() {
	s := b.suite
	b.context.ConfirmedTranscriptHash = mlscore.ConfirmedTranscriptHash(s.Suite, b.public.InterimTranscriptHash(), b.content)
	b.client.Mutate.groupContext(&b.context)
	context := b.context.Append(nil)
	commitSecret := s.zero()
	if b.path != nil {
		commitSecret = b.path.commitSecret
	}
	b.joiner = s.joinerSecret(b.init, commitSecret, context)
	b.member = s.memberSecret(b.joiner, s.pskSecret(b.psks))
	b.secrets = s.epochSecrets(b.member, context)
	b.content.ConfirmationTag = s.confirmationTag(b.secrets, b.context.ConfirmedTranscriptHash)
}

// stage judges the built commit as a receiver would. What the proposals do was
// judged when they were prepared, unless the commit was spoiled since.
func (b *commitBuilder) stage(membershipTag []byte) (*mlscore.Staged, error) {
	if b.client.Mutate != nil {
		return b.public.StageContent(b.content, b.client.associations(b.public))
	}
	staged, err := b.provisional.Stage(b.content)
	if err == nil {
		b.client.remember(b.public, b.content, membershipTag, staged)
	}
	return staged, err
}

// epoch is the new epoch as the committer sees it, given its public state.
func (b *commitBuilder) epoch(public *mlscore.PublicGroup) (*epoch, error) {
	private := b.private
	if private == nil {
		private = &privateTree{index: b.provisional.Committer}
	}
	var fresh map[mlscore.NodeIndex]*privateKey
	if b.path != nil {
		fresh = b.path.privateKeys(private.index)
	}
	private, err := private.after(public.Tree(), fresh)
	if err != nil {
		return nil, err
	}
	return newEpoch(b.suite, public, b.content.ConfirmationTag, private, b.secrets), nil
}
