package mlscore_test

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
	"leavebroker/mlscore/mlstest"
)

// stageWorld is a small real group whose keys the fuzzer holds, so that what it
// makes up is signed and reaches the checks behind the signatures.
type stageWorld struct {
	group   *mlscore.PublicGroup
	signers map[mlscore.LeafIndex]mlscore.Signer
	sender  mlscore.Signer // of external_senders
	bodies  [][]byte       // content types and bodies of valid handshakes
}

func newStageWorld(t testing.TB) *stageWorld {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	random := rand.NewChaCha8([32]byte{1})
	client := func(name string) *member.Client {
		signer, err := mlscore.GenerateSigner(mlscore.Ed25519, random)
		check(err)
		return &member.Client{CipherSuite: 1, Signer: signer, Credential: mlscore.BasicCredential([]byte(name)), Random: random}
	}
	life := mlscore.Lifetime{NotAfter: 1 << 40}
	sender, err := mlscore.GenerateSigner(mlscore.Ed25519, random)
	check(err)
	creator := client("a")
	group, err := creator.Create([]byte("group"), mlscore.Extensions{{
		Type: mlscore.ExtensionTypeExternalSenders,
		Data: mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{{
			SignatureKey: sender.PublicKey(), Credential: mlscore.BasicCredential([]byte("broker")),
		}}),
	}}, life)
	check(err)
	w := &stageWorld{sender: sender, signers: map[mlscore.LeafIndex]mlscore.Signer{0: creator.Signer}}
	clients := []*member.Client{creator}
	var adds []*mlscore.Proposal
	var packages []*member.KeyPackage
	for i, name := range []string{"b", "c", "d", "e"} {
		c := client(name)
		k, err := c.NewKeyPackage(life)
		check(err)
		clients, packages, adds = append(clients, c), append(packages, k), append(adds, member.Add(k.KeyPackage))
		w.signers[mlscore.LeafIndex(i+1)] = c.Signer
	}
	commit, err := group.Commit(member.CommitOptions{Proposals: adds})
	check(err)
	check(group.ConfirmCommit())
	members := []*member.Group{group}
	for _, k := range packages {
		m, err := k.Join(commit.Welcome, nil)
		check(err)
		members = append(members, m)
	}
	everybody := func(message []byte) {
		for _, m := range members {
			if !m.Removed() {
				_, err := m.Process(message)
				check(err)
			}
		}
	}
	for _, m := range []*member.Group{members[1], members[3]} { // a tree with parents
		c, err := m.Commit(member.CommitOptions{})
		check(err)
		everybody(c.Message)
	}
	update, err := members[2].ProposeUpdate(nil)
	check(err)
	remove, err := mlscore.ExternalRemove(members[0].Public(), sender, 4)
	check(err)
	for _, p := range [][]byte{update, remove} {
		for _, m := range members {
			if _, err := m.Process(p); err != nil && m != members[2] {
				t.Fatal(err)
			}
		}
	}
	w.group = members[0].Public()
	for _, opts := range []member.CommitOptions{
		{}, {References: [][]byte{}}, {Proposals: []*mlscore.Proposal{member.Remove(1)}},
		{Proposals: []*mlscore.Proposal{member.Add(mustKeyPackage(t, client("f"), life).KeyPackage)}, References: [][]byte{}},
	} {
		c, err := members[0].Commit(opts)
		check(err)
		w.add(t, c.Message)
	}
	w.add(t, update)
	w.add(t, remove)
	info, err := members[0].GroupInfo()
	check(err)
	_, joined, err := client("g").JoinExternal(info, member.ExternalJoinOptions{})
	check(err)
	w.add(t, joined.Message)
	return w
}

