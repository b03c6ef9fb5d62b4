package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// simServer is what JetStream stores: the log, the ledger, the events and the
// consumer of the one partition. Each request is atomic; whether it arrives, and
// its reply, is decided elsewhere (simulation.pause).
type simServer struct {
	names     names
	keys      map[string]groupKey // by subject
	outputs   string              // the subject of the broker's outputs, which the consumer does not read
	all       string              // the filter of the group's log
	partition string              // that of all that is stored
	now       time.Time
	log       []entry           // the entry with sequence n is at n-1
	purged    []bool            // of those entries, the purged ones
	synced    int               // entries of the ledger that no loss of power takes
	snapshot  snapshot          // of the group
	last      map[string]uint64 // sequences by subject
	ids       map[string]uint64 // sequences by message ID
	ledger    []simRecord       // that with revision n is at n-1
	byKey     map[string]uint64 // revisions
	events    map[string]event  // by identifier
	told      map[string]bool   // states of intents that events told of: id/state
	consumer  simConsumer
}

// simReplica is what a server had that led once, and was cut off: it may answer
// reads for a while after its way to the others is open again, beside the one that
// leads.
type simReplica struct {
	log      int // entries
	purged   []bool
	ledger   int // revisions
	snapshot snapshot
	until    int // turn; 0: it leads
}

// fallBehind lets a replica be cut off now.
func (s *simServer) fallBehind() *simReplica {
	r := s.leader()
	r.purged = slices.Clone(r.purged)
	return r
}

// replica is what answers a read of an instance.
func (in *simInstance) replica() *simReplica {
	s := in.sim
	if s.behind != nil && s.turns < s.behind.until && s.random.IntN(2) == 0 {
		s.counts.stale++
		s.note("%s is answered by a server that lags behind: up to seq %d, revision %d", in.name, s.behind.log, s.behind.ledger)
		return s.behind
	}
	return s.server.leader()
}

// leader is what the server that leads has.
func (s *simServer) leader() *simReplica {
	return &simReplica{log: len(s.log), purged: s.purged, ledger: len(s.ledger), snapshot: s.snapshot}
}

// revision is the last one of a key in a replica, 0 for none.
func (s *simServer) revision(key string, r *simReplica) uint64 {
	if r.ledger == len(s.ledger) {
		return s.byKey[key]
	}
	for rev := min(r.ledger, len(s.ledger)); rev > 0; rev-- {
		if s.ledger[rev-1].key == key {
			return uint64(rev)
		}
	}
	return 0
}

type simRecord struct {
	key   string
	value []byte
	read  *remembered // what the checks have read of it
}

// simConsumer gives one message at a time to the instance that it is pinned to.
type simConsumer struct {
	floor      uint64 // acknowledged up to here
	hand       uint64 // delivered and not acknowledged, 0 for none
	again      bool   // the one in hand is to be delivered once more
	deliveries map[uint64]uint64
	delivery   uint64 // the number of the last one
	pinned     *simInstance
	pin        string
	pins       int
	// late was delivered after a reset to behind, as decided before it: to the
	// records of the consumer's replicas, all up to behind is acknowledged, and all
	// up to late is delivered.
	late, behind uint64
}

func newSimServer(n names) *simServer {
	s := &simServer{
		names: n, keys: map[string]groupKey{}, outputs: n.log(simKey, kindRemoval), all: n.logOf(simKey), partition: n.logOfPartition(0), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), last: map[string]uint64{}, ids: map[string]uint64{},
		byKey: map[string]uint64{}, events: map[string]event{}, told: map[string]bool{}, consumer: simConsumer{floor: logStart, deliveries: map[uint64]uint64{}},
	}
	for range logStart {
		s.log, s.purged = append(s.log, entry{}), append(s.purged, true) // what no log has
	}
	return s
}

