package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// The whole path: an intent becomes a removal in every epoch until the leaver
// is gone, then a receipt.
func TestIntentBecomesRemoval(t *testing.T) {
	w := newWorld(t, nil)
	w.found("alice", "bob", "carol", "dave")
	message := w.leave(1, intents.SenderRemovalOnly)
	id := w.id(message)
	if v := w.submit(message); v != (verdict{id, intents.StatePending, ""}) {
		t.Fatalf("verdict %+v", v)
	}
	w.awaitOutput(w.epoch(), 1)
	w.empty(0) // leaves the proposal out
	w.awaitOutput(w.epoch(), 1)
	eve := w.join("eve") // an external commit cannot carry it
	proposals := w.awaitOutput(w.epoch(), 1)

	var p intents.Pending
	if err := w.api("group.pending", groupRequest{GroupID: w.groupID}, &p); err != nil {
		t.Fatal(err)
	}
	if len(p.Proposals) != 1 || string(p.Proposals[0]) != string(proposals[0]) || len(p.MustReference) != 1 || p.Epoch != w.epoch() {
		t.Errorf("pending: %+v", p)
	}
	w.fanOut(proposals)
	w.commit(2, member.CommitOptions{})
	w.agree(0, 2, 3, eve)
	w.await("removed", ofType(intents.StateRemoved, ""))
	w.prove()
	w.await("confirmed", ofType(intents.NoticeConfirmed, ""))

	var r statusReply
	if err := w.api("intent.status", statusRequest{ID: id}, &r); err != nil {
		t.Fatal(err)
	}
	if r.State != intents.StateRemoved || !r.Confirmed || r.RemovedEpoch != w.epoch() || len(r.Commit) != 64 || r.Group != w.key().group {
		t.Errorf("receipt %+v", r)
	}
	w.eventually("the group is closed", func() bool { n, _ := w.broker.Summary(); return n == 0 })
	if n := len(w.outputs()); n != 3 {
		t.Errorf("%d outputs, want one for each of 3 epochs", n)
	}
}

// A mode 2 intent takes along whom the Authentication Service associates, and
// nobody who joins later.
func TestAssociatedMembers(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Tenants[0].AuthService = sameName{} })
	w.found("alice/1", "bob/1", "carol/1", "bob/2", "bob/3")
	if v := w.submit(w.leave(1, intents.RemoveAssociatedMembers)); v.State == intents.StateRejected {
		t.Fatalf("verdict %+v", v)
	}
	w.awaitOutput(w.epoch(), 1, 3, 4)
	late := w.join("erin")
	proposals := w.awaitOutput(w.epoch(), 1, 3, 4)
	w.fanOut(proposals)
	delete(w.members, 3)
	delete(w.members, 4)
	w.commit(0, member.CommitOptions{})
	w.agree(0, 2, late)
	e := w.await("removed", ofType(intents.StateRemoved, ""))
	if len(e.Leaves) == 0 || len(e.Commit) != 64 {
		t.Errorf("removed: %+v", e)
	}
}

// An outside committer may commit while the broker is down; the broker finds
// its way from the log, and everything goes on.
func TestRestartResumes(t *testing.T) {
	w := newWorld(t, nil)
	w.found("alice", "bob", "carol")
	message := w.leave(1, intents.SenderRemovalOnly)
	w.submit(message)
	w.awaitOutput(w.epoch(), 1)
	w.restart()
	w.empty(0)
	w.awaitOutput(w.epoch(), 1)
	// Inputs that come while no broker runs, stored by the server alone.
	w.stop()
	server := must[*embedded](t)(startEmbedded(w.opts.Embedded, defaultMessageBytes, w.opts.Logger))
	w.nc = must[*nats.Conn](t)(nats.Connect("", nats.InProcessServer(server.server)))
	w.js = must[jetstream.JetStream](t)(jetstream.New(w.nc))
	w.empty(2)
	w.empty(0)
	w.nc.Close()
	if err := server.stop(); err != nil {
		t.Fatal(err)
	}
	w.start()
	proposals := w.awaitOutput(w.epoch(), 1)
	w.fanOut(proposals)
	w.commit(0, member.CommitOptions{})
	w.agree(0, 2)
	w.await("removed", ofType(intents.StateRemoved, ""))
	for _, out := range w.outputs() {
		if len(out.Proposals) != 1 {
			t.Errorf("an output with %d proposals", len(out.Proposals))
		}
	}
}

