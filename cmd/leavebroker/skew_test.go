package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// The program has no knob for its clock. Where a test wants one, it builds the
// program with another package time, whose Now adds to the wall time what a file
// says; the monotonic clock, which no adjustment of a real clock touches either,
// stays as it is. The file is mapped: a number written into it is a jump of the
// clock.

// skewVariable names the file to the program.
const skewVariable = "SKEWED_CLOCK"

// nowText is how time.Now begins, and skewedNowText how it begins instead.
const (
	nowText       = "\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	skewedNowText = nowText + "\tsec, nsec = skewed(sec, nsec)\n"
)

// skewedText is what package time gets. Now is called before anything can be set
// up, so the file is mapped by the first call. A program that runs with its clock
// right by mistake would be no test: it ends.
const skewedText = `package time

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

var skew = sync.OnceValue(func() *atomic.Int64 {
	path, _ := syscall.Getenv("` + skewVariable + `")
	f, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic("` + skewVariable + `: " + err.Error())
	}
	defer syscall.Close(f)
	data, err := syscall.Mmap(f, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("` + skewVariable + `: " + err.Error())
	}
	return (*atomic.Int64)(unsafe.Pointer(&data[0]))
})

func skewed(sec int64, nsec int32) (int64, int32) {
	by := skew().Load()
	sec, by = sec+by/1e9, int64(nsec)+by%1e9
	switch {
	case by < 0:
		sec, by = sec-1, by+1e9
	case by >= 1e9:
		sec, by = sec+1, by-1e9
	}
	return sec, int32(by)
}
`

// skewedProgram builds the program with a clock to skew, once for all tests: the
// standard library is compiled anew, which takes a minute of CPU time when it is done
// for the first time.
var skewedProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "leavebroker-skewed-")
	if err != nil {
		return "", err
	}
	skewedDir.Store(&dir)
	env, err := exec.Command("go", "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	root, version, _ := strings.Cut(strings.TrimSpace(string(env)), "\n")
	folder := filepath.Join(root, "src", "time")
	now, err := os.ReadFile(filepath.Join(folder, "time.go"))
	if err != nil {
		return "", err
	}
	if n := bytes.Count(now, []byte(nowText)); n != 1 {
		return "", fmt.Errorf("time.Now of %s is not what is known of it: adapt nowText", version)
	}
	now = bytes.Replace(now, []byte(nowText), []byte(skewedNowText), 1)
	replace := map[string]string{}
	for name, text := range map[string][]byte{"time.go": now, "skewed.go": []byte(skewedText)} {
		path := filepath.Join(dir, name)
		replace[filepath.Join(folder, name)] = path
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	list, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "leavebroker")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-overlay", list, "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s with %s: %w\n%s", build, version, err, out)
	}
	skewedPrice = build.ProcessState.UserTime() + build.ProcessState.SystemTime()
	return program, nil
})

var (
	skewedDir   atomic.Pointer[string] // to be removed when all tests are over; nil: none
	skewedPrice time.Duration          // CPU time of the build
)

// skewedTests removes what was built when all tests are over.
type skewedTests struct{ *testing.M }

func (m skewedTests) Run() int {
	defer func() {
		if dir := skewedDir.Load(); dir != nil {
			_ = os.RemoveAll(*dir)
		}
	}()
	return m.M.Run()
}

// skewedClock is the wall clock of a daemon. It outlives its processes.
type skewedClock struct{ by *atomic.Int64 }

// skew gives a broker that does not run yet a clock of its own, which is off by some
// time.
func (b *chaosBroker) skew(by time.Duration) {
	b.T.Helper()
	program, err := skewedProgram()
	if err != nil {
		b.T.Fatal(err)
	}
	b.T.Logf("the build of a program with a clock to skew took %.1f s of CPU time", skewedPrice.Seconds())
	f, err := os.OpenFile(b.LogPath+".clock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		b.T.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(8); err != nil {
		b.T.Fatal(err)
	}
	data, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		b.T.Fatal(err)
	}
	b.program = program
	b.env = append(b.env, skewVariable+"="+f.Name(), "JOURNAL_STREAM=") // log lines have times
	b.clock = &skewedClock{(*atomic.Int64)(unsafe.Pointer(&data[0]))}   // mapped as long as this process lives
	b.clock.jump(by)
}

// jump lets the clock jump to where it is off by some time.
func (c *skewedClock) jump(by time.Duration) { c.by.Store(int64(by)) }

// offBy is how far the clock is off.
func (c *skewedClock) offBy() time.Duration { return time.Duration(c.by.Load()) }

// checkClock checks that the broker's last line has the time of its clock.
func (b *chaosBroker) checkClock() {
	b.T.Helper()
	if b.clock == nil {
		return
	}
	lines := b.told(b.from)
	if last := lines[len(lines)-1]; !b.clock.shows(last) {
		b.T.Errorf("broker %s has logged at %s: its clock is not %s off", b.instance, last, b.clock.offBy())
	}
}

// told are the times of the log lines from an offset on; there is one.
func (b *chaosBroker) told(offset int64) (at []time.Time) {
	b.T.Helper()
	for line := range bytes.Lines(b.logSince(offset)) {
		var l struct{ TS time.Time }
		if err := json.Unmarshal(line, &l); err != nil {
			b.T.Fatalf("a log line %q: %v", line, err)
		}
		at = append(at, l.TS)
	}
	if len(at) == 0 {
		b.T.Fatal("the broker has logged nothing")
	}
	return at
}

// skewTolerance is how far an instant may be from one by a skewed clock that it
// is taken for: less than the clocks of these tests differ by, more than any
// machine stands still.
const skewTolerance = time.Hour

// shows says whether an instant of about now was read from the clock.
func (c *skewedClock) shows(at time.Time) bool {
	return time.Until(at.Add(-c.offBy())).Abs() < skewTolerance
}
