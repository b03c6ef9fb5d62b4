package natstest

import (
	"net"
	"sync"
	"testing"
)

// Condition is what a proxy does with connections.
type Condition uint8

// The conditions of a network path.
const (
	Healed Condition = iota // bytes pass
	Held                    // bytes stand still and nobody hears of it: a partition
	Cut                     // connections are reset, new ones too
)

// Proxy is a TCP path to an address that a test disturbs.
type Proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	changed *sync.Cond // on mu
	is      Condition
	closed  bool
	conns   map[net.Conn]bool // both ends of every connection
}

// NewProxy starts a path to host:port that ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.changed = sync.NewCond(&p.mu)
	go p.accept()
	t.Cleanup(p.close)
	return p
}

// Addr is the host:port that stands for the target.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set changes what happens to connections, open ones too. What was held goes on
// its way when the path heals.
func (p *Proxy) Set(c Condition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.is = c
	if c == Cut {
		p.reset()
	}
	p.changed.Broadcast()
}

func (p *Proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.reset()
	p.changed.Broadcast()
}

// reset ends all connections. The caller holds mu.
func (p *Proxy) reset() {
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
	clear(p.conns)
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.connect(client)
	}
}

// connect joins a new client to the target, once the path lets it.
func (p *Proxy) connect(client net.Conn) {
	if !p.keep(client) {
		return
	}
	defer p.drop(client)
	if !p.pass(client) {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil || !p.keep(server) {
		return
	}
	defer p.drop(server)
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		go func() {
			p.pump(way[0], way[1])
			done <- struct{}{}
		}()
	}
	<-done // the other ends when its connections are closed
}

// pump moves bytes one way until an end closes. The end of a connection is held
// like its bytes.
func (p *Proxy) pump(from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !p.pass(from) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits while the path is held, and says whether the connection still is.
func (p *Proxy) pass(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.is == Held && p.conns[c] {
		p.changed.Wait()
	}
	return p.conns[c]
}

// keep takes a connection, or closes it where there is no path.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	if p.is == Cut || p.closed {
		p.reset()
		return false
	}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	p.changed.Broadcast()
}
