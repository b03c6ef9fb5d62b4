package intents

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"leavebroker/mlscore"
)

// TestTrie compares the trie with a map, and every older version with a copy
// of the map as it was then.
func TestTrie(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var now trie[int]
	model := map[string]int{}
	type version struct {
		trie  trie[int]
		model map[string]int
	}
	var versions []version
	for i := range 3000 {
		key := leafKey(mlscore.LeafIndex(random.IntN(500) * 7919))
		if random.IntN(4) == 0 {
			now = now.without(key)
			delete(model, key)
		} else {
			now = now.with(key, i)
			model[key] = i
		}
		if i%300 == 0 {
			versions = append(versions, version{now, maps.Clone(model)})
		}
	}
	versions = append(versions, version{now, model})
	for i, v := range versions {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if got := maps.Collect(v.trie.all()); !maps.Equal(got, v.model) || v.trie.n != len(v.model) {
				t.Errorf("%d entries (counted %d), want %d", len(got), v.trie.n, len(v.model))
			}
			for _, key := range []string{"", "\x00", string(make([]byte, 99))} {
				if _, ok := v.trie.get(key); ok {
					t.Errorf("key %q is there", key)
				}
			}
			for key := range 500 {
				got, ok := v.trie.get(leafKey(mlscore.LeafIndex(key * 7919)))
				want, wanted := v.model[leafKey(mlscore.LeafIndex(key*7919))]
				if got != want || ok != wanted {
					t.Errorf("key %d: %d, %t", key, got, ok)
				}
			}
		})
	}
}
