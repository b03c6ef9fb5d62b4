package mlscore

import (
	"crypto"
	"fmt"
	"strings"
)

// draftSuites are the suites of draft-ietf-mls-pq-ciphersuites-06, in its
// order, under numbers for private use (RFC 9420, Section 17.1): IANA has given
// them none yet, and every implementation uses others.
var draftSuites = [...]Suite{
	{0xf001, "MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519", crypto.SHA256, Ed25519},
	{0xf002, "MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519", crypto.SHA384, Ed25519},
	{0xf003, "MLS_128_MLKEM768P256_AES128GCM_SHA256_P256", crypto.SHA256, ECDSAWithP256AndSHA256},
	{0xf004, "MLS_128_MLKEM768P256_AES256GCM_SHA384_P256", crypto.SHA384, ECDSAWithP256AndSHA256},
	{0xf005, "MLS_192_MLKEM1024P384_AES256GCM_SHA384_P384", crypto.SHA384, ECDSAWithP384AndSHA384},
	{0xf006, "MLS_128_MLKEM768_AES256GCM_SHA384_Ed25519", crypto.SHA384, Ed25519},
	{0xf007, "MLS_128_MLKEM768_AES256GCM_SHA384_P256", crypto.SHA384, ECDSAWithP256AndSHA256},
	{0xf008, "MLS_192_MLKEM1024_AES256GCM_SHA384_P384", crypto.SHA384, ECDSAWithP384AndSHA384},
	{0xf009, "MLS_128_MLKEM768X25519_CHACHA20POLY1305_SHA384_MLDSA44", crypto.SHA384, MLDSA44},
	{0xf00a, "MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65", crypto.SHA384, MLDSA65},
	{0xf00b, "MLS_256_MLKEM1024_AES256GCM_SHA384_MLDSA87", crypto.SHA384, MLDSA87},
}

// hashNames and signatureNames are the HASH and SIG of a suite's name (RFC
// 9420, Section 17.1).
var hashNames = map[string]crypto.Hash{
	"SHA256": crypto.SHA256, "SHA384": crypto.SHA384, "SHA512": crypto.SHA512,
}

var signatureNames = map[string]SignatureScheme{
	"P256": ECDSAWithP256AndSHA256, "P384": ECDSAWithP384AndSHA384, "P521": ECDSAWithP521AndSHA512,
	"Ed25519": Ed25519, "Ed448": Ed448,
	"MLDSA44": MLDSA44, "MLDSA65": MLDSA65, "MLDSA87": MLDSA87,
}

// NewSuite gives the suite that a name composes, MLS_LVL_KEM_AEAD_HASH_SIG (RFC
// 9420, Section 17.1), a registry number. Any KEM and AEAD will do, as an
// observer uses neither; a HASH or SIG that is not known is ErrUnsupported.
func NewSuite(id CipherSuite, name string) (Suite, error) {
	parts := strings.Split(name, "_")
	if len(parts) != 6 || parts[0] != "MLS" {
		return Suite{}, refuse(ErrUnsupported, "17.1", "cipher suite %q: want MLS_LVL_KEM_AEAD_HASH_SIG", name)
	}
	hash, ok := hashNames[parts[4]]
	if !ok {
		return Suite{}, refuse(ErrUnsupported, "17.1", "cipher suite %q: hash %q", name, parts[4])
	}
	signature, ok := signatureNames[parts[5]]
	if !ok {
		return Suite{}, refuse(ErrUnsupported, "17.1", "cipher suite %q: signature %q", name, parts[5])
	}
	return Suite{id, name, hash, signature}, nil
}

// LookupSuite gives the suite of a registry number, of RFC 9420 or of the
// registry, or ErrUnsupported.
func (reg *Registry) LookupSuite(id CipherSuite) (*Suite, error) {
	for i := range suites {
		if suites[i].ID == id {
			return &suites[i], nil
		}
	}
	for i := range reg.CipherSuites {
		if reg.CipherSuites[i].ID == id {
			return &reg.CipherSuites[i], nil
		}
	}
	return nil, refuse(ErrUnsupported, "17.1", "cipher suite 0x%04x", uint16(id))
}

// Suites lists the registry numbers of all suites: 1 to 7, then those of the
// registry in their order.
func (reg *Registry) Suites() []CipherSuite {
	ids := make([]CipherSuite, 0, len(suites)+len(reg.CipherSuites))
	for i := range suites {
		ids = append(ids, suites[i].ID)
	}
	for i := range reg.CipherSuites {
		ids = append(ids, reg.CipherSuites[i].ID)
	}
	return ids
}

// validateSuites refuses a number with two meanings, or with none by RFC 9420.
func (reg *Registry) validateSuites() error {
	names := make(map[CipherSuite]string)
	for i := range suites {
		names[suites[i].ID] = suites[i].Name
	}
	for _, s := range reg.CipherSuites {
		if s.ID == 0 {
			return fmt.Errorf("cipher suite 0x0000 is reserved and cannot mean %s", s.Name)
		}
		if other, taken := names[s.ID]; taken {
			return fmt.Errorf("cipher suite 0x%04x means both %s and %s", uint16(s.ID), other, s.Name)
		}
		if want, err := NewSuite(s.ID, s.Name); err != nil {
			return err
		} else if want != s {
			return fmt.Errorf("cipher suite 0x%04x: %s is not of %s and %s", uint16(s.ID), s.Name, s.Hash, s.Signature)
		}
		names[s.ID] = s.Name
	}
	return nil
}
