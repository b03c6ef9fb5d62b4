package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"leavebroker/broker/delivery"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// demoGroupID is the identifier of the demonstration's one group.
var demoGroupID = []byte("demo")

const (
	// demoPatience bounds the wait for the broker at each step.
	demoPatience = 30 * time.Second
	// demoLifetime is how long the demonstration's key packages are good.
	demoLifetime = 24 * time.Hour
)

// demoWorld is the members and the delivery service around a broker.
type demoWorld struct {
	opts   demoOptions
	show   *demoShow
	result demoResult
	shared *member.Shared

	daemon  *demoDaemon
	ds      *delivery.Service
	members []*member.Group // who is in the group and has its state
	leaving map[mlscore.LeafIndex]*demoLeaver
	seeded  int

	registry *mlscore.Registry // of all clients
}

// demoLeaver is a leaf whose client has vanished.
type demoLeaver struct {
	name     string
	intent   string // its id
	proposed int    // how often the broker has proposed the removal
	gone     bool
}

func newDemoWorld(ctx context.Context, opts demoOptions, show *demoShow) (*demoWorld, error) {
	w := &demoWorld{opts: opts, show: show, shared: new(member.Shared), leaving: make(map[mlscore.LeafIndex]*demoLeaver)}
	w.registry = mlscore.DefaultRegistry()
	if opts.joinersInclude {
		w.registry.Custom = []mlscore.CustomProposal{intents.DefaultCodePoints().CustomProposal()}
	}
	w.result = demoResult{Members: opts.members, Leavers: opts.leavers, Joins: opts.joins}
	show.title("A group of %d in cipher suite %s: %d leave, %d join meanwhile.  o member  x leaving  . blank leaf",
		opts.members, suiteNumber(opts.suite), opts.leavers, opts.joins)
	var err error
	if w.daemon, err = startDemoDaemon(ctx, mlscore.CipherSuite(opts.suite), w.random()); err != nil {
		return nil, fmt.Errorf("starting the broker: %w", err)
	}
	if w.ds, err = delivery.New(w.daemon.conn, demoPrefix, demoTenant); err != nil {
		return nil, errors.Join(err, w.stop())
	}
	return w, nil
}

func (w *demoWorld) stop() error { return w.daemon.stop() }

// random is the next client's own source of randomness, so that clients may
// work side by side and the seed still decides.
func (w *demoWorld) random() io.Reader {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], w.opts.seed)
	binary.BigEndian.PutUint64(seed[8:], uint64(w.seeded))
	w.seeded++
	return rand.NewChaCha8(seed)
}

func (w *demoWorld) client(name string) (*member.Client, error) {
	suite, err := toolRegistry().LookupSuite(mlscore.CipherSuite(w.opts.suite))
	if err != nil {
		return nil, err
	}
	c := &member.Client{
		CipherSuite: suite.ID, Credential: mlscore.BasicCredential([]byte(name)),
		Random: w.random(), Shared: w.shared, Registry: w.registry,
	}
	c.Signer, err = mlscore.GenerateSigner(suite.Signature, c.Random)
	return c, err
}

func demoLife() mlscore.Lifetime {
	now := time.Now()
	return mlscore.Lifetime{NotBefore: uint64(now.Add(-time.Hour).Unix()), NotAfter: uint64(now.Add(demoLifetime).Unix())}
}

// found makes the group: its creator adds everybody else in one commit.
func (w *demoWorld) found(ctx context.Context) error {
	creator, err := w.client("member-0")
	if err != nil {
		return err
	}
	senders := mlscore.AppendExternalSenders(nil, []mlscore.ExternalSender{w.daemon.sender})
	group, err := creator.Create(demoGroupID, mlscore.Extensions{{Type: mlscore.ExtensionTypeExternalSenders, Data: senders}}, demoLife())
	if err != nil {
		return err
	}
	info, err := group.GroupInfo()
	if err != nil {
		return err
	}
	if err := w.ds.GroupInfo(ctx, demoGroupID, info); err != nil {
		return err
	}
	packages := make([]*member.KeyPackage, w.opts.members-1)
	var adds member.CommitOptions
	for i := range packages {
		c, err := w.client(fmt.Sprintf("member-%d", i+1))
		if err != nil {
			return err
		}
		if packages[i], err = c.NewKeyPackage(demoLife()); err != nil {
			return err
		}
		adds.Proposals = append(adds.Proposals, member.Add(packages[i].KeyPackage))
		w.show.work("key packages", i+1, len(packages))
	}
	w.members = []*member.Group{group}
	commit, err := group.Commit(adds)
	if err != nil {
		return err
	}
	if _, err := w.accept(ctx, commit.Message); err != nil {
		return err
	}
	return w.welcome(packages, commit.Welcome)
}

// welcome lets everybody join by the Welcome.
func (w *demoWorld) welcome(packages []*member.KeyPackage, welcome []byte) error {
	joined := make([]*member.Group, len(packages))
	err := w.parallel("members", len(packages), func(i int) (err error) {
		joined[i], err = packages[i].Join(welcome, nil)
		return err
	})
	if err != nil {
		return err
	}
	w.members = append(w.members, joined...)
	w.show.line(w.epoch(), "%s  the group is made", w.tree())
	return nil
}

