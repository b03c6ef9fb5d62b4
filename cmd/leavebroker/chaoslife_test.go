package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"leavebroker/broker"
	"leavebroker/broker/delivery"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// chaosCount says how much happened.
type chaosCount struct{ Left, Stayed, Epochs, Joins, Commits, Waits int }

func (c *chaosCount) plus(o *chaosCount) {
	c.Left += o.Left
	c.Stayed += o.Stayed
	c.Epochs += o.Epochs
	c.Joins += o.Joins
	c.Commits += o.Commits
	c.Waits += o.Waits
}

// chaosLeaver is one who signed an intent.
type chaosLeaver struct {
	leaf    mlscore.LeafIndex
	message []byte
	id      string
	stays   bool        // its leaf changed after the intent: superseded
	acked   atomic.Bool // the broker has the intent
}

// chaosLife is the life of one group.
type chaosLife struct {
	*crowd
	chaosCount
	world  *chaosWorld
	over   *atomic.Bool
	random *rand.Rand

	inbox   map[uint64][][]byte // proposals by epoch; guarded by world.mu
	given   map[string]bool     // proposals that the members have
	leavers []*chaosLeaver
	waited  map[uint64][]mlscore.LeafIndex // by epoch: who must have been proposed
	telling sync.WaitGroup                 // intents on their way
}

const (
	chaosFewest, chaosMost = 4, 14
	chaosSteps             = 50
)

// live is the life: its end is that every leaver is gone for good.
func (l *chaosLife) live() {
	early := l.random.IntN(3) == 0
	if early {
		l.create(l.newName())
		l.add(l.newName(), l.newName(), l.newName(), l.newName())
		l.leaveNow() // before the broker knows the group
		l.info()
		l.empty(l.any()) // proves the GroupInfo
	} else {
		l.found(l.newName(), l.newName(), l.newName(), l.newName(), l.newName(), l.newName())
	}
	for range chaosSteps {
		if l.over.Load() || l.world.Failed() {
			break
		}
		l.step()
		time.Sleep(time.Duration(l.random.IntN(20)) * time.Millisecond)
	}
	l.end()
}

// step does one thing that happens in groups.
func (l *chaosLife) step() {
	n := len(l.members)
	switch what := l.random.IntN(100); {
	case n <= chaosFewest || what < 20 && n < chaosMost:
		burst := 1
		if l.random.IntN(4) == 0 {
			burst = 4
		}
		for range burst {
			l.join(l.client(l.newName()))
			l.Joins++
		}
	case what < 45:
		l.leaveNow()
	case what < 50:
		l.stay()
	case what < 65:
		l.empty(l.any())
		l.Commits++
	case what < 75:
		l.take()
		l.commitRemovals()
	case what < 80:
		l.info()
	default:
		l.await()
		if l.random.IntN(2) == 0 {
			l.commitRemovals()
			l.empty(l.any()) // confirmed: the broker may put the group aside
		}
	}
	l.Epochs = int(l.epoch())
}

func (l *chaosLife) any() *member.Group { return l.members[l.random.IntN(len(l.members))] }

// leaveNow lets a member sign and vanish; its intent is on its way meanwhile.
func (l *chaosLife) leaveNow() {
	m := l.any()
	leaver := &chaosLeaver{leaf: m.OwnLeaf()}
	leaver.message = l.leave(m, intents.SenderRemovalOnly)
	leaver.id = l.intentID(leaver.message)
	l.leavers = append(l.leavers, leaver)
	l.Left++
	submits := l.random.IntN(2) == 0
	l.telling.Go(func() { l.tell(leaver, submits) })
}

func (l *chaosLife) tell(leaver *chaosLeaver, submits bool) {
	if !submits {
		l.publish("intent", leaver.message)
	} else if v := l.submit(leaver.message); v.ID != leaver.id || badStates[v.State] || v.State == "already_gone" {
		l.check(fmt.Errorf("the intent %s of leaf %d is %+v", leaver.id, leaver.leaf, v))
	}
	leaver.acked.Store(true)
}

