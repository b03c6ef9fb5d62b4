package mlscore

import "leavebroker/mlscore/codec"

// ProtocolVersion is the registry number of a protocol version (RFC 9420, Section 6).
type ProtocolVersion uint16

// ProtocolVersionMLS10 is MLS 1.0.
const ProtocolVersionMLS10 ProtocolVersion = 1

// LeafNodeSource says how a leaf node came into the tree (RFC 9420, Section 7.2).
type LeafNodeSource uint8

// The sources of a leaf node.
const (
	LeafNodeSourceKeyPackage LeafNodeSource = 1
	LeafNodeSourceUpdate     LeafNodeSource = 2
	LeafNodeSourceCommit     LeafNodeSource = 3
)

// Capabilities lists what a client supports (RFC 9420, Section 7.2):
//
//	struct {
//	  ProtocolVersion versions<V>;
//	  CipherSuite cipher_suites<V>;
//	  ExtensionType extensions<V>;
//	  ProposalType proposals<V>;
//	  CredentialType credentials<V>;
//	} Capabilities;
type Capabilities struct {
	Versions     []ProtocolVersion
	CipherSuites []CipherSuite
	Extensions   []ExtensionType
	Proposals    []ProposalType
	Credentials  []CredentialType
}

// Lifetime bounds the use of a key package, in seconds since the Unix epoch
// (RFC 9420, Section 7.2).
type Lifetime struct{ NotBefore, NotAfter uint64 }

// LeafNode is a leaf of the ratchet tree (RFC 9420, Section 7.2):
//
//	struct {
//	  HPKEPublicKey encryption_key;       // opaque<V>
//	  SignaturePublicKey signature_key;   // opaque<V>
//	  Credential credential;
//	  Capabilities capabilities;
//	  LeafNodeSource leaf_node_source;    // uint8
//	  select (LeafNode.leaf_node_source) {
//	    case key_package: Lifetime lifetime;
//	    case update:      struct{};
//	    case commit:      opaque parent_hash<V>;
//	  };
//	  Extension extensions<V>;
//	  opaque signature<V>;
//	} LeafNode;
type LeafNode struct {
	EncryptionKey []byte
	SignatureKey  []byte
	Credential    Credential
	Capabilities  Capabilities
	Source        LeafNodeSource
	Lifetime      Lifetime // source key_package
	ParentHash    []byte   // source commit
	Extensions    Extensions
	Signature     []byte

	raw []byte // as received
	tbs int    // length of raw before the signature
}

// ReadLeafNode reads a leaf node.
func ReadLeafNode(r *codec.Reader) *LeafNode {
	start := r.Offset()
	n := &LeafNode{
		EncryptionKey: r.Opaque(),
		SignatureKey:  r.Opaque(),
		Credential:    ReadCredential(r),
		Capabilities: Capabilities{
			Versions:     readUint16s[ProtocolVersion](r),
			CipherSuites: readUint16s[CipherSuite](r),
			Extensions:   readUint16s[ExtensionType](r),
			Proposals:    readUint16s[ProposalType](r),
			Credentials:  readUint16s[CredentialType](r),
		},
		Source: LeafNodeSource(r.Uint8()),
	}
	switch n.Source {
	case LeafNodeSourceKeyPackage:
		n.Lifetime = Lifetime{NotBefore: r.Uint64(), NotAfter: r.Uint64()}
	case LeafNodeSourceUpdate:
	case LeafNodeSourceCommit:
		n.ParentHash = r.Opaque()
	default:
		r.Fail("leaf_node_source %d", n.Source)
	}
	n.Extensions = ReadExtensions(r)
	n.tbs = r.Offset() - start
	n.Signature = r.Opaque()
	n.raw = r.Since(start)
	return n
}

// ParseLeafNode decodes a leaf node that fills b.
func ParseLeafNode(b []byte) (*LeafNode, error) {
	r := codec.NewReader(b)
	n := ReadLeafNode(r)
	return n, r.Finish()
}

// Append appends the encoding of the fields.
func (n *LeafNode) Append(b []byte) []byte {
	return codec.AppendOpaque(n.appendUnsigned(b), n.Signature)
}

func (n *LeafNode) appendUnsigned(b []byte) []byte {
	b = codec.AppendOpaque(b, n.EncryptionKey)
	b = codec.AppendOpaque(b, n.SignatureKey)
	b = n.Credential.Append(b)
	b = n.Capabilities.Append(b)
	b = append(b, byte(n.Source))
	switch n.Source {
	case LeafNodeSourceKeyPackage:
		b = codec.AppendUint64(b, n.Lifetime.NotBefore)
		b = codec.AppendUint64(b, n.Lifetime.NotAfter)
	case LeafNodeSourceCommit:
		b = codec.AppendOpaque(b, n.ParentHash)
	}
	return n.Extensions.Append(b)
}

// Append appends the encoding.
func (c *Capabilities) Append(b []byte) []byte {
	b = appendUint16s(b, c.Versions)
	b = appendUint16s(b, c.CipherSuites)
	b = appendUint16s(b, c.Extensions)
	b = appendUint16s(b, c.Proposals)
	return appendUint16s(b, c.Credentials)
}

// Bytes is the encoding: as received, if it was.
func (n *LeafNode) Bytes() []byte {
	if n.raw != nil {
		return n.raw
	}
	return n.Append(nil)
}

// TBS is the LeafNodeTBS (RFC 9420, Section 7.2): the fields before the
// signature, then, unless the source is key_package, group_id<V> and the
// uint32 leaf_index.
func (n *LeafNode) TBS(groupID []byte, index LeafIndex) []byte {
	var unsigned []byte
	if n.raw != nil {
		unsigned = n.raw[:n.tbs]
	} else {
		unsigned = n.appendUnsigned(nil)
	}
	b := make([]byte, 0, len(unsigned)+len(groupID)+8)
	b = append(b, unsigned...)
	if n.Source == LeafNodeSourceKeyPackage {
		return b
	}
	b = codec.AppendOpaque(b, groupID)
	return codec.AppendUint32(b, uint32(index))
}

// Sign signs the leaf node for its place and forgets any received bytes.
func (n *LeafNode) Sign(signer Signer, groupID []byte, index LeafIndex) (err error) {
	n.raw = nil
	n.Signature, err = SignWithLabel(signer, "LeafNodeTBS", n.TBS(groupID, index))
	return err
}

// VerifySignature verifies the leaf node's signature for its place by its own
// key. The place does not matter where the source is key_package.
func (n *LeafNode) VerifySignature(suite *Suite, groupID []byte, index LeafIndex) error {
	return suite.VerifyWithLabel(n.SignatureKey, "LeafNodeTBS", n.TBS(groupID, index), n.Signature)
}

// Ref is the LeafNodeRef: RefHash under "MLS 1.0 LeafNode Reference"
// (LeafOperationIntents draft); Nh bytes.
func (n *LeafNode) Ref(suite *Suite) []byte {
	return suite.RefHash("MLS 1.0 LeafNode Reference", n.Bytes())
}
