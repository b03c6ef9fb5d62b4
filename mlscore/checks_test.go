package mlscore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"leavebroker/mlscore"
)

// check is something that a member verifies, numbered as in the checklist of
// this project. Every check has a test, or a reason why an observer has none.
type check struct {
	number int
	what   string
	// test changes a valid message in this respect alone, signs it again, and
	// expects its refusal, or a flag where members do not refuse.
	test func(*testing.T)
	// elsewhere names tests of other packages, as directory.Function, relative
	// to the root of the repository.
	elsewhere string
	// hidden says what of it an observer cannot check, and why.
	hidden string
}

var checks = []check{
	// Decoding (RFC 9420, Sections 2.1, 6 and 7)
	{number: 1, what: "lengths are minimal, prefix 11 is refused", test: testVarints, elsewhere: "mlscore/codec.TestVarintRefusals"},
	{number: 2, what: "no bytes are left over, not in known extensions either", test: testTrailingBytes},
	{number: 3, what: "lengths are compared with the input before anything is allocated", test: testLengthsBeforeAllocation, elsewhere: "mlscore/codec.TestHugeLengthAllocatesNothing"},
	{number: 4, what: "version, wire_format and cipher suite are known", test: testVersionAndWireFormat},
	{number: 4, what: "enumerations have no other values than RFC 9420 gives them", test: testUndefinedValues},
	{number: 5, what: "no extension type occurs twice in a list", test: testDuplicateExtensions},
	{number: 6, what: "unknown values are accepted, and kept byte for byte", test: testUnknownValues},
	{number: 7, what: "the last node of ratchet_tree is a leaf and not blank, nodes are at their places", test: testRatchetTreeShape},
	{number: 7, what: "shape of ratchet_tree, node by node", test: mlscore.TestTreeEncodingRefusals},
	{number: 8, what: "unmerged_leaves ascend strictly", test: testUnmergedLeavesAscend},
	// GroupInfo and tree (Sections 7.2, 7.3, 7.8, 7.9.2, 12.4.3)
	{number: 9, what: "a GroupInfo is signed by the leaf of its signer", test: testGroupInfoSigner},
	{number: 10, what: "the tree has the GroupContext's tree_hash", test: testTreeHash},
	{number: 11, what: "every parent is parent-hash valid", test: testParentHashesOfGroupInfo},
	{number: 11, what: "all three criteria, for exactly one descendant", test: mlscore.TestParentHashesRefused},
	{number: 12, what: "unmerged leaves are members below, and unmerged in between", test: testUnmergedLeavesOfGroupInfo},
	{number: 12, what: "unmerged leaves, case by case", test: mlscore.TestUnmergedLeavesRefused},
	{number: 13, what: "encryption and signature keys occur once", test: testKeysOfGroupInfo},
	{number: 13, what: "keys of leaves and parents, case by case", test: mlscore.TestDuplicateKeysRefused},
	{number: 14, what: "every leaf is valid: signature, source, capabilities, credential, extensions, lifetime", test: testLeafValidation},
	{number: 15, what: "external_pub is well formed", test: testExternalPub},
	{number: 16, what: "the confirmation tag of a GroupInfo", test: testConfirmationTagOfGroupInfo,
		hidden: "the tag is a MAC under a group secret: only its length is checked, and a lie shows at the commit after the next"},
	{number: 17, what: "a GroupInfo belongs to the group and is not older than what is stored", test: testGroupInfoEpoch,
		elsewhere: "cmd/leavebroker.TestReplaySecondGroupInfo intents.TestScenarios"},
	// Framing (Section 6)
	{number: 18, what: "group_id and epoch are the current ones", test: testGroupAndEpoch},
	{number: 18, what: "proposals of past epochs are ignored, repeated ones count once", test: testPastProposals},
	{number: 18, what: "not more proposals in one epoch than a limit", test: testProposalsOfAnEpoch},
	{number: 19, what: "a PublicMessage carries a proposal or commit, a PrivateMessage cannot be followed", test: testContentTypes},
	{number: 20, what: "the sender exists and may send what it sends", test: testSenders},
	{number: 21, what: "membership_tag is there for members only, confirmation_tag for commits only, both Nh bytes long", test: testTags,
		hidden: "their values are MACs under group secrets"},
	{number: 22, what: "a content is signed by its sender over the right context", test: testFramingSignatures},
	{number: 23, what: "transcript hashes come from the received bytes and wire_format", test: testTranscript},
	// Proposals (Sections 10.1, 12.1)
	{number: 24, what: "Add: a valid key package of the group's version and suite", test: testAdd},
	{number: 25, what: "Add: keys are unique in the tree that results", test: testKeysOfNewLeaves},
	{number: 26, what: "Update: by its member, not inline, of source update, with another encryption_key", test: testUpdate,
		hidden: "whether a new credential succeeds the old one is for the Authentication Service"},
	{number: 27, what: "Remove: of a leaf that is there", test: testRemove},
	{number: 28, what: "PreSharedKey: length of the nonce, usage", test: testPSK, hidden: "whether members have the key"},
	{number: 29, what: "ReInit: no older version, and nothing after it", test: testReInit},
	{number: 30, what: "GroupContextExtensions: supported by all who stay and all who come", test: testGroupContextExtensions},
	{number: 31, what: "external_senders decodes, and its keys are of the suite", test: testExternalSenders,
		hidden: "credentials are for the Authentication Service"},
	{number: 32, what: "ExternalInit: in external commits only, length of kem_output", test: testExternalInit,
		hidden: "what it decapsulates to is a group secret"},
	{number: 33, what: "SelfRemove: sender", test: testSelfRemoveSender},
	{number: 33, what: "SelfRemove: by reference", test: testSelfRemoveByReference},
	{number: 33, what: "SelfRemove: PublicMessage", test: testSelfRemoveInPublic},
	{number: 33, what: "SelfRemove: once for a leaf, no Remove beside it", test: testSelfRemoveOnce},
	{number: 34, what: "a custom type is supported by all who process the commit", test: testCustomTypesSupported},
	{number: 35, what: "each sender type sends its proposal types only", test: testSenderTypes},
	// The list of a member's commit (Sections 12.2 to 12.4)
	{number: 36, what: "references are of proposals of this epoch, else nobody can tell", test: testReferencesResolve},
	{number: 37, what: "no Update by the committer", test: testCommitterUpdates},
	{number: 38, what: "no removal of the committer", test: testCommitterRemoved},
	{number: 39, what: "one Update, Replace or removal for a leaf", test: testOneProposalForALeaf},
	{number: 40, what: "no client is added twice, or while it is a member", test: testKeysOfNewLeaves,
		hidden: "that two key packages are of one client without sharing a key is for the application"},
	{number: 41, what: "no PreSharedKeyID twice, no reference twice", test: testDuplicates},
	{number: 42, what: "one GroupContextExtensions", test: testOneGroupContextExtensions},
	{number: 43, what: "ReInit stands alone", test: testReInitAlone},
	{number: 44, what: "no ExternalInit", test: testNoExternalInitInMemberCommit},
	{number: 45, what: "proposals are applied in their order, and the tree truncated last", test: testOrderOfApplication},
	{number: 46, what: "a path where a proposal requires it", test: testPathRequired,
		hidden: "whether an unknown type requires one: a commit of it is unresolvable"},
	{number: 47, what: "the leaves that result fit the group that results", test: testFinalTree},
	// UpdatePath (Sections 7.5, 7.6, 7.9 and 12.4.2)
	{number: 48, what: "the path's leaf is valid, of source commit, signed for its place", test: testPathLeaf},
	{number: 49, what: "the path's leaf has another encryption_key than the committer's", test: testPathLeafKey},
	{number: 50, what: "no key of the path is in the tree, or twice in the path", test: testPathKeys},
	{number: 51, what: "the path is as long as the filtered direct path", test: testPathLength},
	{number: 52, what: "the direct path is blanked and filled, the leaf's parent_hash follows", test: testParentHashOfPath},
	{number: 53, what: "as many encrypted path secrets as members need, else a flag", test: testPathSecretCount},
	{number: 54, what: "path secrets decrypt, give the public keys, and the confirmation tag", elsewhere: "mlscore/member.TestSpoiledCommitsAreRefused",
		hidden: "an observer has no key to decrypt with and no secret to derive the tag from; package member checks both"},
	{number: 55, what: "a refused or staged commit leaves the state as it was", test: testStagedState},
	// External commits (Sections 12.2 and 12.4.3.2)
	{number: 56, what: "there is a path, whose leaf's key signed over the current GroupContext", test: testExternalCommitPath},
	{number: 57, what: "exactly one ExternalInit", test: testOneExternalInit},
	{number: 58, what: "at most one Remove", test: testOneRemoveInExternalCommit},
	{number: 59, what: "a resync meets the criteria of an Update of the removed leaf", test: testResync,
		hidden: "whether the credential is acceptable for the removed one is for the application; another one is flagged"},
	{number: 60, what: "no other proposals of RFC 9420 than ExternalInit, Remove and PreSharedKey", test: testExternalCommitTypes},
	{number: 60, what: "no two removals of one leaf", test: testOneRemovalInExternalCommit},
	{number: 61, what: "no references but to SelfRemoves", test: testExternalCommitReferences, elsewhere: "mlscore/member.TestReferencesInExternalCommits"},
	{number: 62, what: "the joiner takes the leftmost blank leaf after removals, and supports the group", test: testJoinersLeaf},
	{number: 63, what: "the joiner's keys are nobody else's who stays", test: testJoinersKeys},
	// In time
	{number: 64, what: "credentials are validated when they come", test: testCredentialsAreTold,
		hidden: "this package asks nobody: staging names the leaves and senders to ask about"},
	{number: 65, what: "our key is looked up in external_senders in every epoch", test: testOwnSenderIndex},
	{number: 66, what: "an intent is bound to the leaf at its index", elsewhere: "intents.TestVectors intents.TestScenarios",
		hidden: "this package knows no intents"},
	{number: 67, what: "never stricter than members: what they accept is accepted, with a flag", test: testAcceptSet},
}

