package member

import (
	"crypto/hkdf"
	"crypto/sha3"
	"encoding/binary"

	"github.com/cloudflare/circl/hpke"
	circlkem "github.com/cloudflare/circl/kem"
)

// privateKey is an HPKE private key with its public key in wire form.
type privateKey struct {
	key    circlkem.PrivateKey
	public []byte
}

func newPrivateKey(key circlkem.PrivateKey) (*privateKey, error) {
	public, err := key.Public().MarshalBinary() // also fills a cache in key, which is then only read
	if err != nil {
		return nil, err
	}
	return &privateKey{key, public}, nil
}

// nistCurve and postQuantum sort the KEMs by how their private keys are made;
// X25519 and X448 are neither.
func (k *kem) nistCurve() bool { return k.id < hpke.KEM_X25519_HKDF_SHA256 }
func (k *kem) postQuantum() bool {
	return k.id == kemMLKEM768 || k.id == kemMLKEM1024 || k.id == hpke.KEM_XWING
}

// parsePrivateKey reads a private key in the form of RFC 9180, Section 7.1.2, or
// the seed that draft-ietf-hpke-pq makes of it. Leading zeros of a scalar may
// be missing.
func (s *suite) parsePrivateKey(b []byte) (*privateKey, error) {
	if s.postQuantum() {
		if len(b) != s.scheme.SeedSize() {
			return nil, invalid("5.1.1", "no HPKE private key of %d bytes, want %d", len(b), s.scheme.SeedSize())
		}
		_, key := s.scheme.DeriveKeyPair(b)
		return newPrivateKey(key)
	}
	if missing := s.scheme.PrivateKeySize() - len(b); missing > 0 && s.nistCurve() {
		b = append(make([]byte, missing), b...)
	}
	key, err := s.scheme.UnmarshalBinaryPrivateKey(b)
	if err != nil {
		return nil, invalid("5.1.1", "no HPKE private key of %d bytes: %v", len(b), err)
	}
	return newPrivateKey(key)
}

// deriveKeyPair is KEM.DeriveKeyPair: of RFC 9180, Section 7.1.3, or of
// draft-ietf-hpke-pq, Sections 3 and 4. It is our own because MLS gives Nh
// bytes; circl takes exactly Nsk, which is another number for X448 and P-521,
// and has not got the latter.
func (s *suite) deriveKeyPair(ikm []byte) (*privateKey, error) {
	id := binary.BigEndian.AppendUint16([]byte("KEM"), uint16(s.kem.id))
	if s.postQuantum() {
		_, key := s.scheme.DeriveKeyPair(shakeLabeledDerive(id, ikm, "DeriveKeyPair", s.scheme.SeedSize()))
		return newPrivateKey(key)
	}
	prk := s.labeledExtract(id, nil, "dkp_prk", ikm)
	size := s.scheme.PrivateKeySize()
	if !s.nistCurve() {
		key, err := s.scheme.UnmarshalBinaryPrivateKey(s.labeledExpand(id, prk, "sk", nil, size))
		if err != nil {
			return nil, err
		}
		return newPrivateKey(key)
	}
	for counter := range 256 {
		candidate := s.labeledExpand(id, prk, "candidate", []byte{byte(counter)}, size)
		if s.kem.id == hpke.KEM_P521_HKDF_SHA512 {
			candidate[0] &= 0x01
		}
		if key, err := s.scheme.UnmarshalBinaryPrivateKey(candidate); err == nil {
			return newPrivateKey(key)
		}
	}
	return nil, hpke.ErrInvalidKEMDeriveKey
}

// labeledExtract is LabeledExtract (RFC 9180, Section 4) with a suite_id.
func (s *suite) labeledExtract(id, salt []byte, label string, ikm []byte) []byte {
	b := append(append([]byte("HPKE-v1"), id...), label...)
	return s.extract(salt, append(b, ikm...))
}

// labeledExpand is LabeledExpand (RFC 9180, Section 4) with a suite_id.
func (s *suite) labeledExpand(id, prk []byte, label string, info []byte, length int) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(length))
	b = append(append(append(append(b, "HPKE-v1"...), id...), label...), info...)
	out, err := hkdf.Expand(s.Hash.New, prk, string(b), length)
	if err != nil {
		panic("internal error: " + err.Error()) // the length is out of bounds
	}
	return out
}

// shakeLabeledDerive is SHAKE256.LabeledDerive (draft-ietf-hpke-hpke) without
// context.
func shakeLabeledDerive(id, ikm []byte, label string, length int) []byte {
	b := append(append(append([]byte(nil), ikm...), "HPKE-v1"...), id...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(label))), label...)
	return sha3.SumSHAKE256(binary.BigEndian.AppendUint16(b, uint16(length)), length)
}
