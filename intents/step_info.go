package intents

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"leavebroker/mlscore"
)

// foldInfo folds a GroupInfo. It is the base of a group that is not known, or
// after a gap, or in place of one that is in doubt; otherwise it is compared with
// what we have.
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
	case x.closed != "" && x.fork == nil:
		x.refuse(ReasonGroupClosed, "the group is closed: %s", x.closed)
	case x.doubted && gi.GroupContext.Epoch >= x.ground.epoch:
		if !x.spokenFor(gi) {
			x.rebase(gi)
		}
	case gi.GroupContext.Epoch <= x.group.Epoch():
		x.compare(gi)
	case x.gap || !x.trusted || x.policy.InfoTrustDS:
		x.rebase(gi)
	default:
		x.ahead = gi
	}
}

// useAhead bridges to a GroupInfo that was set aside, when a handshake of its
// epoch verifies over it, and says whether it did. Without one the
// GroupInfo stays aside: it may have overtaken its commit, and it must not
// replace a chain by itself.
func (x *step) useAhead(m *mlscore.MLSMessage) bool {
	gi := x.ahead
	if gi == nil || epochOf(m) != gi.GroupContext.Epoch {
		return false
	}
	g, err := x.fromInfo(gi)
	if err != nil {
		x.ahead = nil
		x.refuse(mlscore.Reason(err), "%v", err)
		return false
	}
	if staged, err := g.Stage(m); !needsAssociation(err) && (err != nil || !staged.Proves && !isCommit(m)) {
		return false
	}
	x.needInfo(x.missed(ReasonMissedCommits), fmt.Sprintf("bridged from epoch %d to %d", x.group.Epoch(), g.Epoch()))
	x.adopt(g)
	return true
}

// bridge uses a GroupInfo that came before its time, once it is sure that
// commits are missing.
func (x *step) bridge() {
	if gi := x.ahead; gi != nil && gi.GroupContext.Epoch > x.group.Epoch() {
		x.rebase(gi)
	}
}

// recall holds a GroupInfo that was set aside against the epochs that came to be
// known since.
func (x *step) recall() {
	gi := x.ahead
	if gi == nil || gi.GroupContext.Epoch > x.group.Epoch() {
		return
	}
	if !x.spokenFor(gi) && gi.GroupContext.Epoch == x.group.Epoch() && x.epochs != x.old.epochs {
		x.ahead = nil
		x.contradict(gi)
	}
}

// compare holds a GroupInfo of our epoch or an earlier one against what we have.
// Different, and signed by a member, we diverged; it is set aside until a member
// has spoken.
func (x *step) compare(gi *mlscore.GroupInfo) {
	if !x.spokenFor(gi) && gi.GroupContext.Epoch == x.group.Epoch() {
		x.contradict(gi)
	}
}

// spokenFor finds the epochs that a GroupInfo describes, if any: it proves them.
func (x *step) spokenFor(gi *mlscore.GroupInfo) bool {
	var spoken []hit
	if speaksFor(gi, x.group) {
		spoken = append(spoken, hit{epoch: x.head})
	}
	for n := range x.elsewhere(gi.GroupContext.Epoch) {
		if speaksFor(gi, n.group) {
			spoken = append(spoken, hit{epoch: n.id})
		}
	}
	if len(spoken) > 0 && x.trusted { // a base is not proven by a second GroupInfo
		x.spoken(spoken)
	}
	return len(spoken) > 0
}

// contradict reports a GroupInfo of the current epoch that is not ours.
func (x *step) contradict(gi *mlscore.GroupInfo) {
	leaf := x.group.Tree().Leaf(gi.Signer)
	if leaf == nil {
		x.refuse(mlscore.ErrInvalid.Error(), "a GroupInfo signed by leaf %d, which is blank or outside the tree", gi.Signer)
		return
	}
	if err := gi.VerifySignature(x.group.Suite(), leaf.SignatureKey); err != nil {
		x.refuse(mlscore.Reason(err), "%v", err)
		return
	}
	x.notify(Notice{Type: NoticeDiverged, Detail: fmt.Sprintf("leaf %d signed another GroupContext of this epoch, or another confirmation tag", gi.Signer)})
	if x.fork != nil || !x.trusted {
		x.ahead = gi
	}
}

