package mlscore

import (
	"fmt"

	"leavebroker/mlscore/codec"
)

// ProposalType is the registry number of a proposal type (RFC 9420, Section 17.4).
type ProposalType uint16

// The proposal types of RFC 9420.
const (
	ProposalTypeAdd                    ProposalType = 0x0001
	ProposalTypeUpdate                 ProposalType = 0x0002
	ProposalTypeRemove                 ProposalType = 0x0003
	ProposalTypePSK                    ProposalType = 0x0004
	ProposalTypeReInit                 ProposalType = 0x0005
	ProposalTypeExternalInit           ProposalType = 0x0006
	ProposalTypeGroupContextExtensions ProposalType = 0x0007
)

var proposalTypeNames = [...]string{
	ProposalTypeAdd: "add", ProposalTypeUpdate: "update", ProposalTypeRemove: "remove", ProposalTypePSK: "psk",
	ProposalTypeReInit: "reinit", ProposalTypeExternalInit: "external_init",
	ProposalTypeGroupContextExtensions: "group_context_extensions",
}

func (t ProposalType) String() string {
	if t.isDefault() {
		return proposalTypeNames[t]
	}
	return fmt.Sprintf("proposal_0x%04x", uint16(t))
}

// isDefault says whether every client supports the type, so that Capabilities
// need not list it (RFC 9420, Section 7.2).
func (t ProposalType) isDefault() bool {
	return t >= ProposalTypeAdd && t <= ProposalTypeGroupContextExtensions
}

// is says whether the type is that of a code point in use.
func (t ProposalType) is(point ProposalType) bool { return point != 0 && t == point }

// CustomProposal tells how to read a proposal type that this package does not
// know.
type CustomProposal struct {
	Type ProposalType
	// Read moves the reader over one body.
	Read func(*codec.Reader)
	// Expand judges a body against a group's current epoch and gives the Removes
	// that it stands for; its errors wrap ErrMalformed or ErrInvalid. Without it
	// a commit of the type is ErrUnresolvable. Members and external senders may
	// send such proposals, and an external commit may contain them by value.
	Expand func(g *PublicGroup, body []byte) (Expansion, error)
	// AcceptReferences accepts them by reference too in external commits, and
	// flags that, as some stacks do against RFC 9420, Section 12.4.3.2.
	AcceptReferences bool
}

// Proposal is a change to the group (RFC 9420, Section 12.1):
//
//	struct {
//	  ProposalType proposal_type;
//	  select (Proposal.proposal_type) {
//	    case add:                      KeyPackage key_package;
//	    case update:                   LeafNode leaf_node;
//	    case remove:                   uint32 removed;
//	    case psk:                      PreSharedKeyID psk;
//	    case reinit:                   ReInit;
//	    case external_init:            opaque kem_output<V>;
//	    case group_context_extensions: Extension extensions<V>;
//	    case self_remove:              struct {};  // draft-ietf-mls-extensions
//	    case replace:                  Replace;    // draft-barnes-mls-replace
//	  };
//	} Proposal;
//
//	struct {
//	  uint32 replaced;  // "removed" and "to_replace" too in the draft's text
//	  LeafNode leaf_node;
//	} Replace;
//
// The type tells which field is set; the body of any other type is in Body.
type Proposal struct {
	Type         ProposalType
	KeyPackage   *KeyPackage // add
	LeafNode     *LeafNode   // update, and the new leaf of replace
	Removed      LeafIndex   // remove
	PSK          PreSharedKeyID
	ReInit       ReInit
	KEMOutput    []byte     // external_init
	Extensions   Extensions // group_context_extensions
	Replaced     LeafIndex  // replace
	Body         []byte     // any type not listed above, as received
	raw          []byte
	isSelfRemove bool
	isReplace    bool
}

// IsSelfRemove says whether the type has the registry's self_remove code point.
func (p *Proposal) IsSelfRemove() bool { return p.isSelfRemove }

// IsReplace says whether the type has the registry's replace code point.
func (p *Proposal) IsReplace() bool { return p.isReplace }

