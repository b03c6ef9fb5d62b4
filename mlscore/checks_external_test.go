package mlscore_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
)

// join is an external commit of a client with its ExternalInit and more.
func (w *world) join(c *member.Client, f forge, more ...*mlscore.Proposal) []byte {
	w.t.Helper()
	f.joiner = c
	f.proposals = append(byValue(append([]*mlscore.Proposal{w.externalInit()}, more...)...), f.proposals...)
	return w.forge(f)
}

func testExternalCommitPath(t *testing.T) {
	w := newWorld(t, 5)
	w.prove()
	c := w.client()
	staged := w.flagged("a join", w.join(c, forge{}))
	if staged.Kind != mlscore.StagedExternalCommit || staged.Committer != 5 || staged.Proves {
		t.Errorf("%+v", staged)
	}
	w.refuses("no path", w.join(c, forge{noPath: true}), mlscore.ErrInvalid, "12.4.3.2")
	w.refuses("signed by a member", w.join(c, forge{message: w.resign(w.signer(1), w.group.ContextBytes())}), mlscore.ErrInvalid, "5.1.2")
	w.refuses("signed over nothing", w.join(c, forge{message: w.resign(c.Signer, nil)}), mlscore.ErrInvalid, "5.1.2")
}

func testOneExternalInit(t *testing.T) {
	w := newWorld(t, 5)
	c := w.client()
	w.flagged("one", w.join(c, forge{}))
	w.refuses("none", w.forge(forge{joiner: c}), mlscore.ErrInvalid, "12.2")
	w.refuses("none beside a PSK", w.forge(forge{joiner: c, proposals: byValue(psk("x"))}), mlscore.ErrInvalid, "12.2")
	w.refuses("two", w.join(c, forge{}, w.externalInit()), mlscore.ErrInvalid, "12.2")
}

func testOneRemoveInExternalCommit(t *testing.T) {
	w := newWorld(t, 5)
	c := w.members[3].Client()
	staged := w.flagged("its old self", w.join(c, forge{}, member.Remove(3)))
	if !staged.Resync || !slices.Equal(staged.Removed, []mlscore.LeafIndex{3}) || !slices.Equal(staged.Added, []mlscore.LeafIndex{3}) {
		t.Errorf("%+v", staged)
	}
	w.refuses("and another", w.join(c, forge{}, member.Remove(3), member.Remove(4)), mlscore.ErrInvalid, "12.2")
	w.refuses("and once more", w.join(c, forge{}, member.Remove(3), member.Remove(3)), mlscore.ErrInvalid, "12.2")
	w.refuses("a blank leaf", w.join(w.client(), forge{}, member.Remove(6)), mlscore.ErrInvalid, "12.1.3")
	w.refuses("without its old self", w.join(c, forge{}), mlscore.ErrInvalid, "7.3")
}

// A resync is an Update of the removed leaf: another encryption_key, and a
// credential that the application takes for the same client's.
func testResync(t *testing.T) {
	w := newWorld(t, 5)
	c := w.members[3].Client()
	old := w.group.Tree().Leaf(3).EncryptionKey
	w.refuses("the old encryption_key", w.join(c, forge{leaf: func(n *mlscore.LeafNode) { n.EncryptionKey = old }}, member.Remove(3)), mlscore.ErrInvalid, "12.4.2")
	w.flagged("another's leaf", w.join(w.client(), forge{}, member.Remove(3)), mlscore.FlagResyncCredential)
	renewed := *c
	renewed.Signer = w.client().Signer
	w.flagged("a new signature key", w.join(&renewed, forge{}, member.Remove(3)))
}

func testExternalCommitTypes(t *testing.T) {
	w := buildWorld(t, 5, able, nil)
	c := w.client()
	able(c)
	epoch := func(n *mlscore.LeafNode) {
		n.Extensions = n.Extensions.With(w.group.Registry().LeafNodeEpoch, uint64Bytes(w.group.Epoch()))
	}
	w.flagged("a PSK", w.join(c, forge{}, psk("x")))
	w.flagged("AppEphemeral", w.join(c, forge{}, &mlscore.Proposal{Type: 9, Body: []byte{0, 1, 0}}))
	for what, p := range map[string]*mlscore.Proposal{
		"an Add": w.add(nil), "a GroupContextExtensions": member.GroupContextExtensions(nil),
		"a ReInit":  member.ReInit(mlscore.ReInit{GroupID: []byte("next"), Version: 1, CipherSuite: 1}),
		"a Replace": mlscore.NewReplace(w.group.Registry(), 3, w.update(3, epoch)),
		"an Update": updateWith(w.update(3, nil)), "a SelfRemove": mlscore.NewSelfRemove(w.group.Registry()),
	} {
		w.refuses(what, w.join(c, forge{}, p), mlscore.ErrInvalid, "")
	}
}

// removal is a custom proposal that removes a leaf and, where its body says so,
// those associated with it, as a LeafOperationProposal does. The body is the leaf,
// whether others are meant, and what tells two proposals apart.
const removal mlscore.ProposalType = 0xff02

