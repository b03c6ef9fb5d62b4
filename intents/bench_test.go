package intents_test

import (
	"fmt"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// BenchmarkCommit measures a commit with a path in a group of 256, against the
// staging alone, with no intent, one, and 128.
func BenchmarkCommit(b *testing.B) {
	for _, pending := range []int{0, 1, 128} {
		w := newWorld(b, 1)
		w.policy.InfoTrustDS = true
		names := make([]string, 256)
		for i := range names {
			names[i] = fmt.Sprintf("user%d", i)
		}
		w.create([]string{"broker"}, names...)
		w.feed(intents.KindInfo, must[[]byte](b)(w.any().GroupInfo()))
		for i := range pending {
			w.command([]string{"intent", fmt.Sprintf("i%d", i), "by=" + names[i+1]})
		}
		message := w.commitOf(names[0], member.CommitOptions{References: [][]byte{}})
		in := intents.Input{Seq: w.seq + 1, Time: w.now, Kind: intents.KindCommit, Data: message}
		b.Run(fmt.Sprintf("pending=%d", pending), func(b *testing.B) {
			for b.Loop() {
				next, notices := w.state.Step(in)
				if len(notices) > 0 {
					b.Fatal(notices)
				}
				if due := next.Due(w.now); (due.Propose != nil) != (pending > 0) {
					b.Fatalf("%+v", due)
				}
			}
		})
		if pending > 0 {
			continue
		}
		b.Run("staging alone", func(b *testing.B) {
			for b.Loop() {
				m := must[*mlscore.MLSMessage](b)(mlscore.ParseMLSMessage(message, nil))
				must[*mlscore.Staged](b)(w.state.Group().Stage(m))
			}
		})
	}
}

// BenchmarkIntent measures the folding of an intent, against the verification
// of its signature, with none and 200 others pending.
func BenchmarkIntent(b *testing.B) {
	w := newWorld(b, 1)
	w.policy.InfoTrustDS = true
	names := make([]string, 256)
	for i := range names {
		names[i] = fmt.Sprintf("user%d", i)
	}
	w.create([]string{"broker"}, names...)
	w.feed(intents.KindInfo, must[[]byte](b)(w.any().GroupInfo()))
	w.sign("x", names[1], intents.SenderRemovalOnly)
	message := w.signed["x"]
	in := must[*intents.LeafOperationIntent](b)(intents.ParseMessage(message, intents.DefaultWireFormat))
	b.Run("verification alone", func(b *testing.B) {
		for b.Loop() {
			if err := in.Verify(w.suite, groupID, w.state.Group().Tree().Leaf); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, pending := range []int{0, 200} {
		for i := range pending {
			w.command([]string{"intent", fmt.Sprintf("i%d", i), "by=" + names[i+2]})
		}
		b.Run(fmt.Sprintf("pending=%d", pending), func(b *testing.B) {
			for b.Loop() {
				next, _ := w.state.Step(intents.Input{Seq: w.seq + 1, Time: w.now, Kind: intents.KindIntent, Data: message})
				next.Due(w.now)
			}
		})
	}
}
