package mlscore_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

func testGroupInfoSigner(t *testing.T) {
	w := newWorld(t, 5)
	w.flagsInfo("by another member", func(gi *mlscore.GroupInfo) { gi.Signer = 4 })
	w.refusesInfo("a signer outside the tree", func(gi *mlscore.GroupInfo) { gi.Signer = 1<<32 - 1 }, mlscore.ErrInvalid, "12.4.3")
	w.refusesInfo("a blank signer", func(gi *mlscore.GroupInfo) { gi.Signer = 6 }, mlscore.ErrInvalid, "12.4.3")
	gi := w.info(nil)
	must(0, gi.Sign(w.signer(1)))
	_, err := w.starts(gi)
	w.isRefusal("signed by another than the signer", err, mlscore.ErrInvalid, "5.1.2")
}

func testTreeHash(t *testing.T) {
	w := newWorld(t, 5)
	wrong := func(gi *mlscore.GroupInfo) { gi.GroupContext.TreeHash[7] ^= 1 }
	w.refusesInfo("another tree_hash", wrong, mlscore.ErrInvalid, "7.8")
	_, err := mlscore.NewPublicGroupWithTree(w.info(wrong), w.group.Tree(), mlscore.Options{})
	w.isRefusal("another tree_hash for a verified tree", err, mlscore.ErrInvalid, "7.8")
	if _, err := mlscore.NewPublicGroupWithTree(w.info(nil), w.group.Tree(), mlscore.Options{}); err != nil {
		t.Error(err)
	}
}

// A parent key that no committer made: every leaf, the tree hash and the
// GroupInfo are signed and right.
func testParentHashesOfGroupInfo(t *testing.T) {
	w := newWorld(t, 5)
	tree := w.group.Tree().Bytes()
	for x := mlscore.NodeIndex(1); x < 15; x += 2 {
		parent := w.group.Tree().Parent(x)
		if parent == nil {
			continue
		}
		encoded := bytes.Replace(tree, parent.EncryptionKey, w.key(), 1)
		spoilt := must(mlscore.ParseRatchetTree(w.group.Suite(), encoded))
		w.refusesInfo("another parent key", withTree(spoilt), mlscore.ErrInvalid, "7.9.2")
	}
}

// An Add that nobody put into the unmerged leaves of its ancestors is no
// violation of Section 12.4.3.1; one that is unmerged too high alone is.
func testUnmergedLeavesOfGroupInfo(t *testing.T) {
	w := newWorld(t, 6) // parents 5, 3 and 7
	add := byValue(member.Add(w.keyPackage(nil)))
	remove := w.accepts("a Remove", w.forge(forge{by: 3, proposals: byValue(member.Remove(1))}))
	w.group = remove.Next()
	tree := w.accepts("an Add", w.forge(forge{by: 5, noPath: true, proposals: add})).Next().Tree()
	w.flagsInfo("as it is", withTree(tree))
	for _, x := range []mlscore.NodeIndex{3, 7} {
		parent := tree.Parent(x)
		if parent == nil || !slices.Equal(parent.UnmergedLeaves, []mlscore.LeafIndex{1}) {
			t.Fatalf("node %d is %v", x, parent)
		}
		merged := *parent
		merged.UnmergedLeaves = nil
		encoded := bytes.Replace(tree.Bytes(), parent.Append(nil), merged.Append(nil), 1)
		// The length of the whole is one vector's: rebuild it.
		spoilt := must(mlscore.ParseRatchetTree(w.group.Suite(), relength(encoded)))
		section := "12.4.3.1"
		if x == 7 {
			section = "7.9.2" // the resolution below the root has one leaf too many
		}
		w.refusesInfo("an unmerged leaf that is not in between", withTree(spoilt), mlscore.ErrInvalid, section)
	}
}

func testKeysOfGroupInfo(t *testing.T) {
	w := buildWorld(t, 4, nil, nil)
	w.flagsInfo("as it is", withTree(w.withLeaf(2, func(*mlscore.LeafNode) {})))
	other := w.group.Tree().Leaf(1)
	w.refusesInfo("two leaves with one encryption_key", withTree(w.withLeaf(2, func(n *mlscore.LeafNode) {
		n.EncryptionKey = other.EncryptionKey
	})), mlscore.ErrInvalid, "7.3")

	twin := *w.group.Tree().Leaf(2)
	twin.SignatureKey = other.SignatureKey
	must(0, twin.Sign(w.signer(1), nil, 0))
	e := w.group.Tree().Edit()
	must(0, e.SetLeaf(2, &twin))
	w.refusesInfo("two leaves with one signature_key", withTree(e.Tree()), mlscore.ErrInvalid, "7.3")

	w.flagsInfo("one key for both purposes", withTree(w.withLeaf(2, func(n *mlscore.LeafNode) {
		n.EncryptionKey = n.SignatureKey
	})), mlscore.FlagSharedKey)
	w.flagsInfo("the signature_key of another", withTree(w.withLeaf(2, func(n *mlscore.LeafNode) {
		n.EncryptionKey = other.SignatureKey
	})), mlscore.FlagSharedKey)
	w.flagsInfo("no key of the KEM", withTree(w.withLeaf(2, func(n *mlscore.LeafNode) {
		n.EncryptionKey = n.EncryptionKey[1:]
	})), mlscore.FlagEncryptionKey)

	p := newWorld(t, 4) // a parent and a leaf, both within one valid path
	key := p.group.Tree().Leaf(0).EncryptionKey
	p.refuses("a leaf's key in a parent", p.forge(forge{by: 1, keys: func(keys [][]byte) { keys[len(keys)-1] = key }}), mlscore.ErrInvalid, "12.4.2")
}

