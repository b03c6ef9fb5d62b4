package broker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"leavebroker/mlscore/member"
)

const (
	flooder    = "globex"
	floodQueue = 1000
)

// twoTenants is a broker of two tenants: a group of one with a leaver, and the
// other to flood.
func twoTenants(b *testing.B, isDedicated bool, quotas Quotas) (quiet, flooding *world) {
	b.Helper()
	w := newWorld(b, func(o *Options) {
		o.Partitions, o.AckWait, o.PinTTL = dedicatedPartitions, defaultAckWait, defaultPinTTL
		other := o.Tenants[0]
		other.Name, other.Quotas = flooder, quotas
		o.Tenants = append(o.Tenants, other)
		for i := range o.Tenants {
			o.Tenants[i].Dedicated = isDedicated
		}
	})
	f := *w
	f.tenant = flooder
	w.leaverIn(4)
	return w, &f
}

// compare measures rounds of removals, every other one while flood runs, and
// reports the median of the ratios of their medians.
func (w *world) compare(b *testing.B, flood func(ctx context.Context)) {
	const removals = 40
	round := func() float64 {
		var list []time.Duration
		for range removals {
			published, heard := w.nextRemoval()
			list = append(list, heard.Sub(published))
		}
		return micros(quantile(0.5, list))
	}
	var alone, flooded, ratios []float64
	for b.Loop() {
		alone = append(alone, round())
		ctx, cancel := context.WithCancel(context.Background())
		var flooding sync.WaitGroup
		flooding.Go(func() { flood(ctx) })
		flooded = append(flooded, round())
		cancel()
		flooding.Wait()
		ratios = append(ratios, flooded[len(flooded)-1]/alone[len(alone)-1])
		w.noWork()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(slices.Clone(alone)), "alone-µs")
	b.ReportMetric(median(flooded), "flooded-µs")
	b.ReportMetric(median(ratios), "x-alone")
}

// BenchmarkFairness: the time from publishing a commit to hearing of the removal
// of one tenant's leaver, while another tenant floods, over that without the
// flood. dedicated: each tenant has a stream; the other publishes commits of
// many groups, so many a second (rate), or as fast as they are stored, at most so
// many of which are not worked on (queue). bare: the same into a stream that no
// broker works on: what the processors and the server alone cost. shared: both
// have one stream; clients of the other submit ten times the intents that its
// quota of 50 a second allows, and x-quota is what is let through over that. One
// operation is 80 removals, half of them under flood.
//
//	go test ./broker -run '^$' -bench Fairness -benchtime 10x
func BenchmarkFairness(b *testing.B) {
	for _, test := range []struct {
		isBare    bool
		perSecond int // 0: as fast as they are stored
	}{{false, 100}, {false, 1000}, {false, 0}, {true, 10_000}} {
		name := fmt.Sprintf("dedicated/rate=%d", test.perSecond)
		switch {
		case test.isBare:
			name = fmt.Sprintf("bare/rate=%d", test.perSecond)
		case test.perSecond == 0:
			name = fmt.Sprintf("dedicated/queue=%d", floodQueue)
		}
		b.Run(name, func(b *testing.B) {
			w, f := twoTenants(b, true, Quotas{})
			n := f.broker.names
			if test.isBare {
				n = newRaw(f).store.names
			}
			f.groupID = []byte("flood")
			f.create("mallory")
			message := f.commitUnseen(0, member.CommitOptions{References: [][]byte{}})
			sent, flooding := 0, time.Duration(0)
			w.compare(b, func(ctx context.Context) {
				begin := time.Now()
				sent += f.flood(ctx, n, message, test.perSecond)
				flooding += time.Since(begin)
			})
			b.ReportMetric(float64(sent)/flooding.Seconds(), "flood/s")
		})
	}
	b.Run("shared", func(b *testing.B) {
		const perSecond, times = 50, 10
		w, f := twoTenants(b, false, Quotas{IntentsPerSecond: perSecond, Burst: 1})
		_, messages := newCrowd(f, 1).found()
		var passed, asked int
		var flooding time.Duration
		w.compare(b, func(ctx context.Context) {
			begin := time.Now()
			for tick := time.NewTicker(time.Second / (perSecond * times)); ctx.Err() == nil; <-tick.C {
				var v verdict
				if err := f.api("intent.submit", submitRequest{Intent: messages[0], Wait: "1ms"}, &v); err != nil {
					b.Error(err)
				}
				if asked++; v.Reason != reasonQuota {
					passed++
				}
			}
			flooding += time.Since(begin)
		})
		b.ReportMetric(float64(asked)/flooding.Seconds(), "flood/s")
		b.ReportMetric(float64(passed)/flooding.Seconds()/perSecond, "x-quota")
	})
}

// flood publishes a commit to 64 groups of the tenant in turn, so many times a
// second, or while at most floodQueue are not worked on, and says how many times.
func (w *world) flood(ctx context.Context, to names, message []byte, perSecond int) (n int) {
	handled := func() (sum int64) {
		for _, o := range w.broker.byTenant[w.tenant].owners {
			sum += o.handled.Load()
		}
		return sum
	}
	before, begin := handled(), time.Now()
	isEnough := func() bool {
		if perSecond > 0 {
			return float64(n) > time.Since(begin).Seconds()*float64(perSecond)
		}
		return int64(n)-(handled()-before) >= floodQueue
	}
	for ; ctx.Err() == nil; n++ {
		for ctx.Err() == nil && isEnough() {
			time.Sleep(time.Millisecond)
		}
		k := groupKey{w.tenant, GroupToken(fmt.Appendf(nil, "flood %d", n%64))}
		if _, err := w.js.PublishAsync(to.in(k, kindCommit), message, jetstream.WithStallWait(patience)); err != nil {
			w.t.Error(err)
		}
	}
	<-w.js.PublishAsyncComplete()
	return n
}
