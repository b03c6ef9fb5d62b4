package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"leavebroker/broker/natstest"
)

// fault is something that happens, and is over when strike returns.
type fault struct {
	name   string
	weight int
	strike func(*rand.Rand)
}

// kills and partitions are the faults that count as such.
var (
	kills      = []string{"kill broker", "kill at start", "kill server", "kill leader", "cut power"}
	partitions = []string{"partition broker", "cut broker", "isolate server", "strand server"}
)

// justKills is what happens to a broker with its own server on a good disk.
func (w *chaosWorld) justKills() [][]fault {
	return [][]fault{{{"kill broker", 1, w.killBroker}}}
}

// diskFaults is what happens to one with a bad disk.
func (w *chaosWorld) diskFaults() [][]fault {
	return [][]fault{{
		{"kill broker", 2, w.killBroker},
		{"cut power", 4, w.cutPowerOfBroker},
		{"full disk", 1, w.fillDiskOfBroker},
		{"freeze broker", 1, w.freezeBroker},
		{"delivery service away", 1, w.deliveryAway},
	}}
}

// allFaults is what happens to brokers, and at the same time to servers.
func (w *chaosWorld) allFaults() [][]fault {
	brokers := []fault{
		{"kill broker", 5, w.killBroker},
		{"freeze broker", 2, w.freezeBroker},
		{"partition broker", 4, func(r *rand.Rand) { w.partitionBroker(r, natstest.Held) }},
		{"cut broker", 2, func(r *rand.Rand) { w.partitionBroker(r, natstest.Cut) }},
		{"rolling restart", 1, w.rollingRestart},
		{"delivery service away", 1, w.deliveryAway},
	}
	if w.form.clocks {
		brokers = append(brokers, fault{"clock jump", 4, w.jumpClock})
	}
	servers := []fault{
		{"kill server", 3, func(r *rand.Rand) { w.killServer(r, r.IntN(len(w.cluster.Servers))) }},
		{"freeze server", 1, w.freezeServer},
		{"restart of servers", 1, w.restartServers},
	}
	if len(w.cluster.Servers) > 1 {
		servers = append(servers,
			fault{"kill leader", 3, w.killLeader},
			fault{"isolate server", 2, func(r *rand.Rand) { w.partitionServer(r, w.cluster.Isolate) }},
			fault{"strand server", 2, func(r *rand.Rand) { w.partitionServer(r, w.cluster.Strand) }})
	}
	if w.disk != nil {
		servers = append(servers,
			fault{"cut power", 2, w.cutPowerOfServer},
			fault{"full disk", 1, w.fillDiskOfServer})
	}
	return [][]fault{brokers, servers}
}

// chaosCalm is how long a group waits before faults pause until it is served: on a
// slow machine everything may else be on the way up all the time.
const chaosCalm = 20 * time.Second

// strikeAgainAndAgain lets faults happen at random instants, until enough have.
// Everything is up and healed then.
func (w *chaosWorld) strikeAgainAndAgain() {
	var striking sync.WaitGroup
	for i, faults := range w.form.faults(w) {
		random := rand.New(rand.NewPCG(w.seed, uint64(i)))
		pause := time.Second
		switch { // who is always on the way up serves nobody
		case i > 0 && w.form.servers > 1:
			pause = 2 * chaosElection
		case i > 0:
			pause = 3 * time.Second
		}
		striking.Go(func() {
			for !w.enough() && !w.Failed() {
				if i == 0 {
					w.revive()
				}
				if w.waiting.Load() > 0 {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				time.Sleep(upTo(random, pause))
				f := choose(random, faults)
				w.count(f.name)
				f.strike(random)
			}
		})
	}
	striking.Wait()
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		w.revive()
		if !slices.ContainsFunc(w.brokers, func(b *chaosBroker) bool { return !b.awaitServing(time.Second) }) {
			return
		}
		if time.Since(begin) > patience || w.Failed() {
			w.Fatal("not all brokers serve after everything has healed")
		}
	}
}

// choose draws a fault by weight.
func choose(random *rand.Rand, faults []fault) fault {
	sum := 0
	for _, f := range faults {
		sum += f.weight
	}
	at := random.IntN(sum)
	for _, f := range faults {
		if at -= f.weight; at < 0 {
			return f
		}
	}
	panic("no fault")
}

func upTo(random *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(random.Float64() * float64(most))
}

func (w *chaosWorld) count(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[name]++
}

func (w *chaosWorld) sum(names []string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		n += w.counts[name]
	}
	return n
}

func (w *chaosWorld) enough() bool {
	return w.sum(kills) >= w.form.kills && w.sum(partitions) >= w.form.partitions
}

// struck says what has happened.
func (w *chaosWorld) struck() string {
	parts := []string{fmt.Sprintf("%d kills, %d partitions:", w.sum(kills), w.sum(partitions))}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(w.counts)) {
		parts = append(parts, fmt.Sprintf("%s %d;", name, w.counts[name]))
	}
	return strings.TrimSuffix(strings.Join(parts, " "), ";")
}

