package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leavebroker/broker"
	"leavebroker/broker/delivery"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// TestCrash kills the daemon at random instants while groups live: members
// leave, by intent.submit and by publishing, others join by external commits,
// commit, or take their leave back. Afterwards the log and the events are
// judged (see crashJudge): every acknowledged intent got its verdict, every
// leaver was proposed in every epoch that the broker reached, nobody else was,
// and nobody twice in an epoch. LEAVEBROKER_CRASH_SEED plays the same lives
// again; the instants are then the same too, as far as the machine is.
func TestCrash(t *testing.T) {
	t.Parallel()
	w := newCrashWorld(t)
	kills, groups := 50, 8
	if testing.Short() {
		kills, groups = 8, 3
	}
	w.daemon.start()
	w.daemon.awaitReady()
	w.shortenAckWait()
	stopTaking := w.takeRemovals()
	var living sync.WaitGroup
	for i := range groups {
		living.Go(func() { w.liveAgainAndAgain(i) })
	}
	started := time.Now()
	w.killAgainAndAgain(kills)
	t.Logf("%d kills in %.1f s", kills, time.Since(started).Seconds())
	w.over.Store(true)
	living.Wait()
	if t.Failed() {
		t.FailNow()
	}
	w.awaitRemovals()
	stopTaking()
	log, events := w.daemon.stream("leave-log"), w.daemon.events()
	w.daemon.stop()
	for _, line := range w.daemon.logLines() {
		if line["level"] == "error" {
			t.Errorf("the daemon logged %v", line)
		}
	}

	w.judge(log, events)
	var total crashCount
	for _, l := range w.lives {
		total.plus(&l.crashCount)
	}
	t.Logf("%.1f s in all; %d groups, %d messages in the log, %d events; %+v",
		time.Since(started).Seconds(), len(w.lives), len(log), len(events), total)
	if least := kills / 4; total.Left < least || total.Epochs < 2*least || total.Waits < least {
		t.Errorf("too little happened: %+v", total)
	}
}

// crashWorld is a daemon that crashes, and the groups that depend on it.
type crashWorld struct {
	*testing.T
	seed   uint64
	daemon *daemonProcess
	over   atomic.Bool // no more kills: the groups come to their end

	mu    sync.Mutex
	lives []*crashLife              // guarded by mu
	taken map[[sha256.Size]byte]int // outputs that the durable consumer gave, by body; guarded by mu
}

