package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"leavebroker/intents"
)

// What an operator has to mend is a trouble, of a group or of the whole broker.
// It is logged, is an event, and is in the service's statistics until it is gone;
// one of the whole keeps the broker from being ready. Nothing is lost meanwhile:
// inputs stay in the log. The broker looks again by itself.

// Events about troubles, of a group or of the whole.
const (
	eventTrouble = "trouble" // Reason tells what, Detail what to do
	eventMended  = "mended"
)

// The reasons of troubles.
const (
	troubleFull       = "store_full"
	troubleAsset      = "asset_differs"
	troublePermission = "permission"
	troubleVersion    = "unknown_version"
	troubleSnapshot   = "bad_snapshot"
	troubleEntry      = "bad_ledger_entry"
	troubleOther      = "other"
)

// troubleOf gives the reason of an error and what to do about it.
func troubleOf(err error) (reason, remedy string) {
	var version *versionError
	var asset *AssetError
	switch {
	case errors.As(err, &version), errors.Is(err, intents.ErrSnapshotVersion):
		return troubleVersion, "run the version of this program that wrote it, or a newer one"
	case errors.As(err, &asset):
		return troubleAsset, "bring it back to what is needed, with the nats command or by a restart of this program where it may make it"
	case errors.Is(err, errFull):
		return troubleFull, "give the stream, account or disk more room"
	case errors.Is(err, errPermission):
		return troublePermission, "let this user publish what the README says of the broker, and subscribe to anything"
	case errors.Is(err, errEntry):
		return troubleEntry, `restore the entry of the ledger; or delete that of a partition, and put {"version":1,"open":true} in place of that of a group: its old receipts are lost`
	case errors.Is(err, errSnapshot), errors.Is(err, intents.ErrSnapshot):
		return troubleSnapshot, "restore the snapshot bucket; or delete the snapshot, then group reset and a new GroupInfo: intents before it have to be sent again"
	}
	return troubleOther, "see the detail"
}

// trouble is one that is not mended yet.
type trouble struct {
	key    groupKey // nowhere: of the whole broker
	detail string
}

// health is the troubles of now.
type health struct {
	mu       sync.Mutex
	troubles map[string]trouble // by what it is about; guarded by mu
	tell     func(what string, k groupKey, err error)
}

// whole stands for no group.
var whole = groupKey{nowhere, nowhere}

// report notes a trouble of the whole; it is told of when it is new or has
// changed.
func (h *health) report(what string, err error) { h.set(what, whole, err) }

// clear notes that a trouble is gone, if there was one.
func (h *health) clear(what string) { h.set(what, whole, nil) }

func (h *health) set(what string, k groupKey, err error) {
	h.mu.Lock()
	before, was := h.troubles[what]
	switch {
	case err == nil:
		delete(h.troubles, what)
	default:
		if h.troubles == nil {
			h.troubles = map[string]trouble{}
		}
		h.troubles[what] = trouble{k, err.Error()}
	}
	h.mu.Unlock()
	if was && err == nil || err != nil && before.detail != err.Error() {
		h.tell(what, k, err)
	}
}

// maxTold is how many troubles are named at a time.
const maxTold = 8

// list names the troubles of the whole, then those of groups, but not all of
// many; the number is that of the former.
func (h *health) list() (named []string, ofWhole int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ofGroups []string
	for what, t := range h.troubles {
		if text := what + ": " + t.detail; t.key == whole {
			named = append(named, text)
		} else {
			ofGroups = append(ofGroups, text)
		}
	}
	slices.Sort(named)
	slices.Sort(ofGroups)
	ofWhole = len(named)
	named = append(named, ofGroups...)
	if more := len(named) - maxTold; more > 0 {
		named = append(named[:maxTold], fmt.Sprintf("and %d more", more))
	}
	return named, ofWhole
}

// Troubles names what an operator has to mend.
func (b *Broker) Troubles() []string {
	named, _ := b.health.list()
	return named
}

// tellTrouble logs a trouble, or its end where there is no error, and stores an event as far as that is
// possible.
func (b *Broker) tellTrouble(what string, k groupKey, err error) {
	e := event{key: k, Type: eventMended, Tenant: k.tenant, Group: k.group, Time: time.Now().UTC(), Detail: what}
	if err == nil {
		b.log.Info("a trouble is over", zap.String("what", what))
	} else {
		reason, remedy := troubleOf(err)
		e.Type, e.Reason, e.Detail = eventTrouble, reason, fmt.Sprintf("%s: %v; %s", what, err, remedy)
		b.log.Error("an operator is needed", zap.String("what", what), zap.Error(err), zap.String("remedy", remedy))
	}
	b.background.Go(func() {
		if err := b.publish(b.work, []event{e}); err != nil && b.work.Err() == nil {
			b.log.Warn("an event is not stored", zap.String("type", e.Type), zap.Error(err))
		}
	})
}

// troubleAgain is when a group with a trouble is looked at again.
const troubleAgain = 30 * time.Second

// trouble notes that a group cannot be worked on, and looks at it again later.
func (b *Broker) trouble(k groupKey, err error) {
	b.health.set("group "+k.String(), k, err)
	b.owed.LoadOrStore(k, false)
	b.open.set(k, true, 1, 0)
	b.timers.sooner(k, b.opts.Clock().Add(troubleAgain))
}

