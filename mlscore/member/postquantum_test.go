package member

import (
	"bytes"
	"fmt"
	"testing"

	"leavebroker/mlscore"
)

// TestPostQuantumGroup plays the whole life of a group under numbers that other
// implementations use, followed by an observer that sees nothing but messages.
func TestPostQuantumGroup(t *testing.T) {
	for id, name := range map[mlscore.CipherSuite]string{
		0x004f: "MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519",        // hybrid
		0x0052: "MLS_128_MLKEM768X25519_CHACHA20POLY1305_SHA384_MLDSA44", // hybrid KEM
		0x0051: "MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65",              // pure
		0x0906: "MLS_256_MLKEM1024_AES256GCM_SHA512_MLDSA87",             // pure, in no draft any more
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suite := must[mlscore.Suite](t)(mlscore.NewSuite(id, name))
			reg := mlscore.DefaultRegistry()
			reg.CipherSuites = []mlscore.Suite{suite}
			if err := reg.Validate(); err != nil {
				t.Fatal(err)
			}
			playPostQuantum(t, id, reg)
		})
	}
}

// follower is an observer of a world.
type follower struct {
	t     *testing.T
	w     *world
	group *mlscore.PublicGroup
}

// follow judges a message and compares the state after a commit with the members'.
func (f *follower) follow(message []byte) {
	f.t.Helper()
	m := must[*mlscore.MLSMessage](f.t)(mlscore.ParseMLSMessage(message, f.group.Registry()))
	staged := must[*mlscore.Staged](f.t)(f.group.Stage(m))
	if len(staged.Flags) > 0 {
		f.t.Errorf("flags %q", staged.Flags)
	}
	f.group = staged.Next()
	for _, member := range f.w.members {
		if member.Epoch() == f.group.Epoch() {
			equal(f.t, "the observer's group context", f.group.ContextBytes(), member.Public().ContextBytes())
		}
	}
}

func playPostQuantum(t *testing.T, id mlscore.CipherSuite, reg *mlscore.Registry) {
	w := newWorld(t, 1)
	w.suite = must[*suite](t)(lookupSuite(reg, id))
	w.dress = func(c *Client) { c.Registry = reg }
	broker := must[mlscore.Signer](t)(mlscore.GenerateSigner(w.suite.Signature, seeded(200)))
	senders := mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{{
		SignatureKey: broker.PublicKey(), Credential: mlscore.BasicCredential([]byte("broker")),
	}})
	w.create(1, mlscore.Extensions{{Type: mlscore.ExtensionTypeExternalSenders, Data: senders}})

	info := must[*mlscore.MLSMessage](t)(mlscore.ParseMLSMessage(w.info(w.members[0]), reg)).GroupInfo
	f := &follower{t, w, must[*mlscore.PublicGroup](t)(mlscore.NewPublicGroup(info, nil, mlscore.Options{Registry: reg}))}
	if _, err := mlscore.NewPublicGroup(info, nil, mlscore.Options{}); mlscore.Reason(err) != "unsupported" {
		t.Errorf("a number that the registry does not know: %v", err)
	}

	commit := func(by *Group, opts CommitOptions) *Commit {
		t.Helper()
		c := w.commit(by, opts)
		f.follow(c.Message)
		return c
	}
	propose := func(message []byte, from *Group) {
		t.Helper()
		w.send(message, from)
		f.follow(message)
	}

	// Five more, by value and by reference.
	var keys []*KeyPackage
	var opts CommitOptions
	for range 4 {
		k := w.keyPackage()
		keys, opts.Proposals = append(keys, k), append(opts.Proposals, Add(k.KeyPackage))
	}
	keys = append(keys, w.keyPackage())
	propose(must[[]byte](t)(mlscore.NewMemberAdd(w.members[0].Public(), keys[4].client.Signer, keys[4].KeyPackage)), nil)
	welcome := commit(w.members[0], opts).Welcome
	for _, k := range keys {
		w.members = append(w.members, must[*Group](t)(k.Join(welcome, nil)))
	}
	w.agree()

	// An update and a pre-shared key.
	w.psks["key"] = []byte("secret")
	propose(must[[]byte](t)(w.members[1].ProposeUpdate(nil)), w.members[1])
	commit(w.members[2], CommitOptions{Proposals: []*mlscore.Proposal{
		must[*mlscore.Proposal](t)(w.members[2].client.ExternalPSK([]byte("key"))),
	}})
	w.agree()

	// A removal by a member, then one by the broker with a joiner in between.
	commit(w.members[3], CommitOptions{Proposals: []*mlscore.Proposal{Remove(w.members[4].OwnLeaf())}})
	w.agree()
	leaver := w.members[1].OwnLeaf()
	propose(must[[]byte](t)(mlscore.ExternalRemove(f.group, broker, leaver)), nil)
	joined, join, err := w.client().JoinExternal(w.info(w.members[0]), ExternalJoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.deliver(join.Message)
	w.members = append(w.members, joined)
	f.follow(join.Message)
	w.agree()
	removal := must[[]byte](t)(mlscore.ExternalRemove(f.group, broker, leaver))
	propose(removal, nil)
	commit(joined, CommitOptions{})
	w.agree()
	if len(w.members) != 5 || f.group.Tree().Members() != 5 {
		t.Errorf("%d members, the observer sees %d; want 5", len(w.members), f.group.Tree().Members())
	}
	// Each member's next commit reaches all.
	for _, m := range w.members {
		commit(m, CommitOptions{})
		w.agree()
	}
	checkForgeries(t, f, broker)
}

// checkForgeries: a removal by the broker with any part of its signature
// changed is refused.
func checkForgeries(t *testing.T, f *follower, broker mlscore.Signer) {
	good := must[[]byte](t)(mlscore.ExternalRemove(f.group, broker, f.w.members[0].OwnLeaf()))
	n := len(must[[]byte](t)(mlscore.SignWithLabel(broker, "x", nil)))
	for _, at := range []int{0, 1, n / 2, n - 1} {
		m := must[*mlscore.MLSMessage](t)(mlscore.ParseMLSMessage(flip(good, len(good)-n+at), f.group.Registry()))
		if _, err := f.group.Stage(m); mlscore.Reason(err) != "invalid" {
			t.Errorf("byte %d of the signature is changed: %v", at, err)
		}
	}
}

// BenchmarkMessageSizes reports what messages of a group of 64 take, in bytes.
func BenchmarkMessageSizes(b *testing.B) {
	reg := mlscore.DefaultRegistry()
	for _, id := range Suites(reg) {
		name := must[*suite](b)(lookupSuite(reg, id)).Name
		b.Run(fmt.Sprintf("%#04x/%s", uint16(id), name), func(b *testing.B) {
			for range b.N {
				w := newWorld(b, id)
				w.create(64, nil)
				b.ReportMetric(float64(len(w.keyPackage().Message())), "B/keypackage")
				b.ReportMetric(float64(len(w.info(w.members[0]))), "B/groupinfo")
				b.ReportMetric(float64(len(w.commit(w.members[1], CommitOptions{}).Message)), "B/commit")
				b.ReportMetric(float64(len(must[[]byte](b)(w.members[2].Encrypt(bytes.Repeat([]byte{1}, 100), nil)))), "B/message")
			}
		})
	}
}
