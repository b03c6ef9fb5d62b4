package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

func (t *Tenant) validate(ps *problems, at string) {
	if !tenantPattern.MatchString(t.Name) {
		ps.add(at+".name", "%q does not match %s", t.Name, tenantPattern)
	}
	for i, key := range t.Keys {
		key.validate(ps, fmt.Sprintf("%s.keys[%d]", at, i))
		if slices.Contains(t.Keys[:i], key) {
			ps.add(fmt.Sprintf("%s.keys[%d]", at, i), "the same key is listed twice")
		}
	}
	if n := len(t.SenderIdentity); n < 1 || n > 255 {
		ps.add(at+".sender_identity", "%d bytes, where 1 to 255 are wanted", n)
	}
	oneOf(ps, at+".info_trust", t.InfoTrust, "handshake", "ds")
	oneOf(ps, at+".mode2", t.Mode2, "allow", "hold", "sender_only")
	oneOf(ps, at+".form", t.Form, "remove", "leaf_operation_proposal")
	if t.Form == "leaf_operation_proposal" && !t.AuthService.Shared {
		ps.add(at+".form", "leaf_operation_proposal wants authsvc.shared")
	}
	atLeast(ps, at+".fallback_epochs", t.FallbackEpochs, 1)
	atLeast(ps, at+".park_ttl", t.ParkTTL, Duration(time.Millisecond))
	atLeast(ps, at+".lag_window", t.LagWindow, 0)
	atLeast(ps, at+".stalled_after", t.StalledAfter, 1)
	atLeast(ps, at+".receipt_ttl", t.ReceiptTTL, Duration(time.Second))
	between(ps, at+".pacing.min_epoch", t.Pacing.MinEpoch, 0, Duration(time.Hour))
	oneOf(ps, at+".on_replace", t.OnReplace, "superseded", "continue")
	oneOf(ps, at+".lifetimes", t.Lifetimes, "report", "refuse")
	oneOf(ps, at+".replaced_signature_key", t.ReplacedSignatureKey, "report", "refuse")
	oneOf(ps, at+".isolation", t.Isolation, "shared", "dedicated")
	t.CodePoints.validate(ps, at+".code_points")
	validateSuites(ps, at, t.CipherSuites)
	oneOf(ps, at+".body", t.Body, "raw", "opaque")
	t.Quotas.validate(ps, at+".quotas")
	atLeast(ps, at+".guards.max_associated", t.Guards.MaxAssociated, 1)
	if f := t.Guards.MaxFraction; !(f > 0 && f <= 1) {
		ps.add(at+".guards.max_fraction", "%v is not more than 0 and at most 1", f)
	}
	t.AuthService.validate(ps, at+".authsvc")
}

func (k KeyRef) validate(ps *problems, at string) {
	set := 0
	for _, value := range []string{k.File, k.Credential, k.Env} {
		if value != "" {
			set++
		}
	}
	if set != 1 {
		ps.add(at, "exactly one of file, credential and env is wanted")
	}
	if strings.Contains(k.Credential, "/") || k.Credential == "." || k.Credential == ".." {
		ps.add(at+".credential", "a name is wanted, not a path")
	}
	if strings.HasPrefix(k.Env, envPrefix) {
		ps.add(at+".env", "%q begins with %s, which is kept for configuration", k.Env, envPrefix)
	}
}

func (q *Quotas) validate(ps *problems, at string) {
	atLeast(ps, at+".intents_per_second", q.IntentsPerSecond, 0)
	atLeast(ps, at+".open_intents", q.OpenIntents, 0)
	if q.IntentsPerSecond > 0 {
		atLeast(ps, at+".burst", q.Burst, 1)
	}
}

// codePoint is one meaning of one value.
type codePoint struct {
	key      string
	value    uint16
	optional bool // 0 disables it
}

