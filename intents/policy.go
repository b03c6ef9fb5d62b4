package intents

import (
	"time"

	"leavebroker/mlscore"
)

// Mode2 is what to do about remove_associated_members.
type Mode2 uint8

// The treatments of remove_associated_members.
const (
	// Mode2Allow removes those whom the Authentication Service associates.
	Mode2Allow Mode2 = iota
	// Mode2Hold asks an operator to approve the removal of others first.
	Mode2Hold
	// Mode2SenderOnly removes the sender alone.
	Mode2SenderOnly
)

// OnError is what to do where the Authentication Service gives no answer.
type OnError uint8

// The treatments of a missing answer.
const (
	// OnErrorHold keeps asking; the intent is held.
	OnErrorHold OnError = iota
	// OnErrorSenderOnly leaves those alone who could not be decided.
	OnErrorSenderOnly
)

// OnReplace is what a Replace of a sender's leaf does to its intent.
type OnReplace uint8

// The treatments of a Replace.
const (
	// OnReplaceSuperseded ends the intent, as any other change of the leaf does.
	OnReplaceSuperseded OnReplace = iota
	// OnReplaceContinue goes on with plain Removes, if the new leaf has the same
	// signature key and was made before the intent was verified.
	OnReplaceContinue
)

// Policy is one tenant's rules. It is not changed while a State uses it; every
// replay of a log needs the same Policy for the same result.
type Policy struct {
	// Tenant is part of the identifier of every intent.
	Tenant string
	// Registry holds the code points; nil is mlscore.DefaultRegistry with the
	// CodePoints' CustomProposal.
	Registry *mlscore.Registry
	// Lifetimes, RequireLeafNodeEpoch and ReplacedSignatureKey are those of
	// mlscore.Options; a group is judged at the time of each entry of its log.
	Lifetimes            mlscore.Policy
	RequireLeafNodeEpoch bool
	ReplacedSignatureKey mlscore.Policy
	// Parallel verifies the leaves of GroupInfos; nil does so one after another.
	Parallel mlscore.Parallel
	// CodePoints are those of the draft, as the Registry has them; the zero value
	// is DefaultCodePoints.
	CodePoints CodePoints
	// SenderKeys are the public keys of our signers.
	SenderKeys [][]byte
	// InfoTrustDS says that the delivery service vouches for GroupInfos:
	// proposals go out before a member's signature proves one.
	InfoTrustDS bool

	// Form is what removals are proposed as.
	Form Form
	// SharedAssociation says that the members ask the same Authentication
	// Service as we. Only then a LeafOperationProposal is made of an intent that
	// removes associated members.
	SharedAssociation bool
	// FallbackEpochs is the number of epochs without progress after which the
	// leaves of an intent are proposed as plain Removes whatever the Form; 0 is
	// never.
	FallbackEpochs int

	// Mode2 is what remove_associated_members does.
	Mode2 Mode2
	// Association says whether an Authentication Service can be asked. If not,
	// remove_associated_members removes the sender alone.
	Association bool
	// OnError tells what happens where it gives no answer.
	OnError OnError
	// MaxAssociated is the number of others that one intent may remove without
	// an operator's approval; 0 is no limit.
	MaxAssociated int
	// MaxFraction is the same as a fraction of the members; 0 is no limit.
	MaxFraction float64

	// OnReplace is what a Replace of the sender's leaf does.
	OnReplace OnReplace

	// ParkTTL is how long an intent may wait to be judged; 0 is for ever.
	ParkTTL time.Duration
	// LagWindow is how long our view of a group may lag behind: an unknown leaf
	// reference is refused that long after it came, and an epoch later.
	LagWindow time.Duration
	// ReceiptTTL is how long ended intents are remembered; 0 is for ever.
	ReceiptTTL time.Duration
	// StalledAfter is the number of epochs that ended without the removal we
	// proposed, after which the intent is reported as stalled; 0 is never.
	StalledAfter int
	// MinEpoch is how old an epoch has to be before we propose in it.
	MinEpoch time.Duration
}

func (p *Policy) registry() *mlscore.Registry {
	if p.Registry == nil {
		reg := mlscore.DefaultRegistry()
		reg.Custom = []mlscore.CustomProposal{p.codePoints().CustomProposal()}
		return reg
	}
	return p.Registry
}

// options are those of a group that is judged at a time.
func (p *Policy) options(at time.Time) mlscore.Options {
	return mlscore.Options{
		Registry: p.registry(), Parallel: p.Parallel, Time: unixTime(at), Lifetimes: p.Lifetimes,
		RequireLeafNodeEpoch: p.RequireLeafNodeEpoch, ReplacedSignatureKey: p.ReplacedSignatureKey,
	}
}

func (p *Policy) codePoints() CodePoints {
	if p.CodePoints == (CodePoints{}) {
		return DefaultCodePoints()
	}
	return p.CodePoints
}

// associates says whether remove_associated_members removes others at all.
func (p *Policy) associates() bool { return p.Association && p.Mode2 != Mode2SenderOnly }
