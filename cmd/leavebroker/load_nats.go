package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/spf13/cobra"
)

const (
	// loadMaxPayload is what a message of the default limits takes with its
	// headers.
	loadMaxPayload = 1<<20 + 64<<10
	natsStart      = childStart
)

// newLoadNATS is the NATS server that load starts beside several brokers.
func newLoadNATS() *cobra.Command {
	var dir, listen string
	var syncLater bool
	cmd := &cobra.Command{
		Use:     "nats --dir DIR --listen HOST:PORT [--sync-later]",
		Short:   "Run the NATS server of a load",
		Hidden:  true,
		Example: "  leavebroker load nats --dir /tmp/nats --listen 127.0.0.1:4333",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			srv, err := startLoadNATS(dir, listen, syncLater)
			if err != nil {
				return err
			}
			if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
				return err
			}
			<-ctx.Done()
			srv.Shutdown()
			srv.WaitForShutdown()
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`DIR` of the store")
	cmd.Flags().StringVar(&listen, "listen", "", "loopback `HOST:PORT`")
	cmd.Flags().BoolVar(&syncLater, "sync-later", false, "acknowledge writes before they are durable")
	return cmd
}

func startLoadNATS(dir, listen string, syncLater bool) (*server.Server, error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, usageError("--listen %q: %v", listen, err)
	}
	port, err := strconv.Atoi(text)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, usageError("--listen %q is not a loopback address with a port", listen)
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "leavebroker-load", Host: host, Port: port, NoSigs: true,
		JetStream: true, StoreDir: dir, SyncAlways: !syncLater, MaxPayload: loadMaxPayload,
	})
	if err != nil {
		return nil, err
	}
	srv.ConfigureLogger()
	go srv.Start()
	if !srv.ReadyForConnections(natsStart) {
		srv.Shutdown()
		return nil, fmt.Errorf("the NATS server is not ready after %s", natsStart)
	}
	if !srv.JetStreamEnabled() {
		srv.Shutdown()
		return nil, errors.New("JetStream is not enabled")
	}
	return srv, nil
}
