package intents_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore/member"
)

// TestLongBursts: external joiners prove nothing, and there may be any number of
// them in a row. The removal is proposed in every epoch, and there is a way back
// from any of the last ones, and from all of them.
func TestLongBursts(t *testing.T) {
	w := newWorld(t, 1)
	play := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			w.command(strings.Fields(line))
		}
	}
	play("create alice bob carol mallory", "info alice", "commit alice", "intent b by=bob", "lies mallory refs=none")
	if r, _ := w.state.Intent(w.idOf("b")); r.State != intents.StatePending {
		t.Fatalf("%+v", r)
	}
	play("false-join eve at=mallory")
	for range intents.MaxUnproven + 50 {
		play("false-join eve at=eve resync=yes")
		if epochs, _ := intents.Kept(w.state); epochs > intents.MaxUnproven+2 {
			t.Fatalf("%d epochs are kept", epochs)
		}
		if due := w.state.Due(w.now).Propose; due == nil || len(due.Leaves) != 1 || due.Leaves[0] != 1 {
			t.Fatalf("proposes %+v in epoch %d", due, w.state.Group().Epoch())
		}
	}
	// The line forks near its end.
	w.lines = nil
	info := must[[]byte](t)(w.liars["eve"].GroupInfo())
	join := func(name string, info []byte) *member.Group {
		g, commit, err := w.client(name).JoinExternal(info, member.ExternalJoinOptions{Resync: true})
		if err != nil {
			t.Fatal(err)
		}
		w.feed(intents.KindCommit, commit.Message)
		return g
	}
	join("frank", info)
	join("grace", must[[]byte](t)(join("grace", info).GroupInfo()))
	if !strings.Contains(fmt.Sprint(w.lines), "diverged (reverted)") {
		t.Errorf("the deeper line is not followed: %q", w.lines)
	}
	// All of it was a lie.
	play("commit carol refs=none", "update alice")
	if got, want := w.state.Group().ContextBytes(), w.any().Public().ContextBytes(); !bytes.Equal(got, want) {
		t.Fatalf("epoch %d, want %d", w.state.Group().Epoch(), w.any().Epoch())
	}
	play("act")
	if due := w.state.Due(w.now).Propose; due != nil {
		t.Errorf("proposes %+v again", due)
	}
	w.checkReplays()
}

// TestFloods: what competes costs no more than what is kept of it, and what says
// nothing new is not kept.
func TestFloods(t *testing.T) {
	w := newWorld(t, 1)
	for _, line := range []string{"create alice bob mallory", "info alice", "commit alice", "intent b by=bob"} {
		w.command(strings.Fields(line))
	}
	for range 100 {
		w.command(strings.Fields("lie mallory refs=none"))
	}
	epochs, inputs := intents.Kept(w.state)
	if want := 2 + intents.MaxRivals; epochs != want || inputs != want-1 {
		t.Errorf("%d epochs and %d inputs are kept, want %d and %d", epochs, inputs, want, want-1)
	}
	w.forge("x", "b")
	for range 100 {
		w.feed(intents.KindIntent, w.signed["b"])
		w.feed(intents.KindIntent, w.signed["x"])
		w.feed(intents.KindInfo, []byte("garbage"))
		w.command([]string{"garbage", "commit"})
	}
	if _, again := intents.Kept(w.state); again != inputs {
		t.Errorf("%d inputs are kept that say nothing new", again-inputs)
	}
}

// TestHeardIsBounded: whoever floods a group that nobody described fills no memory,
// and has no more of it than that a replay puts the base in doubt.
func TestHeardIsBounded(t *testing.T) {
	w := newWorld(t, 1)
	w.command(strings.Fields("create alice bob carol"))
	w.command(strings.Fields("commit alice to=members"))
	for _, line := range []string{"join dora to=members", "join erin to=members"} {
		w.command(strings.Fields(line))
	}
	flood := func(n int) []byte { // each another commit
		tag := w.lastTag(w.kept)
		message := bytes.Clone(w.kept)
		binary.BigEndian.PutUint32(message[bytes.Index(message, tag)+1:], uint32(n))
		return message
	}
	for n := range intents.MaxHeard + 1 {
		w.feed(intents.KindCommit, flood(n))
	}
	w.command(strings.Fields("info alice"))
	for n, doubted := range map[int]bool{0: false, intents.MaxHeard - 1: false, intents.MaxHeard: true} {
		_, notices := w.state.Step(intents.Input{Seq: w.state.Position() + 1, Time: w.now, Kind: intents.KindCommit, Data: flood(n)})
		if got := slices.ContainsFunc(notices, func(n intents.Notice) bool { return n.Type == intents.NoticeNeedsGroupInfo }); got != doubted {
			t.Errorf("commit %d puts the base in doubt: %t; %+v", n, got, notices)
		}
	}
}
