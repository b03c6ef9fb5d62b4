package broker

import (
	"testing"

	"leavebroker/intents"
	"leavebroker/mlscore/member"
)

// The intents of a group that wait in the log when one comes are answered with
// it, in fewer outputs than there are intents; each has its verdict, no leaf is
// proposed twice, and what else waits is folded in its turn.
func TestIntentsAreReadAhead(t *testing.T) {
	const leavers = 12
	w := newWorld(t, func(o *Options) { o.Partitions = 1 })
	c := newCrowd(w, leavers)
	_, messages := c.found()
	w.noWork()
	release := w.broker.all[0].begin() // nothing is worked on
	for i, m := range messages {
		switch i {
		case 3:
			w.publish(kindIntent, []byte("no intent"))
		case 9:
			w.publish(kindCommit, c.commitUnseen(0, member.CommitOptions{References: [][]byte{}}))
		}
		w.publish(kindIntent, m)
	}
	release()
	for _, m := range messages {
		w.await("a verdict", func(e event) bool { return e.Intent == w.id(m) && e.Type == intents.StatePending })
	}
	w.await("the refusal", ofType(intents.StateRejected, reasonMalformed))
	w.noWork()
	removed := map[uint64]int{}
	for _, out := range w.outputs() {
		removed[out.Epoch] += len(out.Proposals)
	}
	if before, after := removed[1], removed[2]; before != 9 || after != leavers {
		t.Errorf("%d leavers are proposed in epoch 1, %d in 2", before, after)
	}
	if n := len(w.outputs()); n > 6 {
		t.Errorf("%d outputs of %d intents", n, leavers)
	}
	w.checkOutputs()
	w.restart()
	w.checkOutputs()
	if _, open := w.broker.Summary(); open == 0 {
		t.Error("nothing is open after a restart")
	}
}
