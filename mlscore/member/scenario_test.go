package member

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"leavebroker/mlscore"
)

// world is a group with its members and a delivery service that brings every
// message to every member in one order.
type world struct {
	t       testing.TB
	suite   *suite
	members []*Group
	shared  *Shared
	psks    map[string][]byte
	serial  int
	encrypt bool
	dress   func(*Client) // changes each new client
}

var forever = mlscore.Lifetime{NotAfter: 1 << 40}

func newWorld(t testing.TB, id mlscore.CipherSuite) *world {
	return &world{t: t, suite: mustSuite(t, id), psks: make(map[string][]byte), shared: &Shared{}}
}

func (w *world) client() *Client {
	w.t.Helper()
	w.serial++
	random := seeded(w.serial)
	signer := must[mlscore.Signer](w.t)(mlscore.GenerateSigner(w.suite.Signature, random))
	c := &Client{
		CipherSuite: w.suite.ID, Signer: signer, Random: random, Shared: w.shared, EncryptHandshakes: w.encrypt,
		Credential: mlscore.BasicCredential(fmt.Appendf(nil, "client %d", w.serial)),
		PSK: func(id mlscore.PreSharedKeyID) ([]byte, bool) {
			v, ok := w.psks[string(id.ID)]
			return v, ok && id.Type == mlscore.PSKTypeExternal
		},
	}
	if w.dress != nil {
		w.dress(c)
	}
	return c
}

func (w *world) keyPackage() *KeyPackage {
	w.t.Helper()
	return must[*KeyPackage](w.t)(w.client().NewKeyPackage(forever))
}

// create makes a group of n members: the first adds the others by one commit.
func (w *world) create(n int, extensions mlscore.Extensions) {
	w.t.Helper()
	w.members = []*Group{must[*Group](w.t)(w.client().Create([]byte("group"), extensions, forever))}
	if n > 1 {
		w.add(w.members[0], n-1)
	}
}

// add lets a member add new clients by one commit with a path.
func (w *world) add(by *Group, n int) {
	w.t.Helper()
	var keys []*KeyPackage
	var adds []*mlscore.Proposal
	for range n {
		k := w.keyPackage()
		keys, adds = append(keys, k), append(adds, Add(k.KeyPackage))
	}
	commit := w.commit(by, CommitOptions{Proposals: adds})
	for _, k := range keys {
		w.members = append(w.members, must[*Group](w.t)(k.Join(commit.Welcome, nil)))
	}
	w.agree()
}

// send brings a message to every member but its sender.
func (w *world) send(message []byte, from *Group) {
	w.t.Helper()
	for _, m := range w.members {
		if m == from {
			continue
		}
		if _, err := m.Process(message); err != nil {
			w.t.Fatalf("leaf %d: %v", m.OwnLeaf(), err)
		}
	}
}

// commit lets a member commit, and brings the commit to all.
func (w *world) commit(by *Group, opts CommitOptions) *Commit {
	w.t.Helper()
	before := by.EpochAuthenticator()
	commit := must[*Commit](w.t)(by.Commit(opts))
	if !bytes.Equal(by.EpochAuthenticator(), before) {
		w.t.Error("a commit takes effect before it is confirmed")
	}
	if len(commit.Staged.Flags) > 0 {
		w.t.Errorf("our own commit is flagged: %q", commit.Staged.Flags)
	}
	w.deliver(commit.Message)
	return commit
}

// deliver brings a message to all members, its sender too, and drops the
// removed ones.
func (w *world) deliver(message []byte) {
	w.t.Helper()
	w.members = slices.DeleteFunc(w.members, func(m *Group) bool {
		received, err := m.Process(message)
		if err != nil {
			w.t.Fatalf("leaf %d: %v", m.OwnLeaf(), err)
		}
		if received.Removed {
			if _, err := m.Process(message); !errors.Is(err, ErrRemoved) {
				w.t.Errorf("a removed member processes on: %v", err)
			}
			if _, err := m.Commit(CommitOptions{}); !errors.Is(err, ErrRemoved) {
				w.t.Errorf("a removed member commits: %v", err)
			}
		}
		return received.Removed
	})
}

