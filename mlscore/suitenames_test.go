package mlscore

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"testing"
)

// TestSuiteTables: each row says what its name says.
func TestSuiteTables(t *testing.T) {
	for _, row := range slices.Concat(suites[:], draftSuites[:]) {
		if got, err := NewSuite(row.ID, row.Name); err != nil || got != row {
			t.Errorf("%s: %+v, %v; the table has %+v", row.Name, got, err, row)
		}
	}
	if err := DefaultRegistry().Validate(); err != nil {
		t.Error(err)
	}
}

func TestNewSuite(t *testing.T) {
	// Numbers and compositions of others.
	for name, want := range map[string]Suite{
		"MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519": {Hash: crypto.SHA256, Signature: Ed25519},
		"MLS_256_MLKEM1024_AES256GCM_SHA512_MLDSA87":    {Hash: crypto.SHA512, Signature: MLDSA87},
		"MLS_128_NEWKEM_NEWAEAD_SHA512_Ed448":           {Hash: crypto.SHA512, Signature: Ed448},
	} {
		want.ID, want.Name = 0x004d, name
		if got, err := NewSuite(0x004d, name); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{
		"", "MLS", "MLS_128_MLKEM768_AES256GCM_SHA384", "MLS_128_MLKEM768_AES256GCM_SHA384_MLDSA65_", "TLS_128_MLKEM768_AES256GCM_SHA384_MLDSA65",
		"MLS_128_MLKEM768_AES256GCM_SHA3_MLDSA65", "MLS_128_MLKEM768_AES256GCM_SHA384_MLDSA99", "MLS_128_MLKEM768_AES256GCM__MLDSA65",
		"mls_128_mlkem768_aes256gcm_sha384_mldsa65",
	} {
		if got, err := NewSuite(0x004d, name); Reason(err) != "unsupported" {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
}

func TestRegistrySuites(t *testing.T) {
	named := func(id CipherSuite, name string) Suite {
		s, err := NewSuite(id, name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const name, other = "MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65", "MLS_256_MLKEM1024_AES256GCM_SHA384_MLDSA87"
	reg := &Registry{CipherSuites: []Suite{named(0x0051, name), named(8, other), named(0xf00a, name)}}
	if err := reg.Validate(); err != nil {
		t.Error(err)
	}
	if ids := reg.Suites(); !slices.Equal(ids, []CipherSuite{1, 2, 3, 4, 5, 6, 7, 0x51, 8, 0xf00a}) {
		t.Errorf("suites %v", ids)
	}
	if s, err := reg.LookupSuite(8); err != nil || s.Signature != MLDSA87 {
		t.Errorf("suite 8: %+v, %v", s, err)
	}
	if _, err := reg.LookupSuite(0xf00b); Reason(err) != "unsupported" {
		t.Errorf("a suite of the default registry: %v", err)
	}
	wrong := named(8, name)
	wrong.Signature = Ed25519
	for what, list := range map[string][]Suite{
		"reserved":          {named(0, name)},
		"a number of RFC's": {named(7, name)},
		"one number twice":  {named(8, name), named(8, other)},
		"no name":           {{ID: 8, Hash: crypto.SHA256, Signature: Ed25519}},
		"not of its name":   {wrong},
	} {
		if err := (&Registry{CipherSuites: list}).Validate(); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}

// TestMLDSAKnownAnswers compares with digests that the Python package
// dilithium-py 1.5.1 gave: of the public key of the seed 000102…1f, and of its
// deterministic signature over SignContent.
func TestMLDSAKnownAnswers(t *testing.T) {
	seed := make([]byte, 32)
	for i := range seed {
		seed[i] = byte(i)
	}
	for scheme, want := range map[SignatureScheme]struct {
		publicLen, signatureLen int
		public, signature       string
	}{
		MLDSA44: {1312, 2420, "9f107644c1084526af3bc8098680b05499a2325a644e388fb4f970e058d19d46", "994f6c6db8c542e94b9891276d313c44244a4e6c044e9940b3fcfe5de9c6a30a"},
		MLDSA65: {1952, 3309, "d666806e11cee19a7c989f7445f90dd419cf4d2d51db8c0fdb4c0f0a542238c9", "9104c76a28068cffc1507ba0c74f9a30eae75ebb2448abe007c87a6e01f63ad7"},
		MLDSA87: {2592, 4627, "91dc389cfaa01470b7f66eee45a4ae9026d154817c754dfe22298b3fa241ffcd", "d3ed72417e00ba67ed630205fac512c2a6ee32f86b84693d6bacbdb4d66fcfc7"},
	} {
		signer, err := NewSigner(scheme, seed)
		if err != nil {
			t.Fatal(err)
		}
		public, suite := signer.PublicKey(), &Suite{Hash: crypto.SHA384, Signature: scheme}
		signature, err := SignWithLabel(signer, "LeafNodeTBS", []byte("content"))
		if err != nil {
			t.Fatal(err)
		}
		if len(public) != want.publicLen || len(signature) != want.signatureLen {
			t.Errorf("%s: %d bytes of key, %d of signature", scheme, len(public), len(signature))
		}
		for what, pair := range map[string][2]string{"public key": {sha256Hex(public), want.public}, "signature": {sha256Hex(signature), want.signature}} {
			if pair[0] != pair[1] {
				t.Errorf("%s: SHA-256 of the %s is %s, want %s", scheme, what, pair[0], pair[1])
			}
		}
		if err := suite.VerifyWithLabel(public, "LeafNodeTBS", []byte("content"), signature); err != nil {
			t.Error(err)
		}
		checkSignatureRefusals(t, suite, public, "LeafNodeTBS", []byte("content"), signature)
		for _, n := range []int{0, 31, 33, 57} {
			if _, err := NewSigner(scheme, make([]byte, n)); Reason(err) != "invalid" {
				t.Errorf("%s: a seed of %d bytes: %v", scheme, n, err)
			}
		}
	}
}

// TestGenerateMLDSASigner: the given randomness is the seed.
func TestGenerateMLDSASigner(t *testing.T) {
	for _, scheme := range []SignatureScheme{MLDSA44, MLDSA65, MLDSA87} {
		seed := bytes.Repeat([]byte{7}, 32)
		got, err := GenerateSigner(scheme, bytes.NewReader(seed))
		if err != nil {
			t.Fatal(err)
		}
		want, err := NewSigner(scheme, seed)
		if err != nil {
			t.Fatal(err)
		}
		if got.Scheme() != scheme || !bytes.Equal(got.PublicKey(), want.PublicKey()) {
			t.Errorf("%s: another key", scheme)
		}
		if _, err := GenerateSigner(scheme, bytes.NewReader(seed[1:])); err == nil {
			t.Errorf("%s: too little randomness is enough", scheme)
		}
	}
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
