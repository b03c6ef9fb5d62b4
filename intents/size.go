package intents

// Size is an estimate of the memory that a State takes, in bytes.
func (s *State) Size() int {
	n := 4 << 10
	if s.group != nil {
		n += 512 * s.group.Tree().Members()
	}
	return n + 1024*len(s.open)
}
