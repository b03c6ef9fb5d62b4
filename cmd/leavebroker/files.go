package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// maxInput bounds an input file and a line of a log, in bytes: a GroupInfo with
// the tree of some hundred thousand members.
const maxInput = 64 << 20

// readInput reads a whole file, or standard input for -. Its error ends the
// command with exitUsage.
func readInput(cmd *cobra.Command, name string) ([]byte, error) {
	in, err := openInput(cmd, name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, unreadable(err)
	}
	if len(b) > maxInput {
		return nil, unreadable(fmt.Errorf("%s: longer than %d bytes", name, maxInput))
	}
	return b, nil
}

// openInput opens a file, or standard input for -.
func openInput(cmd *cobra.Command, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(cmd.InOrStdin()), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, unreadable(err)
	}
	return f, nil
}

// oneStandardInput refuses - for more than one of several inputs.
func oneStandardInput(names ...string) error {
	seen := false
	for _, name := range names {
		if name == "-" && seen {
			return usageError("only one input can be -, standard input")
		}
		seen = seen || name == "-"
	}
	return nil
}

// writeOutput writes raw bytes to a file, or to standard output for - unless
// that is a terminal.
func writeOutput(cmd *cobra.Command, name string, b []byte) error {
	if name != "-" {
		return os.WriteFile(name, b, 0o644)
	}
	out := cmd.OutOrStdout()
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return usageError("raw bytes are not for a terminal; give --out FILE, or use a pipe")
	}
	_, err := out.Write(b)
	return err
}

// printJSON prints a value as one line of JSON.
func printJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// outputFormat adds -o, whose value is text or json.
func outputFormat(cmd *cobra.Command, format *textOrJSON) {
	*format = "text"
	cmd.Flags().VarP(format, "output", "o", "text or json")
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic("internal error: " + err.Error())
	}
}

// textOrJSON is the value of -o.
type textOrJSON string

func (f *textOrJSON) String() string { return string(*f) }
func (f *textOrJSON) Type() string   { return "FORMAT" }

func (f *textOrJSON) Set(s string) error {
	if s != "text" && s != "json" {
		return errors.New("want text or json")
	}
	*f = textOrJSON(s)
	return nil
}
