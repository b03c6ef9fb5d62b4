package broker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore/member"
)

// An instance that stood still while another took its partition learns it, says
// so, and does no harm: here it is the other that writes the owner's record.
func TestStaleOwnerIsFenced(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions = 1 })
	w.found("alice", "bob", "carol")
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
	w.noWork()
	o := w.broker.all[0]
	ctx := testContext(t)
	r, rev, err := w.broker.records.owner(ctx, o.group.names.ownerKey(0))
	if err != nil || r.Instance != "first" {
		t.Fatalf("%+v %v", r, err)
	}
	r.Instance = "another"
	if _, err := w.broker.records.putOwner(ctx, o.group.names.ownerKey(0), r, rev); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is fenced", func() bool { return w.broker.metrics.fenced.Load() == 1 })
	w.empty(0)
	proposals := w.awaitOutput(w.epoch(), 1) // taken back when the other is silent, or by a message
	w.fanOut(proposals)
	w.commit(2, member.CommitOptions{})
	w.await("removed", ofType(intents.StateRemoved, ""))
	w.checkOutputs()
}

// An instance whose view of the ledger lags takes no partition from one that
// lives.
func TestLateInstanceTakesNothing(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions, o.PinTTL = 1, 6*time.Second })
	awaitSpread(t, w)
	o := w.broker.all[0]
	ctx := testContext(t)
	r, rev, err := w.broker.records.owner(ctx, o.group.names.ownerKey(0))
	if err != nil {
		t.Fatal(err)
	}
	defer o.begin()()
	o.holds.Store(false)
	r.Instance = "another"
	if _, err := w.broker.records.putOwner(ctx, o.group.names.ownerKey(0), r, rev); err != nil {
		t.Fatal(err)
	}
	w.broker.members.hear(heartbeat{Instance: "another", Started: 1}, time.Now())
	if err := o.claim(ctx, 0); !errors.Is(err, errConflict) || o.holds.Load() {
		t.Errorf("the partition of one that lives: %v", err)
	}
	w.broker.members.hear(heartbeat{Instance: "another", Started: 1, Leaving: true}, time.Now())
	if err := o.claim(ctx, 0); !errors.Is(err, errConflict) || o.holds.Load() {
		t.Errorf("the partition of one that leaves and has not given it up: %v", err)
	}
}

// What an instance finds open after it lost the partition is not passed over by
// the one that has it: here the server takes an intent as done with that the
// owner has not folded.
func TestWhatAnotherFoundOpenIsWorkedOn(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions, o.AckWait = 1, time.Minute })
	w.found("alice", "bob", "carol")
	w.noWork()
	o, ctx := w.broker.all[0], testContext(t)
	done := o.begin()
	o.lostPin = o.pin // what comes now is not the owner's
	seq, handled := w.publish(kindIntent, w.leave(1, intents.SenderRemovalOnly)), o.handled.Load()
	h := must[*history](t)(w.broker.load(ctx, w.key(), w.broker.tenants[w.tenant], seq, nil))
	if _, _, err := w.broker.settle(ctx, h.group); err != nil {
		t.Fatal(err)
	}
	w.eventually("the intent is here", func() bool {
		c, err := o.consumer(ctx)
		return err == nil && c.CachedInfo().NumAckPending == 1
	})
	if err := o.reset(ctx, seq); err != nil {
		t.Fatal(err)
	}
	done()
	w.eventually("the intent is put back", func() bool { return o.handled.Load() > handled })
	done = o.begin()
	o.lostPin, o.delivery = "", 0 // nothing tells that a message is missing
	done()
	w.fanOut(w.awaitOutput(w.epoch(), 1))
	w.commit(2, member.CommitOptions{})
	w.noWork()
	if w.broker.open.has(w.key()) {
		t.Fatal("the group is open here")
	}
	must[ledgerEntry](t)(w.broker.ledger.put(ctx, w.key(), h.group.ledger, remember(h.group.state)))
	w.await("removed", ofType(intents.StateRemoved, ""))
	w.empty(0)
	w.await("confirmed", ofType(intents.NoticeConfirmed, ""))
	w.checkOutputs()
}