// agree checks that all members have the same state, and can talk.
func (w *world) agree() {
	w.t.Helper()
	first := w.members[0]
	export := must[[]byte](w.t)(first.Export("label", []byte("context"), 77))
	for _, m := range w.members {
		equal(w.t, fmt.Sprintf("epoch authenticator of leaf %d", m.OwnLeaf()), m.EpochAuthenticator(), first.EpochAuthenticator())
		equal(w.t, "group context", m.Public().ContextBytes(), first.Public().ContextBytes())
		equal(w.t, "exported secret", must[[]byte](w.t)(m.Export("label", []byte("context"), 77)), export)
		if m.Public().Tree().Members() != len(w.members) {
			w.t.Errorf("%d members in the tree, want %d", m.Public().Tree().Members(), len(w.members))
		}
	}
	for _, from := range []*Group{first, w.members[len(w.members)-1]} {
		if len(w.members) == 1 {
			break
		}
		message := must[[]byte](w.t)(from.Encrypt([]byte("hello"), []byte("aad")))
		for _, m := range w.members {
			if m == from {
				continue
			}
			got, err := m.Process(message)
			if err != nil {
				w.t.Fatalf("leaf %d: %v", m.OwnLeaf(), err)
			}
			equal(w.t, "application data", got.ApplicationData, []byte("hello"))
			equal(w.t, "authenticated data", got.AuthenticatedData, []byte("aad"))
			if got.Sender.LeafIndex != from.OwnLeaf() {
				w.t.Errorf("sender %d, want %d", got.Sender.LeafIndex, from.OwnLeaf())
			}
		}
	}
}

func (w *world) info(m *Group) []byte {
	w.t.Helper()
	return must[[]byte](w.t)(m.GroupInfo())
}

// joinExternal lets a client join by an external commit.
func (w *world) joinExternal(c *Client, opts ExternalJoinOptions) *Group {
	w.t.Helper()
	g, commit, err := c.JoinExternal(w.info(w.members[0]), opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.deliver(commit.Message)
	w.members = append(w.members, g)
	return g
}

// TestRandomLife plays long random lives of groups: joins with and without
// path, removals down to half empty trees, updates, external joins and
// resyncs. After each epoch all members agree.
func TestRandomLife(t *testing.T) {
	for seed := range byte(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1+mlscore.CipherSuite(seed)%3)
			if seed%2 == 0 {
				w.shared = nil
			}
			w.encrypt = seed == 3
			w.create(2, nil)
			random := rand.New(seeded(100 + seed))
			for range 60 {
				w.randomEpoch(random)
				w.agree()
			}
		})
	}
}

// randomEpoch lets something happen that ends the epoch.
func (w *world) randomEpoch(random *rand.Rand) {
	w.t.Helper()
	pick := func() *Group { return w.members[random.IntN(len(w.members))] }
	switch what := random.IntN(10); {
	case what == 0:
		opts := ExternalJoinOptions{}
		if len(w.members) > 2 && random.IntN(2) == 0 {
			leaver := w.members[1+random.IntN(len(w.members)-1)]
			message := must[[]byte](w.t)(leaver.Propose(mlscore.NewSelfRemove(mlscore.DefaultRegistry())))
			w.send(message, leaver)
			opts.Pending = [][]byte{message}
		}
		w.joinExternal(w.client(), opts)
		return
	case what == 1 && len(w.members) > 1:
		w.joinExternal(w.members[1+random.IntN(len(w.members)-1)].Client(), ExternalJoinOptions{Resync: true})
		return
	}
	var keys []*KeyPackage
	opts := CommitOptions{OmitPath: random.IntN(2) == 0}
	by := pick()
	for range random.IntN(4) {
		switch from := pick(); random.IntN(4) {
		case 0, 1:
			k := w.keyPackage()
			keys = append(keys, k)
			if from == by {
				opts.Proposals = append(opts.Proposals, Add(k.KeyPackage))
			} else {
				w.send(must[[]byte](w.t)(from.ProposeAdd(k.KeyPackage)), from)
			}
		case 2:
			w.send(must[[]byte](w.t)(from.ProposeUpdate(nil)), from)
		case 3:
			if target := pick(); target != by && len(w.members) > 3 {
				w.send(must[[]byte](w.t)(from.ProposeRemove(target.OwnLeaf())), from)
			}
		}
	}
	opts.OmitPath = opts.OmitPath && len(keys) > 0
	commit := w.commit(by, opts)
	for _, k := range keys {
		w.members = append(w.members, must[*Group](w.t)(k.Join(commit.Welcome, nil)))
	}
}

