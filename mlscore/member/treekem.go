package member

import (
	"bytes"
	"io"
	"slices"

	"leavebroker/mlscore"
)

// nodeKey derives a node's key pair from its path secret (RFC 9420, Section 7.4).
func (s *suite) nodeKey(pathSecret []byte) (*privateKey, error) {
	return s.deriveKeyPair(s.deriveSecret(pathSecret, "node"))
}

// nextPathSecret is the path secret of the next node of a filtered direct
// path, and after the last node the commit secret (RFC 9420, Section 7.4).
func (s *suite) nextPathSecret(pathSecret []byte) []byte { return s.deriveSecret(pathSecret, "path") }

// privateTree is a member's private view of the ratchet tree: the private keys
// of its leaf and of the nodes above it that it knows. It is a value: commits
// make a new one.
type privateTree struct {
	index mlscore.LeafIndex
	keys  map[mlscore.NodeIndex]*privateKey
}

// leafKey is the key of the member's own leaf.
func (p *privateTree) leafKey() *privateKey { return p.keys[p.index.NodeIndex()] }

// path lists a member's leaf and the nodes above it.
func (p *privateTree) path(tree *mlscore.RatchetTree) []mlscore.NodeIndex {
	x := p.index.NodeIndex()
	return append([]mlscore.NodeIndex{x}, mlscore.DirectPath(x, tree.LeafWidth())...)
}

// keyOf gives the private key of a node if it belongs to the node's public key.
func (p *privateTree) keyOf(tree *mlscore.RatchetTree, x mlscore.NodeIndex) *privateKey {
	key := p.keys[x]
	if key == nil || !bytes.Equal(key.public, tree.EncryptionKeyOf(x)) {
		return nil
	}
	return key
}

// after is the private view of a new tree: of the keys known and the fresh
// ones, those whose public keys are in it. A leaf whose key is not ours is
// ErrInvalid.
func (p *privateTree) after(tree *mlscore.RatchetTree, fresh map[mlscore.NodeIndex]*privateKey) (*privateTree, error) {
	next := &privateTree{p.index, make(map[mlscore.NodeIndex]*privateKey)}
	for _, x := range p.path(tree) {
		next.keys[x] = fresh[x]
		if key := next.keyOf(tree, x); key != nil {
			continue
		}
		if next.keys[x] = p.keyOf(tree, x); next.keys[x] == nil {
			delete(next.keys, x)
		}
	}
	if next.leafKey() == nil {
		return nil, invalid("7.5", "the encryption key of our leaf %d is not ours", p.index)
	}
	return next, nil
}

// copathChild is the node below x, on its path to the member's leaf.
func (p *privateTree) copathChild(x mlscore.NodeIndex) mlscore.NodeIndex {
	child := p.index.NodeIndex()
	for child.Parent() != x {
		child = child.Parent()
	}
	return child
}

// recipients is the resolution of a copath node without the leaves that were
// added by the same commit (RFC 9420, Section 7.5).
func recipients(tree *mlscore.RatchetTree, copath mlscore.NodeIndex, added []mlscore.LeafIndex) []mlscore.NodeIndex {
	all := tree.Resolution(copath)
	if len(added) == 0 {
		return all
	}
	list := make([]mlscore.NodeIndex, 0, len(all))
	for _, x := range all {
		if _, isNew := slices.BinarySearch(added, x.LeafIndex()); !x.IsLeaf() || !isNew {
			list = append(list, x)
		}
	}
	return list
}

// openPath decrypts an UpdatePath (RFC 9420, Section 7.5). The tree is the one
// after the path was merged, added are the leaves new in this commit in
// ascending order, and the context is the encoded provisional GroupContext.
// Every derived public key has to match the path.
func (p *privateTree) openPath(s *suite, tree *mlscore.RatchetTree, committer mlscore.LeafIndex, path *mlscore.UpdatePath, added []mlscore.LeafIndex, groupContext []byte) (fresh map[mlscore.NodeIndex]*privateKey, commitSecret []byte, err error) {
	nodes := tree.FilteredDirectPath(committer)
	if len(nodes) != len(path.Nodes) {
		return nil, nil, invalid("7.5", "an UpdatePath of %d nodes for a filtered direct path of %d", len(path.Nodes), len(nodes))
	}
	common := commonAncestor(tree, nodes, p.index)
	if common == len(nodes) || committer == p.index {
		return nil, nil, invalid("7.5", "the UpdatePath of leaf %d has no node above leaf %d", committer, p.index)
	}
	to := recipients(tree, p.copathChild(nodes[common]), added)
	secrets := path.Nodes[common].EncryptedPathSecret
	if len(to) != len(secrets) {
		return nil, nil, invalid("7.5", "%d encrypted path secrets for a resolution of %d nodes", len(secrets), len(to))
	}
	for i, x := range to {
		key := p.keyOf(tree, x)
		if key == nil {
			continue
		}
		secret, err := s.decryptWithLabel(key, "UpdatePathNode", groupContext, secrets[i])
		if err != nil {
			return nil, nil, err
		}
		return s.climb(tree, nodes[common:], secret)
	}
	return nil, nil, invalid("7.5", "no path secret is encrypted to leaf %d", p.index)
}