func newCrashWorld(t *testing.T) *crashWorld {
	w := &crashWorld{T: t, seed: rand.Uint64(), taken: map[[sha256.Size]byte]int{}}
	if s := os.Getenv("LEAVEBROKER_CRASH_SEED"); s != "" {
		var err error
		if w.seed, err = strconv.ParseUint(s, 0, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LEAVEBROKER_CRASH_SEED=%d", w.seed)
	w.daemon = newDaemon(t, "tenants:\n  - name: acme\n    lag_window: 1h\n")
	return w
}

// shortenAckWait lets the server deliver again after a second what a crash took
// from the delivery service, as an operator might.
func (w *crashWorld) shortenAckWait() {
	nc := w.daemon.connect()
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		w.Fatal(err)
	}
	c, err := js.Consumer(w.Context(), "leave-log", "removals-acme")
	if err != nil {
		w.Fatal(err)
	}
	config := c.CachedInfo().Config
	config.AckWait = time.Second
	if _, err := js.UpdateConsumer(w.Context(), "leave-log", config); err != nil {
		w.Fatal(err)
	}
}

// killAgainAndAgain kills the daemon and starts it again: at random instants of
// its work, and of its start. It leaves it running.
func (w *crashWorld) killAgainAndAgain(kills int) {
	random := rand.New(rand.NewPCG(w.seed, 0))
	startup, ready := 300*time.Millisecond, true
	for range kills {
		if w.Failed() {
			return
		}
		begin := time.Now()
		if !ready {
			w.daemon.start()
		}
		if !ready && random.IntN(4) == 0 {
			time.Sleep(time.Duration(random.Float64() * 1.2 * float64(startup)))
		} else {
			w.daemon.awaitReady()
			if !ready {
				startup = time.Since(begin)
			}
			time.Sleep(time.Duration(random.Float64() * float64(time.Second)))
		}
		w.daemon.kill()
		ready = false
	}
	w.daemon.start()
	w.daemon.awaitReady()
}

// takeRemovals is the delivery service: it takes outputs from the durable
// consumer and gives them to the groups, until the result is called.
func (w *crashWorld) takeRemovals() (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	ds := w.daemon.service("acme")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			r, err := ds.NextRemoval(ctx, 500*time.Millisecond)
			if err != nil || r == nil {
				time.Sleep(10 * time.Millisecond) // the daemon is down, or idle
				continue
			}
			w.take(r)
			_ = r.Done() // it comes again if this is lost
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (w *crashWorld) take(r *delivery.Removal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken[outputSum(r.GroupID, r.Epoch, r.Proposals)]++
	for _, l := range w.lives {
		if string(l.id) == string(r.GroupID) {
			l.inbox[r.Epoch] = append(l.inbox[r.Epoch], r.Proposals...)
		}
	}
}

// outputSum tells outputs apart.
func outputSum(groupID []byte, epoch uint64, proposals [][]byte) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%x %d %x", groupID, epoch, proposals))
}

// awaitRemovals waits until the durable consumer has given every output.
func (w *crashWorld) awaitRemovals() {
	nc := w.daemon.connect()
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		w.Fatal(err)
	}
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		c, err := js.Consumer(w.Context(), "leave-log", "removals-acme")
		if err != nil {
			w.Fatal(err)
		}
		if info := c.CachedInfo(); info.NumPending == 0 && info.NumAckPending == 0 {
			return
		} else if time.Since(begin) > patience {
			w.Fatalf("the delivery service still lacks %d outputs, %d are not acknowledged", info.NumPending, info.NumAckPending)
		}
	}
}

// liveAgainAndAgain plays groups one after the other until all kills are over.
func (w *crashWorld) liveAgainAndAgain(worker int) {
	nc := w.daemon.connect()
	defer nc.Close()
	suites := mlscore.Suites()
	for n := 0; !w.over.Load() && !w.Failed(); n++ {
		ds, err := delivery.New(nc, "leave", "acme")
		if err != nil {
			w.Error(err)
			return
		}
		l := &crashLife{
			random: rand.New(rand.NewPCG(w.seed, uint64(1+worker)<<32|uint64(n))), over: &w.over, world: w,
			inbox: map[uint64][][]byte{}, given: map[string]bool{}, waited: map[uint64][]mlscore.LeafIndex{},
		}
		suite, err := mlscore.LookupSuite(suites[(worker+n)%2]) // the cheap ones
		if err != nil {
			w.Error(err)
			return
		}
		l.crowd = &crowd{
			fail: func(err error) { w.Error(err); runtime.Goexit() },
			ctx:  w.Context(), nc: nc, ds: ds, tenant: "acme", suite: suite, id: fmt.Appendf(nil, "life-%d-%d", worker, n),
			sender: w.daemon.externalSender("acme", suite), random: rand.NewChaCha8([32]byte{byte(worker), byte(n), byte(w.seed)}), shared: new(member.Shared),
		}
		w.mu.Lock()
		w.lives = append(w.lives, l)
		w.mu.Unlock()
		l.live()
	}
}

// crashCount says how much happened.
type crashCount struct{ Left, Stayed, Epochs, Joins, Commits, Waits int }

func (c *crashCount) plus(o *crashCount) {
	c.Left += o.Left
	c.Stayed += o.Stayed
	c.Epochs += o.Epochs
	c.Joins += o.Joins
	c.Commits += o.Commits
	c.Waits += o.Waits
}

// crashLeaver is one who signed an intent.
type crashLeaver struct {
	leaf    mlscore.LeafIndex
	message []byte
	id      string
	stays   bool        // its leaf changed after the intent: superseded
	acked   atomic.Bool // the broker has the intent
}

