package member

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/kem"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// suite adds to mlscore.Suite what only members need: KEM, KDF and AEAD (RFC
// 9420, Section 5.1).
type suite struct {
	*mlscore.Suite
	hpke hpke.Suite
	kem  hpke.KEM
	aead hpke.AEAD
}

// The algorithms of RFC 9420, Section 17.1, by registry number.
var algorithms = map[mlscore.CipherSuite]struct {
	kem  hpke.KEM
	kdf  hpke.KDF
	aead hpke.AEAD
}{
	1: {hpke.KEM_X25519_HKDF_SHA256, hpke.KDF_HKDF_SHA256, hpke.AEAD_AES128GCM},
	2: {hpke.KEM_P256_HKDF_SHA256, hpke.KDF_HKDF_SHA256, hpke.AEAD_AES128GCM},
	3: {hpke.KEM_X25519_HKDF_SHA256, hpke.KDF_HKDF_SHA256, hpke.AEAD_ChaCha20Poly1305},
	4: {hpke.KEM_X448_HKDF_SHA512, hpke.KDF_HKDF_SHA512, hpke.AEAD_AES256GCM},
	5: {hpke.KEM_P521_HKDF_SHA512, hpke.KDF_HKDF_SHA512, hpke.AEAD_AES256GCM},
	6: {hpke.KEM_X448_HKDF_SHA512, hpke.KDF_HKDF_SHA512, hpke.AEAD_ChaCha20Poly1305},
	7: {hpke.KEM_P384_HKDF_SHA384, hpke.KDF_HKDF_SHA384, hpke.AEAD_AES256GCM},
}

func lookupSuite(id mlscore.CipherSuite) (*suite, error) {
	public, err := mlscore.LookupSuite(id)
	if err != nil {
		return nil, err
	}
	a, ok := algorithms[id]
	if !ok {
		return nil, &mlscore.Error{
			Class: mlscore.ErrUnsupported, Section: "RFC 9420, Section 17.1",
			Detail: fmt.Sprintf("cipher suite 0x%04x has no member side", uint16(id)),
		}
	}
	return &suite{public, hpke.NewSuite(a.kem, a.kdf, a.aead), a.kem, a.aead}, nil
}

func (s *suite) keyLen() int   { return int(s.aead.KeySize()) }
func (s *suite) nonceLen() int { return int(s.aead.NonceSize()) }

// zero is a string of Nh zero bytes.
func (s *suite) zero() []byte { return make([]byte, s.HashLen()) }

// extract is KDF.Extract(salt, ikm); Nh bytes.
func (s *suite) extract(salt, ikm []byte) []byte {
	prk, err := hkdf.Extract(s.Hash.New, ikm, salt)
	if err != nil {
		panic("internal error: " + err.Error()) // only where policy forbids the hash
	}
	return prk
}

// expandWithLabel is ExpandWithLabel (RFC 9420, Section 8). The label is given
// without "MLS 1.0 "; length is at most 255 times Nh.
func (s *suite) expandWithLabel(secret []byte, label string, context []byte, length int) []byte {
	info := codec.AppendUint16(make([]byte, 0, len(label)+len(context)+16), uint16(length))
	info = codec.AppendOpaque(info, []byte("MLS 1.0 "+label))
	info = codec.AppendOpaque(info, context)
	out, err := hkdf.Expand(s.Hash.New, secret, string(info), length)
	if err != nil {
		panic("internal error: " + err.Error()) // the length is out of bounds
	}
	return out
}

// deriveSecret is DeriveSecret (RFC 9420, Section 8); Nh bytes.
func (s *suite) deriveSecret(secret []byte, label string) []byte {
	return s.expandWithLabel(secret, label, nil, s.HashLen())
}

// deriveTreeSecret is DeriveTreeSecret (RFC 9420, Section 9).
func (s *suite) deriveTreeSecret(secret []byte, label string, generation uint32, length int) []byte {
	return s.expandWithLabel(secret, label, codec.AppendUint32(nil, generation), length)
}

// mac is MAC(key, parts…): HMAC with the suite's hash; Nh bytes.
func (s *suite) mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(s.Hash.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// sameMAC compares in constant time. Tags of another length differ.
func sameMAC(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// privateKey is an HPKE private key with its public key in wire form.
type privateKey struct {
	key    kem.PrivateKey
	public []byte
}

func newPrivateKey(key kem.PrivateKey) (*privateKey, error) {
	public, err := key.Public().MarshalBinary() // also fills a cache in key, which is then only read
	if err != nil {
		return nil, err
	}
	return &privateKey{key, public}, nil
}

// parsePrivateKey reads a private key in the form of RFC 9180, Section 7.1.2.
// Leading zeros of a scalar may be missing.
func (s *suite) parsePrivateKey(b []byte) (*privateKey, error) {
	scheme := s.kem.Scheme()
	if missing := scheme.PrivateKeySize() - len(b); missing > 0 && s.kem < hpke.KEM_X25519_HKDF_SHA256 {
		b = append(make([]byte, missing), b...)
	}
	key, err := scheme.UnmarshalBinaryPrivateKey(b)
	if err != nil {
		return nil, invalid("5.1.1", "no HPKE private key of %d bytes: %v", len(b), err)
	}
	return newPrivateKey(key)
}

// deriveKeyPair is KEM.DeriveKeyPair (RFC 9180, Section 7.1.3). It is our own
// because MLS gives Nh bytes, and circl takes exactly Nsk, which is another
// number for X448 and P-521.
func (s *suite) deriveKeyPair(ikm []byte) (*privateKey, error) {
	scheme := s.kem.Scheme()
	id := binary.BigEndian.AppendUint16([]byte("KEM"), uint16(s.kem))
	prk := s.extract(nil, append(append(append([]byte("HPKE-v1"), id...), "dkp_prk"...), ikm...))
	expand := func(label string, info ...byte) []byte {
		labeled := binary.BigEndian.AppendUint16(nil, uint16(scheme.PrivateKeySize()))
		labeled = append(append(append(append(labeled, "HPKE-v1"...), id...), label...), info...)
		out, err := hkdf.Expand(s.Hash.New, prk, string(labeled), scheme.PrivateKeySize())
		if err != nil {
			panic("internal error: " + err.Error())
		}
		return out
	}
	if s.kem >= hpke.KEM_X25519_HKDF_SHA256 {
		key, err := scheme.UnmarshalBinaryPrivateKey(expand("sk"))
		if err != nil {
			return nil, err
		}
		return newPrivateKey(key)
	}
	for counter := range 256 {
		candidate := expand("candidate", byte(counter))
		if s.kem == hpke.KEM_P521_HKDF_SHA512 {
			candidate[0] &= 0x01
		}
		if key, err := scheme.UnmarshalBinaryPrivateKey(candidate); err == nil {
			return newPrivateKey(key)
		}
	}
	return nil, hpke.ErrInvalidKEMDeriveKey
}
