package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// streamGroup is one stream of logs and those who work on its partitions: of
// the tenants that share one, or of a tenant that has its own.
type streamGroup struct {
	names   names
	assets  assets
	inbound inbound
	store   *store
	log     journal // store, but for a simulated one
	owners  []*owner
}

// dedicatedPartitions is the most partitions of a dedicated stream: each is a
// consumer on the server.
const dedicatedPartitions = 8

// makeGroups arranges the tenants in stream groups.
func (b *Broker) makeGroups() {
	var sharing []string
	dedicated := false
	for _, t := range b.opts.Tenants {
		if t.Dedicated {
			dedicated = true
		} else {
			sharing = append(sharing, t.Name)
		}
	}
	if len(sharing) > 0 {
		n := names{prefix: b.opts.Prefix, partitions: b.opts.Partitions}
		if dedicated {
			n.sharing = sharing
		}
		b.addGroup(n, sharing)
	}
	for _, t := range b.opts.Tenants {
		if t.Dedicated {
			b.addGroup(names{prefix: b.opts.Prefix, partitions: min(b.opts.Partitions, dedicatedPartitions), dedicated: t.Name}, []string{t.Name})
		}
	}
}

func (b *Broker) addGroup(n names, tenants []string) {
	g := &streamGroup{names: n}
	g.assets = assets{
		names: n, maxMessage: b.opts.Limits.MessageBytes, pinTTL: b.opts.PinTTL, ackWait: b.opts.AckWait,
		eventMaxAge: b.opts.EventsMaxAge, tenants: tenants, replicas: b.opts.Replicas, mayMake: !b.opts.KeepAssets,
	}
	g.inbound = inbound{n, b.opts.Limits, b.tenants}
	for p := range n.partitions {
		o := newOwner(b, g, p)
		g.owners, b.all = append(g.owners, o), append(b.all, o)
		b.byOwnerKey[n.ownerKey(p)] = o
	}
	b.groups = append(b.groups, g)
	for _, t := range tenants {
		b.byTenant[t] = g
	}
}

// at is the stream group of a group of a tenant that is served.
func (b *Broker) at(k groupKey) *streamGroup { return b.byTenant[k.tenant] }

// owner is who works on a group.
func (b *Broker) owner(k groupKey) *owner {
	g := b.at(k)
	return g.owners[g.names.partition(k)]
}

// ensure makes or compares everything on the server that the broker needs.
func (b *Broker) ensure(ctx context.Context) error {
	if err := b.checkServer(); err != nil {
		return err
	}
	base := b.groups[0].assets
	if err := b.refuseLostSnapshots(ctx, base); err != nil {
		return err
	}
	if err := b.ensureLedger(ctx, base); err != nil {
		return err
	}
	if err := b.ensureSnapshots(ctx, base); err != nil {
		return err
	}
	if err := base.ensureStream(ctx, b.js, base.eventConfig()); err != nil {
		return err
	}
	for _, g := range b.groups {
		if err := b.refuseMoved(ctx, g); err != nil {
			return err
		}
	}
	for _, g := range b.groups {
		if err := g.assets.ensureLog(ctx, b.js, b.checkpointOf(ctx, g)); err != nil {
			return err
		}
	}
	return nil
}

// valueRoom is what is left of a message for headers beside a snapshot.
const valueRoom = 4 << 10

// ensureSnapshots makes or compares the buckets of snapshots and objects.
func (b *Broker) ensureSnapshots(ctx context.Context, a assets) error {
	for bucket, store := range map[string]*objects{b.names.blobBucket(): &b.blobs, b.names.infoBucket(): &b.infos} {
		s, err := a.ensureObjects(ctx, b.js, bucket)
		if err != nil {
			return err
		}
		*store = objects{ObjectStore: s, js: b.js, nc: b.nc, api: b.api, bucket: bucket, replicated: b.opts.Replicas > 1}
	}
	kv, err := a.ensureBucket(ctx, b.js, a.snapshotConfig())
	if err != nil {
		return err
	}
	b.snapshots = snapshotBucket{
		records: records{kv: kv, nc: b.nc, api: b.api}, js: b.js, blobs: b.blobs, inline: int(b.nc.MaxPayload()) - valueRoom,
		replicated: b.opts.Replicas > 1,
	}
	return nil
}

// checkpointOf gives the positions from which the partitions' consumers begin:
// of those that were deleted, the last checkpoint.
func (b *Broker) checkpointOf(ctx context.Context, g *streamGroup) func(partition int) (uint64, error) {
	return func(partition int) (uint64, error) {
		r, _, err := b.records.owner(ctx, g.names.ownerKey(partition))
		return r.Position, err
	}
}

// refuseMoved refuses to serve a tenant from one stream whose log is in
// another: intents in it would be forgotten.
func (b *Broker) refuseMoved(ctx context.Context, g *streamGroup) error {
	shared := names{prefix: b.opts.Prefix}
	for _, t := range g.assets.tenants {
		other := names{prefix: b.opts.Prefix, dedicated: t}
		if g.names.dedicated != "" {
			other = shared
		}
		moved := store{nc: b.nc, js: b.js, api: b.api, names: other}
		_, err := moved.readLast(ctx, other.logOfTenant(t))
		if errors.Is(err, errNoEntry) || errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return wrapAsset(err, "stream", other.logStream())
		}
		return &AssetError{"stream", other.logStream(), []string{fmt.Sprintf(
			"holds logs of tenant %q, which is to be served from %q: set its isolation as it was, or serve it under a new name", t, g.names.logStream())}}
	}
	return nil
}
