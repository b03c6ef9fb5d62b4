package broker

import (
	"context"
	"encoding/json"
	"time"

	"go.uber.org/zap"
	"leavebroker/intents"
)

const (
	askAgain     = time.Second // after a first failure; doubled by each
	askAgainMost = time.Minute
	// askLost is when a stored answer is taken for lost, if it was not folded.
	askLost = 30 * time.Second
	// maxAsking bounds the questions that are out at a time.
	maxAsking = 64
	// controlAgain is when a stored timer is taken for lost, if it was not folded.
	controlAgain = 30 * time.Second
)

// questions are those that are out, or will be asked again, by group and intent.
type questions map[groupKey]map[string]*question

// question is what is known of asking about one intent.
type question struct {
	busy      bool
	notBefore time.Time
	epoch     uint64 // of the last call
	failures  int    // in a row
	recorded  bool   // that there is no answer in this epoch
}

// ask asks what is due and not asked yet, and gives the time to look again.
func (o *owner) ask(g *group, due []intents.Question) (wake time.Time) {
	now := o.b.opts.Clock()
	asked := o.asks[g.key]
	fresh := map[string]*question{}
	for _, q := range due {
		a := asked[q.Intent]
		if a == nil {
			a = &question{failures: q.Failed, epoch: q.Epoch}
			if q.Failed > 0 {
				a.notBefore = now.Add(askDelay(q.Failed))
			}
		}
		fresh[q.Intent] = a
		if !a.busy && a.epoch != q.Epoch {
			a.epoch, a.recorded, a.notBefore = q.Epoch, false, time.Time{}
		}
		switch {
		case a.busy:
		case a.notBefore.After(now):
			wake = earlier(wake, a.notBefore)
		default:
			a.busy = true
			o.b.ask(o, g, a, q)
		}
	}
	delete(o.asks, g.key)
	if len(fresh) > 0 {
		o.asks[g.key] = fresh
	}
	return wake
}

func askDelay(failures int) time.Duration {
	return min(askAgain<<min(max(failures-1, 0), 10), askAgainMost)
}

// ask asks the Authentication Service in a goroutine of its own; the answer
// comes back as an input.
func (b *Broker) ask(o *owner, g *group, a *question, q intents.Question) {
	b.spawn(func() {
		select {
		case b.asking <- struct{}{}:
			defer func() { <-b.asking }()
		case <-b.work.Done():
			return
		}
		answer, err := g.tenant.ask(b.work, q)
		b.metrics.questions.Add(1)
		if err != nil {
			b.metrics.answerErrors.Add(1)
			b.log.Warn("the Authentication Service gives no answer", zap.Stringer("group", g.key), zap.String("intent", q.Intent), zap.Error(err))
		}
		o.answered(g.key, a, q, answer, err)
	})
}

// ask asks one question within the tenant's timeout. A wrong answer is none.
func (t *tenant) ask(ctx context.Context, q intents.Question) (answer intents.Answer, err error) {
	defer recovered(&err)
	ctx, cancel := context.WithTimeout(ctx, t.AuthTimeout)
	defer cancel()
	answer, err = t.AuthService.Associate(ctx, t.Name, q)
	if err == nil {
		err = q.Check(answer)
	}
	return answer, err
}

// answered stores an answer; that there is none is stored once an epoch.
func (o *owner) answered(k groupKey, a *question, q intents.Question, answer intents.Answer, err error) {
	defer o.begin()()
	a.busy = false
	complete := err == nil && answer.Status == intents.StatusResolved && len(answer.Undecided) == 0
	if err != nil {
		answer = intents.Answer{Intent: q.Intent, Epoch: q.Epoch, Status: intents.StatusError}
	}
	answer.Position = q.Position
	delay := askLost
	if !complete {
		a.failures++
		delay = askDelay(a.failures)
	}
	if answer.Status != intents.StatusError || !a.recorded {
		if err := o.appendJSON(o.b.work, "answer", k, kindAnswer, answer); err != nil {
			delay = askDelay(1)
		} else {
			a.recorded = answer.Status == intents.StatusError
		}
	}
	a.notBefore = o.b.opts.Clock().Add(delay)
	o.b.timers.sooner(k, a.notBefore)
}

// appendJSON stores what comes back as an input.
func (o *owner) appendJSON(ctx context.Context, step string, k groupKey, what kind, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	err = o.b.write(step, func() error {
		_, err := o.group.log.append(ctx, k, what, data, nil)
		return err
	})
	if err != nil {
		o.b.log.Warn("storing in the log failed", zap.String("what", step), zap.Stringer("group", k), zap.Error(err))
	}
	return err
}

// controls are the timers that were stored and not folded yet, by group.
type controls map[groupKey]map[intents.Control]time.Time

func (c controls) clear(k groupKey) { delete(c, k) }

// appendControls stores the timers that came due, each once, and gives the
// time to look again.
func (o *owner) appendControls(ctx context.Context, g *group, due []intents.Control) (wake time.Time) {
	now := o.b.opts.Clock()
	for _, c := range due {
		again, stored := o.controls[g.key][c]
		if !stored || !again.After(now) {
			again = now.Add(controlAgain)
			if o.appendJSON(ctx, "control", g.key, kindControl, c) != nil {
				again = now.Add(time.Second)
			}
			if o.controls[g.key] == nil {
				o.controls[g.key] = map[intents.Control]time.Time{}
			}
			o.controls[g.key][c] = again
		}
		wake = earlier(wake, again)
	}
	if len(due) == 0 {
		o.controls.clear(g.key)
	}
	return wake
}
