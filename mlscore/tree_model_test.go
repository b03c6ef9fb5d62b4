package mlscore

import (
	"bytes"
	"slices"
	"testing"

	"leavebroker/mlscore/codec"
)

// treeModel is the ratchet tree as RFC 9420 draws it: an array of nodes in which
// everything is computed anew each time it is asked for.
type treeModel struct {
	suite *Suite
	nodes []modelNode // 2^(d+1)-1 of them
}

type modelNode struct {
	leaf   []byte // encoded LeafNode
	parent *ParentNode
}

func (n modelNode) blank() bool { return n.leaf == nil && n.parent == nil }

// modelOf reads a tree through its encoding.
func modelOf(tree *RatchetTree) *treeModel { return parseModel(tree.suite, tree.Bytes()) }

func parseModel(suite *Suite, b []byte) *treeModel {
	m := &treeModel{suite: suite}
	v := codec.NewReader(b).Vector()
	for !v.Empty() {
		var n modelNode
		if v.Optional() {
			if v.Uint8() == 1 {
				n.leaf = ReadLeafNode(v).Bytes()
			} else {
				n.parent = ReadParentNode(v)
			}
		}
		m.nodes = append(m.nodes, n)
	}
	if v.Err() != nil {
		panic(v.Err())
	}
	for !isPowerOfTwo(len(m.nodes) + 1) {
		m.nodes = append(m.nodes, modelNode{})
	}
	return m
}

func isPowerOfTwo(n int) bool { return n&(n-1) == 0 }

func (m *treeModel) width() uint32 { return uint32(len(m.nodes)+1) / 2 }

func (m *treeModel) clone() *treeModel {
	c := &treeModel{m.suite, slices.Clone(m.nodes)}
	for i := range c.nodes {
		if p := c.nodes[i].parent; p != nil {
			copied := *p
			copied.UnmergedLeaves = slices.Clone(p.UnmergedLeaves)
			c.nodes[i].parent = &copied
		}
	}
	return c
}

func (m *treeModel) encode() []byte {
	return codec.AppendVector(nil, func(b []byte) []byte {
		last := len(m.nodes) - 1
		for last >= 0 && m.nodes[last].blank() {
			last--
		}
		for _, n := range m.nodes[:last+1] {
			switch {
			case n.leaf != nil:
				b = append(append(b, 1, 1), n.leaf...)
			case n.parent != nil:
				b = n.parent.Append(append(b, 1, 2))
			default:
				b = append(b, 0)
			}
		}
		return b
	})
}

// hash is Section 7.8.
func (m *treeModel) hash(x NodeIndex) []byte {
	var b []byte
	if x.IsLeaf() {
		b = codec.AppendUint32([]byte{1}, uint32(x)/2)
		b = codec.AppendOptional(b, m.nodes[x].leaf != nil)
		return m.suite.Sum(append(b, m.nodes[x].leaf...))
	}
	b = codec.AppendOptional([]byte{2}, m.nodes[x].parent != nil)
	if p := m.nodes[x].parent; p != nil {
		b = p.Append(b)
	}
	b = codec.AppendOpaque(b, m.hash(x.Left()))
	b = codec.AppendOpaque(b, m.hash(x.Right()))
	return m.suite.Sum(b)
}

// resolution is Section 4.1.1.
func (m *treeModel) resolution(x NodeIndex) []NodeIndex {
	switch {
	case m.nodes[x].leaf != nil:
		return []NodeIndex{x}
	case m.nodes[x].parent != nil:
		out := []NodeIndex{x}
		for _, i := range m.nodes[x].parent.UnmergedLeaves {
			out = append(out, 2*NodeIndex(i))
		}
		return out
	case x.IsLeaf():
		return nil
	}
	return append(m.resolution(x.Left()), m.resolution(x.Right())...)
}

// filtered is Section 4.1.2.
func (m *treeModel) filtered(i LeafIndex) []NodeIndex {
	var path []NodeIndex
	copath := Copath(2*NodeIndex(i), m.width())
	for k, x := range DirectPath(2*NodeIndex(i), m.width()) {
		if len(m.resolution(copath[k])) > 0 {
			path = append(path, x)
		}
	}
	return path
}

func (m *treeModel) leftmostBlank() LeafIndex {
	for i := range m.width() {
		if m.nodes[2*i].leaf == nil {
			return LeafIndex(i)
		}
	}
	return LeafIndex(m.width())
}

func (m *treeModel) blankPath(i LeafIndex) {
	for _, x := range DirectPath(2*NodeIndex(i), m.width()) {
		m.nodes[x] = modelNode{}
	}
}

func (m *treeModel) update(i LeafIndex, leaf []byte) {
	m.nodes[2*i] = modelNode{leaf: leaf}
	m.blankPath(i)
}

func (m *treeModel) remove(i LeafIndex) {
	m.nodes[2*i] = modelNode{}
	m.blankPath(i)
}

func (m *treeModel) extend() {
	m.nodes = append(m.nodes, make([]modelNode, len(m.nodes)+1)...)
}

