package intents_test

import (
	"crypto/rand"
	"testing"
	"time"

	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// A group is judged at the time at which the log stored each entry.
func TestLifetimesAreJudgedAtTheTimeOfTheEntry(t *testing.T) {
	signer, err := mlscore.GenerateSigner(mlscore.Ed25519, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	client := &member.Client{CipherSuite: 1, Signer: signer, Credential: mlscore.BasicCredential([]byte("alice"))}
	group, err := client.Create([]byte("group"), nil, mlscore.Lifetime{NotBefore: 100, NotAfter: 200})
	if err != nil {
		t.Fatal(err)
	}
	info, err := group.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		policy mlscore.Policy
		at     int64
		known  bool
	}{{mlscore.Refuse, 150, true}, {mlscore.Refuse, 250, false}, {mlscore.Report, 250, true}} {
		s := intents.NewState(&intents.Policy{Tenant: "acme", Lifetimes: c.policy}, group.GroupID())
		s, notices := s.Step(intents.Input{Seq: 1, Time: time.Unix(c.at, 0), Kind: intents.KindInfo, Data: info})
		if known := s.Group() != nil; known != c.known || known == (len(notices) > 0) {
			t.Errorf("policy %d at %d: known %t, notices %v", c.policy, c.at, known, notices)
		}
	}
}
