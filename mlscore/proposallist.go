package mlscore

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// checkProposal judges a proposal by itself (RFC 9420, Section 12.1), as far as
// the current epoch tells: what depends on the other proposals of a commit is
// judged with the list.
func (g *PublicGroup) checkProposal(p *Proposal, sender Sender, byRef bool) error {
	switch {
	case p.Type == ProposalTypeAdd:
		return g.checkAdd(p.KeyPackage)
	case p.Type == ProposalTypeUpdate:
		if sender.Type != SenderTypeMember || !byRef {
			return invalid("12.1.2", "an Update by %s, which only its own member may propose", sender.Type)
		}
		return g.checkUpdate(p.LeafNode, sender.LeafIndex, "12.1.2")
	case p.Type == ProposalTypeRemove:
		if g.tree.Leaf(p.Removed) == nil {
			return invalid("12.1.3", "a Remove of leaf %d, which is blank or outside the tree", p.Removed)
		}
	case p.Type == ProposalTypePSK:
		return g.checkPSK(&p.PSK)
	case p.Type == ProposalTypeReInit:
		if p.ReInit.Version < g.context.Version {
			return invalid("12.1.5", "a ReInit to version %d from %d", p.ReInit.Version, g.context.Version)
		}
	case p.Type == ProposalTypeExternalInit:
		if sender.Type != SenderTypeNewMemberCommit {
			return invalid("12.1.6", "an ExternalInit by %s", sender.Type)
		}
		// No member could decapsulate it (Section 8.3).
		if !g.suite.kem().isOutput(p.KEMOutput) {
			return invalid("12.1.6", "kem_output of %d bytes", len(p.KEMOutput))
		}
	case p.Type == ProposalTypeGroupContextExtensions:
		return g.checkAppData(p.Extensions)
	case p.isSelfRemove:
		if sender.Type != SenderTypeMember || !byRef {
			return invalid("draft-ietf-mls-extensions, SelfRemove", "a SelfRemove by %s that is not a member's own proposal by reference", sender.Type)
		}
	case p.isReplace:
		return g.checkReplace(p, sender)
	}
	return nil
}

// checkAppData refuses GroupContextExtensions that touch app_data_dictionary in
// a group whose members are all required to know AppDataUpdate, which alone may
// (draft-ietf-mls-extensions, Updating Application Data in the GroupContext).
func (g *PublicGroup) checkAppData(after Extensions) error {
	required, err := requiredCapabilities(g.context.Extensions)
	if t := g.registry.AppDataUpdate; err != nil || t == 0 || !slices.Contains(required.Proposals, t) {
		return err
	}
	was, before := g.context.Extensions.Find(ExtensionTypeAppDataDictionary)
	is, now := after.Find(ExtensionTypeAppDataDictionary)
	if before != now || !bytes.Equal(was, is) {
		return invalid("draft-ietf-mls-extensions, AppDataUpdate", "a GroupContextExtensions that changes app_data_dictionary")
	}
	return nil
}

// checkAdd judges a key package (RFC 9420, Sections 10.1 and 12.1.1).
func (g *PublicGroup) checkAdd(k *KeyPackage) error {
	switch {
	case k.Version != g.context.Version:
		return invalid("10.1", "a key package of version %d", k.Version)
	case k.CipherSuite != g.context.CipherSuite:
		return invalid("10.1", "a key package of suite 0x%04x in a group of suite 0x%04x", uint16(k.CipherSuite), uint16(g.context.CipherSuite))
	case bytes.Equal(k.InitKey, k.LeafNode.EncryptionKey):
		return invalid("10.1", "init_key and the leaf's encryption_key are equal")
	case k.LeafNode.Source != LeafNodeSourceKeyPackage:
		return invalid("10.1", "a key package whose leaf has source %d", k.LeafNode.Source)
	}
	if err := k.VerifySignature(g.suite); err != nil {
		return err
	}
	return k.LeafNode.VerifySignature(g.suite, nil, 0)
}

