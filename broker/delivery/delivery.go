// Package delivery is a small MLS delivery service (RFC 9750, Section 5) beside
// a leave broker. It speaks the broker's NATS contract (broker/asyncapi.yaml)
// from outside and nothing else: it hands on a group's GroupInfos and
// handshakes in the order it accepted them, takes the broker's removals from
// the tenant's durable consumer, and forwards intents of leaving clients. The
// demonstration, the load generator and the tests use it; a real delivery
// service does the same beside its own work.
package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"leavebroker/broker"
)

// Service is the delivery service of one tenant.
type Service struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	prefix   string
	tenant   string
	removals jetstream.Consumer // bound by the first NextRemoval
}

// publishAttempt is how long one attempt to store a message may take, and
// publishAttempts how many there are: together longer than a failover.
const (
	publishAttempt  = 2 * time.Second
	publishAttempts = 15
)

// New makes the delivery service of a tenant on a connection to the broker's
// NATS server.
func New(nc *nats.Conn, prefix, tenant string) (*Service, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	return &Service{nc: nc, js: js, prefix: prefix, tenant: tenant}, nil
}

// maxInline is the size of the largest GroupInfo that is sent in a message, in
// bytes.
const maxInline = 512 << 10

// GroupInfo hands on a GroupInfo with its ratchet tree: an encoded MLSMessage. A
// large one is put into the bucket of objects, and stays there: it may be deleted
// when the broker has consumed the message that refers to it.
func (s *Service) GroupInfo(ctx context.Context, groupID, message []byte) error {
	if len(message) <= maxInline {
		return s.store(ctx, groupID, "info", message)
	}
	bucket := s.prefix + "-infos"
	objects, err := s.js.ObjectStore(ctx, bucket)
	if err != nil {
		return fmt.Errorf("storing a GroupInfo of %d bytes: bucket %q, which the broker makes at its start: %w", len(message), bucket, err)
	}
	sum := sha256.Sum256(message)
	reference := hex.EncodeToString(sum[:])
	name := s.tenant + "." + broker.GroupToken(groupID) + "." + reference
	if _, err := objects.PutBytes(ctx, name, message); err != nil {
		return fmt.Errorf("storing a GroupInfo of %d bytes: %w", len(message), err)
	}
	return s.storeWith(ctx, groupID, "info", []byte(reference), nats.Header{"Leave-Object": {name}})
}

// Commit hands on the commit that ends the current epoch. The caller accepts
// one commit for each epoch.
func (s *Service) Commit(ctx context.Context, groupID, message []byte) error {
	return s.store(ctx, groupID, "commit", message)
}

// Proposal hands on a proposal of the current epoch.
func (s *Service) Proposal(ctx context.Context, groupID, message []byte) error {
	return s.store(ctx, groupID, "proposal", message)
}

// Closed says that a group was deleted.
func (s *Service) Closed(ctx context.Context, groupID []byte, reason string) error {
	body, err := json.Marshal(map[string]string{"reason": reason})
	if err != nil {
		return err
	}
	return s.store(ctx, groupID, "closed", body)
}

// store is storeWith without headers.
func (s *Service) store(ctx context.Context, groupID []byte, kind string, body []byte) error {
	return s.storeWith(ctx, groupID, kind, body, nil)
}

// storeWith publishes until the log has acknowledged, under one random message ID:
// it is stored once.
func (s *Service) storeWith(ctx context.Context, groupID []byte, kind string, body []byte, header nats.Header) error {
	m := nats.NewMsg(fmt.Sprintf("%s.in.%s.%s.%s", s.prefix, s.tenant, broker.GroupToken(groupID), kind))
	m.Data = body
	id := nuid.Next()
	var err error
	for range publishAttempts {
		attempt, cancel := context.WithTimeout(ctx, publishAttempt)
		m.Header = maps.Clone(header)
		_, err = s.js.PublishMsg(attempt, m, jetstream.WithMsgID(id))
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("storing a %s: %w", kind, err)
	}
	return nil
}

// Verdict is the broker's answer about an intent.
type Verdict struct {
	ID        string `json:"id"`
	State     string `json:"state"`
	Reason    string `json:"reason,omitempty"`
	Confirmed bool   `json:"confirmed,omitempty"` // by a member's signature over the epoch without the leaver
}

// SubmitIntent forwards an intent, an encoded MLSMessage, and waits a while for
// the verdict: state stored if none came in time.
func (s *Service) SubmitIntent(ctx context.Context, message []byte, wait time.Duration) (*Verdict, error) {
	var v Verdict
	err := s.Request(ctx, "intent.submit", struct {
		Intent []byte `json:"intent"`
		Wait   string `json:"wait"`
	}{message, wait.String()}, &v)
	return &v, err
}

// IntentStatus asks where an intent of a group stands.
func (s *Service) IntentStatus(ctx context.Context, groupID []byte, id string) (*Verdict, error) {
	var v Verdict
	return &v, s.Request(ctx, "intent.status", struct {
		ID      string `json:"id"`
		GroupID []byte `json:"group_id"`
	}{id, groupID}, &v)
}

