package broker

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// act plays one thing that somebody does.
func (a *author) act() {
	acts := []func(){
		func() { a.leave(a.anyone(), 0) },
		func() { a.leave(a.anyone(), 0) },
		func() { a.leave(a.anyone(), 1) },
		a.ours, a.ours,
		a.empty,
		a.add,
		a.remove,
		a.fillPlace,
		a.comeBack, a.comeBack,
		a.burst,
		func() { a.join(a.anyone()) }, // perhaps of the leaver
		a.update,
		a.selfRemove,
		a.replace,
		a.noise,
		a.info,
	}
	if a.script.hostile {
		acts = append(acts, a.lie, a.lie, a.lateLie, a.falseGroup, a.falseGroup, a.forgeInfo, a.speak, a.speak)
	}
	acts[a.random.IntN(len(acts))]()
	if len(a.drawer) > 0 && a.random.IntN(3) == 0 {
		a.publish(a.drawer[0])
		a.drawer = a.drawer[1:]
	}
}

// finish ends a script so that the truth is known, with everything that can be
// replayed replayed.
func (a *author) finish() {
	for _, h := range a.drawer {
		a.publish(h)
	}
	lossy, hostile := a.script.lossy, a.script.hostile
	a.script.lossy, a.script.hostile = false, false // nothing goes wrong any more
	if lossy || !a.based {
		for range 2 {
			a.info()
			a.empty()
			a.empty()
		}
	}
	a.speak()
	a.decide()
	for _, s := range slices.Clone(a.script.steps) {
		if s.kind == kindIntent {
			a.say(kindIntent, s.data, "replayed: %s", s.text)
		}
	}
	a.speak()
	a.script.lossy, a.script.hostile = lossy, hostile
}

// speak has members sign until every lie is refuted.
func (a *author) speak() {
	for {
		epoch := a.epoch()
		a.commitAs(stayer)
		if epoch >= a.until {
			return
		}
	}
}

func (a *author) commitAs(name string) {
	epoch := a.epoch()
	c := a.propose(name, member.CommitOptions{References: [][]byte{}})
	a.accept(name, c, nil)
	a.signed(epoch)
	a.say(kindCommit, c.Message, "%s commits nothing", name)
}

func (a *author) add() {
	name := a.newName()
	a.commit(a.committer(), member.CommitOptions{References: [][]byte{}, Proposals: a.adds([]string{name})}, []string{name}, " an Add of %s", name)
}

// comeBack adds one who left, by the same KeyPackage; then an old intent of that
// leaf is replayed. If no member signs over the removal first, a GroupInfo that has
// the leaf again looks like one that refutes the removal: the intent may be held,
// and only an operator can tell.
func (a *author) comeBack() {
	if len(a.departed) == 0 {
		a.leaveAsAdded()
	}
	if len(a.departed) == 0 || !a.sure() {
		return
	}
	name := a.departed[len(a.departed)-1]
	a.departed = a.departed[:len(a.departed)-1]
	if a.members[name] != nil {
		return
	}
	if a.random.IntN(2) == 0 {
		if a.commitAs(stayer); !a.sure() {
			return
		}
	} else {
		for _, w := range a.script.wishes {
			w.doubtful = w.doubtful || w.seat.key == string(a.client(name).Signer.PublicKey())
		}
		if a.script.lossy && a.random.IntN(2) == 0 {
			a.comeBackUnseen(name)
			return
		}
	}
	a.commit(a.committer(), member.CommitOptions{References: [][]byte{}, Proposals: a.adds([]string{name})}, []string{name},
		" an Add of %s by the KeyPackage that was used before", name)
	a.replayIntents(name)
}

// comeBackUnseen adds one who left by a commit that the log does not have, and
// that a GroupInfo shows.
func (a *author) comeBackUnseen(name string) {
	c := a.propose(stayer, member.CommitOptions{References: [][]byte{}, Proposals: a.adds([]string{name})})
	a.accept(stayer, c, []string{name})
	a.based, a.proven = false, false
	a.info()
	a.commitAs(stayer)
	a.replayIntents(name)
}

func (a *author) replayIntents(name string) {
	for _, s := range slices.Clone(a.script.steps) {
		if s.kind == kindIntent && strings.Contains(s.text, name+" (leaf") {
			a.say(kindIntent, s.data, "replayed: %s", s.text)
		}
	}
}

// decide has an operator cancel what is over, if it is held since its leaf came
// back.
func (a *author) decide() {
	for _, w := range a.script.wishes {
		if w.follow(a.script.rosters); !w.doubtful || w.reused || w.fates[a.epoch()].pending {
			continue
		}
		w.decided = len(a.script.steps)
		a.say(kindControl, must[[]byte](a.t)(json.Marshal(intents.Control{Op: intents.OpCancel, Intent: w.id, By: "operator"})),
			"an operator cancels intent %s", short(w.id))
	}
}

