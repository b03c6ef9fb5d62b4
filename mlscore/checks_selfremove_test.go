package mlscore_test

import (
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
)

const selfRemoveDraft = "draft-ietf-mls-extensions, SelfRemove"

// selfRemove is the message of a SelfRemove; two with other data are two
// proposals.
func (w *world) selfRemove(leaf mlscore.LeafIndex, data string) []byte {
	w.t.Helper()
	return w.sealAs(w.by(leaf), mlscore.FramedContent{
		ContentType: mlscore.ContentTypeProposal, Proposal: mlscore.NewSelfRemove(w.group.Registry()), AuthenticatedData: []byte(data),
	}, w.signer(leaf))
}

// receive stages a proposal with the flags that it should have, and refers to it.
func (w *world) receive(what string, message []byte, flags ...string) mlscore.ProposalOrRef {
	w.t.Helper()
	staged := w.flagged(what, message, flags...)
	w.group = staged.Next()
	return mlscore.ProposalOrRef{Reference: staged.Proposal.Ref}
}

func testSelfRemoveSender(t *testing.T) {
	w := newWorld(t, 5)
	p := mlscore.NewSelfRemove(w.group.Registry())
	w.flagged("by a member", w.forge(forge{by: 1, proposals: refs{w.receive("a SelfRemove", w.selfRemove(3, ""))}}))
	w.refuses("by an external sender", w.proposal(external, p), mlscore.ErrMalformed, "12.1.8")
	w.refuses("by a new member", w.sealAs(newMember, mlscore.FramedContent{ContentType: mlscore.ContentTypeProposal, Proposal: p}, w.client().Signer), mlscore.ErrMalformed, "6")
	w.refuses("with a body", w.signProposal(w.by(3), []byte{0, 0x0a, 0}), mlscore.ErrMalformed, "")
}

// signProposal is the message of a proposal given as bytes.
func (w *world) signProposal(sender mlscore.Sender, encoded []byte) []byte {
	w.t.Helper()
	m := must(mlscore.ParseMLSMessage(w.sealAs(sender, mlscore.FramedContent{ContentType: mlscore.ContentTypeProposal, Proposal: psk("x")}, w.signer(sender.LeafIndex)), nil))
	content := m.PublicMessage.Content.Bytes()
	content = append(slices.Clone(content[:len(content)-len(psk("x").Bytes())]), encoded...)
	tbs := slices.Concat([]byte{0, 1, 0, 1}, content, w.group.ContextBytes())
	b := codec.AppendOpaque(slices.Concat([]byte{0, 1, 0, 1}, content), must(mlscore.SignWithLabel(w.signer(sender.LeafIndex), "FramedContentTBS", tbs)))
	return codec.AppendOpaque(b, make([]byte, 32))
}

func testSelfRemoveByReference(t *testing.T) {
	w := newWorld(t, 5)
	p := mlscore.NewSelfRemove(w.group.Registry())
	w.refuses("by value", w.forge(forge{by: 1, proposals: byValue(p)}), mlscore.ErrInvalid, selfRemoveDraft)
	w.refuses("by value, external", w.join(w.client(), forge{}, p), mlscore.ErrInvalid, selfRemoveDraft)
}

func testSelfRemoveInPublic(t *testing.T) {
	w := newWorld(t, 5)
	a := &mlscore.AuthenticatedContent{WireFormat: mlscore.WireFormatPrivateMessage, Content: mlscore.FramedContent{
		GroupID: w.group.GroupID(), Epoch: w.group.Epoch(), Sender: w.by(3),
		ContentType: mlscore.ContentTypeProposal, Proposal: mlscore.NewSelfRemove(w.group.Registry()),
	}}
	must(0, a.Sign(w.signer(3), w.group.ContextBytes()))
	staged := must(w.group.StageContent(a, nil))
	w.isRefusal("in a PrivateMessage", staged.Proposal.Invalid, mlscore.ErrInvalid, "12.1.8")
	w.group = staged.Next()
	w.refuses("a commit of it", w.forge(forge{by: 1, proposals: refs{{Reference: staged.Proposal.Ref}}}), mlscore.ErrInvalid, "12.1.8")
}