// lastCheck is the number of checks.
const lastCheck = 67

func TestChecks(t *testing.T) { runChecks(t, checks) }

func runChecks(t *testing.T, list []check) {
	for _, c := range list {
		t.Run(fmt.Sprintf("%02d %s", c.number, c.what), func(t *testing.T) {
			if c.test != nil {
				c.test(t)
			}
			for _, name := range regexp.MustCompile(`\S+`).FindAllString(c.elsewhere, -1) {
				requireTest(t, name)
			}
		})
	}
}

// requireTest fails if there is no such test: directory.Function.
func requireTest(t *testing.T, name string) {
	t.Helper()
	parts := regexp.MustCompile(`^(.*)\.(Test\w+)$`).FindStringSubmatch(name)
	if parts == nil {
		t.Fatalf("%q names no test", name)
	}
	files := must(filepath.Glob(filepath.Join("..", parts[1], "*_test.go")))
	declared := regexp.MustCompile(`(?m)^func ` + parts[2] + `\(`)
	for _, file := range files {
		if declared.Match(must(os.ReadFile(file))) {
			return
		}
	}
	t.Errorf("%s has no %s", parts[1], parts[2])
}

// Every number has a row, and every row a test or a reason.
func TestChecksAreComplete(t *testing.T) {
	have := make(map[int]bool)
	for _, c := range checks {
		have[c.number] = true
		if c.test == nil && (c.elsewhere == "" || c.hidden == "") {
			t.Errorf("check %d, %s, has no test here and no reason", c.number, c.what)
		}
	}
	for n := 1; n <= lastCheck; n++ {
		if !have[n] {
			t.Errorf("check %d is missing", n)
		}
	}
	if len(have) != lastCheck {
		t.Errorf("%d numbers, want %d", len(have), lastCheck)
	}
}

