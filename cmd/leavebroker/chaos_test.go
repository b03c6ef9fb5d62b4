package main

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestChaos breaks what the brokers stand on while groups live: members leave,
// by intent.submit and by publishing, others join by external commits, one or
// many at a time, commit, or take their leave back. Brokers and servers are
// processes that are killed, frozen, cut off and restarted; disks fill up and
// lose their power; the delivery service goes away. Everything heals in the
// end, the groups come to theirs, and the log and the events are judged (see
// chaosJudge): every acknowledged intent got its verdict, every leaver was
// proposed in every epoch that waited for the brokers, nobody else was, and
// nobody twice in an epoch.
//
// LEAVEBROKER_CHAOS sets kills, partitions and seed of each form:
//
//	LEAVEBROKER_CHAOS=kills=300,partitions=50,clocks=1 go test -v -timeout 1h -run TestChaos/cluster ./cmd/leavebroker
//
// The same seed plays the same lives and faults; their instants are then the
// same as far as the machine is. With clocks=1 the wall clocks of the brokers are
// off by up to six hours, and jump. That is not the default, since it compiles
// the standard library anew (see TestClockJumps for the least of it). A broker with
// a server of its own keeps the machine's clock: by the same clock that server
// would date the log and wait for acknowledgements, for hours after a jump.
func TestChaos(t *testing.T) {
	t.Parallel()
	for _, form := range []chaosForm{
		{name: "embedded", brokers: 1, groups: 8, kills: 50, faults: (*chaosWorld).justKills},
		{name: "disk", brokers: 1, groups: 4, kills: 10, disk: true, faults: (*chaosWorld).diskFaults},
		{name: "server", servers: 1, brokers: 2, groups: 4, kills: 15, partitions: 3, disk: true, faults: (*chaosWorld).allFaults},
		{name: "cluster", servers: 3, brokers: 3, groups: 4, kills: 8, partitions: 5, faults: (*chaosWorld).allFaults},
	} {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			seed := form.set(t, chaosSettings)
			if testing.Short() {
				if form.servers > 0 || form.disk {
					t.Skip("takes minutes")
				}
				form.kills, form.groups = 8, 3
			}
			form.run(newChaosWorld(t, &form, seed))
		})
	}
}

// chaosSettings is LEAVEBROKER_CHAOS, which the program would refuse.
var chaosSettings = func() string {
	defer os.Unsetenv("LEAVEBROKER_CHAOS")
	return os.Getenv("LEAVEBROKER_CHAOS")
}()

// chaosForm says what runs and how much happens to it.
type chaosForm struct {
	name              string
	servers           int // 0: the broker's own
	brokers           int
	groups            int  // at a time
	disk              bool // the first server's store is on a disk of its own
	kills, partitions int  // at least
	clocks            bool // those of the brokers are off and jump
	faults            func(*chaosWorld) [][]fault
}

// set takes what the environment says, and gives its seed, 0 for none.
func (f *chaosForm) set(t *testing.T, text string) (seed uint64) {
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		n, err := strconv.ParseUint(value, 0, 64)
		switch {
		case err != nil:
			t.Fatalf("LEAVEBROKER_CHAOS: %q: %v", part, err)
		case key == "seed":
			seed = n
		case key == "kills":
			f.kills = int(n)
		case key == "partitions" && f.partitions > 0:
			f.partitions = int(n)
		case key == "clocks" && n <= 1:
			f.clocks = n == 1 && f.servers > 0
		case key != "partitions":
			t.Fatalf("LEAVEBROKER_CHAOS: %q is not seed, kills, partitions or clocks=1", part)
		}
	}
	return seed
}

// run plays a form to its end and judges it.
func (f *chaosForm) run(w *chaosWorld) {
	stopTaking := w.takeRemovals()
	var living sync.WaitGroup
	for i := range f.groups {
		living.Go(func() { w.liveAgainAndAgain(i) })
	}
	started := time.Now()
	w.strikeAgainAndAgain()
	w.Logf("%.1f s: %s", time.Since(started).Seconds(), w.struck())
	w.over.Store(true)
	living.Wait()
	w.Logf("%.1f s: quiet", time.Since(started).Seconds())
	if w.Failed() {
		w.FailNow()
	}
	if w.cluster != nil {
		w.cluster.AwaitSettled() // or the log that is judged lacks its end
	}
	w.brokers[0].awaitConsumed("partition-")
	w.brokers[0].awaitConsumed("removals-")
	stopTaking()
	log, events := w.brokers[0].entries(), w.brokers[0].events()
	w.stopAll()
	w.judge(log, events)
	w.Logf("the brokers complained: %s", w.complaints())

	var total chaosCount
	for _, l := range w.lives {
		total.plus(&l.chaosCount)
	}
	w.Logf("%.1f s in all; %d groups, %d messages in the log, %d events; %+v",
		time.Since(started).Seconds(), len(w.lives), len(log), len(events), total)
	w.Logf("from an input to its output: %s", w.latencies(log))
	if least := f.kills / 4; total.Left < least || total.Epochs < 2*least || total.Waits < least {
		w.Errorf("too little happened: %+v", total)
	}
}
