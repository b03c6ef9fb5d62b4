package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"leavebroker/mlscore/member"
)

// playDemo runs the demonstration in this process and gives what it prints
// with -o json, whose fields and numbers scripts depend on.
func playDemo(t *testing.T, args ...string) (r demoResult) {
	t.Helper()
	begin := time.Now()
	code, out, errOut := run("", append([]string{"demo", "-o", "json"}, args...)...)
	took := time.Since(begin)
	if code != 0 || errOut != "" || strings.Count(out, "\n") != 1 {
		t.Fatalf("demo %v: exit code %d, %q, %s", args, code, out, errOut)
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(out), &fields); err != nil {
		t.Fatal(err)
	}
	want := []string{"epochs", "intents", "joins", "leavers", "members", "members_agree", "proposals", "removed", "reproposals", "seconds"}
	if got := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
		t.Errorf("the fields are %v, want %v", got, want)
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if r.Seconds <= 0 || r.Seconds > took.Seconds() {
		t.Errorf("%v seconds of %s", r.Seconds, took)
	}
	r.Seconds = 0
	return r
}

// demoNumbers are those of a demonstration in which everything goes right: the
// group is made by one commit, each join and the two commits of the end are an
// epoch, and each leaver is proposed once and again after each join.
func demoNumbers(members, leavers, joins int) demoResult {
	return demoResult{
		Members: members, Leavers: leavers, Joins: joins, Intents: leavers, Removed: leavers, Epochs: 1 + joins + 2,
		Proposals: leavers * (1 + joins), Reproposals: leavers * joins, MembersAgree: true,
	}
}

func TestDemoSuites(t *testing.T) {
	t.Parallel()
	for i, suite := range member.Suites(toolRegistry()) {
		if testing.Short() && i > 2 {
			break
		}
		if r := playDemo(t, "--cipher-suite", fmt.Sprintf("%#x", uint16(suite))); r != demoNumbers(8, 2, 5) {
			t.Errorf("suite %#x: %+v", uint16(suite), r)
		}
	}
}