// store appends to the log, if the last sequence of its subject is as expected.
func (s *simServer) store(subject string, data []byte, expectLast *uint64) (uint64, error) {
	if expectLast != nil && s.last[subject] != *expectLast {
		return 0, fmt.Errorf("%w: the last sequence is %d, not %d", errConflict, s.last[subject], *expectLast)
	}
	if _, known := s.keys[subject]; !known {
		k, _, err := s.names.parseLog(subject)
		if err != nil {
			return 0, err
		}
		s.keys[subject] = k
	}
	seq := uint64(len(s.log) + 1)
	s.log, s.purged = append(s.log, entry{seq: seq, time: s.now, subject: subject, data: data}), append(s.purged, false)
	s.last[subject] = seq
	return seq, nil
}

// publish stores an input under a message ID, as the clients do: that there is
// one with the ID already is success only if it has the same bytes.
func (s *simServer) publish(k groupKey, what kind, data []byte, id string) (seq uint64, ok bool) {
	if seq, taken := s.ids[id]; taken {
		return seq, bytes.Equal(s.log[seq-1].data, data)
	}
	seq, _ = s.store(s.names.log(k, what), data, nil) // cannot fail: nothing is expected
	s.ids[id] = seq
	return seq, true
}

// put stores an entry of the ledger in place of a revision.
func (s *simServer) put(key string, value []byte, rev uint64) (uint64, error) {
	if s.byKey[key] != rev {
		return 0, fmt.Errorf("%w: the last revision of %s is %d, not %d", errConflict, key, s.byKey[key], rev)
	}
	s.ledger = append(s.ledger, simRecord{key: key, value: value})
	s.byKey[key] = uint64(len(s.ledger))
	return s.byKey[key], nil
}

func (s *simServer) get(key string, r *simReplica) (value []byte, rev uint64) {
	if rev = s.revision(key, r); rev != 0 {
		value = s.ledger[rev-1].value
	}
	return value, rev
}

// loseLedger drops the end of the ledger: a server that stores without
// synchronous writes lost power. Logs are compacted long after what they led to
// was written.
func (s *simServer) loseLedger(n int) {
	s.ledger = s.ledger[:max(len(s.ledger)-n, s.synced)]
	clear(s.byKey)
	for i, r := range s.ledger {
		s.byKey[r.key] = uint64(i + 1)
	}
}

// remembered is the ledger's entry of a group.
func (s *simServer) remembered(k groupKey, in *simReplica) (ledgerEntry, error) {
	value, rev := s.get(k.String(), in)
	if rev == 0 {
		return ledgerEntry{}, nil
	}
	r, err := decodeRemembered(value)
	return ledgerEntry{remembered: r, value: r.comparable(), rev: rev}, err
}

// check is the ledger's entry of a group, for those who change nothing in it.
func (s *simServer) check(k groupKey) (*remembered, error) {
	rev := s.byKey[k.String()]
	if rev == 0 {
		return &remembered{}, nil
	}
	record := &s.ledger[rev-1]
	if record.read == nil {
		r, err := decodeRemembered(record.value)
		if err != nil {
			return &r, err
		}
		record.read = &r
	}
	return record.read, nil
}

// owner is the record of the partition.
func (s *simServer) owner(in *simReplica) (r ownerRecord, rev uint64) {
	value, rev := s.get(s.names.ownerKey(0), in)
	if rev != 0 {
		r, _ = decodeOwner(value) // as claim wrote it
	}
	return r, rev
}

// next is the message to deliver now, if there is one.
func (s *simServer) next() (e entry, ok bool) {
	c := &s.consumer
	if c.hand != 0 {
		return s.log[c.hand-1], c.again
	}
	for seq := c.floor + 1; seq <= uint64(len(s.log)); seq++ {
		if s.log[seq-1].subject != s.outputs && !s.purged[seq-1] {
			return s.log[seq-1], true
		}
	}
	return entry{}, false
}

// pending is how many messages come after one.
func (s *simServer) pending(after uint64) (n uint64) {
	for _, e := range s.log[after:] {
		if e.subject != s.outputs {
			n++
		}
	}
	return n
}

