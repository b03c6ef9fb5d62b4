package mlscore_test

import (
	"fmt"
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/mlstest/biggroup"
)

var storedSizes = []int{16, 256, 4096, 65536}

func restored(b testing.TB, snapshot []byte) *mlscore.PublicGroup {
	g, err := mlscore.RestorePublicGroup(snapshot, mlscore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return g
}

// BenchmarkRestore: a group from its snapshot. x-ingest is the ratio to what
// the same group costs from its GroupInfo, with the signatures of all leaves over
// the cores; x-tree is the size of the snapshot in encoded ratchet trees.
func BenchmarkRestore(b *testing.B) {
	for _, n := range storedSizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			c := chainOf(n, biggroup.Merged)
			snapshot := c.group.AppendSnapshot(nil)
			b.ReportAllocs()
			b.ResetTimer()
			b.StopTimer()
			var ratios []float64
			for i := range b.N {
				b.StartTimer()
				restoring := timed(func() { restored(b, snapshot) })
				b.StopTimer()
				if i < 16 {
					ratios = append(ratios, float64(restoring)/float64(timed(func() { load(b, c.groupInfo) })))
				}
			}
			b.ReportMetric(median(ratios), "x-ingest")
			b.ReportMetric(float64(len(snapshot))/float64(c.treeSize), "x-tree")
		})
	}
}

// BenchmarkSnapshot: the stored form of a group.
func BenchmarkSnapshot(b *testing.B) {
	for _, n := range storedSizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			g := chainOf(n, biggroup.Merged).group
			b.ReportAllocs()
			for b.Loop() {
				b.SetBytes(int64(len(g.AppendSnapshot(nil))))
			}
		})
	}
}

// Size is within a factor of two of the heap that a group keeps alive.
func TestSizeIsThatOfTheHeap(t *testing.T) {
	for _, shape := range biggroup.Shapes {
		for _, n := range []int{16, 256, 4096} {
			c := chainOf(n, shape)
			snapshot := c.group.AppendSnapshot(nil)
			size := restored(t, snapshot).Size()
			var heap []float64
			for range 5 {
				heap = append(heap, heapOf(func() any { return restored(t, slices.Clone(snapshot)) }))
			}
			if ratio := float64(size) / median(heap); ratio < 0.5 || ratio > 2 {
				t.Errorf("shape %s, %d members: size %d, heap %.0f", shape, n, size, median(heap))
			} else {
				t.Logf("shape %s, %d members: size %d, heap %.0f, ratio %.2f", shape, n, size, median(heap), ratio)
			}
		}
	}
}
