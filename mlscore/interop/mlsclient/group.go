package main

import (
	"context"
	"iter"

	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/mlsclient/pb"
	"leavebroker/mlscore/member"
)

func (s *server) Name(context.Context, *pb.NameRequest) (*pb.NameResponse, error) {
	return &pb.NameResponse{Name: "leavebroker"}, nil
}

func (s *server) SupportedCiphersuites(context.Context, *pb.SupportedCiphersuitesRequest) (*pb.SupportedCiphersuitesResponse, error) {
	resp := new(pb.SupportedCiphersuitesResponse)
	for _, id := range mlscore.Suites() {
		resp.Ciphersuites = append(resp.Ciphersuites, uint32(id))
	}
	return resp, nil
}

func (s *server) CreateGroup(_ context.Context, req *pb.CreateGroupRequest) (*pb.CreateGroupResponse, error) {
	suite, err := cipherSuite(req.CipherSuite)
	if err != nil {
		return nil, err
	}
	p, err := newParty(suite, req.Identity, req.EncryptHandshake)
	if err != nil {
		return nil, err
	}
	g, err := p.client.Create(req.GroupId, nil, lifetime())
	if err != nil {
		return nil, err
	}
	return &pb.CreateGroupResponse{StateId: s.keep(p, g)}, nil
}

func (s *server) CreateKeyPackage(_ context.Context, req *pb.CreateKeyPackageRequest) (*pb.CreateKeyPackageResponse, error) {
	suite, err := cipherSuite(req.CipherSuite)
	if err != nil {
		return nil, err
	}
	p, err := newParty(suite, req.Identity, false)
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
	return &pb.CreateKeyPackageResponse{
		TransactionId: s.begin(t), KeyPackage: t.keyPackage.Message(),
		InitPriv: initKey, EncryptionPriv: encryptionKey, SignaturePriv: p.private,
	}, nil
}

// begin gives a key package a number.
func (s *server) begin(t *transaction) uint32 {
	id := s.next()
	s.transactions[id] = t
	return id
}

func (s *server) JoinGroup(_ context.Context, req *pb.JoinGroupRequest) (*pb.JoinGroupResponse, error) {
	t, err := find(s.transactions, req.TransactionId, "transaction")
	if err != nil {
		return nil, err
	}
	t.client.EncryptHandshakes = req.EncryptHandshake
	g, err := t.keyPackage.Join(req.Welcome, given(req.RatchetTree))
	if err != nil {
		return nil, err
	}
	delete(s.transactions, req.TransactionId)
	return &pb.JoinGroupResponse{StateId: s.keep(t.party, g), EpochAuthenticator: g.EpochAuthenticator()}, nil
}

func (s *server) ExternalJoin(_ context.Context, req *pb.ExternalJoinRequest) (*pb.ExternalJoinResponse, error) {
	gi, err := parseGroupInfo(req.GroupInfo)
	if err != nil {
		return nil, err
	}
	p, err := newParty(gi.GroupContext.CipherSuite, req.Identity, req.EncryptHandshake)
	if err != nil {
		return nil, err
	}
	opts := member.ExternalJoinOptions{RatchetTree: given(req.RatchetTree)}
	if req.RemovePrior {
		prior, err := priorLeaf(gi, opts.RatchetTree, req.Identity)
		if err != nil {
			return nil, err
		}
		opts.Proposals = append(opts.Proposals, member.Remove(prior))
	}
	for _, k := range req.Psks {
		p.psks[string(k.PskId)] = k.PskSecret
		proposal, err := p.client.ExternalPSK(k.PskId)
		if err != nil {
			return nil, err
		}
		opts.Proposals = append(opts.Proposals, proposal)
	}
	g, commit, err := p.client.JoinExternal(req.GroupInfo, opts)
	if err != nil {
		return nil, err
	}
	return &pb.ExternalJoinResponse{StateId: s.keep(p, g), Commit: commit.Message, EpochAuthenticator: g.EpochAuthenticator()}, nil
}

// priorLeaf finds the leaf that an identity has in the group of a GroupInfo.
func priorLeaf(gi *mlscore.GroupInfo, ratchetTree, identity []byte) (mlscore.LeafIndex, error) {
	g, err := mlscore.NewPublicGroup(gi, ratchetTree, mlscore.Options{})
	if err != nil {
		return 0, err
	}
	return leafOf(g.Tree().All(), identity)
}

