package main

import (
	"context"

	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/mlsclient/pb"
	"leavebroker/mlscore/member"
)

func (s *server) Commit(_ context.Context, req *pb.CommitRequest) (*pb.CommitResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, err
	}
	opts := member.CommitOptions{OmitPath: !req.ForcePath, OmitRatchetTree: req.ExternalTree}
	if opts.References, err = st.references(req.ByReference); err != nil {
		return nil, err
	}
	for _, d := range req.ByValue {
		p, err := describe(d, st.group.Public())
		if err != nil {
			return nil, err
		}
		opts.Proposals = append(opts.Proposals, p)
	}
	commit, err := st.group.Commit(opts)
	if err != nil {
		return nil, err
	}
	resp := &pb.CommitResponse{Commit: commit.Message, Welcome: commit.Welcome}
	if req.ExternalTree {
		resp.RatchetTree = commit.Staged.Next().Tree().Bytes()
	}
	return resp, nil
}

func (s *server) ReInitCommit(ctx context.Context, req *pb.CommitRequest) (*pb.CommitResponse, error) {
	return s.Commit(ctx, req)
}

// references gives the ProposalRefs of proposals, and processes those that the
// member has not seen yet.
func (st *state) references(messages [][]byte) ([][]byte, error) {
	refs := [][]byte{}
	for _, message := range messages {
		ref, known := st.refs[string(message)]
		if !known {
			received, err := st.process(message, mlscore.ContentTypeProposal)
			if err != nil {
				return nil, err
			}
			ref = received.Staged.Proposal.Ref
			st.refs[string(message)] = ref
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

func (s *server) HandleCommit(_ context.Context, req *pb.HandleCommitRequest) (*pb.HandleCommitResponse, error) {
	_, resp, err := s.handleCommit(req)
	return resp, err
}

func (s *server) handleCommit(req *pb.HandleCommitRequest) (*state, *pb.HandleCommitResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, nil, err
	}
	if _, err := st.references(req.Proposal); err != nil {
		return nil, nil, err
	}
	if _, err := st.process(req.Commit, mlscore.ContentTypeCommit); err != nil {
		return nil, nil, err
	}
	return st, st.entered(req.StateId), nil
}

func (s *server) HandlePendingCommit(_ context.Context, req *pb.HandlePendingCommitRequest) (*pb.HandleCommitResponse, error) {
	_, resp, err := s.handlePending(req)
	return resp, err
}

func (s *server) handlePending(req *pb.HandlePendingCommitRequest) (*state, *pb.HandleCommitResponse, error) {
	st, err := s.state(req.StateId)
	if err != nil {
		return nil, nil, err
	}
	if err := st.group.ConfirmCommit(); err != nil {
		return nil, nil, err
	}
	return st, st.entered(req.StateId), nil
}

// entered forgets the proposals of the epoch before. A removed member is in no
// epoch, and has no epoch authenticator to show.
func (st *state) entered(id uint32) *pb.HandleCommitResponse {
	clear(st.refs)
	resp := &pb.HandleCommitResponse{StateId: id}
	if !st.group.Removed() {
		resp.EpochAuthenticator = st.group.EpochAuthenticator()
	}
	return resp
}
