package mlscore

import (
	"math/bits"
	"slices"

	"leavebroker/mlscore/codec"
)

// ParentNode is a parent of the ratchet tree (RFC 9420, Section 7.1):
//
//	struct {
//	  HPKEPublicKey encryption_key;  // opaque<V>
//	  opaque parent_hash<V>;
//	  uint32 unmerged_leaves<V>;
//	} ParentNode;
type ParentNode struct {
	EncryptionKey  []byte
	ParentHash     []byte
	UnmergedLeaves []LeafIndex // strictly ascending
}

// ReadParentNode reads a parent node. Unmerged leaves that do not ascend are
// refused (RFC 9420, Section 7.1).
func ReadParentNode(r *codec.Reader) *ParentNode {
	p := &ParentNode{EncryptionKey: r.Opaque(), ParentHash: r.Opaque()}
	v := r.Vector()
	for !v.Empty() {
		leaf := LeafIndex(v.Uint32())
		if n := len(p.UnmergedLeaves); n > 0 && leaf <= p.UnmergedLeaves[n-1] {
			v.Fail("unmerged leaf %d follows %d", leaf, p.UnmergedLeaves[n-1])
		}
		p.UnmergedLeaves = append(p.UnmergedLeaves, leaf)
	}
	r.Join(v)
	return p
}

// Append appends the encoding.
func (p *ParentNode) Append(b []byte) []byte {
	b = codec.AppendOpaque(b, p.EncryptionKey)
	b = codec.AppendOpaque(b, p.ParentHash)
	b = codec.AppendVarint(b, 4*len(p.UnmergedLeaves))
	for _, leaf := range p.UnmergedLeaves {
		b = codec.AppendUint32(b, uint32(leaf))
	}
	return b
}

// RatchetTree is the public part of a ratchet tree (RFC 9420, Section 4) as an
// immutable value: Edit gives changed trees, which share with it what they have
// in common. Every parent's tree hash is at hand. Any number of goroutines may
// read it.
type RatchetTree struct {
	nodes
	encryptionKeys *keyIndex // of every node, by NodeIndex
	signatureKeys  *keyIndex // by LeafIndex
	caps           capIndex
}

// NewRatchetTree is the tree of a group of one.
func NewRatchetTree(suite *Suite, leaf *LeafNode) *RatchetTree {
	blank := newTreeBuilder(newTreeHasher(suite), nil).block(0, 0, 1)
	e := (&RatchetTree{nodes: nodes{suite: suite, top: slot{packed: blank}}}).Edit()
	e.set(0, leaf.Bytes())
	return e.Tree()
}

// ParseRatchetTree decodes the data of the ratchet_tree extension (RFC 9420,
// Section 12.4.3.3), optional<Node> ratchet_tree<V>:
//
//	struct {
//	  NodeType node_type;  // uint8: leaf(1), parent(2)
//	  select (Node.node_type) { case leaf: LeafNode; case parent: ParentNode; };
//	} Node;
//
// It copies what it needs of b. Beyond the encoding it checks that leaves and
// parents are at their places and that the last node is a leaf, not blank, and
// nothing else: see Verify. All errors are ErrMalformed.
func ParseRatchetTree(suite *Suite, b []byte) (*RatchetTree, error) {
	r := codec.NewReader(b)
	v := r.Vector()
	s := treeScan{caps: make(map[string]*capScan)}
	for !v.Empty() {
		s.read(v)
	}
	r.Join(v)
	if err := r.Finish(); err != nil {
		return nil, err
	}
	content, _ := cutOpaque(b)
	switch n := len(s.ends); {
	case n == 0 || s.node(content, n-1) == nil:
		return nil, malformed("12.4.3.3", "the last of %d nodes of a ratchet tree is blank", n)
	case n%2 == 0:
		return nil, malformed("12.4.3.3", "the last of %d nodes of a ratchet tree is a parent", n)
	}
	return s.tree(suite, content), nil
}

// treeScan is what the first reading of an encoded tree finds.
type treeScan struct {
	ends           []uint32 // where each node ends
	encryptionKeys []uint64
	signatureKeys  []uint64
	caps           map[string]*capScan
	scratch        []byte
}

// capScan counts leaves with the same capabilities and credential type.
type capScan struct {
	leaf  *LeafNode // one of them
	count int
}

// read reads the next node.
func (s *treeScan) read(r *codec.Reader) {
	x := NodeIndex(len(s.ends))
	if uint32(x) >= NodeWidth(MaxLeaves) {
		r.Fail("more than %d leaves", MaxLeaves)
		return
	}
	if r.Optional() {
		switch kind := r.Uint8(); {
		case kind == 1 /* leaf */ && x.IsLeaf():
			s.leaf(x, ReadLeafNode(r))
		case kind == 2 /* parent */ && !x.IsLeaf():
			s.encryptionKeys = append(s.encryptionKeys, keyEntry(ReadParentNode(r).EncryptionKey, uint32(x)))
		default:
			r.Fail("node_type %d of node %d", kind, x)
		}
	}
	s.ends = append(s.ends, uint32(r.Offset()))
}

