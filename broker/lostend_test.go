package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// keepLog stops the broker, keeps what its server has of the log, and starts it
// again. The result stops it and puts that back, then starts it: with the consumers
// as they are now, as they were, or with none.
func (w *world) keepLog() (loseEnd func(consumers string)) {
	w.t.Helper()
	w.noWork()
	w.stop()
	dirs := must[[]string](w.t)(filepath.Glob(filepath.Join(w.opts.Embedded.StateDir, "nats", "jetstream", "*", "streams", w.store().names.logStream())))
	if len(dirs) != 1 {
		w.t.Fatalf("the log is in %q", dirs)
	}
	kept := filepath.Join(w.t.TempDir(), "log")
	if err := os.CopyFS(kept, os.DirFS(dirs[0])); err != nil {
		w.t.Fatal(err)
	}
	w.start()
	return func(consumers string) {
		w.t.Helper()
		w.stop()
		if consumers != asTheyWere {
			if err := os.RemoveAll(filepath.Join(kept, "obs")); err != nil {
				w.t.Fatal(err)
			}
		}
		if consumers == asTheyAre {
			if err := os.Rename(filepath.Join(dirs[0], "obs"), filepath.Join(kept, "obs")); err != nil {
				w.t.Fatal(err)
			}
		}
		if err := errors.Join(os.RemoveAll(dirs[0]), os.CopyFS(dirs[0], os.DirFS(kept))); err != nil {
			w.t.Fatal(err)
		}
		w.start()
	}
}

const (
	asTheyAre  = "as they are"
	asTheyWere = "as they were"
	deleted    = "deleted"
)

// What the ledger has of a group may be beyond the end of a log that lost it. New
// intents are judged all the same, and the group goes on with a GroupInfo.
func TestLogLostItsEnd(t *testing.T) {
	for _, consumers := range []string{asTheyAre, asTheyWere, deleted} {
		t.Run(consumers, func(t *testing.T) {
			w := newWorld(t, func(o *Options) { o.Partitions = 1 })
			w.found("alice", "bob", "carol", "dave")
			loseEnd := w.keepLog()
			first := w.leave(1, intents.SenderRemovalOnly)
			w.submit(first)
			for range 5 {
				w.empty(0)
				w.fanOut(w.awaitOutput(w.epoch(), 1))
			}
			w.commit(2, member.CommitOptions{})
			w.await("removed", func(e event) bool { return e.Intent == w.id(first) && e.Type == intents.StateRemoved })
			w.noWork()

			loseEnd(consumers)
			second := w.leave(3, intents.SenderRemovalOnly)
			if v := w.submit(second); v.State != intents.StateHeld && v.State != intents.StateParked && v.State != intents.StatePending {
				t.Errorf("an intent after the end was lost: %+v", v)
			}
			w.await("a GroupInfo is needed", ofType(intents.NoticeNeedsGroupInfo, intents.ReasonReset))
			w.info()
			w.empty(0)
			w.fanOut(w.awaitOutput(w.epoch(), 3))
			w.commit(0, member.CommitOptions{})
			w.await("removed", func(e event) bool { return e.Intent == w.id(second) && e.Type == intents.StateRemoved })
			w.agree(0, 2)
		})
	}
}

// What a snapshot has of a group may be beyond the end of a log that lost it: it
// is not lost.
func TestLogLostItsEndBeforeASnapshot(t *testing.T) {
	for name, another := range map[string]bool{"nobody else leaves": false, "another leaves": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, compactsSoon)
			w.found("alice", "bob", "carol", "dave")
			loseEnd := w.keepLog()
			leavers, leaves := [][]byte{w.leave(1, intents.SenderRemovalOnly)}, []mlscore.LeafIndex{1}
			w.submit(leavers[0])
			for range 20 {
				w.empty(0)
				w.awaitOutput(w.epoch(), 1)
			}
			w.takeAll()
			w.awaitSnapshot(0)
			w.noWork()

			loseEnd(asTheyWere)
			stay := []mlscore.LeafIndex{0, 2, 3}
			if another {
				leavers, leaves, stay = append(leavers, w.leave(3, intents.SenderRemovalOnly)), append(leaves, 3), stay[:2]
				w.submit(leavers[1])
			}
			w.await("a GroupInfo is needed", ofType(intents.NoticeNeedsGroupInfo, intents.ReasonReset))
			w.info()
			w.empty(0)
			w.fanOut(w.awaitOutput(w.epoch(), leaves...))
			w.commit(2, member.CommitOptions{})
			for _, in := range leavers {
				w.await("removed", func(e event) bool { return e.Intent == w.id(in) && e.Type == intents.StateRemoved })
			}
			w.agree(stay...)
		})
	}
}

