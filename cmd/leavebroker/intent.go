package main

import (
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"leavebroker/intents"
	"leavebroker/mlscore"
)

func newIntent() *cobra.Command {
	return parent(&cobra.Command{
		Use:   "intent",
		Short: "Make, judge and submit LeafOperationIntents",
		Long: `A LeafOperationIntent is the signed statement of a member that it leaves, valid
as long as its leaf is unchanged (draft-kohbrok-mls-leaf-operation-intents).`,
	},
		newIntentCreate(),
		newIntentInspect(),
		newIntentVerify(),
		newIntentSubmit(),
		newIntentStatus(),
		newIntentControl("approve", "Let a held intent go on",
			"Lifts the hold of a guard, of the tenant's policy, or of missed commits in which\nthe sender was lost or may have come back (gap), on an intent."),
		newIntentControl("cancel", "End an intent without a removal",
			"Ends an intent: nothing more is proposed for it."),
	)
}

// intentForm tells how the file of an intent is written.
type intentForm struct {
	bare   bool
	format uint16
}

func (f *intentForm) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.bare, "bare", false, "the file holds a LeafOperationIntent, not an MLSMessage with one")
	cmd.Flags().Uint16Var(&f.format, "wire-format", uint16(intents.DefaultWireFormat), "wire format `N` of the MLSMessage")
	cmd.Flags().Lookup("wire-format").DefValue = fmt.Sprintf("0x%04x", uint16(intents.DefaultWireFormat))
	cmd.MarkFlagsMutuallyExclusive("bare", "wire-format")
}

func (f *intentForm) parse(b []byte) (*intents.LeafOperationIntent, error) {
	if f.bare {
		return intents.Parse(b)
	}
	return intents.ParseMessage(b, mlscore.WireFormat(f.format))
}

func (f *intentForm) encode(in *intents.LeafOperationIntent) []byte {
	if f.bare {
		return in.Bytes()
	}
	return in.Message(mlscore.WireFormat(f.format))
}

// tenantFlag adds --tenant, which is part of an intent's id.
func tenantFlag(cmd *cobra.Command, tenant *string) {
	cmd.Flags().StringVar(tenant, "tenant", "default", "`TENANT` whose id of the intent is printed")
}

// intentCreate are the flags of intent create.
type intentCreate struct {
	key, out   string
	index      uint32
	associated bool
	form       intentForm
	source     groupSource
}

func newIntentCreate() *cobra.Command {
	var c intentCreate
	cmd := &cobra.Command{
		Use:   "create --key PEM (--group-info FILE | --cipher-suite N --group-id HEX --ratchet-tree FILE)",
		Short: "Sign that a member leaves",
		Long: `Signs a LeafOperationIntent with the signature key of the member that leaves and
writes it as an MLSMessage, raw. The member's leaf is the one that has the key.
The intent is void once that leaf changes or is removed.

` + groupSourceHelp,
		Example: "  leavebroker intent create --key alice.pem --group-info group_info.mls --out leave.mls",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.run(cmd) },
	}
	cmd.Flags().StringVar(&c.key, "key", "", "signature key of the member that leaves, a PKCS#8 `PEM` file")
	cmd.Flags().Uint32Var(&c.index, "index", 0, "leaf `INDEX` of the member (default: found by the public key)")
	cmd.Flags().BoolVar(&c.associated, "associated", false, "also remove the members that belong to the same user (remove_associated_members)")
	cmd.Flags().StringVar(&c.out, "out", "-", "write the intent to `FILE`; - is standard output")
	if err := cmd.MarkFlagRequired("key"); err != nil {
		panic("internal error: " + err.Error())
	}
	c.source.register(cmd)
	c.form.register(cmd)
	return cmd
}

