package broker

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leavebroker/intents"
)

// testObjects is an empty bucket of objects.
func testObjects(t *testing.T) objects {
	t.Helper()
	_, js, nc := testServer(t)
	s := must[jetstream.ObjectStore](t)(testAssets(1).ensureObjects(testContext(t), js, "leave-infos"))
	return objects{ObjectStore: s, js: js, nc: nc, api: "$JS.API.", bucket: "leave-infos"}
}

// An object that is not there, or not what it should be, says so at once and for
// good: what refers to it is refused.
func TestUnusableObjects(t *testing.T) {
	o := testObjects(t)
	ctx := testContext(t)
	data := bytes.Repeat([]byte("0123456789"), 30_000) // three parts
	sum := sha256Sum(data)
	stream := must[jetstream.Stream](t)(o.js.Stream(ctx, "OBJ_leave-infos"))
	put := func(name string) *jetstream.ObjectInfo {
		return must[*jetstream.ObjectInfo](t)(o.PutBytes(ctx, name, data))
	}
	purge := func(info *jetstream.ObjectInfo, keep uint64) {
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject("$O.leave-infos.C."+info.NUID), jetstream.WithPurgeKeep(keep)); err != nil {
			t.Fatal(err)
		}
	}
	lie := func(name string, change func(*jetstream.ObjectInfo)) {
		info := put(name)
		change(info)
		meta := "$O.leave-infos.M." + base64.URLEncoding.EncodeToString([]byte(name))
		must[*jetstream.PubAck](t)(o.js.Publish(ctx, meta, must[[]byte](t)(json.Marshal(info))))
	}
	put("good")
	if got, err := o.get(ctx, "good", sum, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	put("of another sum")
	put("deleted")
	if err := o.Delete(ctx, "deleted"); err != nil {
		t.Fatal(err)
	}
	purge(put("no parts"), 0)
	purge(put("fewer parts"), 1)
	lie("fewer bytes than it says", func(i *jetstream.ObjectInfo) { i.Size++ })
	lie("more bytes than it says", func(i *jetstream.ObjectInfo) { i.Size = 10 })
	lie("another digest, and fewer bytes", func(i *jetstream.ObjectInfo) {
		i.Size, i.Digest = i.Size+1, "SHA-256="+base64.URLEncoding.EncodeToString(sha256Sum(nil))
	})
	lie("no digest", func(i *jetstream.ObjectInfo) { i.Digest = "none" })
	lie("parts that never were", func(i *jetstream.ObjectInfo) { i.NUID, i.Chunks = "nowhere", 0 })
	must[*jetstream.ObjectInfo](t)(o.AddLink(ctx, "link", must[*jetstream.ObjectInfo](t)(o.GetInfo(ctx, "good"))))
	for name, test := range map[string]struct {
		sum   []byte
		limit uint64
	}{
		"absent": {sum, 1 << 20}, "good": {sum, uint64(len(data) - 1)}, "of another sum": {sha256Sum(nil), 1 << 20},
		"no parts": {sum, 1 << 20}, "fewer parts": {sum, 1 << 20}, "parts that never were": {sum, 1 << 20}, "link": {sum, 1 << 20},
		"more bytes than it says": {sum, 1 << 20}, "deleted": {sum, 1 << 20}, "no digest": {sum, 1 << 20},
	} {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		got, err := o.get(short, name, test.sum, test.limit)
		cancel()
		if !errors.Is(err, errBlob) || got != nil {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if _, err := o.get(ctx, "another digest, and fewer bytes", sha256Sum(nil), 1<<20); !errors.Is(err, errShort) || !isBroken(err) || isBroken(ofOurs(err)) {
		t.Errorf("a lie, or a replica that lags: %v", err)
	}
	if got, err := o.get(ctx, "fewer bytes than it says", sum, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("of the right sum: %d bytes, %v", len(got), err)
	}

	// What is put again takes the place of what is damaged.
	if err := o.put(ctx, "no parts", data); err != nil {
		t.Fatal(err)
	}
	if got, err := o.get(ctx, "no parts", sum, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("put again: %d bytes, %v", len(got), err)
	}
}

// failing is a bucket that cannot be reached.
type failing struct {
	jetstream.ObjectStore
	err error
}

func (f failing) GetInfo(context.Context, string, ...jetstream.GetObjectInfoOpt) (*jetstream.ObjectInfo, error) {
	return nil, f.err
}

// reached is a bucket whose objects cannot be read.
type reached struct {
	jetstream.ObjectStore
	err error
}

func (f reached) Get(context.Context, string, ...jetstream.GetObjectOpt) (jetstream.ObjectResult, error) {
	return nil, f.err
}

// A bucket that cannot be read for now says nothing of its objects: a GroupInfo
// would be refused, or a group be folded without it.
func TestObjectsOutOfReach(t *testing.T) {
	o := testObjects(t)
	ctx := testContext(t)
	data := []byte("a GroupInfo")
	must[*jetstream.ObjectInfo](t)(o.PutBytes(ctx, "info", data))
	for _, err := range []error{
		nats.ErrNoResponders, nats.ErrConnectionClosed, nats.ErrTimeout, context.DeadlineExceeded, jetstream.ErrBucketNotFound,
		&jetstream.APIError{Code: 503, ErrorCode: 10008, Description: "JetStream system temporarily unavailable"},
	} {
		for _, store := range []jetstream.ObjectStore{failing{o.ObjectStore, err}, reached{o.ObjectStore, err}} {
			_, got := objects{ObjectStore: store, js: o.js, nc: o.nc, api: o.api, bucket: o.bucket}.get(ctx, "info", sha256Sum(data), 1<<20)
			if errors.Is(got, errBlob) || !errors.Is(got, errUnavailable) {
				t.Errorf("%T, %v: %v", store, err, got)
			}
		}
	}
	lags := failing{o.ObjectStore, jetstream.ErrObjectNotFound} // a replica, not the leader
	if _, err := (objects{ObjectStore: lags, js: o.js, nc: o.nc, api: o.api, bucket: o.bucket}).get(ctx, "info", sha256Sum(data), 1<<20); !errors.Is(err, errUnavailable) {
		t.Errorf("a replica that lags: %v", err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := o.get(short, "info", sha256Sum(data), 1<<20); !errors.Is(err, context.Canceled) || verbFor(fmt.Errorf("x: %w", err)) != verbLeave {
		t.Errorf("while shutting down: %v", err)
	}
}

// A copy of the broker's own that is damaged is made again where the delivery
// service still has the object.
func TestDamagedCopyOfAGroupInfo(t *testing.T) {
	w := newWorld(t, nil)
	w.create("alice", "bob", "carol")
	info := must[[]byte](t)(w.any().GroupInfo())
	ctx := testContext(t)
	infos := must[jetstream.ObjectStore](t)(w.js.ObjectStore(ctx, w.broker.names.infoBucket()))
	must[*jetstream.ObjectInfo](t)(infos.PutBytes(ctx, "info", info))
	w.reference("info", sumOf(info))
	w.noWork()
	sum := sha256Sum(info)
	own := must[*jetstream.ObjectInfo](t)(w.broker.blobs.GetInfo(ctx, blobName(w.key(), sum)))
	parts := must[jetstream.Stream](t)(w.js.Stream(ctx, "OBJ_"+w.broker.names.blobBucket()))
	if err := parts.Purge(ctx, jetstream.WithPurgeSubject("$O."+w.broker.names.blobBucket()+".C."+own.NUID)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.broker.blobs.get(ctx, own.Name, sum, 1<<20); !errors.Is(err, errBlob) {
		t.Fatalf("a copy without parts: %v", err)
	}
	w.reference("info", sumOf(info))
	w.noWork()
	if _, err := w.broker.blobs.get(ctx, own.Name, sum, 1<<20); err != nil {
		t.Errorf("the copy is not made again: %v", err)
	}
	w.empty(0)
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)

	// What was refused stays so when the group is loaded, whatever is there by then.
	late := append(bytes.Clone(info), 0)
	missing := w.reference("late", sumOf(late))
	w.await("no object", func(e event) bool { return e.Seq == missing && e.Reason == reasonObject })
	must[*jetstream.ObjectInfo](t)(infos.PutBytes(ctx, "late", late))
	r := must[*received](t)(w.broker.byTenant[w.tenant].inbound.receive(must[entry](t)(w.store().readLast(ctx, w.store().names.log(w.key(), kindInfo)))))
	var why *refusal
	if err := w.broker.resolve(ctx, r, false); !errors.As(err, &why) {
		t.Errorf("it is read: %v", err)
	}
	w.restart()
	w.empty(0)
	w.awaitOutput(w.epoch(), 1)
}
