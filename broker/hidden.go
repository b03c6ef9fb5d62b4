package broker

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

// A message without a body whose headers hold a Status is taken by the client
// library for a word of the server: it is never handed on, and so never
// acknowledged, and would hold up its partition for ever. Anybody who may
// publish inputs can make one. No valid input has an empty body, so it is safe
// to refuse it here and to let the consumer go on after it.

// hiddenInterval is how often partitions that stand still are looked at, but
// no more often than the server delivers again.
const hiddenInterval = 2 * time.Second

// watchHidden looks for partitions that a hidden message holds up.
func (b *Broker) watchHidden(ctx context.Context) error {
	tick := time.NewTicker(max(hiddenInterval, b.opts.AckWait))
	defer tick.Stop()
	handled := make([]int64, len(b.all))
	suspects := make([]uint64, len(b.all))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for i, o := range b.all {
			if n := o.handled.Load(); n != handled[i] || !o.holds.Load() {
				handled[i], suspects[i] = n, 0
				continue
			}
			next, err := o.passHidden(ctx, suspects[i])
			if err != nil && ctx.Err() == nil {
				b.log.Debug("a partition could not be looked at", zap.Int("partition", o.number), zap.Error(err))
			}
			suspects[i] = next
		}
	}
}

// passHidden passes over the message that was in hand at the last look and
// still is, if nobody can have seen it, and gives the one in hand now.
func (o *owner) passHidden(ctx context.Context, suspect uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	at, err := o.feed.progress(ctx)
	if err != nil || at.inHand == 0 {
		return 0, err
	}
	if at.newest != suspect {
		return at.newest, nil
	}
	defer o.begin()()
	if isNext, err := o.isNext(ctx, at.floor, suspect); err != nil || !isNext {
		return suspect, err // it was delivered late: what is before it comes first
	}
	passed, err := o.refuseEmpty(ctx, suspect)
	if passed == 0 || err != nil {
		return suspect, err
	}
	if err := o.reset(ctx, passed); err != nil {
		return suspect, err
	}
	o.position = max(o.position, passed)
	return 0, nil
}

// refuseEmpty refuses the message at a sequence and those after it, as long as
// they have no body, and gives the last one; 0 if already the first has one.
func (o *owner) refuseEmpty(ctx context.Context, from uint64) (passed uint64, err error) {
	for next := from; ; next++ {
		e, err := o.group.store.readOne(ctx, o.group.names.logOfPartition(o.number), next)
		if errors.Is(err, errNoEntry) || err == nil && (len(e.data) > 0 || passed == 0 && e.seq != from) {
			return passed, nil
		}
		if err != nil {
			return 0, err
		}
		r, err := o.accept(ctx, e, 1)
		if v := verbFor(err); v != verbAck && v != verbTerm {
			return 0, err
		}
		if why, ok := asRefusal(err); ok {
			o.b.metrics.count("refused", why.reason)
		}
		o.b.log.Warn("a message that may pose as the server's is passed over", r.field())
		next, passed = e.seq, e.seq
	}
}
