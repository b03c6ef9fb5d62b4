package mlscore

import "encoding/binary"

// The nodes of a tree are kept in blocks. A block holds the nodes of a subtree
// of blockLevels levels; blocks of row r hold levels 4r to 4r+3, so that row 0
// has eight leaves in a block, and each node of the lowest level of a higher
// block has two blocks below it. Only the top block is smaller where the
// tree's depth asks for it. Within its block a node is numbered as in a tree of
// its own: node x of row r is number (x>>4r)&15 of block x>>4(r+1) of the row.
//
// A block is one allocation of bytes and never changes once it is packed:
// trees that differ in a leaf share all blocks but those above that leaf.
const (
	blockLevels = 4
	blockNodes  = 1<<blockLevels - 1
	blockKids   = 1 << blockLevels
)

// block is a packed block. Its data are
//
//	hashes    the tree hashes of its parents, Nh bytes each, in order
//	ends      for each node the uint32 at which its encoding ends
//	encodings of LeafNode or ParentNode in order, nothing for a blank
//
// Hashes of leaves are not kept: one is needed only when the sibling changes.
// A block of row 0 that is all blank holds the hash of its highest node alone.
type block struct {
	kids   *[blockKids]*block // nil in row 0
	data   []byte
	leaves uint32 // non-blank leaves, here and below
	filled uint32 // non-blank nodes, here and below
	size   uint32 // bytes of data, here and below: no less than their encoding
	width  uint8  // nodes of its own: 15, in the top block also 1, 3 or 7
}

// hashes is the number of tree hashes that a block of a row keeps.
func hashes(row uint, width uint8) int {
	if row == 0 {
		return int(width) / 2
	}
	return int(width)
}

// hashSlot is the position of a parent's hash among them.
func hashSlot(row, j uint) int {
	if row == 0 {
		return int(j) / 2
	}
	return int(j)
}

// collapsed says whether the block holds the hash of its highest node alone.
func (b *block) collapsed(row uint) bool { return row == 0 && b.filled == 0 && b.width > 1 }

// node is the encoding of a node, nil when blank.
func (b *block) node(row, j uint, hashLen int) []byte {
	if j >= uint(b.width) || b.collapsed(row) {
		return nil
	}
	ends := b.data[hashes(row, b.width)*hashLen:]
	start := uint32(0)
	if j > 0 {
		start = binary.BigEndian.Uint32(ends[4*(j-1):])
	}
	end := binary.BigEndian.Uint32(ends[4*j:])
	if start == end {
		return nil
	}
	body := ends[4*int(b.width):]
	return body[start:end:end]
}

// openBlock is a block that an edit changes.
type openBlock struct {
	nodes  [blockNodes][]byte
	hashes []byte // of node j at j*Nh; leaves have none
	dirty  uint16 // the nodes whose hash is not up to date
	width  uint8
	leaves uint32
	filled uint32
	kids   *[blockKids]slot // nil in row 0
}

// top is the highest node of the block.
func (b *openBlock) top() uint { return uint(b.width) / 2 }

// touch marks the hashes of a node and of all above it in the block.
func (b *openBlock) touch(j uint) {
	for {
		b.dirty |= 1 << j
		if j == b.top() {
			return
		}
		j = uint(NodeIndex(j).Parent())
	}
}

// openPacked unpacks a block so that it can be changed.
func openPacked(p *block, row uint, hashLen int) *openBlock {
	b := newOpenBlock(row, p.width, hashLen)
	b.leaves, b.filled = p.leaves, p.filled
	if p.collapsed(row) {
		return b
	}
	b.dirty = 0
	for j := range uint(p.width) {
		b.nodes[j] = p.node(row, j, hashLen)
		if row > 0 || j&1 == 1 {
			at := hashSlot(row, j) * hashLen
			copy(b.hashes[int(j)*hashLen:], p.data[at:at+hashLen])
		}
	}
	if row > 0 {
		for c := range int(p.width) + 1 {
			b.kids[c].packed = p.kids[c]
		}
	}
	return b
}

// newOpenBlock is a blank block.
func newOpenBlock(row uint, width uint8, hashLen int) *openBlock {
	b := &openBlock{hashes: make([]byte, blockNodes*hashLen), dirty: 1<<blockNodes - 1, width: width}
	if row > 0 {
		b.kids = new([blockKids]slot)
	}
	return b
}

// slot is a place for a block: packed, open, or neither, which is a block of
// blanks that nobody has hashed yet.
type slot struct {
	packed *block
	open   *openBlock
}

func (s slot) node(row, j uint, hashLen int) []byte {
	switch {
	case s.open != nil:
		return s.open.nodes[j]
	case s.packed != nil:
		return s.packed.node(row, j, hashLen)
	}
	return nil
}

func (s slot) kid(c uint) slot {
	switch {
	case s.open != nil:
		return s.open.kids[c]
	case s.packed != nil:
		return slot{packed: s.packed.kids[c]}
	}
	return slot{}
}

func (s slot) leaves() uint32 {
	switch {
	case s.open != nil:
		return s.open.leaves
	case s.packed != nil:
		return s.packed.leaves
	}
	return 0
}

func (s slot) filled() uint32 {
	switch {
	case s.open != nil:
		return s.open.filled
	case s.packed != nil:
		return s.packed.filled
	}
	return 0
}

func (s slot) width() uint8 {
	switch {
	case s.open != nil:
		return s.open.width
	case s.packed != nil:
		return s.packed.width
	}
	return blockNodes
}
