package mlscore

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"leavebroker/mlscore/codec"
)

// WireFormat is the registry number of a message's outer form (RFC 9420, Section 17.2).
type WireFormat uint16

// The wire formats of RFC 9420.
const (
	WireFormatPublicMessage  WireFormat = 0x0001
	WireFormatPrivateMessage WireFormat = 0x0002
	WireFormatWelcome        WireFormat = 0x0003
	WireFormatGroupInfo      WireFormat = 0x0004
	WireFormatKeyPackage     WireFormat = 0x0005
)

// ContentType tells what a FramedContent carries (RFC 9420, Section 6).
type ContentType uint8

// The content types.
const (
	ContentTypeApplication ContentType = 1
	ContentTypeProposal    ContentType = 2
	ContentTypeCommit      ContentType = 3
)

// SenderType tells who sent a message (RFC 9420, Section 6).
type SenderType uint8

// The sender types.
const (
	SenderTypeMember            SenderType = 1
	SenderTypeExternal          SenderType = 2
	SenderTypeNewMemberProposal SenderType = 3
	SenderTypeNewMemberCommit   SenderType = 4
)

var senderTypeNames = [...]string{
	SenderTypeMember: "member", SenderTypeExternal: "external",
	SenderTypeNewMemberProposal: "new_member_proposal", SenderTypeNewMemberCommit: "new_member_commit",
}

func (t SenderType) String() string {
	if t >= SenderTypeMember && t <= SenderTypeNewMemberCommit {
		return senderTypeNames[t]
	}
	return fmt.Sprintf("sender_type_%d", uint8(t))
}

// Sender is the sender of a message (RFC 9420, Section 6):
//
//	struct {
//	  SenderType sender_type;  // uint8
//	  select (Sender.sender_type) {
//	    case member:   uint32 leaf_index;
//	    case external: uint32 sender_index;
//	    case new_member_commit: case new_member_proposal: struct{};
//	  };
//	} Sender;
type Sender struct {
	Type        SenderType
	LeafIndex   LeafIndex // member
	SenderIndex uint32    // external: the position in external_senders
}

func readSender(r *codec.Reader) Sender {
	s := Sender{Type: SenderType(r.Uint8())}
	switch s.Type {
	case SenderTypeMember:
		s.LeafIndex = LeafIndex(r.Uint32())
	case SenderTypeExternal:
		s.SenderIndex = r.Uint32()
	case SenderTypeNewMemberProposal, SenderTypeNewMemberCommit:
	default:
		r.Fail("sender_type %d", s.Type)
	}
	return s
}

func (s *Sender) append(b []byte) []byte {
	b = append(b, byte(s.Type))
	switch s.Type {
	case SenderTypeMember:
		b = codec.AppendUint32(b, uint32(s.LeafIndex))
	case SenderTypeExternal:
		b = codec.AppendUint32(b, s.SenderIndex)
	}
	return b
}

// FramedContent is the content of a message (RFC 9420, Section 6):
//
//	struct {
//	  opaque group_id<V>;
//	  uint64 epoch;
//	  Sender sender;
//	  opaque authenticated_data<V>;
//	  ContentType content_type;  // uint8
//	  select (FramedContent.content_type) {
//	    case application: opaque application_data<V>;
//	    case proposal:    Proposal proposal;
//	    case commit:      Commit commit;
//	  };
//	} FramedContent;
type FramedContent struct {
	GroupID           []byte
	Epoch             uint64
	Sender            Sender
	AuthenticatedData []byte
	ContentType       ContentType
	ApplicationData   []byte
	Proposal          *Proposal
	Commit            *Commit
	raw               []byte
}

// ReadFramedContent reads a FramedContent.
func ReadFramedContent(r *codec.Reader, reg *Registry) FramedContent {
	start := r.Offset()
	c := FramedContent{
		GroupID:           r.Opaque(),
		Epoch:             r.Uint64(),
		Sender:            readSender(r),
		AuthenticatedData: r.Opaque(),
		ContentType:       ContentType(r.Uint8()),
	}
	c.ReadBody(r, reg)
	c.raw = r.Since(start)
	return c
}

// ReadBody reads the content that content_type selects, and nothing before it:
// what PrivateMessageContent begins with (RFC 9420, Section 6.3.1).
func (c *FramedContent) ReadBody(r *codec.Reader, reg *Registry) {
	switch c.ContentType {
	case ContentTypeApplication:
		c.ApplicationData = r.Opaque()
	case ContentTypeProposal:
		c.Proposal = ReadProposal(r, reg)
	case ContentTypeCommit:
		c.Commit = ReadCommit(r, reg)
	default:
		r.Fail("content_type %d", c.ContentType)
	}
}

// Append appends the encoding of the fields.
func (c *FramedContent) Append(b []byte) []byte {
	b = codec.AppendOpaque(b, c.GroupID)
	b = codec.AppendUint64(b, c.Epoch)
	b = c.Sender.append(b)
	b = codec.AppendOpaque(b, c.AuthenticatedData)
	b = append(b, byte(c.ContentType))
	return c.AppendBody(b)
}

