package mixed

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/stack"
)

// compositions are the groups that every scenario is played in: one stack
// alone, and mixes, whose stacks take turns.
var compositions = [][]string{
	{stack.Ours},
	{stack.OpenMLS},
	{stack.MLSRS},
	{stack.TSMLS},
	{stack.BCMLS},
	{stack.OpenMLS, stack.MLSRS},
	{stack.OpenMLS, stack.Ours},
	{stack.MLSRS, stack.Ours},
	{stack.OpenMLS, stack.MLSRS, stack.TSMLS, stack.Ours},
	{stack.BCMLS, stack.OpenMLS, stack.MLSRS, stack.Ours},
}

var scenarios = []struct {
	name string
	form worldForm // but for the stacks
	play func(*world)
	own  bool // a daemon of its own
}{
	{name: "1 leave", play: leaveAndVanish},
	{name: "2 devices", form: worldForm{users: [][]string{devices}}, play: leaveWithDevices},
	{name: "3 burst", play: burst},
	{name: "4 self_remove", form: worldForm{selfRemove: true}, play: selfRemoves},
	{name: "5 superseded", play: supersede},
	{name: "6 same key package", play: sameKeyPackage},
	{name: "7 operations", form: worldForm{operations: true, users: [][]string{devices}}, play: operations},
	{name: "8 targeted committer", form: worldForm{users: [][]string{devices}}, play: targetedCommitter},
	{name: "9 restarts", form: worldForm{users: [][]string{devices}}, play: restarts, own: true},
}

// devices are those of one user.
var devices = []string{"alice:phone", "alice:laptop", "alice:tablet", "alice:watch"}

// deviceLeaves is where withDevices puts them: in both halves of the tree, and
// in groups of two stacks on both.
var deviceLeaves = []mlscore.LeafIndex{1, 2, 5, 6}

// withDevices makes the names of a group of four devices and n others, 4 at
// least.
func (w *world) withDevices(n int) []string {
	names := w.names(n)
	for i, leaf := range deviceLeaves {
		names = slices.Insert(names, int(leaf), devices[i])
	}
	return names
}

// TestScenarios plays every scenario in every group. A cell of the table that
// cannot be played is skipped with the reason; the table is printed at the end.
func TestScenarios(t *testing.T) {
	s := interoperate(t)
	shared := newHouse(t)
	table := newTable(t)
	for _, scenario := range scenarios {
		for _, stacks := range compositions {
			t.Run(scenario.name+"/"+strings.Join(stacks, "+"), func(t *testing.T) {
				t.Parallel()
				var w *world
				defer func() { table.note(t, scenario.name, strings.Join(stacks, "+"), w) }()
				form := scenario.form
				form.stacks, form.suite = stacks, s.suite
				h := shared
				if scenario.own {
					for _, name := range stacks { // before a daemon is started for nothing
						if name != stack.Ours {
							driver(t, name)
						}
					}
					h = newHouse(t)
				}
				w = newWorld(t, h, form)
				scenario.play(w)
			})
		}
	}
}

// table is what became of each cell.
type table struct {
	mu    sync.Mutex
	cells map[[2]string]string // guarded by mu
}

// newTable makes a table that is printed when the test and its parallel parts
// have ended.
func newTable(t *testing.T) *table {
	tab := &table{cells: map[[2]string]string{}}
	t.Cleanup(func() { t.Log("\n" + tab.String()) })
	return tab
}

// note notes the outcome of a cell; it is deferred.
func (tab *table) note(t *testing.T, scenario, stacks string, w *world) {
	outcome := "passed"
	switch {
	case w != nil && len(w.notes) > 0 && !t.Failed() && !t.Skipped():
		outcome = "passed in part"
	case t.Failed():
		outcome = "FAILED"
	case t.Skipped():
		outcome = "skipped"
	}
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.cells[[2]string{scenario, stacks}] = outcome
}

func (tab *table) String() string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	var b strings.Builder
	b.WriteString("| scenario |")
	for _, stacks := range compositions {
		fmt.Fprintf(&b, " %s |", strings.Join(stacks, "+"))
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(compositions)))
	for _, scenario := range scenarios {
		fmt.Fprintf(&b, "\n| %s |", scenario.name)
		for _, stacks := range compositions {
			fmt.Fprintf(&b, " %s |", tab.cells[[2]string{scenario.name, strings.Join(stacks, "+")}])
		}
	}
	return b.String()
}

// confirmed lets somebody sign over the epoch, and waits until the daemon says
// that the removal of an intent is certain.
func (w *world) confirmed(by *peer, ids ...string) {
	w.Helper()
	w.empty(by)
	for _, id := range ids {
		w.awaitState(id, "removed", true)
	}
}