// eachSuite runs a scenario in all suites, with public and with private
// handshakes.
func eachSuite(t *testing.T, scenario func(t *testing.T, w *world)) {
	for _, id := range Suites(mlscore.DefaultRegistry()) {
		for _, encrypt := range []bool{false, true} {
			t.Run(fmt.Sprintf("suite%#x/encrypt=%t", id, encrypt), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, id)
				w.encrypt = encrypt
				scenario(t, w)
			})
		}
	}
}

func TestLifeOfAGroup(t *testing.T) {
	eachSuite(t, func(t *testing.T, w *world) {
		w.create(5, nil)
		w.commit(w.members[3], CommitOptions{}) // nothing but a path
		w.agree()

		// Update by reference, Remove by value.
		update := must[[]byte](t)(w.members[1].ProposeUpdate(nil))
		w.send(update, w.members[1])
		commit := w.commit(w.members[0], CommitOptions{Proposals: []*mlscore.Proposal{Remove(w.members[2].OwnLeaf())}})
		if !slices.Equal(commit.Staged.Removed, []mlscore.LeafIndex{2}) || !slices.Contains(commit.Staged.Updated, 1) {
			t.Errorf("removed %v, updated %v", commit.Staged.Removed, commit.Staged.Updated)
		}
		w.agree()
		if len(w.members) != 4 {
			t.Fatalf("%d members, want 4", len(w.members))
		}

		// A proposal by a member who is then removed by an other's proposal.
		w.send(must[[]byte](t)(w.members[3].ProposeRemove(w.members[1].OwnLeaf())), w.members[3])
		w.commit(w.members[2], CommitOptions{})
		w.agree()

		// Add by reference, without path.
		k := w.keyPackage()
		w.send(must[[]byte](t)(w.members[1].ProposeAdd(k.KeyPackage)), w.members[1])
		commit = w.commit(w.members[2], CommitOptions{OmitPath: true, OmitRatchetTree: true})
		w.members = append(w.members, must[*Group](t)(k.Join(commit.Welcome, w.members[0].RatchetTree())))
		w.agree()
		for _, m := range w.members {
			w.commit(m, CommitOptions{})
			w.agree()
		}
	})
}

func TestExternalJoinAndResync(t *testing.T) {
	eachSuite(t, func(t *testing.T, w *world) {
		w.create(3, nil)
		newcomer := w.joinExternal(w.client(), ExternalJoinOptions{AuthenticatedData: []byte("hi")})
		w.agree()
		w.commit(newcomer, CommitOptions{})
		w.agree()

		// Member 1 lost its state and comes back: its old self is removed.
		lost := w.members[1]
		again := w.joinExternal(lost.Client(), ExternalJoinOptions{Resync: true})
		if again.OwnLeaf() != lost.OwnLeaf() {
			t.Errorf("comes back at leaf %d, was at %d", again.OwnLeaf(), lost.OwnLeaf())
		}
		if !lost.Removed() || len(w.members) != 4 {
			t.Errorf("old self removed: %t, members: %d", lost.Removed(), len(w.members))
		}
		w.agree()
	})
}