func (s *treeScan) leaf(x NodeIndex, leaf *LeafNode) {
	s.encryptionKeys = append(s.encryptionKeys, keyEntry(leaf.EncryptionKey, uint32(x)))
	s.signatureKeys = append(s.signatureKeys, keyEntry(leaf.SignatureKey, uint32(x.LeafIndex())))
	s.scratch = leaf.Capabilities.Append(codec.AppendUint16(s.scratch[:0], uint16(leaf.Credential.Type)))
	like := s.caps[string(s.scratch)]
	if like == nil {
		like = &capScan{leaf: leaf}
		s.caps[string(s.scratch)] = like
	}
	like.count++
}

// node is the encoding of a node after its presence and node_type, nil when it
// is blank or beyond the last.
func (s *treeScan) node(content []byte, x int) []byte {
	if x >= len(s.ends) {
		return nil
	}
	start, end := uint32(0), s.ends[x]
	if x > 0 {
		start = s.ends[x-1]
	}
	if end-start == 1 {
		return nil
	}
	return content[start+2 : end]
}

// tree builds the tree that was read, extended to the next power of two.
func (s *treeScan) tree(suite *Suite, content []byte) *RatchetTree {
	depth := uint(bits.Len(uint(len(s.ends)-1) / 2))
	x := -1
	build := newTreeBuilder(newTreeHasher(suite), func() []byte {
		x++
		return s.node(content, x)
	})
	row := depth / blockLevels
	top := build.block(row, 0, 2<<(depth%blockLevels)-1)

	slices.Sort(s.encryptionKeys)
	slices.Sort(s.signatureKeys)
	count := make(map[capability]int)
	for _, like := range s.caps {
		countCapabilities(count, like.leaf, like.count)
	}
	return &RatchetTree{
		nodes:          nodes{suite: suite, top: slot{packed: top}, depth: depth},
		encryptionKeys: newKeyIndex(0, slices.Clone(s.encryptionKeys)),
		signatureKeys:  newKeyIndex(0, slices.Clone(s.signatureKeys)),
		caps:           capIndex(nil).with(count),
	}
}

// Bytes is the data of the ratchet_tree extension (RFC 9420, Section 12.4.3.3).
func (t *RatchetTree) Bytes() []byte { return t.Append(nil) }

// Append appends Bytes.
func (t *RatchetTree) Append(b []byte) []byte {
	return codec.AppendVector(b, func(b []byte) []byte {
		filled := len(b)
		for x := range NodeIndex(NodeWidth(t.LeafWidth())) {
			node := t.node(x)
			b = codec.AppendOptional(b, node != nil)
			if node == nil {
				continue
			}
			kind := byte(1) // leaf
			if !x.IsLeaf() {
				kind = 2 // parent
			}
			b = append(append(b, kind), node...)
			filled = len(b)
		}
		return b[:filled] // without the blanks at the end
	})
}

// TreeHash is the tree hash of the root (RFC 9420, Section 7.8); Nh bytes.
func (t *RatchetTree) TreeHash() []byte { return t.NodeHash(Root(t.LeafWidth())) }

// NodeHash is the tree hash of a node (RFC 9420, Section 7.8); Nh bytes, nil
// outside the tree.
func (t *RatchetTree) NodeHash(x NodeIndex) []byte {
	if uint32(x) >= NodeWidth(t.LeafWidth()) {
		return nil
	}
	h := newTreeHasher(t.suite)
	d := t.hash(h, x)
	return d[:h.hashLen:h.hashLen]
}

// FindEncryptionKey finds the node that has an encryption key.
func (t *RatchetTree) FindEncryptionKey(key []byte) (NodeIndex, bool) {
	for _, entry := range t.encryptionKeys.candidates(key) {
		if x := NodeIndex(placeOf(entry)); t.hasEncryptionKey(x, key) {
			return x, true
		}
	}
	return 0, false
}

// FindSignatureKey finds the leaf that has a signature key, the lowest if
// there are several.
func (t *RatchetTree) FindSignatureKey(key []byte) (LeafIndex, bool) {
	for _, entry := range t.signatureKeys.candidates(key) {
		if i := LeafIndex(placeOf(entry)); t.hasSignatureKey(i, key) {
			return i, true
		}
	}
	return 0, false
}

// Edit begins a change of the tree, which itself stays as it is.
func (t *RatchetTree) Edit() *TreeEdit { return &TreeEdit{nodes: t.nodes, base: t} }
