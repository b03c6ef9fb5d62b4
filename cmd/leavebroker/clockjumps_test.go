package main

import (
	"bytes"
	"syscall"
	"testing"
	"time"
)

// TestClockJumps lets two brokers have wall clocks that are off by hours, and jump
// while groups live that each have a leaver: forward, back, past the server's clock
// and past each other. The groups are served in every epoch all the same, and
// partitions go from broker to broker. Nothing that is decided depends on these
// clocks, but when an intent has waited for too long to be judged.
func TestClockJumps(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute, and compiles the standard library anew")
	}
	t.Parallel()
	offBy := 5 * time.Hour
	w := newHandoverWorld(t, func(b *chaosBroker) {
		b.skew(offBy)
		offBy = -offBy
	})
	first, second := w.fleet[0], w.fleet[1]
	jump := func(b *chaosBroker, by time.Duration) {
		t.Logf("the clock of broker %s jumps from %s to %s", b.instance, b.clock.offBy(), by)
		b.clock.jump(by)
		w.goOn()
	}
	for _, b := range w.fleet {
		b.checkClock() // nothing has jumped yet
	}
	w.awaitSpread()
	jump(first, -6*time.Hour)
	jump(second, 6*time.Hour)
	jump(first, 6*time.Hour)
	jump(second, 2*time.Hour)

	// What the second takes over by a clock that goes hours back after, it gives back
	// when the first is there again.
	first.end(syscall.SIGKILL)
	w.goOn()
	w.awaitOwners(0, func(int) *chaosBroker { return second })
	for i, g := range w.groups {
		if r := w.owner(g); i%2 == 0 && !second.clock.shows(r.Since) {
			t.Errorf("group %d is the second broker's since %s: the clock of that is not %s off", i, r.Since, second.clock.offBy())
		}
	}
	jump(second, -6*time.Hour)
	w.start(first)
	w.awaitSpread()
	jump(first, -2*time.Hour)
	jump(second, 0)
	jump(second, 4*time.Hour)
	w.finish()
	for _, b := range w.fleet {
		b.checkClock() // the line of its orderly end
		if bytes.Contains(b.logSince(0), []byte(`"stuck"`)) {
			t.Errorf("broker %s took itself for stuck", b.instance)
		}
	}
}
