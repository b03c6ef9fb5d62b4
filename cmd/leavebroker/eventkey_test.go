package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEventKey: the key of the state directory is made once, and can be given
// to another instance as a file. Nothing is made where a file is named.
func TestEventKey(t *testing.T) {
	stateDir, other := t.TempDir(), t.TempDir()
	key, err := eventKey("", stateDir)
	if err != nil || len(key) != eventKeyBytes {
		t.Fatalf("%d bytes, %v", len(key), err)
	}
	path := filepath.Join(stateDir, "keys", "events.key")
	for name, from := range map[string][2]string{"again": {"", stateDir}, "by its path": {path, other}} {
		if again, err := eventKey(from[0], from[1]); err != nil || !bytes.Equal(again, key) {
			t.Errorf("%s: another key, %v", name, err)
		}
	}
	if entries, err := os.ReadDir(other); err != nil || len(entries) > 0 {
		t.Errorf("%v made beside a key that is named, %v", entries, err)
	}

	if _, err := eventKey(filepath.Join(other, "absent"), other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	long := mustWrite(t, "long.key", append(key, '\n'))
	if _, err := eventKey(long, other); err == nil || !strings.Contains(err.Error(), "33 bytes, want 32") {
		t.Errorf("a line end after the key: %v", err)
	}
}
