package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"leavebroker/broker/delivery"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// addsAtOnce bounds the Adds of one commit, which has to fit a message.
const addsAtOnce = 500

// loadGroup is a group with one member who has its secrets and commits; of the
// others only the signature keys are needed, since who leaves says nothing else.
type loadGroup struct {
	id []byte

	mu        sync.Mutex // held while a commit is made and stored: one for each epoch
	member    *member.Group
	signers   map[mlscore.LeafIndex]mlscore.Signer // of all others who have not signed to leave
	leaving   map[mlscore.LeafIndex]*loadLeaver    // who are still in the tree
	opened    time.Time                            // the commit that began this epoch was published
	scheduled bool                                 // a commit of the removals will come
	colluders [2]*member.Client                    // of adversarial churn
	joins     int
}

// loadLeaver is a leaf for which an intent was signed.
type loadLeaver struct {
	signed   time.Time
	removals int    // proposed for it so far
	epoch    uint64 // of the last of them
}

// found makes a group with members of the people from a place on, and hands it
// on: its GroupInfo, and the commits that add everybody else, which prove it.
func (l *loader) found(ctx context.Context, id []byte, at int) (*loadGroup, error) {
	creator, err := l.people.client(fmt.Sprintf("host-%s", id), 0)
	if err != nil {
		return nil, err
	}
	g := &loadGroup{id: id, signers: map[mlscore.LeafIndex]mlscore.Signer{}, leaving: map[mlscore.LeafIndex]*loadLeaver{}}
	if g.member, err = creator.Create(id, l.people.senders, demoLife()); err != nil {
		return nil, err
	}
	info, err := g.member.GroupInfo()
	if err != nil {
		return nil, err
	}
	if err := l.ds.GroupInfo(ctx, id, info); err != nil {
		return nil, err
	}
	others := make([]loadPerson, l.opts.members-1)
	for k := range others {
		who := k // the user with the devices is in every group
		if k >= loadDevices {
			who = loadDevices + (at+k)%(len(l.people.people)-loadDevices)
		}
		others[k] = l.people.people[who]
	}
	for part := range slices.Chunk(others, addsAtOnce) {
		adds := member.CommitOptions{OmitRatchetTree: true}
		for _, who := range part {
			adds.Proposals = append(adds.Proposals, member.Add(who.keys))
		}
		staged, err := l.commit(ctx, g, adds)
		if err != nil {
			return nil, err
		}
		for k, leaf := range staged.Added {
			g.signers[leaf] = part[k].signer
		}
	}
	return g, nil
}

// commit lets the member commit, and enters the epoch. The caller holds mu.
func (l *loader) commit(ctx context.Context, g *loadGroup, opts member.CommitOptions) (*mlscore.Staged, error) {
	commit, err := g.member.Commit(opts)
	if err != nil {
		return nil, err
	}
	if err := l.publish(ctx, g, commit.Message); err != nil {
		return nil, err
	}
	if err := g.member.ConfirmCommit(); err != nil {
		return nil, err
	}
	l.settle(g, commit.Staged.Removed)
	return commit.Staged, nil
}

// publish hands on a commit.
func (l *loader) publish(ctx context.Context, g *loadGroup, commit []byte) error {
	begin := time.Now()
	if err := l.ds.Commit(ctx, g.id, commit); err != nil {
		return err
	}
	g.opened = begin
	l.report.latency(commitStored, begin, time.Now())
	l.report.commits.Add(1)
	return nil
}

// settle notes who is gone.
func (l *loader) settle(g *loadGroup, removed []mlscore.LeafIndex) {
	for _, leaf := range removed {
		if leaver := g.leaving[leaf]; leaver != nil {
			l.report.latency(intentGone, leaver.signed, time.Now())
			l.report.gone.Add(1)
			l.open.Add(-1)
			delete(g.leaving, leaf)
		}
		delete(g.signers, leaf)
	}
}

// update lets the member renew its keys, and with them commit what is proposed.
func (l *loader) update(ctx context.Context, g *loadGroup) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, err := l.commit(ctx, g, member.CommitOptions{})
	return err
}

// join lets a client join by an external commit, which drops what is proposed
// (RFC 9420, Section 12.4.3.2).
func (l *loader) join(ctx context.Context, g *loadGroup) error {
	c, err := l.people.client(fmt.Sprintf("joiner-%d", l.report.joins.Add(1)), 0)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return l.joinExternal(ctx, g, c, member.ExternalJoinOptions{})
}

