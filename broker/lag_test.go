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

// Servers of a cluster lag behind each other, and may answer all the same.

// lateFeed says that a message was delivered, as a replicated consumer does of one
// that its leader had decided on before it was reset.
type lateFeed struct {
	feed
	newest uint64
}

func (f lateFeed) progress(ctx context.Context) (progress, error) {
	p, err := f.feed.progress(ctx)
	p.newest = f.newest
	return p, err
}

// A message that is delivered late, after the consumer was reset to one before it,
// is not folded before that one, though the server says that it is in hand; the
// consumer goes back, as its records would pass over what is between.
func TestDeliveredLate(t *testing.T) {
	for _, isClaimed := range []bool{true, false} {
		w := newCluster(t, func(o *Options) { o.Partitions, o.PinTTL = 1, 12*time.Second })
		o, ctx := w.broker.all[0], testContext(t)
		_, second, done := w.twoOnTheirWay(o)
		real, pin := o.feed, o.pin
		o.feed = lateFeed{real, second}
		if o.pin = ""; !isClaimed {
			o.holds.Store(false)
		}
		if err := o.takeOver(ctx, pin, jetstream.SequencePair{Stream: second, Consumer: 9}); !errors.Is(err, errReset) || o.pin != "" {
			t.Errorf("claimed before: %t: the one that is delivered late: %v, pin %q", isClaimed, err, o.pin)
		}
		o.feed = real
		done()
		w.await("removed", ofType(intents.StateRemoved, ""))
		w.await("confirmed", ofType(intents.NoticeConfirmed, ""))
		w.agree(0, 2)
	}
}

// Between a position and the next input there are the broker's outputs, and no
// input.
func TestIsNext(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Partitions = 1 })
	w.found("alice", "bob", "carol")
	w.noWork()
	before := w.broker.all[0].position
	intent := w.publish(kindIntent, w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
	commit := w.publish(kindCommit, w.commitUnseen(2, member.CommitOptions{References: [][]byte{}}))
	o, ctx := w.broker.all[0], testContext(t)
	for _, c := range []struct {
		position, seq uint64
		want          bool
	}{{before, intent, true}, {intent, commit, true}, {before, commit, false}} {
		if got, err := o.isNext(ctx, c.position, c.seq); got != c.want || err != nil {
			t.Errorf("%d after %d: %t, %v", c.seq, c.position, got, err)
		}
	}
	if _, err := o.isNext(ctx, commit+100, commit+200); !errors.Is(err, errLags) {
		t.Errorf("beyond the end of the log: %v", err)
	}
}

// putUnsure puts a group into memory as one that was loaded for no message.
func (o *owner) putUnsure(g *group) {
	defer o.begin()()
	g.unsure = true
	o.mu.Lock()
	defer o.mu.Unlock()
	o.groups.add(g)
}

// A group that was loaded while nothing came, from a server that lagged behind, is
// loaded again before the next message is folded.
func TestWokenFromAServerThatLags(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions, o.PinTTL = 1, 12*time.Second })
	w.found("alice", "bob", "carol")
	w.noWork()
	o, ctx := w.broker.all[0], testContext(t)
	early := o.position
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	proposals := w.awaitOutput(w.epoch(), 1)
	w.noWork()
	done := o.begin()
	o.forget()
	h := must[*history](t)(o.take(ctx, w.key(), w.broker.tenants[w.tenant], nil))
	if !h.group.unsure {
		t.Error("a group that was loaded for no message is not unsure")
	}
	h = must[*history](t)(w.broker.load(ctx, w.key(), w.broker.tenants[w.tenant], early, nil))
	done()
	o.putUnsure(h.group)
	w.fanOut(proposals)
	w.commit(2, member.CommitOptions{})
	w.await("removed", ofType(intents.StateRemoved, ""))
	if g := o.groups.get(w.key()); g == nil || g.unsure {
		t.Error("a message does not make it sure")
	}
	w.empty(0)
	w.await("confirmed", ofType(intents.NoticeConfirmed, ""))
	w.agree(0, 2)
}

// What is confirmed is the last snapshot, or that there is none.
func TestConfirmSnapshot(t *testing.T) {
	w := newCluster(t, nil)
	bucket, k, ctx := w.broker.snapshots.(snapshotBucket), w.key(), testContext(t)
	if bucket.replicated {
		t.Error("one server is not replicated")
	}
	if err := bucket.confirm(ctx, k, 99); err != nil {
		t.Errorf("one server lags behind none: %v", err)
	}
	bucket.replicated = true
	isLast := func(when string, rev uint64, want error) {
		t.Helper()
		if err := bucket.confirm(ctx, k, rev); !errors.Is(err, want) {
			t.Errorf("%s, %d: %v, want %v", when, rev, err, want)
		}
	}
	isLast("none", 0, nil)
	isLast("none", 1, errConflict)
	put := func(rev uint64) uint64 {
		return must[uint64](t)(bucket.put(ctx, k, snapshot{position: rev + 1, groupID: w.groupID, state: []byte{1}}, rev))
	}
	first := put(0)
	second := put(first)
	isLast("two", second, nil)
	isLast("two", first, errConflict)
	isLast("two", 0, errConflict)
	if err := bucket.kv.Delete(ctx, k.String()); err != nil {
		t.Fatal(err)
	}
	isLast("deleted", 0, nil)
	isLast("deleted", second, errConflict)
}

