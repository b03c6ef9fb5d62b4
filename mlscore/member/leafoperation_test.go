package member

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// leavers is a world whose clients know LeafOperationProposals, with a public
// observer of the group. Leaves 1 and 3 belong to one user.
type leavers struct {
	*world
	points   intents.CodePoints
	registry *mlscore.Registry
	broker   mlscore.Signer
	observer *mlscore.PublicGroup
	users    answers // the Authentication Service's; nil: it knows nobody
}

// newLeavers makes a group of six.
func newLeavers(t testing.TB, body intents.Body, dress func(*Client)) *leavers {
	points := intents.DefaultCodePoints()
	points.Body = body
	l := &leavers{world: newWorld(t, 1), points: points, registry: mlscore.DefaultRegistry(), users: answers{1: {3}, 3: {1}}}
	l.registry.Custom = []mlscore.CustomProposal{points.CustomProposal()}
	l.dress = func(c *Client) {
		c.Registry = l.registry
		c.Associate = func(_ *mlscore.PublicGroup, sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
			return l.users.find(sender)
		}
		if dress != nil {
			dress(c)
		}
	}
	l.broker = must[mlscore.Signer](t)(mlscore.GenerateSigner(l.suite.Signature, seeded(1000)))
	senders := mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{{SignatureKey: l.broker.PublicKey(), Credential: mlscore.BasicCredential([]byte("broker"))}})
	l.create(6, mlscore.Extensions{{Type: mlscore.ExtensionTypeExternalSenders, Data: senders}})
	l.observer = l.observe()
	return l
}

// observe is a new observer of the present epoch.
func (l *leavers) observe() *mlscore.PublicGroup {
	l.t.Helper()
	m := must[*mlscore.MLSMessage](l.t)(mlscore.ParseMLSMessage(must[[]byte](l.t)(l.members[0].GroupInfo()), l.registry))
	return must[*mlscore.PublicGroup](l.t)(mlscore.NewPublicGroup(m.GroupInfo, nil, mlscore.Options{Registry: l.registry}))
}

// judge lets the observer stage a message.
func (l *leavers) judge(message []byte, known mlscore.Associations) (*mlscore.Staged, error) {
	m, err := mlscore.ParseMLSMessage(message, l.registry)
	if err != nil {
		return nil, err
	}
	return l.observer.StageWith(m, known)
}

// follow lets the observer take a message in, and compares its view with the
// members' if that is a commit.
func (l *leavers) follow(message []byte) *mlscore.Staged {
	l.t.Helper()
	staged := must[*mlscore.Staged](l.t)(l.judge(message, l.users.find))
	l.observer = staged.Next()
	if staged.Kind != mlscore.StagedProposal {
		equal(l.t, "the observer's GroupContext", l.observer.ContextBytes(), l.members[0].Public().ContextBytes())
	}
	return staged
}

func (l *leavers) intent(leaf mlscore.LeafIndex, mode intents.RemovalMode) *intents.LeafOperationIntent {
	l.t.Helper()
	for _, m := range l.members {
		if m.OwnLeaf() == leaf {
			return must[*intents.LeafOperationIntent](l.t)(intents.New(m.Client().Signer, m.Public().Suite(), m.GroupID(), leaf, m.Public().Tree().Leaf(leaf), mode))
		}
	}
	l.t.Fatalf("nobody at leaf %d", leaf)
	return nil
}

func (l *leavers) operation(leaf mlscore.LeafIndex, mode intents.RemovalMode) *mlscore.Proposal {
	l.t.Helper()
	return l.points.Proposal(&intents.LeafOperationProposal{Intent: l.intent(leaf, mode)})
}

var bodies = []intents.Body{intents.BodyRaw, intents.BodyOpaque}

