package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// Conn is the way to a NATS server elsewhere.
type Conn struct {
	// URL is the server, or several separated by commas. Empty: the embedded
	// server is used.
	URL string
	// Options say who the broker is to the server, and who the server is: TLS,
	// credentials, the prefix of inboxes. Optional, as is all that follows.
	Options []nats.Option
	// Name is what the server lists the connection as.
	Name string
	// Domain is the JetStream domain; APIPrefix the prefix of its API where the
	// account imports it under another. At most one is set.
	Domain, APIPrefix string
}

const (
	connectTimeout = 5 * time.Second
	pingInterval   = 15 * time.Second
	reconnectWait  = 500 * time.Millisecond
	drainTimeout   = 20 * time.Second
	// apiTimeout bounds one request to JetStream, with all attempts.
	apiTimeout = 5 * time.Second
	// answerPatience is how long one attempt waits for its answer. A server that
	// died or lost the lead does not answer any more, but the next leader does.
	answerPatience = time.Second
)

// untilAnswered makes a request, which may come twice, again until it is
// answered, within apiTimeout.
func untilAnswered(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	for {
		attempt, end := context.WithTimeout(ctx, answerPatience)
		err := request(attempt)
		silent := attempt.Err() != nil
		end()
		if err == nil || !silent || ctx.Err() != nil {
			return err
		}
	}
}

// natsOptions are those of a daemon that must know the outcome of each write:
// it reconnects for ever, notices a silent server within half a minute, and
// buffers nothing while it is disconnected.
func (c Conn) natsOptions(log *zap.Logger) []nats.Option {
	name := c.Name
	if name == "" {
		name = serviceName
	}
	opts := []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectBufSize(-1),
		nats.SyncQueueLen(2 * readBatch), // by default each read of a log takes half a MiB
		nats.PingInterval(pingInterval),
		nats.Timeout(connectTimeout),
		nats.DrainTimeout(drainTimeout),
		nats.IgnoreAuthErrorAbort(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil: we have left
				log.Warn("disconnected from NATS", zap.Error(err))
			}
		}),
	}
	return append(opts, c.Options...)
}

// jetStream is the client of JetStream on a connection, and the prefix of its
// API's subjects.
func (c Conn) jetStream(nc *nats.Conn) (jetstream.JetStream, string, error) {
	timeout := jetstream.WithDefaultTimeout(apiTimeout)
	async := jetstream.WithPublishAsyncTimeout(2 * apiTimeout)
	switch {
	case c.Domain != "" && c.APIPrefix != "":
		return nil, "", errors.New("a JetStream domain and an API prefix exclude each other")
	case c.Domain != "":
		js, err := jetstream.NewWithDomain(nc, c.Domain, timeout, async)
		return js, "$JS." + c.Domain + ".API.", err
	case c.APIPrefix != "":
		js, err := jetstream.NewWithAPIPrefix(nc, c.APIPrefix, timeout, async)
		return js, strings.TrimSuffix(c.APIPrefix, ".") + ".", err
	}
	js, err := jetstream.New(nc, timeout, async)
	return js, "$JS.API.", err
}

// drain leaves the server in order and waits until that is done.
func drain(ctx context.Context, nc *nats.Conn) error {
	closed := nc.StatusChanged(nats.CLOSED)
	if err := nc.Drain(); err != nil {
		nc.Close()
		return ignoreClosed(err)
	}
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		nc.Close()
		return fmt.Errorf("draining the NATS connection: %w", ctx.Err())
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrConnectionReconnecting) {
		return nil
	}
	return err
}
