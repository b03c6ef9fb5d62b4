package broker

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
)

// The simulation plays histories: the messages of one group, as real members
// made them, published to a simulated server, on which several instances run the
// broker's own code. A seed decides everything: what the members do, which of
// them lie, when each read and write of each instance takes place, which are
// lost before or after they are stored, who crashes and who only stands still,
// what clocks and the Authentication Service say. After each step the invariants
// of sim_check_test.go hold.
//
//	sim_server_test.go    the server: log, ledger, events, consumer
//	sim_instance_test.go  an instance, cut into tasks that stop at each read and write
//	sim_script_test.go    what is published, and the truth about it
//	sim_author_test.go    honest members and the delivery service
//	sim_actors_test.go    what they all do, and those who lie
//	sim_check_test.go     the invariants
//
// LEAVEBROKER_SIM=histories=100000,seed=1 plays more than the default, and
// LEAVEBROKER_SIM=histories=1,seed=42 one again, printed with -v; scripts=300
// sets how many scripts there are.

// simSize says what to play.
type simSize struct{ histories, seed, scripts uint64 }

func simSizeOf(t *testing.T) simSize {
	size := simSize{histories: 700, seed: 1, scripts: 48}
	if testing.Short() {
		size.histories = 100
	}
	for _, word := range strings.FieldsFunc(os.Getenv("LEAVEBROKER_SIM"), func(r rune) bool { return r == ',' }) {
		key, value, _ := strings.Cut(word, "=")
		n, err := strconv.ParseUint(value, 10, 64)
		field := map[string]*uint64{"histories": &size.histories, "seed": &size.seed, "scripts": &size.scripts}[key]
		if err != nil || field == nil {
			t.Fatalf("LEAVEBROKER_SIM: %q", word)
		}
		*field = n
	}
	return size
}

func TestSimulation(t *testing.T) {
	size := simSizeOf(t)
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // there is little to collect, and much that is short-lived
	scripts := map[uint64]*simScript{}
	var total simCounts
	failed := 0
	for seed := size.seed; seed < size.seed+size.histories; seed++ {
		number := seed % size.scripts
		if scripts[number] == nil {
			scripts[number] = writeScript(t, number)
		}
		s := newSimulation(scripts[number], seed)
		s.play()
		total.add(&s.counts)
		if s.failure == "" && !(testing.Verbose() && size.histories == 1) {
			continue
		}
		again := newSimulation(scripts[number], seed)
		again.recording = true
		again.play()
		if failed == 0 { // one is enough to read
			t.Log("\n" + strings.Join(again.lines, "\n"))
		}
		if s.failure == "" {
			continue
		}
		t.Errorf("%s\nagain: LEAVEBROKER_SIM=histories=1,seed=%d,scripts=%d go test -run TestSimulation ./broker", s.failure, seed, size.scripts)
		if failed++; failed >= 20 {
			break
		}
	}
	t.Logf("seeds %d to %d: %s", size.seed, size.seed+size.histories-1, total)
}

// simCounts says what the histories contained.
type simCounts struct {
	histories, messages, tasks, faults, crashes, takeovers, powerLosses, outputs, conflicts, zombies, astray, doubtful, quiet, snapshots, purged, stale int
}

func (c *simCounts) add(d *simCounts) {
	c.histories++
	for _, f := range [][2]*int{
		{&c.messages, &d.messages}, {&c.tasks, &d.tasks}, {&c.faults, &d.faults}, {&c.crashes, &d.crashes}, {&c.takeovers, &d.takeovers},
		{&c.powerLosses, &d.powerLosses}, {&c.outputs, &d.outputs}, {&c.conflicts, &d.conflicts}, {&c.zombies, &d.zombies}, {&c.astray, &d.astray},
		{&c.doubtful, &d.doubtful}, {&c.quiet, &d.quiet}, {&c.snapshots, &d.snapshots}, {&c.purged, &d.purged}, {&c.stale, &d.stale},
	} {
		*f[0] += *f[1]
	}
}

