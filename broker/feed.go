package broker

import "context"

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

func (f partitionFeed) reset(ctx context.Context, after uint64) error {
	name := f.group.names.partitionConsumer(f.number)
	err := untilAnswered(ctx, func(ctx context.Context) error {
		_, err := f.b.js.ResetConsumerToSequence(ctx, f.group.names.logStream(), name, after+1)
		return err
	})
	return wrapAsset(classify(err), "consumer", name)
}
