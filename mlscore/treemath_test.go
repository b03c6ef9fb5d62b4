package mlscore

import (
	"slices"
	"testing"

	"leavebroker/mlscore/mlstest"
)

func TestTreeMathVectors(t *testing.T) {
	var cases []struct {
		Leaves  uint32       `json:"n_leaves"`
		Nodes   uint32       `json:"n_nodes"`
		Root    NodeIndex    `json:"root"`
		Left    []*NodeIndex `json:"left"`
		Right   []*NodeIndex `json:"right"`
		Parent  []*NodeIndex `json:"parent"`
		Sibling []*NodeIndex `json:"sibling"`
	}
	mlstest.JSON(t, "mlswg/tree-math.json", &cases)
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range cases {
		if NodeWidth(c.Leaves) != c.Nodes || Root(c.Leaves) != c.Root {
			t.Errorf("%d leaves: %d nodes, root %d; want %d, %d", c.Leaves, NodeWidth(c.Leaves), Root(c.Leaves), c.Nodes, c.Root)
		}
		for x := range NodeIndex(c.Nodes) {
			if (c.Left[x] == nil) != x.IsLeaf() || (c.Parent[x] == nil) != (x == c.Root) {
				t.Errorf("node %d of %d leaves is of the wrong kind", x, c.Leaves)
			}
			for name, pair := range map[string]struct {
				want *NodeIndex
				got  func() NodeIndex
			}{
				"left": {c.Left[x], x.Left}, "right": {c.Right[x], x.Right},
				"parent": {c.Parent[x], x.Parent}, "sibling": {c.Sibling[x], x.Sibling},
			} {
				if pair.want != nil && pair.got() != *pair.want {
					t.Errorf("%s of %d among %d leaves: got %d, want %d", name, x, c.Leaves, pair.got(), *pair.want)
				}
			}
		}
	}
}

// The paths against the relation that defines them, and covers against both.
func TestPaths(t *testing.T) {
	for leaves := uint32(1); leaves <= 64; leaves *= 2 {
		for x := range NodeIndex(NodeWidth(leaves)) {
			direct, copath := DirectPath(x, leaves), Copath(x, leaves)
			if len(direct) != len(copath) {
				t.Fatalf("node %d of %d leaves: paths %v and %v", x, leaves, direct, copath)
			}
			for k, below := 0, x; k < len(direct); k++ {
				children := []NodeIndex{direct[k].Left(), direct[k].Right()}
				if !slices.Contains(children, below) || !slices.Contains(children, copath[k]) || below == copath[k] {
					t.Errorf("node %d of %d leaves: step %d of %v and %v", x, leaves, k, direct, copath)
				}
				below = direct[k]
			}
			for leaf := range LeafIndex(leaves) {
				want := leaf.NodeIndex() == x || slices.Contains(DirectPath(leaf.NodeIndex(), leaves), x)
				if x.covers(leaf) != want {
					t.Errorf("node %d covers leaf %d: %v", x, leaf, !want)
				}
			}
		}
	}
}
