package mlscore

import (
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"

	"leavebroker/mlscore/codec"
)

// digest is a hash of the suite in its first Nh bytes.
type digest [64]byte

// treeHasher computes tree hashes (RFC 9420, Section 7.8):
//
//	struct {
//	  NodeType node_type;  // uint8: leaf(1), parent(2)
//	  select (TreeHashInput.node_type) {
//	    case leaf:   uint32 leaf_index; optional<LeafNode> leaf_node;
//	    case parent: optional<ParentNode> parent_node; opaque left_hash<V>; opaque right_hash<V>;
//	  };
//	} TreeHashInput;
type treeHasher struct {
	suite   *Suite
	hashLen int
	input   []byte // reused
}

func newTreeHasher(suite *Suite) *treeHasher {
	return &treeHasher{suite: suite, hashLen: suite.HashLen()}
}

// sum hashes the input.
func (h *treeHasher) sum() (d digest) {
	switch h.suite.Hash {
	case crypto.SHA256:
		s := sha256.Sum256(h.input)
		copy(d[:], s[:])
	case crypto.SHA384:
		s := sha512.Sum384(h.input)
		copy(d[:], s[:])
	default:
		copy(d[:], h.suite.Sum(h.input))
	}
	return d
}

// leaf hashes a leaf; nil is a blank.
func (h *treeHasher) leaf(i LeafIndex, encoded []byte) digest {
	h.input = codec.AppendUint32(append(h.input[:0], 1 /* leaf */), uint32(i))
	h.input = append(codec.AppendOptional(h.input, encoded != nil), encoded...)
	return h.sum()
}

// parent hashes a parent; nil is a blank.
func (h *treeHasher) parent(encoded []byte, left, right *digest) digest {
	h.input = codec.AppendOptional(append(h.input[:0], 2 /* parent */), encoded != nil)
	h.input = append(h.input, encoded...)
	h.input = codec.AppendOpaque(h.input, left[:h.hashLen])
	h.input = codec.AppendOpaque(h.input, right[:h.hashLen])
	return h.sum()
}

// node is the tree hash of node j of a block, given the block's place. Where
// hashes are missing they are computed and, in an open block, kept.
func (h *treeHasher) node(s slot, row uint, number uint32, j uint) digest {
	switch {
	case row == 0 && j&1 == 0:
		return h.leaf(LeafIndex(number*(blockKids/2)+uint32(j/2)), s.node(row, j, h.hashLen))
	case s.open != nil:
		return h.inOpen(s.open, row, number, j)
	case s.packed != nil:
		return h.inPacked(s.packed, row, number, j)
	}
	return h.inPacked(h.blanks(row, number), row, number, j)
}

func (h *treeHasher) inOpen(b *openBlock, row uint, number uint32, j uint) (d digest) {
	kept := b.hashes[int(j)*h.hashLen : int(j+1)*h.hashLen]
	if b.dirty&(1<<j) == 0 {
		copy(d[:], kept)
		return d
	}
	var left, right digest
	if NodeIndex(j).IsLeaf() { // of a row above 0: blocks are below
		left = h.below(b, j, row, number)
		right = h.below(b, j+1, row, number)
	} else {
		left = h.node(slot{open: b}, row, number, uint(NodeIndex(j).Left()))
		right = h.node(slot{open: b}, row, number, uint(NodeIndex(j).Right()))
	}
	d = h.parent(b.nodes[j], &left, &right)
	copy(kept, d[:])
	b.dirty &^= 1 << j
	return d
}

// below is the tree hash of what is in a block's slot c.
func (h *treeHasher) below(b *openBlock, c, row uint, number uint32) digest {
	kid, number := &b.kids[c], number*blockKids+uint32(c)
	if *kid == (slot{}) {
		kid.packed = h.blanks(row-1, number)
	}
	return h.node(*kid, row-1, number, blockNodes/2)
}

func (h *treeHasher) inPacked(b *block, row uint, number uint32, j uint) (d digest) {
	if b.collapsed(row) && j != uint(b.width)/2 {
		return h.node(slot{open: newOpenBlock(row, b.width, h.hashLen)}, row, number, j)
	}
	at := hashSlot(row, j) * h.hashLen
	if b.collapsed(row) {
		at = 0
	}
	copy(d[:], b.data[at:at+h.hashLen])
	return d
}

// pack makes the block of a slot, all hashes computed.
func (h *treeHasher) pack(s slot, row uint, number uint32) *block {
	switch {
	case s.open != nil:
		return h.packOpen(s.open, row, number)
	case s.packed == nil:
		return h.blanks(row, number)
	}
	return s.packed
}

func (h *treeHasher) packOpen(b *openBlock, row uint, number uint32) *block {
	p := &block{leaves: b.leaves, filled: b.filled, width: b.width}
	if row > 0 {
		p.kids = new([blockKids]*block)
		for c := range uint32(b.width) + 1 {
			p.kids[c] = h.pack(b.kids[c], row-1, number*blockKids+c)
			p.size += p.kids[c].size
			b.kids[c] = slot{packed: p.kids[c]}
		}
	}
	h.node(slot{open: b}, row, number, b.top())
	if p.collapsed(row) {
		p.data = append(make([]byte, 0, h.hashLen), b.hashes[int(b.top())*h.hashLen:][:h.hashLen]...)
	} else {
		p.data = h.layOut(b, row)
	}
	p.size += uint32(len(p.data))
	return p
}

func (h *treeHasher) layOut(b *openBlock, row uint) []byte {
	size := hashes(row, b.width)*h.hashLen + 4*int(b.width)
	for _, node := range b.nodes[:b.width] {
		size += len(node)
	}
	data := make([]byte, 0, size)
	for j := range int(b.width) {
		if row > 0 || j&1 == 1 {
			data = append(data, b.hashes[j*h.hashLen:(j+1)*h.hashLen]...)
		}
	}
	end := uint32(0)
	for _, node := range b.nodes[:b.width] {
		end += uint32(len(node))
		data = binary.BigEndian.AppendUint32(data, end)
	}
	for _, node := range b.nodes[:b.width] {
		data = append(data, node...)
	}
	return data
}

// blanks makes a block of blanks, and those below it.
func (h *treeHasher) blanks(row uint, number uint32) *block {
	return newTreeBuilder(h, nil).block(row, number, blockNodes)
}

// treeBuilder packs blocks from nodes that come in the order of their index.
type treeBuilder struct {
	*treeHasher
	next func() []byte // the encoding of the next node, nil when blank
	work [8]*openBlock // one for each row, reused
}

func newTreeBuilder(h *treeHasher, next func() []byte) *treeBuilder {
	if next == nil {
		next = func() []byte { return nil }
	}
	return &treeBuilder{treeHasher: h, next: next}
}

// block builds a block and those below it.
func (tb *treeBuilder) block(row uint, number uint32, width uint8) *block {
	if tb.work[row] == nil {
		tb.work[row] = newOpenBlock(row, width, tb.hashLen)
	}
	b := tb.work[row]
	b.dirty, b.leaves, b.filled = 1<<blockNodes-1, 0, 0
	for c := range uint32(width) + 1 {
		if row > 0 {
			kid := tb.block(row-1, number*blockKids+c, blockNodes)
			b.kids[c] = slot{packed: kid}
			b.leaves += kid.leaves
			b.filled += kid.filled
		}
		if c == uint32(width) {
			break
		}
		if b.nodes[c] = tb.next(); b.nodes[c] != nil {
			b.filled++
			if row == 0 && c&1 == 0 {
				b.leaves++
			}
		}
	}
	return tb.packOpen(b, row, number)
}
