package intents_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"leavebroker/intents"
)

// folded is a State after each entry of a log, and what each reported.
type folded struct {
	log     []intents.Input
	states  []*intents.State
	notices [][]intents.Notice
}

func foldAll(s *intents.State, log []intents.Input) folded {
	f := folded{log: log}
	for _, in := range log {
		var notices []intents.Notice
		s, notices = s.Step(in)
		f.states, f.notices = append(f.states, s), append(f.notices, notices)
	}
	return f
}

// unplaced is a log whose removals have no positions.
func unplaced(log []intents.Input) []intents.Input {
	log = slices.Clone(log)
	for i := range log {
		if log[i].Kind == intents.KindRemoval {
			log[i].Seq = 0
		}
	}
	return log
}

// checkSnapshots folds a log, stores the State at some places and folds what
// comes after the positions of these over what was restored. From there on the
// two are one. Where removals are in their places, so are their notices.
func (w *world) checkSnapshots(name string, log []intents.Input, inOrder bool, places int) {
	w.t.Helper()
	whole := foldAll(intents.NewState(w.policy, groupID), log)
	random := rand.New(rand.NewPCG(uint64(len(log)), 7))
	for range places {
		w.checkSnapshot(name, whole, random.IntN(len(log)), inOrder)
	}
}

func (w *world) checkSnapshot(name string, whole folded, at int, inOrder bool) {
	w.t.Helper()
	data, position, ok := whole.states[at].Snapshot()
	if !ok {
		return
	}
	w.snapshots++
	if again, _, _ := whole.states[at].Snapshot(); !bytes.Equal(again, data) {
		w.t.Fatalf("%s: the same State is stored in other bytes", name)
	}
	stored := bytes.Clone(data)
	s := must[*intents.State](w.t)(intents.RestoreState(w.policy, groupID, stored))
	clear(stored) // nothing points into it
	if s.Position() != position {
		w.t.Fatalf("%s: position %d, want %d", name, s.Position(), position)
	}
	if again, _, ok := s.Snapshot(); !ok || !bytes.Equal(again, data) {
		w.t.Fatalf("%s: a restored State is stored in other bytes", name)
	}
	for i, in := range whole.log {
		removal := in.Kind == intents.KindRemoval
		if in.Seq <= position && (!removal || i <= at) {
			continue
		}
		var notices []intents.Notice
		s, notices = s.Step(in)
		if removal && i <= at && len(notices) == 0 {
			continue // the State knew it already
		}
		if got, want := jsonOf(w.t, notices), jsonOf(w.t, whole.notices[i]); got != want && inOrder {
			w.t.Fatalf("%s: from position %d, entry %d (%s) reports\n%s\nwant\n%s", name, position, in.Seq, in.Kind, got, want)
		}
		if i < at {
			continue
		}
		if got, want := describe(s, in.Time), describe(whole.states[i], in.Time); got != want {
			w.t.Fatalf("%s: stored at %d, from position %d, entry %d (%s) leads elsewhere: %s", name, whole.log[at].Seq, position, in.Seq, in.Kind,
				firstDifference(strings.ReplaceAll(got, ",", "\n"), strings.ReplaceAll(want, ",", "\n")))
		}
	}
	if !inOrder {
		return // what cannot be staged is out, or not, by what came first
	}
	got, gotPosition, gotOK := s.Snapshot()
	want, wantPosition, wantOK := whole.states[len(whole.states)-1].Snapshot()
	if !bytes.Equal(got, want) || gotPosition != wantPosition || gotOK != wantOK {
		w.t.Fatalf("%s: stored at %d, the end is stored as %d bytes of position %d (%t), want %d of %d (%t)", name, whole.log[at].Seq,
			len(got), gotPosition, gotOK, len(want), wantPosition, wantOK)
	}
}

func jsonOf(t testing.TB, v any) string { return string(must[[]byte](t)(json.Marshal(v))) }

