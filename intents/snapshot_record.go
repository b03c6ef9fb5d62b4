package intents

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// appendRecords appends, ascending by seq:
//
//	struct {
//	  LeafOperationIntent intent;
//	  uint64 seq;
//	  Time received;
//	  opaque state<V>;
//	  opaque reason<V>;
//	  uint64 verified_epoch;
//	  uint64 removed_epoch;
//	  opaque commit<V>;                  // 32 bytes or none
//	  uint32 gone<V>;
//	  optional<Answer> answer;           // opaque status<V>, revision<V>, hash<V>
//	  select (what the state is) {
//	    case ended:          Ended;
//	    case held, pending:  Open;
//	    case parked:         struct{};
//	  };
//	} StoredRecord;
//
//	struct {
//	  Time ended;
//	  uint64 ended_epoch;
//	  uint8 confirmed;                   // 0x01 or 0
//	  optional<LeafNode> leaf;           // of a removal whose epoch is not proven
//	} Ended;
//
//	struct {
//	  LeafNode sender;
//	  optional<LeafNode> leaf;           // where it is another, after a Replace
//	  uint8 flags;                       // sender_gone(0x01) | sender_only(0x02) | lost_in_gap(0x04)
//	  optional<Association> association;
//	  uint32 left_out;
//	  uint32 committers<V>;
//	} Open;
//
//	struct {
//	  uint8 flags;                       // all(0x01) | frozen(0x02) | given_up(0x04) | guard(0x08) | approved(0x10)
//	  uint32 open<V>;                    // ascending
//	  uint32 associated<V>;              // ascending
//	  uint32 failed;
//	  uint32 total;
//	  uint32 allowed;
//	} Association;
func (s *State) appendRecords(b []byte) []byte {
	list := make([]*record, 0, s.records.n)
	for _, r := range s.records.all() {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *record) int { return compareSeq(a.seq, b.seq) })
	b = codec.AppendUint32(b, uint32(len(list)))
	for _, r := range list {
		b = r.appendStored(b)
	}
	return b
}

func (r *record) appendStored(b []byte) []byte {
	b = r.intent.Append(b)
	b = codec.AppendUint64(b, r.seq)
	b = appendTime(b, r.received)
	b = codec.AppendOpaque(b, []byte(r.state))
	b = codec.AppendOpaque(b, []byte(r.reason))
	b = codec.AppendUint64(b, r.verifiedEpoch)
	b = codec.AppendUint64(b, r.removedEpoch)
	b = codec.AppendOpaque(b, bytesOf(r.commit))
	b = appendLeaves(b, r.gone)
	var answer *RecordedAnswer
	if r.association != nil {
		answer = r.association.answer
	}
	if b = codec.AppendOptional(b, answer != nil); answer != nil {
		for _, text := range []string{answer.Status, answer.Revision, answer.Hash} {
			b = codec.AppendOpaque(b, []byte(text))
		}
	}
	switch {
	case isTerminal(r.state):
		b = appendTime(b, r.ended)
		b = codec.AppendUint64(b, r.endedEpoch)
		b = appendBits(b, &r.confirmed)
		return appendLeaf(b, r.leaf, r.leaf != nil)
	case r.sender != nil:
		return r.appendOpen(b)
	}
	return b
}

func (r *record) appendOpen(b []byte) []byte {
	b = append(b, r.sender.Bytes()...)
	b = appendLeaf(b, r.leaf, r.replaced())
	b = appendBits(b, &r.senderGone, &r.senderOnly, &r.lostInGap)
	a := r.association
	if b = codec.AppendOptional(b, a != nil); a != nil {
		b = appendBits(b, &a.all, &a.frozen, &a.givenUp, &a.guard, &a.approved)
		b = appendLeaves(b, a.open)
		b = appendLeaves(b, a.associated)
		for _, n := range []int{a.failed, a.total, a.allowed} {
			b = codec.AppendUint32(b, uint32(n))
		}
	}
	b = codec.AppendUint32(b, uint32(r.leftOut))
	return appendLeaves(b, r.committers)
}