// A leaf sends one SelfRemove in an epoch, and no Remove of it goes with it.
func testSelfRemoveOnce(t *testing.T) {
	w := newWorld(t, 6)
	early := w.receive("a Remove before it", w.proposal(external, member.Remove(3)))
	first := w.receive("the first", w.selfRemove(3, "a"))
	w.receive("the same again", w.selfRemove(3, "a"))
	second := w.receive("the second", w.selfRemove(3, "b"), mlscore.FlagSecondSelfRemove)
	late := w.receive("a Remove after it", w.proposal(w.by(2), member.Remove(3)), mlscore.FlagRemoveBesideSelfRemove)
	other := w.receive("of another leaf", w.selfRemove(4, "a"))
	w.receive("a Remove of a third", w.proposal(w.by(2), member.Remove(5)))
	for what, ref := range map[string]mlscore.ProposalOrRef{"the first": first, "the second": second, "the early Remove": early, "the late Remove": late} {
		w.flagged(what+" alone", w.forge(forge{by: 1, proposals: refs{ref, other}}))
	}
	for what, list := range map[string]refs{
		"both": {first, second}, "the early Remove": {first, early}, "the late Remove": {late, second}, "an inline Remove": append(byValue(member.Remove(3)), first),
	} {
		w.refuses(what, w.forge(forge{by: 1, proposals: list}), mlscore.ErrInvalid, "12.2")
	}
	w.refuses("both, external", w.join(w.client(), forge{proposals: refs{first, second}}), mlscore.ErrInvalid, "12.2")
	w.refuses("with a resync of it", w.join(w.members[3].Client(), forge{proposals: refs{first}}, member.Remove(3)), mlscore.ErrInvalid, "12.2")
	w.group = w.accepts("the next epoch", w.forge(forge{by: 1})).Next()
	w.receive("in the next epoch", w.selfRemove(3, "c"))
}

func testSelfRemovePath(t *testing.T) {
	w := newWorld(t, 5)
	ref := w.receive("a SelfRemove", w.selfRemove(3, ""))
	w.refuses("without path", w.forge(forge{by: 1, noPath: true, proposals: refs{ref}}), mlscore.ErrInvalid, "12.4")
	next := w.flagged("with path", w.forge(forge{by: 1, proposals: refs{ref}})).Next()
	if next.Tree().Leaf(3) != nil || next.Tree().Parent(5) != nil {
		t.Error("the leaf or its direct path is not blank")
	}
	w.refuses("of the committer", w.forge(forge{by: 3, proposals: refs{ref}}), mlscore.ErrInvalid, "12.2")
}

// Between the Updates and the Removes: what leaves frees its keys and its
// place, and needs no support for what else the commit does.
func testSelfRemoveOrder(t *testing.T) {
	w := newWorld(t, 6)
	ref := w.receive("a SelfRemove", w.selfRemove(2, ""))
	again := w.add(nil)
	staged := w.flagged("an Add in its place", w.forge(forge{by: 1, proposals: append(byValue(again, member.Remove(4)), ref)}))
	if !slices.Equal(staged.Removed, []mlscore.LeafIndex{2, 4}) || !slices.Equal(staged.Added, []mlscore.LeafIndex{2}) {
		t.Errorf("removed %v, added %v", staged.Removed, staged.Added)
	}
	key := w.group.Tree().Leaf(2).EncryptionKey
	w.flagged("an Add with its key", w.forge(forge{by: 1, proposals: append(byValue(w.add(func(n *mlscore.LeafNode) { n.EncryptionKey = key })), ref)}))
}

