package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leavebroker/broker/delivery"
	"leavebroker/broker/natstest"
	"leavebroker/mlscore"
	"leavebroker/mlscore/keyfile"
)

// patience bounds every wait for the daemon: machines may be busy.
const patience = 60 * time.Second

// daemonProcess is the program itself, run as leavebroker serve in a process of its
// own with an embedded server, or beside one elsewhere. Everybody else reaches
// it through NATS.
type daemonProcess struct {
	natstest.Process
	stateDir string
	url      string // where everybody else reaches NATS
	config   string // path; empty: the environment alone
	env      []string
	program  string // its path or name
}

// newDaemon prepares a daemon; Start runs it. The configuration is that of a
// test: few partitions, so that starting is quick, and the rest as given.
func newDaemon(t testing.TB, tenants string) *daemonProcess {
	t.Helper()
	dir := t.TempDir()
	listen := freeAddr(t)
	d := newProcess(t, dir, filepath.Join(dir, "state"), "nats://"+listen)
	d.configure(fmt.Sprintf("nats:\n  embedded:\n    listen: %s\nack_wait: 1s\npin_ttl: 1s\n%s", listen, tenants))
	return d
}

// newDefaultDaemon prepares a daemon without a configuration file.
func newDefaultDaemon(t testing.TB) *daemonProcess {
	t.Helper()
	dir := t.TempDir()
	listen := freeAddr(t)
	d := newProcess(t, dir, filepath.Join(dir, "state"), "nats://"+listen)
	d.env = []string{"LEAVEBROKER_STATE_DIR=" + d.stateDir, "LEAVEBROKER_NATS_EMBEDDED_LISTEN=" + listen}
	return d
}

func freeAddr(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", natstest.FreePort(t))
}

// newProcess is a daemon whose files are in dir.
func newProcess(t testing.TB, dir, stateDir, url string) *daemonProcess {
	d := &daemonProcess{stateDir: stateDir, url: url, program: "leavebroker"}
	d.Process = natstest.Process{T: t, LogPath: filepath.Join(dir, "log"), Command: func() *exec.Cmd {
		args := []string{"serve"}
		if d.config != "" {
			args = append(args, "--config", d.config)
		}
		cmd := exec.Command(d.program, args...)
		cmd.Env = append(os.Environ(), d.env...)
		return cmd
	}}
	return d
}

// configure writes the configuration file.
func (d *daemonProcess) configure(text string) {
	d.T.Helper()
	d.config = d.LogPath + ".yaml"
	text = fmt.Sprintf("state_dir: %s\npartitions: 4\n%s", d.stateDir, text)
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		d.T.Fatal(err)
	}
}

// awaitReady waits until the daemon answers requests.
func (d *daemonProcess) awaitReady() {
	d.T.Helper()
	nc := d.connect()
	defer nc.Close()
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(10 * time.Millisecond) {
		if _, err := nc.Request("$SRV.PING.leavebroker", nil, time.Second); err == nil {
			return
		}
		if running, err := d.Running(); !running {
			d.T.Fatalf("the daemon ended: %v", err)
		}
	}
	d.T.Fatalf("the daemon is not ready after %s", patience)
}

// connect connects a client that outlives the daemon's crashes.
func (d *daemonProcess) connect() *nats.Conn {
	d.T.Helper()
	nc, err := nats.Connect(d.url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(10*time.Millisecond, 0),
		nats.Timeout(10*time.Second), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		d.T.Fatal(err)
	}
	return nc
}

// service connects a delivery service of a tenant.
func (d *daemonProcess) service(tenant string) *delivery.Service {
	d.T.Helper()
	nc := d.connect()
	d.T.Cleanup(nc.Close)
	ds, err := delivery.New(nc, "leave", tenant)
	if err != nil {
		d.T.Fatal(err)
	}
	return ds
}

// externalSender is what groups of a suite install, from the key that the
// daemon made for a tenant.
func (d *daemonProcess) externalSender(tenant string, suite *mlscore.Suite) mlscore.ExternalSender {
	d.T.Helper()
	signer, err := keyfile.Load(filepath.Join(d.stateDir, "keys", tenant, suite.Signature.String()+".pem"))
	if err != nil {
		d.T.Fatal(err)
	}
	return mlscore.ExternalSender{SignatureKey: signer.PublicKey(), Credential: mlscore.BasicCredential([]byte(defaultIdentity))}
}

// stored is a message of a stream.
type stored struct {
	seq     uint64
	at      time.Time
	subject []string // tokens
	data    []byte
}

