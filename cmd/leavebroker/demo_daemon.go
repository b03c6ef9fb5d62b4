package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"leavebroker/broker"
	"leavebroker/mlscore"
)

// Where the demonstration's broker is reached.
const (
	demoPrefix = "leave"
	demoTenant = "default"
)

// demoDaemon is a broker on an embedded server, with a connection to it such as
// any client has.
type demoDaemon struct {
	conn   *nats.Conn
	sender mlscore.ExternalSender // what the group installs

	stateDir string
	cancel   context.CancelFunc
	ended    chan error
}

func startDemoDaemon(ctx context.Context, id mlscore.CipherSuite, random io.Reader) (_ *demoDaemon, err error) {
	suite, err := toolRegistry().LookupSuite(id)
	if err != nil {
		return nil, err
	}
	signer, err := mlscore.GenerateSigner(suite.Signature, random)
	if err != nil {
		return nil, err
	}
	d := &demoDaemon{
		ended:  make(chan error, 1),
		sender: mlscore.ExternalSender{SignatureKey: signer.PublicKey(), Credential: mlscore.BasicCredential([]byte(defaultIdentity))},
	}
	if d.stateDir, err = os.MkdirTemp("", "leavebroker-demo-"); err != nil {
		return nil, err
	}
	b, err := broker.New(broker.Options{
		Prefix: demoPrefix, Tenants: []broker.Tenant{{Name: demoTenant, Signers: []mlscore.Signer{signer}}},
		Embedded: broker.Embedded{StateDir: d.stateDir}, Limits: broker.Limits{MessageBytes: 8 << 20},
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.stateDir))
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.cancel = cancel
	go func() { d.ended <- b.Run(running) }()
	if err = awaitBroker(ctx, b); err == nil {
		d.conn, err = b.Connect(nats.Name("leavebroker demo"))
	}
	if err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

// awaitBroker waits until the broker serves.
func awaitBroker(ctx context.Context, b *broker.Broker) error {
	deadline := time.Now().Add(demoPatience)
	for {
		err := b.Ready()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("not ready after %s: %w", demoPatience, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// stop ends the broker in order and removes its store.
func (d *demoDaemon) stop() error {
	if d.conn != nil {
		d.conn.Close()
	}
	d.cancel()
	return errors.Join(<-d.ended, os.RemoveAll(d.stateDir))
}
