package mlscore

import (
	"bytes"
	"slices"
)

// Provisional is a group after the proposals of a commit and before its path
// (RFC 9420, Section 12.4.1). A committing member makes one to build its path.
type Provisional struct {
	// Edit is the tree after the proposals, and after MergePath with the path.
	Edit *TreeEdit
	// Committer is the committer's leaf: for an external commit, the leaf that
	// it will have.
	Committer LeafIndex
	// External says whether this is an external commit.
	External bool
	// Applied are the proposals in the order of their list.
	Applied []AppliedProposal
	// Extensions are the GroupContext's after the proposals.
	Extensions Extensions
	// PathRequired says whether the commit must have a path.
	PathRequired bool
	// Removed, Updated and Added are the leaves that proposals changed, ascending.
	Removed, Updated, Added []LeafIndex

	group      *PublicGroup
	associated bool // what is removed rests on an association
	keys       newKeys
	flags      flags
}

// Prepare resolves the proposals of a commit, judges them and applies them to a
// copy of the tree, in the order GroupContextExtensions, Update, Replace,
// SelfRemove, Remove, Add (RFC 9420, Section 12.3). The sender is a member or
// new_member_commit. Where a proposal removes associated leaves, who they are
// has to be known, or the error is *AssociationNeeded.
func (g *PublicGroup) Prepare(committer Sender, proposals []ProposalOrRef, known Associations) (*Provisional, error) {
	applied, err := g.resolve(committer, proposals)
	if err != nil {
		return nil, err
	}
	p := &Provisional{
		Edit: g.tree.Edit(), Committer: committer.LeafIndex, External: committer.Type == SenderTypeNewMemberCommit,
		Applied: applied, Extensions: g.context.Extensions, PathRequired: pathRequired(applied), group: g,
	}
	if err := p.checkList(known); err != nil {
		return nil, err
	}
	if err := p.apply(); err != nil {
		return nil, p.contradicted(err)
	}
	if err := p.checkTypesSupported(); err != nil {
		return nil, p.contradicted(err)
	}
	if err := g.checkFollowable(applied); err != nil {
		return nil, err
	}
	return p, nil
}

