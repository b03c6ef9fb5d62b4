package intents

import (
	"errors"
	"fmt"
	"slices"

	"leavebroker/mlscore"
)

// foldHandshake folds a proposal or a commit; what it is, its content says.
func (x *step) foldHandshake() {
	m, err := mlscore.ParseMLSMessage(x.in.Data, x.policy.registry())
	switch {
	case err != nil:
		x.refuse(mlscore.Reason(err), "%v", err)
		return
	case x.closed != "":
		x.refuse(ReasonGroupClosed, "the group is closed: %s", x.closed)
		return
	case x.group == nil:
		x.needInfo(ReasonUnknownGroup, "a handshake of a group that no GroupInfo described")
		return
	}
	staged, err := x.group.Stage(m)
	if errors.Is(err, mlscore.ErrAhead) {
		if bridged, ok := x.useAhead(m); ok {
			staged, err = bridged, nil
		}
	}
	if err != nil {
		x.refuseHandshake(m, err)
		return
	}
	if staged.Proves {
		x.prove(x.group.Epoch())
	}
	if staged.Kind == mlscore.StagedProposal {
		x.group = staged.Next()
		x.claim(staged.Proposal)
		return
	}
	x.merge(staged)
}

// refuseHandshake reports a handshake that was not staged, and a gap where it
// shows that we cannot follow.
func (x *step) refuseHandshake(m *mlscore.MLSMessage, err error) {
	commit := isCommit(m)
	switch {
	case errors.Is(err, mlscore.ErrStale) && commit && x.isLastCommit(m):
		return // delivered again
	case !commit && m.PrivateMessage != nil:
		return // nothing is lost before a commit refers to it
	case errors.Is(err, mlscore.ErrDiverged):
		x.notify(Notice{Type: NoticeDiverged, Reason: mlscore.Reason(err), Detail: err.Error()})
		x.doubtBase(commit)
	case errors.Is(err, mlscore.ErrStale):
		x.refuse(mlscore.Reason(err), "%v", err)
		x.doubtBase(commit && epochOf(m)+1 < x.group.Epoch())
	case commit && errors.Is(err, mlscore.ErrAhead):
		reason := mlscore.Reason(err)
		if x.misjudged {
			reason = "stricter_than_members"
		}
		x.gap = true
		x.needInfo(reason, err.Error())
		x.bridge()
		return
	case commit && errors.Is(err, mlscore.ErrUnresolvable):
		x.gap = true
		x.needInfo(mlscore.Reason(err), err.Error())
		x.bridge()
		return
	default:
		x.refuse(mlscore.Reason(err), "%v", err)
	}
	x.misjudged = x.misjudged || commit && !errors.Is(err, mlscore.ErrStale)
}

// doubtBase gives up a base that no member has signed over, when a commit
// contradicts it: the next GroupInfo takes its place.
func (x *step) doubtBase(contradicted bool) {
	if contradicted && !x.trusted {
		x.gap, x.reset = true, true
		x.needInfo(ReasonUnproven, "a commit contradicts a base that no member has signed over")
	}
}

func epochOf(m *mlscore.MLSMessage) uint64 {
	switch m.WireFormat {
	case mlscore.WireFormatPublicMessage:
		return m.PublicMessage.Content.Epoch
	case mlscore.WireFormatPrivateMessage:
		return m.PrivateMessage.Epoch
	}
	return 0
}

func isCommit(m *mlscore.MLSMessage) bool {
	switch m.WireFormat {
	case mlscore.WireFormatPublicMessage:
		return m.PublicMessage.Content.ContentType == mlscore.ContentTypeCommit
	case mlscore.WireFormatPrivateMessage:
		return m.PrivateMessage.ContentType == mlscore.ContentTypeCommit
	}
	return false
}

func (x *step) isLastCommit(m *mlscore.MLSMessage) bool {
	return m.WireFormat == mlscore.WireFormatPublicMessage && commitHash(m.PublicMessage) == x.lastCommit
}

// needInfo reports, once until a GroupInfo comes, that we need one.
func (x *step) needInfo(reason, detail string) {
	if !x.asked {
		x.notify(Notice{Type: NoticeNeedsGroupInfo, Reason: reason, Detail: detail})
	}
	x.asked = true
}

// prove notes that a member has signed over an epoch.
func (x *step) prove(epoch uint64) {
	if !x.isProven || epoch > x.proven {
		x.proven, x.isProven = epoch, true
	}
	x.previous = nil
	x.trust()
}

