package intents

import "iter"

// trie is an immutable map from byte strings: with and without give a new map
// that shares all but one path with the old one. The path follows the nibbles
// of the key, low ones first, only as deep as keys differ, so a map of n
// hashes is about log16(n) deep. No key that is stored is a prefix of another:
// they are hashes, or leaf indexes of four bytes. Any key may be looked up.
type trie[V any] struct {
	root *trieNode[V]
	n    int
}

// trieNode is a branch, or a leaf that holds a key.
type trieNode[V any] struct {
	branch *[16]*trieNode[V]
	key    string
	value  V
}

// nibble is a step of a key's path; 0 beyond its end, which only a key that is
// looked up in vain gets to.
func nibble(key string, depth int) byte {
	if depth/2 >= len(key) {
		return 0
	}
	return key[depth/2] >> (4 * (depth % 2)) & 0xf
}

func (t trie[V]) get(key string) (value V, ok bool) {
	node := t.root
	for depth := 0; node != nil; depth++ {
		if node.branch == nil {
			if node.key == key {
				return node.value, true
			}
			break
		}
		node = node.branch[nibble(key, depth)]
	}
	return value, false
}

func (t trie[V]) with(key string, value V) trie[V] {
	leaf := &trieNode[V]{key: key, value: value}
	root, added := t.root.with(leaf, 0)
	if added {
		return trie[V]{root, t.n + 1}
	}
	return trie[V]{root, t.n}
}

func (node *trieNode[V]) with(leaf *trieNode[V], depth int) (result *trieNode[V], added bool) {
	switch {
	case node == nil:
		return leaf, true
	case node.branch == nil && node.key == leaf.key:
		return leaf, false
	}
	var branch [16]*trieNode[V]
	if node.branch != nil {
		branch = *node.branch
	} else {
		branch[nibble(node.key, depth)] = node
	}
	slot := &branch[nibble(leaf.key, depth)]
	*slot, added = (*slot).with(leaf, depth+1)
	return &trieNode[V]{branch: &branch}, added
}

// put enters a value in place: for a map that nobody else has yet.
func (t *trie[V]) put(key string, value V) {
	at, leaf := &t.root, &trieNode[V]{key: key, value: value}
	for depth := 0; *at != nil; depth++ {
		node := *at
		if node.branch == nil {
			if node.key == key {
				*at = leaf
				return
			}
			branch := &trieNode[V]{branch: new([16]*trieNode[V])}
			branch.branch[nibble(node.key, depth)] = node
			*at = branch
		}
		at = &(*at).branch[nibble(key, depth)]
	}
	*at, t.n = leaf, t.n+1
}

func (t trie[V]) without(key string) trie[V] {
	if _, ok := t.get(key); !ok {
		return t
	}
	return trie[V]{t.root.without(key, 0), t.n - 1}
}

// without removes a key that is there. Branches stay, however few keys they
// hold: nothing is removed but expired receipts and what Due is done with.
func (node *trieNode[V]) without(key string, depth int) *trieNode[V] {
	if node.branch == nil {
		return nil
	}
	branch := *node.branch
	slot := &branch[nibble(key, depth)]
	*slot = (*slot).without(key, depth+1)
	return &trieNode[V]{branch: &branch}
}

// all yields the values in an order that depends on the keys alone.
func (t trie[V]) all() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) { t.root.walk(yield) }
}

func (node *trieNode[V]) walk(yield func(string, V) bool) bool {
	switch {
	case node == nil:
		return true
	case node.branch == nil:
		return yield(node.key, node.value)
	}
	for _, child := range node.branch {
		if !child.walk(yield) {
			return false
		}
	}
	return true
}

// changed yields the keys under which another map holds something else, and
// perhaps others near them. It costs what differs: what both share is not looked
// at.
func (t trie[V]) changed(other trie[V]) iter.Seq[string] {
	return func(yield func(string) bool) { differ(t.root, other.root, yield) }
}

func differ[V any](a, b *trieNode[V], yield func(string) bool) bool {
	if a == b {
		return true
	}
	if a == nil || b == nil || a.branch == nil || b.branch == nil {
		each := func(key string, _ V) bool { return yield(key) }
		return a.walk(each) && b.walk(each)
	}
	for i := range a.branch {
		if !differ(a.branch[i], b.branch[i], yield) {
			return false
		}
	}
	return true
}
