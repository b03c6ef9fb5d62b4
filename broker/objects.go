package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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
// makes its own copy.
func (b *Broker) resolve(ctx context.Context, r *received, keep bool) error {
	if r.object == "" || r.kind != kindInfo {
		return nil
	}
	sum, err := parseSum(r.data)
	if err != nil {
		return &refusal{reasonObject, err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	own := blobName(r.key, sum)
	data, err := readBlob(ctx, b.blobs, own, sum, uint64(b.opts.Limits.ObjectBytes))
	if !errors.Is(err, errBlob) {
		if err == nil {
			r.data = data
		}
		return err
	}
	data, err = readBlob(ctx, b.infos, r.object, sum, uint64(b.opts.Limits.ObjectBytes))
	if errors.Is(err, errBlob) {
		return &refusal{reasonObject, fmt.Sprintf("%v; put the GroupInfo into %s and publish its reference again", err, b.names.infoBucket())}
	}
	if err == nil && keep {
		err = b.write("blob", func() error { return writeBlob(ctx, b.blobs, own, data) })
	}
	if err == nil {
		r.data = data
	}
	return err
}
