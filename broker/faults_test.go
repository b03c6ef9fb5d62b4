package broker

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// writes are the writes that follow from inputs; each can be lost before it is stored,
// and its reply can be lost after.
var writes = []string{"output", "ledger", "events", "answer", "control", "owner", "ack"}

// fault makes the nth write of a kind fail, and, if it crashes, every write
// after it until it is mended.
type fault struct {
	mu      sync.Mutex
	step    string
	n       int
	crashes bool
	hit     bool
	down    bool
}

func (f *fault) inject(step string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return fmt.Errorf("%w: crashed", errUnavailable)
	}
	if step != f.step {
		return nil
	}
	if f.n--; f.n != 0 {
		return nil
	}
	f.hit, f.down = true, f.crashes
	return fmt.Errorf("%w: lost %s", errUnavailable, step)
}

func (f *fault) wasHit() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hit
}

func (f *fault) mend() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = false
}

// Whatever write is lost, wherever the broker stops: no acknowledged intent is
// lost, nobody is proposed twice in an epoch, and exactly the leavers are gone.
func TestFaults(t *testing.T) {
	for _, step := range writes {
		for _, reply := range []string{"", " reply"} {
			for _, n := range []int{1, 2, 4} {
				for _, crashes := range []bool{false, true} {
					rare := step == "answer" || step == "control"
					if n > 1 && (rare || testing.Short()) {
						continue
					}
					name := fmt.Sprintf("%s%s/%d/crash=%v", step, reply, n, crashes)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						playFault(t, &fault{step: step + reply, n: n, crashes: crashes})
					})
				}
			}
		}
	}
}

// playFault plays leavings of both modes, a parked intent that expires, epochs
// that drop proposals, and a last commit, with a fault somewhere.
func playFault(t *testing.T, f *fault) {
	w := newWorld(t, func(o *Options) {
		o.testOnlyFault = f.inject
		o.AckWait, o.PinTTL = 500*time.Millisecond, 500*time.Millisecond
		o.Tenants[0].AuthService = sameName{}
		o.Tenants[0].Policy.ParkTTL = 100 * time.Millisecond
	})
	recover := func() {
		if f.crashes && f.wasHit() && f.isDown() {
			w.stop()
			f.mend()
			w.start()
		}
	}
	w.found("alice/1", "bob/1", "carol/1", "bob/2", "dave/1")
	strange := w.strangeIntent()
	first := w.leave(1, intents.RemoveAssociatedMembers)
	second := w.leave(4, intents.SenderRemovalOnly)
	for _, message := range [][]byte{first, strange, second} {
		w.publish(kindIntent, message)
	}
	await := func(leaves ...mlscore.LeafIndex) [][]byte {
		var messages [][]byte
		w.eventually(fmt.Sprintf("leaves %v are proposed in epoch %d", leaves, w.epoch()), func() bool {
			recover()
			var got []mlscore.LeafIndex
			messages, got = w.proposedIn(w.epoch())
			return slices.Equal(got, leaves)
		})
		return messages
	}
	await(1, 3, 4)
	w.empty(0)
	await(1, 3, 4)
	w.join("erin/1")
	proposals := await(1, 3, 4)
	w.fanOut(proposals)
	delete(w.members, 3)
	w.commit(2, member.CommitOptions{})
	w.agree(0, 2, 5)
	for _, message := range [][]byte{first, second} {
		w.awaitFault(recover, func(e event) bool { return e.Intent == w.id(message) && e.Type == intents.StateRemoved })
	}
	w.awaitFault(recover, func(e event) bool { return e.Intent == w.strangeID(strange) && e.Type == intents.StateExpired })
	w.prove()
	w.awaitFault(recover, func(e event) bool { return e.Intent == w.id(first) && e.Type == intents.NoticeConfirmed })
	w.eventually("the group is closed", func() bool { recover(); n, _ := w.broker.Summary(); return n == 0 })
	w.checkOutputs()
	var r statusReply
	if err := w.api("intent.status", statusRequest{ID: w.id(second)}, &r); err != nil || r.State != intents.StateRemoved || !r.Confirmed {
		t.Errorf("receipt %+v %v", r, err)
	}
	// The state in the log is the state that a fresh broker finds.
	w.restart()
	w.eventually("nothing is open after a restart", func() bool { n, _ := w.broker.Summary(); return n == 0 })
	if !f.wasHit() && f.n > 0 {
		t.Logf("the fault was not reached: %d left", f.n)
	}
}

func (f *fault) isDown() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down
}

func (w *world) awaitFault(recover func(), match func(event) bool) {
	w.t.Helper()
	w.eventually("an event", func() bool {
		recover()
		return slices.ContainsFunc(w.events(), match)
	})
}

// strangeIntent is an intent of a leaf that the group never had.
func (w *world) strangeIntent() []byte {
	w.t.Helper()
	other := *w
	other.members = nil
	other.create("mallory", "trent")
	return other.intent(1, intents.SenderRemovalOnly)
}

func (w *world) strangeID(message []byte) string { return w.id(message) }

// proposedIn are the messages and leaves of an epoch's outputs, in order.
func (w *world) proposedIn(epoch uint64) (messages [][]byte, leaves []mlscore.LeafIndex) {
	w.t.Helper()
	for _, out := range w.outputs() {
		if out.Epoch == epoch {
			for _, b := range out.Proposals {
				messages, leaves = append(messages, b), append(leaves, w.removed(b))
			}
		}
	}
	slices.Sort(leaves)
	return messages, leaves
}

