package intents

import (
	"bytes"
	"fmt"

	"leavebroker/mlscore"
)

// foldInfo folds a GroupInfo. It is the base of a group that is not known, or
// after a gap; otherwise it is compared with what we have.
func (x *step) foldInfo() {
	m, err := mlscore.ParseMLSMessage(x.in.Data, x.policy.registry())
	if err == nil && m.GroupInfo == nil {
		err = fmt.Errorf("%w: wire format %d is no GroupInfo", ErrMalformed, m.WireFormat)
	}
	if err != nil {
		x.refuse(mlscore.Reason(err), "%v", err)
		return
	}
	gi := m.GroupInfo
	switch {
	case !bytes.Equal(gi.GroupContext.GroupID, x.groupID):
		x.refuse(ErrGroupMismatch.Error(), "a GroupInfo of group %x", gi.GroupContext.GroupID)
	case x.group == nil || x.reset || x.deleted:
		x.rebase(gi)
	case x.closed != "":
		x.refuse(ReasonGroupClosed, "the group is closed: %s", x.closed)
	case gi.GroupContext.Epoch < x.group.Epoch():
		// Overtaken.
	case gi.GroupContext.Epoch == x.group.Epoch():
		x.compare(gi)
	case x.gap || !x.trusted || x.policy.InfoTrustDS:
		x.rebase(gi)
	default:
		x.ahead = gi
	}
}

// useAhead bridges to a GroupInfo that came before its time, when a handshake
// of its epoch verifies over it, and gives that handshake staged. Without one
// the GroupInfo stays aside: it may have overtaken its commit, and it must not
// replace a chain by itself.
func (x *step) useAhead(m *mlscore.MLSMessage) (*mlscore.Staged, bool) {
	gi := x.ahead
	if gi == nil || epochOf(m) != gi.GroupContext.Epoch {
		return nil, false
	}
	g, err := x.fromInfo(gi)
	if err != nil {
		x.ahead = nil
		x.refuse(mlscore.Reason(err), "%v", err)
		return nil, false
	}
	if staged, err := g.Stage(m); err != nil || !staged.Proves && !isCommit(m) {
		return nil, false
	}
	x.needInfo("missed_commits", fmt.Sprintf("bridged from epoch %d to %d", x.group.Epoch(), g.Epoch()))
	x.adopt(g)
	staged, err := x.group.Stage(m) // with our own proposals of that epoch
	return staged, err == nil
}

// bridge uses a GroupInfo that came before its time, once it is sure that
// commits are missing.
func (x *step) bridge() {
	if gi := x.ahead; gi != nil && gi.GroupContext.Epoch > x.group.Epoch() {
		x.rebase(gi)
	}
}

// compareAhead holds a GroupInfo that overtook its commit against the epoch
// that the commit began.
func (x *step) compareAhead() {
	gi := x.ahead
	if gi == nil || gi.GroupContext.Epoch > x.group.Epoch() {
		return
	}
	x.ahead = nil
	if gi.GroupContext.Epoch == x.group.Epoch() {
		x.compare(gi)
	}
}

// compare holds a GroupInfo of the current epoch against ours: equal, it
// proves the epoch; different, and signed by a member, we diverged.
func (x *step) compare(gi *mlscore.GroupInfo) {
	leaf := x.group.Tree().Leaf(gi.Signer)
	if leaf == nil {
		x.refuse(mlscore.ErrInvalid.Error(), "a GroupInfo signed by leaf %d, which is blank or outside the tree", gi.Signer)
		return
	}
	if err := gi.VerifySignature(x.group.Suite(), leaf.SignatureKey); err != nil {
		x.refuse(mlscore.Reason(err), "%v", err)
		return
	}
	if !bytes.Equal(gi.GroupContext.Append(nil), x.group.ContextBytes()) {
		x.notify(Notice{Type: NoticeDiverged, Detail: fmt.Sprintf("leaf %d signed another GroupContext of this epoch", gi.Signer)})
		return
	}
	if x.trusted { // a base is not proven by a second GroupInfo
		x.prove(x.group.Epoch())
	}
}

// rebase makes a GroupInfo the base, if it is good.
func (x *step) rebase(gi *mlscore.GroupInfo) {
	g, err := x.fromInfo(gi)
	if err != nil {
		x.refuse(mlscore.Reason(err), "%v", err)
		return
	}
	x.adopt(g)
}

func (x *step) fromInfo(gi *mlscore.GroupInfo) (*mlscore.PublicGroup, error) {
	return mlscore.NewPublicGroup(gi, nil, mlscore.Options{Registry: x.policy.registry(), Parallel: x.policy.Parallel})
}

// adopt makes a group the base.
func (x *step) adopt(g *mlscore.PublicGroup) {
	switch {
	case x.group == nil:
	case x.deleted: // another group under the same group_id
		x.departed = depart(departAll(x.departed, x.lives, x.group), x.lives, &change{
			before: g, after: g, added: others(g, mlscore.MaxLeaves),
		})
		x.doubtFrom = nil
	case x.doubtFrom == nil:
		x.doubtFrom = x.group
	}
	x.gap, x.ahead, x.reset, x.closed, x.deleted, x.asked = false, nil, false, "", false, false
	x.trusted, x.isProven, x.previous = false, false, nil
	x.enter(g, "")
	if x.policy.InfoTrustDS {
		x.prove(g.Epoch())
	}
	x.wake(nil, true)
}

// trust believes the base from now on, and takes what changed across the gap
// before it to the open intents.
func (x *step) trust() {
	if x.trusted {
		return
	}
	x.trusted = true
	before := x.doubtFrom
	if before == nil {
		return
	}
	x.doubtFrom = nil
	c := changeAcrossGap(before, x.group)
	x.follow(&c, nil)
	x.wake(nil, true)
}