func (c simCounts) String() string {
	return fmt.Sprintf("%d histories, %d messages, %d tasks, %d faults, %d crashes, %d takeovers, %d power losses, %d outputs, %d refused writes, "+
		"%d outputs of stale owners, %d removals that were meant for another line, %d intents held since their leaf came back, %d times at rest, %d snapshots, %d entries purged, %d stale answers",
		c.histories, c.messages, c.tasks, c.faults, c.crashes, c.takeovers, c.powerLosses, c.outputs, c.conflicts, c.zombies, c.astray, c.doubtful, c.quiet, c.snapshots, c.purged, c.stale)
}

// simulation is one history.
type simulation struct {
	script    *simScript
	random    *rand.Rand
	server    *simServer
	instances []*simInstance
	started   int
	running   *simTask
	turns     int
	trouble   int         // how many of a thousand reads and writes fail
	compacts  bool        // logs are compacted
	split     bool        // servers are cut off from each other
	behind    *simReplica // the last one that was; nil: none
	taken     uint64      // outputs up to here are acknowledged by the delivery service
	authority simAuthority
	next      int // step of the script
	serial    int
	checks

	recording bool
	lines     []string
	failure   string
	counts    simCounts
}

func newSimulation(script *simScript, seed uint64) *simulation {
	s := &simulation{
		script: script, random: rand.New(rand.NewPCG(seed, 3)), server: newSimServer(names{prefix: defaultPrefix, partitions: 1}),
		authority: simAuthority{unrelated: map[[2]string]bool{}, associated: map[string]bool{}, wronged: map[string]bool{}},
	}
	s.trouble = []int{0, 30, 100, 250}[s.random.IntN(4)]
	s.authority.flaky = s.random.IntN(2) == 0
	s.authority.wrong = s.random.IntN(8) == 0
	s.compacts = s.random.IntN(2) == 0
	s.split = s.random.IntN(2) == 0
	s.checks.begin(s)
	return s
}

// note writes a line of the history.
func (s *simulation) note(format string, args ...any) {
	if s.recording {
		s.lines = append(s.lines, fmt.Sprintf(format, args...))
	}
}

// fail ends the history.
func (s *simulation) fail(format string, args ...any) {
	if s.failure == "" {
		s.failure = fmt.Sprintf(format, args...)
		s.note("FAILED: %s", s.failure)
	}
}

func short(id string) string { return id[:min(len(id), 8)] }

// describe is what a message of the broker's says.
func (s *simulation) describe(what kind, data []byte) string {
	if !s.recording {
		return ""
	}
	switch what {
	case kindRemoval:
		out, leaves := readOutput(data)
		return fmt.Sprintf(": epoch %d, leaves %v", out.Epoch, leaves)
	case kindAnswer, kindControl:
		return ": " + string(data)
	}
	return ""
}

// play plays the script to its end, then to rest.
func (s *simulation) play() {
	defer func() {
		for len(s.instances) > 0 {
			s.crash(s.instances[0])
		}
	}()
	for range 1 + s.random.IntN(2) {
		s.start()
	}
	pace := 1 + s.random.IntN(30) // of a hundred turns, how many publish
	for s.next < len(s.script.steps) && s.failure == "" {
		if s.random.IntN(100) < pace {
			s.publishNext()
		} else {
			s.turn()
		}
	}
	for n := s.random.IntN(100); n > 0 && s.failure == ""; n-- {
		s.turn()
	}
	s.rest()
	s.checkRest()
	s.checkFresh()
}

// publishNext publishes the next step of the script. A commit that refers to our
// removals comes after them.
func (s *simulation) publishNext() {
	step := &s.script.steps[s.next]
	if len(step.needs) > 0 && !s.allOut(step) {
		s.rest()
		s.checkRest()
		if s.failure != "" {
			return
		}
		for _, message := range step.echo { // whom the broker was told are unrelated, or it is in doubt
			s.publish(kindProposal, message, "the delivery service has a removal by another holder of our key")
		}
	}
	s.publish(step.kind, step.data, step.text)
	s.next++
	s.published(step)
}

