package main

import (
	"context"
	"slices"

	"leavebroker/mlscore"
	"leavebroker/mlscore/codec"
	"leavebroker/mlscore/interop/mlsclient/pb"
	"leavebroker/mlscore/member"
)

func (s *server) NewMemberAddProposal(_ context.Context, req *pb.NewMemberAddProposalRequest) (*pb.NewMemberAddProposalResponse, error) {
	g, err := publicGroup(req.GroupInfo, nil)
	if err != nil {
		return nil, err
	}
	p, err := newParty(g.Suite().ID, req.Identity, false)
	if err != nil {
		return nil, err
	}
	t, err := p.newTransaction()
	if err != nil {
		return nil, err
	}
	initKey, encryptionKey, err := t.keyPackage.PrivateKeys()
	if err != nil {
		return nil, err
	}
	proposal, err := mlscore.NewMemberAdd(g, p.client.Signer, t.keyPackage.KeyPackage)
	if err != nil {
		return nil, err
	}
	return &pb.NewMemberAddProposalResponse{
		TransactionId: s.begin(t), Proposal: proposal,
		InitPriv: initKey, EncryptionPriv: encryptionKey, SignaturePriv: p.private,
	}, nil
}

func (s *server) CreateExternalSigner(_ context.Context, req *pb.CreateExternalSignerRequest) (*pb.CreateExternalSignerResponse, error) {
	suite, err := cipherSuite(req.CipherSuite)
	if err != nil {
		return nil, err
	}
	signer, _, err := newSigner(suite)
	if err != nil {
		return nil, err
	}
	id := s.next()
	s.signers[id] = signer
	sender := mlscore.ExternalSender{SignatureKey: signer.PublicKey(), Credential: mlscore.BasicCredential(req.Identity)}
	return &pb.CreateExternalSignerResponse{SignerId: id, ExternalSender: sender.Append(nil)}, nil
}

// AddExternalSigner proposes the group's extensions with one external sender
// more.
func (s *server) AddExternalSigner(_ context.Context, req *pb.AddExternalSignerRequest) (*pb.ProposalResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, err
	}
	r := codec.NewReader(req.ExternalSender)
	sender := mlscore.ReadExternalSender(r)
	if err := r.Finish(); err != nil {
		return nil, err
	}
	g := st.group.Public()
	senders := append(slices.Clone(g.ExternalSenders()), sender)
	x := g.Context().Extensions.With(mlscore.ExtensionTypeExternalSenders, mlscore.AppendExternalSenders(nil, senders))
	message, err := st.group.Propose(member.GroupContextExtensions(x))
	return st.proposed(message, err)
}

// ExternalSignerProposal signs as the broker does. The signer_index is not
// looked at: the runner does not set it, and the key is in external_senders.
func (s *server) ExternalSignerProposal(_ context.Context, req *pb.ExternalSignerProposalRequest) (*pb.ProposalResponse, error) {
	signer, err := find(s.signers, req.SignerId, "signer")
	if err != nil {
		return nil, err
	}
	g, err := publicGroup(req.GroupInfo, given(req.RatchetTree))
	if err != nil {
		return nil, err
	}
	p, err := describe(req.Description, g)
	if err != nil {
		return nil, err
	}
	proposal, err := mlscore.ExternalProposal(g, signer, p)
	return &pb.ProposalResponse{Proposal: proposal}, err
}

// publicGroup verifies a GroupInfo.
func publicGroup(groupInfo, ratchetTree []byte) (*mlscore.PublicGroup, error) {
	gi, err := parseGroupInfo(groupInfo)
	if err != nil {
		return nil, err
	}
	return mlscore.NewPublicGroup(gi, ratchetTree, mlscore.Options{})
}
