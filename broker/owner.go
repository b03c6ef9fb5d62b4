package broker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"leavebroker/intents"
)

// maxConflicts is how often an input is tried again at once after another
// writer was first.
const maxConflicts = 5

// owner works on the groups of one partition while this instance holds it: it
// alone steps their states, one input or wake-up at a time.
type owner struct {
	b      *Broker
	group  *streamGroup
	number int
	feed   feed

	work     sync.Mutex  // held while an input or a wake-up is worked on
	position uint64      // what was consumed is acknowledged up to here; guarded by work
	redo     uint64      // inputs up to here were acknowledged before; guarded by work
	undone   uint64      // the message that is not done with, 0 for none; guarded by work
	pin      string      // of the last message; guarded by work
	delivery uint64      // the server's number for it; guarded by work
	lostPin  string      // the last one of a time that is over; guarded by work
	term     uint64      // revision of the record as this instance wrote it; guarded by work
	recorded ownerRecord // that record; guarded by work
	since    int         // work since then; guarded by work
	waiting  uint64      // messages of the partition that came to the log after that in hand; guarded by work
	intentOf groupKey    // the group of the last message, if it was an intent; guarded by work
	tries    tries       // of the input in hand; guarded by work
	asks     questions   // guarded by work
	controls controls    // guarded by work

	uncompacted map[groupKey]int // logs that could not be compacted, and their entries; of compactLogs alone

	holds     atomic.Bool               // the partition is this instance's; becomes true under work and recMu
	lost      atomic.Bool               // another took it: the server may still deliver to this instance
	heldSince atomic.Pointer[time.Time] // set before holds
	busySince atomic.Pointer[time.Time] // of the work in hand, nil while idle
	handled   atomic.Int64              // messages
	poked     chan struct{}             // look at rank and record again

	recMu    sync.Mutex
	seen     ownerRecord   // what the ledger says; guarded by recMu
	seenRev  uint64        // its revision, 0 for none; guarded by recMu
	seenMore chan struct{} // closed when there is another; guarded by recMu

	mu     sync.Mutex
	groups loaded // guarded by mu
}

func newOwner(b *Broker, group *streamGroup, number int) *owner {
	o := &owner{
		b: b, group: group, number: number, groups: loaded{total: &b.cached}, asks: questions{}, controls: controls{},
		poked: make(chan struct{}, 1), seenMore: make(chan struct{}),
	}
	o.feed = partitionFeed{o}
	return o
}

// begin takes the partition to work on it; the result gives it back.
func (o *owner) begin() func() {
	o.work.Lock()
	now := time.Now()
	o.busySince.Store(&now)
	return func() {
		o.busySince.Store(nil)
		o.work.Unlock()
	}
}

// accept judges an input before its group's fold, and folds it. The caller
// holds work.
func (o *owner) accept(ctx context.Context, e entry, deliveries uint64) (r *received, err error) {
	r, err = o.group.inbound.receive(e)
	r.deliveries = deliveries
	defer func() {
		if isBroken(err) {
			err = o.giveUpOften(ctx, r, err)
		}
	}()
	if err == nil && r.kind == kindIntent {
		_, err = checkIntent(r.tenant, r.data)
	}
	if err == nil {
		err = o.b.resolve(ctx, r, true)
	}
	if why, refused := asRefusal(err); refused {
		return r, o.tell(ctx, r, []event{refusedEvent(r, why)}, err)
	}
	if err != nil {
		return r, err
	}
	idle, err := o.idle(ctx, r)
	if err != nil {
		return r, err
	}
	if idle {
		r.skipped = true
		o.b.metrics.skipped.Add(1)
		return r, nil
	}
	return r, o.advance(ctx, r.key, r.tenant, r)
}

// giveUpOften refuses an input that the broker could not fold so often that it
// never will, by its own mistake; before that, the error stays as it is.
func (o *owner) giveUpOften(ctx context.Context, in *received, err error) error {
	t := o.triesOf(in.seq)
	if t.broken++; t.broken < maxBroken {
		return err
	}
	o.b.log.Error("an input is given up", in.field(), zap.Error(err))
	why := &refusal{reasonInternal, "the broker cannot fold this message"}
	return o.tell(ctx, in, []event{refusedEvent(in, why)}, why)
}

