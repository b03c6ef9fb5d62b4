package broker

import (
	"context"
	"errors"
)

// Many members of a group may leave at once. Each of their intents is a message
// of its own; those that the log holds already when one comes are folded with it,
// and lead to one output and one round of events. They are delivered all the
// same, and change nothing then; or, if anything fails before, are folded when
// they come.

// maxAhead is how many intents are folded before they come.
const maxAhead = 64

// readAhead gives the intents that follow an intent in the log of its group,
// before anything else does. It looks for them when the partition has more
// messages and the last one was of that group too. What failed once is tried by
// itself. The caller holds work.
func (o *owner) readAhead(ctx context.Context, g *group, in *received) (ahead []*received, err error) {
	if in == nil || in.kind != kindIntent {
		o.intentOf = groupKey{}
		return nil, nil
	}
	isNext := o.intentOf == in.key
	o.intentOf = in.key
	if !isNext || o.waiting == 0 || in.deliveries != 1 || in.seq <= g.state.Position() {
		return nil, nil
	}
	err = o.group.log.read(ctx, o.group.names.logOf(in.key), in.seq+1, func(e entry) error {
		r, err := o.group.inbound.receive(e)
		if r.kind == kindRemoval {
			return nil // folded, or the output of this one meets a conflict
		}
		if err == nil && r.kind == kindIntent {
			_, err = checkIntent(r.tenant, r.data)
		}
		if err != nil || r.kind != kindIntent || len(ahead) == maxAhead {
			return errFound // judged when it comes
		}
		ahead = append(ahead, r)
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return ahead, err
}
