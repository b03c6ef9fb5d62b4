package mlscore

import (
	"bytes"
	"testing"

	"leavebroker/mlscore/mlstest"
)

// TestCryptoBasicsVectors: what an observer uses of a cipher suite.
func TestCryptoBasicsVectors(t *testing.T) {
	var cases []struct {
		CipherSuite CipherSuite `json:"cipher_suite"`
		RefHash     struct {
			Label string      `json:"label"`
			Value mlstest.Hex `json:"value"`
			Out   mlstest.Hex `json:"out"`
		} `json:"ref_hash"`
		SignWithLabel struct {
			Label     string      `json:"label"`
			Content   mlstest.Hex `json:"content"`
			Private   mlstest.Hex `json:"priv"`
			Public    mlstest.Hex `json:"pub"`
			Signature mlstest.Hex `json:"signature"`
		} `json:"sign_with_label"`
	}
	mlstest.JSON(t, "mlswg/crypto-basics.json", &cases)
	seen := make(map[CipherSuite]bool)
	for _, c := range cases {
		suite := mustSuite(t, c.CipherSuite)
		seen[c.CipherSuite] = true
		if got := suite.RefHash(c.RefHash.Label, c.RefHash.Value); !bytes.Equal(got, c.RefHash.Out) {
			t.Errorf("suite %d: RefHash is %x, want %x", suite.ID, got, []byte(c.RefHash.Out))
		}
		s := c.SignWithLabel
		if err := suite.VerifyWithLabel(s.Public, s.Label, s.Content, s.Signature); err != nil {
			t.Errorf("suite %d: %v", suite.ID, err)
		}
		checkSigner(t, suite, s.Private, s.Public, s.Label, s.Content)
		checkSignatureRefusals(t, suite, s.Public, s.Label, s.Content, s.Signature)
	}
	for _, id := range Suites() {
		if !seen[id] {
			t.Errorf("no case for suite %d", id)
		}
	}
}

// checkSigner signs with a private key and verifies that.
func checkSigner(t *testing.T, suite *Suite, private, public []byte, label string, content []byte) {
	t.Helper()
	signer, err := NewSigner(suite.Signature, private)
	if err != nil {
		t.Fatalf("suite %d: %v", suite.ID, err)
	}
	if !bytes.Equal(signer.PublicKey(), public) || signer.Scheme() != suite.Signature {
		t.Errorf("suite %d: public key %x of scheme %s, want %x", suite.ID, signer.PublicKey(), signer.Scheme(), public)
	}
	first, err := SignWithLabel(signer, label, content)
	if err != nil {
		t.Fatalf("suite %d: %v", suite.ID, err)
	}
	if err := suite.VerifyWithLabel(public, label, content, first); err != nil {
		t.Errorf("suite %d: our signature: %v", suite.ID, err)
	}
	if again, err := SignWithLabel(signer, label, content); err != nil || !bytes.Equal(first, again) {
		t.Errorf("suite %d: signing again gives %x, %v; want %x", suite.ID, again, err, first)
	}
}

func checkSignatureRefusals(t *testing.T, suite *Suite, public []byte, label string, content, signature []byte) {
	t.Helper()
	flip := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 1
		return b
	}
	for name, err := range map[string]error{
		"another label":      suite.VerifyWithLabel(public, label+"x", content, signature),
		"another content":    suite.VerifyWithLabel(public, label, flip(content, 0), signature),
		"another signature":  suite.VerifyWithLabel(public, label, content, flip(signature, len(signature)-1)),
		"a short signature":  suite.VerifyWithLabel(public, label, content, signature[:len(signature)-1]),
		"a long signature":   suite.VerifyWithLabel(public, label, content, append(bytes.Clone(signature), 0)),
		"no signature":       suite.VerifyWithLabel(public, label, content, nil),
		"another public key": suite.VerifyWithLabel(flip(public, len(public)-1), label, content, signature),
		"a short public key": suite.VerifyWithLabel(public[1:], label, content, signature),
		"no public key":      suite.VerifyWithLabel(nil, label, content, signature),
	} {
		if Reason(err) != "invalid" {
			t.Errorf("suite %d: %s: got %v", suite.ID, name, err)
		}
	}
	if err := suite.CheckSignatureKey(public); err != nil {
		t.Errorf("suite %d: %v", suite.ID, err)
	}
	if err := suite.CheckSignatureKey(public[1:]); Reason(err) != "invalid" {
		t.Errorf("suite %d: a short key: %v", suite.ID, err)
	}
}

func TestUnknownSuite(t *testing.T) {
	for _, id := range []CipherSuite{0, 8, 0x0a0a, 0xffff} {
		if _, err := LookupSuite(id); Reason(err) != "unsupported" {
			t.Errorf("suite %d: %v", id, err)
		}
	}
}
