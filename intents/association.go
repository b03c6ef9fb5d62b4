package intents

import (
	"slices"

	"leavebroker/mlscore"
)

// association is what is known of the leaves associated with a sender, an
// immutable value. While the sender's leaf is in the tree, every other leaf is
// a candidate; when it goes, the candidates freeze and only shrink. Lists are
// ascending. A leaf that is in neither list, with all unset, was found
// unrelated.
type association struct {
	all        bool                // nothing was answered yet: every other leaf is open
	open       []mlscore.LeafIndex // candidates without an answer
	associated []mlscore.LeafIndex // to be removed
	frozen     bool

	givenUp bool // open candidates were left alone by policy

	answer *RecordedAnswer // the last one
	failed int             // answers since the last that left nothing open

	total    int  // how many others the intent ever wanted removed
	guard    bool // they are more than the policy allows unasked
	approved bool
	allowed  int // the total that an operator approved
}

func (a *association) done() bool { return !a.all && len(a.open) == 0 && len(a.associated) == 0 }

// unanswered says that the Authentication Service was asked and candidates
// stayed open.
func (a *association) unanswered() bool { return a.failed > 0 && (a.all || len(a.open) > 0) }

// heldBack says whether an operator has to approve before others are removed.
func (a *association) heldBack(p *Policy) bool { return a.guard || p.Mode2 == Mode2Hold && !a.approved }

// follow gives the association after a change, and the associated leaves that
// left with it. The sender's own leaf is the index.
func (a *association) follow(c *change, index mlscore.LeafIndex) (*association, []mlscore.LeafIndex) {
	n := *a
	var left []mlscore.LeafIndex
	if has(c.removed, index) && !n.frozen {
		n.freeze(c, index)
	}
	for _, i := range c.removed {
		if has(n.associated, i) {
			left = append(left, i)
		}
		n.associated, n.open = without(n.associated, i), without(n.open, i)
	}
	if !n.all {
		for _, i := range c.updated {
			switch {
			case i == index || !c.recredentialed(i):
			case n.frozen && c.acrossGap():
				// Perhaps another leaf of the same user, added later.
				if has(n.associated, i) {
					left = append(left, i)
				}
				n.associated, n.open = without(n.associated, i), without(n.open, i)
			case !n.frozen || has(n.associated, i):
				n.associated, n.open = without(n.associated, i), with(n.open, i)
			}
		}
		for _, i := range c.added {
			if !n.frozen && i != index {
				n.open = with(n.open, i)
			}
		}
	}
	return &n, left
}

// freeze makes the other leaves of the sender's last epoch the candidates.
func (a *association) freeze(c *change, index mlscore.LeafIndex) {
	a.frozen = true
	if a.all {
		a.all, a.open = false, others(c.before, index)
	}
}

// others are all leaves of a tree but one.
func others(g *mlscore.PublicGroup, index mlscore.LeafIndex) []mlscore.LeafIndex {
	list := make([]mlscore.LeafIndex, 0, g.Tree().Members())
	for i := range g.Tree().All() {
		if i != index {
			list = append(list, i)
		}
	}
	return list
}

// candidates are the open leaves.
func (a *association) candidates(g *mlscore.PublicGroup, index mlscore.LeafIndex) []mlscore.LeafIndex {
	if a.all {
		return others(g, index)
	}
	return a.open
}

// apply gives the association after an answer. What the answer says of a leaf
// counts if the leaf is open and has had its credential since the answer's
// epoch. Undecided leaves stay open, or are given up by policy.
func (a *association) apply(ans *Answer, p *Policy, g *mlscore.PublicGroup, index mlscore.LeafIndex, lives trie[life]) *association {
	n := *a
	n.answer = &RecordedAnswer{Status: ans.Status, Revision: ans.Revision, Hash: ans.Hash}
	if ans.Status != StatusResolved {
		n.failed++
		if p.OnError == OnErrorSenderOnly {
			n.all, n.open, n.givenUp = false, nil, true
		}
		return &n
	}
	settled := func(list []mlscore.LeafIndex) []mlscore.LeafIndex {
		return slices.DeleteFunc(slices.Sorted(slices.Values(list)), func(i mlscore.LeafIndex) bool {
			l, _ := lives.get(leafKey(i))
			return l.credential > ans.Epoch
		})
	}
	associated, unrelated, undecided := settled(ans.Associated), settled(ans.Unrelated), settled(ans.Undecided)
	if p.OnError == OnErrorSenderOnly {
		unrelated = slices.Sorted(slices.Values(slices.Concat(unrelated, undecided)))
		n.givenUp = n.givenUp || len(undecided) > 0
		undecided = nil
	}
	var open, found []mlscore.LeafIndex
	for _, i := range a.candidates(g, index) {
		switch {
		case has(associated, i):
			found = append(found, i)
		case !has(unrelated, i):
			open = append(open, i)
		}
	}
	n.all, n.open = false, open
	n.associated = slices.Sorted(slices.Values(slices.Concat(n.associated, found)))
	n.failed++
	if len(undecided) == 0 {
		n.failed = 0
	}
	n.total += len(found)
	n.checkGuards(p, g.Tree().Members())
	return &n
}

// checkGuards holds the removal of more others than the policy allows or an
// operator approved.
func (a *association) checkGuards(p *Policy, members int) {
	if a.total <= a.allowed {
		return
	}
	a.guard = a.guard || p.MaxAssociated > 0 && a.total > p.MaxAssociated ||
		p.MaxFraction > 0 && float64(a.total) > p.MaxFraction*float64(members)
}

// approve lifts the holds for those who are known now.
func (a *association) approve() *association {
	n := *a
	n.guard, n.approved, n.allowed = false, true, n.total
	return &n
}
