package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// Every bad input is refused with its reason, as an event and a counter;
// nothing is delivered for ever, and the next good intent works.
func TestBadInputs(t *testing.T) {
	w := newWorld(t, nil)
	w.found("alice", "bob", "carol")
	w.submit(w.intent(2, intents.SenderRemovalOnly)) // the group is followed
	k := w.key()
	good := w.intent(1, intents.SenderRemovalOnly)
	edit := func(b []byte, change func([]byte)) []byte {
		b = bytes.Clone(b)
		change(b)
		return b
	}
	info := must[[]byte](t)(w.any().GroupInfo())
	future := bytes.Clone(w.futureCommit())
	mode := len(good) - 65 - 1 - 1 // before the signature and its length
	for _, test := range []struct {
		name   string
		key    groupKey
		kind   kind
		data   []byte
		typ    string
		reason string
	}{
		{"empty intent", k, kindIntent, nil, intents.StateRejected, "malformed"},
		{"no intent", k, kindIntent, []byte("hello"), intents.StateRejected, "malformed"},
		{"trailing byte", k, kindIntent, append(bytes.Clone(good), 0), intents.StateRejected, "malformed"},
		{"cut off", k, kindIntent, good[:len(good)-1], intents.StateRejected, "malformed"},
		{"a GroupInfo as intent", k, kindIntent, info, intents.StateRejected, "malformed"},
		{"too large", k, kindIntent, make([]byte, defaultIntentBytes+1), intents.StateRejected, "too_large"},
		{"signature", k, kindIntent, edit(good, func(b []byte) { b[len(b)-1] ^= 1 }), intents.StateRejected, "bad_signature"},
		{"mode", k, kindIntent, edit(good, func(b []byte) { b[mode] = 3 }), intents.StateRejected, "unsupported_mode"},
		{"another group", groupKey{testTenant, GroupToken([]byte("other"))}, kindIntent, good, intents.StateRejected, "group_mismatch"},
		{"unknown leaf", k, kindIntent, w.strangeIntent(), intents.StateParked, "leaf_ref_mismatch"},
		{"unknown tenant", groupKey{"nobody", k.group}, kindIntent, good, intents.StateRejected, reasonUnknownTenant},
		{"empty commit", k, kindCommit, nil, intents.NoticeRefused, "malformed"},
		{"no commit", k, kindCommit, []byte("hello"), intents.NoticeRefused, "malformed"},
		{"too large a message", k, kindCommit, make([]byte, defaultMessageBytes+1), intents.NoticeRefused, "too_large"},
		{"no info", k, kindInfo, []byte("hello"), intents.NoticeRefused, "malformed"},
		{"an info with a bad tree", k, kindInfo, edit(info, func(b []byte) { b[len(b)/2] ^= 1 }), intents.NoticeRefused, ""},
		{"no closing", k, kindClosed, []byte("hello"), intents.NoticeRefused, "malformed"},
		{"a wrong epoch", k, kindCommit, future, intents.NoticeNeedsGroupInfo, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			ack, err := w.js.Publish(testContext(t), w.broker.names.in(test.key, test.kind), test.data)
			if err != nil {
				t.Fatal(err)
			}
			at := test.key
			e := w.awaitIn(at, test.name, func(e event) bool { return e.Seq == ack.Sequence })
			if e.Type != test.typ || test.reason != "" && e.Reason != test.reason {
				t.Errorf("%s %s (%s), want %s %s", e.Type, e.Reason, e.Detail, test.typ, test.reason)
			}
		})
	}
	w.noWork()
	w.info() // bridges the gap of the wrong epoch
	w.empty(0)
	if v := w.submit(good); v.State != intents.StatePending {
		t.Errorf("a good intent after all that: %+v", v)
	}
	w.awaitOutput(w.epoch(), 1, 2)
}

// futureCommit is a commit that the broker cannot reach: one before it is
// missing.
func (w *world) futureCommit() []byte {
	w.t.Helper()
	other := *w
	other.members = nil
	other.create("x", "y")
	g := other.any()
	for range 4 {
		c := must[*member.Commit](w.t)(g.Commit(member.CommitOptions{}))
		if err := g.ConfirmCommit(); err != nil {
			w.t.Fatal(err)
		}
		if g.Epoch() > w.epoch()+1 {
			return c.Message
		}
	}
	return nil
}

