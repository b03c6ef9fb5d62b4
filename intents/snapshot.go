package intents

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

var (
	// ErrSnapshot: the bytes are no snapshot of the group, or were damaged. The
	// group has to be folded from an older snapshot, or from the start of its log.
	ErrSnapshot = errors.New("no snapshot of this group: fold an older one, or the whole log")
	// ErrSnapshotVersion: a snapshot of a version that this build does not read.
	// A build that reads it can still write an older one; else as for ErrSnapshot.
	ErrSnapshotVersion = errors.New("a snapshot of an unknown version: fold an older one, or the whole log")
)

// snapshotVersion is the version that is written, and the only one that is read.
const snapshotVersion = 1

// Snapshot is the stored form of what is certain, and the position up to which
// the log is in it: RestoreState, and the log after that position, give the
// State again. Where the epoch may turn out to be false, that is the State in
// the last epoch that cannot, before the commit that ended it. A KindRemoval
// without a Seq is inside whenever it was folded. The same State gives the same
// bytes.
//
// There is none while no GroupInfo came or no member has signed over it, while
// a commit waits for an association, and where more was folded along with the
// commit that ended the last certain epoch. Then an older one stays.
//
// All integers are big-endian, vectors those of RFC 9420, Section 2.1.2:
//
//	struct {
//	  uint16 version = 1;
//	  uint64 position;
//	  Time now;                          // of the last input
//	  uint8 flags;                       // gap(0x01) | reset(0x02) | deleted(0x04) | isProven(0x08) |
//	                                     // misjudged(0x10) | unauthorised(0x20) | asked(0x40)
//	  opaque closed<V>;                  // UTF-8; empty: open
//	  uint64 proven;
//	  uint64 epochs;
//	  Time epoch_began;
//	  opaque last_commit<V>;             // 32 bytes, none after a GroupInfo
//	  uint64 turned;
//	  uint64 turned_from;
//	  uint32 sweep;
//	  opaque ahead<V>;                   // GroupInfo; empty: none
//	  uint32 out<V>;                     // ascending
//	  uint8 operations<V>[32];           // identifiers
//	  uint8 unsettled<V>[32];            // identifiers
//	  uint32 n_lives;    Life lives[n_lives];
//	  uint32 n_departed; Departure departed[n_departed];
//	  uint32 n_records;  StoredRecord records[n_records];
//	  uint32 n_parked;   Parked parked[n_parked];
//	  uint32 n_outputs;  StoredOutput outputs[n_outputs];
//	  PublicGroupSnapshot group;         // package mlscore
//	  uint8 checksum[32];                // SHA-256 of all before
//	} Snapshot;
//
//	struct {
//	  int64 seconds;                     // since the Unix epoch
//	  uint32 nanoseconds;                // below 10^9
//	} Time;
//
// The other structures are at the functions that append them. Not stored is
// what the log after the position says (fork, head, blocked), what is certain in
// a State that can be stored (trusted, ground, doubted, heard), the policy, and what follows
// from the rest (open, wanting, wanted, sole, identifiers of intents, hashes of
// their messages).
func (s *State) Snapshot() (data []byte, position uint64, ok bool) {
	stem, position, ok := s.certain()
	if !ok {
		return nil, 0, false
	}
	b := codec.AppendUint16(nil, snapshotVersion)
	b = codec.AppendUint64(b, position)
	b = stem.appendScalars(b)
	b = appendLives(b, stem.lives)
	b = appendDeparted(b, stem.departed)
	b = stem.appendRecords(b)
	b = appendParked(b, stem.parked)
	b = appendOutputs(b, stem.outputs)
	b = stem.group.AppendSnapshot(b)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), position, true
}

