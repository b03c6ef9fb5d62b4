package mlscore

import (
	"slices"

	"leavebroker/mlscore/codec"
)

// parentHash is the parent hash of a node with a copath child (RFC 9420,
// Section 7.9), given the original tree hash of that child:
//
//	struct {
//	  HPKEPublicKey encryption_key;         // opaque<V>
//	  opaque parent_hash<V>;
//	  opaque original_sibling_tree_hash<V>;
//	} ParentHashInput;
func (h *treeHasher) parentHash(encryptionKey, parentHash []byte, sibling *digest) digest {
	h.input = codec.AppendOpaque(h.input[:0], encryptionKey)
	h.input = codec.AppendOpaque(h.input, parentHash)
	h.input = codec.AppendOpaque(h.input, sibling[:h.hashLen])
	return h.sum()
}

// VerifyParentHashes checks that every parent is parent-hash valid: exactly one
// of its children leads to a node D that holds its parent hash, is in that
// child's resolution, and is all of it but for the parent's unmerged leaves
// (RFC 9420, Section 7.9.2). Unmerged leaves have been verified.
func (t *RatchetTree) VerifyParentHashes() error {
	c := parentHashCheck{t, newTreeHasher(t.suite)}
	_, err := c.subtree(Root(t.LeafWidth()), nil)
	return err
}

type parentHashCheck struct {
	*RatchetTree
	h *treeHasher
}

// checkedSubtree is a subtree whose parents are all parent-hash valid.
type checkedSubtree struct {
	root       NodeIndex
	resolution int         // its length
	unmerged   []LeafIndex // those of the nearest non-blank node above it that are below it
	original   digest      // the tree hash without them; not set where there are none
}

// subtree checks all parents at or below x, given the leaves below it that are
// unmerged in the nearest non-blank node above it.
func (c *parentHashCheck) subtree(x NodeIndex, unmerged []LeafIndex) (checkedSubtree, error) {
	t := checkedSubtree{root: x, unmerged: unmerged}
	s, row, j := c.at(x)
	if s.filled() == 0 {
		return t, nil
	}
	b := s.node(row, j, c.h.hashLen)
	if x.IsLeaf() {
		if b != nil {
			t.resolution = 1
		}
		if len(unmerged) > 0 {
			t.original = c.h.leaf(x.LeafIndex(), nil)
		}
		return t, nil
	}
	p, below := (*ParentNode)(nil), unmerged
	if b != nil {
		p = ReadParentNode(codec.NewReader(b))
		below = p.UnmergedLeaves
	}
	left, err := c.subtree(x.Left(), splitLeaves(below, x.Left()))
	if err != nil {
		return t, err
	}
	right, err := c.subtree(x.Right(), splitLeaves(below, x.Right()))
	if err != nil {
		return t, err
	}
	t.resolution = left.resolution + right.resolution
	if p != nil {
		t.resolution = 1 + len(below)
		if c.chained(p, &left, &right) == c.chained(p, &right, &left) {
			return t, invalid("7.9.2", "node %d is not parent-hash valid", x)
		}
	}
	switch {
	case len(unmerged) == 0:
	case len(unmerged) == len(below): // they are the same, so the children have what it takes
		t.original = c.join(p, unmerged, c.originalOf(&left), c.originalOf(&right))
	default:
		t.original = c.original(x, unmerged)
	}
	return t, nil
}

// originalOf is the tree hash of a subtree without its unmerged leaves.
func (c *parentHashCheck) originalOf(t *checkedSubtree) digest {
	if len(t.unmerged) == 0 {
		return c.hash(c.h, t.root)
	}
	return t.original
}

// chained says whether parent p is parent-hash valid with respect to a
// node below a child of it, whose sibling is given.
func (c *parentHashCheck) chained(p *ParentNode, child, sibling *checkedSubtree) bool {
	if child.resolution != 1+len(child.unmerged) {
		return false
	}
	d, ok := c.descendant(child)
	if !ok {
		return false
	}
	held := c.parentHashOf(d)
	if len(held) != c.h.hashLen {
		return false
	}
	original := c.originalOf(sibling)
	want := c.h.parentHash(p.EncryptionKey, p.ParentHash, &original)
	return string(held) == string(want[:c.h.hashLen])
}

// descendant is the one node in the resolution of a subtree beside its unmerged
// leaves, of which the resolution has one less than nodes.
func (c *parentHashCheck) descendant(t *checkedSubtree) (d NodeIndex, ok bool) {
	if c.node(t.root) != nil {
		return t.root, true // those leaves are unmerged in it, too
	}
	for _, y := range c.Resolution(t.root) {
		if y.IsLeaf() {
			if _, merged := slices.BinarySearch(t.unmerged, y.LeafIndex()); merged {
				continue
			}
		}
		if ok {
			return 0, false
		}
		d, ok = y, true
	}
	return d, ok
}

// parentHashOf is the parent_hash field of a node, empty where a leaf has none.
func (c *parentHashCheck) parentHashOf(x NodeIndex) []byte {
	r := codec.NewReader(c.node(x))
	r.Opaque() // encryption_key
	if x.IsLeaf() {
		r.Opaque()        // signature_key
		r.Uint16()        // credential_type
		for range 1 + 5 { // the credential and the lists of Capabilities
			r.Opaque()
		}
		if LeafNodeSource(r.Uint8()) != LeafNodeSourceCommit {
			return nil
		}
	}
	return r.Opaque()
}

// original is the tree hash of x as it was without the given leaves, which are
// below it (RFC 9420, Section 7.9). Only nodes above those leaves are hashed.
func (c *parentHashCheck) original(x NodeIndex, without []LeafIndex) digest {
	switch {
	case len(without) == 0:
		return c.hash(c.h, x)
	case x.IsLeaf():
		return c.h.leaf(x.LeafIndex(), nil)
	}
	left := c.original(x.Left(), splitLeaves(without, x.Left()))
	right := c.original(x.Right(), splitLeaves(without, x.Right()))
	return c.join(c.Parent(x), without, left, right)
}

// join is the tree hash of a parent, nil where it is blank, without some of its
// unmerged leaves, given those of its children.
func (c *parentHashCheck) join(p *ParentNode, without []LeafIndex, left, right digest) digest {
	if p == nil {
		return c.h.parent(nil, &left, &right)
	}
	stay := ParentNode{EncryptionKey: p.EncryptionKey, ParentHash: p.ParentHash}
	if len(p.UnmergedLeaves) > len(without) {
		stay.UnmergedLeaves = slices.DeleteFunc(slices.Clone(p.UnmergedLeaves), func(i LeafIndex) bool {
			_, gone := slices.BinarySearch(without, i)
			return gone
		})
	}
	return c.h.parent(stay.Append(nil), &left, &right)
}

// splitLeaves is the part of ascending leaves that is below a node.
func splitLeaves(leaves []LeafIndex, x NodeIndex) []LeafIndex {
	reach := NodeIndex(1)<<x.Level() - 1
	from, _ := slices.BinarySearch(leaves, (x - reach).LeafIndex())
	to, _ := slices.BinarySearch(leaves, (x+reach).LeafIndex()+1)
	return leaves[from:to]
}
