package mlscore_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
)

// Lengths around those where a vector's header grows, and where a two-byte
// header ends (0x3fff).
func testLengthsAroundHeaders(t *testing.T) {
	w := buildWorld(t, 3, able, nil)
	for _, n := range []int{0, 63, 64, 0x3ffe, 0x3fff, 0x4000, 0x4001} {
		data := bytes.Repeat([]byte{7}, n)
		staged := w.flagged("a long extension", w.forge(forge{by: 1, proposals: byValue(member.GroupContextExtensions(mlscore.Extensions{{Type: 0xff01, Data: data}}))}))
		if got, _ := staged.Next().Context().Extensions.Find(0xff01); !bytes.Equal(got, data) {
			t.Errorf("%d bytes became %d", n, len(got))
		}
		message := w.forge(forge{by: 1, content: func(c *mlscore.FramedContent) { c.AuthenticatedData = data }})
		w.flagged("long authenticated_data", message)
		if again := must(mlscore.ParseMLSMessage(message, nil)).Bytes(); !bytes.Equal(again, message) {
			t.Errorf("%d bytes: decoding and encoding changes the message", n)
		}
		w.flagged("a long leaf", w.forge(forge{by: 1, leaf: func(n *mlscore.LeafNode) {
			n.Extensions = mlscore.Extensions{{Type: mlscore.ExtensionTypeApplicationID, Data: codec.AppendOpaque(nil, data)}}
		}}))
	}
}

// GroupContextExtensions cannot do what AppDataUpdate is for, in a group that
// requires it.
func testAppDataProtected(t *testing.T) {
	dictionary := mlscore.Extension{Type: mlscore.ExtensionTypeAppDataDictionary, Data: []byte{1}}
	required := mlscore.RequiredCapabilities{Proposals: []mlscore.ProposalType{0x0008}}
	requires := mlscore.Extension{Type: mlscore.ExtensionTypeRequiredCapabilities, Data: required.Append(nil)}
	shape := func(c *member.Client) {
		able(c)
		c.Capabilities.Extensions = append(c.Capabilities.Extensions, mlscore.ExtensionTypeAppDataDictionary)
	}
	other := mlscore.Extension{Type: mlscore.ExtensionTypeAppDataDictionary, Data: []byte{2}}
	commit := func(w *world, x ...mlscore.Extension) []byte {
		return w.forge(forge{by: 1, proposals: byValue(member.GroupContextExtensions(x))})
	}
	const section = "draft-ietf-mls-extensions, AppDataUpdate"
	w := buildWorld(t, 3, shape, mlscore.Extensions{dictionary, requires})
	w.flagged("kept", commit(w, requires, dictionary))
	w.refuses("changed", commit(w, requires, other), mlscore.ErrInvalid, section)
	w.refuses("removed", commit(w, requires), mlscore.ErrInvalid, section)
	w.refuses("changed, and the requirement dropped", commit(w, other), mlscore.ErrInvalid, section)
	w.refusesProposal("changed, by reference", external, member.GroupContextExtensions(mlscore.Extensions{requires, other}), mlscore.ErrInvalid, section)
	without := buildWorld(t, 3, shape, mlscore.Extensions{requires})
	without.refuses("added", commit(without, requires, dictionary), mlscore.ErrInvalid, section)
	free := buildWorld(t, 3, shape, mlscore.Extensions{dictionary})
	free.flagged("changed where nobody requires it", commit(free, other))
}

