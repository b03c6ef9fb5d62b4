package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Problem is one fault of a configuration.
type Problem struct {
	// Source is the file or the environment variable that is at fault; empty
	// for a default.
	Source string
	// Line is the line in the file, from 1; 0 when there is none.
	Line int
	// Key is what is at fault, such as tenants[0].name; empty when the fault
	// is not that of a known key.
	Key string
	// Text says what is wrong.
	Text string
}

// Error gives "file:line: key: text", without the parts that are not known.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Source)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	for _, part := range []string{p.Key, p.Text} {
		if part != "" && b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(part)
	}
	return b.String()
}

type problems []*Problem

func (ps *problems) add(key, format string, args ...any) {
	*ps = append(*ps, &Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

// join returns all problems as one error, by line, or nil.
func (ps problems) join() error {
	slices.SortStableFunc(ps, func(a, b *Problem) int { return a.Line - b.Line })
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// hasLine reports whether something is wrong on a line already.
func (ps problems) hasLine(line int) bool {
	return line > 0 && slices.ContainsFunc(ps, func(p *Problem) bool { return p.Line == line })
}
