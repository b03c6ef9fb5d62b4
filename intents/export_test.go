package intents

// Kept counts the epochs and the inputs that a State keeps to come back to.
func Kept(s *State) (epochs, inputs int) {
	if s.fork == nil {
		return 0, 0
	}
	return len(s.fork.nodes), s.fork.since.n
}

// The caps on both.
const (
	MaxUnproven = maxUnproven
	MaxRivals   = maxRivals
)
