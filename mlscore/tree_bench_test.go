package mlscore

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
)

var benchLeaves = []int{16, 256, 4096, 65536}

// benchGroups keeps the trees between the rounds of a benchmark.
var benchGroups = map[string]*testGroup{}

func benchGroup(b *testing.B, n int, half bool) *testGroup {
	name := fmt.Sprint(n, half)
	if g := benchGroups[name]; g != nil {
		g.t = b
		return g
	}
	g := newTestGroup(b, mustSuite(b, 1), n)
	g.merge()
	if half {
		for i := LeafIndex(1); int(i) < n-1; i += 2 {
			e := g.tree.Edit()
			if err := e.Remove(i); err != nil {
				b.Fatal(err)
			}
			g.commit(e, i-1)
		}
	}
	benchGroups[name] = g
	return g
}

func benchTrees(b *testing.B, run func(*testing.B, *testGroup)) {
	for _, half := range []bool{false, true} {
		for _, n := range benchLeaves {
			name := fmt.Sprintf("%d", n)
			if half {
				name += "-half-blank"
			}
			b.Run(name, func(b *testing.B) {
				g := benchGroup(b, n, half)
				b.ReportAllocs()
				b.ResetTimer()
				run(b, g)
			})
		}
	}
}

// BenchmarkCommitTree merges UpdatePaths of members spread over the tree: the
// tree's part of following a commit, without its signatures.
func BenchmarkCommitTree(b *testing.B) {
	benchTrees(b, func(b *testing.B, g *testGroup) {
		var committers []LeafIndex
		var paths []*UpdatePath
		for i := range g.tree.All() {
			if len(paths) < 64 && i%LeafIndex((g.tree.LeafWidth()+63)/64) == 0 {
				committers = append(committers, i)
				paths = append(paths, g.path(g.tree.Edit(), i))
			}
		}
		b.ResetTimer()
		for n := 0; b.Loop(); n++ {
			e := g.tree.Edit()
			if err := e.MergePath(committers[n%len(paths)], paths[n%len(paths)]); err != nil {
				b.Fatal(err)
			}
			e.Tree()
		}
	})
}

// BenchmarkCommitSignatures is the floor for BenchmarkCommitTree: the two
// signatures that a commit with a path carries.
func BenchmarkCommitSignatures(b *testing.B) {
	g := benchGroup(b, 16, false)
	leaf := g.tree.Leaf(0)
	for b.Loop() {
		for range 2 {
			if err := leaf.VerifySignature(g.suite, g.groupID, 0); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkIngestTree decodes a tree and checks all but its signatures.
func BenchmarkIngestTree(b *testing.B) {
	benchTrees(b, func(b *testing.B, g *testGroup) {
		encoded := g.tree.Bytes()
		b.ResetTimer()
		for b.Loop() {
			tree := mustParseTree(b, g.suite, encoded)
			if err := tree.VerifyUnmergedLeaves(); err != nil {
				b.Fatal(err)
			}
			if err := tree.VerifyUniqueKeys(); err != nil {
				b.Fatal(err)
			}
			if err := tree.VerifyParentHashes(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(g.tree.Members()), "µs/leaf")
	})
}

// BenchmarkIngestSignatures is the floor for BenchmarkIngestTree: the leaf
// signatures of the same trees.
func BenchmarkIngestSignatures(b *testing.B) {
	g := benchGroup(b, 256, false)
	for b.Loop() {
		if err := g.tree.VerifyLeafSignatures(g.groupID); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/256, "µs/leaf")
}

// BenchmarkTreeMemory measures what a loaded tree keeps in memory, as a ratio
// to its encoding.
func BenchmarkTreeMemory(b *testing.B) {
	benchTrees(b, func(b *testing.B, g *testGroup) {
		encoded := g.tree.Bytes()
		var held uint64
		copies := max(1, 1024/g.tree.Members())
		for b.Loop() {
			trees := make([]*RatchetTree, copies)
			before := heapInUse()
			for i := range trees {
				trees[i] = mustParseTree(b, g.suite, bytes.Clone(encoded)) // which it must not hold
			}
			held = (heapInUse() - before) / uint64(copies)
			runtime.KeepAlive(trees)
		}
		b.ReportMetric(float64(held)/float64(len(encoded)), "held/encoded")
		b.ReportMetric(float64(held)/float64(g.tree.Members()), "B/member")
		b.ReportMetric(float64(len(encoded))/float64(g.tree.Members()), "encodedB/member")
	})
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
