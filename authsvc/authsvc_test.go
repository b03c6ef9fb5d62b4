package authsvc_test

import (
	"strings"
	"testing"

	"leavebroker/authsvc"
)

func TestRelate(t *testing.T) {
	alice, bob := resolved("alice"), resolved("bob")
	unknown, failed := authsvc.Result{Status: authsvc.Unknown}, authsvc.Result{Status: authsvc.Error}
	// What a broken adapter may give; none of it may associate anybody.
	blank, none, stray := resolved(""), authsvc.Result{}, authsvc.Result{Status: authsvc.Unknown, Subject: "alice"}
	for _, c := range []struct {
		sender, other authsvc.Result
		want          authsvc.Relation
	}{
		{alice, alice, authsvc.Associated},
		{alice, bob, authsvc.Unrelated},
		{alice, unknown, authsvc.Unrelated},
		{alice, stray, authsvc.Unrelated},
		{alice, failed, authsvc.Undecided},
		{alice, none, authsvc.Undecided},
		{alice, blank, authsvc.Undecided},
		{alice, resolved("Alice"), authsvc.Unrelated},
		{alice, resolved("alice "), authsvc.Unrelated},
		{unknown, unknown, authsvc.Undecided},
		{unknown, alice, authsvc.Undecided},
		{stray, alice, authsvc.Undecided},
		{failed, failed, authsvc.Undecided},
		{blank, blank, authsvc.Undecided},
		{none, none, authsvc.Undecided},
	} {
		if got := authsvc.Relate(c.sender, c.other); got != c.want {
			t.Errorf("sender %+v, other %+v: relation %d, want %d", c.sender, c.other, got, c.want)
		}
	}
}

// TestAnswerHash: every part of an answer counts, and no two parts can be
// exchanged.
func TestAnswerHash(t *testing.T) {
	answers := []authsvc.Answer{
		{},
		{Revision: "1"},
		{Results: []authsvc.Result{{}}},
		{Results: []authsvc.Result{{Status: "1"}}},
		{Results: []authsvc.Result{{Subject: "1"}}},
		{Results: []authsvc.Result{{Reason: "1"}}},
		{Results: []authsvc.Result{resolved("a"), resolved("b")}},
		{Results: []authsvc.Result{resolved("b"), resolved("a")}},
		{Results: []authsvc.Result{resolved("ab"), resolved("")}},
		{Results: []authsvc.Result{resolved("\xff"), resolved("b")}},
		{Results: []authsvc.Result{resolved("\xfe"), resolved("b")}},
	}
	seen := map[string]int{}
	for i, a := range answers {
		h := a.Hash()
		if len(h) != 64 || strings.ToLower(h) != h || h != a.Hash() {
			t.Errorf("answer %d: hash %q", i, h)
		}
		if other, dup := seen[h]; dup {
			t.Errorf("answers %d and %d have one hash", other, i)
		}
		seen[h] = i
	}
}

func resolved(subject string) authsvc.Result {
	return authsvc.Result{Status: authsvc.Resolved, Subject: subject}
}
