package broker

import (
	"context"
	"math"

	"leavebroker/intents"
)

// view is the state of a group as of now, for services: from memory and the
// log after that, or from the log alone. It changes nothing.
func (b *Broker) view(ctx context.Context, k groupKey, t *tenant) (*intents.State, error) {
	o := b.owner(k)
	if s := o.peek(k); s != nil && o.holds.Load() {
		g := &group{key: k, tenant: t, state: s}
		err := b.readLog(ctx, k, s.Position()+1, func(r *received) error {
			g.fold(r)
			return nil
		})
		if err != nil || o.holds.Load() { // or what was in memory was out of date
			return g.state, err
		}
	}
	h, err := b.load(ctx, k, t, math.MaxUint64, nil)
	if err != nil {
		return nil, err
	}
	return h.group.state, nil
}

// receipt finds an intent by its id: in a group, or in any group of the tenant.
func (b *Broker) receipt(ctx context.Context, t *tenant, id string, groupID []byte) (groupKey, intents.Record, bool, error) {
	if groupID != nil {
		k := groupKey{t.Name, GroupToken(groupID)}
		r, found, err := b.receiptIn(ctx, k, t, id)
		return k, r, found, err
	}
	k, r, found, err := b.searchReceipt(ctx, t, id)
	if found || err != nil {
		return k, r, found, err
	}
	// What an event has told may still be in hand.
	for _, o := range b.all {
		o.begin()()
	}
	return b.searchReceipt(ctx, t, id)
}

// receiptIn finds an intent in its group: in the ledger if the group has
// nothing to do any more.
func (b *Broker) receiptIn(ctx context.Context, k groupKey, t *tenant, id string) (intents.Record, bool, error) {
	if !b.open.has(k) {
		entry, err := b.ledger.get(ctx, k)
		if err != nil {
			return intents.Record{}, false, err
		}
		if r, ok := entry.find(id); ok && !entry.Open {
			return r, true, nil
		}
	}
	s, err := b.view(ctx, k, t)
	if err != nil {
		return intents.Record{}, false, err
	}
	r, ok := s.Intent(id)
	return r, ok, nil
}

// searchReceipt looks for an intent in the tenant's open groups, then in its
// whole ledger.
func (b *Broker) searchReceipt(ctx context.Context, t *tenant, id string) (k groupKey, r intents.Record, found bool, err error) {
	for _, k := range b.open.list() {
		if k.tenant != t.Name {
			continue
		}
		if s := b.owner(k).peek(k); s != nil {
			if _, ok := s.Intent(id); !ok {
				continue
			}
		}
		// An event may have told more than what is in memory yet.
		s, err := b.view(ctx, k, t)
		if err != nil {
			return k, r, false, err
		}
		if r, ok := s.Intent(id); ok {
			return k, r, true, nil
		}
	}
	err = b.records.scan(ctx, t.Name+".*", func(at groupKey, m remembered) {
		if record, ok := m.find(id); ok && !found {
			k, r, found = at, record, true
		}
	})
	return k, r, found, err
}

func (r *remembered) find(id string) (intents.Record, bool) {
	for _, record := range r.Receipts {
		if record.ID == id {
			return record, true
		}
	}
	return intents.Record{}, false
}
