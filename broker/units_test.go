package broker

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
)

func TestTimersKeepOneTimeForEachGroup(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	w := timers{clock: func() time.Time { return at(0) }}
	key := func(s string) groupKey { return groupKey{"t", s} }
	w.set(key("a"), at(5))
	w.set(key("b"), at(3))
	w.set(key("c"), at(4))
	w.set(key("a"), at(1))
	w.sooner(key("b"), at(9)) // later: no change
	w.sooner(key("c"), at(2))
	w.set(key("d"), at(1))
	w.set(key("d"), time.Time{})
	w.set(key("e"), time.Time{})
	w.sooner(key("b"), time.Time{})
	w.sooner(key("e"), time.Time{})
	if got := w.due(at(0)); got != nil {
		t.Errorf("due at 0: %v", got)
	}
	if got := fmt.Sprint(w.due(at(2))); got != fmt.Sprint([]groupKey{key("a"), key("c")}) {
		t.Errorf("due at 2: %v", got)
	}
	if got := fmt.Sprint(w.due(at(9))); got != fmt.Sprint([]groupKey{key("b")}) {
		t.Errorf("due at 9: %v", got)
	}
	if len(w.byKey) != 0 || len(w.heap) != 0 {
		t.Errorf("left over: %v", w.byKey)
	}
}

// The groups in memory stay within the budget: the least recently used of the
// fullest partition goes first, and never the one in hand.
func TestLoadedGroupsAreBounded(t *testing.T) {
	b := &Broker{}
	for p := range 2 {
		b.all = append(b.all, newOwner(b, nil, p))
	}
	policy := &intents.Policy{}
	add := func(p int, s string) groupKey {
		k := groupKey{"t", s}
		b.all[p].groups.add(&group{key: k, state: intents.NewState(policy, []byte(s))})
		b.trim(k)
		return k
	}
	b.opts.CacheBytes = 1 << 30
	add(0, "a")
	one := b.cached.Load()
	b.opts.CacheBytes = 3 * one
	add(0, "b")
	add(0, "a") // used again
	add(1, "c")
	inHand := add(1, "d")
	for _, test := range []struct {
		p    int
		name string
		want bool
	}{{0, "a", true}, {0, "b", false}, {1, "c", true}, {1, "d", true}} {
		if got := b.all[test.p].groups.get(groupKey{"t", test.name}) != nil; got != test.want {
			t.Errorf("%s is in memory: %v", test.name, got)
		}
	}
	b.opts.CacheBytes = 1
	b.trim(inHand)
	if b.all[1].groups.get(inHand) == nil || b.cached.Load() > 2*one {
		t.Errorf("%d bytes, the group in hand: %v", b.cached.Load(), b.all[1].groups.get(inHand))
	}
	for _, o := range b.all {
		o.groups.clear()
	}
	if n := b.cached.Load(); n != 0 {
		t.Errorf("%d bytes of nothing", n)
	}
}

// What is known of open groups is as new as the ledger's revision: what comes late
// opens a group at most.
func TestOpenGroupsCountIntents(t *testing.T) {
	var s openGroups
	a, b := groupKey{"t", "a"}, groupKey{"t", "b"}
	for _, step := range []struct {
		what  string
		do    func()
		open  []groupKey
		count int
	}{
		{"nothing is known", func() { s.set(a, false, 0, 9) }, nil, 0},
		{"owners open groups", func() { s.set(a, true, 3, 4); s.set(b, true, 2, 5) }, []groupKey{a, b}, 5},
		{"an owner counts again", func() { s.set(a, true, 1, 4) }, []groupKey{a, b}, 3},
		{"an owner that was replaced closes", func() { s.set(a, false, 0, 3) }, []groupKey{a, b}, 3},
		{"the ledger is read late", func() { s.learn(a, false, 3) }, []groupKey{a, b}, 3},
		{"another revision is noted", func() { s.note(a, 6); s.note(a, 2) }, []groupKey{a, b}, 3},
		{"one that was replaced by it closes", func() { s.set(a, false, 0, 5) }, []groupKey{a, b}, 3},
		{"an owner that does not know it counts", func() { s.set(a, true, 4, 5) }, []groupKey{a, b}, 6},
		{"and closes", func() { s.set(a, false, 0, 5) }, []groupKey{a, b}, 6},
		{"the revision is closed", func() { s.set(a, false, 0, 6) }, []groupKey{b}, 2},
		{"a revision of nothing is noted", func() { s.note(a, 7) }, []groupKey{b}, 2},
		{"the ledger opens", func() { s.learn(a, true, 7) }, []groupKey{a, b}, 3},
		{"the ledger closes", func() { s.learn(a, false, 8) }, []groupKey{b}, 2},
		{"the ledger lost its end", func() { s.forgetRevisions(); s.learn(b, false, 1) }, nil, 0},
	} {
		step.do()
		have := s.list()
		slices.SortFunc(have, func(x, y groupKey) int { return strings.Compare(x.group, y.group) })
		if groups, n := s.count(); !slices.Equal(have, step.open) || n != step.count || groups != len(step.open) || s.ofTenant("t") != n {
			t.Errorf("%s: %v and %d open intents, want %v and %d", step.what, have, n, step.open, step.count)
		}
		if s.has(a) != slices.Contains(step.open, a) {
			t.Errorf("%s: a is open: %t", step.what, s.has(a))
		}
	}
}

