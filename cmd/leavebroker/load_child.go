package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

const (
	// childStart is how long a child may take until it is ready: it may have to
	// read what a million groups left behind.
	childStart = 10 * time.Minute
	// childStop is how long it may take to end in order.
	childStop = time.Minute
)

// loadChild is this program in a process of its own.
type loadChild struct {
	name  string
	args  []string
	log   string // path of what it writes
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
}

// startChild starts a process and returns when it is ready, as it tells its
// service manager (sd_notify).
func startChild(ctx context.Context, dir, name string, args ...string) (*loadChild, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &loadChild{
		name: name, args: args, log: filepath.Join(dir, name+".log"),
		cmd: exec.Command(program, args...), ended: make(chan struct{}),
	}
	c.cmd.Args[0] = "leavebroker"
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a signal to us and our group is ours to hand on
	out, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c.cmd.Stdout, c.cmd.Stderr = out, out
	socket := filepath.Join(dir, name+".sock")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	c.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(err, notify.Close())
	}
	ready := make(chan struct{})
	go hearReady(notify, ready)
	go func() {
		_ = c.cmd.Wait() // the state tells
		_ = notify.Close()
		_ = os.Remove(socket) // a restart takes the address again
		close(c.ended)
	}()
	if err := c.awaitReady(ctx, ready); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// hearReady takes what a child tells its service manager, until the socket is
// closed.
func hearReady(notify *net.UnixConn, ready chan<- struct{}) {
	buffer := make([]byte, 4<<10)
	for told := false; ; {
		n, err := notify.Read(buffer)
		if err != nil {
			return
		}
		if !told && bytes.Contains(buffer[:n], []byte(daemon.SdNotifyReady)) {
			told = true
			close(ready)
		}
	}
}

func (c *loadChild) awaitReady(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-c.ended:
		return fmt.Errorf("%s ended before it was ready: %s", c.name, c.lastWords())
	case <-time.After(childStart):
		return fmt.Errorf("%s is not ready after %s", c.name, childStart)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lastWords is the end of what a child wrote.
func (c *loadChild) lastWords() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// stop ends the process in order.
func (c *loadChild) stop() error {
	select {
	case <-c.ended:
	default:
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	select {
	case <-c.ended:
	case <-time.After(childStop):
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
	if !c.cmd.ProcessState.Success() {
		return fmt.Errorf("%s: %s: %s", c.name, c.cmd.ProcessState, c.lastWords())
	}
	return nil
}

// loadProcess is what a process used, as Linux tells it; zeros elsewhere.
type loadProcess struct {
	Name    string  `json:"name"`
	RSS     float64 `json:"rss_mib"`
	PeakRSS float64 `json:"peak_rss_mib"`
	CPU     float64 `json:"cpu_seconds"`
}

// clockTicks is USER_HZ of Linux.
const clockTicks = 100

func readProcess(name string, pid int) loadProcess {
	p := loadProcess{Name: name}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, _ := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "VmRSS:":
			p.RSS = kib / 1024
		case "VmHWM:":
			p.PeakRSS = kib / 1024
		}
	}
	stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
	if i := bytes.LastIndexByte(stat, ')'); i >= 0 {
		if f := strings.Fields(string(stat[i+1:])); len(f) > 12 {
			user, _ := strconv.ParseFloat(f[11], 64)
			system, _ := strconv.ParseFloat(f[12], 64)
			p.CPU = (user + system) / clockTicks
		}
	}
	return p
}
