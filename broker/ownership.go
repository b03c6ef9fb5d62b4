package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// An owner record in the ledger says which instance works on a partition, and
// how far it came. The server gives each message to one instance at a time (the
// pinned client), but that is no lock: an instance that was frozen may wake and
// go on. What keeps two instances from harm is that every output and every
// ledger entry is written by compare-and-swap, and that all that is decided is a
// function of the log. The record tells an instance that it has lost a
// partition, keeps its timers and questions to one instance, and orders what the
// ledger says: whoever writes the record waits until it has read it back, and has
// then seen every entry written before.
//
// The record is a checkpoint too. Consumers and ledger are other streams of the
// server than the log: at a power loss without synchronous writes, each may lose
// another stretch of its end, and a consumer may be further on than what followed
// from its messages. All entries of the ledger that inputs up to the record's
// position led to are before the record in the same stream. So the next owner
// goes back to the position, if the consumer is beyond it; and the outputs of
// open groups are looked at when a partition is taken over.

// ownerVersion is the version of the stored form of an ownerRecord.
const ownerVersion = 1

// ownerRecord is the entry of a partition in the ledger, as JSON, under
// _owner.<tenant of a dedicated stream, or _>.<partition>.
type ownerRecord struct {
	Version  int       `json:"version"`
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"`
	Position uint64    `json:"position"`           // inputs up to here are done with
	Released bool      `json:"released,omitempty"` // the instance left the partition in order
	// Reached is the furthest position of any record before, if it is beyond this one:
	// the consumer had lost its place. An owner that was replaced may still purge
	// inputs up to there.
	Reached uint64 `json:"reached,omitempty"`
}

const ownerKeyPrefix = "_owner."

// ownerKey is the key of a partition's record.
func (n names) ownerKey(partition int) string {
	stream := n.dedicated
	if stream == "" {
		stream = nowhere
	}
	return fmt.Sprintf("%s%s.%d", ownerKeyPrefix, stream, partition)
}

func decodeOwner(b []byte) (ownerRecord, error) {
	var r ownerRecord
	err := json.Unmarshal(b, &r)
	return r, checkEntry(err, r.Version, ownerVersion)
}

const (
	// checkpointEvery is how often the records of partitions that went on are
	// written, and checkpointWork after how much work at the latest: an input that
	// was skipped is 1, any other workOfInput. After a crash as much is done again.
	checkpointEvery = time.Second
	checkpointWork  = 64 * workOfInput
	workOfInput     = 16
	// lookAgain is when an owner looks again at what it may have missed.
	lookAgain = 10 * time.Second
)

// observe is given what the ledger says of the partition, in order.
func (o *owner) observe(r ownerRecord, rev uint64) {
	o.recMu.Lock()
	if rev <= o.seenRev {
		o.recMu.Unlock()
		return
	}
	o.seen, o.seenRev = r, rev
	close(o.seenMore)
	o.seenMore = make(chan struct{})
	lost := o.holds.Load() && r.Instance != o.b.opts.Instance
	if lost {
		o.holds.Store(false)
	}
	o.recMu.Unlock()
	if lost {
		o.b.spawn(func() { o.lose(r) })
	}
	o.poke()
}

// poke makes the owner look at its rank and record again.
func (o *owner) poke() {
	select {
	case o.poked <- struct{}{}:
	default:
	}
}

// lose drops everything of a partition that another instance has taken.
func (o *owner) lose(to ownerRecord) {
	defer o.begin()()
	if o.holds.Load() {
		return // claimed again meanwhile
	}
	o.b.metrics.fenced.Add(1)
	o.b.log.Warn("another instance has taken a partition that this one had not given up",
		zap.String("stream", o.group.names.logStream()), zap.Int("partition", o.number), zap.String("owner", to.Instance))
	o.letGo()
	o.lost.Store(true)
	o.poke()
}

// letGo drops what is in memory. The caller holds work.
func (o *owner) letGo() {
	o.pin, o.lostPin = "", o.pin
	o.forget()
}

