// Package natstest runs real NATS servers with JetStream for tests, alone or in
// a cluster, each in a process of its own, and does to them what happens to
// servers: they are killed, frozen, cut off from each other or from clients,
// restarted on the same store, and lose their disk or its power. All listen on
// loopback, on ports of their own.
package natstest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Options say what servers a test wants.
type Options struct {
	// Servers is how many: 1 is a server alone, 3 a cluster. Default: 1.
	Servers int
	// SyncAlways makes writes durable before they are acknowledged.
	SyncAlways bool
	// MaxStore bounds each store, in bytes; 0 is what the server takes by itself.
	MaxStore int64
	// Disk is the first server's; the others' are folders of the test. Optional.
	Disk *Disk
}

// Cluster is one or more servers, the paths between them, and those of clients.
type Cluster struct {
	Servers []*Server

	t      testing.TB
	routes map[[2]int]*Proxy // from the server that connects, to the other
	links  []*Link
}

// Start starts servers and returns when JetStream serves, on all of them.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, routes: map[[2]int]*Proxy{}}
	n := max(o.Servers, 1)
	for i := range n {
		config := serverConfig{
			Name: fmt.Sprintf("server-%d", i), Port: FreePort(t), SyncAlways: o.SyncAlways, MaxStore: o.MaxStore, StoreDir: t.TempDir(),
		}
		if o.Disk != nil && i == 0 {
			config.StoreDir = filepath.Join(o.Disk.Path(), "store")
		}
		if n > 1 {
			config.ClusterPort = FreePort(t)
		}
		c.Servers = append(c.Servers, newServer(t, config))
	}
	for i, from := range c.Servers {
		for j, to := range c.Servers {
			if i != j {
				p := NewProxy(t, fmt.Sprintf("%s:%d", loopback, to.config.ClusterPort))
				c.routes[[2]int{i, j}] = p
				from.config.Routes = append(from.config.Routes, "nats://"+p.Addr())
			}
		}
	}
	for _, s := range c.Servers {
		s.Start()
	}
	for i := range c.Servers {
		c.AwaitServer(i)
	}
	if n > 1 {
		c.awaitPlaces(n)
	}
	return c
}

// awaitPlaces waits until the servers know of each other what it takes to place a
// stream on all of them.
func (c *Cluster) awaitPlaces(n int) {
	c.t.Helper()
	const name = "natstest-everywhere"
	c.await("a stream on all servers", func(ctx context.Context, js jetstream.JetStream) error {
		if _, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}, Replicas: n}); err != nil {
			return err
		}
		return js.DeleteStream(ctx, name)
	})
}

// URL is where a client reaches all servers, by no proxy.
func (c *Cluster) URL() string {
	var urls []string
	for _, s := range c.Servers {
		urls = append(urls, "nats://"+s.Addr())
	}
	return strings.Join(urls, ",")
}

// AwaitServer waits until a server answers for JetStream, which in a cluster has
// a leader then.
func (c *Cluster) AwaitServer(i int) {
	c.t.Helper()
	var err error
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(50 * time.Millisecond) {
		err = c.with("nats://"+c.Servers[i].Addr(), func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.AccountInfo(ctx)
			return err
		})
		if err == nil {
			return
		}
		if running, why := c.Servers[i].Running(); !running {
			c.t.Fatalf("server %d ended: %v", i, why)
		}
	}
	c.t.Fatalf("server %d is not ready after %s: %v", i, patience, err)
}

// with calls the servers once by a connection of its own.
func (c *Cluster) with(url string, call func(context.Context, jetstream.JetStream) error) error {
	nc, err := nats.Connect(url, nats.Timeout(2*time.Second))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return call(ctx, js)
}

// await calls the servers until they do what is asked.
func (c *Cluster) await(what string, call func(context.Context, jetstream.JetStream) error) {
	c.t.Helper()
	var err error
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(50 * time.Millisecond) {
		if err = c.with(c.URL(), call); err == nil {
			return
		}
	}
	c.t.Fatalf("%s: not within %s: %v", what, patience, err)
}

// Leader is the server that leads a stream, -1 if none does now. One that was cut
// off or frozen may be named although another leads.
func (c *Cluster) Leader(stream string) int {
	leader := -1
	_ = c.with(c.URL(), func(ctx context.Context, js jetstream.JetStream) (err error) {
		leader, err = c.leader(ctx, js, stream)
		return err
	})
	return leader
}

func (c *Cluster) leader(ctx context.Context, js jetstream.JetStream, stream string) (int, error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return -1, err
	}
	if len(c.Servers) == 1 {
		return 0, nil
	}
	cluster := s.CachedInfo().Cluster
	for i, s := range c.Servers {
		if cluster != nil && cluster.Leader == s.Name() {
			return i, nil
		}
	}
	return -1, errors.New("nobody leads the stream")
}

// AwaitLeader waits until somebody leads a stream, and gives the server.
func (c *Cluster) AwaitLeader(stream string) (leader int) {
	c.t.Helper()
	c.await("a leader of "+stream, func(ctx context.Context, js jetstream.JetStream) (err error) {
		leader, err = c.leader(ctx, js, stream)
		return err
	})
	return leader
}

// heardWithin is how long ago a leader may have heard from a follower: followers
// answer each second.
const heardWithin = 3 * time.Second

// AwaitSettled waits until each stream has a leader that hears from all others,
// who have all that it has. Before that, once paths have healed or servers were
// thawed, one that led before may still answer, and not have what was stored since.
func (c *Cluster) AwaitSettled() {
	c.t.Helper()
	c.await("leaders that all others follow", func(ctx context.Context, js jetstream.JetStream) error {
		streams := js.ListStreams(ctx)
		for info := range streams.Info() {
			if err := c.settled(info); err != nil {
				return err
			}
		}
		return streams.Err()
	})
}

func (c *Cluster) settled(info *jetstream.StreamInfo) error {
	if info.Config.Replicas == 1 {
		return nil
	}
	if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != info.Config.Replicas-1 {
		return fmt.Errorf("nobody leads stream %s", info.Config.Name)
	}
	for _, r := range info.Cluster.Replicas {
		if !r.Current || r.Offline || r.Active > heardWithin {
			return fmt.Errorf("stream %s: %s leads, and %s does not follow: %+v", info.Config.Name, info.Cluster.Leader, r.Name, *r)
		}
	}
	return nil
}

// Isolate changes the paths between a server and the others.
func (c *Cluster) Isolate(i int, to Condition) {
	for pair, p := range c.routes {
		if pair[0] == i || pair[1] == i {
			p.Set(to)
		}
	}
}

// Link is the way of one client to the servers: a path to each.
type Link struct{ paths []*Proxy }

// Link makes the way of one more client.
func (c *Cluster) Link() *Link {
	c.t.Helper()
	l := new(Link)
	for _, s := range c.Servers {
		l.paths = append(l.paths, NewProxy(c.t, s.Addr()))
	}
	c.links = append(c.links, l)
	return l
}

// URL is where the client reaches all servers.
func (l *Link) URL() string {
	var urls []string
	for _, p := range l.paths {
		urls = append(urls, "nats://"+p.Addr())
	}
	return strings.Join(urls, ",")
}

// Set changes the paths to all servers.
func (l *Link) Set(to Condition) {
	for _, p := range l.paths {
		p.Set(to)
	}
}

// Strand changes the paths between a server and everybody: the others, and the
// clients that have a Link.
func (c *Cluster) Strand(i int, to Condition) {
	c.Isolate(i, to)
	for _, l := range c.links {
		l.paths[i].Set(to)
	}
}
