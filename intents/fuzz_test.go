package intents_test

import (
	"bytes"
	"errors"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
)

func FuzzIntent(f *testing.F) {
	for i, v := range loiVectors(f) {
		if i%7 == 0 {
			f.Add([]byte(v.Intent))
		}
	}
	f.Add(sample().Bytes())
	suite, leaf, _ := signed(f, 2)
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := intents.Parse(b)
		if err != nil {
			if !errors.Is(err, intents.ErrMalformed) {
				t.Fatalf("unclassed error %v", err)
			}
			return
		}
		if !bytes.Equal(in.Bytes(), b) {
			t.Fatalf("%x re-encodes as %x", b, in.Bytes())
		}
		all := func(mlscore.LeafIndex) *mlscore.LeafNode { return leaf }
		if intents.Reason(in.Verify(suite, []byte("group"), all)) == "error" {
			t.Fatal("a refusal without a reason code")
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add(sample().Message(intents.DefaultWireFormat))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := intents.ParseMessage(b, intents.DefaultWireFormat)
		if err == nil && !bytes.Equal(in.Message(intents.DefaultWireFormat), b) {
			t.Fatalf("%x re-encodes as %x", b, in.Message(intents.DefaultWireFormat))
		}
	})
}

func FuzzProposal(f *testing.F) {
	for _, body := range []intents.Body{intents.BodyRaw, intents.BodyOpaque} {
		c := intents.CodePoints{Body: body}
		f.Add(c.Proposal(&intents.LeafOperationProposal{Intent: sample()}).Body, body == intents.BodyOpaque)
	}
	f.Fuzz(func(t *testing.T, b []byte, opaque bool) {
		c := intents.DefaultCodePoints()
		if opaque {
			c.Body = intents.BodyOpaque
		}
		p, err := c.ParseProposal(b)
		if err == nil && !bytes.Equal(c.Proposal(p).Body, b) {
			t.Fatalf("%x re-encodes as %x", b, c.Proposal(p).Body)
		}
	})
}
