package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

var (
	// errConflict: somebody else wrote first. What is in memory is out of date.
	errConflict = errors.New("another writer was first")
	// errUnavailable: the outcome of a read or write is not known, or the server
	// refuses it for now.
	errUnavailable = errors.New("NATS is unavailable")
	// errNoEntry: the log holds no such entry.
	errNoEntry = errors.New("no entry")
)

// store reads and writes the log. Writes are durable when they return nil, by
// the measure of the server. On any error the outcome is unknown, but for
// errConflict: then nothing was written. Its methods may be called at once
// from many goroutines.
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
	}
	return fmt.Errorf("%w: %w", errUnavailable, err)
}

// append stores what the broker writes about a group and gives its sequence.
// An output is stored only if the last one on its subject is the expected; nil
// expects nothing.
func (s *store) append(ctx context.Context, k groupKey, what kind, data []byte, expectLast *uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var opts []jetstream.PublishOpt
	if expectLast != nil {
		opts = append(opts, jetstream.WithExpectLastSequencePerSubject(*expectLast))
	}
	ack, err := s.js.Publish(ctx, s.names.log(k, what), data, opts...)
	if err != nil {
		return 0, classify(err)
	}
	return ack.Sequence, nil
}

// read gives every entry of a filter, from a sequence on, in order, up to what
// is stored when the end is reached. It reads in batches straight from the
// store, without a consumer.
func (s *store) read(ctx context.Context, filter string, from uint64, each func(entry) error) error {
	ctx, cancel := context.WithTimeout(ctx, 6*apiTimeout)
	defer cancel()
	for next := max(from, 1); ; {
		more, last, err := s.readBatch(ctx, filter, next, each)
		if err != nil {
			return err
		}
		if !more {
			return nil
		}
		next = last + 1
	}
}

// readBatch gives the entries of one batch and says whether there are more.
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
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return false, 0, classify(err)
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

// readOne reads the first entry of a filter from a sequence on, from the
// leader, and looks at no header.
func (s *store) readOne(ctx context.Context, filter string, from uint64) (entry, error) {
	request, err := json.Marshal(struct {
		Seq     uint64 `json:"seq"`
		NextFor string `json:"next_by_subj"`
	}{from, filter})
	if err != nil {
		return entry{}, err
	}
	m, err := s.nc.RequestWithContext(ctx, s.api+"STREAM.MSG.GET."+s.names.logStream(), request)
	if err != nil {
		return entry{}, classify(err)
	}
	var reply struct {
		Error *struct {
			Code int `json:"code"`
		} `json:"error"`
		Message struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &reply); err != nil {
		return entry{}, fmt.Errorf("%w: reading the log: %v", errUnavailable, err)
	}
	if reply.Error != nil && reply.Error.Code == 404 {
		return entry{}, errNoEntry
	}
	if reply.Error != nil || reply.Message.Seq == 0 {
		return entry{}, fmt.Errorf("%w: reading the log after %d: no message", errUnavailable, from)
	}
	return entry{reply.Message.Seq, reply.Message.Time, reply.Message.Subject, reply.Message.Data}, nil
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
	return entry{seq, at, lastValue(m.Header, jetstream.SubjectHeader), m.Data}, nil
}

func lastValue(h nats.Header, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// publishIntent publishes an intent under a message ID until it is stored, and
// gives its sequence. That the server has the ID already is success only if
// what it stored under it is the same.
func (s *store) publishIntent(ctx context.Context, k groupKey, data []byte) (uint64, error) {
	id := nuid.Next()
	for attempt := 0; ; attempt++ {
		seq, err := s.publishOnce(ctx, k, data, id)
		if err == nil || attempt == publishAttempts || ctx.Err() != nil {
			return seq, err
		}
		time.Sleep(publishAgain << attempt)
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
