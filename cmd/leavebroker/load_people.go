package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// loadDevices is how many devices the one user has whom offboarding removes.
const loadDevices = 3

const (
	// peopleMost bounds the clients that take turns in the groups.
	peopleMost = 4096
	// knownTrees is how many ratchet trees the known groups share.
	knownTrees = 64
)

// loadPeople makes clients, and the groups whose public state is all that
// matters. Making a client costs more than signing a message, so clients are in
// many groups: a key package names none (RFC 9420, Section 10).
type loadPeople struct {
	suite    *mlscore.Suite
	registry *mlscore.Registry
	shared   *member.Shared
	senders  mlscore.Extensions // of every GroupContext: the broker may propose
	seed     uint64
	serial   atomic.Uint64 // of the next source of randomness

	people []loadPerson
	trees  []*mlscore.RatchetTree // of known groups; leaf 0 of tree i is people[i]
}

type loadPerson struct {
	signer mlscore.Signer
	keys   *mlscore.KeyPackage
}

func newLoadPeople(suite *mlscore.Suite, sender mlscore.ExternalSender, seed uint64) *loadPeople {
	return &loadPeople{
		suite: suite, registry: mlscore.DefaultRegistry(), shared: new(member.Shared), seed: seed,
		senders: mlscore.Extensions{{
			Type: mlscore.ExtensionTypeExternalSenders, Data: mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{sender}),
		}},
	}
}

// random is a source of its own for each client, so that they may work side by
// side.
func (p *loadPeople) random() io.Reader {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], p.seed)
	binary.BigEndian.PutUint64(seed[8:], p.serial.Add(1))
	return rand.NewChaCha8(seed)
}

// client makes a client of a user, which the rule of loadConfiguration reads
// from the credential.
func (p *loadPeople) client(user string, device int) (*member.Client, error) {
	c := &member.Client{
		CipherSuite: p.suite.ID, Credential: mlscore.BasicCredential(fmt.Appendf(nil, "%s:device-%d", user, device)),
		Random: p.random(), Registry: p.registry, Shared: p.shared,
	}
	var err error
	c.Signer, err = mlscore.GenerateSigner(p.suite.Signature, c.Random)
	return c, err
}

// grow makes the clients. The first loadDevices of them are of one user.
func (p *loadPeople) grow(n int, progress *loadProgress) error {
	p.people = make([]loadPerson, n)
	return progress.parallel("clients", n, loadCores(), func(i int) error {
		user, device := fmt.Sprintf("user-%d", i), 0
		if i < loadDevices {
			user, device = "leaver", i
		}
		c, err := p.client(user, device)
		if err != nil {
			return err
		}
		keys, err := c.NewKeyPackage(demoLife())
		if err != nil {
			return err
		}
		p.people[i] = loadPerson{c.Signer, keys.KeyPackage}
		return nil
	})
}

// plant makes the trees of the known groups.
func (p *loadPeople) plant(members int) error {
	for i := range min(knownTrees, len(p.people)) {
		edit := mlscore.NewRatchetTree(p.suite, p.people[i].keys.LeafNode).Edit()
		for k := 1; k < members; k++ {
			if _, err := edit.Add(p.people[(i+k)%len(p.people)].keys.LeafNode); err != nil {
				return err
			}
		}
		p.trees = append(p.trees, edit.Tree())
	}
	return nil
}

// known makes a group that stays idle: an MLSMessage with its GroupInfo, signed
// by a member. No secret of it exists: transcript and confirmation tag, which an
// observer cannot check, are random bytes.
func (p *loadPeople) known(groupID []byte, i int) ([]byte, error) {
	tree := p.trees[i%len(p.trees)]
	secret := make([]byte, 2*p.suite.HashLen())
	if _, err := io.ReadFull(p.random(), secret); err != nil {
		return nil, err
	}
	info := &mlscore.GroupInfo{
		GroupContext: mlscore.GroupContext{
			Version: mlscore.ProtocolVersionMLS10, CipherSuite: p.suite.ID, GroupID: groupID, Epoch: 1,
			TreeHash: tree.TreeHash(), ConfirmedTranscriptHash: secret[:p.suite.HashLen()], Extensions: p.senders,
		},
		Extensions:      mlscore.Extensions{{Type: mlscore.ExtensionTypeRatchetTree, Data: tree.Bytes()}},
		ConfirmationTag: secret[p.suite.HashLen():],
	}
	if err := info.Sign(p.people[i%len(p.trees)].signer); err != nil {
		return nil, err
	}
	m := mlscore.MLSMessage{WireFormat: mlscore.WireFormatGroupInfo, GroupInfo: info}
	return m.Bytes(), nil
}
