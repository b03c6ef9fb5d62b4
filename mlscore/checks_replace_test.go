package mlscore_test

import (
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
)

const replaceDraft = "draft-barnes-mls-replace, Replace Proposal"

// madeIn sets leaf_node_epoch.
func (w *world) madeIn(epoch uint64) func(*mlscore.LeafNode) {
	return func(n *mlscore.LeafNode) {
		n.Extensions = n.Extensions.With(w.group.Registry().LeafNodeEpoch, uint64Bytes(epoch))
	}
}

// replace is a Replace of a leaf made in the current epoch, after a change.
func (w *world) replace(leaf mlscore.LeafIndex, change func(*mlscore.LeafNode)) *mlscore.Proposal {
	w.t.Helper()
	return mlscore.NewReplace(w.group.Registry(), leaf, w.update(leaf, func(n *mlscore.LeafNode) {
		w.madeIn(w.group.Epoch())(n)
		if change != nil {
			change(n)
		}
	}))
}

func testReplaceSender(t *testing.T) {
	w := newWorld(t, 6)
	for what, p := range map[string]mlscore.ProposalOrRef{
		"by value": byValue(w.replace(3, nil))[0], "by reference": w.pend(w.by(2), w.replace(3, nil)),
		"of the sender's own leaf": w.pend(w.by(3), w.replace(3, nil)), "of the committer's by another": w.pend(w.by(1), w.replace(4, nil)),
	} {
		staged := w.flagged(what, w.forge(forge{by: 1, proposals: refs{p}}))
		if len(staged.Updated) != 2 || len(staged.Removed) != 0 {
			t.Errorf("%s: updated %v, removed %v", what, staged.Updated, staged.Removed)
		}
	}
	w.refuses("of the committer's leaf", w.forge(forge{by: 1, proposals: byValue(w.replace(1, nil))}), mlscore.ErrInvalid, "12.2")
	w.refuses("of the committer's leaf, by another", w.forge(forge{by: 1, proposals: refs{w.pend(w.by(3), w.replace(1, nil))}}), mlscore.ErrInvalid, "12.2")
	w.refuses("by an external sender", w.proposal(external, w.replace(3, nil)), mlscore.ErrMalformed, "12.1.8")
	w.refuses("by a new member", w.sealAs(newMember, mlscore.FramedContent{ContentType: mlscore.ContentTypeProposal, Proposal: w.replace(3, nil)}, w.client().Signer), mlscore.ErrMalformed, "6")
	w.refuses("in an external commit", w.join(w.client(), forge{}, w.replace(3, nil)), mlscore.ErrInvalid, replaceDraft)
	ref := w.pend(w.by(2), w.replace(3, nil))
	w.refuses("in an external commit by reference", w.join(w.client(), forge{proposals: refs{ref}}), mlscore.ErrInvalid, "12.4.3.2")
}

func testReplaceTarget(t *testing.T) {
	w := newWorld(t, 5)
	leaf := w.replace(3, nil).LeafNode
	reg := w.group.Registry()
	for _, i := range []mlscore.LeafIndex{5, 7, 8, 1 << 24, 1 << 31, 1<<32 - 1} {
		w.refusesProposal("a leaf that is not there", w.by(2), mlscore.NewReplace(reg, i, leaf), mlscore.ErrInvalid, replaceDraft)
	}
	w.refusesProposal("signed for another leaf", w.by(2), mlscore.NewReplace(reg, 4, leaf), mlscore.ErrInvalid, "5.1.2")
	elsewhere := *leaf
	must(0, elsewhere.Sign(w.signer(3), []byte("other"), 3))
	w.refusesProposal("signed for another group", w.by(2), mlscore.NewReplace(reg, 3, &elsewhere), mlscore.ErrInvalid, "5.1.2")
}

