package intents

import (
	"bytes"
	"slices"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// A lineage is the life of a leaf at its index: it goes on through Update,
// Replace and the member's own commits, and ends with any removal of the
// index, even if the same commit fills it again. life tells since when, in
// epochs; the zero value is "since the base".
type life struct {
	lineage    uint64 // the epoch in which the lineage began
	credential uint64 // the epoch in which it got its credential
}

func leafKey(index mlscore.LeafIndex) string {
	return string([]byte{byte(index), byte(index >> 8), byte(index >> 16), byte(index >> 24)})
}

// indexOf is the index of a leafKey.
func indexOf(key string) mlscore.LeafIndex {
	return mlscore.LeafIndex(key[0]) | mlscore.LeafIndex(key[1])<<8 | mlscore.LeafIndex(key[2])<<16 | mlscore.LeafIndex(key[3])<<24
}

// change is what happened to the leaves between two epochs. Lists are
// ascending; an index that was removed and filled again is in two.
type change struct {
	before, after           *mlscore.PublicGroup
	removed, updated, added []mlscore.LeafIndex

	commit    string // hash; "" across a gap
	committer mlscore.LeafIndex
	external  bool
	resynced  []mlscore.LeafIndex // what an external committer replaced by itself
	replaced  []mlscore.LeafIndex // by Replace
}

func has(list []mlscore.LeafIndex, index mlscore.LeafIndex) bool {
	_, found := slices.BinarySearch(list, index)
	return found
}

func with(list []mlscore.LeafIndex, index mlscore.LeafIndex) []mlscore.LeafIndex {
	i, found := slices.BinarySearch(list, index)
	if found {
		return list
	}
	return slices.Insert(slices.Clone(list), i, index)
}

func without(list []mlscore.LeafIndex, index mlscore.LeafIndex) []mlscore.LeafIndex {
	i, found := slices.BinarySearch(list, index)
	if !found {
		return list
	}
	return slices.Delete(slices.Clone(list), i, i+1)
}

// changeOfCommit is what a staged commit does to the leaves of a group.
func changeOfCommit(before *mlscore.PublicGroup, staged *mlscore.Staged) change {
	c := change{
		before: before, after: staged.Next(), removed: staged.Removed, updated: staged.Updated, added: staged.Added,
		commit: hexOf(staged.CommitHash[:]), committer: staged.Committer, external: staged.Kind == mlscore.StagedExternalCommit,
	}
	for _, a := range staged.Applied {
		switch {
		case staged.Resync && a.Proposal.Type == mlscore.ProposalTypeRemove:
			c.resynced = with(c.resynced, a.Proposal.Removed)
		case a.Proposal.IsReplace():
			c.replaced = with(c.replaced, a.Proposal.Replaced)
		}
	}
	return c
}

// changeAcrossGap compares two trees of a group between which commits were
// missed. A leaf that kept its signature key or its credential counts as
// updated, as far as its own intents go; where both differ, the index has
// another owner.
func changeAcrossGap(before, after *mlscore.PublicGroup) change {
	c := change{before: before, after: after}
	for index, old := range before.Tree().All() {
		now := after.Tree().Leaf(index)
		switch {
		case now == nil:
			c.removed = append(c.removed, index)
		case bytes.Equal(now.Bytes(), old.Bytes()):
		case sameOwner(old, now):
			c.updated = append(c.updated, index)
		default:
			c.removed = append(c.removed, index)
			c.added = append(c.added, index)
		}
	}
	for index := range after.Tree().All() {
		if before.Tree().Leaf(index) == nil {
			c.added = with(c.added, index)
		}
	}
	return c
}

func sameCredential(a, b *mlscore.LeafNode) bool {
	return bytes.Equal(a.Credential.Bytes(), b.Credential.Bytes())
}

func sameSignatureKey(a, b *mlscore.LeafNode) bool {
	return bytes.Equal(a.SignatureKey, b.SignatureKey)
}

func sameOwner(a, b *mlscore.LeafNode) bool { return sameSignatureKey(a, b) || sameCredential(a, b) }

// kept says whether a leaf is untouched. Across a gap its bytes decide, since
// the intent may have been verified on the other side of it.
func (c *change) kept(index mlscore.LeafIndex, leaf *mlscore.LeafNode) bool {
	if !c.acrossGap() {
		return !has(c.removed, index) && !has(c.updated, index)
	}
	return bytes.Equal(c.after.Tree().LeafBytes(index), leaf.Bytes())
}

// survives judges an intent whose sender's leaf was replaced: it goes on if the
// policy says so and the new leaf is an old one, which anybody may have brought
// back. A leaf that the sender made after its intent was verified is a change
// of mind, and one with another signature key may be anybody's. The reason says
// which; "" where the leaf was not replaced.
func (c *change) survives(r *record, p *Policy) (ok bool, reason string) {
	index := r.intent.SenderIndex
	if !has(c.replaced, index) || has(c.removed, index) {
		return false, ""
	}
	leaf := c.after.Tree().Leaf(index)
	made, marked := leafNodeEpoch(leaf, p.registry())
	switch {
	case p.OnReplace != OnReplaceContinue:
		return false, ReasonReplaced
	case !sameSignatureKey(leaf, r.sender):
		return false, ReasonOtherKey
	case !marked || made >= r.verifiedEpoch:
		return false, ReasonNewLeaf
	}
	return true, ReasonReplaced
}

// leafNodeEpoch is the epoch in which a leaf says that it was made
// (draft-barnes-mls-replace).
func leafNodeEpoch(leaf *mlscore.LeafNode, reg *mlscore.Registry) (uint64, bool) {
	data, ok := leaf.Extensions.Find(reg.LeafNodeEpoch)
	if !ok {
		return 0, false
	}
	r := codec.NewReader(data)
	epoch := r.Uint64()
	return epoch, r.Finish() == nil
}

// cameBack says whether a removed sender is in the tree again by the same
// change: an external committer that replaced its own leaf, or a leaf with
// both its credential and its signature key.
func (c *change) cameBack(index mlscore.LeafIndex, sender *mlscore.LeafNode) bool {
	if has(c.resynced, index) {
		return true
	}
	return slices.ContainsFunc(c.added, func(i mlscore.LeafIndex) bool {
		leaf := c.after.Tree().Leaf(i)
		return leaf != nil && sameSignatureKey(leaf, sender) && sameCredential(leaf, sender)
	})
}

func (c *change) acrossGap() bool { return c.commit == "" }

// recredentialed says whether what was answered about an updated leaf holds no
// more: it has another credential, or may be another's.
func (c *change) recredentialed(index mlscore.LeafIndex) bool {
	if c.acrossGap() {
		return true
	}
	old, now := c.before.Tree().Leaf(index), c.after.Tree().Leaf(index)
	return old == nil || now == nil || !sameCredential(old, now)
}

// live follows a change in the lives of the leaves.
func live(lives trie[life], c *change) trie[life] {
	epoch := c.after.Epoch()
	for _, index := range c.updated {
		if c.recredentialed(index) {
			l, _ := lives.get(leafKey(index))
			lives = lives.with(leafKey(index), life{l.lineage, epoch})
		}
	}
	for _, list := range [][]mlscore.LeafIndex{c.removed, c.added} {
		for _, index := range list {
			lives = lives.with(leafKey(index), life{epoch, epoch})
		}
	}
	return lives
}

// departure remembers a leaf reference that left the tree.
type departure struct {
	index   mlscore.LeafIndex
	changed bool   // by Update, Replace or own commit; otherwise removed
	lineage uint64 // of the leaf that left, as in life
	back    bool   // the reference came into the tree again
	epoch   uint64 // that began when it left, or came back
}

// depart follows a change in the references that left. The lives are those
// before the change.
func depart(departed trie[departure], lives trie[life], c *change) trie[departure] {
	suite := c.before.Suite()
	for _, index := range slices.Concat(c.removed, c.updated) {
		leaf := c.before.Tree().Leaf(index)
		if leaf == nil {
			continue // added and removed by one commit
		}
		l, _ := lives.get(leafKey(index))
		departed = departed.with(string(leaf.Ref(suite)), departure{
			index: index, changed: !has(c.removed, index), lineage: l.lineage, epoch: c.after.Epoch(),
		})
	}
	for _, index := range slices.Concat(c.updated, c.added) {
		leaf := c.after.Tree().Leaf(index)
		if leaf == nil || departed.n == 0 {
			continue
		}
		ref := string(leaf.Ref(suite))
		if d, known := departed.get(ref); known {
			d.back, d.epoch = true, c.after.Epoch()
			departed = departed.with(ref, d)
		}
	}
	return departed
}

// departAll remembers every reference of a tree whose group ended.
func departAll(departed trie[departure], lives trie[life], g *mlscore.PublicGroup) trie[departure] {
	for ref, d := range departed.all() {
		d.changed = false // the lineage ended with the group
		departed = departed.with(ref, d)
	}
	for index, leaf := range g.Tree().All() {
		l, _ := lives.get(leafKey(index))
		departed = departed.with(string(leaf.Ref(g.Suite())), departure{index: index, lineage: l.lineage})
	}
	return departed
}

// judgeDeparted gives the verdict on an intent whose reference left the tree
// before.
func judgeDeparted(d departure, in *LeafOperationIntent, lives trie[life], g *mlscore.PublicGroup) outcome {
	l, _ := lives.get(leafKey(in.SenderIndex))
	switch {
	case d.back:
		return outcome{StateRejected, ReasonReferenceReused, g.Epoch()} // it may be that only a false commit brought it back
	case d.changed && d.index == in.SenderIndex && l.lineage == d.lineage && g.Tree().Leaf(in.SenderIndex) != nil:
		return outcome{StateSuperseded, "", d.epoch}
	}
	return outcome{StateAlreadyGone, "", d.epoch}
}

// leafAt gives the leaves of a group by index.
func leafAt(g *mlscore.PublicGroup) func(mlscore.LeafIndex) *mlscore.LeafNode {
	return g.Tree().Leaf
}