// A parent-hash check that ends at a blank root, or takes an empty parent_hash
// for none, accepts these.
func testForgedParentHashes(t *testing.T) {
	w := newWorld(t, 4) // member 2 has committed
	w.group = w.accepts("a path on the left", w.forge(forge{by: 0})).Next()
	full := w.group.Tree()
	w.flagsInfo("full", withTree(full))
	w.group = w.accepts("an Update", w.forge(forge{by: 1, proposals: refs{w.pend(w.by(3), updateWith(w.update(3, nil)))}})).Next()
	e := w.group.Tree().Edit()
	must(0, e.Update(3, w.update(3, nil)))
	blankRoot := e.Tree()
	if blankRoot.Parent(3) != nil || blankRoot.Parent(1) == nil {
		t.Fatal("want a blank root and a left parent")
	}
	w.flagsInfo("a blank root", withTree(blankRoot))
	spoil := func(tree *mlscore.RatchetTree, x mlscore.NodeIndex, change func(*mlscore.ParentNode)) *mlscore.RatchetTree {
		p := *tree.Parent(x)
		old := p.Append(nil)
		change(&p)
		encoded := bytes.Replace(tree.Bytes(), old, p.Append(nil), 1)
		return must(mlscore.ParseRatchetTree(tree.Suite(), relength(encoded)))
	}
	key := func(p *mlscore.ParentNode) { p.EncryptionKey = w.key() }
	w.refusesInfo("another key below a blank root", withTree(spoil(blankRoot, 1, key)), mlscore.ErrInvalid, "7.9.2")
	w.refusesInfo("another parent_hash below a blank root", withTree(spoil(blankRoot, 1, func(p *mlscore.ParentNode) {
		p.ParentHash = bytes.Repeat([]byte{1}, 32)
	})), mlscore.ErrInvalid, "7.9.2")
	w.refusesInfo("an empty parent_hash of a parent", withTree(spoil(full, 1, func(p *mlscore.ParentNode) { p.ParentHash = nil })), mlscore.ErrInvalid, "7.9.2")

	leaf := *full.Leaf(0)
	leaf.ParentHash = nil
	must(0, leaf.Sign(w.signer(0), w.group.GroupID(), 0))
	e = full.Edit()
	must(0, e.SetLeaf(0, &leaf))
	w.refusesInfo("an empty parent_hash of a leaf", withTree(e.Tree()), mlscore.ErrInvalid, "7.9.2")
	leaf.Source = mlscore.LeafNodeSourceUpdate
	must(0, leaf.Sign(w.signer(0), w.group.GroupID(), 0))
	e = full.Edit()
	must(0, e.SetLeaf(0, &leaf))
	w.refusesInfo("no parent_hash of a leaf", withTree(e.Tree()), mlscore.ErrInvalid, "7.9.2")
}

// checkCaches compares everything that is kept about a tree with what its bytes
// say, and with the keys that the tree once held.
func checkCaches(t *testing.T, g *mlscore.PublicGroup, seen map[string]bool) {
	t.Helper()
	tree := g.Tree()
	fresh := must(mlscore.ParseRatchetTree(g.Suite(), tree.Bytes()))
	for x := range mlscore.NodeIndex(mlscore.NodeWidth(fresh.LeafWidth())) {
		if !bytes.Equal(tree.NodeHash(x), fresh.NodeHash(x)) {
			t.Fatalf("epoch %d: the hash of node %d is stale", g.Epoch(), x)
		}
		if key := tree.EncryptionKeyOf(x); key != nil {
			seen[string(key)] = true
			if at, ok := tree.FindEncryptionKey(key); !ok || at != x {
				t.Fatalf("epoch %d: the key of node %d is found at %d, %t", g.Epoch(), x, at, ok)
			}
		}
	}
	members := 0
	for i, leaf := range tree.All() {
		members++
		seen[string(leaf.SignatureKey)] = true
		if at, ok := tree.FindSignatureKey(leaf.SignatureKey); !ok || at != i {
			t.Fatalf("epoch %d: leaf %d is found at %d, %t", g.Epoch(), i, at, ok)
		}
	}
	for key := range seen {
		_, cached := tree.FindEncryptionKey([]byte(key))
		_, real := fresh.FindEncryptionKey([]byte(key))
		_, cachedLeaf := tree.FindSignatureKey([]byte(key))
		_, realLeaf := fresh.FindSignatureKey([]byte(key))
		if cached != real || cachedLeaf != realLeaf {
			t.Fatalf("epoch %d: the index of keys is stale", g.Epoch())
		}
	}
	if tree.Members() != members || tree.LeftmostBlank() != fresh.LeftmostBlank() || tree.SupportsProposal(0xff02) != fresh.SupportsProposal(0xff02) ||
		!slices.Equal(tree.CredentialTypesInUse(), fresh.CredentialTypesInUse()) {
		t.Fatalf("epoch %d: the counts are stale", g.Epoch())
	}
	if err := fresh.Verify(g.GroupID()); err != nil {
		t.Fatalf("epoch %d: %v", g.Epoch(), err)
	}
}

