package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"leavebroker/broker/delivery"
)

// latencyKind is what a latency is of.
type latencyKind int

// The latencies. Each begins when the publishing or the request begins, at this
// end, and a distribution is complete: nothing waits for a step before it.
const (
	commitStored        latencyKind = iota // commit or external commit: until the log has acknowledged it
	intentVerdict                          // intent: until the broker's verdict
	intentRemoval                          // intent: until the first removal is here
	commitRemoval                          // commit: until the removal for the epoch that it began is here
	commitRemovalStored                    // commit: until that is stored, by the server's clock
	intentGone                             // intent: until a commit without the leaf is stored
	stepLate                               // a step: how late this program began it
	latencyKinds
)

var latencyNames = [latencyKinds]string{
	"commit_stored", "intent_verdict", "intent_first_removal", "commit_removal", "commit_removal_stored", "intent_gone", "step_late",
}

var latencyWords = [latencyKinds]string{
	"commit stored", "intent to verdict", "intent to first removal", "commit to its removal", "commit to its removal, stored",
	"intent to leaf gone", "steps late",
}

const (
	// latencyMost and latencyDigits are the range of what is told apart, in
	// microseconds and significant figures.
	latencyMost   = int64(10 * time.Minute / time.Microsecond)
	latencyDigits = 2
	// loadSlots divides the time of a plot.
	loadSlots = 60
)

// loadReport counts and measures.
type loadReport struct {
	result loadResult // what one goroutine at a time sets; the rest is below

	steps, commits, joins, removals, reproposals, stale, others, gone, accepted, refused, receipts, retries, idle atomic.Int64

	mu        sync.Mutex
	start     time.Time     // of the measuring; zero: not yet
	slot      time.Duration // of the plot
	intents   int64
	verdicts  map[string]int64
	latencies [latencyKinds]latencies
}

// loadResult is what load prints with -o json.
type loadResult struct {
	Profile string  `json:"profile"`
	Suite   uint16  `json:"cipher_suite"`
	Seed    uint64  `json:"seed"`
	Brokers int     `json:"brokers"` // processes; 0: in this one, or elsewhere
	Groups  int     `json:"groups"`
	Members int     `json:"members"`
	Known   int     `json:"known"`
	Pending int     `json:"pending"`
	Rate    float64 `json:"rate"` // steps a second that were wanted

	PrepareSeconds float64 `json:"prepare_seconds"`
	KnownSeconds   float64 `json:"known_seconds"`
	PendingSeconds float64 `json:"pending_seconds"`
	Seconds        float64 `json:"seconds"` // from the first step until everybody is gone

	Steps       int64 `json:"steps"`
	Commits     int64 `json:"commits"` // of the load's groups, joins among them
	Joins       int64 `json:"joins"`
	Intents     int64 `json:"intents"`
	Refused     int64 `json:"refused"`     // intents
	Removals    int64 `json:"removals"`    // proposals in time for their epoch
	Reproposals int64 `json:"reproposals"` // those not the first for their leaf
	Stale       int64 `json:"stale"`       // proposals that came when their epoch was over
	Others      int64 `json:"others"`      // proposals for pending groups
	Gone        int64 `json:"gone"`        // leaves
	Unfinished  int64 `json:"unfinished"`  // leaves that are still there
	Receipts    int64 `json:"receipts"`    // intents that the broker says are removed
	Unsettled   int64 `json:"unsettled"`   // intents that it does not
	Retries     int64 `json:"retries"`     // of intents, while the broker could not be reached
	Idle        int64 `json:"idle"`        // steps in groups where nobody was left to leave

	Verdicts  map[string]int64         `json:"verdicts"`
	PerSecond loadRates                `json:"per_second"`
	Latency   map[string]latencyResult `json:"latency_ms"`
	Restart   float64                  `json:"restart_seconds,omitempty"`
	Processes []loadProcess            `json:"processes,omitempty"`
}

// loadRates are things a second, on the average of the time measured.
type loadRates struct {
	Steps    float64 `json:"steps"`
	Commits  float64 `json:"commits"`
	Intents  float64 `json:"intents"`
	Removals float64 `json:"removals"`
}

// latencyResult is what is told of one kind of latency, in milliseconds.
type latencyResult struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// latencies are all of one kind, and those of each slot of the time.
type latencies struct {
	all   *hdrhistogram.Histogram
	slots []*hdrhistogram.Histogram
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, latencyMost, latencyDigits) }

func newLoadReport(o *loadOptions) *loadReport {
	r := &loadReport{verdicts: map[string]int64{}, result: loadResult{
		Profile: o.profile.name, Suite: o.suite, Seed: o.seed, Brokers: o.brokers, Groups: o.groups, Members: o.members,
		Known: o.known, Pending: o.pending, Rate: o.rate,
	}}
	expected := o.duration
	if o.profile.steps != nil && !o.profile.lasts {
		expected = min(expected, time.Duration(float64(o.profile.steps(o))/o.rate*float64(time.Second)))
	}
	r.slot = max(expected/loadSlots, 10*time.Millisecond)
	for i := range r.latencies {
		r.latencies[i].all = newHistogram()
	}
	return r
}

