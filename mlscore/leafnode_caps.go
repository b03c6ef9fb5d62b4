package mlscore

import "slices"

// SupportsCredential says whether the capabilities list a credential type.
func (c *Capabilities) SupportsCredential(t CredentialType) bool {
	return slices.Contains(c.Credentials, t)
}

// SupportsExtension says whether the capabilities list an extension type, or
// it is one that every client supports (RFC 9420, Section 7.2).
func (c *Capabilities) SupportsExtension(t ExtensionType) bool {
	return t.isDefault() || slices.Contains(c.Extensions, t)
}

// SupportsProposal says whether the capabilities list a proposal type, or it
// is one that every client supports (RFC 9420, Section 7.2).
func (c *Capabilities) SupportsProposal(t ProposalType) bool {
	return t.isDefault() || slices.Contains(c.Proposals, t)
}
