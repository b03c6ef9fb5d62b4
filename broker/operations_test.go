package broker

import (
	"slices"
	"strings"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// sharedName is the members' side of sameName.
func sharedName(g *mlscore.PublicGroup, sender mlscore.LeafIndex) (same []mlscore.LeafIndex, known bool) {
	user := func(leaf *mlscore.LeafNode) string {
		name, _, _ := strings.Cut(string(leaf.Credential.Identity), "/")
		return name
	}
	for index, leaf := range g.Tree().All() {
		if index != sender && user(leaf) == user(g.Tree().Leaf(sender)) {
			same = append(same, index)
		}
	}
	return same, true
}

// newOperationWorld has clients and a tenant that know LeafOperationProposals
// and share an Authentication Service.
func newOperationWorld(t *testing.T, body intents.Body, form intents.Form) (*world, intents.CodePoints) {
	points := intents.DefaultCodePoints()
	points.Body = body
	w := newWorld(t, func(o *Options) {
		p := &o.Tenants[0]
		p.AuthService, p.Policy.SharedAssociation, p.Policy.Form, p.Policy.CodePoints = sameName{}, true, form, points
	})
	w.registry = mlscore.DefaultRegistry()
	w.registry.Custom = []mlscore.CustomProposal{points.CustomProposal()}
	w.associate = sharedName
	return w, points
}

// awaitOperation waits for an output of the epoch with one LeafOperationProposal.
func (w *world) awaitOperation(epoch uint64) [][]byte {
	w.t.Helper()
	var messages [][]byte
	w.eventually("a LeafOperationProposal", func() bool {
		messages = nil
		for _, out := range w.outputs() {
			if out.Epoch == epoch {
				messages = append(messages, out.Proposals...)
			}
		}
		return len(messages) > 0
	})
	if len(messages) != 1 {
		w.t.Fatalf("%d proposals in epoch %d", len(messages), epoch)
	}
	m := must[*mlscore.MLSMessage](w.t)(mlscore.ParseMLSMessage(messages[0], w.registry))
	if got := m.PublicMessage.Content.Proposal.Type; got != intents.DefaultProposalType {
		w.t.Fatalf("a proposal of type %s", got)
	}
	return messages
}

// In the form of LeafOperationProposals one message removes all of a user, the
// broker knows its own, before and after a restart, and says what it did.
func TestLeafOperationForm(t *testing.T) {
	for _, body := range []intents.Body{intents.BodyRaw, intents.BodyOpaque} {
		t.Run(body.String(), func(t *testing.T) {
			w, _ := newOperationWorld(t, body, intents.FormLeafOperation)
			w.found("alice/1", "bob/1", "carol/1", "bob/2")
			w.submit(w.leave(1, intents.RemoveAssociatedMembers))
			w.awaitOperation(w.epoch())
			w.restart()
			w.empty(0) // leaves it out
			w.fanOut(w.awaitOperation(w.epoch()))
			w.commit(2, member.CommitOptions{})
			w.agree(0, 2)
			if e := w.await("removed", ofType(intents.StateRemoved, "")); !slices.Equal(e.Leaves, []mlscore.LeafIndex{1, 3}) {
				t.Errorf("removed: %+v", e)
			}
			w.empty(0)
			w.await("confirmed", ofType(intents.NoticeConfirmed, ""))
		})
	}
}

// A joiner includes what group.pending gives.
func TestJoinerIncludesPending(t *testing.T) {
	w, _ := newOperationWorld(t, intents.BodyRaw, intents.FormRemove)
	w.found("alice/1", "bob/1", "carol/1", "bob/2", "dave")
	w.propose(must[[]byte](t)(w.members[4].Propose(mlscore.NewSelfRemove(w.registry))), 4)
	w.submit(w.leave(1, intents.RemoveAssociatedMembers))
	w.awaitOutput(w.epoch(), 1, 3)
	var pending intents.Pending
	if err := w.api("group.pending", map[string][]byte{"group_id": w.groupID}, &pending); err != nil {
		t.Fatal(err)
	}
	if len(pending.LeafOperationProposals) != 1 || len(pending.SelfRemoves) != 1 || len(pending.Proposals) != 2 || pending.Epoch != w.epoch() {
		t.Fatalf("pending: %+v", pending)
	}
	info := must[[]byte](t)(w.any().GroupInfo())
	leaf := w.joinWith("erin", info, member.ExternalJoinOptions{LeafOperations: pending.LeafOperationProposals, Pending: pending.SelfRemoves})
	w.agree(0, leaf, 2)
	if e := w.await("removed", ofType(intents.StateRemoved, "")); !slices.Equal(e.Leaves, []mlscore.LeafIndex{1, 3}) {
		t.Errorf("removed: %+v", e)
	}
}

// Members commit the LeafOperationProposal of an intent that the broker never
// got: it asks as they did, and goes on.
func TestCommitWithForeignIntent(t *testing.T) {
	w, points := newOperationWorld(t, intents.BodyRaw, intents.FormRemove)
	w.found("alice/1", "bob/1", "carol/1", "bob/2")
	w.submit(w.leave(2, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 2)
	in := must[*intents.LeafOperationIntent](t)(intents.ParseMessage(w.intent(1, intents.RemoveAssociatedMembers), intents.DefaultWireFormat))
	w.commit(0, member.CommitOptions{References: [][]byte{}, Proposals: []*mlscore.Proposal{
		points.Proposal(&intents.LeafOperationProposal{Intent: in}),
	}})
	w.fanOut(w.awaitOutput(w.epoch(), 2))
	w.restart()
	w.commit(0, member.CommitOptions{})
	w.agree(0)
	w.await("removed", ofType(intents.StateRemoved, ""))
}
