package broker

import (
	"container/list"
	"sync/atomic"
)

// Open groups are held in memory as far as Options.CacheBytes allows; others
// are loaded again when they are needed.

// groupBytes is what a group takes beside its state.
const groupBytes = 512

// loaded is the groups of a partition that are in memory, least recently used
// last.
type loaded struct {
	total *atomic.Int64 // bytes of all partitions
	bytes int64         // of this one
	byKey map[groupKey]*list.Element
	order list.List // of *cachedGroup, most recently used first
}

// cachedGroup is a group and its size when it was put in.
type cachedGroup struct {
	*group
	bytes int64
}

func (l *loaded) get(k groupKey) *group {
	if e := l.byKey[k]; e != nil {
		return e.Value.(*cachedGroup).group
	}
	return nil
}

func (l *loaded) remove(k groupKey) *group {
	e := l.byKey[k]
	if e == nil {
		return nil
	}
	delete(l.byKey, k)
	c := l.order.Remove(e).(*cachedGroup)
	l.resize(-c.bytes)
	return c.group
}

func (l *loaded) resize(by int64) {
	l.bytes += by
	l.total.Add(by)
}

func (l *loaded) add(g *group) {
	l.remove(g.key)
	if l.byKey == nil {
		l.byKey = map[groupKey]*list.Element{}
	}
	c := &cachedGroup{g, int64(g.state.Size()) + groupBytes}
	l.byKey[g.key] = l.order.PushFront(c)
	l.resize(c.bytes)
}

// oldest is the least recently used group but one; false if there is no other.
func (l *loaded) oldest(but groupKey) (groupKey, bool) {
	for e := l.order.Back(); e != nil; e = e.Prev() {
		if k := e.Value.(*cachedGroup).key; k != but {
			return k, true
		}
	}
	return groupKey{}, false
}

func (l *loaded) clear() {
	l.resize(-l.bytes)
	l.byKey = nil
	l.order.Init()
}

// trim drops groups from memory until the rest is within the budget: always
// from the partition that takes most, and never the one in hand.
func (b *Broker) trim(inHand groupKey) {
	for b.cached.Load() > b.opts.CacheBytes {
		var fullest *owner
		most := int64(0)
		for _, o := range b.all {
			o.mu.Lock()
			if n := o.groups.bytes; n > most {
				fullest, most = o, n
			}
			o.mu.Unlock()
		}
		if fullest == nil || !fullest.dropOldest(inHand) {
			return
		}
		b.metrics.evictions.Add(1)
	}
}

func (o *owner) dropOldest(but groupKey) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	k, ok := o.groups.oldest(but)
	if ok {
		o.groups.remove(k)
	}
	return ok
}
