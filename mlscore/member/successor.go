package member

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"leavebroker/mlscore"
)

// ErrNotSuccessor: the group of a Welcome does not continue the old one as RFC
// 9420, Sections 11.2 and 11.3, say.
var ErrNotSuccessor = errors.New("not a successor of the old group")

// Successor makes the group that takes the place of this one, which a ReInit
// has closed (RFC 9420, Section 11.2). The client is this member in the new
// group, of the ReInit's cipher suite. The options add the other members by
// value; their commit, which the new group has entered, brings them in by its
// Welcome. Whether all members are there is for the application to judge.
func (g *Group) Successor(c *Client, lifetime mlscore.Lifetime, opts CommitOptions) (*Group, *Commit, error) {
	if g.reInit == nil {
		return nil, nil, invalid("11.2", "a successor of a group that no ReInit has closed")
	}
	if c.CipherSuite != g.reInit.CipherSuite {
		return nil, nil, invalid("11.2", "a client of suite 0x%04x for a ReInit to suite 0x%04x", uint16(c.CipherSuite), uint16(g.reInit.CipherSuite))
	}
	return g.begin(c, mlscore.ResumptionPSKUsageReInit, g.reInit.GroupID, g.reInit.Extensions, lifetime, opts)
}

// Branch makes a group of some members of this one (RFC 9420, Section 11.3), as
// Successor does. This one goes on.
func (g *Group) Branch(groupID []byte, extensions mlscore.Extensions, lifetime mlscore.Lifetime, opts CommitOptions) (*Group, *Commit, error) {
	if err := g.usable(); err != nil {
		return nil, nil, err
	}
	return g.begin(g.client, mlscore.ResumptionPSKUsageBranch, groupID, extensions, lifetime, opts)
}

// begin makes a group and its first commit, which contains the resumption PSK
// of this one.
func (g *Group) begin(c *Client, usage mlscore.ResumptionPSKUsage, groupID []byte, extensions mlscore.Extensions, lifetime mlscore.Lifetime, opts CommitOptions) (*Group, *Commit, error) {
	next, err := c.Create(groupID, extensions, lifetime)
	if err != nil {
		return nil, nil, err
	}
	psk, err := c.ResumptionPSK(usage, g.GroupID(), g.Epoch())
	if err != nil {
		return nil, nil, err
	}
	opts.Proposals = append(slices.Clone(opts.Proposals), psk)
	next.origin = g
	commit, err := next.Commit(opts)
	next.origin = nil
	if err != nil {
		return nil, nil, err
	}
	return next, commit, next.ConfirmCommit()
}

// JoinSuccessor is Join for the group that takes the place of a closed one. A
// group that is not what the ReInit says, or does not continue the old group's
// last epoch, is ErrNotSuccessor.
func (k *KeyPackage) JoinSuccessor(old *Group, welcome, ratchetTree []byte) (*Group, error) {
	r := old.reInit
	if r == nil {
		return nil, invalid("11.2", "a successor of a group that no ReInit has closed")
	}
	g, err := k.join(welcome, ratchetTree, old.origins(mlscore.ResumptionPSKUsageReInit))
	if err != nil {
		return nil, err
	}
	switch gc := g.Public().Context(); {
	case gc.Version != r.Version || gc.CipherSuite != r.CipherSuite:
		return nil, notSuccessor("version %d and suite 0x%04x", gc.Version, uint16(gc.CipherSuite))
	case !bytes.Equal(gc.GroupID, r.GroupID):
		return nil, notSuccessor("group %x", gc.GroupID)
	case !bytes.Equal(gc.Extensions.Append(nil), r.Extensions.Append(nil)):
		return nil, notSuccessor("other extensions")
	}
	return g, nil
}

// JoinBranch is Join for a group that was branched off another. One of another
// cipher suite, or with a member whose credential no member of the old group
// has, is ErrNotSuccessor, as is one that does not continue the old group.
func (k *KeyPackage) JoinBranch(old *Group, welcome, ratchetTree []byte) (*Group, error) {
	g, err := k.join(welcome, ratchetTree, old.origins(mlscore.ResumptionPSKUsageBranch))
	if err != nil {
		return nil, err
	}
	gc, was := g.Public().Context(), old.Public().Context()
	if gc.Version != was.Version || gc.CipherSuite != was.CipherSuite {
		return nil, notSuccessor("version %d and suite 0x%04x", gc.Version, uint16(gc.CipherSuite))
	}
	members := make(map[string]bool)
	for _, leaf := range old.Members() {
		members[string(leaf.Credential.Bytes())] = true
	}
	for i, leaf := range g.Members() {
		if !members[string(leaf.Credential.Bytes())] {
			return nil, notSuccessor("leaf %d is no member of the old group", i)
		}
	}
	return g, nil
}

func notSuccessor(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNotSuccessor, fmt.Sprintf(format, args...))
}

// origin says of which group, and by which usage of a resumption PSK, a new
// group is meant to come. nil: of none that is known.
type origin struct {
	group *Group
	usage mlscore.ResumptionPSKUsage
}

func (g *Group) origins(usage mlscore.ResumptionPSKUsage) *origin { return &origin{g, usage} }

// isNamedBy says whether a PSK of a Welcome stands for the origin: a ReInit is
// followed from the epoch that it led to.
func (o *origin) isNamedBy(id mlscore.PreSharedKeyID) bool {
	return id.Type == mlscore.PSKTypeResumption && id.Usage == o.usage && bytes.Equal(id.GroupID, o.group.GroupID()) &&
		(o.usage == mlscore.ResumptionPSKUsageBranch || id.Epoch == o.group.Epoch())
}