// A checkpoint whose answer is lost does not keep the next from being written.
func TestCheckpointWithoutAnswer(t *testing.T) {
	var lose atomic.Bool
	w := newCluster(t, func(o *Options) {
		o.Partitions = 1
		o.testOnlyFault = func(step string) error {
			if step == "owner reply" && lose.Swap(false) {
				return errUnavailable
			}
			return nil
		}
	})
	w.found("alice", "bob", "carol")
	lose.Store(true)
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.eventually("the answer to a checkpoint is lost", func() bool { return !lose.Load() })
	w.empty(0)
	w.awaitOutput(w.epoch(), 1)
	w.noWork()
	o := w.broker.all[0]
	w.eventually("a checkpoint of all that was done is written", func() bool {
		r, _, err := w.broker.records.owner(testContext(t), o.group.names.ownerKey(0))
		defer o.begin()()
		return err == nil && r.Position == o.position
	})
}

// An instance that was not told yet that another has claimed the partition after
// it asks before it works on the first message: what the other found open is not
// passed over.
func TestClaimIsConfirmed(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions, o.PinTTL = 1, time.Minute })
	w.found("alice", "bob", "carol")
	w.noWork()
	o, ctx := w.broker.all[0], testContext(t)
	done := o.begin()
	o.pin = "" // as one that has just claimed it
	seq, handled := w.publish(kindIntent, w.leave(1, intents.SenderRemovalOnly)), o.handled.Load()
	key := o.group.names.ownerKey(0)
	term := must[uint64](t)(w.broker.records.putOwner(ctx, key, ownerRecord{Version: ownerVersion, Instance: "another", Position: seq - 1}, o.lastWritten()))
	h := must[*history](t)(w.broker.load(ctx, w.key(), w.broker.tenants[w.tenant], seq, nil))
	must[ledgerEntry](t)(w.broker.ledger.put(ctx, w.key(), h.group.ledger, remember(h.group.state)))
	w.eventually("the ledger is read", func() bool { return o.sawRevision(ctx, term, 0) })
	o.holds.Store(true) // as if it were not
	o.b.open.set(w.key(), false, 0, h.group.ledger.rev+1000)
	done()
	w.eventually("the partition is claimed again", func() bool {
		r, rev, err := w.broker.records.owner(ctx, key)
		return err == nil && rev > term && r.Instance == w.opts.Instance
	})
	w.eventually("the intent is worked on", func() bool { return o.handled.Load() > handled })
	if !w.broker.open.has(w.key()) {
		t.Error("the group is not open here")
	}
	w.awaitOutput(w.epoch(), 1)
	w.checkOutputs()
}

// A partition that another has claimed is given up at the next checkpoint, if
// nothing has told before.
func TestCheckpointTellsOfAnother(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions, o.PinTTL = 1, time.Minute })
	w.found("alice", "bob", "carol")
	w.noWork()
	o, ctx := w.broker.all[0], testContext(t)
	defer o.begin()()
	key := o.group.names.ownerKey(0)
	term := must[uint64](t)(w.broker.records.putOwner(ctx, key, ownerRecord{Version: ownerVersion, Instance: "another"}, o.lastWritten()))
	w.eventually("the ledger is read", func() bool { return o.sawRevision(ctx, term, 0) })
	o.recMu.Lock() // as if it were not
	o.seen, o.seenRev = o.recorded, o.term
	o.recMu.Unlock()
	o.holds.Store(true)
	o.position++
	if err := o.checkpointNow(ctx); !errors.Is(err, errConflict) || o.holds.Load() {
		t.Errorf("a checkpoint of a partition that is another's: %v", err)
	}
}