// parallel does n things on all cores and shows how far it has come.
func (w *demoWorld) parallel(what string, n int, do func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for i := range n {
		g.Go(func() error { return do(i) })
		w.show.work(what, i+1, n) // Go waits while all cores are busy
	}
	return g.Wait()
}

func (w *demoWorld) epoch() uint64 { return w.members[0].Epoch() }

func (w *demoWorld) tree() string { return w.show.tree(w.members[0].Public().Tree(), w.leaving) }

// leave lets the last leavers sign their intents, hand them over and vanish.
func (w *demoWorld) leave(ctx context.Context) error {
	n := len(w.members)
	for i := range w.opts.leavers {
		at := 1 + i*(n-1)/w.opts.leavers - i // of those who are left
		m := w.members[at]
		if err := w.signAndVanish(ctx, m); err != nil {
			return err
		}
		w.members = slices.Delete(w.members, at, at+1)
	}
	return nil
}

func (w *demoWorld) signAndVanish(ctx context.Context, m *member.Group) error {
	index, public := m.OwnLeaf(), m.Public()
	intent, err := intents.New(m.Client().Signer, public.Suite(), public.GroupID(), index, public.Tree().Leaf(index), intents.SenderRemovalOnly)
	if err != nil {
		return err
	}
	verdict, err := w.ds.SubmitIntent(ctx, intent.Message(intents.DefaultWireFormat), demoPatience)
	if err != nil {
		return err
	}
	w.result.Intents++
	name := string(m.Client().Credential.Identity)
	w.leaving[index] = &demoLeaver{name: name, intent: verdict.ID}
	w.show.line(w.epoch(), "%s  %s (leaf %d) signs its intent and vanishes; the broker says %s", w.tree(), name, index, verdict.State)
	if verdict.State != "pending" {
		return fmt.Errorf("the intent of %s is %s: %s", name, verdict.State, verdict.Reason)
	}
	return nil
}

// open are the leaves of leavers that are still in the group, ascending.
func (w *demoWorld) open() []mlscore.LeafIndex {
	var open []mlscore.LeafIndex
	for leaf, l := range w.leaving {
		if !l.gone {
			open = append(open, leaf)
		}
	}
	slices.Sort(open)
	return open
}

// awaitProposals takes the broker's removals until one is there, in this epoch,
// for each leaver, and hands them to the members.
func (w *demoWorld) awaitProposals(ctx context.Context) error {
	missing := w.open()
	deadline := time.Now().Add(demoPatience)
	var fresh, again []mlscore.LeafIndex
	for len(missing) > 0 {
		removal, err := w.ds.NextRemoval(ctx, time.Second)
		if err != nil {
			return err
		}
		if removal == nil {
			if time.Now().After(deadline) {
				return fmt.Errorf("the broker proposed nothing for leaves %v in epoch %d within %s", missing, w.epoch(), demoPatience)
			}
			continue
		}
		if removal.Epoch == w.epoch() {
			leaves, err := w.fanOut(removal.Proposals)
			if err != nil {
				return err
			}
			for _, leaf := range leaves {
				l := w.leaving[leaf]
				if l == nil {
					return fmt.Errorf("the broker proposed leaf %d, which did not ask to leave", leaf)
				}
				w.result.Proposals++
				if l.proposed++; l.proposed > 1 {
					w.result.Reproposals++
					again = append(again, leaf)
				} else {
					fresh = append(fresh, leaf)
				}
				missing = slices.DeleteFunc(missing, func(m mlscore.LeafIndex) bool { return m == leaf })
			}
		}
		if err := removal.Done(); err != nil {
			return err
		}
	}
	if len(fresh) > 0 {
		w.show.line(w.epoch(), "%s  the broker proposes to remove %s", w.tree(), leafList(fresh))
	}
	if len(again) > 0 {
		w.show.line(w.epoch(), "%s  the broker proposes again to remove %s", w.tree(), leafList(again))
	}
	return nil
}

// fanOut gives proposals to all members and tells which leaves they remove.
func (w *demoWorld) fanOut(proposals [][]byte) ([]mlscore.LeafIndex, error) {
	var leaves []mlscore.LeafIndex
	for _, p := range proposals {
		first, err := w.members[0].Process(p)
		if err != nil {
			return nil, fmt.Errorf("a member refuses the broker's proposal: %w", err)
		}
		leaves = append(leaves, first.Staged.Proposal.Proposal.Removed)
		if err := w.parallel("proposals", len(w.members)-1, func(i int) error {
			_, err := w.members[i+1].Process(p)
			return err
		}); err != nil {
			return nil, fmt.Errorf("a member refuses the broker's proposal: %w", err)
		}
	}
	return leaves, nil
}

