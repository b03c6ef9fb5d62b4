package broker

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// Events that are neither states of intents nor notices of the fold.
const eventDelivered = "delivered"

// eventTypes are all types of events: the states of an intent, the notices of
// the fold, and delivered.
var eventTypes = []string{
	intents.StateParked, intents.StateHeld, intents.StatePending,
	intents.StateRemoved, intents.StateSuperseded, intents.StateAlreadyGone,
	intents.StateRejected, intents.StateCancelled, intents.StateExpired,
	intents.NoticeProposed, intents.NoticeConfirmed, intents.NoticeUnauthorised, intents.NoticeNeedsGroupInfo,
	intents.NoticeDiverged, intents.NoticeStalled, intents.NoticeRefused, intents.NoticeFlagged,
	eventDelivered, eventTrouble, eventMended,
}

// reasons are all reason codes of events and verdicts.
var reasons = []string{
	// of a trouble
	troubleFull, troubleAsset, troublePermission, troubleVersion, troubleSnapshot, troubleEntry, troubleOther,
	// of an intent
	reasonMalformed, intents.ErrUnsupportedMode.Error(), intents.ErrGroupMismatch.Error(),
	intents.ErrLeafRefMismatch.Error(), intents.ErrBadSignature.Error(),
	intents.ReasonUnknownGroup, intents.ReasonReferenceReused, intents.ReasonGroupClosed,
	intents.ReasonAssociation, intents.ReasonGuard, intents.ReasonApproval, intents.ReasonUnproven,
	intents.ReasonGap, intents.ReasonSenderOnly, intents.ReasonSoleMember,
	intents.ReasonReplaced, intents.ReasonOtherKey, intents.ReasonNewLeaf,
	// of a fork
	intents.ReasonCompeting, intents.ReasonReverted,
	// of a handshake or GroupInfo
	mlscore.ErrInvalid.Error(), mlscore.ErrStale.Error(), mlscore.ErrAhead.Error(),
	mlscore.ErrUnresolvable.Error(), mlscore.ErrDiverged.Error(), mlscore.ErrUnsupported.Error(),
	intents.ReasonStricter, intents.ReasonMissedCommits, intents.ReasonReset,
	// before the fold
	reasonBadSubject, reasonUnknownTenant, reasonTooLarge, reasonQuota, reasonInternal, reasonObject,
}

// eventTypePrefix begins the ce-type of every event.
const eventTypePrefix = "leavebroker.v1."

// Header names of events: CloudEvents 1.0 in binary mode, and the intent that
// the event is about.
const (
	headerSpecVersion = "ce-specversion"
	headerEventID     = "ce-id"
	headerSource      = "ce-source"
	headerType        = "ce-type"
	headerTime        = "ce-time"
	headerContentType = "content-type"
	headerIntent      = "Leave-Intent"
)

// event is an advisory: what happened to an intent or a group.
type event struct {
	key groupKey

	Type   string              `json:"type"`
	Tenant string              `json:"tenant"`
	Group  string              `json:"group"`            // the group's token
	Seq    uint64              `json:"seq"`              // of the message in the log that it follows from
	Time   time.Time           `json:"time"`             // when that message was stored
	Intent string              `json:"intent,omitempty"` // identifier
	Reason string              `json:"reason,omitempty"`
	Epoch  uint64              `json:"epoch"`
	Leaves []mlscore.LeafIndex `json:"leaves,omitempty"`
	Commit string              `json:"commit,omitempty"` // SHA-256 of the commit, lowercase hex
	Detail string              `json:"detail,omitempty"`
	Flags  []string            `json:"flags,omitempty"` // mlscore's Flag constants
	// Intents are those that an output answers.
	Intents []string `json:"intents,omitempty"`
	// Credentials are those of Leaves, in their order: keyed hashes, or base64
	// of the credentials themselves where the operator wants that.
	Credentials []string `json:"credentials,omitempty"`
}

// newEvent is the event of a notice about a received message.
func newEvent(r *received, n intents.Notice) event {
	e := event{
		key: r.key, Type: n.Type, Tenant: r.key.tenant, Group: r.key.group, Seq: r.seq, Time: r.time.UTC(),
		Intent: n.Intent, Reason: n.Reason, Epoch: n.Epoch, Leaves: n.Leaves, Commit: n.Commit, Detail: n.Detail, Flags: n.Flags,
	}
	if r.kind == kindRemoval {
		var out intents.Output
		if json.Unmarshal(r.data, &out) == nil {
			e.Intents, e.Epoch = out.Intents, out.Epoch
		}
	}
	return e
}

