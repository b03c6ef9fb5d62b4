package broker

import (
	"context"
	"errors"
	"fmt"

	"leavebroker/intents"
)

// group is what is in memory of one group. It is changed only by the owner of
// its partition, in a copy that replaces it when everything is stored.
type group struct {
	key    groupKey
	tenant *tenant
	state  *intents.State

	learnt      bool     // the group_id is known
	unsure      bool     // it may lack the end of its log, read from a server that lags behind
	openIntents int      // parked, held or pending
	lastRemoval uint64   // sequence of the newest output folded; 0 for none
	snapshot    snapshot // that it was loaded from, without the state
	ledger      ledgerEntry
}

// fold gives one entry of the log to the state. An output is a fact wherever
// it is in the log, and has no position there: inputs that were stored before
// it may still be folded after it.
func (g *group) fold(r *received) []intents.Notice {
	in := r.input()
	if r.kind == kindRemoval {
		if r.seq <= g.lastRemoval {
			return nil
		}
		g.lastRemoval, in.Seq = r.seq, 0
	}
	before := g.state
	var notices []intents.Notice
	g.state, notices = g.state.Step(in)
	g.openIntents += opened(before, g.state, notices)
	return notices
}

// opened says by how much a step changed the number of open intents. One step
// may report an intent more than once.
func opened(before, after *intents.State, notices []intents.Notice) (n int) {
	counted := make(map[string]bool, len(notices))
	for _, notice := range notices {
		if id := notice.Intent; id != "" && isState(notice.Type) && !counted[id] {
			counted[id] = true
			n += isOpen(after, id) - isOpen(before, id)
		}
	}
	return n
}

func isOpen(s *intents.State, id string) int {
	if r, known := s.Intent(id); known && !isEnded(r.State) {
		return 1
	}
	return 0
}

// newGroup is a group of which nothing was folded. Until its group_id is
// known, no message can match: the token takes its place.
func newGroup(k groupKey, t *tenant, groupID []byte) *group {
	g := &group{key: k, tenant: t, learnt: groupID != nil}
	if !g.learnt {
		groupID = []byte(k.group)
	}
	g.state = intents.NewState(&t.policy, groupID)
	return g
}

// history is what a load finds in the log of a group.
type history struct {
	group *group
	// skipped are the events of inputs that were passed over when they came, as
	// the group had nothing to do.
	skipped []event
	// owed says that inputs of the group were acknowledged and not folded.
	owed bool
	// unconfirmed says that it may come from a snapshot that was replaced, and then
	// lacks what was purged since.
	unconfirmed bool
	// later are outputs stored after the position that was asked for.
	later []*received
	// newest is the sequence of the last entry that was read.
	newest uint64
}

// lacks says that the log was read as it was before an entry: a server that was
// cut off from the others, or stood still, may take itself for their leader.
func (h *history) lacks(seq uint64) bool {
	return seq > max(h.newest, h.group.snapshot.position)
}

// errLags: what was read of a log lacks its end.
var errLags = fmt.Errorf("%w: the log was read from a server that lags behind the others: try again", errUnavailable)

// loadAttempts is how often a group is loaded anew because its log was
// compacted meanwhile.
const loadAttempts = 3

// load folds the log of a group up to a position. groupID is that of the
// message in hand, for a group whose token is a hash; nil otherwise.
func (b *Broker) load(ctx context.Context, k groupKey, t *tenant, upTo uint64, groupID []byte) (*history, error) {
	for attempt := 0; ; attempt++ {
		h, err := b.loadOnce(ctx, k, t, upTo, groupID)
		if !errors.Is(err, errCompacted) || attempt == loadAttempts {
			return h, err
		}
	}
}

// errCompacted: what was read of a log may have a hole.
var errCompacted = fmt.Errorf("%w: the log was compacted meanwhile", errUnavailable)

func (b *Broker) loadOnce(ctx context.Context, k groupKey, t *tenant, upTo uint64, groupID []byte) (*history, error) {
	entry, err := b.ledger.get(ctx, k)
	if err != nil {
		return nil, err
	}
	h := &history{}
	_, h.owed = b.owed.Load(k)
	if h.group, err = b.startGroup(ctx, k, t, groupID); err != nil {
		return nil, err
	}
	h.group.ledger = entry
	h.group.ledger.unsure = b.opts.Replicas > 1
	if h.owed { // whoever wrote the entry may have been further
		upTo = max(upTo, entry.Position)
	}
	err = b.readSince(ctx, h.group, func(r *received) {
		h.newest = r.seq
		switch {
		case r.seq <= upTo:
			notices := h.group.fold(r)
			switch {
			case h.owed && r.seq > entry.Position:
				h.skipped = append(h.skipped, newEvents(r, notices)...)
			case !entry.Open && r.seq > entry.Position:
				h.skipped = append(h.skipped, skippedEvents(r, notices)...)
			}
		case r.kind == kindRemoval:
			h.later = append(h.later, r)
		}
	})
	if err != nil {
		return nil, err
	}
	if h.lacks(entry.Position) {
		return nil, errLags
	}
	h.group.openIntents = countOpen(h.group.state)
	b.settled(k)
	b.metrics.loads.Add(1)
	return h, nil
}

