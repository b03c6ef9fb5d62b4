package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"leavebroker/broker/delivery"
	"leavebroker/broker/natstest"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// chaosWorld is brokers that break, with what they stand on, and the groups
// that depend on them.
type chaosWorld struct {
	*testing.T
	form    *chaosForm
	seed    uint64
	brokers []*chaosBroker
	cluster *natstest.Cluster // nil: the broker's own server
	disk    *natstest.Disk    // of the first server; nil: none
	over    atomic.Bool       // no more faults: the groups come to their end
	away    atomic.Bool       // the delivery service takes nothing
	waiting atomic.Int64      // groups that have waited for chaosCalm

	mu     sync.Mutex
	counts map[string]int            // faults by name; guarded by mu
	lives  []*chaosLife              // guarded by mu
	taken  map[[sha256.Size]byte]int // outputs that the durable consumer gave, by body; guarded by mu
}

// chaosTenants is the configuration of the tenants.
const chaosTenants = "tenants:\n  - name: acme\n    lag_window: 1h\n"

// skewedTenants is that where clocks are off: the broker compares how long an intent
// has waited for its leaf by its own clock and the server's.
const skewedTenants = "tenants:\n  - name: acme\n    lag_window: 24h\n    park_ttl: 48h\n"

// newChaosWorld starts brokers and servers, and returns when they serve.
func newChaosWorld(t *testing.T, form *chaosForm, seed uint64) *chaosWorld {
	w := &chaosWorld{T: t, form: form, seed: seed, counts: map[string]int{}, taken: map[[sha256.Size]byte]int{}}
	for w.seed == 0 {
		w.seed = rand.Uint64()
	}
	settings := fmt.Sprintf("seed=%d,kills=%d,partitions=%d", w.seed, form.kills, form.partitions)
	tenants := chaosTenants
	if form.clocks {
		settings += ",clocks=1"
		tenants = skewedTenants
	}
	t.Logf("LEAVEBROKER_CHAOS=%s", settings)
	if form.disk {
		w.disk = natstest.NewDisk(t, 512<<20)
	}
	if form.servers == 0 {
		d := newDaemon(t, chaosTenants)
		if w.disk != nil {
			d.env = append(d.env, "LEAVEBROKER_STATE_DIR="+filepath.Join(w.disk.Path(), "state"))
			d.stateDir = filepath.Join(w.disk.Path(), "state")
		}
		w.brokers = []*chaosBroker{{daemonProcess: d}}
	} else {
		w.cluster = natstest.Start(t, natstest.Options{Servers: form.servers, SyncAlways: true, Disk: w.disk})
		w.brokers = newFleet(t, w.cluster, form.brokers, "ack_wait: 1s\npin_ttl: 1s\n"+tenants)
	}
	if random := rand.New(rand.NewPCG(w.seed, 1<<63)); form.clocks {
		for _, b := range w.brokers {
			b.skew(someSkew(random))
		}
	}
	for _, b := range w.brokers { // the first makes the keys
		b.start()
		if !b.awaitServing(patience) {
			t.Fatalf("a broker does not serve; its log ends with\n%s", b.Log())
		}
	}
	w.shortenAckWait()
	return w
}

// chaosBroker is one of the brokers.
type chaosBroker struct {
	*daemonProcess
	instance string         // its name; empty: one that it makes itself
	link     *natstest.Link // its way to the servers; nil: its own server
	clock    *skewedClock   // nil: the machine's
	from     int64          // where the log of this process begins
}

// newFleet prepares brokers that share the keys of their tenants. Their names say
// who works on what, so they are always the same, and such that each of two or
// three ranks first for some of four partitions.
func newFleet(t testing.TB, cluster *natstest.Cluster, n int, config string) (fleet []*chaosBroker) {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "state")
	everybody := cluster.Link().URL()
	for i := range n {
		b := &chaosBroker{
			daemonProcess: newProcess(t, t.TempDir(), keys, everybody), instance: string(rune('a' + i)), link: cluster.Link(),
		}
		b.LogPath = filepath.Join(t.ArtifactDir(), fmt.Sprintf("broker-%d.log", i))
		text := fmt.Sprintf("instance: %s\nnats:\n  url: %s\n  replicas: %d\n", b.instance, b.link.URL(), len(cluster.Servers)) + config
		if b.configure(text); !b.configured() {
			t.Logf("the configuration takes no %d replicas: one server stores each message", len(cluster.Servers))
			b.configure(strings.Replace(text, fmt.Sprintf("  replicas: %d\n", len(cluster.Servers)), "", 1))
		}
		fleet = append(fleet, b)
	}
	return fleet
}

// configured says whether the program takes the configuration.
func (b *chaosBroker) configured() bool {
	code, _, _ := run("", "config", "check", "--config", b.config)
	return code == 0
}

func (b *chaosBroker) start() {
	b.T.Helper()
	b.from = 0
	if info, err := os.Stat(b.LogPath); err == nil {
		b.from = info.Size()
	}
	b.Start()
}

// awaitServing waits a while until this process serves, and says whether it
// does.
func (b *chaosBroker) awaitServing(within time.Duration) bool {
	for begin := time.Now(); time.Since(begin) < within; time.Sleep(10 * time.Millisecond) {
		if bytes.Contains(b.logSince(b.from), []byte(`"serving"`)) {
			return true
		}
		if running, _ := b.Running(); !running {
			return false
		}
	}
	return false
}

