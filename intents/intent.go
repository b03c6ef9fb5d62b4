package intents

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// Label is the label of the signature over an intent, without the "MLS 1.0 "
// that SignWithLabel puts before it.
const Label = "LeafOperationIntentTBS"

// RemovalMode says whom an intent removes (Section 2 of the draft); uint8 on
// the wire.
type RemovalMode uint8

// The removal modes.
const (
	SenderRemovalOnly       RemovalMode = 1
	RemoveAssociatedMembers RemovalMode = 2
)

func (m RemovalMode) String() string {
	switch m {
	case SenderRemovalOnly:
		return "sender_removal_only"
	case RemoveAssociatedMembers:
		return "remove_associated_members"
	}
	return fmt.Sprintf("removal_mode_%d", uint8(m))
}

// LeafOperationIntent is a member's wish to leave, bound to the leaf it has
// when it signs and to no epoch (Section 2 of the draft):
//
//	struct {
//	  opaque group_id<V>;
//	  uint32 sender_index;
//	  LeafNodeRef sender_leaf_ref;   // HashReference, opaque<V>
//	  RemovalMode removal_mode;      // uint8
//	  /* SignWithLabel(., "LeafOperationIntentTBS", LeafOperationIntentTBS) */
//	  opaque signature<V>;
//	} LeafOperationIntent;
//
// LeafOperationIntentTBS is the same without the signature.
type LeafOperationIntent struct {
	GroupID       []byte
	SenderIndex   mlscore.LeafIndex
	SenderLeafRef []byte // Nh bytes of the group's suite
	RemovalMode   RemovalMode
	Signature     []byte
}

// New makes the intent of the member at an index, whose leaf and signature key
// are given. It fails where the key is not the leaf's or the mode is undefined.
func New(signer mlscore.Signer, suite *mlscore.Suite, groupID []byte, index mlscore.LeafIndex, leaf *mlscore.LeafNode, mode RemovalMode) (*LeafOperationIntent, error) {
	if signer.Scheme() != suite.Signature {
		return nil, fmt.Errorf("a %s key cannot sign in suite %d", signer.Scheme(), suite.ID)
	}
	if !bytes.Equal(signer.PublicKey(), leaf.SignatureKey) {
		return nil, fmt.Errorf("the key %x is not the leaf's %x", signer.PublicKey(), leaf.SignatureKey)
	}
	in := &LeafOperationIntent{GroupID: groupID, SenderIndex: index, SenderLeafRef: leaf.Ref(suite), RemovalMode: mode}
	if err := in.checkMode(); err != nil {
		return nil, err
	}
	var err error
	in.Signature, err = mlscore.SignWithLabel(signer, Label, in.TBS())
	return in, err
}

// Read reads an intent. A removal mode that the draft does not define is read
// too: Verify refuses it.
func Read(r *codec.Reader) *LeafOperationIntent {
	return &LeafOperationIntent{
		GroupID:       r.Opaque(),
		SenderIndex:   mlscore.LeafIndex(r.Uint32()),
		SenderLeafRef: r.Opaque(),
		RemovalMode:   RemovalMode(r.Uint8()),
		Signature:     r.Opaque(),
	}
}

// Parse decodes an intent that fills b and points into it, or ErrMalformed.
func Parse(b []byte) (*LeafOperationIntent, error) {
	r := codec.NewReader(b)
	in := Read(r)
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("leaf operation intent: %w", err)
	}
	return in, nil
}

// ParseMessage decodes the MLSMessage that carries an intent under a wire
// format, or ErrMalformed.
func ParseMessage(b []byte, format mlscore.WireFormat) (*LeafOperationIntent, error) {
	r := codec.NewReader(b)
	if v := mlscore.ProtocolVersion(r.Uint16()); v != mlscore.ProtocolVersionMLS10 {
		r.Fail("protocol version %d", v)
	}
	if f := mlscore.WireFormat(r.Uint16()); f != format {
		r.Fail("wire format 0x%04x is not that of an intent, 0x%04x", uint16(f), uint16(format))
	}
	in := Read(r)
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("leaf operation intent: %w", err)
	}
	return in, nil
}

// TBS is the encoding of the LeafOperationIntentTBS.
func (in *LeafOperationIntent) TBS() []byte { return in.appendTBS(nil) }

func (in *LeafOperationIntent) appendTBS(b []byte) []byte {
	b = codec.AppendOpaque(b, in.GroupID)
	b = codec.AppendUint32(b, uint32(in.SenderIndex))
	b = codec.AppendOpaque(b, in.SenderLeafRef)
	return append(b, byte(in.RemovalMode))
}

// Append appends the encoding.
func (in *LeafOperationIntent) Append(b []byte) []byte {
	return codec.AppendOpaque(in.appendTBS(b), in.Signature)
}

// Bytes is the encoding: the bytes that were parsed, if they were, since only
// one encoding decodes to a value.
func (in *LeafOperationIntent) Bytes() []byte { return in.Append(nil) }

// Message is the encoding of the MLSMessage that carries the intent.
func (in *LeafOperationIntent) Message(format mlscore.WireFormat) []byte {
	b := codec.AppendUint16(nil, uint16(mlscore.ProtocolVersionMLS10))
	b = codec.AppendUint16(b, uint16(format))
	return in.Append(b)
}

// ID names the intent among all tenants: lowercase hex of
// SHA-256(0x01 || opaque tenant<V> || TBS). The signature is left out because
// anyone can vary an ECDSA signature without the key.
func (in *LeafOperationIntent) ID(tenant string) string {
	b := codec.AppendOpaque([]byte{0x01}, []byte(tenant))
	sum := sha256.Sum256(in.appendTBS(b))
	return hex.EncodeToString(sum[:])
}
