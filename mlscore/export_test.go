package mlscore

// FullOfProposals is a group with as many proposals in its epoch as are kept.
func FullOfProposals(g *PublicGroup) *PublicGroup {
	full := *g
	full.pending.n = MaxPendingProposals
	return &full
}
