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

// eventKey reads the key in a file. Without a path it is that of the state
// directory, which is made if there is none. It outlives restarts, so that one
// user's events stay recognisable.
func eventKey(path, stateDir string) ([]byte, error) {
	if path != "" {
		return loadEventKey(path)
	}
	path = filepath.Join(stateDir, "keys", "events.key")
	key, err := loadEventKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	key = make([]byte, eventKeyBytes)
	rand.Read(key)
	return key, keyfile.Create(path, key)
}

func loadEventKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(key) != eventKeyBytes {
		return nil, fmt.Errorf("%s: %d bytes, want %d random ones, as head -c %d /dev/urandom gives", path, len(key), eventKeyBytes, eventKeyBytes)
	}
	return key, nil
}
