package broker

import "sync"

// openGroups are the groups with something to do. Their owners tell, and the
// ledger, which is read late at times: an owner that was replaced may close a
// group after another has opened it. So what is known has the revision of the
// ledger as of which it is so, and what is older closes nothing. That a group is
// open without need costs a look at its log.
type openGroups struct {
	mu      sync.RWMutex
	groups  map[groupKey]openGroup // guarded by mu
	tenants map[string]int         // sum of intents by tenant; guarded by mu
}

// openGroup is what is known of one.
type openGroup struct {
	intents int    // open ones; the ledger does not count them, and stands for one
	rev     uint64 // of the ledger
}

func (s *openGroups) has(k groupKey) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.groups[k]
	return ok
}

// set takes what the group's owner knows, as of a revision of the ledger.
func (s *openGroups) set(k groupKey, isOpen bool, n int, rev uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, was := s.groups[k]
	switch {
	case isOpen:
		s.put(k, openGroup{n, max(rev, known.rev)})
	case was && rev >= known.rev:
		s.remove(k)
	}
}

// learn takes what a revision of the ledger says of a group that no owner of this
// instance works on.
func (s *openGroups) learn(k groupKey, isOpen bool, rev uint64) { s.set(k, isOpen, 1, rev) }

// note takes what a revision of the ledger says of a group whose owner knows more.
func (s *openGroups) note(k groupKey, rev uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, was := s.groups[k]; was && rev > known.rev {
		s.put(k, openGroup{known.intents, rev})
	}
}

// forgetRevisions lets what the ledger says next be newer than what is known.
func (s *openGroups) forgetRevisions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, known := range s.groups {
		s.groups[k] = openGroup{known.intents, 0}
	}
}

// put stores what is known of an open group. The caller holds mu.
func (s *openGroups) put(k groupKey, g openGroup) {
	if s.groups == nil {
		s.groups, s.tenants = map[groupKey]openGroup{}, map[string]int{}
	}
	s.tenants[k.tenant] += g.intents - s.groups[k].intents
	s.groups[k] = g
}

// remove forgets a group. The caller holds mu.
func (s *openGroups) remove(k groupKey) {
	s.tenants[k.tenant] -= s.groups[k].intents
	delete(s.groups, k)
}

// ofTenant is the number of open intents of a tenant.
func (s *openGroups) ofTenant(tenant string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tenants[tenant]
}

// count is the number of open groups, and of open intents in them.
func (s *openGroups) count() (groups, open int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, n := range s.tenants {
		open += n
	}
	return len(s.groups), open
}

// list is every open group.
func (s *openGroups) list() []groupKey {
	s.mu.RLock()
	defer s.mu.RUnlock()
	keys := make([]groupKey, 0, len(s.groups))
	for k := range s.groups {
		keys = append(keys, k)
	}
	return keys
}