func testSelfRemoveSupported(t *testing.T) {
	w := buildWorld(t, 5, nil, nil)
	deaf := func(n *mlscore.LeafNode) { n.Capabilities.Proposals = nil }
	w.group = w.accepts("a path", w.forge(forge{by: 4, leaf: deaf})).Next()
	ref := w.receive("a SelfRemove", w.selfRemove(3, ""))
	w.refuses("a member does not know it", w.forge(forge{by: 1, proposals: refs{ref}}), mlscore.ErrInvalid, "12.2")
	w.flagged("and is removed", w.forge(forge{by: 1, proposals: append(byValue(member.Remove(4)), ref)}))
	w.refuses("and an external commit", w.join(w.client(), forge{proposals: refs{ref}}), mlscore.ErrInvalid, "12.2")
}

// The code point is what the deployment says; 0x0008 takes that of AppDataUpdate.
func testSelfRemoveCodePoints(t *testing.T) {
	for _, point := range []mlscore.ProposalType{0x000a, 0x0008, 0xf003} {
		reg := mlscore.DefaultRegistry()
		reg.SelfRemove = point
		if err := reg.Validate(); (err == nil) != (point != 0x0008) {
			t.Errorf("0x%04x beside AppDataUpdate: %v", uint16(point), err)
		}
		if point == 0x0008 {
			reg.AppDataUpdate = 0
		}
		if err := reg.Validate(); err != nil {
			t.Error(err)
		}
		w := buildWorld(t, 5, func(c *member.Client) { c.Registry = reg }, nil)
		message := must(w.members[3].Propose(mlscore.NewSelfRemove(reg)))
		for _, m := range w.members {
			if m != w.members[3] {
				must(m.Process(message))
			}
		}
		w.receive("a member's", message)
		_, joined, err := func() (*member.Group, *member.Commit, error) {
			c := w.client()
			c.Registry = reg
			return c.JoinExternal(must(w.members[0].GroupInfo()), member.ExternalJoinOptions{Pending: [][]byte{message}})
		}()
		if err != nil {
			t.Fatal(err)
		}
		commit := must(w.members[1].Commit(member.CommitOptions{}))
		for what, b := range map[string][]byte{"a commit": commit.Message, "an external commit": joined.Message} {
			if staged := w.flagged(what, b); !slices.Equal(staged.Removed, []mlscore.LeafIndex{3}) {
				t.Errorf("0x%04x: %s removes %v", uint16(point), what, staged.Removed)
			}
		}
	}
	none := mlscore.DefaultRegistry()
	none.SelfRemove, none.Replace, none.AppDataUpdate, none.AppEphemeral, none.LeafNodeEpoch = 0, 0, 0, 0, 0
	if err := none.Validate(); err != nil {
		t.Error(err)
	}
	p := mlscore.ReadProposal(codec.NewReader([]byte{0, 0, 0}), none)
	if p.IsSelfRemove() || p.IsReplace() {
		t.Error("proposal type 0 means something where nothing is in use")
	}
}

// A client that resyncs although its old leaf is leaving lets the SelfRemove
// take that out: a Remove beside it would be invalid.
func testResyncBesideSelfRemove(t *testing.T) {
	w := newWorld(t, 5)
	message := must(w.members[3].Propose(mlscore.NewSelfRemove(w.group.Registry())))
	w.receive("a SelfRemove", message)
	_, commit, err := w.members[3].Client().JoinExternal(must(w.members[0].GroupInfo()), member.ExternalJoinOptions{Resync: true, Pending: [][]byte{message}})
	if err != nil {
		t.Fatal(err)
	}
	if staged := w.flagged("a resync", commit.Message); !slices.Equal(staged.Removed, []mlscore.LeafIndex{3}) || !slices.Equal(staged.Added, []mlscore.LeafIndex{3}) {
		t.Errorf("removed %v, added %v", staged.Removed, staged.Added)
	}
	must(w.members[1].Process(message))
	must(w.members[1].Process(commit.Message))
}
