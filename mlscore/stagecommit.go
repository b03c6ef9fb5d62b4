package mlscore

import (
	"crypto/sha256"
	"slices"
)

// stageCommit judges a commit whose framing and signature were checked
// (RFC 9420, Sections 12.4.2 and 12.4.3.2).
func (g *PublicGroup) stageCommit(a *AuthenticatedContent) (*Staged, error) {
	commit := a.Content.Commit
	p, err := g.Prepare(a.Content.Sender, commit.Proposals)
	if err != nil {
		return nil, err
	}
	next, err := p.finish(commit.Path)
	if err != nil {
		return nil, err
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
		CommitHash: sha256.Sum256(a.Append(nil)),
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
