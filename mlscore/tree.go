package mlscore

import (
	"iter"

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

// RatchetTree is the public part of a ratchet tree as an immutable value.
type RatchetTree struct{ suite *Suite }

// ParseRatchetTree decodes the data of the ratchet_tree extension.
func ParseRatchetTree(suite *Suite, b []byte) (*RatchetTree, error) { panic("being written") }

// NewRatchetTree is the tree of a group of one.
func NewRatchetTree(suite *Suite, leaf *LeafNode) *RatchetTree { panic("being written") }

func (t *RatchetTree) Bytes() []byte                                  { panic("being written") }
func (t *RatchetTree) Suite() *Suite                                  { panic("being written") }
func (t *RatchetTree) LeafWidth() uint32                              { panic("being written") }
func (t *RatchetTree) Members() int                                   { panic("being written") }
func (t *RatchetTree) Leaf(i LeafIndex) *LeafNode                     { panic("being written") }
func (t *RatchetTree) LeafBytes(i LeafIndex) []byte                   { panic("being written") }
func (t *RatchetTree) Parent(x NodeIndex) *ParentNode                 { panic("being written") }
func (t *RatchetTree) All() iter.Seq2[LeafIndex, *LeafNode]           { panic("being written") }
func (t *RatchetTree) TreeHash() []byte                               { panic("being written") }
func (t *RatchetTree) NodeHash(x NodeIndex) []byte                    { panic("being written") }
func (t *RatchetTree) EncryptionKeyOf(x NodeIndex) []byte             { panic("being written") }
func (t *RatchetTree) Resolution(x NodeIndex) []NodeIndex             { panic("being written") }
func (t *RatchetTree) FilteredDirectPath(i LeafIndex) []NodeIndex     { panic("being written") }
func (t *RatchetTree) LeftmostBlank() LeafIndex                       { panic("being written") }
func (t *RatchetTree) FindEncryptionKey(key []byte) (NodeIndex, bool) { panic("being written") }
func (t *RatchetTree) FindSignatureKey(key []byte) (LeafIndex, bool)  { panic("being written") }
func (t *RatchetTree) Verify(groupID []byte) error                    { panic("being written") }
func (t *RatchetTree) VerifyParentHashes() error                      { panic("being written") }
func (t *RatchetTree) VerifyUnmergedLeaves() error                    { panic("being written") }
func (t *RatchetTree) VerifyUniqueKeys() error                        { panic("being written") }
func (t *RatchetTree) VerifyLeafSignatures(groupID []byte) error      { panic("being written") }
func (t *RatchetTree) SupportsCredential(c CredentialType) bool       { panic("being written") }
func (t *RatchetTree) SupportsExtension(x ExtensionType) bool         { panic("being written") }
func (t *RatchetTree) SupportsProposal(p ProposalType) bool           { panic("being written") }
func (t *RatchetTree) CredentialTypesInUse() []CredentialType         { panic("being written") }
func (t *RatchetTree) Edit() *TreeEdit                                { panic("being written") }

type TreeEdit struct{}

func (e *TreeEdit) LeafWidth() uint32                                     { panic("being written") }
func (e *TreeEdit) Members() int                                          { panic("being written") }
func (e *TreeEdit) Leaf(i LeafIndex) *LeafNode                            { panic("being written") }
func (e *TreeEdit) EncryptionKeyOf(x NodeIndex) []byte                    { panic("being written") }
func (e *TreeEdit) FindEncryptionKey(key []byte) (NodeIndex, bool)        { panic("being written") }
func (e *TreeEdit) FindSignatureKey(key []byte) (LeafIndex, bool)         { panic("being written") }
func (e *TreeEdit) Update(i LeafIndex, leaf *LeafNode) error              { panic("being written") }
func (e *TreeEdit) Remove(i LeafIndex) error                              { panic("being written") }
func (e *TreeEdit) Add(leaf *LeafNode) (LeafIndex, error)                 { panic("being written") }
func (e *TreeEdit) SetLeaf(i LeafIndex, leaf *LeafNode) error             { panic("being written") }
func (e *TreeEdit) Truncate()                                             { panic("being written") }
func (e *TreeEdit) MergePath(committer LeafIndex, path *UpdatePath) error { panic("being written") }
func (e *TreeEdit) PathParentHash(committer LeafIndex, keys [][]byte) ([]byte, error) {
	panic("being written")
}
func (e *TreeEdit) LeftmostBlank() LeafIndex                   { panic("being written") }
func (e *TreeEdit) FilteredDirectPath(i LeafIndex) []NodeIndex { panic("being written") }
func (e *TreeEdit) Resolution(x NodeIndex) []NodeIndex         { panic("being written") }
func (e *TreeEdit) Tree() *RatchetTree                         { panic("being written") }
