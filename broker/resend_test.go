package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"leavebroker/broker"
	"leavebroker/broker/delivery"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

const waitFor = 2 * time.Minute

// client makes a client of a suite.
func client(t *testing.T, suite *mlscore.Suite, name string, random *rand.ChaCha8) *member.Client {
	t.Helper()
	signer, err := mlscore.GenerateSigner(suite.Signature, random)
	check(t, err)
	return &member.Client{CipherSuite: suite.ID, Signer: signer, Random: random, Credential: mlscore.BasicCredential([]byte(name))}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Three members leave for good; somebody joins by an external commit, which
// drops the proposals; they come again for the new epoch and are committed
// once; exactly the right members remain. The delivery service speaks NATS
// alone, and takes the proposals from its durable consumer.
func TestProposalsAreSentAgainAfterAnExternalJoin(t *testing.T) {
	for _, id := range []mlscore.CipherSuite{1, 2, 3, 4, 5, 7, 0xf001, 0xf00a, 0xf00b} {
		t.Run(fmt.Sprintf("suite %#x", id), func(t *testing.T) {
			if testing.Short() && id != 1 {
				t.Skip("one suite is enough")
			}
			playResend(t, id)
		})
	}
}

func playResend(t *testing.T, id mlscore.CipherSuite) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*waitFor)
	defer cancel()
	suite, err := mlscore.DefaultRegistry().LookupSuite(id)
	check(t, err)
	random := rand.NewChaCha8([32]byte{byte(id)})
	signer, err := mlscore.GenerateSigner(suite.Signature, random)
	check(t, err)
	ds := serve(t, signer)

	// Six members; 1, 3 and 4 will leave.
	groupID := []byte("conversation")
	senders := mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{{SignatureKey: signer.PublicKey(), Credential: mlscore.BasicCredential([]byte("leavebroker"))}})
	alive := mlscore.Lifetime{NotAfter: 1 << 40}
	creator, err := client(t, suite, "member 0", random).Create(groupID, mlscore.Extensions{{Type: mlscore.ExtensionTypeExternalSenders, Data: senders}}, alive)
	check(t, err)
	members := []*member.Group{creator}
	deliver := func(from *member.Group, message []byte) {
		t.Helper()
		for _, m := range members {
			if m != from {
				_, err := m.Process(message)
				check(t, err)
			}
		}
	}
	commit := func(from *member.Group, opts member.CommitOptions) *member.Commit {
		t.Helper()
		c, err := from.Commit(opts)
		check(t, err)
		check(t, ds.Commit(ctx, groupID, c.Message))
		check(t, from.ConfirmCommit())
		deliver(from, c.Message)
		return c
	}
	info, err := creator.GroupInfo()
	check(t, err)
	check(t, ds.GroupInfo(ctx, groupID, info))
	var adds member.CommitOptions
	var keys []*member.KeyPackage
	for i := range 5 {
		k, err := client(t, suite, fmt.Sprintf("member %d", i+1), random).NewKeyPackage(alive)
		check(t, err)
		keys = append(keys, k)
		adds.Proposals = append(adds.Proposals, member.Add(k.KeyPackage))
	}
	c := commit(creator, adds)
	for _, k := range keys {
		g, err := k.Join(c.Welcome, nil)
		check(t, err)
		members = append(members, g)
	}

	// The leavers sign and vanish.
	leavers := []mlscore.LeafIndex{1, 3, 4}
	var ids []string
	for _, leaf := range leavers {
		g := members[leaf]
		in, err := intents.New(g.Client().Signer, suite, groupID, leaf, g.Public().Tree().Leaf(leaf), intents.SenderRemovalOnly)
		check(t, err)
		v, err := ds.SubmitIntent(ctx, in.Message(intents.DefaultWireFormat), 5*time.Second)
		check(t, err)
		if v.State != intents.StatePending {
			t.Fatalf("verdict %+v", v)
		}
		ids = append(ids, v.ID)
	}
	members = []*member.Group{members[0], members[2], members[5]}
	if got := proposed(t, ctx, ds, creator.Epoch(), 3); !slices.Equal(leaves(t, got), leavers) {
		t.Fatalf("proposed %v", leaves(t, got))
	}

	// Somebody joins from outside, which ends the epoch of those proposals.
	info, err = creator.GroupInfo()
	check(t, err)
	newcomer, external, err := client(t, suite, "newcomer", random).JoinExternal(info, member.ExternalJoinOptions{})
	check(t, err)
	check(t, ds.Commit(ctx, groupID, external.Message))
	deliver(nil, external.Message)
	members = append(members, newcomer)

	again := proposed(t, ctx, ds, newcomer.Epoch(), 3)
	if !slices.Equal(leaves(t, again), leavers) {
		t.Fatalf("proposed again %v", leaves(t, again))
	}
	pending, err := ds.Pending(ctx, groupID)
	check(t, err)
	if pending.Epoch != newcomer.Epoch() || len(pending.Proposals) != 3 || len(pending.MustReference) != 3 {
		t.Errorf("pending %+v", pending)
	}
	for _, m := range again {
		deliver(nil, m)
	}
	commit(members[1], member.CommitOptions{})

	var remain []mlscore.LeafIndex
	for leaf := range newcomer.Members() {
		remain = append(remain, leaf)
	}
	if want := []mlscore.LeafIndex{0, 2, 5, newcomer.OwnLeaf()}; !slices.Equal(remain, want) {
		t.Errorf("members %v, want %v", remain, want)
	}
	for _, m := range members {
		if !bytes.Equal(m.EpochAuthenticator(), creator.EpochAuthenticator()) {
			t.Errorf("leaf %d is not in the epoch of the others", m.OwnLeaf())
		}
	}
	commit(creator, member.CommitOptions{}) // its signature confirms
	for _, id := range ids {
		receipt(t, ctx, ds, id)
	}
	if r, err := ds.NextRemoval(ctx, 200*time.Millisecond); err != nil || r != nil {
		t.Errorf("one more removal: %+v %v", r, err)
	}
}

