package stack

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
)

// Ours is the name of our own stack.
const Ours = "leavebroker"

// own is mlscore/member, in this process.
type own struct {
	points Points
	shared map[mlscore.ProposalType]*member.Shared // by custom type: registries differ in it
}

// Own is our own stack with the code points of a group.
func Own(p Points) Stack { return &own{p, map[mlscore.ProposalType]*member.Shared{}} }

// Points are the code points that groups differ in; 0 is none.
type Points struct {
	SelfRemove    mlscore.ProposalType
	LeafNodeEpoch mlscore.ExtensionType
	// Custom is the type of the LeafOperationProposal, which is in opaque<V> as
	// other stacks need it.
	Custom mlscore.ProposalType
}

// Registry has the code points of a group.
func (p Points) Registry() *mlscore.Registry {
	reg := mlscore.DefaultRegistry()
	reg.SelfRemove, reg.LeafNodeEpoch = p.SelfRemove, p.LeafNodeEpoch
	if p.Custom != 0 {
		reg.Custom = []mlscore.CustomProposal{Operations(p.Custom).CustomProposal()}
	}
	return reg
}

// with is the same for a group that expands a type.
func (p Points) with(custom mlscore.ProposalType) Points {
	p.Custom = custom
	return p
}

// Operations are the code points of intents where a LeafOperationProposal has
// the given type.
func Operations(custom mlscore.ProposalType) intents.CodePoints {
	return intents.CodePoints{ProposalType: custom, WireFormat: intents.DefaultWireFormat, Body: intents.BodyOpaque}
}

func (o *own) Hello() Hello {
	return Hello{
		Stack: Ours, Version: "this one", Suites: member.Suites(mlscore.DefaultRegistry()), SelfRemove: o.points.SelfRemove,
		Operations: []string{
			"member", "key_package", "create", "join", "external_join", "propose", "commit", "confirm", "discard",
			"process", "psk", "group_info", "state", "forget", "track", "track_message", "untrack",
		},
	}
}

func (o *own) Close() error { return nil }

func (o *own) NewMember(options MemberOptions) (Member, error) {
	reg := o.points.with(options.Custom).Registry()
	suite, err := reg.LookupSuite(options.Suite)
	if err != nil {
		return nil, err
	}
	signer, private, err := newSigner(suite.Signature)
	if err != nil {
		return nil, err
	}
	if o.shared[options.Custom] == nil {
		o.shared[options.Custom] = new(member.Shared)
	}
	capabilities := member.DefaultCapabilities(reg)
	for _, t := range options.Proposals {
		if !slices.Contains(capabilities.Proposals, t) {
			capabilities.Proposals = append(capabilities.Proposals, t)
		}
	}
	m := &ownMember{keys: Keys{signer.PublicKey(), private}, psks: map[string][]byte{}}
	m.client = &member.Client{
		CipherSuite: options.Suite, Signer: signer, Credential: mlscore.BasicCredential(options.Identity), Capabilities: &capabilities,
		Registry: reg, Shared: o.shared[options.Custom],
		PSK: func(id mlscore.PreSharedKeyID) ([]byte, bool) {
			secret, ok := m.psks[string(id.ID)]
			return secret, ok && id.Type == mlscore.PSKTypeExternal
		},
		Associate: func(g *mlscore.PublicGroup, sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
			return Associated(g, options.Associated, sender), true
		},
	}
	return m, nil
}

// newSigner makes a signer of a raw private key, which it gives too. A scalar
// that is none of the curve is drawn again.
func newSigner(scheme mlscore.SignatureScheme) (mlscore.Signer, []byte, error) {
	length := map[mlscore.SignatureScheme]int{
		mlscore.Ed25519: 32, mlscore.Ed448: 57, mlscore.ECDSAWithP256AndSHA256: 32, mlscore.ECDSAWithP384AndSHA384: 48,
		mlscore.ECDSAWithP521AndSHA512: 66,
	}[scheme]
	if length == 0 {
		return nil, nil, fmt.Errorf("no raw private keys of %s", scheme)
	}
	for range 1000 {
		private := make([]byte, length)
		rand.Read(private)
		if length == 66 {
			private[0] &= 1
		}
		if signer, err := mlscore.NewSigner(scheme, private); err == nil {
			return signer, private, nil
		}
	}
	return nil, nil, fmt.Errorf("no private key of %s", scheme)
}

func (o *own) NewTracker(groupInfo []byte, options TrackerOptions) (Tracker, *State, error) {
	p, err := NewPublic(groupInfo, o.points.with(options.Custom).Registry(), options.Associated)
	if err != nil {
		return nil, nil, err
	}
	return ownTracker{p}, p.State(), nil
}

// ownTracker is Public as a tracker of a stack.
type ownTracker struct{ public *Public }

func (t ownTracker) Track(message []byte) (*State, error) {
	_, err := t.public.Stage(message)
	return t.public.State(), err
}

func (t ownTracker) Untrack() error { return nil }

// ownMember is a member of our own stack.
type ownMember struct {
	client   *member.Client
	keys     Keys
	psks     map[string][]byte
	packages []*member.KeyPackage
	group    *member.Group // nil before it has joined
}

var errNoGroup = errors.New("in no group")

func (m *ownMember) Keys() Keys { return m.keys }

func lifetime() mlscore.Lifetime {
	now := time.Now()
	return mlscore.Lifetime{NotBefore: uint64(now.Add(-time.Hour).Unix()), NotAfter: uint64(now.Add(24 * time.Hour).Unix())}
}

