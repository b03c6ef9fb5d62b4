package broker

import (
	"slices"
	"testing"
	"time"
	"unsafe"
)

// jumped is an instant as a wall clock shows it that was set forward or back by whole
// seconds before: the monotonic clock shows the same.
func jumped(t *testing.T, at time.Time, by time.Duration) time.Time {
	t.Helper()
	after := at
	*(*uint64)(unsafe.Pointer(&after)) += uint64(by/time.Second) << 30 // the wall seconds: see time.Time
	if after.Sub(at) != 0 || after.Round(0).Sub(at.Round(0)) != by {
		t.Fatal("time.Time has another form than this test knows")
	}
	return after
}

// How long a partition is held or worked on does not depend on what the wall clock
// showed when that began.
func TestDurationsOutliveJumpsOfTheClock(t *testing.T) {
	b := &Broker{members: newMembers("b", time.Second)}
	b.opts.Instance = "b"
	o := &owner{b: b, group: &streamGroup{}}
	b.all = []*owner{o}
	for ; o.rank() == 0; o.number++ { // until another ranks first
		b.members.hear(heartbeat{Instance: "a"}, time.Now())
	}
	o.holds.Store(true)
	for _, by := range []time.Duration{-6 * time.Hour, 0, 6 * time.Hour} {
		began := jumped(t, time.Now(), by)
		o.heldSince.Store(&began)
		o.busySince.Store(&began)
		b.beat.Store(&began)
		if o.isOver() || b.Live() != nil {
			t.Errorf("just begun, by a clock %s off: over: %v, live: %v", by, o.isOver(), b.Live())
		}
		began = began.Add(-time.Minute)
		if o.heldSince.Store(&began); !o.isOver() {
			t.Errorf("held for a minute, by a clock %s off: not over", by)
		}
		began = began.Add(-time.Hour)
		if o.busySince.Store(&began); b.Live() == nil {
			t.Errorf("busy for an hour, by a clock %s off: live", by)
		}
		o.busySince.Store(nil)
		if b.beat.Store(&began); b.Live() == nil {
			t.Errorf("no round of the timers for an hour, by a clock %s off: live", by)
		}
	}
}

// Times of the log hide no others when the wall clock is set back, and come when it is
// set forward.
func TestTimersOutliveJumpsOfTheClock(t *testing.T) {
	start, by := time.Now(), time.Duration(0)
	after := func(d time.Duration) time.Time { return jumped(t, start.Add(d), by) }
	now := after(0)
	w := timers{clock: func() time.Time { return now }}
	key := func(s string) groupKey { return groupKey{"t", s} }
	check := func(want ...groupKey) {
		t.Helper()
		if got := w.due(now); !slices.Equal(got, want) {
			t.Errorf("due by a clock %s off: %v, want %v", by, got, want)
		}
	}
	logged := func(d time.Duration) time.Time { return start.Add(d).Round(0) }
	check()
	w.set(key("log 1h"), logged(time.Hour))
	w.set(key("log 5h"), logged(5*time.Hour))
	w.set(key("wait 2h"), now.Add(2*time.Hour))
	w.set(key("both"), logged(4*time.Hour))
	w.sooner(key("both"), now.Add(90*time.Minute))

	by = -6 * time.Hour
	now = after(time.Minute)
	check()
	w.set(key("log 1m"), logged(time.Minute)) // in 6 h, as it seems
	w.set(key("retry"), now.Add(time.Second))
	w.sooner(key("both"), logged(time.Minute))
	now = after(2 * time.Minute)
	check(key("retry"))
	now = after(2*time.Hour + time.Second)
	check(key("log 1h"), key("both"), key("wait 2h"))

	by = 2 * time.Hour
	now = after(2*time.Hour + time.Minute)
	check(key("log 1m"))
	w.set(key("wait 3h"), now.Add(3*time.Hour))
	now = after(3*time.Hour + time.Second)
	check(key("log 5h"))
	by = 9 * time.Hour
	now = after(4 * time.Hour)
	check()
	now = after(6 * time.Hour)
	check(key("wait 3h"))
}