// checkUpdate judges the new leaf of an Update or Replace (RFC 9420, Section 7.3).
func (g *PublicGroup) checkUpdate(leaf *LeafNode, index LeafIndex, section string) error {
	current := g.tree.Leaf(index)
	switch {
	case current == nil:
		return invalid(section, "leaf %d is blank or outside the tree", index)
	case leaf.Source != LeafNodeSourceUpdate:
		return invalid("7.3", "a new leaf with source %d", leaf.Source)
	case bytes.Equal(leaf.EncryptionKey, current.EncryptionKey):
		return invalid("7.3", "the new leaf %d keeps its encryption_key", index)
	}
	return leaf.VerifySignature(g.suite, g.context.GroupID, index)
}

// checkPSK judges a PreSharedKeyID (RFC 9420, Sections 8.4 and 12.1.4). Usages
// reinit and branch belong to the first commit of a new group.
func (g *PublicGroup) checkPSK(id *PreSharedKeyID) error {
	if len(id.Nonce) != g.suite.HashLen() {
		return invalid("12.1.4", "psk_nonce of %d bytes, want %d", len(id.Nonce), g.suite.HashLen())
	}
	if id.Type == PSKTypeResumption && id.Usage != ResumptionPSKUsageApplication && g.context.Epoch != 0 {
		return invalid("12.1.4", "a resumption PSK of usage %d in epoch %d", id.Usage, g.context.Epoch)
	}
	return nil
}

const replaceDraft = "draft-barnes-mls-replace, Replace Proposal"

// checkReplace judges a Replace: an Update of any leaf, made later than the
// leaf that it replaces.
func (g *PublicGroup) checkReplace(p *Proposal, sender Sender) error {
	if sender.Type != SenderTypeMember {
		return invalid(replaceDraft, "a Replace by %s", sender.Type)
	}
	if err := g.checkUpdate(p.LeafNode, p.Replaced, replaceDraft); err != nil {
		return err
	}
	made, ok := g.leafNodeEpoch(p.LeafNode)
	if !ok {
		return invalid(replaceDraft, "a new leaf without leaf_node_epoch")
	}
	if made > g.context.Epoch {
		return invalid(replaceDraft, "leaf_node_epoch %d in epoch %d", made, g.context.Epoch)
	}
	if current, ok := g.leafNodeEpoch(g.tree.Leaf(p.Replaced)); ok && made < current {
		return invalid(replaceDraft, "leaf_node_epoch %d of a leaf made in epoch %d", made, current)
	}
	if g.opts.ReplacedSignatureKey == Refuse && g.changesSignatureKey(p) {
		return invalid(replaceDraft, "a Replace of leaf %d changes its signature_key", p.Replaced)
	}
	return nil
}

// leafNodeEpoch reads the leaf_node_epoch extension: a uint64.
func (g *PublicGroup) leafNodeEpoch(leaf *LeafNode) (uint64, bool) {
	t := g.registry.LeafNodeEpoch
	data, ok := leaf.Extensions.Find(t)
	if t == 0 || !ok || len(data) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(data), true
}

// resolve turns the proposals of a commit into proposals with their origin
// (RFC 9420, Section 12.4.2) and judges each by itself.
func (g *PublicGroup) resolve(committer Sender, list []ProposalOrRef) ([]AppliedProposal, error) {
	applied := make([]AppliedProposal, len(list))
	for i, p := range list {
		if p.Proposal != nil {
			applied[i] = AppliedProposal{Proposal: p.Proposal, Sender: committer}
			if err := g.checkProposal(p.Proposal, committer, false); err != nil {
				return nil, err
			}
			var err error
			if applied[i].Expansion, err = g.Expand(p.Proposal); err != nil {
				return nil, err
			}
			continue
		}
		pending := g.pending.find(p.Reference)
		if pending == nil {
			return nil, refuse(ErrUnresolvable, "12.4.2", "the proposal %x is not known", p.Reference)
		}
		if pending.Invalid != nil {
			return nil, pending.Invalid
		}
		applied[i] = AppliedProposal{Proposal: pending.Proposal, Sender: pending.Sender, Ref: pending.Ref, Expansion: pending.Expansion}
	}
	return applied, nil
}

