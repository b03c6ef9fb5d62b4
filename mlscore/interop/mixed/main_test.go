// Package mixed puts members of several MLS stacks into groups that the daemon
// serves, and compares what all of them, our tracker, the daemon and trackers
// of other stacks make of each epoch: in the scenarios of leaving
// (scenarios_test.go), and in seeded random histories (differential_test.go).
//
// It is skipped unless LEAVEBROKER_INTEROP is set; mlscore/interop/README.md
// says how it is run.
package mixed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/stack"
)

// settings are what LEAVEBROKER_INTEROP says: "1", or key=value pairs.
type settings struct {
	on     bool
	epochs int // of the differential run, in all
	seed   uint64
	suite  mlscore.CipherSuite // of the scenarios
}

func parseSettings(text string) (*settings, error) {
	s := &settings{on: text != "", epochs: 300, seed: 1, suite: 1}
	if text == "1" {
		return s, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		n, err := strconv.ParseUint(value, 0, 64)
		switch {
		case err != nil:
			return nil, fmt.Errorf("LEAVEBROKER_INTEROP: %q: %w", part, err)
		case key == "epochs":
			s.epochs = int(n)
		case key == "seed":
			s.seed = n
		case key == "suite":
			s.suite = mlscore.CipherSuite(n)
		default:
			return nil, fmt.Errorf("LEAVEBROKER_INTEROP: %q is not epochs, seed or suite", key)
		}
	}
	return s, nil
}

// The program of the daemon would refuse a variable that it does not know.
var interop, settingsErr = func() (*settings, error) {
	defer os.Unsetenv("LEAVEBROKER_INTEROP")
	return parseSettings(os.Getenv("LEAVEBROKER_INTEROP"))
}()

// interoperate gives the settings, or skips the test.
func interoperate(t *testing.T) *settings {
	t.Helper()
	if settingsErr != nil {
		t.Fatal(settingsErr)
	}
	if !interop.on {
		t.Skip("run it with: LEAVEBROKER_INTEROP=1 go test -v ./mlscore/interop/mixed")
	}
	return interop
}

// drivers builds each driver once.
var drivers = struct {
	sync.Mutex
	built map[string]*stack.Driver
	err   map[string]error
}{built: map[string]*stack.Driver{}, err: map[string]error{}}

// builtDriver gives a driver, which may be missing.
func builtDriver(t *testing.T, name string) *stack.Driver {
	t.Helper()
	drivers.Lock()
	defer drivers.Unlock()
	if drivers.built[name] == nil && drivers.err[name] == nil {
		drivers.built[name], drivers.err[name] = stack.Build(name, os.Stderr)
	}
	if err := drivers.err[name]; err != nil {
		t.Fatal(err)
	}
	return drivers.built[name]
}

// driver gives a driver. One that is missing skips the test, loudly.
func driver(t *testing.T, name string) *stack.Driver {
	t.Helper()
	d := builtDriver(t, name)
	if d.Missing != "" {
		t.Skipf("!! SKIPPED: %s is NOT tested: %s", name, d.Missing)
	}
	return d
}

// startStack starts a stack of others that ends with the test.
func startStack(t *testing.T, name string) stack.Stack {
	t.Helper()
	s, err := driver(t, name).Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// program builds the daemon once and gives its path.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "leavebroker-mixed-")
	if err != nil {
		return "", err
	}
	programDir = dir
	path := filepath.Join(dir, "leavebroker")
	out, err := exec.Command("go", "build", "-o", path, "leavebroker/cmd/leavebroker").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the daemon: %w: %s", err, out)
	}
	return path, nil
})

var programDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if programDir != "" {
		os.RemoveAll(programDir)
	}
	os.Exit(code)
}
