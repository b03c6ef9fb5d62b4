package mlscore

import (
	"bytes"
	"crypto/sha256"
	"iter"
	"slices"

	"leavebroker/mlscore/codec"
)

// PublicGroup is the public state of a group in one epoch: an immutable value.
// Stage gives the state after a message and leaves this one as it was.
type PublicGroup struct {
	suite    *Suite
	registry *Registry
	opts     Options
	context  GroupContext
	encoded  []byte // context, encoded
	interim  []byte // interim transcript hash
	tree     *RatchetTree
	senders  []ExternalSender
	pending  pendingSet
	leaving  []LeafIndex // who sent a SelfRemove in this epoch, ascending
	flags    flags       // of the GroupInfo
	proven   bool
	closed   bool
}

// NewPublicGroup starts from a GroupInfo and its ratchet tree, which is the
// body of the ratchet_tree extension: given beside it, or nil where the
// GroupInfo carries it (RFC 9420, Section 12.4.3.3). Everything that a joiner
// checks without secrets is checked (RFC 9420, Sections 12.4.3.1 and 7.9.2):
// the tree's hash, parent hashes, unmerged leaves, keys and leaves, then the
// signature. The confirmation tag cannot be checked.
func NewPublicGroup(gi *GroupInfo, ratchetTree []byte, opts Options) (*PublicGroup, error) {
	opts = opts.withDefaults()
	suite, err := groupInfoSuite(gi, opts.Registry)
	if err != nil {
		return nil, err
	}
	if ratchetTree == nil {
		var ok bool
		if ratchetTree, ok = gi.Extensions.Find(ExtensionTypeRatchetTree); !ok {
			return nil, refuse(ErrUnresolvable, "12.4.3.3", "a GroupInfo without its ratchet tree")
		}
	}
	tree, err := ParseRatchetTree(suite, ratchetTree)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(tree.TreeHash(), gi.GroupContext.TreeHash) {
		return nil, invalid("7.8", "the tree's hash is %x, the GroupContext's tree_hash %x", tree.TreeHash(), gi.GroupContext.TreeHash)
	}
	signature := func() error { return gi.verifySigner(tree) }
	if err := tree.verify(gi.GroupContext.GroupID, opts.Parallel, signature); err != nil {
		return nil, err
	}
	return newVerifiedTreeGroup(gi, tree, opts)
}

// NewPublicGroupWithTree is NewPublicGroup for a tree that was verified before
// for this group (RatchetTree.Verify): only its hash is compared.
func NewPublicGroupWithTree(gi *GroupInfo, verified *RatchetTree, opts Options) (*PublicGroup, error) {
	opts = opts.withDefaults()
	if _, err := groupInfoSuite(gi, opts.Registry); err != nil {
		return nil, err
	}
	if !bytes.Equal(verified.TreeHash(), gi.GroupContext.TreeHash) {
		return nil, invalid("7.8", "the tree's hash is %x, the GroupContext's tree_hash %x", verified.TreeHash(), gi.GroupContext.TreeHash)
	}
	if err := gi.verifySigner(verified); err != nil {
		return nil, err
	}
	return newVerifiedTreeGroup(gi, verified, opts)
}

func groupInfoSuite(gi *GroupInfo, reg *Registry) (*Suite, error) {
	suite, err := contextSuite(&gi.GroupContext, reg)
	if err != nil {
		return nil, err
	}
	if n := len(gi.ConfirmationTag); n != suite.HashLen() {
		return nil, malformed("6.1", "confirmation_tag of %d bytes, want %d", n, suite.HashLen())
	}
	return suite, nil
}