// merge moves to the epoch that a commit begins.
func (x *step) merge(staged *mlscore.Staged) {
	before := *x.State
	before.previous = nil
	c := changeOfCommit(x.group, staged)
	x.gap, x.asked = false, false
	x.enter(c.after, c.commit)
	x.compareAhead()
	if x.doubtFrom == nil { // otherwise trust compares the trees
		var sent []mlscore.LeafIndex
		if out := before.outputs[c.before.Epoch()]; out != nil {
			sent = out.leaves
		}
		x.follow(&c, sent)
	}
	x.previous = &before
	if x.group.Closed() {
		x.close("reinit")
		return
	}
	x.wake(slices.Sorted(slices.Values(slices.Concat(c.updated, c.added))), false)
}

// enter makes a group of another epoch the current one, and puts into it what
// we sent out for that epoch.
func (x *step) enter(g *mlscore.PublicGroup, commit string) {
	x.group, x.lastCommit, x.misjudged = g, commit, false
	x.epochs++
	x.epochBegan = x.in.Time
	outputs := make(map[uint64]*output)
	for epoch, out := range x.outputs {
		if !x.over(epoch) {
			outputs[epoch] = out
		}
	}
	x.outputs = outputs
	if out := outputs[g.Epoch()]; out != nil {
		x.stageOwn(out.messages)
	}
}

// over says whether an epoch cannot be the current one any more. While the
// base may be false, the group may turn out to be in an earlier epoch.
func (s *State) over(epoch uint64) bool {
	return s.trusted && s.group != nil && epoch < s.group.Epoch()
}

// stageOwn puts proposals of ours into the current epoch, so that a commit may
// refer to them.
func (x *step) stageOwn(messages []*mlscore.MLSMessage) {
	for _, m := range messages {
		staged, err := x.group.Stage(m)
		if err != nil {
			x.refuse(mlscore.Reason(err), "our own proposal: %v", err)
			continue
		}
		x.group = staged.Next()
	}
}

// follow takes a change to the lives, the departed references and the open
// intents. Sent are the leaves whose removal was out when the change came.
func (x *step) follow(c *change, sent []mlscore.LeafIndex) {
	x.departed = depart(x.departed, x.lives, c)
	x.lives = live(x.lives, c)
	for _, r := range slices.Clone(x.open) {
		x.followRecord(r, c, sent)
	}
}

// followRecord takes a change to one open intent.
func (x *step) followRecord(r *record, c *change, sent []mlscore.LeafIndex) {
	n := *r
	index, changed := r.intent.SenderIndex, false
	if !r.senderGone && !c.kept(index, r.sender) {
		if !has(c.removed, index) || c.cameBack(index, r.sender) {
			x.end(&n, outcome{StateSuperseded, ""}, r.targets())
			return
		}
		n.senderGone, changed = true, true
		n.lostInGap = r.association != nil && c.after.Epoch() > c.before.Epoch()+1
		n.lose(c, index)
	}
	if r.association != nil {
		var left []mlscore.LeafIndex
		n.association, left = r.association.follow(c, index)
		n.lose(c, left...)
		changed = true
	}
	if x.countLeftOut(&n, c, sent) || changed {
		x.settle(&n)
	}
}

// lose notes targets that left.
func (r *record) lose(c *change, leaves ...mlscore.LeafIndex) {
	if len(leaves) == 0 {
		return
	}
	r.gone = append(slices.Clone(r.gone), leaves...)
	r.removedEpoch, r.commit = c.after.Epoch(), c.commit
	r.leftOut, r.committers = 0, nil
}

// settle stores a record, and ends it if nothing remains to be done.
func (x *step) settle(r *record) {
	if !r.done() {
		x.put(r)
		return
	}
	reason := ""
	if r.commit == "" {
		reason = ReasonGap
	}
	x.end(r, outcome{StateRemoved, reason}, r.gone)
}

// countLeftOut counts the epochs that ended without a removal we had proposed,
// and says whether this is one.
func (x *step) countLeftOut(r *record, c *change, sent []mlscore.LeafIndex) bool {
	if c.acrossGap() || !slices.ContainsFunc(r.targets(), func(leaf mlscore.LeafIndex) bool { return has(sent, leaf) }) {
		return false
	}
	r.leftOut++
	r.committers = append(slices.Clone(r.committers), c.committer)
	if x.policy.StalledAfter == 0 || r.leftOut%x.policy.StalledAfter != 0 {
		return true
	}
	x.notify(Notice{
		Type: NoticeStalled, Intent: r.id, Leaves: r.committers,
		Detail: fmt.Sprintf("%d epochs ended without the proposed removal", r.leftOut),
	})
	r.committers = nil
	return true
}
