package mlscore

import "leavebroker/mlscore/codec"

// GroupContext is what all members agree on (RFC 9420, Section 8.1):
//
//	struct {
//	  ProtocolVersion version;
//	  CipherSuite cipher_suite;
//	  opaque group_id<V>;
//	  uint64 epoch;
//	  opaque tree_hash<V>;
//	  opaque confirmed_transcript_hash<V>;
//	  Extension extensions<V>;
//	} GroupContext;
type GroupContext struct {
	Version                 ProtocolVersion
	CipherSuite             CipherSuite
	GroupID                 []byte
	Epoch                   uint64
	TreeHash                []byte
	ConfirmedTranscriptHash []byte
	Extensions              Extensions
}

// ReadGroupContext reads a GroupContext.
func ReadGroupContext(r *codec.Reader) GroupContext {
	return GroupContext{
		Version:                 ProtocolVersion(r.Uint16()),
		CipherSuite:             CipherSuite(r.Uint16()),
		GroupID:                 r.Opaque(),
		Epoch:                   r.Uint64(),
		TreeHash:                r.Opaque(),
		ConfirmedTranscriptHash: r.Opaque(),
		Extensions:              ReadExtensions(r),
	}
}

// Append appends the encoding.
func (gc *GroupContext) Append(b []byte) []byte {
	b = codec.AppendUint16(b, uint16(gc.Version))
	b = codec.AppendUint16(b, uint16(gc.CipherSuite))
	b = codec.AppendOpaque(b, gc.GroupID)
	b = codec.AppendUint64(b, gc.Epoch)
	b = codec.AppendOpaque(b, gc.TreeHash)
	b = codec.AppendOpaque(b, gc.ConfirmedTranscriptHash)
	return gc.Extensions.Append(b)
}
