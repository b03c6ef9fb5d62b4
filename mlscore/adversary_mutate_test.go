package mlscore_test

import (
	"bytes"
	"math/rand/v2"
	"slices"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// act lets somebody send something valid; nil if it could not be. The member is
// one that has joined by it.
func (x *adversary) act() ([]byte, *member.Group) {
	g := x.someone()
	other := x.someone().OwnLeaf()
	x.author = g
	message, err := []byte(nil), error(nil)
	switch x.rng.IntN(20) {
	case 0, 16, 17:
		message, err = g.ProposeUpdate(nil)
	case 1:
		message, err = g.ProposeAdd(must(x.client().NewKeyPackage(forever)).KeyPackage)
	case 2:
		if len(x.members) > 4 {
			message, err = g.ProposeRemove(other)
		}
	case 3:
		if len(x.members) > 4 {
			message, err = g.Propose(mlscore.NewSelfRemove(x.observer.Registry()))
		}
	case 4:
		message, err = g.Propose(must(g.Client().ExternalPSK([]byte("known"))))
	case 5:
		if len(x.members) > 4 {
			message, err = mlscore.ExternalRemove(x.observer, x.broker, other)
		}
	case 6:
		message, err = g.Propose(member.GroupContextExtensions(x.observer.Context().Extensions))
	case 7:
		c := x.client()
		message, err = mlscore.NewMemberAdd(x.observer, c.Signer, must(c.NewKeyPackage(forever)).KeyPackage)
	case 8, 9:
		c, opts := x.client(), member.ExternalJoinOptions{LeafOperations: x.leaving()}
		if x.rng.IntN(3) == 0 {
			c, opts.Resync = g.Client(), true
		}
		joined, commit, err := c.JoinExternal(must(x.someone().GroupInfo()), opts)
		if err == nil {
			return commit.Message, joined
		}
	case 10:
		message, err = x.replace(g)
	case 18:
		if len(x.members) > 4 {
			message, err = g.Propose(x.operation(other))
		}
	case 19:
		if len(x.members) > 4 {
			message, err = mlscore.ExternalProposal(x.observer, x.broker, x.operation(other))
		}
	default:
		commit, err := g.Commit(x.commitOptions())
		if err == nil {
			return commit.Message, nil
		}
	}
	if err != nil {
		return nil, nil
	}
	return message, nil
}

// replace proposes again a leaf that its owner has proposed before.
func (x *adversary) replace(g *member.Group) ([]byte, error) {
	for p := range x.observer.Proposals() {
		if p.Proposal.Type == mlscore.ProposalTypeUpdate && p.Invalid == nil {
			return g.Propose(mlscore.NewReplace(x.observer.Registry(), p.Sender.LeafIndex, p.Proposal.LeafNode))
		}
	}
	return nil, nil
}

// commitOptions say at random what is in a commit.
func (x *adversary) commitOptions() (o member.CommitOptions) {
	o.OmitPath = x.rng.IntN(4) == 0
	if x.rng.IntN(3) == 0 {
		o.References = [][]byte{}
	}
	switch x.rng.IntN(6) {
	case 0:
		o.Proposals = append(o.Proposals, member.Add(must(x.client().NewKeyPackage(forever)).KeyPackage))
	case 1:
		if len(x.members) > 4 {
			o.Proposals = append(o.Proposals, member.Remove(x.someone().OwnLeaf()))
		}
	case 2:
		o.Proposals = append(o.Proposals, must(x.members[0].Client().ExternalPSK([]byte("known"))))
	case 3:
		if len(x.members) > 4 {
			o.Proposals = append(o.Proposals, x.operation(x.someone().OwnLeaf()))
		}
	}
	return o
}

// step lets somebody send a handshake, brings mutants of it to everybody, and
// then itself.
func (x *adversary) step() {
	x.t.Helper()
	message, joined := x.act()
	if message == nil {
		return
	}
	before := x.observer.ContextBytes()
	for range 12 {
		kind, mutant := x.mutant(message)
		if !bytes.Equal(mutant, message) {
			x.judge(kind, mutant)
		}
	}
	for range 4 {
		if kind, mutant := x.spoil(); mutant != nil {
			x.judge(kind, mutant)
		}
	}
	if !bytes.Equal(before, x.observer.ContextBytes()) {
		x.t.Fatal("a mutant changed the epoch")
	}
	x.hide(message)
	x.deliver(message, joined)
	x.judge("duplicate", message)
}

// mutation changes a handshake in one respect. It says whether it applies.
type mutation struct {
	kind   string
	change func(x *adversary, a *mlscore.AuthenticatedContent) bool
}

// mutant changes a message, or takes another one in its place.
func (x *adversary) mutant(message []byte) (kind string, mutant []byte) {
	switch x.rng.IntN(10) {
	case 0:
		return "bytes", x.scribble(bytes.Clone(message))
	case 1:
		return "splice: as it was", x.elsewhere()
	case 2:
		return "splice: signed for this epoch", x.resign(x.adopt(x.decode(x.elsewhere())))
	}
	a := x.decode(message)
	kind = x.mutate(a)
	return kind, x.resign(a)
}

// mutate changes a content in one place or two.
func (x *adversary) mutate(a *mlscore.AuthenticatedContent) (kind string) {
	for range 1 + x.rng.IntN(2)*x.rng.IntN(2) {
		m := mutations[x.rng.IntN(len(mutations))]
		for !m.change(x, a) {
			m = mutations[x.rng.IntN(len(mutations))]
		}
		kind = m.kind
	}
	return kind
}

// elsewhere is a message of another group or of another time.
func (x *adversary) elsewhere() []byte {
	if len(x.past) > 0 && x.rng.IntN(2) == 0 {
		return pick(x.rng, x.past)
	}
	return pick(x.rng, x.foreign)
}

// adopt turns a message into one of this group and epoch.
func (x *adversary) adopt(a *mlscore.AuthenticatedContent) *mlscore.AuthenticatedContent {
	a.Content.GroupID, a.Content.Epoch = x.observer.GroupID(), x.observer.Epoch()
	return a
}

// scribble changes an encoding without regard to what it means.
func (x *adversary) scribble(b []byte) []byte {
	i := x.rng.IntN(len(b))
	switch x.rng.IntN(4) {
	case 0:
		return b[:i]
	case 1:
		return slices.Insert(b, i, byte(x.rng.Uint32()))
	case 2:
		return slices.Delete(b, i, i+1)
	}
	b[i] ^= 1 << x.rng.IntN(8)
	return b
}

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

// spoil1 changes a string of bytes: a bit, its length, or all of it.
func (x *adversary) spoil1(b []byte) []byte {
	b = bytes.Clone(b)
	switch n := len(b); x.rng.IntN(5) {
	case 0:
		return nil
	case 1:
		return b[:n-n/2]
	case 2:
		return append(b, 0)
	case 3:
		return make([]byte, n)
	default:
		if n > 0 {
			b[x.rng.IntN(n)] ^= 1 << x.rng.IntN(8)
		}
		return b
	}
}

func (x *adversary) leafIndex() mlscore.LeafIndex {
	switch x.rng.IntN(8) {
	case 0:
		return mlscore.LeafIndex(x.observer.Tree().LeafWidth())
	case 1:
		return 1 << 24
	case 2:
		return 1<<32 - 1
	}
	return mlscore.LeafIndex(x.rng.IntN(int(x.observer.Tree().LeafWidth())))
}

var mutations = []mutation{
	{"none", func(x *adversary, a *mlscore.AuthenticatedContent) bool { return true }},
	{"framing", func(x *adversary, a *mlscore.AuthenticatedContent) bool { return x.changeFraming(&a.Content) }},
	{"proposal", func(x *adversary, a *mlscore.AuthenticatedContent) bool {
		return a.Content.Proposal != nil && x.changeProposal(a.Content.Proposal, a.Content.Sender)
	}},
	{"another proposal", func(x *adversary, a *mlscore.AuthenticatedContent) bool {
		if a.Content.Proposal != nil {
			a.Content.Proposal = x.anyProposal()
		}
		return a.Content.Proposal != nil
	}},
	{"proposal by value", func(x *adversary, a *mlscore.AuthenticatedContent) bool {
		if a.Content.Commit == nil {
			return false
		}
		for _, p := range a.Content.Commit.Proposals {
			if p.Proposal != nil {
				return x.changeProposal(p.Proposal, a.Content.Sender)
			}
		}
		return false
	}},
	{"list of proposals", func(x *adversary, a *mlscore.AuthenticatedContent) bool {
		return a.Content.Commit != nil && x.changeList(a.Content.Commit)
	}},
	{"path", func(x *adversary, a *mlscore.AuthenticatedContent) bool {
		return a.Content.Commit != nil && a.Content.Commit.Path != nil && x.changePath(a.Content.Commit.Path)
	}},
	{"no path", func(x *adversary, a *mlscore.AuthenticatedContent) bool {
		ok := a.Content.Commit != nil && a.Content.Commit.Path != nil
		if ok {
			a.Content.Commit.Path = nil
		}
		return ok
	}},
	{"path leaf", func(x *adversary, a *mlscore.AuthenticatedContent) bool {
		if a.Content.Commit == nil || a.Content.Commit.Path == nil {
			return false
		}
		leaf, index := a.Content.Commit.Path.LeafNode, a.Content.Sender.LeafIndex
		if a.Content.Sender.Type != mlscore.SenderTypeMember {
			index = x.observer.Tree().LeftmostBlank()
		}
		x.changeLeaf(leaf)
		x.signLeaf(leaf, index)
		return true
	}},
}

func (x *adversary) changeFraming(c *mlscore.FramedContent) bool {
	switch x.rng.IntN(6) {
	case 0:
		c.GroupID = x.spoil1(c.GroupID)
	case 1:
		c.Epoch = pick(x.rng, []uint64{0, c.Epoch - 1, c.Epoch + 1, 1<<64 - 1})
	case 2:
		c.Sender.LeafIndex = x.leafIndex()
	case 3:
		c.Sender = pick(x.rng, []mlscore.Sender{
			{Type: mlscore.SenderTypeMember}, {Type: mlscore.SenderTypeExternal}, {Type: mlscore.SenderTypeExternal, SenderIndex: 1},
			{Type: mlscore.SenderTypeNewMemberCommit}, {Type: mlscore.SenderTypeNewMemberProposal},
		})
	case 4:
		c.AuthenticatedData = x.spoil1([]byte("data"))
	default:
		c.ContentType, c.ApplicationData = mlscore.ContentTypeApplication, []byte("data")
	}
	return true
}

// signLeaf signs a leaf for a place, mostly by its own key.
func (x *adversary) signLeaf(n *mlscore.LeafNode, index mlscore.LeafIndex) {
	signer := x.signers[string(n.SignatureKey)]
	switch x.rng.IntN(12) {
	case 0:
		signer = x.signers[string(pick(x.rng, x.keys))]
	case 1:
		index = x.leafIndex()
	case 2:
		return
	}
	if signer != nil && n.Sign(signer, x.observer.GroupID(), index) != nil {
		x.t.Fatal("a signer that does not sign")
	}
}

func (x *adversary) changeLeaf(n *mlscore.LeafNode) {
	c := &n.Capabilities
	switch x.rng.IntN(18) {
	case 0:
		n.EncryptionKey = x.spoil1(n.EncryptionKey)
	case 1:
		n.EncryptionKey = n.SignatureKey
	case 2:
		n.EncryptionKey = x.observer.Tree().Leaf(x.occupied()).EncryptionKey
	case 3:
		n.SignatureKey = pick(x.rng, x.keys)
	case 4:
		n.SignatureKey = x.spoil1(n.SignatureKey)
	case 5:
		n.Credential = mlscore.BasicCredential([]byte("somebody else"))
	case 6:
		n.Credential = mlscore.Credential{Type: 0x0a0a, Unknown: []byte("?")}
	case 7:
		n.Credential = mlscore.Credential{Type: mlscore.CredentialTypeX509, Certificates: [][]byte{{1}}}
	case 8:
		c.Versions = nil
	case 9:
		c.CipherSuites = nil
	case 10:
		c.Credentials = nil
	case 11:
		c.Proposals = append(slices.Clone(c.Proposals), 1, 0x0a0a)
	case 12:
		c.Extensions, c.Proposals = nil, nil
	case 13:
		n.Source = pick(x.rng, []mlscore.LeafNodeSource{mlscore.LeafNodeSourceKeyPackage, mlscore.LeafNodeSourceUpdate, mlscore.LeafNodeSourceCommit})
	case 14:
		n.Lifetime = mlscore.Lifetime{NotBefore: 2, NotAfter: 1}
	case 15:
		n.ParentHash = x.spoil1(n.ParentHash)
	case 16:
		n.Extensions = append(slices.Clone(n.Extensions), pick(x.rng, []mlscore.Extension{
			{Type: mlscore.ExtensionTypeApplicationID, Data: []byte{0}}, {Type: 0x0a0a}, {Type: 0xf123, Data: []byte{1}},
			{Type: mlscore.ExtensionTypeExternalSenders, Data: []byte{0}}, {Type: mlscore.ExtensionTypeRatchetTree},
		}))
	default:
		epoch := pick(x.rng, []uint64{0, x.observer.Epoch(), x.observer.Epoch() + 1, 1<<64 - 1})
		n.Extensions = n.Extensions.With(x.observer.Registry().LeafNodeEpoch, uint64Bytes(epoch))
	}
}

func (x *adversary) changePath(p *mlscore.UpdatePath) bool {
	n := len(p.Nodes)
	if n == 0 {
		p.Nodes = append(p.Nodes, mlscore.UpdatePathNode{EncryptionKey: pick(x.rng, x.keys)})
		return true
	}
	i := x.rng.IntN(n)
	secrets := p.Nodes[i].EncryptedPathSecret
	switch x.rng.IntN(8) {
	case 0:
		p.Nodes = slices.Delete(p.Nodes, i, i+1)
	case 1:
		p.Nodes = append(p.Nodes, p.Nodes[i])
	case 2:
		p.Nodes[0], p.Nodes[i] = p.Nodes[i], p.Nodes[0]
	case 3:
		p.Nodes[i].EncryptionKey = x.spoil1(p.Nodes[i].EncryptionKey)
	case 4:
		p.Nodes[i].EncryptedPathSecret = append(slices.Clone(secrets), mlscore.HPKECiphertext{})
	case 5:
		p.Nodes[i].EncryptedPathSecret = nil
	case 6:
		if len(secrets) > 0 {
			c := &secrets[x.rng.IntN(len(secrets))]
			c.Ciphertext = x.spoil1(c.Ciphertext)
		}
	default:
		if len(secrets) > 0 {
			c := &secrets[x.rng.IntN(len(secrets))]
			c.KEMOutput = x.spoil1(c.KEMOutput)
		}
	}
	return true
}

func (x *adversary) changeList(c *mlscore.Commit) bool {
	n := len(c.Proposals)
	c.Proposals = slices.Clone(c.Proposals)
	pending := slices.Collect(x.observer.Proposals())
	switch op := x.rng.IntN(9); {
	case op == 0 && n > 0:
		i := x.rng.IntN(n)
		c.Proposals = slices.Delete(c.Proposals, i, i+1)
	case op == 1 && n > 0:
		c.Proposals = append(c.Proposals, pick(x.rng, c.Proposals))
	case op == 2 && n > 1:
		x.rng.Shuffle(n, func(i, j int) { c.Proposals[i], c.Proposals[j] = c.Proposals[j], c.Proposals[i] })
	case op == 3 && len(pending) > 0:
		c.Proposals = append(c.Proposals, mlscore.ProposalOrRef{Reference: pick(x.rng, pending).Ref})
	case op == 4 && len(pending) > 0: // a proposal by value that is pending
		c.Proposals = append(c.Proposals, mlscore.ProposalOrRef{Proposal: pick(x.rng, pending).Proposal})
	case op == 5:
		c.Proposals = append(c.Proposals, mlscore.ProposalOrRef{Reference: x.spoil1(x.suite.Sum(nil))})
	case op > 6: // beside whatever else concerns the leaf
		c.Proposals = append(c.Proposals, mlscore.ProposalOrRef{Proposal: x.operation(x.concerned(c))})
	default:
		c.Proposals = append(c.Proposals, mlscore.ProposalOrRef{Proposal: x.anyProposal()})
	}
	return true
}

// anyProposal is a proposal of any type, which may or may not be valid.
func (x *adversary) anyProposal() *mlscore.Proposal {
	reg := x.observer.Registry()
	leaf := func() *mlscore.LeafNode {
		owner := x.occupied()
		n := freshLeaf(x.observer.Tree().Leaf(owner))
		n.Source, n.EncryptionKey = mlscore.LeafNodeSourceUpdate, must(x.client().NewKeyPackage(forever)).LeafNode.EncryptionKey
		n.Extensions = n.Extensions.With(reg.LeafNodeEpoch, uint64Bytes(x.observer.Epoch()))
		x.signLeaf(n, owner)
		return n
	}
	switch x.rng.IntN(15) {
	case 0:
		return member.Add(must(x.client().NewKeyPackage(forever)).KeyPackage)
	case 1:
		return updateWith(leaf())
	case 2:
		return member.Remove(x.leafIndex())
	case 3:
		return must(x.client().ExternalPSK([]byte(pick(x.rng, []string{"known", "unknown"}))))
	case 4:
		return must(x.client().ResumptionPSK(mlscore.ResumptionPSKUsage(1+x.rng.IntN(3)), x.observer.GroupID(), min(x.observer.Epoch(), uint64(x.rng.IntN(4)))))
	case 5:
		return member.ReInit(mlscore.ReInit{GroupID: []byte("next"), Version: mlscore.ProtocolVersion(x.rng.IntN(3)), CipherSuite: x.suite.ID})
	case 6:
		return &mlscore.Proposal{Type: mlscore.ProposalTypeExternalInit, KEMOutput: x.spoil1(make([]byte, 32))}
	case 7:
		return member.GroupContextExtensions(pick(x.rng, []mlscore.Extensions{
			nil, x.observer.Context().Extensions, {{Type: 0xf123}}, {{Type: mlscore.ExtensionTypeRatchetTree}},
			{{Type: mlscore.ExtensionTypeRequiredCapabilities, Data: []byte{2, 0xf1, 0x23, 0, 0}}},
			x.observer.Context().Extensions.With(mlscore.ExtensionTypeRequiredCapabilities, []byte{0, 2, 0, 10, 0}),
		}))
	case 8:
		return mlscore.NewSelfRemove(reg)
	case 9:
		return mlscore.NewReplace(reg, x.leafIndex(), leaf())
	case 10:
		n := leaf()
		if i, ok := x.observer.Tree().FindSignatureKey(n.SignatureKey); ok {
			return mlscore.NewReplace(reg, i, n)
		}
		return mlscore.NewReplace(reg, x.leafIndex(), n)
	case 11: // another signature key in its place
		replaced, n := x.occupied(), leaf()
		n.SignatureKey = x.newSigner().PublicKey()
		x.signLeaf(n, replaced)
		return mlscore.NewReplace(reg, replaced, n)
	}
	if x.rng.IntN(3) > 0 {
		return x.operation(x.leafIndex())
	}
	return &mlscore.Proposal{Type: pick(x.rng, []mlscore.ProposalType{0x0a0a, 0xf321, reg.AppEphemeral}), Body: []byte{0, 1, 0}[x.rng.IntN(3):]}
}

// changeProposal changes a proposal, and signs again what is signed in it.
func (x *adversary) changeProposal(p *mlscore.Proposal, sender mlscore.Sender) bool {
	switch {
	case p.Type == x.points.ProposalType:
		x.changeOperation(p)
		return true
	case p.IsReplace():
		if x.rng.IntN(2) == 0 {
			p.Replaced = x.leafIndex()
		} else {
			x.changeLeaf(p.LeafNode)
			x.signLeaf(p.LeafNode, p.Replaced)
		}
		return true
	case p.KeyPackage != nil:
		x.changeKeyPackage(p.KeyPackage)
		return true
	case p.LeafNode != nil:
		x.changeLeaf(p.LeafNode)
		x.signLeaf(p.LeafNode, sender.LeafIndex)
		return true
	}
	switch p.Type {
	case mlscore.ProposalTypeRemove:
		p.Removed = x.leafIndex()
	case mlscore.ProposalTypePSK:
		x.changePSK(&p.PSK)
	case mlscore.ProposalTypeExternalInit:
		p.KEMOutput = x.spoil1(p.KEMOutput)
	case mlscore.ProposalTypeGroupContextExtensions:
		p.Extensions = append(slices.Clone(p.Extensions), mlscore.Extension{Type: pick(x.rng, []mlscore.ExtensionType{1, 2, 3, 4, 5, 0xf123}), Data: []byte{0}})
	default:
		return false
	}
	return true
}

func (x *adversary) changePSK(id *mlscore.PreSharedKeyID) {
	switch x.rng.IntN(4) {
	case 0:
		id.ID = x.spoil1(id.ID)
	case 1:
		id.Nonce = x.spoil1(id.Nonce)
	case 2:
		id.Type, id.Usage, id.GroupID = mlscore.PSKTypeResumption, mlscore.ResumptionPSKUsage(1+x.rng.IntN(3)), x.observer.GroupID()
	default:
		id.Epoch = x.rng.Uint64()
	}
}

func (x *adversary) changeKeyPackage(k *mlscore.KeyPackage) {
	switch x.rng.IntN(8) {
	case 0:
		k.Version = mlscore.ProtocolVersion(x.rng.IntN(3))
	case 1:
		k.CipherSuite++
	case 2:
		k.InitKey = x.spoil1(k.InitKey)
	case 3:
		k.InitKey = k.LeafNode.EncryptionKey
	case 4:
		k.Extensions = append(slices.Clone(k.Extensions), mlscore.Extension{Type: 0xf123})
	default:
		x.changeLeaf(k.LeafNode)
		x.signLeaf(k.LeafNode, 0)
	}
	if signer := x.signers[string(k.LeafNode.SignatureKey)]; signer != nil && x.rng.IntN(10) > 0 {
		if err := k.Sign(signer); err != nil {
			x.t.Fatal(err)
		}
	}
}
