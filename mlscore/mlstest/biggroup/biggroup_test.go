package biggroup

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"leavebroker/mlscore"
)

func newGroup(t testing.TB, cfg Config) *Group {
	t.Helper()
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func observe(t testing.TB, g *Group) *mlscore.PublicGroup {
	t.Helper()
	b, err := g.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	m, err := mlscore.ParseMLSMessage(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	observer, err := mlscore.NewPublicGroup(m.GroupInfo, nil, mlscore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return observer
}

// follow stages a handshake and compares the observer with the group after it.
func follow(t *testing.T, g *Group, observer *mlscore.PublicGroup, h Handshake) *mlscore.PublicGroup {
	t.Helper()
	m, err := mlscore.ParseMLSMessage(h.Message, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := observer.Stage(m)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Flags) > 0 {
		t.Errorf("flags %q", s.Flags)
	}
	for i := range h.Signatures {
		if !h.Signatures[i].Verify() {
			t.Errorf("signature %d does not verify", i)
		}
	}
	context := g.Context()
	if got, want := s.Next().ContextBytes(), context.Append(nil); !bytes.Equal(got, want) {
		t.Fatalf("the observer's GroupContext is %x, want %x", got, want)
	}
	return s.Next()
}

// An observer accepts every group and every handshake, and agrees on the state.
func TestObserverFollows(t *testing.T) {
	for _, suite := range mlscore.DefaultRegistry().Suites() {
		for _, shape := range Shapes {
			for _, n := range []int{2, 3, 9, 64} {
				if suite != 1 && n != 9 {
					continue // sizes do not depend on the suite
				}
				t.Run(fmt.Sprintf("suite%#x/%s/%d", suite, shape, n), func(t *testing.T) {
					g := newGroup(t, Config{Suite: suite, Members: n, Shape: shape, Seed: uint64(n)})
					observer := observe(t, g)
					if observer.Tree().Members() != n {
						t.Fatalf("%d members, want %d", observer.Tree().Members(), n)
					}
					for range 4 {
						observer = playEpochs(t, g, observer)
					}
				})
			}
		}
	}
}

// playEpochs plays a commit, an external commit, and a commit of a removal.
func playEpochs(t *testing.T, g *Group, observer *mlscore.PublicGroup) *mlscore.PublicGroup {
	t.Helper()
	step := func(h Handshake, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		observer = follow(t, g, observer, h)
	}
	step(g.Commit(g.Member()))
	h, joiner, err := g.ExternalCommit()
	step(h, err)
	if observer.Tree().LeafBytes(joiner) == nil {
		t.Fatalf("no member at leaf %d", joiner)
	}
	committer := g.Member()
	removed := g.Member()
	for removed == committer {
		removed = g.Member()
	}
	step(g.ProposeRemove(removed))
	step(g.Commit(committer))
	if observer.Tree().LeafBytes(removed) != nil {
		t.Fatalf("leaf %d was not removed", removed)
	}
	return observer
}

func TestSameSeedSameBytes(t *testing.T) {
	play := func(seed uint64) []byte {
		g := newGroup(t, Config{Suite: 2, Members: 20, Shape: Unmerged, Seed: seed})
		b, err := g.GroupInfo()
		if err != nil {
			t.Fatal(err)
		}
		h, err := g.Commit(g.Member())
		if err != nil {
			t.Fatal(err)
		}
		return append(b, h.Message...)
	}
	if !bytes.Equal(play(7), play(7)) {
		t.Error("one seed gives different bytes")
	}
	if bytes.Equal(play(7), play(8)) {
		t.Error("two seeds give the same bytes")
	}
}

func TestShapes(t *testing.T) {
	for _, shape := range Shapes {
		const n = 1024
		tree := newGroup(t, Config{Suite: 1, Members: n, Shape: shape}).Tree()
		blankLeaves := int(tree.LeafWidth()) - tree.Members()
		blankParents, unmerged := 0, 0
		for x := range mlscore.NodeIndex(mlscore.NodeWidth(tree.LeafWidth())) {
			if x.IsLeaf() {
				continue
			}
			if p := tree.Parent(x); p == nil {
				blankParents++
			} else {
				unmerged += len(p.UnmergedLeaves)
			}
		}
		blank := float64(blankParents) / float64(tree.LeafWidth()-1)
		switch {
		case tree.Members() != n:
			t.Errorf("%s: %d members", shape, tree.Members())
		case shape == Merged && (blankLeaves != 0 || blankParents != 0 || unmerged != 0):
			t.Errorf("%s: %d blank leaves, %d blank parents, %d unmerged", shape, blankLeaves, blankParents, unmerged)
		case shape == HalfBlank && (blankLeaves != n || blank < 0.4 || blank > 0.6 || unmerged != 0):
			t.Errorf("%s: %d blank leaves, %.2f of the parents blank, %d unmerged", shape, blankLeaves, blank, unmerged)
		case shape == Unmerged && (blankLeaves != 0 || blank > 0.6 || unmerged < 3*n):
			t.Errorf("%s: %d blank leaves, %.2f of the parents blank, %d unmerged", shape, blankLeaves, blank, unmerged)
		}
		t.Logf("%s: %d blank leaves, %.2f of the parents blank, %.1f unmerged a member", shape, blankLeaves, blank, float64(unmerged)/n)
	}
}

// The external sender may be somebody else's key, and members sign with their own.
func TestSigners(t *testing.T) {
	sender, err := mlscore.GenerateSigner(mlscore.Ed25519, rand.NewChaCha8([32]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	g := newGroup(t, Config{Suite: 1, Members: 5, Shape: HalfBlank, ExternalSender: sender})
	for i := range mlscore.LeafIndex(g.Tree().LeafWidth() + 1) {
		leaf, signer := g.Tree().Leaf(i), g.Signer(i)
		if (leaf == nil) != (signer == nil) || leaf != nil && !bytes.Equal(leaf.SignatureKey, signer.PublicKey()) {
			t.Errorf("leaf %d does not have the key of its signer", i)
		}
	}
	observer := observe(t, g)
	h, err := g.ProposeRemove(g.Member())
	if err != nil {
		t.Fatal(err)
	}
	if follow(t, g, observer, h); !bytes.Equal(h.Signatures[0].Key, sender.PublicKey()) {
		t.Error("somebody else signed the Remove")
	}
	if _, err := New(Config{Suite: 2, Members: 5, ExternalSender: sender}); err == nil {
		t.Error("an Ed25519 key was accepted for a group of ECDSA")
	}
}

func TestRefusedConfig(t *testing.T) {
	for _, cfg := range []Config{{Suite: 1, Members: 1}, {Suite: 99, Members: 8}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for _, shape := range Shapes {
		b.Run(shape.String(), func(b *testing.B) {
			for b.Loop() {
				newGroup(b, Config{Suite: 1, Members: 65536, Shape: shape})
			}
		})
	}
}
