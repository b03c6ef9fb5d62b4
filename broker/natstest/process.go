package natstest

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for a process: machines may be busy.
const patience = 60 * time.Second

// Process is a program that a test starts, ends and starts again. One goroutine
// at a time uses it.
type Process struct {
	T testing.TB
	// Command makes the command of the next start.
	Command func() *exec.Cmd
	// LogPath is where the output of all its processes goes, one after the other.
	LogPath string

	cmd   *exec.Cmd
	ended chan error // receives once when the process has ended; nil: none runs
}

// Start starts the process, and lets none outlive the test.
func (p *Process) Start() {
	p.T.Helper()
	log, err := os.OpenFile(p.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.T.Fatal(err)
	}
	defer log.Close()
	first := p.cmd == nil
	p.cmd = p.Command()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		p.T.Fatal(err)
	}
	cmd, ended := p.cmd, make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	p.ended = ended
	if first {
		p.T.Cleanup(p.cleanUp)
	}
}

// Running says whether the process runs, and why it ended by itself.
func (p *Process) Running() (bool, error) {
	select {
	case err := <-p.ended:
		p.ended <- err
		return false, err
	default:
		return p.ended != nil, nil
	}
}

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) {
	p.T.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.T.Fatal(err)
	}
}

// Wait waits for the end of the process and gives its exit code, -1 for a
// signal.
func (p *Process) Wait() int {
	p.T.Helper()
	select {
	case <-p.ended:
		p.ended = nil
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.T.Fatalf("%s does not end", p.cmd.Path)
		return 0
	}
}

// Kill ends the process as a crash would.
func (p *Process) Kill() {
	p.T.Helper()
	p.Signal(syscall.SIGKILL)
	if code := p.Wait(); code != -1 {
		p.T.Fatalf("%s ended by itself with exit code %d; its log ends with\n%s", p.cmd.Path, code, p.Log())
	}
}

// Stop ends the process in order.
func (p *Process) Stop() {
	p.T.Helper()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		p.T.Fatalf("%s: exit code %d; its log ends with\n%s", p.cmd.Path, code, p.Log())
	}
}

// Freeze stops the process in its tracks until Thaw: its connections stay open
// and silent.
func (p *Process) Freeze() { p.T.Helper(); p.Signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on as if no time had passed.
func (p *Process) Thaw() { p.T.Helper(); p.Signal(syscall.SIGCONT) }

func (p *Process) cleanUp() {
	if p.ended != nil {
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	if p.T.Failed() {
		p.T.Logf("the log %s ends with\n%s", p.LogPath, p.Log())
	}
}

// Log is what the processes so far have written, at most its end.
func (p *Process) Log() []byte {
	b, err := os.ReadFile(p.LogPath)
	if err != nil {
		return []byte(err.Error())
	}
	const most = 8 << 10
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return b
}

var ports = struct {
	sync.Mutex
	given map[int]bool
}{given: map[int]bool{}}

// FreePort is a loopback port that nobody uses, below those that the system
// gives to outgoing connections: while a process is down, none of them may
// take it.
func FreePort(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 100 {
		port := 10000 + rand.IntN(20000)
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
		if err == nil && !ports.given[port] {
			ports.given[port] = true
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}
