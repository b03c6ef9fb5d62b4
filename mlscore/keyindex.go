package mlscore

import (
	"hash/maphash"
	"slices"
)

// keyIndex finds the places of a public key. It is a trie over a hash of the
// key, persistent: a change copies what it touches. An entry is the upper 39
// bits of the hash and the 25 bits of a place (a NodeIndex or LeafIndex) and is
// only a hint: whoever finds it compares the key of that place. Collisions are
// therefore harmless, and the hash's seed keeps them rare whatever the keys
// are. nil is the empty index.
type keyIndex struct {
	kids    *[keyIndexFan]*keyIndex // nil: a bucket
	entries []uint64                // of a bucket, ascending
}

const (
	keyIndexBits   = 4
	keyIndexFan    = 1 << keyIndexBits
	keyIndexDepth  = 9  // levels that the hash can tell apart
	keyIndexBucket = 64 // entries before a bucket splits
	placeBits      = 25 // a node of a tree of MaxLeaves
)

var keySeed = maphash.MakeSeed()

// keyEntry is the entry of a key at a place.
func keyEntry(key []byte, place uint32) uint64 {
	return maphash.Bytes(keySeed, key)&^(1<<placeBits-1) | uint64(place)
}

func placeOf(entry uint64) uint32 { return uint32(entry & (1<<placeBits - 1)) }

func keyIndexDigit(entry uint64, level uint) uint64 {
	return entry >> (64 - keyIndexBits*(level+1)) % keyIndexFan
}

// candidates lists the entries whose hash is that of a key, places ascending.
func (k *keyIndex) candidates(key []byte) []uint64 {
	first := keyEntry(key, 0)
	for level := uint(0); k != nil && k.kids != nil; level++ {
		k = k.kids[keyIndexDigit(first, level)]
	}
	if k == nil {
		return nil
	}
	from, _ := slices.BinarySearch(k.entries, first)
	to := from
	for to < len(k.entries) && k.entries[to]-first < 1<<placeBits {
		to++
	}
	return k.entries[from:to]
}

// with is the index without some entries and with others, both ascending.
func (k *keyIndex) with(level uint, del, add []uint64) *keyIndex {
	switch {
	case len(del)+len(add) == 0:
		return k
	case k == nil:
		return newKeyIndex(level, slices.Clone(add))
	case k.kids == nil:
		return newKeyIndex(level, changeSorted(k.entries, del, add))
	}
	changed := &keyIndex{kids: new([keyIndexFan]*keyIndex)}
	for digit := range uint64(keyIndexFan) {
		var d, a []uint64
		d, del = cutDigit(del, level, digit)
		a, add = cutDigit(add, level, digit)
		changed.kids[digit] = k.kids[digit].with(level+1, d, a)
	}
	return changed.shrunk()
}

// newKeyIndex is the index of entries, ascending, which it may keep.
func newKeyIndex(level uint, entries []uint64) *keyIndex {
	if len(entries) == 0 {
		return nil
	}
	if len(entries) <= keyIndexBucket || level == keyIndexDepth {
		return &keyIndex{entries: entries}
	}
	k := &keyIndex{kids: new([keyIndexFan]*keyIndex)}
	for digit := range uint64(keyIndexFan) {
		var a []uint64
		a, entries = cutDigit(entries, level, digit)
		k.kids[digit] = newKeyIndex(level+1, slices.Clone(a))
	}
	return k
}

// shrunk is one bucket instead of kids that hold little.
func (k *keyIndex) shrunk() *keyIndex {
	var entries []uint64
	for _, kid := range k.kids {
		if kid == nil {
			continue
		}
		if kid.kids != nil || len(entries)+len(kid.entries) > keyIndexBucket/4 {
			return k
		}
		entries = append(entries, kid.entries...)
	}
	if len(entries) == 0 {
		return nil
	}
	return &keyIndex{entries: slices.Clip(entries)}
}

// cutDigit splits ascending entries after those with a digit.
func cutDigit(entries []uint64, level uint, digit uint64) (head, tail []uint64) {
	n := 0
	for n < len(entries) && keyIndexDigit(entries[n], level) == digit {
		n++
	}
	return entries[:n], entries[n:]
}

// changeSorted is entries without del and with add, all ascending.
func changeSorted(entries, del, add []uint64) []uint64 {
	out := make([]uint64, 0, len(entries)+len(add))
	for _, x := range entries {
		for len(del) > 0 && del[0] < x {
			del = del[1:]
		}
		if len(del) > 0 && del[0] == x {
			continue
		}
		for len(add) > 0 && add[0] < x {
			out, add = append(out, add[0]), add[1:]
		}
		out = append(out, x)
	}
	return append(out, add...)
}

// twins looks for two places with the same key, given how to read a key.
func (k *keyIndex) twins(key func(place uint32) []byte) (a, b uint32, found bool) {
	if k == nil {
		return 0, 0, false
	}
	if k.kids != nil {
		for _, kid := range k.kids {
			if a, b, found = kid.twins(key); found {
				return a, b, true
			}
		}
		return 0, 0, false
	}
	for i := range k.entries {
		// Entries of one hash are neighbours, and of one key but by accident.
		for _, other := range k.entries[i+1:] {
			if other>>placeBits != k.entries[i]>>placeBits {
				break
			}
			a, b = placeOf(k.entries[i]), placeOf(other)
			if string(key(a)) == string(key(b)) {
				return a, b, true
			}
		}
	}
	return 0, 0, false
}
