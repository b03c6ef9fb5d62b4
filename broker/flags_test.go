package broker

import (
	"bytes"
	"slices"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// What members accept although it is wrong is told once for each message: what
// came while the group had nothing to do, when it has.
func TestFlaggedMessages(t *testing.T) {
	w := newWorld(t, nil)
	w.found("alice", "bob", "carol", "dave")
	selfRemove := must[[]byte](t)(w.members[3].Propose(mlscore.NewSelfRemove(mlscore.DefaultRegistry())))
	remove := must[[]byte](t)(w.members[0].ProposeRemove(3))
	w.propose(selfRemove, 3)
	skipped := w.publish(kindProposal, remove)
	w.deliver(remove, 0)
	w.noWork()
	if events := w.events(); len(events) > 0 {
		t.Errorf("told of a group with nothing to do: %+v", events)
	}

	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)
	w.publish(kindProposal, remove) // an echo
	w.noWork()
	w.restart()
	w.join("erin")
	resync := *w.client("robert")
	resync.Signer = w.members[2].Client().Signer
	_, c, err := resync.JoinExternal(must[[]byte](t)(w.any().GroupInfo()), member.ExternalJoinOptions{Resync: true})
	if err != nil {
		t.Fatal(err)
	}
	commit := w.publish(kindCommit, c.Message)
	w.noWork()
	var flagged []event
	for _, e := range w.events() {
		if e.Type == intents.NoticeFlagged {
			flagged = append(flagged, e)
		}
	}
	if len(flagged) != 2 {
		t.Fatalf("flagged: %+v", flagged)
	}
	if e := flagged[0]; e.Seq != skipped || !slices.Equal(e.Flags, []string{mlscore.FlagRemoveBesideSelfRemove}) || e.Commit != "" {
		t.Errorf("the Remove: %+v", e)
	}
	if e := flagged[1]; e.Seq != commit || !slices.Equal(e.Flags, []string{mlscore.FlagResyncCredential}) || e.Commit == "" {
		t.Errorf("the resync: %+v", e)
	}
	if m := w.broker.metrics.snapshot(); m["events.flagged"] != 1 || m["event_flags."+mlscore.FlagResyncCredential] != 1 {
		t.Errorf("since the restart: %v", m)
	}
}

// A commit that was refused, and that members took, is an alert: here the log
// has it with a signature that is wrong.
func TestStricterThanMembers(t *testing.T) {
	for _, idle := range []bool{false, true} {
		w := newWorld(t, nil)
		w.found("alice", "bob", "carol")
		w.prove()
		submit := func() { w.submit(w.intent(1, intents.SenderRemovalOnly)) }
		if !idle {
			submit()
		}
		message := bytes.Clone(w.commitUnseen(0, member.CommitOptions{References: [][]byte{}}))
		m := must[*mlscore.MLSMessage](t)(mlscore.ParseMLSMessage(message, nil))
		message[bytes.Index(message, m.PublicMessage.Signature)] ^= 1
		refused := w.publish(kindCommit, message)
		next := w.publish(kindCommit, w.commitUnseen(0, member.CommitOptions{References: [][]byte{}}))
		if idle {
			w.noWork()
			submit()
		}
		w.await("refused", followsFrom(refused, intents.NoticeRefused, mlscore.ErrInvalid.Error()))
		w.await("the alert", followsFrom(next, intents.NoticeNeedsGroupInfo, intents.ReasonStricter))
		w.noWork()
		if n := w.broker.metrics.snapshot()["event_reasons."+intents.ReasonStricter]; n != 1 {
			t.Errorf("idle %v: counted %d times", idle, n)
		}
		w.stop()
	}
}
