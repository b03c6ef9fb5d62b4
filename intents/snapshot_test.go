package intents_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

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