// caughtUp says that everything is acknowledged.
func (s *simServer) caughtUp() bool {
	_, more := s.next()
	return !more && s.consumer.hand == 0
}

// deliver hands a message out.
func (c *simConsumer) deliver(e entry) (deliveries uint64) {
	c.hand, c.again = e.seq, false
	c.delivery++
	c.deliveries[e.seq]++
	return c.deliveries[e.seq]
}

// ack takes an acknowledgement, whoever sends it.
func (c *simConsumer) ack(seq uint64) {
	if seq == c.hand {
		c.floor, c.hand, c.again = seq, 0, false
	}
}

// back is a position before the floor, as far as the log goes.
func (c *simConsumer) back(by int) uint64 { return c.floor - min(c.floor-logStart, uint64(by)) }

// reset goes back to deliver everything after a position.
func (c *simConsumer) reset(position uint64) {
	c.floor, c.hand, c.again, c.delivery, c.late = position, 0, false, 0, 0
}

// resetLate is reset while a delivery is on its way, which arrives all the same.
func (c *simConsumer) resetLate(position uint64, msg *simMsg) {
	c.reset(position)
	c.late, c.behind = msg.e.seq, position
	c.pinned.inbox = append(c.pinned.inbox, msg)
}

// elect lets a replica lead the consumer, which knows only its records: it goes on
// with what was delivered late.
func (c *simConsumer) elect() {
	c.pinned, c.again = nil, true
	if c.late > c.floor {
		c.floor, c.hand, c.late = c.behind, c.late, 0
	}
}

// pinTo gives the partition to an instance.
func (c *simConsumer) pinTo(in *simInstance) {
	c.pins++
	c.pinned, c.pin, c.again = in, fmt.Sprintf("pin-%d", c.pins), true
}

// simFeed, simJournal, simLedger, simEvents and simSnapshots are an instance's
// ways to the server.
type (
	simFeed      struct{ in *simInstance }
	simJournal   struct{ in *simInstance }
	simLedger    struct{ in *simInstance }
	simEvents    struct{ in *simInstance }
	simSnapshots struct{ in *simInstance }
)

func (f simFeed) progress(context.Context) (progress, error) {
	if err := f.in.sim.pause("asks how far the consumer is", false); err != nil {
		return progress{}, err
	}
	c := &f.in.sim.server.consumer
	p := progress{floor: c.floor, newest: max(c.floor, c.hand)}
	if c.hand != 0 {
		p.inHand = 1
	}
	if c.late > c.floor {
		p.floor, p.newest = c.behind, c.late
	}
	return p, nil
}

func (f simFeed) reset(_ context.Context, after uint64) error {
	s := f.in.sim
	s.note("%s lets the consumer go back to seq %d", f.in.name, after)
	c := &s.server.consumer
	if c.hand > after && c.pinned != nil && s.random.IntN(4) == 0 {
		s.note("seq %d is delivered late", c.hand)
		c.resetLate(after, c.pinned.message(s.server.log[c.hand-1]))
		return nil
	}
	c.reset(after)
	return nil
}

func (j simJournal) append(_ context.Context, k groupKey, what kind, data []byte, expectLast *uint64) (uint64, error) {
	s := j.in.sim
	seq, err := s.server.store(s.server.names.log(k, what), data, expectLast)
	if err != nil {
		s.counts.conflicts++
		s.note("%s's %s is refused: %v", j.in.name, what, err)
		return 0, err
	}
	s.note("%s's %s is stored (seq %d)%s", j.in.name, what, seq, s.describe(what, data))
	if what == kindRemoval {
		s.checkOutput(s.server.log[seq-1])
	}
	return seq, nil
}