// speaksFor says whether a member of an epoch signed a GroupInfo of it: of its
// GroupContext, and of its confirmation tag, on which the next epochs rest.
func speaksFor(gi *mlscore.GroupInfo, g *mlscore.PublicGroup) bool {
	leaf := g.Tree().Leaf(gi.Signer)
	return leaf != nil && bytes.Equal(gi.GroupContext.Append(nil), g.ContextBytes()) &&
		bytes.Equal(mlscore.InterimTranscriptHash(g.Suite(), gi.GroupContext.ConfirmedTranscriptHash, gi.ConfirmationTag), g.InterimTranscriptHash()) &&
		gi.VerifySignature(g.Suite(), leaf.SignatureKey) == nil
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
	return mlscore.NewPublicGroup(gi, nil, x.policy.options(x.in.Time))
}

// unixTime is a time as lifetimes are given in, 0 for none.
func unixTime(t time.Time) uint64 { return uint64(max(t.Unix(), 0)) }

// adopt makes a group the base.
func (x *step) adopt(g *mlscore.PublicGroup) {
	switch {
	case x.group == nil:
	case x.deleted: // another group under the same group_id
		x.departed = depart(departAll(x.departed, x.lives, x.group), x.lives, &change{
			before: g, after: g, added: others(g, mlscore.MaxLeaves),
		})
		x.ground = ground{nil, x.lives, x.departed, 0}
	case x.trusted:
		certain := x.certainEpoch()
		x.undo(g)
		x.ground = ground{x.group, x.lives, x.departed, certain}
	default: // nobody signed over the base before this one
		x.undo(g)
		x.lives, x.departed = x.ground.lives, x.ground.departed
	}
	x.gap, x.ahead, x.reset, x.closed, x.deleted, x.asked = false, nil, false, "", false, false
	x.trusted, x.doubted, x.isProven, x.fork = false, false, false, nil
	x.flag(Notice{Flags: g.Flags(), Epoch: g.Epoch(), Detail: "a GroupInfo"})
	x.enter(g, "")
	if x.policy.InfoTrustDS {
		x.prove(g.Epoch())
	}
	x.wake(nil, true)
}

// undo goes back to the last certain epoch where the next base contradicts what
// came since: a leaf that changed is there as it was. What changed it was a lie;
// or, if the leaf is of a KeyPackage, it was removed, and added again by a commit
// that was missed. In that doubt nobody is removed before an operator approves.
func (x *step) undo(base *mlscore.PublicGroup) {
	if x.fork == nil {
		return
	}
	stem := x.fork.nodes[0]
	var back, doubtful []mlscore.LeafIndex
	for index, leaf := range stem.group.Tree().All() {
		now := x.group.Tree().LeafBytes(index)
		if bytes.Equal(now, leaf.Bytes()) || !bytes.Equal(base.Tree().LeafBytes(index), leaf.Bytes()) {
			continue
		}
		back = append(back, index)
		if x.trusted && leaf.Source == mlscore.LeafNodeSourceKeyPackage { // else the whole base was invented
			doubtful = append(doubtful, index)
		}
	}
	if x.closed == "" && back == nil {
		return
	}
	x.turn(stem.id)
	for _, r := range slices.Clone(x.open) {
		if slices.ContainsFunc(r.targets(), func(leaf mlscore.LeafIndex) bool { return has(doubtful, leaf) }) {
			n := *r
			n.lostInGap = true
			x.put(&n)
		}
	}
}

// trust believes the base from now on, and takes what changed across the gap
// before it to the open intents.
func (x *step) trust() {
	if x.trusted {
		return
	}
	// What was verified over an earlier base has to be in this one, if nothing else.
	c := change{before: x.group, after: x.group}
	if before := x.ground.group; before != nil {
		c = changeAcrossGap(before, x.group)
	}
	if x.doubted && !x.gap {
		x.asked = false
	}
	x.trusted, x.ground = true, ground{}
	x.doubted, x.heard = false, trie[struct{}]{} // whatever contradicted it is refuted
	x.follow(&c, nil)
	x.wake(nil, true)
}