// TestLeafOperationProposal brings one into a commit in each way, and looks who
// is gone.
func TestLeafOperationProposal(t *testing.T) {
	ways := map[string]func(*leavers, *mlscore.Proposal) []byte{
		"by value": func(l *leavers, p *mlscore.Proposal) []byte {
			return l.commit(l.members[0], CommitOptions{Proposals: []*mlscore.Proposal{p}}).Message
		},
		"by reference from a member": func(l *leavers, p *mlscore.Proposal) []byte {
			from := l.members[2]
			proposal := must[[]byte](l.t)(from.Propose(p))
			l.send(proposal, from)
			l.follow(proposal)
			return l.commit(l.members[0], CommitOptions{}).Message
		},
		"by reference from an external sender": func(l *leavers, p *mlscore.Proposal) []byte {
			proposal := must[[]byte](l.t)(mlscore.ExternalProposal(l.observer, l.broker, p))
			l.send(proposal, nil)
			l.follow(proposal)
			return l.commit(l.members[0], CommitOptions{}).Message
		},
		"by an external joiner": func(l *leavers, p *mlscore.Proposal) []byte {
			gone := l.members[5]
			selfRemove := must[[]byte](l.t)(gone.Propose(mlscore.NewSelfRemove(l.registry)))
			l.send(selfRemove, gone)
			l.follow(selfRemove)
			info := must[[]byte](l.t)(l.members[0].GroupInfo())
			group, commit, err := l.client().JoinExternal(info, ExternalJoinOptions{LeafOperations: [][]byte{p.Bytes()}, Pending: [][]byte{selfRemove}})
			if err != nil {
				l.t.Fatal(err)
			}
			l.deliver(commit.Message)
			l.members = append(l.members, group)
			if !slices.Contains(commit.Staged.Removed, 5) {
				l.t.Errorf("the SelfRemove is left out: removed %v", commit.Staged.Removed)
			}
			return commit.Message
		},
	}
	for name, way := range ways {
		for _, body := range bodies {
			for mode, want := range map[intents.RemovalMode][]mlscore.LeafIndex{
				intents.SenderRemovalOnly: {1}, intents.RemoveAssociatedMembers: {1, 3},
			} {
				t.Run(fmt.Sprintf("%s/%s/%s", name, body, mode), func(t *testing.T) {
					t.Parallel()
					l := newLeavers(t, body, nil)
					commit := way(l, l.operation(1, mode))
					staged := l.follow(commit)
					l.agree()
					removed := slices.DeleteFunc(slices.Clone(staged.Removed), func(i mlscore.LeafIndex) bool { return i == 5 })
					if !slices.Equal(removed, want) {
						t.Errorf("removed %v, want %v", removed, want)
					}
					i := slices.IndexFunc(staged.Applied, func(a mlscore.AppliedProposal) bool { return a.Expansion != nil })
					if i < 0 || staged.Applied[i].Expansion.Sender != 1 || !slices.Equal(staged.Applied[i].Removes, want) {
						t.Errorf("applied %+v", staged.Applied)
					}
					if staged.Resync {
						t.Error("taken for a resync")
					}
				})
			}
		}
	}
}

// TestLeafOperationProposalNeedsAssociation: without an answer a commit cannot
// be judged, with another answer it is not understood, and nothing changes.
func TestLeafOperationProposalNeedsAssociation(t *testing.T) {
	ways := map[string]func(*leavers, *mlscore.Proposal) []byte{
		"member": func(l *leavers, p *mlscore.Proposal) []byte {
			return must[*Commit](l.t)(l.members[0].Commit(CommitOptions{Proposals: []*mlscore.Proposal{p}})).Message
		},
		"external": func(l *leavers, p *mlscore.Proposal) []byte {
			info := must[[]byte](l.t)(l.members[0].GroupInfo())
			_, commit, err := l.client().JoinExternal(info, ExternalJoinOptions{LeafOperations: [][]byte{p.Bytes()}})
			if err != nil {
				l.t.Fatal(err)
			}
			return commit.Message
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			l := newLeavers(t, intents.BodyRaw, nil)
			commit := way(l, l.operation(1, intents.RemoveAssociatedMembers))
			l.members[0].DropCommit()
			var needed *mlscore.AssociationNeeded
			if _, err := l.judge(commit, nil); !errors.As(err, &needed) || !errors.Is(err, mlscore.ErrUnresolvable) {
				t.Fatalf("without an answer: %v", err)
			}
			if len(needed.Proposals) != 1 || needed.Proposals[0].Expansion.Sender != 1 {
				t.Errorf("asks about %+v", needed.Proposals)
			}
			right := l.users
			for what, users := range map[string]answers{
				"no answer": nil, "nobody": {1: nil}, "another": {1: {4}}, "one more": {1: {3, 4}}, "a blank leaf": {1: {77}},
				"all": {1: {0, 2, 3, 4, 5}},
			} {
				if _, err := l.judge(commit, users.find); !errors.Is(err, mlscore.ErrUnresolvable) || errors.Is(err, mlscore.ErrInvalid) {
					t.Errorf("%s: %v", what, err)
				}
				l.users = users
				for _, m := range l.members {
					if _, err := m.Process(commit); !errors.Is(err, mlscore.ErrUnresolvable) {
						t.Errorf("%s: leaf %d: %v", what, m.OwnLeaf(), err)
					}
				}
				l.users = right
			}
			if _, err := l.judge(commit, l.users.find); err != nil {
				t.Errorf("with the right answer: %v", err)
			}
		})
	}
}

