package natstest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	loopback = "127.0.0.1"
	// maxPayload has room for the broker's largest message with its headers.
	maxPayload = 1<<20 + 64<<10
	// childEnv holds the serverConfig of a child process.
	childEnv = "LEAVEBROKER_NATSTEST_SERVER"
)

// A server is the test's own program, started again: every test binary that
// imports this package can be one, and runs nothing else then.
func init() {
	if text := os.Getenv(childEnv); text != "" {
		fmt.Fprintln(os.Stderr, serve(text))
		os.Exit(1)
	}
}

// Server is a nats-server in a process of its own.
type Server struct {
	Process
	config serverConfig
}

// serverConfig is what a child process is told.
type serverConfig struct {
	Name        string
	Port        int
	ClusterPort int      // 0: alone
	Routes      []string // URLs
	StoreDir    string
	SyncAlways  bool
	MaxStore    int64
}

func newServer(t testing.TB, c serverConfig) *Server {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{config: c}
	s.Process = Process{T: t, LogPath: filepath.Join(t.ArtifactDir(), c.Name+".log"), Command: func() *exec.Cmd {
		text, err := json.Marshal(s.config)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), childEnv+"="+string(text))
		if _, err := cmd.StdinPipe(); err != nil { // ends with this process
			t.Fatal(err)
		}
		return cmd
	}}
	return s
}

// Name is what the server calls itself.
func (s *Server) Name() string { return s.config.Name }

// Addr is the host:port for clients.
func (s *Server) Addr() string { return net.JoinHostPort(loopback, strconv.Itoa(s.config.Port)) }

// serve runs a server until it is told to end, and then does not return.
func serve(text string) error {
	var c serverConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1) // whoever started it is gone
	}()
	opts, err := c.options()
	if err != nil {
		return err
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	s.WaitForShutdown()
	select {} // SIGTERM: the handler of signals ends the process, with code 0
}

func (c serverConfig) options() (*server.Options, error) {
	opts := &server.Options{
		ServerName: c.Name, Host: loopback, Port: c.Port, MaxPayload: maxPayload, Logtime: true,
		JetStream: true, StoreDir: c.StoreDir, SyncAlways: c.SyncAlways, JetStreamMaxStore: c.MaxStore,
	}
	if c.ClusterPort == 0 {
		return opts, nil
	}
	opts.Cluster = server.ClusterOpts{
		Name: "natstest", Host: loopback, Port: c.ClusterPort,
		NoAdvertise: true, PoolSize: -1, // one connection for each pair, by the proxies alone
		Advertise: net.JoinHostPort(loopback, "1"), // where nobody is: else servers tell each other the way past the proxies
	}
	for _, route := range c.Routes {
		opts.Routes = append(opts.Routes, server.RoutesFromStr(route)...)
	}
	return opts, nil
}
