package mlscore_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
	"leavebroker/mlscore/mlstest"
)

// follower is a member who only listens, and an observer, of one log.
type follower struct {
	t        *testing.T
	group    *member.Group
	observer *mlscore.PublicGroup
	tally    *tally
	agree    *adversary // only to compare refusals
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

// passiveCase is a client of the MLS working group's vectors, with its keys.
type passiveCase struct {
	CipherSuite  mlscore.CipherSuite `json:"cipher_suite"`
	ExternalPSKs []struct {
		ID  mlstest.Hex `json:"psk_id"`
		PSK mlstest.Hex `json:"psk"`
	} `json:"external_psks"`
	KeyPackage     mlstest.Hex  `json:"key_package"`
	SignaturePriv  mlstest.Hex  `json:"signature_priv"`
	EncryptionPriv mlstest.Hex  `json:"encryption_priv"`
	InitPriv       mlstest.Hex  `json:"init_priv"`
	Welcome        mlstest.Hex  `json:"welcome"`
	RatchetTree    *mlstest.Hex `json:"ratchet_tree"`
}

func (c *passiveCase) join() *member.Group {
	suite := must(mlscore.DefaultRegistry().LookupSuite(c.CipherSuite))
	client := &member.Client{
		CipherSuite: c.CipherSuite, Signer: must(mlscore.NewSigner(suite.Signature, c.SignaturePriv)),
		PSK: func(id mlscore.PreSharedKeyID) ([]byte, bool) {
			for _, p := range c.ExternalPSKs {
				if id.Type == mlscore.PSKTypeExternal && bytes.Equal(p.ID, id.ID) {
					return p.PSK, true
				}
			}
			return nil, false
		},
	}
	public := must(mlscore.ParseMLSMessage(c.KeyPackage, nil)).KeyPackage
	var tree []byte
	if c.RatchetTree != nil {
		tree = *c.RatchetTree
	}
	return must(must(client.ImportKeyPackage(public, c.InitPriv, c.EncryptionPriv)).Join(c.Welcome, tree))
}

// TestAdversaryVectors does the same to logs of another implementation, whose
// keys are those of one member: its messages cannot be signed again, but their
// bytes can be changed.
func TestAdversaryVectors(t *testing.T) {
	var logs []struct {
		Case int `json:"case"`
		Log  []struct {
			MLSMessage mlstest.Hex `json:"mls_message"`
		} `json:"log"`
	}
	var clients []passiveCase
	mlstest.JSON(t, "replay/handling-commit.json", &logs)
	mlstest.JSON(t, "mlswg/passive-client-handling-commit.json", &clients)
	_, seed := adversaryBudget(t)
	x := &adversary{t: t, rng: rand.New(rand.NewPCG(seed, 0))}
	total := newTally()
	var elsewhere [][]byte
	for _, l := range logs {
		info := must(mlscore.ParseMLSMessage(l.Log[0].MLSMessage, nil)).GroupInfo
		observer := must(mlscore.NewPublicGroup(info, nil, mlscore.Options{}))
		var log [][]byte
		for _, m := range l.Log[1:] {
			log = append(log, m.MLSMessage)
		}
		for range 4 {
			f := follower{t: t, group: clients[l.Case].join(), observer: observer, tally: total, agree: x}
			if !bytes.Equal(f.group.Public().ContextBytes(), observer.ContextBytes()) {
				t.Fatalf("case %d is not of the same group", l.Case)
			}
			for _, message := range shuffled(x.rng, log, elsewhere) {
				together := true
				for i := 0; i < 4 && together; i++ {
					together = f.mutant(x.scribble(bytes.Clone(message)))
				}
				if !together || !f.hear("vector", message) {
					break
				}
			}
		}
		elsewhere = append(elsewhere, log...)
	}
	total.log(t)
}

// mutant brings a message to both that nobody can follow but by what an
// observer cannot see: then they part only in a copy of the member.
func (f *follower) mutant(message []byte) bool {
	f.t.Helper()
	before, group, observer := f.tally.accepted, *f.group, f.observer
	parted := !f.hear("vector, changed", message)
	if parted && f.tally.accepted == before { // refused by the member: nothing changed
		*f.group, f.observer = group, observer
		return true
	}
	return !parted
}