// contextSuite is the cipher suite of a GroupContext that can be followed.
func contextSuite(gc *GroupContext, reg *Registry) (*Suite, error) {
	if v := gc.Version; v != ProtocolVersionMLS10 {
		return nil, refuse(ErrUnsupported, "12.4.3", "protocol version %d", v)
	}
	suite, err := reg.LookupSuite(gc.CipherSuite)
	if err != nil {
		return nil, err
	}
	// A zero-length confirmed transcript hash is that of a new group (Section 11).
	if n := len(gc.ConfirmedTranscriptHash); n != suite.HashLen() && (n != 0 || gc.Epoch != 0) {
		return nil, malformed("8.2", "confirmed_transcript_hash of %d bytes", n)
	}
	return suite, nil
}

// newVerifiedTreeGroup is the group of a verified tree and signature.
func newVerifiedTreeGroup(gi *GroupInfo, tree *RatchetTree, opts Options) (*PublicGroup, error) {
	suite := tree.Suite()
	g := &PublicGroup{
		suite: suite, registry: opts.Registry, opts: opts, context: gi.GroupContext, tree: tree,
		interim: InterimTranscriptHash(suite, gi.GroupContext.ConfirmedTranscriptHash, gi.ConfirmationTag),
	}
	// The context is read again from its own bytes, or it would keep the whole
	// message with its tree in memory.
	g.encoded = g.context.Append(nil)
	g.context = ReadGroupContext(codec.NewReader(g.encoded))
	rules, err := g.rulesFor(g.context.Extensions, tree, &g.flags)
	if err != nil {
		return nil, err
	}
	if g.senders, err = rules.checkGroup(); err != nil {
		return nil, err
	}
	if err := rules.checkLeaves(); err != nil {
		return nil, err
	}
	g.flagGroupInfo(gi.Extensions)
	return g, nil
}

// GroupID is the group's identifier.
func (g *PublicGroup) GroupID() []byte { return g.context.GroupID }

// Epoch is the number of the current epoch.
func (g *PublicGroup) Epoch() uint64 { return g.context.Epoch }

// Context is the GroupContext of the current epoch. It must not be changed.
func (g *PublicGroup) Context() *GroupContext { return &g.context }

// ContextBytes is the encoded GroupContext. It must not be changed.
func (g *PublicGroup) ContextBytes() []byte { return g.encoded }

// Tree is the ratchet tree of the current epoch.
func (g *PublicGroup) Tree() *RatchetTree { return g.tree }

// Suite is the group's cipher suite.
func (g *PublicGroup) Suite() *Suite { return g.suite }

// Registry is the deployment's code points.
func (g *PublicGroup) Registry() *Registry { return g.registry }

// ConfirmedTranscriptHash is that of the current epoch (RFC 9420, Section 8.2).
func (g *PublicGroup) ConfirmedTranscriptHash() []byte { return g.context.ConfirmedTranscriptHash }

// InterimTranscriptHash is that of the current epoch (RFC 9420, Section 8.2).
func (g *PublicGroup) InterimTranscriptHash() []byte { return g.interim }

// Proven says whether a member has signed something over this epoch's
// GroupContext. A group made from a GroupInfo, and every new epoch, starts
// unproven: an observer cannot check confirmation tags.
func (g *PublicGroup) Proven() bool { return g.proven }

// Closed says whether a ReInit was committed: no commit can follow (RFC 9420,
// Section 12.4.2).
func (g *PublicGroup) Closed() bool { return g.closed }

// Flags name what is wrong with the GroupInfo that the group was made from, and
// accepted because members accept it: the Flag constants. Later epochs have
// none; what their messages bring is in Staged.
func (g *PublicGroup) Flags() []string { return g.flags }

// At is the group as it is judged at a time, in seconds since the Unix epoch:
// what is staged from it, and from the states after it, is judged by Options
// with that Time.
func (g *PublicGroup) At(time uint64) *PublicGroup {
	later := *g
	later.opts.Time = time
	return &later
}

// ExternalSenders lists who may send external proposals (RFC 9420, Section 12.1.8.1).
func (g *PublicGroup) ExternalSenders() []ExternalSender { return g.senders }

