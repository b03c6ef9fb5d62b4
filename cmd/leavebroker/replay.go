package main

import (
	"bytes"
	"errors"
	"fmt"

	"leavebroker/mlscore"
)

// The kinds of message in a log.
const (
	kindGroupInfo      = "group_info"
	kindProposal       = "proposal"
	kindCommit         = "commit"
	kindExternalCommit = "external_commit"
	kindPrivate        = "private"
	kindOther          = "other"
)

func kindOf(m *mlscore.MLSMessage) string {
	switch {
	case m.GroupInfo != nil:
		return kindGroupInfo
	case m.PrivateMessage != nil:
		return kindPrivate
	case m.PublicMessage == nil:
		return kindOther
	}
	switch c := &m.PublicMessage.Content; {
	case c.ContentType == mlscore.ContentTypeProposal:
		return kindProposal
	case c.ContentType == mlscore.ContentTypeCommit && c.Sender.Type == mlscore.SenderTypeNewMemberCommit:
		return kindExternalCommit
	case c.ContentType == mlscore.ContentTypeCommit:
		return kindCommit
	}
	return kindOther
}

// refusal is an error of one of the classes of package mlscore.
func refusal(class error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", class, fmt.Sprintf(format, args...))
}

// replay follows one group.
type replay struct {
	opts  mlscore.Options
	known associations
	group *mlscore.PublicGroup // nil before the first GroupInfo
	gap   bool                 // messages are known to be missing
}

// message takes one message and gives its flags; on an error the group is as it
// was.
func (r *replay) message(m *mlscore.MLSMessage, ratchetTree []byte) (flags []string, err error) {
	if m.GroupInfo != nil {
		return r.groupInfo(m.GroupInfo, ratchetTree)
	}
	if r.group == nil {
		return nil, refusal(mlscore.ErrUnresolvable, "no GroupInfo came before")
	}
	staged, err := r.group.StageWith(m, r.known.of(r.group.Epoch()))
	if err != nil {
		r.gap = r.gap || errors.Is(err, mlscore.ErrAhead) || errors.Is(err, mlscore.ErrUnresolvable) && isCommit(m)
		if needed := (*mlscore.AssociationNeeded)(nil); errors.As(err, &needed) {
			err = askUser(needed, r.group.Epoch())
		}
		return nil, err
	}
	r.group = staged.Next()
	if staged.Proposal != nil && staged.Proposal.Invalid != nil {
		// It is kept among the proposals all the same: a commit that refers to
		// it is then known to be invalid, not merely beyond us.
		return nil, staged.Proposal.Invalid
	}
	return staged.Flags, nil
}

func isCommit(m *mlscore.MLSMessage) bool {
	if m.PrivateMessage != nil {
		return m.PrivateMessage.ContentType == mlscore.ContentTypeCommit
	}
	return m.PublicMessage != nil && m.PublicMessage.Content.ContentType == mlscore.ContentTypeCommit
}

// groupInfo starts from a GroupInfo, or compares it with the group.
func (r *replay) groupInfo(gi *mlscore.GroupInfo, ratchetTree []byte) (flags []string, err error) {
	if r.group == nil {
		return r.start(gi, ratchetTree)
	}
	context := &gi.GroupContext
	switch {
	case !bytes.Equal(context.GroupID, r.group.GroupID()):
		return nil, refusal(mlscore.ErrInvalid, "a GroupInfo of group %x in the log of group %x", context.GroupID, r.group.GroupID())
	case context.Epoch < r.group.Epoch():
		return nil, refusal(mlscore.ErrStale, "a GroupInfo of epoch %d in epoch %d", context.Epoch, r.group.Epoch())
	case context.Epoch == r.group.Epoch():
		return r.compare(gi, ratchetTree)
	case !r.gap:
		return nil, refusal(mlscore.ErrAhead, "a GroupInfo of epoch %d in epoch %d: the commits between are missing", context.Epoch, r.group.Epoch())
	}
	return r.start(gi, ratchetTree)
}

func (r *replay) start(gi *mlscore.GroupInfo, ratchetTree []byte) (flags []string, err error) {
	group, err := mlscore.NewPublicGroup(gi, ratchetTree, r.opts)
	if err != nil {
		return nil, err
	}
	r.group, r.gap = group, false
	return group.Flags(), nil
}

// compare refuses a GroupInfo of the current epoch that is not of the current
// state. It needs no tree, as the tree hash tells whether it means ours.
func (r *replay) compare(gi *mlscore.GroupInfo, ratchetTree []byte) (flags []string, err error) {
	_, carried := gi.Extensions.Find(mlscore.ExtensionTypeRatchetTree)
	ours := bytes.Equal(gi.GroupContext.TreeHash, r.group.Tree().TreeHash())
	var theirs *mlscore.PublicGroup
	switch {
	case ratchetTree != nil || carried:
		theirs, err = mlscore.NewPublicGroup(gi, ratchetTree, r.opts)
	case ours:
		theirs, err = mlscore.NewPublicGroupWithTree(gi, r.group.Tree(), r.opts)
	}
	if err != nil {
		return nil, err
	}
	if !ours || !bytes.Equal(theirs.ContextBytes(), r.group.ContextBytes()) {
		return nil, refusal(mlscore.ErrDiverged, "the GroupInfo of epoch %d has another GroupContext than ours", r.group.Epoch())
	}
	if !bytes.Equal(theirs.InterimTranscriptHash(), r.group.InterimTranscriptHash()) {
		return nil, refusal(mlscore.ErrDiverged, "the GroupInfo of epoch %d has another confirmation_tag than its commit", r.group.Epoch())
	}
	return theirs.Flags(), nil
}
