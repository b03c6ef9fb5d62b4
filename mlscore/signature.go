package mlscore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"fmt"

	"github.com/cloudflare/circl/sign/ed448"
)

// SignatureScheme is a TLS SignatureScheme code point (RFC 8446, Section 4.2.3).
type SignatureScheme uint16

// The signature schemes of suites 1 to 7, and ML-DSA (draft-ietf-tls-mldsa) for
// those of draft-ietf-mls-pq-ciphersuites.
const (
	ECDSAWithP256AndSHA256 SignatureScheme = 0x0403
	ECDSAWithP384AndSHA384 SignatureScheme = 0x0503
	ECDSAWithP521AndSHA512 SignatureScheme = 0x0603
	Ed25519                SignatureScheme = 0x0807
	Ed448                  SignatureScheme = 0x0808
	MLDSA44                SignatureScheme = 0x0904
	MLDSA65                SignatureScheme = 0x0905
	MLDSA87                SignatureScheme = 0x0906
)

var schemeNames = map[SignatureScheme]string{
	ECDSAWithP256AndSHA256: "ecdsa_secp256r1_sha256",
	ECDSAWithP384AndSHA384: "ecdsa_secp384r1_sha384",
	ECDSAWithP521AndSHA512: "ecdsa_secp521r1_sha512",
	Ed25519:                "ed25519",
	Ed448:                  "ed448",
	MLDSA44:                "mldsa44",
	MLDSA65:                "mldsa65",
	MLDSA87:                "mldsa87",
}

func (s SignatureScheme) String() string {
	if name, ok := schemeNames[s]; ok {
		return name
	}
	return fmt.Sprintf("signature_scheme_0x%04x", uint16(s))
}

// CheckSignatureKey says whether bytes are a public key of the scheme.
func (s *Suite) CheckSignatureKey(publicKey []byte) error {
	switch s.Signature {
	case Ed25519:
		return checkKeyLength(s.Signature, publicKey, ed25519.PublicKeySize)
	case Ed448:
		return checkKeyLength(s.Signature, publicKey, ed448.PublicKeySize)
	}
	if scheme := mldsa(s.Signature); scheme != nil { // any bytes of the length are a key
		return checkKeyLength(s.Signature, publicKey, scheme.PublicKeySize())
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
	case MLDSA44, MLDSA65, MLDSA87:
		return verifyMLDSA(scheme, publicKey, message, signature)
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
