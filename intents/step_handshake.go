package intents

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"leavebroker/mlscore"
)

// foldHandshake folds a proposal or a commit; what it is, its content says.
func (x *step) foldHandshake() {
	m, err := mlscore.ParseMLSMessage(x.in.Data, x.policy.registry())
	if err != nil {
		x.refuse(mlscore.Reason(err), "%v", err)
		return
	}
	heard := x.hasHeard(m)
	switch {
	case x.closed != "" && x.fork == nil:
		x.refuse(ReasonGroupClosed, "the group is closed: %s", x.closed)
		return
	case x.group == nil:
		x.needInfo(ReasonUnknownGroup, "a handshake of a group that no GroupInfo described")
		return
	}
	if isCommit(m) && epochOf(m) < x.group.Epoch() && x.isKnown(m) {
		return // delivered again
	}
	hits, err := x.stage(m)
	if x.block(err) {
		return
	}
	if len(hits) == 0 {
		x.refuseHandshake(m, heard, err)
		return
	}
	x.flagHandshake(m, hits[0].staged)
	if hits[0].staged.Proves {
		x.spoken(hits)
	}
	if hits[0].staged.Kind == mlscore.StagedProposal {
		x.receive(hits)
	} else {
		x.advance(hits)
	}
}

// hit is a handshake that verifies in an epoch.
type hit struct {
	epoch  int // its id in the fork; that of the State if there is none
	staged *mlscore.Staged
}

// stage judges a handshake in the State's epoch, and in those that may turn out
// to be true. The error is that of the State's, or that a commit which verifies
// elsewhere cannot be followed there.
func (x *step) stage(m *mlscore.MLSMessage) (hits []hit, err error) {
	staged, err := x.group.At(unixTime(x.in.Time)).StageWith(m, x.associatedWith)
	lost := errors.Is(err, mlscore.ErrAhead) || errors.Is(err, mlscore.ErrDiverged) && !x.trusted
	if lost && x.useAhead(m) {
		staged, err = x.group.At(unixTime(x.in.Time)).StageWith(m, x.associatedWith) // with our own proposals of that epoch
	}
	switch {
	case err == nil:
		hits = append(hits, hit{x.head, staged})
	case needsAssociation(err):
		return nil, err
	}
	for n := range x.elsewhere(epochOf(m)) {
		staged, elsewhere := n.group.StageWith(m, x.associatedIn(n.group))
		switch {
		case elsewhere == nil:
			hits = append(hits, hit{n.id, staged})
		case needsAssociation(elsewhere):
			err = fmt.Errorf("%w in another line", elsewhere)
		}
	}
	return hits, err
}

// receive takes a proposal into every epoch for which it was made.
func (x *step) receive(hits []hit) {
	for _, h := range hits {
		if h.epoch != x.head {
			if x.fork != nil && x.fork.at(h.epoch) != nil {
				x.fork = x.fork.withGroup(h.epoch, h.staged.Next())
			}
			continue
		}
		x.group = h.staged.Next()
		if leaves, operation, ours := x.removes(x.group, h.staged.Proposal); ours {
			x.takeOut(leaves, operation)
		}
	}
}