// leafCase is a leaf that is wrong in one respect, or odd in one.
type leafCase struct {
	what    string
	change  func(*mlscore.LeafNode)
	section string // of the refusal; empty where it is accepted
	flag    string
}

const strange = 0x0a0a

// leafCases do not depend on how the leaf came into the group.
var leafCases = []leafCase{
	{what: "an extension that capabilities list", change: func(n *mlscore.LeafNode) {
		n.Extensions = n.Extensions.With(strange, nil)
		n.Capabilities.Extensions = append(slices.Clone(n.Capabilities.Extensions), strange)
	}},
	{what: "an extension that capabilities do not list", section: "7.3", change: func(n *mlscore.LeafNode) {
		n.Extensions = n.Extensions.With(strange, nil)
	}},
	{what: "a credential of a type that capabilities do not list", section: "7.3", change: func(n *mlscore.LeafNode) {
		n.Capabilities.Credentials = []mlscore.CredentialType{mlscore.CredentialTypeX509}
	}},
	{what: "a credential of a type that others do not list", section: "7.3", change: func(n *mlscore.LeafNode) {
		n.Credential = mlscore.Credential{Type: strange}
		n.Capabilities.Credentials = append(slices.Clone(n.Capabilities.Credentials), strange)
	}},
	{what: "no capability for a credential type in use", section: "7.3", change: func(n *mlscore.LeafNode) {
		n.Credential = mlscore.Credential{Type: mlscore.CredentialTypeX509}
		n.Capabilities.Credentials = []mlscore.CredentialType{mlscore.CredentialTypeX509}
	}},
	{what: "a default proposal type in capabilities", flag: mlscore.FlagDefaultCapability, change: func(n *mlscore.LeafNode) {
		n.Capabilities.Proposals = append(slices.Clone(n.Capabilities.Proposals), mlscore.ProposalTypeAdd)
	}},
	{what: "a default extension type in capabilities", flag: mlscore.FlagDefaultCapability, change: func(n *mlscore.LeafNode) {
		n.Capabilities.Extensions = append(slices.Clone(n.Capabilities.Extensions), mlscore.ExtensionTypeExternalSenders)
	}},
	{what: "no cipher suites", flag: mlscore.FlagMissingCapability, change: func(n *mlscore.LeafNode) { n.Capabilities.CipherSuites = nil }},
	{what: "no versions", flag: mlscore.FlagMissingCapability, change: func(n *mlscore.LeafNode) { n.Capabilities.Versions = nil }},
	{what: "an application_id", change: func(n *mlscore.LeafNode) {
		n.Extensions = n.Extensions.With(mlscore.ExtensionTypeApplicationID, []byte{1, 'x'})
	}},
	{what: "external_senders in a leaf", flag: mlscore.FlagMisplacedExtension, change: func(n *mlscore.LeafNode) {
		n.Extensions = n.Extensions.With(mlscore.ExtensionTypeExternalSenders, []byte{0})
	}},
	{what: "leaf_node_epoch of nine bytes", flag: mlscore.FlagLeafNodeEpoch, change: func(n *mlscore.LeafNode) {
		n.Extensions = n.Extensions.With(mlscore.DefaultRegistry().LeafNodeEpoch, make([]byte, 9))
	}},
}