// AppendBody appends the content that content_type selects, and nothing before
// it: what PrivateMessageContent begins with (RFC 9420, Section 6.3.1).
func (c *FramedContent) AppendBody(b []byte) []byte {
	switch c.ContentType {
	case ContentTypeApplication:
		return codec.AppendOpaque(b, c.ApplicationData)
	case ContentTypeProposal:
		return append(b, c.Proposal.Bytes()...)
	}
	return c.Commit.Append(b)
}

// Bytes is the encoding: as received, if it was.
func (c *FramedContent) Bytes() []byte {
	if c.raw != nil {
		return c.raw
	}
	return c.Append(nil)
}

// AuthenticatedContent is a content with its wire format and the fields that
// authenticate it (RFC 9420, Section 6.1):
//
//	struct {
//	  WireFormat wire_format;
//	  FramedContent content;
//	  FramedContentAuthData auth;
//	} AuthenticatedContent;
//
//	struct {
//	  opaque signature<V>;
//	  select (FramedContent.content_type) {
//	    case commit: MAC confirmation_tag;  // opaque<V>
//	  };
//	} FramedContentAuthData;
type AuthenticatedContent struct {
	WireFormat      WireFormat
	Content         FramedContent
	Signature       []byte
	ConfirmationTag []byte // commit only
}

// ReadAuthenticatedContent reads an AuthenticatedContent.
func ReadAuthenticatedContent(r *codec.Reader, reg *Registry) *AuthenticatedContent {
	a := &AuthenticatedContent{WireFormat: WireFormat(r.Uint16()), Content: ReadFramedContent(r, reg)}
	a.readAuth(r)
	return a
}

func (a *AuthenticatedContent) readAuth(r *codec.Reader) {
	a.Signature = r.Opaque()
	if a.Content.ContentType == ContentTypeCommit {
		a.ConfirmationTag = r.Opaque()
	}
}

// AppendAuth appends the FramedContentAuthData.
func (a *AuthenticatedContent) AppendAuth(b []byte) []byte {
	b = codec.AppendOpaque(b, a.Signature)
	if a.Content.ContentType == ContentTypeCommit {
		b = codec.AppendOpaque(b, a.ConfirmationTag)
	}
	return b
}

// Append appends the encoding.
func (a *AuthenticatedContent) Append(b []byte) []byte {
	b = codec.AppendUint16(b, uint16(a.WireFormat))
	b = append(b, a.Content.Bytes()...)
	return a.AppendAuth(b)
}

// TBS is the FramedContentTBS (RFC 9420, Section 6.1): version, wire_format
// and content, and for senders of type member and new_member_commit the
// encoded GroupContext of the message's epoch.
func (a *AuthenticatedContent) TBS(groupContext []byte) []byte {
	return slices.Concat(a.tbs(groupContext)...)
}

// tbs is the TBS in parts: a content may be long.
func (a *AuthenticatedContent) tbs(groupContext []byte) [][]byte {
	head := codec.AppendUint16(make([]byte, 0, 4), uint16(ProtocolVersionMLS10))
	head = codec.AppendUint16(head, uint16(a.WireFormat))
	switch a.Content.Sender.Type {
	case SenderTypeMember, SenderTypeNewMemberCommit:
		return [][]byte{head, a.Content.Bytes(), groupContext}
	}
	return [][]byte{head, a.Content.Bytes()}
}

// Sign signs the FramedContentTBS.
func (a *AuthenticatedContent) Sign(signer Signer, groupContext []byte) (err error) {
	a.Signature, err = SignWithLabel(signer, "FramedContentTBS", a.TBS(groupContext))
	return err
}

// VerifySignature verifies the signature over the FramedContentTBS.
func (a *AuthenticatedContent) VerifySignature(suite *Suite, signatureKey, groupContext []byte) error {
	return suite.verifyParts(signatureKey, a.Signature, "FramedContentTBS", a.tbs(groupContext)...)
}

// commitHash is the SHA-256 of the encoding.
func (a *AuthenticatedContent) commitHash() (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(codec.AppendUint16(nil, uint16(a.WireFormat)))
	h.Write(a.Content.Bytes())
	h.Write(a.AppendAuth(nil))
	h.Sum(sum[:0])
	return sum
}

// ProposalRef is the reference of a proposal (RFC 9420, Section 5.2): RefHash
// of the AuthenticatedContent that carried it; Nh bytes.
func (a *AuthenticatedContent) ProposalRef(suite *Suite) []byte {
	return suite.RefHash("MLS 1.0 Proposal Reference", a.Append(nil))
}

// PublicMessage is a message that is signed and not encrypted (RFC 9420, Section 6.2):
//
//	struct {
//	  FramedContent content;
//	  FramedContentAuthData auth;
//	  select (PublicMessage.content.sender.sender_type) {
//	    case member: MAC membership_tag;  // opaque<V>
//	  };
//	} PublicMessage;
type PublicMessage struct {
	AuthenticatedContent        // its wire format is always WireFormatPublicMessage
	MembershipTag        []byte // member only
}