// A group is not loaded before it has something to do; then its whole log
// counts.
func TestGroupsAreLoadedLazily(t *testing.T) {
	w := newWorld(t, nil)
	w.found("alice", "bob", "carol")
	for range 5 {
		w.empty(0)
	}
	w.publish(kindCommit, []byte("no commit at all"))
	w.noWork()
	if m := w.broker.metrics.snapshot(); m["group_loads"] != 0 || m["inputs_skipped"] != 8 {
		t.Fatalf("before the intent: %v", m)
	}
	w.submit(w.leave(2, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 2)
	if m := w.broker.metrics.snapshot(); m["group_loads"] != 1 {
		t.Errorf("loads: %v", m)
	}
	// What was passed over is told now.
	w.await("refused", ofType(intents.NoticeRefused, reasonMalformed))
}

// The tenant's delivery service misses nothing while it is down, and what it
// acknowledges is told.
func TestRemovalsAreDelivered(t *testing.T) {
	w := newWorld(t, nil)
	w.found("alice", "bob", "carol")
	live := must[*nats.Subscription](t)(w.nc.SubscribeSync(w.broker.names.removal(w.key())))
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
	w.empty(0)
	w.awaitOutput(w.epoch(), 1)
	for range 2 {
		m := must[*nats.Msg](t)(live.NextMsgWithContext(testContext(t)))
		var out intents.Output
		if err := json.Unmarshal(m.Data, &out); err != nil || !bytes.Equal(out.GroupID, w.groupID) {
			t.Errorf("live: %q %v", m.Data, err)
		}
	}
	c := must[jetstream.Consumer](t)(w.js.Consumer(testContext(t), w.store().names.logStream(), w.store().names.removalsConsumer(testTenant)))
	var first jetstream.Msg
	for i := range 2 {
		m := must[jetstream.Msg](t)(c.Next(jetstream.FetchMaxWait(patience)))
		if i == 0 {
			first = m
			continue
		}
		if err := m.DoubleAck(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	second := w.await("delivered", ofType(eventDelivered, ""))
	if second.Epoch != w.epoch() || len(second.Intents) != 1 {
		t.Errorf("delivered %+v", second)
	}
	// An acknowledgement while no broker runs is found at start.
	w.stop()
	server := must[*embedded](t)(startEmbedded(w.opts.Embedded, defaultMessageBytes, w.opts.Logger))
	nc := must[*nats.Conn](t)(nats.Connect("", nats.InProcessServer(server.server)))
	if err := nc.Publish(first.Reply(), []byte("+ACK")); err != nil {
		t.Fatal(err)
	}
	js := must[jetstream.JetStream](t)(jetstream.New(nc))
	w.eventually("the acknowledgement counts", func() bool {
		c := must[jetstream.Consumer](t)(js.Consumer(testContext(t), w.store().names.logStream(), w.store().names.removalsConsumer(testTenant)))
		return c.CachedInfo().NumAckPending == 0
	})
	nc.Close()
	if err := server.stop(); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.noWork()
}

// Another instance stores an output first: ours is not stored, and nobody is
// proposed twice.
func TestAnotherWriterIsFirst(t *testing.T) {
	var w *world
	var once sync.Once
	w = newWorld(t, func(o *Options) {
		o.testOnlyFault = func(step string) error {
			if step != "output" || w == nil {
				return nil
			}
			once.Do(func() {
				g := w.any().Public()
				out := must[*intents.Output](t)(makeOutput(g, []mlscore.Signer{w.signer}, &intents.Order{Epoch: g.Epoch(), Leaves: []mlscore.LeafIndex{1}}, 1<<20))
				data := must[[]byte](t)(json.Marshal(out))
				must[*jetstream.PubAck](t)(w.js.Publish(testContext(t), w.store().names.log(w.key(), kindRemoval), data))
			})
			return nil
		}
	})
	w.found("alice", "bob", "carol", "dave")
	w.publish(kindIntent, w.intent(2, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1, 2)
	w.publish(kindIntent, w.intent(1, intents.SenderRemovalOnly))
	w.noWork()
	w.awaitOutput(w.epoch(), 1, 2)
	if n := w.broker.metrics.conflicts.Load(); n != 1 {
		t.Errorf("%d conflicts", n)
	}
}

// The same intent again changes nothing; each submission has its verdict.
func TestSubmissionsAreIdempotent(t *testing.T) {
	w := newWorld(t, nil)
	w.found("alice", "bob", "carol")
	message := w.intent(1, intents.SenderRemovalOnly)
	for range 3 {
		if v := w.submit(message); v.State != intents.StatePending {
			t.Errorf("verdict %+v", v)
		}
	}
	proposals := w.awaitOutput(w.epoch(), 1)
	w.fanOut(proposals)
	w.commit(0, member.CommitOptions{})
	w.await("removed", ofType(intents.StateRemoved, ""))
	if v := w.submit(message); v.State != intents.StateRemoved {
		t.Errorf("after the removal: %+v", v)
	}
	if n := len(w.outputs()); n != 1 {
		t.Errorf("%d outputs", n)
	}
}

// Groups whose token is a hash work like others.
func TestHashedGroupTokens(t *testing.T) {
	for name, id := range map[string][]byte{"empty": {}, "long": bytes.Repeat([]byte("g"), 100)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.groupID = id
			w.create("alice", "bob", "carol")
			message := w.leave(1, intents.SenderRemovalOnly)
			if v := w.submit(message); v.State != intents.StateParked {
				t.Fatalf("before the GroupInfo: %+v", v)
			}
			w.info()
			w.empty(0)
			proposals := w.awaitOutput(w.epoch(), 1)
			w.restart()
			w.fanOut(proposals)
			w.commit(0, member.CommitOptions{})
			w.agree(0, 2)
			w.await("removed", ofType(intents.StateRemoved, ""))
		})
	}
}

// An operator cancels an intent, and resets a group.
func TestControls(t *testing.T) {
	w := newWorld(t, nil)
	w.found("alice", "bob", "carol")
	message := w.intent(1, intents.SenderRemovalOnly)
	w.submit(message)
	w.awaitOutput(w.epoch(), 1)
	var v verdict
	if err := w.api("intent.cancel", controlRequest{statusRequest: statusRequest{ID: w.id(message)}, By: "operator"}, &v); err != nil || v.State != intents.StateCancelled {
		t.Fatalf("%+v %v", v, err)
	}
	w.empty(0)
	w.noWork()
	if n := len(w.outputs()); n != 1 {
		t.Errorf("%d outputs after the cancellation", n)
	}
	var reset resetReply
	if err := w.api("group.reset", groupRequest{GroupID: w.groupID}, &reset); err != nil || reset.Seq == 0 {
		t.Errorf("reset: %+v %v", reset, err)
	}
	w.await("needs_group_info", ofType(intents.NoticeNeedsGroupInfo, ""))
	var show groupReply
	if err := w.api("group.show", groupRequest{GroupID: w.groupID}, &show); err != nil || show.Epoch != w.epoch() || show.Members != 3 || !show.Authorised {
		t.Errorf("show: %+v %v", show, err)
	}
}

// A parked intent that stays unknown is rejected by a timer, through the log.
func TestTimers(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Tenants[0].Policy.ParkTTL = 300 * time.Millisecond })
	w.create("alice", "bob")
	if v := w.submit(w.intent(1, intents.SenderRemovalOnly)); v.State != intents.StateParked || v.Reason != intents.ReasonUnknownGroup {
		t.Fatalf("%+v", v)
	}
	w.restart() // the timer is not lost
	w.await("expired", ofType(intents.StateExpired, ""))
	w.eventually("the group is closed", func() bool { n, _ := w.broker.Summary(); return n == 0 })
}

