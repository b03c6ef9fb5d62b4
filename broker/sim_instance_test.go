package broker

import (
	"context"
	"encoding/json"
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
	watched int        // entries of the ledger that it has read
	frozen  int        // it stands still up to this turn
}

// simTask is work that has begun.
type simTask struct {
	in     *simInstance
	what   string
	at     string // where it stopped
	asking bool   // it waits for the Authentication Service and holds nothing
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
	for _, g := range in.b.groups {
		g.log = simJournal{in}
	}
	in.o = in.b.owner(simKey)
	in.watch(len(s.server.ledger))
	s.instances = append(s.instances, in)
	s.note("instance %s starts", in.name)
	return in
}

// busy says whether a task holds the partition.
func (in *simInstance) busy() bool {
	for _, t := range in.tasks {
		if !t.asking {
			return true
		}
	}
	return false
}

// begin starts a task and runs it up to where it stops first.
func (in *simInstance) begin(what string, body func()) {
	t := &simTask{in: in, what: what}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		body()
	})
	in.tasks = append(in.tasks, t)
	in.sim.note("%s begins: %s", in.name, what)
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
	in.tasks = nil
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

// watch reads entries of the ledger, up to a revision.
func (in *simInstance) watch(upTo int) {
	for ; in.watched < upTo; in.watched++ {
		in.b.readLedger(simKV{simRecord: in.sim.server.ledger[in.watched], rev: uint64(in.watched + 1)}, true)
	}
}

// deliver gives the instance the next message, as handle gets it.
func (in *simInstance) deliver() {
	s := in.sim
	e, ok := s.server.next()
	if !ok {
		return
	}
	c := &s.server.consumer
	msg := &simMsg{in: in, e: e, deliveries: c.deliver(e), pin: c.pin}
	msg.delivery = c.delivery
	in.begin(fmt.Sprintf("seq %d, delivery %d", e.seq, msg.deliveries), func() {
		defer func() { // the ack wait of a message that was not acknowledged
			c.again = c.again || c.hand == e.seq && c.pinned == in
		}()
		if in.mustClaim(msg) {
			in.o.holds.Store(false) // as takeOver
			if in.o.overtaken(e.seq) {
				in.watched = 0
			}
			if in.claim(true) != nil {
				return
			}
			in.o.pin, in.o.delivery = msg.pin, msg.delivery-1
		}
		if in.o.since+workOfInput >= checkpointWork { // in place of checkpointOften
			in.checkpoint()
			in.o.since = 0
		}
		in.o.handle(msg)
		if msg.pin == in.o.lostPin && c.pin == msg.pin {
			c.pinTo(in) // it lets the server choose anew
		}
	})
}

// mustClaim says whether takeOver would claim the partition.
func (in *simInstance) mustClaim(msg *simMsg) bool {
	return msg.pin != in.o.lostPin && !in.o.continues(msg.pin, msg.at())
}

// claim does what owner.claim does, on the simulated server.
func (in *simInstance) claim(inHand bool) error {
	o, s := in.o, in.sim
	defer o.begin()()
	if err := s.pause("reads the owner record", false); err != nil {
		return err
	}
	old, rev := s.server.owner()
	floor, idle := s.server.consumer.floor, s.server.consumer.hand == 0
	next := ownerRecord{Version: ownerVersion, Instance: in.name, Position: min(old.Position, floor)}
	if err := in.writeRecord(next, rev); err != nil {
		return err
	}
	in.watch(int(o.term))
	o.forget()
	o.position, o.redo = next.Position, floor
	if !inHand {
		o.lostPin = ""
	}
	o.holds.Store(true)
	s.note("%s takes the partition over at position %d", in.name, next.Position)
	in.wakes = append(in.wakes, in.b.open.list()...)
	if next.Position == floor && (inHand || idle) {
		return nil
	}
	s.server.consumer.reset(next.Position)
	return errReset
}

// writeRecord does what owner.writeRecord does.
func (in *simInstance) writeRecord(r ownerRecord, rev uint64) error {
	return in.b.write("owner", func() error {
		value, err := json.Marshal(r)
		if err != nil {
			return err
		}
		next, err := in.sim.server.put(in.sim.server.names.ownerKey(0), value, rev)
		if err == nil {
			in.o.term, in.o.recorded = next, r
		}
		return err
	})
}

// checkpoint does what owner.checkpoint does.
func (in *simInstance) checkpoint() {
	o := in.o
	defer o.begin()()
	if !o.holds.Load() || o.position == o.recorded.Position {
		return
	}
	o.since = 0
	r := o.recorded
	r.Position = o.position
	_ = in.writeRecord(r, o.term) // the next one follows
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
