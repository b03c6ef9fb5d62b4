package biggroup

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"leavebroker/mlscore"
)

// Shape says how much of a tree is blank or unmerged.
type Shape uint8

// The shapes.
const (
	// Merged: no leaf and no parent is blank, nothing is unmerged.
	Merged Shape = iota
	// HalfBlank: half of the leaves, at random places, and about half of the
	// parents are blank; nothing is unmerged.
	HalfBlank
	// Unmerged: no leaf is blank; half of the members, at random places, are
	// unmerged in every parent above them. About half of the parents, the
	// lowest, are blank.
	Unmerged
)

// Shapes lists all shapes.
var Shapes = []Shape{Merged, HalfBlank, Unmerged}

func (s Shape) String() string { return [...]string{"merged", "half-blank", "unmerged"}[s] }

// role says what becomes of a place in the tree.
type role uint8

const (
	blank     role = iota
	silent         // a member that never commits
	committer      // a member that commits once
	late           // a member that joins after the commits
)

// roles gives each place of a tree of n members its role.
func (s Shape) roles(n int, random *rand.Rand) []role {
	roles := make([]role, n)
	switch s {
	case Merged: // every second leaf's path covers all parents
		for i := range roles {
			roles[i] = silent
			if i%2 == 0 {
				roles[i] = committer
			}
		}
	case HalfBlank: // every second member commits, which fills half of the parents
		roles = make([]role, 2*n)
		for k, i := range random.Perm(2 * n)[:n] {
			roles[i] = silent
			if k%2 == 0 {
				roles[i] = committer
			}
		}
	case Unmerged:
		for i := range roles {
			roles[i] = late
		}
		for _, i := range random.Perm(n)[:n-n/2] {
			roles[i] = committer
		}
	}
	return roles
}

// grow makes the tree: all places are filled, those that stay or begin blank
// are emptied, committers commit from left to right, late members join.
func (g *Group) grow(roles []role) (*mlscore.RatchetTree, error) {
	g.signers = make([]mlscore.Signer, len(roles))
	leaves := make([]*mlscore.LeafNode, len(roles))
	filler := &mlscore.LeafNode{Source: mlscore.LeafNodeSourceUpdate}
	first := filler
	var edit *mlscore.TreeEdit
	for i, role := range roles {
		at := mlscore.LeafIndex(i)
		var err error
		if role != blank {
			if leaves[i], err = g.join(at, role != committer); err != nil {
				return nil, err
			}
		}
		place := filler
		if role == silent || role == committer {
			place = leaves[i]
		}
		if i == 0 {
			first = place
			edit = mlscore.NewRatchetTree(g.suite, first).Edit()
		} else if err := edit.SetLeaf(at, place); err != nil {
			return nil, err
		}
	}
	if err := empty(edit, roles); err != nil {
		return nil, err
	}
	for i, role := range roles {
		if role != committer {
			continue
		}
		if _, err := g.mergePath(edit, mlscore.LeafIndex(i), leaves[i]); err != nil {
			return nil, err
		}
	}
	tree := edit.Tree()
	return g.addLate(tree, roles, leaves)
}

// empty takes out the places that stay or begin blank. The tree is truncated
// only if none of them will be filled again.
func empty(edit *mlscore.TreeEdit, roles []role) error {
	willFill := false
	for i, role := range roles {
		if role == silent || role == committer {
			continue
		}
		willFill = willFill || role == late
		if err := edit.Remove(mlscore.LeafIndex(i)); err != nil {
			return err
		}
	}
	if !willFill {
		edit.Truncate()
	}
	return nil
}

// join makes a member: its key and the leaf of its key package.
func (g *Group) join(i mlscore.LeafIndex, signed bool) (*mlscore.LeafNode, error) {
	signer, err := mlscore.GenerateSigner(g.suite.Signature, g.random)
	if err != nil {
		return nil, err
	}
	for int(i) >= len(g.signers) {
		g.signers = append(g.signers, nil)
	}
	g.signers[i] = signer
	leaf := &mlscore.LeafNode{
		EncryptionKey: g.bytes(g.kemKeyLen()),
		SignatureKey:  signer.PublicKey(),
		Credential:    mlscore.BasicCredential(fmt.Appendf(nil, "member-%08d@example.org", i)),
		Capabilities: mlscore.Capabilities{
			Versions:     []mlscore.ProtocolVersion{mlscore.ProtocolVersionMLS10},
			CipherSuites: []mlscore.CipherSuite{g.suite.ID},
			Credentials:  []mlscore.CredentialType{mlscore.CredentialTypeBasic},
		},
		Source: mlscore.LeafNodeSourceKeyPackage,
		Lifetime: mlscore.Lifetime{
			NotBefore: uint64(g.now.Add(-time.Hour).Unix()),
			NotAfter:  uint64(g.now.Add(60 * 24 * time.Hour).Unix()),
		},
	}
	if !signed {
		return leaf, nil
	}
	return leaf, leaf.Sign(signer, g.context.GroupID, i)
}

// mergePath commits a path of a member with a given leaf into a tree. The path
// has no ciphertexts.
func (g *Group) mergePath(edit *mlscore.TreeEdit, i mlscore.LeafIndex, leaf *mlscore.LeafNode) (*mlscore.UpdatePath, error) {
	nodes := edit.FilteredDirectPath(i)
	keys := make([][]byte, len(nodes))
	path := &mlscore.UpdatePath{Nodes: make([]mlscore.UpdatePathNode, len(nodes))}
	for k := range nodes {
		keys[k] = g.bytes(g.kemKeyLen())
		path.Nodes[k].EncryptionKey = keys[k]
	}
	parentHash, err := edit.PathParentHash(i, keys)
	if err != nil {
		return nil, err
	}
	path.LeafNode = &mlscore.LeafNode{
		EncryptionKey: g.bytes(g.kemKeyLen()),
		SignatureKey:  leaf.SignatureKey, Credential: leaf.Credential, Capabilities: leaf.Capabilities,
		Source: mlscore.LeafNodeSourceCommit, ParentHash: parentHash, Extensions: leaf.Extensions,
	}
	if err := path.LeafNode.Sign(g.signers[i], g.context.GroupID, i); err != nil {
		return nil, err
	}
	return path, edit.MergePath(i, path)
}

// kemLens are the lengths of a KEM output and of a public key by the KEM of a
// suite's name (RFC 9180, Section 7.1, and draft-ietf-hpke-pq).
var kemLens = map[string]struct{ output, key int }{
	"DHKEMX25519": {32, 32}, "DHKEMX448": {56, 56}, "DHKEMP256": {65, 65}, "DHKEMP384": {97, 97}, "DHKEMP521": {133, 133},
	"MLKEM768": {1088, 1184}, "MLKEM1024": {1568, 1568},
	"MLKEM768X25519": {1120, 1216}, "MLKEM768P256": {1153, 1249}, "MLKEM1024P384": {1665, 1665},
}

// kemKeyLen is the length of an HPKE public key of the group's suite, and
// kemOutputLen that of a KEM output.
func (g *Group) kemKeyLen() int    { return kemLens[strings.Split(g.suite.Name, "_")[2]].key }
func (g *Group) kemOutputLen() int { return kemLens[strings.Split(g.suite.Name, "_")[2]].output }
