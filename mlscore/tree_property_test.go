package mlscore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// treeWalk makes random changes to a tree and to its model alike.
type treeWalk struct {
	t      *testing.T
	rng    *rand.Rand
	suite  *Suite
	tree   *RatchetTree
	model  *treeModel
	serial int
	most   int // members
}

// leaf is a new leaf node; the tree does not look at signatures.
func (w *treeWalk) leaf(source LeafNodeSource) *LeafNode {
	w.serial++
	leaf := &LeafNode{
		EncryptionKey: fmt.Appendf(nil, "encryption %d", w.serial),
		SignatureKey:  fmt.Appendf(nil, "signature %d", w.serial),
		Credential:    BasicCredential(fmt.Appendf(nil, "%d", w.serial)),
		Capabilities: Capabilities{
			Extensions:  []ExtensionType{0x0a0a, 0xffff},
			Proposals:   []ProposalType{8, 0xf0a2, 8},
			Credentials: []CredentialType{1, 2},
		},
		Source: source, Signature: []byte("unsigned"),
	}
	switch w.rng.IntN(12) {
	case 0:
		leaf.Capabilities.Extensions = nil
	case 1:
		leaf.Capabilities.Proposals = []ProposalType{0x0a0a}
	case 2:
		leaf.Credential = Credential{Type: 0xffff, Unknown: []byte("unknown")}
	case 3:
		leaf.Capabilities.Credentials = []CredentialType{1, 1, 0xffff}
	}
	return leaf
}

func (w *treeWalk) member() LeafIndex {
	for {
		i := LeafIndex(w.rng.IntN(int(w.model.width())))
		if w.model.nodes[2*i].leaf != nil {
			return i
		}
	}
}

func (w *treeWalk) members() int {
	n := 0
	for _, node := range w.model.nodes {
		if node.leaf != nil {
			n++
		}
	}
	return n
}

// step makes one change and says which.
func (w *treeWalk) step(e *TreeEdit) string {
	members := w.members()
	switch op := w.rng.IntN(10); {
	case op < 4 && members < w.most || members == 1:
		leaf := w.leaf(LeafNodeSourceKeyPackage)
		got, err := e.Add(leaf)
		if want := w.model.add(leaf.Bytes()); err != nil || got != want {
			w.t.Fatalf("added at %d, %v; want %d", got, err, want)
		}
		return "add"
	case op < 6:
		i := w.member()
		if err := e.Remove(i); err != nil {
			w.t.Fatal(err)
		}
		w.model.remove(i)
		return fmt.Sprintf("remove %d", i)
	case op < 7:
		i, leaf := w.member(), w.leaf(LeafNodeSourceUpdate)
		if err := e.Update(i, leaf); err != nil {
			w.t.Fatal(err)
		}
		w.model.update(i, leaf.Bytes())
		return fmt.Sprintf("update %d", i)
	case op < 8:
		e.Truncate()
		w.model.truncate()
		return "truncate"
	case op == 8 && members < w.most:
		i := e.LeftmostBlank()
		if uint32(i) == w.model.width() {
			w.model.extend()
		}
		w.merge(e, i)
		return fmt.Sprintf("external commit %d", i)
	default:
		i := w.member()
		w.merge(e, i)
		return fmt.Sprintf("commit %d", i)
	}
}

// merge merges the UpdatePath of a committer. The model says what its
// parent_hash has to be.
func (w *treeWalk) merge(e *TreeEdit, i LeafIndex) {
	path := &UpdatePath{LeafNode: w.leaf(LeafNodeSourceCommit)}
	var keys [][]byte
	for range w.model.filtered(i) {
		w.serial++
		keys = append(keys, fmt.Appendf(nil, "encryption %d", w.serial))
		path.Nodes = append(path.Nodes, UpdatePathNode{EncryptionKey: keys[len(keys)-1]})
	}
	path.LeafNode.ParentHash = w.model.setPath(i, keys)
	w.model.nodes[2*i].leaf = path.LeafNode.Bytes()
	if got, err := e.PathParentHash(i, keys); err != nil || !bytes.Equal(got, path.LeafNode.ParentHash) {
		w.t.Fatalf("committer %d: parent hash %x, %v; want %x", i, got, err, path.LeafNode.ParentHash)
	}
	if err := e.MergePath(i, path); err != nil {
		w.t.Fatal(err)
	}
}

// checkEdit compares what an unfinished edit answers.
func (w *treeWalk) checkEdit(e *TreeEdit) {
	w.t.Helper()
	i := w.member()
	if got, want := e.FilteredDirectPath(i), w.model.filtered(i); !slices.Equal(got, want) {
		w.t.Fatalf("edit: filtered direct path of %d is %v, want %v", i, got, want)
	}
	root := Root(w.model.width())
	if got, want := e.Resolution(root), w.model.resolution(root); !slices.Equal(got, want) {
		w.t.Fatalf("edit: resolution of the root is %v, want %v", got, want)
	}
	if e.Members() != w.members() || e.LeftmostBlank() != w.model.leftmostBlank() {
		w.t.Fatalf("edit: %d members, leftmost blank %d", e.Members(), e.LeftmostBlank())
	}
	leaf, err := ParseLeafNode(w.model.nodes[2*i].leaf)
	if err != nil {
		w.t.Fatal(err)
	}
	if got, ok := e.FindEncryptionKey(leaf.EncryptionKey); !ok || got != i.NodeIndex() {
		w.t.Fatalf("edit: encryption key of leaf %d is found at node %d, %v", i, got, ok)
	}
	if got, ok := e.FindSignatureKey(leaf.SignatureKey); !ok || got != i {
		w.t.Fatalf("edit: signature key of leaf %d is found at %d, %v", i, got, ok)
	}
}

