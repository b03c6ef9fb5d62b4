package intents_test

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

var liarSeeds = flag.Int("liars", 10, "how many groups TestModelWithLiars plays")

// TestModelWithLiars is TestModel with insiders who lie: commits that no member
// takes, before and after the one that members take, with external joins upon
// them; commits whose tag was spoiled on the way; GroupInfos of the present and
// later epochs that describe nothing; and everything again later. What the
// members see is the truth. Once one of them has spoken, the State has to be
// where they are, with the intents as they are; what it proposes before is of
// leaves that asked, and nothing is confirmed that did not happen.
func TestModelWithLiars(t *testing.T) {
	for seed := range *liarSeeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := newModel(t, uint64(2000+seed), seed%2 == 0)
			m.lies = &lies{held: map[uint64][]heldOutput{}, asked: map[string]string{}}
			m.w.commit("c/1", map[string]string{"refs": "none", "add": "m/mallory"})
			m.speak()
			for range 60 {
				m.stepWithLies()
			}
			m.speak()
			m.check()
			m.w.checkReplays()
			t.Logf("%d lies, %d reverted, %d proposals that mean another leaf in truth; %d snapshots",
				m.lies.told, m.lies.reverted, m.lies.astray, m.w.snapshots)
		})
	}
}

// lies is what the model knows of the falsehoods in the log.
type lies struct {
	// until is the epoch in which a member has to speak before the State can
	// know better.
	until  uint64
	doubt  bool
	late   []byte                  // a lie that comes after the truth
	held   map[uint64][]heldOutput // for epochs that members have not reached
	asked  map[string]string       // users by the leaf that they signed an intent with
	told   int
	astray int

	reverted int
}

type heldOutput struct {
	message []byte
	leaf    mlscore.LeafIndex
}

func (m *model) stepWithLies() {
	w, l := m.w, m.lies
	epoch := w.any().Epoch()
	switch m.random.IntN(10) {
	case 0:
		w.falsehood("lie", m.pick(), m.lie())
		m.told(epoch + 1)
	case 1:
		m.fork()
	case 2: // on the way
		m.commit(func() { w.commit(m.pick(), map[string]string{"to": "members"}) })
		w.feed(intents.KindCommit, w.retagged(w.kept, "bad"))
		m.told(epoch + 2)
		w.feed(intents.KindCommit, w.kept)
	case 3: // a lie that comes late
		g := w.group(m.pick())
		l.late = w.lieOf(g, true, m.lie())
		g.DropCommit()
		m.commit(func() { w.commit(m.pick(), map[string]string{"refs": "none"}) })
		w.feed(intents.KindCommit, l.late)
		m.told(epoch + 1)
	case 4:
		if !w.policy.InfoTrustDS { // otherwise the delivery service vouches for them
			epoch += uint64(m.random.IntN(3))
		}
		w.forgedInfo(m.pick(), map[string]string{"epoch": fmt.Sprint(epoch)})
	case 5:
		old := w.log[m.random.IntN(len(w.log))]
		if old.Kind == intents.KindCommit || old.Kind == intents.KindProposal || old.Kind == intents.KindInfo {
			w.feed(old.Kind, old.Data)
		}
	default:
		m.step()
	}
	m.remember()
	m.arrive()
	m.settle()
	m.confirmedIsTrue()
	if m.random.IntN(3) == 0 {
		m.speak()
	}
	if !l.doubt {
		m.check()
	}
}

// lie is what a commit contains that no member takes.
func (m *model) lie() map[string]string {
	switch m.random.IntN(4) {
	case 0:
		return map[string]string{"refs": "none"}
	case 1:
		return map[string]string{"refs": "none", "add": m.newName()}
	case 2:
		return map[string]string{"refs": "none", "reinit": "yes"}
	}
	return nil
}

// fork has mallory leave the truth for a group of its own, or others join it
// there, or mallory come back.
func (m *model) fork() {
	w := m.w
	epoch := w.any().Epoch()
	switch liar := w.liars["m/mallory"]; {
	case w.members["m/mallory"] != nil && len(w.members) > 1:
		before := w.members["m/mallory"]
		w.falsehood("lies", "m/mallory", map[string]string{"refs": []string{"", "none"}[m.random.IntN(2)]})
		if w.liars["m/mallory"] == before {
			m.told(epoch + 1)
		}
	case liar == nil:
	case m.random.IntN(3) > 0:
		w.falsehood("false-join", m.newName(), map[string]string{"at": "m/mallory"})
		m.told(epoch + 1)
	default:
		clear(w.liars)
		m.commit(func() { w.join("m/mallory", map[string]string{"resync": "yes"}) })
	}
}

