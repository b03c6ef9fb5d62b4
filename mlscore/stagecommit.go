package mlscore

import "slices"

// stageCommit judges a commit whose framing and signature were checked
// (RFC 9420, Sections 12.4.2 and 12.4.3.2).
func (g *PublicGroup) stageCommit(a *AuthenticatedContent, known Associations) (*Staged, error) {
	p, err := g.Prepare(a.Content.Sender, a.Content.Commit.Proposals, known)
	if err != nil {
		return nil, err
	}
	return p.Stage(a)
}

// Stage judges what follows the proposals of a commit: its path, and the group
// that it leads to. The commit contains the prepared proposals, and its framing
// and signature are right: a committer calls it for the commit that it has just
// made. It uses the provisional group up.
func (p *Provisional) Stage(a *AuthenticatedContent) (*Staged, error) {
	g := p.group
	next, err := p.finish(a.Content.Commit.Path)
	if err != nil {
		return nil, p.contradicted(err)
	}
	next.context.ConfirmedTranscriptHash = ConfirmedTranscriptHash(g.suite, g.interim, a)
	next.interim = InterimTranscriptHash(g.suite, next.context.ConfirmedTranscriptHash, a.ConfirmationTag)
	next.encoded = next.context.Append(nil)
	next.closed = slices.ContainsFunc(p.Applied, func(a AppliedProposal) bool {
		return a.Proposal.Type == ProposalTypeReInit
	})
	staged := &Staged{
		Kind: StagedCommit, Committer: p.Committer,
		Removed: p.Removed, Updated: p.Updated, Added: p.Added, Applied: p.Applied,
		CommitHash: a.commitHash(),
		Proves:     !p.External, Flags: p.flags, next: next,
	}
	if p.External {
		staged.Kind = StagedExternalCommit
		staged.Resync = slices.ContainsFunc(p.Applied, func(a AppliedProposal) bool {
			return a.Proposal.Type == ProposalTypeRemove
		})
	}
	return staged, nil
}