// SelfRemove and Replace have rules of their own.
var draftChecks = []check{
	{what: "SelfRemove: by a member", test: testSelfRemoveSender},
	{what: "SelfRemove: by reference only", test: testSelfRemoveByReference},
	{what: "SelfRemove: in a PublicMessage only", test: testSelfRemoveInPublic},
	{what: "SelfRemove: one for a leaf and epoch, no Remove beside it", test: testSelfRemoveOnce},
	{what: "SelfRemove: path required, committer not removed", test: testSelfRemovePath},
	{what: "SelfRemove: after Updates, before Removes and Adds", test: testSelfRemoveOrder},
	{what: "SelfRemove: supported by all who stay", test: testSelfRemoveSupported},
	{what: "SelfRemove: the freed leaf is the joiner's", test: testJoinersLeaf},
	{what: "SelfRemove: beside a resync of the leaf", test: testResyncBesideSelfRemove},
	{what: "SelfRemove: code points", test: testSelfRemoveCodePoints},
	{what: "Replace: by a member, not in external commits, not of the committer", test: testReplaceSender},
	{what: "Replace: of a leaf that is there, signed for it", test: testReplaceTarget},
	{what: "Replace: source, keys, leaf_node_epoch", test: testReplaceLeaf},
	{what: "Replace: no older leaf", test: testReplaceRollback},
	{what: "Replace: one for a leaf, beside nothing else of it", test: testReplaceList},
	{what: "Replace: path required, direct path blanked", test: testReplacePath},
	{what: "Replace: supported by all who stay", test: testReplaceSupported},
	{what: "Replace: a change of the signature key", test: testReplaceSignatureKey},
	{what: "leaf_node_epoch on every leaf", test: testRequireLeafNodeEpoch},
	{what: "Replace: code points", test: testReplaceCodePoints},
	{what: "AppDataUpdate, AppEphemeral and unknown types", test: testAppProposals},
}

func TestDraftChecks(t *testing.T) { runChecks(t, draftChecks) }