// told notes a lie, which a member's signature in an epoch refutes.
func (m *model) told(epoch uint64) {
	m.lies.told++
	m.lies.doubt, m.lies.until = true, max(m.lies.until, epoch)
}

// speak has members sign until the State can know the truth.
func (m *model) speak() {
	w, l := m.w, m.lies
	for {
		epoch := w.any().Epoch()
		name := m.pick()
		if m.random.IntN(2) == 0 {
			w.handshake(name, must[[]byte](w.t)(w.group(name).ProposeUpdate(nil)), "")
		} else {
			m.commit(func() { w.commit(name, map[string]string{"refs": "none"}) })
		}
		m.remember()
		m.arrive()
		if epoch >= l.until {
			break
		}
		if w.any().Epoch() == epoch {
			m.commit(func() { w.commit(name, map[string]string{"refs": "none"}) })
		}
	}
	l.doubt = false
	if !bytes.Equal(w.state.Group().ContextBytes(), w.any().Public().ContextBytes()) {
		w.t.Fatalf("epoch %d after a member has spoken in epoch %d", w.state.Group().Epoch(), w.any().Epoch())
	}
	m.settle()
}

// remember notes who asked to leave with which leaf.
func (m *model) remember() {
	for _, wish := range m.wishes {
		m.lies.asked[string(wish.leaf)] = wish.user
	}
	for _, line := range m.w.lines {
		if strings.HasPrefix(line, "diverged (reverted)") {
			m.lies.reverted++
		}
	}
	m.w.lines = nil
}

// proposeInDoubt checks and stores an order that may be of an epoch which is
// not true. Members get it when they reach the epoch.
func (m *model) proposeInDoubt(o *intents.Order) {
	w, l := m.w, m.lies
	m.remember()
	truth := bytes.Equal(w.state.Group().ContextBytes(), w.any().Public().ContextBytes())
	if truth && !l.doubt {
		m.checkOrder(o)
	} else {
		for _, leaf := range o.Leaves {
			key := fmt.Sprintf("%d/%d", o.Epoch, leaf)
			if m.sent[key] || !m.mayAsk(w.state.Group(), leaf) {
				w.t.Fatalf("proposes leaf %d in epoch %d, sent before: %t", leaf, o.Epoch, m.sent[key])
			}
			m.sent[key] = true
		}
	}
	for i, message := range w.store(o) {
		l.held[o.Epoch] = append(l.held[o.Epoch], heldOutput{message, o.Leaves[i]})
	}
	m.arrive()
}

// mayAsk says whether a leaf, or another of its user, has asked to leave.
func (m *model) mayAsk(g *mlscore.PublicGroup, index mlscore.LeafIndex) bool {
	leaf := g.Tree().Leaf(index)
	if _, asked := m.lies.asked[string(leaf.Bytes())]; asked {
		return true
	}
	return slices.ContainsFunc(m.wishes, func(wish *wish) bool {
		return wish.mode == intents.RemoveAssociatedMembers && wish.user == string(leaf.Credential.Identity)
	})
}

// arrive brings members what was proposed for the epoch that they are in. Those
// that mean another leaf there, proposed before anything was known of the commit
// that brought it, are counted.
func (m *model) arrive() {
	w, l := m.w, m.lies
	g := w.any()
	for _, out := range l.held[g.Epoch()] {
		if g.Public().Tree().Leaf(out.leaf) != nil && !m.mayAsk(g.Public(), out.leaf) {
			l.astray++
			continue
		}
		w.deliver(out.message, nil)
		w.last = out.message
	}
	delete(l.held, g.Epoch())
}

// confirmedIsTrue: a confirmed receipt is of a leaf that left.
func (m *model) confirmedIsTrue() {
	alive := map[*member.Group]bool{}
	for _, g := range m.w.members {
		alive[g] = true
	}
	for _, wish := range m.wishes {
		r, _ := m.w.state.Intent(m.w.idOf(wish.name))
		if r.Confirmed && alive[wish.sender] && bytes.Equal(ownLeaf(wish.sender), wish.leaf) {
			m.w.t.Fatalf("%s is confirmed and still there: %+v", wish.name, r)
		}
	}
}
