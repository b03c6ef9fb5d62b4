package mlscore_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
)

func testGroupAndEpoch(t *testing.T) {
	w := newWorld(t, 4)
	for _, c := range []struct {
		what    string
		change  func(*mlscore.FramedContent)
		class   error
		section string
	}{
		{"another group", func(c *mlscore.FramedContent) { c.GroupID = []byte("other") }, mlscore.ErrInvalid, "6"},
		{"a past epoch", func(c *mlscore.FramedContent) { c.Epoch-- }, mlscore.ErrStale, "6"},
		{"a later epoch", func(c *mlscore.FramedContent) { c.Epoch++ }, mlscore.ErrAhead, "6"},
	} {
		w.refuses(c.what, w.forge(forge{by: 1, content: c.change}), c.class, c.section)
		content := mlscore.FramedContent{
			GroupID: w.group.GroupID(), Epoch: w.group.Epoch(), Sender: external,
			ContentType: mlscore.ContentTypeProposal, Proposal: member.Remove(2),
		}
		w.accepts("as it is", w.seal(content, w.broker, nil))
		c.change(&content) // an external sender signs no GroupContext
		w.refuses(c.what+", external sender", w.seal(content, w.broker, nil), c.class, c.section)
	}
}

// A proposal of the epoch before is stale, and no commit can refer to it.
func testPastProposals(t *testing.T) {
	w := newWorld(t, 4)
	removal := w.proposal(external, member.Remove(2))
	ref := w.pend(external, member.Remove(2))
	if again := w.accepts("again", removal); again.Next().Proposal(ref.Reference) != again.Proposal || len(slices.Collect(again.Next().Proposals())) != 1 {
		t.Error("the same message counts twice")
	}
	w.group = w.accepts("a commit without it", w.forge(forge{by: 1})).Next()
	w.refuses("the proposal", removal, mlscore.ErrStale, "6")
	w.refuses("a commit that refers to it", w.forge(forge{by: 1, proposals: []mlscore.ProposalOrRef{ref}}), mlscore.ErrUnresolvable, "12.4.2")
}

