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

// consume consumes a partition until the context ends; then it finishes the
// message in hand and returns.
func (o *owner) consume(ctx context.Context) error {
	for {
		err := o.consumeOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		o.b.log.Warn("a partition is consumed again", zap.Int("partition", o.number), zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(consumeAgain):
		}
	}
}

// consumeOnce consumes until the context ends or the consumer is gone.
func (o *owner) consumeOnce(ctx context.Context) error {
	name := o.b.names.partitionConsumer(o.number)
	c, err := o.b.js.Consumer(ctx, o.b.names.logStream(), name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return errors.Join(err, o.b.assets.ensureConsumer(ctx, o.b.js, o.b.assets.partitionConfig(o.number)))
	}
	if err != nil {
		return err
	}
	consuming, err := c.Consume(o.handle,
		jetstream.PullPriorityGroup(priorityGroup), jetstream.PullMaxMessages(pullMessages),
		jetstream.PullExpiry(max(o.b.opts.PinTTL/2, minPullExpiry)), jetstream.PullHeartbeat(pullHeartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			o.b.log.Debug("consuming a partition", zap.Int("partition", o.number), zap.Error(err))
		}))
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		consuming.Drain()
		<-consuming.Closed()
		return o.handOver(name)
	case <-consuming.Closed():
		return fmt.Errorf("consumer %q ended", name)
	}
}

// handOver lets another instance have the partition at once.
func (o *owner) handOver(consumer string) error {
	if o.b.embedded != nil || !o.b.nc.IsConnected() {
		return nil
	}
	ctx, cancel := context.WithTimeout(o.b.work, apiTimeout)
	defer cancel()
	s, err := o.b.js.Stream(ctx, o.b.names.logStream())
	if err != nil {
		return err
	}
	return s.UnpinConsumer(ctx, consumer, priorityGroup)
}

// resume finds what was consumed before. The message that was in hand when the
// embedded server stopped is delivered at once, not after the ack wait: nobody
// else can be working on it.
func (o *owner) resume(ctx context.Context) error {
	name := o.b.names.partitionConsumer(o.number)
	c, err := o.b.js.Consumer(ctx, o.b.names.logStream(), name)
	if err != nil {
		return wrapAsset(err, "consumer", name)
	}
	info := c.CachedInfo()
	defer o.begin()()
	o.position = info.AckFloor.Stream
	if o.b.embedded == nil || info.NumAckPending == 0 {
		return nil
	}
	_, err = o.b.js.ResetConsumer(ctx, o.b.names.logStream(), name)
	return wrapAsset(err, "consumer", name)
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
	e := entry{meta.Sequence.Stream, meta.Timestamp, msg.Subject(), msg.Data()}
	r := &received{entry: e, deliveries: meta.NumDelivered}
	if err = o.takeOver(lastValue(nats.Header(msg.Headers()), headerPin)); err == nil {
		r, err = o.accept(o.b.work, e, meta.NumDelivered)
	}
	if o.b.acknowledge(msg, r, err) {
		o.position = max(o.position, e.seq)
	}
}

// takeOver drops what is in memory when the server has pinned the partition to
// this process anew: another instance may have worked on it. An embedded
// server has no other.
func (o *owner) takeOver(pin string) error {
	if pin == o.pin || o.b.embedded != nil {
		return nil
	}
	o.forget()
	err := o.b.ledger.scan(o.b.work, ">", func(k groupKey, r remembered) error {
		if o.b.names.partition(k) == o.number && r.Open != o.b.open.has(k) {
			o.b.open.set(k, r.Open, 0)
		}
		return nil
	})
	if err == nil {
		o.pin = pin
	}
	return err
}

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
