package biggroup

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"

	"github.com/cloudflare/circl/sign"
	"github.com/cloudflare/circl/sign/ed448"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"leavebroker/mlscore"
)

// Signature is a signature with all that its verification needs: the floor
// that following a group is measured against.
type Signature struct {
	Scheme    mlscore.SignatureScheme
	Key       []byte // in its wire form
	Message   []byte // what was signed: an encoded SignContent
	Signature []byte
}

// Verify verifies the signature by the cryptographic libraries alone.
func (s *Signature) Verify() bool {
	switch s.Scheme {
	case mlscore.Ed25519:
		return ed25519.Verify(s.Key, s.Message, s.Signature)
	case mlscore.Ed448:
		return ed448.Verify(s.Key, s.Message, s.Signature, "")
	case mlscore.ECDSAWithP256AndSHA256:
		digest := sha256.Sum256(s.Message)
		return verifyECDSA(elliptic.P256(), s.Key, digest[:], s.Signature)
	case mlscore.ECDSAWithP384AndSHA384:
		digest := sha512.Sum384(s.Message)
		return verifyECDSA(elliptic.P384(), s.Key, digest[:], s.Signature)
	case mlscore.ECDSAWithP521AndSHA512:
		digest := sha512.Sum512(s.Message)
		return verifyECDSA(elliptic.P521(), s.Key, digest[:], s.Signature)
	}
	if set := mldsa(s.Scheme); set != nil {
		public, err := set.UnmarshalBinaryPublicKey(s.Key)
		return err == nil && set.Verify(public, s.Message, s.Signature, nil)
	}
	panic(fmt.Sprintf("internal error: a signature by %s", s.Scheme))
}

func verifyECDSA(curve elliptic.Curve, key, digest, signature []byte) bool {
	public, err := ecdsa.ParseUncompressedPublicKey(curve, key)
	return err == nil && ecdsa.VerifyASN1(public, digest, signature)
}

func mldsa(scheme mlscore.SignatureScheme) sign.Scheme {
	switch scheme {
	case mlscore.MLDSA44:
		return mldsa44.Scheme()
	case mlscore.MLDSA65:
		return mldsa65.Scheme()
	case mlscore.MLDSA87:
		return mldsa87.Scheme()
	}
	return nil
}
