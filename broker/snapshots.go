package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// A snapshot is the state of a group at a position of its log, in a form of its
// own (intents.State.Snapshot), from where the log is folded on. It saves time,
// and lets the log before it be purged (compact.go).

// snapshotVersion is the version of the stored form of a snapshot.
const snapshotVersion = 1

// snapshot is an entry of the bucket of snapshots, whose keys are
// tenant.group-token and whose values are
//
//	uint8  version       1
//	uint64 position      of the state in the log
//	uint64 last_removal  sequence of the last output before the snapshot; 0 for none
//	uint64 removals      sequence from which outputs are read: those before are of
//	                     epochs that are over
//	uint32 n             bytes of the group_id, which follows
//	uint8  where         0: the state follows; 1: it is in the bucket of blobs, and
//	                     its SHA-256 follows
//
// with integers in network order. A blob is named tenant.group-token.SHA-256 in
// lowercase hex, and never changes.
type snapshot struct {
	position    uint64
	lastRemoval uint64
	removals    uint64
	groupID     []byte
	state       []byte
	rev         uint64 // of the bucket; 0: there is no snapshot
}

const (
	snapshotInline = 0
	snapshotBlob   = 1
	snapshotHeader = 1 + 3*8 + 4 + 1 // without the group_id
)

func (s *snapshot) appendHeader(where byte) []byte {
	b := []byte{snapshotVersion}
	for _, v := range []uint64{s.position, s.lastRemoval, s.removals} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.groupID)))
	b = append(b, s.groupID...)
	return append(b, where)
}

// parseSnapshot gives a snapshot without its state, and what follows the header.
func parseSnapshot(b []byte) (s snapshot, where byte, rest []byte, err error) {
	switch {
	case len(b) == 0:
		return s, 0, nil, fmt.Errorf("%w: it is empty", errSnapshot)
	case b[0] != snapshotVersion:
		return s, 0, nil, &versionError{int(b[0]), snapshotVersion}
	case len(b) < snapshotHeader:
		return s, 0, nil, fmt.Errorf("%w: %d bytes", errSnapshot, len(b))
	}
	for i, v := range []*uint64{&s.position, &s.lastRemoval, &s.removals} {
		*v = binary.BigEndian.Uint64(b[1+8*i:])
	}
	n, rest := binary.BigEndian.Uint32(b[1+3*8:]), b[1+3*8+4:]
	if uint64(n) >= uint64(len(rest)) {
		return s, 0, nil, fmt.Errorf("%w: a group_id of %d bytes", errSnapshot, n)
	}
	s.groupID = bytes.Clone(rest[:n])
	where, rest = rest[n], rest[n+1:]
	if where > snapshotBlob || where == snapshotBlob && len(rest) != sha256.Size {
		return s, 0, nil, fmt.Errorf("%w: its state is neither here nor elsewhere", errSnapshot)
	}
	return s, where, rest, nil
}

// snapshots stores the snapshots of groups. snapshotBucket is the one on
// JetStream.
type snapshots interface {
	// get gives the last snapshot of a group, one with rev 0 where there is none.
	get(ctx context.Context, k groupKey) (snapshot, error)
	// revision gives the revision of the last snapshot, 0 where there is none.
	revision(ctx context.Context, k groupKey) (uint64, error)
	// confirm gives errConflict if a revision is not that of the last snapshot, 0
	// that there is none. Those above may be answered by a server that lags behind,
	// and what has been purged since is then in neither snapshot nor log.
	confirm(ctx context.Context, k groupKey, rev uint64) error
	// put stores a snapshot in place of a revision, and reads it back: what put
	// returns can be relied on. errConflict if the revision is not the last.
	put(ctx context.Context, k groupKey, s snapshot, rev uint64) (uint64, error)
}

// snapshotBucket is a bucket, and one of objects for what is too large for it.
type snapshotBucket struct {
	records
	js         jetstream.JetStream
	blobs      objects
	inline     int  // bytes of a value that still fits into a message
	replicated bool // one server may lag behind another
}

// confirmKey is the key of what confirm writes, which says nothing: none but the
// server that leads can store something.
const confirmKey = "_confirm"

func (b snapshotBucket) confirm(ctx context.Context, k groupKey, rev uint64) error {
	if !b.replicated {
		return nil
	}
	last := rev
	if rev == 0 {
		value, deleted, err := b.read(ctx, k.String())
		if err != nil {
			return err
		}
		if value != nil {
			return fmt.Errorf("snapshot %s: %w", k, errConflict)
		}
		last = deleted
	}
	prefix := "$KV." + b.kv.Bucket() + "."
	if err := confirmLast(ctx, b.js, b.api, prefix+confirmKey, prefix+k.String(), last); err != nil {
		return fmt.Errorf("snapshot %s: %w", k, err)
	}
	return nil
}

func (b snapshotBucket) revision(ctx context.Context, k groupKey) (uint64, error) {
	value, rev, err := b.read(ctx, k.String())
	if value == nil {
		rev = 0
	}
	return rev, err
}

func (b snapshotBucket) get(ctx context.Context, k groupKey) (snapshot, error) {
	value, rev, err := b.read(ctx, k.String())
	if err != nil || value == nil {
		return snapshot{}, err
	}
	s, where, rest, err := parseSnapshot(value)
	if err != nil {
		return s, fmt.Errorf("snapshot %s: %w", k, err)
	}
	s.rev, s.state = rev, rest
	if where == snapshotBlob {
		s.state, err = b.blobs.get(ctx, blobName(k, rest), rest, maxBlobBytes)
		err = ofOurs(err)
		if errors.Is(err, errBlob) {
			err = b.lostBlob(ctx, k, rev, err)
		}
	}
	if err != nil {
		return s, fmt.Errorf("snapshot %s: %w", k, err)
	}
	return s, nil
}

// lostBlob is the error of a snapshot whose blob is not there: it is if another
// snapshot has taken its place meanwhile.
func (b snapshotBucket) lostBlob(ctx context.Context, k groupKey, rev uint64, why error) error {
	now, err := b.revision(ctx, k)
	if err != nil {
		return err
	}
	if now != rev {
		return errCompacted
	}
	return fmt.Errorf("%w: %v", errSnapshot, why)
}

func (b snapshotBucket) put(ctx context.Context, k groupKey, s snapshot, rev uint64) (uint64, error) {
	old, oldRev, err := b.read(ctx, k.String())
	if err != nil {
		return 0, err
	}
	if old == nil && rev == 0 {
		rev = oldRev // one was deleted
	}
	value := append(s.appendHeader(snapshotInline), s.state...)
	var blob string
	if len(value) > b.inline {
		sum := sha256.Sum256(s.state)
		blob = blobName(k, sum[:])
		if err := b.blobs.put(ctx, blob, s.state); err != nil {
			return 0, err
		}
		value = append(s.appendHeader(snapshotBlob), sum[:]...)
	}
	next, err := b.write(ctx, k.String(), value, rev)
	if err != nil {
		return 0, err
	}
	back, err := b.get(ctx, k)
	if err != nil {
		return 0, err
	}
	if back.rev != next || !bytes.Equal(back.state, s.state) || back.position != s.position {
		return 0, fmt.Errorf("%w: what was stored of snapshot %s is something else", errConflict, k)
	}
	if _, where, rest, err := parseSnapshot(old); err == nil && where == snapshotBlob && blobName(k, rest) != blob {
		_ = b.blobs.Delete(ctx, blobName(k, rest)) // best effort: it takes room, no more
	}
	return next, nil
}
