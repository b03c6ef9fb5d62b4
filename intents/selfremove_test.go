package intents_test

import (
	"slices"
	"strings"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// Where one member does not know SelfRemove, no commit can contain one while
// that member stays: it neither suppresses our Remove nor goes to joiners.
func TestSelfRemoveThatNoCommitCanContain(t *testing.T) {
	for _, capable := range []bool{true, false} {
		w := newWorld(t, 1)
		if !capable {
			caps := member.DefaultCapabilities(mlscore.DefaultRegistry())
			caps.Proposals = nil
			w.client("carol").Capabilities = &caps
		}
		for _, line := range []string{
			"policy info_trust=ds", "create alice bob carol", "info alice", "intent b by=bob", "selfremove bob",
		} {
			w.command(strings.Fields(line))
		}
		order := w.state.Due(w.now).Propose
		pending := w.state.Pending()
		if suppressed := order == nil; suppressed != capable {
			t.Errorf("capable: %t, order: %v", capable, order)
		}
		if !capable && !slices.Equal(order.Leaves, []mlscore.LeafIndex{1}) {
			t.Errorf("order of leaves %v", order.Leaves)
		}
		if n := len(pending.SelfRemoves); (n == 1) != capable || n != len(pending.MustReference) {
			t.Errorf("capable: %t, pending: %d SelfRemoves, %d to refer to", capable, n, len(pending.MustReference))
		}
	}
}