// checkMemberList judges the proposals of a member's commit together
// (RFC 9420, Section 12.2). An ExternalInit was refused by itself: no member may
// propose it.
func checkMemberList(committer LeafIndex, list []AppliedProposal) error {
	targets := make(map[LeafIndex]ProposalType)
	target := func(leaf LeafIndex, t ProposalType) error {
		if leaf == committer {
			return invalid("12.2", "%s of the committer's leaf %d", t, leaf)
		}
		if other, taken := targets[leaf]; taken {
			return invalid("12.2", "both %s and %s of leaf %d", other, t, leaf)
		}
		targets[leaf] = t
		return nil
	}
	psks := make(map[string]bool)
	extensions := false
	for _, a := range list {
		p, err := a.Proposal, error(nil)
		switch {
		case p.Type == ProposalTypeUpdate || p.isSelfRemove:
			err = target(a.Sender.LeafIndex, p.Type)
		case p.Type == ProposalTypeRemove:
			err = target(p.Removed, p.Type)
		case a.Expansion != nil:
			err = each(a.Removes, func(leaf LeafIndex) error { return target(leaf, p.Type) })
		case p.isReplace:
			err = target(p.Replaced, p.Type)
		case p.Type == ProposalTypePSK:
			err = checkNewPSK(psks, &p.PSK)
		case p.Type == ProposalTypeGroupContextExtensions:
			if extensions {
				err = invalid("12.2", "more than one GroupContextExtensions")
			}
			extensions = true
		case p.Type == ProposalTypeReInit:
			if len(list) > 1 {
				err = invalid("12.2", "a ReInit beside %d other proposals", len(list)-1)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func checkNewPSK(seen map[string]bool, id *PreSharedKeyID) error {
	key := string(id.Append(nil))
	if seen[key] {
		return invalid("12.2", "the same PreSharedKeyID twice")
	}
	seen[key] = true
	return nil
}

// checkExternalList judges the proposals of an external commit together
// (RFC 9420, Section 12.2; SelfRemove by draft-ietf-mls-extensions).
func checkExternalList(reg *Registry, list []AppliedProposal) error {
	inits, removes := 0, 0
	psks := make(map[string]bool)
	targets := make(map[LeafIndex]bool)
	target := func(leaf LeafIndex) error {
		if targets[leaf] {
			return invalid("12.2", "more than one removal of leaf %d", leaf)
		}
		targets[leaf] = true
		return nil
	}
	for _, a := range list {
		p, err := a.Proposal, error(nil)
		if (a.Ref != nil) != p.isSelfRemove && !reg.acceptsReference(&a) {
			return invalid("12.4.3.2", "%s in an external commit, by reference: %t", p.Type, a.Ref != nil)
		}
		switch {
		case p.Type == ProposalTypeExternalInit:
			inits++
		case p.Type == ProposalTypeRemove:
			removes++
			err = target(p.Removed)
		case p.Type == ProposalTypePSK:
			err = checkNewPSK(psks, &p.PSK)
		case p.isSelfRemove:
			err = target(a.Sender.LeafIndex)
		case a.Expansion != nil:
			err = each(a.Removes, target)
		default:
			if p.Type.isDefault() || p.isReplace {
				err = invalid("12.2", "%s in an external commit", p.Type)
			}
		}
		if err != nil {
			return err
		}
	}
	if inits != 1 {
		return invalid("12.2", "%d ExternalInit proposals in an external commit", inits)
	}
	if removes > 1 {
		return invalid("12.2", "%d Remove proposals in an external commit", removes)
	}
	return nil
}

// pathRequired says whether a commit of these proposals has to have a path
// (RFC 9420, Section 12.4). The registration of an unknown type would tell; it
// is taken not to need one.
func pathRequired(list []AppliedProposal) bool {
	return len(list) == 0 || slices.ContainsFunc(list, func(a AppliedProposal) bool {
		switch a.Proposal.Type {
		case ProposalTypeUpdate, ProposalTypeRemove, ProposalTypeExternalInit, ProposalTypeGroupContextExtensions:
			return true
		}
		return a.Proposal.isSelfRemove || a.Proposal.isReplace || a.Expansion != nil
	})
}

// checkFollowable refuses proposals whose effect on the GroupContext an
// observer does not know: AppDataUpdate, which applications interpret, and every
// type that is not known here. AppEphemeral has none.
func (g *PublicGroup) checkFollowable(list []AppliedProposal) error {
	for _, a := range list {
		p := a.Proposal
		if p.Type.isDefault() || p.isSelfRemove || p.isReplace || a.Expansion != nil || p.Type.is(g.registry.AppEphemeral) {
			continue
		}
		return refuse(ErrUnresolvable, "12.4.2", "the effect of %s is not known", p.Type)
	}
	return nil
}