func (s *State) readRecords(in *codec.Reader) {
	last := uint64(0)
	for n := in.Uint32(); n > 0 && in.Err() == nil; n-- {
		r := readRecord(in, s.policy)
		if _, twice := s.records.get(r.id); twice || r.seq <= last {
			in.Fail("an intent of position %d after one of %d", r.seq, last)
			break
		}
		last = r.seq
		s.records.put(r.id, r)
	}
}

func readRecord(in *codec.Reader, p *Policy) *record {
	r := &record{intent: readIntent(in), seq: in.Uint64(), received: readTime(in)}
	r.id = r.intent.ID(p.Tenant)
	r.state, r.reason = string(in.Opaque()), string(in.Opaque())
	r.verifiedEpoch, r.removedEpoch = in.Uint64(), in.Uint64()
	r.commit, r.gone = hexOf(in.Opaque()), readLeaves(in)
	var answer *RecordedAnswer
	if in.Optional() {
		answer = &RecordedAnswer{Status: string(in.Opaque()), Revision: string(in.Opaque()), Hash: string(in.Opaque())}
	}
	switch {
	case isTerminal(r.state):
		r.ended, r.endedEpoch = readTime(in), in.Uint64()
		readBits(in, &r.confirmed)
		if in.Optional() {
			r.leaf = readLeaf(in)
		}
		if answer != nil {
			r.association = &association{answer: answer}
		}
	case r.state != StateParked:
		r.readOpen(in)
		if r.association != nil {
			r.association.answer = answer
		}
	}
	return r
}

func (r *record) readOpen(in *codec.Reader) {
	r.sender = readLeaf(in)
	r.leaf = r.sender
	if in.Optional() {
		r.leaf = readLeaf(in)
	}
	readBits(in, &r.senderGone, &r.senderOnly, &r.lostInGap)
	if in.Optional() {
		a := &association{}
		readBits(in, &a.all, &a.frozen, &a.givenUp, &a.guard, &a.approved)
		a.open, a.associated = readAscending(in), readAscending(in)
		a.failed, a.total, a.allowed = int(in.Uint32()), int(in.Uint32()), int(in.Uint32())
		r.association = a
	}
	r.leftOut, r.committers = int(in.Uint32()), readLeaves(in)
}

// appendParked appends, in their order:
//
//	struct {
//	  LeafOperationIntent intent;
//	  uint64 seq;
//	  Time since;
//	  uint64 epochs;
//	  opaque reason<V>;
//	} Parked;
func appendParked(b []byte, parked []*parkedIntent) []byte {
	b = codec.AppendUint32(b, uint32(len(parked)))
	for _, p := range parked {
		b = p.intent.Append(b)
		b = codec.AppendUint64(b, p.seq)
		b = appendTime(b, p.since)
		b = codec.AppendUint64(b, p.epochs)
		b = codec.AppendOpaque(b, []byte(p.reason))
	}
	return b
}

func readParked(in *codec.Reader, policy *Policy) (parked []*parkedIntent) {
	for n := in.Uint32(); n > 0 && in.Err() == nil; n-- {
		p := &parkedIntent{intent: readIntent(in), seq: in.Uint64(), since: readTime(in), epochs: in.Uint64(), reason: string(in.Opaque())}
		p.id = p.intent.ID(policy.Tenant)
		p.hash = sha256.Sum256(p.intent.Message(policy.codePoints().WireFormat))
		parked = append(parked, p)
	}
	return parked
}

// appendOutputs appends, ascending by epoch:
//
//	struct {
//	  uint64 epoch;
//	  uint32 leaves<V>;                  // ascending
//	  uint32 n_messages;
//	  opaque messages<V>[n_messages];    // MLSMessages
//	} StoredOutput;
func appendOutputs(b []byte, outputs map[uint64]*output) []byte {
	b = codec.AppendUint32(b, uint32(len(outputs)))
	for _, epoch := range slices.Sorted(maps.Keys(outputs)) {
		out := outputs[epoch]
		b = codec.AppendUint64(b, epoch)
		b = appendLeaves(b, out.leaves)
		b = codec.AppendUint32(b, uint32(len(out.raw)))
		for _, raw := range out.raw {
			b = codec.AppendOpaque(b, raw)
		}
	}
	return b
}