func TestPreSharedKeys(t *testing.T) {
	eachSuite(t, func(t *testing.T, w *world) {
		w.create(3, nil)
		w.psks["a"], w.psks["b"] = []byte("secret a"), []byte("secret b")
		a, b, c := w.members[0], w.members[1], w.members[2]
		w.send(must[[]byte](t)(a.Propose(must[*mlscore.Proposal](t)(a.Client().ExternalPSK([]byte("a"))))), a)
		resumption := must[*mlscore.Proposal](t)(b.Client().ResumptionPSK(mlscore.ResumptionPSKUsageApplication, b.GroupID(), b.Epoch()))
		w.commit(b, CommitOptions{OmitPath: true, Proposals: []*mlscore.Proposal{
			must[*mlscore.Proposal](t)(b.Client().ExternalPSK([]byte("b"))), resumption,
		}})
		w.agree()
		w.joinExternal(w.client(), ExternalJoinOptions{Proposals: []*mlscore.Proposal{
			must[*mlscore.Proposal](t)(c.Client().ExternalPSK([]byte("a"))),
		}})
		w.agree()

		// One who does not know the key cannot follow, and stays where it is.
		commit := must[*Commit](t)(b.Commit(CommitOptions{Proposals: []*mlscore.Proposal{
			must[*mlscore.Proposal](t)(b.Client().ExternalPSK([]byte("a"))),
		}}))
		before := c.EpochAuthenticator()
		delete(w.psks, "a")
		if _, err := c.Process(commit.Message); !errors.Is(err, ErrUnknownPSK) {
			t.Errorf("a commit with an unknown key: %v", err)
		}
		equal(t, "epoch authenticator", c.EpochAuthenticator(), before)
		// Nor with another value.
		w.psks["a"] = []byte("wrong")
		if _, err := c.Process(commit.Message); !errors.Is(err, mlscore.ErrInvalid) {
			t.Errorf("a commit with another key: %v", err)
		}
		w.psks["a"] = []byte("secret a")
		w.deliver(commit.Message)
		w.agree()
	})
}

func TestGroupContextExtensionsAndExternalSender(t *testing.T) {
	eachSuite(t, func(t *testing.T, w *world) {
		w.create(3, nil)
		broker := must[mlscore.Signer](t)(mlscore.GenerateSigner(w.suite.Signature, seeded(200)))
		senders := mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{{
			SignatureKey: broker.PublicKey(), Credential: mlscore.BasicCredential([]byte("broker")),
		}})
		extensions := mlscore.Extensions(nil).With(mlscore.ExtensionTypeExternalSenders, senders)
		w.commit(w.members[0], CommitOptions{Proposals: []*mlscore.Proposal{GroupContextExtensions(extensions)}})
		w.agree()

		removal := must[[]byte](t)(mlscore.ExternalRemove(w.members[0].Public(), broker, 1))
		w.send(removal, nil)
		w.commit(w.members[2], CommitOptions{})
		w.agree()
		if len(w.members) != 2 {
			t.Errorf("%d members, want 2", len(w.members))
		}

		// A client proposes itself.
		k := w.keyPackage()
		w.send(must[[]byte](t)(mlscore.NewMemberAdd(w.members[0].Public(), k.client.Signer, k.KeyPackage)), nil)
		commit := w.commit(w.members[0], CommitOptions{})
		w.members = append(w.members, must[*Group](t)(k.Join(commit.Welcome, nil)))
		w.agree()
	})
}

func TestReInitClosesTheGroup(t *testing.T) {
	eachSuite(t, func(t *testing.T, w *world) {
		w.create(3, nil)
		w.send(must[[]byte](t)(w.members[1].Propose(ReInit(mlscore.ReInit{
			GroupID: []byte("next"), Version: mlscore.ProtocolVersionMLS10, CipherSuite: w.suite.ID,
		}))), w.members[1])
		commit := must[*Commit](t)(w.members[2].Commit(CommitOptions{}))
		for _, m := range w.members {
			received, err := m.Process(commit.Message)
			if err != nil {
				t.Fatal(err)
			}
			if received.ReInit == nil || string(received.ReInit.GroupID) != "next" {
				t.Errorf("outcome: %+v", received)
			}
			if _, err := m.Commit(CommitOptions{}); !errors.Is(err, ErrReInitialized) {
				t.Errorf("a commit in a closed group: %v", err)
			}
			equal(t, "epoch authenticator", m.EpochAuthenticator(), w.members[0].EpochAuthenticator())
		}
	})
}

