package intents

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"leavebroker/mlscore"
)

// commitHash names a commit: SHA-256 of its AuthenticatedContent, as hex.
func commitHash(m *mlscore.PublicMessage) string {
	sum := sha256.Sum256(m.AuthenticatedContent.Append(nil))
	return hexOf(sum[:])
}

func (x *step) foldClosed() {
	var closed Closed
	if err := decodeJSON(x.in.Data, &closed); err != nil {
		x.refuse(ReasonMalformed, "%v", err)
		return
	}
	if closed.Reason == "" {
		closed.Reason = "closed"
	}
	x.deleted, x.fork = true, nil
	x.close(closed.Reason, 0)
	x.unsettled = nil // nobody will sign any more
}

// close ends every open intent: nothing follows in this group. The notices
// name the leaves that stay. The epoch is that of a commit that says so; 0 for
// none.
func (x *step) close(reason string, epoch uint64) {
	x.closed, x.gap = reason, false
	end := outcome{StateRejected, ReasonGroupClosed, epoch}
	for _, r := range slices.Clone(x.open) {
		x.end(r, end, r.targets())
	}
	parked := x.parked
	x.parked, x.ownsParked = nil, true
	for _, p := range parked {
		if r, known := x.records.get(p.id); known && r.state == StateParked {
			x.end(r, end, nil)
		}
	}
}

// foldRemoval notes what the broker sent out. It is a fact whenever it is
// learned: for an epoch that is over it says nothing any more, for a later one
// it waits.
func (x *step) foldRemoval() {
	var out Output
	if err := decodeJSON(x.in.Data, &out); err != nil {
		x.refuse(ReasonMalformed, "%v", err)
		return
	}
	if !bytes.Equal(out.GroupID, x.groupID) {
		x.refuse(ErrGroupMismatch.Error(), "an output for group %x", out.GroupID)
		return
	}
	if x.over(out.Epoch) {
		return
	}
	messages, leaves, ok := x.readOutput(&out)
	if !ok {
		return
	}
	fresh := x.addOutput(out.Epoch, out.Proposals, messages, leaves)
	x.stageElsewhere(out.Epoch, messages)
	if x.group != nil && out.Epoch == x.group.Epoch() {
		x.stageOwn(messages)
		for _, leaf := range leaves { // even one that cannot be staged is not due again
			x.out = with(x.out, leaf)
		}
	}
	if len(fresh) > 0 {
		x.notices = append(x.notices, Notice{Type: NoticeProposed, Epoch: out.Epoch, Leaves: fresh})
	}
}

// readOutput decodes the removals of an output, ascending by leaf.
func (x *step) readOutput(out *Output) (messages []*mlscore.MLSMessage, leaves []mlscore.LeafIndex, ok bool) {
	for _, b := range out.Proposals {
		m, err := mlscore.ParseMLSMessage(b, x.policy.registry())
		if err != nil || m.PublicMessage == nil || m.PublicMessage.Content.Proposal == nil ||
			m.PublicMessage.Content.Proposal.Type != mlscore.ProposalTypeRemove || m.PublicMessage.Content.Epoch != out.Epoch {
			x.refuse(ReasonMalformed, "an output with %d bytes that are no Remove for epoch %d", len(b), out.Epoch)
			return nil, nil, false
		}
		messages = append(messages, m)
		leaves = append(leaves, m.PublicMessage.Content.Proposal.Removed)
	}
	return messages, leaves, true
}