// checkOutputs checks that no leaf is proposed twice in one epoch.
func (w *world) checkOutputs() {
	w.t.Helper()
	seen := map[string]bool{}
	for _, out := range w.outputs() {
		for _, b := range out.Proposals {
			at := fmt.Sprintf("leaf %d in epoch %d", w.removed(b), out.Epoch)
			if seen[at] {
				w.t.Errorf("%s is proposed twice", at)
			}
			seen[at] = true
		}
	}
}

// What clients and operators write through the services, and what the broker
// copies: with a request or reply lost, the outcome is as if nothing was, or the
// caller is told and may repeat it.
func TestServiceFaults(t *testing.T) {
	for _, step := range []string{"submit", "command", "blob"} {
		for _, reply := range []string{"", " reply"} {
			t.Run(step+reply, func(t *testing.T) {
				t.Parallel()
				f := &fault{step: step + reply, n: 1}
				w := newWorld(t, func(o *Options) { o.testOnlyFault = f.inject })
				w.create("alice", "bob", "carol")
				info := must[[]byte](t)(w.any().GroupInfo())
				infos := must[jetstream.ObjectStore](t)(w.js.ObjectStore(testContext(t), w.broker.names.infoBucket()))
				must[*jetstream.ObjectInfo](t)(infos.PutBytes(testContext(t), "info", info))
				w.reference("info", sumOf(info))
				w.empty(0)
				message := w.intent(1, intents.SenderRemovalOnly)
				if v := w.submit(message); v.State != intents.StatePending {
					t.Errorf("submitted: %+v", v)
				}
				w.awaitOutput(w.epoch(), 1)
				stored := 0
				if err := w.store().read(testContext(t), w.store().names.logOf(w.key()), 1, func(e entry) error {
					if bytes.Equal(e.data, message) {
						stored++
					}
					return nil
				}); err != nil || stored != 1 {
					t.Errorf("the intent is %d times in the log: %v", stored, err)
				}
				q := controlRequest{statusRequest: statusRequest{ID: w.id(message)}, Wait: "5s"}
				var v verdict
				err := w.api("intent.cancel", q, &v)
				if step == "command" {
					if err == nil {
						t.Error("the operator is not told")
					}
					err = w.api("intent.cancel", q, &v)
				}
				if err != nil || v.State != intents.StateCancelled {
					t.Errorf("cancelled: %+v %v", v, err)
				}
				if !f.wasHit() {
					t.Error("the fault was not reached")
				}
			})
		}
	}
}

// An acknowledgement follows what it stands for: each write comes after those
// before it in effects.go.
func TestOrderOfEffects(t *testing.T) {
	var mu sync.Mutex
	var order []string
	w := newWorld(t, func(o *Options) {
		o.testOnlyFault = func(step string) error {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, step)
			return nil
		}
	})
	w.found("alice", "bob", "carol")
	w.noWork()
	mu.Lock()
	order = nil
	mu.Unlock()
	w.publish(kindIntent, w.intent(1, intents.SenderRemovalOnly))
	w.noWork()
	mu.Lock()
	defer mu.Unlock()
	want := []string{"output", "output reply", "events", "events reply", "ledger", "ledger reply", "ack", "ack reply"}
	if !slices.Equal(order, want) {
		t.Errorf("effects %q, want %q", order, want)
	}
}

// An input that the broker cannot fold is given up in the end, with an event,
// and what comes after it goes on.
func TestBrokenInputIsGivenUp(t *testing.T) {
	var w *world
	var bad uint64
	var mu sync.Mutex
	w = newWorld(t, func(o *Options) {
		o.testOnlyFault = func(step string) error {
			mu.Lock()
			defer mu.Unlock()
			if step == "ledger" && bad == 0 {
				panic("an invariant does not hold")
			}
			return nil
		}
	})
	w.found("alice", "bob", "carol")
	w.publish(kindIntent, w.intent(1, intents.SenderRemovalOnly))
	w.await("given up", ofType(intents.StateRejected, reasonInternal))
	w.noWork()
	mu.Lock()
	bad = 1
	mu.Unlock()
	w.publish(kindIntent, w.intent(2, intents.SenderRemovalOnly))
	w.await("the next", func(e event) bool { return e.Type == intents.StatePending })
	if n := w.broker.metrics.snapshot()["refused."+reasonInternal]; n != 1 {
		t.Errorf("%d inputs given up", n)
	}
}

var errTest = errors.New("test")

func TestVerbs(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		want   verb
		broken bool
	}{
		"done":          {nil, verbAck, false},
		"refused":       {&refusal{reasonTooLarge, ""}, verbTerm, false},
		"conflict":      {fmt.Errorf("x: %w", errConflict), verbNak, false},
		"unavailable":   {classify(nats.ErrTimeout), verbNak, false},
		"another's":     {errNotOurs, verbNak, false},
		"reset":         {errReset, verbLeave, false},
		"troubled":      {errTroubled, verbAck, false},
		"broken":        {errBroken, verbNak, true},
		"unknown":       {errTest, verbNak, true},
		"shutting down": {classify(contextCanceled()), verbLeave, false},
	} {
		if got := verbFor(test.err); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
		if isBroken(test.err) != test.broken {
			t.Errorf("%s: broken: %v", name, !test.broken)
		}
	}
	if d := nakDelay(1); d != 2*nakFirst {
		t.Errorf("first delay %s", d)
	}
	if d := nakDelay(1 << 60); d != nakMost {
		t.Errorf("last delay %s", d)
	}
}
