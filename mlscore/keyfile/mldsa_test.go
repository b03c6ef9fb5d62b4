package keyfile_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"leavebroker/mlscore"
	"leavebroker/mlscore/keyfile"
)

var mldsaSchemes = []mlscore.SignatureScheme{mlscore.MLDSA44, mlscore.MLDSA65, mlscore.MLDSA87}

// TestMLDSAKeys: the keys in testdata are those of the seed 000102…1f, in the
// bytes of the examples of RFC 9881, Appendix C.1; the digests of their public
// keys are from the Python package dilithium-py 1.5.1.
func TestMLDSAKeys(t *testing.T) {
	for scheme, want := range map[mlscore.SignatureScheme]string{
		mlscore.MLDSA44: "9f107644c1084526af3bc8098680b05499a2325a644e388fb4f970e058d19d46",
		mlscore.MLDSA65: "d666806e11cee19a7c989f7445f90dd419cf4d2d51db8c0fdb4c0f0a542238c9",
		mlscore.MLDSA87: "91dc389cfaa01470b7f66eee45a4ae9026d154817c754dfe22298b3fa241ffcd",
	} {
		text, err := os.ReadFile(filepath.Join("testdata", scheme.String()+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		signer, err := keyfile.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		checkSigner(t, signer, scheme)
		if got := sha256.Sum256(signer.PublicKey()); hex.EncodeToString(got[:]) != want {
			t.Errorf("%s: SHA-256 of the public key is %x, want %s", scheme, got, want)
		}
		// What Generate writes differs in the seed alone.
		made, err := keyfile.Generate(scheme)
		if err != nil {
			t.Fatal(err)
		}
		theirs, _ := pem.Decode(text)
		ours, _ := pem.Decode(made)
		if n := len(theirs.Bytes) - 32; len(ours.Bytes) != len(theirs.Bytes) || !bytes.Equal(ours.Bytes[:n], theirs.Bytes[:n]) {
			t.Errorf("%s: written %x, want %x and a seed", scheme, ours.Bytes, theirs.Bytes[:n])
		}
	}
}

// TestMLDSAForms: of the three forms of RFC 9881, Section 6, that with the
// seed and the expanded key is taken if they agree, and that without the seed
// is not.
func TestMLDSAForms(t *testing.T) {
	marshal := func(v any) []byte {
		t.Helper()
		der, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	file := func(arc int, parameters []byte, private []byte) []byte {
		algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, arc}, Parameters: asn1.RawValue{FullBytes: parameters}}
		der := marshal(struct {
			Version    int
			Algorithm  pkix.AlgorithmIdentifier
			PrivateKey []byte
		}{0, algorithm, private})
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	type both struct{ Seed, Expanded []byte }
	expand := func(set sign.Scheme, seed []byte) []byte {
		_, key := set.DeriveKey(seed)
		b, err := key.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	seed, other := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	tagged := func(b []byte) []byte { return marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Bytes: b}) }
	expanded := expand(mldsa65.Scheme(), seed)

	for what, text := range map[string][]byte{
		"the seed": file(18, nil, tagged(seed)),
		"both":     file(18, nil, marshal(both{seed, expanded})),
	} {
		signer, err := keyfile.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		checkSigner(t, signer, mlscore.MLDSA65)
		want, err := mlscore.NewSigner(mlscore.MLDSA65, seed)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(signer.PublicKey(), want.PublicKey()) {
			t.Errorf("%s: another key", what)
		}
	}
	for what, c := range map[string]struct {
		text []byte
		want string
	}{
		"the expanded key alone":         {file(18, nil, marshal(expanded)), "without its seed"},
		"keys that do not agree":         {file(18, nil, marshal(both{other, expanded})), "not that of the seed"},
		"an expanded key of another set": {file(18, nil, marshal(both{seed, expand(mldsa44.Scheme(), seed)})), "not that of the seed"},
		"a short seed":                   {file(18, nil, tagged(seed[1:])), "31 bytes"},
		"a long seed":                    {file(18, nil, tagged(append(seed, 0))), "33 bytes"},
		"both with a short seed":         {file(18, nil, marshal(both{seed[1:], expanded})), "31 bytes"},
		"parameters":                     {file(18, []byte{5, 0}, tagged(seed)), "parameters"},
		"a byte after the seed":          {file(18, nil, append(tagged(seed), 0)), "follow"},
		"a byte after both":              {file(18, nil, append(marshal(both{seed, expanded}), 0)), "follow"},
		"another tag":                    {file(18, nil, marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, Bytes: seed})), "asn1"},
		"nothing":                        {file(18, nil, nil), "asn1"},
		"another algorithm":              {file(20, nil, tagged(seed)), "PKCS#8"},
	} {
		if signer, err := keyfile.Parse(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; want an error with %q", what, signer, err, c.want)
		}
	}
}