// publish stores a message as a publisher does, who may hear nothing, and whose
// message IDs others may have taken.
func (s *simulation) publish(what kind, data []byte, text string) {
	s.counts.messages++
	for {
		s.serial++
		id := fmt.Sprint("message ", s.serial)
		if s.random.IntN(50) == 0 {
			s.server.publish(simKey, kindProposal, []byte("squatted"), id)
			s.note("somebody takes the message ID %q", id)
		}
		seq, ok := s.server.publish(simKey, what, data, id)
		if ok && s.random.IntN(20) == 0 {
			seq, ok = s.server.publish(simKey, what, data, id) // the acknowledgement was lost
		}
		if ok {
			s.note("%s (seq %d)", text, seq)
			return
		}
	}
}

// turn lets one thing happen.
func (s *simulation) turn() {
	if len(s.instances) == 0 {
		s.start()
	}
	s.turns++
	if s.split && (s.behind == nil || s.behind.until <= s.turns) && s.random.IntN(50) == 0 {
		s.note("a server is cut off that led")
		s.behind = s.server.fallBehind()
		s.behind.until = s.turns + 1 + s.random.IntN(300)
	}
	s.server.now = s.server.now.Add(time.Duration(s.random.IntN(500)) * time.Millisecond)
	in := s.instances[s.random.IntN(len(s.instances))]
	c := &s.server.consumer
	switch n := s.random.IntN(1000); {
	case n < 550:
		s.goOn()
	case n < 780:
		if c.pinned == nil {
			c.pinTo(in)
		}
		to := c.pinned
		if len(to.inbox) == 0 || s.random.IntN(6) == 0 {
			to.send()
		}
		if !to.busy() && s.random.IntN(6) > 0 {
			s.receive(to)
		}
	case n < 810:
		if !in.busy() {
			s.receive(in)
		}
	case n < 830:
		if !in.busy() {
			in.wakeDue()
		}
	case n < 880:
		if !in.busy() {
			in.runSpawned()
		}
	case n < 912:
		in.watch(min(in.watched+1, len(s.server.ledger)))
	case n < 926:
		if s.compacts && in.frozen <= s.turns {
			in.compact()
		}
	case n < 940:
		if !in.busy() && in.frozen <= s.turns {
			in.begin("a checkpoint", func() { _ = in.o.checkpoint(in.b.work) })
		}
	case n < 960 && s.trouble > 0:
		s.takeOver(in)
	case n < 965:
		if len(s.instances) < 4 {
			s.start()
		}
	default:
		s.disturb(n, in)
	}
}

// receive lets an instance work on a message, unless it stands still.
func (s *simulation) receive(in *simInstance) {
	if in.frozen <= s.turns && in.receive() {
		s.counts.tasks++
	}
}

// takeOver pins the partition to an instance. Often it is because the one before
// stands still, and wakes later.
func (s *simulation) takeOver(in *simInstance) {
	c := &s.server.consumer
	s.counts.takeovers++
	s.note("the server pins the partition to %s", in.name)
	if old := c.pinned; old != nil && old != in && s.random.IntN(2) == 0 {
		old.frozen = s.turns + s.random.IntN(400)
		s.note("instance %s stands still", old.name)
	}
	c.pinTo(in)
}

// another is an instance other than one.
func (s *simulation) another(than *simInstance) *simInstance {
	for _, in := range s.instances {
		if in != than && in.frozen <= s.turns {
			return in
		}
	}
	return s.start()
}

// disturb lets something rare happen.
func (s *simulation) disturb(n int, in *simInstance) {
	c := &s.server.consumer
	switch {
	case s.trouble == 0:
	case n < 972:
		s.counts.crashes++
		s.crash(in)
	case n < 978:
		in.clockBy += time.Duration(s.random.IntN(7200)-3600) * time.Second
		s.note("the clock of %s jumps to %s", in.name, in.clockBy)
	case n < 981:
		s.server.now = s.server.now.Add(time.Duration(s.random.IntN(7200)-3600) * time.Second)
		s.note("the server's clock jumps to %s", s.server.now)
	case n < 985 && s.next > 0:
		step := s.script.steps[s.random.IntN(s.next)]
		s.publish(step.kind, step.data, "again: "+step.text)
	case n < 990:
		c.reset(c.back(1 + s.random.IntN(3)))
		s.note("the server was killed: it delivers again after seq %d", c.floor)
	case n < 992:
		s.losePower()
	case n < 993:
		s.note("another server leads the consumer")
		c.elect()
	case n < 996 && s.next > 0:
		in.b.timers.sooner(simKey, in.b.opts.Clock())
	}
}

