package mlscore

import "leavebroker/mlscore/codec"

// ConfirmedTranscriptHash is the confirmed transcript hash after a commit
// (RFC 9420, Section 8.2): the hash of the interim transcript hash before it
// and the ConfirmedTranscriptHashInput, in the bytes received; Nh bytes.
//
//	struct {
//	  WireFormat wire_format;
//	  FramedContent content;
//	  opaque signature<V>;
//	} ConfirmedTranscriptHashInput;
func ConfirmedTranscriptHash(suite *Suite, interimBefore []byte, commit *AuthenticatedContent) []byte {
	return suite.Sum(
		interimBefore,
		codec.AppendUint16(nil, uint16(commit.WireFormat)),
		commit.Content.Bytes(),
		codec.AppendVarint(nil, len(commit.Signature)), commit.Signature,
	)
}

// InterimTranscriptHash is the interim transcript hash of an epoch (RFC 9420,
// Section 8.2): the hash of its confirmed transcript hash and the confirmation
// tag as opaque<V>; Nh bytes.
func InterimTranscriptHash(suite *Suite, confirmed, confirmationTag []byte) []byte {
	return suite.Sum(confirmed, codec.AppendOpaque(nil, confirmationTag))
}
