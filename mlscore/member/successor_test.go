package member

import (
	"errors"
	"testing"

	"leavebroker/mlscore"
)

// closed makes a group of three that a ReInit to another suite has closed.
func closed(t *testing.T) (w *world, reInit mlscore.ReInit) {
	w = newWorld(t, 1)
	w.create(3, nil)
	reInit = mlscore.ReInit{GroupID: []byte("next"), Version: mlscore.ProtocolVersionMLS10, CipherSuite: 2, Extensions: required}
	w.commit(w.members[0], CommitOptions{Proposals: []*mlscore.Proposal{ReInit(reInit)}})
	return w, reInit
}

// required is a GroupContext with a required_capabilities that requires nothing.
var required = mlscore.Extensions{{Type: mlscore.ExtensionTypeRequiredCapabilities, Data: []byte{0, 0, 0}}}

// successor is a world for the group after another: a client for the first of
// the old members, and key packages of the others.
func (w *world) successor(suite mlscore.CipherSuite, old []*Group) (next *world, creator *Client, keys []*KeyPackage, adds []*mlscore.Proposal) {
	w.t.Helper()
	next = newWorld(w.t, suite)
	for i := range old {
		c := next.client()
		c.Credential = old[i].Client().Credential
		if i == 0 {
			creator = c
			continue
		}
		k := must[*KeyPackage](w.t)(c.NewKeyPackage(forever))
		keys, adds = append(keys, k), append(adds, Add(k.KeyPackage))
	}
	return next, creator, keys, adds
}

// TestSuccessor continues a closed group under another identifier and suite
// (RFC 9420, Section 11.2).
func TestSuccessor(t *testing.T) {
	w, _ := closed(t)
	old := w.members
	next, creator, keys, adds := w.successor(2, old)
	g, commit, err := old[1].Successor(creator, forever, CommitOptions{Proposals: adds})
	if err != nil {
		t.Fatal(err)
	}
	next.members = []*Group{g}
	for i, k := range keys {
		if _, err := k.Join(commit.Welcome, nil); !errors.Is(err, ErrUnknownPSK) {
			t.Errorf("joined without the old group: %v", err)
		}
		next.members = append(next.members, must[*Group](t)(k.JoinSuccessor(old[i], commit.Welcome, nil)))
	}
	next.agree()
	if g.Epoch() != 1 || string(g.GroupID()) != "next" || g.ReInit() != nil {
		t.Errorf("epoch %d of group %q", g.Epoch(), g.GroupID())
	}
}

func TestSuccessorIsNoOtherGroup(t *testing.T) {
	w, reInit := closed(t)
	old := w.members[0]
	_, creator, keys, adds := w.successor(2, w.members)
	for name, change := range map[string]func(*mlscore.ReInit){
		"group_id":   func(r *mlscore.ReInit) { r.GroupID = []byte("other") },
		"extensions": func(r *mlscore.ReInit) { r.Extensions = nil },
	} {
		t.Run(name, func(t *testing.T) {
			other := reInit
			change(&other)
			liar := *old
			liar.reInit = &other
			_, commit, err := liar.Successor(creator, forever, CommitOptions{Proposals: adds})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := keys[0].JoinSuccessor(w.members[1], commit.Welcome, nil); !errors.Is(err, ErrNotSuccessor) {
				t.Errorf("joined: %v", err)
			}
		})
	}
	t.Run("no PSK", func(t *testing.T) {
		g := must[*Group](t)(creator.Create(reInit.GroupID, reInit.Extensions, forever))
		commit := must[*Commit](t)(g.Commit(CommitOptions{Proposals: adds}))
		if _, err := keys[0].JoinSuccessor(w.members[1], commit.Welcome, nil); !errors.Is(err, ErrNotSuccessor) {
			t.Errorf("joined: %v", err)
		}
	})
	t.Run("earlier epoch", func(t *testing.T) {
		g := must[*Group](t)(creator.Create(reInit.GroupID, reInit.Extensions, forever))
		g.origin = old
		psk := must[*mlscore.Proposal](t)(creator.ResumptionPSK(mlscore.ResumptionPSKUsageReInit, old.GroupID(), old.Epoch()-1))
		commit := must[*Commit](t)(g.Commit(CommitOptions{Proposals: append(adds, psk)}))
		if _, err := keys[0].JoinSuccessor(w.members[1], commit.Welcome, nil); err == nil {
			t.Error("joined")
		}
	})
	t.Run("open group", func(t *testing.T) {
		open := newWorld(t, 2)
		open.create(1, nil)
		if _, _, err := open.members[0].Successor(creator, forever, CommitOptions{}); !errors.Is(err, mlscore.ErrInvalid) {
			t.Errorf("a successor of an open group: %v", err)
		}
		if _, err := keys[0].JoinSuccessor(open.members[0], nil, nil); !errors.Is(err, mlscore.ErrInvalid) {
			t.Errorf("joined a successor of an open group: %v", err)
		}
	})
	t.Run("other suite", func(t *testing.T) {
		if _, _, err := old.Successor(newWorld(t, 3).client(), forever, CommitOptions{}); !errors.Is(err, mlscore.ErrInvalid) {
			t.Errorf("a client of another suite: %v", err)
		}
	})
}