func (m *ownMember) KeyPackage() ([]byte, error) {
	k, err := m.client.NewKeyPackage(lifetime())
	if err != nil {
		return nil, err
	}
	m.packages = append(m.packages, k)
	return k.Message(), nil
}

// extensions are those of a GroupContext.
func (c *Context) extensions() (mlscore.Extensions, error) {
	var x mlscore.Extensions
	var senders []mlscore.ExternalSender
	for _, encoded := range c.ExternalSenders {
		r := codec.NewReader(encoded)
		senders = append(senders, mlscore.ReadExternalSender(r))
		if err := r.Finish(); err != nil {
			return nil, fmt.Errorf("an ExternalSender: %w", err)
		}
	}
	if senders != nil {
		x = x.With(mlscore.ExtensionTypeExternalSenders, mlscore.AppendExternalSenders(nil, senders))
	}
	if c.RequiredProposals != nil {
		required := mlscore.RequiredCapabilities{Proposals: c.RequiredProposals}
		x = x.With(mlscore.ExtensionTypeRequiredCapabilities, required.Append(nil))
	}
	return x, nil
}

func (m *ownMember) Create(groupID []byte, c Context) error {
	x, err := c.extensions()
	if err != nil {
		return err
	}
	m.group, err = m.client.Create(groupID, x, lifetime())
	return err
}

func (m *ownMember) Join(welcome []byte) error {
	for _, k := range m.packages {
		g, err := k.Join(welcome, nil)
		if errors.Is(err, member.ErrNotForUs) {
			continue
		}
		if err == nil {
			m.group, m.packages = g, nil
		}
		return err
	}
	return member.ErrNotForUs
}

func (m *ownMember) ExternalJoin(o ExternalJoin) ([]byte, error) {
	options := member.ExternalJoinOptions{Resync: o.Resync, Pending: o.SelfRemoves, LeafOperations: o.Custom}
	for _, id := range o.PSKs {
		p, err := m.client.ExternalPSK(id)
		if err != nil {
			return nil, err
		}
		options.Proposals = append(options.Proposals, p)
	}
	g, commit, err := m.client.JoinExternal(o.GroupInfo, options)
	if err != nil {
		return nil, err
	}
	m.group = g
	return commit.Message, nil
}

func (m *ownMember) Propose(p Proposal) ([]byte, error) {
	if m.group == nil {
		return nil, errNoGroup
	}
	switch p.Kind {
	case KindUpdate:
		return m.group.ProposeUpdate(nil)
	case KindSelfRemove:
		return m.group.Propose(mlscore.NewSelfRemove(m.client.Registry))
	}
	made, err := m.proposal(p)
	if err != nil {
		return nil, err
	}
	return m.group.Propose(made)
}

// proposal makes one that a commit can contain by value.
func (m *ownMember) proposal(p Proposal) (*mlscore.Proposal, error) {
	switch p.Kind {
	case KindAdd:
		message, err := mlscore.ParseMLSMessage(p.KeyPackage, m.client.Registry)
		if err != nil {
			return nil, err
		}
		if message.KeyPackage == nil {
			return nil, fmt.Errorf("wire format %d is no KeyPackage", message.WireFormat)
		}
		return member.Add(message.KeyPackage), nil
	case KindRemove:
		if p.Leaf != nil {
			return member.Remove(*p.Leaf), nil
		}
	case KindPSK:
		return m.client.ExternalPSK(p.ID)
	case KindContext:
		x, err := p.Context.extensions()
		return member.GroupContextExtensions(x), err
	}
	return nil, fmt.Errorf("no proposal: %+v", p)
}

func (m *ownMember) Commit(o CommitOptions) (*Commit, error) {
	if m.group == nil {
		return nil, errNoGroup
	}
	options := member.CommitOptions{OmitPath: !o.ForcePath}
	if !o.ByReference {
		options.References = [][]byte{}
	}
	for _, p := range o.Proposals {
		made, err := m.proposal(p)
		if err != nil {
			return nil, err
		}
		options.Proposals = append(options.Proposals, made)
	}
	c, err := m.group.Commit(options)
	if err != nil {
		return nil, err
	}
	return &Commit{c.Message, c.Welcome}, nil
}

func (m *ownMember) Confirm() error {
	if m.group == nil {
		return errNoGroup
	}
	return m.group.ConfirmCommit()
}

func (m *ownMember) Discard() error {
	if m.group == nil {
		return errNoGroup
	}
	m.group.DropCommit()
	return nil
}

func (m *ownMember) Process(message []byte) (*Processed, error) {
	if m.group == nil {
		return nil, errNoGroup
	}
	r, err := m.group.Process(message)
	switch {
	case err != nil:
		return nil, err
	case r.ContentType == mlscore.ContentTypeProposal:
		return &Processed{Kind: "proposal"}, r.Staged.Proposal.Invalid
	}
	return &Processed{Kind: "commit", Removed: r.Removed}, nil
}

func (m *ownMember) StorePSK(id, secret []byte) error {
	m.psks[string(id)] = bytes.Clone(secret)
	return nil
}

func (m *ownMember) GroupInfo() ([]byte, error) {
	if m.group == nil {
		return nil, errNoGroup
	}
	return m.group.GroupInfo()
}

func (m *ownMember) State() (*State, error) {
	if m.group == nil {
		return nil, errNoGroup
	}
	s := publicState(m.group.Public())
	leaf := m.group.OwnLeaf()
	s.OwnLeaf, s.EpochAuthenticator = &leaf, m.group.EpochAuthenticator()
	return s, nil
}

func (m *ownMember) Forget() error {
	m.group, m.packages = nil, nil
	return nil
}