// addOutput adds removals to what was sent out in an epoch and gives the
// leaves that are new there. A leaf may have two where the epoch has two lines
// with other external_senders.
func (x *step) addOutput(epoch uint64, raw [][]byte, messages []*mlscore.MLSMessage, leaves []mlscore.LeafIndex) (fresh []mlscore.LeafIndex) {
	var n output
	if old := x.outputs[epoch]; old != nil {
		n = *old
	}
	for i, leaf := range leaves {
		known := has(n.leaves, leaf)
		if known && slices.ContainsFunc(n.raw, func(b []byte) bool { return bytes.Equal(b, raw[i]) }) {
			continue
		}
		n.leaves = with(n.leaves, leaf)
		n.raw = append(slices.Clip(n.raw), raw[i])
		n.messages = append(slices.Clip(n.messages), messages[i])
		if !known && (x.group == nil || epoch != x.group.Epoch() || !has(x.out, leaf)) {
			fresh = with(fresh, leaf)
		}
	}
	outputs := make(map[uint64]*output, len(x.outputs)+1)
	for e, o := range x.outputs {
		outputs[e] = o
	}
	outputs[epoch] = &n
	x.outputs, x.sent = outputs, true
	return fresh
}

// removes gives the leaf that a pending proposal by a key of ours removes: what
// we sent out, or another holder of the key.
func (s *State) removes(g *mlscore.PublicGroup, p *mlscore.PendingProposal) (mlscore.LeafIndex, bool) {
	ok := p.Sender.Type == mlscore.SenderTypeExternal && p.Proposal.Type == mlscore.ProposalTypeRemove && p.Invalid == nil && s.isOurs(g, p.Sender)
	return p.Proposal.Removed, ok
}

// ours are the leaves whose removal by a key of ours is pending in an epoch,
// ascending.
func (s *State) ours(g *mlscore.PublicGroup) []mlscore.LeafIndex {
	var list []mlscore.LeafIndex
	for p := range g.Proposals() {
		if leaf, ok := s.removes(g, p); ok {
			list = append(list, leaf)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// isOurs says whether an external sender has a key of ours.
func (s *State) isOurs(g *mlscore.PublicGroup, sender mlscore.Sender) bool {
	senders := g.ExternalSenders()
	return sender.SenderIndex < uint32(len(senders)) && slices.ContainsFunc(s.policy.SenderKeys, func(key []byte) bool {
		return bytes.Equal(key, senders[sender.SenderIndex].SignatureKey)
	})
}

func (x *step) foldAnswer() {
	var answer Answer
	if err := decodeJSON(x.in.Data, &answer); err != nil {
		x.refuse(ReasonMalformed, "%v", err)
		return
	}
	switch answer.Status {
	case StatusResolved, StatusUnknown, StatusError:
	default:
		x.refuse(ReasonMalformed, "an answer with status %q", answer.Status)
		return
	}
	r, known := x.records.get(answer.Intent)
	if !known || r.association == nil || isTerminal(r.state) || x.group == nil || answer.Epoch > x.group.Epoch() {
		return // too late, or for what was forgotten
	}
	if answer.Position < x.turned && answer.Epoch > x.turnedFrom {
		return // about the leaves of another line
	}
	n := *r
	n.association = r.association.apply(&answer, x.policy, x.group, r.intent.SenderIndex, x.lives)
	n.senderOnly = answer.Status != StatusResolved && x.policy.OnError == OnErrorSenderOnly
	x.settle(&n)
}

func (x *step) foldControl() {
	var c Control
	if err := decodeJSON(x.in.Data, &c); err != nil {
		x.refuse(ReasonMalformed, "%v", err)
		return
	}
	r, known := x.records.get(c.Intent)
	switch c.Op {
	case OpReset:
		x.reset, x.gap = true, x.group != nil
		x.needInfo("reset", "an operator declared a gap")
	case OpExpire:
		x.unpark(c.Intent, c.Seq, outcome{state: StateExpired})
	case OpReject:
		x.unpark(c.Intent, c.Seq, outcome{state: StateRejected, reason: ErrLeafRefMismatch.Error()})
	case OpApprove:
		if known && r.association != nil && !isTerminal(r.state) {
			n := *r
			n.association, n.lostInGap = r.association.approve(), false
			x.settle(&n)
		}
	case OpCancel:
		switch {
		case known && r.state == StateParked:
			x.unpark(c.Intent, 0, outcome{state: StateCancelled})
		case known && !isTerminal(r.state):
			x.end(r, outcome{state: StateCancelled}, r.targets())
		}
	default:
		x.refuse(ReasonMalformed, "a control %q", c.Op)
	}
}
