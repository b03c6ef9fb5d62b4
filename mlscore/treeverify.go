package mlscore

import (
	"iter"
	"slices"
)

// Verify checks everything about a tree that its own bytes and the group_id
// decide when it comes from outside (RFC 9420, Section 12.4.3.1): unmerged
// leaves, keys that occur once, parent hashes and the signature of every leaf.
// Lifetimes, credentials and capabilities are the caller's to judge. All errors
// are ErrInvalid.
func (t *RatchetTree) Verify(groupID []byte) error {
	return t.verify(groupID, nil, func() error { return nil })
}

// verify is Verify, and then one thing more beside it.
func (t *RatchetTree) verify(groupID []byte, parallel Parallel, then func() error) error {
	if err := t.VerifyUnmergedLeaves(); err != nil {
		return err
	}
	const before = 2 // what comes before the signatures; parent hashes take long
	after := before + t.batches()
	return parallel.check(after+1, func(i int) error {
		switch i {
		case 0:
			return t.VerifyUniqueKeys()
		case 1:
			return t.VerifyParentHashes()
		case after:
			return then()
		}
		return t.verifyBatch(i-before, groupID)
	})
}

// VerifyUnmergedLeaves checks that each unmerged leaf of a parent is a member
// below it, and is unmerged in every non-blank node between the two too.
func (t *RatchetTree) VerifyUnmergedLeaves() error {
	return t.verifyUnmerged(Root(t.LeafWidth()), nil)
}

// verifyUnmerged checks a subtree. The leaves given are those below x that are
// unmerged in the nearest non-blank node above it: by asking each non-blank
// node for those of the next above, all are asked for all.
func (t *RatchetTree) verifyUnmerged(x NodeIndex, above []LeafIndex) error {
	s, row, j := t.at(x)
	b := s.node(row, j, t.suite.HashLen())
	switch {
	case b == nil && x.IsLeaf() && len(above) > 0:
		return invalid("12.4.3.1", "blank leaf %d is unmerged", x.LeafIndex())
	case x.IsLeaf() || s.filled() == 0 && len(above) == 0:
		return nil
	case b != nil:
		own := unmergedOf(b)
		for _, i := range above {
			if _, ok := slices.BinarySearch(own, i); !ok {
				return invalid("12.4.3.1", "leaf %d is unmerged above node %d but not in it", i, x)
			}
		}
		if below := splitLeaves(own, x); len(below) != len(own) {
			return invalid("12.4.3.1", "an unmerged leaf of node %d is not below it", x)
		}
		above = own
	}
	if err := t.verifyUnmerged(x.Left(), splitLeaves(above, x.Left())); err != nil {
		return err
	}
	return t.verifyUnmerged(x.Right(), splitLeaves(above, x.Right()))
}

// VerifyUniqueKeys checks that no encryption key occurs in two nodes and no
// signature key in two leaves (RFC 9420, Sections 7.3 and 12.4.3.1).
func (t *RatchetTree) VerifyUniqueKeys() error {
	if a, b, found := t.encryptionKeys.twins(func(x uint32) []byte { return t.EncryptionKeyOf(NodeIndex(x)) }); found {
		return invalid("7.3", "nodes %d and %d have the same encryption key", a, b)
	}
	if a, b, found := t.signatureKeys.twins(func(i uint32) []byte { return signatureKeyOf(t.LeafBytes(LeafIndex(i))) }); found {
		return invalid("7.3", "leaves %d and %d have the same signature key", a, b)
	}
	return nil
}

// VerifyLeafSignatures checks the signature of every leaf (RFC 9420, Section 7.3).
func (t *RatchetTree) VerifyLeafSignatures(groupID []byte) error {
	return Parallel(nil).check(t.batches(), func(i int) error { return t.verifyBatch(i, groupID) })
}

func (t *RatchetTree) verifyBatch(batch int, groupID []byte) error {
	for i, leaf := range t.batch(batch) {
		if leaf.VerifySignature(t.suite, groupID, i) != nil {
			return invalid("7.3", "the signature of leaf %d does not verify", i)
		}
	}
	return nil
}

// leafBatch is the number of leaves that one task judges: those of a block.
const leafBatch = blockKids / 2

func (t *RatchetTree) batches() int { return int(t.LeafWidth()+leafBatch-1) / leafBatch }

// batch gives the non-blank leaves of a batch in ascending order.
func (t *RatchetTree) batch(batch int) iter.Seq2[LeafIndex, *LeafNode] {
	first := LeafIndex(batch) * leafBatch
	return t.between(first, first+leafBatch)
}
