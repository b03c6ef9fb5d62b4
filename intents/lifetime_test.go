package intents_test

import (
	"crypto/rand"
	"slices"
	"strings"
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
		notice string
	}{
		{mlscore.Refuse, 150, true, ""}, {mlscore.Refuse, 250, false, intents.NoticeRefused},
		{mlscore.Report, 150, true, ""}, {mlscore.Report, 250, true, intents.NoticeFlagged},
	} {
		s := intents.NewState(&intents.Policy{Tenant: "acme", Lifetimes: c.policy}, group.GroupID())
		s, notices := s.Step(intents.Input{Seq: 1, Time: time.Unix(c.at, 0), Kind: intents.KindInfo, Data: info})
		var types, flags []string
		for _, n := range notices {
			types, flags = append(types, n.Type), append(flags, n.Flags...)
		}
		if known := s.Group() != nil; known != c.known || strings.Join(types, " ") != c.notice {
			t.Errorf("policy %d at %d: known %t, notices %v", c.policy, c.at, known, notices)
		}
		if flagged := c.notice == intents.NoticeFlagged; flagged != slices.Equal(flags, []string{mlscore.FlagLifetime}) {
			t.Errorf("policy %d at %d: flags %q", c.policy, c.at, flags)
		}
	}
}
