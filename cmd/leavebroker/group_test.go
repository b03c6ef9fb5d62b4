package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/keyfile"
)

// testGroup is a group of members whose keys are at hand, as a GroupInfo
// describes it.
type testGroup struct {
	suite   *mlscore.Suite
	info    *mlscore.GroupInfo // without its tree
	tree    *mlscore.RatchetTree
	signers []mlscore.Signer // by leaf
	keys    [][]byte         // their PEM
	broker  mlscore.Signer   // external sender
}

func newTestGroup(suiteID mlscore.CipherSuite, names ...string) (*testGroup, error) {
	suite, err := mlscore.DefaultRegistry().LookupSuite(suiteID)
	if err != nil {
		return nil, err
	}
	g := &testGroup{suite: suite}
	if g.broker, err = mlscore.GenerateSigner(suite.Signature, rand.Reader); err != nil {
		return nil, err
	}
	var edit *mlscore.TreeEdit
	for i, name := range names {
		leaf, err := g.newLeaf(name)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			edit = mlscore.NewRatchetTree(suite, leaf).Edit()
		} else if _, err := edit.Add(leaf); err != nil {
			return nil, err
		}
	}
	g.tree = edit.Tree()
	sender := mlscore.ExternalSender{SignatureKey: g.broker.PublicKey(), Credential: mlscore.BasicCredential([]byte("leavebroker"))}
	g.info = &mlscore.GroupInfo{
		GroupContext: mlscore.GroupContext{
			Version: mlscore.ProtocolVersionMLS10, CipherSuite: suite.ID, GroupID: []byte("a group"), Epoch: 7,
			TreeHash: g.tree.TreeHash(), ConfirmedTranscriptHash: make([]byte, suite.HashLen()),
			Extensions: mlscore.Extensions{{
				Type: mlscore.ExtensionTypeExternalSenders,
				Data: mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{sender}),
			}},
		},
		ConfirmationTag: make([]byte, suite.HashLen()),
	}
	return g, g.info.Sign(g.signers[0])
}

// newLeaf makes the leaf of a new member, and its key.
func (g *testGroup) newLeaf(name string) (*mlscore.LeafNode, error) {
	text, err := keyfile.Generate(g.suite.Signature)
	if err != nil {
		return nil, err
	}
	signer, err := keyfile.Parse(text)
	if err != nil {
		return nil, err
	}
	encryptionKey := make([]byte, 32)
	rand.Read(encryptionKey)
	leaf := &mlscore.LeafNode{
		EncryptionKey: encryptionKey, SignatureKey: signer.PublicKey(), Credential: mlscore.BasicCredential([]byte(name)),
		Capabilities: mlscore.Capabilities{
			Versions:     []mlscore.ProtocolVersion{mlscore.ProtocolVersionMLS10},
			CipherSuites: []mlscore.CipherSuite{g.suite.ID},
			Credentials:  []mlscore.CredentialType{mlscore.CredentialTypeBasic},
		},
		Source: mlscore.LeafNodeSourceKeyPackage, Lifetime: mlscore.Lifetime{NotAfter: 1 << 40},
	}
	g.signers, g.keys = append(g.signers, signer), append(g.keys, text)
	return leaf, leaf.Sign(signer, nil, 0)
}

// infoWithTree is the GroupInfo with the ratchet_tree extension.
func (g *testGroup) infoWithTree() (*mlscore.GroupInfo, error) {
	info := *g.info
	info.Extensions = info.Extensions.With(mlscore.ExtensionTypeRatchetTree, g.tree.Bytes())
	return &info, info.Sign(g.signers[0])
}

func infoMessage(gi *mlscore.GroupInfo) []byte {
	m := mlscore.MLSMessage{WireFormat: mlscore.WireFormatGroupInfo, GroupInfo: gi}
	return m.Bytes()
}

func logLine(message, ratchetTree []byte) string {
	line := map[string][]byte{"mls_message": message}
	if ratchetTree != nil {
		line["ratchet_tree"] = ratchetTree
	}
	b, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	return string(b) + "\n"
}

