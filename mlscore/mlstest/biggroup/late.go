package biggroup

import (
	"slices"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// addLate is the tree with the late members at their places, unmerged in every
// parent above them. It is what as many Adds would give, in time linear in the
// size of the result.
func (g *Group) addLate(tree *mlscore.RatchetTree, roles []role, leaves []*mlscore.LeafNode) (*mlscore.RatchetTree, error) {
	var joined []mlscore.LeafIndex
	for i, role := range roles {
		if role == late {
			joined = append(joined, mlscore.LeafIndex(i))
		}
	}
	if len(joined) == 0 {
		return tree, nil
	}
	encoded := codec.AppendVector(nil, func(b []byte) []byte {
		for x := range mlscore.NodeIndex(2*len(roles) - 1) {
			if x.IsLeaf() {
				b = append(b, 1 /* present */, 1 /* leaf */)
				if leaf := tree.LeafBytes(x.LeafIndex()); leaf != nil {
					b = append(b, leaf...)
				} else {
					b = leaves[x.LeafIndex()].Append(b)
				}
				continue
			}
			parent := tree.Parent(x)
			b = codec.AppendOptional(b, parent != nil)
			if parent != nil {
				parent.UnmergedLeaves = below(joined, x)
				b = parent.Append(append(b, 2 /* parent */))
			}
		}
		return b
	})
	return mlscore.ParseRatchetTree(g.suite, encoded)
}

// below is the part of ascending leaves that is in the subtree of a node.
func below(leaves []mlscore.LeafIndex, x mlscore.NodeIndex) []mlscore.LeafIndex {
	reach := mlscore.NodeIndex(1)<<x.Level() - 1
	from, _ := slices.BinarySearch(leaves, (x - reach).LeafIndex())
	to, _ := slices.BinarySearch(leaves, (x+reach).LeafIndex()+1)
	return leaves[from:to]
}
