package intents_test

import (
	"bytes"
	"errors"
	"maps"
	"slices"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// falsehood plays what members refuse and an observer cannot tell from the
// truth: a confirmation tag is wrong.
//
//	lie alice [refs=none] [remove=bob] [add=dora] [reinit=yes]
//	                      a commit; alice goes on as if she had not made it
//	lies alice …          the same, and alice follows it: from then on she and those
//	                      who join her by lies are another group
//	false-join dora at=alice [resync=yes]
//	                      an external commit to the group that alice pretends
//	false-info alice      a GroupInfo of it
func (w *world) falsehood(verb, name string, opts map[string]string) {
	w.t.Helper()
	switch verb {
	case "false-info":
		w.feed(intents.KindInfo, must[[]byte](w.t)(w.liars[name].GroupInfo()))
	case "false-join":
		info := must[[]byte](w.t)(w.liars[opts["at"]].GroupInfo())
		g, commit, err := w.client(name).JoinExternal(info, member.ExternalJoinOptions{Resync: opts["resync"] == "yes"})
		if err != nil {
			w.t.Fatal(err)
		}
		w.tellLie(commit.Message, g)
		w.liars[name] = g
	default:
		g := w.liars[name]
		honest := g == nil
		if honest {
			g = w.group(name)
		}
		message := w.lieOf(g, honest, opts)
		if verb == "lies" {
			if err := g.ConfirmCommit(); err != nil {
				w.t.Fatal(err)
			}
			w.liars[name] = g
			delete(w.members, name)
		} else {
			g.DropCommit()
		}
		w.tellLie(message, g)
	}
}

// lieOf is a commit of a member. A first lie has a tag that honest members
// refuse; those of a liar's own group are right within it.
func (w *world) lieOf(g *member.Group, first bool, opts map[string]string) []byte {
	w.t.Helper()
	o := member.CommitOptions{Proposals: w.adds(split(opts["add"]))}
	if opts["refs"] == "none" {
		o.References = [][]byte{}
	}
	for _, victim := range split(opts["remove"]) {
		o.Proposals = append(o.Proposals, member.Remove(w.group(victim).OwnLeaf()))
	}
	if opts["reinit"] != "" {
		o.References = [][]byte{}
		o.Proposals = []*mlscore.Proposal{member.ReInit(mlscore.ReInit{
			GroupID: []byte("next"), Version: mlscore.ProtocolVersionMLS10, CipherSuite: w.suite.ID,
		})}
	}
	client := g.Client()
	if first {
		client.Mutate = &member.Mutate{Auth: func(a *mlscore.AuthenticatedContent) {
			a.ConfirmationTag = bytes.Clone(a.ConfirmationTag)
			a.ConfirmationTag[0] ^= 1
		}}
		defer func() { client.Mutate = nil }()
	}
	return must[*member.Commit](w.t)(g.Commit(o)).Message
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return listOr(s, "")
}

// tellLie brings a commit into the log and to those who follow it. Every honest
// member refuses it.
func (w *world) tellLie(message []byte, by *member.Group) {
	w.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(w.members)) {
		g := w.members[name]
		staged, _ := g.Public().Stage(must[*mlscore.MLSMessage](w.t)(mlscore.ParseMLSMessage(message, nil)))
		if g == by || staged != nil && slices.Contains(staged.Removed, g.OwnLeaf()) {
			continue // whom it removes cannot check the tag, and nothing would follow for the others
		}
		if _, err := g.Process(message); err == nil || errors.Is(err, mlscore.ErrMalformed) {
			w.t.Fatalf("%s takes a lie: %v", name, err)
		}
	}
	for _, g := range w.liars {
		if g != by {
			_, _ = g.Process(message) // there may be more than one false group
		}
	}
	w.feed(intents.KindCommit, message)
}

// retagged is a commit with another confirmation tag, if it is to be bad.
func (w *world) retagged(message []byte, tag string) []byte {
	if tag != "bad" {
		return message
	}
	message = bytes.Clone(message)
	encoded := w.lastTag(message)
	message[bytes.Index(message, encoded)+1] ^= 1
	return message
}

// signLeaf makes a member sign a new leaf for itself, which it does not use.
func (w *world) signLeaf(name string, opts map[string]string) {
	w.t.Helper()
	var client *member.Client
	if opts["key"] == "new" {
		other := *w.client(opts["by"])
		other.Signer = w.signer("another key of " + opts["by"])
		client = &other
	}
	message := must[[]byte](w.t)(w.group(opts["by"]).ProposeUpdate(client))
	m := must[*mlscore.MLSMessage](w.t)(mlscore.ParseMLSMessage(message, nil))
	w.drawer[name] = m.PublicMessage.Content.Proposal.LeafNode
}