// A member leaves by an intent and vanishes; it is gone with the next commit,
// whoever makes it. Then those who are left go on.
func leaveAndVanish(w *world) {
	n := len(w.stacks)
	w.found(w.names(2 + 2*n)...)
	for i := range n { // a member of each stack leaves, a member of each commits
		leaver := w.peers[1+i]
		leaf := w.leaf(leaver)
		id := w.leave(leaver, intents.SenderRemovalOnly)
		w.awaitRemovals(leaf)
		by := w.peers[len(w.peers)-1-i]
		w.gone(w.commitPending(by), leaf)
		w.awaitState(id, "removed", false)
		w.confirmed(w.peers[0], id)
	}
	w.add(w.peers[0], w.names(n)...) // the blank leaves are filled again
	w.empty(w.peers[len(w.peers)-1])
}

// One of a user's devices asks for all to be removed.
func leaveWithDevices(w *world) {
	w.found(w.withDevices(4)...)
	leaver := w.peers[2]
	id := w.leave(leaver, intents.RemoveAssociatedMembers)
	w.awaitRemovals(deviceLeaves...)
	w.gone(w.commitPending(w.peers[len(w.peers)-1]), deviceLeaves...)
	w.awaitState(id, "removed", false)
	w.confirmed(w.peers[0], id)
	if len(w.peers) != 4 {
		w.Fatalf("%d members are left, not 4", len(w.peers))
	}
}

// Each external join drops the proposals, and each time they come back.
func burst(w *world) {
	const joins = 30
	w.found(w.names(4)...)
	leaf := w.leaf(w.peers[2])
	id := w.leave(w.peers[2], intents.SenderRemovalOnly)
	w.awaitRemovals(leaf)
	for range joins {
		w.join(w.next(w.name()), stack.ExternalJoin{})
		w.awaitRemovals(leaf)
	}
	w.gone(w.commitPending(w.peers[len(w.peers)-1]), leaf)
	w.awaitState(id, "removed", false)
	w.confirmed(w.peers[0], id)
}

// A SelfRemove beside an intent of the same leaf, and a SelfRemove of another:
// the daemon leaves both to the members, and one commit takes both. Then a
// joiner takes a SelfRemove along.
func selfRemoves(w *world) {
	w.found(w.names(6)...)
	both, another := w.peers[1], w.peers[2]
	leaves := []mlscore.LeafIndex{w.leaf(both), w.leaf(another)}
	slices.Sort(leaves)
	intent := w.sign(both, intents.SenderRemovalOnly)
	w.propose(both, stack.Proposal{Kind: stack.KindSelfRemove})
	w.propose(another, stack.Proposal{Kind: stack.KindSelfRemove})
	w.vanish(both)
	w.vanish(another)
	id := w.submit(intent).ID
	w.quiet()
	w.gone(w.commitPending(w.peers[1]), leaves...)
	w.awaitState(id, "removed", false)
	w.confirmed(w.peers[0], id)

	leaver := w.peers[1]
	leaf := w.leaf(leaver)
	w.propose(leaver, stack.Proposal{Kind: stack.KindSelfRemove})
	w.vanish(leaver)
	w.gone(w.join(w.next(w.name()), stack.ExternalJoin{SelfRemoves: w.pending().SelfRemoves}), leaf)
	w.empty(w.peers[0])
}

// A member that updates its leaf after its intent stays; so does one that
// commits.
func supersede(w *world) {
	w.found(w.names(5)...)
	stayer := w.peers[1]
	id := w.submit(w.sign(stayer, intents.SenderRemovalOnly)).ID
	w.awaitState(id, "pending", false)
	w.propose(stayer, stack.Proposal{Kind: stack.KindUpdate})
	// The removal is in the daemon's output; the delivery service is late with it.
	w.gone(w.commitPending(w.peers[2]))
	w.awaitState(id, "superseded", false)
	w.quiet()

	id = w.submit(w.sign(stayer, intents.SenderRemovalOnly)).ID
	w.awaitState(id, "pending", false)
	w.empty(stayer)
	w.awaitState(id, "superseded", false)
	w.quiet()
}