func (m *treeModel) add(leaf []byte) LeafIndex {
	i := m.leftmostBlank()
	if uint32(i) == m.width() {
		m.extend()
	}
	m.nodes[2*i].leaf = leaf
	for _, x := range DirectPath(2*NodeIndex(i), m.width()) {
		if p := m.nodes[x].parent; p != nil {
			p.UnmergedLeaves = append(p.UnmergedLeaves, i)
			slices.Sort(p.UnmergedLeaves)
		}
	}
	return i
}

func (m *treeModel) truncate() {
	for len(m.nodes) > 1 {
		for x := len(m.nodes) / 2; x < len(m.nodes); x++ {
			if m.nodes[x].leaf != nil {
				return
			}
		}
		m.nodes = m.nodes[:len(m.nodes)/2]
	}
}

// without is the tree of Section 7.9 from which original_sibling_tree_hash is
// taken: some leaves blank, and unmerged nowhere.
func (m *treeModel) without(leaves []LeafIndex) *treeModel {
	c := m.clone()
	for _, i := range leaves {
		c.nodes[2*i] = modelNode{}
	}
	for _, n := range c.nodes {
		if n.parent != nil {
			n.parent.UnmergedLeaves = slices.DeleteFunc(n.parent.UnmergedLeaves, func(i LeafIndex) bool {
				return slices.Contains(leaves, i)
			})
		}
	}
	return c
}

// parentHash is Section 7.9 for a parent and its copath child.
func (m *treeModel) parentHash(x, sibling NodeIndex) []byte {
	p := m.nodes[x].parent
	b := codec.AppendOpaque(nil, p.EncryptionKey)
	b = codec.AppendOpaque(b, p.ParentHash)
	b = codec.AppendOpaque(b, m.without(p.UnmergedLeaves).hash(sibling))
	return m.suite.Sum(b)
}

// setPath puts keys on the filtered direct path of a committer, blanks the rest
// of its direct path, and gives the parent hash for its leaf.
func (m *treeModel) setPath(i LeafIndex, keys [][]byte) []byte {
	filtered := m.filtered(i)
	m.blankPath(i)
	hash := []byte{}
	for k := len(filtered) - 1; k >= 0; k-- {
		x := filtered[k]
		m.nodes[x].parent = &ParentNode{EncryptionKey: keys[k], ParentHash: hash}
		sibling := x.Left()
		if slices.Contains(append(DirectPath(2*NodeIndex(i), m.width()), 2*NodeIndex(i)), sibling) {
			sibling = x.Right()
		}
		hash = m.parentHash(x, sibling)
	}
	return hash
}

// parentHashOf is the parent_hash field of a node.
func (m *treeModel) parentHashOf(x NodeIndex) []byte {
	if p := m.nodes[x].parent; p != nil {
		return p.ParentHash
	}
	leaf, err := ParseLeafNode(m.nodes[x].leaf)
	if err != nil {
		panic(err)
	}
	return leaf.ParentHash
}

// parentHashValid is Section 7.9.2 for every parent.
func (m *treeModel) parentHashValid() bool {
	for x := range NodeIndex(len(m.nodes)) {
		if m.nodes[x].parent == nil {
			continue
		}
		chains := 0
		for _, child := range []NodeIndex{x.Left(), x.Right()} {
			want := m.parentHash(x, child.Sibling())
			resolution := m.resolution(child)
			for _, d := range resolution {
				rest := slices.DeleteFunc(slices.Clone(resolution), func(y NodeIndex) bool { return y == d })
				var below []NodeIndex
				for _, i := range m.nodes[x].parent.UnmergedLeaves {
					if child.covers(i) {
						below = append(below, 2*NodeIndex(i))
					}
				}
				slices.Sort(rest)
				if slices.Equal(rest, below) && bytes.Equal(m.parentHashOf(d), want) {
					chains++
				}
			}
		}
		if chains != 1 {
			return false
		}
	}
	return true
}

// unmergedValid is the check of unmerged leaves in Section 12.4.3.1.
func (m *treeModel) unmergedValid() bool {
	for x := range NodeIndex(len(m.nodes)) {
		if m.nodes[x].parent == nil {
			continue
		}
		for _, i := range m.nodes[x].parent.UnmergedLeaves {
			if uint32(i) >= m.width() || m.nodes[2*i].leaf == nil {
				return false
			}
			path := DirectPath(2*NodeIndex(i), m.width())
			at := slices.Index(path, x)
			if at < 0 {
				return false
			}
			for _, y := range path[:at] {
				if p := m.nodes[y].parent; p != nil && !slices.Contains(p.UnmergedLeaves, i) {
					return false
				}
			}
		}
	}
	return true
}