// losePower ends everybody, and the ends of what the server stored apart from
// the log.
func (s *simulation) losePower() {
	s.counts.powerLosses++
	s.behind = nil
	for len(s.instances) > 0 {
		s.crash(s.instances[0])
	}
	s.server.loseLedger(s.random.IntN(1 + min(6, len(s.server.ledger))))
	c := &s.server.consumer
	c.reset(c.back(s.random.IntN(4)))
	c.pinned = nil
	s.note("the server loses power: revision %d of the ledger is the last, it delivers after seq %d", len(s.server.ledger), c.floor)
}

// goOn lets a task that stopped go on; what it was about to do may fail.
func (s *simulation) goOn() {
	var ready []*simTask
	for _, in := range s.instances {
		for _, t := range in.tasks {
			if in.frozen <= s.turns && (!t.asking || !in.busy()) {
				ready = append(ready, t)
			}
		}
	}
	if len(ready) == 0 {
		return
	}
	t := ready[s.random.IntN(len(ready))]
	if t.at == "output" && s.trouble > 0 && s.random.IntN(6) == 0 {
		s.takeOver(s.another(t.in)) // at the worst moment
		t.in.frozen = s.turns + 200 + s.random.IntN(400)
		return
	}
	var fault error
	if s.random.IntN(1000) < s.trouble && !t.asking {
		s.counts.faults++
		fault = fmt.Errorf("%w: lost", errUnavailable)
		s.note("%s fails at: %s", t.in.name, t.at)
	} else {
		s.note("%s goes on at: %s", t.in.name, t.at)
	}
	s.resume(t, fault)
}

// simAuthority is the Authentication Service: two members belong together whose
// credentials are equal. It may fail, know nobody, leave members undecided, and
// change its mind.
type simAuthority struct {
	flaky, wrong bool
	unrelated    map[[2]string]bool // it ever said so: intent and key
	associated   map[string]bool    // it ever said so, though it is not so: key
	wronged      map[string]bool    // intents about which it ever said so
}

func (s *simulation) associate(q intents.Question) (intents.Answer, error) {
	a, r := &s.authority, s.random
	answer := intents.Answer{Intent: q.Intent, Epoch: q.Epoch, Status: intents.StatusResolved, Revision: "r1"}
	if a.flaky {
		switch r.IntN(8) {
		case 0:
			return intents.Answer{}, errTest
		case 1:
			answer.Status = intents.StatusUnknown
			return answer, nil
		}
	}
	for _, c := range q.Candidates {
		same := string(c.Credential.Identity) == string(q.Sender.Credential.Identity)
		says := same
		if a.wrong && r.IntN(10) == 0 {
			says = !same
		}
		switch {
		case a.flaky && r.IntN(10) == 0:
			answer.Undecided = append(answer.Undecided, c.Leaf)
		case says:
			answer.Associated = append(answer.Associated, c.Leaf)
		default:
			answer.Unrelated = append(answer.Unrelated, c.Leaf)
		}
		if says != same {
			s.note("the Authentication Service is wrong about leaf %d", c.Leaf)
			a.wronged[q.Intent] = true
			if same {
				a.unrelated[[2]string{q.Intent, string(c.SignatureKey)}] = true
			} else {
				a.associated[string(c.SignatureKey)] = true
			}
		}
	}
	return answer, nil
}

// readOutput gives an output and the leaves that it removes.
func readOutput(data []byte) (out intents.Output, leaves []mlscore.LeafIndex) {
	if json.Unmarshal(data, &out) != nil {
		return out, nil
	}
	for _, b := range out.Proposals {
		if m, err := mlscore.ParseMLSMessage(b, nil); err == nil && m.PublicMessage != nil && m.PublicMessage.Content.Proposal != nil {
			leaves = append(leaves, m.PublicMessage.Content.Proposal.Removed)
		}
	}
	slices.Sort(leaves)
	return out, leaves
}