// sameName associates members whose names agree up to a slash.
type sameName struct{}

func (sameName) Associate(_ context.Context, _ string, q intents.Question) (intents.Answer, error) {
	a := intents.Answer{Intent: q.Intent, Epoch: q.Epoch, Status: intents.StatusResolved}
	user := func(c intents.Candidate) string {
		name, _, _ := strings.Cut(string(c.Credential.Identity), "/")
		return name
	}
	for _, c := range q.Candidates {
		if user(c) == user(q.Sender) {
			a.Associated = append(a.Associated, c.Leaf)
		} else {
			a.Unrelated = append(a.Unrelated, c.Leaf)
		}
	}
	return a, nil
}

// flaky fails, hangs, panics and lies before it answers.
type flaky struct {
	mu    sync.Mutex
	calls int
}

func (f *flaky) Associate(ctx context.Context, tenant string, q intents.Question) (intents.Answer, error) {
	f.mu.Lock()
	f.calls++
	n := f.calls
	f.mu.Unlock()
	switch n {
	case 1:
		return intents.Answer{}, errors.New("down")
	case 2:
		<-ctx.Done()
		return intents.Answer{}, ctx.Err()
	case 3:
		panic("a bug")
	case 4:
		return intents.Answer{Intent: q.Intent, Epoch: q.Epoch, Status: intents.StatusResolved, Associated: []mlscore.LeafIndex{0, 77}}, nil
	}
	return sameName{}.Associate(ctx, tenant, q)
}

// While the Authentication Service fails, the sender's own removal goes out and
// nobody else's.
func TestAuthenticationServiceFails(t *testing.T) {
	service := new(flaky)
	w := newWorld(t, func(o *Options) {
		o.Tenants[0].AuthService, o.Tenants[0].AuthTimeout = service, 50*time.Millisecond
	})
	w.found("alice/1", "bob/1", "carol/1", "bob/2")
	w.submit(w.leave(1, intents.RemoveAssociatedMembers))
	w.awaitOutput(w.epoch(), 1)
	w.await("held", ofType(intents.StateHeld, intents.ReasonAssociation))
	for range 4 { // each epoch asks again
		w.empty(0)
		w.noWork()
		w.eventually("asked", func() bool { _, n := w.broker.Summary(); return n == 1 })
		time.Sleep(100 * time.Millisecond)
	}
	w.awaitOutput(w.epoch(), 1, 3)
}

