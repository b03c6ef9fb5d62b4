package main

import (
	"context"
	"math/rand/v2"
	"time"

	"leavebroker/mlscore"
)

// loadProfile is a kind of load: what happens at each step, and how the members
// answer the broker's removals.
type loadProfile struct {
	name, summary   string
	suite           mlscore.CipherSuite
	groups, members int
	rate            float64 // steps a second
	duration        time.Duration

	step func(ctx context.Context, l *loader, i int, random *rand.Rand) error
	// steps bounds the steps; nil: the duration alone does.
	steps func(o *loadOptions) int
	// lasts keeps the load on for the whole duration when the steps are done.
	lasts bool
	// react is when a member commits what was proposed; 0: at the end of the load.
	react time.Duration
	// rejoin lets somebody join for everybody who is gone.
	rejoin bool
	// removal answers removals in place of a member's commit. Optional.
	removal func(ctx context.Context, l *loader, g *loadGroup) error
	// end is what happens in each group after everybody is gone. Optional.
	end func(ctx context.Context, l *loader, g *loadGroup) error
}

// One of so many steps is an intent; the others are commits, or joins.
const (
	chatLeaves = 30
	callLeaves = 10
)

// loadProfiles are the profiles, with the numbers of real systems as defaults.
var loadProfiles = []*loadProfile{
	{
		name: "chat",
		summary: "stable chats: members commit now and then, one commit in 30 is a leave;\n" +
			"12 steps a second are a million groups with a commit a day",
		suite: 1, groups: 200, members: 10, rate: 12, duration: 30 * time.Second, react: time.Second,
		step: func(ctx context.Context, l *loader, i int, random *rand.Rand) error {
			g := l.groups[random.IntN(len(l.groups))]
			if i%chatLeaves == 0 {
				return l.leave(ctx, g, random)
			}
			return l.update(ctx, g)
		},
	},
	{
		name: "call",
		summary: "calls on the hour: external joins drop the removals of those who leave\n" +
			"meanwhile, a tenth of the steps; members commit them after the burst",
		suite: 1, groups: 1, members: 100, rate: 1.6, duration: 30 * time.Second,
		step: func(ctx context.Context, l *loader, i int, random *rand.Rand) error {
			g := l.groups[i%len(l.groups)]
			if i/len(l.groups)%callLeaves == 2 {
				return l.leave(ctx, g, random)
			}
			return l.join(ctx, g)
		},
	},
	{
		name: "offboard",
		summary: "one user with three devices leaves one group after the other by one intent\n" +
			"each; the broker resolves the devices",
		suite: 1, groups: 200, members: 50, rate: 50, duration: 10 * time.Minute, react: time.Second,
		steps: func(o *loadOptions) int { return o.groups },
		step: func(ctx context.Context, l *loader, i int, _ *rand.Rand) error {
			return l.leaveEverywhere(ctx, l.groups[i])
		},
	},
	{
		name: "end",
		summary: "calls end: all but one leave, a member commits each second, the group\n" +
			"is closed under the intent of the last",
		suite: 1, groups: 1, members: 200, rate: 10, duration: time.Minute, react: time.Second,
		steps: func(o *loadOptions) int { return o.groups * (o.members - 1) },
		step: func(ctx context.Context, l *loader, i int, random *rand.Rand) error {
			return l.leave(ctx, l.groups[i%len(l.groups)], random)
		},
		end: func(ctx context.Context, l *loader, g *loadGroup) error { return l.close(ctx, g) },
	},
	{
		name: "node",
		summary: "voice channels with P-256 as of Discord: people hang up, a member commits at\n" +
			"once, somebody else joins by an external commit",
		suite: 2, groups: 100, members: 5, rate: 5, duration: 30 * time.Second, react: 50 * time.Millisecond, rejoin: true,
		step: func(ctx context.Context, l *loader, _ int, random *rand.Rand) error {
			return l.leave(ctx, l.groups[random.IntN(len(l.groups))], random)
		},
	},
	{
		name: "churn",
		summary: "adversaries answer every removal by an external commit that drops it, as fast\n" +
			"as they can; a member commits in the end",
		suite: 1, groups: 1, members: 50, rate: 100, duration: 30 * time.Second, lasts: true,
		steps: func(o *loadOptions) int { return o.groups },
		step: func(ctx context.Context, l *loader, i int, random *rand.Rand) error {
			return l.leave(ctx, l.groups[i], random)
		},
		removal: func(ctx context.Context, l *loader, g *loadGroup) error { return l.collude(ctx, g) },
	},
}

func findProfile(name string) *loadProfile {
	for _, p := range loadProfiles {
		if p.name == name {
			return p
		}
	}
	return nil
}

func profileNames() []string {
	var names []string
	for _, p := range loadProfiles {
		names = append(names, p.name)
	}
	return names
}
