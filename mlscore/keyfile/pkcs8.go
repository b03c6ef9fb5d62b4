package keyfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/sign/ed448"

	"leavebroker/mlscore"
)

// oidEd448 is id-Ed448 (RFC 8410, Section 3).
var oidEd448 = asn1.ObjectIdentifier{1, 3, 101, 113}

// oneAsymmetricKey is the OneAsymmetricKey of RFC 5958, Section 2. Its optional
// fields, which follow, are not looked at.
type oneAsymmetricKey struct {
	Version    int
	Algorithm  pkix.AlgorithmIdentifier
	PrivateKey []byte
}

// parsePKCS8 reads the DER of a PKCS#8 key.
func parsePKCS8(der []byte) (mlscore.Signer, error) {
	var outer oneAsymmetricKey
	rest, err := asn1.Unmarshal(der, &outer)
	if err != nil {
		return nil, fmt.Errorf("PKCS#8: %w", err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("PKCS#8: %d bytes follow the key", len(rest))
	}
	if outer.Algorithm.Algorithm.Equal(oidEd448) {
		return parseEd448(&outer)
	}
	if signer, ok, err := parseMLDSA(&outer); ok {
		return signer, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("PKCS#8: %w", err)
	}
	switch key := key.(type) {
	case ed25519.PrivateKey:
		return mlscore.NewSigner(mlscore.Ed25519, key.Seed())
	case *ecdsa.PrivateKey:
		return mlscore.NewECDSASigner(key)
	}
	return nil, fmt.Errorf("PKCS#8: a %T is no signature key of a cipher suite", key)
}

// parseEd448 reads what crypto/x509 does not know: the seed, in an OCTET STRING
// within that of PKCS#8 (RFC 8410, Section 7).
func parseEd448(outer *oneAsymmetricKey) (mlscore.Signer, error) {
	if len(outer.Algorithm.Parameters.FullBytes) > 0 {
		return nil, errors.New("PKCS#8: Ed448 with algorithm parameters")
	}
	var seed []byte
	rest, err := asn1.Unmarshal(outer.PrivateKey, &seed)
	if err != nil {
		return nil, fmt.Errorf("PKCS#8: Ed448: %w", err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("PKCS#8: Ed448: %d bytes follow the seed", len(rest))
	}
	return mlscore.NewSigner(mlscore.Ed448, seed)
}

// Generate makes a new key of a scheme and gives its file's content; Parse
// makes the signer.
func Generate(scheme mlscore.SignatureScheme) ([]byte, error) {
	der, err := generate(scheme)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = pem.Encode(&text, &pem.Block{Type: pemType, Bytes: der})
	return text.Bytes(), err
}

func generate(scheme mlscore.SignatureScheme) ([]byte, error) {
	if der, ok, err := generateMLDSA(scheme); ok {
		return der, err
	}
	var curve elliptic.Curve
	switch scheme {
	case mlscore.Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKCS8PrivateKey(key)
	case mlscore.Ed448:
		return generateEd448()
	case mlscore.ECDSAWithP256AndSHA256:
		curve = elliptic.P256()
	case mlscore.ECDSAWithP384AndSHA384:
		curve = elliptic.P384()
	case mlscore.ECDSAWithP521AndSHA512:
		curve = elliptic.P521()
	default:
		return nil, fmt.Errorf("%w: signature scheme %s", mlscore.ErrUnsupported, scheme)
	}
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

func generateEd448() ([]byte, error) {
	_, key, err := ed448.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	seed, err := asn1.Marshal(key.Seed())
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(oneAsymmetricKey{Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidEd448}, PrivateKey: seed})
}
