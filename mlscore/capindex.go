package mlscore

import (
	"bytes"
	"cmp"
	"slices"
)

// capIndex counts the members that support a thing, and those that use a
// credential type: what "every member supports it" is answered from. It is
// ascending by what is counted, never changed in place, and short: groups
// mostly agree on what they support.
type capIndex []capCount

type capCount struct {
	what    capability
	members uint32
}

// capability is a capKind in the upper half and a registry value in the lower.
type capability uint32

const (
	capExtension capability = iota << 16
	capProposal
	capCredential
	capCredentialInUse
)

// members counts the members of whom a capability is true.
func (c capIndex) members(what capability) int {
	if i, ok := c.find(what); ok {
		return int(c[i].members)
	}
	return 0
}

func (c capIndex) find(what capability) (int, bool) {
	return slices.BinarySearchFunc(c, what, func(x capCount, what capability) int { return cmp.Compare(x.what, what) })
}

// with is the index after changes to its counts.
func (c capIndex) with(change map[capability]int) capIndex {
	var changes []capCount // counts modulo 2^32
	for what, n := range change {
		if n != 0 {
			changes = append(changes, capCount{what, uint32(n)})
		}
	}
	if len(changes) == 0 {
		return c
	}
	slices.SortFunc(changes, func(a, b capCount) int { return cmp.Compare(a.what, b.what) })
	out := make(capIndex, 0, len(c)+len(changes))
	for len(c) > 0 || len(changes) > 0 {
		var next capCount
		switch {
		case len(changes) == 0 || len(c) > 0 && c[0].what < changes[0].what:
			next, c = c[0], c[1:]
		case len(c) == 0 || changes[0].what < c[0].what:
			next, changes = changes[0], changes[1:]
		default:
			next = capCount{c[0].what, c[0].members + changes[0].members}
			c, changes = c[1:], changes[1:]
		}
		if next.members != 0 {
			out = append(out, next)
		}
	}
	return slices.Clip(out)
}

// countCapabilities adds n members like a leaf to a change.
func countCapabilities(change map[capability]int, leaf *LeafNode, n int) {
	countDistinct(change, capExtension, leaf.Capabilities.Extensions, n)
	countDistinct(change, capProposal, leaf.Capabilities.Proposals, n)
	countDistinct(change, capCredential, leaf.Capabilities.Credentials, n)
	change[capCredentialInUse|capability(leaf.Credential.Type)] += n
}

// countDistinct counts each value of a list once, however often it is listed.
func countDistinct[T ~uint16](change map[capability]int, kind capability, list []T, n int) {
	sorted := slices.Sorted(slices.Values(list))
	for _, v := range slices.Compact(sorted) {
		change[kind|capability(v)] += n
	}
}

// sameCapabilities says whether two encoded leaves count alike.
func sameCapabilities(a, b []byte) bool {
	credentialA, capabilitiesA := capabilitiesOf(a)
	credentialB, capabilitiesB := capabilitiesOf(b)
	return credentialA == credentialB && bytes.Equal(capabilitiesA, capabilitiesB)
}

// SupportsCredential says whether every member's capabilities list a
// credential type.
func (t *RatchetTree) SupportsCredential(c CredentialType) bool {
	return t.caps.members(capCredential|capability(c)) == t.Members()
}

// SupportsExtension says whether every member's capabilities list an extension
// type, or it is one that every client supports (RFC 9420, Section 7.2).
func (t *RatchetTree) SupportsExtension(x ExtensionType) bool {
	return x.isDefault() || t.caps.members(capExtension|capability(x)) == t.Members()
}

// SupportsProposal says whether every member's capabilities list a proposal
// type, or it is one that every client supports (RFC 9420, Section 7.2).
func (t *RatchetTree) SupportsProposal(p ProposalType) bool {
	return p.isDefault() || t.proposalSupporters(p) == t.Members()
}

// proposalSupporters counts the members whose capabilities list a proposal type.
func (t *RatchetTree) proposalSupporters(p ProposalType) int {
	return t.caps.members(capProposal | capability(p))
}

// CredentialTypesInUse lists the credential types of the members' credentials,
// ascending.
func (t *RatchetTree) CredentialTypesInUse() []CredentialType {
	from, _ := t.caps.find(capCredentialInUse)
	var types []CredentialType
	for _, c := range t.caps[from:] {
		types = append(types, CredentialType(c.what))
	}
	return types
}