// postpone leaves a group to an operator, for a trouble, and gives errTroubled.
// An input, if there is one, is done with then: so whoever works on the group next
// has to know that it is in the log.
func (b *Broker) postpone(ctx context.Context, k groupKey, in *received, why error) error {
	b.trouble(k, why)
	if in != nil {
		if err := b.write("mark", func() error { return b.ledger.owe(ctx, k, true) }); err != nil {
			return err
		}
		b.owed.Store(k, true)
	}
	return fmt.Errorf("%w: %v", errTroubled, why)
}

// paid notes that what was postponed of a group is folded, told and recorded.
func (b *Broker) paid(ctx context.Context, h *history) error {
	if !h.owed {
		return nil
	}
	k := h.group.key
	marked, _ := b.owed.Load(k)
	if marked == true {
		if err := b.write("mark", func() error { return b.ledger.owe(ctx, k, false) }); err != nil {
			return err
		}
	}
	b.owed.CompareAndDelete(k, marked)
	return nil
}

// isTrouble says whether an error is one that an operator has to mend before
// its group can be worked on.
func isTrouble(err error) bool {
	return errors.As(err, new(*versionError)) || errors.Is(err, errSnapshot) || errors.Is(err, errEntry) ||
		errors.Is(err, intents.ErrSnapshot) || errors.Is(err, intents.ErrSnapshotVersion)
}

// settled notes that a group can be worked on.
func (b *Broker) settled(k groupKey) { b.health.set("group "+k.String(), k, nil) }

var (
	// errFull: the server has no room; nothing was written.
	errFull = fmt.Errorf("%w: the server has no room for more", errUnavailable)
	// errPermission: the server forbids something that the broker needs.
	errPermission = errors.New("not permitted")
	// errSnapshot: a stored snapshot cannot be used, and the log before it is gone.
	errSnapshot = errors.New("the snapshot cannot be used")
)

// The server's codes behind errFull, which have no names in the client library.
const (
	codeNoResources  = 10023
	codeNoStorage    = 10047
	codeStoreRefuses = 10077
)

// isFull says whether an error of the server means that there is no room.
func isFull(api *jetstream.APIError) bool {
	switch api.ErrorCode {
	case codeNoResources, codeNoStorage:
		return true
	case codeStoreRefuses:
		return strings.Contains(api.Description, "maximum") || strings.Contains(api.Description, "no space")
	}
	return false
}

// noteRoom keeps account of whether the server has room, by the outcome of a write.
func (b *Broker) noteRoom(err error) {
	switch {
	case errors.Is(err, errFull):
		b.full.Store(true)
		b.health.report("store", err)
	case err == nil && b.full.CompareAndSwap(true, false):
		b.health.clear("store")
	}
}

const inspectEvery = 30 * time.Second

// inspect compares the streams, and some consumers in turn, with what is
// needed, until the context ends: an operator may have changed them.
func (b *Broker) inspect(ctx context.Context) error {
	tick := time.NewTicker(inspectEvery)
	defer tick.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		b.inspectOnce(ctx, round)
	}
}

func (b *Broker) inspectOnce(ctx context.Context, round int) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	note := func(what string, err error) {
		var asset *AssetError
		switch {
		case errors.As(err, &asset), isNotFound(err):
			b.health.report(what, err)
		case err == nil:
			b.health.clear(what)
		}
	}
	base := b.groups[0].assets
	for _, want := range []jetstream.KeyValueConfig{base.ledgerConfig(), base.snapshotConfig()} {
		note("bucket "+want.Bucket, base.inspectBucket(ctx, b.js, want))
	}
	for _, bucket := range []string{b.blobs.bucket, b.infos.bucket} {
		note("object store "+bucket, base.inspectObjects(ctx, b.js, bucket))
	}
	note("stream "+base.names.eventStream(), base.inspectStream(ctx, b.js, base.eventConfig()))
	for _, g := range b.groups {
		note("stream "+g.names.logStream(), g.assets.inspectStream(ctx, b.js, g.assets.logConfig()))
		want := g.assets.partitionConfig(round%g.names.partitions, 0)
		note("consumer "+want.Durable, g.assets.inspectConsumer(ctx, b.js, want))
		for _, t := range g.assets.tenants {
			want := g.assets.removalsConfig(t)
			note("consumer "+want.Durable, g.assets.inspectConsumer(ctx, b.js, want))
		}
	}
}

// minServer is the oldest server that works: one whose consumers can be reset
// and whose pinned clients are mended.
var minServer = []int{2, 14, 0}

// checkServer refuses a server that is too old.
func (b *Broker) checkServer() error {
	have := b.nc.ConnectedServerVersion()
	if have == "" {
		return fmt.Errorf("%w: not connected", errUnavailable)
	}
	if err := checkVersion(have); err != nil {
		return &AssetError{"server", b.nc.ConnectedServerName(), []string{err.Error()}}
	}
	return nil
}

func checkVersion(have string) error {
	number, _, _ := strings.Cut(have, "-")
	var parts []int
	for part := range strings.SplitSeq(number, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return fmt.Errorf("version: %q is none", have)
		}
		parts = append(parts, n)
	}
	if slices.Compare(parts, minServer) < 0 {
		return fmt.Errorf("version: is %s, must be %d.%d.%d or newer", have, minServer[0], minServer[1], minServer[2])
	}
	return nil
}
