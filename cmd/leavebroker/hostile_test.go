package main

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"leavebroker/broker/delivery"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// confirmed says that a removal is done and proven.
func confirmed(v *delivery.Verdict) bool { return v.State == "removed" && v.Confirmed }

// became waits for a state and its reason.
func became(state, reason string) func(*delivery.Verdict) bool {
	return func(v *delivery.Verdict) bool { return v.State == state && v.Reason == reason }
}

// badWorld is a daemon that gets what it should not, and a group with an intent
// pending: nothing is skipped.
type badWorld struct {
	*testing.T
	*crowd
	d     *daemonProcess
	leave []byte // pending all the time
}

// event waits for the event that follows from a message of the log.
func (w *badWorld) event(what string, seq uint64, typ, reason string) {
	w.Helper()
	e := w.d.awaitEvent(what, func(e told) bool { return e.Seq == seq && (e.Type == typ || typ == "rejected") })
	if e.Type != typ || e.Reason != reason {
		w.Errorf("%s: event %s %s, want %s %s", what, e.Type, e.Reason, typ, reason)
	}
}

// submitFile hands an intent to intent submit.
func (w *badWorld) submitFile(message []byte) (code int, v delivery.Verdict) {
	w.Helper()
	code, _ = w.cli(w.d, &v, "intent", "submit", "--wait", "10s", mustWrite(w, "intent.mls", message))
	return code, v
}

// rejected hands in an intent both ways: the reply, the event and the receipt
// give the reason.
func (w *badWorld) rejected(what string, message []byte, reason string) {
	w.Helper()
	if code, v := w.submitFile(message); code != 1 || v.State != "rejected" || v.Reason != reason {
		w.Errorf("%s: exit code %d, %+v, want rejected %s", what, code, v, reason)
	}
	w.event(what, w.publish("intent", message), "rejected", reason)
	if in, err := intents.ParseMessage(message, intents.DefaultWireFormat); err == nil {
		w.awaitStatus(in.ID(w.tenant), became("rejected", reason))
	}
}

// edited is an intent with something changed and not signed again.
func (w *badWorld) edited(message []byte, change func(*intents.LeafOperationIntent)) []byte {
	in := got[*intents.LeafOperationIntent](w.crowd)(intents.ParseMessage(bytes.Clone(message), intents.DefaultWireFormat))
	change(in)
	return in.Message(intents.DefaultWireFormat)
}

// Bad input of every kind, through the contract and the commands: each gets its
// reason, nothing is stuck, and the daemon goes on working.
func TestServeBadInput(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "tenants:\n  - name: acme\n    lag_window: 300ms\n")
	d.Start()
	d.awaitReady()
	w := &badWorld{T: t, crowd: newCrowd(t, d, "acme", "bad input"), d: d}
	w.found("alice", "bob", "carol", "dave", "erin")
	w.leave = w.crowd.leave(w.members[4], intents.SenderRemovalOnly)
	if _, v := w.submitFile(w.leave); v.State != "pending" {
		t.Fatalf("a good intent: %+v", v)
	}
	w.badIntents()
	w.badPlaces()
	w.replays()
	w.badHandshakes()

	d.consumed(w.crowd)
	good := w.crowd.leave(w.members[1], intents.SenderRemovalOnly)
	if code, v := w.submitFile(good); code != 0 || v.State != "pending" {
		t.Errorf("a good intent after all that: exit code %d, %+v", code, v)
	}
	w.fanOut(w.awaitProposals(1, 4))
	w.commit(w.members[0], member.CommitOptions{})
	w.empty(w.members[0])
	w.awaitStatus(w.intentID(good), confirmed)
	w.awaitStatus(w.intentID(w.leave), confirmed)
	w.agree()
	w.counted("malformed", "too_large", "unknown_tenant")
	d.Stop()
}

// counted checks that refusals are counted.
func (w *badWorld) counted(reasons ...string) {
	w.Helper()
	var shown struct{ Counters map[string]int }
	w.cli(w.d, &shown, "group", "show", fmt.Sprintf("%x", w.id))
	for _, reason := range reasons {
		if shown.Counters["refused."+reason] == 0 {
			w.Errorf("refused.%s is not counted: %v", reason, shown.Counters)
		}
	}
}

