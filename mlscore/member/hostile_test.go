package member

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// snapshot is everything that a refused message must not change.
type snapshot struct {
	epoch   epoch
	private privateTree
	secrets epochSecrets
	pending *pendingCommit
	removed bool
	updates int
	psks    int
	client  *Client
}

func snap(g *Group) snapshot {
	return snapshot{
		epoch: *g.epoch, private: *g.epoch.private, secrets: *g.epoch.secrets,
		pending: g.pending, removed: g.removed, updates: len(g.updates), psks: len(g.resumption), client: g.client,
	}
}

// refuses checks that members refuse a message and stay as they are.
func (w *world) refuses(what string, message []byte, from *Group) {
	w.t.Helper()
	for _, m := range w.members {
		if m == from {
			continue
		}
		before := snap(m)
		received, err := m.Process(message)
		if err == nil {
			w.t.Fatalf("%s: leaf %d accepts it: %+v", what, m.OwnLeaf(), received)
		}
		if !errors.Is(err, mlscore.ErrInvalid) && !errors.Is(err, mlscore.ErrMalformed) {
			w.t.Errorf("%s: leaf %d: %v", what, m.OwnLeaf(), err)
		}
		if !reflect.DeepEqual(before, snap(m)) {
			w.t.Errorf("%s: leaf %d changed", what, m.OwnLeaf())
		}
	}
}

// TestSpoiledCommitsAreRefused signs commits that are wrong in one place, and
// checks that the group goes on as if they had not been.
func TestSpoiledCommitsAreRefused(t *testing.T) {
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}
	spoilers := map[string]*Mutate{
		"path secret": {Path: func(p *mlscore.UpdatePath) {
			for i := range p.Nodes {
				for j := range p.Nodes[i].EncryptedPathSecret {
					c := &p.Nodes[i].EncryptedPathSecret[j]
					c.Ciphertext = flip(c.Ciphertext)
				}
			}
		}},
		"kem output": {Path: func(p *mlscore.UpdatePath) {
			for i := range p.Nodes {
				for j := range p.Nodes[i].EncryptedPathSecret {
					p.Nodes[i].EncryptedPathSecret[j].KEMOutput = nil
				}
			}
		}},
		"no path secrets": {Path: func(p *mlscore.UpdatePath) {
			for i := range p.Nodes {
				p.Nodes[i].EncryptedPathSecret = nil
			}
		}},
		"path key":       {Path: func(p *mlscore.UpdatePath) { p.Nodes[0].EncryptionKey = flip(p.Nodes[0].EncryptionKey) }},
		"path too short": {Path: func(p *mlscore.UpdatePath) { p.Nodes = p.Nodes[1:] }},
		"path too long":  {Path: func(p *mlscore.UpdatePath) { p.Nodes = append(p.Nodes, p.Nodes[0]) }},
		"parent hash":    {LeafNode: func(n *mlscore.LeafNode) { n.ParentHash = flip(n.ParentHash) }},
		"tree hash":      {GroupContext: func(gc *mlscore.GroupContext) { gc.TreeHash = flip(gc.TreeHash) }},
		"epoch":          {GroupContext: func(gc *mlscore.GroupContext) { gc.Epoch++ }},
		"transcript": {GroupContext: func(gc *mlscore.GroupContext) {
			gc.ConfirmedTranscriptHash = flip(gc.ConfirmedTranscriptHash)
		}},
		"signature":        {Auth: func(a *mlscore.AuthenticatedContent) { a.Signature = flip(a.Signature) }},
		"confirmation tag": {Auth: func(a *mlscore.AuthenticatedContent) { a.ConfirmationTag = flip(a.ConfirmationTag) }},
		"sender":           {Content: func(c *mlscore.FramedContent) { c.Sender.LeafIndex = 2 }},
		"blank sender":     {Content: func(c *mlscore.FramedContent) { c.Sender.LeafIndex = 1000 }},
		"no path":          {Content: func(c *mlscore.FramedContent) { c.Commit.Path = nil }},
		"unknown proposal": {Content: func(c *mlscore.FramedContent) {
			c.Commit.Proposals = []mlscore.ProposalOrRef{{Proposal: Remove(99)}}
		}},
	}
	for _, id := range []mlscore.CipherSuite{1, 2, 4} {
		for name, mutate := range spoilers {
			t.Run(fmt.Sprintf("suite%d/%s", id, name), func(t *testing.T) {
				w := newWorld(t, id)
				w.shared = nil
				w.create(4, nil)
				by := w.members[1]
				before := snap(by)
				by.client.Mutate = mutate
				commit, err := by.Commit(CommitOptions{})
				by.client.Mutate = nil
				if err != nil {
					t.Fatal(err)
				}
				by.DropCommit()
				if !reflect.DeepEqual(before, snap(by)) {
					t.Error("the committer changed")
				}
				w.refuses(name, commit.Message, by)
				w.commit(by, CommitOptions{})
				w.agree()
			})
		}
	}
}