func testReplaceLeaf(t *testing.T) {
	w := newWorld(t, 5)
	current := w.group.Tree().Leaf(3)
	for what, c := range map[string]struct {
		change  func(*mlscore.LeafNode)
		section string
	}{
		"source key_package":   {func(n *mlscore.LeafNode) { n.Source = mlscore.LeafNodeSourceKeyPackage }, "7.3"},
		"source commit":        {func(n *mlscore.LeafNode) { n.Source = mlscore.LeafNodeSourceCommit }, "7.3"},
		"the encryption_key":   {func(n *mlscore.LeafNode) { n.EncryptionKey = current.EncryptionKey }, "7.3"},
		"no leaf_node_epoch":   {func(n *mlscore.LeafNode) { n.Extensions = nil }, replaceDraft},
		"a later epoch":        {w.madeIn(w.group.Epoch() + 1), replaceDraft},
		"the last epoch":       {w.madeIn(1<<64 - 1), replaceDraft},
		"an epoch of 9 bytes":  {func(n *mlscore.LeafNode) { n.Extensions[0].Data = make([]byte, 9) }, replaceDraft},
		"an epoch of no bytes": {func(n *mlscore.LeafNode) { n.Extensions[0].Data = nil }, replaceDraft},
	} {
		w.refusesProposal(what, w.by(2), w.replace(3, c.change), mlscore.ErrInvalid, c.section)
	}
	// What depends on the whole group is judged with the commit (Section 7.3).
	for what, change := range map[string]func(*mlscore.LeafNode){
		"an extension without capability": func(n *mlscore.LeafNode) { n.Capabilities.Extensions = nil },
		"a credential type of nobody":     func(n *mlscore.LeafNode) { n.Credential = mlscore.Credential{Type: 0xff03} },
	} {
		w.refuses(what, w.forge(forge{by: 1, proposals: byValue(w.replace(3, change))}), mlscore.ErrInvalid, "7.3")
	}
	w.refuses("another's encryption_key", w.forge(forge{by: 1, proposals: byValue(w.replace(3, func(n *mlscore.LeafNode) {
		n.EncryptionKey = w.group.Tree().Leaf(4).EncryptionKey
	}))}), mlscore.ErrInvalid, "12.4.2")
}

// An old leaf does not come back: not below the current leaf's epoch.
func testReplaceRollback(t *testing.T) {
	w := newWorld(t, 5)
	old := w.replace(3, w.madeIn(1))
	w.flagged("a leaf of epoch 1, where the current has none", w.forge(forge{by: 1, proposals: byValue(old)}))
	w.group = w.accepts("a Replace", w.forge(forge{by: 1, proposals: byValue(w.replace(3, w.madeIn(2)))})).Next()
	w.refusesProposal("a leaf of epoch 1, where the current has 2", w.by(2), old, mlscore.ErrInvalid, replaceDraft)
	w.flagged("another of epoch 2", w.forge(forge{by: 1, proposals: byValue(w.replace(3, w.madeIn(2)))}))
	// Without leaf_node_epoch the current leaf protects itself no more.
	w.group = w.accepts("an Update without", w.forge(forge{by: 1, proposals: refs{
		w.pend(w.by(3), updateWith(w.update(3, func(n *mlscore.LeafNode) { n.Extensions = nil }))),
	}})).Next()
	w.flagged("a leaf of epoch 1 again", w.forge(forge{by: 1, proposals: byValue(old)}))
}

func testReplaceList(t *testing.T) {
	w := newWorld(t, 6)
	byRef := w.pend(w.by(2), w.replace(4, nil))
	for what, other := range map[string]mlscore.ProposalOrRef{
		"a Replace": byValue(w.replace(4, nil))[0], "itself": byRef,
		"an Update": w.pend(w.by(4), updateWith(w.update(4, nil))), "a Remove": byValue(member.Remove(4))[0],
		"a SelfRemove": w.receive("a SelfRemove", w.selfRemove(4, "")),
	} {
		w.refuses("beside "+what, w.forge(forge{by: 1, proposals: refs{byRef, other}}), mlscore.ErrInvalid, "12.2")
		w.refuses("after "+what, w.forge(forge{by: 1, proposals: refs{other, byRef}}), mlscore.ErrInvalid, "12.2")
	}
	w.flagged("of two leaves", w.forge(forge{by: 1, proposals: append(byValue(w.replace(3, nil)), byRef)}))
	w.refuses("of two leaves with one encryption_key", w.forge(forge{by: 1, proposals: append(byValue(w.replace(3, func(n *mlscore.LeafNode) {
		n.EncryptionKey = w.group.Proposal(byRef.Reference).Proposal.LeafNode.EncryptionKey
	})), byRef)}), mlscore.ErrInvalid, "12.4.2")
}

func testReplacePath(t *testing.T) {
	w := newWorld(t, 6) // member 3 has committed
	if w.group.Tree().Parent(5) == nil || w.group.Tree().Parent(7) == nil {
		t.Fatal("no parents above leaf 2")
	}
	list := byValue(w.replace(2, nil))
	w.refuses("without path", w.forge(forge{by: 4, noPath: true, proposals: list}), mlscore.ErrInvalid, "12.4")
	next := w.flagged("with path", w.forge(forge{by: 4, proposals: list})).Next().Tree()
	if next.Parent(5) != nil || next.Parent(3) != nil || next.Parent(7) == nil {
		t.Errorf("nodes 5, 3, 7: %v, %v, %v", next.Parent(5), next.Parent(3), next.Parent(7))
	}
	if !slices.Equal(next.LeafBytes(2), list[0].Proposal.LeafNode.Bytes()) {
		t.Error("the leaf is not the one of the Replace")
	}
}

