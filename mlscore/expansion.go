package mlscore

import (
	"errors"
	"fmt"
	"slices"
)

// Expansion is the set of Removes that a custom proposal stands for, as a
// LeafOperationProposal does (draft-kohbrok-mls-leaf-operation-intents, Section
// 2.4): one of the leaf from which they originate and, where the proposal says
// so, one of each leaf associated with it.
type Expansion struct {
	// Sender is the leaf from which the Removes originate. It is in the tree.
	Sender LeafIndex
	// Associated says that the leaves associated with the sender are removed too.
	Associated bool
}

// Associations answers which other leaves of a group's current epoch are
// associated with a sender, or that this is not known. Only an Authentication
// Service can tell, so it is an input to staging; nil knows nothing.
type Associations func(sender LeafIndex) (associated []LeafIndex, known bool)

// AssociationNeeded refuses a commit that cannot be judged before it is known
// which members are associated with the senders of some of its proposals. It
// wraps ErrUnresolvable: stage the commit again with the answers.
type AssociationNeeded struct {
	// Proposals are those whose associations are missing, in the order of the
	// commit's list. The candidates are all other leaves of the current epoch.
	Proposals []AppliedProposal
}

func (e *AssociationNeeded) Error() string {
	senders := make([]LeafIndex, len(e.Proposals))
	for i, a := range e.Proposals {
		senders[i] = a.Expansion.Sender
	}
	return fmt.Sprintf("%v: who is associated with leaves %v is not known", ErrUnresolvable, senders)
}

// Unwrap gives ErrUnresolvable, for errors.Is.
func (e *AssociationNeeded) Unwrap() error { return ErrUnresolvable }

// Expand judges a custom proposal of the current epoch by itself and gives what
// it stands for; nil for any other proposal.
func (g *PublicGroup) Expand(p *Proposal) (*Expansion, error) {
	c := g.registry.custom(p.Type)
	if c == nil || c.Expand == nil {
		return nil, nil
	}
	x, err := c.Expand(g, p.Body)
	if err != nil {
		return nil, err
	}
	return &x, nil
}

// Removes lists the leaves that an expansion removes, ascending: ErrUnresolvable
// where the association is not known, or names a leaf that is not there.
func (g *PublicGroup) Removes(x *Expansion, known Associations) ([]LeafIndex, error) {
	list := []LeafIndex{x.Sender}
	if !x.Associated {
		return list, nil
	}
	var associated []LeafIndex
	ok := known != nil
	if ok {
		associated, ok = known(x.Sender)
	}
	if !ok {
		return nil, refuse(ErrUnresolvable, "", "who is associated with leaf %d is not known", x.Sender)
	}
	for _, leaf := range associated {
		if g.tree.LeafBytes(leaf) == nil {
			return nil, refuse(ErrUnresolvable, "", "leaf %d, associated with %d, is blank or outside the tree", leaf, x.Sender)
		}
		list = append(list, leaf)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// expandAll gives every custom proposal of a list the leaves that it removes.
func (g *PublicGroup) expandAll(list []AppliedProposal, known Associations) error {
	var missing AssociationNeeded
	for i := range list {
		a := &list[i]
		if a.Expansion == nil {
			continue
		}
		if a.Expansion.Associated {
			if _, ok := known(a.Expansion.Sender); !ok {
				missing.Proposals = append(missing.Proposals, *a)
				continue
			}
		}
		var err error
		if a.Removes, err = g.Removes(a.Expansion, known); err != nil {
			return err
		}
	}
	if len(missing.Proposals) > 0 {
		return &missing
	}
	return nil
}

// senderOnly is the least that is known of associations.
func senderOnly(LeafIndex) ([]LeafIndex, bool) { return nil, true }

// unknown is the association of one who was not told any.
func unknown(LeafIndex) ([]LeafIndex, bool) { return nil, false }

// checkList judges the proposals of a commit together, and finds what the
// custom ones among them remove. Any list that cannot be valid for lack of room
// beside the senders' own Removes is ErrInvalid before anybody is asked.
func (p *Provisional) checkList(known Associations) error {
	check := func() error {
		if p.External {
			return checkExternalList(p.group.registry, p.Applied)
		}
		return checkMemberList(p.Committer, p.Applied)
	}
	p.associated = slices.ContainsFunc(p.Applied, func(a AppliedProposal) bool {
		return a.Expansion != nil && a.Expansion.Associated
	})
	if err := p.group.expandAll(p.Applied, senderOnly); err != nil {
		return err
	}
	p.flagReferences()
	if err := check(); err != nil || !p.associated {
		return err
	}
	if known == nil {
		known = unknown
	}
	if err := p.group.expandAll(p.Applied, known); err != nil {
		return err
	}
	return p.contradicted(check())
}

// contradicted turns ErrInvalid into ErrUnresolvable where the judgement rests
// on an association: a commit that does not fit the tree to which the answer
// leads may fit what its members were told.
func (p *Provisional) contradicted(err error) error {
	var refusal *Error
	if p.associated && errors.As(err, &refusal) && refusal.Class == ErrInvalid {
		return &Error{Class: ErrUnresolvable, Section: refusal.Section, Detail: "with the associations given, " + refusal.Detail}
	}
	return err
}

// acceptsReference says whether a custom proposal by reference is accepted in
// an external commit.
func (reg *Registry) acceptsReference(a *AppliedProposal) bool {
	c := reg.custom(a.Proposal.Type)
	return c != nil && c.AcceptReferences && a.Expansion != nil
}

// flagReferences notes custom proposals by reference in an external commit.
func (p *Provisional) flagReferences() {
	if p.External && slices.ContainsFunc(p.Applied, func(a AppliedProposal) bool { return a.Ref != nil && a.Expansion != nil }) {
		p.flags.add(FlagReferenceInExternalCommit)
	}
}

// each does a thing to each leaf until one fails.
func each(leaves []LeafIndex, do func(LeafIndex) error) error {
	for _, leaf := range leaves {
		if err := do(leaf); err != nil {
			return err
		}
	}
	return nil
}
