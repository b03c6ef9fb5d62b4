package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/mlsclient/pb"
)

func newStage(t *testing.T) *stage {
	return &stage{t: t, suite: 1, servers: []pb.MLSClientClient{serve(t)}, actors: make(map[string]*actor)}
}

// refuses checks the code of a call that has to fail.
func refuses(t testing.TB, what string, want codes.Code, err error) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestNothingHasNumberZero(t *testing.T) {
	rpc, ctx := serve(t), context.Background()
	for what, f := range map[string]func() error{
		"JoinGroup":      func() error { _, err := rpc.JoinGroup(ctx, &pb.JoinGroupRequest{}); return err },
		"GroupInfo":      func() error { _, err := rpc.GroupInfo(ctx, &pb.GroupInfoRequest{}); return err },
		"StateAuth":      func() error { _, err := rpc.StateAuth(ctx, &pb.StateAuthRequest{}); return err },
		"Export":         func() error { _, err := rpc.Export(ctx, &pb.ExportRequest{}); return err },
		"Protect":        func() error { _, err := rpc.Protect(ctx, &pb.ProtectRequest{}); return err },
		"Unprotect":      func() error { _, err := rpc.Unprotect(ctx, &pb.UnprotectRequest{}); return err },
		"StorePSK":       func() error { _, err := rpc.StorePSK(ctx, &pb.StorePSKRequest{}); return err },
		"AddProposal":    func() error { _, err := rpc.AddProposal(ctx, &pb.AddProposalRequest{}); return err },
		"UpdateProposal": func() error { _, err := rpc.UpdateProposal(ctx, &pb.UpdateProposalRequest{}); return err },
		"RemoveProposal": func() error { _, err := rpc.RemoveProposal(ctx, &pb.RemoveProposalRequest{}); return err },
		"Commit":         func() error { _, err := rpc.Commit(ctx, &pb.CommitRequest{}); return err },
		"HandleCommit":   func() error { _, err := rpc.HandleCommit(ctx, &pb.HandleCommitRequest{}); return err },
		"ReInitCommit":   func() error { _, err := rpc.ReInitCommit(ctx, &pb.CommitRequest{}); return err },
		"ReInitProposal": func() error { _, err := rpc.ReInitProposal(ctx, &pb.ReInitProposalRequest{}); return err },
		"ReInitWelcome":  func() error { _, err := rpc.ReInitWelcome(ctx, &pb.ReInitWelcomeRequest{}); return err },
		"CreateBranch":   func() error { _, err := rpc.CreateBranch(ctx, &pb.CreateBranchRequest{}); return err },
		"HandleBranch":   func() error { _, err := rpc.HandleBranch(ctx, &pb.HandleBranchRequest{}); return err },
		"AddExternalSigner": func() error {
			_, err := rpc.AddExternalSigner(ctx, &pb.AddExternalSignerRequest{})
			return err
		},
		"HandlePendingCommit": func() error {
			_, err := rpc.HandlePendingCommit(ctx, &pb.HandlePendingCommitRequest{})
			return err
		},
		"HandleReInitCommit": func() error {
			_, err := rpc.HandleReInitCommit(ctx, &pb.HandleCommitRequest{})
			return err
		},
		"HandlePendingReInitCommit": func() error {
			_, err := rpc.HandlePendingReInitCommit(ctx, &pb.HandlePendingCommitRequest{})
			return err
		},
		"HandleReInitWelcome": func() error {
			_, err := rpc.HandleReInitWelcome(ctx, &pb.HandleReInitWelcomeRequest{})
			return err
		},
		"ExternalSignerProposal": func() error {
			_, err := rpc.ExternalSignerProposal(ctx, &pb.ExternalSignerProposalRequest{})
			return err
		},
		"Free": func() error { _, err := rpc.Free(ctx, &pb.FreeRequest{}); return err },
	} {
		refuses(t, what, codes.NotFound, f())
	}
}

func TestWhatIsTold(t *testing.T) {
	s := newStage(t)
	rpc := s.servers[0]
	if name := call(s, rpc.Name, &pb.NameRequest{}).Name; name != "leavebroker" {
		t.Errorf("name %q", name)
	}
	suites := call(s, rpc.SupportedCiphersuites, &pb.SupportedCiphersuitesRequest{}).Ciphersuites
	if fmt.Sprint(suites) != "[1 2 3 4 5 6 7]" {
		t.Errorf("suites %v", suites)
	}
}