// leaveAsAdded has one leave whose leaf is still that of its KeyPackage.
func (a *author) leaveAsAdded() {
	for _, name := range a.sorted() {
		k, g := a.keys[name], a.members[name]
		if k != nil && bytes.Equal(k.LeafNode.Bytes(), g.Public().Tree().LeafBytes(g.OwnLeaf())) {
			a.leave(name, 0)
			a.ours()
			return
		}
	}
}

func (a *author) remove() {
	victim := a.anyone()
	leaf := a.members[victim].OwnLeaf()
	a.commit(a.committerBut([]mlscore.LeafIndex{leaf}), member.CommitOptions{References: [][]byte{}, Proposals: []*mlscore.Proposal{member.Remove(leaf)}}, nil,
		" a Remove of %s (leaf %d)", victim, leaf)
}

// fillPlace removes a member and gives the place to another.
func (a *author) fillPlace() {
	victim, name := a.anyone(), a.newName()
	leaf := a.members[victim].OwnLeaf()
	o := member.CommitOptions{References: [][]byte{}, Proposals: append(a.adds([]string{name}), member.Remove(leaf))}
	a.commit(a.committerBut([]mlscore.LeafIndex{leaf}), o, []string{name}, " a Remove of %s (leaf %d) and an Add of %s", victim, leaf, name)
}

func (a *author) burst() {
	for range 1 + a.random.IntN(4) {
		a.join("")
	}
}

// handshake publishes a proposal of a member.
func (a *author) handshake(name string, message []byte, what string) {
	a.deliver(message, name)
	a.signed(a.epoch())
	a.say(kindProposal, message, "%s proposes %s", name, what)
}

func (a *author) update() {
	name := a.anyone()
	a.handshake(name, must[[]byte](a.t)(a.members[name].ProposeUpdate(nil)), "an Update")
}

func (a *author) selfRemove() {
	name := a.anyone()
	leaf := a.members[name].OwnLeaf()
	if slices.Contains(a.leaving, leaf) || !a.based {
		return
	}
	message := must[[]byte](a.t)(a.members[name].Propose(mlscore.NewSelfRemove(mlscore.DefaultRegistry())))
	a.leaving = append(a.leaving, leaf)
	a.handshake(name, message, "a SelfRemove")
}

// replace proposes for another's leaf one that its owner signed.
func (a *author) replace() {
	owner, by := a.anyone(), a.committer()
	if owner == by {
		return
	}
	update := must[[]byte](a.t)(a.members[owner].ProposeUpdate(nil))
	m := must[*mlscore.MLSMessage](a.t)(mlscore.ParseMLSMessage(update, nil))
	p := mlscore.NewReplace(mlscore.DefaultRegistry(), a.members[owner].OwnLeaf(), m.PublicMessage.Content.Proposal.LeafNode)
	a.handshake(by, must[[]byte](a.t)(a.members[by].Propose(p)), "a Replace of "+owner)
}

// noise publishes what nobody can use.
func (a *author) noise() {
	g := a.members[a.anyone()]
	leaf := g.OwnLeaf()
	in := must[*intents.LeafOperationIntent](a.t)(intents.New(g.Client().Signer, a.suite, simGroup, leaf, g.Public().Tree().Leaf(leaf), intents.SenderRemovalOnly))
	switch a.random.IntN(6) {
	case 0:
		in.GroupID = []byte("another group")
		a.say(kindIntent, in.Message(intents.DefaultWireFormat), "an intent for another group")
	case 1:
		in.Signature = bytes.Clone(in.Signature)
		in.Signature[0] ^= 1
		a.say(kindIntent, in.Message(intents.DefaultWireFormat), "an intent in the name of leaf %d with a wrong signature", leaf)
	case 2:
		in.RemovalMode = 9
		a.say(kindIntent, in.Message(intents.DefaultWireFormat), "an intent with an undefined mode")
	case 3:
		a.say(kindIntent, []byte("hello"), "an intent that is none")
	case 4:
		a.say(kindCommit, []byte("hello"), "a commit that is none")
	case 5:
		a.say(kindInfo, nil, "an empty GroupInfo")
	}
}

// lied notes a lie: the leaves that it pretends, and the epoch in which a member
// has to sign to refute it.
func (a *author) lied(until uint64, g *mlscore.PublicGroup) {
	a.doubt, a.until = true, max(a.until, until)
	if g != nil {
		a.script.lies[g.Epoch()] = append(a.script.lies[g.Epoch()], rosterOf(g, nil))
	}
}