// Pending is what an external joiner includes, and what a delivery service may
// demand of a commit.
type Pending struct {
	Epoch                  uint64   `json:"epoch"`
	Proposals              [][]byte `json:"proposals"`
	SelfRemoves            [][]byte `json:"self_removes"`
	LeafOperationProposals [][]byte `json:"leaf_operation_proposals"`
	MustReference          [][]byte `json:"must_reference"`
}

// Pending asks for the proposals of a group's current epoch.
func (s *Service) Pending(ctx context.Context, groupID []byte) (*Pending, error) {
	var p Pending
	err := s.Request(ctx, "group.pending", map[string][]byte{"group_id": groupID}, &p)
	return &p, err
}

// Refusal is the broker's error reply to a request.
type Refusal struct {
	Endpoint string
	Code     string // 400, 404, 429 or 503
	Text     string
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s (%s)", r.Endpoint, r.Text, r.Code) }

// Request calls an endpoint of the broker's service with a JSON body. Its error
// is a *Refusal where the broker answered with one.
func (s *Service) Request(ctx context.Context, endpoint string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	reply, err := s.nc.RequestWithContext(ctx, s.prefix+".api."+s.tenant+"."+endpoint, body)
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("%s: no broker serves prefix %q", endpoint, s.prefix)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	if code := reply.Header.Get("Nats-Service-Error-Code"); code != "" {
		return &Refusal{endpoint, code, reply.Header.Get("Nats-Service-Error")}
	}
	return json.Unmarshal(reply.Data, out)
}

// Removal is an output of the broker: proposals for one epoch of a group. It is
// delivered again until Done.
type Removal struct {
	GroupID   []byte   `json:"group_id"`
	Epoch     uint64   `json:"epoch"`
	Proposals [][]byte `json:"proposals"` // encoded MLSMessages
	Intents   []string `json:"intents"`

	Stored time.Time `json:"-"` // by the NATS server's clock

	msg jetstream.Msg
}

// Done acknowledges a removal: it was fanned out, or its epoch has passed.
func (r *Removal) Done() error { return r.msg.Ack() }

// NextRemoval waits for an output; nil if none comes in time. One goroutine at
// a time calls it.
func (s *Service) NextRemoval(ctx context.Context, wait time.Duration) (*Removal, error) {
	if s.removals == nil {
		var err error
		if s.removals, err = s.consumer(ctx); err != nil {
			return nil, err
		}
	}
	batch, err := s.removals.Fetch(1, jetstream.FetchMaxWait(wait))
	if err != nil {
		return nil, fmt.Errorf("removals: %w", err)
	}
	select {
	case msg := <-batch.Messages():
		if msg == nil {
			if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) {
				return nil, fmt.Errorf("removals: %w", err)
			}
			return nil, nil
		}
		return readRemoval(msg)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// removalsAhead is how many outputs Removals asks for at a time, and
// removalsExpiry for how long. Meanwhile the server says each removalsHeartbeat
// that it knows of it: one that a server had lost was seen to hold up removals for
// half a minute, by the defaults.
const (
	removalsAhead     = 256
	removalsExpiry    = 10 * time.Second
	removalsHeartbeat = time.Second
)

// Removals hands on every output, one after the other, until the context ends;
// then it is nil. It fetches ahead: what was not handed on comes again.
func (s *Service) Removals(ctx context.Context, take func(*Removal)) error {
	consumer, err := s.consumer(ctx)
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(removalsAhead),
		jetstream.PullExpiry(removalsExpiry), jetstream.PullHeartbeat(removalsHeartbeat))
	if err != nil {
		return fmt.Errorf("removals: %w", err)
	}
	defer context.AfterFunc(ctx, messages.Stop)()
	defer messages.Stop()
	for {
		msg, err := messages.Next()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, jetstream.ErrNoHeartbeat): // the iterator asks again
			continue
		case err != nil:
			return fmt.Errorf("removals: %w", err)
		}
		r, err := readRemoval(msg)
		if err != nil {
			return err
		}
		take(r)
	}
}

func (s *Service) consumer(ctx context.Context) (jetstream.Consumer, error) {
	var c jetstream.Consumer
	var err error
	for _, stream := range []string{s.prefix + "-log-" + s.tenant, s.prefix + "-log"} { // its own, or shared
		if c, err = s.js.Consumer(ctx, stream, "removals-"+s.tenant); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the removals of tenant %q: %w", s.tenant, err)
	}
	return c, nil
}

func readRemoval(msg jetstream.Msg) (*Removal, error) {
	r := &Removal{msg: msg}
	if err := json.Unmarshal(msg.Data(), r); err != nil {
		return nil, errors.Join(fmt.Errorf("removals: %w", err), msg.TermWithReason("undecodable"))
	}
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("removals: %w", err)
	}
	r.Stored = meta.Timestamp
	return r, nil
}