// The stored form of the ledger does not change: this is what older versions
// have written.
func TestLedgerIsFrozen(t *testing.T) {
	r := remembered{Version: 1, Open: true, Position: 42, Truncated: true, Receipts: []intents.Record{{
		ID: strings.Repeat("ab", 32), State: intents.StateRemoved, Mode: "sender_removal_only", SenderIndex: 3,
		Gone: []mlscore.LeafIndex{3}, Received: time.Date(2026, 11, 22, 12, 0, 0, 5, time.UTC), VerifiedEpoch: 7, RemovedEpoch: 9,
		Commit: strings.Repeat("cd", 32), Confirmed: true,
	}}}
	want := bytes.TrimSpace(must[[]byte](t)(os.ReadFile("testdata/ledger-2026-11-22.json")))
	if got := must[[]byte](t)(json.Marshal(r)); !bytes.Equal(got, want) {
		t.Errorf("ledger entry\n%s\nwant\n%s", got, want)
	}
	back := must[remembered](t)(decodeRemembered(want))
	if fmt.Sprint(back) != fmt.Sprint(r) {
		t.Errorf("%+v, want %+v", back, r)
	}
	if _, err := decodeRemembered([]byte(`{"version":2}`)); err == nil {
		t.Error("a later version is read")
	}
}

// The ledger of a group with too many receipts keeps the newest.
func TestLedgerIsBounded(t *testing.T) {
	var r remembered
	for i := range 5000 {
		r.Receipts = append(r.Receipts, intents.Record{ID: fmt.Sprintf("%064d", i), State: intents.StateRemoved})
	}
	r.truncate()
	if b := must[[]byte](t)(json.Marshal(r)); len(b) > maxReceiptBytes+10_000 || !r.Truncated {
		t.Errorf("%d bytes", len(b))
	}
	if _, ok := r.find(fmt.Sprintf("%064d", 4999)); !ok {
		t.Error("the newest is gone")
	}
	if _, ok := r.find(fmt.Sprintf("%064d", 0)); ok {
		t.Error("the oldest is there")
	}
	r = remembered{Receipts: []intents.Record{{ID: "removed", State: intents.StateRemoved}}}
	for i := range 1000 {
		r.Receipts = append(r.Receipts, intents.Record{ID: fmt.Sprint(i), State: intents.StateRejected})
	}
	r.truncate()
	if _, ok := r.find("removed"); !ok || len(r.Receipts) != maxRejected+1 || r.Receipts[maxRejected].ID != "999" || !r.Truncated {
		t.Errorf("%d receipts", len(r.Receipts))
	}
}

// Of two writers of the ledger, the second learns that it is late.
func TestLedgerComparesAndSwaps(t *testing.T) {
	_, js, nc := testServer(t)
	ctx := testContext(t)
	a := testAssets(1)
	kv, err := ensureAll(ctx, a, js)
	if err != nil {
		t.Fatal(err)
	}
	l, k := records{kv: kv, nc: nc, api: "$JS.API."}, groupKey{"acme", "Zw"}
	none, err := l.get(ctx, k)
	if err != nil || none.rev != 0 {
		t.Fatalf("%+v %v", none, err)
	}
	first, err := l.put(ctx, k, none, remembered{Version: 1, Open: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.put(ctx, k, none, remembered{Version: 1}); !errors.Is(err, errConflict) {
		t.Errorf("made twice: %v", err)
	}
	if _, err := l.put(ctx, k, first, remembered{Version: 1, Open: true, Position: 1}); err != nil {
		t.Error(err)
	}
	if _, err := l.put(ctx, k, first, remembered{Version: 1}); !errors.Is(err, errConflict) {
		t.Errorf("an old revision: %v", err)
	}
	found := 0
	if err := l.scan(ctx, "acme.*", func(groupKey, remembered) { found++ }); err != nil || found != 1 {
		t.Errorf("%d found, %v", found, err)
	}
}

func TestOptionsAreValidated(t *testing.T) {
	signer := must[mlscore.Signer](t)(mlscore.GenerateSigner(mlscore.Ed25519, rand.Reader))
	good := func() Options {
		return Options{Tenants: []Tenant{{Name: "a", Signers: []mlscore.Signer{signer}}}, Embedded: Embedded{StateDir: t.TempDir()}}
	}
	for name, change := range map[string]func(*Options){
		"prefix":       func(o *Options) { o.Prefix = "a.b" },
		"partitions":   func(o *Options) { o.Partitions = maxPartitions + 1 },
		"no tenant":    func(o *Options) { o.Tenants = nil },
		"tenant twice": func(o *Options) { o.Tenants = append(o.Tenants, o.Tenants[0]) },
		"tenant name":  func(o *Options) { o.Tenants[0].Name = "A" },
		"no signer":    func(o *Options) { o.Tenants[0].Signers = nil },
		"no burst":     func(o *Options) { o.Tenants[0].Quotas.IntentsPerSecond = 1 },
		"intent size":  func(o *Options) { o.Limits.IntentBytes = 2 << 20 },
		"message size": func(o *Options) { o.Limits.MessageBytes = maxMessageBytes + 1 },
		"object size":  func(o *Options) { o.Limits.ObjectBytes = defaultMessageBytes - 1 },
		"large object": func(o *Options) { o.Limits.ObjectBytes = maxObjectBytes + 1 },
		"cache":        func(o *Options) { o.CacheBytes = -1 },
		"entries":      func(o *Options) { o.CompactEntries = -1 },
		"interval":     func(o *Options) { o.CompactInterval = -time.Second },
		"pin":          func(o *Options) { o.PinTTL = time.Millisecond },
		"ack wait":     func(o *Options) { o.AckWait = time.Millisecond },
		"events":       func(o *Options) { o.EventsMaxAge = time.Second },
		"no state":     func(o *Options) { o.Embedded.StateDir = "" },
		"version":      func(o *Options) { o.Version = "devel" },
	} {
		o := good()
		change(&o)
		if b, err := New(o); err == nil {
			b.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	b := must[*Broker](t)(New(good()))
	if err := b.Ready(); err == nil {
		t.Error("ready before Run")
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
