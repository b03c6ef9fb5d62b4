package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/mlstest"
)

type replayCase struct {
	Case       int
	FirstEpoch uint64 `json:"first_epoch"`
	Commits    uint64
	Log        []struct {
		Kind    string
		Message mlstest.Hex `json:"mls_message"`
	}
}

func replayCases(t testing.TB, file string) []replayCase {
	var cases []replayCase
	mlstest.JSON(t, "replay/"+file, &cases)
	if len(cases) == 0 {
		t.Fatalf("%s is empty", file)
	}
	return cases
}

func (c *replayCase) lines() []string {
	var lines []string
	for _, m := range c.Log {
		lines = append(lines, logLine(m.Message, nil))
	}
	return lines
}

// replayed is a line of output, accepted or refused.
type replayed struct {
	replayAccepted
	Reason, Error string
}

func runReplay(t testing.TB, log string, args ...string) (code int, outcomes []replayed) {
	t.Helper()
	code, out, errOut := run(log, append([]string{"group", "replay", "-"}, args...)...)
	for line := range strings.Lines(out) {
		var r replayed
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		outcomes = append(outcomes, r)
	}
	if code == exitUsage || errOut != "" {
		t.Fatalf("exit code %d: %s", code, errOut)
	}
	return code, outcomes
}

// TestReplayVectors: every line of every log is accepted, and the epochs are
// those that the log says.
func TestReplayVectors(t *testing.T) {
	for _, file := range []string{"commit.json", "handling-commit.json"} {
		for _, c := range replayCases(t, file) {
			name := fmt.Sprintf("%s, case %d", file, c.Case)
			code, outcomes := runReplay(t, strings.Join(c.lines(), ""))
			if code != 0 || len(outcomes) != len(c.Log) {
				t.Errorf("%s: exit code %d, %d lines for %d", name, code, len(outcomes), len(c.Log))
			}
			epoch := c.FirstEpoch
			for i, r := range outcomes {
				if strings.HasSuffix(r.Kind, "commit") {
					epoch++
				}
				if !r.Accepted || r.Line != i+1 || r.Epoch != epoch || r.Members < 1 || len(r.TreeHash) < 64 || len(r.ConfirmedTranscriptHash) < 64 {
					t.Errorf("%s: %+v", name, r)
				}
				if r.Kind != c.Log[i].Kind && !(r.Kind == kindExternalCommit && c.Log[i].Kind == kindCommit) {
					t.Errorf("%s, line %d: kind %s, want %s", name, r.Line, r.Kind, c.Log[i].Kind)
				}
			}
			if epoch != c.FirstEpoch+c.Commits {
				t.Errorf("%s: ends in epoch %d, want %d", name, epoch, c.FirstEpoch+c.Commits)
			}
		}
	}
}

// longCase is the first log with at least two commits, the line numbers of
// which are given, from 0.
func longCase(t testing.TB) (lines []string, commits []int) {
	for _, c := range replayCases(t, "handling-commit.json") {
		commits = nil
		for i, m := range c.Log {
			if m.Kind == kindCommit {
				commits = append(commits, i)
			}
		}
		if len(commits) >= 2 {
			return c.lines(), commits
		}
	}
	t.Fatal("no log with two commits")
	return nil, nil
}

// TestReplayOrder: a commit repeated is stale, a commit left out makes the next
// ones ahead, and neither changes the state.
func TestReplayOrder(t *testing.T) {
	lines, commits := longCase(t)
	_, want := runReplay(t, strings.Join(lines, ""))

	first := commits[0]
	code, got := runReplay(t, strings.Join(slices.Insert(slices.Clone(lines), first+1, lines[first]), ""))
	if code != exitFailure || got[first+1].Accepted || got[first+1].Reason != "stale" {
		t.Errorf("a repeated commit: exit code %d, %+v", code, got[first+1])
	}
	got = slices.Delete(got, first+1, first+2)
	for i := range got {
		got[i].Line = i + 1
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("after a repeated commit: %+v, want %+v", got[i], want[i])
		}
	}

	code, got = runReplay(t, strings.Join(slices.Delete(slices.Clone(lines), first, first+1), ""))
	last := got[len(got)-1]
	if code != exitFailure || last.Accepted || last.Reason != "ahead" || last.Error == "" {
		t.Errorf("after a missing commit: exit code %d, %+v", code, last)
	}
}

