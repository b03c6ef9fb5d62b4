package intents

// What things hold in memory, in bytes, roughly: measured, with what they are
// kept in.
const (
	sizeOfRecord    = 650 // with its message
	sizeOfParked    = 200
	sizeOfDeparture = 180
	sizeOfLife      = 130
	sizeOfOutput    = 350 // a decoded proposal
	sizeOfEntry     = 120 // an input that may be folded again
	sizeOfEpoch     = 6 << 10
	sizeOfLeaf      = 1 << 10 // of a sender, and its part of the tree if that is of an epoch that is over
)

// Size is the memory that the State holds, in bytes, roughly. It costs a look
// at each open intent, at what is out and at each epoch that is kept.
func (s *State) Size() int {
	n := 4<<10 + sizeOfRecord*s.records.n + sizeOfParked*len(s.parked) + sizeOfDeparture*s.departed.n + sizeOfLife*s.lives.n
	if s.group != nil {
		n += s.group.Size()
	}
	if s.ground.group != nil {
		n += s.ground.group.Size()
	}
	if s.ahead != nil {
		n += len(s.ahead.Bytes())
	}
	for _, r := range s.open {
		n += sizeOfLeaf
		if a := r.association; a != nil {
			n += 4 * (len(a.open) + len(a.associated))
		}
	}
	for _, out := range s.outputs {
		for _, raw := range out.raw {
			n += sizeOfOutput + len(raw)
		}
	}
	if b := s.blocked; b != nil {
		n += len(b.commit.Data) + b.size
	}
	return n + s.fork.memory()
}

// memory is that of the epochs that are kept, beside the State's.
func (f *fork) memory() int {
	if f == nil {
		return 0
	}
	n := sizeOfEpoch * len(f.nodes)
	if f.since != nil {
		n += sizeOfEntry * f.since.n
	}
	return n
}
