package member

import (
	"bytes"
	"crypto/rand"
	"io"

	"leavebroker/mlscore"
)

// Client is what one client brings to its groups. Its fields are set before
// use and not changed while a group of it is in use. A Client serves groups of
// one cipher suite: that of its signature key and its KEM.
type Client struct {
	// CipherSuite is the registry number of the suite, one of Suites.
	CipherSuite mlscore.CipherSuite
	// Signer signs; its key is in the client's leaves.
	Signer mlscore.Signer
	// Credential is in the client's leaves. Its type must be in Capabilities.
	Credential mlscore.Credential

	// Capabilities are in the client's leaves; nil means DefaultCapabilities.
	Capabilities *mlscore.Capabilities
	// LeafExtensions are in the client's leaves. Optional.
	LeafExtensions mlscore.Extensions
	// Registry holds the deployment's code points; nil means
	// mlscore.DefaultRegistry.
	Registry *mlscore.Registry
	// Random is the source of all randomness; nil means crypto/rand. With a
	// seeded source, the same calls give the same messages.
	Random io.Reader
	// PSK finds the value of a pre-shared key: an external one, or a resumption
	// PSK of another group or of an epoch before this client joined. Optional.
	PSK func(id mlscore.PreSharedKeyID) (value []byte, ok bool)
	// Associate tells which other leaves of a group's current epoch the
	// Authentication Service associates with a leaf: needed for proposals that
	// remove associated members (draft-kohbrok-mls-leaf-operation-intents). All
	// members have to get the same answers. Without one, or without an answer, a
	// commit with such a proposal is mlscore.ErrUnresolvable. Optional.
	Associate func(group *mlscore.PublicGroup, sender mlscore.LeafIndex) (associated []mlscore.LeafIndex, known bool)
	// PastEpochs is how many epochs before the current one application data is
	// still read of (RFC 9420, Section 15.3); what that takes is kept as long.
	PastEpochs int
	// EncryptHandshakes sends proposals and commits as PrivateMessages, which a
	// leave broker cannot follow.
	EncryptHandshakes bool
	// Shared saves work among members in one process. Optional.
	Shared *Shared
	// Mutate spoils messages, for tests. Leave it nil.
	Mutate *Mutate
}

// DefaultCapabilities lists what this package supports: MLS 1.0, all suites,
// basic and X.509 credentials, and the proposal and extension types of the
// registry that RFC 9420 does not define, custom ones if they can be expanded.
func DefaultCapabilities(reg *mlscore.Registry) mlscore.Capabilities {
	c := mlscore.Capabilities{
		Versions:     []mlscore.ProtocolVersion{mlscore.ProtocolVersionMLS10},
		CipherSuites: Suites(reg),
		Credentials:  []mlscore.CredentialType{mlscore.CredentialTypeBasic, mlscore.CredentialTypeX509},
	}
	for _, t := range []mlscore.ProposalType{reg.SelfRemove, reg.Replace} {
		if t != 0 {
			c.Proposals = append(c.Proposals, t)
		}
	}
	for i := range reg.Custom {
		if reg.Custom[i].Expand != nil {
			c.Proposals = append(c.Proposals, reg.Custom[i].Type)
		}
	}
	if reg.LeafNodeEpoch != 0 {
		c.Extensions = append(c.Extensions, reg.LeafNodeEpoch)
	}
	return c
}

func (c *Client) random() io.Reader {
	if c.Random != nil {
		return c.Random
	}
	return rand.Reader
}

func (c *Client) registry() *mlscore.Registry {
	if c.Registry != nil {
		return c.Registry
	}
	return mlscore.DefaultRegistry()
}

func (c *Client) capabilities() mlscore.Capabilities {
	if c.Capabilities != nil {
		return *c.Capabilities
	}
	return DefaultCapabilities(c.registry())
}

