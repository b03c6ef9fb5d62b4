package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"leavebroker/intents"
	"leavebroker/mlscore"
)

const groupSourceHelp = `The group is given by a GroupInfo, an MLSMessage whose ratchet_tree extension or
--ratchet-tree holds the tree; signature, tree hash, parent hashes and every leaf
are then verified. Or it is given by its cipher suite, its id and its tree (the
body of the ratchet_tree extension), whose structure alone is checked: the tree
must then come from somebody you trust.`

// groupSource are the flags that give the state of a group.
type groupSource struct {
	groupInfo, ratchetTree string
	suite                  uint16
	groupID                []byte
}

func (s *groupSource) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.groupInfo, "group-info", "", "MLSMessage `FILE` with the GroupInfo of the group")
	cmd.Flags().StringVar(&s.ratchetTree, "ratchet-tree", "", "`FILE` with the ratchet tree, the body of the ratchet_tree extension")
	cmd.Flags().Uint16Var(&s.suite, "cipher-suite", 0, "cipher suite `N` of the group, "+suiteNumbers)
	cmd.Flags().BytesHexVar(&s.groupID, "group-id", nil, "group_id of the group, in `HEX`")
	cmd.MarkFlagsOneRequired("group-info", "cipher-suite")
	cmd.MarkFlagsMutuallyExclusive("group-info", "cipher-suite")
	cmd.MarkFlagsMutuallyExclusive("group-info", "group-id")
	cmd.MarkFlagsRequiredTogether("cipher-suite", "group-id")
}

// files lists the input files, for oneStandardInput.
func (s *groupSource) files() []string { return []string{s.groupInfo, s.ratchetTree} }

// groupState is what intents are made and judged against.
type groupState struct {
	suite *mlscore.Suite
	id    []byte
	tree  *mlscore.RatchetTree
}

// load reads the group. Its error ends the command with exitUsage.
func (s *groupSource) load(cmd *cobra.Command) (*groupState, error) {
	var tree []byte
	if s.ratchetTree != "" {
		var err error
		if tree, err = readInput(cmd, s.ratchetTree); err != nil {
			return nil, err
		}
	}
	if s.groupInfo != "" {
		return s.loadGroupInfo(cmd, tree)
	}
	if s.ratchetTree == "" {
		return nil, usageError("--cipher-suite wants --ratchet-tree beside it")
	}
	suite, err := toolRegistry().LookupSuite(mlscore.CipherSuite(s.suite))
	if err != nil {
		return nil, usageError("%v", err)
	}
	parsed, err := mlscore.ParseRatchetTree(suite, tree)
	if err != nil {
		return nil, unreadable(fmt.Errorf("%s: %w", s.ratchetTree, err))
	}
	return &groupState{suite, s.groupID, parsed}, nil
}

// loadGroupInfo reads the group from a GroupInfo, with its tree beside it or nil.
func (s *groupSource) loadGroupInfo(cmd *cobra.Command, tree []byte) (*groupState, error) {
	b, err := readInput(cmd, s.groupInfo)
	if err != nil {
		return nil, err
	}
	m, err := mlscore.ParseMLSMessage(b, nil)
	if err != nil {
		return nil, unreadable(fmt.Errorf("%s: %w", s.groupInfo, err))
	}
	if m.GroupInfo == nil {
		return nil, unreadable(fmt.Errorf("%s: an MLSMessage of wire_format 0x%04x, not a GroupInfo", s.groupInfo, uint16(m.WireFormat)))
	}
	group, err := mlscore.NewPublicGroup(m.GroupInfo, tree, mlscore.Options{Registry: toolRegistry()})
	if err != nil {
		return nil, unreadable(fmt.Errorf("%s: %w", s.groupInfo, err))
	}
	return &groupState{group.Suite(), group.GroupID(), group.Tree()}, nil
}

// ownLeaf finds the leaf that has a signer's public key.
func (g *groupState) ownLeaf(signer mlscore.Signer) (mlscore.LeafIndex, error) {
	index, ok := g.tree.FindSignatureKey(signer.PublicKey())
	if !ok {
		return 0, fmt.Errorf("no leaf has the public key %x: this is not the key of a member", signer.PublicKey())
	}
	return index, nil
}

// suiteNumbers are the numbers of the suites that commands know.
const suiteNumbers = "1 to 7, or 0xf001 to 0xf00b (post-quantum)"

// memberSuiteNumbers are those that package member can use.
const memberSuiteNumbers = "1 to 7, or 0xf001, 0xf002, 0xf006 to 0xf00b"

// suiteNumber is the number of a suite as people write it: those of private
// use in hex.
func suiteNumber(id uint16) string {
	if id < 0xf000 {
		return fmt.Sprint(id)
	}
	return fmt.Sprintf("0x%04x", id)
}

// toolRegistry has the default code points, for commands that know no tenant.
func toolRegistry() *mlscore.Registry {
	reg := mlscore.DefaultRegistry()
	reg.Custom = []mlscore.CustomProposal{intents.DefaultCodePoints().CustomProposal()}
	return reg
}
