package intents_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
	"leavebroker/mlscore/mlstest/biggroup"
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

// BenchmarkRestore: the State of a large group from its snapshot. x-ingest is the ratio to folding the GroupInfo alone, with the
// signatures of all leaves, on one core.
func BenchmarkRestore(b *testing.B) {
	for _, n := range storedSizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			policy, id, info, s := bigState(b, n)
			data := snapshotOf(b, s)
			b.ReportAllocs()
			b.ResetTimer()
			b.StopTimer()
			var ratios []float64
			for i := range b.N {
				b.StartTimer()
				start := time.Now()
				must[*intents.State](b)(intents.RestoreState(policy, id, data))
				restoring := time.Since(start)
				b.StopTimer()
				if start = time.Now(); i < 8 {
					intents.NewState(policy, id).Step(info)
					ratios = append(ratios, float64(restoring)/float64(time.Since(start)))
				}
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "x-ingest")
			b.ReportMetric(float64(len(data))/float64(len(s.Group().Tree().Bytes())), "x-tree")
		})
	}
}

// BenchmarkSnapshot: the stored form of the same State.
func BenchmarkSnapshot(b *testing.B) {
	for _, n := range storedSizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			_, _, _, s := bigState(b, n)
			b.ReportAllocs()
			for b.Loop() {
				b.SetBytes(int64(len(snapshotOf(b, s))))
			}
		})
	}
}

var storedSizes = []int{16, 256, 4096, 65536}

// bigState is the State of a group of n members after its GroupInfo, which the
// delivery service vouches for, and eight commits.
func bigState(b *testing.B, n int) (policy *intents.Policy, id []byte, info intents.Input, s *intents.State) {
	g := must[*biggroup.Group](b)(biggroup.New(biggroup.Config{Suite: 1, Members: n, Seed: uint64(n)}))
	context := g.Context()
	policy, id = &intents.Policy{InfoTrustDS: true}, context.GroupID
	info = intents.Input{Seq: 1, Kind: intents.KindInfo, Data: must[[]byte](b)(g.GroupInfo())}
	s, _ = intents.NewState(policy, id).Step(info)
	for i := range uint64(8) {
		commit := must[biggroup.Handshake](b)(g.Commit(g.Member()))
		s, _ = s.Step(intents.Input{Seq: 2 + i, Kind: intents.KindCommit, Data: commit.Message})
	}
	return policy, id, info, s
}
