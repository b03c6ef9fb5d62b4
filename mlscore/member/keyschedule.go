package member

import (
	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// epochSecrets are the secrets of one epoch (RFC 9420, Section 8, Table 4).
type epochSecrets struct {
	senderData         []byte
	encryption         []byte
	exporter           []byte
	external           []byte
	confirmationKey    []byte
	membershipKey      []byte
	resumptionPSK      []byte
	epochAuthenticator []byte
	init               []byte
}

// joinerSecret derives joiner_secret. The context is the encoded GroupContext
// of the new epoch.
func (s *suite) joinerSecret(initSecret, commitSecret, groupContext []byte) []byte {
	return s.expandWithLabel(s.extract(initSecret, commitSecret), "joiner", groupContext, s.HashLen())
}

// memberSecret is the secret between joiner_secret and epoch_secret, from which
// welcome_secret derives as well.
func (s *suite) memberSecret(joiner, psk []byte) []byte { return s.extract(joiner, psk) }

func (s *suite) welcomeSecret(member []byte) []byte { return s.deriveSecret(member, "welcome") }

// epochSecrets derives the secrets of an epoch from its member secret and its
// encoded GroupContext.
func (s *suite) epochSecrets(member, groupContext []byte) *epochSecrets {
	return s.secretsOfEpoch(s.expandWithLabel(member, "epoch", groupContext, s.HashLen()))
}

func (s *suite) secretsOfEpoch(epochSecret []byte) *epochSecrets {
	derive := func(label string) []byte { return s.deriveSecret(epochSecret, label) }
	return &epochSecrets{
		senderData:         derive("sender data"),
		encryption:         derive("encryption"),
		exporter:           derive("exporter"),
		external:           derive("external"),
		confirmationKey:    derive("confirm"),
		membershipKey:      derive("membership"),
		resumptionPSK:      derive("resumption"),
		epochAuthenticator: derive("authentication"),
		init:               derive("init"),
	}
}

// export is MLS-Exporter (RFC 9420, Section 8.5).
func (s *suite) export(exporterSecret []byte, label string, context []byte, length int) ([]byte, error) {
	if length < 0 || length > 255*s.HashLen() || length > 0xffff {
		return nil, invalid("8.5", "exporter length %d", length)
	}
	return s.expandWithLabel(s.deriveSecret(exporterSecret, label), "exported", s.Sum(context), length), nil
}

// confirmationTag is the tag of an epoch (RFC 9420, Section 6.1).
func (s *suite) confirmationTag(secrets *epochSecrets, confirmedTranscriptHash []byte) []byte {
	return s.mac(secrets.confirmationKey, confirmedTranscriptHash)
}

// psk is a pre-shared key with its name.
type psk struct {
	id    mlscore.PreSharedKeyID
	value []byte
}

// pskSecret combines pre-shared keys in their order (RFC 9420, Section 8.4);
// Nh bytes, zero where there are none.
func (s *suite) pskSecret(psks []psk) []byte {
	secret := s.zero()
	for i := range psks {
		// struct { PreSharedKeyID id; uint16 index; uint16 count; } PSKLabel;
		label := psks[i].id.Append(nil)
		label = codec.AppendUint16(label, uint16(i))
		label = codec.AppendUint16(label, uint16(len(psks)))
		input := s.expandWithLabel(s.extract(s.zero(), psks[i].value), "derived psk", label, s.HashLen())
		secret = s.extract(input, secret)
	}
	return secret
}
