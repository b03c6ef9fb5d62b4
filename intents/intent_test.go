package intents_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

func sample() *intents.LeafOperationIntent {
	return &intents.LeafOperationIntent{
		GroupID: []byte("group"), SenderIndex: 7, SenderLeafRef: bytes.Repeat([]byte{0xab}, 32),
		RemovalMode: intents.RemoveAssociatedMembers, Signature: bytes.Repeat([]byte{0xcd}, 64),
	}
}

// signed makes an intent in each suite, with the leaf that signed it.
func signed(t testing.TB, id mlscore.CipherSuite) (*mlscore.Suite, *mlscore.LeafNode, *intents.LeafOperationIntent) {
	t.Helper()
	suite, err := mlscore.DefaultRegistry().LookupSuite(id)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := mlscore.GenerateSigner(suite.Signature, countingReader(1))
	if err != nil {
		t.Fatal(err)
	}
	leaf := &mlscore.LeafNode{
		EncryptionKey: []byte("encryption key"), SignatureKey: signer.PublicKey(),
		Credential: mlscore.BasicCredential([]byte("alice")), Source: mlscore.LeafNodeSourceUpdate, Signature: []byte("s"),
	}
	in, err := intents.New(signer, suite, []byte("group"), 7, leaf, intents.SenderRemovalOnly)
	if err != nil {
		t.Fatal(err)
	}
	return suite, leaf, in
}

// countingReader gives the bytes n, n+1, …: reproducible keys.
type countingReader byte

func (c countingReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(c) + byte(i)
	}
	return len(b), nil
}

func at(index mlscore.LeafIndex, leaf *mlscore.LeafNode) func(mlscore.LeafIndex) *mlscore.LeafNode {
	return func(i mlscore.LeafIndex) *mlscore.LeafNode {
		if i == index {
			return leaf
		}
		return nil
	}
}