// ExternalSenderIndex finds a signature key in external_senders: the first
// entry that has it.
func (g *PublicGroup) ExternalSenderIndex(signatureKey []byte) (uint32, bool) {
	for i := range g.senders {
		if bytes.Equal(g.senders[i].SignatureKey, signatureKey) {
			return uint32(i), true
		}
	}
	return 0, false
}

// Proposals yields the proposals of the current epoch in order of arrival.
func (g *PublicGroup) Proposals() iter.Seq[*PendingProposal] { return g.pending.all() }

// Proposal finds a proposal of the current epoch by its ProposalRef; nil if
// there is none.
func (g *PublicGroup) Proposal(ref []byte) *PendingProposal { return g.pending.find(ref) }

// StagedKind tells what a staged message is.
type StagedKind uint8

// The kinds of staged messages.
const (
	StagedProposal StagedKind = iota + 1
	StagedCommit
	StagedExternalCommit
)

// Staged is a message that was judged valid: what it does, and the state after
// it. Leaf lists are ascending.
type Staged struct {
	Kind StagedKind
	// Proposal is the staged proposal; nil for a commit.
	Proposal *PendingProposal

	// Committer is the leaf of the committer after the commit.
	Committer LeafIndex
	// Removed are the leaves that Remove, SelfRemove, a custom proposal or a
	// resync took out.
	Removed []LeafIndex
	// Updated are the leaves changed by Update, Replace or the committer's path.
	Updated []LeafIndex
	// Added are the leaves filled by Add or by an external committer.
	Added []LeafIndex
	// Resync is set where an external committer removed its own old leaf.
	Resync bool
	// Applied are the proposals of the commit in the order of their list.
	Applied []AppliedProposal
	// CommitHash is the SHA-256 of the commit's AuthenticatedContent.
	CommitHash [sha256.Size]byte

	// Proves says whether a member's signature over the GroupContext of the
	// state before was verified.
	Proves bool
	// Flags name what is wrong but accepted, because members accept it: the Flag
	// constants.
	Flags []string

	next *PublicGroup
}

// AppliedProposal is a proposal of a commit with its origin.
type AppliedProposal struct {
	Proposal *Proposal
	Sender   Sender
	Ref      []byte // nil: by value
	// Expansion is what a custom proposal stands for, and Removes the leaves that
	// it removes, ascending: they originate from the Expansion's sender. nil for
	// any other proposal.
	Expansion *Expansion
	Removes   []LeafIndex
}

// Next is the state after the message.
func (s *Staged) Next() *PublicGroup { return s.next }

// Stage judges a proposal or commit against the group. Its errors wrap
// ErrMalformed, ErrInvalid, ErrStale, ErrAhead, ErrUnresolvable or ErrDiverged.
func (g *PublicGroup) Stage(m *MLSMessage) (*Staged, error) { return g.StageWith(m, nil) }

// StageWith is Stage for a commit that was refused as *AssociationNeeded, now
// that the associations are known. Where the commit contradicts them, it is
// ErrUnresolvable.
func (g *PublicGroup) StageWith(m *MLSMessage, known Associations) (*Staged, error) {
	switch m.WireFormat {
	case WireFormatPublicMessage:
		return g.stage(&m.PublicMessage.AuthenticatedContent, m.PublicMessage.MembershipTag, known)
	case WireFormatPrivateMessage:
		if !bytes.Equal(m.PrivateMessage.GroupID, g.context.GroupID) {
			return nil, invalid("6.3", "a message of group %x", m.PrivateMessage.GroupID)
		}
		if err := g.checkEpoch(m.PrivateMessage.Epoch); err != nil {
			return nil, err
		}
		return nil, refuse(ErrUnresolvable, "6.3", "the handshake is a PrivateMessage")
	}
	return nil, malformed("6", "wire_format %d carries no handshake", m.WireFormat)
}

// StageContent judges a proposal or commit that a member has taken out of a
// PrivateMessage or is about to send.
func (g *PublicGroup) StageContent(a *AuthenticatedContent, known Associations) (*Staged, error) {
	return g.stage(a, nil, known)
}

