package broker

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// crowd makes many groups of the same clients. Only the creator of each has its
// secrets: of those who leave, their signature keys are needed and no more.
type crowd struct {
	*world
	signers []mlscore.Signer
	keys    []*member.KeyPackage
	groups  int
}

func newCrowd(w *world, leavers int) *crowd {
	w.t.Helper()
	c := &crowd{world: w}
	for i := range leavers {
		client := w.client(fmt.Sprintf("user%d", i))
		c.signers = append(c.signers, client.Signer)
		c.keys = append(c.keys, must[*member.KeyPackage](w.t)(client.NewKeyPackage(forever)))
	}
	return c
}

// found hands on a group whose creator has proven it, and gives the intents of
// everybody else and the subject that they go to.
func (c *crowd) found() (subject string, messages [][]byte) {
	c.t.Helper()
	c.groupID = fmt.Appendf(nil, "group %d", c.groups)
	c.groups++
	c.create("creator")
	c.info()
	adds := member.CommitOptions{References: [][]byte{}, OmitRatchetTree: true}
	for _, k := range c.keys {
		adds.Proposals = append(adds.Proposals, member.Add(k.KeyPackage))
	}
	c.commit(0, adds)
	suite := must[*mlscore.Suite](c.t)(mlscore.LookupSuite(testSuiteID))
	for i, signer := range c.signers {
		leaf := mlscore.LeafIndex(i + 1)
		node := c.members[0].Public().Tree().Leaf(leaf)
		in := must[*intents.LeafOperationIntent](c.t)(intents.New(signer, suite, c.groupID, leaf, node, intents.SenderRemovalOnly))
		messages = append(messages, in.Message(intents.DefaultWireFormat))
	}
	return c.broker.names.in(c.key(), kindIntent), messages
}

// verify checks the signatures of intents of the group founded last.
func (c *crowd) verify(messages [][]byte) {
	c.t.Helper()
	suite := must[*mlscore.Suite](c.t)(mlscore.LookupSuite(testSuiteID))
	tree := c.members[0].Public().Tree()
	for _, m := range messages {
		in := must[*intents.LeafOperationIntent](c.t)(intents.ParseMessage(m, intents.DefaultWireFormat))
		if err := in.Verify(suite, c.groupID, tree.Leaf); err != nil {
			c.t.Fatal(err)
		}
	}
}

// BenchmarkIntents: from intents being published, 16 for each of 32 groups that
// are in memory, to the last of their verdicts being stored; 64 partitions. The
// floors are the verification of the same intents, one after the other, and
// storing them on a log that nobody works on. x-floor is the rate over the lower
// of theirs. cpu-x-floor is the same by the processor time of the process, which
// the server and the publisher take too, and says more on a busy machine. One
// operation is 512 intents.
//
// An intent takes more than the floors: its removal is signed, that signature is
// verified when the output is folded, and four messages are stored for it or with
// others (itself, its removal, two events), delivered and acknowledged. The crypto
// alone is about 2.6 verifications. On one core:
//
//	go test ./broker -run '^$' -bench Intents -benchtime 10x -cpu 1
func BenchmarkIntents(b *testing.B) {
	const groups, leavers = 32, 16
	forEachSync(b, func(b *testing.B, change func(*Options)) {
		w := newWorld(b, func(o *Options) {
			change(o)
			o.Partitions = defaultPartitions
		})
		r, c := newRaw(w), newCrowd(w, leavers+1)
		var verified, written, own costs
		var ratios, cpuRatios []float64
		for b.Loop() {
			subjects, all, verifying := c.foundMany(groups)
			wrote := measureCost(func() { w.publishMany([]string{r.store.names.in(r.key, kindIntent)}, all) })
			end := w.verdicts() + int64(len(all))
			took := measureCost(func() {
				w.publishMany(subjects, all)
				w.poll(time.Millisecond, "all verdicts are stored", func() bool { return w.verdicts() >= end })
			})
			verified, written, own = append(verified, verifying), append(written, wrote), append(own, took)
			ratios = append(ratios, float64(max(wrote.wall, verifying.wall))/float64(took.wall))
			cpuRatios = append(cpuRatios, float64(max(wrote.cpu, verifying.cpu))/float64(took.cpu))
		}
		b.ReportMetric(own.rate(groups*leavers), "intents/s")
		b.ReportMetric(verified.rate(groups*leavers), "verifications/s")
		b.ReportMetric(written.rate(groups*leavers), "writes/s")
		b.ReportMetric(median(ratios), "x-floor")
		b.ReportMetric(own.cpu()/(groups*leavers), "cpu-µs/intent")
		b.ReportMetric(median(cpuRatios), "cpu-x-floor")
	})
}

// foundMany hands on groups of which one intent is pending, and gives the other
// intents, their subjects, and the cost of verifying them.
func (c *crowd) foundMany(groups int) (subjects []string, all [][]byte, verifying cost) {
	c.t.Helper()
	end := c.verdicts() + int64(groups)
	for range groups {
		subject, messages := c.found()
		c.publish(kindIntent, messages[0])
		for _, m := range messages[1:] {
			subjects, all = append(subjects, subject), append(all, m)
		}
		one := measureCost(func() { c.verify(messages[1:]) })
		verifying.wall, verifying.cpu = verifying.wall+one.wall, verifying.cpu+one.cpu
	}
	c.poll(time.Millisecond, "the groups are in memory", func() bool { return c.verdicts() >= end })
	c.noWork()
	return subjects, all, verifying
}

// cost is what something took: by the clock, and of processors.
type cost struct{ wall, cpu time.Duration }

type costs []cost

func measureCost(do func()) cost {
	cpu := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begin, used := time.Now(), cpu()
	do()
	return cost{time.Since(begin), cpu() - used}
}

// rate is the median by second, of n things each.
func (c costs) rate(n int) float64 {
	var rates []float64
	for _, one := range c {
		rates = append(rates, float64(n)/one.wall.Seconds())
	}
	return median(rates)
}

// cpu is the median processor time in microseconds.
func (c costs) cpu() float64 {
	var all []time.Duration
	for _, one := range c {
		all = append(all, one.cpu)
	}
	return micros(quantile(0.5, all))
}

// verdicts is how many intents were found to be valid, and stored as such.
func (w *world) verdicts() int64 {
	return w.broker.metrics.snapshot()["events."+intents.StatePending]
}
