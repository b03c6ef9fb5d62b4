package broker_test

import (
	"context"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/mlstest/biggroup"
)

// A delivery service hands on a GroupInfo that is too large for a message as it
// does any other.
func TestDeliveryOfALargeGroupInfo(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), waitFor)
	defer cancel()
	signer, err := mlscore.GenerateSigner(mlscore.Ed25519, rand.Reader)
	check(t, err)
	ds := serve(t, signer)
	g, err := biggroup.New(biggroup.Config{Suite: 1, Members: 5000, Seed: 1, Now: time.Now(), ExternalSender: signer})
	check(t, err)
	info, err := g.GroupInfo()
	check(t, err)
	if len(info) <= 1<<20 {
		t.Fatalf("%d bytes fit into a message", len(info))
	}
	id := g.Context().GroupID
	check(t, ds.GroupInfo(ctx, id, info))
	proof, err := g.Commit(g.Member())
	check(t, err)
	check(t, ds.Commit(ctx, id, proof.Message))

	const leaver = 1234
	suite, err := mlscore.LookupSuite(1)
	check(t, err)
	in, err := intents.New(g.Signer(leaver), suite, id, leaver, g.Tree().Leaf(leaver), intents.SenderRemovalOnly)
	check(t, err)
	_, err = ds.SubmitIntent(ctx, in.Message(intents.DefaultWireFormat), 5*time.Second)
	check(t, err)
	if got := leaves(t, proposed(t, ctx, ds, g.Context().Epoch, 1)); !slices.Equal(got, []mlscore.LeafIndex{leaver}) {
		t.Errorf("proposed %v", got)
	}
}
