package main

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// recorded is a group of real members and the log of what they send.
type recorded struct {
	*testing.T
	members []*member.Group // by leaf; nil: gone
	log     []string
}

// record makes a group whose creator is the first, in epoch 1. Leaves 1 and 3
// belong to one user.
func record(t *testing.T, names ...string) *recorded {
	t.Helper()
	r := &recorded{T: t}
	var keys []*member.KeyPackage
	var opts member.CommitOptions
	for i, name := range names {
		signer, err := mlscore.GenerateSigner(mlscore.Ed25519, rand.Reader)
		r.check(err)
		client := &member.Client{
			CipherSuite: 1, Signer: signer, Credential: mlscore.BasicCredential([]byte(name)), Registry: toolRegistry(),
			Associate: func(_ *mlscore.PublicGroup, sender mlscore.LeafIndex) ([]mlscore.LeafIndex, bool) {
				return []mlscore.LeafIndex{4 - sender}, true
			},
		}
		if i == 0 {
			g, err := client.Create([]byte("a group"), nil, mlscore.Lifetime{NotAfter: 1 << 40})
			r.check(err)
			r.members = append(r.members, g)
			continue
		}
		k, err := client.NewKeyPackage(mlscore.Lifetime{NotAfter: 1 << 40})
		r.check(err)
		keys, opts.Proposals = append(keys, k), append(opts.Proposals, member.Add(k.KeyPackage))
	}
	c, err := r.members[0].Commit(opts)
	r.check(err)
	r.check(r.members[0].ConfirmCommit())
	for _, k := range keys {
		g, err := k.Join(c.Welcome, nil)
		r.check(err)
		r.members = append(r.members, g)
	}
	return r
}

func (r *recorded) check(err error) {
	if err != nil {
		r.Helper()
		r.Fatal(err)
	}
}

// send brings a message into the log and to all others.
func (r *recorded) send(message []byte, err error, from int) {
	r.Helper()
	r.check(err)
	r.log = append(r.log, logLine(message, nil))
	for i, g := range r.members {
		if g == nil || i == from {
			continue
		}
		_, err := g.Process(message)
		r.check(err)
		if g.Removed() {
			r.members[i] = nil
		}
	}
}

func (r *recorded) info() {
	r.Helper()
	message, err := r.members[0].GroupInfo()
	r.check(err)
	r.log = append(r.log, logLine(message, nil))
}

func (r *recorded) commit(proposals ...*mlscore.Proposal) {
	r.Helper()
	c, err := r.members[0].Commit(member.CommitOptions{Proposals: proposals})
	r.check(err)
	r.check(r.members[0].ConfirmCommit())
	r.send(c.Message, nil, 0)
}

func (r *recorded) operation(leaf mlscore.LeafIndex, mode intents.RemovalMode) *mlscore.Proposal {
	r.Helper()
	g := r.members[leaf]
	in, err := intents.New(g.Client().Signer, g.Public().Suite(), g.GroupID(), leaf, g.Public().Tree().Leaf(leaf), mode)
	r.check(err)
	return intents.DefaultCodePoints().Proposal(&intents.LeafOperationProposal{Intent: in})
}