// lieOf is a commit of a member whose tag is wrong, and the epoch it pretends.
func (a *author) lieOf(g *member.Group) (message []byte, pretended *mlscore.PublicGroup, text string) {
	o := member.CommitOptions{References: [][]byte{}}
	victim, name := a.members[a.anyone()].OwnLeaf(), a.newName()
	switch a.random.IntN(4) {
	case 0:
		text = "nothing"
	case 1:
		o.Proposals, text = a.adds([]string{name}), "an Add of "+name
	case 2:
		if victim != g.OwnLeaf() {
			o.Proposals, text = append(a.adds([]string{name}), member.Remove(victim)), "a removal whose place it fills with "+name
		}
	case 3:
		o.Proposals, text = []*mlscore.Proposal{member.ReInit(mlscore.ReInit{
			GroupID: []byte("next"), Version: mlscore.ProtocolVersionMLS10, CipherSuite: testSuiteID,
		})}, "a ReInit"
	}
	client := g.Client()
	client.Mutate = &member.Mutate{Auth: func(c *mlscore.AuthenticatedContent) {
		c.ConfirmationTag = bytes.Clone(c.ConfirmationTag)
		c.ConfirmationTag[0] ^= 1
	}}
	defer func() { client.Mutate = nil }()
	message = must[*member.Commit](a.t)(g.Commit(o)).Message
	return message, a.stage(g.Public(), message), text
}

func (a *author) stage(g *mlscore.PublicGroup, message []byte) *mlscore.PublicGroup {
	m := must[*mlscore.MLSMessage](a.t)(mlscore.ParseMLSMessage(message, nil))
	return must[*mlscore.Staged](a.t)(g.Stage(m)).Next()
}

// lie publishes a commit that members reject; the true one may follow.
func (a *author) lie() {
	name := a.committer()
	message, pretended, text := a.lieOf(a.members[name])
	a.members[name].DropCommit()
	a.lied(a.epoch()+1, pretended)
	a.say(kindCommit, message, "%s lies with a commit of %s, which members reject", name, text)
	if a.random.IntN(2) == 0 {
		a.empty()
	}
}

// lateLie publishes one after the true commit of its epoch.
func (a *author) lateLie() {
	name := a.committer()
	message, pretended, text := a.lieOf(a.members[name])
	a.members[name].DropCommit()
	epoch := a.epoch()
	a.empty()
	a.lied(epoch+1, pretended)
	a.say(kindCommit, message, "%s lies about epoch %d with a commit of %s, which members reject", name, epoch, text)
}

const mallory = "mallory/1"

// falseGroup has mallory follow her own lie, others join her there, or herself
// come back. She does not sign there again: then only an operator's reset helps.
func (a *author) falseGroup() {
	g := a.members[mallory]
	switch {
	case a.liar == nil && g != nil:
		message, pretended, text := a.lieOf(g)
		if pretended.Closed() || g.ConfirmCommit() != nil {
			g.DropCommit()
			return
		}
		a.liar, a.away[g.OwnLeaf()] = g, a.ids[g]
		delete(a.members, mallory)
		delete(a.leavers, mallory)
		a.lied(a.epoch()+1, pretended)
		a.say(kindCommit, message, "mallory goes on alone with a commit of %s", text)
	case a.liar == nil:
	case a.random.IntN(3) > 0:
		info := must[[]byte](a.t)(a.liar.GroupInfo())
		name := a.newName()
		_, c, err := a.client(name).JoinExternal(info, member.ExternalJoinOptions{})
		if err != nil {
			a.t.Fatal(err)
		}
		r := must[*member.Received](a.t)(a.liar.Process(c.Message))
		a.lied(a.epoch()+1, r.Staged.Next())
		a.say(kindCommit, c.Message, "%s joins mallory's group", name)
	default:
		a.liar = nil
		clear(a.away)
		a.join(mallory)
	}
}

// forgeInfo publishes a GroupInfo that describes nothing.
func (a *author) forgeInfo() {
	if a.script.trustDS {
		return // the delivery service would vouch for it
	}
	name := a.committer()
	m := must[*mlscore.MLSMessage](a.t)(mlscore.ParseMLSMessage(must[[]byte](a.t)(a.members[name].GroupInfo()), nil))
	gi := *m.GroupInfo
	gi.GroupContext.Epoch += uint64(a.random.IntN(3))
	gi.GroupContext.ConfirmedTranscriptHash = make([]byte, a.suite.HashLen())
	if err := gi.Sign(a.members[name].Client().Signer); err != nil {
		a.t.Fatal(err)
	}
	a.based = a.based && a.proven // it takes the place of one that no member has signed over
	a.lied(a.epoch()+1, nil)
	a.say(kindInfo, (&mlscore.MLSMessage{WireFormat: mlscore.WireFormatGroupInfo, GroupInfo: &gi}).Bytes(),
		"%s forges a GroupInfo of epoch %d", name, gi.GroupContext.Epoch)
}
