package intents

import (
	"errors"
	"fmt"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
)

// The code points used where a deployment configures none. The draft leaves
// both values to IANA; these are of the private-use ranges (RFC 9420, Section 17).
const (
	DefaultProposalType mlscore.ProposalType = 0xf0a1
	DefaultWireFormat   mlscore.WireFormat   = 0xf0a1
)

// Body is how the body of a LeafOperationProposal is written.
type Body uint8

const (
	// BodyRaw is the body as drafted: the intent, and nothing around it.
	BodyRaw Body = iota
	// BodyOpaque wraps the intent in opaque<V>, as the stacks do that admit
	// proposal types of an application.
	BodyOpaque
)

func (b Body) String() string {
	if b == BodyOpaque {
		return "opaque"
	}
	return "raw"
}

// ParseBody gives the body of a name: raw or opaque.
func ParseBody(name string) (Body, error) {
	for _, b := range []Body{BodyRaw, BodyOpaque} {
		if name == b.String() {
			return b, nil
		}
	}
	return 0, fmt.Errorf("proposal body %q is neither raw nor opaque", name)
}

// CodePoints are the values that a deployment gives to what the draft leaves
// open.
type CodePoints struct {
	ProposalType mlscore.ProposalType
	WireFormat   mlscore.WireFormat
	Body         Body
}

// DefaultCodePoints are the values used where none are configured.
func DefaultCodePoints() CodePoints {
	return CodePoints{ProposalType: DefaultProposalType, WireFormat: DefaultWireFormat, Body: BodyRaw}
}

// CustomProposal is the entry of a registry that lets the core read a
// LeafOperationProposal and expand it into the Removes that it stands for
// (Section 2.4 of the draft).
func (c CodePoints) CustomProposal() mlscore.CustomProposal {
	read := func(r *codec.Reader) { Read(r) }
	if c.Body == BodyOpaque {
		read = func(r *codec.Reader) { r.Opaque() }
	}
	return mlscore.CustomProposal{Type: c.ProposalType, Read: read, Expand: c.expand}
}

// expand makes the checks of Section 2.3 on the intent in a body.
func (c CodePoints) expand(g *mlscore.PublicGroup, body []byte) (mlscore.Expansion, error) {
	p, err := c.ParseProposal(body)
	if err == nil {
		err = p.Intent.Verify(g.Suite(), g.GroupID(), g.Tree().Leaf)
	}
	if err != nil {
		return mlscore.Expansion{}, &proposalError{err}
	}
	return mlscore.Expansion{Sender: p.Intent.SenderIndex, Associated: p.Intent.RemovalMode == RemoveAssociatedMembers}, nil
}

// proposalError refuses a LeafOperationProposal for what is wrong with its
// intent: ErrMalformed as such, anything else as mlscore.ErrInvalid too.
type proposalError struct{ err error }

func (e *proposalError) Error() string {
	return fmt.Sprintf("%v: leaf operation proposal: %v", e.class(), e.err)
}

func (e *proposalError) Unwrap() []error { return []error{e.class(), e.err} }

func (e *proposalError) class() error {
	if errors.Is(e.err, ErrMalformed) {
		return ErrMalformed
	}
	return mlscore.ErrInvalid
}

// LeafOperationProposal proposes what an intent wishes (Section 2 of the draft):
//
//	struct {
//	  LeafOperationIntent intent;
//	} LeafOperationProposal;
type LeafOperationProposal struct {
	Intent *LeafOperationIntent
}

// ParseProposal decodes the body of a LeafOperationProposal, or ErrMalformed.
func (c CodePoints) ParseProposal(body []byte) (*LeafOperationProposal, error) {
	if c.Body == BodyOpaque {
		r := codec.NewReader(body)
		body = r.Opaque()
		if err := r.Finish(); err != nil {
			return nil, fmt.Errorf("leaf operation proposal: %w", err)
		}
	}
	in, err := Parse(body)
	if err != nil {
		return nil, err
	}
	return &LeafOperationProposal{Intent: in}, nil
}

// Proposal is the MLS proposal of an intent under the code points.
func (c CodePoints) Proposal(p *LeafOperationProposal) *mlscore.Proposal {
	body := p.Intent.Bytes()
	if c.Body == BodyOpaque {
		body = codec.AppendOpaque(nil, body)
	}
	return &mlscore.Proposal{Type: c.ProposalType, Body: body}
}
