package broker

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"leavebroker/intents"
)

// Delivered means acknowledged by the tenant's delivery service. The server
// tells of acknowledgements only while somebody listens, so those of the time
// when no broker ran are found at start, from the consumer's ack floor, for
// groups that are still open. This is best effort: an acknowledgement above
// the floor is then not seen.

// watchDeliveries listens to the acknowledgements of all tenants' delivery
// services; of several instances one hears each.
func (b *Broker) watchDeliveries(ctx context.Context) error {
	for name := range b.tenants {
		g := b.byTenant[name]
		_, err := b.nc.QueueSubscribe(g.names.ackMetric(name), serviceName, func(m *nats.Msg) {
			var metric struct {
				StreamSeq uint64 `json:"stream_seq"`
			}
			if json.Unmarshal(m.Data, &metric) != nil || metric.StreamSeq == 0 {
				return
			}
			if err := b.deliveredAt(ctx, g, metric.StreamSeq); err != nil {
				b.log.Warn("a delivery is not told", zap.Uint64("seq", metric.StreamSeq), zap.Error(err))
			}
		})
		if err != nil {
			return classify(err)
		}
	}
	return nil
}

// deliveredAt tells that the output at a sequence was acknowledged.
func (b *Broker) deliveredAt(ctx context.Context, g *streamGroup, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	e, err := g.store.readOne(ctx, g.names.logOfAll(), seq)
	if err != nil {
		return err
	}
	r, err := g.inbound.receive(e)
	if err != nil || r.seq != seq || r.kind != kindRemoval {
		return nil
	}
	return b.publish(ctx, []event{newEvent(r, intents.Notice{Type: eventDelivered})})
}

// recoverDeliveries tells of a group's outputs that were acknowledged while no
// broker listened.
func (b *Broker) recoverDeliveries(ctx context.Context, k groupKey) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	g := b.at(k)
	floor, err := g.log.delivered(ctx, k.tenant)
	if err != nil {
		return err
	}
	told, err := b.lastDelivered(ctx, k)
	if err != nil || told >= floor {
		return err
	}
	var events []event
	err = g.log.read(ctx, g.names.log(k, kindRemoval), told+1, func(e entry) error {
		if r, err := g.inbound.receive(e); err == nil && e.seq <= floor {
			events = append(events, newEvent(r, intents.Notice{Type: eventDelivered}))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return b.publish(ctx, events)
}

// lastDelivered is the sequence of the newest output that is known to be
// acknowledged; 0 for none.
func (b *Broker) lastDelivered(ctx context.Context, k groupKey) (uint64, error) {
	s, err := b.js.Stream(ctx, b.names.eventStream())
	if err != nil {
		return 0, classify(err)
	}
	m, err := s.GetLastMsgForSubject(ctx, b.names.event(k, eventDelivered))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, classify(err)
	}
	var e event
	if err := json.Unmarshal(m.Data, &e); err != nil {
		return 0, nil
	}
	return e.Seq, nil
}
