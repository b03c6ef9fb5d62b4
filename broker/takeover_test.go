package broker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"leavebroker/intents"
	"leavebroker/mlscore/member"
)

// twoOnTheirWay publishes a commit that removes a leaver and one after it, and
// returns when the first is in the owner's hand, who does not work until done.
func (w *world) twoOnTheirWay(o *owner) (first, second uint64, done func()) {
	w.t.Helper()
	w.found("alice", "bob", "carol")
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	proposals := w.awaitOutput(w.epoch(), 1)
	w.noWork()
	done = o.begin()
	w.fanOut(proposals)
	first = w.publish(kindCommit, w.commitUnseen(2, member.CommitOptions{}))
	second = w.publish(kindCommit, w.commitUnseen(0, member.CommitOptions{References: [][]byte{}}))
	w.eventually("the first is on its way", func() bool {
		at, err := o.feed.progress(testContext(w.t))
		return err == nil && at == progress{floor: o.position, newest: first, inHand: 1}
	})
	return first, second, done
}

// A message that was on its way here when the consumer was reset to one before it
// is not taken for the first since the claim: nobody would tell of what lies
// between.
func TestMessageFromBeforeTheReset(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions, o.PinTTL = 1, 12*time.Second })
	o, ctx := w.broker.all[0], testContext(t)
	first, second, done := w.twoOnTheirWay(o)
	pin := o.pin
	o.pin, o.delivery = "", 0 // as one that has just claimed the partition
	if err := o.takeOver(ctx, pin, jetstream.SequencePair{Stream: second, Consumer: 9}); !errors.Is(err, errNotOurs) || !o.holds.Load() {
		t.Errorf("one that comes too early: %v, holds %t", err, o.holds.Load())
	}
	if err := o.takeOver(ctx, pin, jetstream.SequencePair{Stream: o.position, Consumer: 9}); !errors.Is(err, errNotOurs) || !o.holds.Load() {
		t.Errorf("one that is done with: %v, holds %t", err, o.holds.Load())
	}
	term := o.term
	if err := o.takeOver(ctx, pin, jetstream.SequencePair{Stream: first, Consumer: 1}); err != nil || o.term == term || o.pin != pin {
		t.Errorf("the first: %v", err)
	}
	done()
	w.await("removed", ofType(intents.StateRemoved, ""))
	w.await("confirmed", ofType(intents.NoticeConfirmed, ""))
	w.agree(0, 2)
}

// An input that comes before what another instance found open is adopted is not
// passed over.
func TestInputBeforeTheAdoption(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions, o.PinTTL, o.AckWait = 1, 12*time.Second, time.Minute })
	w.found("alice", "bob", "carol")
	w.noWork()
	o, ctx := w.broker.all[0], testContext(t)
	done := o.begin() // the adoption waits
	seq := w.publish(kindIntent, w.leave(1, intents.SenderRemovalOnly))
	h := must[*history](t)(w.broker.load(ctx, w.key(), w.broker.tenants[w.tenant], seq, nil))
	if _, _, err := w.broker.settle(ctx, h.group); err != nil {
		t.Fatal(err)
	}
	if err := o.reset(ctx, seq); err != nil { // the other has acknowledged it
		t.Fatal(err)
	}
	o.position = seq
	must[ledgerEntry](t)(w.broker.ledger.put(ctx, w.key(), h.group.ledger, remember(h.group.state)))
	w.eventually("the entry is read", func() bool { _, found := w.broker.adopting.Load(w.key()); return found })
	w.fanOut(w.awaitOutput(w.epoch(), 1))
	commit := w.publish(kindCommit, w.commitUnseen(2, member.CommitOptions{}))
	e := must[entry](t)(w.store().readOne(ctx, w.store().names.log(w.key(), kindCommit), commit))
	if r, err := o.accept(ctx, e, 1); err != nil || r.skipped {
		t.Errorf("the commit is passed over: %t, %v", r.skipped, err)
	}
	done()
	w.await("removed", ofType(intents.StateRemoved, ""))
	w.empty(0)
	w.await("confirmed", ofType(intents.NoticeConfirmed, ""))
	w.checkOutputs()
}

