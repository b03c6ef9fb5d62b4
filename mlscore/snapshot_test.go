package mlscore_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/mlstest"
)

// checkRestored stages a message in a group and in the group that its stored
// form gives. They are as one.
func checkRestored(t testing.TB, g *mlscore.PublicGroup, opts mlscore.Options, m *mlscore.MLSMessage) {
	t.Helper()
	snapshot := g.AppendSnapshot(nil)
	stored := bytes.Clone(snapshot)
	other, err := mlscore.RestorePublicGroup(stored, opts)
	if err != nil {
		t.Fatal(err)
	}
	clear(stored) // nothing points into it
	if !bytes.Equal(other.AppendSnapshot(nil), snapshot) {
		t.Fatal("a restored group is stored in other bytes")
	}
	want, wantErr := g.Stage(m)
	got, gotErr := other.Stage(m)
	if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || mlscore.Reason(gotErr) != mlscore.Reason(wantErr) {
		t.Fatalf("restored: %v, want %v", gotErr, wantErr)
	}
	if wantErr == nil {
		checkSameStaged(t, got, want)
	}
}

func checkSameStaged(t testing.TB, got, want *mlscore.Staged) {
	t.Helper()
	if !bytes.Equal(got.Next().AppendSnapshot(nil), want.Next().AppendSnapshot(nil)) {
		t.Fatal("a restored group goes on elsewhere")
	}
	a, b := plain(got), plain(want)
	if !reflect.DeepEqual(a, b) {
		t.Fatalf("restored: %+v, want %+v", a, b)
	}
}

// plain is what a Staged says, proposals as bytes.
func plain(s *mlscore.Staged) []any {
	out := []any{s.Kind, s.Committer, s.Resync, s.CommitHash, s.Proves}
	for _, list := range [][]mlscore.LeafIndex{s.Removed, s.Updated, s.Added} {
		out = append(out, fmt.Sprint(list))
	}
	out = append(out, fmt.Sprint(s.Flags), s.Next().Proven(), s.Next().Closed(), fmt.Sprint(s.Next().Flags()), s.Next().ExternalSenders())
	for _, a := range s.Applied {
		out = append(out, a.Proposal.Bytes(), a.Proposal.IsSelfRemove(), a.Proposal.IsReplace(), a.Sender, a.Ref, a.Expansion, fmt.Sprint(a.Removes))
	}
	if p := s.Proposal; p != nil {
		out = append(out, p.Ref, p.Proposal.Bytes(), p.Sender, p.Expansion, p.Message(), fmt.Sprint(p.Invalid))
	}
	for p := range s.Next().Proposals() {
		out = append(out, p.Ref, p.Sender, p.Expansion, p.Message(), fmt.Sprint(p.Invalid))
	}
	return out
}

// Logs of other implementations are followed as well where the group is stored
// and restored between every two messages.
func TestRestoredBetweenMessages(t *testing.T) {
	var logs []struct {
		Log []struct {
			MLSMessage mlstest.Hex `json:"mls_message"`
		} `json:"log"`
	}
	for _, file := range []string{"replay/commit.json", "replay/handling-commit.json"} {
		mlstest.JSON(t, file, &logs)
		for _, l := range logs {
			info := must(mlscore.ParseMLSMessage(l.Log[0].MLSMessage, nil)).GroupInfo
			g := must(mlscore.NewPublicGroup(info, nil, mlscore.Options{}))
			followed := g
			for _, entry := range l.Log[1:] {
				m := must(mlscore.ParseMLSMessage(entry.MLSMessage, nil))
				want := must(followed.Stage(m))
				got := must(restored(t, g.AppendSnapshot(nil)).Stage(m))
				checkSameStaged(t, got, want)
				g, followed = got.Next(), want.Next()
			}
		}
	}
}

// A group keeps the time at which it is judged.
func TestRestoredAtItsTime(t *testing.T) {
	w := newWorld(t, 3)
	snapshot := w.group.At(12345).AppendSnapshot(nil)
	g := must(mlscore.RestorePublicGroup(snapshot, mlscore.Options{Time: 1}))
	if !bytes.Equal(g.AppendSnapshot(nil), snapshot) {
		t.Error("the time is another")
	}
}

