package member

import (
	"bytes"
	"fmt"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/mlstest"
)

func TestTreeKEMVectors(t *testing.T) {
	var cases []struct {
		CipherSuite             mlscore.CipherSuite `json:"cipher_suite"`
		GroupID                 hexBytes            `json:"group_id"`
		Epoch                   uint64
		ConfirmedTranscriptHash hexBytes `json:"confirmed_transcript_hash"`
		RatchetTree             hexBytes `json:"ratchet_tree"`
		LeavesPrivate           []struct {
			Index          mlscore.LeafIndex
			EncryptionPriv hexBytes `json:"encryption_priv"`
			SignaturePriv  hexBytes `json:"signature_priv"`
			PathSecrets    []struct {
				Node       mlscore.NodeIndex
				PathSecret hexBytes `json:"path_secret"`
			} `json:"path_secrets"`
		} `json:"leaves_private"`
		UpdatePaths []struct {
			Sender        mlscore.LeafIndex
			UpdatePath    hexBytes    `json:"update_path"`
			PathSecrets   []*hexBytes `json:"path_secrets"`
			CommitSecret  hexBytes    `json:"commit_secret"`
			TreeHashAfter hexBytes    `json:"tree_hash_after"`
		} `json:"update_paths"`
	}
	mlstest.JSON(t, "mlswg/treekem.json", &cases)
	for n, c := range cases {
		t.Run(fmt.Sprintf("%d/suite%d", n, c.CipherSuite), func(t *testing.T) {
			t.Parallel()
			s := mustSuite(t, c.CipherSuite)
			tree := must[*mlscore.RatchetTree](t)(mlscore.ParseRatchetTree(s.Suite, c.RatchetTree))
			private := make(map[mlscore.LeafIndex]*privateTree)
			signers := make(map[mlscore.LeafIndex]mlscore.Signer)
			for _, l := range c.LeavesPrivate {
				keys := map[mlscore.NodeIndex]*privateKey{l.Index.NodeIndex(): must[*privateKey](t)(s.parsePrivateKey(l.EncryptionPriv))}
				for _, p := range l.PathSecrets {
					keys[p.Node] = must[*privateKey](t)(s.nodeKey(p.PathSecret))
					equal(t, fmt.Sprintf("key of node %d", p.Node), keys[p.Node].public, tree.EncryptionKeyOf(p.Node))
				}
				view := must[*privateTree](t)((&privateTree{l.Index, keys}).after(tree, nil))
				if len(view.keys) != len(keys) {
					t.Errorf("leaf %d keeps %d of %d keys", l.Index, len(view.keys), len(keys))
				}
				private[l.Index] = view
				signers[l.Index] = must[mlscore.Signer](t)(mlscore.NewSigner(s.Signature, l.SignaturePriv))
			}
			context := func(tree *mlscore.RatchetTree) []byte {
				return (&mlscore.GroupContext{
					Version: mlscore.ProtocolVersionMLS10, CipherSuite: c.CipherSuite, GroupID: c.GroupID, Epoch: c.Epoch,
					TreeHash: tree.TreeHash(), ConfirmedTranscriptHash: c.ConfirmedTranscriptHash,
				}).Append(nil)
			}
			for _, u := range c.UpdatePaths {
				r := codec.NewReader(u.UpdatePath)
				path := mlscore.ReadUpdatePath(r)
				if err := r.Finish(); err != nil {
					t.Fatal(err)
				}
				edit := tree.Edit()
				if err := edit.MergePath(u.Sender, path); err != nil {
					t.Fatal(err)
				}
				after := edit.Tree()
				equal(t, "tree hash", after.TreeHash(), u.TreeHashAfter)
				checkOpens(t, s, private, after, u.Sender, path, context(after), u.CommitSecret, func(leaf mlscore.LeafIndex) []byte {
					if u.PathSecrets[leaf] == nil {
						t.Fatalf("no path secret expected for leaf %d", leaf)
					}
					return *u.PathSecrets[leaf]
				})
				// A path of our own by the same sender.
				fresh := must[*newPath](t)(s.newPath(seeded(byte(n)), tree.FilteredDirectPath(u.Sender)))
				leaf := *path.LeafNode
				own := &mlscore.UpdatePath{LeafNode: &leaf}
				for _, key := range fresh.publicKeys() {
					own.Nodes = append(own.Nodes, mlscore.UpdatePathNode{EncryptionKey: key})
				}
				edit = tree.Edit()
				leaf.EncryptionKey = fresh.leaf.public
				leaf.ParentHash = must[[]byte](t)(edit.PathParentHash(u.Sender, fresh.publicKeys()))
				if err := leaf.Sign(signers[u.Sender], c.GroupID, u.Sender); err != nil {
					t.Fatal(err)
				}
				if err := edit.MergePath(u.Sender, own); err != nil {
					t.Fatal(err)
				}
				after = edit.Tree()
				own.Nodes = must[[]mlscore.UpdatePathNode](t)(fresh.encrypt(s, seeded(byte(n)), after, u.Sender, nil, context(after)))
				checkOpens(t, s, private, after, u.Sender, own, context(after), fresh.commitSecret, func(leaf mlscore.LeafIndex) []byte {
					return fresh.secretFor(after, leaf)
				})
			}
		})
	}
}

// checkOpens opens a path as every member but its sender.
func checkOpens(t *testing.T, s *suite, private map[mlscore.LeafIndex]*privateTree, after *mlscore.RatchetTree, sender mlscore.LeafIndex, path *mlscore.UpdatePath, context, commitSecret []byte, pathSecret func(mlscore.LeafIndex) []byte) {
	t.Helper()
	for leaf, view := range private {
		if leaf == sender {
			continue
		}
		fresh, got, err := view.openPath(s, after, sender, path, nil, context)
		if err != nil {
			t.Fatalf("leaf %d: %v", leaf, err)
		}
		equal(t, "commit secret", got, commitSecret)
		nodes := after.FilteredDirectPath(sender)
		common := nodes[commonAncestor(after, nodes, leaf)]
		equal(t, "key of the common ancestor", fresh[common].public, must[*privateKey](t)(s.nodeKey(pathSecret(leaf))).public)
		next := must[*privateTree](t)(view.after(after, fresh))
		for x, key := range next.keys {
			if !bytes.Equal(key.public, after.EncryptionKeyOf(x)) {
				t.Errorf("leaf %d keeps a wrong key of node %d", leaf, x)
			}
		}
		if _, _, err := view.openPath(s, after, sender, path, nil, append(context, 0)); err == nil {
			t.Error("the path opens under another context")
		}
	}
}
