package broker

import (
	"context"
	"errors"
)

// feed is the consumer of a partition. partitionFeed is the one on JetStream.
type feed interface {
	// progress says how far the consumer is.
	progress(ctx context.Context) (progress, error)
	// reset lets it deliver again what follows a position.
	reset(ctx context.Context, after uint64) error
}

// progress is how far the server says that a consumer is.
type progress struct {
	floor  uint64 // everything up to here is acknowledged
	newest uint64 // what comes after this was not delivered
	inHand int    // messages that are delivered and not acknowledged
}

// passedOver says whether a message that was delivered is not in hand any more:
// somebody acknowledged it, or the consumer was reset to one before it.
func (p progress) passedOver(seq uint64) bool { return seq <= p.floor || seq > p.newest }

type partitionFeed struct{ *owner }

func (f partitionFeed) progress(ctx context.Context) (progress, error) {
	c, err := f.consumer(ctx)
	if err != nil {
		return progress{}, wrapAsset(classify(err), "consumer", f.group.names.partitionConsumer(f.number))
	}
	info := c.CachedInfo()
	return progress{info.AckFloor.Stream, info.Delivered.Stream, info.NumAckPending}, nil
}

// reset resets a replicated consumer twice: the first reset may be followed by
// deliveries that its leader had decided on before, whose records would go on to
// say that what was delivered then is the newest, and to whoever leads next that
// nothing before it is missing (server 2.15.2). The second comes after them.
func (f partitionFeed) reset(ctx context.Context, after uint64) error {
	name := f.group.names.partitionConsumer(f.number)
	for range min(f.b.opts.Replicas, 2) {
		err := untilAnswered(ctx, func(ctx context.Context) error {
			_, err := f.b.js.ResetConsumerToSequence(ctx, f.group.names.logStream(), name, after+1)
			return err
		})
		if err != nil {
			return wrapAsset(classify(err), "consumer", name)
		}
	}
	return nil
}

// isNext says whether a message in hand is the first input after a position. One
// that was on its way when the consumer was reset is not, and the server may say
// that it is in hand all the same.
func (o *owner) isNext(ctx context.Context, position, seq uint64) (bool, error) {
	for from := position + 1; from < seq; {
		e, err := o.group.log.readOne(ctx, o.group.names.logOfPartition(o.number), from)
		switch {
		case errors.Is(err, errNoEntry):
			return false, errLags
		case err != nil:
			return false, err
		case e.seq < seq && isConsumed(e.subject):
			return false, nil
		}
		from = e.seq + 1
	}
	return true, nil
}
