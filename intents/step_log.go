package intents

import (
	"bytes"
	"crypto/sha256"
	"fmt"
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
	x.closed, x.gap, x.blocked = reason, false, nil
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
	sent, ok := x.readOutput(&out)
	if !ok {
		return
	}
	fresh := x.addOutput(out.Epoch, sent)
	messages := make([]*mlscore.MLSMessage, len(sent))
	for i, p := range sent {
		messages[i] = p.message
	}
	x.stageElsewhere(out.Epoch, messages)
	if x.group != nil && out.Epoch == x.group.Epoch() {
		x.stageOwn(messages)
		for _, p := range sent { // even one that cannot be staged is not due again
			x.takeOut(p.leaves, p.operation)
		}
	}
	if len(fresh) > 0 {
		x.notices = append(x.notices, Notice{Type: NoticeProposed, Epoch: out.Epoch, Leaves: fresh})
	}
}

// readOutput decodes the removals of an output.
func (x *step) readOutput(out *Output) (sent []sentProposal, ok bool) {
	for _, b := range out.Proposals {
		p := sentProposal{raw: b}
		m, err := parseRemoval(b, out.Epoch, x.policy)
		if err == nil {
			p.message = m
			p.leaves, p.operation, ok = x.readRemoval(m.PublicMessage.Content.Proposal)
		}
		if !ok {
			x.refuse(ReasonMalformed, "an output with %d bytes that are no removal for epoch %d", len(b), out.Epoch)
			return nil, false
		}
		sent, ok = append(sent, p), false
	}
	return sent, true
}

// parseRemoval decodes the message of a proposal of an epoch.
func parseRemoval(b []byte, epoch uint64, p *Policy) (*mlscore.MLSMessage, error) {
	m, err := mlscore.ParseMLSMessage(b, p.registry())
	if err != nil {
		return nil, err
	}
	if m.PublicMessage == nil || m.PublicMessage.Content.Proposal == nil || m.PublicMessage.Content.Epoch != epoch {
		return nil, fmt.Errorf("%w: no proposal for epoch %d", ErrMalformed, epoch)
	}
	return m, nil
}

// addOutput adds removals to what was sent out in an epoch and gives the
// leaves that are new there. A leaf may have two where the epoch has two lines
// with other external_senders.
func (x *step) addOutput(epoch uint64, sent []sentProposal) (fresh []mlscore.LeafIndex) {
	var n output
	if old := x.outputs[epoch]; old != nil {
		n = *old
	}
	for _, p := range sent {
		if has(n.leaves, p.leaves[0]) && slices.ContainsFunc(n.raw, func(b []byte) bool { return bytes.Equal(b, p.raw) }) {
			continue
		}
		for _, leaf := range p.leaves {
			if !has(n.leaves, leaf) && (x.group == nil || epoch != x.group.Epoch() || !has(x.out, leaf)) {
				fresh = with(fresh, leaf)
			}
			n.leaves = with(n.leaves, leaf)
		}
		n.raw = append(slices.Clip(n.raw), p.raw)
		n.messages = append(slices.Clip(n.messages), p.message)
	}
	outputs := make(map[uint64]*output, len(x.outputs)+1)
	for e, o := range x.outputs {
		outputs[e] = o
	}
	outputs[epoch] = &n
	x.outputs, x.sent = outputs, true
	return fresh
}

// removes gives the leaves that a pending proposal by a key of ours removes:
// what we sent out, or another holder of the key.
func (s *State) removes(g *mlscore.PublicGroup, p *mlscore.PendingProposal) (leaves []mlscore.LeafIndex, operation string, ok bool) {
	if p.Sender.Type != mlscore.SenderTypeExternal || p.Invalid != nil || !s.isOurs(g, p.Sender) {
		return nil, "", false
	}
	return s.readRemoval(p.Proposal)
}

// ours are the leaves whose removal by a key of ours is pending in an epoch,
// ascending, and the intents that are pending as LeafOperationProposals.
func (s *State) ours(g *mlscore.PublicGroup) (leaves []mlscore.LeafIndex, operations []string) {
	for p := range g.Proposals() {
		removed, operation, ok := s.removes(g, p)
		if !ok {
			continue
		}
		leaves = append(leaves, removed...)
		if operation != "" {
			operations = append(operations, operation)
		}
	}
	slices.Sort(leaves)
	return slices.Compact(leaves), operations
}

// takeOut notes what is out in this epoch.
func (x *step) takeOut(leaves []mlscore.LeafIndex, operation string) {
	for _, leaf := range leaves {
		if !has(x.out, leaf) {
			x.out, x.sent = with(x.out, leaf), true
		}
	}
	if operation != "" && !slices.Contains(x.operations, operation) {
		x.operations, x.sent = append(slices.Clip(x.operations), operation), true
	}
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
	x.answerBlocked(&answer)
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
		x.giveUp("an operator declared a gap")
		x.reset, x.gap = true, x.group != nil
		x.needInfo(ReasonReset, "an operator declared a gap")
	case OpExpire:
		x.unpark(c.Intent, c.Seq, outcome{state: StateExpired})
	case OpReject:
		// In another line the reference may not be overdue.
		if slices.ContainsFunc(x.parked, func(p *parkedIntent) bool { return p.id == c.Intent && x.lagged(p) }) {
			x.unpark(c.Intent, c.Seq, outcome{state: StateRejected, reason: ErrLeafRefMismatch.Error()})
		}
	case OpApprove:
		if known && (r.association != nil || r.lostInGap) && !isTerminal(r.state) {
			n := *r
			n.lostInGap = false
			if r.association != nil {
				n.association = r.association.approve()
			}
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
