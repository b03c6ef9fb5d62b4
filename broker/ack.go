package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// verb is what the server is told of an input.
type verb uint8

const (
	verbAck   verb = iota // everything it led to is stored
	verbTerm              // it is refused, and not delivered again
	verbNak               // deliver it again, later
	verbLeave             // nothing: it is delivered again after the ack wait
)

const (
	nakFirst = 20 * time.Millisecond
	nakMost  = 2 * time.Second
	// maxBroken is how often an input may fail for a reason of our own before
	// it is refused, so that it does not hold up its partition for ever.
	maxBroken = 8
	// maxUntold is how often the events of an input may fail before it goes on
	// without: they are advisories. With the delays above that is about two minutes.
	maxUntold = 64
)

var (
	// errBroken: an invariant of our own does not hold.
	errBroken = errors.New("internal error")
	// errNotOurs: the message was given to this instance before another took the
	// partition.
	errNotOurs = errors.New("another instance works on this partition")
	// errTroubled: something stored about the group cannot be used (health.go).
	errTroubled = errors.New("the group waits for an operator")
)

// verbFor is the one table of what becomes of an input:
//
//	error            verb
//	none             Ack: the last thing done
//	*refusal         Term with its reason; the event is stored
//	shutting down    none: another instance, or the next start, goes on
//	errReset         none: it is delivered again
//	errNotOurs       Nak: another instance works on the partition
//	errTroubled      Ack: it stays in the log, and the group is folded from
//	                 there when an operator has mended what is wrong
//	errConflict      Nak: somebody else writes all the time
//	errUnavailable   Nak: the outcome is unknown, memory was dropped
//	any other        Nak; the maxBroken-th of the input itself is a refusal
func verbFor(err error) verb {
	_, refused := asRefusal(err)
	switch {
	case err == nil, errors.Is(err, errTroubled):
		return verbAck
	case refused:
		return verbTerm
	case errors.Is(err, context.Canceled), errors.Is(err, errReset):
		return verbLeave
	}
	return verbNak
}

// isBroken says whether an error is none that passes by itself, nor a refusal.
func isBroken(err error) bool {
	return verbFor(err) == verbNak && !errors.Is(err, errConflict) && !errors.Is(err, errUnavailable) && !errors.Is(err, errNotOurs)
}

// tries counts how often an input failed here in ways that end in going on
// without. How often it was delivered says nothing of that: a server may have been
// away for long.
type tries struct {
	seq    uint64
	broken int // it could not be folded
	untold int // its events could not be stored
}

// triesOf is the count of the input in hand. The caller holds work.
func (o *owner) triesOf(seq uint64) *tries {
	if o.tries.seq != seq {
		o.tries = tries{seq: seq}
	}
	return &o.tries
}

// nakDelay doubles with every delivery.
func nakDelay(deliveries uint64) time.Duration {
	return min(nakFirst<<min(deliveries, 10), nakMost)
}

// acknowledge tells the server what became of an input, and says whether it is
// done with: it is if the server did not hear of it too, as it may have.
func (b *Broker) acknowledge(msg jetstream.Msg, r *received, err error) bool {
	v := verbFor(err)
	ack := msg.Ack
	switch v {
	case verbLeave:
		return false
	case verbNak:
		b.metrics.retries.Add(1)
		b.log.Warn("an input is put back", r.field(), zap.Uint64("delivery", r.deliveries), zap.Error(err))
		ack = func() error { return msg.NakWithDelay(nakDelay(r.deliveries)) }
	case verbTerm:
		why, _ := asRefusal(err)
		b.metrics.count("refused", why.reason)
		ack = func() error { return msg.TermWithReason(why.reason) }
	}
	if err := b.write("ack", ack); err != nil {
		b.log.Warn("an acknowledgement was not sent", r.field(), zap.Error(err))
	}
	return v != verbNak
}

// recovered turns a panic into errBroken.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", errBroken, p)
	}
}

func (r *received) field() zap.Field {
	return zap.Dict("input", zap.String("tenant", r.key.tenant), zap.String("group", r.key.group),
		zap.String("kind", string(r.kind)), zap.Uint64("seq", r.seq))
}