// crashLife is the life of one group.
type crashLife struct {
	*crowd
	crashCount
	world  *crashWorld
	over   *atomic.Bool
	random *rand.Rand

	inbox   map[uint64][][]byte // proposals by epoch; guarded by world.mu
	given   map[string]bool     // proposals that the members have
	leavers []*crashLeaver
	waited  map[uint64][]mlscore.LeafIndex // by epoch: who must have been proposed
	telling sync.WaitGroup                 // intents on their way
}

const (
	crashFewest, crashMost = 4, 14
	crashSteps             = 50
)

// live is the life: its end is that every leaver is gone for good.
func (l *crashLife) live() {
	early := l.random.IntN(3) == 0
	if early {
		l.create(l.newName())
		l.add(l.newName(), l.newName(), l.newName(), l.newName())
		l.leaveNow() // before the broker knows the group
		l.info()
		l.empty(l.any()) // proves the GroupInfo
	} else {
		l.found(l.newName(), l.newName(), l.newName(), l.newName(), l.newName(), l.newName())
	}
	for range crashSteps {
		if l.over.Load() || l.world.Failed() {
			break
		}
		l.step()
		time.Sleep(time.Duration(l.random.IntN(20)) * time.Millisecond)
	}
	l.end()
}

// step does one thing that happens in groups.
func (l *crashLife) step() {
	n := len(l.members)
	switch what := l.random.IntN(100); {
	case n <= crashFewest || what < 20 && n < crashMost:
		l.join(l.client(l.newName()))
		l.Joins++
	case what < 45:
		l.leaveNow()
	case what < 50:
		l.stay()
	case what < 65:
		l.empty(l.any())
		l.Commits++
	case what < 75:
		l.take()
		l.commitRemovals()
	case what < 80:
		l.info()
	default:
		l.await()
		if l.random.IntN(2) == 0 {
			l.commitRemovals()
			l.empty(l.any()) // confirmed: the broker may put the group aside
		}
	}
	l.Epochs = int(l.epoch())
}

func (l *crashLife) any() *member.Group { return l.members[l.random.IntN(len(l.members))] }

// leaveNow lets a member sign and vanish; its intent is on its way meanwhile.
func (l *crashLife) leaveNow() {
	m := l.any()
	leaver := &crashLeaver{leaf: m.OwnLeaf()}
	leaver.message = l.leave(m, intents.SenderRemovalOnly)
	leaver.id = l.intentID(leaver.message)
	l.leavers = append(l.leavers, leaver)
	l.Left++
	submits := l.random.IntN(2) == 0
	l.telling.Go(func() { l.tell(leaver, submits) })
}

func (l *crashLife) tell(leaver *crashLeaver, submits bool) {
	if !submits {
		l.publish("intent", leaver.message)
	} else if v := l.submit(leaver.message); v.ID != leaver.id || badStates[v.State] || v.State == "already_gone" {
		l.check(fmt.Errorf("the intent %s of leaf %d is %+v", leaver.id, leaver.leaf, v))
	}
	leaver.acked.Store(true)
}

// stay lets a member sign, and change its leaf by a commit before it is gone.
func (l *crashLife) stay() {
	m := l.any()
	leaver := &crashLeaver{leaf: m.OwnLeaf(), message: l.sign(m, intents.SenderRemovalOnly), stays: true}
	leaver.id = l.intentID(leaver.message)
	l.leavers = append(l.leavers, leaver)
	l.tell(leaver, l.random.IntN(2) == 0)
	l.empty(m)
	l.Stayed++
}

// gone says whether the leaf that signed is not in the tree any more.
func (l *crashLife) gone(leaver *crashLeaver) bool {
	in := got[*intents.LeafOperationIntent](l.crowd)(intents.ParseMessage(leaver.message, intents.DefaultWireFormat))
	leaf := l.members[0].Public().Tree().Leaf(leaver.leaf)
	return leaf == nil || string(leaf.Ref(l.suite)) != string(in.SenderLeafRef)
}

