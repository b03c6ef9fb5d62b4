package broker

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"go.uber.org/zap"
	"leavebroker/intents"
)

// simInstance is a broker on the simulated server. Its work is cut into tasks
// that stop at each read and write; one task of all instances runs at a time.
type simInstance struct {
	sim     *simulation
	name    string
	b       *Broker
	o       *owner
	clockBy time.Duration // how far its clock is off
	tasks   []*simTask
	spawned []func()   // what would run beside the partition, not begun
	wakes   []groupKey // to be looked at
	inbox   []*simMsg  // on their way to it
	watched int        // entries of the ledger that it has read
	frozen  int        // it stands still up to this turn
}

// simTask is work that has begun.
type simTask struct {
	in     *simInstance
	what   string
	at     string // where it stopped
	asking bool   // it waits for the Authentication Service and holds nothing
	free   bool   // it never holds the partition when it stops
	fault  error  // what it meets when it goes on
	yield  func(struct{}) bool
	next   func() (struct{}, bool)
	stop   func()
}

func (s *simulation) start() *simInstance {
	in := &simInstance{sim: s, name: fmt.Sprintf("%c", 'A'+rune(s.started%26))}
	if s.started >= 26 {
		in.name += fmt.Sprint(s.started / 26)
	}
	s.started++
	opts := Options{
		Partitions: 1, Instance: in.name, Logger: zap.NewNop(), AckWait: 10 * time.Hour,
		Tenants: []Tenant{{Name: testTenant, Signers: s.script.signers, AuthService: &simAuth{in}, Policy: intents.Policy{
			LagWindow: time.Minute, StalledAfter: 3, InfoTrustDS: s.script.trustDS,
		}}},
		Clock:         func() time.Time { return s.server.now.Add(in.clockBy) },
		testOnlyFault: func(step string) error { return s.pause(step, false) },
	}
	opts = opts.withDefaults()
	in.b = assemble(opts)
	in.b.tenants[testTenant].policy.Parallel = nil // goroutines cost more than they save
	in.b.ledger, in.b.events, in.b.snapshots = simLedger{in}, simEvents{in}, simSnapshots{in}
	in.b.spawn = func(f func()) { in.spawned = append(in.spawned, f) }
	in.b.woken = func(context.Context, groupKey) error { return nil } // nobody acknowledges outputs
	in.b.watchPatience, in.b.opts.Replicas = 0, 3                     // which differ, if servers are cut off
	for _, g := range in.b.groups {
		g.log = simJournal{in}
	}
	in.o = in.b.owner(simKey)
	in.o.feed = simFeed{in}
	in.watch(len(s.server.ledger))
	s.instances = append(s.instances, in)
	s.note("instance %s starts", in.name)
	return in
}

// busy says whether a task holds the partition.
func (in *simInstance) busy() bool {
	return slices.ContainsFunc(in.tasks, func(t *simTask) bool { return !t.asking && !t.free })
}

const compaction = "compaction"

// compact begins to compact the log, unless that is under way.
func (in *simInstance) compact() {
	if in.busy() || !in.o.holds.Load() || slices.ContainsFunc(in.tasks, func(t *simTask) bool { return t.what == compaction }) {
		return
	}
	t := &simTask{in: in, what: compaction}
	in.beginTask(t, func() { // as compactLong
		if in.o.checkpoint(in.b.work) != nil || !in.o.holds.Load() {
			return
		}
		t.free = true
		_, _ = in.o.compact(in.b.work, simKey) // it is tried again
	})
}

// begin starts a task and runs it up to where it stops first.
func (in *simInstance) begin(what string, body func()) {
	in.beginTask(&simTask{in: in, what: what}, body)
}

func (in *simInstance) beginTask(t *simTask, body func()) {
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		body()
	})
	in.tasks = append(in.tasks, t)
	in.sim.note("%s begins: %s", in.name, t.what)
	in.sim.resume(t, nil)
}

// resume lets a task go on, up to where it stops next.
func (s *simulation) resume(t *simTask, fault error) {
	s.running, t.fault = t, fault
	_, more := t.next()
	s.running = nil
	if !more {
		t.end()
	}
}