// A subject that names no group is refused under a place of its own.
func TestBadSubjects(t *testing.T) {
	w := newWorld(t, nil)
	for _, subject := range []string{"leave.in.ACME.Zw.intent", "leave.in.acme.not=base64.commit", "leave.in.-.Zw.info"} {
		ack := must[*jetstream.PubAck](t)(w.js.Publish(testContext(t), subject, []byte("x")))
		e := w.awaitIn(groupKey{nowhere, nowhere}, subject, func(e event) bool { return e.Seq == ack.Sequence })
		if e.Reason != reasonBadSubject {
			t.Errorf("%s: %+v", subject, e)
		}
	}
	// A control in another partition than its group's.
	k := w.key()
	wrong := strings.Replace(w.store().names.log(k, kindControl), fmt.Sprintf(".%d.", w.store().names.partition(k)), fmt.Sprintf(".%d.", 1-w.store().names.partition(k)), 1)
	ack := must[*jetstream.PubAck](t)(w.js.Publish(testContext(t), wrong, []byte(`{"op":"reset"}`)))
	w.awaitIn(groupKey{nowhere, nowhere}, wrong, func(e event) bool { return e.Seq == ack.Sequence && e.Reason == reasonBadSubject })
	w.noWork()
	if n := w.broker.metrics.snapshot()["refused."+reasonBadSubject]; n != 4 {
		t.Errorf("%d refused", n)
	}
}

// A publisher writes the headers of what it publishes. They may name another
// subject, look like the server's own status, or not parse at all: none of
// that reaches the fold, or stops it.
func TestHostileHeaders(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Embedded.Listen = "127.0.0.1:0" })
	w.create("alice", "bob", "carol")
	w.info()
	subject := w.broker.names.in(w.key(), kindProposal)
	spoof := nats.NewMsg(subject)
	spoof.Data = []byte("x")
	spoof.Header.Set(jetstream.SubjectHeader, w.store().names.log(w.key(), kindRemoval))
	spoof.Header.Set(jetstream.SequenceHeader, "1")
	spoof.Header.Set(jetstream.TimeStampHeaer, "never")
	spoof.Header.Set(headerPin, "pin")
	must[*jetstream.PubAck](t)(w.js.PublishMsg(testContext(t), spoof))
	raw := newRawConn(t, w.broker.URL())
	for _, header := range []string{
		"NATS/1.0\r\nno colon\r\n\r\n",
		"NATS/1.0 204 EOB\r\n\r\n",
		"NATS/1.0 409 Consumer Deleted\r\n\r\n",
		"NATS/1.0 503\r\n\r\n",
		"NATS/1.0\r\nStatus: 204\r\n\r\n",
		"garbage\r\n\r\n",
	} {
		raw.publish(subject, header, "")
		raw.publish(subject, header, "x")
	}
	for _, status := range []string{"100", "409", "777"} {
		raw.publish(subject, "NATS/1.0\r\nStatus: "+status+"\r\nDescription: Consumer Deleted\r\n\r\n", "")
	}
	w.empty(0)
	message := w.leave(1, intents.SenderRemovalOnly)
	w.publish(kindIntent, message)
	w.awaitOutput(w.epoch(), 1)
	w.noWork()
	w.restart()
	w.empty(0)
	w.awaitOutput(w.epoch(), 1)
	w.checkOutputs()
}

// rawConn speaks the protocol without a client's care.
type rawConn struct {
	t    *testing.T
	conn net.Conn
}

func newRawConn(t *testing.T, url string) *rawConn {
	t.Helper()
	conn := must[net.Conn](t)(net.Dial("tcp", strings.TrimPrefix(url, "nats://")))
	t.Cleanup(func() { conn.Close() })
	r := &rawConn{t, conn}
	r.write("CONNECT {\"verbose\":false,\"headers\":true}\r\nPING\r\n")
	r.until("PONG")
	return r
}

