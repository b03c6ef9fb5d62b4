package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// loadOptions are the flags of load. Zero numbers are the profile's.
type loadOptions struct {
	profile         *loadProfile
	groups, members int
	known, pending  int
	rate            float64
	duration        time.Duration
	suite           uint16
	seed            uint64

	brokers            int
	syncLater, restart bool
	server, creds      string
	prefix, tenant     string
	sender             string

	plot   string
	output textOrJSON
}

// The most that the flags of load may say.
const (
	loadMostGroups  = 100_000
	loadMostMembers = 4096
	loadMostKnown   = 10_000_000
	loadMostPending = 1_000_000
	loadMostRate    = 1e6
	loadMostBrokers = 16
)

func newLoad() *cobra.Command {
	var opts loadOptions
	cmd := &cobra.Command{
		Use:   "load PROFILE [--brokers N | --server URL --external-sender HEX] [--plot FILE]",
		Short: "Measure a broker under the load of real systems",
		Long: `Makes groups of real MLS clients, lets them commit, join and leave at a rate of
steps a second, which does not wait for the broker, and measures how soon the
broker's removals follow. Then members commit what is left, and the broker is
asked for the receipt of every intent.

Profiles:
` + profileHelp() + `
Each group has one member with all secrets, who commits live, since nobody can
record a commit of a proposal that the broker has yet to sign; the others sign
intents only. --known adds idle groups: GroupInfos over shared trees, each signed
for its own group. --pending adds groups that somebody has left and where nobody
commits. Both are published before the measuring; the first pending ones wait until
the broker is through with the idle ones.

Without --brokers one broker runs in this process on its embedded NATS server;
with it, so many processes of leavebroker serve on a NATS server that is a
process too. With --server nothing is started: the broker there needs tenant
quotas that bear the load, and for offboard a rule by which the user of a basic
credential is what precedes a colon. --external-sender is what leavebroker key
show prints for its key.

Latencies are told in milliseconds, from the moment this program publishes. The
plot is an SVG file.

Exit codes: 0 everybody who left is gone and has a receipt, else 1.`,
		Example: `  leavebroker load call
  leavebroker load chat --rate 500 --brokers 2 -o json --plot chat.svg
  leavebroker load chat --members 5 --known 1000000 --pending 10000 --brokers 1 --restart
  leavebroker load node --server nats://127.0.0.1:4222 --external-sender 20b1…`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: profileNames(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("give a profile: %s", strings.Join(profileNames(), ", "))
			}
			opts.profile = findProfile(args[0])
			if err := opts.complete(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runLoad(ctx, cmd, opts)
		},
	}
	opts.register(cmd)
	cmd.AddCommand(newLoadNATS())
	return cmd
}

// profileHelp tells of every profile: what it does and its numbers.
func profileHelp() string {
	var b strings.Builder
	for _, p := range loadProfiles {
		fmt.Fprintf(&b, "  %-9s %s\n", p.name, strings.ReplaceAll(p.summary, "\n", "\n            "))
		fmt.Fprintf(&b, "            (--groups %d --members %d --rate %g --duration %s --cipher-suite %d)\n",
			p.groups, p.members, p.rate, p.duration, p.suite)
	}
	return b.String()
}