// TestReplayAssociations: a commit that removes the members of a user is
// followed if the user of the command says who they are, and says what to do
// otherwise.
func TestReplayAssociations(t *testing.T) {
	r := record(t, "alice", "bob/phone", "carol", "bob/laptop", "dave")
	r.info()
	r.commit(r.operation(4, intents.SenderRemovalOnly)) // who else it may be is not asked
	proposal, err := r.members[2].Propose(r.operation(1, intents.RemoveAssociatedMembers))
	r.send(proposal, err, 2)
	r.commit()
	r.commit()
	const missing = `by --associations: {"epoch":2,"sender":1,"associated":[...]}`
	for name, c := range map[string]struct {
		known   string
		reasons []string // of the last two lines; the rest is accepted
		err     string   // how the first error ends
	}{
		"given":           {`{"epoch":2,"sender":1,"associated":[3]}`, []string{"", ""}, ""},
		"others too":      {`{"epoch":1,"sender":1,"associated":[]}` + "\n\n" + `{"sender":1,"epoch":2,"associated":[3]}` + "\n", []string{"", ""}, ""},
		"none":            {"", []string{"unresolvable", "ahead"}, missing},
		"of another":      {`{"epoch":2,"sender":3,"associated":[1]}`, []string{"unresolvable", "ahead"}, missing},
		"of another time": {`{"epoch":3,"sender":1,"associated":[3]}`, []string{"unresolvable", "ahead"}, missing},
		"a blank leaf":    {`{"epoch":2,"sender":1,"associated":[3,4]}`, []string{"unresolvable", "ahead"}, "leaf 4, associated with 1, is blank or outside the tree"},
	} {
		args := []string{"--associations", mustWrite(t, "known.jsonl", []byte(c.known))}
		if name == "none" {
			args = nil
		}
		_, got := runReplay(t, strings.Join(r.log, ""), args...)
		var reasons []string
		for _, line := range got {
			reasons = append(reasons, line.Reason)
		}
		if !slices.Equal(reasons, append([]string{"", "", ""}, c.reasons...)) || !strings.HasSuffix(got[3].Error, c.err) {
			t.Errorf("%s: %+v", name, got)
		}
		if got[1].Members != 4 || c.err == "" && got[4].Members != 2 {
			t.Errorf("%s: %d members, then %d", name, got[1].Members, got[4].Members)
		}
	}
}

// TestBadAssociations: a file that says nothing certain is refused as a whole.
func TestBadAssociations(t *testing.T) {
	good := `{"epoch":1,"sender":2,"associated":[3]}`
	for name, text := range map[string]string{
		"not JSON": "epoch 1", "two values": good + good, "twice": good + "\n" + good, "no epoch": `{"sender":2,"associated":[3]}`,
		"no sender": `{"epoch":1,"associated":[3]}`, "no list": `{"epoch":1,"sender":2}`, "null": "null",
		"another field": `{"epoch":1,"sender":2,"associated":[3],"intent":""}`, "no leaf": `{"epoch":1,"sender":2,"associated":[4294967296]}`,
	} {
		file := mustWrite(t, "known.jsonl", []byte(text))
		code, out, errOut := run("", "group", "replay", "--associations", file, "-")
		if code != exitUsage || out != "" || !strings.Contains(errOut, "known.jsonl, line ") {
			t.Errorf("%s: exit code %d, %s%s", name, code, out, errOut)
		}
	}
	for _, file := range []string{"-", "absent.jsonl"} {
		if code, _, errOut := run("", "group", "replay", "--associations", file, "-"); code != exitUsage || errOut == "" {
			t.Errorf("%s: exit code %d, %s", file, code, errOut)
		}
	}
}

// TestReplayFlags: what is wrong and accepted is beside the line, and nothing
// where nothing is wrong.
func TestReplayFlags(t *testing.T) {
	r := record(t, "alice", "bob", "carol")
	client := r.members[0].Client()
	client.Mutate = &member.Mutate{GroupInfo: func(gi *mlscore.GroupInfo) {
		gi.Extensions = gi.Extensions.With(mlscore.ExtensionTypeApplicationID, []byte("\x01x"))
	}}
	r.info()
	r.info()
	client.Mutate = nil
	r.info()
	selfRemove, err := r.members[2].Propose(mlscore.NewSelfRemove(toolRegistry()))
	r.send(selfRemove, err, 2)
	remove, err := r.members[1].ProposeRemove(2)
	r.send(remove, err, 1)
	r.commit()
	misplaced := []string{mlscore.FlagMisplacedExtension}
	want := [][]string{misplaced, misplaced, nil, nil, {mlscore.FlagRemoveBesideSelfRemove}, nil}
	code, got := runReplay(t, strings.Join(r.log, ""))
	var flags [][]string
	for _, line := range got {
		flags = append(flags, line.Flags)
	}
	if code != 0 || fmt.Sprint(flags) != fmt.Sprint(want) {
		t.Errorf("exit code %d, flags %v, want %v: %+v", code, flags, want, got)
	}
}