func (r *rawConn) write(s string) {
	r.t.Helper()
	if _, err := r.conn.Write([]byte(s)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawConn) until(s string) {
	r.t.Helper()
	var got bytes.Buffer
	b := make([]byte, 4096)
	r.conn.SetReadDeadline(time.Now().Add(patience))
	for !strings.Contains(got.String(), s) {
		n, err := r.conn.Read(b)
		if err != nil {
			r.t.Fatalf("%v after %q", err, got.String())
		}
		got.Write(b[:n])
	}
}

// publish stores a message, which the server confirms.
func (r *rawConn) publish(subject, header, body string) {
	r.t.Helper()
	r.write("SUB inbox 1\r\n")
	r.write(fmt.Sprintf("HPUB %s inbox %d %d\r\n%s%s\r\n", subject, len(header), len(header)+len(body), header, body))
	r.until(`"stream"`)
	r.write("UNSUB 1\r\nPING\r\n")
	r.until("PONG")
}

// What intent.submit refuses is not stored.
func TestRefusedSubmissions(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Tenants[0].Quotas = Quotas{IntentsPerSecond: 0.001, Burst: 3, OpenIntents: 2}
	})
	w.found("alice", "bob", "carol", "dave")
	last := func() uint64 {
		s := must[jetstream.Stream](t)(w.js.Stream(testContext(t), w.store().names.logStream()))
		return s.CachedInfo().State.LastSeq
	}
	before := last()
	for _, test := range []struct {
		request any
		want    string // reason, or code of an error
	}{
		{submitRequest{Intent: make([]byte, defaultIntentBytes+1)}, reasonTooLarge},
		{submitRequest{Intent: []byte("hello")}, reasonMalformed},
		{submitRequest{}, reasonMalformed},
		{[]byte("{"), codeBadRequest},
		{[]byte(`{"intend":"AA=="}`), codeBadRequest},
		{[]byte(`{"intent":"AA=="} {}`), codeBadRequest},
		{submitRequest{Intent: w.intent(1, intents.SenderRemovalOnly), Wait: "soon"}, codeBadRequest},
	} {
		var v verdict
		err := w.api("intent.submit", test.request, &v)
		if e, failed := err.(*apiError); failed {
			if e.Code != test.want {
				t.Errorf("%+v, want %s", e, test.want)
			}
		} else if err != nil || v.State != intents.StateRejected || v.Reason != test.want {
			t.Errorf("%+v %v, want %s", v, err, test.want)
		}
	}
	if err, _ := w.apiOf("nobody", "intent.submit", submitRequest{}, nil).(*apiError); err == nil || err.Code != codeNotFound {
		t.Errorf("unknown tenant: %v", err)
	}
	if now := last(); now != before {
		t.Errorf("%d messages were stored", now-before)
	}
	for leaf, want := range []string{"", "", reasonQuota} {
		if v := w.submit(w.intent(mlscore.LeafIndex(leaf), intents.SenderRemovalOnly)); v.Reason != want {
			t.Errorf("intent %d: %+v, want reason %q: 2 open intents are allowed", leaf, v, want)
		}
		w.noWork()
	}
	var v verdict
	if err := w.api("intent.cancel", controlRequest{statusRequest: statusRequest{ID: w.id(w.intent(0, intents.SenderRemovalOnly))}}, &v); err != nil {
		t.Fatal(err)
	}
	w.noWork()
	if v := w.submit(w.intent(2, intents.SenderRemovalOnly)); v.Reason != "" {
		t.Errorf("after one ended: %+v", v)
	}
	if v := w.submit(w.intent(3, intents.SenderRemovalOnly)); v.Reason != reasonQuota {
		t.Errorf("%+v, want the rate or the number to be over", v)
	}
}

// No event shows a credential unless the operator wants it.
func TestEventsHideCredentials(t *testing.T) {
	for _, cleartext := range []bool{false, true} {
		w := newWorld(t, func(o *Options) { o.EventKey, o.Cleartext = []byte("key"), cleartext })
		w.found("alice", "bob-the-user", "carol")
		w.submit(w.leave(1, intents.SenderRemovalOnly))
		w.await("proposed", ofType(intents.NoticeProposed, ""))
		for _, e := range w.events() {
			b := must[[]byte](t)(json.Marshal(e))
			if e.Type == intents.NoticeProposed && len(e.Credentials) != 1 {
				t.Errorf("%+v", e)
			}
			shown := bytes.Contains(b, []byte("bob-the-user"))
			for _, c := range e.Credentials {
				shown = shown || !strings.HasPrefix(c, "hmac-sha256:")
			}
			if e.Type == intents.NoticeProposed && shown != cleartext || shown && !cleartext {
				t.Errorf("cleartext %v: %s", cleartext, b)
			}
		}
		w.stop()
	}
}
