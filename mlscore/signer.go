package mlscore

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"io"

	"github.com/cloudflare/circl/sign/ed448"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
)

// Signer holds a signature key. Signing is deterministic for every scheme
// (ECDSA by RFC 6979, ML-DSA by the variant without randomness), so the same
// content gives the same bytes.
type Signer interface {
	// Scheme is the scheme of the key.
	Scheme() SignatureScheme
	// PublicKey is the public key in its wire form (RFC 9420, Section 5.1.1).
	PublicKey() []byte
	// Sign signs the message itself; ECDSA hashes it first.
	Sign(message []byte) ([]byte, error)
}

// SignWithLabel signs content under a label (RFC 9420, Section 5.1.2). The
// label is given without "MLS 1.0 ".
func SignWithLabel(signer Signer, label string, content []byte) ([]byte, error) {
	return signer.Sign(SignContent(label, content))
}

// NewSigner makes a signer of a raw private key: the seed of 32 bytes for
// Ed25519 and ML-DSA and of 57 for Ed448, the scalar for ECDSA (leading zeros
// may be missing).
func NewSigner(scheme SignatureScheme, private []byte) (Signer, error) {
	switch scheme {
	case Ed25519:
		if err := checkKeyLength(scheme, private, ed25519.SeedSize); err != nil {
			return nil, err
		}
		return ed25519Signer(ed25519.NewKeyFromSeed(private)), nil
	case Ed448:
		if err := checkKeyLength(scheme, private, ed448.SeedSize); err != nil {
			return nil, err
		}
		return ed448Signer(ed448.NewKeyFromSeed(private)), nil
	case MLDSA44, MLDSA65, MLDSA87:
		return newMLDSASigner(scheme, private)
	}
	curve := ecdsaCurve(scheme)
	if curve == nil {
		return nil, refuse(ErrUnsupported, "5.1.1", "signature scheme %s", scheme)
	}
	if size := (curve.Params().BitSize + 7) / 8; len(private) < size {
		private = append(make([]byte, size-len(private)), private...)
	}
	key, err := ecdsa.ParseRawPrivateKey(curve, private)
	if err != nil {
		return nil, invalid("5.1.1", "no %s private key of %d bytes", scheme, len(private))
	}
	return newECDSASigner(scheme, key)
}

// NewECDSASigner makes a signer of a key on P-256, P-384 or P-521.
func NewECDSASigner(key *ecdsa.PrivateKey) (Signer, error) {
	for _, scheme := range []SignatureScheme{ECDSAWithP256AndSHA256, ECDSAWithP384AndSHA384, ECDSAWithP521AndSHA512} {
		if key.Curve == ecdsaCurve(scheme) {
			return newECDSASigner(scheme, key)
		}
	}
	return nil, refuse(ErrUnsupported, "5.1.1", "ECDSA on curve %s", key.Curve.Params().Name)
}

// seedSizes are the schemes whose private key is a seed, and its length.
var seedSizes = map[SignatureScheme]int{
	Ed25519: ed25519.SeedSize, Ed448: ed448.SeedSize,
	MLDSA44: mldsa44.SeedSize, MLDSA65: mldsa65.SeedSize, MLDSA87: mldsa87.SeedSize,
}

// GenerateSigner makes a new key from a source of randomness.
func GenerateSigner(scheme SignatureScheme, random io.Reader) (Signer, error) {
	if size, ok := seedSizes[scheme]; ok {
		seed := make([]byte, size)
		if _, err := io.ReadFull(random, seed); err != nil {
			return nil, err
		}
		return NewSigner(scheme, seed)
	}
	curve := ecdsaCurve(scheme)
	if curve == nil {
		return nil, refuse(ErrUnsupported, "5.1.1", "signature scheme %s", scheme)
	}
	// A scalar by rejection: the standard library's generator ignores the
	// given source, and a seeded demo or test needs it honoured.
	scalar := make([]byte, (curve.Params().BitSize+7)/8)
	for {
		if _, err := io.ReadFull(random, scalar); err != nil {
			return nil, err
		}
		if excess := len(scalar)*8 - curve.Params().BitSize; excess > 0 {
			scalar[0] &= 0xff >> excess
		}
		if signer, err := NewSigner(scheme, scalar); err == nil {
			return signer, nil
		}
	}
}

type ed25519Signer ed25519.PrivateKey

func (s ed25519Signer) Scheme() SignatureScheme { return Ed25519 }
func (s ed25519Signer) PublicKey() []byte       { return s[ed25519.SeedSize:] }
func (s ed25519Signer) Sign(message []byte) ([]byte, error) {
	return ed25519.Sign(ed25519.PrivateKey(s), message), nil
}

type ed448Signer ed448.PrivateKey

func (s ed448Signer) Scheme() SignatureScheme { return Ed448 }
func (s ed448Signer) PublicKey() []byte       { return s[ed448.SeedSize:] }
func (s ed448Signer) Sign(message []byte) ([]byte, error) {
	return ed448.Sign(ed448.PrivateKey(s), message, ""), nil
}

type ecdsaSigner struct {
	scheme SignatureScheme
	key    *ecdsa.PrivateKey
	public []byte
}

func newECDSASigner(scheme SignatureScheme, key *ecdsa.PrivateKey) (Signer, error) {
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return &ecdsaSigner{scheme, key, public}, nil
}

func (s *ecdsaSigner) Scheme() SignatureScheme { return s.scheme }
func (s *ecdsaSigner) PublicKey() []byte       { return s.public }
func (s *ecdsaSigner) Sign(message []byte) ([]byte, error) {
	hash := ecdsaHash(s.scheme)
	h := hash.New()
	h.Write(message)
	return s.key.Sign(nil, h.Sum(nil), hash) // RFC 6979: no randomness
}
