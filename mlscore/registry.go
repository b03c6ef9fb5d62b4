package mlscore

import (
	"fmt"
	"slices"
)

// Registry holds the code points that are not fixed by RFC 9420, as one
// deployment uses them. They decide how bytes are read, so everything that
// decodes a proposal takes a Registry. A zero code point means that the
// deployment does not use the thing.
type Registry struct {
	// SelfRemove is the proposal type of draft-ietf-mls-extensions: 0x000a;
	// 0x0008 in draft-mahy-mls-selfremove-00, which leaves AppDataUpdate none.
	SelfRemove ProposalType
	// Replace is the proposal type of draft-barnes-mls-replace.
	Replace ProposalType
	// LeafNodeEpoch is the extension type of draft-barnes-mls-replace.
	LeafNodeEpoch ExtensionType
	// AppDataUpdate and AppEphemeral are proposal types of
	// draft-ietf-mls-extensions.
	AppDataUpdate ProposalType
	AppEphemeral  ProposalType
	// Custom are further proposal types whose bodies have a shape of their
	// own. A type that is not known at all is read as one opaque<V>.
	Custom []CustomProposal
	// CipherSuites are suites beside those of RFC 9420, each under a number of
	// its own (NewSuite).
	CipherSuites []Suite
}

// DefaultRegistry has the code points used where none are configured.
func DefaultRegistry() *Registry {
	return &Registry{
		SelfRemove:    0x000a,
		Replace:       0xf0a2,
		LeafNodeEpoch: 0xf0a3,
		AppDataUpdate: 0x0008,
		AppEphemeral:  0x0009,
		CipherSuites:  slices.Clone(draftSuites[:]),
	}
}

// Validate refuses a registry in which one value has two meanings.
func (reg *Registry) Validate() error {
	names := make(map[ProposalType]string)
	for t := ProposalTypeAdd; t <= ProposalTypeGroupContextExtensions; t++ {
		names[t] = "RFC 9420"
	}
	claim := func(t ProposalType, name string) error {
		if t == 0 {
			return nil
		}
		if other, taken := names[t]; taken {
			return fmt.Errorf("proposal type 0x%04x means both %s and %s", uint16(t), other, name)
		}
		names[t] = name
		return nil
	}
	for _, c := range []struct {
		t    ProposalType
		name string
	}{
		{reg.SelfRemove, "self_remove"}, {reg.Replace, "replace"},
		{reg.AppDataUpdate, "app_data_update"}, {reg.AppEphemeral, "app_ephemeral"},
	} {
		if err := claim(c.t, c.name); err != nil {
			return err
		}
	}
	for _, c := range reg.Custom {
		if err := claim(c.Type, "a custom proposal"); err != nil {
			return err
		}
	}
	if reg.LeafNodeEpoch.isDefault() {
		return fmt.Errorf("extension type 0x%04x means both RFC 9420 and leaf_node_epoch", uint16(reg.LeafNodeEpoch))
	}
	if reg.LeafNodeEpoch == ExtensionTypeAppDataDictionary && reg.AppDataUpdate != 0 {
		return fmt.Errorf("extension type 0x%04x means both app_data_dictionary and leaf_node_epoch", uint16(reg.LeafNodeEpoch))
	}
	return reg.validateSuites()
}

// custom finds the shape of a custom proposal.
func (reg *Registry) custom(t ProposalType) *CustomProposal {
	for i := range reg.Custom {
		if reg.Custom[i].Type == t {
			return &reg.Custom[i]
		}
	}
	return nil
}