// That a group is open is written even if the ledger was read as it was when it
// was open before.
func TestOpenedAgainByALateRead(t *testing.T) {
	s := newSimulation(writeScript(t, 0), 1)
	in, ctx := s.start(), context.Background()
	in.b.opts.testOnlyFault = nil
	put := func(old ledgerEntry, isOpen bool) ledgerEntry {
		return must[ledgerEntry](t)(in.b.ledger.put(ctx, simKey, old, remembered{Version: ledgerVersion, Open: isOpen}))
	}
	opened := put(ledgerEntry{}, true)
	closed := put(opened, false)
	g := newGroup(simKey, in.b.tenants[testTenant], simGroup)
	for i := range s.script.steps {
		if step := &s.script.steps[i]; step.kind == kindIntent && !g.state.Open() {
			seq, _ := s.server.publish(simKey, step.kind, step.data, "x")
			if r, err := s.in.receive(s.server.log[seq-1]); err == nil {
				g.fold(r)
			}
		}
	}
	if !g.state.Open() {
		t.Fatal("no intent opens the group")
	}
	opened.unsure, closed.unsure = true, true
	g.ledger = opened
	if err := in.b.record(ctx, g, nil); !errors.Is(err, errConflict) {
		t.Errorf("with the entry before: %v", err)
	}
	g.ledger = closed
	if err := in.b.record(ctx, g, nil); err != nil {
		t.Errorf("with the last entry: %v", err)
	}
	if entry, _ := s.server.remembered(simKey, s.server.leader()); !entry.Open {
		t.Error("it is not open")
	}
}

// While an owner does again what another had done, which may purge it meanwhile,
// no group stays in memory.
func TestReached(t *testing.T) {
	s, in := simAlone(t)
	ctx, o := context.Background(), in.o
	key := s.server.names.ownerKey(0)
	claim := func(position, reached uint64) {
		t.Helper()
		if err := o.claim(ctx, 0); err != nil || o.recorded.Position != position || o.recorded.Reached != reached {
			t.Errorf("%v: %+v", err, o.recorded)
		}
	}
	must[uint64](t)(in.b.ledger.putOwner(ctx, key, ownerRecord{Version: ownerVersion, Instance: "another", Position: 9}, 0))
	s.server.consumer.floor = 3
	claim(3, 9)
	claim(3, 9)
	keep := func(seq uint64) bool {
		g := newGroup(simKey, in.b.tenants[testTenant], simGroup)
		g.ledger = ledgerEntry{remembered: remembered{Open: true, Position: 100}, rev: 1}
		o.keep(g, &received{entry: entry{seq: seq}})
		return o.peek(simKey) != nil
	}
	if keep(4) || keep(8) || !keep(9) || !in.b.open.has(simKey) {
		t.Error("a group is in memory from where the other was")
	}
	o.position = 9
	if err := o.checkpoint(ctx); err != nil || o.recorded.Reached != 0 {
		t.Errorf("at the end: %v: %+v", err, o.recorded)
	}
}

// That an object is not there is confirmed before what refers to it is left out.
func TestConfirmAbsent(t *testing.T) {
	o, ctx := testObjects(t), testContext(t)
	o.replicated = true
	isAbsent := func(when string, want error) {
		t.Helper()
		if err := o.confirmAbsent(ctx, "info"); !errors.Is(err, want) {
			t.Errorf("%s: %v", when, err)
		}
	}
	isAbsent("none", nil)
	must[*jetstream.ObjectInfo](t)(o.PutBytes(ctx, "info", []byte("a GroupInfo")))
	isAbsent("one", errUnavailable)
	if err := confirmLast(ctx, o.js, o.api, "$O.leave-infos.C."+confirmKey, o.metaSubject("info"), 0); !errors.Is(err, errConflict) {
		t.Errorf("read from a server that lags behind: %v", err)
	}
	if err := o.Delete(ctx, "info"); err != nil {
		t.Fatal(err)
	}
	isAbsent("deleted", nil)
	must[*jetstream.ObjectInfo](t)(o.PutBytes(ctx, "info", []byte("another")))
	isAbsent("put again", errUnavailable)
}

// A group that was loaded while nothing came, from a snapshot that was replaced,
// and so lacks an intent that was purged since, is loaded again when a message
// comes.
func TestWokenFromAReplacedSnapshot(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions, o.PinTTL = 1, 12*time.Second })
	bucket := w.broker.snapshots.(snapshotBucket)
	bucket.replicated = true
	w.broker.snapshots = bucket
	w.found("alice", "bob", "carol")
	w.noWork()
	o, ctx := w.broker.all[0], testContext(t)
	h := must[*history](t)(w.broker.load(ctx, w.key(), w.broker.tenants[w.tenant], o.position, nil))
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	proposals := w.awaitOutput(w.epoch(), 1)
	info := w.publish(kindInfo, must[[]byte](t)(w.any().GroupInfo()))
	w.noWork()
	e := must[entry](t)(w.store().readOne(ctx, w.store().names.log(w.key(), kindInfo), info))
	h.group.fold(must[*received](t)(o.group.inbound.receive(e)))
	h.group.lastRemoval = must[entry](t)(w.store().readLast(ctx, w.store().names.log(w.key(), kindRemoval))).seq
	h.group.snapshot.rev = 99
	o.putUnsure(h.group)
	w.fanOut(proposals)
	w.commit(2, member.CommitOptions{})
	w.await("removed", ofType(intents.StateRemoved, ""))
}