func (t *simTask) end() {
	for i, other := range t.in.tasks {
		if other == t {
			t.in.tasks = append(t.in.tasks[:i:i], t.in.tasks[i+1:]...)
			return
		}
	}
}

// pause stops the running task at a read or write until the schedule lets it
// go on, and tells what it meets then.
func (s *simulation) pause(at string, asking bool) error {
	t := s.running
	if t == nil {
		return nil // a test of its own
	}
	t.at, t.asking = at, asking
	if !t.yield(struct{}{}) {
		return fmt.Errorf("%w: crashed", errUnavailable)
	}
	t.asking = false
	return t.fault
}

// crash ends an instance: what it has in memory is lost, and nothing that it was
// about to write is written.
func (s *simulation) crash(in *simInstance) {
	s.note("instance %s crashes", in.name)
	slices.SortStableFunc(in.tasks, func(a, b *simTask) int { // one that waits for an answer takes the partition then
		if a.asking == b.asking {
			return 0
		}
		if b.asking {
			return -1
		}
		return 1
	})
	for _, t := range in.tasks {
		s.running = t
		t.stop()
		s.running = nil
	}
	in.tasks, in.inbox = nil, nil
	for i, other := range s.instances {
		if other == in {
			s.instances = append(s.instances[:i:i], s.instances[i+1:]...)
		}
	}
	if c := &s.server.consumer; c.pinned == in {
		c.pinned, c.again = nil, true
	}
	in.b.stopWork()
}

// watch reads entries of the ledger, up to a revision. Nobody is heard to live:
// whoever wants the partition may take it.
func (in *simInstance) watch(upTo int) {
	for ; in.watched < upTo; in.watched++ {
		in.b.readLedger(simKV{simRecord: in.sim.server.ledger[in.watched], rev: uint64(in.watched + 1)}, false)
	}
}

// send lets the server send the next message to the instance.
func (in *simInstance) send() {
	s := in.sim
	e, ok := s.server.next()
	if !ok {
		return
	}
	in.inbox = append(in.inbox, in.message(e))
	s.note("seq %d is on its way to %s", e.seq, in.name)
}

// message is the next delivery.
func (in *simInstance) message(e entry) *simMsg {
	c := &in.sim.server.consumer
	return &simMsg{in: in, e: e, deliveries: c.deliver(e), delivery: c.delivery, pin: c.pin}
}

// receive begins to work on the first message that was sent, if there is one.
func (in *simInstance) receive() bool {
	if len(in.inbox) == 0 {
		return false
	}
	msg := in.inbox[0]
	in.inbox = in.inbox[1:]
	c := &in.sim.server.consumer
	in.begin(fmt.Sprintf("seq %d, delivery %d", msg.e.seq, msg.deliveries), func() {
		in.o.handle(msg)
		c.again = c.again || c.hand == msg.e.seq && c.pinned == in // its ack wait
		if msg.pin == in.o.lostPin && c.pin == msg.pin {
			c.pinTo(in) // it lets the server choose anew
		}
	})
	return true
}

// wakeDue begins to look at a group that is to be looked at, if there is one.
func (in *simInstance) wakeDue() bool {
	in.wakes = append(in.wakes, in.b.timers.due(in.b.opts.Clock())...)
	if len(in.wakes) == 0 {
		return false
	}
	k := in.wakes[0]
	in.wakes = in.wakes[1:]
	in.begin("the group is looked at", func() { in.b.wake(k) })
	return true
}

// runSpawned begins what would run beside the partition, if there is something.
func (in *simInstance) runSpawned() bool {
	if len(in.spawned) == 0 {
		return false
	}
	f := in.spawned[0]
	in.spawned = in.spawned[1:]
	in.begin("work beside the partition", f)
	return true
}

// simAuth is the Authentication Service as an instance reaches it.
type simAuth struct{ in *simInstance }

func (a *simAuth) Associate(_ context.Context, _ string, q intents.Question) (intents.Answer, error) {
	answer, err := a.in.sim.associate(q) // as of now, though it may arrive late
	if lost := a.in.sim.pause("waits for the Authentication Service", true); lost != nil {
		return intents.Answer{}, lost
	}
	return answer, err
}
