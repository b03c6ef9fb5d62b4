// Package mlstest finds the published test vectors of MLS and bounds what
// decoders allocate. Only tests import it.
package mlstest

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Vectors reads a vector file, named relative to the vectors' folder: the
// environment's LEAVEBROKER_VECTORS, or shared/vectors beside the checkout. A
// test without its vectors is skipped, or failed if
// LEAVEBROKER_REQUIRE_VECTORS is 1.
func Vectors(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("LEAVEBROKER_VECTORS")
	if dir == "" {
		_, here, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(here), "../../../shared/vectors")
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		if os.Getenv("LEAVEBROKER_REQUIRE_VECTORS") == "1" {
			t.Fatalf("vectors are required: %v", err)
		}
		t.Skipf("no vectors (set LEAVEBROKER_VECTORS to their folder): %v", err)
	}
	return b
}

// Hex is a byte string that JSON holds as lowercase hex.
type Hex []byte

// UnmarshalJSON decodes a JSON string of hex digits; null is nil.
func (h *Hex) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := hex.DecodeString(s)
	*h = v
	return err
}

// JSON decodes a vector file into a value.
func JSON(t testing.TB, name string, into any) {
	t.Helper()
	if err := json.Unmarshal(Vectors(t, name), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
