package member

import "leavebroker/mlscore"

// Mutate spoils what a client sends, before it is signed: for tests that need
// messages which are wrong in one place and right in all others. Each function
// may be nil and gets the value that is about to be signed. A commit that its
// own sender would refuse is returned all the same, but cannot be confirmed.
type Mutate struct {
	// LeafNode gets each leaf node: of a key package, an Update or a path.
	LeafNode func(*mlscore.LeafNode)
	// KeyPackage gets each key package.
	KeyPackage func(*mlscore.KeyPackage)
	// Path gets an UpdatePath whose leaf is signed and whose path secrets are
	// encrypted.
	Path func(*mlscore.UpdatePath)
	// Content gets each FramedContent with its Proposal or Commit.
	Content func(*mlscore.FramedContent)
	// GroupContext gets a copy of the GroupContext of a commit's new epoch,
	// from which the new secrets and the confirmation tag derive.
	GroupContext func(*mlscore.GroupContext)
	// Auth gets a message when it is signed and tagged, and before the
	// membership tag is computed.
	Auth func(*mlscore.AuthenticatedContent)
	// GroupInfo gets each GroupInfo.
	GroupInfo func(*mlscore.GroupInfo)
}

func (m *Mutate) leafNode(n *mlscore.LeafNode) {
	if m != nil && m.LeafNode != nil {
		m.LeafNode(n)
	}
}

func (m *Mutate) keyPackage(k *mlscore.KeyPackage) {
	if m != nil && m.KeyPackage != nil {
		m.KeyPackage(k)
	}
}

func (m *Mutate) path(p *mlscore.UpdatePath) {
	if m != nil && m.Path != nil {
		m.Path(p)
	}
}

func (m *Mutate) content(c *mlscore.FramedContent) {
	if m != nil && m.Content != nil {
		m.Content(c)
	}
}

func (m *Mutate) groupContext(gc *mlscore.GroupContext) {
	if m != nil && m.GroupContext != nil {
		m.GroupContext(gc)
	}
}

func (m *Mutate) auth(a *mlscore.AuthenticatedContent) {
	if m != nil && m.Auth != nil {
		m.Auth(a)
	}
}

func (m *Mutate) groupInfo(gi *mlscore.GroupInfo) {
	if m != nil && m.GroupInfo != nil {
		m.GroupInfo(gi)
	}
}
