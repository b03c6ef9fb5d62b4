package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
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
	// unsure: there may be a later one, which the server that was asked lacks.
	unsure bool
}

// versionError is what is stored in a form that this program does not know: it
// belongs to a newer one, and is left as it is.
type versionError struct{ have, want int }

func (e *versionError) Error() string {
	return fmt.Sprintf("version %d, this program knows %d: run the program that wrote it, or a newer one", e.have, e.want)
}

// errEntry: an entry of the ledger is damaged.
var errEntry = errors.New("the entry cannot be read")

// ledger holds the entries of groups and the records of partitions. Writes are
// by compare-and-swap on the revision. records is the one in a bucket.
type ledger interface {
	// get gives the entry of a group, a zero one where there is none.
	get(ctx context.Context, k groupKey) (ledgerEntry, error)
	// put stores an entry in place of an older one and gives it with its revision;
	// errConflict if the older one is not the last.
	put(ctx context.Context, k groupKey, old ledgerEntry, r remembered) (ledgerEntry, error)
	// owner gives the record of a partition and its revision, a zero one where
	// there is none.
	owner(ctx context.Context, key string) (ownerRecord, uint64, error)
	// putOwner stores the record of a partition in place of a revision and gives
	// the next.
	putOwner(ctx context.Context, key string, r ownerRecord, rev uint64) (uint64, error)
	// owe marks a group, or takes the mark away: inputs of it were acknowledged, and
	// are folded when an operator has mended what is stored about it.
	owe(ctx context.Context, k groupKey, owed bool) error
	// each gives every entry whose key matches a filter.
	each(ctx context.Context, filter string, take func(jetstream.KeyValueEntry)) error
}

// records is the bucket of the ledger: of groups, and of partitions (see
// ownership.go). It is read from the leader: replicas may lag behind.
type records struct {
	kv  jetstream.KeyValue
	nc  *nats.Conn
	api string // prefix of the JetStream API
}

// read gives the value under a key and its revision; nil for none.
func (l records) read(ctx context.Context, key string) ([]byte, uint64, error) {
	bucket := l.kv.Bucket()
	e, err := readMessage(ctx, l.nc, l.api, "KV_"+bucket, messageRequest{LastFor: "$KV." + bucket + "." + key})
	if errors.Is(err, errNoEntry) {
		return nil, 0, nil
	}
	if len(e.data) == 0 {
		e.data = nil // deleted
	}
	return e.data, e.seq, err
}

// write stores a value in place of a revision, 0 for none, and gives the next.
func (l records) write(ctx context.Context, key string, value []byte, rev uint64) (next uint64, err error) {
	err = untilAnswered(ctx, func(ctx context.Context) error {
		return whileBusy(ctx, func() error {
			next, err = l.kv.Update(ctx, key, value, rev)
			return classify(err)
		})
	})
	if err != nil {
		return 0, fmt.Errorf("ledger entry %s: %w", key, err)
	}
	return next, nil
}

func (l records) get(ctx context.Context, k groupKey) (ledgerEntry, error) {
	value, rev, err := l.read(ctx, k.String())
	if err != nil || value == nil {
		return ledgerEntry{rev: rev}, err
	}
	r, err := decodeRemembered(value)
	if err != nil {
		return ledgerEntry{}, fmt.Errorf("ledger entry %s: %w", k, err)
	}
	return ledgerEntry{remembered: r, value: r.comparable(), rev: rev}, nil
}

func (l records) put(ctx context.Context, k groupKey, old ledgerEntry, r remembered) (ledgerEntry, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return old, err
	}
	rev, err := l.write(ctx, k.String(), value, old.rev)
	if err != nil {
		return old, err
	}
	return ledgerEntry{remembered: r, value: r.comparable(), rev: rev}, nil
}

func (l records) owner(ctx context.Context, key string) (ownerRecord, uint64, error) {
	value, rev, err := l.read(ctx, key)
	if err != nil || value == nil {
		return ownerRecord{}, rev, err
	}
	r, err := decodeOwner(value)
	if err != nil {
		err = fmt.Errorf("ledger entry %s: %w", key, err)
	}
	return r, rev, err
}

func (l records) putOwner(ctx context.Context, key string, r ownerRecord, rev uint64) (uint64, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	return l.write(ctx, key, value, rev)
}

// owedKeyPrefix begins the keys of marks, which are beside the entries of groups:
// those may be what cannot be read.
const owedKeyPrefix = "_owed."

func (l records) owe(ctx context.Context, k groupKey, owed bool) error {
	return untilAnswered(ctx, func(ctx context.Context) error {
		if !owed {
			return classify(l.kv.Delete(ctx, owedKeyPrefix+k.String()))
		}
		_, err := l.kv.Put(ctx, owedKeyPrefix+k.String(), []byte("{}"))
		return classify(err)
	})
}

func (l records) each(ctx context.Context, filter string, take func(jetstream.KeyValueEntry)) error {
	w, err := l.kv.Watch(ctx, filter)
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
			take(v)
		}
	}
}

// scan gives the entries of groups whose keys match a filter.
func (l records) scan(ctx context.Context, filter string, take func(groupKey, remembered)) error {
	return l.each(ctx, filter, func(v jetstream.KeyValueEntry) {
		k, err := parseGroupKey(v.Key())
		if err != nil || v.Operation() != jetstream.KeyValuePut {
			return // of a partition, or deleted
		}
		if r, err := decodeRemembered(v.Value()); err == nil { // else it was told when it was read
			take(k, r)
		}
	})
}

func decodeRemembered(b []byte) (remembered, error) {
	var r remembered
	err := json.Unmarshal(b, &r)
	return r, checkEntry(err, r.Version, ledgerVersion)
}

// checkEntry tells an entry that cannot be decoded from one of another version,
// whose fields may have other types.
func checkEntry(err error, have, want int) error {
	switch {
	case err != nil && (have == 0 || have == want):
		return fmt.Errorf("%w: %v", errEntry, err)
	case have != want:
		return &versionError{have, want}
	}
	return nil
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