// TestReplayRefused: lines that are no log, each between two good ones.
func TestReplayRefused(t *testing.T) {
	g, err := newTestGroup(1, "alice", "bob", "carol")
	if err != nil {
		t.Fatal(err)
	}
	info, err := g.infoWithTree()
	if err != nil {
		t.Fatal(err)
	}
	group, err := mlscore.NewPublicGroup(info, nil, mlscore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	remove := func(leaf mlscore.LeafIndex) []byte {
		b, err := mlscore.ExternalRemove(group, g.broker, leaf)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	blank, err := mlscore.ExternalProposal(group, g.broker, &mlscore.Proposal{Type: mlscore.ProposalTypeRemove, Removed: 3})
	if err != nil {
		t.Fatal(err)
	}
	flipped := remove(2)
	flipped[len(flipped)-1] ^= 1
	private := func(epoch uint64) []byte {
		m := mlscore.MLSMessage{WireFormat: mlscore.WireFormatPrivateMessage, PrivateMessage: &mlscore.PrivateMessage{
			GroupID: group.GroupID(), Epoch: epoch, ContentType: mlscore.ContentTypeCommit,
		}}
		return m.Bytes()
	}
	good := logLine(infoMessage(info), nil)
	for name, c := range map[string]struct{ line, kind, reason string }{
		"not JSON":         {"{\n", kindOther, "malformed"},
		"two values":       {`{"mls_message":"AAE="}{}` + "\n", kindOther, "malformed"},
		"not an object":    {`"AAE="` + "\n", kindOther, "malformed"},
		"no message":       {"{}\n", kindOther, "malformed"},
		"null":             {`{"mls_message":null}` + "\n", kindOther, "malformed"},
		"no base64":        {`{"mls_message":"#"}` + "\n", kindOther, "malformed"},
		"no MLSMessage":    {`{"mls_message":"AAE="}` + "\n", kindOther, "malformed"},
		"truncated":        {logLine(remove(1)[:80], nil), kindOther, "malformed"},
		"an intent":        {logLine([]byte("\x00\x01\xf0\xa1x"), nil), kindOther, "malformed"},
		"a bad signature":  {logLine(flipped, nil), kindProposal, "invalid"},
		"a blank leaf":     {logLine(blank, nil), kindProposal, "invalid"},
		"encrypted":        {logLine(private(7), nil), kindPrivate, "unresolvable"},
		"encrypted, stale": {logLine(private(6), nil), kindPrivate, "stale"},
		"encrypted, ahead": {logLine(private(8), nil), kindPrivate, "ahead"},
	} {
		code, got := runReplay(t, good+c.line+"\n"+logLine(remove(1), nil))
		if code != exitFailure || len(got) != 3 || !got[0].Accepted || !got[2].Accepted || got[2].Line != 4 {
			t.Errorf("%s: exit code %d, %+v", name, code, got)
			continue
		}
		if r := got[1]; r.Accepted || r.Kind != c.kind || r.Reason != c.reason || r.Error == "" || r.Line != 2 {
			t.Errorf("%s: %+v, want kind %s and reason %s", name, r, c.kind, c.reason)
		}
	}
	if code, got := runReplay(t, logLine(remove(1), nil)); code != exitFailure || got[0].Reason != "unresolvable" || got[0].Kind != kindProposal {
		t.Errorf("before any GroupInfo: exit code %d, %+v", code, got)
	}
	if code, got := runReplay(t, ""); code != 0 || got != nil {
		t.Errorf("an empty log: exit code %d, %+v", code, got)
	}
	if code, got := runReplay(t, strings.TrimSuffix(good, "\n")); code != 0 || len(got) != 1 {
		t.Errorf("without a last line end: exit code %d, %+v", code, got)
	}
}

// TestReplaySecondGroupInfo: a later GroupInfo is compared, and becomes the
// state only where messages are known to be missing.
func TestReplaySecondGroupInfo(t *testing.T) {
	g, err := newTestGroup(1, "alice", "bob", "carol")
	if err != nil {
		t.Fatal(err)
	}
	info := func(change func(*mlscore.GroupInfo)) string {
		gi := *g.info
		change(&gi)
		if err := gi.Sign(g.signers[0]); err != nil {
			t.Fatal(err)
		}
		return logLine(infoMessage(&gi), g.tree.Bytes())
	}
	same := info(func(*mlscore.GroupInfo) {})
	epoch := func(n uint64) string { return info(func(gi *mlscore.GroupInfo) { gi.GroupContext.Epoch = n }) }
	private := mlscore.MLSMessage{WireFormat: mlscore.WireFormatPrivateMessage, PrivateMessage: &mlscore.PrivateMessage{
		GroupID: g.info.GroupContext.GroupID, Epoch: 7, ContentType: mlscore.ContentTypeCommit,
	}}
	missing := logLine(private.Bytes(), nil)
	broken := *g.info
	broken.Signature = make([]byte, 64)
	for name, c := range map[string]struct {
		log   []string
		want  []string // reasons; "" accepted
		epoch uint64   // after the last line, if that is accepted
	}{
		"the same":              {[]string{same, same}, []string{"", ""}, 7},
		"the same without tree": {[]string{same, logLine(infoMessage(g.info), nil)}, []string{"", ""}, 7},
		"older":                 {[]string{same, epoch(6)}, []string{"", "stale"}, 0},
		"newer":                 {[]string{same, epoch(8)}, []string{"", "ahead"}, 0},
		"bad signature":         {[]string{same, logLine(infoMessage(&broken), nil)}, []string{"", "invalid"}, 0},
		"another group": {[]string{same, info(func(gi *mlscore.GroupInfo) { gi.GroupContext.GroupID = []byte("x") })},
			[]string{"", "invalid"}, 0},
		"another transcript": {[]string{same, info(func(gi *mlscore.GroupInfo) {
			gi.GroupContext.ConfirmedTranscriptHash = append(make([]byte, 31), 1)
		})}, []string{"", "diverged"}, 0},
		"another confirmation": {[]string{same, info(func(gi *mlscore.GroupInfo) { gi.ConfirmationTag = append(make([]byte, 31), 1) })},
			[]string{"", "diverged"}, 0},
		"across a gap":      {[]string{same, missing, epoch(9), epoch(9)}, []string{"", "unresolvable", "", ""}, 9},
		"only one is taken": {[]string{same, missing, epoch(9), epoch(10)}, []string{"", "unresolvable", "", "ahead"}, 0},
		"a gap, then stale": {[]string{same, missing, epoch(6)}, []string{"", "unresolvable", "stale"}, 0},
		"a bad one first":   {[]string{logLine(infoMessage(&broken), g.tree.Bytes()), same}, []string{"invalid", ""}, 7},
		"no tree first":     {[]string{logLine(infoMessage(g.info), nil), same}, []string{"unresolvable", ""}, 7},
	} {
		_, got := runReplay(t, strings.Join(c.log, ""))
		var reasons []string
		for _, r := range got {
			reasons = append(reasons, r.Reason)
		}
		if !slices.Equal(reasons, c.want) {
			t.Errorf("%s: reasons %q, want %q: %+v", name, reasons, c.want, got)
		} else if last := got[len(got)-1]; last.Accepted && last.Epoch != c.epoch {
			t.Errorf("%s: epoch %d, want %d", name, last.Epoch, c.epoch)
		}
	}
}

// TestReplayFormat: the fields that scripts read, no more and no fewer.
func TestReplayFormat(t *testing.T) {
	lines, _ := longCase(t)
	_, out, _ := run(lines[0]+lines[0][:10]+"\n", "group", "replay", "-")
	var got [][]string
	for line := range strings.Lines(out) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		got = append(got, slices.Sorted(maps.Keys(fields)))
	}
	want := [][]string{
		{"accepted", "confirmed_transcript_hash", "epoch", "kind", "line", "members", "tree_hash"},
		{"accepted", "error", "kind", "line", "reason"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("fields %v, want %v", got, want)
	}
}

// FuzzReplay: no message makes replay panic, and one that is refused leaves the
// state as it was, bar proposals.
func FuzzReplay(f *testing.F) {
	c := replayCases(f, "handling-commit.json")[0]
	for _, m := range c.Log {
		f.Add([]byte(m.Message), []byte(nil))
	}
	start := []byte(logLine(c.Log[0].Message, nil))
	f.Fuzz(func(t *testing.T, message, ratchetTree []byte) {
		line := []byte(logLine(message, ratchetTree))
		r := replay{opts: mlscore.Options{Registry: toolRegistry()}}
		if _, _, err := r.line(start); err != nil {
			t.Fatal(err)
		}
		var after replay
		var err error
		mlstest.CheckAllocation(t, len(line), mlstest.DecodingFactor, func() {
			after = r
			_, _, err = after.line(line)
		})
		if err != nil && !bytes.Equal(r.group.ContextBytes(), after.group.ContextBytes()) {
			t.Fatalf("a refused line changed the state: %v", err)
		}
		if err != nil && mlscore.Reason(err) == "error" {
			t.Fatalf("a refusal without a reason: %v", err)
		}
	})
}
