package intents

import "reflect"

// Fields counts the fields of what a snapshot holds.
func Fields() map[string]int {
	count := make(map[string]int)
	for _, v := range []any{State{}, record{}, association{}, parkedIntent{}, output{}, departure{}, life{}} {
		count[reflect.TypeOf(v).Name()] = reflect.TypeOf(v).NumField()
	}
	return count
}

// Kept counts the epochs and the inputs that a State keeps to come back to.
func Kept(s *State) (epochs, inputs int) {
	if s.fork == nil {
		return 0, 0
	}
	return len(s.fork.nodes), s.fork.since.n
}

// The caps on both, and on the commits that a State has heard.
const (
	MaxUnproven = maxUnproven
	MaxRivals   = maxRivals
	MaxHeard    = maxHeard
)
