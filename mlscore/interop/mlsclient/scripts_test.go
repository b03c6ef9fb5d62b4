package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/mlsclient/pb"
)

// scripts are what the configurations of the official runner let actors do,
// in our own words: each group of scripts below is one of them.
var scripts = []struct {
	name string
	play func(*stage)
}{
	{"welcome/without path secret", func(s *stage) {
		s.create("alice")
		s.commit("alice", commit{refs: s.propose("alice", s.adds("bob")...), joiners: []string{"bob"}})
		s.chat()
	}},
	{"welcome/with path secret", func(s *stage) {
		s.create("alice")
		s.commit("alice", commit{refs: s.propose("alice", s.adds("bob")...), joiners: []string{"bob"}, forcePath: true})
		s.chat()
	}},
	{"welcome/with PSK", func(s *stage) {
		s.create("alice")
		add := s.propose("alice", s.adds("bob")...)
		psk := s.propose("alice", externalPSKs(s.installPSK("alice", "bob"))...)
		s.commit("alice", commit{refs: append(add, psk...), joiners: []string{"bob"}})
		s.chat()
	}},
	{"welcome/with external tree", func(s *stage) {
		s.create("alice")
		s.commit("alice", commit{refs: s.propose("alice", s.adds("bob")...), joiners: []string{"bob"}, externalTree: true})
		s.chat()
	}},

	{"external join/plain", func(s *stage) {
		s.create("alice")
		s.joinExternal("bob", false, false)
		s.chat()
	}},
	{"external join/with PSK", func(s *stage) {
		s.create("alice")
		a := s.actor("alice")
		psk := &pb.PreSharedKey{PskId: []byte("id"), PskSecret: []byte("secret")}
		call(s, a.rpc.StorePSK, &pb.StorePSKRequest{StateOrTransactionId: a.state, PskId: psk.PskId, PskSecret: psk.PskSecret})
		s.joinExternal("bob", false, false, psk)
	}},
	{"external join/in place of the old leaf", func(s *stage) {
		s.create("alice")
		s.joinExternal("bob", false, false)
		s.joinExternal("bob", false, true)
		s.chat()
	}},
	{"external join/with external tree", func(s *stage) {
		s.create("alice")
		s.joinExternal("bob", true, false)
		s.joinExternal("bob", true, true)
	}},
	{"external join/many members", func(s *stage) {
		s.create("alice", "bob", "charlie", "diana")
		s.joinExternal("ellen", false, false)
		s.chat()
	}},

	{"commit/empty", func(s *stage) {
		s.create("alice", "bob")
		s.commit("alice", commit{})
	}},
	{"commit/add", func(s *stage) {
		s.create("alice", "bob")
		for i, forcePath := range []bool{true, false} {
			names := []string{fmt.Sprint("c1.", i), fmt.Sprint("c2.", i), fmt.Sprint("c3.", i)}
			adds := s.adds(names...)
			refs := append(s.propose("alice", adds[0]), s.propose("bob", adds[1])...)
			message := s.commit("alice", commit{refs: refs, values: adds[2:], joiners: names, forcePath: forcePath})
			if public := s.parse(message).PublicMessage; public != nil && (public.Content.Commit.Path != nil) != forcePath {
				s.t.Errorf("the commit has a path: %t, asked for: %t", public.Content.Commit.Path != nil, forcePath)
			}
		}
		s.chat()
	}},
	{"commit/remove", func(s *stage) {
		s.create("alice", "bob", "c1", "c2", "c3")
		refs := append(s.propose("alice", removes("c1")...), s.propose("bob", removes("c2")...)...)
		s.commit("alice", commit{refs: refs, values: removes("c3"), leavers: []string{"c1", "c2", "c3"}})
		s.chat()
	}},
	{"commit/update", func(s *stage) {
		s.create("alice", "bob")
		s.commit("alice", commit{refs: [][]byte{s.update("bob")}})
		s.commit("bob", commit{})
	}},
	{"commit/group context extensions", func(s *stage) {
		s.create("alice", "bob")
		s.commit("alice", commit{refs: s.propose("alice", contextExtensions(noRequirements(), noSenders())...)})
		s.commit("alice", commit{refs: s.propose("bob", contextExtensions()...)})
		s.commit("alice", commit{values: contextExtensions(noRequirements())})
	}},
	{"commit/external PSK", func(s *stage) {
		s.create("alice", "bob")
		k1, k2, k3 := s.installPSK("alice", "bob"), s.installPSK("alice", "bob"), s.installPSK("alice", "bob")
		for _, forcePath := range []bool{true, false} {
			refs := append(s.propose("alice", externalPSKs(k1)...), s.propose("bob", externalPSKs(k2)...)...)
			s.commit("alice", commit{refs: refs, values: externalPSKs(k3), forcePath: forcePath})
		}
	}},
	{"commit/resumption PSK", func(s *stage) {
		s.create("alice", "bob")
		s.commit("alice", commit{})
		s.commit("alice", commit{})
		for epoch := uint64(1); epoch <= 2; epoch++ {
			refs := append(s.propose("alice", resumptionPSKs(epoch)...), s.propose("bob", resumptionPSKs(epoch+1)...)...)
			s.commit("alice", commit{refs: refs, values: resumptionPSKs(epoch + 2), forcePath: true})
		}
	}},
	{"commit/all kinds by the committer", func(s *stage) { allKinds(s, "alice") }},
	{"commit/all kinds by another", func(s *stage) { allKinds(s, "bob") }},

	{"application/in order", func(s *stage) { late(s, []int{0, 1, 2}) }},
	{"application/out of order", func(s *stage) { late(s, []int{2, 1, 0}) }},
	{"application/out of order across epochs", func(s *stage) {
		s.create("alice", "bob")
		early := [][]byte{s.protect("alice", "one"), s.protect("alice", "two")}
		s.commit("alice", commit{})
		now := [][]byte{s.protect("alice", "three"), s.protect("alice", "four")}
		s.unprotect("bob", now[1], "four")
		s.unprotect("bob", now[0], "three")
		s.unprotect("bob", early[1], "two")
		s.unprotect("bob", early[0], "one")
	}},

	{"external proposals/add by the joiner", func(s *stage) {
		s.create("alice")
		s.addByJoiner("bob")
		s.chat()
	}},
	{"external proposals/add", func(s *stage) {
		s.create("alice", "bob")
		s.addSigner("alice", "ds")
		s.commit("alice", commit{refs: s.sign("ds", s.adds("charlie")...), joiners: []string{"charlie"}})
	}},
	{"external proposals/remove", func(s *stage) {
		s.create("alice", "bob", "charlie")
		s.addSigner("alice", "ds")
		s.commit("alice", commit{refs: s.sign("ds", removes("bob")...), leavers: []string{"bob"}})
		s.chat()
	}},
	{"external proposals/external PSK", func(s *stage) {
		s.create("alice", "bob", "charlie")
		psk := s.installPSK("alice", "bob", "charlie")
		s.addSigner("alice", "ds")
		s.commit("alice", commit{refs: s.sign("ds", externalPSKs(psk)...)})
	}},
	{"external proposals/resumption PSK", func(s *stage) {
		s.create("alice", "bob", "charlie")
		s.addSigner("alice", "ds")
		s.commit("alice", commit{refs: s.sign("ds", resumptionPSKs(2)...)})
	}},
	{"external proposals/group context extensions", func(s *stage) {
		s.create("alice", "bob", "charlie")
		s.addSigner("alice", "ds")
		s.commit("alice", commit{refs: s.sign("ds", contextExtensions(noRequirements())...)})
	}},
	{"external proposals/two signers", func(s *stage) {
		s.create("alice", "bob", "charlie")
		k1, k2 := s.installPSK("alice", "bob", "charlie"), s.installPSK("alice", "bob", "charlie")
		s.addSigner("alice", "ds1")
		s.addSigner("alice", "ds2")
		s.commit("alice", commit{refs: append(s.sign("ds2", externalPSKs(k1)...), s.sign("ds1", externalPSKs(k2)...)...)})
	}},
	{"external proposals/reinit", func(s *stage) {
		s.create("alice", "bob", "charlie")
		s.addSigner("alice", "ds")
		next := &pb.ReInitProposalRequest{GroupId: append(s.groupID, "++"...), CipherSuite: s.suite%7 + 1, Extensions: []*pb.Extension{noRequirements()}}
		proposal := s.sign("ds", &pb.ProposalDescription{
			ProposalType: []byte("reinit"), GroupId: next.GroupId, CipherSuite: next.CipherSuite, Extensions: next.Extensions,
		})
		s.reInit(proposal[0], next, "alice", "bob", true, false)
	}},

	{"reinit/other cipher suite", func(s *stage) { reopen(s, "alice", "bob", "charlie", reopenOptions{suite: true}) }},
	{"reinit/other group", func(s *stage) { reopen(s, "alice", "bob", "charlie", reopenOptions{id: true}) }},
	{"reinit/other extensions", func(s *stage) { reopen(s, "alice", "bob", "charlie", reopenOptions{extensions: true}) }},
	{"reinit/all by one", func(s *stage) { reopen(s, "alice", "alice", "alice", reopenOptions{id: true}) }},
	{"reinit/external tree", func(s *stage) { reopen(s, "alice", "bob", "charlie", reopenOptions{id: true, externalTree: true}) }},
	{"reinit/with path", func(s *stage) { reopen(s, "alice", "bob", "charlie", reopenOptions{id: true, forcePath: true}) }},

	{"branch/plain", func(s *stage) {
		s.create("alice", "bob", "charlie", "diana", "eliza")
		s.branch("alice", []string{"bob", "charlie", "diana", "eliza"}, nil, false, false)
	}},
	{"branch/with extensions", func(s *stage) {
		s.create("alice", "bob", "charlie")
		s.branch("bob", []string{"alice"}, []*pb.Extension{noRequirements(), noSenders()}, false, false)
		s.chat()
	}},
	{"branch/external tree", func(s *stage) {
		s.create("alice", "bob", "charlie")
		s.branch("alice", []string{"bob", "charlie"}, nil, false, true)
	}},
	{"branch/with path", func(s *stage) {
		s.create("alice", "bob", "charlie")
		s.branch("alice", []string{"bob", "charlie"}, nil, true, false)
	}},

	{"random", func(s *stage) {
		epochs, seed := 12, uint64(s.suite)
		if s.suite > 3 {
			epochs = 5 // the larger curves take their time
		}
		if s.encrypt {
			seed += 100
		}
		walk(s, rand.New(rand.NewPCG(seed, 0)), epochs)
	}},
}