// NewSelfRemove is a SelfRemove proposal under the registry's code point.
func NewSelfRemove(reg *Registry) *Proposal {
	return &Proposal{Type: reg.SelfRemove, isSelfRemove: true}
}

// NewReplace is a Replace proposal under the registry's code point.
func NewReplace(reg *Registry, replaced LeafIndex, leaf *LeafNode) *Proposal {
	return &Proposal{Type: reg.Replace, Replaced: replaced, LeafNode: leaf, isReplace: true}
}

// ReadProposal reads a proposal by the code points of a registry.
func ReadProposal(r *codec.Reader, reg *Registry) *Proposal {
	start := r.Offset()
	p := &Proposal{Type: ProposalType(r.Uint16())}
	switch {
	case r.Err() != nil:
	case p.Type.isDefault():
		p.readDefault(r)
	case p.Type.is(reg.SelfRemove):
		p.isSelfRemove = true
	case p.Type.is(reg.Replace):
		p.isReplace = true
		p.Replaced = LeafIndex(r.Uint32())
		p.LeafNode = ReadLeafNode(r)
	default:
		body := r.Offset()
		reg.skipBody(r, p.Type)
		p.Body = r.Since(body)
	}
	p.raw = r.Since(start)
	return p
}

// skipBody moves over the body of a proposal that is kept as bytes:
//
//	struct {
//	  ComponentID component_id;          // uint16
//	  AppDataUpdateOperation op;         // uint8: update(1), remove(2)
//	  select (AppDataUpdate.op) {
//	    case update: opaque update<V>;
//	    case remove: struct{};
//	  };
//	} AppDataUpdate;
//
//	struct {
//	  ComponentID component_id;
//	  opaque data<V>;
//	} AppEphemeral;
//
// both of draft-ietf-mls-extensions, a body that the registry reads, or, of a
// type that nobody here knows, one opaque<V>.
func (reg *Registry) skipBody(r *codec.Reader, t ProposalType) {
	custom := reg.custom(t)
	switch {
	case t.is(reg.AppDataUpdate):
		r.Uint16()
		switch op := r.Uint8(); op {
		case 1: // update
			r.Opaque()
		case 2: // remove
		default:
			r.Fail("AppDataUpdateOperation %d", op)
		}
	case t.is(reg.AppEphemeral):
		r.Uint16()
		r.Opaque()
	case custom != nil:
		custom.Read(r)
	default:
		r.Opaque()
	}
}

func (p *Proposal) readDefault(r *codec.Reader) {
	switch p.Type {
	case ProposalTypeAdd:
		p.KeyPackage = ReadKeyPackage(r)
	case ProposalTypeUpdate:
		p.LeafNode = ReadLeafNode(r)
	case ProposalTypeRemove:
		p.Removed = LeafIndex(r.Uint32())
	case ProposalTypePSK:
		p.PSK = ReadPreSharedKeyID(r)
	case ProposalTypeReInit:
		p.ReInit = ReInit{
			GroupID: r.Opaque(), Version: ProtocolVersion(r.Uint16()),
			CipherSuite: CipherSuite(r.Uint16()), Extensions: ReadExtensions(r),
		}
	case ProposalTypeExternalInit:
		p.KEMOutput = r.Opaque()
	case ProposalTypeGroupContextExtensions:
		p.Extensions = ReadExtensions(r)
	}
}