// validate checks each registry by itself. RFC 9420 gives away the proposal
// types 1 to 7, the wire formats 1 to 5 and the extension types 1 to 5
// (Sections 17.2 to 17.4).
func (c *CodePoints) validate(ps *problems, at string) {
	validateRegistry(ps, at, 7, []codePoint{
		{"self_remove", c.SelfRemove, false},
		{"leaf_operation_proposal", c.LeafOperationProposal, false},
		{"replace", c.Replace, false},
		{"app_data_update", c.AppDataUpdate, true},
	})
	validateRegistry(ps, at, 5, []codePoint{
		{"leaf_operation_intent_wire_format", c.LeafOperationIntentWireFormat, false},
	})
	validateRegistry(ps, at, 5, []codePoint{
		{"leaf_node_epoch", c.LeafNodeEpoch, false},
	})
}

// suiteName are the names whose hash and signature the broker knows.
var suiteName = regexp.MustCompile(`^MLS_\d+_[A-Z0-9]+_[A-Z0-9]+_SHA(256|384|512)_(Ed25519|Ed448|P256|P384|P521|MLDSA44|MLDSA65|MLDSA87)$`)

// validateSuites checks numbers and names. RFC 9420 gives away the suites 1 to
// 7 (Section 17.1).
func validateSuites(ps *problems, at string, suites []CipherSuite) {
	points := make([]codePoint, len(suites))
	for i, s := range suites {
		key := fmt.Sprintf("cipher_suites[%d]", i)
		points[i] = codePoint{key + ".id", s.ID, false}
		if !suiteName.MatchString(s.Name) {
			ps.add(at+"."+key+".name", "%q does not match %s", s.Name, suiteName)
		}
	}
	validateRegistry(ps, at, 7, points)
}

func validateRegistry(ps *problems, at string, taken uint16, points []codePoint) {
	meaning := map[uint16]string{}
	for _, p := range points {
		if p.value == 0 && p.optional {
			continue
		}
		key := at + "." + p.key
		switch other, ok := meaning[p.value]; {
		case p.value == 0:
			ps.add(key, "0 is reserved")
		case p.value <= taken:
			ps.add(key, "0x%04x has another meaning in RFC 9420", p.value)
		case isGREASE(p.value):
			ps.add(key, "0x%04x is a GREASE value", p.value)
		case ok:
			ps.add(key, "0x%04x is %s too", p.value, other)
		default:
			meaning[p.value] = p.key
		}
	}
}

// isGREASE reports whether a value is kept to have no meaning (RFC 9420,
// Section 13.5): 0x0a0a, 0x1a1a, to 0xeaea.
func isGREASE(v uint16) bool {
	return v>>8 == v&0xff && v&0x0f == 0x0a && v != 0xfafa
}

func (a *AuthService) validate(ps *problems, at string) {
	oneOf(ps, at+".type", a.Type, "none", "static")
	if a.Type == "static" && len(a.Rules) == 0 {
		ps.add(at+".rules", "type static wants at least one rule")
	}
	if a.Type == "none" && len(a.Rules) > 0 {
		ps.add(at+".rules", "rules have no effect with type none; use static")
	}
	if a.Type == "none" && a.Shared {
		ps.add(at+".shared", "nothing is shared with type none")
	}
	supported(ps, at+".on_error", a.OnError, []string{"hold", "sender_only"}, "use_stale")
	between(ps, at+".timeout", a.Timeout, Duration(time.Millisecond), Duration(time.Minute))
	for i := range a.Rules {
		a.Rules[i].validate(ps, fmt.Sprintf("%s.rules[%d]", at, i))
	}
}

func (r *Rule) validate(ps *problems, at string) {
	oneOf(ps, at+".match", r.Match, "basic")
	oneOf(ps, at+".encoding", r.Encoding, "utf8", "hex", "base64", "uint64be", "raw")
	if (r.Equality == "") == (r.Pattern == "") {
		ps.add(at, "exactly one of equality and pattern is wanted")
	}
	if r.Equality != "" {
		oneOf(ps, at+".equality", r.Equality, "whole_identity")
	}
	if r.Pattern == "" {
		return
	}
	if re, err := regexp.Compile(r.Pattern); err != nil {
		ps.add(at+".pattern", "%v", err)
	} else if re.SubexpIndex("subject") < 0 {
		ps.add(at+".pattern", "no group named subject, as in (?P<subject>[^:]+):.*")
	}
}
