package member

import (
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

// encryptWithLabel is EncryptWithLabel (RFC 9420, Section 5.1.3). A public key
// that is none of the KEM is ErrInvalid.
func (s *suite) encryptWithLabel(random io.Reader, public []byte, label string, context, plaintext []byte) (c mlscore.HPKECiphertext, err error) {
	key, err := s.kem.Scheme().UnmarshalBinaryPublicKey(public)
	if err != nil {
		return c, invalid("5.1.1", "no HPKE public key of %d bytes: %v", len(public), err)
	}
	sender, err := s.hpke.NewSender(key, encryptContext(label, context))
	if err != nil {
		return c, err
	}
	enc, sealer, err := sender.Setup(random)
	if err != nil {
		return c, invalid("5.1.3", "cannot encrypt to the HPKE public key %x: %v", public, err)
	}
	ct, err := sealer.Seal(plaintext, nil)
	return mlscore.HPKECiphertext{KEMOutput: enc, Ciphertext: ct}, err
}

// decryptWithLabel is DecryptWithLabel (RFC 9420, Section 5.1.3).
func (s *suite) decryptWithLabel(key *privateKey, label string, context []byte, c mlscore.HPKECiphertext) ([]byte, error) {
	receiver, err := s.hpke.NewReceiver(key.key, encryptContext(label, context))
	if err != nil {
		return nil, err
	}
	opener, err := receiver.Setup(c.KEMOutput)
	if err != nil {
		return nil, invalid("5.1.3", "kem_output of %d bytes: %v", len(c.KEMOutput), err)
	}
	plaintext, err := opener.Open(c.Ciphertext, nil)
	if err != nil {
		return nil, invalid("5.1.3", "the ciphertext under label %q does not decrypt", label)
	}
	return plaintext, nil
}

const externalInitLabel = "MLS 1.0 external init secret"

// externalInit makes a kem_output for external_pub and the init secret that it
// carries (RFC 9420, Section 8.3).
func (s *suite) externalInit(random io.Reader, externalPub []byte) (kemOutput, initSecret []byte, err error) {
	key, err := s.kem.Scheme().UnmarshalBinaryPublicKey(externalPub)
	if err != nil {
		return nil, nil, invalid("8.3", "external_pub of %d bytes: %v", len(externalPub), err)
	}
	sender, err := s.hpke.NewSender(key, nil)
	if err != nil {
		return nil, nil, err
	}
	enc, sealer, err := sender.Setup(random)
	if err != nil {
		return nil, nil, invalid("8.3", "external_pub %x: %v", externalPub, err)
	}
	return enc, sealer.Export([]byte(externalInitLabel), uint(s.HashLen())), nil
}

// openExternalInit recovers the init secret of an ExternalInit.
func (s *suite) openExternalInit(external *privateKey, kemOutput []byte) ([]byte, error) {
	receiver, err := s.hpke.NewReceiver(external.key, nil)
	if err != nil {
		return nil, err
	}
	opener, err := receiver.Setup(kemOutput)
	if err != nil {
		return nil, invalid("8.3", "kem_output of %d bytes: %v", len(kemOutput), err)
	}
	return opener.Export([]byte(externalInitLabel), uint(s.HashLen())), nil
}
