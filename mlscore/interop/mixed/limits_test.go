package mixed

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/stack"
)

// A limit is something that a stack cannot do, or does against RFC 9420, with
// the evidence. It shows in an error, of that stack or about a message of it,
// and only where its condition holds.
type limit struct {
	stack string // whose it is
	says  string // part of the error of whoever notices
	when  func(*circumstances) bool
	why   string
}

// limits are those that the drivers do not tell by themselves.
var limits = []limit{
	{
		stack: stack.OpenMLS, says: "The proposal is invalid for the Sender of type External",
		why: "OpenMLS 0.9.2 takes Add, Remove and GroupContextExtensions alone from external senders",
	},
	{
		stack: tsMLS, says: "onfirmation tag", when: (*circumstances).blankRoot,
		why: "ts-mls 1.6.4 derives the commit secret of a tree whose root stays blank from one path secret too many (pathSecrets.js, pathToRoot; RFC 9420, Section 7.4)",
	},
	{
		stack: tsMLS, says: "non-blank intermediate node must list leaf node in its unmerged_leaves", when: (*circumstances).unevenUnmerged,
		why: "ts-mls 1.6.4 wants all nodes above an unmerged leaf to have the same unmerged_leaves (clientState.js, validateRatchetTree; RFC 9420, Section 7.9.2)",
	},
	{
		stack: stack.BCMLS, says: "invalid parent hash", when: (*circumstances).blankRoot,
		why: "bcmls 1.84 begins the parent hashes of a path at the root, also where the root stays blank (TreeKEMPublicKey.parentHashes; RFC 9420, Section 7.9)",
	},
	{
		stack: stack.BCMLS, says: "Commit path has invalid leaf node", when: (*circumstances).moved,
		why: "bcmls 1.84 refuses a resync whose new leaf is at another index than the old one (Group.validateLeafNode)",
	},
	{
		stack: stack.BCMLS, says: "mac check in GCM failed", when: (*circumstances).unmerged,
		why: "bcmls 1.84 takes a Welcome without path_secret for one with an empty secret (Group, before TreeKEMPrivateKey.joiner), and believes to have the keys of the nodes above, where its leaf is unmerged",
	},
}

// missesRemoval says whether a member that a commit removed only fails to see
// that: ts-mls 1.6.4 takes a member for removed if its leaf is blank after the
// proposals (clientState.js, applyProposals), and another may have been added there.
func missesRemoval(p *peer, err error) bool {
	return p.stack == tsMLS && strings.Contains(err.Error(), "No overlap between provided private keys and update path")
}

// rootLeftOut says whether the path of a commit, by a member or joiner, does not
// reach the root, as half of the tree is empty.
func rootLeftOut(g *mlscore.PublicGroup, m *mlscore.MLSMessage) (bool, error) {
	content := &m.PublicMessage.Content
	p, err := g.Prepare(content.Sender, content.Commit.Proposals, nil)
	if err != nil {
		return false, err
	}
	tree := p.Edit.Tree()
	path := tree.FilteredDirectPath(p.Committer)
	return tree.LeafWidth() > 1 && (len(path) == 0 || path[len(path)-1] != mlscore.Root(tree.LeafWidth())), nil
}

// tsMLS is what the driver of ts-mls calls itself.
const tsMLS = "ts-mls"

// circumstances are those in which an error came.
type circumstances struct {
	before, after *mlscore.RatchetTree // the tree before the last message, and after it
	key           []byte               // whose error it is: its signature key
}

// unmerged says whether the member was an unmerged leaf.
func (c *circumstances) unmerged() bool {
	leaf, found := c.before.FindSignatureKey(c.key)
	return found && slices.ContainsFunc(mlscore.DirectPath(leaf.NodeIndex(), c.before.LeafWidth()), func(x mlscore.NodeIndex) bool {
		p := c.before.Parent(x)
		return p != nil && slices.Contains(p.UnmergedLeaves, leaf)
	})
}

// moved says whether a member has come to another leaf: by a resync, while a
// leaf to the left was blank.
func (c *circumstances) moved() bool {
	for leaf, node := range c.after.All() {
		if old, found := c.before.FindSignatureKey(node.SignatureKey); found && old != leaf {
			return true
		}
	}
	return false
}

// blankRoot says whether a tree of more than one leaf has no root.
func (c *circumstances) blankRoot() bool {
	t := c.after
	return t.LeafWidth() > 1 && t.Parent(mlscore.Root(t.LeafWidth())) == nil
}

// unevenUnmerged says whether two nodes above a leaf that is unmerged in one of
// them differ in their unmerged leaves.
func (c *circumstances) unevenUnmerged() bool {
	t := c.after
	for leaf := range t.All() {
		var lists [][]mlscore.LeafIndex
		unmerged := false
		for _, x := range mlscore.DirectPath(leaf.NodeIndex(), t.LeafWidth()) {
			if p := t.Parent(x); p != nil {
				lists = append(lists, p.UnmergedLeaves)
				unmerged = unmerged || slices.Contains(p.UnmergedLeaves, leaf)
			}
		}
		if unmerged && slices.ContainsFunc(lists, func(l []mlscore.LeafIndex) bool { return !slices.Equal(l, lists[0]) }) {
			return true
		}
	}
	return false
}

// limitation says which limit an error shows, empty for none. The error is that
// of one of the stacks, or about a message of it.
func limitation(err error, c *circumstances, stacks ...string) string {
	var unsupported *stack.Unsupported
	if errors.As(err, &unsupported) {
		return unsupported.Error()
	}
	if err == nil || c == nil {
		return ""
	}
	for _, l := range limits {
		if strings.Contains(err.Error(), l.says) && slices.Contains(stacks, l.stack) && (l.when == nil || l.when(c)) {
			return fmt.Sprintf("%s: %q: %s", l.stack, l.says, l.why)
		}
	}
	return ""
}