// setUpGroup writes the files of a group "a group" of suite 1 in epoch 7 with
// alice, bob and carol at leaves 0 to 2 and a broker in external_senders:
//
//	alice.pem … carol.pem       keys of the members
//	mallory.pem, p256.pem       keys of no member
//	group_info.mls              with the tree; group_info_bare.mls without it
//	tree.bin                    the tree
//	log.jsonl                   the GroupInfo, and the broker's Remove of bob
func setUpGroup(dir string) error {
	g, err := newTestGroup(1, "alice", "bob", "carol")
	if err != nil {
		return err
	}
	info, err := g.infoWithTree()
	if err != nil {
		return err
	}
	group, err := mlscore.NewPublicGroup(info, nil, mlscore.Options{})
	if err != nil {
		return err
	}
	remove, err := mlscore.ExternalRemove(group, g.broker, 1)
	if err != nil {
		return err
	}
	mallory, err := keyfile.Generate(mlscore.Ed25519)
	if err != nil {
		return err
	}
	p256, err := keyfile.Generate(mlscore.ECDSAWithP256AndSHA256)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"alice.pem": g.keys[0], "bob.pem": g.keys[1], "carol.pem": g.keys[2], "mallory.pem": mallory, "p256.pem": p256,
		"group_info.mls": infoMessage(info), "group_info_bare.mls": infoMessage(g.info), "tree.bin": g.tree.Bytes(),
		"log.jsonl": []byte(logLine(infoMessage(info), nil) + logLine(remove, nil)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// TestIntentEverySuite: what create makes, verify accepts, for each member in
// each suite, and for the member that made it alone.
func TestIntentEverySuite(t *testing.T) {
	for _, id := range mlscore.DefaultRegistry().Suites() {
		g, err := newTestGroup(id, "alice", "bob", "carol")
		if err != nil {
			t.Fatal(err)
		}
		info := mustWrite(t, "group_info.mls", infoMessage(g.info))
		tree := mustWrite(t, "tree.bin", g.tree.Bytes())
		for i, key := range g.keys {
			code, intent, errOut := run(string(key), "intent", "create", "--key", "-", "--group-info", info, "--ratchet-tree", tree)
			if code != 0 {
				t.Fatalf("suite %d: create exits %d: %s", id, code, errOut)
			}
			code, out, errOut := run(intent, "intent", "verify", "--group-info", info, "--ratchet-tree", tree, "-")
			var v verdict
			if err := json.Unmarshal([]byte(out), &v); err != nil {
				t.Fatal(err)
			}
			if code != 0 || !v.Valid || v.SenderIndex == nil || int(*v.SenderIndex) != i || v.RemovalMode != "sender_removal_only" {
				t.Errorf("suite %d, leaf %d: verify exits %d: %s%s", id, i, code, out, errOut)
			}
			for n := range len(intent) {
				if code, _, _ := run(intent[:n], "intent", "inspect", "-"); code != exitFailure {
					t.Fatalf("the first %d of %d bytes: inspect exits %d", n, len(intent), code)
				}
			}
		}
	}
}

// TestBadGroup: a GroupInfo that a joiner refuses is refused, with exit code 2
// and the reason.
func TestBadGroup(t *testing.T) {
	g, err := newTestGroup(1, "alice", "bob", "carol")
	if err != nil {
		t.Fatal(err)
	}
	resign := func(change func(*mlscore.GroupInfo)) []byte {
		info := *g.info
		change(&info)
		if err := info.Sign(g.signers[0]); err != nil {
			t.Fatal(err)
		}
		return infoMessage(&info)
	}
	wrongSignature := *g.info
	wrongSignature.Signature = bytes.Clone(g.info.Signature)
	wrongSignature.Signature[5] ^= 1
	badLeaf, err := g.newLeaf("dave")
	if err != nil {
		t.Fatal(err)
	}
	badLeaf.Signature[5] ^= 1
	edit := g.tree.Edit()
	if _, err := edit.Add(badLeaf); err != nil {
		t.Fatal(err)
	}
	forged := edit.Tree()
	for name, c := range map[string]struct {
		info, tree []byte
		want       string
	}{
		"no tree":       {infoMessage(g.info), nil, "without its ratchet tree"},
		"signature":     {infoMessage(&wrongSignature), g.tree.Bytes(), "does not verify"},
		"tree hash":     {resign(func(gi *mlscore.GroupInfo) { gi.GroupContext.TreeHash = make([]byte, 32) }), g.tree.Bytes(), "tree_hash"},
		"signer":        {resign(func(gi *mlscore.GroupInfo) { gi.Signer = 9 }), g.tree.Bytes(), "leaf 9"},
		"suite":         {resign(func(gi *mlscore.GroupInfo) { gi.GroupContext.CipherSuite = 77 }), g.tree.Bytes(), "0x004d"},
		"truncated":     {infoMessage(g.info)[:100], g.tree.Bytes(), "malformed"},
		"tree":          {infoMessage(g.info), g.tree.Bytes()[:100], "malformed"},
		"leaf":          {resign(func(gi *mlscore.GroupInfo) { gi.GroupContext.TreeHash = forged.TreeHash() }), forged.Bytes(), "does not verify"},
		"other message": {[]byte("\x00\x01\xf0\xa1"), nil, "not a GroupInfo"},
	} {
		args := []string{"intent", "verify", "--group-info", mustWrite(t, "info", c.info), "-"}
		if c.tree != nil {
			args = append(args, "--ratchet-tree", mustWrite(t, "tree", c.tree))
		}
		code, out, errOut := run("", args...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, c.want) {
			t.Errorf("%s: exit code %d, output %q, error %q, want %q in it", name, code, out, errOut, c.want)
		}
	}
}