// accept is the delivery service taking a commit: the broker and all members
// get it. It tells what the commit did.
func (w *demoWorld) accept(ctx context.Context, commit []byte) (*mlscore.Staged, error) {
	if err := w.ds.Commit(ctx, demoGroupID, commit); err != nil {
		return nil, err
	}
	received, err := w.members[0].Process(commit)
	if err != nil {
		return nil, err
	}
	if err := w.parallel("members", len(w.members)-1, func(i int) error {
		_, err := w.members[i+1].Process(commit)
		return err
	}); err != nil {
		return nil, err
	}
	w.result.Epochs++
	for _, leaf := range received.Staged.Removed {
		if l := w.leaving[leaf]; l != nil && !l.gone {
			l.gone = true
		}
	}
	return received.Staged, nil
}

// join lets a new client join by an external commit, which cannot carry the
// pending Removes (RFC 9420, Section 12.4.3.2), but may carry the intents.
func (w *demoWorld) join(ctx context.Context, i int) error {
	name := fmt.Sprintf("joiner-%d", i+1)
	c, err := w.client(name)
	if err != nil {
		return err
	}
	info, err := w.members[0].GroupInfo()
	if err != nil {
		return err
	}
	var include member.ExternalJoinOptions
	if w.opts.joinersInclude {
		pending, err := w.pending(ctx)
		if err != nil {
			return err
		}
		include.LeafOperations, include.Pending = pending.LeafOperationProposals, pending.SelfRemoves
	}
	group, commit, err := c.JoinExternal(info, include)
	if err != nil {
		return err
	}
	staged, err := w.accept(ctx, commit.Message)
	if err != nil {
		return err
	}
	w.members = append(w.members, group)
	what := "joins by an external commit"
	switch {
	case len(staged.Removed) > 0:
		what += " that includes the pending intents: " + leafList(staged.Removed) + " gone"
	case len(w.open()) > 0:
		what += ", which drops the proposals"
	}
	w.show.line(w.epoch(), "%s  %s %s", w.tree(), name, what)
	return nil
}

// pending asks the broker what an external joiner may include, once it has
// followed the group to the present epoch.
func (w *demoWorld) pending(ctx context.Context) (*delivery.Pending, error) {
	for deadline := time.Now().Add(demoPatience); ; time.Sleep(5 * time.Millisecond) {
		pending, err := w.ds.Pending(ctx, demoGroupID)
		switch {
		case err != nil:
			return nil, err
		case pending.Epoch == w.epoch():
			return pending, nil
		case time.Now().After(deadline):
			return nil, fmt.Errorf("the broker is in epoch %d, not in %d, after %s", pending.Epoch, w.epoch(), demoPatience)
		}
	}
}

// commitRemovals lets a member commit what is proposed.
func (w *demoWorld) commitRemovals(ctx context.Context) error {
	commit, err := w.members[0].Commit(member.CommitOptions{})
	if err != nil {
		return err
	}
	staged, err := w.accept(ctx, commit.Message)
	if err != nil {
		return err
	}
	w.show.line(w.epoch(), "%s  member-0 commits: %s gone", w.tree(), leafList(staged.Removed))
	return nil
}

// awaitRemoved waits until the broker has seen the leavers go.
func (w *demoWorld) awaitRemoved(ctx context.Context) error {
	return w.awaitStatus(ctx, func(v *delivery.Verdict) bool { return v.State == "removed" })
}

// confirm lets another member sign over the new epoch, which proves it to the
// broker, and waits until it says so.
func (w *demoWorld) confirm(ctx context.Context) error {
	last := w.members[len(w.members)-1]
	commit, err := last.Commit(member.CommitOptions{})
	if err != nil {
		return err
	}
	if _, err := w.accept(ctx, commit.Message); err != nil {
		return err
	}
	if err := w.awaitStatus(ctx, func(v *delivery.Verdict) bool { return v.Confirmed }); err != nil {
		return err
	}
	w.show.line(w.epoch(), "%s  %s signs over the new epoch: the removals are confirmed", w.tree(), last.Client().Credential.Identity)
	return nil
}

// awaitStatus waits until the broker's status of every intent is as wanted.
func (w *demoWorld) awaitStatus(ctx context.Context, wanted func(*delivery.Verdict) bool) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	for _, leaf := range slices.Sorted(maps.Keys(w.leaving)) {
		for {
			verdict, err := w.ds.IntentStatus(ctx, demoGroupID, w.leaving[leaf].intent)
			if err != nil {
				return fmt.Errorf("waiting for the intent of leaf %d: %w", leaf, err)
			}
			if wanted(verdict) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// judge counts who is gone and compares the members' epoch authenticators.
func (w *demoWorld) judge() {
	tree := w.members[0].Public().Tree()
	for leaf, l := range w.leaving {
		if l.gone && (tree.Leaf(leaf) == nil || !bytes.Equal(tree.Leaf(leaf).Credential.Identity, []byte(l.name))) {
			w.result.Removed++
		}
	}
	w.result.MembersAgree = true
	for _, m := range w.members {
		if m.Epoch() != w.epoch() || !bytes.Equal(m.EpochAuthenticator(), w.members[0].EpochAuthenticator()) {
			w.result.MembersAgree = false
		}
	}
}
