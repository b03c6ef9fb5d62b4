package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// awaitTrouble waits until the broker says that an operator is needed.
func (w *world) awaitTrouble(k groupKey, reason string) {
	w.t.Helper()
	w.awaitIn(k, "trouble: "+reason, ofType(eventTrouble, reason))
	if len(w.broker.Troubles()) == 0 {
		w.t.Errorf("%s, and there is no trouble", reason)
	}
	if ready := w.broker.Ready() == nil; ready != (k != whole) {
		w.t.Errorf("%s of %v, and the broker is ready: %v", reason, k, ready)
	}
}

// awaitMended waits until the broker is ready again.
func (w *world) awaitMended() {
	w.t.Helper()
	w.eventually("the trouble is over", func() bool { return len(w.broker.Troubles()) == 0 })
}

// lookNow lets the broker look at a group with a trouble at once.
func (w *world) lookNow() { w.broker.timers.set(w.key(), time.Now()) }

// What is stored about a group by a later version is left alone, and what cannot be
// read too; what comes meanwhile is kept, and judged when the entry can be read
// again.
func TestUnknownEntryIsLeftAlone(t *testing.T) {
	for _, test := range []struct{ name, entry, reason string }{
		{"later version", `{"version":99,"more":true}`, troubleVersion},
		{"later version with other types", `{"version":99,"open":[],"position":"99"}`, troubleVersion},
		{"damaged", `{"version":1,"open":`, troubleEntry},
	} {
		t.Run(test.name, func(t *testing.T) { leavesAlone(t, test.entry, test.reason) })
	}
}

func leavesAlone(t *testing.T, entry, reason string) {
	w := newWorld(t, nil)
	ctx := testContext(t)
	w.found("alice", "bob", "carol")
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
	w.noWork()
	w.stop()
	w.start()
	w.noWork()
	w.eventually("the group is loaded", func() bool { return w.broker.owner(w.key()).peek(w.key()) != nil })
	good, rev, err := w.broker.records.read(ctx, w.key().String())
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.withServer(w.broker.names.ledgerBucket(), func(kv jetstream.KeyValue) {
		rev = must[uint64](t)(kv.Update(ctx, w.key().String(), []byte(entry), rev))
	})
	w.start()
	w.awaitTrouble(w.key(), reason)
	second := w.leave(2, intents.SenderRemovalOnly)
	w.publish(kindIntent, second)
	w.noWork() // it is acknowledged, and stays in the log
	if value, now, err := w.broker.records.read(ctx, w.key().String()); err != nil || now != rev || string(value) != entry {
		t.Errorf("the entry was written over: %s %v", value, err)
	}
	must[uint64](t)(w.broker.records.kv.Update(ctx, w.key().String(), good, rev))
	w.lookNow()
	w.awaitMended()
	w.await("the verdict", func(e event) bool { return e.Intent == w.id(second) && e.Type == intents.StatePending })
	w.await("mended", ofType(eventMended, ""))
	w.awaitOutput(w.epoch(), 1, 2)
}