// idle says whether an input is of a group that has nothing to do: then it
// stays in the log until there is. An intent and an operator's word always
// matter. So does what comes again because the server may have lost what followed
// from it, if the group has ever had something to do.
func (o *owner) idle(ctx context.Context, r *received) (bool, error) {
	o.adoptNow(ctx, r.key)
	switch {
	case r.kind == kindIntent, r.kind == kindControl, o.b.open.has(r.key), o.peek(r.key) != nil:
		return false, nil
	case r.seq <= o.redo:
		entry, err := o.b.ledger.get(ctx, r.key)
		if isTrouble(err) {
			return false, nil // an operator learns of it where the group is loaded
		}
		return err == nil && entry.rev == 0, err
	}
	return true, nil
}

// advance folds an input of a group, or none, and does what is due then. When
// it fails, nothing of the group is left in memory. The caller holds work.
func (o *owner) advance(ctx context.Context, k groupKey, t *tenant, in *received) error {
	for attempt := 0; ; attempt++ {
		err := o.tryAdvance(ctx, k, t, in)
		if isTrouble(err) {
			return o.b.postpone(ctx, k, in, err)
		}
		if !errors.Is(err, errConflict) {
			return err
		}
		o.b.metrics.conflicts.Add(1)
		if attempt == maxConflicts {
			return err
		}
	}
}

func (o *owner) tryAdvance(ctx context.Context, k groupKey, t *tenant, in *received) (err error) {
	defer func() {
		if err != nil {
			o.drop(k)
		}
	}()
	defer recovered(&err)
	h, err := o.take(ctx, k, t, in)
	if err != nil {
		return err
	}
	ahead, err := o.readAhead(ctx, h.group, in)
	if err != nil {
		return err
	}
	g, events := h.group, h.skipped
	if in != nil {
		events = append(events, o.b.foldEvents(g, in)...)
	}
	for _, r := range ahead {
		events = append(events, o.b.foldEvents(g, r)...)
	}
	for _, r := range h.later {
		events = append(events, o.b.foldEvents(g, r)...)
	}
	if h.unconfirmed && (in != nil || !o.b.isQuiet(g, events)) {
		if err := o.b.snapshots.confirm(ctx, k, g.snapshot.rev); err != nil {
			o.b.noteRoom(err)
			return err
		}
	}
	more, due, err := o.b.settle(ctx, g)
	if err != nil {
		return err
	}
	events = append(events, more...)
	if err := o.tell(ctx, in, events, nil); err != nil {
		return err
	}
	if in != nil || g.state.Open() != g.ledger.Open || len(events) > 0 { // else there is nothing to write
		if err := o.b.record(ctx, g, events); err != nil {
			return err
		}
	}
	if err := o.b.paid(ctx, h); err != nil {
		return err
	}
	o.keep(g, in)
	o.follow(ctx, g, due, in)
	return nil
}

// take gives a copy of a group to work on: of that in memory, which others may
// read meanwhile, or loaded from the log.
func (o *owner) take(ctx context.Context, k groupKey, t *tenant, in *received) (*history, error) {
	o.mu.Lock()
	g := o.groups.get(k)
	o.mu.Unlock()
	upTo, groupID := o.position, []byte(nil)
	if in != nil {
		upTo = in.seq - 1
		if g == nil || !g.learnt {
			groupID, _ = in.teaches()
		}
	}
	if g != nil && (g.learnt || groupID == nil) {
		clone := *g
		isWhole, err := true, error(nil)
		if g.unsure && in != nil {
			isWhole, err = o.b.isWhole(ctx, g, in.seq)
		}
		if isWhole || err != nil {
			clone.unsure = g.unsure && in == nil
			return &history{group: &clone, unconfirmed: g.unsure}, err
		}
	}
	h, err := o.b.load(ctx, k, t, upTo, groupID)
	switch {
	case err != nil:
		return nil, err
	case in == nil:
		h.group.unsure = !o.b.alone()
	case h.lacks(in.seq):
		return nil, errLags
	}
	h.unconfirmed = true
	return h, nil
}

