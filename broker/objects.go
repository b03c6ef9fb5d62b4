package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A GroupInfo that is too large for a message is put into the bucket of objects
// P-infos by the delivery service, and named by the header Leave-Object of a
// message whose body is the SHA-256 of the object in lowercase hex. The broker
// makes a copy of its own when it consumes the message: the log is folded again
// later, and the delivery service may delete its object then.

// headerObject names the object that holds the body of a GroupInfo.
const headerObject = "Leave-Object"

// reasonObject refuses a reference.
const reasonObject = "object" // the object is absent, too large, or not what its SHA-256 says

// parseSum reads a SHA-256 in lowercase hex.
func parseSum(b []byte) ([]byte, error) {
	sum, err := hex.DecodeString(string(b))
	if err != nil || len(sum) != sha256.Size || hex.EncodeToString(sum) != string(b) {
		return nil, errors.New("the body is not a SHA-256 of 64 lowercase hex digits")
	}
	return sum, nil
}

// resolve puts the object that an input refers to in place of the reference. The
// error is a *refusal if there is none that can be used. With keep, the broker
// makes its own copy; without, it has one of everything that it has accepted.
func (b *Broker) resolve(ctx context.Context, r *received, keep bool) error {
	if r.object == "" || r.kind != kindInfo {
		return nil
	}
	sum, err := parseSum(r.data)
	if err != nil {
		return &refusal{reasonObject, err.Error()}
	}
	own := blobName(r.key, sum)
	data, err := b.blobs.get(ctx, own, sum, uint64(b.opts.Limits.ObjectBytes))
	if !errors.Is(err, errBlob) {
		if err == nil {
			r.data = data
		}
		return ofOurs(err)
	}
	if !keep && errors.Is(err, errAbsent) { // it was refused
		if err := b.blobs.confirmAbsent(ctx, own); err != nil {
			return err
		}
	} else {
		data, err = b.infos.get(ctx, r.object, sum, uint64(b.opts.Limits.ObjectBytes))
	}
	if errors.Is(err, errBlob) || !keep && errors.Is(err, errShort) {
		return &refusal{reasonObject, fmt.Sprintf("%v; put the GroupInfo into %s and publish its reference again", err, b.names.infoBucket())}
	}
	if err == nil && keep {
		err = b.write("blob", func() error { return b.blobs.put(ctx, own, data) })
	}
	if err == nil {
		r.data = data
	}
	return err
}

// objects is a bucket of objects.
type objects struct {
	jetstream.ObjectStore
	js     jetstream.JetStream
	nc     *nats.Conn
	api    string // prefix of the JetStream API
	bucket string

	replicated bool // one server may lag behind another
}

// blobName names an object of the broker's own, which never changes.
func blobName(k groupKey, sum []byte) string { return k.String() + "." + hex.EncodeToString(sum) }

// maxBlobBytes bounds what is read back of what the broker stored itself.
const maxBlobBytes = 2 << 30

// errBlob: an object is not there, or is not what was promised. It is given where
// that is sure only: what depends on an object is refused for it.
var errBlob = errors.New("the object cannot be used")

// errAbsent: there is no object of that name.
var errAbsent = fmt.Errorf("%w: it is not there", errBlob)

// errShort: fewer bytes of an object came than there should be, though all its
// parts are there. A replica lags behind, or is slow; or the object was stored with
// a lie, and never comes.
var errShort = errors.New("an object is shorter than it says")

// ofOurs is an error about an object that the broker has stored itself.
func ofOurs(err error) error {
	if errors.Is(err, errShort) {
		return fmt.Errorf("%w: %v", errUnavailable, err)
	}
	return err
}

