package broker

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/zap"
	"leavebroker/intents"
)

const (
	defaultWait = 2 * time.Second
	maxWait     = 10 * time.Second
	// requestTimeout bounds one request beyond the wait for a verdict.
	requestTimeout = 10 * time.Second
	maxRequests    = 1024
)

// The codes of error replies, in the header Nats-Service-Error-Code and in the
// body.
const (
	codeBadRequest  = "400"
	codeNotFound    = "404"
	codeBusy        = "429"
	codeUnavailable = "503"
)

// apiError is an error reply.
type apiError struct {
	Code string `json:"code"`
	Text string `json:"error"`
}

func (e *apiError) Error() string { return e.Text }

func badRequest(format string, v ...any) error {
	return &apiError{codeBadRequest, fmt.Sprintf(format, v...)}
}

func notFound(format string, v ...any) error {
	return &apiError{codeNotFound, fmt.Sprintf(format, v...)}
}

// endpoint is one service of P.api.T.
type endpoint struct {
	name  string // <noun>.<verb>
	serve func(b *Broker, ctx context.Context, t *tenant, request []byte) (any, error)
}

var endpoints = []endpoint{
	{"intent.submit", (*Broker).submit},
	{"intent.status", (*Broker).status},
	{"intent.approve", control(intents.OpApprove)},
	{"intent.cancel", control(intents.OpCancel)},
	{"group.pending", (*Broker).pending},
	{"group.show", (*Broker).show},
	{"group.reset", (*Broker).reset},
}

// addService offers the endpoints for all tenants.
func (b *Broker) addService() (micro.Service, error) {
	service, err := micro.AddService(b.nc, micro.Config{
		Name:         serviceName,
		Version:      b.opts.Version,
		Description:  "leaves MLS groups for those who asked to",
		Metadata:     map[string]string{"prefix": b.names.prefix},
		StatsHandler: func(*micro.Endpoint) any { return b.stats() },
	})
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		handler := micro.HandlerFunc(func(r micro.Request) { b.serve(e, r) })
		err := service.AddEndpoint(strings.ReplaceAll(e.name, ".", "-"), handler, micro.WithEndpointSubject(b.names.api("*", e.name)))
		if err != nil {
			return nil, errors.Join(err, service.Stop())
		}
	}
	return service, nil
}

// instanceStats is what the service's statistics say of an instance.
type instanceStats struct {
	Instance   string           `json:"instance"`
	Ready      bool             `json:"ready"`
	Phase      string           `json:"phase,omitempty"` // what it is not ready for
	Troubles   []string         `json:"troubles,omitempty"`
	Partitions int              `json:"partitions"` // held
	Cached     int64            `json:"cached_bytes"`
	Counters   map[string]int64 `json:"counters"`
}

func (b *Broker) stats() instanceStats {
	s := instanceStats{Instance: b.opts.Instance, Troubles: b.Troubles(), Cached: b.cached.Load(), Counters: b.metrics.snapshot()}
	if err := b.Ready(); err != nil {
		s.Phase = err.Error()
	}
	s.Ready = s.Phase == ""
	for _, o := range b.all {
		if o.holds.Load() {
			s.Partitions++
		}
	}
	return s
}

// serve answers a request in a goroutine of its own.
func (b *Broker) serve(e endpoint, r micro.Request) {
	subject, request, to := r.Subject(), r.Data(), r.Reply()
	select {
	case b.requests <- struct{}{}:
	default:
		b.respond(to, nil, &apiError{codeBusy, "too many requests at a time"})
		return
	}
	b.background.Go(func() {
		defer func() { <-b.requests }()
		ctx, cancel := context.WithTimeout(b.work, requestTimeout+maxWait)
		defer cancel()
		reply, err := b.answer(ctx, e, subject, request)
		b.respond(to, reply, err)
	})
}

func (b *Broker) answer(ctx context.Context, e endpoint, subject string, request []byte) (reply any, err error) {
	defer recovered(&err)
	name, err := b.names.parseAPI(subject)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	t := b.tenants[name]
	if t == nil {
		return nil, notFound("tenant %q is not served", name)
	}
	return e.serve(b, ctx, t, request)
}

// respond sends the reply or the error of a request. It does not go through the
// request, which only its handler may use. The requester may be gone.
func (b *Broker) respond(to string, reply any, err error) {
	m := nats.NewMsg(to)
	if err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			e = &apiError{codeUnavailable, err.Error()}
		}
		e = &apiError{e.Code, strings.Join(strings.Fields(e.Text), " ")} // one line: it goes into a header
		b.metrics.count("request_errors", e.Code)
		m.Header.Set(micro.ErrorCodeHeader, e.Code)
		m.Header.Set(micro.ErrorHeader, e.Text)
		reply = e
	}
	if m.Data, err = json.Marshal(reply); err == nil {
		err = b.nc.PublishMsg(m)
	}
	if err != nil {
		b.log.Warn("a reply is not sent", zap.Error(err))
	}
}

