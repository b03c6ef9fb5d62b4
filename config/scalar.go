package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Duration is a length of time. Its text is that of Go's time.ParseDuration,
// which must name a unit, with whole days before it or alone: 90d, 1d12h, 30s.
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

var errDuration = errors.New("not a duration such as 500ms, 30s, 24h or 90d")

// UnmarshalText reads a duration; it is at most 2^63-1 nanoseconds.
func (d *Duration) UnmarshalText(text []byte) error {
	days, rest, hasDays := strings.Cut(string(text), "d")
	if !hasDays {
		days, rest = "0", string(text)
	}
	n, err := strconv.ParseUint(days, 10, 31)
	if err != nil || n > math.MaxInt64/uint64(day) {
		return fmt.Errorf("%q is %w", text, errDuration)
	}
	var part time.Duration
	if rest != "" || !hasDays {
		part, err = time.ParseDuration(rest)
	}
	sum := time.Duration(n)*day.Std() + part
	if err != nil || hasDays && part < 0 || n > 0 && sum < part {
		return fmt.Errorf("%q is %w", text, errDuration)
	}
	*d = Duration(sum)
	return nil
}

// String gives whole days as days and all else as time.Duration does, without
// its empty seconds and minutes.
func (d Duration) String() string {
	if d != 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.Std().String()
	for _, empty := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, empty) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// MarshalText gives the text that UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalYAML reads a scalar and reports its line.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error { return unmarshalScalar(n, d) }

// ByteSize is a number of bytes. Its text is a whole number, alone or followed
// by B, KiB, MiB, GiB or TiB.
type ByteSize int64

var errByteSize = errors.New("not a size such as 65536, 16KiB, 1MiB or 10GiB")

// byteUnits are the units of a ByteSize, larger ones first.
var byteUnits = []struct {
	name  string
	shift uint
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}}

// UnmarshalText reads a size; it is at most 2^63-1 bytes.
func (s *ByteSize) UnmarshalText(text []byte) error {
	digits, shift := string(text), uint(0)
	for _, unit := range byteUnits {
		if number, ok := strings.CutSuffix(digits, unit.name); ok {
			digits, shift = strings.TrimSuffix(number, " "), unit.shift
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > math.MaxInt64>>shift {
		return fmt.Errorf("%q is %w", text, errByteSize)
	}
	*s = ByteSize(n << shift)
	return nil
}

// String gives the size in the largest unit that divides it.
func (s ByteSize) String() string {
	for _, unit := range byteUnits[:len(byteUnits)-1] {
		if s != 0 && s%(1<<unit.shift) == 0 {
			return strconv.FormatInt(int64(s>>unit.shift), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText gives the text that UnmarshalText reads.
func (s ByteSize) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalYAML reads a scalar and reports its line.
func (s *ByteSize) UnmarshalYAML(n *yaml.Node) error { return unmarshalScalar(n, s) }

// unmarshalScalar reads a scalar node as text. Its error is one that the YAML
// decoder collects with others; an UnmarshalText error would end decoding
// without a line.
func unmarshalScalar(n *yaml.Node, into interface{ UnmarshalText([]byte) error }) error {
	err := into.UnmarshalText([]byte(n.Value))
	if n.Kind != yaml.ScalarNode {
		err = errors.New("a single value is wanted")
	}
	if err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %v", n.Line, err)}}
	}
	return nil
}
