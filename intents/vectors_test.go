package intents_test

import (
	"bytes"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/mlstest"
)

type loiVector struct {
	Name        string              `json:"name"`
	CipherSuite mlscore.CipherSuite `json:"cipher_suite"`
	GroupID     mlstest.Hex         `json:"group_id"`
	RatchetTree mlstest.Hex         `json:"ratchet_tree"`
	Valid       bool                `json:"valid"`
	Why         string              `json:"why"`
	LeafRef     mlstest.Hex         `json:"leaf_ref"`
	TBS         mlstest.Hex         `json:"tbs"`
	Intent      mlstest.Hex         `json:"intent"`
}

// reasonOf gives the reason code of each kind of negative vector.
var reasonOf = map[string]error{
	"the message ends early":                                           intents.ErrMalformed,
	"bytes follow the message":                                         intents.ErrMalformed,
	"the length of group_id is not minimal":                            intents.ErrMalformed,
	"removal_mode 0 is reserved":                                       intents.ErrUnsupportedMode,
	"removal_mode 3 is undefined":                                      intents.ErrUnsupportedMode,
	"group_id is of another group":                                     intents.ErrGroupMismatch,
	"sender_index is outside the tree":                                 intents.ErrLeafRefMismatch,
	"the leaf at sender_index is blank":                                intents.ErrLeafRefMismatch,
	"sender_leaf_ref is not the reference of the leaf at sender_index": intents.ErrLeafRefMismatch,
	"the leaf at sender_index has another reference":                   intents.ErrLeafRefMismatch,
	"signed with a key that is not the leaf's":                         intents.ErrBadSignature,
	"signed under another label":                                       intents.ErrBadSignature,
	"the signature does not verify":                                    intents.ErrBadSignature,
}

func loiVectors(t testing.TB) []loiVector {
	t.Helper()
	var vectors []loiVector
	mlstest.JSON(t, "loi.json", &vectors)
	return vectors
}

func TestVectors(t *testing.T) {
	vectors := loiVectors(t)
	if len(vectors) != 355 {
		t.Errorf("%d vectors, want 355", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) { checkVector(t, &v) })
	}
}

func checkVector(t *testing.T, v *loiVector) {
	suite, err := mlscore.LookupSuite(v.CipherSuite)
	if err != nil {
		t.Fatal(err)
	}
	leaf := leavesOf(t, v.RatchetTree)
	in, err := intents.Parse(v.Intent)
	if err == nil {
		if !bytes.Equal(in.Bytes(), v.Intent) {
			t.Errorf("re-encoded as %x", in.Bytes())
		}
		err = in.Verify(suite, v.GroupID, leaf)
	}
	if got, want := intents.Reason(err), intents.Reason(reasonOf[v.Why]); got != want || (err == nil) != v.Valid {
		t.Fatalf("verdict %q (%v), want %q: %s", got, err, want, v.Why)
	}
	if !v.Valid {
		return
	}
	if !bytes.Equal(in.TBS(), v.TBS) {
		t.Errorf("TBS %x, want %x", in.TBS(), []byte(v.TBS))
	}
	if ref := leaf(in.SenderIndex).Ref(suite); !bytes.Equal(ref, v.LeafRef) {
		t.Errorf("LeafNodeRef %x, want %x", ref, []byte(v.LeafRef))
	}
}

// leavesOf reads the leaves of a ratchet_tree extension.
func leavesOf(t *testing.T, tree []byte) func(mlscore.LeafIndex) *mlscore.LeafNode {
	t.Helper()
	r := codec.NewReader(tree)
	nodes := r.Vector()
	var leaves []*mlscore.LeafNode
	for i := 0; !nodes.Empty(); i++ {
		var leaf *mlscore.LeafNode
		if nodes.Optional() {
			switch nodes.Uint8() {
			case 1:
				leaf = mlscore.ReadLeafNode(nodes)
			default:
				nodes.Opaque() // encryption_key
				nodes.Opaque() // parent_hash
				nodes.Opaque() // unmerged_leaves
			}
		}
		if i%2 == 0 {
			leaves = append(leaves, leaf)
		}
	}
	r.Join(nodes)
	if err := r.Finish(); err != nil {
		t.Fatal(err)
	}
	return func(i mlscore.LeafIndex) *mlscore.LeafNode {
		if int64(i) >= int64(len(leaves)) {
			return nil
		}
		return leaves[i]
	}
}
