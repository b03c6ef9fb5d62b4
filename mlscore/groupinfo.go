package mlscore

import "leavebroker/mlscore/codec"

// GroupInfo describes a group to those who are not in it (RFC 9420, Section 12.4.3):
//
//	struct {
//	  GroupContext group_context;
//	  Extension extensions<V>;
//	  MAC confirmation_tag;  // opaque<V>
//	  uint32 signer;
//	  opaque signature<V>;
//	} GroupInfo;
type GroupInfo struct {
	GroupContext    GroupContext
	Extensions      Extensions
	ConfirmationTag []byte
	Signer          LeafIndex
	Signature       []byte

	raw []byte
	tbs int
}

// ReadGroupInfo reads a GroupInfo.
func ReadGroupInfo(r *codec.Reader) *GroupInfo {
	start := r.Offset()
	gi := &GroupInfo{
		GroupContext:    ReadGroupContext(r),
		Extensions:      ReadExtensions(r),
		ConfirmationTag: r.Opaque(),
		Signer:          LeafIndex(r.Uint32()),
	}
	gi.tbs = r.Offset() - start
	gi.Signature = r.Opaque()
	gi.raw = r.Since(start)
	return gi
}

// Append appends the encoding of the fields.
func (gi *GroupInfo) Append(b []byte) []byte {
	return codec.AppendOpaque(gi.appendUnsigned(b), gi.Signature)
}

func (gi *GroupInfo) appendUnsigned(b []byte) []byte {
	b = gi.GroupContext.Append(b)
	b = gi.Extensions.Append(b)
	b = codec.AppendOpaque(b, gi.ConfirmationTag)
	return codec.AppendUint32(b, uint32(gi.Signer))
}

// Bytes is the encoding: as received, if it was.
func (gi *GroupInfo) Bytes() []byte {
	if gi.raw != nil {
		return gi.raw
	}
	return gi.Append(nil)
}

// Sign signs the GroupInfoTBS (RFC 9420, Section 12.4.3): the fields before
// the signature. Received bytes are forgotten.
func (gi *GroupInfo) Sign(signer Signer) (err error) {
	gi.raw = nil
	gi.Signature, err = SignWithLabel(signer, "GroupInfoTBS", gi.appendUnsigned(nil))
	return err
}

// VerifySignature verifies the signature by the signer's key, which the caller
// takes from the leaf at index Signer.
func (gi *GroupInfo) VerifySignature(suite *Suite, signatureKey []byte) error {
	var tbs []byte
	if gi.raw != nil {
		tbs = gi.raw[:gi.tbs]
	} else {
		tbs = gi.appendUnsigned(nil)
	}
	return suite.VerifyWithLabel(signatureKey, "GroupInfoTBS", tbs, gi.Signature)
}

// verifySigner verifies the signature by the key of the signer's leaf.
func (gi *GroupInfo) verifySigner(tree *RatchetTree) error {
	signer := tree.Leaf(gi.Signer)
	if signer == nil {
		return invalid("12.4.3", "the signer's leaf %d is blank or outside the tree", gi.Signer)
	}
	return gi.VerifySignature(tree.Suite(), signer.SignatureKey)
}

// EncryptedGroupSecrets is one new member's part of a Welcome (RFC 9420,
// Section 12.4.3.1).
type EncryptedGroupSecrets struct {
	NewMember []byte // KeyPackageRef, opaque<V>
	Secrets   HPKECiphertext
}

// Welcome brings new members into a group (RFC 9420, Section 12.4.3.1):
//
//	struct {
//	  CipherSuite cipher_suite;
//	  EncryptedGroupSecrets secrets<V>;
//	  opaque encrypted_group_info<V>;
//	} Welcome;
type Welcome struct {
	CipherSuite        CipherSuite
	Secrets            []EncryptedGroupSecrets
	EncryptedGroupInfo []byte
}

// ReadWelcome reads a Welcome.
func ReadWelcome(r *codec.Reader) *Welcome {
	w := &Welcome{CipherSuite: CipherSuite(r.Uint16())}
	v := r.Vector()
	for !v.Empty() {
		w.Secrets = append(w.Secrets, EncryptedGroupSecrets{v.Opaque(), ReadHPKECiphertext(v)})
	}
	r.Join(v)
	w.EncryptedGroupInfo = r.Opaque()
	return w
}

// Append appends the encoding.
func (w *Welcome) Append(b []byte) []byte {
	b = codec.AppendUint16(b, uint16(w.CipherSuite))
	b = codec.AppendVector(b, func(b []byte) []byte {
		for i := range w.Secrets {
			b = codec.AppendOpaque(b, w.Secrets[i].NewMember)
			b = w.Secrets[i].Secrets.Append(b)
		}
		return b
	})
	return codec.AppendOpaque(b, w.EncryptedGroupInfo)
}
