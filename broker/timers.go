package broker

import (
	"container/heap"
	"sync"
	"time"
)

// timers hold at most one time for each group.
type timers struct {
	mu    sync.Mutex
	byKey map[groupKey]*timer // guarded by mu
	heap  timerHeap           // guarded by mu
}

type timer struct {
	key   groupKey
	at    time.Time
	index int
}

// set puts the time of a group in place of an earlier one; zero is never.
func (t *timers) set(k groupKey, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.byKey[k]
	switch {
	case at.IsZero() && old != nil:
		heap.Remove(&t.heap, old.index)
		delete(t.byKey, k)
	case at.IsZero():
	case old != nil:
		old.at = at
		heap.Fix(&t.heap, old.index)
	default:
		if t.byKey == nil {
			t.byKey = map[groupKey]*timer{}
		}
		n := &timer{key: k, at: at}
		t.byKey[k] = n
		heap.Push(&t.heap, n)
	}
}

// sooner sets the time of a group unless it has an earlier one.
func (t *timers) sooner(k groupKey, at time.Time) {
	t.mu.Lock()
	old := t.byKey[k]
	isSooner := old == nil || at.Before(old.at)
	t.mu.Unlock()
	if isSooner {
		t.set(k, at)
	}
}

// due takes the groups whose time has come.
func (t *timers) due(now time.Time) []groupKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	var keys []groupKey
	for len(t.heap) > 0 && !t.heap[0].at.After(now) {
		n := heap.Pop(&t.heap).(*timer)
		delete(t.byKey, n.key)
		keys = append(keys, n.key)
	}
	return keys
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *timerHeap) Push(x any) {
	n := x.(*timer)
	n.index = len(*h)
	*h = append(*h, n)
}
func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	n := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return n
}