func (o *loadOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&o.groups, "groups", 0, "groups in use; default: the profile's")
	f.IntVar(&o.members, "members", 0, "members of each group at first; default: the profile's")
	f.Float64Var(&o.rate, "rate", 0, "steps a second; default: the profile's")
	f.DurationVar(&o.duration, "duration", 0, "how long at most; default: the profile's")
	f.Uint16Var(&o.suite, "cipher-suite", 0, "cipher suite `N`, "+memberSuiteNumbers+"; default: the profile's")
	f.Uint64Var(&o.seed, "seed", 1, "seed of all keys, secrets and choices")
	f.IntVar(&o.known, "known", 0, "idle groups that the broker knows too")
	f.IntVar(&o.pending, "pending", 0, "groups with an intent that nobody commits")
	f.IntVar(&o.brokers, "brokers", 0, "start `N` processes of the broker, and one of NATS")
	f.BoolVar(&o.syncLater, "sync-later", false, "our NATS server acknowledges writes before they are durable")
	f.BoolVar(&o.restart, "restart", false, "measure a restart of the brokers in the end; needs --brokers")
	f.StringVarP(&o.server, "server", "s", "", "`URL` of the NATS server of a running broker")
	f.StringVar(&o.creds, "creds", os.Getenv("NATS_CREDS"), "credentials `FILE` for --server; $NATS_CREDS is the default if set")
	f.StringVar(&o.prefix, "prefix", demoPrefix, "first `TOKEN` of the broker's subjects")
	f.StringVar(&o.tenant, "tenant", demoTenant, "`TENANT` of the groups")
	f.StringVar(&o.sender, "external-sender", "", "ExternalSender of the broker at --server, `HEX`")
	f.StringVar(&o.plot, "plot", "", "draw the latencies into `FILE`, an SVG")
	outputFormat(cmd, &o.output)
	cmd.MarkFlagsMutuallyExclusive("server", "brokers")
	cmd.MarkFlagsMutuallyExclusive("server", "sync-later")
	cmd.MarkFlagsRequiredTogether("server", "external-sender")
}

// complete takes the profile's numbers for those that are not given, and
// refuses what cannot be.
func (o *loadOptions) complete() error {
	p := o.profile
	o.groups, o.members = cmp.Or(o.groups, p.groups), cmp.Or(o.members, p.members)
	o.rate, o.duration = cmp.Or(o.rate, p.rate), cmp.Or(o.duration, p.duration)
	o.suite = cmp.Or(o.suite, uint16(p.suite))
	for _, n := range []struct {
		flag            string
		value, low, top int
	}{
		{"groups", o.groups, 1, loadMostGroups},
		{"members", o.members, 2, loadMostMembers},
		{"known", o.known, 0, loadMostKnown},
		{"pending", o.pending, 0, loadMostPending},
		{"brokers", o.brokers, 0, loadMostBrokers},
	} {
		if n.value < n.low || n.value > n.top {
			return usageError("--%s %d, not %d to %d", n.flag, n.value, n.low, n.top)
		}
	}
	switch {
	case !(o.rate > 0 && o.rate <= loadMostRate):
		return usageError("--rate %g, not above 0 and at most %g", o.rate, loadMostRate)
	case o.duration <= 0:
		return usageError("--duration %s is not positive", o.duration)
	case o.restart && o.brokers == 0:
		return usageError("--restart needs --brokers")
	case !slices.Contains(member.Suites(toolRegistry()), mlscore.CipherSuite(o.suite)):
		return usageError("cipher suite 0x%04x is none that members can use: %s", o.suite, memberSuiteNumbers)
	}
	return nil
}

func runLoad(ctx context.Context, cmd *cobra.Command, opts loadOptions) (err error) {
	if opts.server != "" {
		if _, err := parseExternalSender(opts.sender); err != nil {
			return err
		}
	}
	progress := newLoadProgress(cmd.ErrOrStderr())
	stack, err := startLoadStack(ctx, opts)
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	defer func() { err = errors.Join(err, stack.stop()) }()
	l, err := newLoader(ctx, opts, stack, progress)
	if err != nil {
		return err
	}
	if err := l.play(ctx); err != nil {
		return err
	}
	l.report.result.Processes = stack.processes()
	if opts.restart {
		took, err := stack.restart(ctx)
		if err != nil {
			return fmt.Errorf("restarting: %w", err)
		}
		l.report.result.Restart = seconds(took)
	}
	return l.tell(cmd)
}

// tell prints the result and draws the plot.
func (l *loader) tell(cmd *cobra.Command) error {
	result := l.report.sum()
	if l.opts.plot != "" {
		if err := os.WriteFile(l.opts.plot, l.report.plot(), 0o644); err != nil {
			return err
		}
	}
	if l.opts.output == "json" {
		if err := printJSON(cmd, result); err != nil {
			return err
		}
	} else if err := result.print(cmd.OutOrStdout()); err != nil {
		return err
	}
	if !result.good() {
		return negative()
	}
	return nil
}