// get reads an object with a SHA-256 and of at most so many bytes.
func (o objects) get(ctx context.Context, name string, sum []byte, limit uint64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	info, err := o.GetInfo(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrObjectNotFound):
		return nil, o.absent(ctx, name)
	case errors.Is(err, jetstream.ErrBadObjectMeta):
		return nil, fmt.Errorf("%w: %q is not described", errBlob, name)
	case err != nil:
		return nil, classify(err)
	case info.Opts != nil && info.Opts.Link != nil:
		return nil, fmt.Errorf("%w: %q is a link", errBlob, name)
	case info.Size > limit:
		return nil, fmt.Errorf("%w: %q has %d bytes, at most %d", errBlob, name, info.Size, limit)
	}
	if _, err := jetstream.DecodeObjectDigest(info.Digest); err != nil {
		return nil, fmt.Errorf("%w: %q: %v", errBlob, name, err)
	}
	if o.lacksParts(ctx, info) {
		return nil, fmt.Errorf("%w: parts of %q are missing", errBlob, name)
	}
	data, err := o.read(ctx, name, info.Size)
	whole := err == nil || errors.Is(err, jetstream.ErrDigestMismatch) && ctx.Err() == nil
	switch {
	case whole && hasSum(data, sum):
		return data, nil
	case whole && uint64(len(data)) >= info.Size:
		return nil, fmt.Errorf("%w: %q has other bytes than SHA-256 %x", errBlob, name, sum)
	case errors.Is(err, errUnavailable):
		return nil, err
	case whole, errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("%w: %d bytes of %q, not %d", errShort, len(data), name, info.Size)
	}
	return nil, classify(err)
}

// absent is the error of an object that some replica does not have: the leader
// knows whether there is one.
func (o objects) absent(ctx context.Context, name string) error {
	_, err := o.described(ctx, name)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: a server does not have %q yet", errUnavailable, name)
}

// described gives the sequence of what describes an object, or described it before
// it was deleted, which is errAbsent.
func (o objects) described(ctx context.Context, name string) (uint64, error) {
	e, err := readMessage(ctx, o.nc, o.api, "OBJ_"+o.bucket, messageRequest{LastFor: o.metaSubject(name)})
	var info jetstream.ObjectInfo
	if errors.Is(err, errNoEntry) || err == nil && (json.Unmarshal(e.data, &info) != nil || info.Deleted) {
		err = fmt.Errorf("%w: %q", errAbsent, name)
	}
	return e.seq, err
}

// confirmAbsent gives an error if there is an object: a server that lags behind may
// not have it. What it writes belongs to no object.
func (o objects) confirmAbsent(ctx context.Context, name string) error {
	if !o.replicated {
		return nil
	}
	last, err := o.described(ctx, name)
	if errors.Is(err, errAbsent) {
		if err = confirmLast(ctx, o.js, o.api, "$O."+o.bucket+".C."+confirmKey, o.metaSubject(name), last); err == nil {
			return nil
		}
	}
	if err == nil || errors.Is(err, errConflict) {
		err = fmt.Errorf("%w: a server does not have %q yet", errUnavailable, name)
	}
	return err
}

// metaSubject is the subject of what describes an object.
func (o objects) metaSubject(name string) string {
	return fmt.Sprintf("$O.%s.M.%s", o.bucket, base64.URLEncoding.EncodeToString([]byte(name)))
}

// read gives the bytes of an object, at most one more than there should be.
func (o objects) read(ctx context.Context, name string, size uint64) ([]byte, error) {
	r, err := o.Get(ctx, name)
	if err != nil {
		return nil, classify(err)
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, int64(size)+1))
}

// lacksParts says whether less is stored of an object than it says: reading it
// would wait for the rest in vain.
func (o objects) lacksParts(ctx context.Context, info *jetstream.ObjectInfo) bool {
	if info.Size == 0 {
		return false
	}
	s, err := o.js.Stream(ctx, "OBJ_"+o.bucket)
	if err != nil {
		return false
	}
	parts := fmt.Sprintf("$O.%s.C.%s", o.bucket, info.NUID)
	have, err := s.Info(ctx, jetstream.WithSubjectFilter(parts))
	return err == nil && have.State.Subjects[parts] < max(1, uint64(info.Chunks))
}

func hasSum(data, sum []byte) bool {
	have := sha256.Sum256(data)
	return bytes.Equal(have[:], sum)
}

// put stores an object under a name that its bytes decide. One that is there may
// be damaged.
func (o objects) put(ctx context.Context, name string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	_, err := o.PutBytes(ctx, name, data)
	return classify(err)
}
