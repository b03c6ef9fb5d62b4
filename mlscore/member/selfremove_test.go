package member

import (
	"slices"
	"testing"

	"leavebroker/mlscore"
)

// TestProposalsThatAMemberDoesNotSupport has SelfRemove and Replace proposed in
// a group in which one does not know them: committers and joiners leave them
// out, or nobody could commit any more.
func TestProposalsThatAMemberDoesNotSupport(t *testing.T) {
	w := newWorld(t, 1)
	reg := mlscore.DefaultRegistry()
	w.create(3, nil)
	deaf := w.client()
	caps := DefaultCapabilities(reg)
	caps.Proposals = nil
	deaf.Capabilities = &caps
	k := must[*KeyPackage](t)(deaf.NewKeyPackage(forever))
	commit := w.commit(w.members[0], CommitOptions{Proposals: []*mlscore.Proposal{Add(k.KeyPackage)}})
	w.members = append(w.members, must[*Group](t)(k.Join(commit.Welcome, nil)))

	leave := must[[]byte](t)(w.members[1].Propose(mlscore.NewSelfRemove(reg)))
	w.send(leave, w.members[1])
	leaf, _, err := w.members[2].freshLeaf(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.send(must[[]byte](t)(w.members[0].Propose(mlscore.NewReplace(reg, 2, leaf))), w.members[0])
	w.joinExternal(w.client(), ExternalJoinOptions{Pending: [][]byte{leave}})
	w.agree()

	w.send(must[[]byte](t)(w.members[1].Propose(mlscore.NewSelfRemove(reg))), w.members[1])
	commit = w.commit(w.members[0], CommitOptions{})
	if len(commit.Staged.Applied) != 0 {
		t.Errorf("%d proposals are committed", len(commit.Staged.Applied))
	}
	w.agree()

	// Without the one who does not know them, they go.
	w.commit(w.members[0], CommitOptions{Proposals: []*mlscore.Proposal{Remove(3)}})
	w.send(must[[]byte](t)(w.members[1].Propose(mlscore.NewSelfRemove(reg))), w.members[1])
	commit = w.commit(w.members[0], CommitOptions{})
	if !slices.Equal(commit.Staged.Removed, []mlscore.LeafIndex{1}) {
		t.Errorf("removed %v", commit.Staged.Removed)
	}
	w.agree()
}
