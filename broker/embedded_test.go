package broker

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

func TestStateDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	e, err := startEmbedded(Embedded{StateDir: dir}, defaultMessageBytes, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := startEmbedded(Embedded{StateDir: dir}, defaultMessageBytes, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server on the store: %v, want it refused", err)
	}
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	e, err = startEmbedded(Embedded{StateDir: dir}, defaultMessageBytes, zap.NewNop())
	if err != nil {
		t.Fatalf("after the first has stopped: %v", err)
	}
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestEmbeddedSyncsAlways(t *testing.T) {
	opts, err := Embedded{StateDir: "x"}.serverOptions(1000)
	if err != nil || !opts.SyncAlways || !opts.DontListen {
		t.Errorf("SyncAlways %v, DontListen %v, %v", opts.SyncAlways, opts.DontListen, err)
	}
}

func TestEmbeddedListens(t *testing.T) {
	e, err := startEmbedded(Embedded{StateDir: t.TempDir(), Listen: "127.0.0.1:0"}, defaultMessageBytes, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer e.stop()
	nc, err := nats.Connect(e.url())
	if err != nil {
		t.Fatalf("%q: %v", e.url(), err)
	}
	nc.Close()
}

// What the server calls fatal ends the start with its text.
func TestEmbeddedStartFails(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	blocked := t.TempDir()
	if err := os.WriteFile(filepath.Join(blocked, "nats"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]Embedded{
		"no directory":      {},
		"a file":            {StateDir: file},
		"store is a file":   {StateDir: blocked},
		"port in use":       {StateDir: t.TempDir(), Listen: busy.Addr().String()},
		"not loopback":      {StateDir: t.TempDir(), Listen: "0.0.0.0:0"},
		"any address":       {StateDir: t.TempDir(), Listen: ":4222"},
		"no port":           {StateDir: t.TempDir(), Listen: "127.0.0.1"},
		"port out of range": {StateDir: t.TempDir(), Listen: "127.0.0.1:70000"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := startEmbedded(e, defaultMessageBytes, zap.NewNop())
			if err == nil {
				s.stop()
				t.Fatal("started")
			}
			t.Log(err)
		})
	}
}