// Append appends the encoding of the fields.
func (p *Proposal) Append(b []byte) []byte {
	b = codec.AppendUint16(b, uint16(p.Type))
	switch {
	case p.Type == ProposalTypeAdd:
		return append(b, p.KeyPackage.Bytes()...)
	case p.Type == ProposalTypeUpdate:
		return append(b, p.LeafNode.Bytes()...)
	case p.Type == ProposalTypeRemove:
		return codec.AppendUint32(b, uint32(p.Removed))
	case p.Type == ProposalTypePSK:
		return p.PSK.Append(b)
	case p.Type == ProposalTypeReInit:
		b = codec.AppendOpaque(b, p.ReInit.GroupID)
		b = codec.AppendUint16(b, uint16(p.ReInit.Version))
		b = codec.AppendUint16(b, uint16(p.ReInit.CipherSuite))
		return p.ReInit.Extensions.Append(b)
	case p.Type == ProposalTypeExternalInit:
		return codec.AppendOpaque(b, p.KEMOutput)
	case p.Type == ProposalTypeGroupContextExtensions:
		return p.Extensions.Append(b)
	case p.isReplace:
		b = codec.AppendUint32(b, uint32(p.Replaced))
		return append(b, p.LeafNode.Bytes()...)
	}
	return append(b, p.Body...)
}

// Bytes is the encoding: as received, if it was.
func (p *Proposal) Bytes() []byte {
	if p.raw != nil {
		return p.raw
	}
	return p.Append(nil)
}

// PSKType is the kind of a pre-shared key (RFC 9420, Section 8.4).
type PSKType uint8

// ResumptionPSKUsage is what a resumption PSK is for (RFC 9420, Section 8.4).
type ResumptionPSKUsage uint8

// The kinds and usages of pre-shared keys.
const (
	PSKTypeExternal   PSKType = 1
	PSKTypeResumption PSKType = 2

	ResumptionPSKUsageApplication ResumptionPSKUsage = 1
	ResumptionPSKUsageReInit      ResumptionPSKUsage = 2
	ResumptionPSKUsageBranch      ResumptionPSKUsage = 3
)

// PreSharedKeyID names a pre-shared key (RFC 9420, Section 8.4):
//
//	struct {
//	  PSKType psktype;
//	  select (PreSharedKeyID.psktype) {
//	    case external:   opaque psk_id<V>;
//	    case resumption: ResumptionPSKUsage usage; opaque psk_group_id<V>; uint64 psk_epoch;
//	  };
//	  opaque psk_nonce<V>;
//	} PreSharedKeyID;
type PreSharedKeyID struct {
	Type    PSKType
	ID      []byte             // external
	Usage   ResumptionPSKUsage // resumption
	GroupID []byte             // resumption
	Epoch   uint64             // resumption
	Nonce   []byte             // Nh bytes
}

// ReadPreSharedKeyID reads a pre-shared key identifier.
func ReadPreSharedKeyID(r *codec.Reader) PreSharedKeyID {
	id := PreSharedKeyID{Type: PSKType(r.Uint8())}
	switch id.Type {
	case PSKTypeExternal:
		id.ID = r.Opaque()
	case PSKTypeResumption:
		id.Usage = ResumptionPSKUsage(r.Uint8())
		if id.Usage < ResumptionPSKUsageApplication || id.Usage > ResumptionPSKUsageBranch {
			r.Fail("resumption PSK usage %d", id.Usage)
		}
		id.GroupID = r.Opaque()
		id.Epoch = r.Uint64()
	default:
		r.Fail("psktype %d", id.Type)
	}
	id.Nonce = r.Opaque()
	return id
}

// Append appends the encoding.
func (id *PreSharedKeyID) Append(b []byte) []byte {
	b = append(b, byte(id.Type))
	if id.Type == PSKTypeExternal {
		b = codec.AppendOpaque(b, id.ID)
	} else {
		b = append(b, byte(id.Usage))
		b = codec.AppendOpaque(b, id.GroupID)
		b = codec.AppendUint64(b, id.Epoch)
	}
	return codec.AppendOpaque(b, id.Nonce)
}

// ReInit proposes a group that takes the place of this one (RFC 9420, Section 12.1.5):
//
//	struct {
//	  opaque group_id<V>;
//	  ProtocolVersion version;
//	  CipherSuite cipher_suite;
//	  Extension extensions<V>;
//	} ReInit;
type ReInit struct {
	GroupID     []byte
	Version     ProtocolVersion
	CipherSuite CipherSuite
	Extensions  Extensions
}
