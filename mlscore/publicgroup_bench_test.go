package mlscore_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"leavebroker/mlscore"
	"leavebroker/mlscore/mlstest/biggroup"
)

// The benchmarks measure following a group against what it cannot do without.
// x-floor is the ratio of the time to that of the signature verifications
// alone, by the standard library, on the same messages in the same run,
// alternating; it is the median over the run. Commits come from random members,
// one after another.

const chainLen = 32 // commits, then again from the start

// chain is a group, and commits that follow one another.
type chain struct {
	groupInfo []byte
	group     *mlscore.PublicGroup
	leaves    []biggroup.Signature
	treeSize  int
	commits   []biggroup.Handshake
}

type chainKey struct {
	n     int
	shape biggroup.Shape
}

// chains are made once in a process: the large ones take seconds.
var chains sync.Map // chainKey → func() *chain

func chainOf(n int, shape biggroup.Shape) *chain {
	make, _ := chains.LoadOrStore(chainKey{n, shape}, sync.OnceValue(func() *chain { return newChain(n, shape) }))
	return make.(func() *chain)()
}

func newChain(n int, shape biggroup.Shape) *chain {
	g := must(biggroup.New(biggroup.Config{Suite: 1, Members: n, Shape: shape, Seed: uint64(n)}))
	c := &chain{groupInfo: must(g.GroupInfo()), leaves: g.LeafSignatures(), treeSize: len(g.Tree().Bytes())}
	m := must(mlscore.ParseMLSMessage(c.groupInfo, nil))
	c.group = must(mlscore.NewPublicGroupWithTree(m.GroupInfo, g.Tree(), mlscore.Options{}))
	for range chainLen {
		c.commits = append(c.commits, must(g.Commit(g.Member())))
	}
	return c
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// follow parses and stages some commits, one after another.
func follow(b *testing.B, g *mlscore.PublicGroup, commits []biggroup.Handshake) *mlscore.PublicGroup {
	for i := range commits {
		m, err := mlscore.ParseMLSMessage(commits[i].Message, nil)
		if err != nil {
			b.Fatal(err)
		}
		s, err := g.Stage(m)
		if err != nil {
			b.Fatal(err)
		}
		g = s.Next()
	}
	return g
}

func verifyAll(b *testing.B, signatures []biggroup.Signature) {
	for i := range signatures {
		if !signatures[i].Verify() {
			b.Fatal("a signature does not verify")
		}
	}
}

// verifyOverCores is verifyAll with all cores.
func verifyOverCores(b *testing.B, signatures []biggroup.Signature) {
	const batch = 8 // as NewPublicGroup takes them
	overCores((len(signatures)+batch-1)/batch, func(k int) {
		verifyAll(b, signatures[k*batch:min((k+1)*batch, len(signatures))])
	})
}

// overCores runs tasks on all cores.
func overCores(n int, task func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				task(i)
			}
		})
	}
	wg.Wait()
}

func timed(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// BenchmarkStageCommit: one commit with an UpdatePath, from its bytes to the
// state after it. The floor is its two signatures.
func BenchmarkStageCommit(b *testing.B) {
	for _, shape := range biggroup.Shapes {
		for _, n := range []int{16, 256, 4096, 65536} {
			b.Run(fmt.Sprintf("shape=%s/n=%d", shape, n), func(b *testing.B) {
				c := chainOf(n, shape)
				size := 0
				for i := range c.commits {
					size += len(c.commits[i].Message)
				}
				b.ReportAllocs()
				b.ResetTimer()
				b.StopTimer()
				var ratios []float64
				for done := 0; done < b.N; done += chainLen {
					commits := c.commits[:min(chainLen, b.N-done)]
					b.StartTimer()
					staging := timed(func() { follow(b, c.group, commits) })
					b.StopTimer()
					floor := timed(func() {
						for i := range commits {
							verifyAll(b, commits[i].Signatures)
						}
					})
					ratios = append(ratios, float64(staging)/float64(floor))
				}
				b.ReportMetric(median(ratios), "x-floor")
				b.ReportMetric(float64(size)/chainLen, "message-B")
			})
		}
	}
}

// BenchmarkIngestGroupInfo: a GroupInfo with its tree, from its bytes to a
// group. The floor is the signatures of all leaves over the cores; x-one-core
// is the ratio to the same on one core.
func BenchmarkIngestGroupInfo(b *testing.B) {
	for _, shape := range biggroup.Shapes {
		for _, n := range []int{256, 4096, 65536} {
			b.Run(fmt.Sprintf("shape=%s/n=%d", shape, n), func(b *testing.B) {
				c := chainOf(n, shape)
				b.ReportAllocs()
				b.ResetTimer()
				b.StopTimer()
				var ratios, oneCore []float64
				for range b.N {
					b.StartTimer()
					ingest := timed(func() { load(b, c.groupInfo) })
					b.StopTimer()
					ratios = append(ratios, float64(ingest)/float64(timed(func() { verifyOverCores(b, c.leaves) })))
					oneCore = append(oneCore, float64(ingest)/float64(timed(func() { verifyAll(b, c.leaves) })))
				}
				b.ReportMetric(median(ratios), "x-floor")
				b.ReportMetric(median(oneCore), "x-one-core")
			})
		}
	}
}

func load(b *testing.B, groupInfo []byte) *mlscore.PublicGroup {
	m, err := mlscore.ParseMLSMessage(groupInfo, nil)
	if err != nil {
		b.Fatal(err)
	}
	g, err := mlscore.NewPublicGroup(m.GroupInfo, nil, mlscore.Options{Parallel: overCores})
	if err != nil {
		b.Fatal(err)
	}
	return g
}

// BenchmarkGroupMemory: the heap that a group keeps alive once it is loaded,
// and once it has followed commits, from messages that nobody else keeps.
// x-tree is the ratio to the encoded ratchet tree, after 2 KiB for the group
// itself. The time per operation has no meaning here.
func BenchmarkGroupMemory(b *testing.B) {
	for _, shape := range biggroup.Shapes {
		for _, n := range []int{16, 256, 4096, 65536} {
			for _, commits := range []int{0, chainLen} {
				b.Run(fmt.Sprintf("shape=%s/n=%d/commits=%d", shape, n, commits), func(b *testing.B) {
					c := chainOf(n, shape)
					var heap []float64
					for range b.N {
						heap = append(heap, heapOf(func() any { return loadAndFollow(b, c, commits) }))
					}
					size := median(heap)
					b.ReportMetric(size, "heap-B")
					b.ReportMetric(float64(c.treeSize), "tree-B")
					b.ReportMetric((size-2048)/float64(c.treeSize), "x-tree")
					b.ReportMetric(size/float64(n), "B/member")
				})
			}
		}
	}
}

func loadAndFollow(b *testing.B, c *chain, commits int) *mlscore.PublicGroup {
	own := slices.Clone(c.commits[:commits])
	for i := range own {
		own[i].Message = slices.Clone(own[i].Message)
	}
	return follow(b, load(b, slices.Clone(c.groupInfo)), own)
}

// heapOf is the heap, in bytes, that a value keeps alive.
func heapOf(build func() any) float64 {
	before := liveHeap()
	v := build()
	after := liveHeap()
	runtime.KeepAlive(v)
	return float64(int64(after - before))
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one finalized or swept late
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
