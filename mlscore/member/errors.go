package member

import (
	"errors"
	"fmt"

	"leavebroker/mlscore"
)

// What a caller may want to tell apart, beside the classes of package mlscore
// (mlscore.ErrInvalid and so on), which every refusal of an input wraps.
var (
	// ErrRemoved: this member was removed from the group and can do nothing in
	// it any more.
	ErrRemoved = errors.New("removed from the group")
	// ErrReInitialized: the group was closed by a ReInit (RFC 9420, Section 11.2).
	ErrReInitialized = errors.New("group was reinitialized")
	// ErrNoPendingCommit: there is no own commit to confirm.
	ErrNoPendingCommit = errors.New("no own commit is pending")
	// ErrNotForUs: no part of the Welcome is for the given key package.
	ErrNotForUs = errors.New("welcome is not for this key package")
	// ErrUnknownPSK: the pre-shared key is needed and not known.
	ErrUnknownPSK = errors.New("unknown pre-shared key")
)

func invalid(section, format string, args ...any) error {
	return &mlscore.Error{Class: mlscore.ErrInvalid, Section: "RFC 9420, Section " + section, Detail: fmt.Sprintf(format, args...)}
}
