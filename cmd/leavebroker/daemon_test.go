package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leavebroker/broker/delivery"
	"leavebroker/mlscore"
	"leavebroker/mlscore/keyfile"
)

// patience bounds every wait for the daemon: machines may be busy.
const patience = 60 * time.Second

// daemonProcess is the program itself, run as leavebroker serve in a process of its
// own with an embedded server. Everybody else reaches it through NATS.
type daemonProcess struct {
	t        testing.TB
	stateDir string
	url      string
	config   string // path; empty: the environment alone
	env      []string
	logPath  string

	cmd   *exec.Cmd
	ended chan error // receives once when the process has ended
}

// newDaemon prepares a daemon; start runs it. The configuration is that of a
// test: few partitions, so that starting is quick, and the rest as given.
func newDaemon(t testing.TB, tenants string) *daemonProcess {
	t.Helper()
	dir := t.TempDir()
	d := &daemonProcess{t: t, stateDir: filepath.Join(dir, "state"), logPath: filepath.Join(dir, "log")}
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	d.url = "nats://" + listen
	d.config = filepath.Join(dir, "leavebroker.yaml")
	text := fmt.Sprintf("state_dir: %s\nnats:\n  embedded:\n    listen: %s\npartitions: 4\nack_wait: 1s\npin_ttl: 1s\n%s", d.stateDir, listen, tenants)
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.cleanUp)
	return d
}

// newDefaultDaemon prepares a daemon without a configuration file.
func newDefaultDaemon(t testing.TB) *daemonProcess {
	t.Helper()
	dir := t.TempDir()
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	d := &daemonProcess{t: t, stateDir: filepath.Join(dir, "state"), logPath: filepath.Join(dir, "log"), url: "nats://" + listen}
	d.env = []string{"LEAVEBROKER_STATE_DIR=" + d.stateDir, "LEAVEBROKER_NATS_EMBEDDED_LISTEN=" + listen}
	t.Cleanup(d.cleanUp)
	return d
}

// freePort is a port that nobody uses, below those that the system gives to
// outgoing connections: while the daemon is down, none of them may take it.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 10000 + rand.IntN(20000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func (d *daemonProcess) start() {
	d.t.Helper()
	log, err := os.OpenFile(d.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	args := []string{"serve"}
	if d.config != "" {
		args = append(args, "--config", d.config)
	}
	d.cmd = exec.Command("leavebroker", args...)
	d.cmd.Env = append(os.Environ(), d.env...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	cmd, ended := d.cmd, make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	d.ended = ended
}

// awaitReady waits until the daemon answers requests.
func (d *daemonProcess) awaitReady() {
	d.t.Helper()
	nc := d.connect()
	defer nc.Close()
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(10 * time.Millisecond) {
		if _, err := nc.Request("$SRV.PING.leavebroker", nil, time.Second); err == nil {
			return
		}
		select {
		case err := <-d.ended:
			d.ended <- err
			d.t.Fatalf("the daemon ended: %v", err)
		default:
		}
	}
	d.t.Fatalf("the daemon is not ready after %s", patience)
}

// signal sends a signal to the process.
func (d *daemonProcess) signal(s os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Fatal(err)
	}
}

// wait waits for the end of the process and gives its exit code, -1 for a
// signal.
func (d *daemonProcess) wait() int {
	d.t.Helper()
	select {
	case <-d.ended:
		d.ended = nil
		return d.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		d.t.Fatal("the daemon does not end")
		return 0
	}
}

// kill ends the process as a crash would.
func (d *daemonProcess) kill() {
	d.t.Helper()
	d.signal(syscall.SIGKILL)
	if code := d.wait(); code != -1 {
		d.t.Fatalf("the daemon ended by itself with exit code %d", code)
	}
}

// stop ends the process in order.
func (d *daemonProcess) stop() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	if code := d.wait(); code != 0 {
		d.t.Fatalf("exit code %d", code)
	}
}

