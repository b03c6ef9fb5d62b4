package member

import (
	"bytes"
	"crypto/ecdh"
	stdhpke "crypto/hpke"
	"fmt"
	"testing"

	"leavebroker/mlscore"
)

// stdSuites are the KEM and KDF of suites as the standard library has them,
// which has no X448.
var stdSuites = map[mlscore.CipherSuite]struct {
	kem  stdhpke.KEM
	kdf  stdhpke.KDF
	aead stdhpke.AEAD
}{
	1:      {stdhpke.DHKEM(ecdh.X25519()), stdhpke.HKDFSHA256(), stdhpke.AES128GCM()},
	2:      {stdhpke.DHKEM(ecdh.P256()), stdhpke.HKDFSHA256(), stdhpke.AES128GCM()},
	3:      {stdhpke.DHKEM(ecdh.X25519()), stdhpke.HKDFSHA256(), stdhpke.ChaCha20Poly1305()},
	5:      {stdhpke.DHKEM(ecdh.P521()), stdhpke.HKDFSHA512(), stdhpke.AES256GCM()},
	7:      {stdhpke.DHKEM(ecdh.P384()), stdhpke.HKDFSHA384(), stdhpke.AES256GCM()},
	0xf001: {stdhpke.MLKEM768X25519(), stdhpke.HKDFSHA256(), stdhpke.AES128GCM()},
	0xf002: {stdhpke.MLKEM768X25519(), stdhpke.HKDFSHA384(), stdhpke.AES256GCM()},
	0xf006: {stdhpke.MLKEM768(), stdhpke.HKDFSHA384(), stdhpke.AES256GCM()},
	0xf008: {stdhpke.MLKEM1024(), stdhpke.HKDFSHA384(), stdhpke.AES256GCM()},
	0xf009: {stdhpke.MLKEM768X25519(), stdhpke.HKDFSHA384(), stdhpke.ChaCha20Poly1305()},
	0xf00a: {stdhpke.MLKEM768(), stdhpke.HKDFSHA384(), stdhpke.AES256GCM()},
	0xf00b: {stdhpke.MLKEM1024(), stdhpke.HKDFSHA384(), stdhpke.AES256GCM()},
}

// TestAgreesWithStandardLibrary: crypto/hpke derives the same keys, reads what
// we encrypt and writes what we decrypt.
func TestAgreesWithStandardLibrary(t *testing.T) {
	for id, std := range stdSuites {
		t.Run(fmt.Sprintf("suite%#x", id), func(t *testing.T) {
			s, random := mustSuite(t, id), seeded(id)
			ikm := must[[]byte](t)(s.randomSecret(random))
			ours := must[*privateKey](t)(s.deriveKeyPair(ikm))
			theirs := must[stdhpke.PrivateKey](t)(std.kem.DeriveKeyPair(ikm))
			equal(t, "public key", ours.public, theirs.PublicKey().Bytes())
			again := must[*privateKey](t)(s.parsePrivateKey(must[[]byte](t)(theirs.Bytes())))
			equal(t, "public key of the private key", again.public, ours.public)

			info, plaintext := encryptContext("label", []byte("context")), []byte("plaintext")
			c := must[mlscore.HPKECiphertext](t)(s.encryptWithLabel(random, ours.public, "label", []byte("context"), plaintext))
			recipient := must[*stdhpke.Recipient](t)(stdhpke.NewRecipient(c.KEMOutput, theirs, std.kdf, std.aead, info))
			equal(t, "what they decrypt", must[[]byte](t)(recipient.Open(nil, c.Ciphertext)), plaintext)

			enc, sender, err := stdhpke.NewSender(theirs.PublicKey(), std.kdf, std.aead, info)
			if err != nil {
				t.Fatal(err)
			}
			c = mlscore.HPKECiphertext{KEMOutput: enc, Ciphertext: must[[]byte](t)(sender.Seal(nil, plaintext))}
			equal(t, "what we decrypt", must[[]byte](t)(s.decryptWithLabel(ours, "label", []byte("context"), c)), plaintext)

			kemOutput, secret, err := s.externalInit(random, ours.public)
			if err != nil {
				t.Fatal(err)
			}
			recipient = must[*stdhpke.Recipient](t)(stdhpke.NewRecipient(kemOutput, theirs, std.kdf, std.aead, nil))
			equal(t, "init secret", must[[]byte](t)(recipient.Export(externalInitLabel, s.HashLen())), secret)
			equal(t, "our init secret", must[[]byte](t)(s.openExternalInit(ours, kemOutput)), secret)
		})
	}
}

