package intents

import (
	"slices"

	"leavebroker/mlscore"
)

// An observer cannot check confirmation tags, so it may accept a commit that
// members refuse. Every epoch is provisional until a member signs over its
// GroupContext: until then all commits that verify are kept, each with the
// epoch that it leads to. The State is in one of these epochs, the deepest, and
// of equals the first. A member's signature over one of them drops all that do
// not lie on its line; when the State is in one that is dropped, or is no more
// the deepest, what came since the last certain epoch is folded again along the
// way to another.

// Caps on what is kept of epochs that no member's signature proves.
const (
	// maxUnproven bounds the epochs in a row: external joiners prove nothing, and
	// a burst of them may be long. Each keeps the tree nodes that it changed.
	// Beyond it those between the first and the last are forgotten, and what
	// competes with them comes too late.
	maxUnproven = 256
	// maxRivals bounds the epochs beside the State's own line. An honest group
	// has none. One who floods gets no more of them than this, and may so keep the
	// true one out: then commits will be missed, and a GroupInfo shows the way.
	maxRivals = 32
	// maxSince bounds the inputs that can be folded again, and so the time that
	// this takes; they hold no memory that the intents which they brought do not
	// hold too. Beyond it there is no way back.
	maxSince = 1 << 16
)

// fork is what is known since the last epoch that is certain. It is an
// immutable value.
type fork struct {
	nodes []*node // that epoch, then those after it; parents before children
	since *entry  // the last input folded since the State left that epoch
	// left is the position before the commit by which the State left that epoch.
	// It is clean if nothing else was folded or reported along with that commit,
	// so that it can be folded over the first epoch's stem again.
	left  uint64
	clean bool
}

// node is an epoch, an immutable value.
type node struct {
	id, parent int                  // parent: -1 for the first
	seq        uint64               // of the commit that began it
	commit     string               // its hash
	staged     *mlscore.Staged      // nil for the first
	group      *mlscore.PublicGroup // with its proposals
	proven     bool

	// stem is the State in this epoch when the inputs up to last had been folded;
	// nil for most: it is had by folding on from an earlier one.
	stem *State
	last *entry
}

// entry is an input that may be folded again, and those before it.
type entry struct {
	in     Input // without Data for a commit: its nodes have what it does
	before *entry
	n      int
}

func newFork(stem *State, id int) *fork {
	return &fork{nodes: []*node{{id: id, parent: -1, group: stem.group, stem: stem}}}
}

// at finds an epoch; nil if it was dropped.
func (f *fork) at(id int) *node {
	i, found := slices.BinarySearchFunc(f.nodes, id, func(n *node, id int) int { return n.id - id })
	if !found {
		return nil
	}
	return f.nodes[i]
}

// nextID is above those of all epochs that are kept.
func (f *fork) nextID() int { return f.nodes[len(f.nodes)-1].id + 1 }

// with adds an epoch, or puts it in place of the one with its id.
func (f *fork) with(n *node) *fork {
	next := *f
	i, found := slices.BinarySearchFunc(f.nodes, n.id, func(n *node, id int) int { return n.id - id })
	next.nodes = slices.Clone(f.nodes)
	if found {
		next.nodes[i] = n
	} else {
		next.nodes = slices.Insert(next.nodes, i, n)
	}
	return &next
}

// withGroup changes the proposals of an epoch.
func (f *fork) withGroup(id int, g *mlscore.PublicGroup) *fork {
	n := *f.at(id)
	n.group = g
	return f.with(&n)
}

// after adds an input.
func (f *fork) after(in Input) *fork {
	next := *f
	next.since = &entry{in: in, before: f.since, n: 1}
	if f.since != nil {
		next.since.n += f.since.n
	}
	return &next
}

// path is the way to an epoch from the nearest one with a stem.
func (f *fork) path(to int) (from *node, way []*node) {
	n := f.at(to)
	for ; n.stem == nil; n = f.at(n.parent) {
		way = append(way, n)
	}
	slices.Reverse(way)
	return n, way
}

