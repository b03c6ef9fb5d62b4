package mlscore

import (
	"bytes"
	"encoding/binary"
	"iter"
	"slices"

	"leavebroker/mlscore/codec"
)

// nodes is the nodes of a tree, finished or being edited, and what can be read
// from them alone.
type nodes struct {
	suite *Suite
	top   slot
	depth uint // of the leaves below the root
}

// at finds the block of a node and its number there. The node is in the tree.
func (n *nodes) at(x NodeIndex) (s slot, row, j uint) {
	row = x.Level() / blockLevels
	s = n.top
	for r := n.depth / blockLevels; r > row; r-- {
		s = s.kid(uint(x>>(blockLevels*r)) % blockKids)
	}
	return s, row, uint(x>>(blockLevels*row)) % blockKids
}

// node is the encoding of a node, nil when it is blank or outside the tree.
func (n *nodes) node(x NodeIndex) []byte {
	if uint32(x) >= NodeWidth(n.LeafWidth()) {
		return nil
	}
	s, row, j := n.at(x)
	return s.node(row, j, n.suite.HashLen())
}

// hash is the tree hash of a node of the tree.
func (n *nodes) hash(h *treeHasher, x NodeIndex) digest {
	s, row, j := n.at(x)
	return h.node(s, row, uint32(x>>(blockLevels*(row+1))), j)
}

// Suite is the cipher suite whose hash and signatures the tree uses.
func (n *nodes) Suite() *Suite { return n.suite }

// LeafWidth is the number of leaves, blank ones included: a power of two.
func (n *nodes) LeafWidth() uint32 { return 1 << n.depth }

// Members is the number of non-blank leaves.
func (n *nodes) Members() int { return int(n.top.leaves()) }

// Leaf is a leaf, nil when it is blank or outside the tree.
func (n *nodes) Leaf(i LeafIndex) *LeafNode {
	if b := n.LeafBytes(i); b != nil {
		return decodeLeaf(b)
	}
	return nil
}

// decodeLeaf decodes a leaf that was decoded, or encoded, when it came in.
func decodeLeaf(b []byte) *LeafNode {
	leaf, err := ParseLeafNode(b)
	if err != nil {
		panic("internal error: a leaf of the tree does not decode: " + err.Error())
	}
	return leaf
}

// LeafBytes is the encoding of a leaf, nil when it is blank or outside the
// tree. It must not be changed.
func (n *nodes) LeafBytes(i LeafIndex) []byte {
	if uint32(i) >= n.LeafWidth() {
		return nil
	}
	return n.node(i.NodeIndex())
}

// Parent is a parent node; nil for a leaf, a blank, or outside the tree.
func (n *nodes) Parent(x NodeIndex) *ParentNode {
	b := n.node(x)
	if b == nil || x.IsLeaf() {
		return nil
	}
	return ReadParentNode(codec.NewReader(b))
}

// EncryptionKeyOf is the encryption key of a leaf or parent, nil when it is
// blank or outside the tree. It must not be changed.
func (n *nodes) EncryptionKeyOf(x NodeIndex) []byte {
	b := n.node(x)
	if b == nil {
		return nil
	}
	return encryptionKeyOf(b)
}

// All gives the non-blank leaves in ascending order.
func (n *nodes) All() iter.Seq2[LeafIndex, *LeafNode] { return n.between(0, LeafIndex(n.LeafWidth())) }

// between is All from one leaf up to, and without, another.
func (n *nodes) between(from, to LeafIndex) iter.Seq2[LeafIndex, *LeafNode] {
	return func(yield func(LeafIndex, *LeafNode) bool) {
		for i := from; i < min(to, LeafIndex(n.LeafWidth())); i++ {
			if s, _, _ := n.at(i.NodeIndex()); s.filled() == 0 {
				i |= blockNodes / 2 // the last leaf of the block
			} else if leaf := n.Leaf(i); leaf != nil && !yield(i, leaf) {
				return
			}
		}
	}
}

// Resolution lists the non-blank nodes that stand for a node (RFC 9420,
// Section 4.1.1), from left to right, a parent before its unmerged leaves.
func (n *nodes) Resolution(x NodeIndex) []NodeIndex {
	if uint32(x) >= NodeWidth(n.LeafWidth()) {
		return nil
	}
	return n.appendResolution(nil, x)
}

func (n *nodes) appendResolution(list []NodeIndex, x NodeIndex) []NodeIndex {
	s, row, j := n.at(x)
	if s.filled() == 0 {
		return list
	}
	if b := s.node(row, j, n.suite.HashLen()); b != nil {
		list = append(list, x)
		if !x.IsLeaf() {
			unmerged := unmergedOf(b)
			list = slices.Grow(list, len(unmerged))
			for _, i := range unmerged {
				list = append(list, i.NodeIndex())
			}
		}
		return list
	}
	if x.IsLeaf() {
		return list
	}
	return n.appendResolution(n.appendResolution(list, x.Left()), x.Right())
}