// stay lets a member sign, and change its leaf by a commit before it is gone.
func (l *chaosLife) stay() {
	m := l.any()
	leaver := &chaosLeaver{leaf: m.OwnLeaf(), message: l.sign(m, intents.SenderRemovalOnly), stays: true}
	leaver.id = l.intentID(leaver.message)
	l.leavers = append(l.leavers, leaver)
	l.tell(leaver, l.random.IntN(2) == 0)
	l.empty(m)
	l.Stayed++
}

// gone says whether the leaf that signed is not in the tree any more.
func (l *chaosLife) gone(leaver *chaosLeaver) bool {
	in := got[*intents.LeafOperationIntent](l.crowd)(intents.ParseMessage(leaver.message, intents.DefaultWireFormat))
	leaf := l.members[0].Public().Tree().Leaf(leaver.leaf)
	return leaf == nil || string(leaf.Ref(l.suite)) != string(in.SenderLeafRef)
}

// take brings what the delivery service has of the broker's proposals for this
// epoch to the members, and gives the leaves that are proposed.
func (l *chaosLife) take() map[mlscore.LeafIndex]bool {
	l.world.mu.Lock()
	proposals := slices.Clone(l.inbox[l.epoch()])
	l.world.mu.Unlock()
	leaves := map[mlscore.LeafIndex]bool{}
	for _, p := range proposals {
		if !l.given[string(p)] {
			l.given[string(p)] = true
			l.fanOut([][]byte{p})
		}
		leaves[l.removedBy(p)] = true
	}
	return leaves
}

// await stays in this epoch until every leaver whose intent is acknowledged is
// proposed.
func (l *chaosLife) await() {
	var must []mlscore.LeafIndex
	for _, leaver := range l.leavers {
		if leaver.acked.Load() && !leaver.stays && !l.gone(leaver) {
			must = append(must, leaver.leaf)
		}
	}
	long := time.AfterFunc(chaosCalm, func() { l.world.waiting.Add(1) })
	defer func() {
		if !long.Stop() {
			l.world.waiting.Add(-1)
		}
	}()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		leaves := l.take()
		lacks := slices.DeleteFunc(slices.Clone(must), func(leaf mlscore.LeafIndex) bool { return leaves[leaf] })
		if len(lacks) == 0 {
			break
		}
		if time.Since(begin) > patience || l.world.Failed() {
			l.check(fmt.Errorf("leaves %v are not proposed in epoch %d", lacks, l.epoch()))
		}
	}
	l.waited[l.epoch()] = must
	l.Waits++
}

// commitRemovals lets a member commit the proposals that the members have.
func (l *chaosLife) commitRemovals() {
	commit := l.commit(l.any(), member.CommitOptions{})
	for _, leaf := range commit.Staged.Removed {
		if !slices.ContainsFunc(l.leavers, func(o *chaosLeaver) bool { return o.leaf == leaf && !o.stays }) {
			l.check(fmt.Errorf("leaf %d was removed and did not ask", leaf))
		}
	}
	l.Commits++
}

// end waits for the last leavers, removes them, and waits for the broker's word
// on each.
func (l *chaosLife) end() {
	l.telling.Wait()
	l.await()
	l.commitRemovals()
	for _, leaver := range l.leavers {
		if !l.gone(leaver) {
			l.check(fmt.Errorf("leaf %d is still there", leaver.leaf))
		}
		want := "removed"
		if leaver.stays {
			want = "superseded"
		}
		l.awaitStatus(leaver.id, func(v *delivery.Verdict) bool { return v.State == want })
	}
	l.empty(l.any())
	for _, leaver := range l.leavers {
		l.awaitStatus(leaver.id, func(v *delivery.Verdict) bool { return v.Confirmed == !leaver.stays })
	}
	l.agree()
	l.Epochs = int(l.epoch())
}

// judged is what the judge needs to know of a life.
func (l *chaosLife) judged() judgedGroup {
	g := judgedGroup{token: broker.GroupToken(l.id), waited: maps.Clone(l.waited), final: l.epoch(), intents: map[string]string{}}
	for _, leaver := range l.leavers {
		g.intents[leaver.id] = "removed"
		if leaver.stays {
			g.intents[leaver.id] = "superseded"
		}
	}
	return g
}
