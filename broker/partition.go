package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

const (
	// nats.go pulls for no less, and wants heartbeats in that time.
	minPullExpiry = time.Second
	pullHeartbeat = 500 * time.Millisecond
	pullMessages  = 2
	consumeAgain  = time.Second
	headerPin     = "Nats-Pin-Id"
)

// run works on the partition whenever it falls to this instance, until the
// context ends.
func (o *owner) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := o.await(ctx, o.isWanted); err != nil {
			return nil
		}
		gave, err := o.consume(ctx)
		if ctx.Err() == nil && err != nil {
			o.b.log.Warn("a partition is consumed again", zap.Int("partition", o.number), zap.Error(err))
		}
		o.stepAside(ctx, gave)
	}
	return nil
}

// stepAside waits a while, so that the next owner is pinned first. One that gave
// the partition to an instance that leaves meanwhile has it again at once.
func (o *owner) stepAside(ctx context.Context, gave bool) {
	timer := time.NewTimer(consumeAgain)
	defer timer.Stop()
	for {
		_, changed := o.b.members.view()
		if gave && o.rank() == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-changed:
		}
	}
}

// await waits until a condition holds that depends on rank or record; the error
// is that of the context.
func (o *owner) await(ctx context.Context, condition func() bool) error {
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	for {
		_, changed := o.b.members.view()
		if condition() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-o.poked:
		case <-look.C:
		}
	}
}

// rank is the place of this instance for the partition: 0 works on it, 1 stands
// by, others leave it alone.
func (o *owner) rank() int {
	live, _ := o.b.members.view()
	return rank(o.group.names.logStream(), o.number, o.b.opts.Instance, live)
}

func (o *owner) isWanted() bool { return o.rank() <= 1 }

// isOver says whether another instance should work on the partition. One that
// has just been given it may know before others do that the one before has died.
func (o *owner) isOver() bool {
	switch rank := o.rank(); {
	case rank == 1:
		return o.holds.Load() && time.Since(*o.heldSince.Load()) > 2*o.b.members.ttl
	default:
		return rank > 1
	}
}

// consume consumes until the context ends, another instance should, or the
// consumer is gone; then it finishes the message in hand and gives the partition
// up in order. It says whether it gave it to another.
func (o *owner) consume(ctx context.Context) (gave bool, err error) {
	name := o.group.names.partitionConsumer(o.number)
	if o.rank() == 0 {
		if err := o.claimFree(); err != nil {
			return false, err
		}
	}
	c, err := o.consumer(ctx)
	if err != nil {
		return false, o.mendConsumer(ctx, name, err)
	}
	consuming, err := c.Consume(o.handle,
		jetstream.PullPriorityGroup(priorityGroup), jetstream.PullMaxMessages(pullMessages),
		jetstream.PullExpiry(max(o.b.opts.PinTTL/2, minPullExpiry)), jetstream.PullHeartbeat(pullHeartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			o.b.log.Debug("consuming a partition", zap.Int("partition", o.number), zap.Error(err))
		}))
	if err != nil {
		return false, classify(err)
	}
	ended, err := o.attend(ctx, consuming)
	if ended {
		return false, fmt.Errorf("consumer %q ended", name)
	}
	gave = o.isOver()
	consuming.Drain()
	<-consuming.Closed()
	return gave, errors.Join(err, o.handOver(name))
}

// consumer looks up the consumer of the partition.
func (o *owner) consumer(ctx context.Context) (c jetstream.Consumer, err error) {
	err = untilAnswered(ctx, func(ctx context.Context) error {
		c, err = o.b.js.Consumer(ctx, o.group.names.logStream(), o.group.names.partitionConsumer(o.number))
		return err
	})
	return c, err
}

// mendConsumer makes the consumer of the partition again, where it was deleted:
// it goes on after the last checkpoint. The cause is that of not having it.
func (o *owner) mendConsumer(ctx context.Context, name string, cause error) error {
	if !isNotFound(cause) {
		return wrapAsset(classify(cause), "consumer", name)
	}
	o.b.health.report("consumer "+name, cause)
	defer o.begin()()
	o.holds.Store(false)
	o.letGo()
	if err := o.group.assets.ensurePartition(ctx, o.b.js, o.number, o.b.checkpointOf(ctx, o.group)); err != nil {
		return err
	}
	o.b.health.clear("consumer " + name)
	return fmt.Errorf("consumer %q was made again", name)
}

// attend takes the partition when it becomes free, and returns when this
// instance should stop consuming it, or the consumer has ended.
func (o *owner) attend(ctx context.Context, consuming jetstream.ConsumeContext) (ended bool, err error) {
	look := time.NewTicker(o.b.members.ttl)
	defer look.Stop()
	for {
		_, changed := o.b.members.view()
		if ctx.Err() != nil || o.lost.Load() || o.isOver() {
			return false, nil
		}
		if o.rank() == 0 {
			if err := o.claimFree(); err != nil {
				return false, err
			}
		}
		select {
		case <-ctx.Done():
		case <-consuming.Closed():
			return true, nil
		case <-changed:
		case <-o.poked:
		case <-look.C:
		}
	}
}