func testReplaceSupported(t *testing.T) {
	w := buildWorld(t, 5, nil, nil)
	deaf := func(n *mlscore.LeafNode) { n.Capabilities.Proposals = nil }
	w.group = w.accepts("a path", w.forge(forge{by: 4, leaf: deaf})).Next()
	w.refuses("a member does not know it", w.forge(forge{by: 1, proposals: byValue(w.replace(3, nil))}), mlscore.ErrInvalid, "12.2")
	w.flagged("and is removed", w.forge(forge{by: 1, proposals: byValue(w.replace(3, nil), member.Remove(4))}))
}

// A Replace with a signature key that its author may have chosen.
func testReplaceSignatureKey(t *testing.T) {
	for _, policy := range []mlscore.Policy{mlscore.Report, mlscore.Refuse} {
		w := newWorld(t, 5)
		w.opts.ReplacedSignatureKey = policy
		w.observe()
		insider := w.client().Signer
		p := w.replace(3, func(n *mlscore.LeafNode) { n.SignatureKey = insider.PublicKey() })
		must(0, p.LeafNode.Sign(insider, w.group.GroupID(), 3))
		w.flagged("the same key", w.forge(forge{by: 1, proposals: byValue(w.replace(3, nil))}))
		if policy == mlscore.Refuse {
			w.refusesProposal("another key", w.by(1), p, mlscore.ErrInvalid, replaceDraft)
			continue
		}
		w.flagged("another key", w.forge(forge{by: 1, proposals: byValue(p)}), mlscore.FlagReplacedSignatureKey)
		w.receive("another key, proposed", w.proposal(w.by(2), p), mlscore.FlagReplacedSignatureKey)
	}
}

// leaf_node_epoch on every leaf, where the deployment asks for it.
func testRequireLeafNodeEpoch(t *testing.T) {
	const section = "draft-barnes-mls-replace, Security Considerations"
	reg := mlscore.DefaultRegistry()
	marked := mlscore.Extensions{{Type: reg.LeafNodeEpoch, Data: uint64Bytes(0)}}
	w := buildWorld(t, 5, func(c *member.Client) { c.LeafExtensions = marked }, nil)
	w.opts.RequireLeafNodeEpoch = true
	w.observe()
	unmarked := func(n *mlscore.LeafNode) { n.Extensions = nil }
	mark := func(n *mlscore.LeafNode) { n.Extensions = marked }
	w.flagsInfo("on every leaf", withTree(w.withLeaf(2, mark)))
	w.refusesInfo("not on one", withTree(w.withLeaf(2, unmarked)), mlscore.ErrInvalid, section)
	w.refusesInfo("nine bytes on one", withTree(w.withLeaf(2, func(n *mlscore.LeafNode) {
		n.Extensions = mlscore.Extensions{{Type: reg.LeafNodeEpoch, Data: make([]byte, 9)}}
	})), mlscore.ErrInvalid, section)
	w.flagged("in an Add", w.forge(forge{by: 1, proposals: byValue(w.add(mark))}))
	w.refuses("not in an Add", w.forge(forge{by: 1, proposals: byValue(w.add(unmarked))}), mlscore.ErrInvalid, section)
	w.refuses("not in a path", w.forge(forge{by: 1, leaf: unmarked}), mlscore.ErrInvalid, section)
	w.refuses("not in an Update", w.forge(forge{by: 1, proposals: refs{w.pend(w.by(3), updateWith(w.update(3, unmarked)))}}), mlscore.ErrInvalid, section)
	w.refuses("not in a join", w.join(w.client(), forge{}), mlscore.ErrInvalid, section)
	w.flagged("in a join", w.join(w.client(), forge{leaf: mark}))
	w.opts.RequireLeafNodeEpoch = false
	w.flagsInfo("on no leaf, if nobody asks", withTree(w.withLeaf(2, unmarked)))
}

func testReplaceCodePoints(t *testing.T) {
	reg := mlscore.DefaultRegistry()
	reg.Replace, reg.LeafNodeEpoch = 0xf0b2, 0xf0b3
	w := buildWorld(t, 5, func(c *member.Client) { c.Registry = reg }, nil)
	w.flagged("another code point", w.forge(forge{by: 1, proposals: byValue(w.replace(3, nil))}))
	for what, change := range map[string]func(*mlscore.Registry){
		"RFC 9420's": func(r *mlscore.Registry) { r.Replace = 2 }, "SelfRemove's": func(r *mlscore.Registry) { r.Replace = r.SelfRemove },
		"a default extension's": func(r *mlscore.Registry) { r.LeafNodeEpoch = 1 }, "app_data_dictionary's": func(r *mlscore.Registry) { r.LeafNodeEpoch = 6 },
		"a custom one's": func(r *mlscore.Registry) {
			r.Custom = []mlscore.CustomProposal{{Type: r.Replace, Read: func(r *codec.Reader) { r.Opaque() }}}
		},
	} {
		r := mlscore.DefaultRegistry()
		change(r)
		if r.Validate() == nil {
			t.Errorf("a code point that is %s too", what)
		}
	}
}
