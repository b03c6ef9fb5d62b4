package mlscore

import "leavebroker/mlscore/codec"

// ProposalOrRef is a proposal by value or by its ProposalRef (RFC 9420, Section 12.4):
//
//	struct {
//	  ProposalOrRefType type;  // uint8: proposal(1), reference(2)
//	  select (ProposalOrRef.type) {
//	    case proposal:  Proposal proposal;
//	    case reference: ProposalRef reference;  // opaque<V>
//	  };
//	} ProposalOrRef;
//
// Exactly one field is set.
type ProposalOrRef struct {
	Proposal  *Proposal
	Reference []byte // Nh bytes
}

// Commit is the content of a commit (RFC 9420, Section 12.4):
//
//	struct {
//	  ProposalOrRef proposals<V>;
//	  optional<UpdatePath> path;
//	} Commit;
type Commit struct {
	Proposals []ProposalOrRef
	Path      *UpdatePath
}

// UpdatePath carries new keys for a direct path (RFC 9420, Section 7.6):
//
//	struct {
//	  LeafNode leaf_node;
//	  UpdatePathNode nodes<V>;
//	} UpdatePath;
type UpdatePath struct {
	LeafNode *LeafNode
	Nodes    []UpdatePathNode
}

// UpdatePathNode is one node of an UpdatePath, from the leaf upwards:
//
//	struct {
//	  HPKEPublicKey encryption_key;                  // opaque<V>
//	  HPKECiphertext encrypted_path_secret<V>;
//	} UpdatePathNode;
type UpdatePathNode struct {
	EncryptionKey       []byte
	EncryptedPathSecret []HPKECiphertext
}

// HPKECiphertext is struct { opaque kem_output<V>; opaque ciphertext<V>; }
// (RFC 9420, Section 7.6).
type HPKECiphertext struct{ KEMOutput, Ciphertext []byte }

// ReadCommit reads a commit.
func ReadCommit(r *codec.Reader, reg *Registry) *Commit {
	c := &Commit{}
	v := r.Vector()
	for !v.Empty() {
		switch t := v.Uint8(); t {
		case 1: // proposal
			c.Proposals = append(c.Proposals, ProposalOrRef{Proposal: ReadProposal(v, reg)})
		case 2: // reference
			c.Proposals = append(c.Proposals, ProposalOrRef{Reference: v.Opaque()})
		default:
			v.Fail("ProposalOrRefType %d", t)
		}
	}
	r.Join(v)
	if r.Optional() {
		c.Path = ReadUpdatePath(r)
	}
	return c
}

// ParseCommit decodes a commit that fills b.
func ParseCommit(b []byte, reg *Registry) (*Commit, error) {
	r := codec.NewReader(b)
	c := ReadCommit(r, reg)
	return c, r.Finish()
}

// Append appends the encoding.
func (c *Commit) Append(b []byte) []byte {
	b = codec.AppendVector(b, func(b []byte) []byte {
		for _, p := range c.Proposals {
			if p.Proposal != nil {
				b = append(append(b, 1 /* proposal */), p.Proposal.Bytes()...)
			} else {
				b = codec.AppendOpaque(append(b, 2 /* reference */), p.Reference)
			}
		}
		return b
	})
	b = codec.AppendOptional(b, c.Path != nil)
	if c.Path != nil {
		b = c.Path.Append(b)
	}
	return b
}

// ReadUpdatePath reads an UpdatePath.
func ReadUpdatePath(r *codec.Reader) *UpdatePath {
	p := &UpdatePath{LeafNode: ReadLeafNode(r)}
	v := r.Vector()
	for !v.Empty() {
		node := UpdatePathNode{EncryptionKey: v.Opaque()}
		secrets := v.Vector()
		for !secrets.Empty() {
			c := ReadHPKECiphertext(secrets)
			if node.EncryptedPathSecret == nil { // those of a suite are of one length
				node.EncryptedPathSecret = make([]HPKECiphertext, 0, 1+secrets.Len()/secrets.Offset())
			}
			node.EncryptedPathSecret = append(node.EncryptedPathSecret, c)
		}
		v.Join(secrets)
		p.Nodes = append(p.Nodes, node)
	}
	r.Join(v)
	return p
}

// Append appends the encoding.
func (p *UpdatePath) Append(b []byte) []byte {
	b = append(b, p.LeafNode.Bytes()...)
	return codec.AppendVector(b, func(b []byte) []byte {
		for i := range p.Nodes {
			b = codec.AppendOpaque(b, p.Nodes[i].EncryptionKey)
			b = codec.AppendVector(b, func(b []byte) []byte {
				for j := range p.Nodes[i].EncryptedPathSecret {
					b = p.Nodes[i].EncryptedPathSecret[j].Append(b)
				}
				return b
			})
		}
		return b
	})
}

// ReadHPKECiphertext reads a ciphertext.
func ReadHPKECiphertext(r *codec.Reader) HPKECiphertext {
	return HPKECiphertext{KEMOutput: r.Opaque(), Ciphertext: r.Opaque()}
}

// Append appends the encoding.
func (c *HPKECiphertext) Append(b []byte) []byte {
	return codec.AppendOpaque(codec.AppendOpaque(b, c.KEMOutput), c.Ciphertext)
}
