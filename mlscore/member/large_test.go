package member

import (
	"fmt"
	"testing"
	"time"

	"leavebroker/mlscore"
)

// BenchmarkLargeGroup plays what a demo does with 512 members of one process: keys
// for all, one commit that adds them, their Welcomes, and two commits with the
// processing of each by everyone. Its metrics are the seconds of each step.
func BenchmarkLargeGroup(b *testing.B) {
	for _, id := range mlscore.Suites() {
		b.Run(fmt.Sprintf("suite%d", id), func(b *testing.B) {
			for range b.N {
				step := time.Now()
				lap := func(name string) {
					b.ReportMetric(time.Since(step).Seconds(), name)
					step = time.Now()
				}
				w := &world{suite: mustSuite(b, id), shared: &Shared{}}
				clients := make([]*Client, 512)
				for i := range clients {
					random := seeded(i)
					clients[i] = &Client{CipherSuite: id, Random: random, Shared: w.shared, Credential: mlscore.BasicCredential(fmt.Append(nil, i))}
					clients[i].Signer = must[mlscore.Signer](b)(mlscore.GenerateSigner(w.suite.Signature, random))
				}
				var keys []*KeyPackage
				var adds []*mlscore.Proposal
				for _, c := range clients[1:] {
					k := must[*KeyPackage](b)(c.NewKeyPackage(forever))
					keys, adds = append(keys, k), append(adds, Add(k.KeyPackage))
				}
				lap("s/keys")
				members := []*Group{must[*Group](b)(clients[0].Create([]byte("g"), nil, forever))}
				commit := must[*Commit](b)(members[0].Commit(CommitOptions{Proposals: adds}))
				if err := members[0].ConfirmCommit(); err != nil {
					b.Fatal(err)
				}
				lap("s/add")
				for _, k := range keys {
					members = append(members, must[*Group](b)(k.Join(commit.Welcome, nil)))
				}
				lap("s/join")
				for _, by := range []int{300, 100} {
					commit = must[*Commit](b)(members[by].Commit(CommitOptions{}))
					lap(fmt.Sprintf("s/commit%d", by))
					for _, m := range members {
						must[*Received](b)(m.Process(commit.Message))
					}
					lap(fmt.Sprintf("s/process%d", by))
				}
			}
		})
	}
}
