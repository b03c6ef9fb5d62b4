package mlscore

import "math/bits"

// LeafIndex numbers leaves from the left: 0, 1, 2, … (RFC 9420, Section 4.1).
type LeafIndex uint32

// NodeIndex numbers nodes from the left, leaves at the even numbers and parents
// at the odd ones (RFC 9420, Appendix C).
type NodeIndex uint32

// NodeIndex is the node of a leaf.
func (i LeafIndex) NodeIndex() NodeIndex { return NodeIndex(i) * 2 }

// IsLeaf says whether a node is a leaf.
func (x NodeIndex) IsLeaf() bool { return x&1 == 0 }

// LeafIndex is the leaf of a leaf node; for a parent it has no meaning.
func (x NodeIndex) LeafIndex() LeafIndex { return LeafIndex(x / 2) }

// Level is the height of a node above the leaves.
func (x NodeIndex) Level() uint { return uint(bits.TrailingZeros32(^uint32(x))) }

// Left is the left child of a parent.
func (x NodeIndex) Left() NodeIndex { return x ^ 1<<(x.Level()-1) }

// Right is the right child of a parent.
func (x NodeIndex) Right() NodeIndex { return x ^ 3<<(x.Level()-1) }

// Parent is the parent of a node that is not the root.
func (x NodeIndex) Parent() NodeIndex {
	k := x.Level()
	return (x | 1<<k) &^ (1 << (k + 1))
}

// Sibling is the other child of a node's parent; the node is not the root.
func (x NodeIndex) Sibling() NodeIndex {
	if p := x.Parent(); x < p {
		return p.Right()
	} else {
		return p.Left()
	}
}

// Root is the root of a tree with n leaves, n a power of two.
func Root(leaves uint32) NodeIndex { return NodeIndex(leaves) - 1 }

// NodeWidth is the number of nodes of a tree with n leaves, n a power of two.
func NodeWidth(leaves uint32) uint32 {
	if leaves == 0 {
		return 0
	}
	return 2*leaves - 1
}

// DirectPath lists the ancestors of a node, from its parent to the root; empty
// for the root (RFC 9420, Section 4.1.2).
func DirectPath(x NodeIndex, leaves uint32) []NodeIndex {
	var path []NodeIndex
	for root := Root(leaves); x != root; {
		x = x.Parent()
		path = append(path, x)
	}
	return path
}

// Copath lists the siblings of a node and of its ancestors below the root,
// from its own sibling upwards (RFC 9420, Section 4.1.2).
func Copath(x NodeIndex, leaves uint32) []NodeIndex {
	var path []NodeIndex
	for root := Root(leaves); x != root; x = x.Parent() {
		path = append(path, x.Sibling())
	}
	return path
}

// covers says whether the subtree of x holds a leaf.
func (x NodeIndex) covers(leaf LeafIndex) bool {
	return uint64(leaf.NodeIndex())>>(x.Level()+1) == uint64(x)>>(x.Level()+1)
}