// certain is the State that a snapshot is of, and the position from which the
// log has to be folded over it.
func (s *State) certain() (stem *State, position uint64, ok bool) {
	stem, position = s, s.position
	if f := s.fork; f != nil {
		stem, position = f.nodes[0].stem, f.left
		if !f.clean {
			return nil, 0, false
		}
		// What was sent out is a fact from before the position, even if it was
		// learned since.
		x := &step{State: stem.copied(), old: stem}
		for _, in := range f.inputs(nil) {
			if in.Kind == KindRemoval && in.Seq <= position {
				x.in = in
				x.foldRemoval()
			}
		}
		stem = x.State
	}
	return stem, position, stem.group != nil && stem.trusted && stem.blocked == nil
}

func (s *State) copied() *State {
	n := *s
	return &n
}

// RestoreState makes a State of its stored form, for a group and its policy,
// which need not be that of the State that was stored: it holds for what comes.
// The bytes may be changed afterwards. The State is at the position of the
// snapshot: the log after it comes next. Errors are ErrSnapshot and
// ErrSnapshotVersion.
func RestoreState(p *Policy, groupID []byte, data []byte) (*State, error) {
	body := data[:max(0, len(data)-sha256.Size)]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], data[len(body):]) {
		return nil, fmt.Errorf("%w: %d bytes with a wrong checksum", ErrSnapshot, len(data))
	}
	r := codec.NewReader(body)
	if version := r.Uint16(); r.Err() == nil && version != snapshotVersion {
		return nil, fmt.Errorf("%w: %d", ErrSnapshotVersion, version)
	}
	s := NewState(p, groupID)
	s.position, s.trusted, s.restored = r.Uint64(), true, true
	s.readScalars(r)
	s.lives = readLives(r)
	s.departed = readDeparted(r)
	s.readRecords(r)
	s.parked = readParked(r, p)
	s.outputs = readOutputs(r, p)
	rest := r.Rest()
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	var err error
	if s.group, err = mlscore.RestorePublicGroup(rest, p.options(time.Time{})); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	if !bytes.Equal(s.group.GroupID(), groupID) {
		return nil, fmt.Errorf("%w: it is of group %x", ErrSnapshot, s.group.GroupID())
	}
	s.derive()
	return s, nil
}

// derive finds what follows from the records.
func (s *State) derive() {
	for _, r := range s.records.all() {
		if r.sender == nil || isTerminal(r.state) {
			continue
		}
		s.open = append(s.open, r)
		s.wanted += len(r.actionable(s.policy))
		if r.unsent(s.policy, s.out) {
			s.wanting.put(r.id, struct{}{})
		}
	}
	slices.SortFunc(s.open, func(a, b *record) int { return compareSeq(a.seq, b.seq) })
	s.sole = s.targetsAreAll()
}

// The bits of a snapshot's flags.
func (s *State) flagBits() []*bool {
	return []*bool{&s.gap, &s.reset, &s.deleted, &s.isProven, &s.misjudged, &s.unauthorised, &s.asked}
}

func (s *State) appendScalars(b []byte) []byte {
	b = appendTime(b, s.now)
	b = appendBits(b, s.flagBits()...)
	b = codec.AppendOpaque(b, []byte(s.closed))
	b = codec.AppendUint64(b, s.proven)
	b = codec.AppendUint64(b, s.epochs)
	b = appendTime(b, s.epochBegan)
	b = codec.AppendOpaque(b, bytesOf(s.lastCommit))
	b = codec.AppendUint64(b, s.turned)
	b = codec.AppendUint64(b, s.turnedFrom)
	b = codec.AppendUint32(b, uint32(s.sweep))
	var ahead []byte
	if s.ahead != nil {
		ahead = s.ahead.Bytes()
	}
	b = codec.AppendOpaque(b, ahead)
	b = appendLeaves(b, s.out)
	b = appendIDs(b, s.operations)
	return appendIDs(b, s.unsettled)
}