func testProposalsOfAnEpoch(t *testing.T) {
	w := newWorld(t, 4)
	w.pend(external, member.Remove(2))
	full := mlscore.FullOfProposals(w.group)
	for what, c := range map[string]struct {
		message []byte
		refused bool
	}{
		"one that is there": {w.proposal(external, member.Remove(2)), false}, "one more": {w.proposal(external, member.Remove(3)), true},
		"a commit": {w.forge(forge{by: 1}), false},
	} {
		m := must(mlscore.ParseMLSMessage(c.message, nil))
		if _, err := full.Stage(m); errors.Is(err, mlscore.ErrInvalid) != c.refused || err != nil && !c.refused {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func testContentTypes(t *testing.T) {
	w := newWorld(t, 4)
	w.prove()
	application := mlscore.FramedContent{
		GroupID: w.group.GroupID(), Epoch: w.group.Epoch(), Sender: w.by(1),
		ContentType: mlscore.ContentTypeApplication, ApplicationData: []byte("hello"),
	}
	w.refuses("application data", w.seal(application, w.signer(1), nil), mlscore.ErrInvalid, "6.2")
	m := w.proposal(w.by(1), psk("x"))
	at := len(must(mlscore.ParseMLSMessage(m, nil)).PublicMessage.Content.Bytes()) + 4
	content := bytes.Clone(m[4:at])
	kind := 1 + 5 + 8 + 5 + 1 // group_id, epoch, sender, authenticated_data
	for _, v := range []byte{0, 4} {
		content[kind] = v
		w.refuses("an unknown content_type", w.signBytes(content, w.signer(1)), mlscore.ErrMalformed, "")
	}
	for _, c := range []mlscore.ContentType{mlscore.ContentTypeProposal, mlscore.ContentTypeCommit} {
		private := func(group string, epoch uint64) []byte {
			return (&mlscore.MLSMessage{WireFormat: mlscore.WireFormatPrivateMessage, PrivateMessage: &mlscore.PrivateMessage{
				GroupID: []byte(group), Epoch: epoch, ContentType: c,
			}}).Bytes()
		}
		w.refuses("a PrivateMessage", private("group", w.group.Epoch()), mlscore.ErrUnresolvable, "6.3")
		w.refuses("a past PrivateMessage", private("group", w.group.Epoch()-1), mlscore.ErrStale, "6")
		w.refuses("a later PrivateMessage", private("group", w.group.Epoch()+1), mlscore.ErrAhead, "6")
		w.refuses("a PrivateMessage of another group", private("other", w.group.Epoch()), mlscore.ErrInvalid, "6.3")
	}
}

func testSenders(t *testing.T) {
	w := newWorld(t, 5)
	for _, leaf := range []mlscore.LeafIndex{5, 8, 1 << 24, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
		sender := w.by(leaf)
		w.refuses("a proposal of a leaf that is not there", w.sealAs(sender, mlscore.FramedContent{
			ContentType: mlscore.ContentTypeProposal, Proposal: psk("x"),
		}, w.signer(1)), mlscore.ErrInvalid, "6.1")
		w.refuses("a commit of a leaf that is not there", w.forge(forge{by: 1, content: func(c *mlscore.FramedContent) { c.Sender = sender }}), mlscore.ErrInvalid, "6.1")
	}
	for _, index := range []uint32{1, 2, 1<<32 - 1} {
		w.refuses("an external sender that is not listed", w.proposal(mlscore.Sender{Type: mlscore.SenderTypeExternal, SenderIndex: index}, member.Remove(1)), mlscore.ErrInvalid, "12.1.8.1")
	}
	w.refuses("a commit of an external sender", w.forge(forge{by: 1, signer: w.broker, content: func(c *mlscore.FramedContent) { c.Sender = external }}), mlscore.ErrInvalid, "6")

	add := w.add(nil)
	joiner := w.client()
	k := must(joiner.NewKeyPackage(forever))
	own := &mlscore.Proposal{Type: mlscore.ProposalTypeAdd, KeyPackage: k.KeyPackage}
	as := func(p *mlscore.Proposal, signer mlscore.Signer) []byte {
		return w.sealAs(newMember, mlscore.FramedContent{ContentType: mlscore.ContentTypeProposal, Proposal: p}, signer)
	}
	w.flagged("a new member's own Add", as(own, joiner.Signer))
	w.refuses("another's Add", as(add, joiner.Signer), mlscore.ErrInvalid, "5.1.2")
	w.refuses("a new member's Remove", as(member.Remove(1), joiner.Signer), mlscore.ErrMalformed, "6")
	w.refuses("a commit of new_member_proposal", w.forge(forge{by: 1, signer: joiner.Signer, content: func(c *mlscore.FramedContent) { c.Sender = newMember }}), mlscore.ErrMalformed, "6")
	w.refuses("a proposal of new_member_commit", w.sealAs(mlscore.Sender{Type: mlscore.SenderTypeNewMemberCommit}, mlscore.FramedContent{
		ContentType: mlscore.ContentTypeProposal, Proposal: own,
	}, joiner.Signer), mlscore.ErrMalformed, "6")
	content := w.content()
	at := 1 + 5 + 8 // after group_id and epoch
	for _, v := range []byte{0, 5} {
		content[at] = v
		w.refuses("an unknown sender_type", w.signBytes(content, w.signer(1)), mlscore.ErrMalformed, "")
	}
}

// sealAs completes a content for the current epoch, and signs it.
func (w *world) sealAs(sender mlscore.Sender, c mlscore.FramedContent, signer mlscore.Signer) []byte {
	w.t.Helper()
	c.GroupID, c.Epoch, c.Sender = w.group.GroupID(), w.group.Epoch(), sender
	return w.seal(c, signer, nil)
}

// Tags are there when they must be, and as long as a hash; a member's tag
// cannot be checked further.
func testTags(t *testing.T) {
	w := newWorld(t, 4)
	for n := range 40 {
		tag := make([]byte, n)
		for what, message := range map[string]struct {
			encoded []byte
			section string
		}{
			"membership_tag of a commit":   {w.forge(forge{by: 1, message: func(m *mlscore.PublicMessage) { m.MembershipTag = tag }}), "6.2"},
			"confirmation_tag":             {w.forge(forge{by: 1, message: func(m *mlscore.PublicMessage) { m.ConfirmationTag = tag }}), "6.1"},
			"membership_tag of a proposal": {w.tagged(w.proposal(w.by(1), psk("x")), tag), "6.2"},
			"confirmation_tag of a joiner": {w.forge(forge{
				joiner: w.client(), proposals: byValue(w.externalInit()),
				message: func(m *mlscore.PublicMessage) { m.ConfirmationTag = tag },
			}), "6.1"},
		} {
			if n == 32 {
				w.flagged(what, message.encoded)
			} else {
				w.refuses(what, message.encoded, mlscore.ErrMalformed, message.section)
			}
		}
	}
	tag := codec.AppendOpaque(nil, make([]byte, 32))
	commit, removal := w.forge(forge{by: 1}), w.proposal(external, member.Remove(2))
	w.refuses("a member's commit without membership_tag", bytes.TrimSuffix(commit, tag), mlscore.ErrMalformed, "")
	w.refuses("neither tag", bytes.TrimSuffix(bytes.TrimSuffix(commit, tag), tag), mlscore.ErrMalformed, "")
	w.refuses("a member's proposal with a confirmation_tag", append(w.proposal(w.by(1), psk("x")), tag...), mlscore.ErrMalformed, "")
	w.refuses("an external proposal with membership_tag", append(bytes.Clone(removal), tag...), mlscore.ErrMalformed, "")
	w.refuses("an external commit with membership_tag", append(w.forge(forge{joiner: w.client(), proposals: byValue(w.externalInit())}), tag...), mlscore.ErrMalformed, "")
}

// tagged gives a message another membership tag.
func (w *world) tagged(message, tag []byte) []byte {
	m := must(mlscore.ParseMLSMessage(message, nil))
	m.PublicMessage.MembershipTag = tag
	return m.Bytes()
}

// Each kind of sender has its own key, and its own idea of what is signed.
func testFramingSignatures(t *testing.T) {
	w := newWorld(t, 4)
	other := w.client()
	w.refuses("another member's key, before a member signed", w.forge(forge{by: 1, message: w.resign(w.signer(2), nil)}), mlscore.ErrDiverged, "6.1")
	w.prove()
	context := w.group.ContextBytes()
	old := bytes.Clone(context)
	old[len(old)-1] ^= 1
	for what, c := range map[string]struct {
		message func(func(*mlscore.PublicMessage)) []byte
		own     mlscore.Signer
		bound   bool // to the GroupContext
	}{
		"member's commit": {func(m func(*mlscore.PublicMessage)) []byte { return w.forge(forge{by: 1, message: m}) }, w.signer(1), true},
		"member's proposal": {func(m func(*mlscore.PublicMessage)) []byte {
			return w.proposalWith(w.by(1), psk("x"), m)
		}, w.signer(1), true},
		"external proposal": {func(m func(*mlscore.PublicMessage)) []byte {
			return w.proposalWith(external, member.Remove(1), m)
		}, w.broker, false},
		"external commit": {func(m func(*mlscore.PublicMessage)) []byte {
			return w.forge(forge{joiner: other, proposals: byValue(w.externalInit()), message: m})
		}, other.Signer, true},
	} {
		w.accepts(what, c.message(w.resign(c.own, context)))
		w.refuses(what+" with another's key", c.message(w.resign(w.signer(3), context)), mlscore.ErrInvalid, "5.1.2")
		w.refuses(what+" with a changed signature", c.message(func(m *mlscore.PublicMessage) { m.Signature[9] ^= 1 }), mlscore.ErrInvalid, "5.1.2")
		if c.bound {
			w.refuses(what+" over another GroupContext", c.message(w.resign(c.own, old)), mlscore.ErrInvalid, "5.1.2")
		} else {
			w.accepts(what+" over no GroupContext", c.message(w.resign(c.own, nil)))
		}
		w.refuses(what+" under another label", c.message(func(m *mlscore.PublicMessage) {
			m.Signature = must(mlscore.SignWithLabel(c.own, "FramedContentTBM", m.TBS(context)))
		}), mlscore.ErrInvalid, "5.1.2")
		w.refuses(what+" signed as a PrivateMessage", c.message(func(m *mlscore.PublicMessage) {
			private := m.AuthenticatedContent
			private.WireFormat = mlscore.WireFormatPrivateMessage
			must(0, private.Sign(c.own, context))
			m.Signature = private.Signature
		}), mlscore.ErrInvalid, "5.1.2")
	}
}

// resign signs a message again, with another key or over another context.
func (w *world) resign(signer mlscore.Signer, context []byte) func(*mlscore.PublicMessage) {
	return func(m *mlscore.PublicMessage) { must(0, m.Sign(signer, context)) }
}

func (w *world) proposalWith(sender mlscore.Sender, p *mlscore.Proposal, change func(*mlscore.PublicMessage)) []byte {
	w.t.Helper()
	return w.seal(mlscore.FramedContent{
		GroupID: w.group.GroupID(), Epoch: w.group.Epoch(), Sender: sender,
		ContentType: mlscore.ContentTypeProposal, Proposal: p,
	}, w.broker, change)
}

// The transcript hashes come from the bytes as they were received.
func testTranscript(t *testing.T) {
	w := newWorld(t, 4)
	message := w.forge(forge{by: 1, content: func(c *mlscore.FramedContent) { c.AuthenticatedData = []byte("data") }})
	m := must(mlscore.ParseMLSMessage(message, nil)).PublicMessage
	next := w.accepts("a commit", message).Next()
	sum := func(parts ...[]byte) []byte { return w.group.Suite().Sum(parts...) }
	content := m.Content.Bytes()
	if !bytes.Equal(message[4:4+len(content)], content) {
		t.Fatal("the content is not at its place")
	}
	confirmed := sum(w.group.InterimTranscriptHash(), message[2:4+len(content)], codec.AppendOpaque(nil, m.Signature))
	interim := sum(confirmed, codec.AppendOpaque(nil, m.ConfirmationTag))
	if !bytes.Equal(next.ConfirmedTranscriptHash(), confirmed) || !bytes.Equal(next.InterimTranscriptHash(), interim) {
		t.Errorf("transcript hashes %x and %x, want %x and %x", next.ConfirmedTranscriptHash(), next.InterimTranscriptHash(), confirmed, interim)
	}
	private := m.AuthenticatedContent
	private.WireFormat = mlscore.WireFormatPrivateMessage
	must(0, private.Sign(w.signer(1), w.group.ContextBytes()))
	staged, err := w.group.StageContent(&private, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := sum(w.group.InterimTranscriptHash(), []byte{0, 2}, content, codec.AppendOpaque(nil, private.Signature))
	if !bytes.Equal(staged.Next().ConfirmedTranscriptHash(), want) {
		t.Error("the wire_format of a PrivateMessage is not in its transcript hash")
	}
}