// A partition that another instance claims at once after this one did is not held,
// though the claim was stored.
func TestClaimedAtOnceByAnother(t *testing.T) {
	var between func()
	w := newCluster(t, func(o *Options) {
		o.Partitions, o.PinTTL = 1, 12*time.Second
		o.testOnlyFault = func(step string) error {
			if step == "owner reply" && between != nil { // under work
				between()
				between = nil
			}
			return nil
		}
	})
	w.found("alice", "bob", "carol")
	w.noWork()
	o, ctx := w.broker.all[0], testContext(t)
	done := o.begin()
	between = func() {
		key := o.group.names.ownerKey(0)
		r, rev, err := w.broker.records.owner(ctx, key)
		if err == nil {
			r.Instance = "another"
			rev, err = w.broker.records.putOwner(ctx, key, r, rev)
		}
		if err != nil {
			t.Error(err)
		}
		w.eventually("the other's claim is read", func() bool { return o.sawRevision(ctx, rev, 0) })
	}
	o.holds.Store(false)
	if err := o.claim(ctx, 0); !errors.Is(err, errConflict) || o.holds.Load() {
		t.Errorf("claimed: %v, holds %t", err, o.holds.Load())
	}
	done()
	w.submit(w.leave(1, intents.SenderRemovalOnly)) // taken back by a message
	w.awaitOutput(w.epoch(), 1)
	w.checkOutputs()
}

// A partition that was lost and is taken again before its consumer has stopped is
// kept.
func TestLostAndTakenAgain(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions, o.PinTTL = 1, 12*time.Second })
	w.found("alice", "bob", "carol")
	w.noWork()
	o := w.broker.all[0]
	done := o.begin()
	o.holds.Store(false)
	o.lost.Store(true)
	if err := o.claim(testContext(t), 0); err != nil && !errors.Is(err, errReset) {
		t.Fatal(err)
	}
	if !o.holds.Load() || o.lost.Load() {
		t.Errorf("holds %t, lost %t", o.holds.Load(), o.lost.Load())
	}
	done()
	o.lost.Store(true) // as if it had been lost just now, and its consumer stopped
	if err := o.handOver(o.group.names.partitionConsumer(0)); err != nil || o.lost.Load() {
		t.Errorf("given up: lost %t, %v", o.lost.Load(), err)
	}
	o.poke()
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
}

// No consumer goes back to sequence 1, at which a server takes it for a new one:
// logs begin at the next.
func TestBackToTheStart(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions, o.PinTTL = 1, 12*time.Second })
	w.create("alice", "bob", "carol")
	if seq := w.publish(kindInfo, must[[]byte](t)(w.any().GroupInfo())); seq != logStart+1 {
		t.Errorf("the first message has sequence %d", seq)
	}
	w.empty(0)
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
	w.noWork()
	o, ctx := w.broker.all[0], testContext(t)
	done := o.begin()
	w.losePartition(o, 0)
	if err := o.claim(ctx, 0); !errors.Is(err, errReset) || o.position != logStart || o.recorded.Position != logStart {
		t.Errorf("a claim from the start: %v, position %d", err, o.position)
	}
	done()
	w.noWork()
	w.empty(0)
	w.fanOut(w.awaitOutput(w.epoch(), 1))
	w.commit(2, member.CommitOptions{})
	w.await("removed", ofType(intents.StateRemoved, ""))
	w.checkOutputs()
}

// A group that another instance has opened stays open, though its owner before
// that one closes it, or the ledger is read late.
func TestClosedByAnOwnerThatWasReplaced(t *testing.T) {
	for _, holds := range []bool{true, false} {
		s, in := simAlone(t)
		ctx := context.Background()
		in.o.holds.Store(holds)
		put := func(old ledgerEntry, isOpen bool) ledgerEntry {
			return must[ledgerEntry](t)(in.b.ledger.put(ctx, simKey, old, remembered{Version: ledgerVersion, Open: isOpen, Position: old.Position + 1}))
		}
		opened := put(ledgerEntry{}, true)
		closed := put(opened, false)
		put(closed, true) // by another
		in.b.open.set(simKey, true, 1, opened.rev)
		in.watch(len(s.server.ledger))
		g := newGroup(simKey, in.b.tenants[testTenant], simGroup)
		g.ledger = closed
		if in.o.keep(g, nil); !in.b.open.has(simKey) {
			t.Errorf("closed by the one before; it holds the partition: %t", holds)
		}
		in.watched = int(closed.rev) - 1
		if in.watch(int(closed.rev)); !in.b.open.has(simKey) {
			t.Errorf("closed by what the ledger said before; it holds the partition: %t", holds)
		}
	}
}

// When the ledger has lost its end, revisions are given again: a partition that
// another held at a higher one can be taken all the same.
func TestRevisionsGivenAgain(t *testing.T) {
	_, in := simAlone(t)
	in.o.observe(ownerRecord{Version: ownerVersion, Instance: "another"}, 100)
	in.o.term = 7
	if in.o.hold() || in.o.holds.Load() {
		t.Error("it holds what another has claimed since")
	}
	if in.b.forgetRevisions(); !in.o.hold() || !in.o.holds.Load() {
		t.Error("it does not hold what nobody has claimed since")
	}
	in.o.observe(ownerRecord{Version: ownerVersion, Instance: "another"}, 8)
	if in.o.holds.Load() {
		t.Error("it holds what another has claimed")
	}
}
