package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"leavebroker/mlscore/keyfile"
)

// eventKeyBytes is the length of the key of the hashes that stand for users in
// events.
const eventKeyBytes = 32

// eventKey reads the key of the state directory, and makes it if there is none.
// It outlives restarts, so that one user's events stay recognisable.
func eventKey(stateDir string) ([]byte, error) {
	path := filepath.Join(stateDir, "keys", "events.key")
	key, err := os.ReadFile(path)
	switch {
	case err == nil && len(key) == eventKeyBytes:
		return key, nil
	case err == nil:
		return nil, fmt.Errorf("%s: %d bytes, want %d; remove it to make a new one", path, len(key), eventKeyBytes)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	key = make([]byte, eventKeyBytes)
	rand.Read(key)
	return key, keyfile.Create(path, key)
}