// A record of an owner that a later version has written is left alone, and what
// comes meanwhile waits, however often it is delivered.
func TestUnknownVersionOfAnOwner(t *testing.T) {
	w := newCluster(t, func(o *Options) { o.Partitions = 1 })
	standby := w.another("standby")
	w.found("alice", "bob", "carol")
	w.noWork()
	awaitSpread(t, w, standby)
	owner, other := w.broker, standby.broker
	if owner.all[0].rank() == 1 {
		owner, other = other, owner
	}
	ctx := testContext(t)
	key := owner.all[0].group.names.ownerKey(0)
	o := owner.all[0]
	done := o.begin()
	good, rev, err := w.broker.records.read(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	rev = must[uint64](t)(w.broker.records.write(ctx, key, []byte(`{"version":99,"more":true}`), rev))
	o.holds.Store(false)
	o.letGo()
	done()
	before := other.metrics.retries.Load()
	w.publish(kindIntent, w.leave(1, intents.SenderRemovalOnly))
	w.eventually("it was delivered often", func() bool { return other.metrics.retries.Load() > before+maxBroken })
	w.awaitTrouble(whole, troubleVersion)
	must[uint64](t)(w.broker.records.write(ctx, key, good, rev))
	w.awaitMended()
	w.awaitOutput(w.epoch(), 1)
	w.checkOutputs()
}

// withServer gives a bucket of a broker that is stopped.
func (w *world) withServer(bucket string, use func(jetstream.KeyValue)) {
	w.t.Helper()
	e := must[*embedded](w.t)(startEmbedded(w.opts.Embedded, defaultMessageBytes, zap.NewNop()))
	nc := must[*nats.Conn](w.t)(nats.Connect("", nats.InProcessServer(e.server)))
	js := must[jetstream.JetStream](w.t)(jetstream.New(nc))
	use(must[jetstream.KeyValue](w.t)(js.KeyValue(testContext(w.t), bucket)))
	nc.Close()
	if err := e.stop(); err != nil {
		w.t.Fatal(err)
	}
}

// waitsInSnapshot makes a group that has a snapshot, in which an intent waits.
func (w *world) waitsInSnapshot() {
	w.t.Helper()
	w.found("alice", "bob", "carol")
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	for range 12 {
		w.empty(0)
		w.awaitOutput(w.epoch(), 1)
	}
	w.awaitSnapshot(0)
}

// A snapshot that was damaged is not used, and nothing is lost until it is
// restored.
func TestDamagedSnapshot(t *testing.T) {
	w := newWorld(t, compactsSoon)
	ctx := testContext(t)
	w.waitsInSnapshot()
	w.noWork()
	bucket := w.broker.snapshots.(snapshotBucket)
	good, rev, err := bucket.read(ctx, w.key().String())
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 1
	rev = must[uint64](t)(bucket.kv.Update(ctx, w.key().String(), bad, rev))
	w.restart()
	w.awaitTrouble(w.key(), troubleSnapshot)
	second := w.leave(2, intents.SenderRemovalOnly)
	w.publish(kindIntent, second)
	w.noWork()
	must[uint64](t)(w.broker.snapshots.(snapshotBucket).kv.Update(ctx, w.key().String(), good, rev))
	w.lookNow()
	w.awaitMended()
	w.await("the verdict", func(e event) bool { return e.Intent == w.id(second) && e.Type == intents.StatePending })
	w.awaitOutput(w.epoch(), 1, 2)
}

// What comes for a group that waits for an operator is not forgotten by those who
// start after it came, also where the ledger says that the group has nothing to do.
func TestPostponedSurvivesRestarts(t *testing.T) {
	for _, test := range []struct {
		bad, mended, lost string
		nth               int // such write
	}{
		{"snapshot", "while it runs", "", 0}, {"snapshot", "while nobody runs", "", 0}, {"entry", "while nobody runs", "", 0}, {"entry", "while it runs", "", 0},
		{"snapshot", "while nobody runs", "mark", 1}, {"snapshot", "while nobody runs", "mark reply", 1},
		{"snapshot", "while nobody runs", "mark", 2}, {"snapshot", "while nobody runs", "mark reply", 2},
	} {
		mended := test.mended
		t.Run(fmt.Sprintf("%s %s %s %d", test.bad, mended, test.lost, test.nth), func(t *testing.T) {
			f := &fault{step: test.lost, n: test.nth}
			w := newWorld(t, func(o *Options) {
				compactsSoon(o)
				o.testOnlyFault = f.inject
			})
			ctx := testContext(t)
			w.waitsInSnapshot()
			first := w.broker.open.list()
			if len(first) != 1 {
				t.Fatalf("open groups %v", first)
			}
			w.fanOut(w.awaitOutput(w.epoch(), 1))
			w.commit(2, member.CommitOptions{})
			w.empty(2)
			w.await("removed", ofType(intents.StateRemoved, ""))
			w.noWork()
			w.eventually("the group is closed", func() bool {
				entry := must[ledgerEntry](t)(w.broker.ledger.get(ctx, w.key()))
				return !entry.Open && len(w.broker.open.list()) == 0
			})
			bucket := func() records { return w.broker.snapshots.(snapshotBucket).records }
			reason := troubleSnapshot
			if test.bad == "entry" {
				bucket, reason = func() records { return w.broker.records }, troubleEntry
			}
			good, rev, err := bucket().read(ctx, w.key().String())
			if err != nil {
				t.Fatal(err)
			}
			bad := bytes.Clone(good)
			bad[len(bad)/2] ^= 1
			if test.bad == "entry" {
				bad = good[:len(good)/2]
			}
			rev = must[uint64](t)(bucket().kv.Update(ctx, w.key().String(), bad, rev))
			second := w.leave(2, intents.SenderRemovalOnly)
			w.publish(kindIntent, second)
			w.awaitTrouble(w.key(), reason)
			w.noWork() // the intent is acknowledged
			if mended == "while nobody runs" {
				w.stop()
				w.withServer(bucket().kv.Bucket(), func(kv jetstream.KeyValue) {
					must[uint64](t)(kv.Update(ctx, w.key().String(), good, rev))
				})
				w.start()
			} else {
				w.restart()
				w.eventually("the trouble is known again", func() bool { return len(w.broker.Troubles()) > 0 })
				must[uint64](t)(bucket().kv.Update(ctx, w.key().String(), good, rev))
				w.lookNow()
				w.awaitMended()
			}
			w.await("the verdict", func(e event) bool { return e.Intent == w.id(second) && e.Type == intents.StatePending })
			w.awaitOutput(w.epoch(), 2)
			w.eventually("the mark is gone", func() bool {
				value, _, err := w.broker.records.read(ctx, owedKeyPrefix+w.key().String())
				_, owed := w.broker.owed.Load(w.key())
				return err == nil && value == nil && !owed
			})
			if test.lost != "" && !f.wasHit() {
				t.Error("the fault was not reached")
			}
			w.checkOutputs()
		})
	}
}

// A consumer that was deleted is made again, and goes on where it was.
func TestDeletedConsumer(t *testing.T) {
	w := newWorld(t, nil)
	ctx := testContext(t)
	w.found("alice", "bob", "carol")
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
	for p := range w.opts.Partitions {
		if err := w.js.DeleteConsumer(ctx, w.store().names.logStream(), w.store().names.partitionConsumer(p)); err != nil {
			t.Fatal(err)
		}
	}
	w.empty(0)
	w.fanOut(w.awaitOutput(w.epoch(), 1))
	w.awaitIn(whole, "the consumer is missed", ofType(eventTrouble, ""))
	w.commit(2, member.CommitOptions{})
	w.await("removed", ofType(intents.StateRemoved, ""))
	w.awaitMended()
	w.checkOutputs()
}

// A disk that was full may leave a consumer that its server cannot read: it is
// made again, and goes on where it was.
func TestCorruptConsumer(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Partitions = 1 })
	w.found("alice", "bob", "carol")
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
	w.noWork()
	n := w.store().names
	w.stop()
	for _, consumer := range []string{n.partitionConsumer(0), n.removalsConsumer(testTenant)} {
		files := must[[]string](t)(filepath.Glob(filepath.Join(w.opts.Embedded.StateDir, "nats", "jetstream", "*", "streams", n.logStream(), "obs", consumer, "o.dat")))
		if len(files) != 1 {
			t.Fatalf("the state of %s is in %q", consumer, files)
		}
		if err := os.WriteFile(files[0], []byte{0x16, 2, 0xff}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	w.empty(0)
	w.fanOut(w.awaitOutput(w.epoch(), 1))
	w.commit(2, member.CommitOptions{})
	w.await("removed", ofType(intents.StateRemoved, ""))
	w.checkOutputs()
}

// A ledger that was deleted is made again from the logs; lost snapshots are
// missed.
func TestDeletedBuckets(t *testing.T) {
	w := newWorld(t, compactsSoon)
	ctx := testContext(t)
	w.waitsInSnapshot()
	w.eventually("the intent is in the snapshot alone", func() bool { return w.entries()[kindIntent] == 0 })
	if err := w.js.DeleteKeyValue(ctx, w.broker.names.ledgerBucket()); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start()
	w.empty(0)
	w.awaitOutput(w.epoch(), 1)
	w.checkOutputs()

	// An operator may make it, while another instance writes into it.
	if err := w.js.DeleteKeyValue(ctx, w.broker.names.ledgerBucket()); err != nil {
		t.Fatal(err)
	}
	kv := must[jetstream.KeyValue](t)(w.js.CreateKeyValue(ctx, w.broker.groups[0].assets.ledgerConfig()))
	must[uint64](t)(kv.Create(ctx, groupKey{w.tenant, GroupToken([]byte("another"))}.String(), []byte(`{"version":1}`)))
	w.stop()
	w.opts.KeepAssets = true
	w.start()
	w.empty(0)
	w.awaitOutput(w.epoch(), 1)
	w.checkOutputs()

	if err := w.js.DeleteKeyValue(ctx, w.broker.names.snapshotBucket()); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.opts.KeepAssets = false
	b := must[*Broker](t)(New(w.opts))
	var lost *AssetError
	if err := b.Run(ctx); !errors.As(err, &lost) || lost.Name != b.names.snapshotBucket() {
		t.Errorf("%v, want the snapshots missed", err)
	}
}

// The bucket of the broker's own objects is missed too, while it runs and at start.
func TestDeletedObjects(t *testing.T) {
	w := newWorld(t, nil)
	ctx := testContext(t)
	w.found("alice", "bob", "carol")
	w.noWork()
	if err := w.js.DeleteObjectStore(ctx, w.broker.names.blobBucket()); err != nil {
		t.Fatal(err)
	}
	w.broker.inspectOnce(ctx, 0)
	w.awaitTrouble(whole, troubleAsset)
	w.stop()
	b := must[*Broker](t)(New(w.opts))
	var lost *AssetError
	if err := b.Run(ctx); !errors.As(err, &lost) || lost.Name != b.names.blobBucket() {
		t.Errorf("%v, want the objects missed", err)
	}
}

// Streams and consumers that somebody changed keep the broker from being
// ready until they are as they were.
func TestChangedAssets(t *testing.T) {
	w := newWorld(t, nil)
	ctx := testContext(t)
	n := w.store().names
	log := must[jetstream.Stream](t)(w.js.Stream(ctx, n.logStream())).CachedInfo().Config
	removals := must[jetstream.Consumer](t)(w.js.Consumer(ctx, n.logStream(), n.removalsConsumer(testTenant))).CachedInfo().Config
	for name, test := range map[string]struct{ change, mend func() error }{
		"stream": {func() error {
			bad := log
			bad.MaxAge, bad.Duplicates = time.Hour, time.Minute
			_, err := w.js.UpdateStream(ctx, bad)
			return err
		}, func() error {
			_, err := w.js.UpdateStream(ctx, log)
			return err
		}},
		"consumer": {func() error {
			bad := removals
			bad.SampleFrequency = ""
			_, err := w.js.UpdateConsumer(ctx, n.logStream(), bad)
			return err
		}, func() error {
			_, err := w.js.UpdateConsumer(ctx, n.logStream(), removals)
			return err
		}},
	} {
		if err := test.change(); err != nil {
			t.Fatal(name, err)
		}
		w.broker.inspectOnce(ctx, 0)
		w.awaitTrouble(whole, troubleAsset)
		if err := test.mend(); err != nil {
			t.Fatal(name, err)
		}
		w.broker.inspectOnce(ctx, 0)
		w.awaitMended()
	}
}

// A store without room refuses outputs; they are stored when there is room.
func TestFullStore(t *testing.T) {
	w := newWorld(t, nil)
	ctx := testContext(t)
	w.found("alice", "bob", "carol")
	w.noWork()
	intent := w.leave(1, intents.SenderRemovalOnly)
	info := must[jetstream.Stream](t)(w.js.Stream(ctx, w.store().names.logStream())).CachedInfo()
	full := info.Config
	full.MaxBytes = int64(info.State.Bytes) + int64(len(intent)) + 120 // room for the intent, not for an answer
	must[jetstream.Stream](t)(w.js.UpdateStream(ctx, full))
	w.publish(kindIntent, intent)
	w.awaitTrouble(whole, troubleFull)
	must[jetstream.Stream](t)(w.js.UpdateStream(ctx, info.Config))
	w.awaitOutput(w.epoch(), 1)
	w.awaitMended()
	w.checkOutputs()
}

// A user who may not do something that the broker needs is told so.
func TestMissingPermission(t *testing.T) {
	user := &server.User{Username: "broker", Password: "secret", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{">"}, Deny: []string{"leave.instances"}},
	}}
	opts := must[*server.Options](t)(Embedded{StateDir: t.TempDir(), SyncLater: true, Listen: "127.0.0.1:0"}.serverOptions(defaultMessageBytes))
	opts.Users = []*server.User{user, {Username: "other", Password: "secret"}}
	srv := must[*server.Server](t)(runServer(opts, zap.NewNop()))
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	w := &world{t: t, signer: must[mlscore.Signer](t)(mlscore.GenerateSigner(mlscore.Ed25519, rand.Reader))}
	b := must[*Broker](t)(New(Options{
		Partitions: 2, Tenants: []Tenant{{Name: testTenant, Signers: []mlscore.Signer{w.signer}}},
		Conn: Conn{URL: strings.Replace(srv.ClientURL(), "nats://", "nats://broker:secret@", 1)},
	}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- b.Run(ctx) }()
	w.eventually("the permission is missed", func() bool {
		return slices.ContainsFunc(b.Troubles(), func(s string) bool { return strings.Contains(s, `"leave.instances"`) })
	})
	if b.Ready() == nil {
		t.Error("the broker is ready")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A broker that may make nothing says what it needs.
func TestAssetsAreKept(t *testing.T) {
	w := newWorld(t, nil)
	w.stop()
	w.opts.KeepAssets = true
	w.start() // everything is there
	ctx := testContext(t)
	if err := w.js.DeleteKeyValue(ctx, w.broker.names.ledgerBucket()); err != nil {
		t.Fatal(err)
	}
	w.stop()
	b := must[*Broker](t)(New(w.opts))
	err := b.Run(ctx)
	var missing *AssetError
	if !errors.As(err, &missing) || missing.Name != b.names.ledgerBucket() {
		t.Fatalf("%v, want what is missing", err)
	}
	_, text, _ := strings.Cut(missing.Differences[0], "make it as ")
	var cfg jetstream.KeyValueConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil || cfg.Bucket != missing.Name {
		t.Errorf("what is needed is %s: %v", text, err)
	}
}

func TestServerVersions(t *testing.T) {
	for version, ok := range map[string]bool{
		"2.14.0": true, "2.15.2": true, "3.0.0": true, "2.14.0-RC.1": true, "2.100.1": true,
		"2.13.9": false, "1.99.0": false, "2.9.25": false, "": false, "x": false,
	} {
		if err := checkVersion(version); (err == nil) != ok {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestTroublesHaveRemedies(t *testing.T) {
	for _, test := range []struct {
		err    error
		reason string
	}{
		{&versionError{2, 1}, troubleVersion}, {fmt.Errorf("x: %w", intents.ErrSnapshotVersion), troubleVersion},
		{&AssetError{}, troubleAsset}, {errFull, troubleFull}, {errPermission, troublePermission},
		{errEntry, troubleEntry}, {errSnapshot, troubleSnapshot}, {intents.ErrSnapshot, troubleSnapshot}, {errTest, troubleOther},
	} {
		if reason, remedy := troubleOf(test.err); reason != test.reason || remedy == "" {
			t.Errorf("%v: %q %q, want %q", test.err, reason, remedy, test.reason)
		}
	}
}
