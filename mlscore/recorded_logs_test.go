package mlscore

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// recordedLine is a line of testdata/replay: a message, and what members and
// trackers of several stacks agreed on after it.
type recordedLine struct {
	SelfRemove              *ProposalType `json:"self_remove"` // in the first line
	Message                 []byte        `json:"mls_message"`
	Epoch                   uint64        `json:"epoch"`
	Members                 int           `json:"members"`
	TreeHash                string        `json:"tree_hash"`
	ConfirmedTranscriptHash string        `json:"confirmed_transcript_hash"`
}

// TestRecordedLogs follows groups of members of several stacks, whose messages
// mlscore/interop/mixed recorded with -record: what each message leads to is what
// those members agreed on.
func TestRecordedLogs(t *testing.T) {
	files, err := filepath.Glob("testdata/replay/*.jsonl")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d logs, error %v", len(files), err)
	}
	seen := map[string]int{}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			followRecorded(t, bytes.Split(bytes.TrimSpace(text), []byte("\n")), seen)
		})
	}
	for _, what := range []string{
		"external commit", "resync", "psk by reference", "add by reference", "update by reference", "remove by reference",
		"group_context_extensions by reference", "self_remove by reference", "external remove", "add by value", "remove by value",
	} {
		if seen[what] == 0 {
			t.Errorf("no log has a commit with %s", what)
		}
	}
}

func followRecorded(t *testing.T, lines [][]byte, seen map[string]int) {
	reg := DefaultRegistry()
	var g *PublicGroup
	for i, text := range lines {
		var line recordedLine
		if err := json.Unmarshal(text, &line); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if line.SelfRemove != nil {
			reg.SelfRemove = *line.SelfRemove
		}
		m, err := ParseMLSMessage(line.Message, reg)
		if err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if m.GroupInfo != nil {
			if g, err = NewPublicGroup(m.GroupInfo, nil, Options{Registry: reg}); err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
		} else {
			s, err := g.Stage(m)
			if err == nil && s.Proposal != nil {
				err = s.Proposal.Invalid
			}
			if err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
			noteRecorded(s, seen)
			g = s.Next()
		}
		if g.Epoch() != line.Epoch || g.Tree().Members() != line.Members || hex.EncodeToString(g.Tree().TreeHash()) != line.TreeHash ||
			hex.EncodeToString(g.ConfirmedTranscriptHash()) != line.ConfirmedTranscriptHash {
			t.Fatalf("line %d: epoch %d, %d members, tree hash %x, confirmed transcript hash %x, want %+v", i+1,
				g.Epoch(), g.Tree().Members(), g.Tree().TreeHash(), g.ConfirmedTranscriptHash(), line)
		}
	}
}

// noteRecorded notes what a commit contains.
func noteRecorded(s *Staged, seen map[string]int) {
	if s.Kind == StagedExternalCommit {
		seen["external commit"]++
	}
	if s.Resync {
		seen["resync"]++
	}
	for _, a := range s.Applied {
		name := a.Proposal.Type.String()
		if a.Proposal.IsSelfRemove() {
			name = "self_remove"
		}
		switch {
		case a.Sender.Type == SenderTypeExternal:
			seen["external "+name]++
		case a.Ref != nil:
			seen[name+" by reference"]++
		default:
			seen[name+" by value"]++
		}
	}
}
