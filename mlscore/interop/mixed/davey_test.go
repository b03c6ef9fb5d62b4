package mixed

import (
	"encoding/binary"
	"fmt"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/stack"
)

// TestDavey plays leaving in a group of Discord's DAVE: P-256, and the daemon's
// key is that of its only external sender, whose Adds and Removes are all the
// proposals that there are. The Adds are the test's. As davey describes no
// group, one member is ours: its GroupInfo is where trackers begin.
func TestDavey(t *testing.T) {
	interoperate(t)
	driver(t, stack.Davey)
	w := newWorld(t, newHouse(t), worldForm{stacks: []string{stack.Davey, stack.Ours}, suite: 2})
	c := &channel{world: w, davey: w.stacks[0], ours: w.stacks[1]}
	c.open()

	// The daemon acts when a member has signed over the group that it was told of.
	c.commitAdds(c.peers[0], c.user(c.davey))

	// A member leaves and vanishes; a member of davey commits.
	leaver := c.peers[1]
	leaf := c.leaf(leaver)
	id := c.leave(leaver, intents.SenderRemovalOnly)
	c.awaitRemovals(leaf)
	c.gone(c.commitPending(c.peers[0]), leaf)
	c.awaitState(id, "removed", false)
	c.confirmed(c.foreign, id)

	// A commit of Adds has no path in DAVE: who leaves and commits one has the
	// leaf still, and is proposed again. Then it commits nothing while it is
	// proposed itself.
	leaver = c.peers[0]
	leaf = c.leaf(leaver)
	id = c.submit(c.sign(leaver, intents.SenderRemovalOnly)).ID
	c.awaitState(id, "pending", false)
	c.commitAdds(leaver, c.user(c.davey))
	c.awaitRemovals(leaf)
	if _, err := leaver.Commit(stack.CommitOptions{ByReference: true}); err == nil {
		t.Error("a member of davey commits its own removal")
	}
	c.gone(c.commitPending(c.peers[1]), leaf)
	c.awaitState(id, "removed", false)
	c.confirmed(c.foreign, id)

	// Two at once, and an Add beside them, in one commit.
	leavers := []*peer{c.peers[0], c.foreign}
	leaves := []mlscore.LeafIndex{c.leaf(leavers[0]), c.leaf(leavers[1])}
	if leaves[0] > leaves[1] {
		leaves[0], leaves[1] = leaves[1], leaves[0]
	}
	for _, p := range leavers {
		c.leave(p, intents.SenderRemovalOnly)
	}
	c.awaitRemovals(leaves...)
	c.gone(c.commitAdds(c.peers[0], c.user(c.davey)), leaves...)
}

// channel is a group of DAVE.
type channel struct {
	*world
	davey, ours stack.Stack
	foreign     *peer // of our stack
	users       uint64
}

func (c *channel) number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// user makes a client with a user id as its identity.
func (c *channel) user(s stack.Stack) *peer {
	c.Helper()
	c.users++
	o := stack.MemberOptions{Suite: c.suite.ID, Identity: c.number(c.users)}
	if s == c.davey {
		o.GroupID, o.ExternalSenders = c.id, c.senders
	}
	m := got[stack.Member](c.world)(s.NewMember(o))
	return &peer{m, fmt.Sprint("user ", c.users), s.Hello().Stack, m.Keys().Public}
}

// open makes the group: its creator adds three more of davey and the foreign
// member, which describes it.
func (c *channel) open() {
	c.Helper()
	c.id = c.number(77)
	creator := c.user(c.davey)
	c.check(creator.Create(c.id, stack.Context{ExternalSenders: c.senders}))
	joiners := []*peer{c.user(c.davey), c.user(c.davey), c.user(c.davey), c.user(c.ours)}
	for _, p := range joiners {
		got[*stack.Processed](c.world)(creator.Process(c.add(p)))
	}
	made := got[*stack.Commit](c.world)(creator.Commit(stack.CommitOptions{ByReference: true}))
	c.check(creator.Confirm())
	for _, p := range joiners {
		c.check(p.Join(made.Welcome))
	}
	c.foreign = joiners[3]
	c.peers = append([]*peer{creator}, joiners...)
	info := got[[]byte](c.world)(c.foreign.GroupInfo())
	c.deliver("info", info)
	c.public = got[*stack.Public](c.world)(stack.NewPublic(info, c.reg, nil))
	c.agree()
}

// add is an Add by the external sender, in the present epoch.
func (c *channel) add(p *peer) []byte {
	c.Helper()
	m := got[*mlscore.MLSMessage](c.world)(mlscore.ParseMLSMessage(got[[]byte](c.world)(p.KeyPackage()), nil))
	a := mlscore.AuthenticatedContent{WireFormat: mlscore.WireFormatPublicMessage, Content: mlscore.FramedContent{
		GroupID: c.id, Epoch: c.epoch(), ContentType: mlscore.ContentTypeProposal, Sender: mlscore.Sender{Type: mlscore.SenderTypeExternal},
		Proposal: &mlscore.Proposal{Type: mlscore.ProposalTypeAdd, KeyPackage: m.KeyPackage},
	}}
	c.check(a.Sign(c.house.signers[c.suite.Signature], nil))
	message := mlscore.MLSMessage{WireFormat: a.WireFormat, PublicMessage: &mlscore.PublicMessage{AuthenticatedContent: a}}
	return message.Bytes()
}

// commitAdds lets a member commit the Adds of clients, and what is proposed
// beside them.
func (c *channel) commitAdds(by *peer, joiners ...*peer) *mlscore.Staged {
	c.Helper()
	for _, p := range joiners {
		message := c.add(p)
		c.deliver("proposal", message)
		c.spread(nil, message)
	}
	return c.commit(by, stack.CommitOptions{ByReference: true}, joiners...)
}
