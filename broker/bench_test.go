package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// The benchmarks of the broker measure it against what JetStream alone takes
// for the same messages: each round measures both, one after the other, so that
// what else the machine does falls on both. They report medians, and ratios.
// The server runs in the same process.

// raw is a log like the broker's, made by the same code, that nobody works on
// but the benchmark.
type raw struct {
	*world
	store    *store
	key      groupKey
	consumer jetstream.Consumer
}

func newRaw(w *world) *raw {
	w.t.Helper()
	a := w.broker.groups[0].assets
	a.names = names{prefix: "raw", partitions: 1}
	ctx := testContext(w.t)
	if err := a.ensureLog(ctx, w.js, func(int) (uint64, error) { return 0, nil }); err != nil {
		w.t.Fatal(err)
	}
	return &raw{
		world: w, key: w.key(), store: &store{nc: w.nc, js: w.js, api: w.broker.api, names: a.names},
		consumer: must[jetstream.Consumer](w.t)(w.js.Consumer(ctx, a.names.logStream(), a.names.partitionConsumer(0))),
	}
}

// consume consumes the log as an owner does its partition, until the benchmark
// ends.
func (r *raw) consume(handle jetstream.MessageHandler) {
	r.t.Helper()
	c, err := r.consumer.Consume(handle, jetstream.PullPriorityGroup(priorityGroup), jetstream.PullMaxMessages(pullMessages),
		jetstream.PullExpiry(max(r.opts.PinTTL/2, minPullExpiry)), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Stop)
}

// publishMany stores messages under a subject, as fast as the server takes them.
func (w *world) publishMany(subjects []string, messages [][]byte) {
	w.t.Helper()
	for i, m := range messages {
		if _, err := w.js.PublishAsync(subjects[i%len(subjects)], m, jetstream.WithStallWait(patience)); err != nil {
			w.t.Fatal(err)
		}
	}
	select {
	case <-w.js.PublishAsyncComplete():
	case <-time.After(patience):
		w.t.Fatal("the messages are not stored")
	}
}

// pollEvery is as close as sleeping allows.
const pollEvery = 20 * time.Microsecond

// poll looks every so often until a condition holds.
func (w *world) poll(every time.Duration, what string, ok func() bool) {
	w.t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(every) {
		if time.Since(begin) > patience {
			w.t.Fatalf("not in time: %s", what)
		}
	}
}

// forEachSync runs a benchmark on a server that acknowledges writes before and
// after they are durable.
func forEachSync(b *testing.B, run func(b *testing.B, later func(*Options))) {
	for _, later := range []bool{true, false} {
		b.Run(map[bool]string{true: "sync=later", false: "sync=always"}[later], func(b *testing.B) {
			run(b, func(o *Options) {
				o.Embedded.SyncLater, o.Partitions = later, 1
				o.AckWait, o.PinTTL = 40*time.Second, 40*time.Second // the benchmark makes them wait
			})
		})
	}
}

// quantile is that of durations, which it sorts.
func quantile(q float64, list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[int(q*float64(len(list)-1)+0.5)]
}

