package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"

	"leavebroker/broker/delivery"
	"leavebroker/intents"
	"leavebroker/mlscore"
)

const (
	// loadWait is how long a request waits for a verdict: the broker's most.
	loadWait = 10 * time.Second
	// loadPatience bounds the wait for a broker that cannot be reached, and for
	// the last removals.
	loadPatience = time.Minute
	loadAgain    = 100 * time.Millisecond
	// catchUp bounds the wait for a broker that works on millions of GroupInfos.
	catchUp = 10 * time.Minute
	// loadInFlight bounds the steps at a time: a load above what the broker bears
	// becomes one of so many at a time, and late.
	loadInFlight = 256
	// publishInFlight is how many GroupInfos of known groups are published at a
	// time.
	publishInFlight = 512
)

// loader is one run of a load.
type loader struct {
	opts     loadOptions
	profile  *loadProfile
	stack    *loadStack
	ds       *delivery.Service
	people   *loadPeople
	report   *loadReport
	progress *loadProgress

	run    string // begins the identifier of every group: a run has its own
	groups []*loadGroup
	byID   map[string]*loadGroup

	open     atomic.Int64 // leaves that are to be removed
	draining atomic.Bool
	answers  sync.WaitGroup // what members do after a removal
	failed   context.CancelCauseFunc

	listening    sync.WaitGroup
	endListening context.CancelFunc

	mu      sync.Mutex
	intents []loadIntent // guarded by mu
}

type loadIntent struct {
	groupID []byte
	id      string
}

// newLoader prepares a load: everything that is not measured.
func newLoader(ctx context.Context, opts loadOptions, stack *loadStack, progress *loadProgress) (*loader, error) {
	suite, err := toolRegistry().LookupSuite(mlscore.CipherSuite(opts.suite))
	if err != nil {
		return nil, err
	}
	l := &loader{
		opts: opts, profile: opts.profile, stack: stack, progress: progress, report: newLoadReport(&opts),
		run: "load-" + nuid.Next() + "-", byID: map[string]*loadGroup{},
	}
	sender, err := stack.externalSender(suite)
	if err != nil {
		return nil, err
	}
	if l.ds, err = delivery.New(stack.conn, opts.prefix, opts.tenant); err != nil {
		return nil, err
	}
	l.people = newLoadPeople(suite, sender, opts.seed)
	people := min(peopleMost, max(opts.groups, opts.pending, min(opts.known, knownTrees))*opts.members)
	if err := l.people.grow(max(people, opts.members+loadDevices), progress); err != nil {
		return nil, fmt.Errorf("making clients: %w", err)
	}
	return l, nil
}

// publishKnown hands on the groups that stay idle.
func (l *loader) publishKnown(ctx context.Context) error {
	if l.opts.known == 0 {
		return nil
	}
	if err := l.people.plant(l.opts.members); err != nil {
		return err
	}
	return l.progress.parallel("known groups", l.opts.known, publishInFlight, func(i int) error {
		id := fmt.Appendf(nil, "%sknown-%d", l.run, i)
		info, err := l.people.known(id, i)
		if err != nil {
			return err
		}
		return l.ds.GroupInfo(ctx, id, info)
	})
}

// makePending makes the groups in which somebody has left and nobody commits.
func (l *loader) makePending(ctx context.Context) error {
	return l.progress.parallel("pending groups", l.opts.pending, loadInFlight, func(i int) error {
		g, err := l.found(ctx, fmt.Appendf(nil, "%spending-%d", l.run, i), i)
		if err != nil {
			return err
		}
		leaf := mlscore.LeafIndex(l.opts.members - 1)
		public := g.member.Public()
		intent, err := intents.New(g.signers[leaf], public.Suite(), g.id, leaf, public.Tree().Leaf(leaf), intents.SenderRemovalOnly)
		if err != nil {
			return err
		}
		verdict, err := l.submit(ctx, intent.Message(intents.DefaultWireFormat))
		if err == nil {
			verdict, err = l.caughtUp(ctx, g.id, verdict)
		}
		if err == nil && badStates[verdict.State] {
			err = fmt.Errorf("the intent of a pending group is %s: %s", verdict.State, verdict.Reason)
		}
		return err
	})
}

// caughtUp waits for a verdict that did not come in time: the broker has to get
// through what was published before.
func (l *loader) caughtUp(ctx context.Context, groupID []byte, verdict *delivery.Verdict) (*delivery.Verdict, error) {
	for deadline := time.Now().Add(catchUp); verdict.State == "stored"; {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no verdict within %s", catchUp)
		}
		if !sleepUntil(ctx, time.Now().Add(loadAgain)) {
			return nil, ctx.Err()
		}
		next, err := l.ds.IntentStatus(ctx, groupID, verdict.ID)
		refusal := (*delivery.Refusal)(nil)
		switch {
		case err == nil:
			verdict = next
		case !errors.As(err, &refusal) || refusal.Code != "404": // 404: it is not known yet
			return nil, err
		}
	}
	return verdict, nil
}

