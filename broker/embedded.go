package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
)

// Embedded is a NATS server with JetStream in this process.
type Embedded struct {
	// StateDir is the folder of the store; it is made if it does not exist. One
	// process at a time uses it. Required.
	StateDir string
	// Listen is the loopback host:port where others reach the server, which asks
	// nobody for credentials; port 0 or -1 is any free one. Optional; empty is
	// no listener.
	Listen string
	// SyncLater acknowledges writes before they are durable: a power loss then
	// takes up to half a minute of acknowledged messages along.
	SyncLater bool
	// MaxStore bounds the store on disk, in bytes; 0 is three quarters of the
	// free space.
	MaxStore int64
}

const (
	embeddedReadyTimeout = 30 * time.Second
	embeddedMaxMemory    = 256 << 20 // nothing of ours is stored in memory
	// headerRoom is what headers may add to the largest message.
	headerRoom = 64 << 10
)

// embedded is a running server that holds the lock of its store.
type embedded struct {
	server *server.Server
	lock   *flock.Flock
}

// startEmbedded locks the store and starts a server on it that serves. The
// server itself locks nothing: two on one store would lose acknowledged
// messages.
func startEmbedded(e Embedded, maxMessage int, log *zap.Logger) (_ *embedded, err error) {
	opts, err := e.serverOptions(maxMessage)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(e.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock := flock.New(filepath.Join(e.StateDir, "LOCK"))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("state directory %q is in use by another process", e.StateDir)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Unlock())
		}
	}()
	srv, err := runServer(opts, log.Named("nats"))
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	return &embedded{srv, lock}, nil
}

func (e Embedded) serverOptions(maxMessage int) (*server.Options, error) {
	if e.StateDir == "" {
		return nil, errors.New("the embedded server needs a state directory")
	}
	opts := &server.Options{
		ServerName:         "leavebroker",
		DontListen:         e.Listen == "",
		JetStream:          true,
		StoreDir:           filepath.Join(e.StateDir, "nats"),
		JetStreamMaxStore:  e.MaxStore,
		JetStreamMaxMemory: embeddedMaxMemory,
		SyncAlways:         !e.SyncLater,
		MaxPayload:         int32(maxMessage + headerRoom),
		NoSigs:             true,
	}
	if e.Listen == "" {
		return opts, nil
	}
	host, port, err := net.SplitHostPort(e.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen %q: %v", e.Listen, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("listen %q: the embedded server asks nobody for credentials and listens on loopback addresses only", e.Listen)
	}
	if opts.Port, err = strconv.Atoi(port); err != nil || opts.Port > 65535 || opts.Port < -1 {
		return nil, fmt.Errorf("listen %q: port %q", e.Listen, port)
	}
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	opts.Host = host
	return opts, nil
}

// runServer starts a server and returns when it serves with JetStream.
func runServer(opts *server.Options, log *zap.Logger) (*server.Server, error) {
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	logger := &serverLogger{log: log.WithOptions(zap.AddCallerSkip(1)).Sugar(), fatal: make(chan struct{})}
	srv.SetLoggerV2(logger, false, false, false)
	started := make(chan struct{})
	go func() {
		defer close(started)
		srv.Start()
	}()
	ready := make(chan bool, 1)
	go func() { ready <- srv.ReadyForConnections(embeddedReadyTimeout) }()
	ok := false
	select {
	case ok = <-ready:
	case <-logger.fatal:
	}
	if ok && srv.JetStreamEnabled() && logger.err() == nil {
		return srv, nil
	}
	srv.Shutdown()
	srv.WaitForShutdown()
	<-started
	switch err := logger.err(); {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("not ready within %s", embeddedReadyTimeout)
	}
	return nil, errors.New("JetStream is not enabled")
}

// url is where others reach the server; empty where it does not listen.
func (e *embedded) url() string {
	if addr, ok := e.server.Addr().(*net.TCPAddr); ok && addr != nil {
		return "nats://" + addr.String()
	}
	return ""
}

// dropConsumer removes what the server kept of a consumer that it does not know
// any more, as it cannot read it. The consumer is then made anew, after the last
// checkpoint of its partition.
func (e *embedded) dropConsumer(stream, consumer string) error {
	account, err := e.server.LookupAccount(server.DEFAULT_GLOBAL_ACCOUNT)
	if err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(e.server.StoreDir(), account.Name, "streams", stream, "obs", consumer))
}

// stop ends the server after its clients have left, and frees the store.
func (e *embedded) stop() error {
	e.server.Shutdown()
	e.server.WaitForShutdown()
	return e.lock.Unlock()
}

// serverLogger gives the server's log to zap. Fatalf does not end the process:
// it is kept as the reason why the server cannot start.
type serverLogger struct {
	log   *zap.SugaredLogger
	once  sync.Once
	fatal chan struct{} // closed by the first Fatalf
	cause error         // written before fatal is closed
}

func (l *serverLogger) Noticef(format string, v ...any) { l.log.Debugf(format, v...) }
func (l *serverLogger) Warnf(format string, v ...any)   { l.log.Warnf(format, v...) }
func (l *serverLogger) Errorf(format string, v ...any)  { l.log.Errorf(format, v...) }
func (l *serverLogger) Debugf(format string, v ...any)  { l.log.Debugf(format, v...) }
func (l *serverLogger) Tracef(format string, v ...any)  { l.log.Debugf(format, v...) }
func (l *serverLogger) Fatalf(format string, v ...any) {
	l.log.Errorf(format, v...)
	l.once.Do(func() {
		l.cause = fmt.Errorf(format, v...)
		close(l.fatal)
	})
}

func (l *serverLogger) err() error {
	select {
	case <-l.fatal:
		return l.cause
	default:
		return nil
	}
}