func TestSelfRemoveInCommitAndExternalCommit(t *testing.T) {
	eachSuite(t, func(t *testing.T, w *world) {
		w.create(5, nil)
		reg := mlscore.DefaultRegistry()
		leave := func(m *Group) []byte {
			message := must[[]byte](t)(m.Propose(mlscore.NewSelfRemove(reg)))
			w.send(message, m)
			return message
		}
		leave(w.members[1])
		w.commit(w.members[0], CommitOptions{})
		w.agree()
		pending := leave(w.members[2])
		w.joinExternal(w.client(), ExternalJoinOptions{Pending: [][]byte{pending}})
		w.agree()
		if len(w.members) != 4 {
			t.Errorf("%d members, want 4", len(w.members))
		}
	})
}

func TestReplaceBringsBackALateUpdate(t *testing.T) {
	eachSuite(t, func(t *testing.T, w *world) {
		w.create(3, nil)
		victim := w.members[1]
		leafs := make(chan *mlscore.LeafNode, 1)
		victim.client.Mutate = &Mutate{Content: func(c *mlscore.FramedContent) { leafs <- c.Proposal.LeafNode }}
		must[[]byte](t)(victim.ProposeUpdate(nil)) // reaches nobody
		victim.client.Mutate = nil
		w.commit(w.members[0], CommitOptions{References: [][]byte{}})
		w.agree()
		w.commit(w.members[2], CommitOptions{Proposals: []*mlscore.Proposal{
			mlscore.NewReplace(mlscore.DefaultRegistry(), victim.OwnLeaf(), <-leafs),
		}})
		w.agree()
		w.commit(victim, CommitOptions{})
		w.agree()
	})
}

func TestSignatureKeyRotation(t *testing.T) {
	eachSuite(t, func(t *testing.T, w *world) {
		w.create(3, nil)
		next := w.client()
		w.commit(w.members[1], CommitOptions{Client: next})
		if w.members[1].Client() != next {
			t.Error("the old client is still in use")
		}
		w.agree()
		third := w.client()
		w.send(must[[]byte](t)(w.members[1].ProposeUpdate(third)), w.members[1])
		w.commit(w.members[0], CommitOptions{})
		if w.members[1].Client() != third {
			t.Error("the old client is still in use")
		}
		w.agree()
		w.commit(w.members[1], CommitOptions{})
		w.agree()
	})
}

func TestPendingCommitLosesToAnother(t *testing.T) {
	w := newWorld(t, 1)
	w.create(3, nil)
	mine := must[*Commit](t)(w.members[0].Commit(CommitOptions{}))
	w.commit(w.members[1], CommitOptions{})
	if w.members[0].HasPendingCommit() {
		t.Error("the pending commit outlives its epoch")
	}
	if err := w.members[0].ConfirmCommit(); !errors.Is(err, ErrNoPendingCommit) {
		t.Errorf("confirming a commit that lost: %v", err)
	}
	if _, err := w.members[2].Process(mine.Message); !errors.Is(err, mlscore.ErrStale) {
		t.Errorf("a commit of the epoch before: %v", err)
	}
	w.agree()
	ahead := must[*Commit](t)(w.members[0].Commit(CommitOptions{}))
	if err := w.members[0].ConfirmCommit(); err != nil {
		t.Fatal(err)
	}
	later := must[*Commit](t)(w.members[0].Commit(CommitOptions{}))
	if _, err := w.members[1].Process(later.Message); !errors.Is(err, mlscore.ErrAhead) {
		t.Errorf("a commit of the epoch after: %v", err)
	}
	w.members[0].DropCommit()
	for _, m := range w.members[1:] {
		must[*Received](t)(m.Process(ahead.Message))
	}
	w.agree()
}