// TestScripts plays each script with two servers, for every cipher suite, with
// handshakes in the clear and encrypted.
func TestScripts(t *testing.T) {
	servers := []pb.MLSClientClient{serve(t), serve(t)}
	for _, suite := range mlscore.Suites() {
		for _, encrypt := range []bool{false, true} {
			for _, script := range scripts {
				t.Run(fmt.Sprintf("%s/suite %d/encrypted %t", script.name, suite, encrypt), func(t *testing.T) {
					s := &stage{t: t, suite: uint32(suite), encrypt: encrypt, servers: servers, actors: make(map[string]*actor)}
					script.play(s)
					for _, name := range s.members {
						a := s.actor(name)
						call(s, a.rpc.Free, &pb.FreeRequest{StateId: a.state})
					}
				})
			}
		}
	}
}

// allKinds commits every kind of proposal at once, by reference as made by one
// member and by value.
func allKinds(s *stage, proposer string) {
	s.create("alice", "bob", "c1", "c2")
	k1, k2 := s.installPSK("alice", "bob"), s.installPSK("alice", "bob")
	list := slices.Concat(s.adds("c3"), removes("c1"), contextExtensions(noRequirements(), noSenders()), externalPSKs(k1), resumptionPSKs(1))
	refs := s.propose(proposer, list...)
	if proposer != "alice" {
		refs = append(refs, s.update(proposer))
	}
	values := slices.Concat(s.adds("c4"), removes("c2"), externalPSKs(k2), resumptionPSKs(1))
	// The joiners have no PSK of an epoch before them, and stay outside.
	s.commit("alice", commit{refs: refs, values: values, leavers: []string{"c1", "c2"}})
	s.chat()
}

