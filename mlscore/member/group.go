package member

import (
	"bytes"
	"fmt"
	"iter"
	"slices"

	"leavebroker/mlscore"
)

// Group is a member's state of a group. A method that fails leaves it as it
// was. It is not safe for concurrent use.
type Group struct {
	client *Client
	suite  *suite
	epoch  *epoch
	// updates are the leaves that this member proposed since its leaf last
	// changed, the newest last: an Update that no commit took may come back as
	// a Replace.
	updates []ownLeaf
	pending *pendingCommit
	// past reads application data of earlier epochs, the newest last.
	past []*reader
	// reInit is what closed the group; nil while it is open.
	reInit *mlscore.ReInit
	// origin is the group that this one continues, while it makes its first commit.
	origin *Group
	// resumption holds the resumption PSKs of this and earlier epochs.
	resumption map[uint64][]byte
	removed    bool
}

// maxResumptionPSKs is how many epochs back a resumption PSK is kept
// (RFC 9420, Section 8.6).
const maxResumptionPSKs = 64

// maxOwnLeaves is how many proposed leaves a member remembers.
const maxOwnLeaves = 16

// epoch is the state of one epoch. It is replaced as a whole; only messages
// changes within it, as keys are used up, and public, as proposals arrive.
type epoch struct {
	public   *mlscore.PublicGroup
	tag      []byte // confirmation tag
	private  *privateTree
	secrets  *epochSecrets
	messages *secretTree
}

// ownLeaf is a leaf that this member has proposed for itself: its key, and the
// client that it shows.
type ownLeaf struct {
	key    *privateKey
	client *Client
}

// newEpoch assembles an epoch whose GroupContext, secrets and private keys are
// known.
func newEpoch(s *suite, public *mlscore.PublicGroup, tag []byte, private *privateTree, secrets *epochSecrets) *epoch {
	return &epoch{
		public: public, tag: tag, private: private, secrets: secrets,
		messages: newSecretTree(s, secrets.encryption, public.Tree().LeafWidth()),
	}
}

func newGroup(c *Client, s *suite, e *epoch) *Group {
	g := &Group{client: c, suite: s, resumption: make(map[uint64][]byte)}
	g.enter(e)
	return g
}

// enter moves to another epoch.
func (g *Group) enter(e *epoch) {
	if g.epoch != nil && g.epoch.private.leafKey() != e.private.leafKey() {
		g.updates = nil
	}
	if g.epoch != nil {
		g.past = append(g.past, g.epoch.reader())
		g.past = slices.Delete(g.past, 0, max(0, len(g.past)-g.client.PastEpochs))
	}
	g.epoch, g.pending = e, nil
	n := e.public.Epoch()
	g.resumption[n] = e.secrets.resumptionPSK
	if n >= maxResumptionPSKs {
		delete(g.resumption, n-maxResumptionPSKs)
	}
}

// usable refuses work in a group that this member is out of, or that is closed.
func (g *Group) usable() error {
	if g.removed {
		return ErrRemoved
	}
	if g.epoch.public.Closed() {
		return ErrReInitialized
	}
	return nil
}

// Create makes a group of one with a GroupContext of the given extensions
// (RFC 9420, Section 11). The lifetime is that of the creator's leaf.
func (c *Client) Create(groupID []byte, extensions mlscore.Extensions, lifetime mlscore.Lifetime) (*Group, error) {
	s, err := c.suite()
	if err != nil {
		return nil, err
	}
	key, err := s.generateKeyPair(c.random())
	if err != nil {
		return nil, err
	}
	leaf := c.newLeaf(mlscore.LeafNodeSourceKeyPackage, key.public)
	leaf.Lifetime = lifetime
	c.Mutate.leafNode(leaf)
	if err := leaf.Sign(c.Signer, nil, 0); err != nil {
		return nil, err
	}
	epochSecret, err := s.randomSecret(c.random())
	if err != nil {
		return nil, err
	}
	tree := mlscore.NewRatchetTree(s.Suite, leaf)
	secrets := s.secretsOfEpoch(epochSecret)
	gi := &mlscore.GroupInfo{
		GroupContext: mlscore.GroupContext{
			Version: mlscore.ProtocolVersionMLS10, CipherSuite: c.CipherSuite, GroupID: groupID,
			TreeHash: tree.TreeHash(), Extensions: extensions,
		},
		ConfirmationTag: s.confirmationTag(secrets, nil),
	}
	if err := gi.Sign(c.Signer); err != nil {
		return nil, err
	}
	public, err := c.Shared.publicGroup(s, gi, tree.Bytes(), mlscore.Options{Registry: c.registry()})
	if err != nil {
		return nil, err
	}
	private := &privateTree{0, map[mlscore.NodeIndex]*privateKey{0: key}}
	return newGroup(c, s, newEpoch(s, public, gi.ConfirmationTag, private, secrets)), nil
}

// GroupID is the group's identifier.
func (g *Group) GroupID() []byte { return g.epoch.public.GroupID() }

// Epoch is the number of the current epoch.
func (g *Group) Epoch() uint64 { return g.epoch.public.Epoch() }

// Public is the public state of the current epoch with its pending proposals.
func (g *Group) Public() *mlscore.PublicGroup { return g.epoch.public }

// OwnLeaf is the index of this member's leaf.
func (g *Group) OwnLeaf() mlscore.LeafIndex { return g.epoch.private.index }

