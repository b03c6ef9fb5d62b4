package authsvc_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"leavebroker/authsvc"
	"leavebroker/authsvc/authsvctest"
	"leavebroker/mlscore"
	"leavebroker/mlscore/mlstest"
)

func mustRules(t testing.TB, rules ...authsvc.Rule) *authsvc.Rules {
	t.Helper()
	compiled, err := authsvc.NewRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func known(identity string, status authsvc.Status, subject string) authsvctest.Known {
	return authsvctest.Known{Credential: mlscore.BasicCredential([]byte(identity)), Status: status, Subject: subject}
}

// The identities that applications put into basic credentials.
var (
	wire = authsvc.Rule{Encoding: authsvc.UTF8, Pattern: `(?P<subject>[0-9a-f-]{36}):[0-9a-f]+@wire\.example`}
	dave = authsvc.Rule{Encoding: authsvc.Uint64BE, Whole: true} // a Discord snowflake
	key  = authsvc.Rule{Encoding: authsvc.Hex, Pattern: `(?P<subject>[0-9a-f]{64})`}
	xmtp = authsvc.Rule{Encoding: authsvc.Raw, Pattern: `\x0a\x40(?P<subject>[0-9a-f]{64})`} // inbox_id in protobuf
)

func TestRules(t *testing.T) {
	const user = "bd4c7053-1c5a-4020-9559-cd7bf7961954"
	nostr := strings.Repeat("\xff\x00", 16)
	for name, c := range map[string]struct {
		rules []authsvc.Rule
		known []authsvctest.Known
	}{
		"wire": {[]authsvc.Rule{wire}, []authsvctest.Known{
			known(user+":4959bc6ab12f2846@wire.example", authsvc.Resolved, user),
			known(user+":1@wire.example", authsvc.Resolved, user),
			known(user+":1@wire.example.evil.example", authsvc.Unknown, ""),
			known(user+":1@evil.example\n"+user+":1@wire.example", authsvc.Unknown, ""),
			known(user+":1@wire.example\n", authsvc.Unknown, ""),
			known(user+":1@wireXexample", authsvc.Unknown, ""),
			known("x"+user+":1@wire.example", authsvc.Unknown, ""),
			known(user+":@wire.example", authsvc.Unknown, ""),
			known("", authsvc.Unknown, ""),
		}},
		"discord": {[]authsvc.Rule{dave}, []authsvctest.Known{
			known("\x01\x23\x45\x67\x89\xab\xcd\xef", authsvc.Resolved, "81985529216486895"),
			known("\xff\xff\xff\xff\xff\xff\xff\xff", authsvc.Resolved, "18446744073709551615"),
			known("\x00\x00\x00\x00\x00\x00\x00\x00", authsvc.Resolved, "0"),
			known("\x01\x23\x45\x67\x89\xab\xcd", authsvc.Unknown, ""),
			known("\x00\x01\x23\x45\x67\x89\xab\xcd\xef", authsvc.Unknown, ""),
		}},
		"nostr": {[]authsvc.Rule{key}, []authsvctest.Known{
			known(nostr, authsvc.Resolved, strings.Repeat("ff00", 16)),
			known(nostr[1:], authsvc.Unknown, ""),
			known(hex.EncodeToString([]byte(nostr)), authsvc.Unknown, ""),
		}},
		"xmtp": {[]authsvc.Rule{xmtp}, []authsvctest.Known{
			known("\x0a\x40"+strings.Repeat("0e", 32), authsvc.Resolved, strings.Repeat("0e", 32)),
			known("\x0a\x41"+strings.Repeat("0e", 32), authsvc.Unknown, ""),
		}},
		"raw": {[]authsvc.Rule{{Encoding: authsvc.Raw, Pattern: `\xff(?P<subject>(?s:.)+)\x00`}}, []authsvctest.Known{
			known("\xff\xfe\n\x80\x00", authsvc.Resolved, "\xfe\n\x80"),
			known("\xc3\xbf\xfe\x00", authsvc.Unknown, ""), // U+00FF in UTF-8 is not the byte 0xff
		}},
		"whole identity": {[]authsvc.Rule{{Encoding: authsvc.UTF8, Whole: true}}, []authsvctest.Known{
			known("alice", authsvc.Resolved, "alice"),
			known("ALICE", authsvc.Resolved, "ALICE"),
			known("alice\xff", authsvc.Unknown, ""),
			known("", authsvc.Error, ""),
			known(" \t", authsvc.Error, ""),
			known(strings.Repeat("a", 256), authsvc.Resolved, strings.Repeat("a", 256)),
			known(strings.Repeat("a", 257), authsvc.Error, ""),
			known(strings.Repeat("a", authsvc.MaxIdentity+1), authsvc.Unknown, ""),
		}},
		"raw whole identity": {[]authsvc.Rule{{Encoding: authsvc.Raw, Whole: true}}, []authsvctest.Known{
			known("\xff\x00\xfe", authsvc.Resolved, "\xff\x00\xfe"),
			known(strings.Repeat("\xff", 256), authsvc.Resolved, strings.Repeat("\xff", 256)),
		}},
		"base64": {[]authsvc.Rule{{Encoding: authsvc.Base64, Whole: true}}, []authsvctest.Known{
			known("\xfb\xff\x00", authsvc.Resolved, "+/8A"),
			known("a", authsvc.Resolved, "YQ=="),
		}},
		"the first that matches decides": {[]authsvc.Rule{
			{Encoding: authsvc.UTF8, Pattern: `u:(?P<subject>[^:]*)(:.*)?`},
			{Encoding: authsvc.UTF8, Whole: true},
		}, []authsvctest.Known{
			known("u:alice:phone", authsvc.Resolved, "alice"),
			known("u::phone", authsvc.Error, ""), // and not the whole identity
			known("v:alice", authsvc.Resolved, "v:alice"),
		}},
		"a group that takes no part": {[]authsvc.Rule{{Encoding: authsvc.UTF8, Pattern: `x(?P<subject>a)?`}}, []authsvctest.Known{
			known("x", authsvc.Error, ""),
			known("xa", authsvc.Resolved, "a"),
		}},
		"alternatives are anchored": {[]authsvc.Rule{{Encoding: authsvc.UTF8, Pattern: `a|(?P<subject>b+)`}}, []authsvctest.Known{
			known("bb", authsvc.Resolved, "bb"),
			known("bbx", authsvc.Unknown, ""),
			known("ab", authsvc.Unknown, ""),
		}},
		"no rules": {nil, []authsvctest.Known{known("a", authsvc.Unknown, ""), known("", authsvc.Unknown, "")}},
	} {
		t.Run(name, func(t *testing.T) {
			rules := mustRules(t, c.rules...)
			authsvctest.Run(t, rules, "acme", c.known)
			authsvctest.Run(t, authsvc.Guard(rules, time.Minute), "acme", c.known)
		})
	}
}

func TestRulesOtherCredentials(t *testing.T) {
	rules := mustRules(t, authsvc.Rule{Encoding: authsvc.Raw, Whole: true})
	answer, err := rules.Resolve(t.Context(), "acme", []mlscore.Credential{
		{Type: mlscore.CredentialTypeX509, Identity: []byte("alice"), Certificates: [][]byte{[]byte("alice")}},
		{Type: 0x0a0a, Identity: []byte("alice"), Unknown: []byte("alice")},
		{Identity: []byte("alice")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range answer.Results {
		if r.Status != authsvc.Unknown || r.Reason == "" {
			t.Errorf("credential %d: %+v", i, r)
		}
	}
}

func TestRulesRefused(t *testing.T) {
	for _, r := range []authsvc.Rule{
		{},
		{Encoding: "UTF8", Whole: true},
		{Encoding: authsvc.UTF8},
		{Encoding: authsvc.UTF8, Whole: true, Pattern: `(?P<subject>.*)`},
		{Encoding: authsvc.UTF8, Pattern: `.*`},
		{Encoding: authsvc.UTF8, Pattern: `(?P<Subject>.*)`},
		{Encoding: authsvc.UTF8, Pattern: `(?P<subject>a)|(?P<subject>b)`},
		{Encoding: authsvc.UTF8, Pattern: `(?P<subject>a))|(?:b`}, // would escape the anchors
		{Encoding: authsvc.UTF8, Pattern: `(?P<subject>a)\`},
		{Encoding: authsvc.UTF8, Pattern: `(?P<subject>a)\Q`},
		{Encoding: authsvc.UTF8, Pattern: `(?P<subject>(a{500}){500})`},
		{Encoding: authsvc.UTF8, Pattern: `(?P<subject>\xff`},
		{Encoding: authsvc.UTF8, Pattern: "(?P<subject>\xff)"},
	} {
		if _, err := authsvc.NewRules([]authsvc.Rule{{Encoding: authsvc.UTF8, Whole: true}, r}); err == nil {
			t.Errorf("%+v is accepted", r)
		} else if !strings.HasPrefix(err.Error(), "rule 1: ") {
			t.Errorf("%+v: %v does not name the rule", r, err)
		}
	}
}

func TestRulesRevision(t *testing.T) {
	seen := map[string]bool{}
	for _, rules := range [][]authsvc.Rule{nil, {wire}, {wire, dave}, {dave, wire}, {key}} {
		revision := func() string {
			answer, err := mustRules(t, rules...).Resolve(t.Context(), "acme", nil)
			if err != nil {
				t.Fatal(err)
			}
			return answer.Revision
		}
		first := revision()
		if seen[first] || first != revision() {
			t.Errorf("revision %q", first)
		}
		seen[first] = true
	}
}

// TestRulesLinear: an expression that takes exponential time elsewhere, and the
// longest identity.
func TestRulesLinear(t *testing.T) {
	rules := mustRules(t, authsvc.Rule{Encoding: authsvc.UTF8, Pattern: `(?P<subject>(a+)+)b`})
	start := time.Now()
	answer, err := rules.Resolve(t.Context(), "acme", []mlscore.Credential{
		mlscore.BasicCredential(bytes.Repeat([]byte("a"), authsvc.MaxIdentity)),
	})
	if err != nil || answer.Results[0].Status != authsvc.Unknown {
		t.Errorf("answer %+v, error %v", answer, err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// FuzzRules: whatever an identity is, the answer keeps the contract, and a raw
// subject is a part of the identity.
func FuzzRules(f *testing.F) {
	for _, seed := range []string{"", "alice", "a:b@c", "\xff\xfe\x00", strings.Repeat("\x00", 8), strings.Repeat("a", 300), "\u00a0", "\u00ff"} {
		f.Add([]byte(seed), seed)
	}
	raw := mustRules(f, authsvc.Rule{Encoding: authsvc.Raw, Pattern: `(?s:.)?(?P<subject>(?s:.)*)`})
	all := mustRules(f, wire, dave, key, xmtp, authsvc.Rule{Encoding: authsvc.UTF8, Whole: true})
	f.Fuzz(func(t *testing.T, identity []byte, pattern string) {
		question := []mlscore.Credential{mlscore.BasicCredential(identity)}
		services := []*authsvc.Rules{raw, all}
		if len(pattern) < 200 {
			if own, err := authsvc.NewRules([]authsvc.Rule{{Encoding: authsvc.Raw, Pattern: pattern}}); err == nil {
				services = append(services, own)
			}
		}
		for _, rules := range services {
			var plain authsvc.Answer
			var err error
			// An identity is copied for the pattern, the subject and its hex form.
			mlstest.CheckAllocation(t, len(identity), 64, func() { plain, err = rules.Resolve(t.Context(), "t", question) })
			if err != nil {
				t.Fatal(err)
			}
			guarded, err := authsvc.Guard(rules, time.Minute).Resolve(t.Context(), "t", question)
			if err != nil || plain.Results[0] != guarded.Results[0] {
				t.Fatalf("%+v breaks the contract: %+v, %v", plain, guarded, err)
			}
			if rules != all && !strings.Contains(string(identity), plain.Results[0].Subject) {
				t.Fatalf("subject %x is not in identity %x", plain.Results[0].Subject, identity)
			}
		}
	})
}
