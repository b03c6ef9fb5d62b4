package mlscore_test

import (
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// spoil lets a member or a joiner make a commit that is wrong in one place:
// what follows from that place is right, and so are all tags.
func (x *adversary) spoil() (kind string, message []byte) {
	m := pick(x.rng, spoilers)
	hooks := m.hooks(x)
	defer func() { x.astray = false }()
	if x.rng.IntN(4) == 0 {
		c := x.client()
		c.Mutate = hooks
		opts := member.ExternalJoinOptions{LeafOperations: x.leaving()}
		if p := x.subject(m.kind); p != nil {
			opts.LeafOperations = [][]byte{p.Bytes()}
		}
		if _, commit, err := c.JoinExternal(must(x.members[0].GroupInfo()), opts); err == nil {
			message = commit.Message
		}
		return "external commit, " + m.kind, message
	}
	committer := x.someone()
	if committer == x.author {
		return "", nil // who knows a proposal that the others have not got yet
	}
	return "commit, " + m.kind, x.spoiledCommit(committer, m.kind, hooks)
}

// spoiledCommit is nil where the committer cannot make one.
func (x *adversary) spoiledCommit(committer *member.Group, kind string, hooks *member.Mutate) (message []byte) {
	opts := x.commitOptions()
	opts.OmitPath = opts.OmitPath && kind != "leaf" && kind != "path"
	if p := x.subject(kind); p != nil {
		opts.Proposals = []*mlscore.Proposal{p}
	}
	spoiled(committer, hooks, func(g *member.Group) {
		if commit, err := g.Commit(opts); err == nil {
			message = commit.Message
		}
	})
	return message
}

type spoiler struct {
	kind  string
	hooks func(*adversary) *member.Mutate
}

var spoilers = []spoiler{
	{"unspoiled", func(*adversary) *member.Mutate { return &member.Mutate{} }},
	{"leaf", func(x *adversary) *member.Mutate {
		return &member.Mutate{LeafNode: func(n *mlscore.LeafNode) { x.changeLeaf(n) }}
	}},
	{"leaf", func(x *adversary) *member.Mutate {
		return &member.Mutate{LeafNode: func(n *mlscore.LeafNode) { x.changeLeaf(n) }}
	}},
	{"path", func(x *adversary) *member.Mutate {
		return &member.Mutate{Path: func(p *mlscore.UpdatePath) { x.changePath(p) }}
	}},
	{"other associations", func(x *adversary) *member.Mutate {
		x.astray = true
		return &member.Mutate{}
	}},
	{"same effect", func(x *adversary) *member.Mutate {
		return &member.Mutate{Content: func(c *mlscore.FramedContent) { x.restate(c.Commit) }}
	}},
	{"list", func(x *adversary) *member.Mutate {
		return &member.Mutate{Content: func(c *mlscore.FramedContent) { x.changeList(c.Commit) }}
	}},
	{"authenticated_data", func(x *adversary) *member.Mutate {
		return &member.Mutate{Content: func(c *mlscore.FramedContent) { c.AuthenticatedData = []byte("data") }}
	}},
	{"framing", func(x *adversary) *member.Mutate {
		return &member.Mutate{Content: func(c *mlscore.FramedContent) {
			joiner := c.Sender.Type == mlscore.SenderTypeNewMemberCommit
			x.changeFraming(c)
			if joiner && c.Sender.Type == mlscore.SenderTypeMember { // who has no key for its tag
				c.Sender.Type = mlscore.SenderTypeExternal
			}
		}}
	}},
	{"confirmation tag", func(x *adversary) *member.Mutate {
		return &member.Mutate{Auth: func(a *mlscore.AuthenticatedContent) { a.ConfirmationTag = x.spoil1(a.ConfirmationTag) }}
	}},
	{"group context", func(x *adversary) *member.Mutate {
		return &member.Mutate{GroupContext: func(gc *mlscore.GroupContext) {
			switch x.rng.IntN(3) {
			case 0:
				gc.Epoch++
			case 1:
				gc.TreeHash = x.spoil1(gc.TreeHash)
			default:
				gc.ConfirmedTranscriptHash = x.spoil1(gc.ConfirmedTranscriptHash)
			}
		}}
	}},
}
