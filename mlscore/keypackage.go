package mlscore

import "leavebroker/mlscore/codec"

// KeyPackage is what an Add puts into the group (RFC 9420, Section 10):
//
//	struct {
//	  ProtocolVersion version;
//	  CipherSuite cipher_suite;
//	  HPKEPublicKey init_key;  // opaque<V>
//	  LeafNode leaf_node;
//	  Extension extensions<V>;
//	  opaque signature<V>;
//	} KeyPackage;
type KeyPackage struct {
	Version     ProtocolVersion
	CipherSuite CipherSuite
	InitKey     []byte
	LeafNode    *LeafNode
	Extensions  Extensions
	Signature   []byte

	raw []byte
	tbs int
}

// ReadKeyPackage reads a key package.
func ReadKeyPackage(r *codec.Reader) *KeyPackage {
	start := r.Offset()
	k := &KeyPackage{
		Version:     ProtocolVersion(r.Uint16()),
		CipherSuite: CipherSuite(r.Uint16()),
		InitKey:     r.Opaque(),
		LeafNode:    ReadLeafNode(r),
		Extensions:  ReadExtensions(r),
	}
	k.tbs = r.Offset() - start
	k.Signature = r.Opaque()
	k.raw = r.Since(start)
	return k
}

// Append appends the encoding of the fields.
func (k *KeyPackage) Append(b []byte) []byte {
	return codec.AppendOpaque(k.appendUnsigned(b), k.Signature)
}

func (k *KeyPackage) appendUnsigned(b []byte) []byte {
	b = codec.AppendUint16(b, uint16(k.Version))
	b = codec.AppendUint16(b, uint16(k.CipherSuite))
	b = codec.AppendOpaque(b, k.InitKey)
	b = append(b, k.LeafNode.Bytes()...)
	return k.Extensions.Append(b)
}

// Bytes is the encoding: as received, if it was.
func (k *KeyPackage) Bytes() []byte {
	if k.raw != nil {
		return k.raw
	}
	return k.Append(nil)
}

// Sign signs the KeyPackageTBS (RFC 9420, Section 10): the fields before the
// signature. Received bytes are forgotten.
func (k *KeyPackage) Sign(signer Signer) (err error) {
	k.raw = nil
	k.Signature, err = SignWithLabel(signer, "KeyPackageTBS", k.appendUnsigned(nil))
	return err
}

// VerifySignature verifies the signature by the leaf node's key.
func (k *KeyPackage) VerifySignature(suite *Suite) error {
	var tbs []byte
	if k.raw != nil {
		tbs = k.raw[:k.tbs]
	} else {
		tbs = k.appendUnsigned(nil)
	}
	return suite.VerifyWithLabel(k.LeafNode.SignatureKey, "KeyPackageTBS", tbs, k.Signature)
}

// Ref is the KeyPackageRef (RFC 9420, Section 5.2); Nh bytes.
func (k *KeyPackage) Ref(suite *Suite) []byte {
	return suite.RefHash("MLS 1.0 KeyPackage Reference", k.Bytes())
}
