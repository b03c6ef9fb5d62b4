// Sidebyside follows the same recorded MLS groups (RFC 9420) with this
// project's tracker, with mls-rs and with OpenMLS, in one run and alternating,
// and prints how long a commit and the start from a GroupInfo take, how much
// heap a group keeps, and how each compares with the signature verifications
// alone. It builds the Rust crate beside it; without cargo it measures the
// tracker only and says so.
//
//	go run ./mlscore/interop/sidebyside -svg mlscore/interop/sidebyside/sidebyside.svg
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"leavebroker/mlscore/mlstest/biggroup"
)

func main() {
	members := flag.String("members", "10,100,1000,10000", "sizes of the groups")
	commits := flag.Int("commits", 200, "commits in each group")
	shape := flag.String("shape", "merged", "merged, half-blank or unmerged")
	seed := flag.Uint64("seed", 1, "seed of the groups")
	svg := flag.String("svg", "", "`file` for a plot")
	flag.Parse()
	if err := run(*members, *commits, *shape, *seed, *svg); err != nil {
		fmt.Fprintln(os.Stderr, "sidebyside:", err)
		os.Exit(1)
	}
}

func run(sizes string, commits int, shapeName string, seed uint64, svg string) error {
	shape, err := parseShape(shapeName)
	if err != nil {
		return err
	}
	if commits < (warmUp+1)*batchLen {
		return fmt.Errorf("%d commits, want %d or more", commits, (warmUp+1)*batchLen)
	}
	binary, err := buildCrate()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sidebyside-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	printMachine(os.Stdout, binary != "")
	var rows []row
	for _, size := range strings.Split(sizes, ",") {
		n, err := strconv.Atoi(size)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, size+".jsonl")
		if err := record(path, n, commits, shape, seed); err != nil {
			return err
		}
		some, err := compare(path, n, binary)
		if err != nil {
			return fmt.Errorf("%d members: %w", n, err)
		}
		rows = append(rows, some...)
		fmt.Fprintf(os.Stderr, "%d members done\n", n)
	}
	printTable(os.Stdout, shape, rows)
	if svg == "" {
		return nil
	}
	return os.WriteFile(svg, plot(shape, machine(), rows), 0o644)
}

func parseShape(name string) (biggroup.Shape, error) {
	for _, s := range biggroup.Shapes {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("shape %q", name)
}