// TestRefusals: what a member refuses leaves its group, key package and signer
// as they were.
func TestRefusals(t *testing.T) {
	s, ctx := newStage(t), context.Background()
	s.create("alice", "bob", "charlie")
	rpc, alice, bob := s.servers[0], s.actor("alice"), s.actor("bob")
	s.keyPackage("diana")
	diana := s.actor("diana")
	signer := call(s, rpc.CreateExternalSigner, &pb.CreateExternalSignerRequest{CipherSuite: 1, Identity: []byte("ds")})
	info := s.info(false).GroupInfo
	proposal := s.propose("alice", removes("bob")...)[0]
	application := s.protect("alice", "text")
	other := call(s, rpc.CreateKeyPackage, &pb.CreateKeyPackageRequest{CipherSuite: 2, Identity: []byte("other")}).KeyPackage

	for what, f := range map[string]func() error{
		"a group of no suite": func() error { _, err := rpc.CreateGroup(ctx, &pb.CreateGroupRequest{}); return err },
		"a group of a suite beyond 16 bits": func() error {
			_, err := rpc.CreateGroup(ctx, &pb.CreateGroupRequest{CipherSuite: 0x10001})
			return err
		},
		"a key package of no suite": func() error { _, err := rpc.CreateKeyPackage(ctx, &pb.CreateKeyPackageRequest{}); return err },
		"a signer of no suite": func() error {
			_, err := rpc.CreateExternalSigner(ctx, &pb.CreateExternalSignerRequest{})
			return err
		},
		"a Welcome that is none": func() error {
			_, err := rpc.JoinGroup(ctx, &pb.JoinGroupRequest{TransactionId: diana.transaction, Welcome: info})
			return err
		},
		"a GroupInfo that is none": func() error {
			_, err := rpc.ExternalJoin(ctx, &pb.ExternalJoinRequest{GroupInfo: proposal})
			return err
		},
		"removal of a prior leaf that is not there": func() error {
			_, err := rpc.ExternalJoin(ctx, &pb.ExternalJoinRequest{GroupInfo: info, Identity: []byte("nobody"), RemovePrior: true})
			return err
		},
		"an exporter of more than 255 hashes": func() error {
			_, err := rpc.Export(ctx, &pb.ExportRequest{StateId: bob.state, KeyLength: 255*32 + 1})
			return err
		},
		"a proposal as application data": func() error {
			_, err := rpc.Unprotect(ctx, &pb.UnprotectRequest{StateId: bob.state, Ciphertext: proposal})
			return err
		},
		"application data as a proposal": func() error {
			_, err := rpc.Commit(ctx, &pb.CommitRequest{StateId: bob.state, ByReference: [][]byte{application}})
			return err
		},
		"a proposal as a commit": func() error {
			_, err := rpc.HandleCommit(ctx, &pb.HandleCommitRequest{StateId: bob.state, Commit: proposal})
			return err
		},
		"a commit that removes its committer": func() error {
			_, err := rpc.Commit(ctx, &pb.CommitRequest{StateId: bob.state, ByReference: [][]byte{proposal}})
			return err
		},
		"a proposal of no kind": func() error {
			_, err := rpc.Commit(ctx, &pb.CommitRequest{StateId: bob.state, ByValue: []*pb.ProposalDescription{{}}})
			return err
		},
		"removal of a stranger": func() error {
			_, err := rpc.RemoveProposal(ctx, &pb.RemoveProposalRequest{StateId: bob.state, RemovedId: []byte("nobody")})
			return err
		},
		"a key package of another suite": func() error {
			_, err := rpc.AddProposal(ctx, &pb.AddProposalRequest{StateId: bob.state, KeyPackage: other})
			return err
		},
		"a key package that is none": func() error {
			_, err := rpc.AddProposal(ctx, &pb.AddProposalRequest{StateId: bob.state, KeyPackage: info})
			return err
		},
		"an extension type beyond 16 bits": func() error {
			_, err := rpc.GroupContextExtensionsProposal(ctx, &pb.GroupContextExtensionsProposalRequest{
				StateId: bob.state, Extensions: []*pb.Extension{{ExtensionType: 0x10003, ExtensionData: []byte{0, 0, 0}}},
			})
			return err
		},
		"a PSK that is not known": func() error {
			_, err := rpc.Commit(ctx, &pb.CommitRequest{StateId: bob.state, ByValue: externalPSKs([]byte("nothing"))})
			return err
		},
		"an external sender that is none": func() error {
			_, err := rpc.AddExternalSigner(ctx, &pb.AddExternalSignerRequest{StateId: bob.state, ExternalSender: []byte{1}})
			return err
		},
		"a signer that is not in external_senders": func() error {
			_, err := rpc.ExternalSignerProposal(ctx, &pb.ExternalSignerProposalRequest{SignerId: signer.SignerId, GroupInfo: info, Description: removes("bob")[0]})
			return err
		},
		"a signer without a description": func() error {
			_, err := rpc.ExternalSignerProposal(ctx, &pb.ExternalSignerProposalRequest{SignerId: signer.SignerId, GroupInfo: info})
			return err
		},
		"a branch with a Welcome that is none": func() error {
			_, err := rpc.HandleBranch(ctx, &pb.HandleBranchRequest{StateId: bob.state, TransactionId: diana.transaction, Welcome: info})
			return err
		},
	} {
		refuses(t, what, codes.InvalidArgument, f())
	}
	_, err := rpc.HandlePendingCommit(ctx, &pb.HandlePendingCommitRequest{StateId: alice.state})
	refuses(t, "no pending commit", codes.FailedPrecondition, err)

	s.unprotect("charlie", application, "text")
	add := []*pb.ProposalDescription{{ProposalType: []byte("add"), KeyPackage: diana.keyPackage}}
	s.commit("alice", commit{refs: [][]byte{proposal}, values: add, joiners: []string{"diana"}, leavers: []string{"bob"}})
	s.chat()
	_, err = rpc.Protect(ctx, &pb.ProtectRequest{StateId: bob.state})
	refuses(t, "a removed member", codes.FailedPrecondition, err)
	_, err = rpc.JoinGroup(ctx, &pb.JoinGroupRequest{TransactionId: diana.transaction})
	refuses(t, "a key package that was used", codes.NotFound, err)
}

