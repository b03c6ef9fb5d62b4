package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"leavebroker/intents"
	"leavebroker/mlscore/member"
)

// instance is a broker that is taken away.
type instance struct {
	*world
	leave func() // ends Run
	ended chan error
}

// instance starts one more broker on the server of a cluster.
func (w *world) instance(name string) *instance {
	w.t.Helper()
	n := *w
	n.opts.Instance = name
	n.broker = must[*Broker](w.t)(New(n.opts))
	ctx, cancel := context.WithCancel(context.Background())
	i := &instance{&n, cancel, make(chan error, 1)}
	go func() { i.ended <- n.broker.Run(ctx) }()
	return i
}

// pending founds a group with a leaver in a partition that the instance holds.
func (i *instance) pending() *world {
	i.t.Helper()
	g := *i.world
	for n := 0; ; n++ {
		g.groupID = fmt.Appendf(nil, "%s %d", i.opts.Instance, n)
		if g.broker.owner(g.key()).holds.Load() {
			break
		}
	}
	g.leaverIn(3)
	return &g
}

// awaitStandby waits until two instances ask for the messages of the group's
// partition: the one that has it, and the one that stands by.
func (w *world) awaitStandby() {
	w.t.Helper()
	w.eventually("an instance stands by", func() bool {
		n := w.broker.at(w.key()).names
		c := must[jetstream.Consumer](w.t)(w.js.Consumer(testContext(w.t), n.logStream(), n.partitionConsumer(n.partition(w.key()))))
		return c.CachedInfo().NumWaiting >= 2
	})
}

// nextRemoval publishes a commit, and gives the times when it did and when a
// delivery service could hear of the removal for its epoch.
func (w *world) nextRemoval() (published, heard time.Time) {
	w.t.Helper()
	live := make(chan *nats.Msg, 16)
	sub := must[*nats.Subscription](w.t)(w.nc.ChanSubscribe(w.broker.names.removal(w.key()), live))
	defer sub.Unsubscribe()
	commit := w.commitUnseen(0, member.CommitOptions{References: [][]byte{}})
	published = time.Now()
	w.publish(kindCommit, commit)
	for timeout := time.After(patience); ; {
		select {
		case m := <-live:
			var out intents.Output
			if err := json.Unmarshal(m.Data, &out); err != nil {
				w.t.Fatal(err)
			}
			if out.Epoch == w.epoch() {
				return published, time.Now()
			}
		case <-timeout:
			w.t.Fatal("no removal")
		}
	}
}

// BenchmarkFailover: one of two brokers goes, and a commit comes in a partition
// that it had. killed: its connection is cut; x-wait is the median from then
// to the removal, over the longer of pin and ack wait, max-x-wait the worst. left:
// it leaves in order; the time is from the request to leave. One operation is
// one broker that goes.
//
//	go test ./broker -run '^$' -bench Failover -benchtime 10x
func BenchmarkFailover(b *testing.B) {
	for _, isKilled := range []bool{true, false} {
		b.Run(map[bool]string{true: "killed", false: "left"}[isKilled], func(b *testing.B) {
			w := newCluster(b, func(o *Options) { o.Partitions, o.PinTTL, o.AckWait = 8, defaultPinTTL, defaultAckWait })
			var gaps []time.Duration
			for b.Loop() {
				i := w.instance(fmt.Sprintf("victim-%d", len(gaps)))
				awaitSpread(b, w, i.world)
				g := i.pending()
				g.noWork()
				g.awaitStandby()
				begin := time.Now()
				if isKilled {
					i.broker.nc.Close()
				} else {
					i.leave()
					g.poll(pollEvery, "the partition is left", func() bool { return !i.broker.owner(g.key()).holds.Load() })
				}
				_, heard := g.nextRemoval()
				gaps = append(gaps, heard.Sub(begin))
				i.leave()
				if err := <-i.ended; err != nil && !isKilled {
					b.Error(err)
				}
			}
			b.ReportMetric(0, "ns/op") // founding the groups is not of interest
			b.ReportMetric(micros(quantile(0.5, gaps))/1e3, "gap-ms")
			b.ReportMetric(micros(slices.Max(gaps))/1e3, "max-gap-ms")
			if isKilled {
				wait := float64(max(defaultPinTTL, defaultAckWait))
				b.ReportMetric(float64(quantile(0.5, gaps))/wait, "x-wait")
				b.ReportMetric(float64(slices.Max(gaps))/wait, "max-x-wait")
			}
		})
	}
}

// BenchmarkRestart: a broker starts that knows groups of which some have a
// leaver; the server runs on. ready is until it says so; loaded, until all groups
// with leavers are in memory; the bytes are those that the heap of the process has
// grown by, for each group with a leaver. The other groups hold a GroupInfo
// that nobody reads. One operation is a restart.
//
//	go test ./broker -run '^$' -bench Restart -benchtime 5x
//
// A large one is "leavebroker load chat --known 1000000 --pending 10000 --restart".
func BenchmarkRestart(b *testing.B) {
	const known, pending = 20_000, 2_000
	w := newCluster(b, func(o *Options) { o.Partitions, o.PinTTL, o.AckWait = defaultPartitions, defaultPinTTL, defaultAckWait })
	c := newCrowd(w, 2)
	for range pending {
		_, messages := c.found()
		c.publish(kindIntent, messages[0])
	}
	info := must[[]byte](b)(c.members[0].GroupInfo())
	var subjects []string
	for i := range known - pending {
		subjects = append(subjects, w.broker.names.in(groupKey{w.tenant, GroupToken(fmt.Appendf(nil, "known %d", i))}, kindInfo))
	}
	w.publishMany(subjects, slices.Repeat([][]byte{info}, len(subjects)))
	isAll := func() bool { return w.verdicts() >= pending }
	w.eventually("all intents are pending", isAll)
	w.noWork()
	var ready, loaded []time.Duration
	var bytes []float64
	for b.Loop() {
		w.stop()
		w.broker = nil
		before := heapInUse()
		begin := time.Now()
		w.start()
		ready = append(ready, time.Since(begin))
		w.poll(time.Millisecond, "all groups are loaded", func() bool { return w.broker.metrics.loads.Load() >= pending })
		loaded = append(loaded, time.Since(begin))
		bytes = append(bytes, (heapInUse()-before)/pending)
		if n, _ := w.broker.Summary(); n != pending {
			b.Errorf("%d groups are open", n)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(micros(quantile(0.5, ready))/1e3, "ready-ms")
	b.ReportMetric(micros(quantile(0.5, loaded))/1e3, "loaded-ms")
	b.ReportMetric(median(bytes), "B/pending")
}

// heapInUse is the bytes of the heap that are in use.
func heapInUse() float64 {
	runtime.GC()
	runtime.GC() // what pools keep for one round
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
