package mlscore

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"leavebroker/mlscore/codec"
)

// forger writes trees that no group would have and that cost a verifier as much
// as it can.
type forger struct {
	suite  *Suite
	nodes  [][]byte // encoded, without presence and node_type
	parent []*ParentNode
	serial int
}

func (f *forger) key() []byte {
	f.serial++
	return fmt.Appendf(nil, "%x", f.serial)
}

// leaf is the shortest leaf that has its own keys.
func (f *forger) leaf(parentHash []byte) []byte {
	leaf := &LeafNode{EncryptionKey: f.key(), SignatureKey: f.key(), Source: LeafNodeSourceUpdate}
	if parentHash != nil {
		leaf.Source, leaf.ParentHash = LeafNodeSourceCommit, parentHash
	}
	return leaf.Bytes()
}

// oddLeavesUnmerged fills a subtree in which the odd leaves are unmerged in every
// parent above them, as many as can be, and all parent hashes are valid: each
// asks for the original tree hash of everything beside it. Right children hold
// what might be a parent hash, too.
func (f *forger) oddLeavesUnmerged(x NodeIndex, parentHash []byte) {
	if x.IsLeaf() {
		f.nodes[x] = f.leaf(parentHash)
		return
	}
	p := &ParentNode{EncryptionKey: f.key(), ParentHash: parentHash}
	reach := NodeIndex(1)<<x.Level() - 1
	for i := (x - reach).LeafIndex() + 1; i <= (x + reach).LeafIndex(); i += 2 {
		p.UnmergedLeaves = append(p.UnmergedLeaves, i)
	}
	f.parent[x], f.nodes[x] = p, p.Append(nil)
	f.oddLeavesUnmerged(x.Right(), bytes.Repeat([]byte{1}, f.suite.HashLen()))
	h := newTreeHasher(f.suite)
	sibling := f.original(h, x.Right())
	d := h.parentHash(p.EncryptionKey, p.ParentHash, &sibling)
	f.oddLeavesUnmerged(x.Left(), d[:h.hashLen])
}

// original is the tree hash of a subtree without its odd leaves.
func (f *forger) original(h *treeHasher, x NodeIndex) digest {
	if x.IsLeaf() {
		if x.LeafIndex()%2 == 1 {
			return h.leaf(x.LeafIndex(), nil)
		}
		return h.leaf(x.LeafIndex(), f.nodes[x])
	}
	left, right := f.original(h, x.Left()), f.original(h, x.Right())
	p := *f.parent[x]
	p.UnmergedLeaves = nil
	return h.parent(p.Append(nil), &left, &right)
}

func (f *forger) encode() []byte {
	return codec.AppendVector(nil, func(b []byte) []byte {
		for x, node := range f.nodes {
			if node == nil {
				b = append(b, 0)
			} else {
				b = append(append(b, 1, byte(1+x%2)), node...)
			}
		}
		return b
	})
}

func newForger(suite *Suite, leaves uint32) *forger {
	n := NodeWidth(leaves)
	return &forger{suite: suite, nodes: make([][]byte, n), parent: make([]*ParentNode, n)}
}

// hostileTrees are encodings of about 1 MiB.
func hostileTrees(suite *Suite) map[string][]byte {
	unmerged := newForger(suite, 1<<13)
	unmerged.oddLeavesUnmerged(Root(1<<13), []byte{})

	blank := newForger(suite, 1<<19)
	blank.nodes[len(blank.nodes)-1] = blank.leaf(nil)

	twins := newForger(suite, 1<<15)
	same := twins.leaf(nil)
	for x := 0; x < len(twins.nodes); x += 2 {
		twins.nodes[x] = same
	}

	blankParents := newForger(suite, 1<<15) // one root, everybody unmerged, nothing between
	root := &ParentNode{EncryptionKey: blankParents.key()}
	for i := range LeafIndex(1 << 15) {
		blankParents.nodes[2*i] = blankParents.leaf(bytes.Repeat([]byte{1}, suite.HashLen())[:1])
		if i > 0 {
			root.UnmergedLeaves = append(root.UnmergedLeaves, i)
		}
	}
	blankParents.nodes[Root(1<<15)] = root.Append(nil)
	return map[string][]byte{
		"odd leaves unmerged everywhere": unmerged.encode(), "blanks": blank.encode(),
		"one leaf many times": twins.encode(), "blank parents": blankParents.encode(),
	}
}

// ingest decodes a tree and checks all but signatures.
func ingest(t testing.TB, suite *Suite, b []byte) error {
	tree := mustParseTree(t, suite, b)
	for _, err := range []error{tree.VerifyUnmergedLeaves(), tree.VerifyUniqueKeys(), tree.VerifyParentHashes()} {
		if err != nil {
			return err
		}
	}
	return nil
}

// Hostile trees of about 1 MiB get their verdict, as honest ones do.
// BenchmarkHostileTree tells what they cost.
func TestHostileTrees(t *testing.T) {
	suite := mustSuite(t, 1)
	for name, b := range hostileTrees(suite) {
		if err := ingest(t, suite, b); (err == nil) != (name == "odd leaves unmerged everywhere" || name == "blanks") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// BenchmarkHostileTree: the cost of a hostile tree by length, x-honest times
// that of an honest one in the same run.
func BenchmarkHostileTree(b *testing.B) {
	g := newTestGroup(b, mustSuite(b, 1), 1<<12)
	g.merge()
	honest := g.tree.Bytes()
	cost := func(encoded []byte) float64 {
		start := time.Now()
		_ = ingest(b, g.suite, encoded) // TestHostileTrees judges the verdicts
		return float64(time.Since(start)) / float64(len(encoded))
	}
	for name, encoded := range hostileTrees(g.suite) {
		b.Run(name, func(b *testing.B) {
			var ratio float64
			for range b.N {
				ratio += cost(encoded) / cost(honest)
			}
			b.ReportMetric(ratio/float64(b.N), "x-honest")
		})
	}
}

// The forged tree is one that the model accepts, too.
func TestForgedTreeAgainstModel(t *testing.T) {
	f := newForger(mustSuite(t, 7), 16)
	f.oddLeavesUnmerged(Root(16), []byte{})
	m := parseModel(f.suite, f.encode())
	if !m.parentHashValid() || !m.unmergedValid() {
		t.Fatal("the forged tree is not valid")
	}
	tree := mustParseTree(t, f.suite, f.encode())
	checkAgainstModel(t, tree, m)
	if err := ingest(t, f.suite, f.encode()); err != nil {
		t.Error(err)
	}
}
