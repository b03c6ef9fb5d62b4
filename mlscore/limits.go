package mlscore

// Caps on what an input may make us hold. Lengths are bounded by the input
// itself (package codec); these bound what a short input could demand.
const (
	// MaxLeaves is the largest tree that is tracked: 2^24 leaves. A GroupInfo
	// that large exceeds every message limit; the cap keeps node arithmetic
	// inside 32 bits and refuses absurd indexes early.
	MaxLeaves = 1 << 24
	// MaxPendingProposals bounds the proposals kept for one epoch, by members
	// and external senders together: a flood of valid proposals must not fill
	// memory. A commit that refers to one beyond it is unresolvable.
	MaxPendingProposals = 1 << 16
)
