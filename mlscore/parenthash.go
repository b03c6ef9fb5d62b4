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
	_, err := c.subtree(Root(t.LeafWidth()))
	return err
}

type parentHashCheck struct {
	*RatchetTree
	h *treeHasher
}

// subtree checks all parents at or below x and gives the length of its resolution.
func (c *parentHashCheck) subtree(x NodeIndex) (int, error) {
	s, row, j := c.at(x)
	if s.filled() == 0 {
		return 0, nil
	}
	b := s.node(row, j, c.h.hashLen)
	if x.IsLeaf() {
		if b == nil {
			return 0, nil
		}
		return 1, nil
	}
	left, err := c.subtree(x.Left())
	if err != nil {
		return 0, err
	}
	right, err := c.subtree(x.Right())
	if err != nil {
		return 0, err
	}
	if b == nil {
		return left + right, nil
	}
	p := c.Parent(x)
	if c.chained(p, x.Left(), left) == c.chained(p, x.Right(), right) {
		return 0, invalid("7.9.2", "node %d is not parent-hash valid", x)
	}
	return 1 + len(p.UnmergedLeaves), nil
}

// chained says whether parent p is parent-hash valid with respect to a
// node below its child, whose resolution has the given length.
func (c *parentHashCheck) chained(p *ParentNode, child NodeIndex, resolution int) bool {
	here, there := splitLeaves(p.UnmergedLeaves, child), splitLeaves(p.UnmergedLeaves, child.Sibling())
	if resolution != 1+len(here) {
		return false
	}
	d, ok := c.descendant(child, here)
	if !ok {
		return false
	}
	held := c.parentHashOf(d)
	if len(held) != c.h.hashLen {
		return false
	}
	sibling := c.original(child.Sibling(), there)
	want := c.h.parentHash(p.EncryptionKey, p.ParentHash, &sibling)
	return string(held) == string(want[:c.h.hashLen])
}

// descendant is the one node in the resolution of x beside the given leaves.
func (c *parentHashCheck) descendant(x NodeIndex, leaves []LeafIndex) (d NodeIndex, ok bool) {
	if len(leaves) == 0 && c.node(x) != nil {
		return x, true // the usual case; the length of the resolution says it is alone
	}
	for _, y := range c.Resolution(x) {
		if y.IsLeaf() {
			if _, merged := slices.BinarySearch(leaves, y.LeafIndex()); merged {
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
	p := c.Parent(x)
	if p == nil {
		return c.h.parent(nil, &left, &right)
	}
	p.UnmergedLeaves = slices.DeleteFunc(p.UnmergedLeaves, func(i LeafIndex) bool {
		_, gone := slices.BinarySearch(without, i)
		return gone
	})
	return c.h.parent(p.Append(nil), &left, &right)
}

// splitLeaves is the part of ascending leaves that is below a node.
func splitLeaves(leaves []LeafIndex, x NodeIndex) []LeafIndex {
	reach := NodeIndex(1)<<x.Level() - 1
	from, _ := slices.BinarySearch(leaves, (x - reach).LeafIndex())
	to, _ := slices.BinarySearch(leaves, (x+reach).LeafIndex()+1)
	return leaves[from:to]
}
