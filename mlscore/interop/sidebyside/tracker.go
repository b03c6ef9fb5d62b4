package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"runtime"
	"time"

	"leavebroker/mlscore"
)

// engine is a library that follows a recording.
type engine interface {
	// load starts from the GroupInfo.
	load() (answer, error)
	// follow parses, verifies and applies the next n commits.
	follow(n int) (answer, error)
	// floor verifies the signatures of the last n commits, nothing else.
	floor(n int) (answer, error)
}

// answer is how long each step took, and the group after them.
type answer struct {
	Nanos                   []int64 `json:"nanos"`
	Heap                    int64   `json:"heap"` // bytes that the loaded group keeps, if counted
	Epoch                   uint64  `json:"epoch"`
	TreeHash                string  `json:"tree_hash"`
	ConfirmedTranscriptHash string  `json:"confirmed_transcript_hash"`
	Error                   string  `json:"error"`
}

func (a *answer) sameState(b *answer) bool {
	return a.Epoch == b.Epoch && a.TreeHash == b.TreeHash && a.ConfirmedTranscriptHash == b.ConfirmedTranscriptHash
}

// tracker is the engine of this project.
type tracker struct {
	groupInfo []byte
	commits   []line
	next      int
	group     *mlscore.PublicGroup
}

func newTracker(path string) (*tracker, error) {
	groupInfo, commits, err := read(path)
	return &tracker{groupInfo: groupInfo, commits: commits}, err
}

func (t *tracker) load() (answer, error) {
	t.group, t.next = nil, 0
	return t.timed(1, func(int) error { return t.loadFrom(t.groupInfo) })
}

func (t *tracker) loadFrom(groupInfo []byte) error {
	m, err := mlscore.ParseMLSMessage(groupInfo, nil)
	if err != nil {
		return err
	}
	t.group, err = mlscore.NewPublicGroup(m.GroupInfo, nil, mlscore.Options{})
	return err
}

func (t *tracker) follow(n int) (answer, error) {
	a, err := t.timed(n, func(i int) error {
		m, err := mlscore.ParseMLSMessage(t.commits[t.next+i].Message, nil)
		if err != nil {
			return err
		}
		s, err := t.group.Stage(m)
		if err != nil {
			return err
		}
		t.group = s.Next()
		return nil
	})
	t.next += n
	return a, err
}

func (t *tracker) floor(n int) (answer, error) {
	return t.timed(n, func(i int) error {
		for _, s := range t.commits[t.next-n+i].Signatures {
			if !ed25519.Verify(s.Key, s.Message, s.Signature) {
				return errors.New("a signature does not verify")
			}
		}
		return nil
	})
}

// timed times n steps and describes the group after them.
func (t *tracker) timed(n int, step func(i int) error) (answer, error) {
	var a answer
	for i := range n {
		start := time.Now()
		if err := step(i); err != nil {
			return a, err
		}
		a.Nanos = append(a.Nanos, time.Since(start).Nanoseconds())
	}
	a.Epoch = t.group.Epoch()
	a.TreeHash = hex.EncodeToString(t.group.Tree().TreeHash())
	a.ConfirmedTranscriptHash = hex.EncodeToString(t.group.ConfirmedTranscriptHash())
	return a, nil
}

// heap is the heap that a loaded group keeps alive when nobody else holds the
// GroupInfo.
func (t *tracker) heap() (int64, error) {
	t.group = nil
	before := liveHeap()
	err := t.loadFrom(bytes.Clone(t.groupInfo))
	after := liveHeap()
	runtime.KeepAlive(t.group)
	return int64(after - before), err
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // what the first one finalized or swept late
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
