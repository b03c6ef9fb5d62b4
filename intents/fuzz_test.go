package intents_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/mlstest"
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
		var in *intents.LeafOperationIntent
		var err error
		mlstest.CheckAllocation(t, len(b), mlstest.DecodingFactor, func() { in, err = intents.Parse(b) })
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
		var in *intents.LeafOperationIntent
		var err error
		mlstest.CheckAllocation(t, len(b), mlstest.DecodingFactor, func() { in, err = intents.ParseMessage(b, intents.DefaultWireFormat) })
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
		var p *intents.LeafOperationProposal
		var err error
		mlstest.CheckAllocation(t, len(b), mlstest.DecodingFactor, func() { p, err = c.ParseProposal(b) })
		if err == nil && !bytes.Equal(c.Proposal(p).Body, b) {
			t.Fatalf("%x re-encodes as %x", b, c.Proposal(p).Body)
		}
	})
}

// FuzzStep folds any input into a group with open intents: it never panics,
// leaves the state before it as it was, and what was verified stays so.
func FuzzStep(f *testing.F) {
	w := newWorld(f, 1)
	w.policy.InfoTrustDS = true
	for _, line := range []string{
		"create alice/1 bob alice/2 carol", "info bob", "intent a mode=2 by=alice/1", "intent b by=bob", "act",
		"answer a associated=2 undecided=1 unrelated=3", "control approve a", "update carol", "commit carol refs=none", "join dora", "act",
	} {
		w.command(strings.Fields(line))
	}
	for _, in := range w.log {
		f.Add(byte(in.Kind), in.Data)
	}
	f.Add(byte(intents.KindClosed), []byte(`{"reason":"deleted"}`))
	f.Add(byte(intents.KindControl), []byte(`{"op":"reset"}`))
	before := describe(w.state, w.now)
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		var s *intents.State
		mlstest.CheckAllocation(t, len(data), mlstest.DecodingFactor, func() {
			s, _ = w.state.Step(intents.Input{Seq: w.seq + 1, Time: w.now, Kind: intents.Kind(kind), Data: data})
		})
		if after := describe(w.state, w.now); after != before {
			t.Fatalf("the state before changed:\n%s\nwas\n%s", after, before)
		}
		describe(s, w.now)
		s.Step(intents.Input{Seq: w.seq + 2, Time: w.now, Kind: intents.KindInfo, Data: data})
	})
}
