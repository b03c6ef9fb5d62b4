package member

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/subtle"
	"fmt"
	"strings"

	"github.com/cloudflare/circl/hpke"
	circlkem "github.com/cloudflare/circl/kem"
	"github.com/cloudflare/circl/kem/mlkem/mlkem1024"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"github.com/cloudflare/circl/kem/xwing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// suite adds to mlscore.Suite what only members need: KEM, KDF and AEAD (RFC
// 9420, Section 5.1). The KDF is HKDF with the suite's hash.
type suite struct {
	*mlscore.Suite
	kem
	aead hpke.AEAD
}

// kem is a KEM of HPKE with its registry number.
type kem struct {
	id     hpke.KEM
	scheme circlkem.Scheme
}

// Numbers of draft-ietf-hpke-pq that circl has no name for.
const (
	kemMLKEM768  hpke.KEM = 0x0041
	kemMLKEM1024 hpke.KEM = 0x0042
)

// kems and aeads are the KEM and AEAD of a suite's name (RFC 9420, Section
// 17.1). MLKEM768P256 and MLKEM1024P384 of draft-ietf-hpke-pq are not here:
// circl has neither, and the standard library takes no source of randomness.
var kems = map[string]kem{
	"DHKEMP256":      {hpke.KEM_P256_HKDF_SHA256, hpke.KEM_P256_HKDF_SHA256.Scheme()},
	"DHKEMP384":      {hpke.KEM_P384_HKDF_SHA384, hpke.KEM_P384_HKDF_SHA384.Scheme()},
	"DHKEMP521":      {hpke.KEM_P521_HKDF_SHA512, hpke.KEM_P521_HKDF_SHA512.Scheme()},
	"DHKEMX25519":    {hpke.KEM_X25519_HKDF_SHA256, hpke.KEM_X25519_HKDF_SHA256.Scheme()},
	"DHKEMX448":      {hpke.KEM_X448_HKDF_SHA512, hpke.KEM_X448_HKDF_SHA512.Scheme()},
	"MLKEM768":       {kemMLKEM768, mlkem768.Scheme()},
	"MLKEM1024":      {kemMLKEM1024, mlkem1024.Scheme()},
	"MLKEM768X25519": {hpke.KEM_XWING, xwing.Scheme()},
}

var aeads = map[string]hpke.AEAD{
	"AES128GCM": hpke.AEAD_AES128GCM, "AES256GCM": hpke.AEAD_AES256GCM, "CHACHA20POLY1305": hpke.AEAD_ChaCha20Poly1305,
}

func lookupSuite(reg *mlscore.Registry, id mlscore.CipherSuite) (*suite, error) {
	public, err := reg.LookupSuite(id)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(public.Name, "_") // MLS_LVL_KEM_AEAD_HASH_SIG
	if len(parts) == 6 {
		k, knownKEM := kems[parts[2]]
		aead, knownAEAD := aeads[parts[3]]
		if knownKEM && knownAEAD {
			return &suite{public, k, aead}, nil
		}
	}
	return nil, &mlscore.Error{
		Class: mlscore.ErrUnsupported, Section: "RFC 9420, Section 17.1",
		Detail: fmt.Sprintf("cipher suite 0x%04x (%s) has no member side", uint16(id), public.Name),
	}
}

// Suites lists the registry numbers of the suites that members can use, of RFC
// 9420 first; a PublicGroup follows more.
func Suites(reg *mlscore.Registry) []mlscore.CipherSuite {
	var ids []mlscore.CipherSuite
	for _, id := range reg.Suites() {
		if _, err := lookupSuite(reg, id); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
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
