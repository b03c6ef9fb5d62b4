package member

import (
	"bytes"
	"reflect"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/mlstest"
)

// fuzzWorld is a small group, and messages of every kind that its members and
// joiners get.
func fuzzWorld(f *testing.F, private bool) (w *world, joiner *KeyPackage, messages [][]byte) {
	f.Helper()
	w = &world{t: f, suite: mustSuite(f, 1), encrypt: private}
	creator := must[*Group](f)(w.client().Create([]byte("group"), nil, forever))
	keys := []*KeyPackage{w.keyPackage(), w.keyPackage(), w.keyPackage()}
	commit := must[*Commit](f)(creator.Commit(CommitOptions{Proposals: []*mlscore.Proposal{Add(keys[0].KeyPackage), Add(keys[1].KeyPackage)}}))
	if err := creator.ConfirmCommit(); err != nil {
		f.Fatal(err)
	}
	w.members = []*Group{creator, must[*Group](f)(keys[0].Join(commit.Welcome, nil)), must[*Group](f)(keys[1].Join(commit.Welcome, nil))}
	from := w.members[1]
	messages = append(messages,
		must[[]byte](f)(from.Encrypt([]byte("hello"), []byte("aad"))),
		must[[]byte](f)(from.ProposeUpdate(nil)),
		must[[]byte](f)(from.Propose(mlscore.NewSelfRemove(mlscore.DefaultRegistry()))),
		must[*Commit](f)(from.Commit(CommitOptions{References: [][]byte{}})).Message,
		must[*Commit](f)(from.Commit(CommitOptions{References: [][]byte{}, Proposals: []*mlscore.Proposal{Remove(2)}})).Message,
	)
	info := must[[]byte](f)(creator.GroupInfo())
	_, external, err := w.client().JoinExternal(info, ExternalJoinOptions{})
	if err != nil {
		f.Fatal(err)
	}
	welcome := must[*Commit](f)(creator.Commit(CommitOptions{Proposals: []*mlscore.Proposal{Add(keys[2].KeyPackage)}})).Welcome
	creator.DropCommit()
	return w, keys[2], append(messages, info, external.Message, welcome)
}

// FuzzProcess checks that whatever arrives either is taken in or changes
// nothing.
func FuzzProcess(f *testing.F) {
	public, _, messages := fuzzWorld(f, false)
	_, _, more := fuzzWorld(f, true)
	for _, m := range append(messages, more...) {
		f.Add(m)
	}
	base := public.members[0]
	f.Fuzz(func(t *testing.T, message []byte) {
		var g Group
		var before snapshot
		var err error
		mlstest.CheckAllocation(t, len(message), mlstest.DecodingFactor, func() {
			g = *base
			e := *base.epoch
			e.messages = newSecretTree(g.suite, e.secrets.encryption, e.public.Tree().LeafWidth())
			g.epoch, g.resumption = &e, map[uint64][]byte{}
			before = snap(&g)
			_, err = g.Process(message)
		})
		if err != nil && !reflect.DeepEqual(before, snap(&g)) {
			t.Errorf("a refused message changed the group: %v", err)
		}
	})
}

// FuzzJoin checks that no Welcome and no GroupInfo stops the program, and that
// the bytes of one are not taken for the other.
func FuzzJoin(f *testing.F) {
	w, keys, messages := fuzzWorld(f, false)
	for _, m := range messages {
		f.Add(m, []byte(nil))
	}
	f.Add(messages[len(messages)-1], w.members[0].RatchetTree())
	client := w.client()
	f.Fuzz(func(t *testing.T, message, tree []byte) {
		mlstest.CheckAllocation(t, len(message)+len(tree), mlstest.DecodingFactor, func() {
			if g, err := keys.Join(message, tree); err == nil && !bytes.Equal(g.GroupID(), []byte("group")) {
				t.Error("joined another group")
			}
			if _, commit, err := client.JoinExternal(message, ExternalJoinOptions{RatchetTree: tree}); err == nil && commit.Message == nil {
				t.Error("joined without a commit")
			}
		})
	})
}

// FuzzGroupSecrets checks that what parses encodes to the same bytes.
func FuzzGroupSecrets(f *testing.F) {
	f.Add((&groupSecrets{joiner: []byte("j"), path: []byte("p")}).bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		var g *groupSecrets
		var err error
		mlstest.CheckAllocation(t, len(b), mlstest.DecodingFactor, func() { g, err = parseGroupSecrets(b) })
		if err == nil && !bytes.Equal(g.bytes(), b) {
			t.Errorf("%x encodes as %x", b, g.bytes())
		}
	})
}