// awaitRevision waits until the ledger has been read up to a revision of the
// partition's record. A watch may take long to come back after its server went:
// then the ledger is read again at once.
func (o *owner) awaitRevision(ctx context.Context, rev uint64) error {
	for _, patience := range []time.Duration{o.b.watchPatience, apiTimeout} {
		if o.sawRevision(ctx, rev, patience) {
			return nil
		}
		if err := o.b.rereadLedger(ctx, func() bool { return o.sawRevision(ctx, rev, 0) }); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: the ledger is not read up to revision %d", errUnavailable, rev)
}

// watchPatience is how long the watch of the ledger may lag behind a write, but
// in a simulation.
const watchPatience = 500 * time.Millisecond

// sawRevision says whether the ledger was read up to a revision of the
// partition's record, within a time.
func (o *owner) sawRevision(ctx context.Context, rev uint64, within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		o.recMu.Lock()
		seen, more := o.seenRev, o.seenMore
		o.recMu.Unlock()
		if seen >= rev {
			return true
		}
		select {
		case <-more:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// isFree says whether nobody who lives works on the partition, as far as the
// ledger was read.
func (o *owner) isFree() bool {
	o.recMu.Lock()
	defer o.recMu.Unlock()
	return o.seenRev == 0 || o.b.isFree(o.seen)
}

// isFree says whether nobody else who lives works on the partition of a record.
func (b *Broker) isFree(r ownerRecord) bool {
	return r.Released || r.Instance == b.opts.Instance || !b.members.isLive(r.Instance)
}

// hold makes the partition this instance's, unless another has claimed it since
// this one did. The caller holds work.
func (o *owner) hold() bool {
	o.recMu.Lock()
	defer o.recMu.Unlock()
	if o.seenRev > o.term && o.seen.Instance != o.b.opts.Instance {
		return false
	}
	o.lost.Store(false) // what was lost is taken again
	now := time.Now()
	o.heldSince.Store(&now)
	o.holds.Store(true)
	return true
}

// errReset: the consumer begins again before the message in hand.
var errReset = errors.New("the consumer was reset")

// claim makes this instance the owner of the partition, and gives errReset if
// the consumer goes back: then messages come again, and the one in hand, if any,
// is not worked on, nor if the consumer has gone back before it meanwhile, or has
// lost its place. With none in hand, 0, the partition has to be free. The caller
// holds work.
func (o *owner) claim(ctx context.Context, inHand uint64) error {
	old, rev, err := o.b.ledger.owner(ctx, o.group.names.ownerKey(o.number))
	if err != nil {
		return err
	}
	if inHand == 0 && rev != 0 && !o.b.isFree(old) {
		o.observe(old, rev) // the watch of the ledger lags
		return errConflict
	}
	at, err := o.feed.progress(ctx)
	if err != nil {
		return err
	}
	if inHand != 0 && at.passedOver(inHand) {
		return errNotOurs // a server that was killed may deliver again what is before it
	}
	floor := at.floor
	next := ownerRecord{Version: ownerVersion, Instance: o.b.opts.Instance, Since: time.Now().UTC(), Position: min(max(old.Position, logStart), floor)}
	if o.b.alone() && !o.b.opts.Embedded.SyncLater {
		next.Position = floor // nothing that was acknowledged can be lost
	}
	if reached := max(old.Reached, old.Position); reached > next.Position {
		next.Reached = reached
	}
	// What the last owner had in hand is delivered at once, not after the ack wait.
	again := next.Position != floor || inHand == 0 && at.inHand > 0
	if !again && inHand != 0 {
		isNext, err := o.isNext(ctx, floor, inHand)
		if err != nil {
			return err
		}
		again = !isNext
	}
	if err := o.writeRecord(ctx, next, rev); err != nil {
		return err
	}
	if err := o.awaitRevision(ctx, o.term); err != nil {
		return err
	}
	if again {
		if err := o.reset(ctx, next.Position); err != nil {
			return err // what lies between is not passed over: the partition is not held
		}
	}
	o.forget()
	o.position, o.redo, o.pin = next.Position, floor, ""
	if inHand == 0 {
		o.lostPin = "" // what is delivered now is for this instance, by any pin
	}
	if !o.hold() {
		return errConflict
	}
	o.b.log.Debug("a partition is taken", zap.String("stream", o.group.names.logStream()), zap.Int("partition", o.number),
		zap.String("from", old.Instance), zap.Uint64("position", next.Position), zap.Uint64("ack_floor", floor))
	o.b.spawn(func() { o.wakeOpen(o.b.work) })
	if again {
		return errReset
	}
	return nil
}

// reset lets the consumer deliver again what follows a position.
func (o *owner) reset(ctx context.Context, after uint64) error {
	return o.b.write("reset", func() error { return o.feed.reset(ctx, after) })
}

// writeRecord writes the record in place of a revision. The caller holds work.
func (o *owner) writeRecord(ctx context.Context, r ownerRecord, rev uint64) error {
	return o.b.write("owner", func() error {
		next, err := o.b.ledger.putOwner(ctx, o.group.names.ownerKey(o.number), r, rev)
		if err == nil {
			o.term, o.recorded = next, r
		}
		return err
	})
}

// confirm gives errConflict if another instance has claimed the partition since
// this one did, which the watch of the ledger may not have told yet. The caller
// holds work.
func (o *owner) confirm(ctx context.Context) error {
	return o.writeRecord(ctx, o.recorded, o.lastWritten())
}

// checkpoint writes down how far the partition is.
func (o *owner) checkpoint(ctx context.Context) error {
	defer o.begin()()
	return o.checkpointNow(ctx)
}

// checkpointNow is checkpoint for a caller that holds work.
func (o *owner) checkpointNow(ctx context.Context) error {
	if !o.holds.Load() || o.position == o.recorded.Position {
		return nil
	}
	o.since = 0
	r := o.recorded
	r.Position = o.position
	if r.Position >= r.Reached {
		r.Reached = 0
	}
	err := o.writeRecord(ctx, r, o.lastWritten())
	if !errors.Is(err, errConflict) {
		return err
	}
	r, rev, readErr := o.b.ledger.owner(ctx, o.group.names.ownerKey(o.number))
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	o.observe(r, rev)                        // the partition may be another's
	if rev < o.term && o.holds.Swap(false) { // or the ledger has lost its end, and what is in memory is not in it
		o.letGo()
		o.poke()
	}
	return err
}

// lastWritten is the revision of the record as this instance wrote it last,
// with or without an answer.
func (o *owner) lastWritten() uint64 {
	o.recMu.Lock()
	defer o.recMu.Unlock()
	if o.seen.Instance == o.b.opts.Instance {
		return max(o.term, o.seenRev)
	}
	return o.term
}

// release gives the partition up in order: whoever takes it goes on at once.
func (o *owner) release(ctx context.Context) error {
	defer o.begin()()
	if !o.holds.Swap(false) {
		return nil
	}
	r := o.recorded
	r.Position, r.Released = o.position, true
	err := o.writeRecord(ctx, r, o.lastWritten())
	o.letGo()
	return err
}

// runCheckpoints writes checkpoints until the context ends.
func (b *Broker) runCheckpoints(ctx context.Context) error {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, o := range b.all {
			if err := o.checkpoint(b.work); err != nil && ctx.Err() == nil {
				b.log.Warn("a checkpoint is not written", zap.Int("partition", o.number), zap.Error(err))
			}
		}
	}
}
