package member

import (
	"crypto"
	"encoding/binary"
	"io"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// encryptContext is the EncryptContext of RFC 9420, Section 5.1.3.
func encryptContext(label string, context []byte) []byte {
	b := codec.AppendOpaque(make([]byte, 0, len(label)+len(context)+16), []byte("MLS 1.0 "+label))
	return codec.AppendOpaque(b, context)
}

// generateKeyPair makes an HPKE key pair from a source of randomness.
func (s *suite) generateKeyPair(random io.Reader) (*privateKey, error) {
	ikm, err := s.randomSecret(random)
	if err != nil {
		return nil, err
	}
	return s.deriveKeyPair(ikm)
}

// randomSecret is Nh random bytes.
func (s *suite) randomSecret(random io.Reader) ([]byte, error) {
	b := make([]byte, s.HashLen())
	_, err := io.ReadFull(random, b)
	return b, err
}

// hpkeContext is the context of HPKE in base mode, for the first message (RFC
// 9180, Section 5). It is our own, over the KEMs of circl, because circl's HPKE
// knows no ML-KEM, and the standard library's takes no source of randomness.
type hpkeContext struct {
	suite                *suite
	id                   []byte // suite_id
	key, nonce, exporter []byte
}

// keySchedule is KeySchedule of RFC 9180, Section 5.1, in base mode.
func (s *suite) keySchedule(sharedSecret, info []byte) *hpkeContext {
	id := binary.BigEndian.AppendUint16([]byte("HPKE"), uint16(s.kem.id))
	id = binary.BigEndian.AppendUint16(id, s.kdfID())
	id = binary.BigEndian.AppendUint16(id, uint16(s.aead))
	context := append([]byte{0}, s.labeledExtract(id, nil, "psk_id_hash", nil)...)
	context = append(context, s.labeledExtract(id, nil, "info_hash", info)...)
	secret := s.labeledExtract(id, sharedSecret, "secret", nil)
	return &hpkeContext{
		suite: s, id: id,
		key:      s.labeledExpand(id, secret, "key", context, s.keyLen()),
		nonce:    s.labeledExpand(id, secret, "base_nonce", context, s.nonceLen()),
		exporter: s.labeledExpand(id, secret, "exp", context, s.HashLen()),
	}
}

// kdfID is the number of HKDF with the suite's hash (RFC 9180, Section 7.2).
func (s *suite) kdfID() uint16 {
	switch s.Hash {
	case crypto.SHA256:
		return 1
	case crypto.SHA384:
		return 2
	}
	return 3
}

// setupSender is SetupBaseS. A public key that is none of the KEM is ErrInvalid.
func (s *suite) setupSender(random io.Reader, public, info []byte) (kemOutput []byte, c *hpkeContext, err error) {
	key, err := s.scheme.UnmarshalBinaryPublicKey(public)
	if err != nil {
		return nil, nil, invalid("5.1.1", "no HPKE public key of %d bytes: %v", len(public), err)
	}
	seed := make([]byte, s.scheme.EncapsulationSeedSize())
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, nil, err
	}
	kemOutput, sharedSecret, err := s.scheme.EncapsulateDeterministically(key, seed)
	if err != nil {
		return nil, nil, invalid("5.1.3", "cannot encrypt to the HPKE public key %x: %v", public, err)
	}
	return kemOutput, s.keySchedule(sharedSecret, info), nil
}

// setupReceiver is SetupBaseR. A kem_output that is none of the KEM is ErrInvalid.
func (s *suite) setupReceiver(key *privateKey, kemOutput, info []byte) (*hpkeContext, error) {
	sharedSecret, err := s.scheme.Decapsulate(key.key, kemOutput)
	if err != nil {
		return nil, invalid("5.1.3", "kem_output of %d bytes: %v", len(kemOutput), err)
	}
	return s.keySchedule(sharedSecret, info), nil
}

// export is Context.Export (RFC 9180, Section 5.3).
func (c *hpkeContext) export(exporterContext []byte, length int) []byte {
	return c.suite.labeledExpand(c.id, c.exporter, "sec", exporterContext, length)
}

// encryptWithLabel is EncryptWithLabel (RFC 9420, Section 5.1.3). A public key
// that is none of the KEM is ErrInvalid.
func (s *suite) encryptWithLabel(random io.Reader, public []byte, label string, context, plaintext []byte) (mlscore.HPKECiphertext, error) {
	kemOutput, c, err := s.setupSender(random, public, encryptContext(label, context))
	if err != nil {
		return mlscore.HPKECiphertext{}, err
	}
	aead, err := s.aead.New(c.key)
	if err != nil {
		return mlscore.HPKECiphertext{}, err
	}
	return mlscore.HPKECiphertext{KEMOutput: kemOutput, Ciphertext: aead.Seal(nil, c.nonce, plaintext, nil)}, nil
}

// decryptWithLabel is DecryptWithLabel (RFC 9420, Section 5.1.3).
func (s *suite) decryptWithLabel(key *privateKey, label string, context []byte, ciphertext mlscore.HPKECiphertext) ([]byte, error) {
	c, err := s.setupReceiver(key, ciphertext.KEMOutput, encryptContext(label, context))
	if err != nil {
		return nil, err
	}
	aead, err := s.aead.New(c.key)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, c.nonce, ciphertext.Ciphertext, nil)
	if err != nil {
		return nil, invalid("5.1.3", "the ciphertext under label %q does not decrypt", label)
	}
	return plaintext, nil
}

const externalInitLabel = "MLS 1.0 external init secret"

// externalInit makes a kem_output for external_pub and the init secret that it
// carries (RFC 9420, Section 8.3).
func (s *suite) externalInit(random io.Reader, externalPub []byte) (kemOutput, initSecret []byte, err error) {
	kemOutput, c, err := s.setupSender(random, externalPub, nil)
	if err != nil {
		return nil, nil, err
	}
	return kemOutput, c.export([]byte(externalInitLabel), s.HashLen()), nil
}

// openExternalInit recovers the init secret of an ExternalInit.
func (s *suite) openExternalInit(external *privateKey, kemOutput []byte) ([]byte, error) {
	c, err := s.setupReceiver(external, kemOutput, nil)
	if err != nil {
		return nil, err
	}
	return c.export([]byte(externalInitLabel), s.HashLen()), nil
}