// commonAncestor is the position of the first node of a filtered direct path
// above a leaf; the path's length if there is none.
func commonAncestor(tree *mlscore.RatchetTree, nodes []mlscore.NodeIndex, leaf mlscore.LeafIndex) int {
	above := mlscore.DirectPath(leaf.NodeIndex(), tree.LeafWidth())
	for i, x := range nodes {
		if slices.Contains(above, x) {
			return i
		}
	}
	return len(nodes)
}

// climb derives the keys of nodes, from below, from the path secret of the
// first, and compares them with the tree's.
func (s *suite) climb(tree *mlscore.RatchetTree, nodes []mlscore.NodeIndex, secret []byte) (fresh map[mlscore.NodeIndex]*privateKey, commitSecret []byte, err error) {
	if len(secret) != s.HashLen() {
		return nil, nil, invalid("7.4", "a path secret of %d bytes", len(secret))
	}
	fresh = make(map[mlscore.NodeIndex]*privateKey, len(nodes))
	for _, x := range nodes {
		key, err := s.nodeKey(secret)
		if err != nil {
			return nil, nil, err
		}
		if !bytes.Equal(key.public, tree.EncryptionKeyOf(x)) {
			return nil, nil, invalid("7.5", "the path secret of node %d does not give its encryption key", x)
		}
		fresh[x] = key
		secret = s.nextPathSecret(secret)
	}
	return fresh, secret, nil
}

// newPath holds the secrets of a path that this member makes (RFC 9420, Section 7.5).
type newPath struct {
	nodes        []mlscore.NodeIndex // the filtered direct path
	secrets      [][]byte            // the path secret of each
	keys         []*privateKey       // the key pair of each
	leaf         *privateKey
	commitSecret []byte
}

// newPath draws a fresh leaf key and path secrets for a filtered direct path.
func (s *suite) newPath(random io.Reader, nodes []mlscore.NodeIndex) (*newPath, error) {
	p := &newPath{nodes: nodes}
	var err error
	if p.leaf, err = s.generateKeyPair(random); err != nil {
		return nil, err
	}
	if p.commitSecret, err = s.randomSecret(random); err != nil {
		return nil, err
	}
	for range nodes {
		key, err := s.nodeKey(p.commitSecret)
		if err != nil {
			return nil, err
		}
		p.secrets = append(p.secrets, p.commitSecret)
		p.keys = append(p.keys, key)
		p.commitSecret = s.nextPathSecret(p.commitSecret)
	}
	return p, nil
}

// publicKeys are the path's encryption keys, without the leaf's.
func (p *newPath) publicKeys() [][]byte {
	list := make([][]byte, len(p.keys))
	for i, key := range p.keys {
		list[i] = key.public
	}
	return list
}

// privateKeys maps the path's nodes and its leaf to their keys.
func (p *newPath) privateKeys(committer mlscore.LeafIndex) map[mlscore.NodeIndex]*privateKey {
	m := map[mlscore.NodeIndex]*privateKey{committer.NodeIndex(): p.leaf}
	for i, x := range p.nodes {
		m[x] = p.keys[i]
	}
	return m
}

// secretFor is the path secret of the first node above a leaf; nil if there is
// none (RFC 9420, Section 12.4.3.1).
func (p *newPath) secretFor(tree *mlscore.RatchetTree, leaf mlscore.LeafIndex) []byte {
	if i := commonAncestor(tree, p.nodes, leaf); i < len(p.nodes) {
		return p.secrets[i]
	}
	return nil
}

// encrypt encrypts each path secret to the resolution of the copath node below
// it, without the added leaves. The tree is the one after the path was merged.
func (p *newPath) encrypt(s *suite, random io.Reader, tree *mlscore.RatchetTree, committer mlscore.LeafIndex, added []mlscore.LeafIndex, groupContext []byte) ([]mlscore.UpdatePathNode, error) {
	list := make([]mlscore.UpdatePathNode, len(p.nodes))
	below := &privateTree{index: committer}
	for i, x := range p.nodes {
		list[i].EncryptionKey = p.keys[i].public
		for _, to := range recipients(tree, below.copathChild(x).Sibling(), added) {
			c, err := s.encryptWithLabel(random, tree.EncryptionKeyOf(to), "UpdatePathNode", groupContext, p.secrets[i])
			if err != nil {
				return nil, err
			}
			list[i].EncryptedPathSecret = append(list[i].EncryptedPathSecret, c)
		}
	}
	return list, nil
}