// TestLeafOperationProposalIntentChecks spoils the intent of a proposal in each
// respect, and checks that no commit can contain it in any way.
func TestLeafOperationProposalIntentChecks(t *testing.T) {
	resign := func(l *leavers, in *intents.LeafOperationIntent, by int) {
		in.Signature = must[[]byte](l.t)(mlscore.SignWithLabel(l.members[by].Client().Signer, intents.Label, in.TBS()))
	}
	tests := map[string]struct {
		spoil func(*leavers, *intents.LeafOperationIntent)
		class error
		cause error
	}{
		"group": {func(l *leavers, in *intents.LeafOperationIntent) {
			in.GroupID = []byte("other")
			resign(l, in, 1)
		}, mlscore.ErrInvalid, intents.ErrGroupMismatch},
		"reference": {func(l *leavers, in *intents.LeafOperationIntent) {
			in.SenderLeafRef = bytes.Repeat([]byte{1}, len(in.SenderLeafRef))
			resign(l, in, 1)
		}, mlscore.ErrInvalid, intents.ErrLeafRefMismatch},
		"another's leaf": {func(l *leavers, in *intents.LeafOperationIntent) {
			in.SenderIndex = 2
			resign(l, in, 1)
		}, mlscore.ErrInvalid, intents.ErrLeafRefMismatch},
		"outside the tree": {func(l *leavers, in *intents.LeafOperationIntent) {
			in.SenderIndex = 1 << 31
			resign(l, in, 1)
		}, mlscore.ErrInvalid, intents.ErrLeafRefMismatch},
		"another's key": {func(l *leavers, in *intents.LeafOperationIntent) { resign(l, in, 2) }, mlscore.ErrInvalid, intents.ErrBadSignature},
		"mode": {func(l *leavers, in *intents.LeafOperationIntent) {
			in.RemovalMode = 3
			resign(l, in, 1)
		}, mlscore.ErrInvalid, intents.ErrUnsupportedMode},
	}
	for name, test := range tests {
		for _, body := range bodies {
			t.Run(name+"/"+body.String(), func(t *testing.T) {
				t.Parallel()
				l := newLeavers(t, body, nil)
				in := l.intent(1, intents.SenderRemovalOnly)
				test.spoil(l, in)
				l.refusesOperation(l.points.Proposal(&intents.LeafOperationProposal{Intent: in}), test.class, test.cause)
			})
		}
	}
	t.Run("no intent inside", func(t *testing.T) {
		l := newLeavers(t, intents.BodyOpaque, nil)
		p := l.operation(1, intents.SenderRemovalOnly)
		p.Body = codec.AppendOpaque(nil, []byte("garbage"))
		l.refusesOperation(p, mlscore.ErrMalformed, intents.ErrMalformed)
	})
}

