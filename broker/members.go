package broker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// Instances tell each other that they live, and spread the partitions among
// themselves by rendezvous hashing: the instance that ranks first for a
// partition works on it, the second stands by. A wrong view of who lives costs
// balance, never correctness (see ownership.go).

// beatsPerTTL is how many times an instance says that it lives in the time
// after which it is taken for dead.
const beatsPerTTL = 6

// heartbeat is what an instance says of itself on P.instances.
type heartbeat struct {
	Instance string `json:"instance"`
	Started  int64  `json:"started"`           // Unix time in nanoseconds: two of one name differ in it
	Leaving  bool   `json:"leaving,omitempty"` // it is about to end in order
}

// members are the instances that live, as far as this one hears.
type members struct {
	self    string
	started int64
	ttl     time.Duration

	leaving atomic.Bool // this instance gives its partitions up

	mu       sync.Mutex
	seen     map[string]peer // others; guarded by mu
	lastBeat time.Time       // of this instance; guarded by mu
	staying  []string        // who lives and does not leave, with self, sorted; guarded by mu
	changed  chan struct{}   // closed when staying changes; guarded by mu
}

// peer is another instance as it was last heard.
type peer struct {
	heard   time.Time
	leaving bool
}

func newMembers(self string, ttl time.Duration) *members {
	return &members{
		self: self, started: time.Now().UnixNano(), ttl: ttl, seen: map[string]peer{}, staying: []string{self}, changed: make(chan struct{}),
	}
}

// view gives the instances among which partitions are spread, this one
// included, and a channel that is closed when that changes.
func (m *members) view() (staying []string, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.staying, m.changed
}

// isLive says whether an instance lives: what it works on is its own, even if
// it leaves, until it has given it up.
func (m *members) isLive(instance string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, heard := m.seen[instance]
	return heard || instance == m.self
}

// isNamesake says whether a heartbeat is another's of the same name.
func (m *members) isNamesake(h heartbeat) bool { return h.Instance == m.self && h.Started != m.started }

// hear takes a heartbeat, and says whether its sender was not known to live. A
// sign of life that does not say when its sender started says nothing of whether
// it leaves.
func (m *members) hear(h heartbeat, now time.Time) (isNew bool) {
	if h.Instance == m.self || h.Instance == "" {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p, known := m.seen[h.Instance]
	p.heard = now
	if h.Started != 0 {
		p.leaving = h.Leaving
	}
	m.seen[h.Instance] = p
	m.refresh(now)
	return !known && !h.Leaving
}

// expire forgets those who were silent for too long. It is called at every beat:
// the time in which this instance could not hear does not count, since it was not
// connected, or stood still, as it did if the beat is late.
func (m *members) expire(now time.Time, connected bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	deaf := now.Sub(m.lastBeat)
	if connected {
		deaf -= m.ttl / beatsPerTTL
	}
	if !m.lastBeat.IsZero() && (!connected || deaf > m.ttl/beatsPerTTL) {
		for instance, p := range m.seen {
			p.heard = p.heard.Add(deaf)
			m.seen[instance] = p
		}
	}
	m.lastBeat = now
	m.refresh(now)
}

// refresh brings staying up to date. The caller holds mu.
func (m *members) refresh(now time.Time) {
	staying := []string{m.self}
	for instance, p := range m.seen {
		switch {
		case now.Sub(p.heard) > m.ttl:
			delete(m.seen, instance)
		case !p.leaving:
			staying = append(staying, instance)
		}
	}
	slices.Sort(staying)
	if !slices.Equal(staying, m.staying) {
		m.staying = staying
		close(m.changed)
		m.changed = make(chan struct{})
	}
}

// rank is the place of an instance among those that live, by their weights for
// a partition: 0 is the first.
func rank(stream string, partition int, instance string, live []string) int {
	own, place := weight(stream, partition, instance), 0
	for _, other := range live {
		if other == instance {
			continue
		}
		if w := weight(stream, partition, other); w > own || w == own && other < instance {
			place++
		}
	}
	return place
}

func weight(stream string, partition int, instance string) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%s", stream, partition, instance))
	return binary.BigEndian.Uint64(sum[:])
}

// joinMembers listens to the heartbeats of others and sends the first of its
// own, which others answer.
func (b *Broker) joinMembers() error {
	if b.alone() {
		return nil
	}
	_, err := b.nc.Subscribe(b.names.instances(), func(m *nats.Msg) {
		var h heartbeat
		if json.Unmarshal(m.Data, &h) != nil {
			return
		}
		if b.members.isNamesake(h) {
			b.health.report("instance "+h.Instance, errNamesake)
		}
		if b.members.hear(h, time.Now()) {
			b.log.Info("another instance is here", zap.String("instance", h.Instance))
			b.sendHeartbeat()
		}
	})
	if err != nil {
		return classify(err)
	}
	b.sendHeartbeat()
	return nil
}

// leaveMembers tells the others that this instance gives its partitions up:
// each takes what falls to it as soon as that is free.
func (b *Broker) leaveMembers() {
	if !b.alone() {
		b.members.leaving.Store(true)
		b.sendHeartbeat()
	}
}

// keepMembers sends heartbeats until the context ends.
func (b *Broker) keepMembers(ctx context.Context) error {
	if b.alone() {
		return nil
	}
	tick := time.NewTicker(b.members.ttl / beatsPerTTL)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b.sendHeartbeat()
			b.members.expire(time.Now(), b.nc.IsConnected())
		}
	}
}

// sendHeartbeat is best effort: the next one follows.
func (b *Broker) sendHeartbeat() {
	data, err := json.Marshal(heartbeat{Instance: b.opts.Instance, Started: b.members.started, Leaving: b.members.leaving.Load()})
	if err == nil {
		err = b.nc.Publish(b.names.instances(), data)
	}
	if err != nil {
		b.log.Debug("a heartbeat is not sent", zap.Error(err))
	}
}

// errNamesake: two instances have one name, and take each other's partitions for
// their own.
var errNamesake = errors.New("another instance has the same name: give each its own (instance), and start this one again")

// alone says that no other instance can serve these logs: the server is in
// this process, and its store is locked.
func (b *Broker) alone() bool { return b.embedded != nil }
