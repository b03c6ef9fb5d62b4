package mlscore

import (
	"bytes"
	"slices"
	"testing"

	"leavebroker/mlscore/codec"
)

// verdicts are the parts of Verify.
var verdicts = map[string]func(*RatchetTree) error{
	"unmerged leaves": (*RatchetTree).VerifyUnmergedLeaves,
	"unique keys":     (*RatchetTree).VerifyUniqueKeys,
	"parent hashes":   (*RatchetTree).VerifyParentHashes,
}

// checkRefused encodes a model and expects one part of Verify to refuse it.
func checkRefused(t *testing.T, name, part string, m *treeModel) {
	t.Helper()
	tree := mustParseTree(t, m.suite, m.encode())
	if err := verdicts[part](tree); Reason(err) != "invalid" {
		t.Errorf("%s: %s: got %v", name, part, err)
	}
	if tree.Verify([]byte("test group")) == nil {
		t.Errorf("%s: accepted", name)
	}
}

// changeLeaf decodes, changes and encodes a leaf of a model.
func changeLeaf(t *testing.T, m *treeModel, i LeafIndex, change func(*LeafNode)) {
	t.Helper()
	leaf, err := ParseLeafNode(m.nodes[2*i].leaf)
	if err != nil {
		t.Fatal(err)
	}
	change(leaf)
	m.nodes[2*i].leaf = leaf.Append(nil)
}

