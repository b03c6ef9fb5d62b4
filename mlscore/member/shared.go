package member

import (
	"crypto/sha256"
	"slices"
	"sync"

	"leavebroker/mlscore"
)

// Shared remembers judgements of public state for programs that run many
// members of a group in one process: demos, load generators and tests. What a
// message does to the public state is a pure function of the two, so the first
// member who meets a message pays for its signatures and tree hashes, and the
// others share the result, and with it the memory of the tree. A member that
// joins a group whose GroupContext is known verifies only the GroupInfo's own
// signature. Secrets are never shared: each member decrypts its own path secret
// and checks the tags by itself.
//
// All clients that use one Shared must use equal registries. It is safe for
// concurrent use and remembers a bounded number of messages. The nil Shared
// remembers nothing.
type Shared struct {
	mu     sync.Mutex
	staged generations[stagedKey, *stagedEntry]
	groups generations[[sha256.Size]byte, *mlscore.PublicGroup]
	infos  generations[[sha256.Size]byte, *mlscore.PublicGroup] // by the whole GroupInfo

	open sync.Mutex // held while a GroupInfo is judged, so that it happens once
}

// maxRemembered bounds each generation of what a Shared remembers.
const maxRemembered = 1 << 12

type stagedKey struct {
	group   *mlscore.PublicGroup
	message [sha256.Size]byte
	answers string
}

type stagedEntry struct {
	once   sync.Once
	staged *mlscore.Staged
	err    error
}

// stage judges a handshake with what is known of associations: what is in a
// PublicMessage with its membership tag, or what was in a PrivateMessage.
func (s *Shared) stage(g *mlscore.PublicGroup, a *mlscore.AuthenticatedContent, membershipTag []byte, known answers) (*mlscore.Staged, error) {
	judge := func() (*mlscore.Staged, error) {
		if a.WireFormat != mlscore.WireFormatPublicMessage {
			return g.StageContent(a, known.find)
		}
		return g.StageWith(&mlscore.MLSMessage{WireFormat: mlscore.WireFormatPublicMessage, PublicMessage: &mlscore.PublicMessage{
			AuthenticatedContent: *a, MembershipTag: membershipTag,
		}}, known.find)
	}
	if s == nil {
		return judge()
	}
	entry := s.entry(g, a, membershipTag, known)
	entry.once.Do(func() { entry.staged, entry.err = judge() })
	return entry.staged, entry.err
}

// remember enters a judgement that was made elsewhere.
func (s *Shared) remember(g *mlscore.PublicGroup, a *mlscore.AuthenticatedContent, membershipTag []byte, known answers, staged *mlscore.Staged) {
	if s != nil {
		entry := s.entry(g, a, membershipTag, known)
		entry.once.Do(func() { entry.staged = staged })
	}
}

func (s *Shared) entry(g *mlscore.PublicGroup, a *mlscore.AuthenticatedContent, membershipTag []byte, known answers) *stagedEntry {
	key := stagedKey{g, sha256.Sum256(slices.Concat(a.Append(nil), membershipTag)), string(known.bytes())}
	s.mu.Lock()
	defer s.mu.Unlock()
	entry := s.staged.find(key)
	if entry == nil {
		entry = &stagedEntry{}
		s.staged.put(key, entry)
	}
	return entry
}

// canonical gives the one PublicGroup that stands for all equal ones at the
// start of an epoch.
func (s *Shared) canonical(g *mlscore.PublicGroup) *mlscore.PublicGroup {
	if s == nil {
		return g
	}
	key := groupKey(g.ContextBytes(), g.InterimTranscriptHash())
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.groups.find(key); known != nil {
		return known
	}
	s.groups.put(key, g)
	return g
}

func groupKey(groupContext, interim []byte) [sha256.Size]byte {
	return sha256.Sum256(append(append([]byte(nil), groupContext...), interim...))
}

// publicGroup is mlscore.NewPublicGroup, for a state that may be known.
func (s *Shared) publicGroup(suite *suite, gi *mlscore.GroupInfo, ratchetTree []byte, opts mlscore.Options) (*mlscore.PublicGroup, error) {
	if s == nil {
		return mlscore.NewPublicGroup(gi, ratchetTree, opts)
	}
	s.open.Lock()
	defer s.open.Unlock()
	info := sha256.Sum256(gi.Bytes())
	interim := mlscore.InterimTranscriptHash(suite.Suite, gi.GroupContext.ConfirmedTranscriptHash, gi.ConfirmationTag)
	s.mu.Lock()
	verified, known := s.infos.find(info), s.groups.find(groupKey(gi.GroupContext.Append(nil), interim))
	s.mu.Unlock()
	if verified != nil {
		return verified, nil
	}
	var g *mlscore.PublicGroup
	var err error
	if known == nil {
		g, err = mlscore.NewPublicGroup(gi, ratchetTree, opts)
	} else {
		g, err = mlscore.NewPublicGroupWithTree(gi, known.Tree(), opts)
	}
	if err != nil {
		return nil, err
	}
	g = s.canonical(g)
	s.mu.Lock()
	s.infos.put(info, g)
	s.mu.Unlock()
	return g, nil
}

// generations is a map that forgets what was not used for a while: when the
// young half is full, the old half is dropped.
type generations[K comparable, V comparable] struct{ young, old map[K]V }

func (c *generations[K, V]) find(k K) (v V) {
	if v, ok := c.young[k]; ok {
		return v
	}
	v, ok := c.old[k]
	if ok {
		c.put(k, v)
	}
	return v
}

func (c *generations[K, V]) put(k K, v V) {
	if c.young == nil || len(c.young) >= maxRemembered {
		c.young, c.old = make(map[K]V), c.young
	}
	c.young[k] = v
}
