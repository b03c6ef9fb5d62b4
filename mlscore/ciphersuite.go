package mlscore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	_ "crypto/sha256" // linked for Suite.Hash
	_ "crypto/sha512" // linked for Suite.Hash
	"fmt"
	"hash"

	"github.com/cloudflare/circl/sign/ed448"

	"leavebroker/mlscore/codec"
)

// CipherSuite is the registry number of a cipher suite (RFC 9420, Section 17.1).
type CipherSuite uint16

// SignatureScheme is a TLS SignatureScheme code point (RFC 8446, Section 4.2.3).
type SignatureScheme uint16

// The signature schemes of suites 1 to 7.
const (
	ECDSAWithP256AndSHA256 SignatureScheme = 0x0403
	ECDSAWithP384AndSHA384 SignatureScheme = 0x0503
	ECDSAWithP521AndSHA512 SignatureScheme = 0x0603
	Ed25519                SignatureScheme = 0x0807
	Ed448                  SignatureScheme = 0x0808
)

var schemeNames = map[SignatureScheme]string{
	ECDSAWithP256AndSHA256: "ecdsa_secp256r1_sha256",
	ECDSAWithP384AndSHA384: "ecdsa_secp384r1_sha384",
	ECDSAWithP521AndSHA512: "ecdsa_secp521r1_sha512",
	Ed25519:                "ed25519",
	Ed448:                  "ed448",
}

func (s SignatureScheme) String() string {
	if name, ok := schemeNames[s]; ok {
		return name
	}
	return fmt.Sprintf("signature_scheme_0x%04x", uint16(s))
}

// Suite is the part of a cipher suite that an observer uses: its hash and its
// signature scheme. KEM, KDF and AEAD matter to members only.
type Suite struct {
	ID        CipherSuite
	Hash      crypto.Hash
	Signature SignatureScheme
}

var suites = [...]Suite{
	{1, crypto.SHA256, Ed25519},                // MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519
	{2, crypto.SHA256, ECDSAWithP256AndSHA256}, // MLS_128_DHKEMP256_AES128GCM_SHA256_P256
	{3, crypto.SHA256, Ed25519},                // MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519
	{4, crypto.SHA512, Ed448},                  // MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448
	{5, crypto.SHA512, ECDSAWithP521AndSHA512}, // MLS_256_DHKEMP521_AES256GCM_SHA512_P521
	{6, crypto.SHA512, Ed448},                  // MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448
	{7, crypto.SHA384, ECDSAWithP384AndSHA384}, // MLS_256_DHKEMP384_AES256GCM_SHA384_P384
}

// LookupSuite gives the suite of a registry number, or ErrUnsupported.
func LookupSuite(id CipherSuite) (*Suite, error) {
	for i := range suites {
		if suites[i].ID == id {
			return &suites[i], nil
		}
	}
	return nil, refuse(ErrUnsupported, "17.1", "cipher suite 0x%04x", uint16(id))
}

// Suites lists the registry numbers of all known suites, ascending.
func Suites() []CipherSuite {
	ids := make([]CipherSuite, len(suites))
	for i := range suites {
		ids[i] = suites[i].ID
	}
	return ids
}

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
// The label is given without the "MLS 1.0 " that it gets here.
func SignContent(label string, content []byte) []byte {
	b := make([]byte, 0, len(label)+len(content)+16)
	b = codec.AppendOpaque(b, []byte("MLS 1.0 "+label))
	return codec.AppendOpaque(b, content)
}

// VerifyWithLabel verifies a signature (RFC 9420, Section 5.1.2). The key is in
// the wire form of Section 5.1.1. A wrong signature, or a key that is none of
// the scheme, is ErrInvalid.
func (s *Suite) VerifyWithLabel(publicKey []byte, label string, content, signature []byte) error {
	ok, err := verify(s.Signature, publicKey, SignContent(label, content), signature)
	if err != nil {
		return err
	}
	if !ok {
		return invalid("5.1.2", "the %s signature under label %q does not verify", s.Signature, label)
	}
	return nil
}

// CheckSignatureKey says whether bytes are a public key of the scheme.
func (s *Suite) CheckSignatureKey(publicKey []byte) error {
	switch s.Signature {
	case Ed25519:
		return checkKeyLength(s.Signature, publicKey, ed25519.PublicKeySize)
	case Ed448:
		return checkKeyLength(s.Signature, publicKey, ed448.PublicKeySize)
	}
	_, err := parseECDSAKey(s.Signature, publicKey)
	return err
}

func checkKeyLength(scheme SignatureScheme, key []byte, want int) error {
	if len(key) != want {
		return invalid("5.1.1", "%s key of %d bytes, want %d", scheme, len(key), want)
	}
	return nil
}

func verify(scheme SignatureScheme, publicKey, message, signature []byte) (bool, error) {
	switch scheme {
	case Ed25519:
		if err := checkKeyLength(scheme, publicKey, ed25519.PublicKeySize); err != nil {
			return false, err
		}
		return ed25519.Verify(publicKey, message, signature), nil
	case Ed448:
		if err := checkKeyLength(scheme, publicKey, ed448.PublicKeySize); err != nil {
			return false, err
		}
		return len(signature) == ed448.SignatureSize && ed448.Verify(publicKey, message, signature, ""), nil
	}
	key, err := parseECDSAKey(scheme, publicKey)
	if err != nil {
		return false, err
	}
	h := ecdsaHash(scheme).New()
	h.Write(message)
	return ecdsa.VerifyASN1(key, h.Sum(nil), signature), nil
}

func ecdsaHash(scheme SignatureScheme) crypto.Hash {
	switch scheme {
	case ECDSAWithP256AndSHA256:
		return crypto.SHA256
	case ECDSAWithP384AndSHA384:
		return crypto.SHA384
	}
	return crypto.SHA512
}

func ecdsaCurve(scheme SignatureScheme) elliptic.Curve {
	switch scheme {
	case ECDSAWithP256AndSHA256:
		return elliptic.P256()
	case ECDSAWithP384AndSHA384:
		return elliptic.P384()
	case ECDSAWithP521AndSHA512:
		return elliptic.P521()
	}
	return nil
}

// parseECDSAKey parses an UncompressedPointRepresentation (RFC 9420, Section 5.1.1).
func parseECDSAKey(scheme SignatureScheme, publicKey []byte) (*ecdsa.PublicKey, error) {
	curve := ecdsaCurve(scheme)
	if curve == nil {
		return nil, refuse(ErrUnsupported, "5.1.1", "signature scheme %s", scheme)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, publicKey)
	if err != nil {
		return nil, invalid("5.1.1", "%s key of %d bytes is no point of its curve", scheme, len(publicKey))
	}
	return key, nil
}