// refuseHandshake reports a handshake that was not staged, and a gap where it
// shows that we cannot follow.
func (x *step) refuseHandshake(m *mlscore.MLSMessage, heard bool, err error) {
	commit := isCommit(m)
	switch {
	case x.closed != "":
		x.refuse(ReasonGroupClosed, "the group is closed: %s", x.closed)
		return
	case !commit && m.PrivateMessage != nil:
		return // nothing is lost before a commit refers to it
	case errors.Is(err, mlscore.ErrDiverged):
		x.notify(Notice{Type: NoticeDiverged, Reason: mlscore.Reason(err), Detail: err.Error()})
		x.doubtBase(commit)
	case errors.Is(err, mlscore.ErrStale):
		x.refuse(mlscore.Reason(err), "%v", err)
		x.doubtBase(commit && !heard && epochOf(m)+1 < x.group.Epoch() && epochOf(m) >= x.ground.epoch)
	case commit && errors.Is(err, mlscore.ErrAhead):
		x.gap = true
		x.needInfo(x.missed(mlscore.Reason(err)), err.Error())
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
	x.misjudged = x.misjudged || commit && errors.Is(err, mlscore.ErrInvalid)
}

// missed is the reason why a GroupInfo is needed where a commit of a later epoch
// shows that we missed one: perhaps the one that we refused.
func (x *step) missed(otherwise string) string {
	if x.misjudged {
		return ReasonStricter
	}
	return otherwise
}

// doubtBase doubts a base that no member has signed over, when a commit
// contradicts it: another GroupInfo takes its place, whatever its epoch, unless a
// member signs over it before.
func (x *step) doubtBase(contradicted bool) {
	if contradicted && !x.trusted {
		x.doubted = true
		x.needInfo(ReasonUnproven, "a commit contradicts a base that no member has signed over")
	}
}

// maxHeard bounds the commits that are remembered until a member has signed over
// the base. What comes again beyond it may put the base in doubt.
const maxHeard = 1 << 10

// hasHeard says whether a commit came before, while no member had signed over a
// base, and remembers it: it is older than a base that came since, and does not
// contradict it.
func (x *step) hasHeard(m *mlscore.MLSMessage) bool {
	if x.trusted || !isCommit(m) {
		return false
	}
	sum := sha256.Sum256(x.in.Data)
	key := string(sum[:])
	if _, heard := x.heard.get(key); heard {
		return true
	}
	if x.heard.n < maxHeard {
		x.heard = x.heard.with(key, struct{}{})
	}
	return false
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

// isKnown says whether a commit was merged or kept.
func (x *step) isKnown(m *mlscore.MLSMessage) bool {
	if m.WireFormat != mlscore.WireFormatPublicMessage {
		return false
	}
	hash := commitHash(m.PublicMessage)
	if hash == x.lastCommit {
		return true
	}
	return x.fork != nil && (hash == x.fork.nodes[0].stem.lastCommit || slices.ContainsFunc(x.fork.nodes, func(n *node) bool { return n.commit == hash }))
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
	if x.ahead != nil && x.ahead.GroupContext.Epoch <= epoch {
		x.ahead = nil
	}
	x.trust()
}

// merge moves to the epoch that a commit begins, with the proposals that it
// has.
func (x *step) merge(staged *mlscore.Staged, next *mlscore.PublicGroup) {
	c := changeOfCommit(x.group, staged)
	sent := x.out
	if !x.reset { // an operator said that more is wrong than a commit can mend
		x.gap, x.asked = false, false
	}
	x.enter(next, c.commit)
	if x.trusted || x.ground.group == nil { // otherwise trust compares the trees
		x.follow(&c, sent)
	}
	if x.group.Closed() {
		x.close("reinit", x.group.Epoch())
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
	x.out, x.operations = x.ours(x.group)
}

// over says whether an epoch is over for good. While the base or a commit may
// be false, the group may turn out to be in an earlier epoch than ours.
func (s *State) over(epoch uint64) bool {
	return s.trusted && s.group != nil && epoch < s.certainEpoch()
}

// certainEpoch is the last epoch that cannot turn out to be false, if the base is
// trusted.
func (s *State) certainEpoch() uint64 {
	if s.fork != nil {
		return s.fork.nodes[0].group.Epoch()
	}
	return s.group.Epoch()
}

// stageOwn puts proposals of ours into the current epoch, so that a commit may
// refer to them.
func (x *step) stageOwn(messages []*mlscore.MLSMessage) {
	for _, m := range messages {
		var err error
		if x.group, err = withProposal(x.group, m); err != nil {
			x.refuse(mlscore.Reason(err), "our own proposal: %v", err)
		}
	}
}

// withProposal puts a proposal into an epoch, if it verifies and is not there.
func withProposal(g *mlscore.PublicGroup, m *mlscore.MLSMessage) (*mlscore.PublicGroup, error) {
	if g.Proposal(m.PublicMessage.ProposalRef(g.Suite())) != nil {
		return g, nil
	}
	staged, err := g.Stage(m)
	if err != nil {
		return g, err
	}
	return staged.Next(), nil
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
	if !r.senderGone && !c.kept(index, r.leaf) {
		survives, reason := c.survives(r, x.policy)
		switch {
		case survives:
			n.leaf = c.after.Tree().Leaf(index)
		case !has(c.removed, index) || c.cameBack(index, r.leaf):
			x.end(&n, outcome{StateSuperseded, reason, c.after.Epoch()}, r.targets())
			return
		default:
			n.senderGone = true
			n.lostInGap = r.association != nil && c.after.Epoch() > c.before.Epoch()+1
			n.lose(c, index)
		}
		changed = true
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
	x.end(r, outcome{StateRemoved, reason, x.group.Epoch()}, r.gone) // of an answer, the epoch in which it counts
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
