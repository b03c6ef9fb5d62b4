package broker

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
)

// entry is a stored message of the log.
type entry struct {
	seq     uint64
	time    time.Time // when the log stored it
	subject string
	data    []byte
	object  string // name of the object that holds the body; "" where data is it
}

// The reasons for refusing a message that no group's fold ever sees.
const (
	reasonBadSubject    = "bad_subject"    // the subject names no group, or the wrong partition
	reasonUnknownTenant = "unknown_tenant" // the tenant is not served
	reasonTooLarge      = "too_large"
	reasonMalformed     = "malformed" // of an intent: no encoding of one
	reasonQuota         = "quota"     // of a request: never stored
	reasonInternal      = "internal"  // the fold of this message failed again and again
)

// refusal is why a message is refused before the fold.
type refusal struct {
	reason string
	detail string
}

func (r *refusal) Error() string { return r.reason + ": " + r.detail }

var inputKindOf = map[kind]intents.Kind{
	kindIntent: intents.KindIntent, kindCommit: intents.KindCommit, kindProposal: intents.KindProposal,
	kindInfo: intents.KindInfo, kindClosed: intents.KindClosed,
	kindRemoval: intents.KindRemoval, kindAnswer: intents.KindAnswer, kindControl: intents.KindControl,
}

// inbound tells what the fold of a group may see. It decides nothing about
// groups, and gives the same result for the same message at any time.
type inbound struct {
	names   names
	limits  Limits
	tenants map[string]*tenant
}

// received is an entry that belongs to a group.
type received struct {
	entry
	key        groupKey
	kind       kind
	tenant     *tenant
	deliveries uint64 // how often the server delivered it
	skipped    bool   // the group had nothing to do
}

// work is how much it is to do the same again (see checkpointWork).
func (r *received) work() int {
	if r.skipped {
		return 1
	}
	return workOfInput
}

// input is the entry as the fold takes it.
func (r *received) input() intents.Input {
	return intents.Input{Seq: r.seq, Time: r.time, Kind: inputKindOf[r.kind], Data: r.data}
}

// receive finds the group of an entry and checks its size; the error is a
// *refusal. What is known before is in the result all the same.
func (in *inbound) receive(e entry) (*received, error) {
	r := &received{entry: e, key: groupKey{nowhere, nowhere}}
	k, what, err := in.names.parseLog(e.subject)
	if err != nil {
		return r, &refusal{reasonBadSubject, err.Error()}
	}
	r.key, r.kind = k, what
	if r.tenant = in.tenants[k.tenant]; r.tenant == nil {
		return r, &refusal{reasonUnknownTenant, fmt.Sprintf("tenant %q is not served", k.tenant)}
	}
	limit := in.limits.MessageBytes
	if what == kindIntent {
		limit = in.limits.IntentBytes
	}
	if len(e.data) > limit && what != kindRemoval { // that is our own, of another limit once
		return r, &refusal{reasonTooLarge, fmt.Sprintf("%d bytes, at most %d", len(e.data), limit)}
	}
	return r, nil
}

// checkIntent refuses what is no encoding of an intent, which needs no state.
func checkIntent(t *tenant, data []byte) (*intents.LeafOperationIntent, error) {
	in, err := intents.ParseMessage(data, t.wireFormat())
	if err != nil {
		return nil, &refusal{reasonMalformed, err.Error()}
	}
	return in, nil
}

// groupIDOf is the group_id that an entry names, if it can be decoded.
func (r *received) groupIDOf() ([]byte, bool) {
	if r.kind == kindIntent {
		in, err := checkIntent(r.tenant, r.data)
		if err != nil {
			return nil, false
		}
		return in.GroupID, true
	}
	if r.kind != kindCommit && r.kind != kindProposal && r.kind != kindInfo {
		return nil, false
	}
	m, err := mlscore.ParseMLSMessage(r.data, r.tenant.policy.Registry)
	switch {
	case err != nil:
		return nil, false
	case m.PublicMessage != nil:
		return m.PublicMessage.Content.GroupID, true
	case m.PrivateMessage != nil:
		return m.PrivateMessage.GroupID, true
	case m.GroupInfo != nil:
		return m.GroupInfo.GroupContext.GroupID, true
	}
	return nil, false
}

// teaches says whether an entry names the group_id whose token its subject
// has: how the group_id behind a hashed token is learnt.
func (r *received) teaches() ([]byte, bool) {
	id, ok := r.groupIDOf()
	if !ok || GroupToken(id) != r.key.group {
		return nil, false
	}
	return bytes.Clone(id), true
}

// asRefusal gives the refusal in an error, if it is one.
func asRefusal(err error) (*refusal, bool) {
	var r *refusal
	return r, errors.As(err, &r)
}
