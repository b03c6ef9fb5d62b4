package mlscore

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/mlstest"
)

func mustSuite(t testing.TB, id CipherSuite) *Suite {
	t.Helper()
	suite, err := LookupSuite(id)
	if err != nil {
		t.Fatal(err)
	}
	return suite
}

func mustParseTree(t testing.TB, suite *Suite, b []byte) *RatchetTree {
	t.Helper()
	tree, err := ParseRatchetTree(suite, b)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestTreeValidationVectors(t *testing.T) {
	var cases []struct {
		CipherSuite CipherSuite   `json:"cipher_suite"`
		Tree        mlstest.Hex   `json:"tree"`
		GroupID     mlstest.Hex   `json:"group_id"`
		Resolutions [][]NodeIndex `json:"resolutions"`
		TreeHashes  []mlstest.Hex `json:"tree_hashes"`
	}
	mlstest.JSON(t, "mlswg/tree-validation.json", &cases)
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for n, c := range cases {
		t.Run(fmt.Sprintf("%d-suite%d", n, c.CipherSuite), func(t *testing.T) {
			tree := mustParseTree(t, mustSuite(t, c.CipherSuite), c.Tree)
			if len(c.TreeHashes) != int(NodeWidth(tree.LeafWidth())) {
				t.Fatalf("%d leaves, want %d nodes", tree.LeafWidth(), len(c.TreeHashes))
			}
			for x := range c.TreeHashes {
				if got := tree.NodeHash(NodeIndex(x)); !bytes.Equal(got, c.TreeHashes[x]) {
					t.Errorf("hash of node %d is %x, want %x", x, got, c.TreeHashes[x])
				}
				if got := tree.Resolution(NodeIndex(x)); !slices.Equal(got, c.Resolutions[x]) {
					t.Errorf("resolution of node %d is %v, want %v", x, got, c.Resolutions[x])
				}
			}
			if got := tree.Bytes(); !bytes.Equal(got, c.Tree) {
				t.Errorf("encodes to %x, want %x", got, []byte(c.Tree))
			}
			if err := tree.Verify(c.GroupID); err != nil {
				t.Error(err)
			}
			if tree.VerifyLeafSignatures([]byte("another group")) == nil && anyBound(tree) {
				t.Error("signatures verify for another group")
			}
			checkAgainstModel(t, tree, modelOf(tree))
		})
	}
}

// anyBound says whether the signature of some leaf covers the group.
func anyBound(tree *RatchetTree) bool {
	for _, leaf := range tree.All() {
		if leaf.Source != LeafNodeSourceKeyPackage {
			return true
		}
	}
	return false
}

func TestTreeOperationsVectors(t *testing.T) {
	var cases []struct {
		CipherSuite    CipherSuite `json:"cipher_suite"`
		TreeBefore     mlstest.Hex `json:"tree_before"`
		Proposal       mlstest.Hex `json:"proposal"`
		ProposalSender LeafIndex   `json:"proposal_sender"`
		TreeHashBefore mlstest.Hex `json:"tree_hash_before"`
		TreeAfter      mlstest.Hex `json:"tree_after"`
		TreeHashAfter  mlstest.Hex `json:"tree_hash_after"`
	}
	mlstest.JSON(t, "mlswg/tree-operations.json", &cases)
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for n, c := range cases {
		tree := mustParseTree(t, mustSuite(t, c.CipherSuite), c.TreeBefore)
		if got := tree.TreeHash(); !bytes.Equal(got, c.TreeHashBefore) {
			t.Errorf("case %d: hash before is %x, want %x", n, got, c.TreeHashBefore)
		}
		r := codec.NewReader(c.Proposal)
		p := ReadProposal(r, DefaultRegistry())
		if err := r.Finish(); err != nil {
			t.Fatal(err)
		}
		e := tree.Edit()
		var err error
		switch p.Type {
		case ProposalTypeAdd:
			_, err = e.Add(p.KeyPackage.LeafNode)
		case ProposalTypeUpdate:
			err = e.Update(c.ProposalSender, p.LeafNode)
		case ProposalTypeRemove:
			err = e.Remove(p.Removed)
			e.Truncate()
		default:
			t.Fatalf("case %d: proposal %s", n, p.Type)
		}
		if err != nil {
			t.Fatalf("case %d: %v", n, err)
		}
		after := e.Tree()
		if got := after.TreeHash(); !bytes.Equal(got, c.TreeHashAfter) {
			t.Errorf("case %d: %s gives hash %x, want %x", n, p.Type, got, c.TreeHashAfter)
		}
		if got := after.Bytes(); !bytes.Equal(got, c.TreeAfter) {
			t.Errorf("case %d: %s gives\n%x, want\n%x", n, p.Type, got, []byte(c.TreeAfter))
		}
		if got := tree.Bytes(); !bytes.Equal(got, c.TreeBefore) {
			t.Errorf("case %d: %s changed the old tree", n, p.Type)
		}
	}
}

func TestTreeKEMVectors(t *testing.T) {
	var cases []struct {
		CipherSuite CipherSuite `json:"cipher_suite"`
		GroupID     mlstest.Hex `json:"group_id"`
		RatchetTree mlstest.Hex `json:"ratchet_tree"`
		UpdatePaths []struct {
			Sender        LeafIndex   `json:"sender"`
			UpdatePath    mlstest.Hex `json:"update_path"`
			TreeHashAfter mlstest.Hex `json:"tree_hash_after"`
		} `json:"update_paths"`
	}
	mlstest.JSON(t, "mlswg/treekem.json", &cases)
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for n, c := range cases {
		suite := mustSuite(t, c.CipherSuite)
		tree := mustParseTree(t, suite, c.RatchetTree)
		if err := tree.Verify(c.GroupID); err != nil {
			t.Errorf("case %d: %v", n, err)
		}
		for _, u := range c.UpdatePaths {
			r := codec.NewReader(u.UpdatePath)
			path := ReadUpdatePath(r)
			if err := r.Finish(); err != nil {
				t.Fatal(err)
			}
			if err := path.LeafNode.VerifySignature(suite, c.GroupID, u.Sender); err != nil {
				t.Errorf("case %d: sender %d: %v", n, u.Sender, err)
			}
			checkMerge(t, tree, u.Sender, path, u.TreeHashAfter, c.GroupID)
			if !bytes.Equal(tree.Bytes(), c.RatchetTree) {
				t.Fatalf("case %d: sender %d: the old tree changed", n, u.Sender)
			}
		}
	}
}

func checkMerge(t *testing.T, tree *RatchetTree, sender LeafIndex, path *UpdatePath, wantHash, groupID []byte) {
	t.Helper()
	e := tree.Edit()
	if err := e.MergePath(sender, path); err != nil {
		t.Errorf("sender %d: %v", sender, err)
		return
	}
	after := e.Tree()
	if got := after.TreeHash(); !bytes.Equal(got, wantHash) {
		t.Errorf("sender %d: hash %x, want %x", sender, got, wantHash)
	}
	if err := after.Verify(groupID); err != nil {
		t.Errorf("sender %d: %v", sender, err)
	}
	checkAgainstModel(t, after, modelOf(after))
	for name, broken := range map[string]UpdatePath{
		"no nodes":       {LeafNode: path.LeafNode},
		"one node more":  {LeafNode: path.LeafNode, Nodes: append(slices.Clone(path.Nodes), UpdatePathNode{EncryptionKey: []byte("key")})},
		"another key":    {LeafNode: path.LeafNode, Nodes: withKey(path.Nodes, len(path.Nodes)-1, []byte("key"))},
		"no parent_hash": {LeafNode: &LeafNode{Source: LeafNodeSourceCommit}, Nodes: path.Nodes},
	} {
		if err := tree.Edit().MergePath(sender, &broken); Reason(err) != "invalid" {
			t.Errorf("sender %d: %s: %v", sender, name, err)
		}
	}
}

func withKey(nodes []UpdatePathNode, i int, key []byte) []UpdatePathNode {
	nodes = slices.Clone(nodes)
	nodes[i].EncryptionKey = key
	return nodes
}