func mustKeyPackage(t testing.TB, c *member.Client, life mlscore.Lifetime) *member.KeyPackage {
	k, err := c.NewKeyPackage(life)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// add keeps a handshake as a seed: sender type, leaf, content type, body.
func (w *stageWorld) add(t testing.TB, message []byte) {
	m, err := mlscore.ParseMLSMessage(message, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &m.PublicMessage.Content
	w.bodies = append(w.bodies, c.AppendBody([]byte{byte(c.Sender.Type), byte(c.Sender.LeafIndex), byte(c.ContentType)}))
}

// sign makes a handshake of fuzzed bytes and signs it, and the leaf of its
// path, as its sender would.
func (w *stageWorld) sign(in []byte) *mlscore.AuthenticatedContent {
	r := codec.NewReader(in)
	a := &mlscore.AuthenticatedContent{WireFormat: mlscore.WireFormatPublicMessage, Content: mlscore.FramedContent{
		GroupID: w.group.GroupID(), Epoch: w.group.Epoch(),
		Sender:      mlscore.Sender{Type: mlscore.SenderType(r.Uint8()), LeafIndex: mlscore.LeafIndex(r.Uint8())},
		ContentType: mlscore.ContentType(r.Uint8()),
	}}
	c := &a.Content
	signer, joiner := w.signers[c.Sender.LeafIndex], c.Sender.Type == mlscore.SenderTypeNewMemberCommit
	if c.Sender.Type == mlscore.SenderTypeExternal {
		signer = w.sender
	}
	switch c.ContentType {
	case mlscore.ContentTypeProposal:
		c.Proposal = mlscore.ReadProposal(r, w.group.Registry())
	case mlscore.ContentTypeCommit:
		c.Commit = mlscore.ReadCommit(r, w.group.Registry())
		a.ConfirmationTag = make([]byte, sha256.Size)
	}
	if r.Finish() != nil || signer == nil || c.Proposal == nil && c.Commit == nil {
		return nil
	}
	if c.Commit != nil && c.Commit.Path != nil {
		leaf, index := c.Commit.Path.LeafNode, c.Sender.LeafIndex
		if joiner {
			leaf.SignatureKey, index = signer.PublicKey(), w.group.Tree().LeftmostBlank()
		}
		if leaf.Sign(signer, w.group.GroupID(), index) != nil {
			return nil
		}
	}
	if a.Sign(signer, w.group.ContextBytes()) != nil {
		return nil
	}
	return a
}

// FuzzStage stages handshakes that are properly signed and otherwise made up.
// Whatever is accepted leads to a tree that a newcomer would accept.
func FuzzStage(f *testing.F) {
	w := newStageWorld(f)
	for _, body := range w.bodies {
		f.Add(body)
	}
	state := func() []byte {
		return bytes.Join([][]byte{w.group.ContextBytes(), w.group.InterimTranscriptHash(), w.group.Tree().Bytes()}, nil)
	}
	before := state()
	f.Fuzz(func(t *testing.T, in []byte) {
		a := w.sign(in)
		if a == nil {
			return
		}
		var staged *mlscore.Staged
		var err error
		mlstest.CheckAllocation(t, len(in), mlstest.DecodingFactor, func() { staged, err = w.group.StageContent(a, nil) })
		if !bytes.Equal(before, state()) {
			t.Fatal("staging changed the group")
		}
		if err != nil {
			if mlscore.Reason(err) == "error" {
				t.Fatalf("an error without a class: %v", err)
			}
			return
		}
		tree, err := mlscore.ParseRatchetTree(w.group.Suite(), staged.Next().Tree().Bytes())
		if err != nil {
			t.Fatalf("accepted, and the tree does not decode: %v", err)
		}
		if !bytes.Equal(tree.TreeHash(), staged.Next().Context().TreeHash) {
			t.Fatal("the cached tree hash is wrong")
		}
		if err := tree.Verify(w.group.GroupID()); err != nil {
			t.Fatalf("accepted, and a newcomer refuses the tree: %v", err)
		}
	})
}

// The seeds of FuzzStage are what they claim: valid handshakes.
func TestStageSeedsAreValid(t *testing.T) {
	w := newStageWorld(t)
	for i, body := range w.bodies {
		a := w.sign(body)
		if a == nil {
			t.Fatalf("seed %d does not decode", i)
		}
		if _, err := w.group.StageContent(a, nil); err != nil && a.Content.Sender.Type != mlscore.SenderTypeNewMemberCommit {
			t.Errorf("seed %d: %v", i, err)
		}
	}
}