func readOutputs(in *codec.Reader, p *Policy) map[uint64]*output {
	outputs := make(map[uint64]*output)
	for n := in.Uint32(); n > 0 && in.Err() == nil; n-- {
		epoch, out := in.Uint64(), &output{leaves: readAscending(in)}
		for m := in.Uint32(); m > 0 && in.Err() == nil; m-- {
			raw := bytes.Clone(in.Opaque())
			message, err := parseRemoval(raw, epoch, p)
			if err != nil {
				in.Fail("%v", err)
				break
			}
			out.raw, out.messages = append(out.raw, raw), append(out.messages, message)
		}
		if outputs[epoch] != nil {
			in.Fail("two outputs for epoch %d", epoch)
		}
		outputs[epoch] = out
	}
	return outputs
}

func readIntent(in *codec.Reader) *LeafOperationIntent {
	start := in.Offset()
	Read(in)
	return Read(codec.NewReader(bytes.Clone(in.Since(start))))
}

// appendLeaf appends an optional leaf.
func appendLeaf(b []byte, leaf *mlscore.LeafNode, present bool) []byte {
	if b = codec.AppendOptional(b, present); present {
		b = append(b, leaf.Bytes()...)
	}
	return b
}

func readLeaf(in *codec.Reader) *mlscore.LeafNode {
	start := in.Offset()
	mlscore.ReadLeafNode(in)
	return mlscore.ReadLeafNode(codec.NewReader(bytes.Clone(in.Since(start))))
}

func appendLeaves(b []byte, leaves []mlscore.LeafIndex) []byte {
	b = codec.AppendVarint(b, 4*len(leaves))
	for _, leaf := range leaves {
		b = codec.AppendUint32(b, uint32(leaf))
	}
	return b
}

func readLeaves(in *codec.Reader) (leaves []mlscore.LeafIndex) {
	v := in.Vector()
	for !v.Empty() {
		leaves = append(leaves, mlscore.LeafIndex(v.Uint32()))
	}
	in.Join(v)
	return leaves
}

// readAscending reads leaves of which each is above the one before.
func readAscending(in *codec.Reader) []mlscore.LeafIndex {
	leaves := readLeaves(in)
	for i := 1; i < len(leaves); i++ {
		if leaves[i] <= leaves[i-1] {
			in.Fail("leaf %d after %d", leaves[i], leaves[i-1])
		}
	}
	return leaves
}

// appendIDs appends identifiers of intents: 32 bytes each.
func appendIDs(b []byte, ids []string) []byte {
	b = codec.AppendVarint(b, sha256.Size*len(ids))
	for _, id := range ids {
		b = append(b, bytesOf(id)...)
	}
	return b
}

func readIDs(in *codec.Reader) (ids []string) {
	v := in.Vector()
	for !v.Empty() {
		ids = append(ids, hexOf(v.Bytes(sha256.Size)))
	}
	in.Join(v)
	return ids
}

// bytesOf undoes hexOf.
func bytesOf(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic("internal error: " + s + " is no hash: " + err.Error())
	}
	return b
}

// appendBits appends a byte that has a bit for each condition, the lowest first.
func appendBits(b []byte, conditions ...*bool) []byte {
	bits := byte(0)
	for i, c := range conditions {
		if *c {
			bits |= 1 << i
		}
	}
	return append(b, bits)
}

func readBits(in *codec.Reader, conditions ...*bool) {
	bits := in.Uint8()
	for i, c := range conditions {
		*c = bits>>i&1 == 1
	}
	if unknown := bits >> len(conditions); unknown != 0 {
		in.Fail("unknown flags in 0x%02x", bits)
	}
}

func appendTime(b []byte, t time.Time) []byte {
	b = codec.AppendUint64(b, uint64(t.Unix()))
	return codec.AppendUint32(b, uint32(t.Nanosecond()))
}

func readTime(in *codec.Reader) time.Time {
	seconds, nanoseconds := in.Uint64(), in.Uint32()
	if nanoseconds >= 1e9 {
		in.Fail("%d nanoseconds", nanoseconds)
	}
	return time.Unix(int64(seconds), int64(nanoseconds)).UTC()
}
