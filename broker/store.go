package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

const (
	readBatch      = 512
	readBatchBytes = 4 << 20

	publishAttempts = 3 // after the first
	publishAgain    = 50 * time.Millisecond
)

// journal is the log as the fold of a group needs it. A write is durable when
// append returns nil, by the measure of the server; on any error its outcome is
// unknown, but for errConflict: then nothing was written. Methods may be called
// at once from many goroutines. store is the one on JetStream.
type journal interface {
	// append stores what the broker writes about a group and gives its sequence.
	// With expectLast it is stored only if the last entry on its subject has that
	// sequence, 0 for none.
	append(ctx context.Context, k groupKey, what kind, data []byte, expectLast *uint64) (uint64, error)
	// read gives every entry of a filter from a sequence on, in order, at least up to
	// what was stored when it was called.
	read(ctx context.Context, filter string, from uint64, each func(entry) error) error
	// readOne gives the first entry of a filter from a sequence on, errNoEntry if
	// there is none.
	readOne(ctx context.Context, filter string, from uint64) (entry, error)
	// readLast gives the last entry of a filter, errNoEntry if there is none.
	readLast(ctx context.Context, filter string) (entry, error)
	// purge deletes the entries of a subject below a sequence.
	purge(ctx context.Context, subject string, below uint64) error
	// delivered is the sequence up to which the delivery service of a tenant has
	// acknowledged every output.
	delivered(ctx context.Context, tenant string) (uint64, error)
}

var (
	// errConflict: somebody else wrote first. What is in memory is out of date.
	errConflict = errors.New("another writer was first")
	// errUnavailable: the outcome of a read or write is not known, or the server
	// refuses it for now.
	errUnavailable = errors.New("NATS is unavailable")
	// errBusy: another write on the same subject is under way; nothing was
	// written. Only replicated streams say so.
	errBusy = fmt.Errorf("%w: another write is under way", errUnavailable)
	// errNoEntry: the log holds no such entry.
	errNoEntry = errors.New("no entry")
)

// The server's codes behind errBusy, which have no names in the client library.
const (
	codeBusyID    = 10158 // of a message with the same ID
	codeBusyWrite = 10164
)

// store is a stream of logs.
type store struct {
	nc    *nats.Conn
	js    jetstream.JetStream
	api   string // prefix of the JetStream API
	names names
}

// classify gives the errors of the server their kind.
func classify(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
		return fmt.Errorf("%w: %v", errConflict, err)
	case errors.As(err, &api) && (api.ErrorCode == codeBusyWrite || api.ErrorCode == codeBusyID):
		return errBusy
	case errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return fmt.Errorf("%w: %v", errConflict, err)
	case errors.As(err, &api) && isFull(api):
		return fmt.Errorf("%w: %v", errFull, err)
	}
	return fmt.Errorf("%w: %w", errUnavailable, err)
}

// busyAttempts and busyAgain bound the tries of a write that another one is in
// the way of.
const (
	busyAttempts = 6
	busyAgain    = 5 * time.Millisecond
)

// whileBusy tries a write again while another one is in its way. The pauses
// double and are random, so that two writers do not meet again.
func whileBusy(ctx context.Context, write func() error) error {
	for attempt := 0; ; attempt++ {
		err := write()
		if !errors.Is(err, errBusy) || attempt == busyAttempts {
			return err
		}
		pause := busyAgain << attempt
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return classify(ctx.Err())
		}
	}
}

func (s *store) append(ctx context.Context, k groupKey, what kind, data []byte, expectLast *uint64) (seq uint64, err error) {
	var opts []jetstream.PublishOpt
	publish := func(ctx context.Context) error {
		return whileBusy(ctx, func() error {
			ack, err := s.js.Publish(ctx, s.names.log(k, what), data, opts...)
			if err == nil {
				seq = ack.Sequence
			}
			return classify(err)
		})
	}
	if expectLast != nil { // it is stored once, however often it is sent
		opts = append(opts, jetstream.WithExpectLastSequencePerSubject(*expectLast))
		err = untilAnswered(ctx, publish)
		return seq, err
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	err = publish(ctx)
	return seq, err
}

// lagAgain is when to read again from replicas that lag behind their leader.
const lagAgain = 20 * time.Millisecond

// silentFor is how long a log that has more may give nothing. What is done with
// the entries does not count: to fold a large group takes its time.
const silentFor = 6 * apiTimeout

// read reads in batches straight from the store, without a consumer. Any replica
// answers, and may lag behind: the leader says how far there is to read.
func (s *store) read(ctx context.Context, filter string, from uint64, each func(entry) error) error {
	newest, err := s.readLast(ctx, filter)
	if errors.Is(err, errNoEntry) || err == nil && newest.seq < from {
		return nil
	}
	if err != nil {
		return err
	}
	heard := time.Now()
	for next := max(from, 1); ; {
		more, last, err := s.readBatch(ctx, filter, next, each)
		if err != nil {
			return err
		}
		if last >= next {
			next, heard = last+1, time.Now()
		}
		switch {
		case time.Since(heard) > silentFor:
			return fmt.Errorf("%w: reading the log: nothing for %s", errUnavailable, silentFor)
		case more:
		case next > newest.seq:
			return nil
		default:
			// A replica lags, or what was the newest is purged.
			if newest, err = s.readLast(ctx, filter); errors.Is(err, errNoEntry) {
				return nil
			}
			if err == nil && next <= newest.seq {
				err = pause(ctx, lagAgain)
			}
			if err != nil {
				return err
			}
		}
	}
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return classify(ctx.Err())
	}
}

