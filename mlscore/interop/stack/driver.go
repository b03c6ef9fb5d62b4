package stack

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"
)

// patience is how long a driver may take for a reply.
const patience = 60 * time.Second

// endPatience bounds the end of a driver whose input has ended.
const endPatience = 5 * time.Second

// driver is a stack in a process of its own.
type driver struct {
	hello  Hello
	cmd    *exec.Cmd
	stderr tail
	wait   func() error // until the process has ended and all that it said is read

	mu      sync.Mutex
	in      io.WriteCloser // guarded by mu
	replies chan []byte    // one for each request; closed when the output ends
	broken  error          // guarded by mu; what every further request gets
	named   int            // guarded by mu
}

// Start runs a driver's command.
func Start(cmd *exec.Cmd) (Stack, error) {
	d := &driver{cmd: cmd, wait: sync.OnceValue(cmd.Wait), replies: make(chan []byte, 1)}
	cmd.Stderr = &d.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	d.in = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go d.read(out)
	if err := d.call("hello", head{Op: "hello"}, &d.hello); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// read hands on the lines of the output.
func (d *driver) read(out io.Reader) {
	defer close(d.replies)
	for r := bufio.NewReaderSize(out, 1<<20); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		d.replies <- line
	}
}

func (d *driver) Hello() Hello { return d.hello }

// Close ends the driver by ending its input, and by force if it does not end.
func (d *driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken == nil {
		d.broken = errors.New("closed")
	}
	if err := d.end(); err != nil {
		return fmt.Errorf("driver %s: %w; it says %s", d.hello.Stack, err, &d.stderr)
	}
	return nil
}

// end ends the process, if it has not ended. The caller holds mu.
func (d *driver) end() error {
	d.in.Close()
	force := time.AfterFunc(endPatience, func() { _ = d.cmd.Process.Kill() })
	defer force.Stop()
	for range d.replies { // until its output ends
	}
	return d.wait()
}

// head is what every request begins with.
type head struct {
	Op      string `json:"op"`
	Member  string `json:"member,omitempty"`
	Tracker string `json:"tracker,omitempty"`
}

// failure is the part of a reply that says that there is none.
type failure struct {
	Error       string `json:"error"`
	Unsupported bool   `json:"unsupported"`
}

// call sends a request and reads the reply into out, which may be nil.
func (d *driver) call(what string, request, out any) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	reply, err := d.exchange(append(line, '\n'))
	if err != nil {
		return fmt.Errorf("%s: %s: %w", d.hello.Stack, what, err)
	}
	var failed failure
	if err := json.Unmarshal(reply, &failed); err != nil {
		return fmt.Errorf("%s: %s: a reply that is no JSON: %.200q", d.hello.Stack, what, reply)
	}
	switch {
	case failed.Unsupported:
		return &Unsupported{d.hello.Stack, what, failed.Error}
	case failed.Error != "":
		return fmt.Errorf("%s: %s: %s", d.hello.Stack, what, failed.Error)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("%s: %s: %w", d.hello.Stack, what, err)
	}
	return nil
}

// exchange sends a line and waits for the reply. A driver that has not answered
// once is of no more use: which reply is for which request would be a guess.
func (d *driver) exchange(line []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return nil, d.broken
	}
	if _, err := d.in.Write(line); err != nil {
		_ = d.end()
		d.broken = fmt.Errorf("the driver has ended: %w; it says %s", err, &d.stderr)
		return nil, d.broken
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case reply, ok := <-d.replies:
		if !ok {
			_ = d.end()
			d.broken = fmt.Errorf("the driver has ended; it says %s", &d.stderr)
		}
		return reply, d.broken
	case <-late.C:
		_ = d.cmd.Process.Kill()
		_ = d.end()
		d.broken = fmt.Errorf("no reply in %s to %.300q; it says %s", patience, line, &d.stderr)
		return nil, d.broken
	}
}

// name is one that no member or tracker has yet.
func (d *driver) name() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.named++
	return fmt.Sprint(d.named)
}

