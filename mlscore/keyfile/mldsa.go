package keyfile

import (
	"bytes"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/sign"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"leavebroker/mlscore"
)

// mldsaKeys are the keys of RFC 9881, Section 2, by their OIDs.
var mldsaKeys = []struct {
	scheme mlscore.SignatureScheme
	oid    asn1.ObjectIdentifier
	set    sign.Scheme
}{
	{mlscore.MLDSA44, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 17}, mldsa44.Scheme()},
	{mlscore.MLDSA65, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 18}, mldsa65.Scheme()},
	{mlscore.MLDSA87, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 19}, mldsa87.Scheme()},
}

// mldsaBoth is the form of a private key with its seed (RFC 9881, Section 6).
type mldsaBoth struct{ Seed, ExpandedKey []byte }

// mldsaSeedTag is [0] IMPLICIT OCTET STRING, the seed alone.
var mldsaSeedTag = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0}

// parseMLDSA reads a private key of ML-DSA (RFC 9881, Section 6), and says
// whether it is one. Of its three forms the expanded key alone is refused: it
// has no seed.
func parseMLDSA(outer *oneAsymmetricKey) (signer mlscore.Signer, ok bool, err error) {
	for _, k := range mldsaKeys {
		if !outer.Algorithm.Algorithm.Equal(k.oid) {
			continue
		}
		if len(outer.Algorithm.Parameters.FullBytes) > 0 {
			return nil, true, fmt.Errorf("PKCS#8: %s with algorithm parameters", k.scheme)
		}
		seed, err := mldsaSeed(k.set, outer.PrivateKey)
		if err != nil {
			return nil, true, fmt.Errorf("PKCS#8: %s: %w", k.scheme, err)
		}
		signer, err = mlscore.NewSigner(k.scheme, seed)
		return signer, true, err
	}
	return nil, false, nil
}

func mldsaSeed(set sign.Scheme, der []byte) ([]byte, error) {
	var choice asn1.RawValue
	rest, err := asn1.Unmarshal(der, &choice)
	switch {
	case err != nil:
		return nil, err
	case len(rest) > 0:
		return nil, fmt.Errorf("%d bytes follow the key", len(rest))
	case choice.Class == mldsaSeedTag.Class && choice.Tag == mldsaSeedTag.Tag && !choice.IsCompound:
		return choice.Bytes, nil
	case choice.Class == asn1.ClassUniversal && choice.Tag == asn1.TagOctetString:
		return nil, errors.New("an expanded key without its seed; make the key in a form that keeps the seed")
	}
	var both mldsaBoth
	if rest, err := asn1.Unmarshal(der, &both); err != nil {
		return nil, err
	} else if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes follow the key", len(rest))
	}
	if len(both.Seed) != set.SeedSize() {
		return nil, fmt.Errorf("a seed of %d bytes, want %d", len(both.Seed), set.SeedSize())
	}
	_, key := set.DeriveKey(both.Seed)
	if expanded, err := key.MarshalBinary(); err != nil || !bytes.Equal(expanded, both.ExpandedKey) {
		return nil, errors.New("the expanded key is not that of the seed") // RFC 9881, Section 8.2
	}
	return both.Seed, nil
}

// generateMLDSA makes a key of the seed form, or ok is false.
func generateMLDSA(scheme mlscore.SignatureScheme) (der []byte, ok bool, err error) {
	for _, k := range mldsaKeys {
		if k.scheme != scheme {
			continue
		}
		choice := mldsaSeedTag
		choice.Bytes = make([]byte, k.set.SeedSize())
		if _, err := rand.Read(choice.Bytes); err != nil {
			return nil, true, err
		}
		inner, err := asn1.Marshal(choice)
		if err != nil {
			return nil, true, err
		}
		der, err = asn1.Marshal(oneAsymmetricKey{Algorithm: pkix.AlgorithmIdentifier{Algorithm: k.oid}, PrivateKey: inner})
		return der, true, err
	}
	return nil, false, nil
}
