package broker

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// compactsSoon makes a broker that compacts everything it can at once.
func compactsSoon(o *Options) {
	o.Partitions, o.CompactEntries, o.CompactInterval = 1, 10, time.Second
}

// entries counts those of the group in the log by kind.
func (w *world) entries() map[kind]int {
	w.t.Helper()
	n := map[kind]int{}
	err := w.store().read(testContext(w.t), w.store().names.logOf(w.key()), 1, func(e entry) error {
		_, what, err := w.store().names.parseLog(e.subject)
		n[what]++
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) awaitSnapshot(after uint64) snapshot {
	w.t.Helper()
	var s snapshot
	w.eventually("a snapshot", func() bool {
		s = must[snapshot](w.t)(w.broker.snapshots.get(testContext(w.t), w.key()))
		return s.position > after
	})
	return s
}

// takeAll is the delivery service, which has taken all outputs.
func (w *world) takeAll() {
	w.t.Helper()
	n := w.store().names
	c := must[jetstream.Consumer](w.t)(w.js.Consumer(testContext(w.t), n.logStream(), n.removalsConsumer(testTenant)))
	for {
		batch := must[jetstream.MessageBatch](w.t)(c.FetchNoWait(100))
		taken := 0
		for m := range batch.Messages() {
			if err := m.DoubleAck(testContext(w.t)); err != nil {
				w.t.Fatal(err)
			}
			taken++
		}
		if taken == 0 {
			return
		}
	}
}

// A long log shrinks, and what was in it is remembered: an intent that waits,
// one that was fulfilled, and a reference that left.
func TestLongLogsAreCompacted(t *testing.T) {
	w := newWorld(t, compactsSoon)
	w.found("alice", "bob", "carol", "dave", "erin")
	early := w.intent(4, intents.SenderRemovalOnly) // kept back until its leaf is gone
	first := w.leave(1, intents.SenderRemovalOnly)
	w.submit(first)
	w.fanOut(w.awaitOutput(w.epoch(), 1))
	w.commit(2, member.CommitOptions{}) // bob is gone
	c := must[*member.Commit](t)(w.members[2].Commit(member.CommitOptions{Proposals: []*mlscore.Proposal{member.Remove(4)}}))
	w.bring(c, 2)
	second := w.leave(3, intents.SenderRemovalOnly)
	w.submit(second)
	for range 12 {
		w.empty(0)
		w.awaitOutput(w.epoch(), 3)
	}
	w.takeAll()
	s := w.awaitSnapshot(0)
	w.eventually("the log is purged", func() bool { w.takeAll(); n := w.entries(); return n[kindCommit] < 12 && n[kindIntent] == 0 })
	if n := w.entries(); n[kindCommit] < 1 || n[kindRemoval] < 1 {
		t.Errorf("%v left: the last commit and output have to stay", n)
	}
	w.restart()
	w.empty(2)
	w.awaitOutput(w.epoch(), 3)
	if v := w.submit(early); v.State != intents.StateAlreadyGone {
		t.Errorf("an intent for a reference that left before the snapshot: %+v", v)
	}
	if v := w.submit(first); v.State != intents.StateRemoved {
		t.Errorf("an intent that was fulfilled before the snapshot: %+v", v)
	}
	w.fanOut(w.awaitOutput(w.epoch(), 3))
	w.commit(0, member.CommitOptions{})
	w.await("removed", func(e event) bool { return e.Intent == w.id(second) && e.Type == intents.StateRemoved })
	w.agree(0, 2)
	for range 12 {
		w.empty(2)
	}
	w.awaitSnapshot(s.position)
	w.noWork()
	w.checkOutputs()
}

// bring brings a commit to the broker and the members.
func (w *world) bring(c *member.Commit, committer mlscore.LeafIndex) {
	w.t.Helper()
	w.publish(kindCommit, c.Message)
	if err := w.members[committer].ConfirmCommit(); err != nil {
		w.t.Fatal(err)
	}
	w.deliver(c.Message, committer)
	w.dropRemoved()
}

// The log of a group that nobody leaves is compacted too, and the first intent
// finds the group.
func TestIdleLogsAreCompacted(t *testing.T) {
	w := newWorld(t, compactsSoon)
	w.found("alice", "bob", "carol")
	for range 15 {
		w.empty(0)
	}
	w.awaitSnapshot(0)
	w.eventually("the log is purged", func() bool { n := w.entries(); return n[kindInfo] == 0 && n[kindCommit] < 12 })
	w.empty(0)
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
}

// A write of compaction that fails, or whose reply is lost, loses nothing.
func TestCompactionFaults(t *testing.T) {
	for _, step := range []string{"snapshot", "purge"} {
		for _, reply := range []string{"", " reply"} {
			for _, n := range []int{1, 2} {
				t.Run(fmt.Sprintf("%s%s/%d", step, reply, n), func(t *testing.T) {
					t.Parallel()
					f := &fault{step: step + reply, n: n}
					w := newWorld(t, func(o *Options) {
						compactsSoon(o)
						o.testOnlyFault = f.inject
					})
					w.found("alice", "bob", "carol")
					w.submit(w.leave(1, intents.SenderRemovalOnly))
					for range 30 {
						w.empty(0)
						w.awaitOutput(w.epoch(), 1)
					}
					for begin := time.Now(); !f.wasHit(); time.Sleep(100 * time.Millisecond) {
						if w.empty(0); time.Since(begin) > patience {
							t.Fatal("the fault is not reached")
						}
					}
					w.awaitSnapshot(0)
					w.restart()
					w.empty(0)
					w.fanOut(w.awaitOutput(w.epoch(), 1))
					w.commit(2, member.CommitOptions{})
					w.await("removed", ofType(intents.StateRemoved, ""))
					w.agree(0, 2)
					w.checkOutputs()
				})
			}
		}
	}
}

func TestSnapshotsParse(t *testing.T) {
	s := snapshot{position: 7, lastRemoval: 5, removals: 4, groupID: []byte("group"), state: []byte("state")}
	b := append(s.appendHeader(snapshotInline), s.state...)
	got, where, rest, err := parseSnapshot(b)
	if err != nil || where != snapshotInline || !bytes.Equal(rest, s.state) || got.position != 7 || got.lastRemoval != 5 || got.removals != 4 || string(got.groupID) != "group" {
		t.Errorf("%+v %d %q %v", got, where, rest, err)
	}
	for n := range len(b) - len(s.state) {
		if _, _, _, err := parseSnapshot(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are a snapshot", n, len(b))
		}
	}
	b[0]++
	if _, _, _, err := parseSnapshot(b); !isTrouble(err) {
		t.Errorf("a later version: %v", err)
	}
	if _, _, _, err := parseSnapshot(append(s.appendHeader(snapshotBlob), make([]byte, 31)...)); err == nil {
		t.Error("a short SHA-256 is taken")
	}
}

func FuzzParseSnapshot(f *testing.F) {
	s := snapshot{position: 7, lastRemoval: 5, removals: 4, groupID: []byte("group")}
	f.Add(append(s.appendHeader(snapshotInline), "state"...))
	f.Add(append(s.appendHeader(snapshotBlob), make([]byte, 32)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, where, rest, err := parseSnapshot(b)
		if err == nil && !bytes.Equal(append(s.appendHeader(where), rest...), b) {
			t.Errorf("%x is not what it decodes to", b)
		}
	})
}

// A large tree comes by reference and is stored as an object; the delivery
// service may delete its own.
func TestLargeGroups(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		compactsSoon(o)
		o.Limits.MessageBytes = 128 << 10
	})
	var names []string
	for i := range 1200 {
		names = append(names, fmt.Sprintf("member %d", i))
	}
	w.create(names...)
	for leaf := range w.members { // a few are enough to go on with
		if leaf > 3 {
			delete(w.members, leaf)
		}
	}
	info := must[[]byte](t)(w.any().GroupInfo())
	if len(info) < w.opts.Limits.MessageBytes {
		t.Fatalf("the GroupInfo has %d bytes only", len(info))
	}
	ctx := testContext(t)
	infos := must[jetstream.ObjectStore](t)(w.js.ObjectStore(ctx, w.broker.names.infoBucket()))
	must[*jetstream.ObjectInfo](t)(infos.PutBytes(ctx, "the group", info))
	w.reference("the group", []byte("no hash"))
	w.await("no hash", ofType(intents.NoticeRefused, reasonObject))
	missing := w.reference("another", sumOf(info))
	w.await("no object", func(e event) bool { return e.Seq == missing && e.Reason == reasonObject })
	other := w.reference("the group", sumOf([]byte("something else")))
	w.await("another object", func(e event) bool { return e.Seq == other && e.Reason == reasonObject })
	w.reference("the group", sumOf(info))
	w.empty(0)
	w.noWork()
	if err := infos.Delete(ctx, "the group"); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.submit(w.leave(3, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 3)
	for range 10 {
		w.empty(0)
	}
	w.awaitOutput(w.epoch(), 3)
	w.awaitSnapshot(0)
	value, _, err := w.broker.snapshots.(snapshotBucket).read(ctx, w.key().String())
	if _, where, _, parseErr := parseSnapshot(value); err != nil || parseErr != nil || where != snapshotBlob {
		t.Errorf("the snapshot is not in the bucket of blobs: %d %v %v", where, err, parseErr)
	}
	w.eventually("the GroupInfo is purged, and the copy with it", func() bool {
		_, err := w.broker.blobs.GetInfo(ctx, blobName(w.key(), must[[]byte](t)(parseSum(sumOf(info)))))
		return w.entries()[kindInfo] == 0 && err != nil
	})
	w.restart()
	w.empty(0)
	w.awaitOutput(w.epoch(), 3)
}

// sumOf is the body of a reference.
func sumOf(b []byte) []byte { return fmt.Appendf(nil, "%x", sha256Sum(b)) }

// reference publishes a GroupInfo by reference.
func (w *world) reference(object string, sum []byte) uint64 {
	w.t.Helper()
	m := newMsg(w.broker.names.in(w.key(), kindInfo), sum)
	m.Header.Set(headerObject, object)
	return must[*jetstream.PubAck](w.t)(w.js.PublishMsg(context.Background(), m)).Sequence
}
