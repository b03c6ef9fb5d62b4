package mlscore

import (
	"bytes"
	"slices"
)

// TreeEdit is a tree that is being changed. It unpacks the blocks it changes
// and leaves the tree it began with alone; Tree hashes what changed, once. A
// refused change leaves it as it was. It is for one goroutine.
type TreeEdit struct {
	nodes
	base    *RatchetTree
	touched []NodeIndex
}

// set replaces the encoding of a node of the tree; nil is a blank.
func (e *TreeEdit) set(x NodeIndex, encoded []byte) {
	old := e.node(x)
	if old == nil && encoded == nil {
		return
	}
	row, hashLen := x.Level()/blockLevels, e.suite.HashLen()
	at, width := &e.top, e.top.width()
	for r := e.depth / blockLevels; ; r-- {
		b := at.opened(r, width, hashLen)
		j := uint(x>>(blockLevels*r)) % blockKids
		b.count(x.IsLeaf(), encoded != nil, old != nil)
		if r == row {
			b.nodes[j] = encoded
			b.touch(j)
			break
		}
		b.touch(j &^ 1) // what is above the kid
		at, width = &b.kids[j], blockNodes
	}
	e.touched = append(e.touched, x)
}

// opened is the block of a slot, opened.
func (s *slot) opened(row uint, width uint8, hashLen int) *openBlock {
	if s.open == nil && s.packed != nil {
		*s = slot{open: openPacked(s.packed, row, hashLen)}
	} else if s.open == nil {
		s.open = newOpenBlock(row, width, hashLen)
	}
	return s.open
}

// count keeps the sums of a block up to date when a node at or below it changes.
func (b *openBlock) count(leaf, now, before bool) {
	if now == before {
		return
	}
	change := uint32(1)
	if before {
		change = ^uint32(0) // minus one
	}
	b.filled += change
	if leaf {
		b.leaves += change
	}
}

// extend doubles the tree (RFC 9420, Section 7.7).
func (e *TreeEdit) extend() {
	hashLen := e.suite.HashLen()
	e.depth++
	if e.depth%blockLevels > 0 {
		b := e.top.opened(e.depth/blockLevels, 0, hashLen)
		b.dirty |= 1<<blockNodes - 1<<b.width
		b.width = 2*b.width + 1
		return
	}
	b := newOpenBlock(e.depth/blockLevels, 1, hashLen)
	b.kids[0], b.leaves, b.filled = e.top, e.top.leaves(), e.top.filled()
	e.top = slot{open: b}
}

// Truncate drops the right half of the tree while it has no members (RFC 9420,
// Section 7.7). It belongs after the Adds.
func (e *TreeEdit) Truncate() {
	for e.depth > 0 {
		root := Root(e.LeafWidth())
		if e.leavesBelow(root.Right()) > 0 {
			return
		}
		e.set(root, nil)
		e.clear(root.Right())
		if e.depth%blockLevels == 0 {
			e.top = e.top.kid(0)
		} else {
			e.top.opened(e.depth/blockLevels, 0, e.suite.HashLen()).halve()
		}
		e.depth--
	}
}

// halve drops the right half of a top block, which is blank.
func (b *openBlock) halve() {
	b.width /= 2
	if b.kids != nil {
		clear(b.kids[b.width+1:])
	}
}

// clear blanks a subtree.
func (e *TreeEdit) clear(x NodeIndex) {
	if s, _, _ := e.at(x); s.filled() == 0 {
		return
	}
	e.set(x, nil)
	if !x.IsLeaf() {
		e.clear(x.Left())
		e.clear(x.Right())
	}
}

// reach makes sure that the tree has a leaf, which may be the first one beyond it.
func (e *TreeEdit) reach(i LeafIndex) error {
	switch {
	case uint32(i) < e.LeafWidth():
		return nil
	case uint32(i) > e.LeafWidth() || i >= MaxLeaves:
		return invalid("7.7", "leaf %d for a tree of %d leaves", i, e.LeafWidth())
	}
	e.extend()
	return nil
}

// SetLeaf puts a leaf at a place and leaves its direct path as it is. The place
// may be LeafWidth: then the tree is extended first.
func (e *TreeEdit) SetLeaf(i LeafIndex, leaf *LeafNode) error {
	encoded, err := encodeLeaf(leaf)
	if err != nil {
		return err
	}
	if err := e.reach(i); err != nil {
		return err
	}
	e.set(i.NodeIndex(), encoded)
	return nil
}