// Tenants share nothing: the same group_id is another group.
func TestTenantsAreApart(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Tenants = append(o.Tenants, Tenant{Name: "globex", Signers: o.Tenants[0].Signers}) })
	w.found("alice", "bob", "carol")
	message := w.intent(1, intents.SenderRemovalOnly)
	var v verdict
	if err := w.apiOf("globex", "intent.submit", submitRequest{Intent: message, Wait: "5s"}, &v); err != nil || v.State != intents.StateParked || v.Reason != intents.ReasonUnknownGroup {
		t.Fatalf("in the other tenant: %+v %v", v, err)
	}
	mine := w.submit(message)
	if mine.State != intents.StatePending || mine.ID == v.ID {
		t.Errorf("%+v, the other tenant's is %s", mine, v.ID)
	}
	w.awaitOutput(w.epoch(), 1)
	for _, request := range []any{statusRequest{ID: mine.ID}, statusRequest{ID: mine.ID, GroupID: w.groupID}} {
		var e *apiError
		if err := w.apiOf("globex", "intent.status", request, nil); !errors.As(err, &e) || e.Code != codeNotFound {
			t.Errorf("the other tenant's status: %v", err)
		}
	}
	if err := w.apiOf("globex", "group.pending", groupRequest{GroupID: w.groupID}, nil); err == nil {
		t.Error("the other tenant knows the group")
	}
	for _, e := range w.eventsOf(groupKey{"globex", w.key().group}) {
		if e.Type == intents.NoticeProposed {
			t.Errorf("%+v", e)
		}
	}
}

// What the policy holds goes on when an operator approves it.
func TestApproval(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Tenants[0].AuthService, o.Tenants[0].Policy.Mode2 = sameName{}, intents.Mode2Hold
	})
	w.found("alice/1", "bob/1", "carol/1", "bob/2")
	message := w.leave(1, intents.RemoveAssociatedMembers)
	w.submit(message)
	w.awaitOutput(w.epoch(), 1)
	w.await("held", ofType(intents.StateHeld, intents.ReasonApproval))
	var v verdict
	request := controlRequest{statusRequest: statusRequest{ID: w.id(message), GroupID: w.groupID}, By: "operator", Wait: "5s"}
	if err := w.api("intent.approve", request, &v); err != nil || v.State != intents.StatePending {
		t.Fatalf("%+v %v", v, err)
	}
	w.awaitOutput(w.epoch(), 1, 3)
	w.checkOutputs()
}

// More open groups than fit in memory are served all the same.
func TestOpenGroupsBeyondMemory(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Partitions, o.CacheBytes = 1, 10_000 })
	var groups []*world
	for i := range 5 {
		g := *w
		g.groupID = fmt.Appendf(nil, "group %d", i)
		g.found("alice", "bob", "carol")
		g.submit(g.leave(1, intents.SenderRemovalOnly))
		groups = append(groups, &g)
	}
	w.noWork()
	if n, open := w.broker.Summary(); n != 5 || open != 5 {
		t.Errorf("%d open groups with %d intents", n, open)
	}
	for _, g := range groups {
		g.empty(0)
	}
	for _, g := range groups {
		g.awaitOutput(g.epoch(), 1)
		g.checkOutputs()
	}
	if n := len(w.broker.all[0].groups.byKey); n < 1 || n > 2 {
		t.Errorf("%d groups in memory", n)
	}
}

// Of two instances on one server the second takes over when the first leaves,
// and knows what is open from the ledger, although it began before that.
func TestAnotherInstanceTakesOver(t *testing.T) {
	server := must[*embedded](t)(startEmbedded(Embedded{StateDir: t.TempDir(), SyncLater: true, Listen: "127.0.0.1:0"}, defaultMessageBytes, zap.NewNop()))
	t.Cleanup(func() {
		if err := server.stop(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, func(o *Options) { o.Embedded, o.Conn.URL = Embedded{}, server.url() })
	w.found("alice", "bob", "carol")
	w.noWork() // the first instance is pinned to the partition
	second := *w
	second.start()
	t.Cleanup(func() { second.stop() })
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
	w.stop()
	w.broker, w.nc, w.js = second.broker, second.nc, second.js
	w.empty(0)
	proposals := w.awaitOutput(w.epoch(), 1)
	w.fanOut(proposals)
	w.commit(2, member.CommitOptions{})
	w.await("removed", ofType(intents.StateRemoved, ""))
	w.agree(0, 2)
	w.checkOutputs()
	if n := second.broker.metrics.outputs.Load(); n != 1 {
		t.Errorf("the second instance stored %d outputs", n)
	}
}
