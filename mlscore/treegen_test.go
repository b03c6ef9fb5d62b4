package mlscore

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// testGroup makes trees that members would accept: every leaf signed, every
// parent hash in place. It draws everything from one seed.
type testGroup struct {
	t       testing.TB
	suite   *Suite
	groupID []byte
	tree    *RatchetTree
	random  *rand.ChaCha8
	signers map[LeafIndex]Signer
}

// newTestGroup is a group of n members after one commit by member 0.
func newTestGroup(t testing.TB, suite *Suite, n int) *testGroup {
	g := &testGroup{
		t: t, suite: suite, groupID: []byte("test group"),
		random: rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}), signers: make(map[LeafIndex]Signer),
	}
	g.tree = NewRatchetTree(suite, g.leaf(0, LeafNodeSourceKeyPackage))
	e := g.tree.Edit()
	for i := 1; i < n; i++ {
		g.add(e)
	}
	g.commit(e, 0)
	return g
}

// merge lets every second member commit, which fills every parent.
func (g *testGroup) merge() {
	for i := LeafIndex(0); int(i) < int(g.tree.LeafWidth()); i += 2 {
		if g.tree.LeafBytes(i) != nil {
			g.commit(g.tree.Edit(), i)
		}
	}
}

// key is a new encryption key, as long as a key of the suite's signatures.
func (g *testGroup) key(size int) []byte {
	key := make([]byte, size)
	g.random.Read(key)
	return key
}

// leaf is a new leaf node for a place, signed unless its source is commit, and
// a new signature key.
func (g *testGroup) leaf(i LeafIndex, source LeafNodeSource) *LeafNode {
	signer, err := GenerateSigner(g.suite.Signature, g.random)
	if err != nil {
		g.t.Fatal(err)
	}
	g.signers[i] = signer
	leaf := &LeafNode{
		EncryptionKey: g.key(len(signer.PublicKey())),
		SignatureKey:  signer.PublicKey(),
		Credential:    BasicCredential(fmt.Appendf(nil, "member-%d@example.com", i)),
		Capabilities: Capabilities{
			Versions:     []ProtocolVersion{ProtocolVersionMLS10},
			CipherSuites: []CipherSuite{g.suite.ID},
			Proposals:    []ProposalType{0x000a},
			Credentials:  []CredentialType{CredentialTypeBasic},
		},
		Source: source,
	}
	if source == LeafNodeSourceKeyPackage {
		leaf.Lifetime = Lifetime{NotBefore: 1700000000, NotAfter: 1800000000}
	}
	if source != LeafNodeSourceCommit {
		g.sign(leaf, i)
	}
	return leaf
}

func (g *testGroup) sign(leaf *LeafNode, i LeafIndex) {
	if err := leaf.Sign(g.signers[i], g.groupID, i); err != nil {
		g.t.Fatal(err)
	}
}

func (g *testGroup) add(e *TreeEdit) LeafIndex {
	i, err := e.Add(g.leaf(e.LeftmostBlank(), LeafNodeSourceKeyPackage))
	if err != nil {
		g.t.Fatal(err)
	}
	return i
}

// path is an UpdatePath of a committer over the state of an edit.
func (g *testGroup) path(e *TreeEdit, committer LeafIndex) *UpdatePath {
	leaf := g.leaf(committer, LeafNodeSourceCommit)
	path := &UpdatePath{LeafNode: leaf}
	var keys [][]byte
	for range e.FilteredDirectPath(committer) {
		keys = append(keys, g.key(len(leaf.EncryptionKey)))
		path.Nodes = append(path.Nodes, UpdatePathNode{EncryptionKey: keys[len(keys)-1]})
	}
	var err error
	if leaf.ParentHash, err = e.PathParentHash(committer, keys); err != nil {
		g.t.Fatal(err)
	}
	g.sign(leaf, committer)
	return path
}

// commit ends an edit with a path and makes it the group's tree.
func (g *testGroup) commit(e *TreeEdit, committer LeafIndex) {
	if err := e.MergePath(committer, g.path(e, committer)); err != nil {
		g.t.Fatal(err)
	}
	g.tree = e.Tree()
}

// remove takes members out and lets another commit that.
func (g *testGroup) remove(committer LeafIndex, members ...LeafIndex) {
	e := g.tree.Edit()
	for _, i := range members {
		if err := e.Remove(i); err != nil {
			g.t.Fatal(err)
		}
	}
	e.Truncate()
	g.commit(e, committer)
}

func (g *testGroup) verify() {
	g.t.Helper()
	if err := g.tree.Verify(g.groupID); err != nil {
		g.t.Fatal(err)
	}
}