func (w *badWorld) badIntents() {
	good := w.sign(w.members[1], intents.SenderRemovalOnly)
	w.rejected("garbage", []byte("garbage"), "malformed")
	w.rejected("an intent cut off", good[:len(good)-1], "malformed")
	w.rejected("a byte too many", append(bytes.Clone(good), 0), "malformed")
	w.rejected("an intent of 16 KiB and a byte", make([]byte, 16<<10+1), "too_large")
	w.rejected("another signature", w.edited(good, func(in *intents.LeafOperationIntent) { in.Signature[20] ^= 1 }), "bad_signature")
	w.rejected("mode 0", w.edited(good, func(in *intents.LeafOperationIntent) { in.RemovalMode = 0 }), "unsupported_mode")
	w.rejected("mode 3", w.edited(good, func(in *intents.LeafOperationIntent) { in.RemovalMode = 3 }), "unsupported_mode")

	// Another group's intent reaches this group only by its subject.
	foreign := w.edited(good, func(in *intents.LeafOperationIntent) { in.GroupID = []byte("another group") })
	w.event("another group's intent", w.publish("intent", foreign), "rejected", "group_mismatch")
	w.awaitStatus(w.intentID(foreign), became("rejected", "group_mismatch"))

	// A leaf that was never seen: our view may lag behind, until it does not.
	stranger := *w.crowd
	stranger.create("mallory")
	strange := stranger.sign(stranger.members[0], intents.SenderRemovalOnly)
	if code, v := w.submitFile(strange); code != 0 || v.State != "parked" || v.Reason != "leaf_ref_mismatch" {
		w.Errorf("a strange leaf: exit code %d, %+v", code, v)
	}
	w.empty(w.members[0])
	w.awaitStatus(w.intentID(strange), became("rejected", "leaf_ref_mismatch"))
	if code, v := w.submitFile(w.sign(w.members[1], intents.SenderRemovalOnly)); code != 0 || v.State != "pending" {
		w.Errorf("what was forged before: exit code %d, %+v", code, v)
	}
	if code, _ := w.cli(w.d, nil, "intent", "cancel", "--group-id", fmt.Sprintf("%x", w.id), w.intentID(good)); code != 0 {
		w.Errorf("cancel: exit code %d", code)
	}
	w.awaitStatus(w.intentID(good), became("cancelled", ""))
	w.empty(w.members[1]) // a fresh leaf: it may ask again
}

// badPlaces sends good messages where they do not belong.
func (w *badWorld) badPlaces() {
	good := w.sign(w.members[0], intents.SenderRemovalOnly)
	nobody := *w.crowd
	nobody.tenant = "nobody"
	seq := nobody.publish("intent", good)
	w.event("an unknown tenant", seq, "rejected", "unknown_tenant")
	code, _, stderr := run("", "intent", "submit", "--server", w.d.url, "--tenant", "nobody", mustWrite(w, "intent.mls", good))
	if code != 1 || stderr == "" {
		w.Errorf("an unknown tenant: exit code %d, %s", code, stderr)
	}
	unknown := *w.crowd
	unknown.id = []byte("nobody's group")
	unknown.create("zoe")
	if code, v := w.submitFile(unknown.sign(unknown.members[0], intents.SenderRemovalOnly)); code != 0 || v.State != "parked" || v.Reason != "unknown_group" {
		w.Errorf("an unknown group: exit code %d, %+v", code, v)
	}
	w.event("an input of a megabyte and a byte", w.publish("commit", make([]byte, 1<<20+1)), "refused", "too_large")
}

// replays hands in an intent again after the removal, and after the same key
// package was added again.
func (w *badWorld) replays() {
	key := got[*member.KeyPackage](w.crowd)(w.client("frank").NewKeyPackage(demoLife()))
	add := func() *member.Group {
		commit := w.commit(w.members[0], member.CommitOptions{Proposals: []*mlscore.Proposal{member.Add(key.KeyPackage)}, References: [][]byte{}})
		g := got[*member.Group](w.crowd)(key.Join(commit.Welcome, nil))
		w.members = append(w.members, g)
		return g
	}
	message := w.crowd.leave(add(), intents.SenderRemovalOnly)
	if _, v := w.submitFile(message); v.State != "pending" {
		w.Errorf("frank leaves: %+v", v)
	}
	// Frank alone: the leaver of the whole test stays.
	index := w.lastLeaf()
	for _, p := range w.awaitProposals(4, index) {
		if w.removedBy(p) == index {
			w.fanOut([][]byte{p})
		}
	}
	w.commit(w.members[0], member.CommitOptions{})
	w.awaitStatus(w.intentID(message), func(v *delivery.Verdict) bool { return v.State == "removed" })
	if code, v := w.submitFile(message); code != 0 || v.State != "removed" {
		w.Errorf("replayed: exit code %d, %+v", code, v)
	}
	again := add()
	w.rejected("the same key package again", message, "reference_reused")
	w.awaitProposals(4)
	w.empty(again) // a fresh leaf
}

// lastLeaf is the rightmost leaf in use.
func (w *badWorld) lastLeaf() (last mlscore.LeafIndex) {
	for leaf := range w.members[0].Members() {
		last = leaf
	}
	return last
}