// TestBranch makes a group of two of three members (RFC 9420, Section 11.3).
func TestBranch(t *testing.T) {
	w := newWorld(t, 1)
	w.create(3, nil)
	next, _, keys, adds := w.successor(1, w.members[:2])
	g, commit, err := w.members[0].Branch([]byte("branch"), required, forever, CommitOptions{Proposals: adds, OmitPath: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys[0].Join(commit.Welcome, nil); !errors.Is(err, ErrUnknownPSK) {
		t.Errorf("joined without the old group: %v", err)
	}
	next.members = []*Group{g, must[*Group](t)(keys[0].JoinBranch(w.members[1], commit.Welcome, nil))}
	next.agree()
	w.commit(w.members[2], CommitOptions{})
	w.agree()
}

func TestBranchIsNoOtherGroup(t *testing.T) {
	w := newWorld(t, 1)
	w.create(2, nil)
	_, _, keys, adds := w.successor(1, w.members)
	t.Run("stranger", func(t *testing.T) {
		stranger := Add(w.keyPackage().KeyPackage)
		_, commit, err := w.members[0].Branch([]byte("branch"), nil, forever, CommitOptions{Proposals: append(adds, stranger)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keys[0].JoinBranch(w.members[1], commit.Welcome, nil); !errors.Is(err, ErrNotSuccessor) {
			t.Errorf("joined: %v", err)
		}
	})
	t.Run("other suite", func(t *testing.T) {
		_, creator, keys, adds := w.successor(2, w.members)
		g := must[*Group](t)(creator.Create([]byte("branch"), nil, forever))
		g.origin = w.members[0]
		psk := must[*mlscore.Proposal](t)(creator.ResumptionPSK(mlscore.ResumptionPSKUsageBranch, w.members[0].GroupID(), w.members[0].Epoch()))
		commit := must[*Commit](t)(g.Commit(CommitOptions{Proposals: append(adds, psk)}))
		if _, err := keys[0].JoinBranch(w.members[1], commit.Welcome, nil); !errors.Is(err, ErrNotSuccessor) {
			t.Errorf("joined: %v", err)
		}
	})
	t.Run("closed group", func(t *testing.T) {
		w, _ := closed(t)
		if _, _, err := w.members[0].Branch([]byte("branch"), nil, forever, CommitOptions{}); !errors.Is(err, ErrReInitialized) {
			t.Errorf("branched off a closed group: %v", err)
		}
	})
}

// TestPastEpochs reads application data that comes late (RFC 9420, Section 15.3).
func TestPastEpochs(t *testing.T) {
	const kept = 2
	w := newWorld(t, 1)
	w.dress = func(c *Client) { c.PastEpochs = kept }
	w.encrypt = true
	w.create(3, nil)
	from, to := w.members[0], w.members[1]
	var messages, proposals [][]byte
	for range kept + 2 {
		messages = append(messages, must[[]byte](t)(from.Encrypt([]byte("late"), nil)))
		proposals = append(proposals, must[[]byte](t)(from.ProposeUpdate(nil)))
		w.commit(w.members[2], CommitOptions{References: [][]byte{}})
	}
	for i, m := range messages {
		got, err := to.Process(m)
		switch {
		case i < 2 && !errors.Is(err, mlscore.ErrStale):
			t.Errorf("message %d, of an epoch that is not kept: %v", i, err)
		case i >= 2 && (err != nil || string(got.ApplicationData) != "late" || got.Sender.LeafIndex != from.OwnLeaf()):
			t.Errorf("message %d: %+v, %v", i, got, err)
		}
		if _, err := to.Process(m); err == nil {
			t.Errorf("message %d is read twice", i)
		}
		if _, err := to.Process(proposals[i]); !errors.Is(err, mlscore.ErrStale) {
			t.Errorf("proposal %d of a past epoch: %v", i, err)
		}
	}
}

func TestPrivateKeysOfKeyPackages(t *testing.T) {
	for _, id := range mlscore.Suites() {
		w := newWorld(t, id)
		w.create(1, nil)
		k := w.keyPackage()
		initKey, encryptionKey, err := k.PrivateKeys()
		if err != nil {
			t.Fatal(err)
		}
		k = must[*KeyPackage](t)(k.client.ImportKeyPackage(k.KeyPackage, initKey, encryptionKey))
		commit := w.commit(w.members[0], CommitOptions{Proposals: []*mlscore.Proposal{Add(k.KeyPackage)}})
		w.members = append(w.members, must[*Group](t)(k.Join(commit.Welcome, nil)))
		w.agree()
	}
}

// TestExternalJoinInPlaceOfAnotherKey removes the old leaf of a client that has
// a new signature key, also where that leaf's SelfRemove is pending.
func TestExternalJoinInPlaceOfAnotherKey(t *testing.T) {
	w := newWorld(t, 1)
	w.create(3, nil)
	old := w.members[1]
	leaving := must[[]byte](t)(old.Propose(mlscore.NewSelfRemove(mlscore.DefaultRegistry())))
	info := w.info(w.members[0])
	g, commit, err := w.client().JoinExternal(info, ExternalJoinOptions{
		Proposals: []*mlscore.Proposal{Remove(old.OwnLeaf())}, Pending: [][]byte{leaving},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.deliver(commit.Message)
	if !old.Removed() || len(w.members) != 2 {
		t.Errorf("the old leaf is still there; %d members", len(w.members))
	}
	w.members = append(w.members, g)
	w.agree()
}
