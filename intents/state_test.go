package intents_test

import (
	"fmt"
	"testing"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
)

func TestQuestionCheck(t *testing.T) {
	q := intents.Question{Intent: "a", Epoch: 3, Candidates: []intents.Candidate{{Leaf: 1}, {Leaf: 4}, {Leaf: 0xfffffff0}}}
	leaves := func(list ...mlscore.LeafIndex) []mlscore.LeafIndex { return list }
	for _, c := range []struct {
		answer intents.Answer
		ok     bool
	}{
		{intents.Answer{Intent: "a", Epoch: 3, Status: "resolved"}, true},
		{intents.Answer{Intent: "a", Epoch: 3, Status: "resolved", Associated: leaves(4), Unrelated: leaves(0xfffffff0), Undecided: leaves(1)}, true},
		{intents.Answer{Intent: "a", Epoch: 3, Status: "error"}, true},
		{intents.Answer{Intent: "a", Epoch: 3, Status: "unknown"}, true},
		{intents.Answer{Intent: "a", Epoch: 3, Status: "unknown", Unrelated: leaves(1)}, false},
		{intents.Answer{Intent: "a", Epoch: 3, Status: ""}, false},
		{intents.Answer{Intent: "a", Epoch: 2, Status: "resolved"}, false},
		{intents.Answer{Intent: "b", Epoch: 3, Status: "resolved"}, false},
		{intents.Answer{Intent: "a", Epoch: 3, Status: "resolved", Associated: leaves(2)}, false},
		{intents.Answer{Intent: "a", Epoch: 3, Status: "resolved", Associated: leaves(1), Unrelated: leaves(1)}, false},
	} {
		if err := q.Check(c.answer); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.answer, err)
		}
	}
}

// TestReceiptsExpire: ended intents are forgotten after their time, open ones
// never.
func TestReceiptsExpire(t *testing.T) {
	w := newWorld(t, 1)
	w.policy.InfoTrustDS = true
	w.policy.ReceiptTTL = time.Hour
	for _, line := range [][]string{{"create", "alice", "bob"}, {"info", "alice"}, {"intent", "b", "by=bob"}} {
		w.command(line)
	}
	refused := func(n int) {
		for i := range n {
			w.alter("x", map[string]string{"of": "b", "group": fmt.Sprint(w.seq, i)})
			w.feed(intents.KindIntent, w.signed["x"])
		}
	}
	refused(100)
	if n := len(w.state.Records()); n != 101 {
		t.Fatalf("%d records, want 101", n)
	}
	w.now = w.now.Add(2 * time.Hour)
	refused(200)
	if n := len(w.state.Records()); n > 201 || n < 2 {
		t.Errorf("%d records, want about 200", n)
	}
	if r, ok := w.state.Intent(w.idOf("b")); !ok || r.State != intents.StatePending {
		t.Errorf("the open intent is %+v", r)
	}
}

// TestPosition: inputs that are behind are ignored, and removals do not move
// the position.
func TestPosition(t *testing.T) {
	w := newWorld(t, 1)
	w.policy.InfoTrustDS = true
	for _, line := range [][]string{{"create", "alice", "bob", "carol"}, {"info", "alice"}, {"intent", "b", "by=bob"}} {
		w.command(line)
	}
	if got := w.state.Position(); got != 2 {
		t.Errorf("position %d, want 2", got)
	}
	w.command([]string{"act"})
	if got := w.state.Position(); got != 2 {
		t.Errorf("position %d after a removal, want 2", got)
	}
	old := w.log[0]
	if next, notices := w.state.Step(old); next != w.state || notices != nil {
		t.Errorf("an input of the past is folded: %v", notices)
	}
}

func TestUnknownIntent(t *testing.T) {
	s := intents.NewState(&intents.Policy{}, []byte("g"))
	for _, id := range []string{"", "x", "00"} {
		if _, ok := s.Intent(id); ok {
			t.Errorf("intent %q is known", id)
		}
	}
	if s.Open() || s.Group() != nil || len(s.Records()) != 0 || !s.Due(time.Unix(0, 0)).Wake.IsZero() {
		t.Error("a new state knows something")
	}
}
