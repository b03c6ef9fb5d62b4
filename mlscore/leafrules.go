package mlscore

import (
	"bytes"
	"slices"
)

// leafRules judges leaves and GroupContext extensions against each other
// (RFC 9420, Sections 7.2, 7.3, 11.1 and 13.4): of a whole group, or after a
// commit of what it changed.
type leafRules struct {
	*PublicGroup // whose suite and options hold; its tree and extensions are not used
	extensions   Extensions
	required     RequiredCapabilities
	members      *RatchetTree
	inUse        []CredentialType
	kem          kemLengths
	found        *flags
}

func (g *PublicGroup) rulesFor(extensions Extensions, members *RatchetTree, found *flags) (*leafRules, error) {
	required, err := requiredCapabilities(extensions)
	if err != nil {
		return nil, err
	}
	return &leafRules{g, extensions, required, members, members.CredentialTypesInUse(), g.suite.kem(), found}, nil
}

// requiredCapabilities are those of a GroupContext; none if it has none.
func requiredCapabilities(extensions Extensions) (RequiredCapabilities, error) {
	data, ok := extensions.Find(ExtensionTypeRequiredCapabilities)
	if !ok {
		return RequiredCapabilities{}, nil
	}
	required, err := ParseRequiredCapabilities(data)
	required.Extensions = distinct(required.Extensions)
	required.Proposals = distinct(required.Proposals)
	required.Credentials = distinct(required.Credentials)
	return required, err
}

// distinct sorts a list and drops what occurs again.
func distinct[T ~uint16](list []T) []T {
	slices.Sort(list)
	return slices.Compact(list)
}

// checkGroup judges the extensions of a GroupContext against all members and
// gives the external senders (RFC 9420, Sections 11.1, 12.1.7, 12.1.8.1 and
// 13.4).
func (r *leafRules) checkGroup() ([]ExternalSender, error) {
	for i := range r.extensions {
		if t := r.extensions[i].Type; !r.members.SupportsExtension(t) {
			return nil, invalid("13.4", "a member does not support the GroupContext's extension 0x%04x", uint16(t))
		}
	}
	for _, t := range r.required.Extensions {
		if !r.members.SupportsExtension(t) {
			return nil, invalid("11.1", "a member does not support the required extension 0x%04x", uint16(t))
		}
	}
	for _, t := range r.required.Proposals {
		if !r.members.SupportsProposal(t) {
			return nil, invalid("11.1", "a member does not support the required proposal type %s", t)
		}
	}
	for _, t := range r.required.Credentials {
		if !r.members.SupportsCredential(t) {
			return nil, invalid("11.1", "a member does not support the required credential type 0x%04x", uint16(t))
		}
	}
	r.found.addIf(misplaced(r.extensions, ExtensionTypeRequiredCapabilities, ExtensionTypeExternalSenders), FlagMisplacedExtension)
	return r.externalSenders()
}

// externalSenders decodes the list, which may be empty. Whether credentials are
// good is for the Authentication Service to say.
func (r *leafRules) externalSenders() ([]ExternalSender, error) {
	data, ok := r.extensions.Find(ExtensionTypeExternalSenders)
	if !ok {
		return nil, nil
	}
	senders, err := ParseExternalSenders(data)
	for i := range senders {
		r.found.addIf(r.suite.CheckSignatureKey(senders[i].SignatureKey) != nil, FlagExternalSenderKey)
	}
	return senders, err
}

// checkLeaves judges all leaves.
func (r *leafRules) checkLeaves() error {
	found := make([]flags, r.members.batches())
	err := r.opts.Parallel.check(len(found), func(batch int) error {
		rules := *r
		rules.found = &found[batch]
		for index, leaf := range r.members.batch(batch) {
			if err := rules.checkLeaf(index, leaf); err != nil {
				return err
			}
		}
		return nil
	})
	for _, flag := range slices.Concat(found...) {
		r.found.add(flag)
	}
	return err
}

// checkLeaf judges a leaf against the group that it is in (RFC 9420, Section
// 7.3): its extensions and credential, and what the group needs.
func (r *leafRules) checkLeaf(index LeafIndex, leaf *LeafNode) error {
	c := &leaf.Capabilities
	supportsExtension := lookup(c.Extensions, c.SupportsExtension)
	for i := range leaf.Extensions {
		if t := leaf.Extensions[i].Type; !supportsExtension(t) {
			return invalid("7.3", "leaf %d has the extension 0x%04x, which its capabilities do not list", index, uint16(t))
		}
	}
	for i := range r.extensions {
		if t := r.extensions[i].Type; !supportsExtension(t) {
			return invalid("13.4", "leaf %d does not support the GroupContext's extension 0x%04x", index, uint16(t))
		}
	}
	if !c.meets(&r.required) {
		return invalid("11.1", "leaf %d lacks a required capability", index)
	}
	if !r.members.SupportsCredential(leaf.Credential.Type) {
		return invalid("7.3", "a member does not support the credential type 0x%04x of leaf %d", uint16(leaf.Credential.Type), index)
	}
	for _, t := range r.inUse {
		if !c.SupportsCredential(t) {
			return invalid("7.3", "leaf %d does not support the credential type 0x%04x, which is in use", index, uint16(t))
		}
	}
	if err := r.checkLifetime(index, leaf); err != nil {
		return err
	}
	if _, ok := r.leafNodeEpoch(leaf); !ok && r.opts.RequireLeafNodeEpoch {
		return invalid("draft-barnes-mls-replace, Security Considerations", "leaf %d has no leaf_node_epoch", index)
	}
	r.flagLeaf(leaf)
	return nil
}