// vacant says whether no node at or below x is filled: its resolution is empty.
func (n *nodes) vacant(x NodeIndex) bool {
	s, row, j := n.at(x)
	if s.filled() == 0 {
		return true
	}
	reach := uint(1)<<NodeIndex(j).Level() - 1
	for k := j - reach; k <= j+reach; k++ {
		if s.node(row, k, n.suite.HashLen()) != nil {
			return false
		}
	}
	for c := j - reach; row > 0 && c <= j+reach+1; c++ {
		if s.kid(c).filled() != 0 {
			return false
		}
	}
	return true
}

// FilteredDirectPath lists the ancestors of a leaf, from its parent upwards,
// without those whose child on the copath has an empty resolution (RFC 9420,
// Section 4.1.2); empty for a leaf outside the tree.
func (n *nodes) FilteredDirectPath(i LeafIndex) []NodeIndex {
	if uint32(i) >= n.LeafWidth() {
		return nil
	}
	path := make([]NodeIndex, 0, n.depth)
	for x := i.NodeIndex(); x != Root(n.LeafWidth()); x = x.Parent() {
		if !n.vacant(x.Sibling()) {
			path = append(path, x.Parent())
		}
	}
	return path
}

// LeftmostBlank is the leaf that an Add or an external committer takes: the
// leftmost blank one, or LeafWidth when there is none (RFC 9420, Section
// 12.1.1).
func (n *nodes) LeftmostBlank() LeafIndex {
	s, first := n.top, LeafIndex(0)
	for row := n.depth / blockLevels; row > 0; row-- {
		room := uint32(1) << (blockLevels*row - 1) // leaves below one kid
		c := uint(0)
		for c <= uint(s.width()) && s.kid(c).leaves() == room {
			c++
		}
		if c > uint(s.width()) {
			return LeafIndex(n.LeafWidth())
		}
		s, first = s.kid(c), first+LeafIndex(uint32(c)*room)
	}
	for j := uint(0); j < uint(s.width()); j += 2 {
		if s.node(0, j, n.suite.HashLen()) == nil {
			return first + LeafIndex(j/2)
		}
	}
	return LeafIndex(n.LeafWidth())
}

// leavesBelow counts the non-blank leaves of a subtree.
func (n *nodes) leavesBelow(x NodeIndex) uint32 {
	s, row, j := n.at(x)
	reach := uint(1)<<NodeIndex(j).Level() - 1
	count := uint32(0)
	if row > 0 {
		for c := j - reach; c <= j+reach+1; c++ {
			count += s.kid(c).leaves()
		}
		return count
	}
	for k := j - reach; k <= j+reach; k += 2 {
		if s.node(0, k, n.suite.HashLen()) != nil {
			count++
		}
	}
	return count
}

// hasEncryptionKey and hasSignatureKey check what an index suggests.
func (n *nodes) hasEncryptionKey(x NodeIndex, key []byte) bool {
	b := n.node(x)
	return b != nil && bytes.Equal(encryptionKeyOf(b), key)
}

func (n *nodes) hasSignatureKey(i LeafIndex, key []byte) bool {
	b := n.LeafBytes(i)
	return b != nil && bytes.Equal(signatureKeyOf(b), key)
}

// cutOpaque splits an encoding after its first opaque<V>.
func cutOpaque(b []byte) (head, tail []byte) {
	r := codec.NewReader(b)
	head = r.Opaque()
	return head, b[r.Offset():]
}

// encryptionKeyOf is the encryption key of an encoded LeafNode or ParentNode.
func encryptionKeyOf(node []byte) []byte {
	key, _ := cutOpaque(node)
	return key
}

// signatureKeyOf is the signature key of an encoded LeafNode.
func signatureKeyOf(leaf []byte) []byte {
	_, rest := cutOpaque(leaf)
	key, _ := cutOpaque(rest)
	return key
}

// capabilitiesOf is the type of the credential of an encoded LeafNode, and its
// encoded Capabilities.
func capabilitiesOf(leaf []byte) (credential CredentialType, capabilities []byte) {
	r := codec.NewReader(leaf)
	r.Opaque() // encryption_key
	r.Opaque() // signature_key
	credential = CredentialType(r.Uint16())
	r.Opaque() // whatever the type, one vector
	start := r.Offset()
	for range 5 {
		r.Opaque()
	}
	return credential, r.Since(start)
}

// unmergedOf is the unmerged leaves of an encoded ParentNode.
func unmergedOf(parent []byte) []LeafIndex {
	_, rest := cutOpaque(parent)
	_, rest = cutOpaque(rest)
	raw, _ := cutOpaque(rest)
	if len(raw) == 0 {
		return nil
	}
	list := make([]LeafIndex, len(raw)/4)
	for i := range list {
		list[i] = LeafIndex(binary.BigEndian.Uint32(raw[4*i:]))
	}
	return list
}
