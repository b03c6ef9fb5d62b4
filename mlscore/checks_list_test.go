package mlscore_test

import (
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

type refs = []mlscore.ProposalOrRef

func testReferencesResolve(t *testing.T) {
	w := newWorld(t, 5)
	ref := w.pend(external, member.Remove(4))
	message := w.forge(forge{by: 1, proposals: refs{ref}})
	if staged := w.flagged("a known reference", message); !slices.Equal(staged.Removed, []mlscore.LeafIndex{4}) {
		t.Errorf("removed %v", staged.Removed)
	}
	w.observe() // nothing is pending
	w.refuses("an unknown reference", message, mlscore.ErrUnresolvable, "12.4.2")
	w.refuses("no reference at all", w.forge(forge{by: 1, proposals: refs{{Reference: []byte{}}}}), mlscore.ErrUnresolvable, "12.4.2")
	old := w.pend(external, member.Remove(4))
	w.group = w.accepts("a commit without it", w.forge(forge{by: 1})).Next()
	w.refuses("a reference of the epoch before", w.forge(forge{by: 1, proposals: refs{old}}), mlscore.ErrUnresolvable, "12.4.2")
	odd := psk("x")
	odd.PSK.Nonce = nil
	w.refuses("a reference to an invalid proposal", w.forge(forge{by: 1, proposals: refs{w.pend(w.by(2), odd)}}), mlscore.ErrInvalid, "12.1.4")
}

func testCommitterUpdates(t *testing.T) {
	w := newWorld(t, 5)
	own := w.pend(w.by(1), updateWith(w.update(1, nil)))
	w.flagged("by another", w.forge(forge{by: 2, proposals: refs{own}}))
	w.refuses("by itself", w.forge(forge{by: 1, proposals: refs{own}}), mlscore.ErrInvalid, "12.2")
}

func testCommitterRemoved(t *testing.T) {
	w := newWorld(t, 5)
	for what, ref := range map[string]mlscore.ProposalOrRef{
		"from outside": w.pend(external, member.Remove(1)), "by another": w.pend(w.by(2), member.Remove(1)),
		"its SelfRemove": w.pend(w.by(1), mlscore.NewSelfRemove(w.group.Registry())), "by value": byValue(member.Remove(1))[0],
	} {
		w.flagged(what+", and another commits", w.forge(forge{by: 3, proposals: refs{ref}}))
		w.refuses(what+", and it commits", w.forge(forge{by: 1, proposals: refs{ref}}), mlscore.ErrInvalid, "12.2")
	}
}

// oneLeaf pairs what may be done to leaf 4 with itself and the rest.
func testOneProposalForALeaf(t *testing.T) {
	w := newWorld(t, 6)
	reg := w.group.Registry()
	epoch := func(n *mlscore.LeafNode) {
		n.Extensions = n.Extensions.With(reg.LeafNodeEpoch, uint64Bytes(w.group.Epoch()))
	}
	list := map[string]mlscore.ProposalOrRef{
		"Update":         w.pend(w.by(4), updateWith(w.update(4, nil))),
		"another Update": w.pend(w.by(4), updateWith(w.update(4, nil))),
		"SelfRemove":     w.pend(w.by(4), mlscore.NewSelfRemove(reg)),
		"Remove":         w.pend(w.by(2), member.Remove(4)),
		"outer Remove":   w.pend(external, member.Remove(4)),
		"own Remove":     w.pend(w.by(4), member.Remove(4)),
		"inline Remove":  byValue(member.Remove(4))[0],
		"Replace":        byValue(mlscore.NewReplace(reg, 4, w.update(4, epoch)))[0],
	}
	for a, first := range list {
		w.accepts(a, w.forge(forge{by: 1, proposals: refs{first}}))
		for b, second := range list {
			w.refuses(a+" and "+b, w.forge(forge{by: 1, proposals: refs{first, second}}), mlscore.ErrInvalid, "12.2")
		}
	}
	w.accepts("two leaves", w.forge(forge{by: 1, proposals: append(byValue(member.Remove(3)), list["Update"])}))
}

// Each proposal that may occur only once, by reference and by value.
func testDuplicates(t *testing.T) {
	w := newWorld(t, 5)
	commit := func(list ...mlscore.ProposalOrRef) []byte { return w.forge(forge{by: 1, proposals: list}) }
	key := psk("a")
	other := psk("a")
	other.PSK.Nonce = append(make([]byte, 31), 1)
	byRef := w.pend(w.by(2), key)
	w.flagged("two PSKs", commit(byRef, byValue(psk("b"))[0]))
	w.flagged("one PSK with two nonces", commit(byRef, byValue(other)[0]))
	w.refuses("one PSK twice", commit(byValue(key, key)...), mlscore.ErrInvalid, "12.2")
	w.refuses("one PSK by reference and by value", commit(byRef, byValue(key)[0]), mlscore.ErrInvalid, "12.2")
	w.refuses("one reference twice", commit(byRef, byRef), mlscore.ErrInvalid, "12.2")
	w.refuses("one PSK twice, external", w.forge(forge{joiner: w.client(), proposals: byValue(w.externalInit(), key, key)}), mlscore.ErrInvalid, "12.2")
	add := w.pend(w.by(2), w.add(nil))
	w.flagged("an Add", commit(add))
	w.refuses("an Add twice", commit(add, add), mlscore.ErrInvalid, "12.4.2")
}

func testOneGroupContextExtensions(t *testing.T) {
	w := newWorld(t, 4)
	extensions := member.GroupContextExtensions(w.group.Context().Extensions)
	byRef := w.pend(external, extensions)
	w.flagged("one", w.forge(forge{by: 1, proposals: refs{byRef}}))
	w.refuses("two", w.forge(forge{by: 1, proposals: append(byValue(extensions), byRef)}), mlscore.ErrInvalid, "12.2")
}

func testReInitAlone(t *testing.T) {
	w := newWorld(t, 4)
	reInit := member.ReInit(mlscore.ReInit{GroupID: []byte("next"), Version: 1, CipherSuite: 1})
	w.flagged("alone", w.forge(forge{by: 1, proposals: byValue(reInit)}))
	for what, p := range map[string]*mlscore.Proposal{"a PSK": psk("x"), "a Remove": member.Remove(3), "a ReInit": reInit} {
		w.refuses("beside "+what, w.forge(forge{by: 1, proposals: byValue(reInit, p)}), mlscore.ErrInvalid, "12.2")
		w.refuses("after "+what, w.forge(forge{by: 1, proposals: byValue(p, reInit)}), mlscore.ErrInvalid, "12.2")
	}
}

func testNoExternalInitInMemberCommit(t *testing.T) {
	w := newWorld(t, 4)
	w.refuses("by value", w.forge(forge{by: 1, proposals: byValue(w.externalInit())}), mlscore.ErrInvalid, "12.1.6")
	w.refuses("with others", w.forge(forge{by: 1, proposals: byValue(psk("x"), w.externalInit())}), mlscore.ErrInvalid, "12.1.6")
}

// Proposals have one order of application, whatever that of the list. A tree
// made in another order would have another parent hash, or other leaves.
func testOrderOfApplication(t *testing.T) {
	w := newWorld(t, 6)
	reg := w.group.Registry()
	update := w.pend(w.by(3), updateWith(w.update(3, nil)))
	leave := w.pend(w.by(5), mlscore.NewSelfRemove(reg))
	remove := w.pend(external, member.Remove(2))
	first, second, third := w.add(nil), w.add(nil), w.add(nil)
	adds := byValue(first, second, third)
	for _, list := range []refs{
		{adds[0], adds[1], adds[2], remove, leave, update},
		{update, leave, remove, adds[0], adds[1], adds[2]},
		{adds[0], leave, adds[1], update, adds[2], remove},
	} {
		next := w.flagged("an order", w.forge(forge{by: 1, proposals: list})).Next()
		for i, p := range []*mlscore.Proposal{first, second, third} { // 2 and 5 are free, then 6
			leaf := []mlscore.LeafIndex{2, 5, 6}[i]
			if !slices.Equal(next.Tree().LeafBytes(leaf), p.KeyPackage.LeafNode.Bytes()) {
				t.Errorf("the %dth Add is not at leaf %d", i, leaf)
			}
		}
	}
	// An Add is unmerged in every parent above it that is not blank.
	alone := w.flagged("an Add without path", w.forge(forge{by: 1, noPath: true, proposals: byValue(w.add(nil))})).Next().Tree()
	for _, x := range mlscore.DirectPath(mlscore.LeafIndex(6).NodeIndex(), 8) {
		before, after := w.group.Tree().Parent(x), alone.Parent(x)
		if before == nil && after != nil || before != nil && !slices.Equal(after.UnmergedLeaves, []mlscore.LeafIndex{6}) {
			t.Errorf("node %d: %v after %v", x, after, before)
		}
	}
	// New extensions count for the Adds of the same list.
	extend := member.GroupContextExtensions(mlscore.Extensions{{Type: mlscore.ExtensionTypeRequiredCapabilities, Data: (&mlscore.RequiredCapabilities{
		Proposals: []mlscore.ProposalType{reg.Replace},
	}).Append(nil)}})
	unable := w.add(func(n *mlscore.LeafNode) { n.Capabilities.Proposals = nil })
	w.flagged("an Add before the requirement", w.forge(forge{by: 1, proposals: byValue(unable)}))
	w.refuses("an Add and the requirement", w.forge(forge{by: 1, proposals: byValue(unable, extend)}), mlscore.ErrInvalid, "11.1")

	// The tree shrinks after the Adds, not before: 4 leaves the right half, and
	// its place is taken again.
	nine := newWorld(t, 9)
	staged := nine.flagged("the last removed, another added", nine.forge(forge{by: 1, proposals: byValue(member.Remove(8), nine.add(nil))}))
	if next := staged.Next().Tree(); next.LeafWidth() != 16 || next.Leaf(8) == nil {
		t.Errorf("%d leaves", next.LeafWidth())
	}
	staged = nine.flagged("the last removed", nine.forge(forge{by: 1, proposals: byValue(member.Remove(8))}))
	if n := staged.Next().Tree().LeafWidth(); n != 8 {
		t.Errorf("%d leaves", n)
	}
}

func testPathRequired(t *testing.T) {
	w := buildWorld(t, 6, able, nil)
	reg := w.group.Registry()
	reInit := member.ReInit(mlscore.ReInit{GroupID: []byte("next"), Version: 1, CipherSuite: 1})
	epoch := func(n *mlscore.LeafNode) {
		n.Extensions = n.Extensions.With(reg.LeafNodeEpoch, uint64Bytes(w.group.Epoch()))
	}
	for what, c := range map[string]struct {
		list     refs
		required bool
	}{
		"nothing":                {nil, true},
		"Add":                    {byValue(w.add(nil)), false},
		"PSK":                    {byValue(psk("x")), false},
		"ReInit":                 {byValue(reInit), false},
		"AppEphemeral":           {byValue(&mlscore.Proposal{Type: 9, Body: []byte{0, 1, 0}}), false},
		"Update":                 {refs{w.pend(w.by(3), updateWith(w.update(3, nil)))}, true},
		"Remove":                 {byValue(member.Remove(3)), true},
		"GroupContextExtensions": {byValue(member.GroupContextExtensions(nil)), true},
		"SelfRemove":             {refs{w.pend(w.by(4), mlscore.NewSelfRemove(reg))}, true},
		"Replace":                {byValue(mlscore.NewReplace(reg, 3, w.update(3, epoch))), true},
		"Add and Remove":         {byValue(w.add(nil), member.Remove(3)), true},
	} {
		w.flagged(what+" with path", w.forge(forge{by: 1, proposals: c.list}))
		if message := w.forge(forge{by: 1, noPath: true, proposals: c.list}); c.required {
			w.refuses(what+" without path", message, mlscore.ErrInvalid, "12.4")
		} else {
			w.flagged(what+" without path", message)
		}
	}
}

// What remains of the group and what is new have to bear each other.
func testFinalTree(t *testing.T) {
	w := buildWorld(t, 5, func(c *member.Client) {
		able(c)
		c.Credential = mlscore.BasicCredential([]byte("somebody"))
	}, nil)
	w.group = w.accepts("a path", w.forge(forge{by: 4, leaf: unable})).Next()
	exotic := w.add(func(n *mlscore.LeafNode) {
		c := &member.Client{}
		able(c)
		n.Capabilities = *c.Capabilities
		n.Credential = mlscore.Credential{Type: 0xff03}
	})
	w.refuses("a credential type that one does not support", w.forge(forge{by: 1, proposals: byValue(exotic)}), mlscore.ErrInvalid, "7.3")
	w.flagged("it is removed", w.forge(forge{by: 1, proposals: byValue(exotic, member.Remove(4))}))
	w.refuses("another is removed", w.forge(forge{by: 1, proposals: byValue(exotic, member.Remove(3))}), mlscore.ErrInvalid, "7.3")
	learns := w.pend(w.by(4), updateWith(w.update(4, func(n *mlscore.LeafNode) {
		c := &member.Client{}
		able(c)
		n.Capabilities = *c.Capabilities
	})))
	w.flagged("its Update supports it", w.forge(forge{by: 1, proposals: append(byValue(exotic), learns)}))
	forgets := w.pend(w.by(3), updateWith(w.update(3, unable)))
	w.refuses("an Update drops it", w.forge(forge{by: 1, proposals: append(byValue(exotic, member.Remove(4)), forgets)}), mlscore.ErrInvalid, "7.3")
}