// A leaf that was removed and is added again by the same KeyPackage is not
// removed by an intent of its first life, be it one that was acted on then or
// one that nobody had seen.
func sameKeyPackage(w *world) {
	w.found(w.names(4)...)
	seen, unseen := w.next("seen:only"), w.next("unseen:only")
	packages := []stack.Proposal{stack.Add(got[[]byte](w)(seen.KeyPackage())), stack.Add(got[[]byte](w)(unseen.KeyPackage()))}
	w.commit(w.peers[0], stack.CommitOptions{Proposals: packages}, seen, unseen)
	leaves := []mlscore.LeafIndex{w.leaf(seen), w.leaf(unseen)}
	acted, withheld := w.sign(seen, intents.SenderRemovalOnly), w.sign(unseen, intents.SenderRemovalOnly)
	w.vanish(seen)
	w.vanish(unseen)
	id := w.submit(acted).ID
	w.awaitRemovals(leaves[0])
	w.gone(w.commitPending(w.peers[1]), leaves[0])
	w.awaitState(id, "removed", false)
	w.gone(w.commit(w.peers[2], stack.CommitOptions{Proposals: []stack.Proposal{stack.Remove(leaves[1])}}), leaves[1])

	// Their clients have forgotten the keys: they are in the tree only.
	w.commit(w.peers[3], stack.CommitOptions{Proposals: packages})
	for _, intent := range [][]byte{acted, withheld} {
		if v := w.submit(intent); v.State != "rejected" || v.Reason != "reference_reused" {
			w.Fatalf("yesterday's intent is %+v", v)
		}
	}
	w.quiet()
	w.empty(w.peers[0])
	w.quiet()
}

// Removals are LeafOperationProposals, which members expand: of one leaf and of
// all of a user, by reference in a member's commit, and by value in a joiner's.
func operations(w *world) {
	w.found(w.withDevices(6)...)
	leaver := w.peers[8]
	leaf := w.leaf(leaver)
	id := w.leave(leaver, intents.SenderRemovalOnly)
	w.awaitRemovals(leaf)
	w.gone(w.commitPending(w.peers[4]), leaf)
	w.awaitState(id, "removed", false)
	w.confirmed(w.peers[len(w.peers)-1], id)

	leaver = w.peers[3]
	leaf = w.leaf(leaver)
	id = w.leave(leaver, intents.SenderRemovalOnly)
	w.awaitRemovals(leaf)
	w.gone(w.join(w.next(w.name()), stack.ExternalJoin{Custom: w.pending().LeafOperationProposals}), leaf)
	w.awaitState(id, "removed", false)

	id = w.leave(w.peers[2], intents.RemoveAssociatedMembers)
	w.awaitRemovals(deviceLeaves...)
	w.gone(w.commitPending(w.peers[len(w.peers)-1]), deviceLeaves...)
	w.awaitState(id, "removed", false)
	w.confirmed(w.peers[0], id)
}

// The committer is itself among those whom the daemon proposes to remove. It
// leaves its own removal out, and takes the others'. As the sender of the intent
// it has come back by that; as its associated member it is proposed again.
func targetedCommitter(w *world) {
	w.found(w.withDevices(4)...)
	sender := w.peers[1]
	id := w.submit(w.sign(sender, intents.SenderRemovalOnly)).ID
	w.awaitRemovals(w.leaf(sender))
	w.gone(w.commitPending(sender))
	w.awaitState(id, "superseded", false)
	w.quiet()

	committer := w.peers[2]
	id = w.leave(sender, intents.RemoveAssociatedMembers)
	w.awaitRemovals(deviceLeaves...)
	w.gone(w.commitPending(committer), 1, 5, 6)
	w.awaitRemovals(2)
	w.gone(w.commitPending(w.peers[len(w.peers)-1]), 2)
	w.awaitState(id, "removed", false)
	w.confirmed(w.peers[0], id)
}

// The daemon is restarted, in order or by a crash, before every message.
func restarts(w *world) {
	crash := false
	w.between = func() {
		crash = !crash
		w.house.restart(crash)
	}
	w.found(w.withDevices(5)...)
	leaver := w.peers[4]
	leaf := w.leaf(leaver)
	one := w.leave(leaver, intents.SenderRemovalOnly)
	w.awaitRemovals(leaf)
	w.join(w.next(w.name()), stack.ExternalJoin{})
	w.awaitRemovals(leaf)
	all := w.leave(w.peers[1], intents.RemoveAssociatedMembers)
	w.await(func() string { // the first output is handed on; the second comes beside it
		if n := len(w.house.arrived(w.id, w.epoch())); n != 5 {
			return fmt.Sprintf("%d proposals, not 5", n)
		}
		return ""
	})
	for _, p := range w.house.arrived(w.id, w.epoch())[1:] {
		w.between()
		w.spread(nil, p)
	}
	w.gone(w.commitPending(w.peers[len(w.peers)-1]), 1, 2, leaf, 5, 6)
	w.awaitState(one, "removed", false)
	w.awaitState(all, "removed", false)
	w.confirmed(w.peers[0], one, all)
}