// TestHPKERefusals: what is not of the KEM is refused, and what was changed
// does not decrypt.
func TestHPKERefusals(t *testing.T) {
	for _, id := range Suites(mlscore.DefaultRegistry()) {
		s := mustSuite(t, id)
		key := must[*privateKey](t)(s.generateKeyPair(seeded(id)))
		encrypt := func(public []byte) (mlscore.HPKECiphertext, error) {
			return s.encryptWithLabel(seeded(id), public, "label", nil, []byte("plaintext"))
		}
		good := must[mlscore.HPKECiphertext](t)(encrypt(key.public))
		if again := must[mlscore.HPKECiphertext](t)(encrypt(key.public)); !bytes.Equal(again.KEMOutput, good.KEMOutput) || !bytes.Equal(again.Ciphertext, good.Ciphertext) {
			t.Errorf("suite %#x: the randomness does not decide the ciphertext", id)
		}
		for _, public := range [][]byte{nil, key.public[1:], append(bytes.Clone(key.public), 0)} {
			if _, err := encrypt(public); mlscore.Reason(err) != "invalid" {
				t.Errorf("suite %#x: a public key of %d bytes: %v", id, len(public), err)
			}
		}
		for what, c := range map[string]mlscore.HPKECiphertext{
			"no kem_output":      {Ciphertext: good.Ciphertext},
			"a short kem_output": {KEMOutput: good.KEMOutput[1:], Ciphertext: good.Ciphertext},
			"a long kem_output":  {KEMOutput: append(bytes.Clone(good.KEMOutput), 0), Ciphertext: good.Ciphertext},
			"no ciphertext":      {KEMOutput: good.KEMOutput},
			"a short ciphertext": {KEMOutput: good.KEMOutput, Ciphertext: good.Ciphertext[1:]},
			"another kem_output": {KEMOutput: flip(good.KEMOutput, len(good.KEMOutput)/2), Ciphertext: good.Ciphertext},
			"another ciphertext": {KEMOutput: good.KEMOutput, Ciphertext: flip(good.Ciphertext, 0)},
		} {
			if _, err := s.decryptWithLabel(key, "label", nil, c); mlscore.Reason(err) != "invalid" {
				t.Errorf("suite %#x: %s: %v", id, what, err)
			}
		}
		if _, err := s.decryptWithLabel(key, "other", nil, good); mlscore.Reason(err) != "invalid" {
			t.Errorf("suite %#x: another label: %v", id, err)
		}
		if !s.postQuantum() {
			continue
		}
		// Coefficients that are no numbers modulo q (FIPS 203, Section 7.2).
		if _, err := encrypt(append([]byte{0xff, 0xff, 0xff}, key.public[3:]...)); mlscore.Reason(err) != "invalid" {
			t.Errorf("suite %#x: a public key that is not reduced: %v", id, err)
		}
		for _, n := range []int{0, s.scheme.SeedSize() - 1, s.scheme.SeedSize() + 1} {
			if _, err := s.parsePrivateKey(make([]byte, n)); mlscore.Reason(err) != "invalid" {
				t.Errorf("suite %#x: a private key of %d bytes: %v", id, n, err)
			}
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func TestSuites(t *testing.T) {
	reg := mlscore.DefaultRegistry()
	known := make(map[mlscore.CipherSuite]bool)
	for _, id := range Suites(reg) {
		known[id] = true
	}
	for _, id := range reg.Suites() {
		if want := id < 0xf003 || id > 0xf005; known[id] != want {
			t.Errorf("suite %#x: members can use it: %t", id, known[id])
		}
	}
	if _, err := lookupSuite(reg, 0xf003); mlscore.Reason(err) != "unsupported" {
		t.Errorf("a suite without member side: %v", err)
	}
	// A name that is only partly known.
	for _, name := range []string{"MLS_128_NEWKEM_AES128GCM_SHA256_Ed25519", "MLS_128_MLKEM768_NEWAEAD_SHA256_Ed25519"} {
		suite, err := mlscore.NewSuite(8, name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lookupSuite(&mlscore.Registry{CipherSuites: []mlscore.Suite{suite}}, 8); mlscore.Reason(err) != "unsupported" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