// refusesOperation checks that a proposal is refused in commits by value, by
// reference and by an external joiner.
func (l *leavers) refusesOperation(p *mlscore.Proposal, class, cause error) {
	l.t.Helper()
	by := l.members[0]
	add := func(x mlscore.ProposalOrRef) func(*mlscore.FramedContent) {
		return func(c *mlscore.FramedContent) {
			if c.Commit != nil {
				c.Commit.Proposals = append(c.Commit.Proposals, x)
			}
		}
	}
	check := func(what string, commit []byte) {
		l.t.Helper()
		_, err := l.judge(commit, l.users.find)
		if !errors.Is(err, class) || !errors.Is(err, cause) {
			l.t.Errorf("%s: the observer says %v", what, err)
		}
		l.refuses(what, commit, by)
	}
	by.client.Mutate = &Mutate{Content: add(mlscore.ProposalOrRef{Proposal: p})}
	check("by value", must[*Commit](l.t)(by.Commit(CommitOptions{})).Message)
	by.client.Mutate, by.pending = nil, nil

	joiner := l.client()
	joiner.Mutate = &Mutate{Content: add(mlscore.ProposalOrRef{Proposal: p})}
	_, external, err := joiner.JoinExternal(must[[]byte](l.t)(by.GroupInfo()), ExternalJoinOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	check("by a joiner", external.Message)

	proposal := must[[]byte](l.t)(mlscore.ExternalProposal(l.observer, l.broker, p))
	l.send(proposal, nil)
	pending := l.follow(proposal).Proposal
	if !errors.Is(pending.Invalid, cause) || pending.Expansion != nil {
		l.t.Errorf("pending: %v, %v", pending.Invalid, pending.Expansion)
	}
	by.client.Mutate = &Mutate{Content: add(mlscore.ProposalOrRef{Reference: pending.Ref})}
	check("by reference", must[*Commit](l.t)(by.Commit(CommitOptions{References: [][]byte{}})).Message)
	by.client.Mutate, by.pending = nil, nil
	if refs := by.Selectable(nil); len(refs) > 0 {
		l.t.Error("a committer selects it")
	}
	if _, _, err := joinWith(l, p); err != nil {
		l.t.Errorf("a joiner does not leave it out: %v", err)
	}
}

// joinWith makes an external commit of whoever would join with a proposal.
func joinWith(l *leavers, p *mlscore.Proposal) (*Group, *Commit, error) {
	return l.client().JoinExternal(must[[]byte](l.t)(l.members[0].GroupInfo()), ExternalJoinOptions{LeafOperations: [][]byte{p.Bytes()}})
}

// TestLeafOperationProposalBesideOthers: in a list it counts as the Removes that
// it stands for (RFC 9420, Section 12.2).
func TestLeafOperationProposalBesideOthers(t *testing.T) {
	l := newLeavers(t, intents.BodyRaw, nil)
	one, both := l.operation(1, intents.SenderRemovalOnly), l.operation(1, intents.RemoveAssociatedMembers)
	byLeaf := func(leaf mlscore.LeafIndex) *Group {
		return l.members[slices.IndexFunc(l.members, func(m *Group) bool { return m.OwnLeaf() == leaf })]
	}
	refTo := func(leaf mlscore.LeafIndex, make func(*Group) ([]byte, error)) mlscore.ProposalOrRef {
		from := byLeaf(leaf)
		message := must[[]byte](t)(make(from))
		l.send(message, from)
		return mlscore.ProposalOrRef{Reference: l.follow(message).Proposal.Ref}
	}
	value := func(p *mlscore.Proposal) mlscore.ProposalOrRef { return mlscore.ProposalOrRef{Proposal: p} }
	selfRemove := func(g *Group) ([]byte, error) { return g.Propose(mlscore.NewSelfRemove(l.registry)) }
	update := func(g *Group) ([]byte, error) { return g.ProposeUpdate(nil) }
	self1, self3 := refTo(1, selfRemove), refTo(3, selfRemove)
	update1, update3, update4 := refTo(1, update), refTo(3, update), refTo(4, update)
	byReference := refTo(2, func(g *Group) ([]byte, error) { return g.Propose(one) })
	fresh, _, err := byLeaf(3).freshLeaf(nil)
	if err != nil {
		t.Fatal(err)
	}
	member := func(leaf mlscore.LeafIndex) mlscore.Sender {
		return mlscore.Sender{Type: mlscore.SenderTypeMember, LeafIndex: leaf}
	}
	joiner := mlscore.Sender{Type: mlscore.SenderTypeNewMemberCommit}
	init := value(&mlscore.Proposal{Type: mlscore.ProposalTypeExternalInit, KEMOutput: make([]byte, 32)})
	other := value(l.operation(4, intents.SenderRemovalOnly))
	no, yes := mlscore.ErrInvalid, error(nil)
	for name, test := range map[string]struct {
		committer mlscore.Sender
		list      []mlscore.ProposalOrRef
		want      error
	}{
		"alone":                          {member(0), []mlscore.ProposalOrRef{value(one)}, yes},
		"by reference":                   {member(0), []mlscore.ProposalOrRef{byReference}, yes},
		"two":                            {member(0), []mlscore.ProposalOrRef{value(both), other}, yes},
		"update of another":              {member(0), []mlscore.ProposalOrRef{value(both), update4}, yes},
		"the same twice":                 {member(0), []mlscore.ProposalOrRef{value(one), byReference}, no},
		"two of one sender":              {member(0), []mlscore.ProposalOrRef{value(one), value(both)}, no},
		"two of one user":                {member(0), []mlscore.ProposalOrRef{value(both), value(l.operation(3, intents.SenderRemovalOnly))}, mlscore.ErrUnresolvable},
		"remove of the sender":           {member(0), []mlscore.ProposalOrRef{value(Remove(1)), value(one)}, no},
		"remove of the associated":       {member(0), []mlscore.ProposalOrRef{value(both), value(Remove(3))}, mlscore.ErrUnresolvable},
		"self_remove of the sender":      {member(0), []mlscore.ProposalOrRef{value(one), self1}, no},
		"self_remove of the associated":  {member(0), []mlscore.ProposalOrRef{value(both), self3}, mlscore.ErrUnresolvable},
		"update of the sender":           {member(0), []mlscore.ProposalOrRef{value(one), update1}, no},
		"update of the associated":       {member(0), []mlscore.ProposalOrRef{value(both), update3}, mlscore.ErrUnresolvable},
		"replace of the associated":      {member(0), []mlscore.ProposalOrRef{value(both), value(mlscore.NewReplace(l.registry, 3, fresh))}, mlscore.ErrUnresolvable},
		"replace of another":             {member(0), []mlscore.ProposalOrRef{value(one), value(mlscore.NewReplace(l.registry, 3, fresh))}, yes},
		"of the committer":               {member(1), []mlscore.ProposalOrRef{value(one)}, no},
		"by reference, of the committer": {member(1), []mlscore.ProposalOrRef{byReference}, no},
		"committer is associated":        {member(3), []mlscore.ProposalOrRef{value(both)}, mlscore.ErrUnresolvable},
		"committer is of the same user":  {member(3), []mlscore.ProposalOrRef{value(one)}, yes},
		"reinit":                         {member(0), []mlscore.ProposalOrRef{value(one), value(ReInit(mlscore.ReInit{Version: 1, CipherSuite: 1}))}, no},
		"external":                       {joiner, []mlscore.ProposalOrRef{init, value(both), other}, yes},
		"external and self_remove":       {joiner, []mlscore.ProposalOrRef{init, other, self1}, yes},
		"external, self_remove of it":    {joiner, []mlscore.ProposalOrRef{init, value(one), self1}, no},
		"external, self_remove beside":   {joiner, []mlscore.ProposalOrRef{init, value(both), self3}, mlscore.ErrUnresolvable},
		"external resync of another":     {joiner, []mlscore.ProposalOrRef{init, value(Remove(4)), value(one)}, yes},
		"external resync of it":          {joiner, []mlscore.ProposalOrRef{init, value(Remove(1)), value(one)}, no},
		"external by reference":          {joiner, []mlscore.ProposalOrRef{init, byReference}, no},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := l.observer.Prepare(test.committer, test.list, l.users.find)
			if test.want != nil {
				if !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !p.PathRequired {
				t.Error("no path is required")
			}
		})
	}
}

