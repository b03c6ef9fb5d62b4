package broker

import (
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