// storedWorld is a State with something of everything that a snapshot holds.
func storedWorld(t testing.TB) *world {
	w := newWorld(t, 1)
	for _, line := range []string{
		"create alice/1 bob alice/2 carol dave", "info bob", "commit dave", "intent b by=bob", "commit carol", "intent a mode=2 by=alice/1",
		"intent d by=dave", "act", "answer a associated=2 undecided=1 unrelated=3,4", "update carol", "commit carol", "alter p of=d ref=32",
		"submit p", "commit alice/2 refs=none", "act", "commit alice/2 refs=none",
	} {
		w.command(strings.Fields(line))
	}
	return w
}

func snapshotOf(t testing.TB, s *intents.State) []byte {
	t.Helper()
	data, _, ok := s.Snapshot()
	if !ok {
		t.Fatal("no snapshot can be taken")
	}
	return data
}

// Every field of what is stored is stored or derived: whoever adds one has to
// say which, at Snapshot.
func TestNoFieldIsForgotten(t *testing.T) {
	want := map[string]int{"State": 41, "record": 21, "association": 11, "parkedIntent": 7, "output": 3, "departure": 5, "life": 2}
	if got := intents.Fields(); !maps.Equal(got, want) {
		t.Errorf("fields %v, want %v", got, want)
	}
}

// A group whose members commit has a snapshot after each commit, from just
// before it.
func TestEveryCommitGivesASnapshot(t *testing.T) {
	w := newWorld(t, 1)
	for _, line := range []string{"create alice bob carol", "info alice"} {
		w.command(strings.Fields(line))
		if _, _, ok := w.state.Snapshot(); ok {
			t.Errorf("%s: a snapshot of what no member has signed over", line)
		}
	}
	for _, name := range []string{"alice", "bob", "alice", "carol"} {
		w.command([]string{"commit", name})
		if _, position, ok := w.state.Snapshot(); !ok || position != w.seq-1 {
			t.Errorf("commit of position %d: snapshot %t of %d", w.seq, ok, position)
		}
	}
}

func TestSpoiledSnapshotsAreRefused(t *testing.T) {
	w := storedWorld(t)
	data := snapshotOf(t, w.state)
	refused := func(what string, b []byte, class error) {
		t.Helper()
		if _, err := intents.RestoreState(w.policy, groupID, b); !errors.Is(err, class) {
			t.Errorf("%s: %v, want %v", what, err, class)
		}
	}
	for n := range data {
		refused(fmt.Sprintf("the first %d bytes", n), data[:n], intents.ErrSnapshot)
		if n >= sha256.Size {
			refused(fmt.Sprintf("the first %d bytes with a checksum", n), summed(data[:n-sha256.Size]), intents.ErrSnapshot)
		}
	}
	for bit := range 8 * len(data) {
		spoiled := bytes.Clone(data)
		spoiled[bit/8] ^= 1 << (bit % 8)
		refused(fmt.Sprintf("bit %d", bit), spoiled, intents.ErrSnapshot)
	}
	if _, err := intents.RestoreState(w.policy, []byte("other"), data); !errors.Is(err, intents.ErrSnapshot) {
		t.Errorf("for another group: %v", err)
	}
	body := data[:len(data)-sha256.Size]
	refused("one byte more", summed(append(bytes.Clone(body), 0)), intents.ErrSnapshot)
	body[1]++
	refused("version 2", summed(body), intents.ErrSnapshotVersion)
}

// summed is a body with the checksum that it should have.
func summed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return append(slices.Clip(body), sum[:]...)
}

