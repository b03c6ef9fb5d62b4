package authsvc

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"unicode/utf8"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// MaxIdentity is the longest identity that rules look at, in bytes: the time to
// match grows with it, and it comes from others. No rule matches a longer one.
const MaxIdentity = 4096

// Encoding turns the bytes of an identity into the text that a rule sees.
type Encoding string

// The encodings.
const (
	// UTF8 takes the bytes as text; a rule does not match what is not UTF-8.
	UTF8 Encoding = "utf8"
	// Hex gives lowercase hex digits.
	Hex Encoding = "hex"
	// Base64 gives standard base64 with padding.
	Base64 Encoding = "base64"
	// Uint64BE gives 8 bytes, most significant first, as a decimal number; a
	// rule does not match any other length.
	Uint64BE Encoding = "uint64be"
	// Raw gives for each byte the character of that number, so that \xff in a
	// pattern matches the byte 0xff. A subject is turned back into bytes.
	Raw Encoding = "raw"
)

// Rule finds the subject in the identity of a basic credential. Exactly one of
// Whole and Pattern is set.
type Rule struct {
	Encoding Encoding
	// Whole makes the whole text the subject.
	Whole bool
	// Pattern is an RE2 expression (package regexp) that must match the whole
	// text, which it need not say with anchors. Its group named subject is the
	// subject. Anything that tells users apart must be in that group or be
	// spelled out: with (?P<subject>[^:]+):.*@.* the same name in two domains
	// is one user.
	Pattern string
}

// Rules is a Service that decides by the credentials themselves: it asks
// nobody, and cannot know whether a claim is true. The first rule that matches
// an identity decides, also where it finds a subject that is blank or too long,
// which is an [Error]. A credential that no rule matches is [Unknown], and so
// is any that is not basic. All tenants get the same answers.
type Rules struct {
	rules    []rule
	revision string
}

type rule struct {
	encoding Encoding
	pattern  *regexp.Regexp // nil: the whole text
	subject  int            // index of the group
}

// NewRules compiles rules; the error names the first that is wrong, from 0.
func NewRules(rules []Rule) (*Rules, error) {
	compiled := &Rules{}
	var all []byte
	for i, r := range rules {
		c, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i, err)
		}
		compiled.rules = append(compiled.rules, c)
		all = codec.AppendOpaque(all, []byte(r.Encoding))
		all = codec.AppendOpaque(all, []byte(r.Pattern))
	}
	sum := sha256.Sum256(all)
	compiled.revision = "rules-" + hex.EncodeToString(sum[:8])
	return compiled, nil
}

func (r Rule) compile() (rule, error) {
	switch r.Encoding {
	case UTF8, Hex, Base64, Uint64BE, Raw:
	default:
		return rule{}, fmt.Errorf("encoding %q", r.Encoding)
	}
	if r.Whole == (r.Pattern != "") {
		return rule{}, errors.New("exactly one of the whole identity and a pattern is wanted")
	}
	if r.Whole {
		return rule{encoding: r.Encoding}, nil
	}
	// Compiled alone first: a pattern such as a)|(b must not escape the group
	// that anchors it.
	if _, err := regexp.Compile(r.Pattern); err != nil {
		return rule{}, err
	}
	pattern, err := regexp.Compile(`\A(?:` + r.Pattern + `)\z`)
	if err != nil {
		return rule{}, err
	}
	subject := pattern.SubexpIndex("subject")
	if subject < 0 || slices.Contains(pattern.SubexpNames()[subject+1:], "subject") {
		return rule{}, fmt.Errorf("pattern %q wants exactly one group named subject", r.Pattern)
	}
	return rule{r.Encoding, pattern, subject}, nil
}

// Resolve applies the rules. Its only error is that ctx is done.
func (rs *Rules) Resolve(ctx context.Context, _ string, credentials []mlscore.Credential) (Answer, error) {
	answer := Answer{Revision: rs.revision, Results: make([]Result, len(credentials))}
	for i := range credentials {
		if err := ctx.Err(); err != nil {
			return Answer{}, fmt.Errorf("credential rules: %w", err)
		}
		answer.Results[i] = rs.resolve(&credentials[i])
	}
	return answer, ctx.Err()
}

func (rs *Rules) resolve(c *mlscore.Credential) Result {
	if c.Type != mlscore.CredentialTypeBasic {
		return Result{Status: Unknown, Reason: fmt.Sprintf("credential type 0x%04x", uint16(c.Type))}
	}
	if len(c.Identity) > MaxIdentity {
		return Result{Status: Unknown, Reason: fmt.Sprintf("identity of %d bytes", len(c.Identity))}
	}
	for i := range rs.rules {
		subject, ok := rs.rules[i].match(c.Identity)
		if !ok {
			continue
		}
		if fault := checkSubject(subject); fault != "" {
			return Result{Status: Error, Reason: fmt.Sprintf("rule %d: %s", i, fault)}
		}
		return Result{Status: Resolved, Subject: subject}
	}
	return Result{Status: Unknown, Reason: "no rule matches"}
}

// match finds the subject of an identity.
func (r *rule) match(identity []byte) (subject string, ok bool) {
	text, ok := r.encoding.decode(identity)
	if !ok {
		return "", false
	}
	if r.pattern != nil {
		groups := r.pattern.FindStringSubmatch(text)
		if groups == nil {
			return "", false
		}
		text = groups[r.subject]
	}
	if r.encoding == Raw {
		return rawBytes(text), true
	}
	return text, true
}

// decode gives the text of an identity; not ok where the encoding has none.
func (e Encoding) decode(identity []byte) (text string, ok bool) {
	switch e {
	case UTF8:
		return string(identity), utf8.Valid(identity)
	case Hex:
		return hex.EncodeToString(identity), true
	case Base64:
		return base64.StdEncoding.EncodeToString(identity), true
	case Uint64BE:
		if len(identity) != 8 {
			return "", false
		}
		return strconv.FormatUint(binary.BigEndian.Uint64(identity), 10), true
	}
	runes := make([]rune, len(identity))
	for i, b := range identity {
		runes[i] = rune(b)
	}
	return string(runes), true
}

// rawBytes undoes the decoding of Raw.
func rawBytes(text string) string {
	b := make([]byte, 0, len(text))
	for _, r := range text {
		b = append(b, byte(r))
	}
	return string(b)
}
