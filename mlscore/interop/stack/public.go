package stack

import (
	"bytes"
	"errors"
	"fmt"

	"leavebroker/mlscore"
)

// Public is our tracker of a group.
type Public struct {
	associated [][][]byte
	group      *mlscore.PublicGroup
}

// NewPublic follows a group from a GroupInfo on. The associated are lists of
// identities, each being one user.
func NewPublic(groupInfo []byte, reg *mlscore.Registry, associated [][][]byte) (*Public, error) {
	m, err := mlscore.ParseMLSMessage(groupInfo, reg)
	if err != nil {
		return nil, err
	}
	if m.GroupInfo == nil {
		return nil, fmt.Errorf("wire format %d is no GroupInfo", m.WireFormat)
	}
	g, err := mlscore.NewPublicGroup(m.GroupInfo, nil, mlscore.Options{Registry: reg})
	if err != nil {
		return nil, err
	}
	return &Public{associated, g}, nil
}

// Group is the state of the group.
func (p *Public) Group() *mlscore.PublicGroup { return p.group }

// Stage takes a message in and tells what it did.
func (p *Public) Stage(message []byte) (*mlscore.Staged, error) {
	m, err := mlscore.ParseMLSMessage(message, p.group.Registry())
	if err != nil {
		return nil, err
	}
	staged, err := p.group.StageWith(m, func(sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
		return Associated(p.group, p.associated, sender), true
	})
	if err == nil && staged.Proposal != nil {
		err = staged.Proposal.Invalid
	}
	if err != nil {
		return nil, err
	}
	p.group = staged.Next()
	return staged, nil
}

// State is the group in the form of the protocol.
func (p *Public) State() *State { return publicState(p.group) }

func publicState(g *mlscore.PublicGroup) *State {
	s := &State{Epoch: g.Epoch(), TreeHash: g.Tree().TreeHash(), ConfirmedTranscriptHash: g.ConfirmedTranscriptHash()}
	for i, leaf := range g.Tree().All() {
		s.Members = append(s.Members, GroupMember{i, leaf.Credential.Identity, leaf.SignatureKey})
	}
	return s
}

// Associated are the other leaves of a leaf's user.
func Associated(g *mlscore.PublicGroup, users [][][]byte, sender mlscore.LeafIndex) (leaves []mlscore.LeafIndex) {
	user := userOf(users, g.Tree().Leaf(sender).Credential.Identity)
	for i, leaf := range g.Tree().All() {
		if i != sender && user >= 0 && userOf(users, leaf.Credential.Identity) == user {
			leaves = append(leaves, i)
		}
	}
	return leaves
}

// userOf is the number of the list that has an identity, -1 if none has.
func userOf(users [][][]byte, identity []byte) int {
	for n, user := range users {
		for _, id := range user {
			if bytes.Equal(id, identity) {
				return n
			}
		}
	}
	return -1
}

// Differs says where a state of another contradicts this one, in what the other
// tells of the public group.
func (s *State) Differs(other *State) error {
	switch {
	case other.Epoch != s.Epoch:
		return fmt.Errorf("epoch %d, not %d", other.Epoch, s.Epoch)
	case other.TreeHash != nil && !bytes.Equal(other.TreeHash, s.TreeHash):
		return fmt.Errorf("tree hash %x, not %x", other.TreeHash, s.TreeHash)
	case other.ConfirmedTranscriptHash != nil && !bytes.Equal(other.ConfirmedTranscriptHash, s.ConfirmedTranscriptHash):
		return fmt.Errorf("confirmed transcript hash %x, not %x", other.ConfirmedTranscriptHash, s.ConfirmedTranscriptHash)
	case other.Members == nil:
		return nil
	case len(other.Members) != len(s.Members):
		return fmt.Errorf("%d members, not %d", len(other.Members), len(s.Members))
	}
	var errs []error
	for i, m := range s.Members {
		if o := other.Members[i]; o.Leaf != m.Leaf || !bytes.Equal(o.Identity, m.Identity) || !bytes.Equal(o.SignatureKey, m.SignatureKey) {
			errs = append(errs, fmt.Errorf("member %d is %s at leaf %d, not %s at leaf %d", i, o.Identity, o.Leaf, m.Identity, m.Leaf))
		}
	}
	return errors.Join(errs...)
}
