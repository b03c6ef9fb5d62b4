package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"leavebroker/mlscore"
)

// playLoad runs a small load and gives what it prints with -o json.
func playLoad(t *testing.T, args ...string) (r loadResult) {
	t.Helper()
	code, out, errOut := run("", append([]string{"load", "-o", "json"}, args...)...)
	if code != 0 || errOut != "" || strings.Count(out, "\n") != 1 {
		t.Fatalf("load %v: exit code %d, %q, %s", args, code, out, errOut)
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Gone == 0 || r.Removals < r.Gone || r.Receipts == 0 || r.Unfinished != 0 || r.Unsettled != 0 || r.Refused != 0 {
		t.Errorf("load %v: %s", args, out)
	}
	if l := r.Latency["intent_gone"]; l.Count != r.Gone || !(0 < l.P50 && l.P50 <= l.P90 && l.P90 <= l.P99 && l.P99 <= l.Max) {
		t.Errorf("load %v: intent_gone %+v of %d", args, l, r.Gone)
	}
	return r
}

// Each profile, in a small form, ends with everybody gone who left.
func TestLoadProfiles(t *testing.T) {
	for profile, want := range map[string]struct {
		args  string
		check func(r *loadResult) bool
	}{
		"chat": {"--members 4 --rate 40 --duration 1s", func(r *loadResult) bool {
			return r.Steps == 40 && r.Intents == 2 && r.Commits >= 38
		}},
		"call": {"--members 6 --rate 100 --duration 300ms --cipher-suite 3", func(r *loadResult) bool {
			return r.Joins == 26 && r.Intents == 4 && r.Suite == 3 // two groups: two leave in each
		}},
		"offboard": {"--members 5 --rate 100", func(r *loadResult) bool {
			return r.Intents == 2 && r.Gone == 2*loadDevices && r.Receipts == 2
		}},
		"end": {"--members 4 --rate 100", func(r *loadResult) bool {
			return r.Gone == 2*3 && r.Intents == 2*4 && r.Receipts == 2*3 // the last in each is not removed
		}},
		"node": {"--members 4 --rate 50 --duration 200ms", func(r *loadResult) bool {
			return r.Intents+r.Idle == 10 && r.Suite == 2
		}},
		"churn": {"--members 4 --duration 300ms", func(r *loadResult) bool {
			return r.Gone == 2 && r.Commits == r.Joins+2 && r.Reproposals == r.Removals-2
		}},
	} {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "plot.svg")
			r := playLoad(t, append([]string{profile, "--groups", "2", "--sync-later", "--plot", file}, strings.Fields(want.args)...)...)
			if !want.check(&r) {
				t.Errorf("%+v", r)
			}
			checkPlot(t, file)
		})
	}
}

// checkPlot wants a drawing with lines and without anything that runs.
func checkPlot(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for d := xml.NewDecoder(bytes.NewReader(b)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, b)
		}
		if e, ok := token.(xml.StartElement); ok {
			count[e.Name.Local]++
		}
	}
	unfit := bytes.Contains(b, []byte("NaN")) || bytes.Contains(b, []byte("Inf"))
	if count["svg"] != 1 || count["path"] < 10 || count["text"] < 20 || count["script"] > 0 || unfit {
		t.Errorf("%v in\n%s", count, b)
	}
}

// Known groups and groups with pending intents are there, and disturb nothing.
func TestLoadBeside(t *testing.T) {
	r := playLoad(t, "chat", "--groups", "1", "--members", "3", "--rate", "20", "--duration", "100ms",
		"--known", "200", "--pending", "5", "--sync-later")
	if r.Known != 200 || r.Pending != 5 || r.Intents != 1 {
		t.Errorf("%+v", r)
	}
}

// A load on a broker that somebody else runs.
func TestLoadServer(t *testing.T) {
	d := newDefaultDaemon(t)
	d.Start()
	d.awaitReady()
	suite, err := toolRegistry().LookupSuite(1)
	if err != nil {
		t.Fatal(err)
	}
	sender := d.externalSender("default", suite)
	r := playLoad(t, "call", "--members", "4", "--rate", "100", "--duration", "100ms", "--server", d.url,
		"--external-sender", hex.EncodeToString(sender.Append(nil)))
	if r.Intents != 1 || r.Joins != 9 || len(r.Processes) != 0 {
		t.Errorf("%+v", r)
	}
	d.Stop()
}

// A GroupInfo of a known group is one that an observer takes, as a new group is.
func TestLoadKnownGroup(t *testing.T) {
	suite, err := toolRegistry().LookupSuite(1)
	if err != nil {
		t.Fatal(err)
	}
	sender := mlscore.ExternalSender{SignatureKey: make([]byte, 32), Credential: mlscore.BasicCredential([]byte("broker"))}
	people := newLoadPeople(suite, sender, 1)
	progress := newLoadProgress(io.Discard)
	if err := people.grow(10, progress); err != nil {
		t.Fatal(err)
	}
	if err := people.plant(4); err != nil {
		t.Fatal(err)
	}
	for i := range 12 { // some share a tree
		id := []byte{byte(i)}
		b, err := people.known(id, i)
		if err != nil {
			t.Fatal(err)
		}
		m, err := mlscore.ParseMLSMessage(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		g, err := mlscore.NewPublicGroup(m.GroupInfo, nil, mlscore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(g.GroupID(), id) || g.Tree().Members() != 4 || len(g.ExternalSenders()) != 1 || len(g.Flags()) != 0 {
			t.Errorf("group %x: %d members, %d external senders, flags %v", g.GroupID(), g.Tree().Members(), len(g.ExternalSenders()), g.Flags())
		}
	}
}