func removalOf(leaf mlscore.LeafIndex, associated bool, serial byte) *mlscore.Proposal {
	others := byte(0)
	if associated {
		others = 1
	}
	return &mlscore.Proposal{Type: removal, Body: []byte{3, byte(leaf), others, serial}}
}

func knowsRemovals(c *member.Client) {
	able(c)
	c.Registry = mlscore.DefaultRegistry()
	c.Registry.Custom = []mlscore.CustomProposal{{
		Type: removal, Read: func(r *codec.Reader) { r.Opaque() },
		Expand: func(g *mlscore.PublicGroup, body []byte) (mlscore.Expansion, error) {
			if g.Tree().Leaf(mlscore.LeafIndex(body[1])) == nil {
				return mlscore.Expansion{}, fmt.Errorf("%w: nobody's removal", mlscore.ErrInvalid)
			}
			return mlscore.Expansion{Sender: mlscore.LeafIndex(body[1]), Associated: body[2] == 1}, nil
		},
	}}
}

// An external commit may contain any number of LeafOperationProposals, of which no
// two remove the same leaf: neither the sender's nor one that is associated with it.
func testOneRemovalInExternalCommit(t *testing.T) {
	w := buildWorld(t, 6, knowsRemovals, nil)
	c := w.client()
	knowsRemovals(c)
	known := func(sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
		return map[mlscore.LeafIndex][]mlscore.LeafIndex{3: {4}, 2: {4}, 1: {9}}[sender], true
	}
	blank := must(mlscore.ParseMLSMessage(w.join(c, forge{}, removalOf(1, true, 0)), w.group.Registry()))
	_, err := w.group.StageWith(blank, known)
	w.isRefusal("an associated leaf that is not there", err, mlscore.ErrUnresolvable, "")
	leaving := w.pend(w.by(4), mlscore.NewSelfRemove(w.group.Registry()))
	w.refuses("of nobody", w.join(c, forge{}, removalOf(9, false, 0)), mlscore.ErrInvalid, "")
	w.flagged("of two leaves", w.join(c, forge{}, removalOf(3, false, 0), removalOf(4, false, 0)))
	for what, test := range map[string]struct {
		f    forge
		list []*mlscore.Proposal
	}{
		"by two proposals of one sender":     {forge{}, []*mlscore.Proposal{removalOf(4, false, 0), removalOf(4, false, 1)}},
		"beside its Remove":                  {forge{}, []*mlscore.Proposal{member.Remove(4), removalOf(4, false, 0)}},
		"beside its SelfRemove":              {forge{proposals: refs{leaving}}, []*mlscore.Proposal{removalOf(4, false, 0)}},
		"of an associated leaf that asks":    {forge{}, []*mlscore.Proposal{removalOf(3, true, 0), removalOf(4, false, 0)}},
		"of one associated with two senders": {forge{}, []*mlscore.Proposal{removalOf(3, true, 0), removalOf(2, true, 0)}},
	} {
		m := must(mlscore.ParseMLSMessage(w.join(c, test.f, test.list...), w.group.Registry()))
		_, err := w.group.StageWith(m, known)
		var refusal *mlscore.Error
		if !errors.As(err, &refusal) || !strings.Contains(refusal.Detail, "more than one removal of leaf 4") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func testExternalCommitReferences(t *testing.T) {
	w := buildWorld(t, 5, able, nil)
	c := w.client()
	able(c)
	for what, ref := range map[string]mlscore.ProposalOrRef{
		"a Remove": w.pend(external, member.Remove(4)), "a PSK": w.pend(w.by(2), psk("x")),
		"AppEphemeral": w.pend(w.by(2), &mlscore.Proposal{Type: 9, Body: []byte{0, 1, 0}}),
	} {
		w.refuses(what+" by reference", w.join(c, forge{proposals: refs{ref}}), mlscore.ErrInvalid, "12.4.3.2")
	}
	leaving := w.pend(w.by(3), mlscore.NewSelfRemove(w.group.Registry()))
	w.flagged("a SelfRemove by reference", w.join(c, forge{proposals: refs{leaving}}))
	w.refuses("an unknown reference", w.join(c, forge{proposals: refs{{Reference: make([]byte, 32)}}}), mlscore.ErrUnresolvable, "12.4.2")
}

func testJoinersLeaf(t *testing.T) {
	w := newWorld(t, 6)
	leave := func(leaf mlscore.LeafIndex) mlscore.ProposalOrRef {
		return w.pend(w.by(leaf), mlscore.NewSelfRemove(w.group.Registry()))
	}
	for _, c := range []struct {
		what    string
		message []byte
		leaf    mlscore.LeafIndex
		width   uint32
	}{
		{"the leftmost blank", w.join(w.client(), forge{}), 6, 8},
		{"its own old leaf", w.join(w.members[3].Client(), forge{}, member.Remove(3)), 3, 8},
		{"a leaf that leaves", w.join(w.client(), forge{proposals: refs{leave(2)}}), 2, 8},
		{"the leftmost of several", w.join(w.members[5].Client(), forge{proposals: refs{leave(4), leave(1)}}, member.Remove(5)), 1, 4},
		{"in a tree that shrank", w.join(w.members[5].Client(), forge{proposals: refs{leave(4)}}, member.Remove(5)), 4, 8},
	} {
		staged := w.accepts(c.what, c.message)
		if next := staged.Next().Tree(); staged.Committer != c.leaf || next.LeafWidth() != c.width {
			t.Errorf("%s: leaf %d of %d, want %d of %d", c.what, staged.Committer, next.LeafWidth(), c.leaf, c.width)
		}
	}
	full := newWorld(t, 4)
	if staged := full.flagged("a full tree", full.join(full.client(), forge{})); staged.Committer != 4 || staged.Next().Tree().LeafWidth() != 8 {
		t.Errorf("leaf %d of %d", staged.Committer, staged.Next().Tree().LeafWidth())
	}
	required := buildWorld(t, 4, able, mlscore.Extensions{{Type: 0xff01}})
	c := required.client()
	required.refuses("one that does not support the group's extensions", required.join(c, forge{}), mlscore.ErrInvalid, "13.4")
	able(c)
	required.flagged("one that does", required.join(c, forge{}))
}

func testJoinersKeys(t *testing.T) {
	w := newWorld(t, 6)
	tree := w.group.Tree()
	w.refuses("a member's encryption_key", w.join(w.client(), forge{leaf: func(n *mlscore.LeafNode) {
		n.EncryptionKey = tree.Leaf(4).EncryptionKey
	}}), mlscore.ErrInvalid, "12.4.2")
	w.refuses("a member's signature_key", w.join(w.members[4].Client(), forge{}), mlscore.ErrInvalid, "7.3")
	w.flagged("the removed one's signature_key", w.join(w.members[4].Client(), forge{}, member.Remove(4)))
	leaving := w.pend(w.by(4), mlscore.NewSelfRemove(w.group.Registry()))
	w.flagged("the signature_key of one who removes itself", w.join(w.members[4].Client(), forge{proposals: refs{leaving}}))
	further := w.pend(w.by(2), mlscore.NewSelfRemove(w.group.Registry())) // whose leaf the joiner takes
	w.flagged("the encryption_key of one who removes itself", w.join(w.client(), forge{proposals: refs{leaving, further}, leaf: func(n *mlscore.LeafNode) {
		n.EncryptionKey = tree.Leaf(4).EncryptionKey
	}}))
	w.refuses("the removed one's, and another removed", w.join(w.members[4].Client(), forge{}, member.Remove(3)), mlscore.ErrInvalid, "7.3")
}

// Our key may move in external_senders, or go.
func testOwnSenderIndex(t *testing.T) {
	w := newWorld(t, 4)
	other := w.client().Signer
	list := func(signers ...mlscore.Signer) *mlscore.Proposal {
		var senders []mlscore.ExternalSender
		for _, s := range signers {
			senders = append(senders, mlscore.ExternalSender{SignatureKey: s.PublicKey(), Credential: mlscore.BasicCredential(nil)})
		}
		return member.GroupContextExtensions(mlscore.Extensions{{Type: mlscore.ExtensionTypeExternalSenders, Data: mlscore.AppendExternalSenders(nil, senders)}})
	}
	moved := w.flagged("it moves", w.forge(forge{by: 1, proposals: byValue(list(other, w.broker))})).Next()
	gone := w.flagged("it goes", w.forge(forge{by: 1, proposals: byValue(list(other))})).Next()
	if i, ok := w.group.ExternalSenderIndex(w.broker.PublicKey()); i != 0 || !ok {
		t.Errorf("at first: %d, %t", i, ok)
	}
	if _, ok := gone.ExternalSenderIndex(w.broker.PublicKey()); ok {
		t.Error("still there")
	}
	if _, err := mlscore.ExternalRemove(gone, w.broker, 1); err == nil {
		t.Error("proposes without being listed")
	}
	w.group = moved
	w.flagged("a Remove under the new index", must(mlscore.ExternalRemove(moved, w.broker, 1)))
	w.refuses("a Remove under the old index", w.proposal(external, member.Remove(1)), mlscore.ErrInvalid, "5.1.2")
}

// What the application has to be asked about is all in what staging gives.
func testCredentialsAreTold(t *testing.T) {
	w := newWorld(t, 5)
	renamed := func(n *mlscore.LeafNode) { n.Credential = mlscore.BasicCredential([]byte("another name")) }
	update := w.pend(w.by(3), updateWith(w.update(3, renamed)))
	add := w.add(renamed)
	staged := w.flagged("new credentials", w.forge(forge{by: 1, leaf: renamed, proposals: append(byValue(add), update)}))
	if !slices.Equal(staged.Updated, []mlscore.LeafIndex{1, 3}) || !slices.Equal(staged.Added, []mlscore.LeafIndex{5}) {
		t.Errorf("updated %v, added %v", staged.Updated, staged.Added)
	}
	for _, leaf := range slices.Concat(staged.Updated, staged.Added) {
		if c := staged.Next().Tree().Leaf(leaf).Credential; !bytes.Equal(c.Identity, []byte("another name")) {
			t.Errorf("leaf %d: %q", leaf, c.Identity)
		}
	}
}