// TestReferencesInExternalCommits: accepted, and flagged, only where the
// registry says so.
func TestReferencesInExternalCommits(t *testing.T) {
	for _, accept := range []bool{false, true} {
		l := newLeavers(t, intents.BodyOpaque, nil)
		l.registry.Custom[0].AcceptReferences = accept
		l.observer = l.observe()
		proposal := must[[]byte](t)(mlscore.ExternalProposal(l.observer, l.broker, l.operation(1, intents.SenderRemovalOnly)))
		l.send(proposal, nil)
		ref := l.follow(proposal).Proposal.Ref
		joiner := l.client()
		b := externalBuilder(l, joiner, proposal)
		list := must[[]mlscore.ProposalOrRef](t)(b.externalProposals(groupInfoOf(l), ExternalJoinOptions{}))
		err := b.build(append(list, mlscore.ProposalOrRef{Reference: ref}))
		if !accept {
			if !errors.Is(err, mlscore.ErrInvalid) {
				t.Errorf("by reference: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		group, commit, err := b.finishExternal()
		if err != nil {
			t.Fatal(err)
		}
		l.deliver(commit.Message)
		l.members = append(l.members, group)
		if staged := l.follow(commit.Message); !slices.Equal(staged.Flags, []string{"reference_in_external_commit"}) || !slices.Equal(staged.Removed, []mlscore.LeafIndex{1}) {
			t.Errorf("flags %q, removed %v", staged.Flags, staged.Removed)
		}
		l.agree()
	}
}

func groupInfoOf(l *leavers) *mlscore.GroupInfo {
	m := must[*mlscore.MLSMessage](l.t)(mlscore.ParseMLSMessage(must[[]byte](l.t)(l.members[0].GroupInfo()), l.registry))
	return m.GroupInfo
}

// externalBuilder makes an external commit by hand, in a group that has a
// proposal.
func externalBuilder(l *leavers, c *Client, proposal []byte) *commitBuilder {
	m := must[*mlscore.MLSMessage](l.t)(mlscore.ParseMLSMessage(proposal, l.registry))
	public := must[*mlscore.Staged](l.t)(l.observe().Stage(m)).Next()
	return &commitBuilder{
		client: c, next: c, suite: l.suite, public: public, findPSK: c.findPSK,
		content: &mlscore.AuthenticatedContent{WireFormat: mlscore.WireFormatPublicMessage, Content: mlscore.FramedContent{
			GroupID: public.GroupID(), Epoch: public.Epoch(), ContentType: mlscore.ContentTypeCommit,
			Sender: mlscore.Sender{Type: mlscore.SenderTypeNewMemberCommit},
		}},
	}
}

// TestLeafOperationProposalWantsSupport: every member who processes the commit
// lists the type; the removed do not have to (RFC 9420, Section 12.2).
func TestLeafOperationProposalWantsSupport(t *testing.T) {
	serial := 0
	l := newLeavers(t, intents.BodyRaw, func(c *Client) {
		if serial++; serial == 3 { // leaf 2
			caps := DefaultCapabilities(mlscore.DefaultRegistry())
			c.Capabilities = &caps
		}
	})
	by := l.members[0]
	if _, err := by.Commit(CommitOptions{Proposals: []*mlscore.Proposal{l.operation(1, intents.SenderRemovalOnly)}}); !errors.Is(err, mlscore.ErrInvalid) {
		t.Errorf("a commit that leaf 2 does not understand: %v", err)
	}
	proposal := must[[]byte](t)(mlscore.ExternalProposal(l.observer, l.broker, l.operation(1, intents.SenderRemovalOnly)))
	l.send(proposal, nil)
	l.follow(proposal)
	if refs := by.Selectable(nil); len(refs) > 0 {
		t.Error("a committer selects it")
	}
	_, commit, err := joinWith(l, l.operation(1, intents.SenderRemovalOnly))
	if err != nil || len(commit.Staged.Removed) > 0 {
		t.Errorf("a joiner does not leave it out: %v", err)
	}
	message := l.commit(by, CommitOptions{References: [][]byte{}, Proposals: []*mlscore.Proposal{
		l.operation(1, intents.SenderRemovalOnly), Remove(2),
	}}).Message
	l.follow(message)
	l.agree()
}

// TestLeafOperationProposalWantsPath strips the path from a commit.
func TestLeafOperationProposalWantsPath(t *testing.T) {
	l := newLeavers(t, intents.BodyRaw, nil)
	by := l.members[0]
	by.client.Mutate = &Mutate{Content: func(c *mlscore.FramedContent) { c.Commit.Path = nil }}
	commit := must[*Commit](t)(by.Commit(CommitOptions{Proposals: []*mlscore.Proposal{l.operation(1, intents.SenderRemovalOnly)}}))
	if _, err := l.judge(commit.Message, nil); !errors.Is(err, mlscore.ErrInvalid) {
		t.Errorf("a commit without path: %v", err)
	}
	l.refuses("a commit without path", commit.Message, by)
}

// TestSharedKeepsAnswersApart: members who were told different things share no
// judgement.
func TestSharedKeepsAnswersApart(t *testing.T) {
	l := newLeavers(t, intents.BodyRaw, nil)
	commit := must[*Commit](t)(l.members[0].Commit(CommitOptions{Proposals: []*mlscore.Proposal{l.operation(1, intents.RemoveAssociatedMembers)}}))
	wrong := l.members[2]
	wrong.client.Associate = func(*mlscore.PublicGroup, mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
		return []mlscore.LeafIndex{4}, true
	}
	if _, err := wrong.Process(commit.Message); !errors.Is(err, mlscore.ErrUnresolvable) {
		t.Errorf("a member who was told otherwise: %v", err)
	}
	if _, err := l.members[4].Process(commit.Message); err != nil {
		t.Error(err)
	}
}
