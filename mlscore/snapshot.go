package mlscore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"

	"leavebroker/mlscore/codec"
)

// snapshotVersion is the version of the stored form of a group that is written,
// and the only one that is read.
const snapshotVersion = 1

// The bits of a snapshot's state.
const (
	snapshotProven = 1 << iota
	snapshotClosed
)

// AppendSnapshot appends the stored form of a group, from which
// RestorePublicGroup makes one that behaves the same. The same group gives the
// same bytes:
//
//	struct {
//	  uint16 version = 1;
//	  GroupContext group_context;
//	  opaque interim_transcript_hash<V>;  // Nh bytes
//	  uint64 time;                        // Options.Time
//	  uint8 state;                        // proven(0x01) | closed(0x02)
//	  Flag flags<V>;                      // of the GroupInfo: opaque<V> each
//	  optional<Node> ratchet_tree<V>;     // as in the ratchet_tree extension
//	  uint32 count;
//	  StoredProposal proposals[count];    // of the epoch, as they arrived
//	  uint8 checksum[32];                 // SHA-256 of all before
//	} PublicGroupSnapshot;
//
//	struct {
//	  AuthenticatedContent content;
//	  optional<MAC> membership_tag;       // opaque<V>
//	  optional<Expansion> expansion;      // uint32 sender, uint8 associated: 0 or 1
//	  optional<Refusal> invalid;
//	} StoredProposal;
//
//	struct {
//	  uint8 class;                        // the place of its class in classes
//	  opaque section<V>;
//	  opaque detail<V>;
//	} Refusal;
//
// Options are not stored but for the time, nor is what follows from the rest:
// references of proposals, who sent a SelfRemove, external_senders, hashes of
// the tree's nodes.
func (g *PublicGroup) AppendSnapshot(b []byte) []byte {
	start := len(b)
	b = slices.Grow(b, 1<<10+len(g.encoded)+int(g.tree.top.packed.size)+g.pending.size)
	b = codec.AppendUint16(b, snapshotVersion)
	b = append(b, g.encoded...)
	b = codec.AppendOpaque(b, g.interim)
	b = codec.AppendUint64(b, g.opts.Time)
	state := byte(0)
	if g.proven {
		state |= snapshotProven
	}
	if g.closed {
		state |= snapshotClosed
	}
	b = codec.AppendVector(append(b, state), func(b []byte) []byte {
		for _, flag := range g.flags {
			b = codec.AppendOpaque(b, []byte(flag))
		}
		return b
	})
	b = g.tree.Append(b)
	b = codec.AppendUint32(b, uint32(g.pending.n))
	for p := range g.pending.all() {
		b = p.appendStored(b)
	}
	sum := sha256.Sum256(b[start:])
	return append(b, sum[:]...)
}

// RestorePublicGroup makes a group of its stored form. The bytes may be changed
// afterwards. It is judged by the options, at the time that was stored. The
// checksum and the tree's hash are checked. What was verified before it was
// stored is not verified again: leaves and their signatures, and the proposals of
// the epoch, whose verdicts stay as they are. An error wraps ErrMalformed, or
// ErrUnsupported where the version or the cipher suite is not known: then the
// group has to be followed from its GroupInfo again.
func RestorePublicGroup(data []byte, opts Options) (*PublicGroup, error) {
	opts = opts.withDefaults()
	body := data[:max(0, len(data)-sha256.Size)]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], data[len(body):]) {
		return nil, malformed("", "a stored group whose checksum is wrong")
	}
	r := codec.NewReader(body)
	if version := r.Uint16(); r.Err() == nil && version != snapshotVersion {
		return nil, refuse(ErrUnsupported, "", "a stored group of version %d", version)
	}
	g := &PublicGroup{registry: opts.Registry, opts: opts}
	if err := g.readStored(r); err != nil {
		return nil, err
	}
	for range r.Uint32() {
		p := readStoredProposal(r, opts.Registry)
		if r.Err() != nil {
			break
		}
		if err := g.restoreProposal(p); err != nil {
			return nil, err
		}
	}
	return g, r.Finish()
}