// Client is the client that this member is.
func (g *Group) Client() *Client { return g.client }

// ReInit is what closed the group (RFC 9420, Section 11.2); nil while it is open.
func (g *Group) ReInit() *mlscore.ReInit { return g.reInit }

// Removed says whether this member was removed. Its state is then that of the
// last epoch it was in.
func (g *Group) Removed() bool { return g.removed }

// Members yields the leaves in use from the left.
func (g *Group) Members() iter.Seq2[mlscore.LeafIndex, *mlscore.LeafNode] {
	return g.epoch.public.Tree().All()
}

// RatchetTree is the data of a ratchet_tree extension (RFC 9420, Section 12.4.3.3).
func (g *Group) RatchetTree() []byte { return g.epoch.public.Tree().Bytes() }

// EpochAuthenticator is the epoch_authenticator (RFC 9420, Section 8.7): equal
// for all members of an epoch; Nh bytes.
func (g *Group) EpochAuthenticator() []byte { return g.epoch.secrets.epochAuthenticator }

// Export is MLS-Exporter (RFC 9420, Section 8.5); length in bytes, at most 255
// times Nh.
func (g *Group) Export(label string, context []byte, length int) ([]byte, error) {
	return g.suite.export(g.epoch.secrets.exporter, label, context, length)
}

// ResumptionPSK is the resumption PSK of an epoch that this member was in
// (RFC 9420, Section 8.6), of which a bounded number is kept.
func (g *Group) ResumptionPSK(epoch uint64) (value []byte, ok bool) {
	value, ok = g.resumption[epoch]
	return value, ok
}

// GroupInfo describes the current epoch to those outside, as an encoded
// MLSMessage signed by this member: with the ratchet tree and external_pub, by
// which others join (RFC 9420, Section 12.4.3).
func (g *Group) GroupInfo() ([]byte, error) { return g.exportInfo(withRatchetTree) }

// GroupInfoWithoutTree is GroupInfo for readers who get the RatchetTree beside
// it (RFC 9420, Section 12.4.3.3).
func (g *Group) GroupInfoWithoutTree() ([]byte, error) { return g.exportInfo(withoutRatchetTree) }

func (g *Group) exportInfo(form treeForm) ([]byte, error) {
	if err := g.usable(); err != nil {
		return nil, err
	}
	gi, err := groupInfo(g.client, g.suite, g.epoch, form)
	if err != nil {
		return nil, err
	}
	return (&mlscore.MLSMessage{WireFormat: mlscore.WireFormatGroupInfo, GroupInfo: gi}).Bytes(), nil
}

// treeForm says how a GroupInfo's reader gets the ratchet tree.
type treeForm bool

const (
	withRatchetTree    treeForm = true
	withoutRatchetTree treeForm = false
)

// groupInfo signs a GroupInfo of an epoch.
func groupInfo(c *Client, s *suite, e *epoch, form treeForm) (*mlscore.GroupInfo, error) {
	external, err := s.deriveKeyPair(e.secrets.external)
	if err != nil {
		return nil, err
	}
	gi := &mlscore.GroupInfo{
		GroupContext:    *e.public.Context(),
		ConfirmationTag: e.tag,
		Signer:          e.private.index,
	}
	if form == withRatchetTree {
		gi.Extensions = gi.Extensions.With(mlscore.ExtensionTypeRatchetTree, e.public.Tree().Bytes())
	}
	gi.Extensions = gi.Extensions.With(mlscore.ExtensionTypeExternalPub, appendOpaque(external.public))
	c.Mutate.groupInfo(gi)
	return gi, gi.Sign(c.Signer)
}

// findPSK gives the value of a pre-shared key: of this group's own history, or
// as the client knows it.
func (g *Group) findPSK(id mlscore.PreSharedKeyID) ([]byte, error) {
	if id.Type == mlscore.PSKTypeResumption && bytes.Equal(id.GroupID, g.GroupID()) {
		if value, ok := g.resumption[id.Epoch]; ok {
			return value, nil
		}
	}
	if g.origin != nil && id.Type == mlscore.PSKTypeResumption && bytes.Equal(id.GroupID, g.origin.GroupID()) {
		return g.origin.findPSK(id)
	}
	return g.client.findPSK(id)
}

func (c *Client) findPSK(id mlscore.PreSharedKeyID) ([]byte, error) {
	if c.PSK != nil {
		if value, ok := c.PSK(id); ok {
			return value, nil
		}
	}
	if id.Type == mlscore.PSKTypeExternal {
		return nil, fmt.Errorf("%w: external %x", ErrUnknownPSK, id.ID)
	}
	return nil, fmt.Errorf("%w: resumption of group %x, epoch %d", ErrUnknownPSK, id.GroupID, id.Epoch)
}

// collectPSKs finds the values of the pre-shared keys of a commit, in the order
// of its proposals.
func collectPSKs(applied []mlscore.AppliedProposal, find func(mlscore.PreSharedKeyID) ([]byte, error)) (list []psk, err error) {
	for _, a := range applied {
		if a.Proposal.Type != mlscore.ProposalTypePSK {
			continue
		}
		value, err := find(a.Proposal.PSK)
		if err != nil {
			return nil, err
		}
		list = append(list, psk{a.Proposal.PSK, value})
	}
	return list, nil
}