// startGroup gives a group as its last snapshot has it, or one of which nothing
// was folded.
func (b *Broker) startGroup(ctx context.Context, k groupKey, t *tenant, groupID []byte) (*group, error) {
	s, err := b.snapshots.get(ctx, k)
	if err != nil {
		return nil, err
	}
	if s.rev == 0 {
		if groupID, err = b.learnGroupID(ctx, k, groupID); err != nil {
			return nil, err
		}
		return newGroup(k, t, groupID), nil
	}
	if GroupToken(s.groupID) != k.group {
		return nil, fmt.Errorf("snapshot %s: %w: it is of group %x", k, errSnapshot, s.groupID)
	}
	g := &group{key: k, tenant: t, learnt: true, lastRemoval: max(s.removals, 1) - 1}
	if g.state, err = intents.RestoreState(&t.policy, s.groupID, s.state); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", k, err)
	}
	s.state = nil
	g.snapshot = s
	return g, nil
}

// readSince gives the entries of a log that follow what a group was started
// from: the outputs that still matter, then everything after its position.
func (b *Broker) readSince(ctx context.Context, g *group, each func(*received)) error {
	s := g.snapshot
	lacksLast := s.removals <= s.lastRemoval && s.lastRemoval > 0 // it is not purged before the snapshot is replaced
	err := b.readLog(ctx, g.key, min(s.removals, s.position+1), func(r *received) error {
		lacksLast = lacksLast && r.seq != s.lastRemoval
		if r.kind == kindRemoval && r.seq >= s.removals || r.kind != kindRemoval && r.seq > s.position {
			each(r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	g.lastRemoval = max(g.lastRemoval, g.snapshot.lastRemoval)
	rev, err := b.snapshots.revision(ctx, g.key)
	switch {
	case err != nil:
		return err
	case rev != s.rev:
		return errCompacted
	case lacksLast:
		return errLags
	}
	return nil
}

// readLog gives the entries of a group that a fold may see.
func (b *Broker) readLog(ctx context.Context, k groupKey, from uint64, each func(*received) error) error {
	g := b.at(k)
	return g.log.read(ctx, g.names.logOf(k), from, func(e entry) error {
		r, err := g.inbound.receive(e)
		if err == nil {
			err = b.resolve(ctx, r, false)
		}
		if _, refused := asRefusal(err); refused {
			return nil // told when it came
		}
		if err != nil {
			return err
		}
		return each(r)
	})
}

var errFound = errors.New("found")

// learnGroupID is the group_id of a group: in its token, given, or named by
// the log; nil if nothing names it yet.
func (b *Broker) learnGroupID(ctx context.Context, k groupKey, given []byte) ([]byte, error) {
	if id, err := parseGroupToken(k.group); err != nil || id != nil {
		return id, err
	}
	if given != nil {
		return given, nil
	}
	var id []byte
	err := b.readLog(ctx, k, 1, func(r *received) error {
		var ok bool
		if id, ok = r.teaches(); ok {
			return errFound
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFound) {
		return nil, err
	}
	return id, nil
}

// skippedEvents are what is worth telling of an input that was passed over
// when it came: what was wrong with it, or with our view of the group.
func skippedEvents(r *received, notices []intents.Notice) []event {
	if r.kind.isWorkedOn() {
		return nil // told when it came
	}
	var events []event
	for _, n := range notices {
		switch n.Type {
		case intents.NoticeRefused, intents.NoticeFlagged, intents.NoticeDiverged, intents.NoticeNeedsGroupInfo:
			events = append(events, newEvent(r, n))
		}
	}
	return events
}

func newEvents(r *received, notices []intents.Notice) []event {
	var events []event
	for _, n := range notices {
		events = append(events, newEvent(r, n))
	}
	return events
}

func countOpen(s *intents.State) int {
	n := 0
	for _, r := range s.Records() {
		if !isEnded(r.State) {
			n++
		}
	}
	return n
}