// logSince is the log from an offset on.
func (b *chaosBroker) logSince(offset int64) []byte {
	b.T.Helper()
	f, err := os.Open(b.LogPath)
	if err != nil {
		b.T.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, offset, 1<<40))
	if err != nil {
		b.T.Fatal(err)
	}
	return text
}

// end ends the process and gives its exit code.
func (b *chaosBroker) end(by syscall.Signal) int {
	b.T.Helper()
	b.Signal(by)
	return b.Wait()
}

// stopAll ends all brokers in order.
func (w *chaosWorld) stopAll() {
	for i, b := range w.brokers {
		if code := b.end(syscall.SIGTERM); code != 0 {
			w.Errorf("broker %d: exit code %d", i, code)
		}
		b.checkClock()
		if w.form.servers > 0 || w.disk != nil {
			continue
		}
		for _, line := range b.logLines() {
			if line["level"] == "error" {
				w.Errorf("the daemon logged %v", line)
			}
		}
	}
}

// complaints says what the brokers warned of, and how often.
func (w *chaosWorld) complaints() string {
	times := map[string]int{}
	for _, b := range w.brokers {
		for _, line := range b.logLines() {
			if level := line["level"]; level == "warn" || level == "error" {
				times[fmt.Sprintf("%s: %s", level, line["msg"])]++
			}
		}
	}
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(times)) {
		parts = append(parts, fmt.Sprintf("%d x %s", times[what], what))
	}
	return strings.Join(parts, "; ")
}

// shortenAckWait lets the server deliver again after a second what a crash took
// from the delivery service, as an operator might.
func (w *chaosWorld) shortenAckWait() {
	d := w.brokers[0]
	ctx, js, done := d.jetStream()
	defer done()
	for _, stream := range d.logStreams() {
		c, err := js.Consumer(ctx, stream, "removals-acme")
		if err != nil {
			w.Fatal(err)
		}
		config := c.CachedInfo().Config
		config.AckWait = time.Second
		if _, err := js.UpdateConsumer(ctx, stream, config); err != nil {
			w.Fatal(err)
		}
	}
}

// takeRemovals is the delivery service: it takes outputs from the durable
// consumer and gives them to the groups, until the result is called.
func (w *chaosWorld) takeRemovals() (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	ds := w.brokers[0].service("acme")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var r *delivery.Removal
			if !w.away.Load() {
				r, _ = ds.NextRemoval(ctx, 500*time.Millisecond)
			}
			if r == nil {
				time.Sleep(10 * time.Millisecond) // somebody is down, or idle
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

func (w *chaosWorld) take(r *delivery.Removal) {
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

// liveAgainAndAgain plays groups one after the other until all faults are over.
func (w *chaosWorld) liveAgainAndAgain(worker int) {
	d := w.brokers[0]
	nc := d.connect()
	defer nc.Close()
	suites := mlscore.Suites()
	for n := 0; !w.over.Load() && !w.Failed(); n++ {
		ds, err := delivery.New(nc, "leave", "acme")
		if err != nil {
			w.Error(err)
			return
		}
		l := &chaosLife{
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
			sender: d.externalSender("acme", suite), random: rand.NewChaCha8([32]byte{byte(worker), byte(n), byte(w.seed)}), shared: new(member.Shared),
			split: w.form.servers > 1,
		}
		w.mu.Lock()
		w.lives = append(w.lives, l)
		w.mu.Unlock()
		l.live()
	}
}

// judge judges the log and the events, and then its own sharpness: each of some
// wrongs, put into the log, must be seen.
func (w *chaosWorld) judge(log []stored, events []told) {
	var groups []judgedGroup
	for _, l := range w.lives {
		groups = append(groups, l.judged())
	}
	for _, wrong := range judgeChaos(groups, log, events) {
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
	for _, wrong := range chaosWrongs(groups, log, events) {
		found := judgeChaos([]judgedGroup{wrong.group}, wrong.log, wrong.events)
		if !slices.ContainsFunc(found, func(s string) bool { return strings.Contains(s, wrong.complaint) }) {
			w.Errorf("%s: the judge says %q, not %q", wrong.name, found, wrong.complaint)
		}
	}
}

// latencies says how long outputs took after the last input that they needed:
// the commit that opened their epoch, or an intent that they answer.
func (w *chaosWorld) latencies(log []stored) string {
	var took []time.Duration
	needed := map[string]time.Time{}
	for _, m := range log {
		group := m.subject[4]
		switch m.kind() {
		case "intent":
			if in, err := intents.ParseMessage(m.data, intents.DefaultWireFormat); err == nil {
				if id := in.ID("acme"); needed[id].IsZero() {
					needed[id] = m.at
				}
			}
		case "commit":
			if msg, err := mlscore.ParseMLSMessage(m.data, nil); err == nil {
				needed[fmt.Sprint(group, msg.PublicMessage.Content.Epoch+1)] = m.at
			}
		case "removal":
			out := decodeOutput(&m)
			last := needed[fmt.Sprint(group, out.Epoch)]
			for _, id := range out.Intents {
				if at := needed[id]; at.After(last) {
					last = at
				}
			}
			took = append(took, m.at.Sub(last))
		}
	}
	return quantiles(took)
}

// quantiles tells of durations: how many, the middle and the longest.
func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	slices.Sort(d)
	at := func(percent int) time.Duration { return d[(len(d)-1)*percent/100].Round(100 * time.Microsecond) }
	return fmt.Sprintf("%d, p50 %s, p99 %s, max %s", len(d), at(50), at(99), at(100))
}
