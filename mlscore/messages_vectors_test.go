package mlscore

import (
	"testing"

	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/mlstest"
)

// messageKinds says what the fields of messages.json hold. Proposals stand
// there without their type. group_secrets are a member's.
var messageKinds = map[string]struct {
	kind     string
	proposal ProposalType
}{
	"mls_welcome":                       {kind: "MLSMessage"},
	"mls_group_info":                    {kind: "MLSMessage"},
	"mls_key_package":                   {kind: "MLSMessage"},
	"ratchet_tree":                      {kind: "RatchetTree"},
	"add_proposal":                      {"Proposal", ProposalTypeAdd},
	"update_proposal":                   {"Proposal", ProposalTypeUpdate},
	"remove_proposal":                   {"Proposal", ProposalTypeRemove},
	"pre_shared_key_proposal":           {"Proposal", ProposalTypePSK},
	"re_init_proposal":                  {"Proposal", ProposalTypeReInit},
	"external_init_proposal":            {"Proposal", ProposalTypeExternalInit},
	"group_context_extensions_proposal": {"Proposal", ProposalTypeGroupContextExtensions},
	"commit":                            {kind: "Commit"},
	"public_message_application":        {kind: "MLSMessage"},
	"public_message_proposal":           {kind: "MLSMessage"},
	"public_message_commit":             {kind: "MLSMessage"},
	"private_message":                   {kind: "MLSMessage"},
}

func TestMessagesVectors(t *testing.T) {
	var cases []map[string]mlstest.Hex
	mlstest.JSON(t, "mlswg/messages.json", &cases)
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for n, c := range cases {
		for field, m := range messageKinds {
			sample, ok := c[field]
			if !ok {
				t.Fatalf("case %d has no %s", n, field)
			}
			if m.proposal != 0 {
				sample = append(codec.AppendUint16(nil, uint16(m.proposal)), sample...)
			}
			checkRoundTrip(t, m.kind, sample)
			if n%10 == 0 {
				checkNothingElse(t, m.kind, sample)
			}
		}
	}
}

func TestSamples(t *testing.T) {
	all := samples()
	for kind := range decoders {
		if len(all[kind]) == 0 {
			t.Errorf("no sample of %s", kind)
		}
		for _, sample := range all[kind] {
			checkRoundTrip(t, kind, sample)
			checkNothingElse(t, kind, sample)
		}
	}
}

// A message of a wire format that RFC 9420 does not know is kept as it is.
func TestUnknownWireFormat(t *testing.T) {
	checkRoundTrip(t, "MLSMessage", []byte{0, 1, 0xf0, 0xa1, 1, 2, 3})
	for name, b := range map[string][]byte{
		"version 0": {0, 0, 0, 5}, "version 2": {0, 2, 0, 5, 0}, "wire_format 0": {0, 1, 0, 0},
	} {
		if _, err := ParseMLSMessage(b, nil); Reason(err) != "malformed" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
