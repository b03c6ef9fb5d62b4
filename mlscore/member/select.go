package member

import (
	"slices"

	"leavebroker/mlscore"
)

// Selectable lists the references of pending proposals, in order of arrival,
// that a commit by this member can contain together with the given proposals by
// value (RFC 9420, Section 12.2). Of several that concern one leaf a SelfRemove
// goes first, then the earliest Remove, then the latest Update or Replace. A
// custom proposal that stands for Removes is taken whole or not at all, and only
// where it is known whom it removes. A ReInit is chosen only if there is nothing
// else, and a proposal of a type that is not known, or that a member does not
// support, never.
func (g *Group) Selectable(byValue []*mlscore.Proposal) [][]byte {
	s := &selection{
		public:  g.epoch.public,
		client:  g.client,
		changed: map[mlscore.LeafIndex]bool{g.OwnLeaf(): true},
		removed: make(map[mlscore.LeafIndex]bool),
		keys:    make(map[string]bool), psks: make(map[string]bool),
	}
	for _, p := range byValue {
		s.take(p, g.OwnLeaf())
	}
	all := slices.Collect(g.epoch.public.Proposals())
	candidates := slices.Clone(all)
	slices.Reverse(candidates) // so that the latest Update comes first
	slices.SortStableFunc(candidates, func(a, b *mlscore.PendingProposal) int {
		return precedence(a) - precedence(b)
	})
	for _, early := range [][]*mlscore.PendingProposal{withPrecedence(candidates, 1), withPrecedence(candidates, 3)} {
		slices.Reverse(early) // of anything else, the earliest
	}
	chosen := make(map[*mlscore.PendingProposal]bool)
	for _, p := range candidates {
		chosen[p] = p.Invalid == nil && s.take(p.Proposal, p.Sender.LeafIndex)
	}
	refs := [][]byte{}
	for _, p := range all {
		if chosen[p] {
			refs = append(refs, p.Ref)
		}
	}
	return refs
}

// removalsOf keeps the references of proposals that remove a leaf. Whoever may
// propose an Add or new extensions could otherwise stop every commit with one
// that the group turns out not to bear.
func (g *Group) removalsOf(refs [][]byte) [][]byte {
	return slices.DeleteFunc(slices.Clone(refs), func(ref []byte) bool {
		return precedence(g.epoch.public.Proposal(ref)) > 1
	})
}

// precedence orders proposals for selection: SelfRemove, Remove and what stands
// for Removes, Update and Replace, anything else, ReInit.
func precedence(pending *mlscore.PendingProposal) int {
	switch p := pending.Proposal; {
	case p.IsSelfRemove():
		return 0
	case p.Type == mlscore.ProposalTypeRemove || pending.Expansion != nil:
		return 1
	case p.Type == mlscore.ProposalTypeUpdate || p.IsReplace():
		return 2
	case p.Type == mlscore.ProposalTypeReInit:
		return 4
	}
	return 3
}

// withPrecedence is the run of a precedence in a list that is sorted by it.
func withPrecedence(list []*mlscore.PendingProposal, n int) []*mlscore.PendingProposal {
	start := slices.IndexFunc(list, func(p *mlscore.PendingProposal) bool { return precedence(p) == n })
	if start < 0 {
		return nil
	}
	end := start
	for end < len(list) && precedence(list[end]) == n {
		end++
	}
	return list[start:end]
}

// selection is what the proposals chosen so far do.
type selection struct {
	public     *mlscore.PublicGroup
	client     *Client
	changed    map[mlscore.LeafIndex]bool // leaves that no further proposal may concern
	removed    map[mlscore.LeafIndex]bool
	keys       map[string]bool // signature and encryption keys of added leaves
	psks       map[string]bool
	extensions bool
	taken      int
}

// take chooses a proposal unless it clashes with those chosen.
func (s *selection) take(p *mlscore.Proposal, sender mlscore.LeafIndex) bool {
	ok := s.fits(p, sender)
	if ok {
		s.taken++
	}
	return ok
}

func (s *selection) fits(p *mlscore.Proposal, sender mlscore.LeafIndex) bool {
	switch {
	case (p.IsSelfRemove() || p.IsReplace()) && !s.public.Tree().SupportsProposal(p.Type):
		return false // unless those who do not are removed too, which nobody can count on
	case p.IsSelfRemove():
		return s.remove(sender)
	case p.IsReplace():
		return claim(s.changed, p.Replaced)
	}
	switch p.Type {
	case mlscore.ProposalTypeRemove:
		return s.remove(p.Removed)
	case mlscore.ProposalTypeUpdate:
		return claim(s.changed, sender)
	case mlscore.ProposalTypeAdd:
		return s.add(p.KeyPackage.LeafNode)
	case mlscore.ProposalTypePSK:
		return claim(s.psks, string(p.PSK.Append(nil)))
	case mlscore.ProposalTypeGroupContextExtensions:
		first := !s.extensions
		s.extensions = true
		return first
	case mlscore.ProposalTypeReInit:
		return s.taken == 0
	}
	return s.custom(p)
}

// custom chooses a proposal of a registered type if every member supports it,
// it is known whom it removes, and nothing else concerns them.
func (s *selection) custom(p *mlscore.Proposal) bool {
	x, err := s.public.Expand(p)
	if err != nil || x == nil || !s.public.Tree().SupportsProposal(p.Type) {
		return false
	}
	leaves, err := s.public.Removes(x, s.client.associations(s.public))
	if err != nil || slices.ContainsFunc(leaves, func(leaf mlscore.LeafIndex) bool { return s.changed[leaf] }) {
		return false
	}
	for _, leaf := range leaves {
		s.remove(leaf)
	}
	return true
}

func (s *selection) remove(leaf mlscore.LeafIndex) bool {
	ok := claim(s.changed, leaf)
	if ok {
		s.removed[leaf] = true
	}
	return ok
}

// add chooses a new leaf whose keys are neither in the tree, unless they leave
// it, nor in another chosen leaf.
func (s *selection) add(leaf *mlscore.LeafNode) bool {
	if i, found := s.public.Tree().FindSignatureKey(leaf.SignatureKey); found && !s.removed[i] {
		return false
	}
	if x, found := s.public.Tree().FindEncryptionKey(leaf.EncryptionKey); found && (!x.IsLeaf() || !s.removed[x.LeafIndex()]) {
		return false
	}
	if s.keys[string(leaf.SignatureKey)] || s.keys[string(leaf.EncryptionKey)] {
		return false
	}
	s.keys[string(leaf.SignatureKey)], s.keys[string(leaf.EncryptionKey)] = true, true
	return true
}

// claim enters a key into a set, unless it is there.
func claim[K comparable](set map[K]bool, k K) bool {
	if set[k] {
		return false
	}
	set[k] = true
	return true
}
