package member

import (
	"errors"
	"maps"
	"slices"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// associations is what the client knows of associations in a group's epoch.
func (c *Client) associations(g *mlscore.PublicGroup) mlscore.Associations {
	return func(sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
		if c.Associate == nil {
			return nil, false
		}
		return c.Associate(g, sender)
	}
}

// stage judges a handshake, and where it has to be known who is associated with
// whom, asks the client and judges it again.
func (c *Client) stage(g *mlscore.PublicGroup, a *mlscore.AuthenticatedContent, membershipTag []byte) (*mlscore.Staged, error) {
	staged, err := c.Shared.stage(g, a, membershipTag, nil)
	var needed *mlscore.AssociationNeeded
	if !errors.As(err, &needed) {
		return staged, err
	}
	answers, ok := c.ask(g, needed.Proposals)
	if !ok {
		return nil, err
	}
	return c.Shared.stage(g, a, membershipTag, answers)
}

// answers are associations by sender.
type answers map[mlscore.LeafIndex][]mlscore.LeafIndex

func (a answers) find(sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
	associated, ok := a[sender]
	return associated, ok
}

// ask gets the associations of those proposals that need one, or says that one
// is not known.
func (c *Client) ask(g *mlscore.PublicGroup, proposals []mlscore.AppliedProposal) (answers, bool) {
	known, find := answers{}, c.associations(g)
	for _, p := range proposals {
		if p.Expansion == nil || !p.Expansion.Associated {
			continue
		}
		associated, ok := find(p.Expansion.Sender)
		if !ok {
			return nil, false
		}
		known[p.Expansion.Sender] = associated
	}
	return known, true
}

// bytes tells answers apart: two members with different ones share no judgement.
func (a answers) bytes() []byte {
	var b []byte
	for _, sender := range slices.Sorted(maps.Keys(a)) {
		b = codec.AppendUint32(b, uint32(sender))
		b = codec.AppendVector(b, func(b []byte) []byte {
			for _, leaf := range a[sender] {
				b = codec.AppendUint32(b, uint32(leaf))
			}
			return b
		})
	}
	return b
}

// remember shares the judgement of a commit that this client made.
func (c *Client) remember(g *mlscore.PublicGroup, a *mlscore.AuthenticatedContent, membershipTag []byte, staged *mlscore.Staged) {
	if known, ok := c.ask(g, staged.Applied); ok {
		c.Shared.remember(g, a, membershipTag, known, staged)
	}
}
