package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"time"

	"leavebroker/mlscore/mlstest/biggroup"
)

// line is a line of a recording, which is JSON Lines: a GroupInfo with its
// ratchet tree, then commits.
type line struct {
	Message    []byte      `json:"mls_message"`
	Signatures []signature `json:"signatures,omitempty"` // what the message needs verified
}

// signature is an Ed25519 signature.
type signature struct {
	Key       []byte `json:"key"`
	Message   []byte `json:"message"`
	Signature []byte `json:"signature"`
}

// record writes a group of cipher suite 1 and commits by random members, with
// lifetimes around now.
func record(path string, members, commits int, shape biggroup.Shape, seed uint64) error {
	g, err := biggroup.New(biggroup.Config{Suite: 1, Members: members, Shape: shape, Seed: seed, Now: time.Now()})
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	err = errors.Join(write(json.NewEncoder(w), g, commits), w.Flush(), f.Close())
	return err
}

func write(out *json.Encoder, g *biggroup.Group, commits int) error {
	info, err := g.GroupInfo()
	if err != nil {
		return err
	}
	if err := out.Encode(line{Message: info}); err != nil {
		return err
	}
	for range commits {
		h, err := g.Commit(g.Member())
		if err != nil {
			return err
		}
		l := line{Message: h.Message}
		for _, s := range h.Signatures {
			l.Signatures = append(l.Signatures, signature{s.Key, s.Message, s.Signature})
		}
		if err := out.Encode(l); err != nil {
			return err
		}
	}
	return nil
}

// read reads a recording.
func read(path string) (groupInfo []byte, commits []line, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	d := json.NewDecoder(bufio.NewReader(f))
	for d.More() {
		var l line
		if err := d.Decode(&l); err != nil {
			return nil, nil, err
		}
		commits = append(commits, l)
	}
	if len(commits) == 0 {
		return nil, nil, errors.New("an empty recording")
	}
	return commits[0].Message, commits[1:], nil
}
