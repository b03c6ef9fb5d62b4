package natstest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leavebroker/broker/natstest"
)

const patience = 60 * time.Second

func TestProxy(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	p := natstest.NewProxy(t, l.Addr().String())
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	write := func(b byte) {
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	read := func(within time.Duration) (byte, error) {
		b := make([]byte, 1)
		_ = conn.SetReadDeadline(time.Now().Add(within))
		_, err := io.ReadFull(conn, b)
		return b[0], err
	}
	write(1)
	if b, err := read(patience); b != 1 || err != nil {
		t.Fatalf("healed: %d, %v", b, err)
	}
	p.Set(natstest.Held)
	write(2)
	if b, err := read(100 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("held: %d, %v", b, err)
	}
	p.Set(natstest.Healed)
	if b, err := read(patience); b != 2 || err != nil {
		t.Fatalf("what was held: %d, %v", b, err)
	}
	p.Set(natstest.Cut)
	if b, err := read(patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("cut: %d, %v", b, err)
	}
	if conn, err = net.Dial("tcp", p.Addr()); err == nil {
		if b, err := read(patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a new connection on a cut path: %d, %v", b, err)
		}
	}
}

// client publishes numbered messages until each is acknowledged.
type client struct {
	*testing.T
	js    jetstream.JetStream
	acked map[string]*jetstream.PubAck
}

func newClient(t *testing.T, url string, replicas int) *client {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.Timeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	c := &client{T: t, acked: map[string]*jetstream.PubAck{}}
	if c.js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = c.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "numbers", Subjects: []string{"n.*"}, Replicas: replicas})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// publish tries once to store the next number.
func (c *client) publish() error {
	ctx, cancel := context.WithTimeout(c.Context(), time.Second)
	defer cancel()
	subject := fmt.Sprintf("n.%d", len(c.acked))
	ack, err := c.js.Publish(ctx, subject, make([]byte, 10_000), jetstream.WithMsgID(subject))
	if err == nil {
		c.acked[subject] = ack
	}
	return err
}

func (c *client) mustPublish(n int) {
	c.Helper()
	for begin := time.Now(); n > 0; {
		if err := c.publish(); err == nil {
			n--
		} else if time.Since(begin) > patience {
			c.Fatal(err)
		}
	}
}

// intact checks that everything acknowledged is there.
func (c *client) intact() {
	c.Helper()
	if lost := c.lost(); len(lost) > 0 {
		c.Errorf("acknowledged and lost: %q", lost)
		for _, subject := range lost {
			c.Logf("%s was acknowledged: %+v", subject, *c.acked[subject])
		}
	}
}

func (c *client) lost() (lost []string) {
	for subject := range c.acked {
		err := c.find(subject)
		for begin := time.Now(); err != nil && !isLost(err); err = c.find(subject) {
			if time.Since(begin) > patience { // a server that came back may take long to catch up
				c.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			lost = append(lost, subject)
		}
	}
	return lost
}

func isLost(err error) bool {
	return errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
}

func (c *client) find(subject string) error {
	s, err := c.js.Stream(c.Context(), "numbers")
	if err == nil {
		_, err = s.GetLastMsgForSubject(c.Context(), subject)
	}
	return err
}

// The servers of a cluster go on without one of them, and nothing that was
// acknowledged is lost.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("elections take seconds")
	}
	t.Parallel()
	cluster := natstest.Start(t, natstest.Options{Servers: 3})
	c := newClient(t, cluster.Link().URL(), 3)
	c.mustPublish(10)

	killed := cluster.AwaitLeader("numbers")
	cluster.Servers[killed].Kill()
	c.mustPublish(10)
	cluster.Servers[killed].Start()
	cluster.AwaitServer(killed)

	stranded := cluster.AwaitLeader("numbers")
	cluster.Strand(stranded, natstest.Cut)
	c.mustPublish(10)
	cluster.Strand(stranded, natstest.Healed)

	frozen := cluster.AwaitLeader("numbers") // the stranded one may still think so
	cluster.Servers[frozen].Freeze()
	cluster.Servers[frozen].Thaw()
	c.mustPublish(10)
	cluster.AwaitSettled()
	c.intact()
	for _, s := range cluster.Servers {
		s.Stop()
	}
}

// A minority acknowledges nothing.
func TestMinority(t *testing.T) {
	if testing.Short() {
		t.Skip("elections take seconds")
	}
	t.Parallel()
	cluster := natstest.Start(t, natstest.Options{Servers: 3})
	c := newClient(t, cluster.URL(), 3)
	c.mustPublish(1)
	leader := cluster.AwaitLeader("numbers")
	alone, err := nats.Connect("nats://" + cluster.Servers[leader].Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	for i := range cluster.Servers {
		cluster.Isolate(i, natstest.Held)
	}
	if m, err := alone.Request("n.lost", nil, time.Second); err == nil {
		t.Fatalf("one of three acknowledged: %s", m.Data)
	}
	for i := range cluster.Servers {
		cluster.Isolate(i, natstest.Healed)
	}
	c.mustPublish(1)
	cluster.AwaitSettled()
	c.intact()
}

// What was acknowledged outlives a full disk, and a power cut.
func TestDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("makes file systems")
	}
	t.Parallel()
	disk := natstest.NewDisk(t, 64<<20)
	cluster := natstest.Start(t, natstest.Options{Disk: disk, SyncAlways: true, MaxStore: 1 << 30})
	s := cluster.Servers[0]
	c := newClient(t, cluster.URL(), 1)
	c.mustPublish(100)
	s.Freeze()
	disk.CutPower(s.Kill)
	s.Start()
	cluster.AwaitServer(0)
	c.intact()

	disk.Fill()
	var err error
	for range 1000 {
		if err = c.publish(); err != nil {
			break
		}
	}
	if err == nil {
		t.Fatal("the full disk takes 10 MB")
	}
	disk.Free()
	s.Kill()
	s.Start()
	c.mustPublish(1)
	c.intact()
}

// A power cut takes along what a server acknowledged and did not sync: the cut
// is a real one.
func TestCutPower(t *testing.T) {
	if testing.Short() {
		t.Skip("makes file systems")
	}
	t.Parallel()
	disk := natstest.NewDisk(t, 64<<20)
	cluster := natstest.Start(t, natstest.Options{Disk: disk})
	s := cluster.Servers[0]
	c := newClient(t, cluster.URL(), 1)
	c.mustPublish(100)
	s.Freeze()
	disk.CutPower(s.Kill)
	s.Start()
	cluster.AwaitServer(0)
	if len(c.lost()) == 0 {
		t.Error("nothing is lost")
	}
}
