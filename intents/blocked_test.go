package intents_test

import (
	"testing"

	"leavebroker/intents"
)

// TestBlockedCommitIsGivenUp: what waits behind a commit whose association
// nobody tells is bounded in number and in size. Then the commit is missed, and
// a GroupInfo bridges.
func TestBlockedCommitIsGivenUp(t *testing.T) {
	for name, flood := range map[string]struct{ n, size int }{"many": {1 << 10, 8}, "large": {8, 1<<20 + 1}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			for _, line := range [][]string{
				{"policy", "info_trust=ds"}, {"operations"}, {"create", "alice/phone", "alice/tablet", "bob", "carol"}, {"info", "bob"},
				{"intent", "c", "by=carol"}, {"sign", "a", "by=alice/phone", "mode=2"}, {"commit", "bob", "operations=a", "refs=none"},
			} {
				w.command(line)
			}
			last := flood.n
			if name == "large" {
				last--
			}
			for range last {
				w.feed(intents.KindProposal, make([]byte, flood.size))
			}
			if due := w.state.Due(w.now); len(due.Ask) != 1 || due.Propose != nil {
				t.Fatalf("before the bound: %+v", due)
			}
			w.lines = nil
			w.feed(intents.KindProposal, make([]byte, flood.size))
			if len(w.lines) == 0 || w.lines[0] != "needs_group_info (unresolvable) epoch=1" {
				t.Fatalf("beyond the bound: %q", w.lines)
			}
			if due := w.state.Due(w.now); len(due.Ask) != 0 || due.Propose != nil {
				t.Errorf("in the gap: %+v", due)
			}
			w.command([]string{"info", "bob"})
			if due := w.state.Due(w.now); due.Propose == nil {
				t.Error("nothing is proposed after the bridge")
			}
		})
	}
}