// jetStream connects a client of JetStream for a while.
func (d *daemonProcess) jetStream() (context.Context, jetstream.JetStream, func()) {
	d.T.Helper()
	nc := d.connect()
	js, err := jetstream.New(nc)
	if err != nil {
		d.T.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(d.T.Context(), patience)
	return ctx, js, func() { cancel(); nc.Close() }
}

// logStreams are the streams that hold the logs of groups.
func (d *daemonProcess) logStreams() (names []string) {
	d.T.Helper()
	ctx, js, done := d.jetStream()
	defer done()
	all := js.StreamNames(ctx)
	for name := range all.Name() {
		if strings.HasPrefix(name, "leave-log") {
			names = append(names, name)
		}
	}
	if err := all.Err(); err != nil || len(names) == 0 {
		d.T.Fatalf("the streams of the log are %q: %v", names, err)
	}
	return names
}

// entries are all messages of the logs.
func (d *daemonProcess) entries() (all []stored) {
	d.T.Helper()
	for _, name := range d.logStreams() {
		all = append(all, d.stream(name)...)
	}
	return all
}

// consumer is the name of the consumer that gives a message of a log.
func (m *stored) consumer() string {
	if m.kind() == "removal" {
		return "removals-" + m.subject[3]
	}
	return "partition-" + strings.Repeat("0", 4-len(m.subject[2])) + m.subject[2]
}

// awaitConsumed waits until the consumers of the logs with a prefix are done with
// all that is there, and what followed from it is stored. Each is asked by name and
// compared with the log: a list lacks those whose leader is slow to answer, and a
// leader counts what waits by a copy of the log that may lag behind.
func (d *daemonProcess) awaitConsumed(prefix string) {
	d.T.Helper()
	ctx, js, done := d.jetStream()
	defer done()
	for _, stream := range d.logStreams() {
		last := map[string]uint64{}
		for _, m := range d.stream(stream) {
			last[m.consumer()] = m.seq
		}
		for name, seq := range last {
			for busy := strings.HasPrefix(name, prefix); busy; time.Sleep(50 * time.Millisecond) {
				attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
				c, err := js.Consumer(attempt, stream, name)
				cancel()
				if err == nil {
					info := c.CachedInfo()
					busy = info.AckFloor.Stream < seq || info.NumPending > 0 || info.NumAckPending > 0
				}
				if busy && ctx.Err() != nil {
					d.T.Fatalf("consumer %s of %s is not done with message %d: %v", name, stream, seq, err)
				}
			}
		}
	}
}

// stream reads a whole stream.
func (d *daemonProcess) stream(name string) []stored {
	d.T.Helper()
	ctx, js, done := d.jetStream()
	defer done()
	s, err := js.Stream(ctx, name)
	if err != nil {
		d.T.Fatal(err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		d.T.Fatal(err)
	}
	consumer, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		d.T.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		d.T.Fatal(err)
	}
	defer messages.Stop()
	var all []stored
	for uint64(len(all)) < info.State.Msgs {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			d.T.Fatalf("reading %s after %d of %d messages: %v", name, len(all), info.State.Msgs, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			d.T.Fatal(err)
		}
		all = append(all, stored{meta.Sequence.Stream, meta.Timestamp, strings.Split(m.Subject(), "."), m.Data()})
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
	d.T.Helper()
	var all []told
	for _, m := range d.stream("leave-events") {
		var e told
		if err := json.Unmarshal(m.data, &e); err != nil {
			d.T.Fatalf("event %q: %v", m.data, err)
		}
		all = append(all, e)
	}
	return all
}

// awaitEvent waits for an event.
func (d *daemonProcess) awaitEvent(what string, match func(told) bool) told {
	d.T.Helper()
	var all []told
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(20 * time.Millisecond) {
		all = d.events()
		if i := slices.IndexFunc(all, match); i >= 0 {
			return all[i]
		}
	}
	for _, e := range all {
		d.T.Logf("%+v", e)
	}
	d.T.Fatalf("no event: %s", what)
	return told{}
}

// logLines are the daemon's log lines, each of which has to be JSON.
func (d *daemonProcess) logLines() []map[string]any {
	d.T.Helper()
	b, err := os.ReadFile(d.LogPath)
	if err != nil {
		d.T.Fatal(err)
	}
	var lines []map[string]any
	for line := range bytes.Lines(b) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			d.T.Errorf("a log line that is not JSON: %q", line)
			continue
		}
		lines = append(lines, fields)
	}
	return lines
}
