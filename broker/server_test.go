package broker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// testServer is an embedded server on a folder of its own, with a connection.
func testServer(t *testing.T) (*embedded, jetstream.JetStream, *nats.Conn) {
	t.Helper()
	e, err := startEmbedded(Embedded{StateDir: t.TempDir(), SyncLater: true}, defaultMessageBytes, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	})
	nc, err := nats.Connect("", nats.InProcessServer(e.server))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return e, js, nc
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func testAssets(partitions int) assets {
	return assets{
		names: names{prefix: "leave", partitions: partitions}, maxMessage: defaultMessageBytes, pinTTL: time.Second, ackWait: time.Second,
		eventMaxAge: time.Hour, tenants: []string{"acme", "globex"}, replicas: 1, mayMake: true,
	}
}

// ensureAll makes or compares everything as a broker does at its start.
func ensureAll(ctx context.Context, a assets, js jetstream.JetStream) (jetstream.KeyValue, error) {
	kv, err := a.ensureBucket(ctx, js, a.ledgerConfig())
	if err != nil {
		return nil, err
	}
	return kv, errors.Join(a.ensureStream(ctx, js, a.eventConfig()),
		a.ensureLog(ctx, js, func(int) (uint64, error) { return 0, nil }))
}

func contextCanceled() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx.Err()
}
