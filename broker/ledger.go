package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
	"leavebroker/intents"
)

// ledgerVersion is the version of the stored form below.
const ledgerVersion = 1

// maxReceiptBytes bounds the receipts in one entry; older ones are then found
// by folding the log again.
const maxReceiptBytes = 512 << 10

// remembered is the entry of a group in the ledger: a bucket whose keys are
// tenant.group-token and whose values are this as JSON. It is an index: the
// truth is the log.
//
//	version    1
//	open       whether an intent is not ended, or removed and not confirmed:
//	           such a group is loaded at start, the inputs of others are skipped
//	position   the log was folded up to here when the entry was written
//	receipts   the intents that have ended, in the order of the fold
//	truncated  whether receipts were left out because there are too many
type remembered struct {
	Version   int              `json:"version"`
	Open      bool             `json:"open"`
	Position  uint64           `json:"position"`
	Receipts  []intents.Record `json:"receipts,omitempty"`
	Truncated bool             `json:"truncated,omitempty"`
}

// ledgerEntry is what is stored for a group, and its revision: 0 for nothing.
type ledgerEntry struct {
	remembered
	value []byte // encoded, without position
	rev   uint64
}

// ledger is the bucket. Writes are by compare-and-swap on the revision.
type ledger struct{ kv jetstream.KeyValue }

// get gives the entry of a group, a zero one where there is none.
func (l ledger) get(ctx context.Context, k groupKey) (ledgerEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	v, err := l.kv.Get(ctx, k.String())
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return ledgerEntry{}, nil
	}
	if err != nil {
		return ledgerEntry{}, classify(err)
	}
	r, err := decodeRemembered(v.Value())
	if err != nil {
		return ledgerEntry{}, fmt.Errorf("ledger entry %s: %w", k, err)
	}
	return ledgerEntry{remembered: r, value: r.comparable(), rev: v.Revision()}, nil
}

// put stores an entry in place of an older one unless it says the same, and
// gives it with its revision.
func (l ledger) put(ctx context.Context, k groupKey, old ledgerEntry, r remembered) (ledgerEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	next := ledgerEntry{remembered: r, value: r.comparable(), rev: old.rev}
	value, err := json.Marshal(r)
	if err != nil {
		return old, err
	}
	if old.rev == 0 {
		next.rev, err = l.kv.Create(ctx, k.String(), value)
	} else {
		next.rev, err = l.kv.Update(ctx, k.String(), value, old.rev)
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return old, fmt.Errorf("%w: ledger entry %s", errConflict, k)
	}
	if err != nil {
		return old, classify(err)
	}
	return next, nil
}

// scan gives every entry whose key matches a filter.
func (l ledger) scan(ctx context.Context, filter string, each func(groupKey, remembered) error) error {
	w, err := l.kv.Watch(ctx, filter, jetstream.IgnoreDeletes())
	if err != nil {
		return classify(err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return classify(ctx.Err())
		case v, ok := <-w.Updates():
			if !ok {
				return fmt.Errorf("%w: the scan of the ledger ended early", errUnavailable)
			}
			if v == nil {
				return nil
			}
			k, err := parseGroupKey(v.Key())
			if err != nil {
				return fmt.Errorf("ledger key %q: %w", v.Key(), err)
			}
			r, err := decodeRemembered(v.Value())
			if err != nil {
				return fmt.Errorf("ledger entry %s: %w", k, err)
			}
			if err := each(k, r); err != nil {
				return err
			}
		}
	}
}

func decodeRemembered(b []byte) (remembered, error) {
	var r remembered
	if err := json.Unmarshal(b, &r); err != nil {
		return r, err
	}
	if r.Version != ledgerVersion {
		return r, fmt.Errorf("version %d, this program knows %d", r.Version, ledgerVersion)
	}
	return r, nil
}

// comparable is the encoding without the position: an entry is written again
// only for something that matters.
func (r remembered) comparable() []byte {
	r.Position = 0
	b, _ := json.Marshal(r) // cannot fail: strings and numbers
	return b
}

// remember is the entry of a state.
func remember(s *intents.State) remembered {
	r := remembered{Version: ledgerVersion, Open: s.Open(), Position: s.Position()}
	for _, record := range s.Records() {
		if isEnded(record.State) {
			r.Receipts = append(r.Receipts, record)
		}
	}
	r.truncate()
	return r
}

// maxRejected is the most rejected intents in one entry: anybody can make
// them, and each would make every later write of the entry larger.
const maxRejected = 64

// truncate drops the oldest receipts until the rest fits.
func (r *remembered) truncate() {
	size, rejected := 0, 0
	var kept []intents.Record
	for _, record := range slices.Backward(r.Receipts) {
		if record.State == intents.StateRejected {
			if rejected++; rejected > maxRejected {
				r.Truncated = true
				continue
			}
		}
		b, _ := json.Marshal(record) // cannot fail: strings and numbers
		if size += len(b); size > maxReceiptBytes {
			r.Truncated = true
			break
		}
		kept = append(kept, record)
	}
	slices.Reverse(kept)
	r.Receipts = kept
}

// isState says whether the type of an event is a state of an intent.
func isState(typ string) bool {
	switch typ {
	case intents.StateParked, intents.StateHeld, intents.StatePending,
		intents.StateRemoved, intents.StateSuperseded, intents.StateAlreadyGone,
		intents.StateRejected, intents.StateCancelled, intents.StateExpired:
		return true
	}
	return false
}

// isEnded says whether an intent in a state has ended.
func isEnded(state string) bool {
	switch state {
	case intents.StateParked, intents.StateHeld, intents.StatePending:
		return false
	}
	return true
}
