package mlscore

import (
	"errors"
	"fmt"

	"leavebroker/mlscore/codec"
)

// The classes of refusal. Every error of this package about an input wraps
// exactly one of them; the state that met the input is unchanged.
var (
	// ErrMalformed: the bytes are not an encoding of what they should be.
	ErrMalformed = codec.ErrMalformed
	// ErrInvalid: well formed, but members refuse it too.
	ErrInvalid = errors.New("invalid")
	// ErrStale: made for an epoch before ours. Ignore it.
	ErrStale = errors.New("stale")
	// ErrAhead: made for an epoch after ours; a commit was missed or misjudged.
	ErrAhead = errors.New("ahead")
	// ErrUnresolvable: members may accept it, but an observer cannot follow: a
	// proposal is missing, the handshake is encrypted, or the new GroupContext
	// depends on something that is not public.
	ErrUnresolvable = errors.New("unresolvable")
	// ErrDiverged: a member's signature contradicts our GroupContext.
	ErrDiverged = errors.New("diverged")
	// ErrUnsupported: a cipher suite or protocol version that this build does
	// not know.
	ErrUnsupported = errors.New("unsupported")
)

// Error is a refusal: its class, the rule that was broken and how.
type Error struct {
	Class   error  // one of the Err values above
	Section string // of RFC 9420, or the name of another specification; "" for none
	Detail  string // what was found, for a person
}

func (e *Error) Error() string {
	if e.Section == "" {
		return fmt.Sprintf("%v: %s", e.Class, e.Detail)
	}
	return fmt.Sprintf("%v: %s (%s)", e.Class, e.Detail, e.Section)
}

// Unwrap gives the class, for errors.Is.
func (e *Error) Unwrap() error { return e.Class }

func refuse(class error, section, format string, args ...any) error {
	if section != "" && section[0] >= '0' && section[0] <= '9' {
		section = "RFC 9420, Section " + section
	}
	return &Error{Class: class, Section: section, Detail: fmt.Sprintf(format, args...)}
}

func invalid(section, format string, args ...any) error {
	return refuse(ErrInvalid, section, format, args...)
}

func malformed(section, format string, args ...any) error {
	return refuse(ErrMalformed, section, format, args...)
}

// classes are all of them. Their places are in stored groups: append only.
var classes = [...]error{ErrMalformed, ErrInvalid, ErrStale, ErrAhead, ErrUnresolvable, ErrDiverged, ErrUnsupported}

// Reason is the class of an error in one lowercase word, for scripts:
// malformed, invalid, stale, ahead, unresolvable, diverged, unsupported, or
// error where there is no class.
func Reason(err error) string {
	for _, class := range classes {
		if errors.Is(err, class) {
			return class.Error()
		}
	}
	return "error"
}