// revive starts brokers that have ended by themselves, as a service manager
// does.
func (w *chaosWorld) revive() {
	for _, b := range w.brokers {
		if running, err := b.Running(); !running {
			w.count("ended by itself")
			w.Logf("a broker ended by itself: %v: %s", err, lastLine(b.Log()))
			b.Wait()
			b.start()
		}
	}
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// serveAgain waits until a broker serves, which takes its servers.
func (w *chaosWorld) serveAgain(b *chaosBroker) {
	b.awaitServing(10 * time.Second)
}

func (w *chaosWorld) anyBroker(random *rand.Rand) *chaosBroker {
	return w.brokers[random.IntN(len(w.brokers))]
}

// killBroker kills a broker at an instant of its work, and sometimes again at
// one of its start.
func (w *chaosWorld) killBroker(random *rand.Rand) {
	b := w.anyBroker(random)
	b.end(syscall.SIGKILL)
	time.Sleep(upTo(random, 300*time.Millisecond))
	b.start()
	if random.IntN(4) == 0 {
		time.Sleep(upTo(random, 300*time.Millisecond))
		b.end(syscall.SIGKILL)
		w.count("kill at start")
		b.start()
	}
	w.serveAgain(b)
}

// freezeBroker freezes a broker for about as long as it keeps what it owns.
func (w *chaosWorld) freezeBroker(random *rand.Rand) {
	b := w.anyBroker(random)
	b.Freeze()
	time.Sleep(upTo(random, 3*time.Second))
	b.Thaw()
}

func (w *chaosWorld) partitionBroker(random *rand.Rand, how natstest.Condition) {
	b := w.anyBroker(random)
	b.link.Set(how)
	time.Sleep(upTo(random, 4*time.Second))
	b.link.Set(natstest.Healed)
}

// someSkew is how far a clock may be off.
func someSkew(random *rand.Rand) time.Duration { return upTo(random, 12*time.Hour) - 6*time.Hour }

func (w *chaosWorld) jumpClock(random *rand.Rand) {
	w.anyBroker(random).clock.jump(someSkew(random))
}

// rollingRestart restarts all brokers in order, one after the other.
func (w *chaosWorld) rollingRestart(*rand.Rand) {
	for _, b := range w.brokers {
		if code := b.end(syscall.SIGTERM); code != 0 {
			w.count("disorderly end")
		}
		b.start()
		w.serveAgain(b)
	}
}

func (w *chaosWorld) deliveryAway(random *rand.Rand) {
	w.away.Store(true)
	time.Sleep(upTo(random, 3*time.Second))
	w.away.Store(false)
}

func (w *chaosWorld) killServer(random *rand.Rand, i int) {
	w.cluster.Servers[i].Kill()
	time.Sleep(upTo(random, time.Second))
	w.cluster.Servers[i].Start()
	w.cluster.AwaitServer(i)
}

// killLeader kills the server that leads a stream of the log, or another where
// none does.
func (w *chaosWorld) killLeader(random *rand.Rand) {
	leader := w.cluster.Leader("leave-log")
	if leader < 0 {
		leader = random.IntN(len(w.cluster.Servers))
	}
	w.killServer(random, leader)
}

// Elections take 4 to 9 s: freezes and partitions of servers are shorter, and
// longer.
const chaosElection = 9 * time.Second

func (w *chaosWorld) freezeServer(random *rand.Rand) {
	s := w.cluster.Servers[random.IntN(len(w.cluster.Servers))]
	s.Freeze()
	time.Sleep(upTo(random, chaosElection/3*time.Duration(len(w.cluster.Servers))))
	s.Thaw()
}

func (w *chaosWorld) partitionServer(random *rand.Rand, set func(int, natstest.Condition)) {
	i := random.IntN(len(w.cluster.Servers))
	how := []natstest.Condition{natstest.Held, natstest.Cut}[random.IntN(2)]
	set(i, how)
	time.Sleep(upTo(random, chaosElection))
	set(i, natstest.Healed)
}

// restartServers restarts all servers in order, one after the other.
func (w *chaosWorld) restartServers(*rand.Rand) {
	for i, s := range w.cluster.Servers {
		s.Stop()
		s.Start()
		w.cluster.AwaitServer(i)
	}
}

func (w *chaosWorld) cutPowerOfServer(*rand.Rand) {
	s := w.cluster.Servers[0]
	s.Freeze()
	w.disk.CutPower(s.Kill)
	s.Start()
	w.cluster.AwaitServer(0)
}

func (w *chaosWorld) cutPowerOfBroker(*rand.Rand) {
	b := w.brokers[0]
	b.Freeze()
	w.disk.CutPower(func() { b.end(syscall.SIGKILL) })
	b.start()
	w.serveAgain(b)
}

// fillDiskOfServer fills the disk for a while; then the operator makes room and
// starts the server again.
func (w *chaosWorld) fillDiskOfServer(random *rand.Rand) {
	w.disk.Fill()
	time.Sleep(upTo(random, 3*time.Second))
	w.disk.Free()
	w.killServer(random, 0)
}

func (w *chaosWorld) fillDiskOfBroker(random *rand.Rand) {
	w.disk.Fill()
	time.Sleep(upTo(random, 3*time.Second))
	w.disk.Free()
	w.killBroker(random)
}