// take brings what the delivery service has of the broker's proposals for this
// epoch to the members, and gives the leaves that are proposed.
func (l *crashLife) take() map[mlscore.LeafIndex]bool {
	l.world.mu.Lock()
	proposals := slices.Clone(l.inbox[l.epoch()])
	l.world.mu.Unlock()
	leaves := map[mlscore.LeafIndex]bool{}
	for _, p := range proposals {
		if !l.given[string(p)] {
			l.given[string(p)] = true
			l.fanOut([][]byte{p})
		}
		leaves[l.removedBy(p)] = true
	}
	return leaves
}

// await stays in this epoch until every leaver whose intent is acknowledged is
// proposed.
func (l *crashLife) await() {
	var must []mlscore.LeafIndex
	for _, leaver := range l.leavers {
		if leaver.acked.Load() && !leaver.stays && !l.gone(leaver) {
			must = append(must, leaver.leaf)
		}
	}
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		leaves := l.take()
		lacks := slices.DeleteFunc(slices.Clone(must), func(leaf mlscore.LeafIndex) bool { return leaves[leaf] })
		if len(lacks) == 0 {
			break
		}
		if time.Since(begin) > patience || l.world.Failed() {
			l.check(fmt.Errorf("leaves %v are not proposed in epoch %d", lacks, l.epoch()))
		}
	}
	l.waited[l.epoch()] = must
	l.Waits++
}

// commitRemovals lets a member commit the proposals that the members have.
func (l *crashLife) commitRemovals() {
	commit := l.commit(l.any(), member.CommitOptions{})
	for _, leaf := range commit.Staged.Removed {
		if !slices.ContainsFunc(l.leavers, func(o *crashLeaver) bool { return o.leaf == leaf && !o.stays }) {
			l.check(fmt.Errorf("leaf %d was removed and did not ask", leaf))
		}
	}
	l.Commits++
}

// end waits for the last leavers, removes them, and waits for the broker's word
// on each.
func (l *crashLife) end() {
	l.telling.Wait()
	l.await()
	l.commitRemovals()
	for _, leaver := range l.leavers {
		if !l.gone(leaver) {
			l.check(fmt.Errorf("leaf %d is still there", leaver.leaf))
		}
		want := "removed"
		if leaver.stays {
			want = "superseded"
		}
		l.awaitStatus(leaver.id, func(v *delivery.Verdict) bool { return v.State == want })
	}
	l.empty(l.any())
	for _, leaver := range l.leavers {
		l.awaitStatus(leaver.id, func(v *delivery.Verdict) bool { return v.Confirmed == !leaver.stays })
	}
	l.agree()
	l.Epochs = int(l.epoch())
}

// judge judges the log and the events, and then its own sharpness: each of some
// wrongs, put into the log, must be seen.
func (w *crashWorld) judge(log []stored, events []told) {
	var groups []judgedGroup
	for _, l := range w.lives {
		groups = append(groups, l.judged())
	}
	for _, wrong := range judgeCrash(groups, log, events) {
		w.Error(wrong)
	}
	for _, out := range log {
		if out.kind() != "removal" {
			continue
		}
		if sum, err := outputSumOf(out.data); err != nil || w.taken[sum] == 0 {
			w.Errorf("output %d did not reach the delivery service: %v", out.seq, err)
		}
	}
	for _, wrong := range crashWrongs(groups, log, events) {
		found := judgeCrash([]judgedGroup{wrong.group}, wrong.log, wrong.events)
		if !slices.ContainsFunc(found, func(s string) bool { return strings.Contains(s, wrong.complaint) }) {
			w.Errorf("%s: the judge says %q, not %q", wrong.name, found, wrong.complaint)
		}
	}
}

// judged is what the judge needs to know of a life.
func (l *crashLife) judged() judgedGroup {
	g := judgedGroup{token: broker.GroupToken(l.id), waited: maps.Clone(l.waited), final: l.epoch(), intents: map[string]string{}}
	for _, leaver := range l.leavers {
		g.intents[leaver.id] = "removed"
		if leaver.stays {
			g.intents[leaver.id] = "superseded"
		}
	}
	return g
}