// collude lets two clients join in turn, each in the place of its leaf of the
// time before.
func (l *loader) collude(ctx context.Context, g *loadGroup) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	which := g.joins % len(g.colluders)
	g.joins++
	if g.colluders[which] == nil {
		c, err := l.people.client(fmt.Sprintf("colluder-%d", which), 0)
		if err != nil {
			return err
		}
		g.colluders[which] = c
	}
	l.report.joins.Add(1)
	return l.joinExternal(ctx, g, g.colluders[which], member.ExternalJoinOptions{Resync: true})
}

func (l *loader) joinExternal(ctx context.Context, g *loadGroup, c *member.Client, opts member.ExternalJoinOptions) error {
	info, err := g.member.GroupInfo()
	if err != nil {
		return err
	}
	joined, commit, err := c.JoinExternal(info, opts)
	if err != nil {
		return err
	}
	if err := l.publish(ctx, g, commit.Message); err != nil {
		return err
	}
	if _, err := g.member.Process(commit.Message); err != nil {
		return err
	}
	if !opts.Resync {
		g.signers[joined.OwnLeaf()] = c.Signer
	}
	l.settle(g, commit.Staged.Removed)
	return nil
}

// leave lets one of the others sign that it leaves, if anybody is left, and
// waits for the verdict.
func (l *loader) leave(ctx context.Context, g *loadGroup, random *rand.Rand) error {
	g.mu.Lock()
	leaves := slices.Sorted(maps.Keys(g.signers))
	if len(leaves) == 0 {
		g.mu.Unlock()
		l.report.idle.Add(1)
		return nil
	}
	leaf := leaves[random.IntN(len(leaves))]
	return l.signAndSubmit(ctx, g, leaf, intents.SenderRemovalOnly, []mlscore.LeafIndex{leaf})
}

// leaveEverywhere lets the user of loadDevices leave with all of them.
func (l *loader) leaveEverywhere(ctx context.Context, g *loadGroup) error {
	targets := make([]mlscore.LeafIndex, min(loadDevices, l.opts.members-1))
	for i := range targets {
		targets[i] = mlscore.LeafIndex(1 + i)
	}
	g.mu.Lock()
	return l.signAndSubmit(ctx, g, targets[0], intents.RemoveAssociatedMembers, targets)
}

// signAndSubmit signs an intent by a leaf and hands it over. The caller holds
// mu, which is free afterwards.
func (l *loader) signAndSubmit(
	ctx context.Context, g *loadGroup, leaf mlscore.LeafIndex, mode intents.RemovalMode, targets []mlscore.LeafIndex,
) error {
	public := g.member.Public()
	intent, err := intents.New(g.signers[leaf], public.Suite(), g.id, leaf, public.Tree().Leaf(leaf), mode)
	now := time.Now()
	if err == nil {
		for _, target := range targets {
			g.leaving[target] = &loadLeaver{signed: now}
			delete(g.signers, target)
			l.open.Add(1)
		}
	}
	g.mu.Unlock()
	if err != nil {
		return err
	}
	verdict, err := l.submit(ctx, intent.Message(intents.DefaultWireFormat))
	if err != nil {
		return err
	}
	l.report.verdict(verdict, now)
	if !badStates[verdict.State] {
		l.noteIntent(g.id, verdict.ID)
		return nil
	}
	l.report.refused.Add(1)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, target := range targets {
		if g.leaving[target] != nil {
			delete(g.leaving, target)
			l.open.Add(-1)
		}
	}
	return nil
}

// submit hands an intent over, again while the broker cannot be reached.
func (l *loader) submit(ctx context.Context, message []byte) (*delivery.Verdict, error) {
	for deadline := time.Now().Add(loadPatience); ; {
		verdict, err := l.ds.SubmitIntent(ctx, message, loadWait)
		refusal := (*delivery.Refusal)(nil)
		again := errors.As(err, &refusal) && refusal.Code == "503" || err != nil && refusal == nil
		if !again || ctx.Err() != nil || time.Now().After(deadline) {
			return verdict, err
		}
		l.report.retries.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(loadAgain):
		}
	}
}

// proposed counts those who leave and are proposed in this epoch. The caller
// holds mu.
func (g *loadGroup) proposed() int {
	n := 0
	for _, leaver := range g.leaving {
		if leaver.removals > 0 && leaver.epoch == g.member.Epoch() {
			n++
		}
	}
	return n
}
