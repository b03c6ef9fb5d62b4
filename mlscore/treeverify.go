package mlscore

import "slices"

// Verify checks everything about a tree that its own bytes and the group_id
// decide when it comes from outside (RFC 9420, Section 12.4.3.1): unmerged
// leaves, keys that occur once, parent hashes and the signature of every leaf.
// Lifetimes, credentials and capabilities are the caller's to judge. All errors
// are ErrInvalid.
func (t *RatchetTree) Verify(groupID []byte) error { return t.verify(groupID, nil) }

func (t *RatchetTree) verify(groupID []byte, parallel Parallel) error {
	if err := t.VerifyUnmergedLeaves(); err != nil {
		return err
	}
	if err := t.VerifyUniqueKeys(); err != nil {
		return err
	}
	if err := t.VerifyParentHashes(); err != nil {
		return err
	}
	return t.verifyLeafSignatures(groupID, parallel)
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
	return t.verifyLeafSignatures(groupID, nil)
}

// Parallel calls a task for each i from 0 to n-1, in any order and at the same
// time if it likes, and returns when all have returned. The result of what
// uses one does not depend on it: this package starts no goroutine itself. The
// nil Parallel calls one after another.
type Parallel func(n int, task func(i int))

// signatureBatch is the number of leaves that one task verifies.
const signatureBatch = 32

func (t *RatchetTree) verifyLeafSignatures(groupID []byte, parallel Parallel) error {
	width := t.LeafWidth()
	refused := make([]error, (width+signatureBatch-1)/signatureBatch)
	task := func(batch int) {
		first := LeafIndex(batch) * signatureBatch
		for i := first; i < first+signatureBatch && uint32(i) < width; i++ {
			if leaf := t.Leaf(i); leaf != nil && leaf.VerifySignature(t.suite, groupID, i) != nil {
				refused[batch] = invalid("7.3", "the signature of leaf %d does not verify", i)
				return
			}
		}
	}
	if parallel != nil {
		parallel(len(refused), task)
	} else {
		for i := range refused {
			task(i)
			if refused[i] != nil {
				return refused[i]
			}
		}
	}
	for _, err := range refused {
		if err != nil {
			return err
		}
	}
	return nil
}
