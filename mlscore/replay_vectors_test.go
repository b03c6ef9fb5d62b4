package mlscore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"leavebroker/mlscore/mlstest"
)

type replayCase struct {
	Case        int         `json:"case"`
	CipherSuite CipherSuite `json:"cipher_suite"`
	Commits     int         `json:"commits"`
	Log         []struct {
		Kind       string      `json:"kind"`
		MLSMessage mlstest.Hex `json:"mls_message"`
	} `json:"log"`
}

func replayCases(t testing.TB) []replayCase {
	t.Helper()
	var all []replayCase
	for _, file := range []string{"replay/commit.json", "replay/handling-commit.json"} {
		var cases []replayCase
		mlstest.JSON(t, file, &cases)
		all = append(all, cases...)
	}
	if len(all) == 0 {
		t.Fatal("no logs")
	}
	return all
}

func parseMessage(t testing.TB, b []byte) *MLSMessage {
	t.Helper()
	m, err := ParseMLSMessage(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// fingerprint is everything that a refusal must leave as it was.
func fingerprint(g *PublicGroup) []byte {
	b := slices.Concat(g.ContextBytes(), g.InterimTranscriptHash(), g.Tree().TreeHash(), g.Tree().Bytes())
	for p := range g.Proposals() {
		b = append(b, p.Ref...)
	}
	return fmt.Appendf(b, "%t %t", g.Proven(), g.Closed())
}

// Every message of a real group is accepted, although leaves leave the group's
// suite out of their capabilities, carry GREASE and are past their lifetimes.
func TestReplayVectors(t *testing.T) {
	for _, c := range replayCases(t) {
		t.Run(fmt.Sprintf("suite%d/case%d/commits%d", c.CipherSuite, c.Case, c.Commits), func(t *testing.T) {
			var g *PublicGroup
			commits := 0
			for i, entry := range c.Log {
				m := parseMessage(t, entry.MLSMessage)
				if entry.Kind == "group_info" {
					var err error
					if g, err = NewPublicGroup(m.GroupInfo, nil, Options{}); err != nil {
						t.Fatalf("line %d: %v", i, err)
					}
					continue
				}
				before := fingerprint(g)
				s, err := g.Stage(m)
				if err != nil {
					t.Fatalf("line %d, %s: %v", i, entry.Kind, err)
				}
				if !bytes.Equal(before, fingerprint(g)) {
					t.Fatalf("line %d: staging changed the old state", i)
				}
				if s.Kind == StagedProposal {
					if s.Proposal.Invalid != nil {
						t.Fatalf("line %d: %v", i, s.Proposal.Invalid)
					}
					if s.Next().Proposal(s.Proposal.Ref) == nil {
						t.Fatalf("line %d: the proposal was not kept", i)
					}
				} else {
					commits++
					if s.Next().Epoch() != g.Epoch()+1 {
						t.Fatalf("line %d: epoch %d after %d", i, s.Next().Epoch(), g.Epoch())
					}
				}
				g = s.Next()
			}
			if commits != c.Commits {
				t.Errorf("%d commits, want %d", commits, c.Commits)
			}
		})
	}
}

// signedParts are the places in a handshake where no bit may differ: each is a
// slice of the message's own bytes.
func signedParts(m *PublicMessage) map[string][]byte {
	parts := map[string][]byte{"signature": m.Signature}
	if m.Content.Commit == nil {
		return parts
	}
	for i, p := range m.Content.Commit.Proposals {
		if p.Reference != nil {
			parts[fmt.Sprintf("reference %d", i)] = p.Reference
		}
	}
	if path := m.Content.Commit.Path; path != nil {
		parts["path leaf signature"] = path.LeafNode.Signature
		parts["path leaf key"] = path.LeafNode.EncryptionKey
		parts["path parent hash"] = path.LeafNode.ParentHash
		for i := range path.Nodes {
			parts[fmt.Sprintf("path key %d", i)] = path.Nodes[i].EncryptionKey
		}
	}
	return parts
}

func TestReplayFlippedBits(t *testing.T) {
	for _, c := range replayCases(t) {
		t.Run(fmt.Sprintf("suite%d/case%d/commits%d", c.CipherSuite, c.Case, c.Commits), func(t *testing.T) {
			var g *PublicGroup
			for i, entry := range c.Log {
				if entry.Kind == "group_info" {
					g = checkFlippedGroupInfo(t, entry.MLSMessage)
					continue
				}
				b := bytes.Clone(entry.MLSMessage)
				before := fingerprint(g)
				for name, part := range signedParts(parseMessage(t, b).PublicMessage) {
					for _, at := range []int{0, len(part) / 2, len(part) - 1} {
						part[at] ^= 4 // b changes with it
						m, err := ParseMLSMessage(b, nil)
						if err == nil {
							_, err = g.Stage(m)
						}
						if err == nil {
							t.Errorf("line %d: accepted with byte %d of the %s changed", i, at, name)
						}
						if !bytes.Equal(before, fingerprint(g)) {
							t.Fatalf("line %d: a refusal changed the state", i)
						}
						part[at] ^= 4
					}
				}
				s, err := g.Stage(parseMessage(t, b))
				if err != nil {
					t.Fatalf("line %d: %v", i, err)
				}
				g = s.Next()
			}
		})
	}
}

// checkFlippedGroupInfo changes bytes all over a GroupInfo and its tree: every
// one is covered by the signature, and those of the tree by its hash too.
func checkFlippedGroupInfo(t *testing.T, message []byte) *PublicGroup {
	b := bytes.Clone(message)
	gi := parseMessage(t, b).GroupInfo
	tree, ok := gi.Extensions.Find(ExtensionTypeRatchetTree)
	if !ok {
		t.Fatal("no ratchet_tree")
	}
	parts := map[string][]byte{
		"signature": gi.Signature, "tree_hash": gi.GroupContext.TreeHash,
		"confirmed_transcript_hash": gi.GroupContext.ConfirmedTranscriptHash, "confirmation_tag": gi.ConfirmationTag, "group_id": gi.GroupContext.GroupID,
	}
	for at := 0; at < len(tree); at += 1 + len(tree)/40 {
		parts[fmt.Sprintf("tree at %d", at)] = tree[at : at+1]
	}
	for name, part := range parts {
		part[0] ^= 1
		m, err := ParseMLSMessage(b, nil)
		if err == nil {
			_, err = NewPublicGroup(m.GroupInfo, nil, Options{})
		}
		if err == nil {
			t.Errorf("accepted with the %s changed", name)
		}
		part[0] ^= 1
	}
	g, err := NewPublicGroup(parseMessage(t, b).GroupInfo, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestTreeBesideGroupInfo(t *testing.T) {
	gi := parseMessage(t, replayCases(t)[0].Log[0].MLSMessage).GroupInfo
	tree, _ := gi.Extensions.Find(ExtensionTypeRatchetTree)
	if _, err := NewPublicGroup(gi, tree, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := NewPublicGroup(gi, tree[:len(tree)-1], Options{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("a cut tree: %v", err)
	}
	without := *gi
	without.Extensions = nil
	if _, err := NewPublicGroup(&without, nil, Options{}); !errors.Is(err, ErrUnresolvable) {
		t.Errorf("no tree at all: %v", err)
	}
}

func TestUnknownReferenceIsUnresolvable(t *testing.T) {
	for _, c := range replayCases(t) {
		var g *PublicGroup
		skipped := false
		for _, entry := range c.Log {
			m := parseMessage(t, entry.MLSMessage)
			switch {
			case entry.Kind == "group_info":
				g, _ = NewPublicGroup(m.GroupInfo, nil, Options{})
			case entry.Kind == "proposal":
				skipped = true
			case skipped:
				if _, err := g.Stage(m); !errors.Is(err, ErrUnresolvable) {
					t.Errorf("suite %d, case %d: %v", c.CipherSuite, c.Case, err)
				}
				return
			default:
				s, err := g.Stage(m)
				if err != nil {
					t.Fatal(err)
				}
				g = s.Next()
			}
		}
	}
	t.Fatal("no log with a proposal")
}

func TestStaleAndAhead(t *testing.T) {
	for _, c := range replayCases(t) {
		if c.Commits < 2 || len(c.Log) != 3 {
			continue
		}
		g, err := NewPublicGroup(parseMessage(t, c.Log[0].MLSMessage).GroupInfo, nil, Options{})
		if err != nil {
			t.Fatal(err)
		}
		first, second := parseMessage(t, c.Log[1].MLSMessage), parseMessage(t, c.Log[2].MLSMessage)
		if _, err := g.Stage(second); !errors.Is(err, ErrAhead) {
			t.Errorf("the second commit first: %v", err)
		}
		s, err := g.Stage(first)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Next().Stage(first); !errors.Is(err, ErrStale) {
			t.Errorf("the first commit again: %v", err)
		}
		return
	}
	t.Fatal("no log with two plain commits")
}
