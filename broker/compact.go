package broker

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"leavebroker/intents"
)

// Logs that have grown long are compacted in the background: a snapshot of the
// group is stored and read back, then what is before it is purged. Nothing that
// may come again is before it, since a snapshot is of what a checkpoint has.
// What stays of it: the last commit and the last output, whose sequences writers
// of the log expect; outputs of epochs that are not over, or that the delivery
// service has not acknowledged.

// compactLogs looks through the logs of the partitions that are held, one after
// the other, until the context ends.
func (b *Broker) compactLogs(ctx context.Context) error {
	owners := b.all
	tick := time.NewTicker(max(b.opts.CompactInterval/time.Duration(len(owners)), time.Millisecond))
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		o := owners[i%len(owners)]
		if !o.holds.Load() {
			continue
		}
		if err := o.compactLong(ctx); err != nil && ctx.Err() == nil {
			b.log.Warn("logs are not compacted", zap.Int("partition", o.number), zap.Error(err))
		}
	}
}

// compactLong compacts the long logs of the partition.
func (o *owner) compactLong(ctx context.Context) error {
	sizes, err := o.logSizes(ctx)
	if err != nil {
		return err
	}
	if err := o.checkpoint(ctx); err != nil {
		return err
	}
	tried := map[groupKey]int{}
	for k, size := range sizes {
		// One of which there can be no snapshot yet is tried again when it has doubled.
		if size < o.b.opts.CompactEntries || size < 2*o.uncompacted[k] || ctx.Err() != nil {
			continue
		}
		left, err := o.compact(ctx, k)
		if err != nil && ctx.Err() == nil {
			o.b.log.Warn("the log of a group is not compacted", zap.Stringer("group", k), zap.Int("entries", size), zap.Error(err))
		}
		if left {
			tried[k] = size
		}
	}
	for k, size := range o.uncompacted {
		if _, again := tried[k]; !again && sizes[k] >= o.b.opts.CompactEntries {
			tried[k] = size
		}
	}
	o.uncompacted = tried
	return nil
}

// logSizes counts the entries of each group of the partition.
func (o *owner) logSizes(ctx context.Context) (map[groupKey]int, error) {
	s, err := o.b.js.Stream(ctx, o.group.names.logStream())
	if err != nil {
		return nil, classify(err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(o.group.names.logOfPartition(o.number)))
	if err != nil {
		return nil, classify(err)
	}
	sizes := map[groupKey]int{}
	for subject, n := range info.State.Subjects {
		if k, _, err := o.group.names.parseLog(subject); err == nil && o.b.tenants[k.tenant] != nil {
			sizes[k] += int(n)
		}
	}
	return sizes, nil
}

// compact stores a snapshot of a group and purges what is before it; left says
// that there can be none yet.
func (o *owner) compact(ctx context.Context, k groupKey) (left bool, err error) {
	b := o.b
	done := o.begin()
	upTo := o.recorded.Position
	done()
	h, err := b.load(ctx, k, b.tenants[k.tenant], upTo, nil)
	if err != nil {
		return false, err
	}
	g := h.group
	if err := b.snapshots.confirm(ctx, k, g.snapshot.rev); err != nil {
		return false, err
	}
	lacksLast := g.lastRemoval >= max(g.snapshot.removals, 1)
	data, position, ok := g.state.Snapshot()
	if !ok || position <= g.snapshot.position {
		return true, nil
	}
	groupID := g.state.Group().GroupID()
	stem, err := intents.RestoreState(&g.tenant.policy, groupID, data)
	if err != nil {
		return false, err
	}
	next := snapshot{position: position, lastRemoval: g.lastRemoval, removals: g.lastRemoval + 1, groupID: groupID, state: data}
	err = b.readLog(ctx, k, g.snapshot.removals, func(r *received) error {
		lacksLast = lacksLast && r.seq != g.lastRemoval
		var out intents.Output
		if r.kind == kindRemoval && json.Unmarshal(r.data, &out) == nil && out.Epoch >= stem.Group().Epoch() {
			next.removals = min(next.removals, r.seq) // its epoch is not over
		}
		return nil
	})
	if err == nil && lacksLast {
		err = errLags
	}
	if err != nil {
		return false, err
	}
	// Their inputs will be purged: nobody would tell of them later.
	told := slices.DeleteFunc(h.skipped, func(e event) bool { return e.Seq > position })
	if err := b.publish(ctx, told); err != nil {
		return false, err
	}
	err = b.write("snapshot", func() error {
		_, err := b.snapshots.put(ctx, k, next, g.snapshot.rev)
		return err
	})
	if err != nil {
		return false, err
	}
	b.metrics.snapshots.Add(1)
	return false, b.purge(ctx, k, next)
}

// purge purges what a stored snapshot makes superfluous.
func (b *Broker) purge(ctx context.Context, k groupKey, s snapshot) error {
	g := b.at(k)
	delivered, err := g.log.delivered(ctx, k.tenant)
	if err != nil {
		return err
	}
	for _, what := range slices.Concat(inputKinds, ownKinds) {
		below := s.position + 1
		if what == kindRemoval {
			below = min(s.removals, delivered+1)
		}
		if what == kindRemoval || what == kindCommit {
			last, err := g.log.readLast(ctx, g.names.log(k, what))
			if errors.Is(err, errNoEntry) {
				continue
			}
			if err != nil {
				return err
			}
			below = min(below, last.seq)
		}
		if what == kindInfo {
			if err := b.dropInfoBlobs(ctx, k, below); err != nil {
				return err
			}
		}
		err := b.write("purge", func() error { return g.log.purge(ctx, g.names.log(k, what), below) })
		if err != nil {
			return err
		}
	}
	return nil
}

// dropInfoBlobs deletes the copies of GroupInfos to which nothing refers when what
// is below a sequence is purged. What cannot be deleted takes room, no more.
func (b *Broker) dropInfoBlobs(ctx context.Context, k groupKey, below uint64) error {
	g := b.at(k)
	isUsed := map[string]bool{}
	err := g.log.read(ctx, g.names.log(k, kindInfo), 1, func(e entry) error {
		if sum, err := parseSum(e.data); err == nil && e.object != "" {
			isUsed[blobName(k, sum)] = isUsed[blobName(k, sum)] || e.seq >= below
		}
		return nil
	})
	if err != nil {
		return err
	}
	for name, used := range isUsed {
		if used {
			continue
		}
		if err := b.blobs.Delete(ctx, name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
			b.log.Debug("a copy of a GroupInfo is not deleted", zap.Stringer("group", k), zap.Error(err))
		}
	}
	return nil
}