// claimFree takes the partition if nobody who lives works on it. A claim that has
// begun is finished even if this instance is to end: else the partition is that of
// one that is gone.
func (o *owner) claimFree() error {
	if o.holds.Load() || !o.isFree() {
		return nil
	}
	defer o.begin()()
	if o.holds.Load() {
		return nil
	}
	err := o.claim(o.b.work, 0)
	if errors.Is(err, errReset) || errors.Is(err, errConflict) {
		return nil // messages come again; or another instance was first
	}
	return err
}

// handOver lets another instance have the partition at once.
func (o *owner) handOver(consumer string) error {
	if !o.b.nc.IsConnected() {
		return nil
	}
	ctx, cancel := context.WithTimeout(o.b.work, apiTimeout)
	defer cancel()
	lost := o.lost.Swap(false)
	held := o.holds.Load()
	if err := o.release(ctx); err != nil || o.b.alone() {
		return err
	}
	// The server may have pinned it to one that leaves before it held it.
	if !held && !lost && !(o.b.members.leaving.Load() && o.rank() == 0) {
		return nil
	}
	return untilAnswered(ctx, func(ctx context.Context) error {
		s, err := o.b.js.Stream(ctx, o.group.names.logStream())
		if err != nil {
			return classify(err)
		}
		return classify(s.UnpinConsumer(ctx, consumer, priorityGroup))
	})
}

// handle works on one message and acknowledges it last.
func (o *owner) handle(msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil {
		o.b.log.Error("a message that the log did not deliver", zap.String("subject", msg.Subject()), zap.Error(err))
		return
	}
	defer o.begin()()
	defer o.b.stillWorking(msg)()
	defer o.handled.Add(1)
	o.b.metrics.inputs.Add(1)
	headers := nats.Header(msg.Headers())
	e := entry{meta.Sequence.Stream, meta.Timestamp, msg.Subject(), msg.Data(), headers.Get(headerObject)}
	r := &received{entry: e, deliveries: meta.NumDelivered}
	o.waiting = meta.NumPending
	if err = o.takeOver(o.b.work, lastValue(headers, headerPin), meta.Sequence); err == nil {
		r, err = o.accept(o.b.work, e, meta.NumDelivered)
	}
	if !errors.Is(err, errNotOurs) {
		o.delivery = meta.Sequence.Consumer
	}
	switch {
	case o.b.acknowledge(msg, r, err):
		o.position, o.undone = max(o.position, e.seq), 0
		if o.since += r.work(); o.since >= checkpointWork {
			o.checkpointOften()
		}
	case o.undone == 0 && !errors.Is(err, errReset) && !errors.Is(err, errNotOurs):
		o.undone = e.seq
	}
}

// checkpointOften writes a checkpoint out of turn. The next turn comes if it
// fails.
func (o *owner) checkpointOften() {
	if err := o.checkpointNow(o.b.work); err != nil {
		o.b.log.Debug("a checkpoint is not written", zap.Int("partition", o.number), zap.Error(err))
	}
}

// takeOver claims the partition when the server has pinned it to this process
// anew: another instance may have worked on it. A message with a pin of a time
// that is over is another's by now; one that was on its way here when the consumer
// was reset comes again in its turn.
func (o *owner) takeOver(ctx context.Context, pin string, at jetstream.SequencePair) error {
	switch {
	case pin == o.lostPin && pin != "":
		return errNotOurs
	case o.continues(pin, at):
		o.pin = pin
		return nil
	}
	now, err := o.feed.progress(ctx)
	if err != nil {
		return err
	}
	if now.passedOver(at.Stream) {
		return errNotOurs
	}
	isFirst := o.holds.Load() && o.pin == "" && !o.overtaken(at.Stream) && now.floor == o.position // since the claim
	if isFirst {
		if isFirst, err = o.isNext(ctx, o.position, at.Stream); err != nil {
			return err
		}
	}
	if isFirst {
		if err := o.confirm(ctx); !errors.Is(err, errConflict) {
			if err == nil {
				o.pin = pin
			}
			return err
		}
	}
	o.holds.Store(false) // what the ledger says from here on is not passed over
	if o.overtaken(at.Stream) {
		if err := o.b.rereadLedger(ctx, func() bool { return false }); err != nil {
			return err
		}
	}
	if err := o.claim(ctx, at.Stream); err != nil {
		return err
	}
	o.pin = pin
	return nil
}

// continues says whether a message surely follows what this instance did last:
// nothing was given to another since, nor lost on the way here, where an owner
// before this one may still acknowledge it.
func (o *owner) continues(pin string, at jetstream.SequencePair) bool {
	if !o.holds.Load() || o.overtaken(at.Stream) {
		return false
	}
	return o.b.alone() || o.pin != "" && pin == o.pin && at.Consumer == o.delivery+1
}

// overtaken says that the message before was not done with and does not come
// again: an owner before this one acknowledged it late, and what followed from it
// is not in memory here.
func (o *owner) overtaken(seq uint64) bool { return o.undone != 0 && o.undone != seq }

// stillWorking tells the server that a message is worked on, until the result
// is called.
func (b *Broker) stillWorking(msg jetstream.Msg) (done func()) {
	stop := make(chan struct{})
	t := time.AfterFunc(b.opts.AckWait/2, func() {
		tick := time.NewTicker(b.opts.AckWait / 2)
		defer tick.Stop()
		for {
			if msg.InProgress() != nil {
				return
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		t.Stop()
		close(stop)
	}
}
