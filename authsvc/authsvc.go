// Package authsvc asks an Authentication Service which members of a group
// belong to one user.
//
// RFC 9750, Section 4 introduces the Authentication Service; Section 2.5 of
// draft-kohbrok-mls-leaf-operation-intents gives it a second role: to identify
// the members that are associated with the sender of a LeafOperationIntent, so
// that an intent with removal mode remove_associated_members can take them
// along. Here a [Service] resolves each credential to a subject, the name of
// the user behind it, and members are associated whose subjects are equal
// ([Relate]).
//
// Removal cannot be undone, so doubt never widens it: unknown and error
// associate nobody, and [Guard] turns an answer that breaks the contract into
// an error. No reason text holds any part of a credential or a subject.
package authsvc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// Service resolves credentials to subjects.
//
// One call is one question of one tenant. Answer.Results has one entry for each
// credential, in the same order; equal credentials get equal results, and a
// result depends on nothing but the tenant and its credential. A question may
// be empty.
//
// Status tells three things apart: a credential that belongs to a subject, one
// that the service does not know, and one about which it cannot say now. What
// is not resolved has no subject.
//
// An error means that there is no answer: the whole question is then as if
// each result were [Error], and the Answer is not looked at. A question is
// asked once; the caller asks again later if it needs to, as resolving changes
// nothing. An implementation may retry within the call.
//
// The deadline is that of ctx, for the whole question. An implementation
// returns soon after ctx is done, with an error that wraps ctx.Err(). It may be
// called from several goroutines at once. It keeps no reference to the
// credentials and does not change them.
type Service interface {
	Resolve(ctx context.Context, tenant string, credentials []mlscore.Credential) (Answer, error)
}

// Status is the outcome for one credential. The zero value is none of them.
type Status string

// The outcomes.
const (
	Resolved Status = "resolved" // belongs to Result.Subject
	Unknown  Status = "unknown"  // belongs to nobody the service knows
	Error    Status = "error"    // the service cannot say
)

// MaxSubject is the longest subject, in bytes.
const MaxSubject = 256

// Result is what the service says about one credential.
type Result struct {
	Status Status
	// Subject names the user if Status is Resolved, and is empty otherwise: 1
	// to MaxSubject bytes, not all of them white space, compared byte by byte.
	Subject string
	// Reason tells a person why Status is not Resolved. Optional.
	Reason string
}

// Answer is the answer to one question.
type Answer struct {
	// Revision names the state of the service that the answer comes from, for
	// the record. It may be empty.
	Revision string
	Results  []Result
}

// Hash is the lowercase hex SHA-256 of the whole answer, each string preceded
// by its length as in opaque<V>.
func (a Answer) Hash() string {
	b := codec.AppendOpaque(nil, []byte(a.Revision))
	for _, r := range a.Results {
		for _, s := range []string{string(r.Status), r.Subject, r.Reason} {
			b = codec.AppendOpaque(b, []byte(s))
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// checkSubject gives the reason why a subject cannot be used, or "".
func checkSubject(subject string) string {
	switch {
	case strings.TrimSpace(subject) == "":
		return "the subject is blank"
	case len(subject) > MaxSubject:
		return "the subject is longer than 256 bytes"
	}
	return ""
}

// Relation is how another member stands to the sender of an intent.
type Relation int

// The relations.
const (
	Undecided  Relation = iota // no usable answer about one of the two
	Unrelated                  // of another subject, or of none that is known
	Associated                 // of the same subject
)

// Relate compares the results of the sender and of another member, given by one
// answer. While the sender's own credential is not resolved nobody is related
// to it, and everything is undecided.
func Relate(sender, other Result) Relation {
	switch {
	case sender.Status != Resolved || sender.Subject == "":
		return Undecided
	case other.Status == Unknown:
		return Unrelated
	case other.Status != Resolved || other.Subject == "":
		return Undecided
	case other.Subject == sender.Subject:
		return Associated
	}
	return Unrelated
}
