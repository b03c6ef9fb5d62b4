package intents_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore/member"
)

// Size is within a factor of two of the heap that a State keeps alive, whatever
// it is that fills it.
func TestSizeIsThatOfTheHeap(t *testing.T) {
	for name, play := range map[string]func(w *world){
		"open intents": func(w *world) {
			for i := range 30 {
				w.command([]string{"intent", fmt.Sprint("i", i), fmt.Sprint("by=user", i), fmt.Sprint("mode=", 1+i%2)})
			}
		},
		"outputs": func(w *world) {
			for i := range 30 {
				w.command([]string{"intent", fmt.Sprint("i", i), fmt.Sprint("by=user", i)})
			}
			w.store(w.state.Due(w.now).Propose)
		},
		"receipts": func(w *world) {
			w.sign("b", "user1", intents.SenderRemovalOnly)
			for i := range 500 {
				w.alter("x", map[string]string{"of": "b", "group": fmt.Sprint(i)})
				w.feed(intents.KindIntent, w.signed["x"])
			}
		},
		"removed": func(w *world) {
			for i := 31; i > 1; i-- {
				w.command([]string{"intent", fmt.Sprint("i", i), fmt.Sprint("by=user", i)})
				w.command([]string{"commit", "user0", fmt.Sprint("remove=user", i)})
			}
		},
		"parked": func(w *world) {
			w.sign("b", "user1", intents.SenderRemovalOnly)
			for i := range 500 {
				w.alter("x", map[string]string{"of": "b", "index": fmt.Sprint(1000 + i)})
				w.feed(intents.KindIntent, w.signed["x"])
			}
		},
		"departures": func(w *world) {
			for range 300 {
				w.command([]string{"commit", "user0"})
			}
		},
		"rivals": func(w *world) {
			for range 30 {
				w.command(strings.Fields("lie user1 refs=none"))
			}
		},
		"unproven": func(w *world) {
			info := must[[]byte](t)(w.any().GroupInfo())
			for range 100 {
				g, commit, err := w.client("eve").JoinExternal(info, member.ExternalJoinOptions{Resync: true})
				if err != nil {
					t.Fatal(err)
				}
				w.feed(intents.KindCommit, commit.Message)
				info = must[[]byte](t)(g.GroupInfo())
			}
		},
	} {
		w := newWorld(t, 1)
		w.policy.InfoTrustDS = true
		names := make([]string, 32)
		for i := range names {
			names[i] = fmt.Sprint("user", i)
		}
		w.create([]string{"broker"}, names...)
		w.feed(intents.KindInfo, must[[]byte](t)(w.any().GroupInfo()))
		if name != "open intents" && name != "outputs" && name != "removed" { // fewer to tell
			w.members = map[string]*member.Group{"user0": w.members["user0"], "user1": w.members["user1"]}
		}
		play(w)
		size := w.state.Size()
		before := liveHeap()
		state := foldCopies(w.policy, w.log)
		heap := int64(liveHeap() - before)
		ratio := float64(size) / float64(heap)
		t.Logf("%s: size %d, heap %d, ratio %.2f", name, size, heap, ratio)
		if ratio < 0.5 || ratio > 2 {
			t.Errorf("%s: size %d, heap %d", name, size, heap)
		}
		runtime.KeepAlive(state)
		runtime.KeepAlive(w)
	}
}

// foldCopies folds a log whose entries nobody else keeps.
func foldCopies(p *intents.Policy, log []intents.Input) *intents.State {
	s := intents.NewState(p, groupID)
	for _, in := range log {
		in.Data = append([]byte(nil), in.Data...)
		s, _ = s.Step(in)
	}
	return s
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one finalized or swept late
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
