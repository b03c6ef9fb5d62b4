package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"leavebroker/broker"
	"leavebroker/config"
)

// quickListen is where the embedded server listens without a configuration.
const quickListen = "127.0.0.1:4222"

// signalGrace is how long further signals are taken for the first one: who
// signals a process and its whole group sends it two at once.
const signalGrace = 500 * time.Millisecond

// statusInterval is how often systemd is told how things stand.
const statusInterval = 5 * time.Second

func newServe() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve [--config FILE]",
		Short: "Run the daemon",
		Long: `Serves the tenants of a configuration until SIGTERM or SIGINT; another signal half
a second later ends it at once. leavebroker config check tells whether a
configuration is valid.

Without a configuration it runs a NATS server with JetStream in the state
directory, which listens on ` + quickListen + `, and serves one tenant, default, with
keys that it makes on first start. The log shows the ExternalSender that a group
puts into its external_senders extension.

Exit codes: 0 after an orderly end, 1 a failure, 2 an unreadable file, 78 a
configuration that is refused.`,
		Example: `  leavebroker serve
  leavebroker serve --config /etc/leavebroker/leavebroker.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			if path == "" && !cfg.NATS.External() && cfg.NATS.Embedded.Listen == "" {
				cfg.NATS.Embedded.Listen = quickListen
			}
			log, err := newLogger(cfg.Log)
			if err != nil {
				return err
			}
			defer func() { _ = log.Sync() }() // fails on terminals
			return serve(cmd.Context(), cfg, log)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "configuration `FILE`; without it, the defaults and the environment")
	return cmd
}

func serve(ctx context.Context, cfg *config.Config, log *zap.Logger) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	opts, err := brokerOptions(cfg, log)
	if err != nil {
		return err
	}
	b, err := broker.New(opts)
	if err != nil {
		return withListenHint(err, opts)
	}
	if url := b.URL(); url != "" {
		log.Info("the embedded NATS server listens", zap.String("url", url))
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		tellSystemd(ctx, b, log)
	}()
	context.AfterFunc(ctx, func() {
		time.Sleep(signalGrace)
		stop() // the next signal ends the process
	})
	err = b.Run(ctx)
	stop()
	<-told
	log.Info("stopped", zap.Error(err))
	return err
}

// withListenHint adds to the error of a start what to do about it, if the
// embedded server's address is taken.
func withListenHint(err error, opts broker.Options) error {
	if opts.Conn.URL != "" || opts.Embedded.Listen == "" {
		return err
	}
	l, taken := net.Listen("tcp", opts.Embedded.Listen)
	if taken == nil {
		return errors.Join(err, l.Close())
	}
	return fmt.Errorf("%w; give it a free address by nats.embedded.listen (LEAVEBROKER_NATS_EMBEDDED_LISTEN), or use the server that is there by nats.url (LEAVEBROKER_NATS_URL)", err)
}

// tellSystemd reports readiness, status and life to the service manager, if
// there is one, until the context ends.
func tellSystemd(ctx context.Context, b *broker.Broker, log *zap.Logger) {
	notify := func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Warn("the service manager cannot be told", zap.Error(err))
		}
	}
	interval := statusInterval
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog's interval is not known", zap.Error(err))
	}
	if watchdog > 0 {
		interval = min(interval, watchdog/3)
	}
	ready := false
	for {
		if err := b.Ready(); err == nil {
			groups, open := b.Summary()
			state := fmt.Sprintf("STATUS=%d open intents in %d groups", open, groups)
			if troubles := b.Troubles(); len(troubles) > 0 {
				state += "; " + strings.Join(troubles, "; ")
			}
			if !ready {
				state, ready = daemon.SdNotifyReady+"\n"+state, true
			}
			notify(state)
		} else {
			notify("STATUS=" + err.Error())
		}
		if err := b.Live(); watchdog > 0 && err == nil {
			notify(daemon.SdNotifyWatchdog)
		} else if err != nil {
			log.Error("stuck", zap.Error(err))
		}
		wait := interval
		if !ready {
			wait = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			notify(daemon.SdNotifyStopping)
			return
		case <-time.After(wait):
		}
	}
}
