package mlscore

import (
	"bytes"
	"slices"
	"testing"

	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/mlstest"
)

// fuzzDecoder checks that what a decoder accepts encodes to the same bytes, and
// that what it refuses is malformed, and that neither takes much memory. Its seeds are the samples and, in
// testdata/fuzz, some published vectors.
func fuzzDecoder(f *testing.F, kind string) {
	for _, sample := range samples()[kind] {
		f.Add(sample)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		var encode func() []byte
		var err error
		mlstest.CheckAllocation(t, len(in), mlstest.DecodingFactor, func() { encode, err = decoders[kind](in) })
		if err != nil {
			if Reason(err) != "malformed" {
				t.Errorf("%x: got %v", in, err)
			}
		} else if got := encode(); !bytes.Equal(got, in) {
			t.Errorf("%x encodes to %x", in, got)
		}
		if !bytes.Equal(before, in) {
			t.Errorf("%x was changed", before)
		}
	})
}

func FuzzMLSMessage(f *testing.F)           { fuzzDecoder(f, "MLSMessage") }
func FuzzAuthenticatedContent(f *testing.F) { fuzzDecoder(f, "AuthenticatedContent") }
func FuzzCommit(f *testing.F)               { fuzzDecoder(f, "Commit") }
func FuzzUpdatePath(f *testing.F)           { fuzzDecoder(f, "UpdatePath") }
func FuzzProposal(f *testing.F)             { fuzzDecoder(f, "Proposal") }
func FuzzKeyPackage(f *testing.F)           { fuzzDecoder(f, "KeyPackage") }
func FuzzLeafNode(f *testing.F)             { fuzzDecoder(f, "LeafNode") }
func FuzzParentNode(f *testing.F)           { fuzzDecoder(f, "ParentNode") }
func FuzzCredential(f *testing.F)           { fuzzDecoder(f, "Credential") }
func FuzzGroupContext(f *testing.F)         { fuzzDecoder(f, "GroupContext") }
func FuzzGroupInfo(f *testing.F)            { fuzzDecoder(f, "GroupInfo") }
func FuzzRequiredCapabilities(f *testing.F) { fuzzDecoder(f, "RequiredCapabilities") }
func FuzzExternalSenders(f *testing.F)      { fuzzDecoder(f, "ExternalSenders") }

// treeFactor bounds what decoding a tree allocates for a byte of its input: 31
// for a blank, whose one byte takes its place among the ends of nodes, by append,
// and its part of a block of blanks, and up to 46 for trees of leaves without keys.
const treeFactor = 64

// FuzzRatchetTree compares whatever decodes with the model, verdicts included,
// and edits it. The input is the content of the vector: with its length in
// front, hardly a change of it would decode.
func FuzzRatchetTree(f *testing.F) {
	for _, sample := range samples()["RatchetTree"] {
		content, _ := cutOpaque(sample)
		f.Add(content)
	}
	suite := mustSuite(f, 1)
	f.Fuzz(func(t *testing.T, content []byte) {
		in := codec.AppendOpaque(nil, content)
		var tree *RatchetTree
		var err error
		mlstest.CheckAllocation(t, len(in), treeFactor, func() { tree, err = ParseRatchetTree(suite, in) })
		if err != nil {
			if Reason(err) != "malformed" {
				t.Errorf("%x: got %v", in, err)
			}
			return
		}
		checkAnyTree(t, tree, in)
	})
}

func checkAnyTree(t *testing.T, tree *RatchetTree, in []byte) {
	t.Helper()
	if got := tree.Bytes(); !bytes.Equal(got, in) {
		t.Errorf("%x encodes to %x", in, got)
	}
	if err := tree.Verify(nil); err != nil && Reason(err) != "invalid" {
		t.Errorf("%x: %v", in, err)
	}
	m := modelOf(tree)
	if m.width() > 64 { // the model is slow
		return
	}
	checkAgainstModel(t, tree, m)
	if good := tree.VerifyUnmergedLeaves() == nil; good != m.unmergedValid() {
		t.Fatalf("%x: unmerged leaves are %v", in, good)
	} else if err := tree.VerifyParentHashes(); good && (err == nil) != m.parentHashValid() {
		t.Fatalf("%x: parent hashes: %v", in, err)
	}
	editAll(t, tree, m)
	if !bytes.Equal(tree.Bytes(), in) {
		t.Fatalf("%x: the tree changed", in)
	}
}

// editAll adds to a tree and its model, then removes half of the members.
func editAll(t *testing.T, tree *RatchetTree, m *treeModel) {
	t.Helper()
	e := tree.Edit()
	leaf := &LeafNode{Source: LeafNodeSourceUpdate}
	for range 2 {
		got, err := e.Add(leaf)
		if want := addOnce(m, leaf.Bytes()); err != nil || got != want {
			t.Fatalf("added at %d, %v; want %d", got, err, want)
		}
	}
	checkAgainstModel(t, e.Tree(), m)
	for i := LeafIndex(m.width()) - 1; i > 0; i-- {
		if i%2 == 0 || e.LeafBytes(i) == nil {
			continue
		}
		if err := e.Remove(i); err != nil {
			t.Fatal(err)
		}
		m.remove(i)
	}
	e.Truncate()
	m.truncate()
	checkAgainstModel(t, e.Tree(), m)
}

// addOnce is add for trees that may claim a blank leaf as unmerged already.
func addOnce(m *treeModel, leaf []byte) LeafIndex {
	i := m.add(leaf)
	for _, n := range m.nodes {
		if n.parent != nil {
			n.parent.UnmergedLeaves = slices.Compact(n.parent.UnmergedLeaves)
		}
	}
	return i
}
