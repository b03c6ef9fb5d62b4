package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// The ledger is an index of the logs: without it nobody would know which groups
// have something to do. If its bucket is gone, it is made again from the logs and
// snapshots: every group counts as open until it has been loaded. Snapshots are
// no index: what they hold is in no log any more, so their bucket has to be
// restored.

const (
	rebuildKey   = "_rebuild" // of the ledger
	rebuildBegun = "begun"
	rebuildDone  = "done"
)

// ensureLedger makes the bucket of the ledger or compares it, and fills one that
// does not say that it is whole: whoever made it, and whatever was stored since.
func (b *Broker) ensureLedger(ctx context.Context, a assets) error {
	kv, err := a.ensureBucket(ctx, b.js, a.ledgerConfig())
	if err != nil {
		return err
	}
	b.records = records{kv: kv, nc: b.nc, api: b.api}
	b.ledger = b.records
	state, rev, err := b.records.read(ctx, rebuildKey)
	if err != nil || string(state) == rebuildDone {
		return err
	}
	if state == nil {
		if rev, err = b.records.write(ctx, rebuildKey, []byte(rebuildBegun), rev); err != nil {
			return err
		}
	}
	for _, g := range b.groups {
		if err := b.rebuild(ctx, g); err != nil {
			return err
		}
	}
	_, err = b.records.write(ctx, rebuildKey, []byte(rebuildDone), rev)
	return err
}

// rebuild makes an open entry for every group of a stream that has none.
func (b *Broker) rebuild(ctx context.Context, g *streamGroup) error {
	s, err := b.js.Stream(ctx, g.names.logStream())
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return wrapAsset(classify(err), "stream", g.names.logStream())
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(g.names.logOfAll()))
	if err != nil {
		return wrapAsset(classify(err), "stream", g.names.logStream())
	}
	found := map[groupKey]bool{}
	for subject := range info.State.Subjects {
		if k, _, err := g.names.parseLog(subject); err == nil {
			found[k] = true // also of a tenant that is served again later, or elsewhere
		}
	}
	if len(found) > 0 {
		b.log.Warn("the ledger is made anew: every group is loaded once", zap.String("stream", g.names.logStream()), zap.Int("groups", len(found)))
	}
	for k := range found {
		_, err := b.ledger.put(ctx, k, ledgerEntry{}, remembered{Version: ledgerVersion, Open: true})
		if err != nil && !errors.Is(err, errConflict) { // it is there
			return err
		}
	}
	return nil
}

// refuseLostSnapshots refuses to make the bucket of snapshots where logs were
// purged below those that were in it.
func (b *Broker) refuseLostSnapshots(ctx context.Context, a assets) error {
	_, err := b.js.KeyValue(ctx, a.names.snapshotBucket())
	if err == nil {
		return b.refuseLostBlobs(ctx, a)
	}
	if !isNotFound(err) {
		return wrapAsset(err, "bucket", a.names.snapshotBucket())
	}
	for _, g := range b.groups {
		s, err := b.js.Stream(ctx, g.names.logStream())
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return wrapAsset(classify(err), "stream", g.names.logStream())
		}
		if state := s.CachedInfo().State; state.FirstSeq > logStart+1 || state.NumDeleted > 0 {
			return &AssetError{"bucket", a.names.snapshotBucket(), []string{fmt.Sprintf(
				"does not exist, and stream %q was purged of what was in it: restore both of one time", g.names.logStream())}}
		}
	}
	return b.refuseLostBlobs(ctx, a)
}

// refuseLostBlobs refuses to make the bucket of the broker's own objects beside
// snapshots and logs that may refer to what was in it.
func (b *Broker) refuseLostBlobs(ctx context.Context, a assets) error {
	_, err := b.js.ObjectStore(ctx, a.names.blobBucket())
	if !isNotFound(err) {
		return wrapAsset(err, "object store", a.names.blobBucket())
	}
	for _, g := range b.groups {
		_, err := g.store.readLast(ctx, g.names.logOfAll())
		if errors.Is(err, errNoEntry) || errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return wrapAsset(err, "stream", g.names.logStream())
		}
		return &AssetError{"object store", a.names.blobBucket(), []string{fmt.Sprintf(
			"does not exist, and stream %q may refer to what was in it: restore both of one time; if no group was ever too large for a message, make it (nats object add %s)", g.names.logStream(), a.names.blobBucket())}}
	}
	return nil
}
