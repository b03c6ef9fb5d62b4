package mlscore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
)

// world is a real group whose members' keys the tests hold: what they change in
// a message they sign again, so that nothing else is wrong with it.
type world struct {
	t       *testing.T
	random  io.Reader
	members []*member.Group // at leaves 0, 1, 2, …
	broker  mlscore.Signer  // of external_senders
	group   *mlscore.PublicGroup
	opts    mlscore.Options
	serial  int
}

var forever = mlscore.Lifetime{NotAfter: 1 << 40}

// newWorld is a group of n members, whose tree has parents, and an observer who
// starts from its GroupInfo.
func newWorld(t *testing.T, n int) *world {
	t.Helper()
	w := buildWorld(t, n, nil, nil)
	w.everybody(must(w.members[n/2].Commit(member.CommitOptions{})).Message)
	w.observe()
	return w
}

// buildWorld makes a group whose first member is changed by shape, and whose
// GroupContext has further extensions. All but the first are added without a
// path, and have leaves of key packages.
func buildWorld(t *testing.T, n int, shape func(*member.Client), extensions mlscore.Extensions) *world {
	t.Helper()
	w := &world{t: t, random: rand.NewChaCha8([32]byte{byte(n)})}
	w.broker = must(mlscore.GenerateSigner(mlscore.Ed25519, w.random))
	extensions = extensions.With(mlscore.ExtensionTypeExternalSenders, mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{
		{SignatureKey: w.broker.PublicKey(), Credential: mlscore.BasicCredential([]byte("broker"))},
	}))
	client := func() *member.Client {
		c := w.client()
		if shape != nil {
			shape(c)
		}
		return c
	}
	creator := client()
	w.opts.Registry = creator.Registry
	w.members = []*member.Group{must(creator.Create([]byte("group"), extensions, forever))}
	var keys []*member.KeyPackage
	var adds []*mlscore.Proposal
	for range n - 1 {
		k := must(client().NewKeyPackage(forever))
		keys, adds = append(keys, k), append(adds, member.Add(k.KeyPackage))
	}
	if n > 1 {
		commit := must(w.members[0].Commit(member.CommitOptions{Proposals: adds, OmitPath: true}))
		w.everybody(commit.Message)
		for _, k := range keys {
			w.members = append(w.members, must(k.Join(commit.Welcome, nil)))
		}
	}
	w.observe()
	return w
}

// client is a client that is in no group yet.
func (w *world) client() *member.Client {
	w.serial++
	return &member.Client{
		CipherSuite: 1, Signer: must(mlscore.GenerateSigner(mlscore.Ed25519, w.random)), Random: w.random,
		Credential: mlscore.BasicCredential(fmt.Appendf(nil, "client %d", w.serial)),
	}
}

func (w *world) keyPackage(mutate *member.Mutate) *mlscore.KeyPackage {
	c := w.client()
	c.Mutate = mutate
	return must(c.NewKeyPackage(forever)).KeyPackage
}

// add proposes a new client, whose leaf is signed after a change.
func (w *world) add(change func(*mlscore.LeafNode)) *mlscore.Proposal {
	return &mlscore.Proposal{Type: mlscore.ProposalTypeAdd, KeyPackage: w.keyPackage(&member.Mutate{LeafNode: change})}
}

// everybody brings a message to all members.
func (w *world) everybody(message []byte) {
	w.t.Helper()
	for _, m := range w.members {
		if _, err := m.Process(message); err != nil {
			w.t.Fatalf("leaf %d: %v", m.OwnLeaf(), err)
		}
	}
}

// observe starts again from a GroupInfo of the members.
func (w *world) observe() {
	w.t.Helper()
	info := must(mlscore.ParseMLSMessage(must(w.members[0].GroupInfo()), w.opts.Registry))
	w.group = must(mlscore.NewPublicGroup(info.GroupInfo, nil, w.opts))
}

// prove lets a member sign over the current GroupContext.
func (w *world) prove() {
	w.t.Helper()
	w.pend(w.by(0), psk("proof"))
}

