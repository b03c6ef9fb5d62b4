package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(skewedTests{m}, map[string]func(){"leavebroker": main})
}

// TestScripts runs command lines as a user or a script would. Beside the
// commands of package testscript there are
//
//	exits CODE PROGRAM ARGS...   like exec, with the exit code that is wanted
//	first N FILE NEW             writes the first N bytes of a file
//
// and the files of a group of three (see setUpGroup).
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			return setUpGroup(env.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits,
			"first": scriptFirst,
		},
	})
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func scriptFirst(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: first N FILE NEW")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	b := ts.ReadFile(args[1])
	if n > len(b) {
		ts.Fatalf("%s has only %d bytes", args[1], len(b))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(b[:n]), 0o600))
}

// run runs a command line in this process.
func run(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	code = execute(args, strings.NewReader(stdin), &out, &errOut)
	return code, out.String(), errOut.String()
}

// mustWrite writes a file of a test's own folder and gives its path.
func mustWrite(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestHelp: every command explains itself and, unless it only holds others,
// shows an example that begins with its own name.
func TestHelp(t *testing.T) {
	var walk func(path []string)
	walk = func(path []string) {
		code, out, errOut := run("", append(path, "--help")...)
		if code != 0 || errOut != "" {
			t.Errorf("%v --help: exit code %d, %s", path, code, errOut)
		}
		cmd, _, err := newRoot().Find(path)
		if err != nil {
			t.Fatal(err)
		}
		if cmd.Short == "" || !cmd.HasSubCommands() && !strings.Contains(cmd.Example, "leavebroker "+strings.Join(path, " ")) {
			t.Errorf("%v lacks a summary or an example", path)
		}
		for line := range strings.Lines(out) {
			if long := len(strings.TrimRight(line, "\n")); long > 120 {
				t.Errorf("%v: a help line of %d characters: %s", path, long, line)
			}
		}
		for _, child := range cmd.Commands() {
			walk(append(path[:len(path):len(path)], child.Name()))
		}
	}
	walk(nil)
}

func TestFailingOutput(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"version", "-o", "json"}, {"config", "check"}} {
		var errOut bytes.Buffer
		if code := execute(args, strings.NewReader(""), failingWriter{}, &errOut); code != exitFailure || errOut.Len() == 0 {
			t.Errorf("%v to a full disk: exit code %d, %s", args, code, errOut.String())
		}
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, fmt.Errorf("no space left on device") }
