package member

import (
	"fmt"
	"io"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// membershipTag is the membership_tag of a content: the MAC over its
// AuthenticatedContentTBM (RFC 9420, Section 6.2).
func (s *suite) membershipTag(membershipKey []byte, a *mlscore.AuthenticatedContent, groupContext []byte) []byte {
	return s.mac(membershipKey, a.TBS(groupContext), a.AppendAuth(nil))
}

// verifyMembershipTag refuses a PublicMessage of a member whose tag is wrong.
func (s *suite) verifyMembershipTag(membershipKey []byte, m *mlscore.PublicMessage, groupContext []byte) error {
	if !sameMAC(m.MembershipTag, s.membershipTag(membershipKey, &m.AuthenticatedContent, groupContext)) {
		return invalid("6.2", "the membership tag of %d bytes is wrong", len(m.MembershipTag))
	}
	return nil
}

// privateContentAAD is the PrivateContentAAD (RFC 9420, Section 6.3.1).
func privateContentAAD(m *mlscore.PrivateMessage) []byte {
	return codec.AppendOpaque(senderDataAAD(m), m.AuthenticatedData)
}

// senderDataAAD is the SenderDataAAD (RFC 9420, Section 6.3.2).
func senderDataAAD(m *mlscore.PrivateMessage) []byte {
	b := codec.AppendOpaque(nil, m.GroupID)
	b = codec.AppendUint64(b, m.Epoch)
	return append(b, byte(m.ContentType))
}

// senderData tells who sent a PrivateMessage (RFC 9420, Section 6.3.2):
//
//	struct { uint32 leaf_index; uint32 generation; opaque reuse_guard[4]; } SenderData;
type senderData struct {
	leaf       mlscore.LeafIndex
	generation uint32
	reuseGuard [4]byte
}

func (d *senderData) bytes() []byte {
	b := codec.AppendUint32(nil, uint32(d.leaf))
	b = codec.AppendUint32(b, d.generation)
	return append(b, d.reuseGuard[:]...)
}

func parseSenderData(b []byte) (d senderData, err error) {
	r := codec.NewReader(b)
	d.leaf = mlscore.LeafIndex(r.Uint32())
	d.generation = r.Uint32()
	copy(d.reuseGuard[:], r.Bytes(4))
	return d, r.Finish()
}

// encrypt turns a signed content of a member into a PrivateMessage with the
// sender's next key (RFC 9420, Section 6.3), and uses that key up.
func (t *secretTree) encrypt(random io.Reader, senderDataSecret []byte, a *mlscore.AuthenticatedContent) (*mlscore.PrivateMessage, error) {
	c := &a.Content
	leaf := t.leaf(c.Sender.LeafIndex)
	if leaf == nil {
		return nil, invalid("9", "leaf %d is outside a tree of %d leaves", c.Sender.LeafIndex, t.width)
	}
	slot := leaf.of(c.ContentType)
	data := senderData{leaf: c.Sender.LeafIndex, generation: (*slot).generation}
	if _, err := io.ReadFull(random, data.reuseGuard[:]); err != nil {
		return nil, err
	}
	key, next, err := (*slot).at(t.suite, data.generation)
	if err != nil {
		return nil, err
	}
	m := &mlscore.PrivateMessage{
		GroupID: c.GroupID, Epoch: c.Epoch, ContentType: c.ContentType, AuthenticatedData: c.AuthenticatedData,
	}
	plaintext := a.AppendAuth(c.AppendBody(nil)) // no padding
	if m.Ciphertext, err = t.suite.seal(key.guarded(data.reuseGuard), privateContentAAD(m), plaintext); err != nil {
		return nil, err
	}
	m.EncryptedSenderData, err = t.suite.seal(t.suite.senderDataKey(senderDataSecret, m.Ciphertext), senderDataAAD(m), data.bytes())
	if err != nil {
		return nil, err
	}
	*slot = next
	return m, nil
}

// decrypt opens a PrivateMessage. Nothing changes until the returned function
// is called, which uses the key up; the caller does so once it has verified
// the signature.
func (t *secretTree) decrypt(senderDataSecret []byte, m *mlscore.PrivateMessage, reg *mlscore.Registry) (a *mlscore.AuthenticatedContent, use func(), err error) {
	s := t.suite
	plain, err := s.open(s.senderDataKey(senderDataSecret, m.Ciphertext), senderDataAAD(m), m.EncryptedSenderData)
	if err != nil {
		return nil, nil, invalid("6.3.2", "the sender data does not decrypt")
	}
	data, err := parseSenderData(plain)
	if err != nil {
		return nil, nil, err
	}
	leaf := t.leaf(data.leaf)
	if leaf == nil {
		return nil, nil, invalid("6.3.2", "sender leaf %d is outside a tree of %d leaves", data.leaf, t.width)
	}
	slot := leaf.of(m.ContentType)
	key, next, err := (*slot).at(s, data.generation)
	if err != nil {
		return nil, nil, err
	}
	plaintext, err := s.open(key.guarded(data.reuseGuard), privateContentAAD(m), m.Ciphertext)
	if err != nil {
		return nil, nil, invalid("6.3.1", "the ciphertext of leaf %d, generation %d does not decrypt", data.leaf, data.generation)
	}
	a, err = parsePrivateContent(plaintext, m, data.leaf, reg)
	return a, func() { *slot = next }, err
}

// parsePrivateContent reads a PrivateMessageContent (RFC 9420, Section 6.3.1).
func parsePrivateContent(plaintext []byte, m *mlscore.PrivateMessage, sender mlscore.LeafIndex, reg *mlscore.Registry) (*mlscore.AuthenticatedContent, error) {
	r := codec.NewReader(plaintext)
	a := &mlscore.AuthenticatedContent{
		WireFormat: mlscore.WireFormatPrivateMessage,
		Content: mlscore.FramedContent{
			GroupID: m.GroupID, Epoch: m.Epoch,
			Sender:            mlscore.Sender{Type: mlscore.SenderTypeMember, LeafIndex: sender},
			AuthenticatedData: m.AuthenticatedData, ContentType: m.ContentType,
		},
	}
	a.Content.ReadBody(r, reg)
	a.Signature = r.Opaque()
	if m.ContentType == mlscore.ContentTypeCommit {
		a.ConfirmationTag = r.Opaque()
	}
	for _, b := range r.Rest() {
		if b != 0 {
			return nil, fmt.Errorf("%w: padding of a PrivateMessage that is not zero (RFC 9420, Section 6.3.1)", mlscore.ErrMalformed)
		}
	}
	return a, r.Err()
}