// The policy is not stored: a restored State does what the new one says.
func TestRestoredUnderAnotherPolicy(t *testing.T) {
	w := newWorld(t, 1)
	for _, line := range []string{"create alice bob carol", "info alice", "commit alice", "intent b by=bob", "commit alice refs=none", "commit alice refs=none"} {
		w.command(strings.Fields(line))
	}
	policy := *w.policy
	policy.SenderKeys = nil
	s := must[*intents.State](t)(intents.RestoreState(&policy, groupID, snapshotOf(t, w.state)))
	if due := s.Due(w.now); due.Propose != nil {
		t.Errorf("proposes without a key: %+v", due.Propose)
	}
	s = must[*intents.State](t)(intents.RestoreState(w.policy, groupID, snapshotOf(t, w.state)))
	if due := s.Due(w.now); due.Propose == nil {
		t.Error("proposes nothing")
	}
}

// frozenSnapshot was written on the day in its name. It is never written again:
// a new version gets a file of its own.
const frozenSnapshot = "testdata/snapshots/2026-11-27-v1.bin"

var freeze = flag.Bool("freeze", false, "write the snapshot of today into testdata/snapshots")

func TestFrozenSnapshot(t *testing.T) {
	w := storedWorld(t)
	if *freeze {
		if err := os.WriteFile(frozenSnapshot, snapshotOf(t, w.state), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data := must[[]byte](t)(os.ReadFile(frozenSnapshot))
	s := must[*intents.State](t)(intents.RestoreState(w.policy, groupID, data))
	if !bytes.Equal(snapshotOf(t, s), data) {
		t.Error("it is stored in other bytes now")
	}
	w.lines, w.state = nil, s
	w.command([]string{"records"})
	w.printf("epoch=%d position=%d proposals=%d", s.Group().Epoch(), s.Position(), len(s.Pending().Proposals))
	want := must[[]byte](t)(os.ReadFile(strings.TrimSuffix(frozenSnapshot, "bin") + "txt"))
	if got := strings.Join(w.lines, "\n") + "\n"; got != string(want) {
		t.Errorf("it holds\n%s\nwant\n%s", got, want)
	}
}

// FuzzRestoreState: whatever has the right checksum is refused with its class,
// or is a State that can be asked, followed and stored, and costs no more than it
// is long.
func FuzzRestoreState(f *testing.F) {
	frozen := must[[]byte](f)(os.ReadFile(frozenSnapshot))
	f.Add(frozen[:len(frozen)-sha256.Size], false)
	// The group inside is fuzzed by itself: here it may be taken as it is.
	inner := bytes.LastIndex(frozen, []byte("\x00\x01\x00\x01\x00\x01\x05group"))
	if inner < 0 {
		f.Fatal("no group in the frozen snapshot")
	}
	f.Add(frozen[:inner], true)
	policy := newWorld(f, 1).policy
	f.Fuzz(func(t *testing.T, body []byte, outer bool) {
		if outer {
			body = slices.Concat(body, frozen[inner:len(frozen)-sha256.Size])
		}
		data := summed(body)
		var s *intents.State
		var err error
		allocated := allocatedBy(func() { s, err = intents.RestoreState(policy, groupID, data) })
		if limit := uint64(128<<10 + 100*len(data)); allocated > limit {
			t.Errorf("%d bytes for %d", allocated, len(data))
		}
		if err != nil {
			if !errors.Is(err, intents.ErrSnapshot) && !errors.Is(err, intents.ErrSnapshotVersion) {
				t.Errorf("an error of another class: %v", err)
			}
			return
		}
		now := time.Unix(1<<31, 0).UTC()
		_ = s.Records()
		_, _, _ = s.Due(now), s.Pending(), s.Size()
		again := snapshotOf(t, s)
		other, err := intents.RestoreState(policy, groupID, again)
		if err != nil || !bytes.Equal(snapshotOf(t, other), again) {
			t.Errorf("it cannot be stored again: %v", err)
		}
		s.Step(intents.Input{Seq: 1 << 62, Time: now, Kind: intents.KindClosed, Data: []byte("{}")})
	})
}

// allocatedBy is the bytes that a function allocates, with what others do
// meanwhile.
func allocatedBy(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