// leafOf finds the member that has an identity.
func leafOf(members iter.Seq2[mlscore.LeafIndex, *mlscore.LeafNode], identity []byte) (mlscore.LeafIndex, error) {
	for i, leaf := range members {
		if leaf.Credential.Type == mlscore.CredentialTypeBasic && string(leaf.Credential.Identity) == string(identity) {
			return i, nil
		}
	}
	return 0, invalid("no member %q", identity)
}

func (s *server) GroupInfo(_ context.Context, req *pb.GroupInfoRequest) (*pb.GroupInfoResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, err
	}
	if !req.ExternalTree {
		info, err := st.group.GroupInfo()
		return &pb.GroupInfoResponse{GroupInfo: info}, err
	}
	info, err := st.group.GroupInfoWithoutTree()
	return &pb.GroupInfoResponse{GroupInfo: info, RatchetTree: st.group.RatchetTree()}, err
}

func (s *server) StateAuth(_ context.Context, req *pb.StateAuthRequest) (*pb.StateAuthResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, err
	}
	return &pb.StateAuthResponse{StateAuthSecret: st.group.EpochAuthenticator()}, nil
}

func (s *server) Export(_ context.Context, req *pb.ExportRequest) (*pb.ExportResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, err
	}
	secret, err := st.group.Export(req.Label, req.Context, int(req.KeyLength))
	return &pb.ExportResponse{ExportedSecret: secret}, err
}

func (s *server) Protect(_ context.Context, req *pb.ProtectRequest) (*pb.ProtectResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, err
	}
	ciphertext, err := st.group.Encrypt(req.Plaintext, req.AuthenticatedData)
	return &pb.ProtectResponse{Ciphertext: ciphertext}, err
}

func (s *server) Unprotect(_ context.Context, req *pb.UnprotectRequest) (*pb.UnprotectResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, err
	}
	received, err := st.process(req.Ciphertext, mlscore.ContentTypeApplication)
	if err != nil {
		return nil, err
	}
	return &pb.UnprotectResponse{AuthenticatedData: received.AuthenticatedData, Plaintext: received.ApplicationData}, nil
}

func (s *server) StorePSK(_ context.Context, req *pb.StorePSKRequest) (*pb.StorePSKResponse, error) {
	if st, ok := s.states[req.StateOrTransactionId]; ok {
		st.psks[string(req.PskId)] = req.PskSecret
		return new(pb.StorePSKResponse), nil
	}
	t, err := find(s.transactions, req.StateOrTransactionId, "state or transaction")
	if err != nil {
		return nil, err
	}
	t.psks[string(req.PskId)] = req.PskSecret
	return new(pb.StorePSKResponse), nil
}

func (s *server) Free(_ context.Context, req *pb.FreeRequest) (*pb.FreeResponse, error) {
	_, err := s.state(req.StateId)
	delete(s.states, req.StateId)
	return new(pb.FreeResponse), err
}

// process lets a member process a message that has to carry content of a type.
func (st *state) process(message []byte, want mlscore.ContentType) (*member.Received, error) {
	m, err := mlscore.ParseMLSMessage(message, nil)
	if err != nil {
		return nil, err
	}
	var is mlscore.ContentType
	switch {
	case m.PublicMessage != nil:
		is = m.PublicMessage.Content.ContentType
	case m.PrivateMessage != nil:
		is = m.PrivateMessage.ContentType
	}
	if is != want {
		return nil, invalid("a message of wire_format %d and content_type %d, want content_type %d", m.WireFormat, is, want)
	}
	return st.group.Process(message)
}

// given is nil for what protobuf cannot tell from absence.
func given(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

func cipherSuite(n uint32) (mlscore.CipherSuite, error) {
	if n > 0xffff {
		return 0, invalid("cipher suite %d", n)
	}
	return mlscore.CipherSuite(n), nil
}

func parseGroupInfo(b []byte) (*mlscore.GroupInfo, error) {
	m, err := mlscore.ParseMLSMessage(b, nil)
	if err != nil {
		return nil, err
	}
	if m.GroupInfo == nil {
		return nil, invalid("wire_format %d is no GroupInfo", m.WireFormat)
	}
	return m.GroupInfo, nil
}