// headerLastSequence names the message that precedes one in a batch, 0 for none.
const headerLastSequence = "Nats-Last-Sequence"

// readBatch gives the entries of one batch and says whether there are more, as
// there may be where the server falls silent, or messages are lost on the way,
// which happens while a connection or a route comes back.
func (s *store) readBatch(ctx context.Context, filter string, from uint64, each func(entry) error) (more bool, last uint64, err error) {
	sub, err := s.nc.SubscribeSync(s.nc.NewInbox())
	if err != nil {
		return false, 0, classify(err)
	}
	defer sub.Unsubscribe()
	request, err := json.Marshal(struct {
		Seq      uint64 `json:"seq"`
		NextFor  string `json:"next_by_subj"`
		Batch    int    `json:"batch"`
		MaxBytes int    `json:"max_bytes"`
	}{from, filter, readBatch, readBatchBytes})
	if err != nil {
		return false, 0, err
	}
	if err := s.nc.PublishRequest(s.api+"DIRECT.GET."+s.names.logStream(), sub.Subject, request); err != nil {
		return false, 0, classify(err)
	}
	for {
		m, err := sub.NextMsg(answerPatience)
		switch {
		case ctx.Err() != nil:
			return false, 0, classify(ctx.Err())
		case errors.Is(err, nats.ErrTimeout):
			return true, last, nil
		case err != nil:
			return false, 0, classify(err)
		}
		if prev := lastValue(m.Header, headerLastSequence); prev != "" && prev != strconv.FormatUint(last, 10) {
			return true, last, nil // what was between is lost
		}
		if _, stored := m.Header[jetstream.SequenceHeader]; !stored {
			switch status := lastValue(m.Header, "Status"); status {
			case "404":
				return false, last, nil
			case "204":
				pending, err := strconv.ParseUint(lastValue(m.Header, "Nats-Num-Pending"), 10, 64)
				if err != nil || last == 0 {
					return false, 0, fmt.Errorf("%w: the end of a batch of the log without its length", errUnavailable)
				}
				return pending > 0, last, nil
			case "":
				// The headers it was stored with cannot be parsed.
				e, err := s.readOne(ctx, filter, max(from, last+1))
				if err != nil {
					return false, 0, err
				}
				last = e.seq
				if err := each(e); err != nil {
					return false, 0, err
				}
				continue
			default:
				return false, 0, fmt.Errorf("%w: reading the log: status %q", errUnavailable, status)
			}
		}
		e, err := storedEntry(m)
		if err != nil {
			return false, 0, err
		}
		last = e.seq
		if err := each(e); err != nil {
			return false, 0, err
		}
	}
}

// messageRequest asks the leader of a stream for one message: the last of a
// subject, or the first of it from a sequence on.
type messageRequest struct {
	Seq     uint64 `json:"seq,omitempty"`
	NextFor string `json:"next_by_subj,omitempty"`
	LastFor string `json:"last_by_subj,omitempty"`
}

// readOne reads the first entry of a filter from a sequence on, from the
// leader, and trusts no header.
func (s *store) readOne(ctx context.Context, filter string, from uint64) (entry, error) {
	return readMessage(ctx, s.nc, s.api, s.names.logStream(), messageRequest{Seq: from, NextFor: filter})
}

// readLast reads from the leader.
func (s *store) readLast(ctx context.Context, filter string) (entry, error) {
	return readMessage(ctx, s.nc, s.api, s.names.logStream(), messageRequest{LastFor: filter})
}

func (s *store) purge(ctx context.Context, subject string, below uint64) error {
	if below <= 1 {
		return nil // to the server, 0 is the whole subject
	}
	stream, err := s.js.Stream(ctx, s.names.logStream())
	if err != nil {
		return classify(err)
	}
	return classify(stream.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(below)))
}

func (s *store) delivered(ctx context.Context, tenant string) (uint64, error) {
	c, err := s.js.Consumer(ctx, s.names.logStream(), s.names.removalsConsumer(tenant))
	if err != nil {
		return 0, classify(err)
	}
	return c.CachedInfo().AckFloor.Stream, nil
}