// serve runs a broker and connects a delivery service to it.
func serve(t *testing.T, signer mlscore.Signer) *delivery.Service {
	t.Helper()
	b, err := broker.New(broker.Options{
		Partitions: 2, Embedded: broker.Embedded{StateDir: t.TempDir(), SyncLater: true},
		Tenants: []broker.Tenant{{Name: "default", Signers: []mlscore.Signer{signer}}},
	})
	check(t, err)
	run(t, b)
	nc, err := b.Connect(nats.Name("delivery service"))
	check(t, err)
	t.Cleanup(nc.Close)
	ds, err := delivery.New(nc, "leave", "default")
	check(t, err)
	return ds
}

// run runs a broker until the test ends, and returns when it is ready.
func run(t *testing.T, b *broker.Broker) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for begin := time.Now(); b.Ready() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > waitFor {
			t.Fatal(errors.Join(errors.New("not ready"), b.Ready()))
		}
	}
}

// proposed takes removals from the durable consumer until an epoch has n.
func proposed(t *testing.T, ctx context.Context, ds *delivery.Service, epoch uint64, n int) (messages [][]byte) {
	t.Helper()
	for begin := time.Now(); len(messages) < n && time.Since(begin) < waitFor; {
		r, err := ds.NextRemoval(ctx, time.Second)
		check(t, err)
		if r == nil {
			continue
		}
		if r.Epoch == epoch {
			messages = append(messages, r.Proposals...)
		}
		check(t, r.Done())
	}
	return messages
}

func leaves(t *testing.T, messages [][]byte) (list []mlscore.LeafIndex) {
	t.Helper()
	for _, b := range messages {
		m, err := mlscore.ParseMLSMessage(b, nil)
		check(t, err)
		list = append(list, m.PublicMessage.Content.Proposal.Removed)
	}
	slices.Sort(list)
	return list
}

// receipt waits until an intent is removed and confirmed.
func receipt(t *testing.T, ctx context.Context, ds *delivery.Service, id string) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		v, err := ds.IntentStatus(ctx, nil, id)
		check(t, err)
		if v.State == intents.StateRemoved && v.Confirmed {
			return
		}
		if time.Since(begin) > waitFor {
			t.Fatalf("intent %+v", v)
		}
	}
}