func (g *PublicGroup) stage(a *AuthenticatedContent, membershipTag []byte, known Associations) (*Staged, error) {
	if err := g.checkFraming(a, membershipTag); err != nil {
		return nil, err
	}
	if a.Content.ContentType == ContentTypeProposal {
		return g.stageProposal(a, membershipTag)
	}
	return g.stageCommit(a, known)
}

// checkEpoch compares a message's epoch with ours.
func (g *PublicGroup) checkEpoch(epoch uint64) error {
	switch {
	case epoch < g.context.Epoch:
		return refuse(ErrStale, "6", "a message of epoch %d in epoch %d", epoch, g.context.Epoch)
	case epoch > g.context.Epoch:
		return refuse(ErrAhead, "6", "a message of epoch %d in epoch %d", epoch, g.context.Epoch)
	}
	return nil
}

// checkFraming judges what surrounds a handshake, and then its signature
// (RFC 9420, Sections 6.1 and 6.2).
func (g *PublicGroup) checkFraming(a *AuthenticatedContent, membershipTag []byte) error {
	c := &a.Content
	if !bytes.Equal(c.GroupID, g.context.GroupID) {
		return invalid("6", "a message of group %x", c.GroupID)
	}
	if err := g.checkEpoch(c.Epoch); err != nil {
		return err
	}
	if c.ContentType == ContentTypeApplication {
		return invalid("6.2", "application data in a PublicMessage")
	}
	if g.closed {
		return invalid("12.4.2", "the group was reinitialized: nothing can follow")
	}
	if c.Sender.Type == SenderTypeMember && membershipTag != nil && len(membershipTag) != g.suite.HashLen() {
		return malformed("6.2", "membership_tag of %d bytes, want %d", len(membershipTag), g.suite.HashLen())
	}
	if c.ContentType == ContentTypeCommit && len(a.ConfirmationTag) != g.suite.HashLen() {
		return malformed("6.1", "confirmation_tag of %d bytes, want %d", len(a.ConfirmationTag), g.suite.HashLen())
	}
	key, err := g.senderKey(c)
	if err != nil {
		return err
	}
	if err := a.VerifySignature(g.suite, key, g.encoded); err != nil {
		bound := c.Sender.Type == SenderTypeMember || c.Sender.Type == SenderTypeNewMemberCommit
		if bound && !g.proven {
			// Forged, or signed over another GroupContext: until a member has
			// signed over ours, ours may be the wrong one.
			return refuse(ErrDiverged, "6.1", "%v, and no member has signed over our GroupContext of epoch %d yet", err, g.context.Epoch)
		}
		return err
	}
	return nil
}

// senderKey finds the key that has to have signed a message and checks which
// sender may send what (RFC 9420, Sections 6 and 12.1.8).
func (g *PublicGroup) senderKey(c *FramedContent) ([]byte, error) {
	isProposal := c.ContentType == ContentTypeProposal
	switch c.Sender.Type {
	case SenderTypeMember:
		leaf := g.tree.LeafBytes(c.Sender.LeafIndex)
		if leaf == nil {
			return nil, invalid("6.1", "the sender's leaf %d is blank or outside the tree", c.Sender.LeafIndex)
		}
		return signatureKeyOf(leaf), nil
	case SenderTypeExternal:
		if !isProposal {
			return nil, invalid("6", "a commit by an external sender")
		}
		if !g.externalMaySend(c.Proposal) {
			return nil, malformed("12.1.8", "%s by an external sender", c.Proposal.Type)
		}
		if c.Sender.SenderIndex >= uint32(len(g.senders)) {
			return nil, invalid("12.1.8.1", "sender_index %d of %d external senders", c.Sender.SenderIndex, len(g.senders))
		}
		return g.senders[c.Sender.SenderIndex].SignatureKey, nil
	case SenderTypeNewMemberProposal:
		if !isProposal || c.Proposal.Type != ProposalTypeAdd {
			return nil, malformed("6", "new_member_proposal with other content than an Add")
		}
		return c.Proposal.KeyPackage.LeafNode.SignatureKey, nil
	case SenderTypeNewMemberCommit:
		if isProposal {
			return nil, malformed("6", "new_member_commit with a proposal")
		}
		if c.Commit.Path == nil {
			return nil, invalid("12.4.3.2", "an external commit without path")
		}
		return c.Commit.Path.LeafNode.SignatureKey, nil
	}
	return nil, malformed("6", "%s", c.Sender.Type)
}