func (l *loader) makeGroups(ctx context.Context) error {
	l.groups = make([]*loadGroup, l.opts.groups)
	err := l.progress.parallel("groups", len(l.groups), loadInFlight, func(i int) error {
		var err error
		l.groups[i], err = l.found(ctx, fmt.Appendf(nil, "%s%d", l.run, i), i*l.opts.members)
		return err
	})
	if err != nil {
		return err
	}
	for _, g := range l.groups {
		l.byID[string(g.id)] = g
	}
	return nil
}

// play makes the groups, replays the load on them and waits until everybody who
// left is gone.
func (l *loader) play(ctx context.Context) (err error) {
	ctx, l.failed = context.WithCancelCause(ctx)
	defer func() {
		l.stopListening()
		if cause := context.Cause(ctx); cause != nil {
			err = cause // all else follows from it
		}
		l.failed(nil)
	}()
	begin := time.Now()
	lap := func(into *float64) {
		*into = seconds(time.Since(begin))
		begin = time.Now()
	}
	if err := l.makeGroups(ctx); err != nil {
		return fmt.Errorf("making groups: %w", err)
	}
	lap(&l.report.result.PrepareSeconds)
	if err := l.publishKnown(ctx); err != nil {
		return fmt.Errorf("publishing known groups: %w", err)
	}
	lap(&l.report.result.KnownSeconds)
	l.startListening(ctx)
	if err := l.makePending(ctx); err != nil {
		return fmt.Errorf("making pending groups: %w", err)
	}
	lap(&l.report.result.PendingSeconds)

	l.report.begin()
	if err := l.replay(ctx); err != nil {
		return err
	}
	if err := l.drain(ctx); err != nil {
		return err
	}
	l.report.finish()
	return l.verify(ctx)
}

// replay takes the steps at their times, whatever the broker does: it does not
// wait for one before the next.
func (l *loader) replay(ctx context.Context) error {
	limit := int(l.opts.rate * l.opts.duration.Seconds())
	if l.profile.steps != nil {
		limit = min(limit, l.profile.steps(&l.opts))
	}
	limit = max(limit, 1)
	var steps errgroup.Group
	steps.SetLimit(loadInFlight)
	begin := time.Now()
	l.progress.start("steps", limit)
	for i := range limit {
		due := begin.Add(time.Duration(float64(i) / l.opts.rate * float64(time.Second)))
		if !sleepUntil(ctx, due) {
			break
		}
		steps.Go(func() error {
			l.report.latency(stepLate, due, time.Now())
			l.report.steps.Add(1)
			err := l.profile.step(ctx, l, i, rand.New(rand.NewPCG(l.opts.seed, uint64(i))))
			if err != nil {
				l.failed(fmt.Errorf("step %d: %w", i, err))
			}
			return nil
		})
		l.progress.add(1)
	}
	_ = steps.Wait() // failures end the context
	if l.profile.lasts {
		sleepUntil(ctx, begin.Add(l.opts.duration))
	}
	return context.Cause(ctx)
}

// sleepUntil says whether the time came before the context ended.
func sleepUntil(ctx context.Context, t time.Time) bool {
	if d := time.Until(t); d > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	return ctx.Err() == nil
}

// drain lets members commit what is proposed until everybody who left is gone,
// or it lasts too long.
func (l *loader) drain(ctx context.Context) error {
	l.draining.Store(true)
	for _, g := range l.groups {
		l.answer(func() error { return l.commitProposed(ctx, g) })
	}
	for deadline := time.Now().Add(loadPatience); l.open.Load() > 0 && time.Now().Before(deadline) && ctx.Err() == nil; {
		time.Sleep(5 * time.Millisecond)
	}
	l.stopListening()
	l.answers.Wait()
	l.report.result.Unfinished = l.open.Load()
	if l.profile.end != nil && l.report.result.Unfinished == 0 {
		for _, g := range l.groups {
			if err := l.profile.end(ctx, l, g); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx)
}

func (l *loader) noteIntent(groupID []byte, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report.accepted.Add(1)
	l.intents = append(l.intents, loadIntent{groupID, id})
}

// verify asks the broker what became of every intent.
func (l *loader) verify(ctx context.Context) error {
	deadline := time.Now().Add(loadPatience)
	return l.progress.parallel("receipts", len(l.intents), loadCores(), func(i int) error {
		for {
			verdict, err := l.ds.IntentStatus(ctx, l.intents[i].groupID, l.intents[i].id)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err == nil && verdict.State == "removed":
				l.report.receipts.Add(1)
				return nil
			case time.Now().After(deadline) || l.report.result.Unfinished > 0:
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
}