// TestTruncatedTagsAreRefused sends a commit and a Welcome whose tags are cut
// to every length below Nh, each properly signed and tagged otherwise.
func TestTruncatedTagsAreRefused(t *testing.T) {
	for _, id := range mlscore.Suites() {
		t.Run(fmt.Sprintf("suite%d", id), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, id)
			w.shared = nil
			w.create(2, nil)
			by, other := w.members[0], w.members[1]
			for n := range w.suite.HashLen() {
				k := w.keyPackage()
				by.client.Mutate = &Mutate{
					Auth:      func(a *mlscore.AuthenticatedContent) { a.ConfirmationTag = a.ConfirmationTag[:n] },
					GroupInfo: func(gi *mlscore.GroupInfo) { gi.ConfirmationTag = gi.ConfirmationTag[:n] },
				}
				cut := must[*Commit](t)(by.Commit(CommitOptions{}))
				by.client.Mutate.Auth = nil
				commit := must[*Commit](t)(by.Commit(CommitOptions{Proposals: []*mlscore.Proposal{Add(k.KeyPackage)}}))
				by.client.Mutate = nil
				by.DropCommit()
				w.refuses(fmt.Sprintf("a confirmation tag of %d bytes", n), cut.Message, by)
				if _, err := k.Join(commit.Welcome, nil); err == nil {
					t.Errorf("joins with a confirmation tag of %d bytes", n)
				}
			}
			good := must[*Commit](t)(by.Commit(CommitOptions{}))
			m := must[*mlscore.MLSMessage](t)(mlscore.ParseMLSMessage(good.Message, nil))
			whole := m.PublicMessage.MembershipTag
			for n := range len(whole) {
				m.PublicMessage.MembershipTag = whole[:n]
				w.refuses(fmt.Sprintf("a membership tag of %d bytes", n), m.Bytes(), by)
			}
			m.PublicMessage.MembershipTag = bytes.Clone(whole)
			m.PublicMessage.MembershipTag[0] ^= 1
			w.refuses("a wrong membership tag", m.Bytes(), by)
			if other.Epoch() != 1 {
				t.Errorf("epoch %d", other.Epoch())
			}
			w.deliver(good.Message)
			w.agree()
		})
	}
}