// Faults that other implementations had, by the test that would find them here.
var knownBugs = []check{
	{what: "tags compared without their length", test: testTags, elsewhere: "mlscore/member.TestTruncatedTagsAreRefused"},
	{what: "the length of an encoding computed instead of read", test: testVarints},
	{what: "trailing bytes in known extensions", test: testTrailingBytes},
	{what: "off by one at length 0x3fff", test: testLengthsAroundHeaders},
	{what: "GroupContextExtensions changes app_data_dictionary", test: testAppDataProtected},
	{what: "a removed member has to support a custom type", test: testCustomTypesSupported},
	{what: "one PreSharedKeyID twice", test: testDuplicates},
	{what: "Update and Remove of one leaf", test: testOneProposalForALeaf},
	{what: "Remove of a leaf that is not there", test: testRemove},
	{what: "ExternalInit in a member's commit", test: testNoExternalInitInMemberCommit},
	{what: "SelfRemove ignored when the joiner's leaf is chosen", test: testJoinersLeaf},
	{what: "truncation before the Adds", test: testOrderOfApplication},
	{what: "a tree larger than memory", test: testLengthsBeforeAllocation},
	{what: "an expired leaf makes a group unusable", test: testLifetimes},
	{what: "a group before its GroupInfo is verified", test: testNoGroupWithoutVerification},
	{what: "blank root ends the check of parent hashes", test: testForgedParentHashes},
	{what: "null parent_hash accepted", test: testForgedParentHashes},
	{what: "blank root and null parent_hash, in every place", test: mlscore.TestParentHashesRefused},
	{what: "blank intermediate with unmerged leaves", test: mlscore.TestBlankIntermediateWithUnmergedLeaves},
	{what: "nested unmerged leaves everywhere", test: mlscore.TestForgedTreeAgainstModel},
	{what: "unmerged leaves not sorted", test: testUnmergedLeavesAscend},
	{what: "node parity and even length", test: testRatchetTreeShape},
	{what: "leaf index 2^24 and 2^32-1 in messages", test: testSenders},
	{what: "leaf index 2^24 and 2^32-1 in proposals", test: testRemove},
	{what: "node and leaf indexes outside the tree", test: mlscore.TestOutsideTheTree},
	{what: "duplicate keys not found", test: testKeysOfGroupInfo},
	{what: "caches stale after an operation", test: testStaleCaches},
	{what: "caches stale after an operation, against a model", test: mlscore.TestTreeAgainstModel},
	{what: "an old leaf's key still valid", test: testOldLeafKey},
	{what: "version check", test: testVersionAndWireFormat},
	{what: "duplicate extensions", test: testDuplicateExtensions},
	{what: "rules of external commits", test: testExternalCommitTypes},
	{what: "an external proposal that members refuse", test: testExternalProposalRoundTrip},
	{what: "the second commit with references", test: testTwoCommitsWithReferences},
	{what: "external senders send Update or ExternalInit", test: testSenderTypes},
	{what: "no validation of a joined tree", test: testLeafValidation},
	{what: "stale hashes after truncation and growth", test: mlscore.TestTruncateThenGrow},
	{what: "removal of all but one", test: testShrinkToOne},
	{what: "direct path without end", test: mlscore.TestPaths},
	{what: "signature of new_member_proposal not verified", test: testSenders},
	{what: "path too short", test: testPathLength},
	{what: "path keys not compared with parents", test: testPathKeys},
	{what: "keys of a leaf that removes itself not free", test: testKeysOfNewLeaves},
	{what: "required capabilities of removed and added members", test: testGroupContextExtensions},
	{what: "the leaf of an Update not verified", test: testUpdate},
	{what: "quadratic cost of a hostile tree", test: mlscore.TestHostileTrees},
}

func TestKnownBugs(t *testing.T) { runChecks(t, knownBugs) }

// testAcceptSet lets members of one group do everything odd at once that some
// members do not refuse.
func testAcceptSet(t *testing.T) {
	w := newWorld(t, 5)
	w.opts.Time = forever.NotAfter + 1 // every key package has expired
	w.observe()
	if flags := w.group.Flags(); len(flags) != 1 || flags[0] != mlscore.FlagLifetime {
		t.Errorf("flags %q", flags)
	}
	odd := func(n *mlscore.LeafNode) {
		n.Capabilities.Versions, n.Capabilities.CipherSuites = nil, nil
		n.Capabilities.Proposals = append([]mlscore.ProposalType{mlscore.ProposalTypeUpdate}, n.Capabilities.Proposals...)
	}
	w.flagged("an odd commit", w.forge(forge{by: 1, proposals: byValue(w.add(odd)), path: func(p *mlscore.UpdatePath) {
		p.Nodes[0].EncryptedPathSecret = nil
	}}), mlscore.FlagPathSecretCount, mlscore.FlagLifetime, mlscore.FlagDefaultCapability, mlscore.FlagMissingCapability)
}