func (j simJournal) read(_ context.Context, filter string, from uint64, each func(entry) error) error {
	if err := j.in.sim.pause("reads the log", false); err != nil {
		return err
	}
	server, replica := j.in.sim.server, j.in.replica()
	for seq := max(from, logStart+1); seq <= uint64(replica.log); seq++ {
		e := server.log[seq-1]
		if replica.purged[seq-1] || e.subject != filter && filter != server.partition && (filter != server.all || server.keys[e.subject] != simKey) {
			continue
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return nil
}

func (j simJournal) readOne(ctx context.Context, filter string, from uint64) (e entry, err error) {
	err = j.read(ctx, filter, from, func(first entry) error {
		e = first
		return errFound
	})
	switch {
	case errors.Is(err, errFound):
		return e, nil
	case err == nil:
		return e, errNoEntry
	}
	return e, err
}

func (j simJournal) readLast(_ context.Context, filter string) (entry, error) {
	if err := j.in.sim.pause("reads the last entry of a subject", false); err != nil {
		return entry{}, err
	}
	server, replica := j.in.sim.server, j.in.replica()
	for seq := replica.log; seq > logStart; seq-- {
		if e := server.log[seq-1]; e.subject == filter && !replica.purged[seq-1] {
			return e, nil
		}
	}
	return entry{}, errNoEntry
}

func (j simJournal) purge(_ context.Context, subject string, below uint64) error {
	s := j.in.sim
	for seq := uint64(1); seq < below; seq++ {
		if s.server.log[seq-1].subject == subject && !s.server.purged[seq-1] {
			s.server.purged[seq-1] = true
			s.counts.purged++
			s.note("%s purges seq %d", j.in.name, seq)
		}
	}
	return nil
}

func (j simJournal) delivered(context.Context, string) (uint64, error) {
	s := j.in.sim
	if err := s.pause("asks what is delivered", false); err != nil {
		return 0, err
	}
	if s.random.IntN(2) == 0 {
		s.taken = uint64(len(s.server.log))
	}
	return s.taken, nil
}

func (l simLedger) get(_ context.Context, k groupKey) (ledgerEntry, error) {
	if err := l.in.sim.pause("reads the ledger", false); err != nil {
		return ledgerEntry{}, err
	}
	return l.in.sim.server.remembered(k, l.in.replica())
}

func (l simLedger) owner(context.Context, string) (ownerRecord, uint64, error) {
	if err := l.in.sim.pause("reads the owner record", false); err != nil {
		return ownerRecord{}, 0, err
	}
	r, rev := l.in.sim.server.owner(l.in.replica())
	return r, rev, nil
}

func (l simLedger) putOwner(_ context.Context, key string, r ownerRecord, rev uint64) (uint64, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	next, err := l.in.sim.server.put(key, value, rev)
	if err == nil {
		l.in.sim.note("%s's owner record is stored (revision %d, position %d)", l.in.name, next, r.Position)
	}
	return next, err
}

// owe is not called: nothing that is stored gets damaged.
func (l simLedger) owe(context.Context, groupKey, bool) error { return errBroken }

// each gives what the ledger has at the first pause, at the second.
func (l simLedger) each(_ context.Context, _ string, take func(jetstream.KeyValueEntry)) error {
	s := l.in.sim
	if err := s.pause("reads the whole ledger", false); err != nil {
		return err
	}
	var all []simKV
	replica := l.in.replica()
	for i, r := range s.server.ledger[:min(replica.ledger, len(s.server.ledger))] {
		if rev := uint64(i + 1); s.server.revision(r.key, replica) == rev {
			all = append(all, simKV{simRecord: r, rev: rev})
		}
	}
	if err := s.pause("has read the whole ledger", false); err != nil {
		return err
	}
	for _, v := range all {
		take(v)
	}
	if replica.until != 0 {
		return fmt.Errorf("%w: the rest does not come", errUnavailable) // whoever waits for it would wait by the real clock
	}
	return nil
}

func (l simLedger) put(_ context.Context, k groupKey, old ledgerEntry, r remembered) (ledgerEntry, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return old, err
	}
	s := l.in.sim
	rev, err := s.server.put(k.String(), value, old.rev)
	if err != nil {
		s.counts.conflicts++
		s.note("%s's ledger entry is refused: %v", l.in.name, err)
		return old, err
	}
	s.note("%s's ledger entry is stored (revision %d, open: %t, position %d)", l.in.name, rev, r.Open, r.Position)
	return ledgerEntry{remembered: r, value: r.comparable(), rev: rev}, nil
}

func (e simEvents) publish(_ context.Context, events []event) error {
	for i := range events {
		if events[i].Reason == reasonInternal {
			e.in.sim.fail("%s cannot fold seq %d", e.in.name, events[i].Seq)
		}
		e.in.sim.server.events[events[i].id()] = events[i]
		e.in.sim.server.told[events[i].Intent+"/"+events[i].Type] = true
		e.in.sim.note("event: %s %s %s %s", events[i].Type, short(events[i].Intent), events[i].Reason, events[i].Detail)
	}
	return nil
}

func (l simSnapshots) get(context.Context, groupKey) (snapshot, error) {
	err := l.in.sim.pause("reads the snapshot", false)
	return l.in.replica().snapshot, err
}

func (l simSnapshots) revision(context.Context, groupKey) (uint64, error) {
	err := l.in.sim.pause("reads the revision of the snapshot", false)
	return l.in.replica().snapshot.rev, err
}

func (l simSnapshots) confirm(_ context.Context, _ groupKey, rev uint64) error {
	if err := l.in.sim.pause("confirms the snapshot", false); err != nil {
		return err
	}
	if have := l.in.sim.server.snapshot.rev; have != rev {
		return fmt.Errorf("%w: the last revision is %d, not %d", errConflict, have, rev)
	}
	return nil
}

func (l simSnapshots) put(_ context.Context, _ groupKey, next snapshot, rev uint64) (uint64, error) {
	s := l.in.sim
	if have := s.server.snapshot.rev; have != rev {
		s.note("%s's snapshot is refused", l.in.name)
		return 0, fmt.Errorf("%w: the last revision is %d, not %d", errConflict, have, rev)
	}
	s.counts.snapshots++
	s.note("%s's snapshot of position %d is stored", l.in.name, next.position)
	next.rev = rev + 1
	s.server.snapshot, s.server.synced = next, len(s.server.ledger)
	return next.rev, nil
}

// simMsg is a delivered message.
type simMsg struct {
	jetstream.Msg
	in         *simInstance
	e          entry
	deliveries uint64
	delivery   uint64
	pin        string
}

func (m *simMsg) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{
		Sequence: m.at(), NumDelivered: m.deliveries, Timestamp: m.e.time,
		NumPending: m.in.sim.server.pending(m.e.seq),
	}, nil
}

