package broker

import (
	"context"
	"testing"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore/member"
)

// A group whose handshakes are PrivateMessages is followed by its GroupInfos,
// epoch by epoch: the commit that cannot be read asks for one, nothing is
// proposed before it comes, and then the removal is, for the new epoch.
func TestPrivateHandshakes(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Tenants[0].Policy.InfoTrustDS = true })
	w.create("alice", "bob", "carol", "dave")
	for _, g := range w.members {
		g.Client().EncryptHandshakes = true
	}
	w.info()
	intent := w.leave(1, intents.SenderRemovalOnly)
	if v := w.submit(intent); v.State != intents.StatePending {
		t.Fatalf("%+v", v)
	}
	w.awaitOutput(w.epoch(), 1)
	for range 3 {
		w.empty(0)
		w.await("a GroupInfo is asked for", func(e event) bool {
			return e.Type == intents.NoticeNeedsGroupInfo && e.Epoch == w.epoch()-1
		})
		w.noWork()
		if _, leaves := w.proposedIn(w.epoch()); len(leaves) > 0 {
			t.Errorf("epoch %d has proposals before its GroupInfo", w.epoch())
		}
		w.info()
		w.awaitOutput(w.epoch(), 1)
	}
	w.restart()
	w.fanOut(w.awaitOutput(w.epoch(), 1))
	w.commit(2, member.CommitOptions{})
	w.info()
	w.await("removed", func(e event) bool { return e.Intent == w.id(intent) && e.Type == intents.StateRemoved })
	w.agree(0, 2, 3)
	w.checkOutputs()
}

// A slow Authentication Service holds up nobody but the intents that need it,
// in the same partition and group.
func TestSlowServiceHoldsNothingUp(t *testing.T) {
	slow := make(slowService)
	w := newWorld(t, func(o *Options) {
		o.Partitions = 1
		o.Tenants[0].AuthService, o.Tenants[0].AuthTimeout = slow, time.Minute
	})
	w.found("alice/1", "bob/1", "alice/2", "carol/1")
	w.publish(kindIntent, w.leave(2, intents.RemoveAssociatedMembers))
	w.awaitOutput(w.epoch(), 2) // the sender goes at once
	if v := w.submit(w.leave(1, intents.SenderRemovalOnly)); v.State != intents.StatePending {
		t.Errorf("%+v", v)
	}
	w.awaitOutput(w.epoch(), 1, 2)
	close(slow)
	w.awaitOutput(w.epoch(), 0, 1, 2)
}

// slowService answers as sameName does, when it is closed.
type slowService chan struct{}

func (s slowService) Associate(ctx context.Context, tenant string, q intents.Question) (intents.Answer, error) {
	select {
	case <-s:
		return sameName{}.Associate(ctx, tenant, q)
	case <-ctx.Done():
		return intents.Answer{}, ctx.Err()
	}
}
