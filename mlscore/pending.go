package mlscore

import (
	"bytes"
	"iter"
	"slices"
	"sort"
)

// PendingProposal is a proposal of the current epoch that a commit may refer to.
type PendingProposal struct {
	// Ref is its ProposalRef, Nh bytes.
	Ref      []byte
	Proposal *Proposal
	Sender   Sender
	// Content is the message that carried it.
	Content *AuthenticatedContent
	// Expansion is what a custom proposal stands for; nil for any other, and for
	// an invalid one.
	Expansion *Expansion
	// MembershipTag is the tag of a PublicMessage by a member; it was not checked.
	MembershipTag []byte
	// Invalid says why no valid commit can contain it; nil if one may. The
	// proposal is kept all the same, so that a commit that does is known to be
	// invalid and not merely beyond us.
	Invalid error

	arrival int
}

// Message is the MLSMessage that carried the proposal.
func (p *PendingProposal) Message() []byte {
	m := MLSMessage{WireFormat: WireFormatPublicMessage, PublicMessage: &PublicMessage{*p.Content, p.MembershipTag}}
	return m.Bytes()
}

// size is the bytes of what carried the proposal.
func (p *PendingProposal) size() int {
	return len(p.Content.Content.Bytes()) + len(p.Content.Signature) + len(p.MembershipTag)
}

// pendingSet is an immutable set of proposals by reference: runs sorted by
// reference, whose sizes halve. Adding merges the short runs into a new one,
// so n proposals cost O(n log n) in all and older sets stay as they were.
type pendingSet struct {
	runs [][]*PendingProposal
	n    int
	size int // bytes of what carried them
}

func (s pendingSet) find(ref []byte) *PendingProposal {
	for _, run := range s.runs {
		i := sort.Search(len(run), func(i int) bool { return bytes.Compare(run[i].Ref, ref) >= 0 })
		if i < len(run) && bytes.Equal(run[i].Ref, ref) {
			return run[i]
		}
	}
	return nil
}

// with is the set and one more proposal, whose reference it does not hold yet.
func (s pendingSet) with(p *PendingProposal) pendingSet {
	p.arrival = s.n
	run := []*PendingProposal{p}
	runs := s.runs
	for len(runs) > 0 && len(runs[len(runs)-1]) <= len(run) {
		run = mergeRuns(runs[len(runs)-1], run)
		runs = runs[:len(runs)-1]
	}
	return pendingSet{append(slices.Clone(runs), run), s.n + 1, s.size + p.size()}
}

func mergeRuns(a, b []*PendingProposal) []*PendingProposal {
	out := make([]*PendingProposal, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if bytes.Compare(a[0].Ref, b[0].Ref) <= 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// all yields the proposals in the order of their arrival.
func (s pendingSet) all() iter.Seq[*PendingProposal] {
	return func(yield func(*PendingProposal) bool) {
		list := make([]*PendingProposal, s.n)
		for _, run := range s.runs {
			for _, p := range run {
				list[p.arrival] = p
			}
		}
		for _, p := range list {
			if !yield(p) {
				return
			}
		}
	}
}
