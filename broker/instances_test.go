package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"leavebroker/intents"
	"leavebroker/mlscore/member"
)

// newCluster is a world whose server is outside of its brokers.
func newCluster(t testing.TB, change func(*Options)) *world {
	t.Helper()
	server := must[*embedded](t)(startEmbedded(Embedded{StateDir: t.TempDir(), SyncLater: true, Listen: "127.0.0.1:0"}, defaultMessageBytes, zap.NewNop()))
	t.Cleanup(func() {
		if err := server.stop(); err != nil {
			t.Error(err)
		}
	})
	return newWorld(t, func(o *Options) {
		o.Embedded, o.Conn.URL, o.Instance = Embedded{}, server.url(), "first"
		if change != nil {
			change(o)
		}
	})
}

// another starts one more broker on the same server.
func (w *world) another(name string) *world {
	w.t.Helper()
	n := *w
	n.opts.Instance = name
	n.start()
	w.t.Cleanup(func() { n.stop() })
	return &n
}

// held are the partitions that the broker holds.
func (w *world) held() (partitions []int) {
	for _, o := range w.broker.all {
		if o.holds.Load() {
			partitions = append(partitions, o.number)
		}
	}
	return partitions
}

// awaitSpread waits until each partition is held by exactly the instance that
// ranks first among some.
func awaitSpread(t testing.TB, worlds ...*world) {
	t.Helper()
	var names []string
	for _, w := range worlds {
		names = append(names, w.opts.Instance)
	}
	worlds[0].eventually("the partitions are spread", func() bool {
		for _, w := range worlds {
			var want []int
			for p := range w.opts.Partitions {
				if rank(w.store().names.logStream(), p, w.opts.Instance, names) == 0 {
					want = append(want, p)
				}
			}
			if !slices.Equal(w.held(), want) {
				return false
			}
		}
		return true
	})
}

// Every instance ranks once for each partition, and a new one takes about its
// share from all.
func TestRanks(t *testing.T) {
	const partitions = 256
	live := []string{"a", "b", "c", "d"}
	first := map[string]int{}
	for p := range partitions {
		ranks := map[int]bool{}
		for _, i := range live {
			r := rank("log", p, i, live)
			ranks[r] = true
			if r == 0 {
				first[i]++
			}
			if before := rank("log", p, i, live[:3]); i != "d" && r != before && r != before+1 {
				t.Errorf("partition %d: %s moves from %d to %d as d joins", p, i, before, r)
			}
		}
		if len(ranks) != len(live) {
			t.Errorf("partition %d: ranks %v", p, ranks)
		}
	}
	for _, i := range live {
		if n := first[i]; n < partitions/8 || n > partitions/2 {
			t.Errorf("%s is first for %d of %d", i, n, partitions)
		}
	}
}

func TestMembers(t *testing.T) {
	now := time.Unix(1000, 0)
	m := newMembers("me", 3*time.Second)
	live := func() []string { l, _ := m.view(); return l }
	if !m.hear(heartbeat{Instance: "you"}, now) || m.hear(heartbeat{Instance: "you"}, now) || m.hear(heartbeat{Instance: "me"}, now) {
		t.Error("who is new")
	}
	m.expire(now, true)
	m.expire(now.Add(10*time.Second), true) // it was this one that stood still
	if !slices.Equal(live(), []string{"me", "you"}) {
		t.Errorf("%v live after a pause of our own", live())
	}
	for beat := range 2 * beatsPerTTL {
		m.expire(now.Add(10*time.Second+time.Duration(beat+1)*m.ttl/beatsPerTTL), false)
	}
	if !slices.Equal(live(), []string{"me", "you"}) {
		t.Errorf("%v live while we are not connected", live())
	}
	m.hear(heartbeat{Instance: "you"}, now)
	m.lastBeat = time.Time{}
	_, changed := m.view()
	m.expire(now.Add(3*time.Second), true)
	if !slices.Equal(live(), []string{"me", "you"}) {
		t.Errorf("%v live", live())
	}
	m.expire(now.Add(3*time.Second+1), true) // at once after the last
	select {
	case <-changed:
	default:
		t.Error("a change is not told")
	}
	if !slices.Equal(live(), []string{"me"}) {
		t.Errorf("%v live after a silence", live())
	}
	m.hear(heartbeat{Instance: "you", Started: 1}, now)
	m.hear(heartbeat{Instance: "you", Started: 1, Leaving: true}, now)
	m.hear(heartbeat{Instance: "you"}, now) // it wrote something
	if !slices.Equal(live(), []string{"me"}) || !m.isLive("you") {
		t.Errorf("%v while one leaves, which lives: %t", live(), m.isLive("you"))
	}
	m.hear(heartbeat{Instance: "you", Started: 2}, now)
	if !slices.Equal(live(), []string{"me", "you"}) {
		t.Errorf("%v live after one came back", live())
	}
	if !m.isNamesake(heartbeat{Instance: "me", Started: m.started + 1}) || m.isNamesake(heartbeat{Instance: "me", Started: m.started}) {
		t.Error("who has the same name")
	}
}

// Instances that come share the partitions with those that are there; when one
// leaves, the others have its partitions, and know what is open in them.
func TestInstancesShareThePartitions(t *testing.T) {
	first := newCluster(t, func(o *Options) { o.Partitions = 16 })
	awaitSpread(t, first)
	var groups []*world
	for i := range 6 {
		g := *first
		g.groupID = fmt.Appendf(nil, "group %d", i)
		g.found("alice", "bob", "carol")
		g.submit(g.leave(1, intents.SenderRemovalOnly))
		g.awaitOutput(g.epoch(), 1)
		groups = append(groups, &g)
	}
	second := first.another("second")
	awaitSpread(t, first, second)
	third := first.another("third")
	awaitSpread(t, first, second, third)
	next := func() {
		for _, g := range groups {
			g.empty(0)
		}
		for _, g := range groups {
			g.awaitOutput(g.epoch(), 1)
		}
	}
	next()
	second.stop()
	awaitSpread(t, first, third)
	next()
	for _, g := range groups {
		g.fanOut(g.awaitOutput(g.epoch(), 1))
		g.commit(2, member.CommitOptions{})
		g.await("removed", ofType(intents.StateRemoved, ""))
		g.agree(0, 2)
		g.checkOutputs()
	}
}

// A tenant with a stream of its own is served from there, and cannot move.
func TestDedicatedTenant(t *testing.T) {
	var tenants []Tenant
	w := newWorld(t, func(o *Options) {
		own := o.Tenants[0]
		own.Name, own.Dedicated = "globex", true
		o.Tenants = append(o.Tenants, own)
		tenants = o.Tenants
	})
	for _, tenant := range []string{testTenant, "globex"} {
		g := *w
		g.tenant = tenant
		g.found("alice", "bob", "carol")
		g.submit(g.leave(1, intents.SenderRemovalOnly))
		g.fanOut(g.awaitOutput(g.epoch(), 1))
		g.commit(2, member.CommitOptions{})
		g.await("removed", ofType(intents.StateRemoved, ""))
		g.agree(0, 2)
	}
	if have, want := w.broker.byTenant["globex"].names.logStream(), "leave-log-globex"; have != want {
		t.Errorf("the stream is %q, want %q", have, want)
	}
	w.stop()
	for i := range tenants {
		moved := w.opts
		moved.Tenants = slices.Clone(tenants)
		moved.Tenants[i].Dedicated = !moved.Tenants[i].Dedicated
		b := must[*Broker](t)(New(moved))
		if err := b.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "isolation") {
			t.Errorf("%s is served from another stream: %v", tenants[i].Name, err)
		}
	}
}