func (w *treeWalk) checkAbsent(old []byte) {
	w.t.Helper()
	if x, ok := w.tree.FindEncryptionKey(old); ok {
		w.t.Fatalf("%q is found at node %d", old, x)
	}
}

// TestTreeAgainstModel changes trees at random, several changes to an edit, and
// compares them after each edit with a model that shares and remembers nothing.
func TestTreeAgainstModel(t *testing.T) {
	for _, run := range []struct {
		suite CipherSuite
		most  int
		edits int
	}{{1, 3, 300}, {7, 9, 300}, {5, 20, 200}, {1, 70, 150}, {2, 300, 60}} {
		t.Run(fmt.Sprintf("suite%d-most%d", run.suite, run.most), func(t *testing.T) {
			t.Parallel()
			w := &treeWalk{t: t, rng: rand.New(rand.NewPCG(uint64(run.suite), uint64(run.most))), suite: mustSuite(t, run.suite), most: run.most}
			w.walk(run.edits)
		})
	}
}

func (w *treeWalk) walk(edits int) {
	first := w.leaf(LeafNodeSourceKeyPackage)
	w.tree = NewRatchetTree(w.suite, first)
	w.model = &treeModel{w.suite, []modelNode{{leaf: first.Bytes()}}}
	e := w.tree.Edit()
	for range w.rng.IntN(w.most) {
		leaf := w.leaf(LeafNodeSourceKeyPackage)
		w.model.add(leaf.Bytes())
		if _, err := e.Add(leaf); err != nil {
			w.t.Fatal(err)
		}
	}
	w.tree = e.Tree()
	type past struct {
		tree  *RatchetTree
		model *treeModel
	}
	var history []past
	for n := range edits {
		history = append(history, past{w.tree, w.model.clone()})
		gone := w.tree.EncryptionKeyOf(w.member().NodeIndex())
		e := w.tree.Edit()
		var log []string
		for range 1 + w.rng.IntN(4) {
			log = append(log, w.step(e))
			w.checkEdit(e)
			if w.rng.IntN(8) == 0 {
				log = append(log, "tree")
				e.Tree()
			}
		}
		w.tree = e.Tree()
		w.t.Logf("edit %d: %v: %d members of %d", n, log, w.tree.Members(), w.tree.LeafWidth())
		checkAgainstModel(w.t, w.tree, w.model)
		if !bytes.Contains(w.model.encode(), gone) {
			w.checkAbsent(gone)
		}
		if w.most < 100 {
			w.checkVerdicts()
		}
	}
	for _, p := range history[len(history)/2:] {
		checkAgainstModel(w.t, p.tree, p.model)
	}
}

// checkVerdicts verifies the tree, which was made by the rules, and compares
// the verdict on spoilt copies of it with the model's.
func (w *treeWalk) checkVerdicts() {
	w.t.Helper()
	if err := w.tree.VerifyUnmergedLeaves(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.tree.VerifyUniqueKeys(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.tree.VerifyParentHashes(); err != nil || !w.model.parentHashValid() {
		w.t.Fatalf("parent hashes: %v, the model says %v", err, w.model.parentHashValid())
	}
	for range 3 {
		spoilt := w.model.clone()
		w.spoil(spoilt)
		tree := mustParseTree(w.t, w.suite, spoilt.encode())
		good, want := tree.VerifyUnmergedLeaves() == nil, spoilt.unmergedValid()
		if good != want {
			w.t.Fatalf("unmerged leaves are %v, want %v", good, want)
		}
		if !good {
			continue
		}
		if err := tree.VerifyParentHashes(); (err == nil) != spoilt.parentHashValid() {
			w.t.Fatalf("parent hashes: %v, the model says %v", err, err != nil)
		}
	}
}

// spoil changes one thing in a tree, which may or may not matter. The last node
// stays a leaf.
func (w *treeWalk) spoil(m *treeModel) {
	x := w.rng.IntN(len(m.nodes))
	p := m.nodes[x].parent
	leaf := LeafIndex(w.rng.IntN(int(m.width())))
	switch w.rng.IntN(5) {
	case 0:
		m.nodes[2*w.member()].leaf = w.leaf(LeafNodeSourceKeyPackage).Bytes()
	case 1:
		if p != nil {
			m.nodes[x].parent = nil
		}
	case 2:
		if p != nil {
			p.UnmergedLeaves = slices.DeleteFunc(p.UnmergedLeaves, func(i LeafIndex) bool { return w.rng.IntN(2) == 0 })
		}
	case 3:
		if p != nil && !slices.Contains(p.UnmergedLeaves, leaf) {
			p.UnmergedLeaves = append(p.UnmergedLeaves, leaf)
			slices.Sort(p.UnmergedLeaves)
		}
	case 4:
		if p != nil {
			p.ParentHash = []byte{}
		}
	}
}

// TestParseIsTheSameTree: what an edit makes and what its encoding decodes to
// answer alike, caches included.
func TestParseIsTheSameTree(t *testing.T) {
	g := newTestGroup(t, mustSuite(t, 1), 21)
	g.merge()
	g.remove(4, 0, 7, 20, 19, 18, 17)
	parsed := mustParseTree(t, g.suite, g.tree.Bytes())
	for x := range NodeIndex(NodeWidth(g.tree.LeafWidth())) {
		if !bytes.Equal(parsed.NodeHash(x), g.tree.NodeHash(x)) {
			t.Errorf("hash of node %d: %x, want %x", x, parsed.NodeHash(x), g.tree.NodeHash(x))
		}
	}
	checkAgainstModel(t, parsed, modelOf(g.tree))
	g.verify()
}
