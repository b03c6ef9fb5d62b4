package intents_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// TestModel plays random lives of groups and compares the State with a model
// that knows the members themselves: an instance of a member is a pointer, so
// it cannot confuse one that left with one that came back.
func TestModel(t *testing.T) {
	runs := 16
	if testing.Short() {
		runs = 10
	}
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := newModel(t, uint64(seed), true)
			for range 40 {
				m.step()
			}
			m.w.checkReplays()
			if m.w.snapshots == 0 {
				t.Error("no snapshot could be taken")
			}
		})
	}
}

type model struct {
	w      *world
	lossy  bool // commits get lost on their way into the log
	lies   *lies
	random *rand.Rand
	wishes []*wish
	sent   map[string]bool // "epoch/leaf"
	serial int
}

// TestModelWithGaps is TestModel with commits that are not in the log and
// GroupInfos at any time, before their commit and long after it. What is
// proposed in the epoch that the group is in must be wanted all the same, and
// after a GroupInfo and a commit by a member everything is as it should be.
func TestModelWithGaps(t *testing.T) {
	runs := 16
	if testing.Short() {
		runs = 5
	}
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := newModel(t, uint64(1000+seed), seed%2 == 0)
			m.lossy = true
			for range 40 {
				m.step()
			}
			m.recover()
			m.w.checkReplays()
		})
	}
}

// recover ends with a GroupInfo and a commit by somebody who does not leave.
func (m *model) recover() {
	w := m.w
	m.lossy = false
	stayer := "z/stayer"
	w.join(stayer, map[string]string{"to": "members"})
	w.feed(intents.KindInfo, must[[]byte](w.t)(w.group(stayer).GroupInfo()))
	m.commit(func() { w.commit(stayer, map[string]string{"refs": "none"}) })
	if got, want := w.state.Group().Epoch(), w.any().Epoch(); got != want {
		w.t.Fatalf("epoch %d, want %d", got, want)
	}
	m.settle()
	for _, wish := range m.wishes {
		if wish.state != intents.StatePending || wish.last != nil {
			continue
		}
		leaf := wish.sender.OwnLeaf()
		if !m.sent[fmt.Sprintf("%d/%d", w.any().Epoch(), leaf)] {
			r, _ := w.state.Intent(w.idOf(wish.name))
			w.t.Errorf("leaf %d of %s is not proposed: %+v", leaf, wish.name, r)
		}
	}
}

// to says whether a commit gets into the log.
func (m *model) to() string {
	if m.lossy && m.random.IntN(5) == 0 {
		return "members"
	}
	return ""
}

// wish is an intent as the model sees it.
type wish struct {
	name   string
	sender *member.Group
	user   string
	leaf   []byte
	mode   intents.RemovalMode
	state  string                   // pending, removed or superseded
	last   map[*member.Group]string // the others when the sender left, with their users
}

func newModel(t *testing.T, seed uint64, infoTrustDS bool) *model {
	m := &model{w: newWorld(t, 1), random: rand.New(rand.NewPCG(seed, 1)), sent: map[string]bool{}}
	m.w.policy.InfoTrustDS = infoTrustDS
	m.w.create([]string{"broker"}, "a/1", "b/1", "a/2", "c/1")
	m.w.feed(intents.KindInfo, must[[]byte](t)(m.w.any().GroupInfo()))
	return m
}

// pick is a random member who is not leaving, so that it may commit.
func (m *model) pick() string {
	names := slices.Sorted(maps.Keys(m.w.members))
	return names[m.random.IntN(len(names))]
}

func (m *model) step() {
	w := m.w
	w.lines = nil
	name := m.pick()
	alone := len(w.members) == 1
	switch m.random.IntN(12) {
	case 0, 1, 2:
		if m.lies == nil || name != "m/mallory" { // who may be elsewhere while its leaf is here
			m.wish(name, intents.RemovalMode(1+m.random.IntN(2)))
		}
	case 3, 4:
		m.commit(func() { w.commit(name, map[string]string{"to": m.to()}) })
	case 5:
		m.commit(func() { w.commit(name, map[string]string{"refs": "none", "to": m.to()}) })
	case 6:
		m.commit(func() { w.commit(name, map[string]string{"refs": "none", "add": m.newName(), "to": m.to()}) })
	case 7:
		if other := m.pick(); !alone && other != name {
			m.commit(func() { w.commit(name, map[string]string{"refs": "none", "remove": other, "to": m.to()}) })
		}
	case 8:
		m.commit(func() { w.join(m.newName(), map[string]string{"to": m.to()}) })
	case 9:
		if !alone {
			m.commit(func() { w.join(name, map[string]string{"resync": "yes", "to": m.to()}) })
		}
	case 10:
		if !alone {
			w.handshake(name, must[[]byte](w.t)(w.group(name).ProposeUpdate(nil)), "")
		}
	case 11:
		if w.last != nil {
			w.feed(intents.KindProposal, w.last) // an echo, mostly of an epoch that is over
		}
	}
	if m.lossy && m.random.IntN(3) == 0 {
		w.feed(intents.KindInfo, must[[]byte](w.t)(w.group(m.pick()).GroupInfo()))
	}
	m.settle()
	if !m.lossy && m.lies == nil {
		m.check()
	}
}

func (m *model) newName() string {
	m.serial++
	return fmt.Sprintf("%c/n%d", 'a'+rune(m.random.IntN(3)), m.serial)
}

func userOf(name string) string {
	user, _, _ := strings.Cut(name, "/")
	return user
}

func ownLeaf(g *member.Group) []byte { return g.Public().Tree().LeafBytes(g.OwnLeaf()) }