func (s *State) readScalars(r *codec.Reader) {
	s.now = readTime(r)
	readBits(r, s.flagBits()...)
	s.closed = string(r.Opaque())
	s.proven, s.epochs, s.epochBegan = r.Uint64(), r.Uint64(), readTime(r)
	s.lastCommit = hexOf(r.Opaque())
	s.turned, s.turnedFrom, s.sweep = r.Uint64(), r.Uint64(), int(r.Uint32())
	if ahead := r.Opaque(); len(ahead) > 0 {
		own := codec.NewReader(bytes.Clone(ahead))
		s.ahead = mlscore.ReadGroupInfo(own)
		r.Join(own)
	}
	s.out = readAscending(r)
	s.operations, s.unsettled = readIDs(r), readIDs(r)
}

// appendLives appends, ascending by index:
//
//	struct {
//	  uint32 index;
//	  uint64 lineage;
//	  uint64 credential;
//	} Life;
func appendLives(b []byte, lives trie[life]) []byte {
	type entry struct {
		index mlscore.LeafIndex
		life
	}
	list := make([]entry, 0, lives.n)
	for key, l := range lives.all() {
		list = append(list, entry{indexOf(key), l})
	}
	slices.SortFunc(list, func(a, b entry) int { return compareSeq(uint64(a.index), uint64(b.index)) })
	b = codec.AppendUint32(b, uint32(len(list)))
	for _, e := range list {
		b = codec.AppendUint32(b, uint32(e.index))
		b = codec.AppendUint64(b, e.lineage)
		b = codec.AppendUint64(b, e.credential)
	}
	return b
}

func readLives(r *codec.Reader) (lives trie[life]) {
	last := -1
	for n := r.Uint32(); n > 0 && r.Err() == nil; n-- {
		index, l := r.Uint32(), life{lineage: r.Uint64(), credential: r.Uint64()}
		if int(index) <= last || index >= mlscore.MaxLeaves {
			r.Fail("the life of leaf %d after that of %d", index, last)
			break
		}
		last = int(index)
		lives.put(leafKey(mlscore.LeafIndex(index)), l)
	}
	return lives
}

// refPrefix is how much of two leaf references is never the same: they are
// hashes.
const refPrefix = 16

// appendDeparted appends, ascending by reference:
//
//	struct {
//	  opaque ref<V>;                     // LeafNodeRef
//	  uint32 index;
//	  uint8 flags;                       // changed(0x01) | back(0x02)
//	  uint64 lineage;
//	  uint64 epoch;
//	} Departure;
func appendDeparted(b []byte, departed trie[departure]) []byte {
	type entry struct {
		ref string
		departure
	}
	list := make([]entry, 0, departed.n)
	for ref, d := range departed.all() {
		list = append(list, entry{ref, d})
	}
	slices.SortFunc(list, func(a, b entry) int { return bytes.Compare([]byte(a.ref), []byte(b.ref)) })
	b = slices.Grow(b, 64*len(list))
	b = codec.AppendUint32(b, uint32(len(list)))
	for _, e := range list {
		b = codec.AppendOpaque(b, []byte(e.ref))
		b = codec.AppendUint32(b, uint32(e.index))
		b = appendBits(b, &e.changed, &e.back)
		b = codec.AppendUint64(b, e.lineage)
		b = codec.AppendUint64(b, e.epoch)
	}
	return b
}

func readDeparted(r *codec.Reader) (departed trie[departure]) {
	var last []byte
	for n := r.Uint32(); n > 0 && r.Err() == nil; n-- {
		ref := r.Opaque()
		d := departure{index: mlscore.LeafIndex(r.Uint32())}
		readBits(r, &d.changed, &d.back)
		d.lineage, d.epoch = r.Uint64(), r.Uint64()
		if len(ref) < refPrefix || last != nil && bytes.Compare(ref[:refPrefix], last[:refPrefix]) <= 0 {
			r.Fail("the leaf reference %x after %x", ref, last)
			break
		}
		last = ref
		departed.put(string(ref), d)
	}
	return departed
}