// late lets three messages be read in some order.
func late(s *stage, order []int) {
	s.create("alice", "bob")
	var messages [][]byte
	for i := range order {
		messages = append(messages, s.protect("alice", fmt.Sprint("hello ", i)))
	}
	for _, i := range order {
		s.unprotect("bob", messages[i], fmt.Sprint("hello ", i))
	}
}

// addByJoiner lets a client propose its own Add to the group.
func (s *stage) addByJoiner(name string) {
	a := s.actor(name)
	resp := call(s, a.rpc.NewMemberAddProposal, &pb.NewMemberAddProposalRequest{GroupInfo: s.info(false).GroupInfo, Identity: []byte(name)})
	a.transaction = resp.TransactionId
	s.commit(s.members[0], commit{refs: [][]byte{resp.Proposal}, joiners: []string{name}})
}

type reopenOptions struct{ suite, id, extensions, externalTree, forcePath bool }

func reopen(s *stage, proposer, committer, welcomer string, o reopenOptions) {
	s.create("alice", "bob", "charlie", "diana")
	next := &pb.ReInitProposalRequest{StateId: s.actor(proposer).state, CipherSuite: s.suite, GroupId: s.groupID}
	if o.suite {
		next.CipherSuite = s.suite%7 + 1
	}
	if o.id {
		next.GroupId = append(next.GroupId, "++"...)
	}
	if o.extensions {
		next.Extensions = []*pb.Extension{noRequirements(), noSenders()}
	}
	proposal := call(s, s.actor(proposer).rpc.ReInitProposal, next).Proposal
	s.reInit(s.handshake(proposal), next, committer, welcomer, o.forcePath, o.externalTree)
}