// readStored reads what comes before the proposals.
func (g *PublicGroup) readStored(r *codec.Reader) error {
	start := r.Offset()
	ReadGroupContext(r)
	g.encoded = bytes.Clone(r.Since(start))
	g.interim = bytes.Clone(r.Opaque())
	g.opts.Time = r.Uint64()
	state := r.Uint8()
	g.proven, g.closed = state&snapshotProven != 0, state&snapshotClosed != 0
	list := r.Vector()
	for !list.Empty() {
		g.flags = append(g.flags, string(list.Opaque()))
	}
	r.Join(list)
	start = r.Offset()
	r.Opaque()
	tree := r.Since(start)
	if state &^= snapshotProven | snapshotClosed; state != 0 {
		r.Fail("unknown bits 0x%02x in the state of a stored group", state)
	}
	if err := r.Err(); err != nil {
		return err
	}
	// What is kept points into bytes of its own, not into all of the snapshot.
	g.context = ReadGroupContext(codec.NewReader(g.encoded))
	var err error
	if g.suite, err = contextSuite(&g.context, g.registry); err != nil {
		return err
	}
	if n := len(g.interim); n != g.suite.HashLen() {
		return malformed("8.2", "interim_transcript_hash of %d bytes, want %d", n, g.suite.HashLen())
	}
	if g.tree, err = ParseRatchetTree(g.suite, tree); err != nil {
		return err
	}
	if !bytes.Equal(g.tree.TreeHash(), g.context.TreeHash) {
		return malformed("7.8", "the tree's hash is %x, the GroupContext's tree_hash %x", g.tree.TreeHash(), g.context.TreeHash)
	}
	rules := leafRules{PublicGroup: g, extensions: g.context.Extensions, found: new(flags)}
	g.senders, err = rules.externalSenders()
	return err
}

// restoreProposal adds a proposal of the epoch as it was judged.
func (g *PublicGroup) restoreProposal(p *PendingProposal) error {
	c := &p.Content.Content
	if !bytes.Equal(c.GroupID, g.context.GroupID) || c.Epoch != g.context.Epoch || c.ContentType != ContentTypeProposal {
		return malformed("", "a stored group with a proposal that is none of its epoch")
	}
	if _, err := g.senderKey(c); err != nil {
		return malformed("", "a stored group with a proposal that nobody can have sent: %v", err)
	}
	p.Ref = p.Content.ProposalRef(g.suite)
	if g.pending.n >= MaxPendingProposals || g.pending.find(p.Ref) != nil {
		return malformed("", "a stored group with a proposal twice, or more than %d", MaxPendingProposals)
	}
	g.pending = g.pending.with(p)
	g.noteProposal(p)
	return nil
}

func (p *PendingProposal) appendStored(b []byte) []byte {
	b = p.Content.Append(b)
	if b = codec.AppendOptional(b, p.MembershipTag != nil); p.MembershipTag != nil {
		b = codec.AppendOpaque(b, p.MembershipTag)
	}
	if b = codec.AppendOptional(b, p.Expansion != nil); p.Expansion != nil {
		b = codec.AppendUint32(b, uint32(p.Expansion.Sender))
		b = codec.AppendOptional(b, p.Expansion.Associated)
	}
	b = codec.AppendOptional(b, p.Invalid != nil)
	if p.Invalid == nil {
		return b
	}
	refusal := refusalOf(p.Invalid)
	b = append(b, byte(slices.Index(classes[:], refusal.Class)))
	b = codec.AppendOpaque(b, []byte(refusal.Section))
	return codec.AppendOpaque(b, []byte(refusal.Detail))
}

func readStoredProposal(r *codec.Reader, reg *Registry) *PendingProposal {
	start := r.Offset()
	ReadAuthenticatedContent(r, reg)
	own := codec.NewReader(bytes.Clone(r.Since(start)))
	content := ReadAuthenticatedContent(own, reg)
	p := &PendingProposal{Content: content, Proposal: content.Content.Proposal, Sender: content.Content.Sender}
	if r.Optional() {
		p.MembershipTag = bytes.Clone(r.Opaque())
	}
	if r.Optional() {
		p.Expansion = &Expansion{Sender: LeafIndex(r.Uint32()), Associated: r.Optional()}
	}
	if r.Optional() {
		class := r.Uint8()
		if int(class) >= len(classes) {
			r.Fail("class %d of a refusal", class)
			return p
		}
		p.Invalid = &Error{Class: classes[class], Section: string(r.Opaque()), Detail: string(r.Opaque())}
	}
	return p
}

// refusalOf is a refusal as an Error: one by a custom proposal's Expand has its
// class and text in common with it.
func refusalOf(err error) *Error {
	if refusal, ok := err.(*Error); ok {
		return refusal
	}
	class := ErrInvalid
	for _, c := range classes {
		if errors.Is(err, c) {
			class = c
			break
		}
	}
	return &Error{Class: class, Detail: strings.TrimPrefix(err.Error(), class.Error()+": ")}
}

// Size is the memory that a group holds, in bytes, roughly; what it shares with
// other states of the group counts in each of them.
func (g *PublicGroup) Size() int {
	const each = 2 << 10 // the group itself
	decoded := 512 * g.pending.n
	return each + 2*len(g.encoded) + g.tree.size() + 2*g.pending.size + decoded
}

// size is the memory that a tree holds, in bytes, roughly: its blocks, and an
// entry for each key in the indexes.
func (t *RatchetTree) size() int {
	const perBlock, perKey = 64, 12
	top := t.top.packed
	return int(top.size) + perBlock*int(t.LeafWidth()/(blockKids/2)+1) + perKey*int(top.filled+top.leaves)
}
