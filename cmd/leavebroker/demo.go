package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"leavebroker/mlscore"
	"leavebroker/mlscore/member"
)

// demoOptions are the flags of demo.
type demoOptions struct {
	members, leavers, joins int
	joinersInclude          bool
	suite                   uint16
	seed                    uint64
	output                  textOrJSON
}

// demoResult is what demo prints with -o json. Removed counts leaves, Epochs
// counts advances of the group's epoch.
type demoResult struct {
	Members      int     `json:"members"`
	Leavers      int     `json:"leavers"`
	Joins        int     `json:"joins"`
	Intents      int     `json:"intents"`
	Removed      int     `json:"removed"`
	Epochs       int     `json:"epochs"`
	Proposals    int     `json:"proposals"`
	Reproposals  int     `json:"reproposals"`
	MembersAgree bool    `json:"members_agree"`
	Seconds      float64 `json:"seconds"`
}

func newDemo() *cobra.Command {
	var opts demoOptions
	cmd := &cobra.Command{
		Use:   "demo [--members N] [--leavers N] [--joins N] [--cipher-suite N] [--seed N] [-o text|json]",
		Short: "Watch members leave a real MLS group for good",
		Long: `Runs the whole story in this process: a broker on its embedded NATS server, a
delivery service, and real MLS members that reach the broker through NATS alone.

Members sign an intent to leave and vanish at once. The broker proposes their
removal. A burst of clients joins by external commits, each of which drops the
proposals; each time the broker proposes again for the new epoch. Then a member
commits, the leavers are gone, and the remaining members agree on the epoch.

With --joiners-include all clients understand LeafOperationProposals, and each
joiner asks the broker what is pending and includes it in its external commit:
the leavers are gone with the first.

Exit codes: 0 if every leaver is gone and all remaining members agree, else 1.`,
		Example: `  leavebroker demo
  leavebroker demo --members 64 --leavers 5 --joins 30 --cipher-suite 2
  leavebroker demo --joiners-include
  leavebroker demo --cipher-suite 0xf00a
  leavebroker demo -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := opts.check(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runDemo(ctx, opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&opts.members, "members", 8, "members of the group at first")
	flags.IntVar(&opts.leavers, "leavers", 2, "members who leave")
	flags.IntVar(&opts.joins, "joins", 5, "clients who join by external commits meanwhile")
	flags.BoolVar(&opts.joinersInclude, "joiners-include", false, "joiners include the pending intents in their external commits")
	flags.Uint16Var(&opts.suite, "cipher-suite", 1, "cipher suite `N`, "+memberSuiteNumbers)
	flags.Uint64Var(&opts.seed, "seed", 1, "seed of all keys and secrets")
	outputFormat(cmd, &opts.output)
	return cmd
}

func (o *demoOptions) check() error {
	switch {
	case o.members < 2 || o.members > 4096:
		return usageError("%d members, not 2 to 4096", o.members)
	case o.leavers < 1 || o.leavers >= o.members:
		return usageError("%d leavers of %d members, not 1 to %d: somebody has to commit", o.leavers, o.members, o.members-1)
	case o.joins < 0 || o.joins > 1024:
		return usageError("%d joins, not 0 to 1024", o.joins)
	}
	if !slices.Contains(member.Suites(toolRegistry()), mlscore.CipherSuite(o.suite)) {
		return usageError("cipher suite 0x%04x is none that members can use: %s", o.suite, memberSuiteNumbers)
	}
	return nil
}

func runDemo(ctx context.Context, opts demoOptions, out, progress io.Writer) error {
	start := time.Now()
	show := &demoShow{out: out, progress: progress, quiet: opts.output == "json"}
	w, err := newDemoWorld(ctx, opts, show)
	if err != nil {
		return err
	}
	err = w.play(ctx)
	if stopErr := w.stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return err
	}
	w.result.Seconds = float64(time.Since(start).Milliseconds()) / 1000
	if opts.output == "json" {
		if err := json.NewEncoder(out).Encode(w.result); err != nil {
			return err
		}
	} else {
		show.summary(&w.result)
	}
	if w.result.Removed != opts.leavers || !w.result.MembersAgree {
		return negative()
	}
	return nil
}

// play is the story: each step is what clients, the delivery service and the
// broker would do.
func (w *demoWorld) play(ctx context.Context) error {
	if err := w.found(ctx); err != nil {
		return fmt.Errorf("making the group: %w", err)
	}
	if err := w.leave(ctx); err != nil {
		return fmt.Errorf("leaving: %w", err)
	}
	if err := w.awaitProposals(ctx); err != nil {
		return err
	}
	for i := range w.opts.joins {
		if err := w.join(ctx, i); err != nil {
			return fmt.Errorf("join %d: %w", i+1, err)
		}
		if err := w.awaitProposals(ctx); err != nil {
			return err
		}
	}
	if len(w.open()) > 0 {
		if err := w.commitRemovals(ctx); err != nil {
			return fmt.Errorf("committing: %w", err)
		}
	}
	if err := w.awaitRemoved(ctx); err != nil {
		return err
	}
	if err := w.confirm(ctx); err != nil {
		return fmt.Errorf("confirming: %w", err)
	}
	w.judge()
	return nil
}