// TestCommitThatIsNoReInit asks for the next group after a plain commit, and
// after a ReInit for more commits in the old one.
func TestCommitThatIsNoReInit(t *testing.T) {
	s, ctx := newStage(t), context.Background()
	s.create("alice")
	rpc, alice := s.servers[0], s.actor("alice")
	call(s, rpc.ReInitCommit, &pb.CommitRequest{StateId: alice.state})
	_, err := rpc.HandlePendingReInitCommit(ctx, &pb.HandlePendingCommitRequest{StateId: alice.state})
	refuses(t, "no ReInit", codes.InvalidArgument, err)

	next := &pb.ReInitProposalRequest{StateId: alice.state, CipherSuite: 1, GroupId: []byte("next")}
	proposal := call(s, rpc.ReInitProposal, next).Proposal
	call(s, rpc.ReInitCommit, &pb.CommitRequest{StateId: alice.state, ByReference: [][]byte{proposal}})
	call(s, rpc.HandlePendingReInitCommit, &pb.HandlePendingCommitRequest{StateId: alice.state})
	_, err = rpc.Commit(ctx, &pb.CommitRequest{StateId: alice.state})
	refuses(t, "a closed group", codes.FailedPrecondition, err)
}

// TestWelcomeNeedsItsTree joins without the ratchet tree that was left out.
func TestWelcomeNeedsItsTree(t *testing.T) {
	s := newStage(t)
	s.create("alice")
	alice := s.actor("alice")
	made := call(s, alice.rpc.Commit, &pb.CommitRequest{StateId: alice.state, ByValue: s.adds("bob"), ExternalTree: true})
	join := &pb.JoinGroupRequest{TransactionId: s.actor("bob").transaction, Welcome: made.Welcome}
	_, err := alice.rpc.JoinGroup(context.Background(), join)
	refuses(t, "no ratchet tree", codes.InvalidArgument, err)
	join.RatchetTree = made.RatchetTree
	call(s, alice.rpc.JoinGroup, join)
}

// TestKeysOfAKeyPackage takes the keys that go with a key package to its leaf.
func TestKeysOfAKeyPackage(t *testing.T) {
	s := newStage(t)
	for _, suite := range mlscore.Suites() {
		resp := call(s, s.servers[0].CreateKeyPackage, &pb.CreateKeyPackageRequest{CipherSuite: uint32(suite), Identity: []byte("bob")})
		known, err := mlscore.LookupSuite(suite)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := mlscore.NewSigner(known.Signature, resp.SignaturePriv)
		if err != nil {
			t.Fatal(err)
		}
		leaf := s.parse(resp.KeyPackage).KeyPackage.LeafNode
		if !bytes.Equal(signer.PublicKey(), leaf.SignatureKey) || string(leaf.Credential.Identity) != "bob" {
			t.Errorf("suite %d: the leaf has another key or identity", suite)
		}
	}
}

// TestAtOnce lets many callers use one server, each its own group, and all one
// member of another: no message key is used twice.
func TestAtOnce(t *testing.T) {
	shared := newStage(t)
	shared.create("alice", "bob")
	const callers = 8
	messages := make([][]byte, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			s := &stage{t: t, suite: 1, servers: shared.servers, actors: make(map[string]*actor)}
			s.create("alice", "bob")
			s.chat()
			alice := shared.actors["alice"]
			resp, err := alice.rpc.Protect(context.Background(), &pb.ProtectRequest{StateId: alice.state, Plaintext: []byte("x"), AuthenticatedData: []byte("aad of x")})
			if err != nil {
				t.Error(err)
				return
			}
			messages[i] = resp.Ciphertext
		})
	}
	wg.Wait()
	for _, m := range messages {
		shared.unprotect("bob", m, "x")
	}
}

func TestLoopbackOnly(t *testing.T) {
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "nonsense"} {
		if l, err := listen(address); err == nil {
			l.Close()
			t.Errorf("%q is accepted", address)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"listen"}, {"serve", "--nonsense"}} {
		if err := run(context.Background(), args, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