// suite gives the client's suite, and refuses a signature key of another.
func (c *Client) suite() (*suite, error) {
	s, err := lookupSuite(c.registry(), c.CipherSuite)
	if err != nil {
		return nil, err
	}
	if c.Signer.Scheme() != s.Signature {
		return nil, invalid("5.1.2", "a %s key for cipher suite 0x%04x", c.Signer.Scheme(), uint16(c.CipherSuite))
	}
	return s, nil
}

// newLeaf is an unsigned leaf node of the client.
func (c *Client) newLeaf(source mlscore.LeafNodeSource, encryptionKey []byte) *mlscore.LeafNode {
	return &mlscore.LeafNode{
		EncryptionKey: encryptionKey,
		SignatureKey:  c.Signer.PublicKey(),
		Credential:    c.Credential,
		Capabilities:  c.capabilities(),
		Source:        source,
		Extensions:    c.LeafExtensions,
	}
}

// KeyPackage is a key package with its private keys. It is good for one Join.
type KeyPackage struct {
	*mlscore.KeyPackage
	client *Client
	suite  *suite
	init   *privateKey
	leaf   *privateKey
}

// NewKeyPackage makes a key package (RFC 9420, Section 10). The caller gives
// the lifetime, since this package has no clock.
func (c *Client) NewKeyPackage(lifetime mlscore.Lifetime) (*KeyPackage, error) {
	s, err := c.suite()
	if err != nil {
		return nil, err
	}
	k := &KeyPackage{client: c, suite: s}
	if k.init, err = s.generateKeyPair(c.random()); err != nil {
		return nil, err
	}
	if k.leaf, err = s.generateKeyPair(c.random()); err != nil {
		return nil, err
	}
	leaf := c.newLeaf(mlscore.LeafNodeSourceKeyPackage, k.leaf.public)
	leaf.Lifetime = lifetime
	c.Mutate.leafNode(leaf)
	if err := leaf.Sign(c.Signer, nil, 0); err != nil {
		return nil, err
	}
	k.KeyPackage = &mlscore.KeyPackage{
		Version: mlscore.ProtocolVersionMLS10, CipherSuite: c.CipherSuite, InitKey: k.init.public, LeafNode: leaf,
	}
	c.Mutate.keyPackage(k.KeyPackage)
	return k, k.KeyPackage.Sign(c.Signer)
}

// ImportKeyPackage makes a KeyPackage of a public one and its HPKE private
// keys in the form of RFC 9180, Section 7.1.2: those of init_key and of the
// leaf's encryption_key. Keys that do not match are ErrInvalid.
func (c *Client) ImportKeyPackage(public *mlscore.KeyPackage, initKey, encryptionKey []byte) (*KeyPackage, error) {
	s, err := c.suite()
	if err != nil {
		return nil, err
	}
	k := &KeyPackage{KeyPackage: public, client: c, suite: s}
	if k.init, err = s.parsePrivateKey(initKey); err != nil {
		return nil, err
	}
	if k.leaf, err = s.parsePrivateKey(encryptionKey); err != nil {
		return nil, err
	}
	if !bytes.Equal(k.init.public, public.InitKey) || !bytes.Equal(k.leaf.public, public.LeafNode.EncryptionKey) {
		return nil, invalid("10", "the private keys do not belong to the key package")
	}
	return k, nil
}

// PrivateKeys are the HPKE private keys of init_key and of the leaf's
// encryption_key, as ImportKeyPackage takes them.
func (k *KeyPackage) PrivateKeys() (initKey, encryptionKey []byte, err error) {
	if initKey, err = k.init.key.MarshalBinary(); err != nil {
		return nil, nil, err
	}
	encryptionKey, err = k.leaf.key.MarshalBinary()
	return initKey, encryptionKey, err
}

// Message is the key package as an encoded MLSMessage.
func (k *KeyPackage) Message() []byte {
	return (&mlscore.MLSMessage{WireFormat: mlscore.WireFormatKeyPackage, KeyPackage: k.KeyPackage}).Bytes()
}