// walk plays random epochs: Adds, Updates and Removes by reference and by value,
// joins from outside, and talk.
func walk(s *stage, random *rand.Rand, epochs int) {
	serial := 0
	fresh := func() string { serial++; return fmt.Sprint("actor ", serial) }
	s.create(fresh(), fresh())
	for range epochs {
		committer := s.members[random.IntN(len(s.members))]
		if random.IntN(4) == 0 {
			prior := random.IntN(2) == 0 && len(s.members) > 1
			name := fresh()
			if prior {
				name = s.members[1+random.IntN(len(s.members)-1)]
			}
			s.joinExternal(name, random.IntN(2) == 0, prior)
			continue
		}
		c := commit{forcePath: random.IntN(2) == 0, externalTree: random.IntN(2) == 0}
		for range random.IntN(3) {
			name := fresh()
			add := s.adds(name)
			c.joiners = append(c.joiners, name)
			if random.IntN(2) == 0 {
				c.values = append(c.values, add...)
			} else {
				c.refs = append(c.refs, s.propose(s.members[random.IntN(len(s.members))], add...)...)
			}
		}
		for _, name := range slices.Clone(s.members) {
			switch {
			case name == committer:
			case random.IntN(4) == 0:
				c.refs = append(c.refs, s.update(name))
			case random.IntN(5) == 0 && len(s.members) > 3:
				c.leavers = append(c.leavers, name)
				c.values = append(c.values, removes(name)...)
			}
		}
		s.commit(committer, c)
		s.chat()
	}
}