// refusedEvent is the event of a message that no fold sees. What arrives as an
// intent is rejected as one.
func refusedEvent(r *received, why *refusal) event {
	typ := intents.NoticeRefused
	if r.kind == kindIntent {
		typ = intents.StateRejected
	}
	return newEvent(r, intents.Notice{Type: typ, Reason: why.reason, Detail: why.detail})
}

// id is the same whenever the same message leads to the same event.
func (e *event) id() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%d\x00%s\x00%s\x00%s\x00%d\x00%s\x00%s", e.key, e.Seq, e.Type, e.Intent, e.Reason, e.Epoch, e.Commit, e.Detail)
	if e.Seq == 0 { // of no message: it may happen again
		fmt.Fprintf(h, "\x00%d", e.Time.UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// message is the event as it is published.
func (e *event) message(n names) (*nats.Msg, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	m := nats.NewMsg(n.event(e.key, e.Type))
	m.Data = body
	m.Header.Set(jetstream.MsgIDHeader, e.id())
	m.Header.Set(headerSpecVersion, "1.0")
	m.Header.Set(headerEventID, e.id())
	m.Header.Set(headerSource, "/"+n.prefix+"/"+e.key.tenant+"/"+e.key.group)
	m.Header.Set(headerType, eventTypePrefix+e.Type)
	m.Header.Set(headerTime, e.Time.Format(time.RFC3339Nano))
	m.Header.Set(headerContentType, "application/json")
	if e.Intent != "" {
		m.Header.Set(headerIntent, e.Intent)
	}
	return m, nil
}

// eventSink stores events, and returns when all are stored. One may be stored
// twice. eventStream is the one on JetStream.
type eventSink interface {
	publish(ctx context.Context, events []event) error
}

type eventStream struct {
	js    jetstream.JetStream
	names names
}

func (s eventStream) publish(ctx context.Context, events []event) error {
	return untilAnswered(ctx, func(ctx context.Context) error {
		return whileBusy(ctx, func() error { return s.publishOnce(ctx, events) })
	})
}

func (s eventStream) publishOnce(ctx context.Context, events []event) error {
	var futures []jetstream.PubAckFuture
	for i := range events {
		m, err := events[i].message(s.names)
		if err != nil {
			return err
		}
		f, err := s.js.PublishMsgAsync(m, jetstream.WithStallWait(apiTimeout))
		if err != nil {
			return classify(err)
		}
		futures = append(futures, f)
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			return classify(err)
		case <-ctx.Done():
			return classify(ctx.Err())
		}
	}
	return nil
}

// publish stores events and returns when all are stored.
func (b *Broker) publish(ctx context.Context, events []event) error {
	if len(events) == 0 {
		return nil
	}
	if err := b.write("events", func() error { return b.events.publish(ctx, events) }); err != nil {
		return err
	}
	for i := range events {
		b.metrics.countEvent(&events[i])
	}
	return nil
}

// identify names the credentials of an event's leaves, as far as they are in
// the tree.
func (b *Broker) identify(e *event, group *mlscore.PublicGroup) {
	if group == nil || len(b.opts.EventKey) == 0 && !b.opts.Cleartext {
		return
	}
	for _, index := range e.Leaves {
		name := ""
		if leaf := group.Tree().Leaf(index); leaf != nil {
			name = b.nameCredential(e.Tenant, leaf.Credential.Bytes())
		}
		e.Credentials = append(e.Credentials, name)
	}
}

// nameCredential is a credential as events may show it.
func (b *Broker) nameCredential(tenant string, credential []byte) string {
	if b.opts.Cleartext {
		return base64.StdEncoding.EncodeToString(credential)
	}
	mac := hmac.New(sha256.New, b.opts.EventKey)
	mac.Write(codec.AppendOpaque(nil, []byte(tenant)))
	mac.Write(credential)
	return "hmac-sha256:" + hex.EncodeToString(mac.Sum(nil))
}
