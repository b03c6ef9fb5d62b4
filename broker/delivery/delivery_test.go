package delivery

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A server was seen to forget a request for removals: they come all the same, and
// before the time of the request is over.
func TestRequestForRemovalsIsLost(t *testing.T) {
	srv, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: t.TempDir(), NoSigs: true})
	check(t, err)
	srv.Start()
	defer srv.WaitForShutdown()
	defer srv.Shutdown()
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	check(t, err)
	defer nc.Close()
	s, err := New(nc, "leave", "acme")
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), removalsExpiry)
	defer cancel()
	log, err := s.js.CreateStream(ctx, jetstream.StreamConfig{Name: "leave-log", Subjects: []string{"removals"}})
	check(t, err)
	_, err = log.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "removals-acme", AckPolicy: jetstream.AckExplicitPolicy})
	check(t, err)
	_, err = s.js.Publish(ctx, "removals", []byte(`{"epoch":7}`))
	check(t, err)

	account, err := srv.LookupAccount(server.DEFAULT_GLOBAL_ACCOUNT)
	check(t, err)
	const requests = "$JS.API.CONSUMER.MSG.NEXT.leave-log.removals-acme"
	check(t, account.AddMapping(requests, "lost"))
	var lost atomic.Int32
	_, err = nc.Subscribe("lost", func(*nats.Msg) {
		lost.Add(1)
		account.RemoveMapping(requests)
	})
	check(t, err)

	end := sync.OnceFunc(cancel)
	check(t, s.Removals(ctx, func(r *Removal) {
		if r.Epoch != 7 || lost.Load() == 0 {
			t.Errorf("epoch %d, %d requests lost", r.Epoch, lost.Load())
		}
		check(t, r.Done())
		end()
	}))
	if ctx.Err() != context.Canceled {
		t.Error("no removal came")
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
