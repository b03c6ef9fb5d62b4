package broker

import (
	"maps"
	"sync"
	"sync/atomic"
)

// metrics are the counters of one process, read through the service's
// statistics. Their names and labels are few and fixed.
type metrics struct {
	inputs        atomic.Int64 // messages consumed
	skipped       atomic.Int64 // of them: nothing to do in their group
	loads         atomic.Int64 // groups folded from their log
	evictions     atomic.Int64 // groups dropped from memory for want of room
	snapshots     atomic.Int64 // stored
	outputs       atomic.Int64 // outputs stored
	proposals     atomic.Int64 // proposals in them
	fenced        atomic.Int64 // partitions that another instance took
	conflicts     atomic.Int64 // writes that somebody else came before
	retries       atomic.Int64 // inputs put back after an error
	eventsDropped atomic.Int64
	panics        atomic.Int64
	signErrors    atomic.Int64
	questions     atomic.Int64 // to the Authentication Service
	answerErrors  atomic.Int64 // of them: no usable answer

	mu     sync.Mutex
	labels map[string]int64 // "family.label" of the families below; guarded by mu
}

// countEvent counts an event by its type, its reason and its flags.
func (m *metrics) countEvent(e *event) {
	m.count("events", e.Type)
	if e.Reason != "" {
		m.count("event_reasons", e.Reason)
	}
	for _, flag := range e.Flags {
		m.count("event_flags", flag)
	}
}

// count adds one to a label of a family: events by type, refused by reason.
func (m *metrics) count(family, label string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.labels == nil {
		m.labels = map[string]int64{}
	}
	m.labels[family+"."+label]++
}

func (m *metrics) snapshot() map[string]int64 {
	m.mu.Lock()
	all := maps.Clone(m.labels)
	m.mu.Unlock()
	if all == nil {
		all = map[string]int64{}
	}
	for name, c := range map[string]*atomic.Int64{
		"inputs": &m.inputs, "inputs_skipped": &m.skipped, "group_loads": &m.loads,
		"evictions": &m.evictions, "snapshots": &m.snapshots, "outputs": &m.outputs, "proposals": &m.proposals, "fenced": &m.fenced, "conflicts": &m.conflicts, "retries": &m.retries,
		"events_dropped": &m.eventsDropped, "panics": &m.panics, "sign_errors": &m.signErrors,
		"questions": &m.questions, "answer_errors": &m.answerErrors,
	} {
		all[name] = c.Load()
	}
	return all
}
