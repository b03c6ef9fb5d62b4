package mlscore_test

import (
	"bytes"
	"errors"
	"slices"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/member"
)

// hide brings encrypted mutants of a commit to everybody, and encrypted
// proposals beside it. The members, who can decrypt them, have to say what an
// observer says who is told the content; the observer itself can only compare
// the epoch. Proposals stay with the members until the commit ends the epoch.
//
// The first member encrypts all of them, whoever the sender is: so no key is
// used twice. It cannot read them any more, and has no part in the judgement.
func (x *adversary) hide(commit []byte) {
	x.t.Helper()
	if x.decode(commit).Content.Commit == nil {
		return
	}
	for range 3 {
		kind, a := "splice", x.adopt(x.decode(x.elsewhere()))
		if x.rng.IntN(4) > 0 {
			a = x.decode(commit)
			if x.rng.IntN(2) == 0 {
				a.Content.Commit, a.Content.ContentType, a.ConfirmationTag = nil, mlscore.ContentTypeProposal, nil
				a.Content.Sender = mlscore.Sender{Type: mlscore.SenderTypeMember, LeafIndex: x.occupied()}
				a.Content.Proposal = x.anyProposal()
			}
			kind = x.mutate(a)
		}
		a.WireFormat = mlscore.WireFormatPrivateMessage
		x.sign(a)
		if message, err := x.protect(a); err == nil {
			x.judgeHidden("encrypted: "+kind, message, a)
		}
	}
	x.hideCommit()
}

// hideCommit lets the first member make an encrypted commit that is wrong in one
// place, or in none.
func (x *adversary) hideCommit() {
	x.t.Helper()
	m := pick(x.rng, spoilers)
	hooks := m.hooks(x)
	defer func() { x.astray = false }()
	var content *mlscore.AuthenticatedContent
	spoil := hooks.Auth
	hooks.Auth = func(a *mlscore.AuthenticatedContent) {
		if spoil != nil {
			spoil(a)
		}
		sent := *a
		content = &sent
	}
	client := x.members[0].Client()
	client.EncryptHandshakes = true
	message := x.spoiledCommit(x.members[0], m.kind, hooks)
	client.EncryptHandshakes, x.astray = false, false
	if message != nil {
		x.judgeHidden("encrypted commit, "+m.kind, message, content)
	}
}

// judgeHidden brings a PrivateMessage to everybody, and then a copy of it with
// other bytes, which nobody can read.
func (x *adversary) judgeHidden(kind string, message []byte, a *mlscore.AuthenticatedContent) {
	x.t.Helper()
	if a.Content.Sender.Type != mlscore.SenderTypeMember || a.Content.ContentType == mlscore.ContentTypeApplication {
		return // a PrivateMessage names no other sender, and is then read as another content
	}
	x.scribbled(message)
	var v verdict
	if v.observer = x.blind(kind, message); errors.Is(v.observer, mlscore.ErrUnresolvable) {
		v.staged, v.observer = x.told(a)
	}
	x.askMembers(&v, message, &a.Content, x.members[0])
	x.settle(kind, &v)
}