func (w *badWorld) badHandshakes() {
	late := got[*member.Commit](w.crowd)(w.members[1].Commit(member.CommitOptions{References: [][]byte{}})).Message
	w.empty(w.members[0])
	w.empty(w.members[0]) // a member has signed over what came of the other commit
	w.event("a commit of a past epoch", w.publish("commit", late), "refused", "stale")
	w.event("no handshake", w.publish("commit", []byte("garbage")), "refused", "malformed")
	w.event("no GroupInfo", w.publish("info", []byte("garbage")), "refused", "malformed")
	w.event("a commit with another signature", w.publish("commit", w.spoiled(&member.Mutate{
		Auth: func(a *mlscore.AuthenticatedContent) { a.Signature[5] ^= 1 },
	})), "diverged", "diverged")
	w.event("a commit that removes nobody", w.publish("commit", w.spoiled(&member.Mutate{
		Content: func(c *mlscore.FramedContent) {
			c.Commit.Proposals = append(c.Commit.Proposals, mlscore.ProposalOrRef{Proposal: member.Remove(1000)})
		},
	})), "refused", "invalid")
	w.awaitProposals(4)

	// A commit in a PrivateMessage cannot be followed.
	w.gap("a private commit", func() []byte {
		client := w.members[0].Client()
		client.EncryptHandshakes = true
		defer func() { client.EncryptHandshakes = false }()
		return got[*member.Commit](w.crowd)(w.members[0].Commit(member.CommitOptions{References: [][]byte{}})).Message
	})

	// Nor one that refers to a proposal which was not handed on.
	w.gap("a commit with a missing proposal", func() []byte {
		proposal := got[[]byte](w.crowd)(w.members[1].ProposeUpdate(nil))
		for _, m := range slices.Concat(w.members[:1], w.members[2:]) {
			_, err := m.Process(proposal)
			w.check(err)
		}
		return got[*member.Commit](w.crowd)(w.members[0].Commit(member.CommitOptions{})).Message
	})
}

// spoiled is a commit of the first member that nobody accepts.
func (w *badWorld) spoiled(how *member.Mutate) []byte {
	client := w.members[0].Client()
	client.Mutate = how
	defer func() { client.Mutate = nil }()
	return got[*member.Commit](w.crowd)(w.members[0].Commit(member.CommitOptions{References: [][]byte{}})).Message
}

// gap lets a commit happen that the broker cannot follow: nothing is proposed
// until there is a GroupInfo, of which a bad one is refused, and a member has
// signed over it.
func (w *badWorld) gap(what string, make func() []byte) {
	w.Helper()
	commit := make()
	seq := w.publish("commit", commit)
	for _, m := range w.members {
		_, err := m.Process(commit)
		w.check(err)
	}
	w.event(what, seq, "needs_group_info", "unresolvable")
	w.awaitStatus(w.intentID(w.leave), became("held", "gap"))

	client := w.members[0].Client()
	client.Mutate = &member.Mutate{GroupInfo: func(gi *mlscore.GroupInfo) {
		stranger := *w.crowd
		stranger.create("mallory")
		gi.Extensions = gi.Extensions.With(mlscore.ExtensionTypeRatchetTree, stranger.members[0].RatchetTree())
	}}
	bad := got[[]byte](w.crowd)(w.members[0].GroupInfo())
	client.Mutate = nil
	w.event("a GroupInfo with another tree", w.publish("info", bad), "refused", "invalid")
	w.info()
	w.awaitStatus(w.intentID(w.leave), became("held", "unproven"))
	time.Sleep(50 * time.Millisecond)
	if p := w.pending(); len(p) > 0 {
		w.Errorf("%s: %d proposals over a GroupInfo that nobody signed over", what, len(p))
	}
	w.empty(w.members[0])
	w.awaitStatus(w.intentID(w.leave), became("pending", ""))
	w.awaitProposals(4)
}

// Two devices of one user: the one that leaves may take the other along, where
// somebody vouches for what the credentials say.
func TestServeAssociated(t *testing.T) {
	t.Parallel()
	const service = `
    authsvc:
      type: static
      credentials_vouched: %t
      rules:
        - match: basic
          encoding: utf8
          pattern: "(?P<subject>[^/]+)/[a-z]+"
`
	d := newDaemon(t, "tenants:\n  - name: vouched"+fmt.Sprintf(service, true)+"  - name: claimed"+fmt.Sprintf(service, false))
	d.Start()
	d.awaitReady()
	for tenant, gone := range map[string][]mlscore.LeafIndex{"vouched": {1, 3}, "claimed": {1}} {
		c := newCrowd(t, d, tenant, "devices")
		c.found("bob/phone", "alice/phone", "carol/phone", "alice/laptop", "alicia/phone")
		message := c.leave(c.members[1], intents.RemoveAssociatedMembers)
		v := c.verdict(message)
		if reason := map[bool]string{true: "", false: "sender_only"}[tenant == "vouched"]; v.State != "pending" && v.State != "held" || v.State == "pending" && v.Reason != reason {
			t.Errorf("%s: %+v", tenant, v)
		}
		c.awaitProposals(gone...)
		c.join(c.client("dave/phone"))
		if len(gone) == 1 {
			time.Sleep(100 * time.Millisecond) // nobody else follows
		}
		c.fanOut(c.awaitProposals(gone...))
		c.commit(c.members[0], member.CommitOptions{})
		c.join(c.client("alice/tablet")) // added later: never touched
		c.empty(c.members[0])
		c.awaitStatus(v.ID, confirmed)
		c.awaitProposals()
		c.agree()
		if left, want := len(c.members), 7-len(gone); left != want {
			t.Errorf("%s: %d members are left, want %d", tenant, left, want)
		}
	}
	d.Stop()
}