// at is where the message is in the log, and among the deliveries.
func (m *simMsg) at() jetstream.SequencePair {
	return jetstream.SequencePair{Stream: m.e.seq, Consumer: m.delivery}
}

func (m *simMsg) Subject() string      { return m.e.subject }
func (m *simMsg) Data() []byte         { return m.e.data }
func (m *simMsg) Headers() nats.Header { return nats.Header{headerPin: {m.pin}} }

func (m *simMsg) Ack() error {
	m.in.sim.note("%s acknowledges seq %d", m.in.name, m.e.seq)
	m.in.sim.checkAck(m.e.seq)
	m.in.sim.server.consumer.ack(m.e.seq)
	return nil
}

func (m *simMsg) TermWithReason(reason string) error {
	m.in.sim.note("%s refuses seq %d: %s", m.in.name, m.e.seq, reason)
	m.in.sim.server.consumer.ack(m.e.seq)
	return nil
}

func (m *simMsg) NakWithDelay(time.Duration) error { return nil } // as if its ack wait were over

// simKV is an entry of the ledger as its watch gives it.
type simKV struct {
	jetstream.KeyValueEntry
	simRecord
	rev uint64
}

func (e simKV) Key() string                     { return e.key }
func (e simKV) Value() []byte                   { return e.value }
func (e simKV) Revision() uint64                { return e.rev }
func (e simKV) Operation() jetstream.KeyValueOp { return jetstream.KeyValuePut }
