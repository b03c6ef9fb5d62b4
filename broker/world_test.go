package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

const (
	testTenant  = "acme"
	testSuiteID = mlscore.CipherSuite(1)
	patience    = 2 * time.Minute
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// world is a broker on an embedded server of its own, and a delivery service
// with real members beside it. It speaks NATS alone.
type world struct {
	t      testing.TB
	opts   Options
	signer mlscore.Signer
	random *rand.ChaCha8
	shared *member.Shared

	broker *Broker
	stop   func()
	nc     *nats.Conn
	js     jetstream.JetStream

	members map[mlscore.LeafIndex]*member.Group
	tenant  string
	groupID []byte
	serial  int

	registry  *mlscore.Registry // of the clients; nil: the default
	associate func(*mlscore.PublicGroup, mlscore.LeafIndex) ([]mlscore.LeafIndex, bool)
}

func newWorld(t testing.TB, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, random: rand.NewChaCha8([32]byte{1}), shared: new(member.Shared), tenant: testTenant, groupID: []byte("group")}
	w.signer = must[mlscore.Signer](t)(mlscore.GenerateSigner(mlscore.Ed25519, w.random))
	w.opts = Options{
		Partitions: 2,
		Tenants:    []Tenant{{Name: testTenant, Signers: []mlscore.Signer{w.signer}, Policy: intents.Policy{LagWindow: time.Minute, StalledAfter: 3}}},
		Embedded:   Embedded{StateDir: t.TempDir(), SyncLater: true},
		AckWait:    time.Second, PinTTL: time.Second, EventsMaxAge: time.Hour,
		Logger: zap.NewNop(),
	}
	if testing.Verbose() {
		w.opts.Logger = zaptest.NewLogger(t, zaptest.WrapOptions(zap.IncreaseLevel(zap.InfoLevel)))
	}
	if change != nil {
		change(&w.opts)
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// start runs the broker until stop is called or the test ends.
func (w *world) start() {
	w.t.Helper()
	w.broker = must[*Broker](w.t)(New(w.opts))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.broker.Run(ctx) }()
	w.nc = must[*nats.Conn](w.t)(w.broker.Connect())
	w.js = must[jetstream.JetStream](w.t)(jetstream.New(w.nc))
	w.stop = sync.OnceFunc(func() {
		w.nc.Close()
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			w.t.Error("the broker does not stop")
		}
	})
	for begin := time.Now(); w.broker.Ready() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > patience {
			w.t.Fatalf("not ready: %v", w.broker.Ready())
		}
		select {
		case err := <-ended:
			w.t.Fatalf("Run: %v", err)
		default:
		}
	}
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// store is that of the tenant's log.
func (w *world) store() *store { return w.broker.byTenant[w.tenant].store }

func (w *world) key() groupKey { return groupKey{w.tenant, GroupToken(w.groupID)} }

// publish stores an input and gives its sequence.
func (w *world) publish(what kind, data []byte) uint64 {
	w.t.Helper()
	ack := must[*jetstream.PubAck](w.t)(w.js.Publish(testContext(w.t), w.broker.names.in(w.key(), what), data))
	return ack.Sequence
}

// events gives the events of the group so far, the latest of a type and intent
// counted once for each message they follow from.
func (w *world) events() []event {
	w.t.Helper()
	return w.eventsOf(w.key())
}

func (w *world) eventsOf(k groupKey) []event {
	w.t.Helper()
	s := must[jetstream.Stream](w.t)(w.js.Stream(testContext(w.t), w.broker.names.eventStream()))
	var events []event
	for seq := uint64(1); ; seq++ {
		m, err := s.GetMsg(testContext(w.t), seq, jetstream.WithGetMsgSubject(w.broker.names.event(k, "*")))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return events
		}
		if err != nil {
			w.t.Fatal(err)
		}
		var e event
		if err := json.Unmarshal(m.Data, &e); err != nil {
			w.t.Fatal(err)
		}
		if !slices.Contains(eventTypes, e.Type) || e.Reason != "" && !slices.Contains(reasons, e.Reason) {
			w.t.Errorf("an event that is not documented: %+v", e)
		}
		events, seq = append(events, e), m.Sequence
	}
}

