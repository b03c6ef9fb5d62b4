package mlscore

import (
	"crypto"
	_ "crypto/sha256" // linked for Suite.Hash
	_ "crypto/sha512" // linked for Suite.Hash
	"hash"

	"leavebroker/mlscore/codec"
)

// CipherSuite is the registry number of a cipher suite (RFC 9420, Section 17.1).
type CipherSuite uint16

// Suite is the part of a cipher suite that an observer uses: its hash and its
// signature scheme. KEM, KDF and AEAD matter to members only, who find them by
// the name.
type Suite struct {
	ID        CipherSuite
	Name      string // MLS_LVL_KEM_AEAD_HASH_SIG
	Hash      crypto.Hash
	Signature SignatureScheme
}

var suites = [...]Suite{
	{1, "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519", crypto.SHA256, Ed25519},
	{2, "MLS_128_DHKEMP256_AES128GCM_SHA256_P256", crypto.SHA256, ECDSAWithP256AndSHA256},
	{3, "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519", crypto.SHA256, Ed25519},
	{4, "MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448", crypto.SHA512, Ed448},
	{5, "MLS_256_DHKEMP521_AES256GCM_SHA512_P521", crypto.SHA512, ECDSAWithP521AndSHA512},
	{6, "MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448", crypto.SHA512, Ed448},
	{7, "MLS_256_DHKEMP384_AES256GCM_SHA384_P384", crypto.SHA384, ECDSAWithP384AndSHA384},
}

// LookupSuite gives the suite of a registry number of RFC 9420, 1 to 7, or
// ErrUnsupported. A deployment's further suites are in its Registry.
func LookupSuite(id CipherSuite) (*Suite, error) {
	return new(Registry).LookupSuite(id)
}

// Suites lists the registry numbers of the suites of RFC 9420, ascending.
func Suites() []CipherSuite { return new(Registry).Suites() }

// HashLen is Nh, the length of a hash in bytes.
func (s *Suite) HashLen() int { return s.Hash.Size() }

// Sum hashes the concatenation of its arguments; Nh bytes.
func (s *Suite) Sum(parts ...[]byte) []byte {
	h := s.Hash.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// NewHash starts an incremental hash of the suite.
func (s *Suite) NewHash() hash.Hash { return s.Hash.New() }

// RefHash is RefHash(label, value) (RFC 9420, Section 5.2); Nh bytes. The
// label is given whole, with its "MLS 1.0 ".
func (s *Suite) RefHash(label string, value []byte) []byte {
	h := s.Hash.New()
	h.Write(codec.AppendOpaque(nil, []byte(label)))
	h.Write(codec.AppendVarint(nil, len(value)))
	h.Write(value)
	return h.Sum(nil)
}

// SignContent is the SignContent struct (RFC 9420, Section 5.1.2), the bytes
// that SignWithLabel signs:
//
//	struct { opaque label<V>; opaque content<V>; } SignContent;
//
// The label is given without the "MLS 1.0 " that it gets here, the content in
// parts.
func SignContent(label string, content ...[]byte) []byte {
	size := 0
	for _, part := range content {
		size += len(part)
	}
	b := make([]byte, 0, len(label)+size+16)
	b = codec.AppendOpaque(b, []byte("MLS 1.0 "+label))
	b = codec.AppendVarint(b, size)
	for _, part := range content {
		b = append(b, part...)
	}
	return b
}

// VerifyWithLabel verifies a signature (RFC 9420, Section 5.1.2). The key is in
// the wire form of Section 5.1.1. A wrong signature, or a key that is none of
// the scheme, is ErrInvalid.
func (s *Suite) VerifyWithLabel(publicKey []byte, label string, content, signature []byte) error {
	return s.verifyParts(publicKey, signature, label, content)
}

// verifyParts is VerifyWithLabel of a content in parts.
func (s *Suite) verifyParts(publicKey, signature []byte, label string, content ...[]byte) error {
	ok, err := verify(s.Signature, publicKey, SignContent(label, content...), signature)
	if err != nil {
		return err
	}
	if !ok {
		return invalid("5.1.2", "the %s signature under label %q does not verify", s.Signature, label)
	}
	return nil
}