// TestDemoJoinersInclude: the leavers are gone with the first joiner, and with a
// member's commit where nobody joins.
func TestDemoJoinersInclude(t *testing.T) {
	t.Parallel()
	for _, size := range [][3]int{{8, 2, 5}, {3, 2, 1}, {4, 1, 0}} {
		r := playDemo(t, "--joiners-include", "--members", fmt.Sprint(size[0]), "--leavers", fmt.Sprint(size[1]), "--joins", fmt.Sprint(size[2]))
		want := demoNumbers(size[0], size[1], size[2])
		want.Proposals, want.Reproposals = size[1], 0
		if size[2] > 0 {
			want.Epochs-- // nothing is left for a member to commit
		}
		if r != want {
			t.Errorf("%v: %+v, want %+v", size, r, want)
		}
	}
	code, out, _ := run("", "demo", "--joiners-include", "--joins", "2")
	if code != 0 || !strings.Contains(out, "joiner-1 joins by an external commit that includes the pending intents: leaves 1, 4 gone") ||
		strings.Contains(out, "drops") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestDemoSizes(t *testing.T) {
	t.Parallel()
	for _, size := range [][3]int{{2, 1, 0}, {2, 1, 3}, {9, 8, 1}, {64, 5, 30}} {
		if testing.Short() && size[0] > 8 {
			break
		}
		r := playDemo(t, "--members", fmt.Sprint(size[0]), "--leavers", fmt.Sprint(size[1]), "--joins", fmt.Sprint(size[2]), "--seed", "7")
		if r != demoNumbers(size[0], size[1], size[2]) {
			t.Errorf("%v: %+v", size, r)
		}
	}
}

const demoStory = `A group of 8 in cipher suite 1: 2 leave, 2 join meanwhile.  o member  x leaving  . blank leaf
epoch   1  8 members  [oooooooo]  the group is made
epoch   1  8 members  [oxoooooo]  member-1 (leaf 1) signs its intent and vanishes; the broker says pending
epoch   1  8 members  [oxooxooo]  member-4 (leaf 4) signs its intent and vanishes; the broker says pending
epoch   1  8 members  [oxooxooo]  the broker proposes to remove leaves 1, 4
epoch   2  9 members  [oxooxoooo.......]  joiner-1 joins by an external commit, which drops the proposals
epoch   2  9 members  [oxooxoooo.......]  the broker proposes again to remove leaves 1, 4
epoch   3  10 members  [oxooxooooo......]  joiner-2 joins by an external commit, which drops the proposals
epoch   3  10 members  [oxooxooooo......]  the broker proposes again to remove leaves 1, 4
epoch   4  8 members  [o.oo.ooooo......]  member-0 commits: leaves 1, 4 gone
epoch   5  8 members  [o.oo.ooooo......]  joiner-2 signs over the new epoch: the removals are confirmed

2 of 2 leavers are gone after 5 epochs; the broker made 6 proposals, 4 of them again.
All remaining members agree on the epoch. N s
`

// The story as a person reads it: the same for the same seed, but for the time
// it takes.
func TestDemoText(t *testing.T) {
	t.Parallel()
	code, out, errOut := run("", "demo", "--joins", "2")
	if out = regexp.MustCompile(`\d+\.\d s\n$`).ReplaceAllString(out, "N s\n"); code != 0 || out != demoStory || errOut != "" {
		t.Errorf("exit code %d, %s\n%s", code, errOut, out)
	}
	if testing.Short() {
		return
	}
	code, out, errOut = run("", "demo", "--members", "80", "--joins", "1")
	if code != 0 || strings.Contains(out, "[o") || !strings.Contains(out, "80 members  the group is made") {
		t.Errorf("exit code %d, %s", code, out)
	}
	if !regexp.MustCompile(`^([a-z ]+ \d+ of \d+\n)*$`).MatchString(errOut) {
		t.Errorf("progress off a terminal: %q", errOut)
	}
}

// Off a terminal long work is told now and then, by plain lines.
func TestDemoProgress(t *testing.T) {
	var out bytes.Buffer
	s := demoShow{progress: &out}
	for i := range 100 {
		if i == 50 {
			s.last = s.last.Add(-progressInterval)
		}
		s.work("members", i+1, 100)
	}
	s.work("members", 1, 8)
	if out.String() != "members 51 of 100\n" {
		t.Errorf("%q", out.String())
	}
}

func TestDemoRefusals(t *testing.T) {
	for _, test := range []struct{ says, args string }{
		{"1 members", "--members 1"},
		{"5000 members", "--members 5000"},
		{"0 leavers", "--leavers 0"},
		{"8 leavers of 8", "--leavers 8"},
		{"2 leavers of 2", "--members 2"},
		{"-1 joins", "--joins -1"},
		{"cipher suite 0x0000", "--cipher-suite 0"},
		{"cipher suite 0x0008", "--cipher-suite 8"},
		{"70000", "--cipher-suite 70000"},
		{"invalid argument", "--seed x"},
		{"text or json", "-o yaml"},
		{"unknown flag", "--member 3"},
		{"now", "now"},
	} {
		code, out, errOut := run("", append([]string{"demo"}, strings.Fields(test.args)...)...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, test.says) || !strings.Contains(errOut, "demo --help") {
			t.Errorf("demo %s: exit code %d, %q, %s", test.args, code, out, errOut)
		}
	}
}

// The demonstration leaves nothing behind, also where somebody interrupts it.
func TestDemoCleansUp(t *testing.T) {
	t.Parallel()
	for _, interrupted := range []bool{false, true} {
		dir := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := exec.CommandContext(ctx, "leavebroker", "demo", "--joins", "40")
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if !interrupted {
			cmd.Args[3] = "1"
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if interrupted {
			for made := false; !made; time.Sleep(10 * time.Millisecond) {
				entries, err := os.ReadDir(dir)
				if err != nil || ctx.Err() != nil {
					t.Fatal(err, ctx.Err())
				}
				made = len(entries) > 0
			}
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Wait()
		cancel()
		if code := cmd.ProcessState.ExitCode(); (code == 0) == interrupted {
			t.Errorf("interrupted: %t, exit code %d, %s", interrupted, code, out.String())
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("interrupted: %t, left behind: %v %v", interrupted, entries, err)
		}
	}
}