func (c *intentCreate) run(cmd *cobra.Command) error {
	if err := oneStandardInput(append(c.source.files(), c.key)...); err != nil {
		return err
	}
	signer, err := loadKey(cmd, c.key)
	if err != nil {
		return err
	}
	group, err := c.source.load(cmd)
	if err != nil {
		return err
	}
	index := mlscore.LeafIndex(c.index)
	if !cmd.Flags().Changed("index") {
		if index, err = group.ownLeaf(signer); err != nil {
			return err
		}
	}
	leaf := group.tree.Leaf(index)
	if leaf == nil {
		return fmt.Errorf("leaf %d is blank or outside the tree of %d leaves", index, group.tree.LeafWidth())
	}
	mode := intents.SenderRemovalOnly
	if c.associated {
		mode = intents.RemoveAssociatedMembers
	}
	in, err := intents.New(signer, group.suite, group.id, index, leaf, mode)
	if err != nil {
		return err
	}
	return writeOutput(cmd, c.out, c.form.encode(in))
}

// inspection is what an intent says.
type inspection struct {
	ID            string `json:"id"`
	GroupID       string `json:"group_id"` // hex, as the other bytes
	SenderIndex   uint32 `json:"sender_index"`
	SenderLeafRef string `json:"sender_leaf_ref"`
	RemovalMode   string `json:"removal_mode"`
	Signature     string `json:"signature"`
}

func newIntentInspect() *cobra.Command {
	var (
		tenant string
		form   intentForm
	)
	cmd := &cobra.Command{
		Use:   "inspect INTENT",
		Short: "Print the fields of an intent, without judging it",
		Long: `Prints one JSON object: {id, group_id, sender_index, sender_leaf_ref,
removal_mode, signature}. Bytes are hex. The id is that of the intent in a
tenant. Nothing is verified.

Exit codes: 0 printed, 1 malformed, 2 the file cannot be read.`,
		Example: "  leavebroker intent inspect leave.mls",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readInput(cmd, args[0])
			if err != nil {
				return err
			}
			in, err := form.parse(b)
			if err != nil {
				return err
			}
			return printJSON(cmd, inspection{
				ID:            in.ID(tenant),
				GroupID:       hex.EncodeToString(in.GroupID),
				SenderIndex:   uint32(in.SenderIndex),
				SenderLeafRef: hex.EncodeToString(in.SenderLeafRef),
				RemovalMode:   in.RemovalMode.String(),
				Signature:     hex.EncodeToString(in.Signature),
			})
		},
	}
	form.register(cmd)
	tenantFlag(cmd, &tenant)
	return cmd
}

// verdict is the outcome of intent verify. What is not known of a malformed
// intent is left out.
type verdict struct {
	Valid       bool    `json:"valid"`
	Reason      string  `json:"reason,omitempty"`
	ID          string  `json:"id,omitempty"`
	SenderIndex *uint32 `json:"sender_index,omitempty"`
	RemovalMode string  `json:"removal_mode,omitempty"`
}

func newIntentVerify() *cobra.Command {
	var (
		tenant string
		form   intentForm
		source groupSource
	)
	cmd := &cobra.Command{
		Use:   "verify (--group-info FILE | --cipher-suite N --group-id HEX --ratchet-tree FILE) INTENT",
		Short: "Judge an intent against the state of its group",
		Long: `Makes the checks of the draft, Section 2.3, in its order, and prints one JSON
object: {valid, reason?, id, sender_index, removal_mode}. Of a malformed intent
only valid and reason are known; the detail of a refusal is on standard error.
Reasons: malformed, unsupported_mode, group_mismatch, leaf_ref_mismatch,
bad_signature.

` + groupSourceHelp + `

Exit codes: 0 valid, 1 not valid, 2 wrong usage or no such group or file.`,
		Example: "  leavebroker intent verify --group-info group_info.mls leave.mls",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneStandardInput(append(source.files(), args[0])...); err != nil {
				return err
			}
			group, err := source.load(cmd)
			if err != nil {
				return err
			}
			b, err := readInput(cmd, args[0])
			if err != nil {
				return err
			}
			var v verdict
			in, err := form.parse(b)
			if err == nil {
				index := uint32(in.SenderIndex)
				v = verdict{ID: in.ID(tenant), SenderIndex: &index, RemovalMode: in.RemovalMode.String()}
				err = in.Verify(group.suite, group.id, group.tree.Leaf)
			}
			v.Valid, v.Reason = err == nil, intents.Reason(err)
			if err := printJSON(cmd, v); err != nil {
				return err
			}
			return err // of the verdict: exit code 1
		},
	}
	source.register(cmd)
	form.register(cmd)
	tenantFlag(cmd, &tenant)
	return cmd
}
