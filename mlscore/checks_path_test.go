package mlscore_test

import (
	"bytes"
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

func testPathLeaf(t *testing.T) {
	w := newWorld(t, 5)
	for _, source := range []mlscore.LeafNodeSource{mlscore.LeafNodeSourceKeyPackage, mlscore.LeafNodeSourceUpdate} {
		w.refuses("another source", w.forge(forge{by: 1, leaf: func(n *mlscore.LeafNode) { n.Source = source }}), mlscore.ErrInvalid, "12.4.2")
	}
	for _, joiner := range []*member.Client{nil, w.client()} {
		own, index, proposals := w.signer(1), mlscore.LeafIndex(1), refs(nil)
		if joiner != nil {
			own, index, proposals = joiner.Signer, 5, byValue(w.externalInit())
		}
		path := func(groupID string, index mlscore.LeafIndex, by mlscore.Signer) []byte {
			return w.forge(forge{by: 1, joiner: joiner, proposals: proposals, signed: func(n *mlscore.LeafNode) {
				must(0, n.Sign(by, []byte(groupID), index))
			}})
		}
		w.flagged("signed for its place", path("group", index, own))
		w.refuses("signed for another leaf", path("group", index+1, own), mlscore.ErrInvalid, "5.1.2")
		w.refuses("signed for another group", path("other", index, own), mlscore.ErrInvalid, "5.1.2")
		w.refuses("signed by another", path("group", index, w.signer(2)), mlscore.ErrInvalid, "5.1.2")
	}
	w.flagged("another signature key", w.forge(forge{by: 1, signed: func(n *mlscore.LeafNode) {
		c := w.client()
		n.SignatureKey = c.Signer.PublicKey()
		must(0, n.Sign(c.Signer, w.group.GroupID(), 1))
	}}))
}

func testPathLeafKey(t *testing.T) {
	w := newWorld(t, 5)
	current := w.group.Tree().Leaf(1).EncryptionKey
	w.refuses("the committer's current key", w.forge(forge{by: 1, leaf: func(n *mlscore.LeafNode) { n.EncryptionKey = current }}), mlscore.ErrInvalid, "12.4.2")
}

// No key of the path is in the tree already, not even where the path will
// replace it, nor twice in the path.
func testPathKeys(t *testing.T) {
	w := newWorld(t, 8) // member 4 has committed
	tree := w.group.Tree()
	withKey := func(by mlscore.LeafIndex, key []byte, at int) []byte {
		return w.forge(forge{by: by, keys: func(keys [][]byte) { keys[at] = key }})
	}
	for at := range 3 {
		w.refuses("a leaf's key", withKey(1, tree.Leaf(6).EncryptionKey, at), mlscore.ErrInvalid, "12.4.2")
		w.refuses("the committer's old key", withKey(1, tree.Leaf(1).EncryptionKey, at), mlscore.ErrInvalid, "12.4.2")
		w.refuses("the key of a parent beside the path", withKey(1, tree.Parent(9).EncryptionKey, at), mlscore.ErrInvalid, "12.4.2")
		w.refuses("the key of a parent on the path", withKey(1, tree.Parent(7).EncryptionKey, at), mlscore.ErrInvalid, "12.4.2")
	}
	w.refuses("one key twice", w.forge(forge{by: 1, keys: func(keys [][]byte) { keys[2] = keys[0] }}), mlscore.ErrInvalid, "12.4.2")
	leaf := w.key()
	w.refuses("the new leaf's key", w.forge(forge{by: 1, leaf: func(n *mlscore.LeafNode) { n.EncryptionKey = leaf }, keys: func(keys [][]byte) {
		keys[1] = leaf
	}}), mlscore.ErrInvalid, "12.4.2")
	add := w.add(nil)
	w.refuses("an added leaf's key", w.forge(forge{by: 1, proposals: byValue(add), keys: func(keys [][]byte) {
		keys[0] = add.KeyPackage.LeafNode.EncryptionKey
	}}), mlscore.ErrInvalid, "12.4.2")
	w.flagged("a removed leaf's key", w.forge(forge{by: 1, proposals: byValue(member.Remove(6)), keys: func(keys [][]byte) {
		keys[0] = tree.Leaf(6).EncryptionKey
	}}))
}

func testPathLength(t *testing.T) {
	w := newWorld(t, 8)
	for _, list := range []refs{nil, byValue(member.Remove(0)), byValue(member.Remove(2), member.Remove(3))} {
		w.flagged("as it is", w.forge(forge{by: 1, proposals: list}))
		w.refuses("too short from below", w.forge(forge{by: 1, proposals: list, path: func(p *mlscore.UpdatePath) { p.Nodes = p.Nodes[1:] }}), mlscore.ErrInvalid, "7.5")
		w.refuses("too short from above", w.forge(forge{by: 1, proposals: list, path: func(p *mlscore.UpdatePath) { p.Nodes = p.Nodes[:len(p.Nodes)-1] }}), mlscore.ErrInvalid, "7.5")
		w.refuses("empty", w.forge(forge{by: 1, proposals: list, path: func(p *mlscore.UpdatePath) { p.Nodes = nil }}), mlscore.ErrInvalid, "7.5")
		w.refuses("too long", w.forge(forge{by: 1, proposals: list, path: func(p *mlscore.UpdatePath) {
			p.Nodes = append(p.Nodes, mlscore.UpdatePathNode{EncryptionKey: w.key()})
		}}), mlscore.ErrInvalid, "7.5")
	}
}

func testParentHashOfPath(t *testing.T) {
	w := newWorld(t, 8)
	with := func(hash func([]byte) []byte) []byte {
		return w.forge(forge{by: 1, signed: func(n *mlscore.LeafNode) {
			n.ParentHash = hash(bytes.Clone(n.ParentHash))
			must(0, n.Sign(w.signer(1), w.group.GroupID(), 1))
		}})
	}
	w.flagged("as it is", with(func(h []byte) []byte { return h }))
	w.refuses("changed", with(func(h []byte) []byte { h[5] ^= 1; return h }), mlscore.ErrInvalid, "7.9.2")
	w.refuses("cut", with(func(h []byte) []byte { return h[:31] }), mlscore.ErrInvalid, "7.9.2")
	w.refuses("empty", with(func([]byte) []byte { return nil }), mlscore.ErrInvalid, "7.9.2")
	w.refuses("keys of two nodes exchanged", w.forge(forge{by: 1, path: func(p *mlscore.UpdatePath) {
		p.Nodes[0].EncryptionKey, p.Nodes[1].EncryptionKey = p.Nodes[1].EncryptionKey, p.Nodes[0].EncryptionKey
	}}), mlscore.ErrInvalid, "7.9.2")

	// What the path does to the tree: new keys without unmerged leaves on the
	// filtered direct path, blanks on the rest, a chain of parent hashes.
	w.group = w.accepts("a commit", w.forge(forge{by: 1, proposals: byValue(member.Remove(2), member.Remove(3))})).Next()
	w.group = w.accepts("an Add without path", w.forge(forge{by: 7, noPath: true, proposals: byValue(w.add(nil))})).Next()
	if p := w.group.Tree().Parent(7); p == nil || len(p.UnmergedLeaves) != 1 {
		t.Fatalf("node 7 is %v", p)
	}
	w.group = w.accepts("another commit", w.forge(forge{by: 6, proposals: byValue(member.Remove(7), member.Remove(2))})).Next()
	tree := w.group.Tree()
	if tree.Parent(13) != nil || tree.Parent(11) == nil || tree.Parent(7) == nil || len(tree.Parent(7).UnmergedLeaves) != 0 {
		t.Errorf("nodes 13, 11, 7: %v, %v, %v", tree.Parent(13), tree.Parent(11), tree.Parent(7))
	}
	if len(tree.Parent(7).ParentHash) != 0 {
		t.Error("the root has a parent_hash")
	}
	if err := tree.Verify(w.group.GroupID()); err != nil {
		t.Error(err)
	}
}

func testPathSecretCount(t *testing.T) {
	w := newWorld(t, 8)
	for at := range 3 {
		w.flagged("one more", w.forge(forge{by: 1, path: func(p *mlscore.UpdatePath) {
			s := &p.Nodes[at].EncryptedPathSecret
			*s = append(*s, mlscore.HPKECiphertext{})
		}}), mlscore.FlagPathSecretCount)
		w.flagged("none", w.forge(forge{by: 1, path: func(p *mlscore.UpdatePath) { p.Nodes[at].EncryptedPathSecret = nil }}), mlscore.FlagPathSecretCount)
	}
	// The copath of member 2 in a group of three is one new leaf: it needs none.
	three := newWorld(t, 3)
	message := three.forge(forge{by: 2, proposals: byValue(three.add(nil))})
	three.flagged("none for a new leaf", message)
	path := must(mlscore.ParseMLSMessage(message, nil)).PublicMessage.Content.Commit.Path
	if n := len(path.Nodes[0].EncryptedPathSecret); n != 0 {
		t.Errorf("%d secrets for new leaves", n)
	}
}

// A refusal leaves the group as it was at whatever point it comes, and a commit
// that was staged and not used leaves no trace.
func testStagedState(t *testing.T) {
	w := newWorld(t, 6)
	ref := w.pend(external, member.Remove(3))
	before := w.state()
	tree := w.group.Tree()
	for range 3 {
		staged := w.accepts("a commit", w.forge(forge{by: 1, proposals: append(byValue(w.add(nil), w.add(nil), w.add(nil)), ref)}))
		if !bytes.Equal(before, w.state()) || w.group.Tree() != tree {
			t.Fatal("staging changed the group")
		}
		next := staged.Next()
		if next.Epoch() != w.group.Epoch()+1 || !bytes.Equal(next.Context().TreeHash, next.Tree().TreeHash()) ||
			len(slices.Collect(next.Proposals())) != 0 || next.Proven() || next.Closed() || len(next.Flags()) != 0 {
			t.Errorf("the next state: %+v", next.Context())
		}
		fresh := must(mlscore.ParseRatchetTree(next.Suite(), next.Tree().Bytes()))
		if !bytes.Equal(fresh.TreeHash(), next.Tree().TreeHash()) {
			t.Error("the tree hash is not that of the tree")
		}
		if err := fresh.Verify(next.GroupID()); err != nil {
			t.Error(err)
		}
	}
	reInit := member.ReInit(mlscore.ReInit{GroupID: []byte("next"), Version: 1, CipherSuite: 1})
	w.refuses("a ReInit with a wrong path", w.forge(forge{by: 1, proposals: byValue(reInit), path: func(p *mlscore.UpdatePath) { p.Nodes = nil }}), mlscore.ErrInvalid, "7.5")
	if w.group.Closed() {
		t.Error("a refused ReInit closed the group")
	}
}
