package broker

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Instances read the ledger as it is written: which groups are open, and who
// owns which partition.

// watchLedger reads the ledger, and goes on reading what instances write into
// it until the work ends. It returns when all that is there is read.
func (b *Broker) watchLedger(ctx context.Context) error {
	w, err := b.records.kv.Watch(b.work, ">")
	if err != nil {
		return classify(err)
	}
	read := make(chan struct{})
	b.background.Go(func() { b.keepWatching(w, sync.OnceFunc(func() { close(read) })) })
	select {
	case <-read:
		return nil
	case <-ctx.Done():
		return classify(ctx.Err())
	}
}

// keepWatching reads what a watch of the ledger gives until the work ends, and
// calls all when everything is read that was there at first. A server that went
// away may have forgotten the watch, which the client finds out after a while
// only: so it asks again at once for what follows.
func (b *Broker) keepWatching(w jetstream.KeyWatcher, all func()) {
	fresh := false // what was there before says nothing of who lives
	seen := uint64(0)
	for {
		select {
		case <-b.work.Done():
			endWatch(w)
			return
		case <-b.reconnected:
			w = b.watchAgain(w, seen)
		case v, ok := <-w.Updates():
			switch {
			case !ok:
				w = b.watchAgain(w, seen)
			case v == nil:
				all()
				fresh = true
			default:
				b.readLedger(v, fresh)
				seen = v.Revision()
			}
		}
	}
}

// watchAgain gives a watch of what follows a revision, in place of another; of
// all where the ledger does not go as far, since the server lost its end. The
// result is the old one if the work ends before.
func (b *Broker) watchAgain(old jetstream.KeyWatcher, seen uint64) jetstream.KeyWatcher {
	endWatch(old)
	for b.work.Err() == nil {
		w, err := b.watchFrom(seen)
		if err == nil {
			b.health.clear("ledger")
			return w
		}
		b.health.report("ledger", err)
		_ = pause(b.work, startAgain)
	}
	return old
}

func (b *Broker) watchFrom(seen uint64) (jetstream.KeyWatcher, error) {
	status, err := b.records.kv.Status(b.work)
	if err != nil {
		return nil, classify(err)
	}
	var from []jetstream.WatchOpt
	if s, ok := status.(*jetstream.KeyValueBucketStatus); ok && s.StreamInfo().State.LastSeq >= seen {
		from = append(from, jetstream.ResumeFromRevision(seen+1))
	} else {
		b.forgetRevisions()
	}
	w, err := b.records.kv.Watch(b.work, ">", from...)
	return w, classify(err)
}

// forgetRevisions is called when the ledger has lost its end: revisions are given
// again.
func (b *Broker) forgetRevisions() {
	b.open.forgetRevisions()
	for _, o := range b.all {
		o.recMu.Lock()
		o.seen, o.seenRev = ownerRecord{}, 0
		o.recMu.Unlock()
	}
}

// endWatch ends a watch. What it still has to give would hold up the connection.
func endWatch(w jetstream.KeyWatcher) {
	_ = w.Stop() // it may have ended
	go func() {
		for range w.Updates() {
		}
	}()
}

// readLedger takes one entry of the ledger: of a partition, or of a group. A
// fresh one was written just now.
func (b *Broker) readLedger(v jetstream.KeyValueEntry, fresh bool) {
	key, isMark := v.Key(), false
	if strings.Count(key, ".") == 2 { // that of a group has one
		if strings.HasPrefix(key, ownerKeyPrefix) {
			b.readOwner(v, fresh)
			return
		}
		key, isMark = strings.CutPrefix(key, owedKeyPrefix)
	}
	k, err := parseGroupKey(key)
	if err != nil || b.tenants[k.tenant] == nil {
		return
	}
	if isMark {
		b.readMark(k, v)
		return
	}
	r, err := remembered{}, error(nil)
	if v.Operation() == jetstream.KeyValuePut {
		r, err = decodeRemembered(v.Value())
	}
	if err != nil {
		b.trouble(k, fmt.Errorf("ledger entry %s: %w", k, err))
		return
	}
	b.settled(k)
	marked, _ := b.owed.Load(k)
	b.tellOpen(k, r.Open || marked == true, v.Revision())
}

// readMark takes the mark of a group whose inputs were acknowledged and not
// folded: it is open whatever its entry says, before it or after, so the mark has
// no revision that would order it among those of entries.
func (b *Broker) readMark(k groupKey, v jetstream.KeyValueEntry) {
	if v.Operation() != jetstream.KeyValuePut {
		b.owed.CompareAndDelete(k, true)
		return
	}
	b.owed.Store(k, true)
	b.tellOpen(k, true, 0)
}

// tellOpen tells the owner of a group what the ledger says of it.
func (b *Broker) tellOpen(k groupKey, isOpen bool, rev uint64) {
	o := b.owner(k)
	if o.tellOpen(k, isOpen, rev) {
		b.adopting.Store(k, rev)
		b.spawn(func() {
			defer o.begin()()
			o.adoptNow(b.work, k)
		})
	}
}

// tellOpen takes what a revision of the ledger says of a group, and says whether
// another instance found it open in a partition that this one holds.
func (o *owner) tellOpen(k groupKey, isOpen bool, rev uint64) (found bool) {
	o.recMu.Lock() // either the partition is not held yet, or the group is not passed over
	defer o.recMu.Unlock()
	open := &o.b.open
	if !o.holds.Load() {
		open.learn(k, isOpen, rev)
		return false
	}
	open.note(k, rev)
	return isOpen && !open.has(k)
}

// adoptNow takes a group to work on that another instance found open after it had
// lost the partition: what came since was passed over here. The caller holds work.
func (o *owner) adoptNow(ctx context.Context, k groupKey) {
	rev, found := o.b.adopting.LoadAndDelete(k)
	if !found || o.b.open.has(k) {
		return
	}
	if !o.holds.Load() {
		o.b.open.learn(k, true, rev.(uint64)) // the entry is not read again when the partition is taken
		return
	}
	entry, err := o.b.ledger.get(ctx, k)
	isClosed := err == nil && !entry.Open && entry.rev >= rev.(uint64) // or it is read from a server that lags behind
	if _, owed := o.b.owed.LoadOrStore(k, false); isClosed && !owed {
		o.b.owed.CompareAndDelete(k, false)
		return
	}
	o.b.open.set(k, true, 1, max(entry.rev, rev.(uint64)))
	o.b.timers.sooner(k, o.b.opts.Clock())
}

func (b *Broker) readOwner(v jetstream.KeyValueEntry, fresh bool) {
	o := b.byOwnerKey[v.Key()]
	if o == nil {
		return // of a stream that is not served here
	}
	r, err := ownerRecord{}, error(nil)
	if v.Operation() == jetstream.KeyValuePut {
		r, err = decodeOwner(v.Value())
	}
	if err != nil {
		b.health.report("ledger entry "+v.Key(), err)
		return
	}
	b.health.clear("ledger entry " + v.Key())
	if fresh && !r.Released { // whoever writes lives, even if no heartbeat was heard yet
		b.members.hear(heartbeat{Instance: r.Instance}, time.Now())
	}
	o.observe(r, v.Revision())
}

// rereadLedger reads all of the ledger, unless that turns out to be needless.
func (b *Broker) rereadLedger(ctx context.Context, isNeedless func() bool) error {
	b.rereading.Lock()
	defer b.rereading.Unlock()
	if isNeedless() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	return b.ledger.each(ctx, ">", func(v jetstream.KeyValueEntry) { b.readLedger(v, false) })
}
