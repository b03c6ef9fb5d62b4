package broker

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// What the simulation found, each as small as it gets.

func simAlone(t *testing.T) (*simulation, *simInstance) {
	s := newSimulation(&simScript{signers: writeScript(t, 0).signers}, 1)
	in := s.start()
	in.b.opts.testOnlyFault = nil
	return s, in
}

// A stale owner, or one to whom an input comes again, must not put what it knew
// earlier in place of what the ledger says of later: the group would not be open,
// and an acknowledged intent be forgotten.
func TestLedgerNeverGoesBack(t *testing.T) {
	s, in := simAlone(t)
	entry := must[ledgerEntry](t)(in.b.ledger.put(context.Background(), simKey, ledgerEntry{}, remembered{Version: ledgerVersion, Open: true, Position: 5}))
	g := newGroup(simKey, in.b.tenants[testTenant], simGroup)
	g.ledger = entry
	if err := in.b.record(context.Background(), g, nil); err != nil {
		t.Fatal(err)
	}
	if after, _ := s.server.remembered(simKey, s.server.leader()); !after.Open || after.Position != 5 {
		t.Errorf("the ledger has %+v", after.remembered)
	}
}

// Whether the server heard of an acknowledgement that failed is not known: if it
// did, the input does not come again, and the position must not stay behind it.
func TestFailedAcknowledgementIsDone(t *testing.T) {
	for _, step := range []string{"ack", "ack reply"} {
		_, in := simAlone(t)
		in.b.opts.testOnlyFault = func(at string) error {
			if at == step {
				return fmt.Errorf("%w: lost", errUnavailable)
			}
			return nil
		}
		msg := &simMsg{in: in, e: entry{seq: 1}, pin: "pin"}
		r := &received{entry: msg.e, key: simKey}
		if !in.b.acknowledge(msg, r, nil) {
			t.Errorf("an input whose %s is lost is not done with", step)
		}
		if in.b.acknowledge(msg, r, errUnavailable) {
			t.Error("an input that is put back is done with")
		}
	}
}

// goesBack is a consumer that is further on at first than from then on.
type goesBack struct {
	feed
	asked int
}

func (f *goesBack) progress(context.Context) (progress, error) {
	if f.asked++; f.asked == 1 {
		return progress{floor: 2, newest: 3, inHand: 1}, nil
	}
	return progress{floor: 1, newest: 1}, nil
}

// A server that is killed while a partition is taken over may forget what was
// acknowledged: the message in hand is not worked on then, as one before it comes
// again, which nobody here has folded.
func TestConsumerGoesBackDuringATakeover(t *testing.T) {
	_, in := simAlone(t)
	f := &goesBack{feed: in.o.feed}
	in.o.feed = f
	err := in.o.takeOver(context.Background(), "pin", jetstream.SequencePair{Stream: 3, Consumer: 1})
	if !errors.Is(err, errNotOurs) || in.o.holds.Load() || f.asked != 2 {
		t.Errorf("%v, holds %t, asked %d times", err, in.o.holds.Load(), f.asked)
	}
}

// Events are dropped after they could not be stored often, not because their input
// was delivered often for other reasons.
func TestEventsAreTriedOften(t *testing.T) {
	_, in := simAlone(t)
	in.b.opts.testOnlyFault = func(string) error { return errUnavailable }
	r := &received{entry: entry{seq: 7}, key: simKey, deliveries: 1000}
	tell := func() error {
		return in.o.tell(context.Background(), r, []event{refusedEvent(r, &refusal{reasonTooLarge, ""})}, nil)
	}
	for i := 1; i < maxUntold; i++ {
		if err := tell(); !errors.Is(err, errUnavailable) {
			t.Fatalf("try %d: %v", i, err)
		}
	}
	if err := tell(); err != nil || in.b.metrics.eventsDropped.Load() != 1 {
		t.Errorf("after %d tries: %v", maxUntold, err)
	}
	if r.seq++; tell() == nil {
		t.Error("the next input begins anew")
	}
}

// An input that failed here and does not come again was acknowledged late by the
// owner before: the partition is claimed anew, with what that one did.
func TestLateAcknowledgementOfAnother(t *testing.T) {
	_, in := simAlone(t)
	o := in.o
	o.pin, o.delivery = "pin", 3
	o.holds.Store(true)
	at := func(seq, delivery uint64) jetstream.SequencePair {
		return jetstream.SequencePair{Stream: seq, Consumer: delivery}
	}
	if !o.continues("pin", at(7, 4)) || o.continues("another", at(7, 4)) {
		t.Error("a message with the pin of now continues, and no other")
	}
	if o.continues("pin", at(7, 5)) {
		t.Error("a delivery that is lost on the way here may be done with by another")
	}
	o.undone = 6
	if !o.continues("pin", at(6, 4)) || o.continues("pin", at(7, 4)) {
		t.Error("after a failure only the same message continues")
	}
	if o.forget(); !o.continues("pin", at(7, 4)) {
		t.Error("a claim begins afresh")
	}
}

// Whoever takes the partition goes back to the checkpoint: a snapshot that is
// further on would show the group as it is not yet.
func TestSnapshotIsNoFurtherThanTheCheckpoint(t *testing.T) {
	s := newSimulation(writeScript(t, 0), 1)
	s.trouble = 0
	for s.next < len(s.script.steps) {
		s.publishNext()
	}
	s.rest()
	in := s.server.consumer.pinned
	if s.failure != "" || !in.o.holds.Load() || in.o.recorded.Position >= in.o.position {
		t.Fatalf("%s; checkpoint %d of %d", s.failure, in.o.recorded.Position, in.o.position)
	}
	ctx := context.Background()
	early := in.o.recorded.Position
	if left, err := in.o.compact(ctx, simKey); !left || err != nil || s.server.snapshot.rev != 0 {
		t.Errorf("with a checkpoint at %d there is a snapshot of %d: %v", early, s.server.snapshot.position, err)
	}
	if err := in.o.checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	if left, err := in.o.compact(ctx, simKey); left || err != nil || s.server.snapshot.position <= early || s.server.snapshot.position > in.o.recorded.Position {
		t.Errorf("with a checkpoint at %d there is a snapshot of %d: %v", in.o.recorded.Position, s.server.snapshot.position, err)
	}
}