// encodeLeaf encodes a leaf for the tree, which must be able to decode it
// again: one made by hand may have an extension twice, say.
func encodeLeaf(leaf *LeafNode) ([]byte, error) {
	b := leaf.Bytes()
	if leaf.raw == nil {
		if _, err := ParseLeafNode(b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Update replaces a member's leaf and blanks its direct path (RFC 9420,
// Section 12.1.2).
func (e *TreeEdit) Update(i LeafIndex, leaf *LeafNode) error {
	if e.LeafBytes(i) == nil {
		return invalid("12.1.2", "no member at leaf %d to update", i)
	}
	encoded, err := encodeLeaf(leaf)
	if err != nil {
		return err
	}
	e.set(i.NodeIndex(), encoded)
	e.blankPath(i)
	return nil
}

// Remove blanks a member's leaf and its direct path (RFC 9420, Section 12.1.3)
// without truncating the tree.
func (e *TreeEdit) Remove(i LeafIndex) error {
	if e.LeafBytes(i) == nil {
		return invalid("12.1.3", "no member at leaf %d to remove", i)
	}
	e.set(i.NodeIndex(), nil)
	e.blankPath(i)
	return nil
}

func (e *TreeEdit) blankPath(i LeafIndex) {
	for _, x := range DirectPath(i.NodeIndex(), e.LeafWidth()) {
		e.set(x, nil)
	}
}

// Add puts a leaf at the leftmost blank, extending a full tree, and into the
// unmerged leaves of its ancestors (RFC 9420, Section 12.1.1).
func (e *TreeEdit) Add(leaf *LeafNode) (LeafIndex, error) {
	i := e.LeftmostBlank()
	if err := e.SetLeaf(i, leaf); err != nil {
		return 0, err
	}
	for _, x := range DirectPath(i.NodeIndex(), e.LeafWidth()) {
		p := e.Parent(x)
		if p == nil {
			continue
		}
		if at, listed := slices.BinarySearch(p.UnmergedLeaves, i); !listed {
			p.UnmergedLeaves = slices.Insert(p.UnmergedLeaves, at, i)
			e.set(x, p.Append(nil))
		}
	}
	return i, nil
}

// MergePath puts an UpdatePath into the tree (RFC 9420, Section 7.5): the
// committer's leaf, new keys on its filtered direct path, blanks on the rest of
// the direct path. The leaf may be blank, or LeafWidth: an external committer.
// A path of the wrong length, or a leaf whose parent_hash does not follow from
// it (Section 7.9.2), is ErrInvalid.
func (e *TreeEdit) MergePath(committer LeafIndex, path *UpdatePath) error {
	keys := make([][]byte, len(path.Nodes))
	for i := range path.Nodes {
		keys[i] = path.Nodes[i].EncryptionKey
	}
	if path.LeafNode.Source != LeafNodeSourceCommit {
		return invalid("7.5", "the leaf node of an UpdatePath has leaf_node_source %d", path.LeafNode.Source)
	}
	parents, leafHash, err := e.pathParents(committer, keys)
	if err != nil {
		return err
	}
	if !bytes.Equal(leafHash, path.LeafNode.ParentHash) {
		return invalid("7.9.2", "the leaf's parent_hash is %x, want %x", path.LeafNode.ParentHash, leafHash)
	}
	encoded, err := encodeLeaf(path.LeafNode)
	if err != nil {
		return err
	}
	e.set(committer.NodeIndex(), encoded)
	filtered := e.FilteredDirectPath(committer)
	for _, x := range DirectPath(committer.NodeIndex(), e.LeafWidth()) {
		if len(filtered) > 0 && x == filtered[0] {
			e.set(x, parents[0].Append(make([]byte, 0, len(parents[0].EncryptionKey)+len(parents[0].ParentHash)+8)))
			filtered, parents = filtered[1:], parents[1:]
		} else {
			e.set(x, nil)
		}
	}
	return nil
}

// PathParentHash is the parent_hash of the leaf with which a committer gives
// these encryption keys to its filtered direct path, from the lowest node
// upwards (RFC 9420, Section 7.9); empty when the path is. The keys are as many
// as the path has nodes, else ErrInvalid. Nodes do not change; if the committer
// is LeafWidth, the tree is extended.
func (e *TreeEdit) PathParentHash(committer LeafIndex, keys [][]byte) ([]byte, error) {
	_, hash, err := e.pathParents(committer, keys)
	return hash, err
}

// pathParents is the new nodes of a filtered direct path and the parent_hash of
// the leaf below them.
func (e *TreeEdit) pathParents(committer LeafIndex, keys [][]byte) ([]ParentNode, []byte, error) {
	if err := e.reach(committer); err != nil {
		return nil, nil, err
	}
	path := e.FilteredDirectPath(committer)
	if len(path) != len(keys) {
		return nil, nil, invalid("7.5", "%d nodes for a filtered direct path of %d", len(keys), len(path))
	}
	h := newTreeHasher(e.suite)
	parents := make([]ParentNode, len(path))
	parentHash := []byte{}
	for k := len(path) - 1; k >= 0; k-- {
		parents[k] = ParentNode{EncryptionKey: keys[k], ParentHash: parentHash}
		sibling := path[k].Left()
		if sibling.covers(committer) {
			sibling = path[k].Right()
		}
		siblingHash := e.hash(h, sibling)
		d := h.parentHash(keys[k], parentHash, &siblingHash)
		parentHash = d[:h.hashLen:h.hashLen]
	}
	return parents, parentHash, nil
}

// FindEncryptionKey finds a node that has an encryption key.
func (e *TreeEdit) FindEncryptionKey(key []byte) (NodeIndex, bool) {
	for _, entry := range e.base.encryptionKeys.candidates(key) {
		if x := NodeIndex(placeOf(entry)); e.hasEncryptionKey(x, key) {
			return x, true
		}
	}
	for _, x := range e.touched {
		if e.hasEncryptionKey(x, key) {
			return x, true
		}
	}
	return 0, false
}

// FindSignatureKey finds a leaf that has a signature key.
func (e *TreeEdit) FindSignatureKey(key []byte) (LeafIndex, bool) {
	for _, entry := range e.base.signatureKeys.candidates(key) {
		if i := LeafIndex(placeOf(entry)); e.hasSignatureKey(i, key) {
			return i, true
		}
	}
	for _, x := range e.touched {
		if x.IsLeaf() && e.hasSignatureKey(x.LeafIndex(), key) {
			return x.LeafIndex(), true
		}
	}
	return 0, false
}

// Tree finishes the edit: the changed tree, every hash computed and the indexes
// brought up to date. The edit goes on from there.
func (e *TreeEdit) Tree() *RatchetTree {
	slices.Sort(e.touched)
	e.touched = slices.Compact(e.touched)
	top := newTreeHasher(e.suite).pack(e.top, e.depth/blockLevels, 0)
	t := &RatchetTree{
		nodes:          nodes{suite: e.suite, top: slot{packed: top}, depth: e.depth},
		encryptionKeys: e.base.encryptionKeys,
		signatureKeys:  e.base.signatureKeys,
		caps:           e.base.caps,
	}
	t.index(e.base, e.touched)
	*e = TreeEdit{nodes: t.nodes, base: t}
	return t
}

// index brings the indexes of base up to date with nodes that may have changed.
func (t *RatchetTree) index(base *RatchetTree, changed []NodeIndex) {
	var encryption, signature keyChange
	caps := make(map[capability]int)
	for _, x := range changed {
		before, after := base.node(x), t.node(x)
		encryption.note(before, after, uint32(x), encryptionKeyOf)
		if x.IsLeaf() {
			signature.note(before, after, uint32(x.LeafIndex()), signatureKeyOf)
			noteCapabilities(caps, before, after)
		}
	}
	t.encryptionKeys = encryption.apply(t.encryptionKeys)
	t.signatureKeys = signature.apply(t.signatureKeys)
	t.caps = t.caps.with(caps)
}

// noteCapabilities counts an encoded leaf less and another more; nil is none.
func noteCapabilities(change map[capability]int, before, after []byte) {
	if before != nil && after != nil && sameCapabilities(before, after) {
		return
	}
	if before != nil {
		countCapabilities(change, decodeLeaf(before), -1)
	}
	if after != nil {
		countCapabilities(change, decodeLeaf(after), 1)
	}
}

// keyChange collects what leaves and enters a keyIndex.
type keyChange struct{ del, add []uint64 }

func (c *keyChange) note(before, after []byte, place uint32, key func([]byte) []byte) {
	if before != nil && after != nil && bytes.Equal(key(before), key(after)) {
		return
	}
	if before != nil {
		c.del = append(c.del, keyEntry(key(before), place))
	}
	if after != nil {
		c.add = append(c.add, keyEntry(key(after), place))
	}
}

func (c *keyChange) apply(k *keyIndex) *keyIndex {
	slices.Sort(c.del)
	slices.Sort(c.add)
	return k.with(0, c.del, c.add)
}
