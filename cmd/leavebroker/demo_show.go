package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"leavebroker/mlscore"
)

// demoShow tells a person what happens: a line for each event on out, progress
// of long work on the terminal. Off a terminal, progress is a plain line now and
// then.
type demoShow struct {
	out, progress io.Writer
	quiet         bool      // no story: the result is for a script
	last          time.Time // progress was told, or there was nothing to tell
}

// progressInterval is the time between two lines of progress off a terminal.
const progressInterval = 2 * time.Second

// line tells one event of an epoch.
func (s *demoShow) line(epoch uint64, format string, args ...any) {
	if !s.quiet {
		fmt.Fprintf(s.out, "epoch %3d  %s\n", epoch, fmt.Sprintf(format, args...))
	}
}

func (s *demoShow) title(format string, args ...any) {
	if !s.quiet {
		fmt.Fprintf(s.out, format+"\n", args...)
	}
}

// work tells how far a long step has come.
func (s *demoShow) work(what string, done, all int) {
	if s.quiet || all < 32 {
		return
	}
	if f, ok := s.progress.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(s.progress, "\r%s %d of %d", what, done, all)
		if done == all {
			fmt.Fprint(s.progress, "\r\x1b[K")
		}
		return
	}
	switch now := time.Now(); {
	case s.last.IsZero():
		s.last = now
	case now.Sub(s.last) >= progressInterval:
		s.last = now
		fmt.Fprintf(s.progress, "%s %d of %d\n", what, done, all)
	}
}

// widestTree is the number of leaves that a line still shows one by one.
const widestTree = 64

// tree draws the leaves from the left: o a member, x a leaver that is still
// there, . a blank leaf.
func (s *demoShow) tree(tree *mlscore.RatchetTree, leaving map[mlscore.LeafIndex]*demoLeaver) string {
	count := fmt.Sprintf("%d members", tree.Members())
	if tree.LeafWidth() > widestTree {
		return count
	}
	var b strings.Builder
	for i := range mlscore.LeafIndex(tree.LeafWidth()) {
		switch {
		case tree.Leaf(i) == nil:
			b.WriteByte('.')
		case leaving[i] != nil && !leaving[i].gone:
			b.WriteByte('x')
		default:
			b.WriteByte('o')
		}
	}
	return count + "  [" + b.String() + "]"
}

func (s *demoShow) summary(r *demoResult) {
	fmt.Fprintf(s.out, "\n%d of %d leavers are gone after %d epochs; the broker made %d proposals, %d of them again.\n",
		r.Removed, r.Leavers, r.Epochs, r.Proposals, r.Reproposals)
	if r.MembersAgree {
		fmt.Fprintf(s.out, "All remaining members agree on the epoch. %.1f s\n", r.Seconds)
	} else {
		fmt.Fprintf(s.out, "The remaining members DO NOT agree on the epoch. %.1f s\n", r.Seconds)
	}
}

// leafList names leaves: "leaf 3" or "leaves 3, 5 and 2 more".
func leafList(leaves []mlscore.LeafIndex) string {
	const most = 8
	if len(leaves) == 1 {
		return fmt.Sprintf("leaf %d", leaves[0])
	}
	names := make([]string, 0, most)
	for _, l := range leaves[:min(most, len(leaves))] {
		names = append(names, fmt.Sprint(l))
	}
	s := "leaves " + strings.Join(names, ", ")
	if more := len(leaves) - most; more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}