// isQuiet says whether a group that was looked at has nothing to do now.
func (b *Broker) isQuiet(g *group, events []event) bool {
	due := g.state.Due(b.opts.Clock())
	return len(events) == 0 && due.Propose == nil && len(due.Ask) == 0 && len(due.Control) == 0 && g.state.Open() == g.ledger.Open
}

// isWhole says whether nothing is in the log of a group between what it knows and
// the next message.
func (b *Broker) isWhole(ctx context.Context, g *group, next uint64) (bool, error) {
	whole, newest, position := true, g.state.Position(), g.state.Position()
	err := b.readLog(ctx, g.key, position+1, func(r *received) error {
		newest = r.seq
		if r.kind == kindRemoval {
			whole = whole && r.seq <= g.lastRemoval
		} else {
			whole = whole && r.seq >= next
		}
		return nil
	})
	if err == nil && newest < next {
		err = errLags
	}
	return whole, err
}

// keep holds a group in memory while it is open, and tells whether it is. What
// is done again says nothing of that before it is as far as the ledger. Up to where
// an owner was that was replaced, what follows an input may be purged before it
// comes: then the group is loaded for each.
func (o *owner) keep(g *group, in *received) {
	isOpen := g.state.Open() || g.ledger.Open && g.state.Position() < g.ledger.Position
	o.b.open.set(g.key, isOpen, g.openIntents, g.ledger.rev)
	done := o.position
	if in != nil {
		done = max(done, in.seq)
	}
	o.mu.Lock()
	if isOpen && done >= o.recorded.Reached {
		o.groups.add(g)
	} else {
		o.groups.remove(g.key)
	}
	o.mu.Unlock()
	o.b.trim(g.key)
}

// drop forgets a group whose state may not be that of the log any more.
func (o *owner) drop(k groupKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.groups.remove(k)
}

// peek gives the state of a group that is in memory, nil if it is not.
func (o *owner) peek(k groupKey) *intents.State {
	o.mu.Lock()
	defer o.mu.Unlock()
	if g := o.groups.get(k); g != nil {
		return g.state
	}
	return nil
}

// forget drops everything in memory: another instance may have worked on the
// partition. The caller holds work.
func (o *owner) forget() {
	o.undone, o.asks, o.controls = 0, questions{}, controls{}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.groups.clear()
}

// tell publishes events and then gives err. Events that cannot be stored for
// minutes are dropped: they hold nothing up for ever.
func (o *owner) tell(ctx context.Context, in *received, events []event, err error) error {
	failed := o.b.publish(ctx, events)
	if failed == nil {
		return err
	}
	if in == nil {
		return failed
	}
	t := o.triesOf(in.seq)
	if t.untold++; t.untold < maxUntold {
		return failed
	}
	o.b.metrics.eventsDropped.Add(int64(len(events)))
	o.b.log.Error("events are dropped", in.field(), zap.Int("events", len(events)), zap.Error(failed))
	return err
}

// follow does what comes after an input was folded: questions, timers.
func (o *owner) follow(ctx context.Context, g *group, due intents.Due, in *received) {
	if in != nil && in.kind == kindControl {
		o.controls.clear(g.key)
	}
	timers := &o.b.timers
	timers.set(g.key, due.Wake)
	timers.sooner(g.key, o.ask(g, due.Ask))
	timers.sooner(g.key, o.appendControls(ctx, g, due.Control))
}

// wake looks at a group again because its time has come, if the partition is
// held.
func (o *owner) wake(ctx context.Context, k groupKey) error {
	t := o.b.tenants[k.tenant]
	if t == nil {
		return nil
	}
	defer o.begin()()
	if !o.holds.Load() {
		return nil
	}
	o.adoptNow(ctx, k)
	return o.advance(ctx, k, t, nil)
}

// earlier is the earlier of two times, zero meaning never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