func TestTreeEncodingRefusals(t *testing.T) {
	g := newTestGroup(t, mustSuite(t, 1), 3)
	m := modelOf(g.tree)
	blank, leaf := []byte{0}, append([]byte{1, 1}, m.nodes[0].leaf...)
	parent := m.nodes[3].parent.Append([]byte{1, 2})
	withUnmerged := func(leaves ...LeafIndex) []byte {
		return (&ParentNode{UnmergedLeaves: leaves}).Append([]byte{1, 2})
	}
	for name, nodes := range map[string][][]byte{
		"no nodes":                {},
		"all blank":               {blank, blank, blank},
		"last blank":              {leaf, blank, leaf, blank},
		"last blank leaf":         {leaf, parent, blank},
		"even length":             {leaf, parent},
		"parent at a leaf":        {parent, parent, leaf},
		"leaf at a parent":        {leaf, leaf, leaf},
		"node_type 0":             {{1, 0}},
		"node_type 3":             {{1, 3}},
		"presence 2":              {{2, 1}},
		"truncated leaf":          {leaf[:len(leaf)-1]},
		"unmerged out of order":   {leaf, withUnmerged(2, 0), leaf},
		"unmerged twice":          {leaf, withUnmerged(1, 1), leaf},
		"unmerged of three bytes": {leaf, {1, 2, 0, 0, 3, 0, 0, 0}, leaf},
	} {
		b := codec.AppendOpaque(nil, bytes.Join(nodes, nil))
		if _, err := ParseRatchetTree(g.suite, b); Reason(err) != "malformed" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	good := g.tree.Bytes()
	for n := range good {
		if _, err := ParseRatchetTree(g.suite, good[:n]); Reason(err) != "malformed" {
			t.Errorf("the first %d bytes: got %v", n, err)
		}
	}
	if _, err := ParseRatchetTree(g.suite, append(slices.Clone(good), 0)); Reason(err) != "malformed" {
		t.Errorf("a byte more: got %v", err)
	}
}

func TestUnmergedLeavesRefused(t *testing.T) {
	g := newTestGroup(t, mustSuite(t, 1), 15)
	g.merge()
	e := g.tree.Edit()
	g.add(e)
	g.tree = e.Tree()
	g.verify()
	base := modelOf(g.tree)
	for _, x := range []NodeIndex{15, 23, 27} {
		if !slices.Equal(base.nodes[x].parent.UnmergedLeaves, []LeafIndex{15}) {
			t.Fatalf("node %d: unmerged %v", x, base.nodes[x].parent.UnmergedLeaves)
		}
	}
	for name, change := range map[string]func(*treeModel){
		"not in the intermediate": func(m *treeModel) { m.nodes[23].parent.UnmergedLeaves = nil },
		"not in the lowest":       func(m *treeModel) { m.nodes[27].parent.UnmergedLeaves = nil },
		"not a descendant":        func(m *treeModel) { m.nodes[3].parent.UnmergedLeaves = []LeafIndex{15} },
		"outside the tree":        func(m *treeModel) { m.nodes[15].parent.UnmergedLeaves = []LeafIndex{15, 16} },
		"far outside the tree":    func(m *treeModel) { m.nodes[15].parent.UnmergedLeaves = []LeafIndex{15, 1<<32 - 1} },
		"blank leaf": func(m *treeModel) {
			m.nodes[30].leaf = nil
		},
	} {
		m := base.clone()
		change(m)
		checkRefused(t, name, "unmerged leaves", m)
	}
	// Unmerged below but not above: a matter of the resolution's length.
	m := base.clone()
	m.nodes[15].parent.UnmergedLeaves = nil
	checkRefused(t, "not in the highest", "parent hashes", m)
	m = base.clone()
	m.nodes[15].parent.UnmergedLeaves, m.nodes[23].parent.UnmergedLeaves = nil, nil
	checkRefused(t, "in the lowest alone", "parent hashes", m)
}

func TestParentHashesRefused(t *testing.T) {
	g := newTestGroup(t, mustSuite(t, 1), 4)
	g.merge()
	g.verify()
	full := modelOf(g.tree)

	e := g.tree.Edit()
	if err := e.Update(3, g.leaf(3, LeafNodeSourceUpdate)); err != nil {
		t.Fatal(err)
	}
	g.tree = e.Tree()
	g.verify()
	blankRoot := modelOf(g.tree)
	if blankRoot.nodes[3].parent != nil || blankRoot.nodes[1].parent == nil {
		t.Fatal("want a blank root and a left parent")
	}
	for name, c := range map[string]struct {
		base   *treeModel
		change func(*treeModel)
	}{
		"blank root, bad left parent key":  {blankRoot, func(m *treeModel) { m.nodes[1].parent.EncryptionKey[0] ^= 1 }},
		"blank root, bad left parent hash": {blankRoot, func(m *treeModel) { m.nodes[1].parent.ParentHash[0] ^= 1 }},
		"root key":                         {full, func(m *treeModel) { m.nodes[3].parent.EncryptionKey[0] ^= 1 }},
		"root hash":                        {full, func(m *treeModel) { m.nodes[3].parent.ParentHash = []byte{1} }},
		"null parent_hash of a parent":     {full, func(m *treeModel) { m.nodes[5].parent.ParentHash = []byte{} }},
		"short parent_hash of a parent":    {full, func(m *treeModel) { m.nodes[5].parent.ParentHash = m.nodes[5].parent.ParentHash[:31] }},
		"null parent_hash of a leaf":       {full, func(m *treeModel) { changeLeaf(t, m, 0, func(l *LeafNode) { l.ParentHash = []byte{} }) }},
		"leaf without parent_hash":         {full, func(m *treeModel) { changeLeaf(t, m, 0, func(l *LeafNode) { l.Source = LeafNodeSourceUpdate }) }},
		"sibling changed":                  {full, func(m *treeModel) { changeLeaf(t, m, 1, func(l *LeafNode) { l.EncryptionKey[0] ^= 1 }) }},
		"member unmerged afterwards":       {full, func(m *treeModel) { m.nodes[1].parent.UnmergedLeaves = []LeafIndex{0} }},
	} {
		m := c.base.clone()
		for x, n := range m.nodes { // what changes must not be shared
			if n.parent != nil {
				n.parent.EncryptionKey, n.parent.ParentHash = slices.Clone(n.parent.EncryptionKey), slices.Clone(n.parent.ParentHash)
			}
			m.nodes[x].leaf = slices.Clone(n.leaf)
		}
		c.change(m)
		if c.base == full && name == "member unmerged afterwards" {
			m.nodes[3].parent.UnmergedLeaves = []LeafIndex{0}
		}
		checkRefused(t, name, "parent hashes", m)
	}
}

// A blank between a parent and the node that holds its hash, with members that
// were added since: they are unmerged above the blank and nowhere else.
func TestBlankIntermediateWithUnmergedLeaves(t *testing.T) {
	g := newTestGroup(t, mustSuite(t, 1), 4)
	g.remove(2, 1, 3) // keep 0 and 2, which keeps the width
	if g.tree.LeafWidth() != 4 {
		t.Fatalf("width %d", g.tree.LeafWidth())
	}
	g.commit(g.tree.Edit(), 0)
	e := g.tree.Edit()
	g.add(e)
	g.add(e)
	g.tree = e.Tree()
	m := modelOf(g.tree)
	if m.nodes[1].parent != nil || m.nodes[5].parent != nil || !slices.Equal(m.nodes[3].parent.UnmergedLeaves, []LeafIndex{1, 3}) {
		t.Fatalf("want blanks below the root and two unmerged leaves: %v", m.nodes)
	}
	g.verify()
	for _, unmerged := range [][]LeafIndex{nil, {1}, {3}, {0, 1, 3}, {1, 2, 3}, {0, 1, 2, 3}} {
		spoilt := m.clone()
		spoilt.nodes[3].parent.UnmergedLeaves = unmerged
		checkRefused(t, "unmerged leaves missing or too many", "parent hashes", spoilt)
	}
}

func TestDuplicateKeysRefused(t *testing.T) {
	g := newTestGroup(t, mustSuite(t, 1), 20)
	g.merge()
	g.verify()
	base := modelOf(g.tree)
	leafKey, signatureKey := g.tree.Leaf(3).EncryptionKey, g.tree.Leaf(3).SignatureKey
	for name, change := range map[string]func(*treeModel){
		"leaf and leaf":     func(m *treeModel) { changeLeaf(t, m, 19, func(l *LeafNode) { l.EncryptionKey = leafKey }) },
		"leaf and parent":   func(m *treeModel) { m.nodes[15].parent.EncryptionKey = leafKey },
		"parent and parent": func(m *treeModel) { m.nodes[15].parent.EncryptionKey = m.nodes[1].parent.EncryptionKey },
		"signature keys":    func(m *treeModel) { changeLeaf(t, m, 19, func(l *LeafNode) { l.SignatureKey = signatureKey }) },
	} {
		m := base.clone()
		change(m)
		checkRefused(t, name, "unique keys", m)
	}
}

func TestLeafSignaturesRefused(t *testing.T) {
	g := newTestGroup(t, mustSuite(t, 1), 5)
	m := modelOf(g.tree)
	changeLeaf(t, m, 4, func(l *LeafNode) { l.Signature[5] ^= 1 })
	tree := mustParseTree(t, g.suite, m.encode())
	if err := tree.VerifyLeafSignatures(g.groupID); Reason(err) != "invalid" {
		t.Errorf("a spoilt signature: %v", err)
	}
	if err := g.tree.VerifyLeafSignatures([]byte("other")); Reason(err) != "invalid" {
		t.Errorf("another group: %v", err)
	}
}

func TestEditRefusals(t *testing.T) {
	g := newTestGroup(t, mustSuite(t, 1), 5)
	before := g.tree.Bytes()
	leaf := g.leaf(9, LeafNodeSourceKeyPackage)
	for name, try := range map[string]func(*TreeEdit) error{
		"update a blank":         func(e *TreeEdit) error { return e.Update(6, leaf) },
		"update outside":         func(e *TreeEdit) error { return e.Update(8, leaf) },
		"update far outside":     func(e *TreeEdit) error { return e.Update(1<<31, leaf) },
		"remove a blank":         func(e *TreeEdit) error { return e.Remove(5) },
		"remove far outside":     func(e *TreeEdit) error { return e.Remove(1<<32 - 1) },
		"set a leaf far outside": func(e *TreeEdit) error { return e.SetLeaf(9, leaf) },
		"a key_package leaf":     func(e *TreeEdit) error { return e.MergePath(0, &UpdatePath{LeafNode: leaf}) },
		"a path far outside":     func(e *TreeEdit) error { _, err := e.PathParentHash(1<<30, nil); return err },
		"too few keys":           func(e *TreeEdit) error { _, err := e.PathParentHash(0, [][]byte{{1}}); return err },
	} {
		e := g.tree.Edit()
		if err := try(e); Reason(err) != "invalid" {
			t.Errorf("%s: got %v", name, err)
		}
		if !bytes.Equal(e.Tree().Bytes(), before) {
			t.Errorf("%s: changed the tree", name)
		}
	}
}

// A leaf made by hand that could not be read again does not get into the tree.
func TestUnreadableLeafRefused(t *testing.T) {
	g := newTestGroup(t, mustSuite(t, 1), 3)
	for _, leaf := range []*LeafNode{{}, {Source: LeafNodeSourceUpdate, Extensions: Extensions{{7, nil}, {7, nil}}}} {
		e := g.tree.Edit()
		_, errAdd := e.Add(leaf)
		for name, err := range map[string]error{"add": errAdd, "update": e.Update(1, leaf), "set": e.SetLeaf(2, leaf)} {
			if Reason(err) != "malformed" {
				t.Errorf("%s: got %v", name, err)
			}
		}
		checkAgainstModel(t, e.Tree(), modelOf(g.tree))
	}
}

// A tree that shrinks and grows again must not remember hashes of its first size.
func TestTruncateThenGrow(t *testing.T) {
	g := newTestGroup(t, mustSuite(t, 1), 40)
	g.merge()
	all := func(from, to LeafIndex) (list []LeafIndex) {
		for i := from; i < to; i++ {
			list = append(list, i)
		}
		return list
	}
	for _, keep := range []LeafIndex{33, 32, 17, 16, 9, 8, 3, 1} {
		g.remove(0, all(keep, LeafIndex(g.tree.Members()))...)
		checkAgainstModel(t, g.tree, modelOf(g.tree))
		small := g.tree
		e := g.tree.Edit()
		for range 40 - keep {
			g.add(e)
		}
		g.commit(e, 0)
		checkAgainstModel(t, g.tree, modelOf(g.tree))
		g.verify()
		g.tree = small
	}
}

func TestOutsideTheTree(t *testing.T) {
	tree := newTestGroup(t, mustSuite(t, 4), 3).tree
	for _, x := range []NodeIndex{7, 8, 1 << 31, 1<<32 - 1} {
		if tree.NodeHash(x) != nil || tree.Parent(x) != nil || tree.EncryptionKeyOf(x) != nil || tree.Resolution(x) != nil {
			t.Errorf("node %d is in a tree of 7", x)
		}
	}
	for _, i := range []LeafIndex{4, 1 << 31, 1<<32 - 1} {
		if tree.Leaf(i) != nil || tree.LeafBytes(i) != nil || tree.FilteredDirectPath(i) != nil {
			t.Errorf("leaf %d is in a tree of 4", i)
		}
	}
	if tree.Leaf(3) != nil || tree.Parent(0) != nil {
		t.Error("a blank is there")
	}
}
