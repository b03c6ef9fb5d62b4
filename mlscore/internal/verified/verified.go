// Package verified remembers signatures that were verified, for tests that
// verify the same ones again and again. Nothing is remembered unless package
// mlstest asks for it.
package verified

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// maxRemembered bounds what is remembered; beyond it, it is forgotten and
// collected afresh.
const maxRemembered = 1 << 20

// Memory holds the verdicts of one scheme.
type Memory struct {
	mutex    sync.Mutex
	verdicts map[[sha256.Size]byte]bool
}

// Ed25519 is the memory of that scheme; nil remembers nothing.
var Ed25519 atomic.Pointer[Memory]

// Verify gives the verdict on a signature, of verify the first time. A nil Memory
// always asks it.
func (m *Memory) Verify(publicKey, message, signature []byte, verify func() bool) bool {
	if m == nil {
		return verify()
	}
	key := keyOf(publicKey, message, signature)
	m.mutex.Lock()
	verdict, known := m.verdicts[key]
	m.mutex.Unlock()
	if known {
		return verdict
	}
	verdict = verify()
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.verdicts == nil || len(m.verdicts) >= maxRemembered {
		m.verdicts = make(map[[sha256.Size]byte]bool)
	}
	m.verdicts[key] = verdict
	return verdict
}

// keyOf hashes the parts with their lengths.
func keyOf(parts ...[]byte) (key [sha256.Size]byte) {
	h := sha256.New()
	for _, p := range parts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(p)))
		h.Write(length[:])
		h.Write(p)
	}
	h.Sum(key[:0])
	return key
}