func (d *driver) NewMember(o MemberOptions) (Member, error) {
	m := &driverMember{driver: d, name: d.name()}
	err := m.call("member", "member", struct {
		head
		MemberOptions
	}{m.head("member"), o}, &m.keys)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// driverMember is a member in a driver.
type driverMember struct {
	driver *driver
	name   string
	keys   Keys
}

func (m *driverMember) head(op string) head { return head{Op: op, Member: m.name} }

func (m *driverMember) call(op, what string, request, out any) error {
	if h := &m.driver.hello; !h.Has(op) {
		return &Unsupported{h.Stack, what, "not among its operations"}
	}
	return m.driver.call(what, request, out)
}

// plain is a request that has nothing but its name.
func (m *driverMember) plain(op string, out any) error { return m.call(op, op, m.head(op), out) }

func (m *driverMember) Keys() Keys { return m.keys }

func (m *driverMember) KeyPackage() ([]byte, error) {
	var out struct {
		KeyPackage []byte `json:"key_package"`
	}
	err := m.plain("key_package", &out)
	return out.KeyPackage, err
}

func (m *driverMember) Create(groupID []byte, c Context) error {
	return m.call("create", "create", struct {
		head
		GroupID []byte `json:"group_id"`
		Context
	}{m.head("create"), groupID, c}, nil)
}

func (m *driverMember) Join(welcome []byte) error {
	return m.call("join", "join", struct {
		head
		Welcome []byte `json:"welcome"`
	}{m.head("join"), welcome}, nil)
}

func (m *driverMember) ExternalJoin(o ExternalJoin) ([]byte, error) {
	what := "external_join"
	switch {
	case o.Resync:
		what += " with resync"
	case len(o.SelfRemoves) > 0:
		what += " with self_removes"
	case len(o.Custom) > 0:
		what += " with custom"
	case len(o.PSKs) > 0:
		what += " with psks"
	}
	var out Commit
	err := m.call("external_join", what, struct {
		head
		ExternalJoin
	}{m.head("external_join"), o}, &out)
	return out.Commit, err
}

func (m *driverMember) Propose(p Proposal) ([]byte, error) {
	var out struct {
		Message []byte `json:"message"`
	}
	err := m.call("propose", "propose "+p.Kind, struct {
		head
		Proposal
	}{m.head("propose"), p}, &out)
	return out.Message, err
}

func (m *driverMember) Commit(o CommitOptions) (*Commit, error) {
	what := "commit"
	for _, p := range o.Proposals {
		what += " " + p.Kind
	}
	if o.ByReference {
		what += " by reference"
	}
	var out Commit
	err := m.call("commit", what, struct {
		head
		CommitOptions
	}{m.head("commit"), o}, &out)
	return &out, err
}

func (m *driverMember) Confirm() error { return m.plain("confirm", nil) }
func (m *driverMember) Discard() error { return m.plain("discard", nil) }
func (m *driverMember) Forget() error  { return m.plain("forget", nil) }

func (m *driverMember) Process(message []byte) (*Processed, error) {
	var out Processed
	err := m.call("process", "process", struct {
		head
		Message []byte `json:"message"`
	}{m.head("process"), message}, &out)
	return &out, err
}

func (m *driverMember) StorePSK(id, secret []byte) error {
	return m.call("psk", "psk", struct {
		head
		ID     []byte `json:"id"`
		Secret []byte `json:"secret"`
	}{m.head("psk"), id, secret}, nil)
}

func (m *driverMember) GroupInfo() ([]byte, error) {
	var out struct {
		GroupInfo []byte `json:"group_info"`
	}
	err := m.plain("group_info", &out)
	return out.GroupInfo, err
}

func (m *driverMember) State() (*State, error) {
	var out State
	err := m.plain("state", &out)
	return &out, err
}

func (d *driver) NewTracker(groupInfo []byte, o TrackerOptions) (Tracker, *State, error) {
	if !d.hello.Has("track") {
		return nil, nil, &Unsupported{d.hello.Stack, "track", "not among its operations"}
	}
	t := &driverTracker{driver: d, name: d.name()}
	var s State
	err := d.call("track", struct {
		head
		GroupInfo []byte `json:"group_info"`
		TrackerOptions
	}{head{Op: "track", Tracker: t.name}, groupInfo, o}, &s)
	return t, &s, err
}

// driverTracker is a tracker in a driver.
type driverTracker struct {
	driver *driver
	name   string
}

func (t *driverTracker) Track(message []byte) (*State, error) {
	var s State
	err := t.driver.call("track_message", struct {
		head
		Message []byte `json:"message"`
	}{head{Op: "track_message", Tracker: t.name}, message}, &s)
	return &s, err
}

func (t *driverTracker) Untrack() error {
	return t.driver.call("untrack", head{Op: "untrack", Tracker: t.name}, nil)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

const tailBytes = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = append([]byte(nil), t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := bytes.TrimSpace(t.buf); len(text) > 0 {
		return fmt.Sprintf("%q", text)
	}
	return "nothing"
}
