package broker

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"
	"leavebroker/intents"
)

// Ledger, snapshots and logs are streams of their own. A power loss of servers
// without synchronous writes may take the end of a log and leave what followed
// from it, and so may backups that were not taken at one time. The log then gives
// out sequences again that an entry of the ledger or a snapshot has passed, and
// new inputs would be taken for old ones. So the log of such a group is brought
// beyond them, with controls that say nothing, before anything else is done; and
// since messages may be missing, it waits for a GroupInfo then. What was lost
// with the end of the log is in a snapshot, or it is gone.

// lagsError: the log of a group ends before a position that was passed.
type lagsError struct {
	position uint64
	says     error // what is wrong if the log can never have been there
}

func (e *lagsError) Error() string {
	return fmt.Sprintf("%v: it ends before seq %d", errLags, e.position)
}
func (e *lagsError) Unwrap() error { return errLags }

// maxOvertaken is the most messages of its end that a log is thought to lose.
const maxOvertaken = 1 << 20

// overtake brings the log of a group beyond a position. If it was read from a
// server that lags behind, which can store nothing, one mark gets there. The
// caller holds work.
func (o *owner) overtake(ctx context.Context, k groupKey, lags *lagsError) error {
	for n := 0; ; n++ {
		seq, err := o.b.storeControl(ctx, k, intents.Control{Op: intents.OpMark})
		switch {
		case err != nil:
			return err
		case seq > lags.position && n == 0:
			return nil
		case seq > lags.position:
			_, err = o.b.storeControl(ctx, k, intents.Control{Op: intents.OpReset, By: serviceName})
			return err
		case lags.position-seq > maxOvertaken:
			return fmt.Errorf("%w: it is at seq %d, its log ends at %d", lags.says, lags.position, seq)
		case n == 0:
			o.b.log.Error("a log has lost its end", zap.Stringer("group", k), zap.Uint64("seq", seq), zap.Uint64("was", lags.position))
		}
	}
}

// loadBeyond loads a group whose log may have lost its end. The caller holds
// work.
func (o *owner) loadBeyond(ctx context.Context, k groupKey, t *tenant, upTo uint64, groupID []byte) (*history, error) {
	h, err := o.b.load(ctx, k, t, upTo, groupID)
	var lags *lagsError
	if !errors.As(err, &lags) {
		return h, err
	}
	if err := o.overtake(ctx, k, lags); err != nil {
		return nil, err
	}
	return o.b.load(ctx, k, t, upTo, groupID)
}

// isUnseen says whether an intent is not in the snapshot that its group was loaded
// from, though its sequence is: the log gave it out twice.
func (g *group) isUnseen(r *received) bool {
	if r.kind != kindIntent || r.seq > g.snapshot.position {
		return false
	}
	in, err := checkIntent(r.tenant, r.data)
	if err != nil {
		return false
	}
	_, known := g.state.Intent(in.ID(r.tenant.Name))
	return !known
}

// storeAgain stores an intent again beyond a snapshot. The caller holds work.
func (o *owner) storeAgain(ctx context.Context, g *group, in *received) error {
	if err := o.overtake(ctx, g.key, &lagsError{g.snapshot.position, errSnapshot}); err != nil {
		return err
	}
	return o.b.write("again", func() error {
		_, err := o.group.log.append(ctx, g.key, kindIntent, in.data, nil)
		return err
	})
}