// The ledger is read on where a watch of it ended or has to be made anew.
func TestWatchIsMadeAnew(t *testing.T) {
	w := newCluster(t, nil)
	ctx := testContext(t)
	w.stop() // it would say that the groups are not open
	opts := w.opts
	opts.Instance = "watching"
	b := must[*Broker](t)(New(opts))
	defer b.Close()
	for _, step := range []func(context.Context) error{b.ensure, b.watchLedger} {
		if err := step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		k := groupKey{w.tenant, GroupToken(fmt.Appendf(nil, "group %d", i))}
		must[ledgerEntry](t)(b.ledger.put(ctx, k, ledgerEntry{}, remembered{Version: ledgerVersion, Open: true}))
		if i%10 == 0 {
			select {
			case b.reconnected <- struct{}{}:
			default:
			}
		}
	}
	w.eventually("all is read", func() bool {
		groups, _ := b.Summary()
		return groups == 200
	})
}

// losePartition takes a partition from its owner, whose last checkpoint was at a
// position. The caller holds work.
func (w *world) losePartition(o *owner, position uint64) {
	w.t.Helper()
	behind := o.recorded
	behind.Position = position
	if err := o.writeRecord(testContext(w.t), behind, o.lastWritten()); err != nil {
		w.t.Fatal(err)
	}
	o.holds.Store(false)
	o.forget()
}

// A partition is not held before the consumer has gone back to where the last
// checkpoint is: what lies between would be missing in memory.
func TestClaimWithoutReset(t *testing.T) {
	for _, step := range []string{"reset", "reset reply"} {
		t.Run(step, func(t *testing.T) {
			f := &fault{step: step, n: 1}
			w := newCluster(t, func(o *Options) { o.Partitions, o.testOnlyFault = 1, f.inject })
			w.found("alice", "bob", "carol")
			w.submit(w.leave(1, intents.SenderRemovalOnly))
			w.awaitOutput(w.epoch(), 1)
			w.empty(0)
			w.awaitOutput(w.epoch(), 1)
			w.noWork()
			o, ctx := w.broker.all[0], testContext(t)
			done := o.begin()
			w.losePartition(o, 1)
			if err := o.claim(ctx, 0); err == nil || errors.Is(err, errReset) || o.holds.Load() {
				t.Errorf("a claim whose reset is lost: %v, holds %v", err, o.holds.Load())
			}
			done()
			w.empty(0)
			w.fanOut(w.awaitOutput(w.epoch(), 1))
			w.commit(2, member.CommitOptions{})
			w.await("removed", ofType(intents.StateRemoved, ""))
			w.checkOutputs()
		})
	}
}

// What a server that lags gives of a log is not taken for all of it.
func TestLogOfALaggingServer(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions = 1 })
	w.found("alice", "bob", "carol")
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
	w.noWork()
	o, ctx := w.broker.all[0], testContext(t)
	defer o.begin()()
	log := o.group.log
	defer func() { o.group.log = log }()
	remembered := must[ledgerEntry](t)(w.broker.ledger.get(ctx, w.key()))
	tenant := w.broker.tenants[w.tenant]
	for _, at := range []struct {
		upTo   uint64
		inHand uint64
		stale  bool
	}{
		{remembered.Position - 1, 0, true}, {remembered.Position, 0, false},
		{remembered.Position, remembered.Position, false}, {remembered.Position, remembered.Position + 10, true},
	} {
		o.group.log = laggingLog{log, at.upTo}
		o.forget()
		var in *received
		if at.inHand > 0 {
			in = &received{entry: entry{seq: at.inHand}, key: w.key(), kind: kindCommit, tenant: tenant}
		}
		if _, err := o.take(ctx, w.key(), tenant, in); errors.Is(err, errLags) != at.stale {
			t.Errorf("up to %d of %d, in hand %d: %v", at.upTo, remembered.Position, at.inHand, err)
		}
	}
}

// laggingLog is a log as it was when it ended at a sequence.
type laggingLog struct {
	journal
	end uint64
}

func (l laggingLog) read(ctx context.Context, filter string, from uint64, each func(entry) error) error {
	return l.journal.read(ctx, filter, from, func(e entry) error {
		if e.seq > l.end {
			return nil
		}
		return each(e)
	})
}