// TestWrongWelcomesAreRefused spoils what a Welcome tells.
func TestWrongWelcomesAreRefused(t *testing.T) {
	w := newWorld(t, 1)
	w.shared = nil
	w.create(2, nil)
	by := w.members[0]
	for name, mutate := range map[string]*Mutate{
		"tree hash":  {GroupInfo: func(gi *mlscore.GroupInfo) { gi.GroupContext.TreeHash = make([]byte, 32) }},
		"transcript": {GroupInfo: func(gi *mlscore.GroupInfo) { gi.GroupContext.ConfirmedTranscriptHash = make([]byte, 32) }},
		"epoch":      {GroupInfo: func(gi *mlscore.GroupInfo) { gi.GroupContext.Epoch++ }},
		"signer":     {GroupInfo: func(gi *mlscore.GroupInfo) { gi.Signer = 1 }},
		"no signer":  {GroupInfo: func(gi *mlscore.GroupInfo) { gi.Signer = 1 << 30 }},
		"no tree":    {GroupInfo: func(gi *mlscore.GroupInfo) { gi.Extensions = gi.Extensions[1:] }},
		"suite":      {GroupInfo: func(gi *mlscore.GroupInfo) { gi.GroupContext.CipherSuite = 3 }},
	} {
		k := w.keyPackage()
		by.client.Mutate = mutate
		commit := must[*Commit](t)(by.Commit(CommitOptions{Proposals: []*mlscore.Proposal{Add(k.KeyPackage)}}))
		by.client.Mutate = nil
		if _, err := k.Join(commit.Welcome, nil); mlscore.Reason(err) == "error" || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	k, other := w.keyPackage(), w.keyPackage()
	commit := must[*Commit](t)(by.Commit(CommitOptions{Proposals: []*mlscore.Proposal{Add(k.KeyPackage)}}))
	if _, err := other.Join(commit.Welcome, nil); !errors.Is(err, ErrNotForUs) {
		t.Errorf("a Welcome for another: %v", err)
	}
	for n := range commit.Welcome {
		if _, err := k.Join(commit.Welcome[:n], nil); err == nil {
			t.Fatalf("joins by the first %d bytes of a Welcome", n)
		}
	}
	must[*Group](t)(k.Join(commit.Welcome, nil))
}

// TestForgedPathSecretInWelcome gives a joiner a path secret that is not the
// one of the tree.
func TestForgedPathSecretInWelcome(t *testing.T) {
	w := newWorld(t, 1)
	w.create(3, nil)
	k := w.keyPackage()
	commit := must[*Commit](t)(w.members[0].Commit(CommitOptions{Proposals: []*mlscore.Proposal{Add(k.KeyPackage)}}))
	m := must[*mlscore.MLSMessage](t)(mlscore.ParseMLSMessage(commit.Welcome, nil))
	secrets := must[*groupSecrets](t)(k.openWelcome(m.Welcome))
	for _, path := range [][]byte{{}, make([]byte, 31), make([]byte, 32), append(secrets.path, 0)} {
		forged := *secrets
		forged.path = path
		part := &m.Welcome.Secrets[0]
		part.Secrets = must[mlscore.HPKECiphertext](t)(w.suite.encryptWithLabel(seeded(3), k.InitKey, "Welcome", m.Welcome.EncryptedGroupInfo, forged.bytes()))
		if _, err := k.Join(m.Bytes(), nil); !errors.Is(err, mlscore.ErrInvalid) {
			t.Errorf("a path secret of %d bytes: %v", len(path), err)
		}
	}
}

func TestGroupSecretsRoundTrip(t *testing.T) {
	for _, g := range []groupSecrets{
		{joiner: []byte("joiner")},
		{joiner: []byte("joiner"), path: []byte("path"), psks: []mlscore.PreSharedKeyID{
			{Type: mlscore.PSKTypeExternal, ID: []byte("id"), Nonce: []byte("nonce")},
			{Type: mlscore.PSKTypeResumption, Usage: mlscore.ResumptionPSKUsageBranch, GroupID: []byte("g"), Epoch: 7, Nonce: []byte("n")},
		}},
	} {
		b := g.bytes()
		got := must[*groupSecrets](t)(parseGroupSecrets(b))
		if !reflect.DeepEqual(*got, g) {
			t.Errorf("got %+v, want %+v", *got, g)
		}
		for n := range b {
			if _, err := parseGroupSecrets(b[:n]); err == nil {
				t.Errorf("parses from its first %d bytes", n)
			}
		}
	}
}

// TestSelectableLeavesClashesOut fills an epoch with proposals that cannot all
// go together, and commits the selection.
func TestSelectableLeavesClashesOut(t *testing.T) {
	w := newWorld(t, 1)
	w.shared = nil
	w.create(8, nil)
	m := w.members
	reg := mlscore.DefaultRegistry()
	k := w.keyPackage()
	propose := func(by int, p *mlscore.Proposal) {
		w.send(must[[]byte](t)(m[by].Propose(p)), m[by])
	}
	update := func(by int) { w.send(must[[]byte](t)(m[by].ProposeUpdate(nil)), m[by]) }
	propose(1, Remove(2))
	propose(3, Remove(2))
	update(2)
	update(4)
	update(4)
	update(0)
	propose(5, Remove(0))
	propose(1, Remove(6))
	propose(6, mlscore.NewSelfRemove(reg))
	propose(1, Add(k.KeyPackage))
	propose(2, Add(k.KeyPackage))
	propose(1, Add(must[*KeyPackage](t)(m[3].client.NewKeyPackage(forever)).KeyPackage)) // a member already
	propose(1, GroupContextExtensions(nil))
	propose(2, GroupContextExtensions(nil))
	propose(7, ReInit(mlscore.ReInit{GroupID: []byte("x"), Version: 1, CipherSuite: 1}))
	commit := w.commit(m[0], CommitOptions{})
	if !slices.Equal(commit.Staged.Removed, []mlscore.LeafIndex{2, 6}) || !slices.Equal(commit.Staged.Updated, []mlscore.LeafIndex{0, 4}) {
		t.Errorf("removed %v, updated %v", commit.Staged.Removed, commit.Staged.Updated)
	}
	if n := len(commit.Staged.Applied); n != 5 {
		t.Errorf("%d proposals are applied, want 5", n)
	}
	w.members = append(w.members, must[*Group](t)(k.Join(commit.Welcome, nil)))
	w.agree()
}

// TestRemovalsGoOnDespiteAnAddThatDoesNotFit lets a newcomer propose itself
// with a leaf that the group cannot take.
func TestRemovalsGoOnDespiteAnAddThatDoesNotFit(t *testing.T) {
	w := newWorld(t, 1)
	w.create(3, nil)
	c := w.client()
	c.Mutate = &Mutate{LeafNode: func(n *mlscore.LeafNode) { n.Capabilities.Credentials = n.Capabilities.Credentials[1:] }}
	k := must[*KeyPackage](t)(c.NewKeyPackage(forever))
	w.send(must[[]byte](t)(mlscore.NewMemberAdd(w.members[0].Public(), c.Signer, k.KeyPackage)), nil)
	w.send(must[[]byte](t)(w.members[1].ProposeRemove(2)), w.members[1])
	commit := w.commit(w.members[0], CommitOptions{})
	if !slices.Equal(commit.Staged.Removed, []mlscore.LeafIndex{2}) || len(commit.Staged.Added) > 0 {
		t.Errorf("removed %v, added %v", commit.Staged.Removed, commit.Staged.Added)
	}
	w.agree()
}

// TestSeededClientsRepeatThemselves plays the same group twice.
func TestSeededClientsRepeatThemselves(t *testing.T) {
	play := func() (messages [][]byte) {
		w := newWorld(t, 4)
		w.create(3, nil)
		commit := w.commit(w.members[1], CommitOptions{})
		return [][]byte{commit.Message, w.info(w.members[2]), w.members[0].EpochAuthenticator()}
	}
	first, second := play(), play()
	for i := range first {
		equal(t, fmt.Sprintf("message %d", i), second[i], first[i])
	}
}

// TestSharedIsSafeForConcurrentUse lets members process in parallel.
func TestSharedIsSafeForConcurrentUse(t *testing.T) {
	w := newWorld(t, 1)
	w.create(16, nil)
	for range 3 {
		commit := must[*Commit](t)(w.members[5].Commit(CommitOptions{}))
		var wg sync.WaitGroup
		for _, m := range w.members {
			wg.Go(func() {
				if _, err := m.Process(commit.Message); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, m := range w.members {
			if m.Public() != w.members[0].Public() {
				t.Error("members of one epoch do not share its public state")
			}
		}
	}
	w.agree()
}

// TestSharedGivesTheSameAsNone follows one log with and without.
func TestSharedGivesTheSameAsNone(t *testing.T) {
	w := newWorld(t, 1)
	w.create(4, nil)
	k := w.keyPackage()
	k.client.Shared = nil
	commit := w.commit(w.members[0], CommitOptions{Proposals: []*mlscore.Proposal{Add(k.KeyPackage)}})
	w.members = append(w.members, must[*Group](t)(k.Join(commit.Welcome, nil)))
	for range 3 {
		w.send(must[[]byte](t)(w.members[1].ProposeUpdate(nil)), w.members[1])
		w.commit(w.members[2], CommitOptions{})
		w.agree()
	}
	w.commit(w.members[4], CommitOptions{})
	w.agree()
}

// TestSharedJudgesByState brings members the same messages in another order.
func TestSharedJudgesByState(t *testing.T) {
	w := newWorld(t, 1)
	w.create(3, nil)
	a, b, c := w.members[0], w.members[1], w.members[2]
	update := must[[]byte](t)(a.ProposeUpdate(nil))
	must[*Received](t)(b.Process(update))
	commit := must[*Commit](t)(b.Commit(CommitOptions{}))
	if _, err := c.Process(commit.Message); !errors.Is(err, mlscore.ErrUnresolvable) {
		t.Errorf("a commit of a proposal that did not arrive: %v", err)
	}
	must[*Received](t)(c.Process(update))
	w.deliver(commit.Message)
	w.agree()
}

// TestPrivateMessagesAreReadOnce repeats a proposal, a commit and application
// data.
func TestPrivateMessagesAreReadOnce(t *testing.T) {
	w := newWorld(t, 1)
	w.encrypt = true
	w.create(2, nil)
	a, b := w.members[0], w.members[1]
	for name, message := range map[string][]byte{
		"proposal":         must[[]byte](t)(a.ProposeUpdate(nil)),
		"application data": must[[]byte](t)(a.Encrypt([]byte("hello"), nil)),
	} {
		must[*Received](t)(b.Process(message))
		if _, err := b.Process(message); !errors.Is(err, mlscore.ErrInvalid) {
			t.Errorf("%s a second time: %v", name, err)
		}
	}
}

func TestSuccessorPSKsOfAWelcome(t *testing.T) {
	id := func(usage mlscore.ResumptionPSKUsage) mlscore.PreSharedKeyID {
		return mlscore.PreSharedKeyID{Type: mlscore.PSKTypeResumption, Usage: usage}
	}
	reInit, branch, application := id(mlscore.ResumptionPSKUsageReInit), id(mlscore.ResumptionPSKUsageBranch), id(mlscore.ResumptionPSKUsageApplication)
	for _, c := range []struct {
		ids   []mlscore.PreSharedKeyID
		epoch uint64
		ok    bool
	}{
		{nil, 7, true},
		{[]mlscore.PreSharedKeyID{application, application}, 7, true},
		{[]mlscore.PreSharedKeyID{reInit, application}, 1, true},
		{[]mlscore.PreSharedKeyID{branch}, 1, true},
		{[]mlscore.PreSharedKeyID{branch}, 2, false},
		{[]mlscore.PreSharedKeyID{reInit}, 7, false},
		{[]mlscore.PreSharedKeyID{reInit, branch}, 1, false},
	} {
		if err := checkWelcomePSKs(c.ids, &mlscore.GroupContext{Epoch: c.epoch}); (err == nil) != c.ok {
			t.Errorf("%v in epoch %d: %v", c.ids, c.epoch, err)
		}
	}
}

// TestLeafOutsideTheSecretTree names a sender that the tree does not have.
func TestLeafOutsideTheSecretTree(t *testing.T) {
	s := mustSuite(t, 1)
	tree := newSecretTree(s, s.zero(), 4)
	m := &mlscore.PrivateMessage{GroupID: []byte("g"), ContentType: mlscore.ContentTypeApplication, Ciphertext: make([]byte, 64)}
	for _, data := range [][]byte{
		(&senderData{leaf: 4}).bytes(), (&senderData{leaf: 1<<32 - 1}).bytes(), (&senderData{generation: 1<<32 - 1}).bytes(),
		codec.AppendUint32(nil, 0), nil,
	} {
		m.EncryptedSenderData = must[[]byte](t)(s.seal(s.senderDataKey(s.zero(), m.Ciphertext), senderDataAAD(m), data))
		if _, _, err := tree.decrypt(s.zero(), m, mlscore.DefaultRegistry()); err == nil {
			t.Errorf("sender data %x is accepted", data)
		}
	}
}