// Every operation, in random order: what is cached is what it would be afresh.
func testStaleCaches(t *testing.T) {
	w := newWorld(t, 9)
	random := rand.New(rand.NewChaCha8([32]byte{9}))
	seen := make(map[string]bool)
	signers := make(map[mlscore.LeafIndex]mlscore.Signer)
	for i := range w.group.Tree().All() {
		signers[i] = w.signer(i)
	}
	for range 60 {
		checkCaches(t, w.group, seen)
		var here []mlscore.LeafIndex
		for i := range w.group.Tree().All() {
			here = append(here, i)
		}
		random.Shuffle(len(here), func(i, j int) { here[i], here[j] = here[j], here[i] })
		by, other := here[0], here[1]
		update := func() mlscore.ProposalOrRef {
			leaf := *w.group.Tree().Leaf(other)
			leaf.EncryptionKey, leaf.Source = w.key(), mlscore.LeafNodeSourceUpdate
			next := w.client().Signer
			leaf.SignatureKey = next.PublicKey()
			must(0, leaf.Sign(next, w.group.GroupID(), other))
			ref := w.receive("an Update", w.sealAs(w.by(other), mlscore.FramedContent{ContentType: mlscore.ContentTypeProposal, Proposal: updateWith(&leaf)}, signers[other]))
			signers[other] = next
			return ref
		}
		c := w.client()
		joined := false
		var message []byte
		switch what := random.IntN(7); {
		case what == 0 && len(here) > 4:
			ref := w.receive("a SelfRemove", w.sealAs(w.by(other), mlscore.FramedContent{
				ContentType: mlscore.ContentTypeProposal, Proposal: mlscore.NewSelfRemove(w.group.Registry()),
			}, signers[other]))
			message = w.forge(forge{by: by, signer: signers[by], proposals: refs{ref}})
		case what == 1 && len(here) > 4:
			message = w.forge(forge{by: by, signer: signers[by], proposals: byValue(member.Remove(other))})
		case what == 2:
			message = w.forge(forge{by: by, signer: signers[by], proposals: refs{update()}})
		case what == 3:
			message, joined = w.join(c, forge{}), true
		case what == 4:
			message, joined = w.forge(forge{joiner: c, proposals: byValue(w.externalInit(), member.Remove(other))}), true
		case what == 5:
			k := must(c.NewKeyPackage(forever)).KeyPackage
			message, joined = w.forge(forge{by: by, signer: signers[by], noPath: random.IntN(2) == 0, proposals: byValue(member.Add(k))}), true
		default:
			message = w.forge(forge{by: by, signer: signers[by]})
		}
		staged := w.accepts("a commit", message)
		for _, i := range staged.Removed {
			delete(signers, i)
		}
		if joined {
			signers[staged.Added[0]] = c.Signer
		}
		w.group = staged.Next()
	}
	checkCaches(t, w.group, seen)
}

// The keys of a leaf that was replaced sign nothing any more.
func testOldLeafKey(t *testing.T) {
	w := newWorld(t, 5)
	next := w.client().Signer
	w.group = w.accepts("a new signature key", w.forge(forge{by: 1, signed: func(n *mlscore.LeafNode) {
		n.SignatureKey = next.PublicKey()
		must(0, n.Sign(next, w.group.GroupID(), 1))
	}})).Next()
	content := mlscore.FramedContent{ContentType: mlscore.ContentTypeProposal, Proposal: psk("x")}
	w.group = w.accepts("the new key", w.sealAs(w.by(1), content, next)).Next()
	w.refuses("the old key", w.sealAs(w.by(1), content, w.signer(1)), mlscore.ErrInvalid, "5.1.2")
	w.refuses("a commit with the old key", w.forge(forge{by: 1}), mlscore.ErrInvalid, "5.1.2")
}