func (d *daemonProcess) cleanUp() {
	if d.ended != nil {
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
	if d.t.Failed() {
		d.t.Logf("the daemon's log ends with\n%s", d.log())
	}
}

// log is what the processes so far have written, at most its end.
func (d *daemonProcess) log() []byte {
	b, err := os.ReadFile(d.logPath)
	if err != nil {
		return []byte(err.Error())
	}
	const most = 8 << 10
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return b
}

// connect connects a client that outlives the daemon's crashes.
func (d *daemonProcess) connect() *nats.Conn {
	d.t.Helper()
	nc, err := nats.Connect(d.url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(10*time.Millisecond, 0),
		nats.Timeout(10*time.Second), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		d.t.Fatal(err)
	}
	return nc
}

// service connects a delivery service of a tenant.
func (d *daemonProcess) service(tenant string) *delivery.Service {
	d.t.Helper()
	nc := d.connect()
	d.t.Cleanup(nc.Close)
	ds, err := delivery.New(nc, "leave", tenant)
	if err != nil {
		d.t.Fatal(err)
	}
	return ds
}

// externalSender is what groups of a suite install, from the key that the
// daemon made for a tenant.
func (d *daemonProcess) externalSender(tenant string, suite *mlscore.Suite) mlscore.ExternalSender {
	d.t.Helper()
	signer, err := keyfile.Load(filepath.Join(d.stateDir, "keys", tenant, suite.Signature.String()+".pem"))
	if err != nil {
		d.t.Fatal(err)
	}
	return mlscore.ExternalSender{SignatureKey: signer.PublicKey(), Credential: mlscore.BasicCredential([]byte(defaultIdentity))}
}

// stored is a message of a stream.
type stored struct {
	seq     uint64
	subject []string // tokens
	data    []byte
}

// stream reads a whole stream.
func (d *daemonProcess) stream(name string) []stored {
	d.t.Helper()
	nc := d.connect()
	defer nc.Close()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		d.t.Fatal(err)
	}
	s, err := js.Stream(ctx, name)
	if err != nil {
		d.t.Fatal(err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	consumer, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		d.t.Fatal(err)
	}
	var all []stored
	for uint64(len(all)) < info.State.Msgs {
		m, err := consumer.Next(jetstream.FetchContext(ctx))
		if err != nil {
			d.t.Fatalf("reading %s after %d of %d messages: %v", name, len(all), info.State.Msgs, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			d.t.Fatal(err)
		}
		all = append(all, stored{meta.Sequence.Stream, strings.Split(m.Subject(), "."), m.Data()})
	}
	return all
}

// told is an event.
type told struct {
	Type   string `json:"type"`
	Tenant string `json:"tenant"`
	Group  string `json:"group"`
	Seq    uint64 `json:"seq"`
	Intent string `json:"intent"`
	Reason string `json:"reason"`
	Epoch  uint64 `json:"epoch"`
}

// events reads all events.
func (d *daemonProcess) events() []told {
	d.t.Helper()
	var all []told
	for _, m := range d.stream("leave-events") {
		var e told
		if err := json.Unmarshal(m.data, &e); err != nil {
			d.t.Fatalf("event %q: %v", m.data, err)
		}
		all = append(all, e)
	}
	return all
}

// awaitEvent waits for an event.
func (d *daemonProcess) awaitEvent(what string, match func(told) bool) told {
	d.t.Helper()
	var all []told
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(20 * time.Millisecond) {
		all = d.events()
		if i := slices.IndexFunc(all, match); i >= 0 {
			return all[i]
		}
	}
	for _, e := range all {
		d.t.Logf("%+v", e)
	}
	d.t.Fatalf("no event: %s", what)
	return told{}
}

// logLines are the daemon's log lines, each of which has to be JSON.
func (d *daemonProcess) logLines() []map[string]any {
	d.t.Helper()
	b, err := os.ReadFile(d.logPath)
	if err != nil {
		d.t.Fatal(err)
	}
	var lines []map[string]any
	for line := range bytes.Lines(b) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			d.t.Errorf("a log line that is not JSON: %q", line)
			continue
		}
		lines = append(lines, fields)
	}
	return lines
}