func (w *world) by(leaf mlscore.LeafIndex) mlscore.Sender {
	return mlscore.Sender{Type: mlscore.SenderTypeMember, LeafIndex: leaf}
}

var (
	external  = mlscore.Sender{Type: mlscore.SenderTypeExternal}
	newMember = mlscore.Sender{Type: mlscore.SenderTypeNewMemberProposal}
)

// signer is the one whose key is in a leaf.
func (w *world) signer(leaf mlscore.LeafIndex) mlscore.Signer {
	return w.members[leaf].Client().Signer
}

// key is a new public key of the suite's KEM, as far as an observer can tell.
func (w *world) key() []byte {
	b := make([]byte, 32)
	_, err := io.ReadFull(w.random, b)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// psk is a proposal that has no public effect.
func psk(id string) *mlscore.Proposal {
	return &mlscore.Proposal{Type: mlscore.ProposalTypePSK, PSK: mlscore.PreSharedKeyID{
		Type: mlscore.PSKTypeExternal, ID: []byte(id), Nonce: make([]byte, 32),
	}}
}

func byValue(list ...*mlscore.Proposal) (out []mlscore.ProposalOrRef) {
	for _, p := range list {
		out = append(out, mlscore.ProposalOrRef{Proposal: p})
	}
	return out
}

// update is a new leaf for a member, signed for a place after a change.
func (w *world) update(leaf mlscore.LeafIndex, change func(*mlscore.LeafNode)) *mlscore.LeafNode {
	w.t.Helper()
	n := *w.group.Tree().Leaf(leaf)
	n.EncryptionKey, n.Source, n.ParentHash = w.key(), mlscore.LeafNodeSourceUpdate, nil
	if change != nil {
		change(&n)
	}
	if err := n.Sign(w.signer(leaf), w.group.GroupID(), leaf); err != nil {
		w.t.Fatal(err)
	}
	return &n
}

func updateWith(leaf *mlscore.LeafNode) *mlscore.Proposal {
	return &mlscore.Proposal{Type: mlscore.ProposalTypeUpdate, LeafNode: leaf}
}

// seal signs a content and gives the message. Tags have the right length; their
// values mean nothing to an observer.
func (w *world) seal(c mlscore.FramedContent, signer mlscore.Signer, change func(*mlscore.PublicMessage)) []byte {
	w.t.Helper()
	m := &mlscore.PublicMessage{
		AuthenticatedContent: mlscore.AuthenticatedContent{WireFormat: mlscore.WireFormatPublicMessage, Content: c},
		MembershipTag:        make([]byte, 32),
	}
	if c.ContentType == mlscore.ContentTypeCommit {
		m.ConfirmationTag = make([]byte, 32)
	}
	if err := m.Sign(signer, w.group.ContextBytes()); err != nil {
		w.t.Fatal(err)
	}
	if change != nil {
		change(m)
	}
	return (&mlscore.MLSMessage{WireFormat: mlscore.WireFormatPublicMessage, PublicMessage: m}).Bytes()
}

// proposal is the message of a proposal by a sender.
func (w *world) proposal(sender mlscore.Sender, p *mlscore.Proposal) []byte {
	w.t.Helper()
	var signer mlscore.Signer
	switch sender.Type {
	case mlscore.SenderTypeMember:
		signer = w.signer(sender.LeafIndex)
	default:
		signer = w.broker
	}
	return w.seal(mlscore.FramedContent{
		GroupID: w.group.GroupID(), Epoch: w.group.Epoch(), Sender: sender,
		ContentType: mlscore.ContentTypeProposal, Proposal: p,
	}, signer, nil)
}

// pend lets the observer receive a proposal, and refers to it.
func (w *world) pend(sender mlscore.Sender, p *mlscore.Proposal) mlscore.ProposalOrRef {
	w.t.Helper()
	staged := w.accepts("a proposal", w.proposal(sender, p))
	w.group = staged.Next()
	return mlscore.ProposalOrRef{Reference: staged.Proposal.Ref}
}

func (w *world) stage(message []byte) (*mlscore.Staged, error) {
	m, err := mlscore.ParseMLSMessage(bytes.Clone(message), w.group.Registry())
	if err != nil {
		return nil, err
	}
	checkRestored(w.t, w.group, w.opts, m)
	return w.group.Stage(m)
}

func (w *world) accepts(what string, message []byte) *mlscore.Staged {
	w.t.Helper()
	staged, err := w.stage(message)
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
	return staged
}

// flagged checks that a message is accepted with just these flags.
func (w *world) flagged(what string, message []byte, want ...string) *mlscore.Staged {
	w.t.Helper()
	staged := w.accepts(what, message)
	if !slices.Equal(staged.Flags, want) {
		w.t.Errorf("%s: flags %q, want %q", what, staged.Flags, want)
	}
	return staged
}

// refuses checks that a message is refused for breaking a rule, and that the
// group stays as it is. The section is empty where the codec refuses.
func (w *world) refuses(what string, message []byte, class error, section string) {
	w.t.Helper()
	before := w.state()
	_, err := w.stage(message)
	w.isRefusal(what, err, class, section)
	if !bytes.Equal(before, w.state()) {
		w.t.Errorf("%s: the refusal changed the group", what)
	}
}

func (w *world) isRefusal(what string, err error, class error, section string) {
	w.t.Helper()
	if !errors.Is(err, class) {
		w.t.Errorf("%s: got %v, want %v (%s)", what, err, class, section)
		return
	}
	var refusal *mlscore.Error
	if section != "" && (!errors.As(err, &refusal) || !ofSection(refusal.Section, section)) {
		w.t.Errorf("%s: got %v, want section %s", what, err, section)
	}
}

// ofSection says whether a rule is of a section of RFC 9420 or another text.
func ofSection(got, want string) bool {
	return got == "RFC 9420, Section "+want || strings.HasPrefix(got, "draft") && strings.HasPrefix(got, want)
}

// refusesProposal checks that a proposal is kept as invalid, and that a commit
// that refers to it is refused for the same reason.
func (w *world) refusesProposal(what string, sender mlscore.Sender, p *mlscore.Proposal, class error, section string) {
	w.t.Helper()
	staged := w.accepts(what, w.proposal(sender, p))
	w.isRefusal(what, staged.Proposal.Invalid, class, section)
	old := w.group
	w.group = staged.Next()
	w.refuses(what+", by reference", w.forge(forge{by: 0, proposals: []mlscore.ProposalOrRef{{Reference: staged.Proposal.Ref}}}), class, section)
	w.group = old
}

func (w *world) state() []byte {
	b := slices.Concat(w.group.ContextBytes(), w.group.InterimTranscriptHash(), w.group.Tree().Bytes())
	for p := range w.group.Proposals() {
		b = append(b, p.Ref...)
	}
	return b
}

// forge says how to make a commit. Its proposals are applied as if they were
// valid, the path is that of the resulting tree, and all is signed: a commit
// is wrong where it is told to be, and nowhere else.
type forge struct {
	by        mlscore.LeafIndex // the committer
	joiner    *member.Client    // makes it an external commit
	proposals []mlscore.ProposalOrRef
	noPath    bool
	leaf      func(*mlscore.LeafNode)   // the path's leaf, before its parent hash and signature
	keys      func(keys [][]byte)       // the path's keys, before the parent hash
	signed    func(*mlscore.LeafNode)   // the path's leaf, after its signature
	path      func(*mlscore.UpdatePath) // what no parent hash covers
	content   func(*mlscore.FramedContent)
	message   func(*mlscore.PublicMessage) // after the signature
	signer    mlscore.Signer               // instead of the committer's
}

func (w *world) forge(f forge) []byte {
	w.t.Helper()
	c := mlscore.FramedContent{
		GroupID: w.group.GroupID(), Epoch: w.group.Epoch(), Sender: w.by(f.by), ContentType: mlscore.ContentTypeCommit,
		Commit: &mlscore.Commit{Proposals: f.proposals},
	}
	signer := f.signer
	if f.joiner != nil {
		c.Sender = mlscore.Sender{Type: mlscore.SenderTypeNewMemberCommit}
		if signer == nil {
			signer = f.joiner.Signer
		}
	} else if signer == nil {
		signer = w.signer(f.by)
	}
	if !f.noPath {
		c.Commit.Path = w.forgePath(f, signer)
	}
	if f.content != nil {
		f.content(&c)
	}
	return w.seal(c, signer, f.message)
}

// applied is the tree after proposals, whatever they are, and the leaves added.
func (w *world) applied(f forge) (*mlscore.TreeEdit, []mlscore.LeafIndex) {
	e := w.group.Tree().Edit()
	type origin struct {
		*mlscore.Proposal
		sender mlscore.LeafIndex
	}
	var list []origin
	for _, p := range f.proposals {
		if pending := w.group.Proposal(p.Reference); pending != nil {
			list = append(list, origin{pending.Proposal, pending.Sender.LeafIndex})
		} else if p.Proposal != nil {
			list = append(list, origin{p.Proposal, f.by})
		}
	}
	for _, p := range list {
		switch {
		case p.Type == mlscore.ProposalTypeUpdate:
			_ = e.Update(p.sender, p.LeafNode) // it may be wrong: that is the point
		case p.IsReplace():
			_ = e.Update(p.Replaced, p.LeafNode)
		}
	}
	for _, p := range list {
		switch {
		case p.IsSelfRemove():
			_ = e.Remove(p.sender)
		case p.Type == mlscore.ProposalTypeRemove:
			_ = e.Remove(p.Removed)
		case p.Type == removal:
			_ = e.Remove(mlscore.LeafIndex(p.Body[1]))
		}
	}
	var added []mlscore.LeafIndex
	for _, p := range list {
		if p.Type == mlscore.ProposalTypeAdd {
			added = append(added, must(e.Add(p.KeyPackage.LeafNode)))
		}
	}
	e.Truncate()
	return e, added
}

func (w *world) forgePath(f forge, signer mlscore.Signer) *mlscore.UpdatePath {
	w.t.Helper()
	e, added := w.applied(f)
	committer, leaf := f.by, &mlscore.LeafNode{}
	if f.joiner != nil {
		committer = e.LeftmostBlank()
		leaf.SignatureKey, leaf.Credential = f.joiner.Signer.PublicKey(), f.joiner.Credential
		leaf.Capabilities = member.DefaultCapabilities(w.group.Registry())
		if f.joiner.Capabilities != nil {
			leaf.Capabilities = *f.joiner.Capabilities
		}
	} else {
		*leaf = *w.group.Tree().Leaf(f.by)
	}
	leaf.EncryptionKey, leaf.Source = w.key(), mlscore.LeafNodeSourceCommit
	if f.leaf != nil {
		f.leaf(leaf)
	}
	if err := leaf.Sign(signer, nil, 0); err != nil { // so that it can be encoded
		w.t.Fatal(err)
	}
	source := leaf.Source
	leaf.Source = mlscore.LeafNodeSourceCommit
	if err := e.SetLeaf(committer, leaf); err != nil {
		w.t.Fatal(err)
	}
	leaf.Source = source
	path := &mlscore.UpdatePath{LeafNode: leaf}
	var keys [][]byte
	for _, x := range e.FilteredDirectPath(committer) {
		keys = append(keys, w.key())
		path.Nodes = append(path.Nodes, mlscore.UpdatePathNode{EncryptedPathSecret: w.secrets(e, x, committer, added)})
	}
	if f.keys != nil {
		f.keys(keys)
	}
	for i := range path.Nodes {
		path.Nodes[i].EncryptionKey = keys[i]
	}
	leaf.ParentHash = must(e.PathParentHash(committer, keys))
	if err := leaf.Sign(signer, w.group.GroupID(), committer); err != nil {
		w.t.Fatal(err)
	}
	if f.signed != nil {
		f.signed(leaf)
	}
	if f.path != nil {
		f.path(path)
	}
	return path
}

// secrets are as many as the members below a node of the path need.
func (w *world) secrets(e *mlscore.TreeEdit, x mlscore.NodeIndex, committer mlscore.LeafIndex, added []mlscore.LeafIndex) (list []mlscore.HPKECiphertext) {
	child := x.Left()
	if slices.Contains(mlscore.DirectPath(committer.NodeIndex(), e.LeafWidth()), child) || child == committer.NodeIndex() {
		child = x.Right()
	}
	for _, to := range e.Resolution(child) {
		if !to.IsLeaf() || !slices.Contains(added, to.LeafIndex()) {
			list = append(list, mlscore.HPKECiphertext{KEMOutput: w.key(), Ciphertext: w.key()})
		}
	}
	return list
}

// joiner is a client that joins by external commit, and its ExternalInit.
func (w *world) externalInit() *mlscore.Proposal {
	return &mlscore.Proposal{Type: mlscore.ProposalTypeExternalInit, KEMOutput: w.key()}
}

// info is a GroupInfo of the group, with the tree, signed after a change.
func (w *world) info(change func(*mlscore.GroupInfo)) *mlscore.GroupInfo {
	w.t.Helper()
	gi := must(mlscore.ParseMLSMessage(must(w.members[0].GroupInfo()), nil)).GroupInfo
	if change != nil {
		change(gi)
	}
	signer := w.signer(0)
	if int(gi.Signer) < len(w.members) {
		signer = w.signer(gi.Signer)
	}
	if err := gi.Sign(signer); err != nil {
		w.t.Fatal(err)
	}
	return gi
}

// starts makes a group of an encoded GroupInfo.
func (w *world) starts(gi *mlscore.GroupInfo) (*mlscore.PublicGroup, error) {
	m, err := mlscore.ParseMLSMessage((&mlscore.MLSMessage{WireFormat: mlscore.WireFormatGroupInfo, GroupInfo: gi}).Bytes(), w.opts.Registry)
	if err != nil {
		return nil, err
	}
	return mlscore.NewPublicGroup(m.GroupInfo, nil, w.opts)
}

// refusesInfo checks that a GroupInfo, signed after a change, is refused.
func (w *world) refusesInfo(what string, change func(*mlscore.GroupInfo), class error, section string) {
	w.t.Helper()
	_, err := w.starts(w.info(change))
	w.isRefusal(what, err, class, section)
}

// flagsInfo checks that a GroupInfo, signed after a change, is accepted with
// just these flags.
func (w *world) flagsInfo(what string, change func(*mlscore.GroupInfo), want ...string) *mlscore.PublicGroup {
	w.t.Helper()
	g, err := w.starts(w.info(change))
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
	if !slices.Equal(g.Flags(), want) {
		w.t.Errorf("%s: flags %q, want %q", what, g.Flags(), want)
	}
	return g
}

// withTree puts another tree into a GroupInfo, with its hash.
func withTree(tree *mlscore.RatchetTree) func(*mlscore.GroupInfo) {
	return func(gi *mlscore.GroupInfo) {
		gi.GroupContext.TreeHash = tree.TreeHash()
		gi.Extensions = gi.Extensions.With(mlscore.ExtensionTypeRatchetTree, tree.Bytes())
	}
}

// withLeaf is the tree with a leaf in a place, signed after a change. Parents
// stay.
func (w *world) withLeaf(index mlscore.LeafIndex, change func(*mlscore.LeafNode)) *mlscore.RatchetTree {
	w.t.Helper()
	leaf := *w.group.Tree().Leaf(index)
	change(&leaf)
	if err := leaf.Sign(w.signer(index), w.group.GroupID(), index); err != nil {
		w.t.Fatal(err)
	}
	e := w.group.Tree().Edit()
	if err := e.SetLeaf(index, &leaf); err != nil {
		w.t.Fatal(err)
	}
	return e.Tree()
}

func uint64Bytes(v uint64) []byte { return codec.AppendUint64(nil, v) }

// relength encodes the length of a vector again after its content changed.
func relength(vector []byte) []byte {
	return codec.AppendOpaque(nil, vector[1<<(vector[0]>>6):])
}