// checkLifetime judges by the time of the options. Only a leaf of a key package
// has a lifetime (RFC 9420, Section 7.2).
func (r *leafRules) checkLifetime(index LeafIndex, leaf *LeafNode) error {
	now, life := r.opts.Time, leaf.Lifetime
	if leaf.Source != LeafNodeSourceKeyPackage || now == 0 || life.NotBefore <= now && now <= life.NotAfter {
		return nil
	}
	if r.opts.Lifetimes == Refuse {
		return invalid("7.3", "leaf %d is valid from %d to %d, and it is %d", index, life.NotBefore, life.NotAfter, now)
	}
	r.found.add(FlagLifetime)
	return nil
}

// flagLeaf looks for what RFC 9420 forbids and members do not refuse.
func (r *leafRules) flagLeaf(leaf *LeafNode) {
	c := &leaf.Capabilities
	r.found.addIf(slices.ContainsFunc(c.Extensions, ExtensionType.isDefault) ||
		slices.ContainsFunc(c.Proposals, ProposalType.isDefault), FlagDefaultCapability)
	r.found.addIf(!slices.Contains(c.Versions, r.context.Version) ||
		!slices.Contains(c.CipherSuites, r.context.CipherSuite), FlagMissingCapability)
	_, shared := r.members.FindSignatureKey(leaf.EncryptionKey)
	r.found.addIf(shared, FlagSharedKey)
	r.found.addIf(!r.kem.isPublicKey(leaf.EncryptionKey), FlagEncryptionKey)
	r.found.addIf(misplaced(leaf.Extensions, ExtensionTypeApplicationID), FlagMisplacedExtension)
	if t := r.registry.LeafNodeEpoch; t != 0 {
		data, ok := leaf.Extensions.Find(t)
		r.found.addIf(ok && len(data) != 8, FlagLeafNodeEpoch)
	}
}

// flagGroupInfo looks at the extensions of a GroupInfo.
func (g *PublicGroup) flagGroupInfo(extensions Extensions) {
	g.flags.addIf(misplaced(extensions, ExtensionTypeRatchetTree, ExtensionTypeExternalPub), FlagMisplacedExtension)
	if data, ok := extensions.Find(ExtensionTypeExternalPub); ok {
		key, _ := cutOpaque(data)
		g.flags.addIf(!g.suite.kem().isPublicKey(key), FlagExternalPub)
	}
}

// misplaced says whether a list has an extension of RFC 9420 that is not one of
// those that belong there (RFC 9420, Section 17.3).
func misplaced(extensions Extensions, belong ...ExtensionType) bool {
	return slices.ContainsFunc(extensions, func(x Extension) bool {
		return x.Type.isDefault() && !slices.Contains(belong, x.Type)
	})
}

func (c *Capabilities) meets(required *RequiredCapabilities) bool {
	return all(required.Extensions, lookup(c.Extensions, c.SupportsExtension)) &&
		all(required.Proposals, lookup(c.Proposals, c.SupportsProposal)) &&
		all(required.Credentials, lookup(c.Credentials, c.SupportsCredential))
}

// lookup is what asks whether a list has something. A long list is sorted first:
// two long ones must not cost their product.
func lookup[T ~uint16](list []T, is func(T) bool) func(T) bool {
	if len(list) < 64 {
		return is
	}
	sorted := slices.Sorted(slices.Values(list))
	return func(v T) bool {
		_, found := slices.BinarySearch(sorted, v)
		return found || is(v) // a default one; there are few
	}
}

func all[T any](list []T, is func(T) bool) bool {
	return !slices.ContainsFunc(list, func(x T) bool { return !is(x) })
}

// changesSignatureKey says whether a Replace gives a leaf another signature_key.
func (g *PublicGroup) changesSignatureKey(p *Proposal) bool {
	current := g.tree.Leaf(p.Replaced)
	return current != nil && !bytes.Equal(current.SignatureKey, p.LeafNode.SignatureKey)
}
