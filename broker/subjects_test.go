package broker

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"leavebroker/mlscore/mlstest"
)

func TestGroupToken(t *testing.T) {
	for _, test := range []struct {
		id    []byte
		token string
	}{
		{[]byte("g"), "Zw"},
		{[]byte{0xff, 0xef, 0xbe}, "_---"},
		{nil, "=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"},
		{bytes.Repeat([]byte{0}, 64), strings.Repeat("A", 86)},
		{bytes.Repeat([]byte{0}, 65), "=mM4CTIuV4WCXrL9HqcEW5qbsA9fV5Fkc3jpiw68FO3U"},
	} {
		token := GroupToken(test.id)
		if len(test.id) != 65 && token != test.token {
			t.Errorf("GroupToken(%x) = %q, want %q", test.id, token, test.token)
		}
		id, err := parseGroupToken(token)
		if err != nil {
			t.Errorf("parseGroupToken(%q): %v", token, err)
		}
		if len(test.id) <= 64 && (id == nil || !bytes.Equal(id, test.id)) {
			t.Errorf("parseGroupToken(%q) = %x, want %x", token, id, test.id)
		}
		if len(test.id) > 64 && id != nil {
			t.Errorf("parseGroupToken(%q) = %x, want nil: a hash", token, id)
		}
	}
	for _, bad := range []string{"", "=", "Z", "Zw==", "Zx", "a b", "Z.w", "=Zw", "*", ">", strings.Repeat("A", 87), "=" + strings.Repeat("A", 44)} {
		if id, err := parseGroupToken(bad); err == nil {
			t.Errorf("parseGroupToken(%q) = %x, want an error", bad, id)
		}
	}
}

func TestSubjectsParse(t *testing.T) {
	n := names{prefix: "leave", partitions: 64}
	k := groupKey{"acme", GroupToken([]byte("group 1"))}
	for _, what := range append(append([]kind{}, inputKinds...), ownKinds...) {
		gotKey, gotKind, err := n.parseLog(n.log(k, what))
		if err != nil || gotKey != k || gotKind != what {
			t.Errorf("parseLog(%q) = %v %q %v", n.log(k, what), gotKey, gotKind, err)
		}
	}
	other := (n.partition(k) + 1) % 64
	for _, bad := range []string{
		"", "leave", "leave.log.1.acme.Zw", n.in(k, kindIntent), n.log(k, "what"), n.log(k, kindIntent) + ".x",
		strings.Replace(n.log(k, kindIntent), "leave", "other", 1),
		strings.Replace(n.log(k, kindIntent), "acme", "ACME", 1),
		fmt.Sprintf("leave.log.%d.%s.%s.intent", other, k.tenant, k.group),
		fmt.Sprintf("leave.log.0%d.%s.%s.intent", n.partition(k), k.tenant, k.group),
	} {
		if k, what, err := n.parseLog(bad); err == nil {
			t.Errorf("parseLog(%q) = %v %q, want an error", bad, k, what)
		}
	}
	if k2, typ, err := n.parseEvent(n.event(k, "removed")); err != nil || k2 != k || typ != "removed" {
		t.Errorf("parseEvent: %v %q %v", k2, typ, err)
	}
	if _, _, err := n.parseEvent("leave.event.acme.Zw.Removed"); err == nil {
		t.Error("parseEvent takes a type in capitals")
	}
	if tenant, err := n.parseAPI(n.api("acme", "intent.submit")); err != nil || tenant != "acme" {
		t.Errorf("parseAPI: %q %v", tenant, err)
	}
	if _, err := n.parseAPI("leave.api.ACME.intent.submit"); err == nil {
		t.Error("parseAPI takes a tenant in capitals")
	}
	if k2, err := parseGroupKey(k.String()); err != nil || k2 != k {
		t.Errorf("parseGroupKey: %v %v", k2, err)
	}
}

func FuzzParseLog(f *testing.F) {
	n := names{prefix: "leave", partitions: 64}
	f.Add(n.log(groupKey{"acme", GroupToken(nil)}, kindIntent))
	f.Add(n.log(groupKey{"a-b_c", GroupToken([]byte("x"))}, kindRemoval))
	f.Add("leave.log.0.a.=.intent")
	f.Fuzz(func(t *testing.T, subject string) {
		var k groupKey
		var what kind
		var err error
		// Split makes a 16-byte string of every dot, and an error quotes the subject escaped.
		mlstest.CheckAllocation(t, len(subject), 128, func() { k, what, err = n.parseLog(subject) })
		if err == nil && n.log(k, what) != subject {
			t.Errorf("parseLog(%q) = %v %q, which is %q", subject, k, what, n.log(k, what))
		}
	})
}

func FuzzParseGroupToken(f *testing.F) {
	f.Add(GroupToken(nil))
	f.Add(GroupToken([]byte("x")))
	f.Fuzz(func(t *testing.T, token string) {
		var id []byte
		var err error
		mlstest.CheckAllocation(t, len(token), 32, func() { id, err = parseGroupToken(token) })
		if err == nil && id != nil && GroupToken(id) != token {
			t.Errorf("parseGroupToken(%q) = %x, whose token is %q", token, id, GroupToken(id))
		}
	})
}

// The server computes the partition of an input; the broker computes that of
// what it writes itself. They have to be the same.
func TestPartitionIsThatOfTheServer(t *testing.T) {
	_, js, _ := testServer(t)
	ctx := testContext(t)
	for _, partitions := range []int{1, 7, 64} {
		a := testAssets(partitions)
		a.names.prefix = fmt.Sprintf("leave%d", partitions)
		if err := a.ensureStream(ctx, js, a.logConfig()); err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(ctx, a.names.logStream())
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range 200 {
			id := make([]byte, rng.IntN(80))
			for j := range id {
				id[j] = byte(rng.Uint32())
			}
			k := groupKey{[]string{"acme", "t-1", "default"}[i%3], GroupToken(id)}
			what := inputKinds[i%len(inputKinds)]
			ack, err := js.Publish(ctx, a.names.in(k, what), []byte{1})
			if err != nil {
				t.Fatal(err)
			}
			m, err := stream.GetMsg(ctx, ack.Sequence)
			if err != nil {
				t.Fatal(err)
			}
			if want := a.names.log(k, what); m.Subject != want {
				t.Fatalf("the server stores %q, the broker says %q", m.Subject, want)
			}
		}
	}
}

// What others publish directly to the log is not stored, and outputs are
// republished.
func TestLogSubjects(t *testing.T) {
	_, js, nc := testServer(t)
	ctx := testContext(t)
	a := testAssets(4)
	if _, err := ensureAll(ctx, a, js); err != nil {
		t.Fatal(err)
	}
	k := groupKey{"acme", GroupToken([]byte("g"))}
	if _, err := js.Publish(ctx, a.names.log(k, kindIntent), []byte("x"), jetstream.WithRetryAttempts(0)); err == nil {
		t.Error("an intent published to the log itself is stored")
	}
	sub, err := nc.SubscribeSync(a.names.removal(k))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, a.names.log(k, kindRemoval), []byte("out")); err != nil {
		t.Fatal(err)
	}
	if m, err := sub.NextMsgWithContext(ctx); err != nil || string(m.Data) != "out" {
		t.Errorf("republished: %v %v", m, err)
	}
}
