// Package biggroup makes large MLS groups as an observer sees them (RFC 9420):
// a ratchet tree with real signatures and parent hashes, a signed GroupInfo,
// and then one valid handshake after another. No group secret exists:
// encryption keys, ciphertexts and MACs, which an observer cannot check, are
// random bytes of the right length and number. The same Config gives the same
// bytes. Only tests, benchmarks and tools import it.
package biggroup

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"leavebroker/mlscore"
)

// Config says what group to make.
type Config struct {
	Suite   mlscore.CipherSuite // of the default registry
	Members int                 // at least 2
	Shape   Shape
	Seed    uint64
	// Now is when lifetimes are valid: from an hour before to 60 days after.
	// Zero is the start of 2026.
	Now time.Time
	// ExternalSender is the group's external sender. Nil: one of the group's own.
	ExternalSender mlscore.Signer
}

// Group is a group and its members' signature keys in one epoch.
type Group struct {
	suite   *mlscore.Suite
	now     time.Time
	random  *rand.ChaCha8
	pick    *rand.Rand
	signers []mlscore.Signer // by leaf
	sender  mlscore.Signer   // the external sender

	context         mlscore.GroupContext
	tree            *mlscore.RatchetTree
	interim         []byte
	confirmationTag []byte

	proposals []mlscore.ProposalOrRef // of this epoch
	removed   []mlscore.LeafIndex     // by those proposals
}

// New makes a group.
func New(cfg Config) (*Group, error) {
	suite, err := mlscore.DefaultRegistry().LookupSuite(cfg.Suite)
	if err != nil {
		return nil, err
	}
	if cfg.Members < 2 {
		return nil, fmt.Errorf("a group of %d members", cfg.Members)
	}
	if cfg.Now.IsZero() {
		cfg.Now = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	}
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], cfg.Seed)
	g := &Group{suite: suite, now: cfg.Now, random: rand.NewChaCha8(seed), sender: cfg.ExternalSender}
	g.pick = rand.New(g.random)
	if g.sender == nil {
		if g.sender, err = mlscore.GenerateSigner(suite.Signature, g.random); err != nil {
			return nil, err
		}
	} else if g.sender.Scheme() != suite.Signature {
		return nil, fmt.Errorf("a %s key for the external sender of a group of suite %#x", g.sender.Scheme(), uint16(suite.ID))
	}
	senders := []mlscore.ExternalSender{{SignatureKey: g.sender.PublicKey(), Credential: mlscore.BasicCredential([]byte("broker"))}}
	g.context = mlscore.GroupContext{
		Version: mlscore.ProtocolVersionMLS10, CipherSuite: suite.ID,
		GroupID: g.bytes(16), Epoch: 1, ConfirmedTranscriptHash: g.bytes(suite.HashLen()),
		Extensions: mlscore.Extensions{{
			Type: mlscore.ExtensionTypeExternalSenders, Data: mlscore.AppendExternalSenders(nil, senders),
		}},
	}
	if g.tree, err = g.grow(cfg.Shape.roles(cfg.Members, g.pick)); err != nil {
		return nil, err
	}
	g.context.TreeHash = g.tree.TreeHash()
	g.confirmationTag = g.bytes(suite.HashLen())
	g.interim = mlscore.InterimTranscriptHash(suite, g.context.ConfirmedTranscriptHash, g.confirmationTag)
	return g, nil
}

// bytes draws random bytes.
func (g *Group) bytes(n int) []byte {
	b := make([]byte, n)
	g.random.Read(b) // never fails
	return b
}

// Tree is the ratchet tree of the current epoch.
func (g *Group) Tree() *mlscore.RatchetTree { return g.tree }

// Context is the GroupContext of the current epoch.
func (g *Group) Context() mlscore.GroupContext { return g.context }

// Member picks a member at random.
func (g *Group) Member() mlscore.LeafIndex {
	for {
		i := mlscore.LeafIndex(g.pick.Uint32N(g.tree.LeafWidth()))
		if g.tree.LeafBytes(i) != nil {
			return i
		}
	}
}

// Signer is the signature key of a member, for what it signs beside the
// handshakes of this package. Nil where no member is.
func (g *Group) Signer(i mlscore.LeafIndex) mlscore.Signer {
	if g.tree.LeafBytes(i) == nil {
		return nil
	}
	return g.signers[i]
}

// GroupInfo is an MLSMessage with a GroupInfo of the current epoch, signed by a
// member, with the extensions ratchet_tree and external_pub.
func (g *Group) GroupInfo() ([]byte, error) {
	signer := g.Member()
	gi := &mlscore.GroupInfo{
		GroupContext: g.context,
		Extensions: mlscore.Extensions{
			{Type: mlscore.ExtensionTypeRatchetTree, Data: g.tree.Bytes()},
			{Type: mlscore.ExtensionTypeExternalPub, Data: opaque(g.bytes(g.kemKeyLen()))},
		},
		ConfirmationTag: g.confirmationTag,
		Signer:          signer,
	}
	if err := gi.Sign(g.signers[signer]); err != nil {
		return nil, err
	}
	m := mlscore.MLSMessage{WireFormat: mlscore.WireFormatGroupInfo, GroupInfo: gi}
	return m.Bytes(), nil
}