func (m *model) wish(name string, mode intents.RemovalMode) {
	g := m.w.group(name)
	m.serial++
	wish := &wish{
		name: fmt.Sprintf("w%d", m.serial), sender: g, user: userOf(name), leaf: bytes.Clone(ownLeaf(g)), mode: mode, state: intents.StatePending,
	}
	for _, other := range m.wishes {
		if other.sender == g && other.mode == mode && bytes.Equal(other.leaf, wish.leaf) {
			return // the same intent
		}
	}
	m.w.sign(wish.name, name, mode)
	m.w.feed(intents.KindIntent, m.w.signed[wish.name])
	m.wishes = append(m.wishes, wish)
}

// commit plays a commit and follows what it does to the wishes.
func (m *model) commit(play func()) {
	before := maps.Clone(m.w.members)
	play()
	alive := map[*member.Group]bool{}
	names := map[string]bool{}
	for name, g := range m.w.members {
		alive[g], names[name] = true, true
	}
	nameOf := map[*member.Group]string{}
	for name, g := range before {
		nameOf[g] = name
	}
	for _, wish := range m.wishes {
		if wish.state != intents.StatePending {
			continue
		}
		switch {
		case wish.last != nil:
		case alive[wish.sender] && !bytes.Equal(ownLeaf(wish.sender), wish.leaf):
			wish.state = intents.StateSuperseded
		case !alive[wish.sender] && names[nameOf[wish.sender]]: // came back
			wish.state = intents.StateSuperseded
		case !alive[wish.sender]:
			wish.last = map[*member.Group]string{}
			for g, name := range nameOf {
				if g != wish.sender {
					wish.last[g] = userOf(name)
				}
			}
		}
		if wish.state == intents.StatePending && wish.last != nil && len(m.targets(wish)) == 0 {
			wish.state = intents.StateRemoved
		}
	}
}

// targets are the leaves that a wish wants removed.
func (m *model) targets(wish *wish) []mlscore.LeafIndex {
	var list []mlscore.LeafIndex
	if wish.state != intents.StatePending {
		return nil
	}
	for name, g := range m.w.members {
		user, candidate := wish.last[g]
		switch {
		case g == wish.sender:
			list = append(list, g.OwnLeaf())
		case wish.mode == intents.SenderRemovalOnly:
		case wish.last == nil && userOf(name) == wish.user, candidate && user == wish.user:
			list = append(list, g.OwnLeaf())
		}
	}
	slices.Sort(list)
	return list
}

// settle answers all questions by the truth, and proposes what is due.
func (m *model) settle() {
	w := m.w
	for range 10 {
		due := w.state.Due(w.now)
		if len(due.Ask) == 0 {
			break
		}
		for _, q := range due.Ask {
			a := intents.Answer{Intent: q.Intent, Epoch: q.Epoch, Position: q.Position, Status: intents.StatusResolved}
			if m.random.IntN(4) == 0 {
				a.Status = intents.StatusError
				w.feedJSON(intents.KindAnswer, a)
				continue
			}
			for _, c := range q.Candidates {
				switch same := bytes.Equal(c.Credential.Identity, q.Sender.Credential.Identity); {
				case m.random.IntN(10) == 0:
					a.Undecided = append(a.Undecided, c.Leaf)
				case same:
					a.Associated = append(a.Associated, c.Leaf)
				default:
					a.Unrelated = append(a.Unrelated, c.Leaf)
				}
			}
			if err := q.Check(a); err != nil {
				w.t.Fatal(err)
			}
			w.feedJSON(intents.KindAnswer, a)
		}
	}
	o := w.state.Due(w.now).Propose
	switch {
	case o == nil:
	case m.lies != nil:
		m.proposeInDoubt(o)
	case o.Epoch == w.any().Epoch():
		m.checkOrder(o)
		w.propose(o)
	}
}

// checkOrder: only leaves that somebody wants removed, and none twice.
func (m *model) checkOrder(o *intents.Order) {
	wanted := map[mlscore.LeafIndex]bool{}
	for _, wish := range m.wishes {
		for _, leaf := range m.targets(wish) {
			wanted[leaf] = true
		}
	}
	for _, leaf := range o.Leaves {
		key := fmt.Sprintf("%d/%d", o.Epoch, leaf)
		if !wanted[leaf] || m.sent[key] {
			m.w.t.Fatalf("proposes leaf %d in epoch %d: wanted %t, sent before %t", leaf, o.Epoch, wanted[leaf], m.sent[key])
		}
		m.sent[key] = true
	}
}

// check compares every wish with its record, and what is out with what should.
func (m *model) check() {
	w := m.w
	t := w.t
	open := w.state.Due(w.now)
	all := map[mlscore.LeafIndex]bool{}
	for _, wish := range m.wishes {
		for _, leaf := range m.targets(wish) {
			all[leaf] = true
		}
	}
	for _, wish := range m.wishes {
		r, ok := w.state.Intent(w.idOf(wish.name))
		if !ok {
			t.Fatalf("%s has no record", wish.name)
		}
		if len(open.Ask) > 0 && wish.mode == intents.RemoveAssociatedMembers {
			continue // answers are out
		}
		if r.State != wish.state {
			t.Fatalf("%s is %s (%s), want %s", wish.name, r.State, r.Reason, wish.state)
		}
		if want := m.targets(wish); !slices.Equal(r.Targets, want) {
			t.Fatalf("%s has targets %v, want %v", wish.name, r.Targets, want)
		}
		for _, leaf := range r.Targets {
			if len(all) < len(w.members) && !m.sent[fmt.Sprintf("%d/%d", w.state.Group().Epoch(), leaf)] {
				t.Fatalf("leaf %d of %s is not proposed in epoch %d", leaf, wish.name, w.state.Group().Epoch())
			}
		}
	}
}
