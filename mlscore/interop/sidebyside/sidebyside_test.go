package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"leavebroker/mlscore/mlstest/biggroup"
)

func recorded(t *testing.T, members, commits int, shape biggroup.Shape) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "group.jsonl")
	if err := record(path, members, commits, shape, 3); err != nil {
		t.Fatal(err)
	}
	return path
}

// The tracker reaches the state of the group that was recorded.
func TestTrackerFollowsRecording(t *testing.T) {
	g, err := biggroup.New(biggroup.Config{Suite: 1, Members: 40, Shape: biggroup.Unmerged, Seed: 3, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "group.jsonl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(json.NewEncoder(f), g, 20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	tr, err := newTracker(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.load(); err != nil {
		t.Fatal(err)
	}
	a, err := tr.follow(20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.floor(20); err != nil {
		t.Fatal(err)
	}
	context := g.Context()
	want := answer{
		Epoch: context.Epoch, TreeHash: hex.EncodeToString(context.TreeHash),
		ConfirmedTranscriptHash: hex.EncodeToString(context.ConfirmedTranscriptHash),
	}
	if !a.sameState(&want) {
		t.Errorf("the tracker is at %+v, the group at %+v", a, want)
	}
	if heap, err := tr.heap(); err != nil || heap <= 0 {
		t.Errorf("a heap of %d bytes, error %v", heap, err)
	}
}

func TestCompareTrackerAlone(t *testing.T) {
	rows, err := compare(recorded(t, 10, 40, biggroup.Merged), 10, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].name != "leavebroker" || rows[0].commit <= 0 || rows[0].floor <= 0 || rows[0].load <= 0 {
		t.Errorf("rows %+v", rows)
	}
	var out strings.Builder
	printTable(&out, biggroup.Merged, rows)
	if !strings.Contains(out.String(), "leavebroker") {
		t.Errorf("table:\n%s", &out)
	}
}

// mls-rs and OpenMLS accept what biggroup makes and reach the same states. The
// crate is not built here, because that takes minutes.
func TestPeersAgree(t *testing.T) {
	if _, err := os.Stat(crateBinary()); err != nil {
		t.Skipf("not built (run go run ./mlscore/interop/sidebyside once): %v", err)
	}
	for _, shape := range biggroup.Shapes {
		rows, err := compare(recorded(t, 30, 60, shape), 30, crateBinary())
		if err != nil {
			t.Errorf("%s: %v", shape, err)
			continue
		}
		names := []string{rows[0].name, rows[1].name, rows[2].name}
		if !slices.Equal(names, []string{"leavebroker", "mls-rs", "openmls"}) {
			t.Errorf("%s: rows of %q", shape, names)
		}
	}
}

// A disagreement between the engines is an error.
func TestDisagreementIsSeen(t *testing.T) {
	path := recorded(t, 10, 20, biggroup.Merged)
	ahead, err := newTracker(path)
	if err != nil {
		t.Fatal(err)
	}
	behind, err := newTracker(path)
	if err != nil {
		t.Fatal(err)
	}
	both := []*contender{{engine: ahead, name: "ahead"}, {engine: behind, name: "behind"}}
	if err := alternate(both, (*contender).runLoad); err != nil {
		t.Fatal(err)
	}
	if _, err := ahead.follow(1); err != nil {
		t.Fatal(err)
	}
	if err := alternate(both, func(c *contender) (answer, error) { return c.follow(1) }); err == nil {
		t.Error("different epochs were not seen")
	}
}

func TestLockedVersions(t *testing.T) {
	v := lockedVersions()
	for _, name := range []string{"mls-rs", "mls-rs-crypto-awslc", "aws-lc-sys", "openmls", "openmls_rust_crypto", "ed25519-dalek"} {
		if v[name] == "" {
			t.Errorf("no version of %s in Cargo.lock", name)
		}
	}
}

// The plot is well-formed, and a value ten times as large is a decade higher.
func TestPlot(t *testing.T) {
	var rows []row
	for i, members := range []int{10, 100, 1000} {
		for _, name := range []string{"leavebroker", "mls-rs", "openmls"} {
			rows = append(rows, row{members: members, name: name, commit: 1e5 * float64(i+1), floor: 1e5, load: 1e6 * math.Pow(10, float64(i)), heap: 1000})
		}
	}
	decoder, lines := xml.NewDecoder(bytes.NewReader(plot(biggroup.Merged, "a < b & c", rows))), 0
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "polyline" {
			lines++
		}
	}
	if lines != 4*3 {
		t.Errorf("%d lines", lines)
	}
	y := scale(rows, func(r row) float64 { return r.load }, 100, 0)
	if y.at(1e6) != 100 || math.Abs(y.at(1e7)-50) > 1e-9 || y.at(1e8) != 0 {
		t.Errorf("places %g, %g, %g", y.at(1e6), y.at(1e7), y.at(1e8))
	}
}