// Nor are intents lost whose sequences a snapshot has passed, whatever fails.
func TestIntentPassedByASnapshot(t *testing.T) {
	another := groupKey{testTenant, GroupToken([]byte("another"))}
	for _, at := range []struct {
		step    string // whose first write fails
		regrown bool   // others came before the intent is judged
	}{{"", false}, {"", true}, {"command", false}, {"command reply", false}, {"again", false}, {"again reply", false}} {
		t.Run(fmt.Sprintf("%s,%t", at.step, at.regrown), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, compactsSoon)
			w.found("alice", "bob", "carol")
			loseEnd := w.keepLog()
			for range 20 {
				w.empty(0)
			}
			s := w.awaitSnapshot(0)
			w.noWork()
			f := &fault{step: at.step, n: 1}
			w.opts.testOnlyFault = f.inject

			loseEnd(asTheyWere)
			in := w.leave(1, intents.SenderRemovalOnly)
			if seq := w.publish(kindIntent, in); seq > s.position {
				t.Fatalf("the intent has seq %d, the snapshot is of %d: the log has lost too little", seq, s.position)
			}
			for n := uint64(0); at.regrown && n < s.position; n++ {
				must[*jetstream.PubAck](t)(w.js.Publish(testContext(t), w.broker.names.in(another, kindCommit), []byte("no message")))
			}
			w.await("the intent is judged", func(e event) bool { return e.Intent == w.id(in) })
			if f.wasHit() != (at.step != "") {
				t.Error("the fault is not reached")
			}
			w.info()
			w.empty(0)
			w.fanOut(w.awaitOutput(w.epoch(), 1))
			w.commit(2, member.CommitOptions{})
			w.await("removed", ofType(intents.StateRemoved, ""))
			w.agree(0, 2)
		})
	}
}

// An intent is not lost either whose sequence a checkpoint has passed, if the
// consumer has to be made again.
func TestIntentPassedByACheckpoint(t *testing.T) {
	for _, consumers := range []string{asTheyAre, asTheyWere, deleted} {
		t.Run(consumers, func(t *testing.T) {
			w := newWorld(t, func(o *Options) { o.Partitions = 1 })
			w.found("alice", "bob", "carol")
			loseEnd := w.keepLog()
			for range 20 {
				w.empty(0)
			}
			w.noWork()
			loseEnd(consumers)
			in := w.leave(1, intents.SenderRemovalOnly)
			if v := w.submit(in); v.State != intents.StatePending && v.State != intents.StateHeld {
				t.Errorf("an intent after the end was lost: %+v", v)
			}
			w.info()
			w.empty(0)
			w.fanOut(w.awaitOutput(w.epoch(), 1))
			w.commit(2, member.CommitOptions{})
			w.await("removed", ofType(intents.StateRemoved, ""))
			w.agree(0, 2)
		})
	}
}

// A replicated consumer may be beyond the end of its log: it goes back there.
func TestConsumerBeyondTheLog(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions = 1 })
	w.found("alice", "bob", "carol")
	w.noWork()
	o, ctx := w.broker.all[0], testContext(t)
	defer o.begin()()
	at := must[progress](t)(o.feed.progress(ctx))
	o.feed = endsAt{o.feed, at.floor - 1}
	o.holds.Store(false)
	if err := o.claim(ctx, 0); !errors.Is(err, errReset) {
		t.Errorf("%v, want %v", err, errReset)
	}
	if o.position > at.floor-1 || o.redo != at.floor-1 {
		t.Errorf("position %d, redo %d, the log ends at %d", o.position, o.redo, at.floor-1)
	}
}

// endsAt is the feed of a log that has lost its end.
type endsAt struct {
	feed
	last uint64
}

func (f endsAt) end(context.Context) (uint64, error) { return f.last, nil }

// A position that no log can have had is a trouble of its group alone.
func TestPositionFarBeyondTheLog(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Partitions = 1 })
	w.found("alice", "bob", "carol")
	ctx := testContext(t)
	k := w.key()
	entry := must[ledgerEntry](t)(w.broker.ledger.get(ctx, k))
	must[ledgerEntry](t)(w.broker.ledger.put(ctx, k, entry, remembered{Version: ledgerVersion, Position: 1 << 60}))
	in := w.leave(1, intents.SenderRemovalOnly)
	w.publish(kindIntent, in)
	w.awaitTrouble(k, troubleEntry)

	entry = must[ledgerEntry](t)(w.broker.ledger.get(ctx, k))
	must[ledgerEntry](t)(w.broker.ledger.put(ctx, k, entry, remembered{Version: ledgerVersion, Open: true}))
	w.awaitOutput(w.epoch(), 1)
	w.noWork()
}