// externalMaySend says whether an external sender may send a proposal
// (RFC 9420, Section 12.1.8). A type of a custom registry is one of those whose
// registration allows it.
func (g *PublicGroup) externalMaySend(p *Proposal) bool {
	switch p.Type {
	case ProposalTypeAdd, ProposalTypeRemove, ProposalTypePSK, ProposalTypeReInit, ProposalTypeGroupContextExtensions:
		return true
	case ProposalTypeUpdate, ProposalTypeExternalInit:
		return false
	}
	return !p.isSelfRemove && !p.isReplace
}

func (g *PublicGroup) stageProposal(a *AuthenticatedContent, membershipTag []byte) (*Staged, error) {
	ref := a.ProposalRef(g.suite)
	next := *g
	staged := &Staged{Kind: StagedProposal, Proposal: g.pending.find(ref), Proves: a.Content.Sender.Type == SenderTypeMember, next: &next}
	next.proven = g.proven || staged.Proves
	if staged.Proposal != nil {
		return staged, nil // an echo
	}
	if g.pending.n >= MaxPendingProposals {
		return nil, invalid("", "more than %d proposals in one epoch", MaxPendingProposals)
	}
	staged.Proposal = &PendingProposal{
		Ref: ref, Proposal: a.Content.Proposal, Sender: a.Content.Sender, Content: a, MembershipTag: membershipTag,
		Invalid: g.checkProposal(a.Content.Proposal, a.Content.Sender, true),
	}
	if staged.Proposal.Invalid == nil {
		staged.Proposal.Expansion, staged.Proposal.Invalid = g.Expand(a.Content.Proposal)
	}
	if a.WireFormat != WireFormatPublicMessage && staged.Proposal.Invalid == nil && mustBePublic(a) {
		staged.Proposal.Invalid = invalid("12.1.8", "%s by %s in a PrivateMessage", a.Content.Proposal.Type, a.Content.Sender.Type)
	}
	next.pending = g.pending.with(staged.Proposal)
	staged.Flags = next.noteProposal(staged.Proposal)
	return staged, nil
}

// noteProposal keeps who sent a SelfRemove, and flags a second one of the same
// leaf and a Remove of it. A committer may not have seen the first, so members
// cannot refuse a commit that contains only the other.
func (g *PublicGroup) noteProposal(p *PendingProposal) (found flags) {
	switch {
	case p.Invalid != nil:
	case p.Proposal.isSelfRemove:
		leaving := insertSorted(g.leaving, p.Sender.LeafIndex)
		found.addIf(len(leaving) == len(g.leaving), FlagSecondSelfRemove)
		g.leaving = leaving
	case p.Proposal.Type == ProposalTypeRemove:
		_, leaves := slices.BinarySearch(g.leaving, p.Proposal.Removed)
		found.addIf(leaves, FlagRemoveBesideSelfRemove)
	case p.Proposal.isReplace:
		found.addIf(g.changesSignatureKey(p.Proposal), FlagReplacedSignatureKey)
	}
	return found
}

// mustBePublic says whether a proposal is only valid in a PublicMessage:
// external proposals (RFC 9420, Section 12.1.8) and SelfRemove (draft-ietf-mls-extensions).
func mustBePublic(a *AuthenticatedContent) bool {
	return a.Content.Sender.Type != SenderTypeMember || a.Content.Proposal.isSelfRemove
}
