package broker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	"leavebroker/intents"
	"leavebroker/mlscore"
)

// What follows from an input, and from those read ahead with it (ahead.go), is
// done in this order, each step only after the one before it is known to be
// stored:
//
//	1. output   the removals for the current epoch, by compare-and-swap on the
//	            group's last output
//	2. events
//	3. ledger   whether the group is open, and its receipts, by compare-and-swap;
//	            after the events, since the inputs of a group that is not open
//	            are skipped when they come again
//	4. memory   only now the new state replaces the old one
//	5. answer, control: questions are asked, timers that came due are stored;
//	            both come back as inputs
//	6. ack      of the input; those read ahead have theirs when they come
//
// An error at any step leaves nothing of the group in memory and the input
// unacknowledged: it is delivered again, the group is loaded from the log with
// whatever was stored, and the same code goes on from there.

// maxRemovals is the most proposals in one output, and a half of the largest
// message is the most bytes that they take there, if it is more than one: the rest
// follows in the next.
const maxRemovals = 1000

// maxDecisions bounds the outputs that one input leads to.
const maxDecisions = 1 << 10

// signRetry is when to sign again after a signer failed.
const signRetry = 5 * time.Second

// errSigning: no proposal could be made. The input is done with all the same;
// the group is looked at again later.
var errSigning = errors.New("signing failed")

// write performs one write. Tests lose the request or the reply of each.
func (b *Broker) write(step string, perform func() error) error {
	if b.opts.testOnlyFault == nil {
		return perform()
	}
	if err := b.opts.testOnlyFault(step); err != nil {
		return err
	}
	if err := perform(); err != nil {
		return err
	}
	return b.opts.testOnlyFault(step + " reply")
}

// settle stores the outputs that a state calls for and folds them, until none
// is due.
func (b *Broker) settle(ctx context.Context, g *group) ([]event, intents.Due, error) {
	var events []event
	for range maxDecisions {
		due := g.state.Due(b.opts.Clock())
		if due.Propose == nil {
			return events, due, nil
		}
		r, err := b.propose(ctx, g, due.Propose)
		if errors.Is(err, errSigning) {
			b.metrics.signErrors.Add(1)
			b.log.Error("a removal cannot be signed", zap.Stringer("group", g.key), zap.Error(err))
			due.Wake = b.opts.Clock().Add(signRetry)
			return events, due, nil
		}
		if err != nil {
			return nil, due, err
		}
		events = append(events, b.foldEvents(g, r)...)
	}
	return nil, intents.Due{}, fmt.Errorf("%w: %d outputs and more are due", errBroken, maxDecisions)
}

// foldEvents folds an entry and gives its events.
func (b *Broker) foldEvents(g *group, r *received) []event {
	var events []event
	for _, n := range g.fold(r) {
		e := newEvent(r, n)
		b.identify(&e, g.state.Group())
		events = append(events, e)
	}
	return events
}

// propose signs and stores the output of an order. It is stored only if no
// other output came since the last one that the state knows.
func (b *Broker) propose(ctx context.Context, g *group, order *intents.Order) (*received, error) {
	out, err := makeOutput(g.state.Group(), g.tenant.Signers, order, b.opts.Limits.MessageBytes/2)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errSigning, err)
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	r := &received{entry: entry{data: data, time: b.opts.Clock()}, key: g.key, kind: kindRemoval, tenant: g.tenant}
	err = b.write("output", func() (err error) {
		r.seq, err = b.at(g.key).log.append(ctx, g.key, kindRemoval, data, &g.lastRemoval)
		return err
	})
	b.noteRoom(err)
	if err != nil {
		return nil, err
	}
	b.metrics.outputs.Add(1)
	b.metrics.proposals.Add(int64(len(out.Proposals)))
	return r, nil
}

// makeOutput signs the removals of an order, of at most so many bytes, with the
// first signer that the group's external_senders list.
func makeOutput(g *mlscore.PublicGroup, signers []mlscore.Signer, order *intents.Order, bytes int) (*intents.Output, error) {
	out := &intents.Output{GroupID: g.GroupID(), Epoch: order.Epoch, Intents: order.Intents}
	if g.Epoch() != order.Epoch {
		return nil, fmt.Errorf("an order for epoch %d in epoch %d", order.Epoch, g.Epoch())
	}
	for _, signer := range signers {
		if _, listed := g.ExternalSenderIndex(signer.PublicKey()); !listed || signer.Scheme() != g.Suite().Signature {
			continue
		}
		for _, p := range proposals(order) {
			m, err := mlscore.ExternalProposal(g, signer, p)
			if err != nil {
				return nil, err
			}
			if bytes -= base64.StdEncoding.EncodedLen(len(m)); bytes < 0 && len(out.Proposals) > 0 {
				break
			}
			out.Proposals = append(out.Proposals, m)
		}
		return out, nil
	}
	return nil, fmt.Errorf("no key of suite %d is in external_senders", g.Suite().ID)
}

// proposals are those of an order, as many as one output holds.
func proposals(order *intents.Order) []*mlscore.Proposal {
	list := slices.Clone(order.Operations)
	for _, leaf := range order.Leaves {
		list = append(list, &mlscore.Proposal{Type: mlscore.ProposalTypeRemove, Removed: leaf})
	}
	return list[:min(len(list), maxRemovals)]
}

// record stores in the ledger what changed since it was written: whether the
// group is open, and its receipts. That the entry says open already does not count
// while it was only read: perhaps from a server that lags behind, and it is closed
// by now.
func (b *Broker) record(ctx context.Context, g *group, events []event) error {
	opens := g.state.Open() && g.ledger.unsure
	changed := opens || g.state.Open() != g.ledger.Open
	for i := range events {
		e := &events[i]
		changed = changed || e.Type == intents.NoticeDiverged || // what had ended may be open again
			e.Intent != "" && (e.Type == intents.NoticeConfirmed || isState(e.Type) && isEnded(e.Type))
	}
	if !changed || g.state.Position() < g.ledger.Position { // an input that came again: what is stored knows more
		return nil
	}
	r := remember(g.state)
	if !opens && g.ledger.rev != 0 && string(r.comparable()) == string(g.ledger.value) {
		return nil
	}
	return b.write("ledger", func() error {
		next, err := b.ledger.put(ctx, g.key, g.ledger, r)
		if err == nil {
			g.ledger = next
		}
		return err
	})
}