// cut makes an epoch a stem and forgets those between the first and it, with
// what competes with them.
func (f *fork) cut(id int, stem *State) *fork {
	head := *f.at(id)
	head.parent, head.stem, head.last = f.nodes[0].id, stem, f.since
	line := make(map[int]bool)
	for n := f.at(id); n.parent >= 0; n = f.at(n.parent) {
		line[n.id] = true
	}
	next := *f
	next.nodes = f.nodes[:1:1]
	kept := map[int]bool{f.nodes[0].id: true}
	for _, n := range f.nodes[1:] {
		switch {
		case n.id == id:
			next.nodes = append(next.nodes, &head)
		case kept[n.parent] && !line[n.id]:
			next.nodes, kept[n.id] = append(next.nodes, n), true
		}
	}
	return &next
}

// rivals is the number of epochs beside the way to one.
func (f *fork) rivals(head int) int {
	own := 0
	for n := f.at(head); n.parent >= 0; n = f.at(n.parent) {
		own++
	}
	return len(f.nodes) - 1 - own
}

// hasTwin says whether a member's signature over an epoch, or a later one, proves
// another line as well as the way to head: their commits differ in nothing but the
// confirmation tag, and the next epoch tells which is true.
func (f *fork) hasTwin(head int, epoch uint64) bool {
	if f == nil {
		return false
	}
	own := map[int]bool{}
	for n := f.at(head); n != nil; n = f.at(n.parent) {
		own[n.id] = true
	}
	return slices.ContainsFunc(f.nodes, func(n *node) bool { return n.proven && n.group.Epoch() >= epoch && !own[n.id] })
}

// deepest is the epoch with the highest number; of equals the first.
func (f *fork) deepest() *node {
	return slices.MaxFunc(f.nodes, func(a, b *node) int { return compareSeq(a.group.Epoch(), b.group.Epoch()) })
}

// settle keeps what lies on the lines through epochs that a member signed over:
// more than one only where commits differ in their confirmation tags alone, which
// the GroupContext of the next epoch tells apart, and not their own.
func (f *fork) settle(proven []int) *fork {
	next := *f
	next.nodes = nil
	keep, below := make(map[int]bool), make(map[int]bool)
	for _, id := range proven {
		below[id] = true
		for n := f.at(id); n != nil; n = f.at(n.parent) {
			keep[n.id] = true
		}
	}
	for _, n := range f.nodes {
		below[n.id] = below[n.id] || below[n.parent]
		switch {
		case slices.Contains(proven, n.id):
			p := *n
			p.proven = true
			next.nodes = append(next.nodes, &p)
		case keep[n.id], below[n.id]:
			next.nodes = append(next.nodes, n)
		}
	}
	return &next
}

// inputs are those since an epoch became a stem, oldest first.
func (f *fork) inputs(since *entry) []Input {
	var list []Input
	for e := f.since; e != since; e = e.before {
		list = append(list, e.in)
	}
	slices.Reverse(list)
	return list
}

// refold gives the State in another epoch: a stem, after what came since.
func (f *fork) refold(to int, turned uint64) *State {
	from, path := f.path(to)
	x := begin(from.stem, Input{Seq: from.stem.position, Time: from.stem.now})
	x.fork, x.head, x.afresh = f, to, true
	certain := f.nodes[0].group.Epoch()
	if x.turned > 0 {
		certain = min(certain, x.turnedFrom)
	}
	x.turned, x.turnedFrom = turned, certain
	x.group = from.group
	x.out, x.operations = x.ours(x.group)
	if from.proven {
		x.prove(x.group.Epoch())
	}
	x.finish()
	for _, in := range f.inputs(from.last) {
		x = begin(x.State, in)
		switch {
		case in.Kind != KindCommit:
			x.fold()
		case len(path) > 0 && path[0].seq == in.Seq:
			x.merge(path[0].staged, path[0].group)
			if path[0].proven {
				x.prove(x.group.Epoch())
			}
			path = path[1:]
		}
		x.finish()
	}
	return x.State
}