// ReadPublicMessage reads a PublicMessage.
func ReadPublicMessage(r *codec.Reader, reg *Registry) *PublicMessage {
	m := &PublicMessage{AuthenticatedContent: AuthenticatedContent{
		WireFormat: WireFormatPublicMessage, Content: ReadFramedContent(r, reg),
	}}
	m.readAuth(r)
	if m.Content.Sender.Type == SenderTypeMember {
		m.MembershipTag = r.Opaque()
	}
	return m
}

// Append appends the encoding.
func (m *PublicMessage) Append(b []byte) []byte {
	b = append(b, m.Content.Bytes()...)
	b = m.AppendAuth(b)
	if m.Content.Sender.Type == SenderTypeMember {
		b = codec.AppendOpaque(b, m.MembershipTag)
	}
	return b
}

// PrivateMessage is a message that only members read (RFC 9420, Section 6.3):
//
//	struct {
//	  opaque group_id<V>;
//	  uint64 epoch;
//	  ContentType content_type;
//	  opaque authenticated_data<V>;
//	  opaque encrypted_sender_data<V>;
//	  opaque ciphertext<V>;
//	} PrivateMessage;
type PrivateMessage struct {
	GroupID             []byte
	Epoch               uint64
	ContentType         ContentType
	AuthenticatedData   []byte
	EncryptedSenderData []byte
	Ciphertext          []byte
}

// ReadPrivateMessage reads a PrivateMessage.
func ReadPrivateMessage(r *codec.Reader) *PrivateMessage {
	m := &PrivateMessage{
		GroupID: r.Opaque(), Epoch: r.Uint64(), ContentType: ContentType(r.Uint8()),
		AuthenticatedData: r.Opaque(), EncryptedSenderData: r.Opaque(), Ciphertext: r.Opaque(),
	}
	if m.ContentType < ContentTypeApplication || m.ContentType > ContentTypeCommit {
		r.Fail("content_type %d", m.ContentType)
	}
	return m
}

// Append appends the encoding.
func (m *PrivateMessage) Append(b []byte) []byte {
	b = codec.AppendOpaque(b, m.GroupID)
	b = codec.AppendUint64(b, m.Epoch)
	b = append(b, byte(m.ContentType))
	b = codec.AppendOpaque(b, m.AuthenticatedData)
	b = codec.AppendOpaque(b, m.EncryptedSenderData)
	return codec.AppendOpaque(b, m.Ciphertext)
}

// MLSMessage is the outermost form of everything that is sent (RFC 9420, Section 6):
//
//	struct {
//	  ProtocolVersion version = mls10;
//	  WireFormat wire_format;
//	  select (MLSMessage.wire_format) { … };
//	} MLSMessage;
//
// The wire format tells which field is set; the body of one that RFC 9420 does
// not define is in Body.
type MLSMessage struct {
	WireFormat     WireFormat
	PublicMessage  *PublicMessage
	PrivateMessage *PrivateMessage
	Welcome        *Welcome
	GroupInfo      *GroupInfo
	KeyPackage     *KeyPackage
	Body           []byte
}

// ParseMLSMessage decodes a message that fills b, by the code points of a
// registry; nil is DefaultRegistry. The message points into b.
func ParseMLSMessage(b []byte, reg *Registry) (*MLSMessage, error) {
	if reg == nil {
		reg = DefaultRegistry()
	}
	r := codec.NewReader(b)
	if v := ProtocolVersion(r.Uint16()); v != ProtocolVersionMLS10 && r.Err() == nil {
		r.Fail("protocol version %d", v)
	}
	m := &MLSMessage{WireFormat: WireFormat(r.Uint16())}
	switch m.WireFormat {
	case WireFormatPublicMessage:
		m.PublicMessage = ReadPublicMessage(r, reg)
	case WireFormatPrivateMessage:
		m.PrivateMessage = ReadPrivateMessage(r)
	case WireFormatWelcome:
		m.Welcome = ReadWelcome(r)
	case WireFormatGroupInfo:
		m.GroupInfo = ReadGroupInfo(r)
	case WireFormatKeyPackage:
		m.KeyPackage = ReadKeyPackage(r)
	case 0:
		r.Fail("wire_format 0")
	default:
		m.Body = r.Rest()
	}
	if err := r.Finish(); err != nil {
		return nil, err
	}
	return m, nil
}

// Bytes is the encoding.
func (m *MLSMessage) Bytes() []byte {
	b := codec.AppendUint16(nil, uint16(ProtocolVersionMLS10))
	b = codec.AppendUint16(b, uint16(m.WireFormat))
	switch m.WireFormat {
	case WireFormatPublicMessage:
		return m.PublicMessage.Append(b)
	case WireFormatPrivateMessage:
		return m.PrivateMessage.Append(b)
	case WireFormatWelcome:
		return m.Welcome.Append(b)
	case WireFormatGroupInfo:
		return append(b, m.GroupInfo.Bytes()...)
	case WireFormatKeyPackage:
		return append(b, m.KeyPackage.Bytes()...)
	}
	return append(b, m.Body...)
}