func TestSignAndVerify(t *testing.T) {
	for _, id := range mlscore.DefaultRegistry().Suites() {
		suite, leaf, in := signed(t, id)
		parsed, err := intents.ParseMessage(in.Message(intents.DefaultWireFormat), intents.DefaultWireFormat)
		if err != nil {
			t.Fatal(err)
		}
		if err := parsed.Verify(suite, []byte("group"), at(7, leaf)); err != nil {
			t.Errorf("suite %d: %v", id, err)
		}
		if err := parsed.Verify(suite, []byte("group"), at(8, leaf)); !errors.Is(err, intents.ErrLeafRefMismatch) {
			t.Errorf("suite %d, no leaf at the index: %v", id, err)
		}
		parsed.SenderIndex++
		if err := parsed.Verify(suite, []byte("group"), at(8, leaf)); !errors.Is(err, intents.ErrBadSignature) {
			t.Errorf("suite %d, index changed: %v", id, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	suite, leaf, _ := signed(t, 1)
	own, _ := mlscore.GenerateSigner(suite.Signature, countingReader(1))
	other, _ := mlscore.GenerateSigner(suite.Signature, countingReader(2))
	p256, _ := mlscore.GenerateSigner(mlscore.ECDSAWithP256AndSHA256, countingReader(1))
	for name, try := range map[string]func() error{
		"another's key":    func() error { _, err := intents.New(other, suite, nil, 0, leaf, 1); return err },
		"another scheme":   func() error { _, err := intents.New(p256, suite, nil, 0, leaf, 1); return err },
		"an unknown mode":  func() error { _, err := intents.New(own, suite, nil, 0, leaf, 3); return err },
		"the reserved one": func() error { _, err := intents.New(own, suite, nil, 0, leaf, 0); return err },
	} {
		if try() == nil {
			t.Errorf("New accepts %s", name)
		}
	}
}

// TestOneEncoding: every form reads back, and no proper prefix or extension of
// it does.
func TestOneEncoding(t *testing.T) {
	in := sample()
	raw := intents.DefaultCodePoints()
	opaque := raw
	opaque.Body = intents.BodyOpaque
	for name, form := range map[string]struct {
		b     []byte
		parse func([]byte) (*intents.LeafOperationIntent, error)
	}{
		"bare":    {in.Bytes(), intents.Parse},
		"message": {in.Message(0xfe01), func(b []byte) (*intents.LeafOperationIntent, error) { return intents.ParseMessage(b, 0xfe01) }},
		"raw":     {raw.Proposal(&intents.LeafOperationProposal{Intent: in}).Body, inner(raw)},
		"opaque":  {opaque.Proposal(&intents.LeafOperationProposal{Intent: in}).Body, inner(opaque)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := form.parse(form.b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(in, got); diff != "" {
				t.Error(diff)
			}
			for n := range form.b {
				if _, err := form.parse(form.b[:n]); !errors.Is(err, intents.ErrMalformed) {
					t.Errorf("%d of %d bytes: %v", n, len(form.b), err)
				}
			}
			if _, err := form.parse(append(bytes.Clone(form.b), 0)); !errors.Is(err, intents.ErrMalformed) {
				t.Errorf("with a byte more: %v", err)
			}
		})
	}
}

func inner(c intents.CodePoints) func([]byte) (*intents.LeafOperationIntent, error) {
	return func(b []byte) (*intents.LeafOperationIntent, error) {
		p, err := c.ParseProposal(b)
		if err != nil {
			return nil, err
		}
		return p.Intent, nil
	}
}

// TestProposalInRegistry: the core finds the end of both bodies, so the
// proposal survives inside a list.
func TestProposalInRegistry(t *testing.T) {
	for _, body := range []intents.Body{intents.BodyRaw, intents.BodyOpaque} {
		c := intents.DefaultCodePoints()
		c.Body = body
		reg := mlscore.DefaultRegistry()
		reg.Custom = []mlscore.CustomProposal{c.CustomProposal()}
		if err := reg.Validate(); err != nil {
			t.Fatal(err)
		}
		b := c.Proposal(&intents.LeafOperationProposal{Intent: sample()}).Bytes()
		b = append(b, (&mlscore.Proposal{Type: mlscore.ProposalTypeRemove, Removed: 3}).Bytes()...)
		r := codec.NewReader(b)
		first, second := mlscore.ReadProposal(r, reg), mlscore.ReadProposal(r, reg)
		if err := r.Finish(); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if first.Type != c.ProposalType || second.Removed != 3 {
			t.Errorf("%s: read %v, then %v", body, first.Type, second.Type)
		}
		p, err := c.ParseProposal(first.Body)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sample(), p.Intent); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
}

func TestParseBody(t *testing.T) {
	for _, body := range []intents.Body{intents.BodyRaw, intents.BodyOpaque} {
		if got, err := intents.ParseBody(body.String()); err != nil || got != body {
			t.Errorf("ParseBody(%q) = %v, %v", body, got, err)
		}
	}
	if _, err := intents.ParseBody("Raw"); err == nil {
		t.Error("ParseBody takes any name")
	}
}

func TestWrongWireFormat(t *testing.T) {
	b := sample().Message(0xfe01)
	if _, err := intents.ParseMessage(b, intents.DefaultWireFormat); !errors.Is(err, intents.ErrMalformed) {
		t.Errorf("another wire format: %v", err)
	}
	b[1] = 2
	if _, err := intents.ParseMessage(b, 0xfe01); !errors.Is(err, intents.ErrMalformed) {
		t.Errorf("another version: %v", err)
	}
}

// TestID: the identifier is of tenant and TBS, whatever the signature.
func TestID(t *testing.T) {
	in := sample()
	const want = "1c024e2628df010301472086a06f7196c1189c2e72e198e3a9b36b8c5d95fa4c"
	if got := in.ID("default"); got != want {
		t.Errorf("id %s, want %s", got, want)
	}
	other := sample()
	other.Signature = []byte("another")
	if other.ID("default") != in.ID("default") {
		t.Error("the signature changes the id")
	}
	if in.ID("other") == in.ID("default") {
		t.Error("the tenant does not change the id")
	}
}

func TestReason(t *testing.T) {
	for err, want := range map[error]string{
		nil: "", errors.New("x"): "error", intents.ErrMalformed: "malformed", intents.ErrUnsupportedMode: "unsupported_mode",
		intents.ErrGroupMismatch: "group_mismatch", intents.ErrLeafRefMismatch: "leaf_ref_mismatch", intents.ErrBadSignature: "bad_signature",
	} {
		if got := intents.Reason(err); got != want {
			t.Errorf("Reason(%v) = %q, want %q", err, got, want)
		}
	}
}