// Two commits in a row that refer to proposals, and a third that mixes.
func testTwoCommitsWithReferences(t *testing.T) {
	w := newWorld(t, 9)
	for i, leaf := range []mlscore.LeafIndex{8, 6, 3} {
		keep := w.pend(external, member.Remove(leaf-1)) // not committed
		one, two := w.pend(external, member.Remove(leaf)), w.pend(w.by(0), w.add(nil))
		staged := w.flagged("a commit", w.forge(forge{by: 1, proposals: refs{two, one}}))
		if !slices.Equal(staged.Removed, []mlscore.LeafIndex{leaf}) || !slices.Equal(staged.Added, []mlscore.LeafIndex{leaf}) {
			t.Errorf("commit %d: removed %v, added %v", i, staged.Removed, staged.Added)
		}
		w.group = staged.Next()
		w.refuses("what the last commit left out", w.forge(forge{by: 1, proposals: refs{keep}}), mlscore.ErrUnresolvable, "12.4.2")
	}
}

// A group that shrinks to one member, and grows again.
func testShrinkToOne(t *testing.T) {
	w := newWorld(t, 9)
	full := w.group
	for _, list := range [][]mlscore.LeafIndex{{8}, {7, 6, 5, 4}, {3, 2, 0}} {
		var removes []*mlscore.Proposal
		for _, leaf := range list {
			removes = append(removes, member.Remove(leaf))
		}
		w.group = w.flagged("removals", w.forge(forge{by: 1, proposals: byValue(removes...)})).Next()
	}
	if w.group.Tree().Members() != 1 || w.group.Tree().LeafWidth() != 2 {
		t.Errorf("%d members of %d leaves", w.group.Tree().Members(), w.group.Tree().LeafWidth())
	}
	for range 9 {
		w.group = w.flagged("growth", w.forge(forge{by: 1, proposals: byValue(w.add(nil))})).Next()
		checkCaches(t, w.group, make(map[string]bool))
	}
	w.group = full
	var rest []*mlscore.Proposal
	for leaf := mlscore.LeafIndex(1); leaf < 9; leaf++ {
		rest = append(rest, member.Remove(leaf))
	}
	next := w.flagged("all but the committer at once", w.forge(forge{by: 0, proposals: byValue(rest...)})).Next()
	if next.Tree().LeafWidth() != 1 || next.Tree().Members() != 1 {
		t.Errorf("%d members of %d leaves", next.Tree().Members(), next.Tree().LeafWidth())
	}
}

// What an observer proposes, members take.
func testExternalProposalRoundTrip(t *testing.T) {
	w := newWorld(t, 5)
	for what, message := range map[string][]byte{
		"Remove": must(mlscore.ExternalRemove(w.group, w.broker, 4)),
		"Add":    must(mlscore.ExternalProposal(w.group, w.broker, w.add(nil))),
	} {
		w.receive(what, message)
		w.everybody(message)
	}
	commit := must(w.members[1].Commit(member.CommitOptions{}))
	staged := w.flagged("a member's commit", commit.Message)
	if !slices.Equal(staged.Removed, []mlscore.LeafIndex{4}) || !slices.Equal(staged.Added, []mlscore.LeafIndex{4}) {
		t.Errorf("removed %v, added %v", staged.Removed, staged.Added)
	}
	w.everybody(commit.Message)
}

// Nothing but a verified GroupInfo gives a group: one that is wrong in any way
// gives none.
func testNoGroupWithoutVerification(t *testing.T) {
	w := newWorld(t, 4)
	gi := w.info(nil)
	gi.Signature[7] ^= 1
	if g, err := mlscore.NewPublicGroup(gi, nil, mlscore.Options{}); g != nil || err == nil {
		t.Errorf("got %v, %v", g, err)
	}
	if g, err := mlscore.NewPublicGroupWithTree(gi, w.group.Tree(), mlscore.Options{}); g != nil || err == nil {
		t.Errorf("got %v, %v", g, err)
	}
}
