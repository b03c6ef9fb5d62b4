package broker

import (
	"bytes"
	"slices"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// spoil lets a member make a message that is wrong.
func (w *world) spoil(leaf mlscore.LeafIndex, how member.Mutate, make func(*member.Group) ([]byte, error)) []byte {
	w.t.Helper()
	client := w.members[leaf].Client()
	client.Mutate = &how
	defer func() { client.Mutate = nil }()
	return must[[]byte](w.t)(make(w.members[leaf]))
}

// lie publishes a commit of what is pending, with a confirmation tag that every
// honest member refuses and no observer can check.
func (w *world) lie(leaf mlscore.LeafIndex) (seq uint64) {
	w.t.Helper()
	message := w.spoil(leaf, member.Mutate{Auth: func(a *mlscore.AuthenticatedContent) {
		a.ConfirmationTag = bytes.Clone(a.ConfirmationTag)
		a.ConfirmationTag[0] ^= 1
	}}, func(g *member.Group) ([]byte, error) {
		defer g.DropCommit()
		c, err := g.Commit(member.CommitOptions{})
		if err != nil {
			return nil, err
		}
		return c.Message, nil
	})
	for at, g := range w.members {
		if _, err := g.Process(message); at != leaf && err == nil {
			w.t.Fatalf("leaf %d takes a lie", at)
		}
	}
	return w.publish(kindCommit, message)
}

// forgedInfo is a GroupInfo that a member signed, and changed before.
func (w *world) forgedInfo(leaf mlscore.LeafIndex, change func(*mlscore.GroupInfo)) []byte {
	w.t.Helper()
	return w.spoil(leaf, member.Mutate{GroupInfo: change}, (*member.Group).GroupInfo)
}

// anotherTranscript makes a GroupInfo one of a group that nobody is in.
func anotherTranscript(gi *mlscore.GroupInfo) {
	gi.GroupContext.ConfirmedTranscriptHash = bytes.Clone(gi.GroupContext.ConfirmedTranscriptHash)
	gi.GroupContext.ConfirmedTranscriptHash[0] ^= 1
}

// receipt is what the service says of an intent.
func (w *world) receipt(id string) (r statusReply) {
	w.t.Helper()
	if err := w.api("intent.status", statusRequest{ID: id, GroupID: w.groupID}, &r); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// followsFrom matches an event of a message of the log.
func followsFrom(seq uint64, typ, reason string) func(event) bool {
	return func(e event) bool { return e.Seq == seq && ofType(typ, reason)(e) }
}

// An insider shows the broker a commit that no member takes and that removes
// the leaver. The receipt is not confirmed; when the true line shows, the intent
// is open again, and the removal is proposed until the leaver is really gone.
func TestFalseRemovalIsUndone(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		w := newWorld(t, nil)
		pause := func() {
			if w.noWork(); restarts {
				w.restart()
			}
		}
		w.found("alice", "bob", "mallory", "dave")
		id := w.submit(w.leave(1, intents.SenderRemovalOnly)).ID
		w.fanOut(w.awaitOutput(w.epoch(), 1))
		seq := w.lie(2)
		removed := w.await("removed", followsFrom(seq, intents.StateRemoved, ""))
		pause()
		if r := w.receipt(id); r.State != intents.StateRemoved || r.Confirmed || r.Commit != removed.Commit {
			t.Errorf("after the lie: %+v", r)
		}

		w.empty(0) // what members took for that epoch
		w.await("competing", ofType(intents.NoticeDiverged, intents.ReasonCompeting))
		pause()
		if r := w.receipt(id); r.State != intents.StateRemoved || r.Confirmed {
			t.Errorf("while either may be true: %+v", r)
		}
		w.empty(0)
		e := w.await("reverted", ofType(intents.NoticeDiverged, intents.ReasonReverted))
		if e.Commit != removed.Commit {
			t.Errorf("reverted: commit %s, want %s", e.Commit, removed.Commit)
		}
		again := w.await("pending again", followsFrom(e.Seq, intents.StatePending, ""))
		if again.Intent != id || !slices.Equal(again.Leaves, []mlscore.LeafIndex{1}) {
			t.Errorf("pending again: %+v", again)
		}
		w.awaitOutput(w.epoch(), 1)
		pause()
		w.empty(0)
		pause()
		w.fanOut(w.awaitOutput(w.epoch(), 1))
		w.commit(3, member.CommitOptions{})
		w.agree(0, 2, 3)
		w.empty(0)
		confirmed := w.await("confirmed", ofType(intents.NoticeConfirmed, ""))
		if r := w.receipt(id); !r.Confirmed || r.RemovedEpoch != w.epoch()-1 || r.Commit != confirmed.Commit || r.Commit == removed.Commit {
			t.Errorf("in the end: %+v", r)
		}
		w.noWork()
		w.checkOutputs()
		w.stop()
	}
}

// A GroupInfo that an insider forged replaces nothing that the log shows.
func TestForgedGroupInfos(t *testing.T) {
	w := newWorld(t, nil)
	w.found("alice", "bob", "mallory")
	w.submit(w.leave(1, intents.SenderRemovalOnly))
	w.awaitOutput(w.epoch(), 1)

	seq := w.publish(kindInfo, w.forgedInfo(2, anotherTranscript))
	w.await("diverged", followsFrom(seq, intents.NoticeDiverged, ""))
	w.publish(kindInfo, w.forgedInfo(2, func(gi *mlscore.GroupInfo) {
		anotherTranscript(gi)
		gi.GroupContext.Epoch += 2
	}))
	for range 3 { // through the epoch that was forged
		w.empty(0)
		w.awaitOutput(w.epoch(), 1)
	}
	w.noWork()
	w.checkOutputs()
	for _, e := range w.events() {
		if e.Type == intents.StateHeld || e.Type == intents.NoticeNeedsGroupInfo || e.Epoch > w.epoch() {
			t.Errorf("a forged GroupInfo did that: %+v", e)
		}
	}
	w.fanOut(w.awaitOutput(w.epoch(), 1))
	w.commit(0, member.CommitOptions{})
	w.empty(0)
	w.await("confirmed", ofType(intents.NoticeConfirmed, ""))
}

// A forged GroupInfo may be the first that the broker hears of a group: it is
// believed by nobody, and gives way when a commit contradicts it.
func TestForgedBase(t *testing.T) {
	w := newWorld(t, nil)
	w.create("alice", "bob", "mallory")
	w.publish(kindInfo, w.forgedInfo(2, anotherTranscript))
	if v := w.submit(w.leave(1, intents.SenderRemovalOnly)); v.State != intents.StateHeld || v.Reason != intents.ReasonUnproven {
		t.Errorf("over a forged base: %+v", v)
	}
	w.empty(0)
	w.await("a GroupInfo is asked for", ofType(intents.NoticeNeedsGroupInfo, intents.ReasonUnproven))
	w.info()
	w.noWork()
	if outputs := w.outputs(); len(outputs) > 0 {
		t.Errorf("proposed over what nobody signed: %+v", outputs)
	}
	w.empty(0)
	w.fanOut(w.awaitOutput(w.epoch(), 1))
	w.commit(0, member.CommitOptions{})
	w.agree(0, 2)
	w.await("removed", ofType(intents.StateRemoved, ""))
}

// Commits do not reach the broker. A GroupInfo bridges; what became of the
// leaver's leaf decides about its intent once a member has signed.
func TestGapsAreBridged(t *testing.T) {
	for name, c := range map[string]struct {
		committer mlscore.LeafIndex // of what is missed
		proposals []*mlscore.Proposal
		state     string
		reason    string
		out       []mlscore.LeafIndex
	}{
		"unchanged": {0, nil, intents.StatePending, "", []mlscore.LeafIndex{1}},
		"changed":   {1, nil, intents.StateSuperseded, "", nil},
		"gone":      {0, []*mlscore.Proposal{member.Remove(1)}, intents.StateRemoved, intents.ReasonGap, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.found("alice", "bob", "carol")
			id := w.submit(w.intent(1, intents.SenderRemovalOnly)).ID
			w.awaitOutput(w.epoch(), 1)
			w.commitUnseen(c.committer, member.CommitOptions{References: [][]byte{}, Proposals: c.proposals})
			w.empty(0)
			w.await("a GroupInfo is asked for", ofType(intents.NoticeNeedsGroupInfo, mlscore.ErrAhead.Error()))
			if r := w.receipt(id); r.State != intents.StateHeld || r.Reason != intents.ReasonGap {
				t.Errorf("in the gap: %+v", r)
			}
			w.info()
			w.noWork()
			if r := w.receipt(id); r.State != intents.StateHeld || r.Reason != intents.ReasonUnproven || len(w.outputs()) != 1 {
				t.Errorf("before a member has signed: %+v, %d outputs", r, len(w.outputs()))
			}
			w.empty(2)
			w.noWork()
			if r := w.receipt(id); r.State != c.state || r.Reason != c.reason {
				t.Errorf("after the gap: %+v, want %s %s", r, c.state, c.reason)
			}
			w.awaitOutput(w.epoch(), c.out...)
		})
	}
}
