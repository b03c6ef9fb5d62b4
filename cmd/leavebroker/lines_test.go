package main

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"leavebroker/mlscore"
)

// TestLineReader compares with strings.Split.
func TestLineReader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`([ ab]{0,40}\r?\n|\n){0,8}[ab]{0,40}`).Draw(t, "text")
		const limit = 24
		r := lineReader{in: bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(text)), 16), limit: limit}
		want := strings.SplitAfter(text, "\n")
		if want[len(want)-1] == "" {
			want = want[:len(want)-1]
		}
		for i, line := range want {
			got, err := r.next()
			if r.count != i+1 {
				t.Fatalf("line %d is counted as %d", i+1, r.count)
			}
			if len(line) > limit {
				if !errors.Is(err, mlscore.ErrMalformed) {
					t.Fatalf("line %q: %v", line, err)
				}
			} else if err != nil || string(got) != strings.TrimSpace(line) {
				t.Fatalf("line %q: %q, %v", line, got, err)
			}
		}
		if _, err := r.next(); err != io.EOF {
			t.Fatalf("at the end: %v", err)
		}
	})
}

func TestLineReaderError(t *testing.T) {
	broken := errors.New("broken")
	r := lineReader{in: bufio.NewReader(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken))), limit: 9}
	if line, err := r.next(); string(line) != "a" || err != nil {
		t.Errorf("first line %q, %v", line, err)
	}
	if _, err := r.next(); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}