// await waits for an event.
func (w *world) await(what string, match func(event) bool) event {
	w.t.Helper()
	return w.awaitIn(w.key(), what, match)
}

func (w *world) awaitIn(k groupKey, what string, match func(event) bool) event {
	w.t.Helper()
	var events []event
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(10 * time.Millisecond) {
		events = w.eventsOf(k)
		for _, e := range events {
			if match(e) {
				return e
			}
		}
	}
	for _, e := range events {
		w.t.Logf("%+v", e)
	}
	w.t.Fatalf("no event: %s", what)
	return event{}
}

func ofType(typ, reason string) func(event) bool {
	return func(e event) bool { return e.Type == typ && (reason == "" || e.Reason == reason) }
}

// outputs are the outputs in the log.
func (w *world) outputs() []intents.Output {
	w.t.Helper()
	var outputs []intents.Output
	err := w.store().read(testContext(w.t), w.store().names.log(w.key(), kindRemoval), 1, func(e entry) error {
		var out intents.Output
		outputs = append(outputs, out)
		return json.Unmarshal(e.data, &outputs[len(outputs)-1])
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return outputs
}

// awaitOutput waits until the outputs of an epoch remove exactly these leaves,
// and checks that none is removed twice.
func (w *world) awaitOutput(epoch uint64, leaves ...mlscore.LeafIndex) [][]byte {
	w.t.Helper()
	var got []mlscore.LeafIndex
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(10 * time.Millisecond) {
		var messages [][]byte
		got = nil
		for _, out := range w.outputs() {
			if out.Epoch != epoch {
				continue
			}
			for _, b := range out.Proposals {
				messages, got = append(messages, b), append(got, w.removed(b))
			}
		}
		slices.Sort(got)
		if slices.Equal(got, leaves) {
			return messages
		}
	}
	w.t.Fatalf("the outputs of epoch %d remove %v, want %v", epoch, got, leaves)
	return nil
}

func (w *world) removed(message []byte) mlscore.LeafIndex {
	w.t.Helper()
	m := must[*mlscore.MLSMessage](w.t)(mlscore.ParseMLSMessage(message, nil))
	return m.PublicMessage.Content.Proposal.Removed
}

// api calls a service.
func (w *world) api(endpoint string, request, reply any) error {
	w.t.Helper()
	return w.apiOf(w.tenant, endpoint, request, reply)
}

func (w *world) apiOf(tenant, endpoint string, request, reply any) error {
	w.t.Helper()
	body, isRaw := request.([]byte)
	if !isRaw {
		body = must[[]byte](w.t)(json.Marshal(request))
	}
	m := must[*nats.Msg](w.t)(w.nc.RequestWithContext(testContext(w.t), w.broker.names.api(tenant, endpoint), body))
	if code := m.Header.Get(micro.ErrorCodeHeader); code != "" {
		var e apiError
		if err := json.Unmarshal(m.Data, &e); err != nil || e.Code != code || e.Text != m.Header.Get(micro.ErrorHeader) {
			w.t.Errorf("%s: header %q, body %q", endpoint, code, m.Data)
		}
		return &e
	}
	if reply == nil {
		return nil
	}
	return json.Unmarshal(m.Data, reply)
}

// client makes a client.
func (w *world) client(name string) *member.Client {
	w.t.Helper()
	return &member.Client{
		CipherSuite: testSuiteID, Random: w.random, Shared: w.shared, Credential: mlscore.BasicCredential([]byte(name)),
		Registry: w.registry, Associate: w.associate,
		Signer: must[mlscore.Signer](w.t)(mlscore.GenerateSigner(mlscore.Ed25519, w.random)),
	}
}

var forever = mlscore.Lifetime{NotAfter: 1 << 40}

// create makes a group of named members without telling the broker.
func (w *world) create(names ...string) {
	w.t.Helper()
	senders := mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{{SignatureKey: w.signer.PublicKey(), Credential: mlscore.BasicCredential([]byte("leavebroker"))}})
	creator := must[*member.Group](w.t)(w.client(names[0]).Create(w.groupID, mlscore.Extensions{{Type: mlscore.ExtensionTypeExternalSenders, Data: senders}}, forever))
	w.members = map[mlscore.LeafIndex]*member.Group{0: creator}
	var keys []*member.KeyPackage
	var opts member.CommitOptions
	for _, name := range names[1:] {
		k := must[*member.KeyPackage](w.t)(w.client(name).NewKeyPackage(forever))
		keys = append(keys, k)
		opts.Proposals = append(opts.Proposals, member.Add(k.KeyPackage))
	}
	if len(keys) == 0 {
		return
	}
	c := must[*member.Commit](w.t)(creator.Commit(opts))
	if err := creator.ConfirmCommit(); err != nil {
		w.t.Fatal(err)
	}
	for _, k := range keys {
		g := must[*member.Group](w.t)(k.Join(c.Welcome, nil))
		w.members[g.OwnLeaf()] = g
	}
}

// found makes a group and hands its GroupInfo on; then a member commits, so
// that the broker's base is proven.
func (w *world) found(names ...string) {
	w.t.Helper()
	w.create(names...)
	w.info()
	w.empty(0)
}

// info hands on the GroupInfo of the current epoch.
func (w *world) info() {
	w.t.Helper()
	w.publish(kindInfo, must[[]byte](w.t)(w.any().GroupInfo()))
}

// prove hands on a proposal by a member: a signature over the epoch. The
// proposal is never committed.
func (w *world) prove() {
	w.t.Helper()
	w.serial++
	k := must[*member.KeyPackage](w.t)(w.client(fmt.Sprintf("never %d", w.serial)).NewKeyPackage(forever))
	w.propose(must[[]byte](w.t)(w.any().ProposeAdd(k.KeyPackage)), w.any().OwnLeaf())
}

// any is the member with the lowest leaf.
func (w *world) any() *member.Group {
	return w.members[slices.Min(slices.Collect(maps.Keys(w.members)))]
}

func (w *world) epoch() uint64 { return w.any().Epoch() }

// leave gives the intent of a member, who vanishes.
func (w *world) leave(leaf mlscore.LeafIndex, mode intents.RemovalMode) []byte {
	w.t.Helper()
	m := w.intent(leaf, mode)
	delete(w.members, leaf)
	return m
}

// intent gives the intent of a member who stays around.
func (w *world) intent(leaf mlscore.LeafIndex, mode intents.RemovalMode) []byte {
	w.t.Helper()
	g := w.members[leaf]
	suite := must[*mlscore.Suite](w.t)(mlscore.LookupSuite(testSuiteID))
	in := must[*intents.LeafOperationIntent](w.t)(intents.New(g.Client().Signer, suite, w.groupID, leaf, g.Public().Tree().Leaf(leaf), mode))
	return in.Message(intents.DefaultWireFormat)
}

func (w *world) id(message []byte) string {
	w.t.Helper()
	in := must[*intents.LeafOperationIntent](w.t)(intents.ParseMessage(message, intents.DefaultWireFormat))
	return in.ID(w.tenant)
}

// submit gives an intent to the service.
func (w *world) submit(message []byte) verdict {
	w.t.Helper()
	var v verdict
	if err := w.api("intent.submit", submitRequest{Intent: message, Wait: "5s"}, &v); err != nil {
		w.t.Fatal(err)
	}
	return v
}

// propose brings a proposal to the broker and all members but its sender.
func (w *world) propose(message []byte, sender mlscore.LeafIndex) {
	w.t.Helper()
	w.publish(kindProposal, message)
	w.deliver(message, sender)
}

// fanOut brings the broker's proposals to all members.
func (w *world) fanOut(messages [][]byte) {
	w.t.Helper()
	for _, m := range messages {
		w.deliver(m, noSender)
	}
}

const noSender = mlscore.LeafIndex(1 << 31)

func (w *world) deliver(message []byte, sender mlscore.LeafIndex) {
	w.t.Helper()
	for leaf, g := range w.members {
		if leaf == sender {
			continue
		}
		if _, err := g.Process(message); err != nil {
			w.t.Fatalf("leaf %d: %v", leaf, err)
		}
	}
}

// commit lets a member commit what is pending and brings it to everybody.
func (w *world) commit(leaf mlscore.LeafIndex, opts member.CommitOptions) {
	w.t.Helper()
	w.publish(kindCommit, w.commitUnseen(leaf, opts))
}

// commitUnseen brings a commit to all members and not to the broker.
func (w *world) commitUnseen(leaf mlscore.LeafIndex, opts member.CommitOptions) []byte {
	w.t.Helper()
	g := w.members[leaf]
	c := must[*member.Commit](w.t)(g.Commit(opts))
	if err := g.ConfirmCommit(); err != nil {
		w.t.Fatal(err)
	}
	w.deliver(c.Message, leaf)
	w.dropRemoved()
	return c.Message
}

// empty commits with a path and nothing else.
func (w *world) empty(leaf mlscore.LeafIndex) {
	w.commit(leaf, member.CommitOptions{References: [][]byte{}})
}

func (w *world) dropRemoved() {
	for leaf, g := range w.members {
		if g.Removed() {
			delete(w.members, leaf)
		}
	}
}

// join lets a new client join by an external commit and gives its leaf.
func (w *world) join(name string) mlscore.LeafIndex {
	w.t.Helper()
	info := must[[]byte](w.t)(w.any().GroupInfo())
	return w.joinWith(name, info, member.ExternalJoinOptions{})
}

func (w *world) joinWith(name string, info []byte, opts member.ExternalJoinOptions) mlscore.LeafIndex {
	w.t.Helper()
	g, c, err := w.client(name).JoinExternal(info, opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.publish(kindCommit, c.Message)
	w.deliver(c.Message, noSender)
	w.dropRemoved()
	w.members[g.OwnLeaf()] = g
	return g.OwnLeaf()
}

// agree checks that the members left are these and share their secrets.
func (w *world) agree(leaves ...mlscore.LeafIndex) {
	w.t.Helper()
	authenticator := w.any().EpochAuthenticator()
	for _, leaf := range leaves {
		g := w.members[leaf]
		if g == nil || !bytes.Equal(g.EpochAuthenticator(), authenticator) {
			w.t.Errorf("leaf %d is not in the epoch of the others", leaf)
		}
	}
	var inTree []mlscore.LeafIndex
	for leaf := range w.any().Members() {
		inTree = append(inTree, leaf)
	}
	if !slices.Equal(inTree, leaves) || len(w.members) != len(leaves) {
		w.t.Errorf("the tree holds %v, %d members are left, want %v", inTree, len(w.members), leaves)
	}
}

// noWork waits until the log is consumed up to what was published, and nothing is
// in hand. What the server says to be pending may lag behind a publication.
func (w *world) noWork() {
	w.t.Helper()
	for p := range w.opts.Partitions {
		var newest uint64
		for _, filter := range w.store().names.partitionFilters(p) {
			e, err := w.store().readLast(testContext(w.t), filter)
			if err != nil && !errors.Is(err, errNoEntry) {
				w.t.Fatal(err)
			}
			newest = max(newest, e.seq)
		}
		w.eventually("the partition is consumed", func() bool {
			c := must[jetstream.Consumer](w.t)(w.js.Consumer(testContext(w.t), w.store().names.logStream(), w.store().names.partitionConsumer(p)))
			info := c.CachedInfo()
			return info.NumPending == 0 && info.NumAckPending == 0 && info.AckFloor.Stream >= newest
		})
	}
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > patience {
			w.t.Fatalf("not in time: %s", what)
		}
	}
}

func sha256Sum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

func newMsg(subject string, data []byte) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Data = data
	return m
}