// checkAgainstModel compares everything that a tree answers.
func checkAgainstModel(t *testing.T, tree *RatchetTree, m *treeModel) {
	t.Helper()
	if tree.LeafWidth() != m.width() {
		t.Fatalf("%d leaves, want %d", tree.LeafWidth(), m.width())
	}
	if got, want := tree.TreeHash(), m.hash(Root(m.width())); !bytes.Equal(got, want) {
		t.Fatalf("tree hash %x, want %x", got, want)
	}
	if got, want := tree.Bytes(), m.encode(); !bytes.Equal(got, want) {
		t.Fatalf("encodes to\n%x, want\n%x", got, want)
	}
	if got, want := tree.LeftmostBlank(), m.leftmostBlank(); got != want {
		t.Fatalf("leftmost blank %d, want %d", got, want)
	}
	members := 0
	for x := range NodeIndex(len(m.nodes)) {
		if got, want := tree.Resolution(x), m.resolution(x); !slices.Equal(got, want) {
			t.Fatalf("resolution of node %d is %v, want %v", x, got, want)
		}
		if x.IsLeaf() {
			checkLeaf(t, tree, m, x.LeafIndex())
			if m.nodes[x].leaf != nil {
				members++
			}
		} else if p := tree.Parent(x); (p == nil) != (m.nodes[x].parent == nil) {
			t.Fatalf("parent %d is %v", x, p)
		} else if p != nil {
			checkKey(t, tree, x, p.EncryptionKey)
		}
	}
	if tree.Members() != members {
		t.Fatalf("%d members, want %d", tree.Members(), members)
	}
	keys := 0
	for _, n := range m.nodes {
		if !n.blank() {
			keys++
		}
	}
	if e, s := tree.encryptionKeys.size(), tree.signatureKeys.size(); e != keys || s != members {
		t.Fatalf("%d encryption keys and %d signature keys are indexed, want %d and %d", e, s, keys, members)
	}
	checkCapabilities(t, tree)
}

// size counts the entries.
func (k *keyIndex) size() int {
	if k == nil {
		return 0
	}
	n := len(k.entries)
	if k.kids != nil {
		for _, kid := range k.kids {
			n += kid.size()
		}
	}
	return n
}

func checkLeaf(t *testing.T, tree *RatchetTree, m *treeModel, i LeafIndex) {
	t.Helper()
	if got, want := tree.FilteredDirectPath(i), m.filtered(i); !slices.Equal(got, want) {
		t.Fatalf("filtered direct path of leaf %d is %v, want %v", i, got, want)
	}
	if !bytes.Equal(tree.LeafBytes(i), m.nodes[2*i].leaf) {
		t.Fatalf("leaf %d is %x, want %x", i, tree.LeafBytes(i), m.nodes[2*i].leaf)
	}
	leaf := tree.Leaf(i)
	if leaf == nil {
		return
	}
	checkKey(t, tree, i.NodeIndex(), leaf.EncryptionKey)
	if got, ok := tree.FindSignatureKey(leaf.SignatureKey); !ok || got > i || got < i && !bytes.Equal(tree.Leaf(got).SignatureKey, leaf.SignatureKey) {
		t.Fatalf("signature key of leaf %d is found at %d, %v", i, got, ok)
	}
}

func checkKey(t *testing.T, tree *RatchetTree, x NodeIndex, key []byte) {
	t.Helper()
	if got, ok := tree.FindEncryptionKey(key); !ok || !bytes.Equal(tree.EncryptionKeyOf(got), key) || got > x {
		t.Fatalf("encryption key of node %d is found at %d, %v", x, got, ok)
	}
}

// checkCapabilities compares the index with a scan of the leaves.
func checkCapabilities(t *testing.T, tree *RatchetTree) {
	t.Helper()
	var inUse []CredentialType
	all := func(supports func(*Capabilities) bool) bool {
		for _, leaf := range tree.All() {
			if !supports(&leaf.Capabilities) {
				return false
			}
		}
		return true
	}
	for _, leaf := range tree.All() {
		if !slices.Contains(inUse, leaf.Credential.Type) {
			inUse = append(inUse, leaf.Credential.Type)
		}
	}
	slices.Sort(inUse)
	if got := tree.CredentialTypesInUse(); !slices.Equal(got, inUse) {
		t.Fatalf("credential types %v in use, want %v", got, inUse)
	}
	for _, v := range []uint16{0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 0x0a0a, 0xf0a2, 0xffff} {
		if got, want := tree.SupportsCredential(CredentialType(v)), all(func(c *Capabilities) bool { return c.SupportsCredential(CredentialType(v)) }); got != want {
			t.Fatalf("credential type %d is supported by all: %v", v, got)
		}
		if got, want := tree.SupportsExtension(ExtensionType(v)), all(func(c *Capabilities) bool { return c.SupportsExtension(ExtensionType(v)) }); got != want {
			t.Fatalf("extension type %d is supported by all: %v", v, got)
		}
		if got, want := tree.SupportsProposal(ProposalType(v)), all(func(c *Capabilities) bool { return c.SupportsProposal(ProposalType(v)) }); got != want {
			t.Fatalf("proposal type %d is supported by all: %v", v, got)
		}
	}
}
