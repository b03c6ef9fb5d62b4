package mlscore_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// follower is a member who only listens, and an observer, of one log.
type follower struct {
	t        *testing.T
	group    *member.Group
	observer *mlscore.PublicGroup
	tally    *tally
	agree    *adversary // compares refusals, and knows who is associated
}

// hear brings one message to both, and says whether they can go on together.
func (f *follower) hear(kind string, message []byte) bool {
	f.t.Helper()
	var staged *mlscore.Staged
	m, observed := mlscore.ParseMLSMessage(bytes.Clone(message), f.agree.registry)
	if observed == nil {
		checkRestored(f.t, f.observer, mlscore.Options{Registry: f.agree.registry}, m)
		staged, observed = f.agree.stage(f.observer, m)
	}
	received, err := f.group.Process(bytes.Clone(message))
	f.tally.mutants++
	switch {
	case observed != nil && err != nil:
		f.tally.refused++
		f.agree.sameClass(kind, observed, err)
		return true
	case observed != nil:
		f.t.Errorf("%s: %v, but leaf %d accepts", kind, observed, f.group.OwnLeaf())
		return false
	case err != nil:
		row := rowOf(err)
		if row == "" {
			f.t.Errorf("%s: accepted, but leaf %d refuses: %v", kind, f.group.OwnLeaf(), err)
		}
		f.tally.rows[row]++
		return false
	}
	f.tally.accepted++
	f.observer = staged.Next()
	if received.Removed || f.observer.Closed() {
		return false
	}
	if !bytes.Equal(f.group.Public().ContextBytes(), f.observer.ContextBytes()) {
		f.t.Errorf("%s: leaf %d is in another epoch than the observer", kind, f.group.OwnLeaf())
	}
	return true
}

// shuffled is a log after a few messages were lost, repeated, moved, or came
// from elsewhere.
func shuffled(rng *rand.Rand, log, elsewhere [][]byte) [][]byte {
	log = slices.Clone(log)
	for range 1 + rng.IntN(3) {
		i, j := rng.IntN(len(log)), rng.IntN(len(log))
		switch rng.IntN(5) {
		case 0: // drop
			if len(log) > 1 {
				log = slices.Delete(log, i, i+1)
			}
		case 1: // duplicate, at once or later
			log = slices.Insert(log, max(i, j), log[i])
		case 2:
			log[i], log[j] = log[j], log[i]
		case 3: // reorder neighbours
			slices.Reverse(log[i:min(i+2+rng.IntN(2), len(log))])
		default:
			if len(elsewhere) > 0 {
				log = slices.Insert(log, i, pick(rng, elsewhere))
			}
		}
	}
	return log
}

// TestAdversarySequences loses, repeats, reorders and splices the messages of
// real groups of every suite. A member who joined by the same Welcome and an
// observer stay together all the way.
func TestAdversarySequences(t *testing.T) {
	n, seed := adversaryBudget(t)
	sum := newTally()
	for _, id := range member.Suites(mlscore.DefaultRegistry()) {
		t.Run(fmt.Sprintf("suite 0x%04x", uint16(id)), func(t *testing.T) {
			budget := n / 60
			if id == 1 {
				budget = n / 2
			}
			total := newTally()
			for life := seed<<32 + 1<<31; total.mutants < budget && !t.Failed(); life++ {
				x := newAdversary(t, id, life, "group")
				x.silent = x.members[len(x.members)-1]
				for range 14 {
					if message, joined := x.act(); message != nil && x.live() {
						x.deliver(message, joined)
					}
				}
				foreign := newForeign(t, id, life)
				for range 12 {
					f := follower{t: t, group: must(x.packages[len(x.packages)-1].Join(x.welcome, nil)), observer: x.start, tally: total, agree: x}
					for _, message := range shuffled(x.rng, x.past, foreign) {
						if !f.hear("sequence", message) {
							break
						}
					}
				}
			}
			sum.add(total)
		})
	}
	sum.log(t)
}
