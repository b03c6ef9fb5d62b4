package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"leavebroker/broker"
	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// loadStack is the brokers under load and a connection to them: one in this
// process on its embedded server, or child processes on a NATS server that is a
// child too, or whatever is at a URL.
type loadStack struct {
	opts loadOptions
	conn *nats.Conn
	dir  string // of our own brokers; removed in the end
	keys []mlscore.Signer

	stopEmbedded func() error
	server       *loadChild
	brokers      []*loadChild
}

// loadConfiguration is that of our own brokers: no quotas, and a rule by which
// the name before a colon is the user.
const loadConfiguration = `state_dir: %s
nats:
  %s
log: {level: warn, format: json}
tenants:
  - name: %s
    quotas: {intents_per_second: 0, open_intents: 0}
    authsvc:
      type: static
      credentials_vouched: true
      rules:
        - {match: basic, encoding: utf8, pattern: "(?P<subject>[^:]+):.*"}
prefix: %s
`

func startLoadStack(ctx context.Context, opts loadOptions) (_ *loadStack, err error) {
	s := &loadStack{opts: opts}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if opts.server != "" {
		return s, s.connect(opts.server)
	}
	if s.dir, err = os.MkdirTemp("", "leavebroker-load-"); err != nil {
		return s, err
	}
	if opts.brokers == 0 {
		return s, s.startEmbedded(ctx)
	}
	return s, s.startChildren(ctx)
}

func (s *loadStack) connect(url string) (err error) {
	options := []nats.Option{nats.Name("leavebroker load"), nats.Timeout(loadWait), nats.MaxReconnects(-1)}
	if s.opts.creds != "" {
		options = append(options, nats.UserCredentials(s.opts.creds))
	}
	if s.conn, err = nats.Connect(url, options...); err != nil {
		return fmt.Errorf("connecting to the NATS server: %w", err)
	}
	return nil
}

// configure writes the configuration of our own brokers and makes the keys that
// they share.
func (s *loadStack) configure(natsOptions string) (path string, opts broker.Options, err error) {
	path = filepath.Join(s.dir, "leavebroker.yaml")
	text := fmt.Sprintf(loadConfiguration, s.dir, natsOptions, s.opts.tenant, s.opts.prefix)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return path, opts, err
	}
	cfg, err := loadConfig(path)
	if err != nil {
		return path, opts, err
	}
	if opts, err = brokerOptions(cfg, zap.NewNop()); err != nil {
		return path, opts, err
	}
	s.keys = opts.Tenants[0].Signers
	return path, opts, nil
}

func (s *loadStack) startEmbedded(ctx context.Context) error {
	_, opts, err := s.configure(fmt.Sprintf("embedded: {sync_always: %t}", !s.opts.syncLater))
	if err != nil {
		return err
	}
	b, err := broker.New(opts)
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- b.Run(running) }()
	s.stopEmbedded = func() error {
		cancel()
		return <-ended
	}
	if err := awaitBroker(ctx, b); err != nil {
		return err
	}
	s.conn, err = b.Connect(nats.Name("leavebroker load"))
	return err
}

func (s *loadStack) startChildren(ctx context.Context) error {
	listen, err := freeAddress()
	if err != nil {
		return err
	}
	args := []string{"load", "nats", "--dir", filepath.Join(s.dir, "nats"), "--listen", listen}
	if s.opts.syncLater {
		args = append(args, "--sync-later")
	}
	if s.server, err = startChild(ctx, s.dir, "nats", args...); err != nil {
		return err
	}
	url := "nats://" + listen
	config, _, err := s.configure("url: " + url)
	if err != nil {
		return err
	}
	for i := range s.opts.brokers {
		b, err := startChild(ctx, s.dir, fmt.Sprintf("broker-%d", i+1), "serve", "--config", config)
		if err != nil {
			return err
		}
		s.brokers = append(s.brokers, b)
	}
	return s.connect(url)
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// restart ends the broker processes in order, starts them again, and tells how
// long it takes until all are ready.
func (s *loadStack) restart(ctx context.Context) (time.Duration, error) {
	for _, b := range s.brokers {
		if err := b.stop(); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	for i, old := range s.brokers {
		b, err := startChild(ctx, s.dir, old.name, old.args...)
		if err != nil {
			return 0, err
		}
		s.brokers[i] = b
	}
	return time.Since(begin), nil
}

// externalSender is what groups of a suite install.
func (s *loadStack) externalSender(suite *mlscore.Suite) (mlscore.ExternalSender, error) {
	for _, key := range s.keys {
		if key.Scheme() == suite.Signature {
			return mlscore.ExternalSender{SignatureKey: key.PublicKey(), Credential: mlscore.BasicCredential([]byte(defaultIdentity))}, nil
		}
	}
	return parseExternalSender(s.opts.sender)
}

// parseExternalSender reads an ExternalSender in hex, as key show prints it.
func parseExternalSender(text string) (mlscore.ExternalSender, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) == 0 {
		return mlscore.ExternalSender{}, usageError("--external-sender has to be the hex that leavebroker key show prints")
	}
	r := codec.NewReader(b)
	sender := mlscore.ReadExternalSender(r)
	if err := r.Finish(); err != nil {
		return sender, usageError("--external-sender: %v", err)
	}
	return sender, nil
}

// processes tells what the processes of ours used.
func (s *loadStack) processes() []loadProcess {
	if s.dir == "" {
		return nil
	}
	list := []loadProcess{readProcess("load", os.Getpid())}
	if s.server != nil {
		list = append(list, readProcess(s.server.name, s.server.cmd.Process.Pid))
	}
	for _, b := range s.brokers {
		list = append(list, readProcess(b.name, b.cmd.Process.Pid))
	}
	return list
}

// stop ends everything of ours and removes what it stored.
func (s *loadStack) stop() error {
	if s.conn != nil {
		s.conn.Close()
	}
	var errs []error
	for _, b := range s.brokers {
		errs = append(errs, b.stop())
	}
	if s.server != nil {
		errs = append(errs, s.server.stop())
	}
	if s.stopEmbedded != nil {
		errs = append(errs, s.stopEmbedded())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
