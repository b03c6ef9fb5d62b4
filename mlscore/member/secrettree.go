package member

import (
	"encoding/binary"
	"math"

	"leavebroker/mlscore"
)

// Caps on a sender's ratchet, against a member that names a far generation.
const (
	// maxSkip is how many generations one message may skip.
	maxSkip = 1024
	// maxKept is how many keys of skipped messages one ratchet keeps. The
	// oldest go first.
	maxKept = 1024
)

// messageKey encrypts one message (RFC 9420, Section 9.1).
type messageKey struct{ key, nonce []byte }

// ratchet is a symmetric ratchet (RFC 9420, Section 9.1).
type ratchet struct {
	secret     []byte
	generation uint32 // of the next key
	skipped    map[uint32]messageKey
}

// take gives the key of the next generation, and moves on.
func (r *ratchet) take(s *suite) messageKey {
	k := messageKey{
		key:   s.deriveTreeSecret(r.secret, "key", r.generation, s.keyLen()),
		nonce: s.deriveTreeSecret(r.secret, "nonce", r.generation, s.nonceLen()),
	}
	r.secret = s.deriveTreeSecret(r.secret, "secret", r.generation, s.HashLen())
	r.generation++
	return k
}

// at gives the key of a generation and the ratchet after its use. The ratchet
// itself is unchanged, so a message that then turns out false costs nothing.
func (r *ratchet) at(s *suite, generation uint32) (messageKey, *ratchet, error) {
	next := &ratchet{r.secret, r.generation, make(map[uint32]messageKey, len(r.skipped))}
	for g, k := range r.skipped {
		next.skipped[g] = k
	}
	if generation < r.generation {
		k, ok := next.skipped[generation]
		if !ok {
			return k, nil, invalid("9.1", "generation %d was used before, or its key is gone", generation)
		}
		delete(next.skipped, generation)
		return k, next, nil
	}
	if generation-r.generation > maxSkip || generation == math.MaxUint32 {
		return messageKey{}, nil, invalid("9.1", "generation %d is too far ahead of %d", generation, r.generation)
	}
	for next.generation < generation {
		g := next.generation
		next.skipped[g] = next.take(s)
	}
	k := next.take(s)
	next.forget()
	return k, next, nil
}

// forget drops the oldest skipped keys above maxKept.
func (r *ratchet) forget() {
	for len(r.skipped) > maxKept {
		oldest := r.generation
		for g := range r.skipped {
			oldest = min(oldest, g)
		}
		delete(r.skipped, oldest)
	}
}

// leafRatchets are the two ratchets of a leaf, by content type.
type leafRatchets struct{ handshake, application *ratchet }

func (l *leafRatchets) of(t mlscore.ContentType) **ratchet {
	if t == mlscore.ContentTypeApplication {
		return &l.application
	}
	return &l.handshake
}

// secretTree derives message keys (RFC 9420, Section 9). Secrets of nodes are
// deleted once both children are derived from them.
type secretTree struct {
	suite *suite
	width uint32 // leaves
	nodes map[mlscore.NodeIndex][]byte
	leafs map[mlscore.LeafIndex]*leafRatchets
}

func newSecretTree(s *suite, encryptionSecret []byte, width uint32) *secretTree {
	return &secretTree{
		suite: s, width: width,
		nodes: map[mlscore.NodeIndex][]byte{mlscore.Root(width): encryptionSecret},
		leafs: make(map[mlscore.LeafIndex]*leafRatchets),
	}
}

// leaf gives the ratchets of a leaf; nil outside the tree.
func (t *secretTree) leaf(i mlscore.LeafIndex) *leafRatchets {
	if uint32(i) >= t.width {
		return nil
	}
	if l := t.leafs[i]; l != nil {
		return l
	}
	path := append([]mlscore.NodeIndex{i.NodeIndex()}, mlscore.DirectPath(i.NodeIndex(), t.width)...)
	known := 0
	for t.nodes[path[known]] == nil {
		known++
	}
	n := t.suite.HashLen()
	for ; known > 0; known-- {
		x := path[known]
		t.nodes[x.Left()] = t.suite.expandWithLabel(t.nodes[x], "tree", []byte("left"), n)
		t.nodes[x.Right()] = t.suite.expandWithLabel(t.nodes[x], "tree", []byte("right"), n)
		delete(t.nodes, x)
	}
	secret := t.nodes[i.NodeIndex()]
	delete(t.nodes, i.NodeIndex())
	l := &leafRatchets{
		handshake:   &ratchet{secret: t.suite.expandWithLabel(secret, "handshake", nil, n)},
		application: &ratchet{secret: t.suite.expandWithLabel(secret, "application", nil, n)},
	}
	t.leafs[i] = l
	return l
}

// senderDataKey is the key of a PrivateMessage's sender data (RFC 9420, Section 6.3.2).
func (s *suite) senderDataKey(senderDataSecret, ciphertext []byte) messageKey {
	sample := ciphertext[:min(len(ciphertext), s.HashLen())]
	return messageKey{
		key:   s.expandWithLabel(senderDataSecret, "key", sample, s.keyLen()),
		nonce: s.expandWithLabel(senderDataSecret, "nonce", sample, s.nonceLen()),
	}
}

// guarded is the nonce under a reuse guard (RFC 9420, Section 6.3.1).
func (k messageKey) guarded(reuseGuard [4]byte) messageKey {
	nonce := append([]byte(nil), k.nonce...)
	binary.BigEndian.PutUint32(nonce, binary.BigEndian.Uint32(nonce)^binary.BigEndian.Uint32(reuseGuard[:]))
	return messageKey{k.key, nonce}
}

func (s *suite) seal(k messageKey, aad, plaintext []byte) ([]byte, error) {
	aead, err := s.aead.New(k.key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, k.nonce, plaintext, aad), nil
}

func (s *suite) open(k messageKey, aad, ciphertext []byte) ([]byte, error) {
	aead, err := s.aead.New(k.key)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, k.nonce, ciphertext, aad)
}
