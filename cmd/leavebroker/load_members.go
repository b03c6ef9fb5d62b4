package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"leavebroker/broker/delivery"
	"leavebroker/intents"
	"leavebroker/mlscore/member"
)

// answer does what members do after a removal, beside everything else.
func (l *loader) answer(do func() error) {
	l.answers.Go(func() {
		if err := do(); err != nil {
			l.failed(fmt.Errorf("answering a removal: %w", err))
		}
	})
}

// commitProposed lets the member commit the removals of this epoch, in the end
// only when they are complete.
func (l *loader) commitProposed(ctx context.Context, g *loadGroup) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.scheduled = false
	proposed := g.proposed()
	if proposed == 0 || l.draining.Load() && proposed < len(g.leaving) {
		return nil
	}
	staged, err := l.commit(ctx, g, member.CommitOptions{})
	if err == nil && l.profile.rejoin && !l.draining.Load() {
		for range staged.Removed {
			l.answer(func() error { return l.join(ctx, g) })
		}
	}
	return err
}

// close lets the last member sign that it leaves, and the delivery service
// close the group: nobody is left to commit.
func (l *loader) close(ctx context.Context, g *loadGroup) error {
	public, leaf := g.member.Public(), g.member.OwnLeaf()
	intent, err := intents.New(g.member.Client().Signer, public.Suite(), g.id, leaf, public.Tree().Leaf(leaf), intents.SenderRemovalOnly)
	if err != nil {
		return err
	}
	begin := time.Now()
	verdict, err := l.submit(ctx, intent.Message(intents.DefaultWireFormat))
	if err != nil {
		return err
	}
	l.report.verdict(verdict, begin)
	return l.ds.Closed(ctx, g.id, "the call has ended")
}

func (l *loader) startListening(ctx context.Context) {
	ctx, l.endListening = context.WithCancel(ctx)
	l.listening.Go(func() { l.listen(ctx) })
}

// stopListening waits until the last removal is taken.
func (l *loader) stopListening() {
	if l.endListening != nil {
		l.endListening()
	}
	l.listening.Wait()
}

// listen takes the broker's removals until the context ends.
func (l *loader) listen(ctx context.Context) {
	var taking errgroup.Group
	taking.SetLimit(loadInFlight)
	err := l.ds.Removals(ctx, func(r *delivery.Removal) {
		now := time.Now()
		taking.Go(func() error {
			err := l.take(ctx, r, now)
			if err == nil {
				err = r.Done()
			}
			if err != nil && ctx.Err() == nil {
				l.failed(fmt.Errorf("taking a removal: %w", err))
			}
			return nil
		})
	})
	_ = taking.Wait() // failures end the context
	if err != nil {
		l.failed(err)
	}
}

// take gives a removal to the group's member and measures it.
func (l *loader) take(ctx context.Context, r *delivery.Removal, received time.Time) error {
	g := l.byID[string(r.GroupID)]
	if g == nil { // a pending group, or one of another run
		l.report.others.Add(int64(len(r.Proposals)))
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Epoch != g.member.Epoch() {
		l.report.stale.Add(int64(len(r.Proposals)))
		return nil
	}
	for _, p := range r.Proposals {
		got, err := g.member.Process(p)
		if err != nil {
			return fmt.Errorf("a member refuses the broker's proposal: %w", err)
		}
		leaver := g.leaving[got.Staged.Proposal.Proposal.Removed]
		if leaver == nil {
			return fmt.Errorf("the broker proposed leaf %d of %s, which did not ask", got.Staged.Proposal.Proposal.Removed, g.id)
		}
		l.note(g, leaver, r, received)
	}
	l.react(ctx, g)
	return nil
}

// note measures one removal of a leaver. The caller holds mu.
func (l *loader) note(g *loadGroup, leaver *loadLeaver, r *delivery.Removal, received time.Time) {
	if leaver.removals > 0 && leaver.epoch == r.Epoch {
		return // delivered again
	}
	l.report.removals.Add(1)
	if leaver.removals == 0 {
		l.report.latency(intentRemoval, leaver.signed, received)
	} else {
		l.report.reproposals.Add(1)
		l.report.latency(commitRemoval, g.opened, received)
		l.report.latency(commitRemovalStored, g.opened, r.Stored)
	}
	leaver.removals++
	leaver.epoch = r.Epoch
}

// react lets members, or adversaries, answer removals. The caller holds mu.
func (l *loader) react(ctx context.Context, g *loadGroup) {
	switch p := l.profile; {
	case l.draining.Load():
		l.answer(func() error { return l.commitProposed(ctx, g) })
	case p.removal != nil:
		l.answer(func() error { return p.removal(ctx, l, g) })
	case p.react > 0 && !g.scheduled:
		g.scheduled = true
		l.answer(func() error {
			sleepUntil(ctx, time.Now().Add(p.react))
			return l.commitProposed(ctx, g)
		})
	}
}
