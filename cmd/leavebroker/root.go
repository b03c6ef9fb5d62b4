package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes other than 0.
const (
	exitFailure = 1  // a negative result, or a failure
	exitUsage   = 2  // wrong usage, or a file that cannot be read
	exitConfig  = 78 // EX_CONFIG of sysexits.h: a restart does not help
)

// exitError ends the command with a code.
type exitError struct {
	code int
	err  error // printed on standard error; nil if all has been said
	help bool  // --help would tell more
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// negative is a negative result that is on standard output already.
func negative() error { return &exitError{code: exitFailure} }

// unreadable is what to return for an input file that cannot be read, or is not
// what it has to be.
func unreadable(err error) error { return &exitError{code: exitUsage, err: err} }

// usageError is what to return for arguments that mean nothing or do not go
// together.
func usageError(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...), help: true}
}

// newRoot makes the command tree. The error of a RunE that is not an exitError
// means exitFailure; an error of cobra's own, exitUsage.
func newRoot() *cobra.Command {
	root := parent(&cobra.Command{
		Use:   "leavebroker",
		Short: "Removes members from MLS groups who have signed that they leave",
		Long: `leavebroker stores the signed LeafOperationIntents of members who leave MLS
groups, and proposes their removal in every epoch until they are gone.

Files are raw bytes and - is standard input. Exit codes: 0 success, 1 a negative
result or a failure, 2 wrong usage or an unreadable file, 78 a configuration
that is refused.`,
	},
		newServe(),
		newDemo(),
		newLoad(),
		newIntent(),
		newGroup(),
		newKey(),
		newConfig(),
		newVersion(),
	)
	root.SilenceErrors = true
	root.SilenceUsage = true
	markFailures(root)
	return root
}

// parent completes a command that does nothing itself but has others below it.
func parent(cmd *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(commands...)
	cmd.Args = cobra.ArbitraryArgs // judged below
	cmd.DisableFlagsInUseLine = true
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			hint := ""
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "; did you mean " + strings.Join(near, " or ") + "?"
			}
			return usageError("%s has no command %q%s", cmd.CommandPath(), args[0], hint)
		}
		cmd.SetOut(cmd.ErrOrStderr())
		if err := cmd.Help(); err != nil {
			return err
		}
		return &exitError{code: exitUsage}
	}
	return cmd
}

// markFailures tells what a command itself returns from what cobra finds wrong
// before it runs.
func markFailures(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			err := run(cmd, args)
			if exit := (*exitError)(nil); err == nil || errors.As(err, &exit) {
				return err
			}
			return &exitError{code: exitFailure, err: err}
		}
	}
	for _, child := range cmd.Commands() {
		markFailures(child)
	}
}

// execute runs one command line, without the program's name, and gives the exit
// code.
func execute(args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	exit := &exitError{code: exitUsage, err: err, help: true} // cobra's own
	errors.As(err, &exit)
	if exit.err == nil {
		return exit.code
	}
	for line := range strings.Lines(exit.err.Error()) {
		fmt.Fprintf(errOut, "leavebroker: %s\n", strings.TrimSuffix(line, "\n"))
	}
	if exit.help {
		fmt.Fprintf(errOut, "See: %s --help\n", cmd.CommandPath())
	}
	return exit.code
}