func median[T int64 | float64](list []T) T {
	slices.Sort(list)
	return list[len(list)/2]
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

// BenchmarkIdleCommit: commits of a group with nothing pending, from a backlog.
// x-raw is the time that the broker takes for one, over that of a consumer like
// its own that acknowledges and does nothing else. One operation is a backlog.
//
//	go test ./broker -run '^$' -bench IdleCommit -benchtime 20x
func BenchmarkIdleCommit(b *testing.B) {
	const backlog = 500
	forEachSync(b, func(b *testing.B, change func(*Options)) {
		w := newWorld(b, change)
		w.found("alice", "bob", "carol", "dave")
		commits := slices.Repeat([][]byte{w.commitUnseen(0, member.CommitOptions{References: [][]byte{}})}, backlog)
		w.noWork()
		r, o := newRaw(w), w.broker.all[0]
		var gate sync.Mutex
		var acked atomic.Int64
		r.consume(func(m jetstream.Msg) {
			gate.Lock()
			defer gate.Unlock()
			if err := m.Ack(); err != nil {
				b.Error(err)
			}
			acked.Add(1)
		})
		// measure lets a backlog grow while its consumer is held, and times its end.
		measure := func(n names, done *atomic.Int64, hold func() func()) time.Duration {
			free := hold()
			w.publishMany([]string{n.in(w.key(), kindCommit)}, commits)
			end := done.Load() + backlog
			begin := time.Now()
			free()
			w.poll(pollEvery, "the backlog is consumed", func() bool { return done.Load() >= end })
			return time.Since(begin)
		}
		var own, alone []time.Duration
		var ratios []float64
		for b.Loop() {
			alone = append(alone, measure(r.store.names, &acked, func() func() { gate.Lock(); return gate.Unlock }))
			own = append(own, measure(w.broker.names, &o.handled, o.begin))
			ratios = append(ratios, float64(own[len(own)-1])/float64(alone[len(alone)-1]))
		}
		if skipped := w.broker.metrics.skipped.Load(); skipped < int64(len(own)*backlog) {
			b.Errorf("%d commits skipped", skipped)
		}
		b.ReportMetric(median(ratios), "x-raw")
		b.ReportMetric(micros(quantile(0.5, own))/backlog, "µs/commit")
		b.ReportMetric(micros(quantile(0.5, alone))/backlog, "raw-µs/commit")
	})
}

// BenchmarkCommitToRemoval: from a commit in the log to the stored removal of a
// leaver, in a group of 16, one at a time. A hop is the same on a log that nobody
// works on: consume the commit, publish bytes like the removal with the expected
// sequence, acknowledge. Crypto is the fold and the signature of the same
// messages by themselves. over-µs is the median less those of hop and crypto;
// x-hop-p99 is the worst of a hundred over that of hops, x-worked-p99 over that of
// hops that do the crypto too: on a busy machine, what works longer is stopped more
// often.
//
//	go test ./broker -run '^$' -bench CommitToRemoval -benchtime 2000x
func BenchmarkCommitToRemoval(b *testing.B) {
	forEachSync(b, func(b *testing.B, change func(*Options)) {
		var stored atomic.Int64
		w := newWorld(b, func(o *Options) {
			change(o)
			o.testOnlyFault = func(step string) error {
				if step == "output reply" {
					stored.Store(time.Now().UnixNano())
				}
				return nil
			}
		})
		w.leaverIn(16)
		w.noWork()
		h, o := newHopper(w), w.broker.all[0]
		var hop, worked, own []time.Duration
		measures := []func(commit []byte){
			func(commit []byte) { hop = append(hop, h.measure(commit, false)) },
			func(commit []byte) { worked = append(worked, h.measure(commit, true)) },
			func(commit []byte) {
				before := o.handled.Load()
				seq := w.publish(kindCommit, commit)
				w.poll(pollEvery, "the removal is stored", func() bool { return o.handled.Load() > before })
				e := must[entry](b)(w.store().readOne(testContext(b), w.store().names.log(w.key(), kindCommit), seq))
				own = append(own, time.Duration(stored.Load()-e.time.UnixNano()))
			},
		}
		for b.Loop() {
			commit := w.commitUnseen(0, member.CommitOptions{References: [][]byte{}})
			for _, measure := range measures {
				measure(commit)
			}
			slices.Reverse(measures) // whatever the order does falls on all
		}
		if n := w.broker.metrics.outputs.Load(); n < int64(len(own)) {
			b.Errorf("%d outputs of %d commits", n, len(own))
		}
		p50, hop50, crypto50 := quantile(0.5, own), quantile(0.5, hop), quantile(0.5, h.crypto)
		p99, hop99 := quantile(0.99, own), quantile(0.99, hop)
		b.ReportMetric(micros(p50), "p50-µs")
		b.ReportMetric(micros(hop50), "hop-p50-µs")
		b.ReportMetric(micros(crypto50), "crypto-µs")
		b.ReportMetric(micros(p50-hop50-crypto50), "over-µs")
		b.ReportMetric(micros(p99), "p99-µs")
		b.ReportMetric(float64(p99)/float64(quantile(0.99, worked)), "x-worked-p99")
		b.ReportMetric(micros(hop99), "hop-p99-µs")
		b.ReportMetric(float64(p99)/float64(hop99), "x-hop-p99")
	})
}

// hopper does on a log of its own what an owner does with a commit.
type hopper struct {
	*raw
	timer   *cryptoTimer
	works   atomic.Bool // does the crypto too
	crypto  []time.Duration
	lastHop uint64 // sequence of what was published
	hops    chan time.Duration
}

func newHopper(w *world) *hopper {
	w.t.Helper()
	h := &hopper{raw: newRaw(w), timer: newCryptoTimer(w), hops: make(chan time.Duration, 1)}
	h.consume(func(m jetstream.Msg) {
		hop, err := h.hop(m)
		if err != nil {
			w.t.Error(err)
		}
		h.hops <- hop
	})
	return h
}

func (h *hopper) hop(m jetstream.Msg) (time.Duration, error) {
	meta, err := m.Metadata()
	if err != nil {
		return 0, err
	}
	if h.works.Load() {
		h.crypto = append(h.crypto, h.timer.time(m.Data(), meta.Timestamp))
	}
	subject := h.store.names.log(h.key, kindRemoval)
	ack, err := h.js.Publish(context.Background(), subject, h.timer.output, jetstream.WithExpectLastSequencePerSubject(h.lastHop))
	if err != nil {
		return 0, err
	}
	taken := time.Since(meta.Timestamp)
	h.lastHop = ack.Sequence
	return taken, m.Ack()
}

// measure gives the time from a commit in the log to what follows being stored.
func (h *hopper) measure(commit []byte, works bool) time.Duration {
	h.t.Helper()
	h.works.Store(works)
	must[*jetstream.PubAck](h.t)(h.js.Publish(testContext(h.t), h.store.names.in(h.key, kindCommit), commit))
	return <-h.hops
}

// leaverIn founds a group of n members, one of whom waits to be removed, and
// keeps the one who commits.
func (w *world) leaverIn(n int) {
	w.t.Helper()
	people := make([]string, n)
	for i := range people {
		people[i] = fmt.Sprintf("user%d", i)
	}
	w.found(people...)
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
	w.members = map[mlscore.LeafIndex]*member.Group{0: w.members[0]}
}

// cryptoTimer does with the commits of a group what the broker does, but for
// the server.
type cryptoTimer struct {
	*world
	group  *group
	output []byte // the last one, as it is stored
}

func newCryptoTimer(w *world) *cryptoTimer {
	w.t.Helper()
	h := must[*history](w.t)(w.broker.load(testContext(w.t), w.key(), w.broker.tenants[w.tenant], 1<<62, nil))
	return &cryptoTimer{w, h.group, []byte("{}")}
}

// time folds a commit and makes the output that it calls for.
func (c *cryptoTimer) time(commit []byte, now time.Time) time.Duration {
	c.t.Helper()
	g := c.group
	e := entry{seq: g.state.Position() + 1, time: now, data: bytes.Clone(commit)}
	r := &received{entry: e, key: g.key, kind: kindCommit, tenant: g.tenant}
	begin := time.Now()
	g.fold(r)
	due := g.state.Due(now)
	if due.Propose == nil {
		c.t.Fatal("nothing to propose")
	}
	out := must[*intents.Output](c.t)(makeOutput(g.state.Group(), g.tenant.Signers, due.Propose, 1<<20))
	taken := time.Since(begin)
	c.output = must[[]byte](c.t)(json.Marshal(out))
	g.fold(&received{entry: entry{seq: g.lastRemoval + 1, time: now, data: c.output}, key: g.key, kind: kindRemoval, tenant: g.tenant})
	return taken
}