// begin begins the measuring: what was counted so far was preparation.
func (r *loadReport) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commits.Store(0)
	r.others.Store(0)
	r.start = time.Now()
}

func (r *loadReport) finish() { r.result.Seconds = seconds(time.Since(r.start)) }

// latency takes one latency.
func (r *loadReport) latency(kind latencyKind, from, to time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.start.IsZero() {
		return
	}
	us := min(max(to.Sub(from).Microseconds(), 0), latencyMost)
	l := &r.latencies[kind]
	_ = l.all.RecordValue(us) // in range
	at := max(int(to.Sub(r.start)/r.slot), 0)
	for at >= len(l.slots) {
		l.slots = append(l.slots, nil)
	}
	if l.slots[at] == nil {
		l.slots[at] = newHistogram()
	}
	_ = l.slots[at].RecordValue(us)
}

// verdict takes a verdict on an intent that was handed over at a time.
func (r *loadReport) verdict(v *delivery.Verdict, handed time.Time) {
	r.latency(intentVerdict, handed, time.Now())
	state := v.State
	if v.Reason != "" {
		state += ": " + v.Reason
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.intents++
	r.verdicts[state]++
}

// sum completes the result.
func (r *loadReport) sum() *loadResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.result
	s.Steps, s.Commits, s.Joins, s.Idle = r.steps.Load(), r.commits.Load(), r.joins.Load(), r.idle.Load()
	s.Intents, s.Refused, s.Verdicts, s.Retries = r.intents, r.refused.Load(), r.verdicts, r.retries.Load()
	s.Removals, s.Reproposals, s.Stale, s.Others = r.removals.Load(), r.reproposals.Load(), r.stale.Load(), r.others.Load()
	s.Gone, s.Receipts = r.gone.Load(), r.receipts.Load()
	s.Unsettled = r.accepted.Load() - s.Receipts
	s.PerSecond = loadRates{rate(s.Steps, s.Seconds), rate(s.Commits, s.Seconds), rate(s.Intents, s.Seconds), rate(s.Removals, s.Seconds)}
	s.Latency = map[string]latencyResult{}
	for kind, name := range latencyNames {
		if h := r.latencies[kind].all; h.TotalCount() > 0 {
			s.Latency[name] = latencyResult{
				Count: h.TotalCount(), P50: milliseconds(h.ValueAtPercentile(50)), P90: milliseconds(h.ValueAtPercentile(90)),
				P99: milliseconds(h.ValueAtPercentile(99)), Max: milliseconds(h.Max()),
			}
		}
	}
	return s
}

// good says whether every intent was taken, everybody who left is gone, and the
// broker knows.
func (r *loadResult) good() bool { return r.Unfinished == 0 && r.Refused == 0 && r.Unsettled == 0 }

func rate(n int64, seconds float64) float64 {
	if seconds == 0 {
		return 0
	}
	return float64(int64(float64(n)/seconds*100)) / 100
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

func milliseconds(us int64) float64 { return float64(us) / 1000 }

// print writes the result for people.
func (r *loadResult) print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%s: %d groups of %d, %d known, %d pending; prepared in %.1f s\n",
		r.Profile, r.Groups, r.Members, r.Known, r.Pending, r.PrepareSeconds+r.KnownSeconds+r.PendingSeconds)
	fmt.Fprintf(t, "%d steps in %.1f s: %d commits (%d joins), %d intents, %d removals (%d again), %d leaves gone, %d not\n",
		r.Steps, r.Seconds, r.Commits, r.Joins, r.Intents, r.Removals, r.Reproposals, r.Gone, r.Unfinished)
	fmt.Fprintf(t, "per second: %.1f steps, %.1f commits, %.1f intents, %.1f removals\n\n",
		r.PerSecond.Steps, r.PerSecond.Commits, r.PerSecond.Intents, r.PerSecond.Removals)
	fmt.Fprint(t, "milliseconds\tcount\tp50\tp90\tp99\tmax\t\n")
	for kind, name := range latencyNames {
		if l, ok := r.Latency[name]; ok {
			fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t\n", latencyWords[kind], l.Count, l.P50, l.P90, l.P99, l.Max)
		}
	}
	fmt.Fprintln(t)
	for _, p := range r.Processes {
		fmt.Fprintf(t, "%s: %.0f MiB, at most %.0f MiB; %.1f s of CPU\n", p.Name, p.RSS, p.PeakRSS, p.CPU)
	}
	if r.Restart > 0 {
		fmt.Fprintf(t, "the brokers were ready %.1f s after their restart\n", r.Restart)
	}
	return t.Flush()
}
