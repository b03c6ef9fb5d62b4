package mlstest

import (
	"testing"

	"leavebroker/mlscore/internal/verified"
)

// RememberSignatures has each Ed25519 signature verified once until a test ends:
// its verdict is that of package mlscore, and is the same every time.
func RememberSignatures(t testing.TB) {
	verified.Ed25519.Store(new(verified.Memory))
	t.Cleanup(func() { verified.Ed25519.Store(nil) })
}