// apply changes the tree and the extensions (RFC 9420, Section 12.3).
func (p *Provisional) apply() error {
	var adds []*LeafNode
	for _, a := range p.Applied {
		switch q := a.Proposal; {
		case q.Type == ProposalTypeGroupContextExtensions:
			p.Extensions = q.Extensions
		case q.Type == ProposalTypeAdd:
			adds = append(adds, q.KeyPackage.LeafNode)
		}
	}
	if err := p.each(func(a AppliedProposal) error {
		switch {
		case a.Proposal.Type == ProposalTypeUpdate:
			return p.update(a.Sender.LeafIndex, a.Proposal.LeafNode)
		case a.Proposal.isReplace:
			p.flags.addIf(p.group.changesSignatureKey(a.Proposal), FlagReplacedSignatureKey)
			return p.update(a.Proposal.Replaced, a.Proposal.LeafNode)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := p.each(func(a AppliedProposal) error {
		switch {
		case a.Proposal.isSelfRemove:
			return p.remove(a.Sender.LeafIndex)
		case a.Proposal.Type == ProposalTypeRemove:
			return p.remove(a.Proposal.Removed)
		case a.Expansion != nil:
			return each(a.Removes, p.remove)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, leaf := range adds {
		index, err := p.Edit.Add(leaf)
		if err != nil {
			return err
		}
		p.Added = append(p.Added, index)
		p.keys.leaf(index, leaf)
	}
	p.Edit.Truncate()
	if p.External {
		p.Committer = p.Edit.LeftmostBlank()
	}
	slices.Sort(p.Removed)
	slices.Sort(p.Updated)
	slices.Sort(p.Added)
	return nil
}

func (p *Provisional) each(do func(AppliedProposal) error) error {
	for _, a := range p.Applied {
		if err := do(a); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provisional) update(index LeafIndex, leaf *LeafNode) error {
	p.Updated = append(p.Updated, index)
	p.keys.leaf(index, leaf)
	return p.Edit.Update(index, leaf)
}

func (p *Provisional) remove(index LeafIndex) error {
	p.Removed = append(p.Removed, index)
	return p.Edit.Remove(index)
}

// MergePath judges a commit's path and puts it into the tree (RFC 9420,
// Sections 7.5, 7.9 and 12.4.2).
func (p *Provisional) MergePath(path *UpdatePath) error {
	g, leaf := p.group, path.LeafNode
	if leaf.Source != LeafNodeSourceCommit {
		return invalid("12.4.2", "a path whose leaf has source %d", leaf.Source)
	}
	if err := leaf.VerifySignature(g.suite, g.context.GroupID, p.Committer); err != nil {
		return err
	}
	old := p.oldLeaf()
	if old != nil && bytes.Equal(leaf.EncryptionKey, old.EncryptionKey) {
		return invalid("12.4.2", "the path's leaf keeps its encryption_key")
	}
	if p.External {
		if old != nil && !bytes.Equal(leaf.Credential.Bytes(), old.Credential.Bytes()) {
			p.flags.add(FlagResyncCredential)
		}
		if err := p.Edit.SetLeaf(p.Committer, leaf); err != nil {
			return err
		}
		p.Added = insertSorted(p.Added, p.Committer)
	} else {
		p.Updated = insertSorted(p.Updated, p.Committer)
	}
	p.keys.leaf(p.Committer, leaf)
	for i := range path.Nodes {
		p.keys.encryption = append(p.keys.encryption, nodeKey{pathNode, path.Nodes[i].EncryptionKey})
	}
	// The keys are compared with the tree as it is before the path: a key of
	// the committer's old direct path must not come back either.
	if err := p.keys.check(g.tree, p.Edit); err != nil {
		return err
	}
	p.flagCiphertexts(path)
	return p.Edit.MergePath(p.Committer, path)
}

// oldLeaf is the leaf that the path's takes the place of: the committer's, or
// the one that an external committer removes, whose criteria are those of an
// Update of it (RFC 9420, Section 12.2); nil if there is none.
func (p *Provisional) oldLeaf() *LeafNode {
	if !p.External {
		return p.group.tree.Leaf(p.Committer)
	}
	for _, a := range p.Applied {
		if a.Proposal.Type == ProposalTypeRemove {
			return p.group.tree.Leaf(a.Proposal.Removed)
		}
	}
	return nil
}

// flagCiphertexts compares the number of encrypted path secrets with the
// members that need one (RFC 9420, Section 7.6). Members look at their own
// only, so a difference is accepted.
func (p *Provisional) flagCiphertexts(path *UpdatePath) {
	nodes := p.Edit.FilteredDirectPath(p.Committer)
	if len(nodes) != len(path.Nodes) {
		return // refused by the merge
	}
	for i, node := range nodes {
		want := 0
		for _, x := range p.Edit.Resolution(copathChild(node, p.Committer)) {
			if _, isNew := slices.BinarySearch(p.Added, x.LeafIndex()); !x.IsLeaf() || !isNew {
				want++
			}
		}
		if len(path.Nodes[i].EncryptedPathSecret) != want {
			p.flags.add(FlagPathSecretCount)
			return
		}
	}
}

// copathChild is the child of a node of a leaf's direct path that is not on it.
func copathChild(node NodeIndex, leaf LeafIndex) NodeIndex {
	if node.Left().covers(leaf) {
		return node.Right()
	}
	return node.Left()
}

func insertSorted(list []LeafIndex, x LeafIndex) []LeafIndex {
	i, found := slices.BinarySearch(list, x)
	if found {
		return list
	}
	return slices.Insert(slices.Clone(list), i, x)
}

// finish checks the tree that the commit leads to and gives the group of the
// next epoch, all but its transcript hashes.
func (p *Provisional) finish(path *UpdatePath) (*PublicGroup, error) {
	g := p.group
	if path == nil {
		if p.PathRequired {
			return nil, invalid("12.4", "a commit without path, which its proposals require")
		}
		if err := p.keys.check(g.tree, p.Edit); err != nil {
			return nil, err
		}
	} else if err := p.MergePath(path); err != nil {
		return nil, err
	}
	tree := p.Edit.Tree()
	rules, err := g.rulesFor(p.Extensions, tree, &p.flags)
	if err != nil {
		return nil, err
	}
	senders := g.senders
	if p.extensionsChanged() {
		if senders, err = rules.checkGroup(); err != nil {
			return nil, err
		}
	}
	for _, index := range slices.Concat(p.Updated, p.Added) {
		if err := rules.checkLeaf(index, tree.Leaf(index)); err != nil {
			return nil, err
		}
	}
	context := g.context
	context.Epoch++
	context.TreeHash = tree.TreeHash()
	context.Extensions = p.Extensions
	return &PublicGroup{suite: g.suite, registry: g.registry, opts: g.opts, context: context, tree: tree, senders: senders}, nil
}

func (p *Provisional) extensionsChanged() bool {
	return slices.ContainsFunc(p.Applied, func(a AppliedProposal) bool {
		return a.Proposal.Type == ProposalTypeGroupContextExtensions
	})
}

// checkTypesSupported refuses a proposal of a type that a member who processes
// the commit does not support (RFC 9420, Section 12.2): neither the added nor
// the removed have to. Whether the old or the new leaf of an updated member
// counts is not said; either will do.
func (p *Provisional) checkTypesSupported() error {
	before, stay := p.group.tree, p.group.tree.Members()-len(p.Removed)
	judged := make(map[ProposalType]bool)
	for _, a := range p.Applied {
		t := a.Proposal.Type
		if judged[t] || before.SupportsProposal(t) {
			continue
		}
		judged[t] = true
		supporters := before.proposalSupporters(t)
		for _, index := range p.Removed {
			if before.Leaf(index).Capabilities.SupportsProposal(t) {
				supporters--
			}
		}
		for _, index := range p.Updated {
			if now := p.Edit.Leaf(index); !before.Leaf(index).Capabilities.SupportsProposal(t) && now.Capabilities.SupportsProposal(t) {
				supporters++
			}
		}
		if supporters < stay {
			return invalid("12.2", "%s, which %d of the %d members who stay do not support", t, stay-supporters, stay)
		}
	}
	return nil
}

// newKeys are the public keys that a commit brings.
type newKeys struct {
	encryption []nodeKey
	signature  []leafKey
}

// nodeKey is an encryption key of a new leaf, or of a path's node.
type nodeKey struct {
	node NodeIndex // pathNode for a path's, whose place does not matter
	key  []byte
}

const pathNode = ^NodeIndex(0)

type leafKey struct {
	index LeafIndex
	key   []byte
}

func (k *newKeys) leaf(index LeafIndex, leaf *LeafNode) {
	k.encryption = append(k.encryption, nodeKey{index.NodeIndex(), leaf.EncryptionKey})
	k.signature = append(k.signature, leafKey{index, leaf.SignatureKey})
}

// check refuses a key that occurs twice among the new ones, or that a node
// holds already which the proposals left in the tree (RFC 9420, Sections 7.3
// and 12.4.2). A leaf that was set by the commit is no clash with itself.
func (k *newKeys) check(before *RatchetTree, after *TreeEdit) error {
	seen := make(map[string]bool, len(k.encryption))
	for _, n := range k.encryption {
		if seen[string(n.key)] {
			return invalid("12.4.2", "the encryption_key %x twice", n.key)
		}
		seen[string(n.key)] = true
		if x, found := before.FindEncryptionKey(n.key); found && x != n.node && bytes.Equal(after.EncryptionKeyOf(x), n.key) {
			return invalid("12.4.2", "the encryption_key %x is that of node %d", n.key, x)
		}
	}
	leaves := make(map[string]LeafIndex, len(k.signature))
	for _, s := range k.signature {
		if other, twice := leaves[string(s.key)]; twice && other != s.index {
			return invalid("7.3", "leaves %d and %d with one signature_key", other, s.index)
		}
		leaves[string(s.key)] = s.index
		if i, found := before.FindSignatureKey(s.key); found && i != s.index {
			if leaf := after.Leaf(i); leaf != nil && bytes.Equal(leaf.SignatureKey, s.key) {
				return invalid("7.3", "the signature_key of leaf %d is that of leaf %d", s.index, i)
			}
		}
	}
	return nil
}
