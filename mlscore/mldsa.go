package mlscore

import (
	"github.com/cloudflare/circl/sign"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
)

// mldsa is the parameter set of a scheme of draft-ietf-tls-mldsa, or nil. That
// draft signs with pure ML-DSA (FIPS 204, Section 5.2) and an empty context;
// keys and signatures are the byte strings of FIPS 204.
func mldsa(scheme SignatureScheme) sign.Scheme {
	switch scheme {
	case MLDSA44:
		return mldsa44.Scheme()
	case MLDSA65:
		return mldsa65.Scheme()
	case MLDSA87:
		return mldsa87.Scheme()
	}
	return nil
}

func verifyMLDSA(scheme SignatureScheme, publicKey, message, signature []byte) (bool, error) {
	set := mldsa(scheme)
	if err := checkKeyLength(scheme, publicKey, set.PublicKeySize()); err != nil {
		return false, err
	}
	key, err := set.UnmarshalBinaryPublicKey(publicKey)
	if err != nil {
		return false, invalid("5.1.1", "no %s key: %v", scheme, err)
	}
	return len(signature) == set.SignatureSize() && set.Verify(key, message, signature, nil), nil
}

// mldsaSigner signs with the deterministic variant (FIPS 204, Section 3.4).
type mldsaSigner struct {
	scheme SignatureScheme
	key    sign.PrivateKey
	public []byte
}

// newMLDSASigner makes a signer of a seed of 32 bytes.
func newMLDSASigner(scheme SignatureScheme, seed []byte) (Signer, error) {
	set := mldsa(scheme)
	if err := checkKeyLength(scheme, seed, set.SeedSize()); err != nil {
		return nil, err
	}
	public, private := set.DeriveKey(seed)
	encoded, err := public.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return &mldsaSigner{scheme, private, encoded}, nil
}

func (s *mldsaSigner) Scheme() SignatureScheme { return s.scheme }
func (s *mldsaSigner) PublicKey() []byte       { return s.public }
func (s *mldsaSigner) Sign(message []byte) ([]byte, error) {
	return mldsa(s.scheme).Sign(s.key, message, nil), nil
}
