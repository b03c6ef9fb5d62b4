package main

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"leavebroker/mlscore/interop/mlsclient/pb"
	"leavebroker/mlscore/member"
)

func (s *server) HandlePendingReInitCommit(_ context.Context, req *pb.HandlePendingCommitRequest) (*pb.HandleReInitCommitResponse, error) {
	st, resp, err := s.handlePending(req)
	if err != nil {
		return nil, err
	}
	return s.closed(st, resp.EpochAuthenticator)
}

func (s *server) HandleReInitCommit(_ context.Context, req *pb.HandleCommitRequest) (*pb.HandleReInitCommitResponse, error) {
	st, resp, err := s.handleCommit(req)
	if err != nil {
		return nil, err
	}
	return s.closed(st, resp.EpochAuthenticator)
}

// closed makes a key package for the group after a closed one, with a new
// signature key, since the cipher suite may be another.
func (s *server) closed(st *state, epochAuthenticator []byte) (*pb.HandleReInitCommitResponse, error) {
	r := st.group.ReInit()
	if r == nil {
		return nil, status.Error(codes.InvalidArgument, "the commit contains no ReInit")
	}
	old := st.client
	p, err := newParty(r.CipherSuite, old.Credential.Identity, old.EncryptHandshakes)
	if err != nil {
		return nil, err
	}
	t, err := p.newTransaction()
	if err != nil {
		return nil, err
	}
	id := s.next()
	s.successors[id] = &successor{t, st.group}
	return &pb.HandleReInitCommitResponse{ReinitId: id, KeyPackage: t.keyPackage.Message(), EpochAuthenticator: epochAuthenticator}, nil
}

func (s *server) ReInitWelcome(_ context.Context, req *pb.ReInitWelcomeRequest) (*pb.CreateSubgroupResponse, error) {
	next, err := find(s.successors, req.ReinitId, "reinit")
	if err != nil {
		return nil, err
	}
	opts, err := subgroup(req.KeyPackage, req.ForcePath, req.ExternalTree)
	if err != nil {
		return nil, err
	}
	g, commit, err := next.old.Successor(next.client, lifetime(), opts)
	if err != nil {
		return nil, err
	}
	delete(s.successors, req.ReinitId)
	return s.created(next.party, g, commit, req.ExternalTree), nil
}

func (s *server) HandleReInitWelcome(_ context.Context, req *pb.HandleReInitWelcomeRequest) (*pb.JoinGroupResponse, error) {
	next, err := find(s.successors, req.ReinitId, "reinit")
	if err != nil {
		return nil, err
	}
	g, err := next.keyPackage.JoinSuccessor(next.old, req.Welcome, given(req.RatchetTree))
	if err != nil {
		return nil, err
	}
	delete(s.successors, req.ReinitId)
	return &pb.JoinGroupResponse{StateId: s.keep(next.party, g), EpochAuthenticator: g.EpochAuthenticator()}, nil
}

func (s *server) CreateBranch(_ context.Context, req *pb.CreateBranchRequest) (*pb.CreateSubgroupResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, err
	}
	x, err := extensions(req.Extensions)
	if err != nil {
		return nil, err
	}
	opts, err := subgroup(req.KeyPackages, req.ForcePath, req.ExternalTree)
	if err != nil {
		return nil, err
	}
	g, commit, err := st.group.Branch(req.GroupId, x, lifetime(), opts)
	if err != nil {
		return nil, err
	}
	return s.created(st.party, g, commit, req.ExternalTree), nil
}

func (s *server) HandleBranch(_ context.Context, req *pb.HandleBranchRequest) (*pb.HandleBranchResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, err
	}
	t, err := find(s.transactions, req.TransactionId, "transaction")
	if err != nil {
		return nil, err
	}
	t.client.EncryptHandshakes = st.client.EncryptHandshakes
	g, err := t.keyPackage.JoinBranch(st.group, req.Welcome, given(req.RatchetTree))
	if err != nil {
		return nil, err
	}
	delete(s.transactions, req.TransactionId)
	return &pb.HandleBranchResponse{StateId: s.keep(t.party, g), EpochAuthenticator: g.EpochAuthenticator()}, nil
}

// subgroup are the options of the first commit of a group that continues
// another.
func subgroup(keyPackages [][]byte, forcePath, externalTree bool) (member.CommitOptions, error) {
	opts := member.CommitOptions{OmitPath: !forcePath, OmitRatchetTree: externalTree}
	for _, b := range keyPackages {
		k, err := parseKeyPackage(b)
		if err != nil {
			return opts, err
		}
		opts.Proposals = append(opts.Proposals, member.Add(k))
	}
	return opts, nil
}

// created keeps a group that continues another.
func (s *server) created(p *party, g *member.Group, commit *member.Commit, externalTree bool) *pb.CreateSubgroupResponse {
	resp := &pb.CreateSubgroupResponse{StateId: s.keep(p, g), Welcome: commit.Welcome, EpochAuthenticator: g.EpochAuthenticator()}
	if externalTree {
		resp.RatchetTree = g.RatchetTree()
	}
	return resp
}