// Every leaf of a GroupInfo, an Add, an Update and a path is judged alike.
func testLeafValidation(t *testing.T) {
	for _, c := range leafCases {
		t.Run(c.what, func(t *testing.T) {
			flat := buildWorld(t, 4, nil, nil)
			var flags []string
			if c.flag != "" {
				flags = []string{c.flag}
			}
			info := withTree(flat.withLeaf(2, c.change))
			if c.section != "" {
				flat.refusesInfo("in a GroupInfo", info, mlscore.ErrInvalid, c.section)
			} else {
				flat.flagsInfo("in a GroupInfo", info, flags...)
			}
			w := newWorld(t, 4)
			for what, message := range map[string][]byte{
				"in an Add":    w.forge(forge{by: 1, proposals: byValue(w.add(c.change))}),
				"in a path":    w.forge(forge{by: 1, leaf: c.change}),
				"in an Update": w.forge(forge{by: 1, proposals: []mlscore.ProposalOrRef{w.pend(w.by(3), updateWith(w.update(3, c.change)))}}),
			} {
				if c.section != "" {
					w.refuses(what, message, mlscore.ErrInvalid, c.section)
				} else {
					w.flagged(what, message, flags...)
				}
			}
		})
	}
	t.Run("signatures", testLeafSignatures)
	t.Run("sources", testLeafSources)
	t.Run("group", testLeafFitsGroup)
	t.Run("lifetime", testLifetimes)
}

func testLeafSignatures(t *testing.T) {
	w := buildWorld(t, 4, nil, nil)
	leaf := *w.group.Tree().Leaf(2)
	leaf.Source = mlscore.LeafNodeSourceUpdate
	for _, c := range []struct {
		what    string
		groupID string
		index   mlscore.LeafIndex
		by      mlscore.LeafIndex
		right   bool
	}{
		{"its own place", "group", 2, 2, true}, {"another leaf", "group", 1, 2, false},
		{"another group", "other", 2, 2, false}, {"another's key", "group", 2, 1, false},
	} {
		must(0, leaf.Sign(w.signer(c.by), []byte(c.groupID), c.index))
		e := w.group.Tree().Edit()
		must(0, e.SetLeaf(2, &leaf))
		if c.right {
			w.flagsInfo(c.what, withTree(e.Tree()))
		} else {
			w.refusesInfo(c.what, withTree(e.Tree()), mlscore.ErrInvalid, "7.3")
		}
	}
}

func testLeafSources(t *testing.T) {
	w := newWorld(t, 4)
	good := w.update(3, nil).Bytes()
	at := bytes.Index(good, w.group.Tree().Leaf(3).Credential.Bytes())
	if at < 0 {
		t.Fatal("no credential")
	}
	for _, source := range []mlscore.LeafNodeSource{0, 4} {
		w.refuses("a leaf of an unknown source", w.proposal(w.by(3), updateWith(w.update(3, func(n *mlscore.LeafNode) { n.Source = source }))), mlscore.ErrMalformed, "")
	}
	w.refusesProposal("an Update of source key_package", w.by(3), updateWith(w.update(3, func(n *mlscore.LeafNode) {
		n.Source = mlscore.LeafNodeSourceKeyPackage
	})), mlscore.ErrInvalid, "7.3")
	w.refusesProposal("an Update of source commit", w.by(3), updateWith(w.update(3, func(n *mlscore.LeafNode) {
		n.Source = mlscore.LeafNodeSourceCommit
	})), mlscore.ErrInvalid, "7.3")
}

// The capabilities of a leaf against required_capabilities and the extensions
// of the GroupContext.
func testLeafFitsGroup(t *testing.T) {
	required := mlscore.RequiredCapabilities{
		Extensions: []mlscore.ExtensionType{0xff01}, Proposals: []mlscore.ProposalType{0xff02}, Credentials: []mlscore.CredentialType{0xff03},
	}
	able := member.DefaultCapabilities(mlscore.DefaultRegistry())
	able.Extensions = append(able.Extensions, 0xff01, 0xff04)
	able.Proposals = append(able.Proposals, 0xff02)
	able.Credentials = append(able.Credentials, 0xff03)
	build := func() *world {
		return buildWorld(t, 4, func(c *member.Client) { c.Capabilities = &able }, mlscore.Extensions{
			{Type: mlscore.ExtensionTypeRequiredCapabilities, Data: required.Append(nil)}, {Type: 0xff04},
		})
	}
	w := build()
	for what, c := range map[string]struct {
		drop    func(*mlscore.Capabilities)
		section string
	}{
		"required extension":  {func(c *mlscore.Capabilities) { c.Extensions = []mlscore.ExtensionType{0xff04} }, "11.1"},
		"required proposal":   {func(c *mlscore.Capabilities) { c.Proposals = nil }, "11.1"},
		"required credential": {func(c *mlscore.Capabilities) { c.Credentials = c.Credentials[:2] }, "11.1"},
		"group's extension":   {func(c *mlscore.Capabilities) { c.Extensions = []mlscore.ExtensionType{0xff01} }, "13.4"},
	} {
		change := func(n *mlscore.LeafNode) { n.Capabilities = able; c.drop(&n.Capabilities) }
		w.refusesInfo("no "+what+", in a GroupInfo", withTree(w.withLeaf(2, change)), mlscore.ErrInvalid, c.section)
		w.refuses("no "+what+", in an Add", w.forge(forge{by: 1, proposals: byValue(w.add(change))}), mlscore.ErrInvalid, c.section)
		w.refuses("no "+what+", in a path", w.forge(forge{by: 1, leaf: change}), mlscore.ErrInvalid, c.section)
	}
	w.flagged("all there", w.forge(forge{by: 1, proposals: byValue(w.add(func(n *mlscore.LeafNode) { n.Capabilities = able }))}))
}