// storedWorld is a group with proposals of every kind, valid ones and not.
func storedWorld(t *testing.T) *world {
	w := newWorld(t, 4)
	w.pend(w.by(1), updateWith(w.update(1, nil)))
	w.pend(w.by(2), mlscore.NewSelfRemove(mlscore.DefaultRegistry()))
	w.pend(external, &mlscore.Proposal{Type: mlscore.ProposalTypeRemove, Removed: 3})
	w.pend(external, &mlscore.Proposal{Type: mlscore.ProposalTypeRemove, Removed: 9})
	return w
}

func TestSpoiledSnapshotsAreRefused(t *testing.T) {
	snapshot := storedWorld(t).group.AppendSnapshot(nil)
	refused := func(what string, b []byte, class error) {
		t.Helper()
		if _, err := mlscore.RestorePublicGroup(b, mlscore.Options{}); !errors.Is(err, class) {
			t.Errorf("%s: %v, want %v", what, err, class)
		}
	}
	for n := range snapshot {
		refused(fmt.Sprintf("the first %d bytes", n), snapshot[:n], mlscore.ErrMalformed)
		if n >= sha256.Size {
			refused(fmt.Sprintf("the first %d bytes with a checksum", n), summed(snapshot[:n-sha256.Size]), mlscore.ErrMalformed)
		}
	}
	for bit := range 8 * len(snapshot) {
		spoiled := bytes.Clone(snapshot)
		spoiled[bit/8] ^= 1 << (bit % 8)
		refused(fmt.Sprintf("bit %d", bit), spoiled, mlscore.ErrMalformed)
	}
	body := snapshot[:len(snapshot)-sha256.Size]
	refused("one byte more", summed(append(bytes.Clone(body), 0)), mlscore.ErrMalformed)
	body[1]++
	refused("version 2", summed(body), mlscore.ErrUnsupported)
}

// summed is a body with the checksum that it should have.
func summed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return append(slices.Clip(body), sum[:]...)
}

var freeze = flag.Bool("freeze", false, "write the snapshot of today into testdata/snapshots")

// frozenSnapshot was written on the day in its name. It is never written again:
// a new version gets a file of its own.
const frozenSnapshot = "testdata/snapshots/2026-11-27-v1.bin"

func TestFrozenSnapshot(t *testing.T) {
	if *freeze {
		if err := os.WriteFile(frozenSnapshot, storedWorld(t).group.AppendSnapshot(nil), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	snapshot := must(os.ReadFile(frozenSnapshot))
	g := restored(t, snapshot)
	if !bytes.Equal(g.AppendSnapshot(nil), snapshot) {
		t.Error("it is stored in other bytes now")
	}
	got := fmt.Sprintf("%s epoch=%d members=%d senders=%d proven=%t closed=%t", g.GroupID(), g.Epoch(), g.Tree().Members(),
		len(g.ExternalSenders()), g.Proven(), g.Closed())
	if want := "group epoch=2 members=4 senders=1 proven=true closed=false"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var proposals []string
	for p := range g.Proposals() {
		proposals = append(proposals, fmt.Sprintf("%s by %s: %v", p.Proposal.Type, p.Sender.Type, p.Invalid))
	}
	want := []string{
		"update by member: <nil>", "proposal_0x000a by member: <nil>", "remove by external: <nil>",
		"remove by external: invalid: a Remove of leaf 9, which is blank or outside the tree (RFC 9420, Section 12.1.3)",
	}
	if !slices.Equal(proposals, want) {
		t.Errorf("got %q, want %q", proposals, want)
	}
}

// FuzzRestorePublicGroup: whatever has the right checksum is refused with a
// class or stored again in the same bytes, and costs no more than it is long.
func FuzzRestorePublicGroup(f *testing.F) {
	frozen, err := os.ReadFile(frozenSnapshot)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frozen[:len(frozen)-sha256.Size])
	f.Add(codec.AppendUint16(nil, 1))
	f.Fuzz(func(t *testing.T, body []byte) {
		data := summed(body)
		var g *mlscore.PublicGroup
		var err error
		allocated := allocatedBy(func() { g, err = mlscore.RestorePublicGroup(data, mlscore.Options{}) })
		if limit := uint64(64<<10 + 100*len(data)); allocated > limit {
			t.Errorf("%d bytes for %d", allocated, len(data))
		}
		switch {
		case err != nil:
			if reason := mlscore.Reason(err); reason != "malformed" && reason != "unsupported" {
				t.Errorf("an error of another class: %v", err)
			}
		case !bytes.Equal(g.AppendSnapshot(nil), data):
			t.Error("it is stored in other bytes")
		}
	})
}

// allocatedBy is the bytes that a function allocates, with what others do
// meanwhile.
func allocatedBy(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
