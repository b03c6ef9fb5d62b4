package main

import (
	"context"
	"crypto/rand"

	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/mlsclient/pb"
	"leavebroker/mlscore/member"
)

// propose lets a member propose what a description says.
func (s *server) propose(id uint32, d *pb.ProposalDescription) (*pb.ProposalResponse, error) {
	st, err := s.state(id)
	if err != nil {
		return nil, err
	}
	p, err := describe(d, st.group.Public())
	if err != nil {
		return nil, err
	}
	message, err := st.group.Propose(p)
	return st.proposed(message, err)
}

// proposed remembers an own proposal, the latest of the epoch: its
// PrivateMessage could not be read again.
func (st *state) proposed(message []byte, err error) (*pb.ProposalResponse, error) {
	if err != nil {
		return nil, err
	}
	for p := range st.group.Public().Proposals() {
		st.refs[string(message)] = p.Ref
	}
	return &pb.ProposalResponse{Proposal: message}, nil
}

func (s *server) AddProposal(_ context.Context, req *pb.AddProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(req.StateId, &pb.ProposalDescription{ProposalType: []byte("add"), KeyPackage: req.KeyPackage})
}

func (s *server) UpdateProposal(_ context.Context, req *pb.UpdateProposalRequest) (*pb.ProposalResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, err
	}
	message, err := st.group.ProposeUpdate(nil)
	return st.proposed(message, err)
}

func (s *server) RemoveProposal(_ context.Context, req *pb.RemoveProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(req.StateId, &pb.ProposalDescription{ProposalType: []byte("remove"), RemovedId: req.RemovedId})
}

func (s *server) ExternalPSKProposal(_ context.Context, req *pb.ExternalPSKProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(req.StateId, &pb.ProposalDescription{ProposalType: []byte("externalPSK"), PskId: req.PskId})
}

func (s *server) ResumptionPSKProposal(_ context.Context, req *pb.ResumptionPSKProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(req.StateId, &pb.ProposalDescription{ProposalType: []byte("resumptionPSK"), EpochId: req.EpochId})
}

func (s *server) GroupContextExtensionsProposal(_ context.Context, req *pb.GroupContextExtensionsProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(req.StateId, &pb.ProposalDescription{ProposalType: []byte("groupContextExtensions"), Extensions: req.Extensions})
}

func (s *server) ReInitProposal(_ context.Context, req *pb.ReInitProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(req.StateId, &pb.ProposalDescription{
		ProposalType: []byte("reinit"), GroupId: req.GroupId, CipherSuite: req.CipherSuite, Extensions: req.Extensions,
	})
}

// describe makes the proposal for a group that a description says.
func describe(d *pb.ProposalDescription, g *mlscore.PublicGroup) (*mlscore.Proposal, error) {
	switch t := string(d.GetProposalType()); t {
	case "add":
		k, err := parseKeyPackage(d.KeyPackage)
		return member.Add(k), err
	case "remove":
		leaf, err := leafOf(g.Tree().All(), d.RemovedId)
		return member.Remove(leaf), err
	case "externalPSK":
		return psk(g, mlscore.PreSharedKeyID{Type: mlscore.PSKTypeExternal, ID: d.PskId}), nil
	case "resumptionPSK":
		return psk(g, mlscore.PreSharedKeyID{
			Type: mlscore.PSKTypeResumption, Usage: mlscore.ResumptionPSKUsageApplication, GroupID: g.GroupID(), Epoch: d.EpochId,
		}), nil
	case "groupContextExtensions":
		x, err := extensions(d.Extensions)
		return member.GroupContextExtensions(x), err
	case "reinit":
		return reInit(d)
	default:
		return nil, invalid("proposal type %q", t)
	}
}

// psk is a PreSharedKey proposal with a fresh nonce.
func psk(g *mlscore.PublicGroup, id mlscore.PreSharedKeyID) *mlscore.Proposal {
	id.Nonce = make([]byte, g.Suite().HashLen())
	rand.Read(id.Nonce)
	return &mlscore.Proposal{Type: mlscore.ProposalTypePSK, PSK: id}
}

func reInit(d *pb.ProposalDescription) (*mlscore.Proposal, error) {
	suite, err := cipherSuite(d.CipherSuite)
	if err != nil {
		return nil, err
	}
	x, err := extensions(d.Extensions)
	return member.ReInit(mlscore.ReInit{
		GroupID: d.GroupId, Version: mlscore.ProtocolVersionMLS10, CipherSuite: suite, Extensions: x,
	}), err
}

func extensions(list []*pb.Extension) (x mlscore.Extensions, err error) {
	for _, e := range list {
		if e.ExtensionType > 0xffff {
			return nil, invalid("extension type %d", e.ExtensionType)
		}
		x = append(x, mlscore.Extension{Type: mlscore.ExtensionType(e.ExtensionType), Data: e.ExtensionData})
	}
	return x, nil
}

func parseKeyPackage(b []byte) (*mlscore.KeyPackage, error) {
	m, err := mlscore.ParseMLSMessage(b, nil)
	if err != nil {
		return nil, err
	}
	if m.KeyPackage == nil {
		return nil, invalid("wire_format %d is no key package", m.WireFormat)
	}
	return m.KeyPackage, nil
}
