package broker

import (
	"container/heap"
	"sync"
	"time"
)

// timers hold at most one time for each group. The times of the log are those of a
// wall clock, others were counted from an instant of this process: a wall clock
// that is set forward or back would put them into another order. So each is turned
// into a time by the monotonic clock when it is set. A group whose time has not
// come, since the clock was set back meanwhile, is looked at in vain and set again.
type timers struct {
	clock func() time.Time

	mu       sync.Mutex
	byKey    map[groupKey]*timer // guarded by mu
	heap     timerHeap           // guarded by mu
	reckoned time.Time           // when the wall clock was last seen to jump, at first any time; guarded by mu
}

type timer struct {
	key   groupKey
	at    time.Time // as it was set
	due   time.Time // the same by the monotonic clock
	index int
}

// fromNow is a time by the monotonic clock, if now has a reading of it.
func fromNow(at, now time.Time) time.Time { return now.Add(at.Sub(now)) }

// set puts the time of a group in place of an earlier one; zero is never.
func (t *timers) set(k groupKey, at time.Time) {
	now := t.clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.byKey[k]
	switch {
	case at.IsZero() && old != nil:
		heap.Remove(&t.heap, old.index)
		delete(t.byKey, k)
	case at.IsZero():
	case old != nil:
		old.at, old.due = at, fromNow(at, now)
		heap.Fix(&t.heap, old.index)
	default:
		if t.byKey == nil {
			t.byKey = map[groupKey]*timer{}
		}
		n := &timer{key: k, at: at, due: fromNow(at, now)}
		t.byKey[k] = n
		heap.Push(&t.heap, n)
	}
}

// sooner sets the time of a group unless it has an earlier one; zero is never.
func (t *timers) sooner(k groupKey, at time.Time) {
	now := t.clock()
	t.mu.Lock()
	old := t.byKey[k]
	isSooner := old == nil || fromNow(at, now).Before(old.due)
	t.mu.Unlock()
	if isSooner && !at.IsZero() {
		t.set(k, at)
	}
}

// due takes the groups whose time has come.
func (t *timers) due(now time.Time) []groupKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reckon(now)
	var keys []groupKey
	for len(t.heap) > 0 && !t.heap[0].due.After(now) {
		n := heap.Pop(&t.heap).(*timer)
		delete(t.byKey, n.key)
		keys = append(keys, n.key)
	}
	return keys
}

// clockJump is how far a wall clock gets ahead of the monotonic one until times are
// reckoned again.
const clockJump = time.Second

// reckon brings times of the log forward after the wall clock was set forward. The
// caller holds mu.
func (t *timers) reckon(now time.Time) {
	if t.reckoned.IsZero() {
		t.reckoned = now
	}
	ahead := now.Round(0).Sub(t.reckoned.Round(0)) - now.Sub(t.reckoned)
	if ahead.Abs() < clockJump {
		return
	}
	t.reckoned = now
	if ahead < 0 {
		return
	}
	for _, n := range t.heap {
		if due := fromNow(n.at, now); due.Before(n.due) {
			n.due = due
		}
	}
	heap.Init(&t.heap)
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
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