// decode reads a request; unknown fields are refused, as they are mistakes.
func decode(data []byte, into any) error {
	if len(data) == 0 {
		data = []byte("{}")
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badRequest("%v", err)
	}
	if d.More() {
		return badRequest("bytes follow the JSON object")
	}
	return nil
}

// parseWait reads a duration, 2s by default, 10s at most.
func parseWait(s string) (time.Duration, error) {
	if s == "" {
		return defaultWait, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, badRequest("wait %q", s)
	}
	return min(d, maxWait), nil
}

type submitRequest struct {
	Intent []byte `json:"intent"`         // MLSMessage, base64
	Wait   string `json:"wait,omitempty"` // how long to wait for the verdict
}

// verdict is what became of an intent, as far as it is known.
type verdict struct {
	ID     string `json:"id"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// stateStored says that an intent is in the log, and that no verdict came in
// time.
const stateStored = "stored"

// submit stores an intent and waits for its verdict.
func (b *Broker) submit(ctx context.Context, t *tenant, request []byte) (any, error) {
	var q submitRequest
	if err := decode(request, &q); err != nil {
		return nil, err
	}
	wait, err := parseWait(q.Wait)
	if err != nil {
		return nil, err
	}
	if len(q.Intent) > b.opts.Limits.IntentBytes {
		return b.refuseSubmission("", reasonTooLarge), nil
	}
	in, err := checkIntent(t, q.Intent)
	if err != nil {
		return b.refuseSubmission("", reasonMalformed), nil
	}
	id := in.ID(t.Name)
	if !b.withinQuota(t) {
		return b.refuseSubmission(id, reasonQuota), nil
	}
	events, done := b.hub.wait(t.Name, id)
	defer done()
	seq, err := b.byTenant[t.Name].store.publishIntent(ctx, groupKey{t.Name, GroupToken(in.GroupID)}, q.Intent,
		func(perform func() error) error { return b.write("submit", perform) })
	if err != nil {
		return nil, err
	}
	return awaitVerdict(ctx, id, events, wait, func(e event) bool { return e.Seq == seq && isState(e.Type) }), nil
}

func (b *Broker) refuseSubmission(id, reason string) verdict {
	b.metrics.count("refused", reason)
	return verdict{ID: id, State: intents.StateRejected, Reason: reason}
}

func (b *Broker) withinQuota(t *tenant) bool {
	if most := t.Quotas.OpenIntents; most > 0 && b.open.ofTenant(t.Name) >= most {
		return false
	}
	return t.limiter == nil || t.limiter.AllowN(b.opts.Clock(), 1)
}

// awaitVerdict waits for the event that tells what became of an intent.
func awaitVerdict(ctx context.Context, id string, events <-chan event, wait time.Duration, mine func(event) bool) verdict {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case e := <-events:
			if mine(e) {
				return verdict{id, e.Type, e.Reason}
			}
		case <-timer.C:
			return verdict{ID: id, State: stateStored}
		case <-ctx.Done():
			return verdict{ID: id, State: stateStored}
		}
	}
}

// statusRequest names an intent; with its group it is found at once.
type statusRequest struct {
	ID      string `json:"id"`
	GroupID []byte `json:"group_id,omitempty"`
}

func (q *statusRequest) check() error {
	if b, err := hex.DecodeString(q.ID); err != nil || len(b) != 32 || strings.ToLower(q.ID) != q.ID {
		return badRequest("id %q is not 64 lowercase hex digits", q.ID)
	}
	return nil
}

type statusReply struct {
	intents.Record
	Group string `json:"group"` // the group's token
}

func (b *Broker) status(ctx context.Context, t *tenant, request []byte) (any, error) {
	var q statusRequest
	if err := decode(request, &q); err != nil {
		return nil, err
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	k, r, found, err := b.receipt(ctx, t, q.ID, q.GroupID)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, notFound("no intent %s", q.ID)
	}
	return statusReply{r, k.group}, nil
}

type controlRequest struct {
	statusRequest
	By   string `json:"by,omitempty"` // who asks, for the record
	Wait string `json:"wait,omitempty"`
}

// control stores an operator's word on an intent and waits for what it does.
func control(op string) func(*Broker, context.Context, *tenant, []byte) (any, error) {
	return func(b *Broker, ctx context.Context, t *tenant, request []byte) (any, error) {
		var q controlRequest
		if err := decode(request, &q); err != nil {
			return nil, err
		}
		if err := q.check(); err != nil {
			return nil, err
		}
		wait, err := parseWait(q.Wait)
		if err != nil {
			return nil, err
		}
		k, r, found, err := b.receipt(ctx, t, q.ID, q.GroupID)
		switch {
		case err != nil:
			return nil, err
		case !found:
			return nil, notFound("no intent %s", q.ID)
		case isEnded(r.State):
			return verdict{r.ID, r.State, r.Reason}, nil
		}
		events, done := b.hub.wait(t.Name, q.ID)
		defer done()
		seq, err := b.storeControl(ctx, k, intents.Control{Op: op, Intent: q.ID, By: q.By})
		if err != nil {
			return nil, err
		}
		return awaitVerdict(ctx, q.ID, events, wait, func(e event) bool { return e.Seq >= seq && isState(e.Type) }), nil
	}
}

func (b *Broker) storeControl(ctx context.Context, k groupKey, c intents.Control) (uint64, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return 0, err
	}
	var seq uint64
	err = b.write("command", func() (err error) {
		seq, err = b.at(k).log.append(ctx, k, kindControl, data, nil)
		return err
	})
	return seq, err
}

type groupRequest struct {
	GroupID []byte `json:"group_id"`
	By      string `json:"by,omitempty"` // who asks, for the record
}

func decodeGroup(t *tenant, request []byte) (k groupKey, q groupRequest, err error) {
	if err := decode(request, &q); err != nil {
		return k, q, err
	}
	if q.GroupID == nil {
		return k, q, badRequest("group_id is missing")
	}
	return groupKey{t.Name, GroupToken(q.GroupID)}, q, nil
}

// known gives the state of a group that has been started from a GroupInfo.
func (b *Broker) known(ctx context.Context, t *tenant, request []byte) (groupKey, *intents.State, error) {
	k, q, err := decodeGroup(t, request)
	if err != nil {
		return k, nil, err
	}
	s, err := b.view(ctx, k, t)
	if err == nil && s.Group() == nil {
		err = notFound("group %s is not known: there was no GroupInfo", base64.StdEncoding.EncodeToString(q.GroupID))
	}
	return k, s, err
}

// pending is what an external joiner includes and what a delivery service may
// demand of a commit.
func (b *Broker) pending(ctx context.Context, t *tenant, request []byte) (any, error) {
	_, s, err := b.known(ctx, t, request)
	if err != nil {
		return nil, err
	}
	return s.Pending(), nil
}

// groupReply describes a group. Hashes are lowercase hex.
type groupReply struct {
	Group                   string           `json:"group"` // token
	GroupID                 []byte           `json:"group_id"`
	CipherSuite             uint16           `json:"cipher_suite"`
	Epoch                   uint64           `json:"epoch"`
	Members                 int              `json:"members"`
	TreeHash                string           `json:"tree_hash"`
	ConfirmedTranscriptHash string           `json:"confirmed_transcript_hash"`
	Proven                  bool             `json:"proven"` // a member has signed over the epoch
	Authorised              bool             `json:"authorised"`
	Open                    bool             `json:"open"`
	Position                uint64           `json:"position"` // in the log
	Intents                 []intents.Record `json:"intents"`
	Counters                map[string]int64 `json:"counters"` // of the instance that answers
}

func (b *Broker) show(ctx context.Context, t *tenant, request []byte) (any, error) {
	k, s, err := b.known(ctx, t, request)
	if err != nil {
		return nil, err
	}
	g := s.Group()
	authorised := false
	for _, signer := range t.Signers {
		_, listed := g.ExternalSenderIndex(signer.PublicKey())
		authorised = authorised || listed
	}
	return groupReply{
		Group: k.group, GroupID: g.GroupID(), CipherSuite: uint16(g.Suite().ID), Epoch: g.Epoch(), Members: g.Tree().Members(),
		TreeHash: hex.EncodeToString(g.Tree().TreeHash()), ConfirmedTranscriptHash: hex.EncodeToString(g.ConfirmedTranscriptHash()),
		Proven: g.Proven(), Authorised: authorised, Open: s.Open(), Position: s.Position(), Intents: s.Records(),
		Counters: b.metrics.snapshot(),
	}, nil
}

type resetReply struct {
	Seq uint64 `json:"seq"` // of the reset in the log
}

// reset declares a gap: the next GroupInfo of the group is its new base.
func (b *Broker) reset(ctx context.Context, t *tenant, request []byte) (any, error) {
	k, q, err := decodeGroup(t, request)
	if err != nil {
		return nil, err
	}
	seq, err := b.storeControl(ctx, k, intents.Control{Op: intents.OpReset, By: q.By})
	if err != nil {
		return nil, err
	}
	return resetReply{seq}, nil
}
