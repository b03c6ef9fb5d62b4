package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"leavebroker/broker"
	"leavebroker/broker/natstest"
	"leavebroker/config"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// TestHandover takes one of two brokers away while groups live that each have a
// leaver, and tells how long the groups waited for the other: after a crash,
// after an orderly end, after one as soon as it served, and while the owner was
// frozen. A frozen owner that wakes is fenced, says so, and has done no harm. Then
// the server stands still, so that each broker takes the other for dead.
func TestHandover(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	w := newHandoverWorld(t, func(*chaosBroker) {})
	first, second := w.fleet[0], w.fleet[1]
	endInOrder := func() {
		if code := first.end(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	w.awaitSpread()
	w.play("crash", func() { first.end(syscall.SIGKILL) })
	w.start(first)
	w.awaitSpread()
	w.play("orderly end", endInOrder)
	// What it has had for long enough, the second gives up as soon as it hears of
	// the first.
	w.awaitOwners(2*time.Duration(config.Default().PinTTL)+time.Second, func(int) *chaosBroker { return second })
	w.play("orderly end right after a start", func() {
		w.start(first)
		endInOrder()
	})
	w.start(first)
	w.awaitSpread()
	var mark int64
	w.play("freeze", func() {
		mark = int64(len(first.logSince(0)))
		first.Freeze()
	})
	first.Thaw()
	w.until("the owner that was frozen says that it was replaced", func() bool {
		return bytes.Contains(first.logSince(mark), []byte("another instance has taken a partition"))
	})
	server := w.cluster.Servers[0]
	server.Freeze()
	time.Sleep(5 * time.Second) // nobody hears of anybody meanwhile
	server.Thaw()
	w.finish()
}

// handoverWorld is two brokers with the times of the default configuration.
type handoverWorld struct {
	*testing.T
	cluster *natstest.Cluster
	fleet   []*chaosBroker
	groups  []*handoverGroup
	over    atomic.Bool
	driving sync.WaitGroup
}

// handoverGroup is a group whose leaver waits to be removed, while its members
// commit and commit.
type handoverGroup struct {
	*crowd
	leaver    mlscore.LeafIndex
	id        string       // of its intent
	epochs    atomic.Int64 // those in which it was proposed
	partition string
}

// newHandoverWorld starts brokers, each of which is prepared first, and groups.
func newHandoverWorld(t *testing.T, prepare func(*chaosBroker)) *handoverWorld {
	w := &handoverWorld{T: t, cluster: natstest.Start(t, natstest.Options{SyncAlways: true})}
	w.fleet = newFleet(t, w.cluster, 2, chaosTenants+"compaction:\n  entries: 1000000\n") // the judge reads whole logs
	for _, b := range w.fleet {
		b.env = append(b.env, "LEAVEBROKER_PARTITIONS=16") // so that each has some
		prepare(b)
		w.start(b)
	}
	for i := range 8 { // by these names each has a partition to itself
		g := &handoverGroup{crowd: newCrowd(t, w.fleet[0].daemonProcess, "acme", fmt.Sprintf("handover%d", i))}
		g.fail = func(err error) { t.Error(err); runtime.Goexit() }
		w.groups = append(w.groups, g)
		w.driving.Go(func() { w.drive(g) })
	}
	w.goOn()
	for _, m := range w.fleet[0].entries() {
		for _, g := range w.groups {
			if m.subject[4] == broker.GroupToken(g.crowd.id) {
				g.partition = m.subject[2]
			}
		}
	}
	return w
}

// start starts a broker and waits until it serves.
func (w *handoverWorld) start(b *chaosBroker) {
	w.Helper()
	b.start()
	if !b.awaitServing(patience) {
		w.Fatalf("a broker does not serve; its log ends with\n%s", b.Log())
	}
}

// drive lets a group live until all is over, and its leaver be removed then.
func (w *handoverWorld) drive(g *handoverGroup) {
	g.found("alice", "bob", "carol")
	g.leaver = g.members[2].OwnLeaf()
	message := g.leave(g.members[2], intents.SenderRemovalOnly)
	g.id = g.intentID(message)
	// Requests would reach the broker that is away, too, so the live copies of
	// outputs tell what is proposed.
	outputs := got[*nats.Subscription](g.crowd)(g.nc.SubscribeSync("leave.removal.acme." + broker.GroupToken(g.crowd.id)))
	g.submit(message)
	for !w.over.Load() && !w.Failed() {
		g.awaitOutput(outputs)
		g.epochs.Add(1)
		time.Sleep(20 * time.Millisecond)
		g.empty(g.members[0])
	}
	g.fanOut(g.awaitProposals(g.leaver))
	g.commit(g.members[0], member.CommitOptions{})
	g.empty(g.members[0])
	g.awaitStatus(g.id, confirmed)
}

// awaitOutput waits for an output of the current epoch.
func (g *handoverGroup) awaitOutput(outputs *nats.Subscription) {
	for epoch := g.epoch() + 1; epoch != g.epoch(); {
		m, err := outputs.NextMsg(patience)
		if err != nil {
			g.check(fmt.Errorf("no output for epoch %d: %w", g.epoch(), err))
		}
		epoch = decodeOutput(&stored{data: m.Data}).Epoch
	}
}

// until waits for something.
func (w *handoverWorld) until(what string, is func() bool) {
	w.Helper()
	for begin := time.Now(); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > patience || w.Failed() {
			w.Fatalf("not so: %s", what)
		}
	}
}

// goOn waits until all groups have been served a few more times.
func (w *handoverWorld) goOn() {
	w.Helper()
	for i, g := range w.groups {
		enough := g.epochs.Load() + 3
		w.until(fmt.Sprintf("group %d goes on", i), func() bool { return g.epochs.Load() >= enough })
	}
}

// awaitSpread waits until each broker has the groups that fall to it while both
// serve: it ranks first, by its name, for every other one.
func (w *handoverWorld) awaitSpread() {
	w.Helper()
	w.awaitOwners(0, func(group int) *chaosBroker { return w.fleet[group%len(w.fleet)] })
}

// awaitOwners waits until each group has been a broker's for a time, as the ledger
// says; 0 is for any, by whatever clock.
func (w *handoverWorld) awaitOwners(lasting time.Duration, of func(group int) *chaosBroker) {
	w.Helper()
	for i, g := range w.groups {
		b := of(i)
		w.until(fmt.Sprintf("group %d has been that of broker %s for %s", i, b.instance, lasting), func() bool {
			r := w.owner(g)
			return r.Instance == b.instance && !r.Released && (lasting == 0 || time.Since(r.Since) >= lasting)
		})
	}
}

// ownerOfGroup is what the ledger says of a group's partition.
type ownerOfGroup struct {
	Instance string
	Since    time.Time // by the instance's clock
	Released bool
}

// owner reads who works on a group; nothing is known while the ledger cannot be read.
func (w *handoverWorld) owner(g *handoverGroup) (r ownerOfGroup) {
	w.Helper()
	ctx, js, done := w.fleet[0].jetStream()
	defer done()
	ledger, err := js.KeyValue(ctx, "leave-ledger")
	if err != nil {
		w.Fatal(err)
	}
	entry, err := ledger.Get(ctx, "_owner._."+g.partition)
	if err != nil || json.Unmarshal(entry.Value(), &r) != nil {
		return ownerOfGroup{}
	}
	return r
}

// play does something to the first broker, and tells how long groups waited until
// all went on without.
func (w *handoverWorld) play(what string, leave func()) {
	w.Helper()
	w.goOn()
	began := time.Now()
	leave()
	w.goOn()
	ended := time.Now()
	w.Logf("%s: groups waited %s", what, handovers(w.fleet[1].entries(), began, ended))
}

// finish brings all groups to their end and judges them.
func (w *handoverWorld) finish() {
	w.goOn()
	w.over.Store(true)
	w.driving.Wait()
	if w.Failed() {
		return
	}
	w.fleet[1].awaitConsumed("partition-")
	var groups []judgedGroup
	for _, g := range w.groups {
		groups = append(groups, judgedGroup{
			token: broker.GroupToken(g.crowd.id), final: g.epoch(), intents: map[string]string{g.id: intents.StateRemoved},
		})
	}
	for _, wrong := range judgeChaos(groups, w.fleet[0].entries(), w.fleet[0].events()) {
		w.Error(wrong)
	}
	for _, b := range w.fleet {
		if code := b.end(syscall.SIGTERM); code != 0 {
			w.Errorf("exit code %d", code)
		}
	}
}

// handovers tells the longest time that each group waited for an output of its
// epoch, of those that were stored from one instant to another.
func handovers(log []stored, from, to time.Time) string {
	opened, longest := map[string]time.Time{}, map[string]time.Duration{}
	for _, m := range log {
		group := m.subject[4]
		if m.kind() == "commit" {
			opened[group] = m.at
		}
		if m.kind() != "removal" || m.at.Before(from) || m.at.After(to) {
			continue
		}
		waits := opened[group]
		if waits.Before(from) {
			waits = from
		}
		longest[group] = max(longest[group], m.at.Sub(waits))
	}
	all := slices.Collect(maps.Values(longest))
	told := quantiles(all)
	for _, d := range all { // sorted by now
		told += " " + d.Round(time.Millisecond).String()
	}
	return told
}
