package broker_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"leavebroker/broker"
	"leavebroker/broker/delivery"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/mlstest/biggroup"
)

// permissions are those of the README for tenant acme: what each may publish.
func permissions(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	check(t, err)
	_, table, found := strings.Cut(string(text), "| who | may publish |\n|---|---|\n")
	table, _, ended := strings.Cut(table, "\n\n")
	if !found || !ended {
		t.Fatal("the README has no table of permissions")
	}
	may := map[string][]string{}
	for line := range strings.Lines(strings.ReplaceAll(table, ".T.", ".acme.")) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		who, _, _ := strings.Cut(strings.TrimSpace(cells[0]), " ")
		for i, code := range strings.Split(cells[1], "`") {
			if i%2 == 1 {
				may[who] = append(may[who], strings.ReplaceAll(code, "removals-T", "removals-acme"))
			}
		}
	}
	may["delivery"] = append(may["delivery"], may["client"]...)
	return may
}

// Broker, delivery service, clients and operators need no more than the README
// says, and a client cannot do what is an operator's.
func TestPermissions(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), waitFor)
	defer cancel()
	may := permissions(t)
	opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), MaxPayload: 2 << 20}
	for _, who := range []string{"broker", "delivery", "client", "operator"} {
		if len(may[who]) == 0 {
			t.Fatalf("the README does not say what the %s may do", who)
		}
		opts.Users = append(opts.Users, &server.User{Username: who, Password: "secret", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: may[who]},
		}})
	}
	srv, err := server.NewServer(opts)
	check(t, err)
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(waitFor) {
		t.Fatal("the server is not ready")
	}
	denied := make(chan error, 16)
	url := func(who string) string {
		return strings.Replace(srv.ClientURL(), "nats://", "nats://"+who+":secret@", 1)
	}
	connect := func(who string) *nats.Conn {
		nc, err := nats.Connect(url(who), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			select {
			case denied <- err:
			default:
			}
		}))
		check(t, err)
		t.Cleanup(nc.Close)
		return nc
	}

	signer, err := mlscore.GenerateSigner(mlscore.Ed25519, rand.Reader)
	check(t, err)
	b, err := broker.New(broker.Options{
		Partitions: 2, Conn: broker.Conn{URL: url("broker")},
		Tenants: []broker.Tenant{{Name: "acme", Signers: []mlscore.Signer{signer}}},
	})
	check(t, err)
	run(t, b)

	service, err := delivery.New(connect("delivery"), "leave", "acme")
	check(t, err)
	g, err := biggroup.New(biggroup.Config{Suite: 1, Members: 5000, Seed: 1, Now: time.Now(), ExternalSender: signer})
	check(t, err)
	info, err := g.GroupInfo() // goes into the object store
	check(t, err)
	id := g.Context().GroupID
	check(t, service.GroupInfo(ctx, id, info))
	proof, err := g.Commit(g.Member())
	check(t, err)
	check(t, service.Commit(ctx, id, proof.Message))

	suite, err := mlscore.LookupSuite(1)
	check(t, err)
	leave := func(leaf mlscore.LeafIndex) []byte {
		in, err := intents.New(g.Signer(leaf), suite, id, leaf, g.Tree().Leaf(leaf), intents.SenderRemovalOnly)
		check(t, err)
		return in.Message(intents.DefaultWireFormat)
	}
	asClient, err := delivery.New(connect("client"), "leave", "acme")
	check(t, err)
	v, err := asClient.SubmitIntent(ctx, leave(1234), 5*time.Second)
	check(t, err)
	if v.State != intents.StatePending {
		t.Fatalf("submitted by a client: %+v", v)
	}
	_, err = asClient.Pending(ctx, id)
	check(t, err)
	if got := leaves(t, proposed(t, ctx, service, g.Context().Epoch, 1)); !slices.Equal(got, []mlscore.LeafIndex{1234}) {
		t.Errorf("proposed %v", got)
	}
	v, err = service.SubmitIntent(ctx, leave(2345), 5*time.Second)
	check(t, err)
	select {
	case err := <-denied:
		t.Errorf("denied: %v", err)
	default:
	}

	cancelIntent, err := json.Marshal(map[string]any{"id": v.ID, "group_id": id})
	check(t, err)
	check(t, connect("client").Publish("leave.api.acme.intent.cancel", cancelIntent))
	select {
	case err := <-denied:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("a client that cancels: %v", err)
		}
	case <-ctx.Done():
		t.Error("a client may cancel")
	}
	m, err := connect("operator").RequestWithContext(ctx, "leave.api.acme.intent.cancel", cancelIntent)
	check(t, err)
	if !strings.Contains(string(m.Data), intents.StateCancelled) {
		t.Errorf("cancelled by an operator: %s", m.Data)
	}
	if troubles := b.Troubles(); len(troubles) > 0 {
		t.Errorf("troubles: %v", troubles)
	}
}