// readMessage reads one message of a stream from its leader; api is the prefix
// of the JetStream API.
func readMessage(ctx context.Context, nc *nats.Conn, api, stream string, q messageRequest) (entry, error) {
	request, err := json.Marshal(q)
	if err != nil {
		return entry{}, err
	}
	var m *nats.Msg
	err = untilAnswered(ctx, func(ctx context.Context) error {
		m, err = nc.RequestWithContext(ctx, api+"STREAM.MSG.GET."+stream, request)
		return err
	})
	if err != nil {
		return entry{}, classify(err)
	}
	var reply struct {
		Error *struct {
			ErrCode jetstream.ErrorCode `json:"err_code"`
		} `json:"error"`
		Message struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Headers []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &reply); err != nil {
		return entry{}, fmt.Errorf("%w: reading %s: %v", errUnavailable, stream, err)
	}
	switch {
	case reply.Error == nil:
	case reply.Error.ErrCode == jetstream.JSErrCodeMessageNotFound:
		return entry{}, errNoEntry
	case reply.Error.ErrCode == jetstream.JSErrCodeStreamNotFound:
		return entry{}, fmt.Errorf("%w: %w", errUnavailable, jetstream.ErrStreamNotFound)
	}
	if reply.Error != nil || reply.Message.Seq == 0 {
		return entry{}, fmt.Errorf("%w: reading %s: %s", errUnavailable, stream, m.Data)
	}
	object := ""
	if h, err := nats.DecodeHeadersMsg(reply.Message.Headers); err == nil {
		object = h.Get(headerObject)
	}
	return entry{reply.Message.Seq, reply.Message.Time, reply.Message.Subject, reply.Message.Data, object}, nil
}

// storedEntry takes a stored message out of a direct reply. The server puts
// its headers after those that were stored, which anybody may have written:
// only the last value of each is the server's.
func storedEntry(m *nats.Msg) (entry, error) {
	seq, err := strconv.ParseUint(lastValue(m.Header, jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return entry{}, fmt.Errorf("%w: a stored message with sequence %q", errUnavailable, lastValue(m.Header, jetstream.SequenceHeader))
	}
	at, err := time.Parse(time.RFC3339Nano, lastValue(m.Header, jetstream.TimeStampHeaer))
	if err != nil {
		return entry{}, fmt.Errorf("%w: a stored message with time %q", errUnavailable, lastValue(m.Header, jetstream.TimeStampHeaer))
	}
	return entry{seq, at, lastValue(m.Header, jetstream.SubjectHeader), m.Data, m.Header.Get(headerObject)}, nil
}

func lastValue(h nats.Header, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// publishIntent publishes an intent under a message ID until it is stored, and
// gives its sequence. That the server has the ID already is success only if
// what it stored under it is the same. Each attempt is a write.
func (s *store) publishIntent(ctx context.Context, k groupKey, data []byte, write func(perform func() error) error) (seq uint64, err error) {
	id := nuid.Next()
	for attempt := 0; ; attempt++ {
		err = write(func() (err error) {
			seq, err = s.publishOnce(ctx, k, data, id)
			return err
		})
		if err == nil || attempt == publishAttempts || pause(ctx, publishAgain<<attempt) != nil {
			return seq, err
		}
	}
}

func (s *store) publishOnce(ctx context.Context, k groupKey, data []byte, id string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout/2)
	defer cancel()
	ack, err := s.js.Publish(ctx, s.names.in(k, kindIntent), data, jetstream.WithMsgID(id))
	if err != nil {
		return 0, classify(err)
	}
	if !ack.Duplicate {
		return ack.Sequence, nil
	}
	e, err := s.readOne(ctx, s.names.log(k, kindIntent), ack.Sequence)
	if err != nil || e.seq != ack.Sequence || !bytes.Equal(e.data, data) {
		return 0, fmt.Errorf("%w: message ID %s is taken", errUnavailable, id)
	}
	return ack.Sequence, nil
}

// confirmLast gives errConflict if the last message on a subject of a stream has
// not a sequence, 0 for none. To that end it stores a message that says nothing on
// another subject of the stream, in place of the last one there: no server but the
// one that leads can.
func confirmLast(ctx context.Context, js jetstream.JetStream, api, by, subject string, last uint64) error {
	if api != jetstream.DefaultAPIPrefix { // as the client library does
		by = api + by
	}
	m := nats.NewMsg(by)
	m.Header.Set("Nats-Rollup", "sub")
	return untilAnswered(ctx, func(ctx context.Context) error {
		return whileBusy(ctx, func() error {
			_, err := js.PublishMsg(ctx, m, jetstream.WithExpectLastSequenceForSubject(last, subject))
			return classify(err)
		})
	})
}