// told is what an observer says who is told a content as those read it who
// decrypt it (RFC 9420, Section 6.3.1): what follows it is padding.
func (x *adversary) told(a *mlscore.AuthenticatedContent) (*mlscore.Staged, error) {
	r := codec.NewReader(a.AppendAuth(a.Content.Bytes()))
	told := &mlscore.AuthenticatedContent{WireFormat: mlscore.WireFormatPrivateMessage, Content: mlscore.ReadFramedContent(r, x.registry)}
	told.Signature = r.Opaque()
	if told.Content.ContentType == mlscore.ContentTypeCommit {
		told.ConfirmationTag = r.Opaque()
	}
	if len(bytes.Trim(r.Rest(), "\x00")) > 0 {
		r.Fail("padding that is not zero")
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return x.observer.StageContent(told, func(sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
		return x.associated(x.observer, sender)
	})
}

// blind is what an observer says of a PrivateMessage, which tells it the group
// and the epoch and no more. It stays as it was.
func (x *adversary) blind(kind string, message []byte) error {
	x.t.Helper()
	m, err := mlscore.ParseMLSMessage(message, x.registry)
	if err != nil || m.PrivateMessage == nil {
		x.t.Fatalf("%s: not a PrivateMessage: %v", kind, err)
	}
	want := "unresolvable"
	switch p := m.PrivateMessage; {
	case !bytes.Equal(p.GroupID, x.observer.GroupID()):
		want = "invalid"
	case p.Epoch < x.observer.Epoch():
		want = "stale"
	case p.Epoch > x.observer.Epoch():
		want = "ahead"
	}
	before := state(x.observer)
	if _, err = x.stage(x.observer, m); mlscore.Reason(err) != want {
		x.t.Errorf("%s: %v, want %s", kind, err, want)
	}
	if !bytes.Equal(before, state(x.observer)) {
		x.t.Errorf("%s: a refusal changed the observer", kind)
	}
	return err
}

// state is all that a message may change in an observer.
func state(g *mlscore.PublicGroup) []byte {
	b := slices.Concat(g.ContextBytes(), g.InterimTranscriptHash(), g.Tree().Bytes())
	for p := range g.Proposals() {
		b = append(b, p.Ref...)
	}
	return b
}

// scribbled changes the bytes of a PrivateMessage. No member takes it.
func (x *adversary) scribbled(message []byte) {
	x.t.Helper()
	const kind = "encrypted: bytes"
	mutant := x.scribble(bytes.Clone(message))
	if bytes.Equal(mutant, message) {
		return
	}
	m, err := mlscore.ParseMLSMessage(mutant, x.registry)
	if err == nil && m.PrivateMessage != nil {
		err = x.blind(kind, mutant)
	} else if err == nil {
		_, err = x.stage(x.observer, m) // it has become another kind of message
	}
	for _, g := range x.members[1:] {
		sacrificed := *g
		_, refusal := sacrificed.Process(bytes.Clone(mutant))
		switch ours, theirs := mlscore.Reason(err), mlscore.Reason(refusal); {
		case refusal == nil:
			x.t.Errorf("%s: leaf %d takes %x", kind, g.OwnLeaf(), mutant)
		case ours == "unresolvable" && theirs != "invalid":
			x.t.Errorf("%s: leaf %d: %v", kind, g.OwnLeaf(), refusal)
		case ours != "unresolvable":
			x.sameClass(kind, err, refusal)
		}
	}
	x.tally.mutants++
	x.tally.refused++
	n := x.tally.kinds[kind]
	x.tally.kinds[kind] = [2]int{n[0] + 1, n[1]}
}

// goDark has a member send an encrypted commit in the end. The observer cannot
// follow, and everything after that is ahead of it.
func (x *adversary) goDark() {
	x.t.Helper()
	if len(x.members) < 2 || x.observer.Closed() {
		return
	}
	g := x.members[0]
	g.Client().EncryptHandshakes = true
	commit, err := g.Commit(member.CommitOptions{References: [][]byte{}})
	g.Client().EncryptHandshakes = false
	if err != nil {
		return // a mutant gave a leaf an encryption_key to which nobody can encrypt
	}
	x.blind("encrypted", commit.Message)
	for _, g := range x.members {
		if _, err := g.Process(commit.Message); err != nil {
			x.t.Errorf("leaf %d refuses an encrypted commit: %v", g.OwnLeaf(), err)
		}
	}
	next := must(g.Commit(member.CommitOptions{References: [][]byte{}})).Message
	m := must(mlscore.ParseMLSMessage(next, x.registry))
	if _, err := x.stage(x.observer, m); mlscore.Reason(err) != "ahead" {
		x.t.Errorf("after an encrypted commit: %v", err)
	}
}