func testLifetimes(t *testing.T) {
	life := mlscore.Lifetime{NotBefore: 100, NotAfter: 200}
	w := newWorld(t, 4)
	add := w.forge(forge{by: 1, proposals: byValue(w.add(func(n *mlscore.LeafNode) { n.Lifetime = life }))})
	flat := buildWorld(t, 4, nil, nil)
	info := withTree(flat.withLeaf(2, func(n *mlscore.LeafNode) { n.Lifetime = life }))
	for _, policy := range []mlscore.Policy{mlscore.Report, mlscore.Refuse} {
		for _, c := range []struct {
			time   uint64
			inside bool
		}{{0, true}, {99, false}, {100, true}, {200, true}, {201, false}} {
			flat.opts = mlscore.Options{Time: c.time, Lifetimes: policy}
			w.opts = mlscore.Options{Lifetimes: policy}
			w.observe()
			w.group = w.group.At(c.time)
			switch {
			case c.inside:
				w.flagged("inside", add)
				flat.flagsInfo("inside", info)
			case policy == mlscore.Report:
				w.flagged("outside", add, mlscore.FlagLifetime)
				flat.flagsInfo("outside", info, mlscore.FlagLifetime)
			default:
				w.refuses("outside", add, mlscore.ErrInvalid, "7.3")
				flat.refusesInfo("outside", info, mlscore.ErrInvalid, "7.3")
			}
		}
	}
}

func testExternalPub(t *testing.T) {
	w := newWorld(t, 4)
	with := func(data []byte) func(*mlscore.GroupInfo) {
		return func(gi *mlscore.GroupInfo) {
			gi.Extensions = gi.Extensions.With(mlscore.ExtensionTypeExternalPub, data)
		}
	}
	w.flagsInfo("another key", with(append([]byte{32}, w.key()...)))
	w.flagsInfo("too short a key", with(append([]byte{31}, w.key()[1:]...)), mlscore.FlagExternalPub)
	w.refusesInfo("no vector", with(w.key()[:5]), mlscore.ErrMalformed, "")
	w.flagsInfo("external_senders beside the GroupContext", func(gi *mlscore.GroupInfo) {
		gi.Extensions = gi.Extensions.With(mlscore.ExtensionTypeExternalSenders, []byte{0})
	}, mlscore.FlagMisplacedExtension)
}

// A wrong confirmation tag of a GroupInfo cannot be seen, but it goes into the
// transcript: the commit after the next shows it.
func testConfirmationTagOfGroupInfo(t *testing.T) {
	w := newWorld(t, 4)
	w.group = w.flagsInfo("a wrong tag", func(gi *mlscore.GroupInfo) { gi.ConfirmationTag[3] ^= 1 })
	for _, n := range []int{0, 31, 33} {
		w.refusesInfo("a tag of another length", func(gi *mlscore.GroupInfo) { gi.ConfirmationTag = make([]byte, n) }, mlscore.ErrMalformed, "6.1")
	}
	first := must(w.members[1].Commit(member.CommitOptions{})).Message
	w.everybody(first)
	w.group = w.accepts("the next commit", first).Next()
	second := must(w.members[1].Commit(member.CommitOptions{})).Message
	w.refuses("the commit after it", second, mlscore.ErrDiverged, "6.1")
}

// The epoch of a GroupInfo is a matter of its signature alone: what came before
// is for those to compare who keep it. Only a new group has no transcript.
func testGroupInfoEpoch(t *testing.T) {
	w := newWorld(t, 4)
	w.refusesInfo("no confirmed_transcript_hash", func(gi *mlscore.GroupInfo) { gi.GroupContext.ConfirmedTranscriptHash = nil }, mlscore.ErrMalformed, "8.2")
	alone := buildWorld(t, 1, nil, nil)
	if alone.group.Epoch() != 0 || alone.group.Proven() {
		t.Errorf("epoch %d, proven: %t", alone.group.Epoch(), alone.group.Proven())
	}
	gi := w.info(nil)
	gi.Extensions = nil
	must(0, gi.Sign(w.signer(0)))
	if _, err := w.starts(gi); !errors.Is(err, mlscore.ErrUnresolvable) {
		t.Errorf("without a tree: %v", err)
	}
}
