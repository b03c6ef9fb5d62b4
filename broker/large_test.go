package broker

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
	"leavebroker/mlscore/mlstest/biggroup"
)

// A group of 50,000 members works: its GroupInfo comes by reference, two of the
// members leave one after the other, and those who joined it commit the broker's
// proposals by reference. The joiners are real members with the group's secrets;
// of the 50,000 there are signature keys alone, which neither the broker nor
// joiners can tell from more.
func TestGroupOf50000Members(t *testing.T) {
	if testing.Short() {
		t.Skip("signs and verifies 50,000 leaves, several times")
	}
	const members = 50_000
	w := newWorld(t, nil)
	took := newLaps(t)
	g := must[*biggroup.Group](t)(biggroup.New(biggroup.Config{
		Suite: testSuiteID, Members: members, Seed: 1, Now: time.Now(), ExternalSender: w.signer,
	}))
	context := g.Context()
	w.groupID, w.members = context.GroupID, map[mlscore.LeafIndex]*member.Group{}
	info := must[[]byte](t)(g.GroupInfo())
	took.lap("making the group")
	w.refer(info)
	took.lap("storing its GroupInfo as an object")

	// A member's signature proves the epoch; then the first real member joins. The
	// group's external_pub is random bytes: X25519 takes any for a key.
	proof := must[biggroup.Handshake](t)(g.Commit(g.Member()))
	w.publish(kindCommit, proof.Message)
	info = must[[]byte](t)(g.GroupInfo())
	w.joinWith("erin", info, member.ExternalJoinOptions{})
	took.lap("joining")

	var want []proposed
	for n, leaver := range []mlscore.LeafIndex{12_345, 43_210} {
		propose := func() [][]byte {
			t.Helper()
			want = append(want, proposed{w.epoch(), leaver})
			return w.awaitOutput(w.epoch(), leaver)
		}
		message := w.intentWith(g.Signer(leaver), leaver)
		if v := w.submit(message); v.State != intents.StatePending && v.State != stateStored { // stored: there is no verdict in time
			t.Fatalf("leaf %d: verdict %+v", leaver, v)
		}
		propose()
		took.lap("an intent until its proposal")
		w.restart()
		took.lap("a restart")
		joiner := w.join([]string{"frank", "grace"}[n])
		took.lap("joining")
		proposals := propose()
		took.lap("an external commit after a restart until the proposal")

		w.fanOut(proposals)
		commit := w.commitUnseen(joiner, member.CommitOptions{})
		took.lap("members' part in a removal")
		content := w.refersTo(commit, proposals)
		w.publish(kindCommit, commit)
		e := w.await("removed", func(e event) bool { return e.Type == intents.StateRemoved && e.Intent == w.id(message) })
		took.lap("a commit until the event")
		if !slices.Equal(e.Leaves, []mlscore.LeafIndex{leaver}) || e.Commit != string(sumOf(content)) {
			t.Errorf("removed: %+v", e)
		}
		if left := w.any().Public().Tree(); left.LeafBytes(leaver) != nil || left.Members() != members+1 {
			t.Errorf("%d members, and leaf %d among them: %t", left.Members(), leaver, left.LeafBytes(leaver) != nil)
		}
		w.sameSecrets()
		t.Logf("proposals: %d bytes, commit: %d bytes", len(slices.Concat(proposals...)), len(commit))
	}

	// The broker is where the members are, and proposed nobody else.
	w.noWork()
	var show groupReply
	if err := w.api("group.show", groupRequest{GroupID: w.groupID}, &show); err != nil || show.Epoch != w.epoch() || show.Members != members+1 || !show.Authorised {
		t.Errorf("show: %+v %v", show, err)
	}
	took.lap("showing the group")
	var got []proposed
	for _, out := range w.outputs() {
		for _, b := range out.Proposals {
			got = append(got, proposed{out.Epoch, w.removed(b)})
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("proposed %v, want %v", got, want)
	}
}

// proposed is a Remove in an output.
type proposed struct {
	epoch uint64
	leaf  mlscore.LeafIndex
}

// refer hands on a GroupInfo that is too large for a message, and deletes the
// object when the broker has its own copy.
func (w *world) refer(info []byte) {
	w.t.Helper()
	w.t.Logf("GroupInfo: %d bytes", len(info))
	if int64(len(info)) <= w.nc.MaxPayload() {
		w.t.Fatalf("a GroupInfo of %d bytes fits into a message", len(info))
	}
	ctx := testContext(w.t)
	infos := must[jetstream.ObjectStore](w.t)(w.js.ObjectStore(ctx, w.broker.names.infoBucket()))
	must[*jetstream.ObjectInfo](w.t)(infos.PutBytes(ctx, "large", info))
	w.reference("large", sumOf(info))
	w.eventually("the broker has a copy", func() bool {
		_, err := w.broker.blobs.GetInfo(ctx, blobName(w.key(), sha256Sum(info)))
		return err == nil
	})
	if err := infos.Delete(ctx, "large"); err != nil {
		w.t.Fatal(err)
	}
}

// intentWith is the intent of a member whose signature key alone there is.
func (w *world) intentWith(signer mlscore.Signer, leaf mlscore.LeafIndex) []byte {
	w.t.Helper()
	suite := must[*mlscore.Suite](w.t)(mlscore.LookupSuite(testSuiteID))
	in := must[*intents.LeafOperationIntent](w.t)(intents.New(signer, suite, w.groupID, leaf, w.any().Public().Tree().Leaf(leaf), intents.SenderRemovalOnly))
	return in.Message(intents.DefaultWireFormat)
}

// refersTo checks that a commit has these proposals by reference, and no others.
// It gives the commit's AuthenticatedContent.
func (w *world) refersTo(commit []byte, proposals [][]byte) []byte {
	w.t.Helper()
	suite := must[*mlscore.Suite](w.t)(mlscore.LookupSuite(testSuiteID))
	parse := func(b []byte) *mlscore.PublicMessage {
		return must[*mlscore.MLSMessage](w.t)(mlscore.ParseMLSMessage(b, nil)).PublicMessage
	}
	var got, want [][]byte
	for _, p := range parse(commit).Content.Commit.Proposals {
		got = append(got, p.Reference)
	}
	for _, b := range proposals {
		want = append(want, parse(b).ProposalRef(suite))
	}
	if !slices.EqualFunc(got, want, bytes.Equal) {
		w.t.Errorf("the commit refers to %x, want %x", got, want)
	}
	return parse(commit).AuthenticatedContent.Append(nil)
}

// sameSecrets checks that the members with secrets are in one epoch.
func (w *world) sameSecrets() {
	w.t.Helper()
	for leaf, g := range w.members {
		if !bytes.Equal(g.EpochAuthenticator(), w.any().EpochAuthenticator()) {
			w.t.Errorf("leaf %d is not in the epoch of the others", leaf)
		}
	}
}

// laps times the stages of a test, and logs at its end how long each took at
// most. No check depends on it.
type laps struct {
	begin  time.Time
	stages []string
	most   map[string]time.Duration
}

func newLaps(t *testing.T) *laps {
	l := &laps{begin: time.Now(), most: map[string]time.Duration{}}
	t.Cleanup(func() {
		for _, stage := range l.stages {
			t.Logf("%s: %s", stage, l.most[stage].Round(time.Millisecond))
		}
	})
	return l
}

func (l *laps) lap(stage string) {
	if _, known := l.most[stage]; !known {
		l.stages = append(l.stages, stage)
	}
	l.most[stage] = max(l.most[stage], time.Since(l.begin))
	l.begin = time.Now()
}

// More leavers than fit into a message at a time, or than one output names, are
// proposed by several outputs. More than that would be put back for ever, and hold
// up all that comes after.
func TestManyLeavers(t *testing.T) {
	const leavers, messageBytes = 400, 256 << 10
	w := newWorld(t, func(o *Options) { o.Limits.MessageBytes = messageBytes })
	c := newCrowd(w, leavers)
	subject, all := c.found()
	w.publishMany([]string{subject}, all)
	want := make([]mlscore.LeafIndex, leavers)
	for i := range want {
		want[i] = mlscore.LeafIndex(i + 1)
	}
	w.awaitOutput(w.epoch(), want...)
	w.empty(0)
	w.awaitOutput(w.epoch(), want...)
	outputs := 0
	for _, out := range w.outputs() {
		if out.Epoch != w.epoch() {
			continue
		}
		outputs++
		size := 0
		for _, p := range out.Proposals {
			size += len(p) * 4 / 3
		}
		if size > messageBytes/2 || len(out.Intents) > 256 {
			t.Errorf("an output of %d bytes and %d intents", size, len(out.Intents))
		}
	}
	if outputs < 2 {
		t.Errorf("%d outputs", outputs)
	}
	w.checkOutputs()
}
