package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/mlsclient/pb"
)

// serve starts the command and connects to it.
func serve(t testing.TB) pb.MLSClientClient {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"serve", "--listen", "127.0.0.1:0"}, in) }()
	line := make([]byte, 100)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSpace(strings.TrimPrefix(string(line[:n]), "listening on "))
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return pb.NewMLSClientClient(conn)
}

// stage is where a script is played: a group, its members and others, spread
// over servers. Whatever a server sends is brought to all members.
type stage struct {
	t       testing.TB
	suite   uint32
	encrypt bool
	servers []pb.MLSClientClient
	actors  map[string]*actor
	members []string
	groupID []byte
}

// actor is one that a server plays.
type actor struct {
	rpc                pb.MLSClientClient
	state, transaction uint32
	signer             uint32
	keyPackage         []byte
}

// call makes a call that has to succeed.
func call[Req, Resp any](s *stage, f func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req) Resp {
	s.t.Helper()
	resp, err := f(context.Background(), req)
	if err != nil {
		s.t.Fatalf("%T: %v", req, err)
	}
	return resp
}

// actor finds one by name; a new one gets the next server in turn.
func (s *stage) actor(name string) *actor {
	a := s.actors[name]
	if a == nil {
		a = &actor{rpc: s.servers[len(s.actors)%len(s.servers)]}
		s.actors[name] = a
	}
	return a
}

// create makes a group, whose creator adds the others by value.
func (s *stage) create(creator string, others ...string) {
	s.t.Helper()
	s.groupID = []byte(rand.Text())
	a := s.actor(creator)
	a.state = call(s, a.rpc.CreateGroup, &pb.CreateGroupRequest{
		GroupId: s.groupID, CipherSuite: s.suite, EncryptHandshake: s.encrypt, Identity: []byte(creator),
	}).StateId
	s.members = []string{creator}
	if len(others) > 0 {
		s.commit(creator, commit{values: s.adds(others...), joiners: others})
	}
}

// keyPackage lets an actor make one.
func (s *stage) keyPackage(name string) []byte {
	s.t.Helper()
	a := s.actor(name)
	resp := call(s, a.rpc.CreateKeyPackage, &pb.CreateKeyPackageRequest{CipherSuite: s.suite, Identity: []byte(name)})
	if len(resp.InitPriv) == 0 || len(resp.EncryptionPriv) == 0 || len(resp.SignaturePriv) == 0 {
		s.t.Error("a key package without its private keys")
	}
	a.transaction, a.keyPackage = resp.TransactionId, resp.KeyPackage
	return resp.KeyPackage
}

// adds describes Adds by value of new key packages.
func (s *stage) adds(names ...string) (list []*pb.ProposalDescription) {
	s.t.Helper()
	for _, name := range names {
		list = append(list, &pb.ProposalDescription{ProposalType: []byte("add"), KeyPackage: s.keyPackage(name)})
	}
	return list
}

func removes(names ...string) (list []*pb.ProposalDescription) {
	for _, name := range names {
		list = append(list, &pb.ProposalDescription{ProposalType: []byte("remove"), RemovedId: []byte(name)})
	}
	return list
}

func externalPSKs(ids ...[]byte) (list []*pb.ProposalDescription) {
	for _, id := range ids {
		list = append(list, &pb.ProposalDescription{ProposalType: []byte("externalPSK"), PskId: id})
	}
	return list
}

func resumptionPSKs(epochs ...uint64) (list []*pb.ProposalDescription) {
	for _, epoch := range epochs {
		list = append(list, &pb.ProposalDescription{ProposalType: []byte("resumptionPSK"), EpochId: epoch})
	}
	return list
}

func contextExtensions(x ...*pb.Extension) []*pb.ProposalDescription {
	return []*pb.ProposalDescription{{ProposalType: []byte("groupContextExtensions"), Extensions: x}}
}

// noRequirements and noSenders are extensions of a GroupContext that say nothing.
func noRequirements() *pb.Extension {
	return &pb.Extension{ExtensionType: uint32(mlscore.ExtensionTypeRequiredCapabilities), ExtensionData: []byte{0, 0, 0}}
}

func noSenders() *pb.Extension {
	return &pb.Extension{ExtensionType: uint32(mlscore.ExtensionTypeExternalSenders), ExtensionData: []byte{0}}
}

// propose lets a member propose what descriptions say, each by its own call.
func (s *stage) propose(by string, list ...*pb.ProposalDescription) (messages [][]byte) {
	s.t.Helper()
	a := s.actor(by)
	for _, d := range list {
		var resp *pb.ProposalResponse
		switch string(d.ProposalType) {
		case "add":
			resp = call(s, a.rpc.AddProposal, &pb.AddProposalRequest{StateId: a.state, KeyPackage: d.KeyPackage})
		case "remove":
			resp = call(s, a.rpc.RemoveProposal, &pb.RemoveProposalRequest{StateId: a.state, RemovedId: d.RemovedId})
		case "externalPSK":
			resp = call(s, a.rpc.ExternalPSKProposal, &pb.ExternalPSKProposalRequest{StateId: a.state, PskId: d.PskId})
		case "resumptionPSK":
			resp = call(s, a.rpc.ResumptionPSKProposal, &pb.ResumptionPSKProposalRequest{StateId: a.state, EpochId: d.EpochId})
		case "groupContextExtensions":
			resp = call(s, a.rpc.GroupContextExtensionsProposal, &pb.GroupContextExtensionsProposalRequest{StateId: a.state, Extensions: d.Extensions})
		}
		messages = append(messages, s.handshake(resp.Proposal))
	}
	return messages
}

func (s *stage) update(by string) []byte {
	s.t.Helper()
	a := s.actor(by)
	return s.handshake(call(s, a.rpc.UpdateProposal, &pb.UpdateProposalRequest{StateId: a.state}).Proposal)
}

// handshake checks that a member's message is encrypted as its group demands.
func (s *stage) handshake(message []byte) []byte {
	s.t.Helper()
	want := mlscore.WireFormatPublicMessage
	if s.encrypt {
		want = mlscore.WireFormatPrivateMessage
	}
	if is := s.parse(message).WireFormat; is != want {
		s.t.Errorf("a handshake of wire_format %d, want %d", is, want)
	}
	return message
}

func (s *stage) parse(message []byte) *mlscore.MLSMessage {
	s.t.Helper()
	m, err := mlscore.ParseMLSMessage(message, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// commit is what a commit contains and whom it brings in and takes out.
type commit struct {
	refs                    [][]byte
	values                  []*pb.ProposalDescription
	joiners, leavers        []string
	forcePath, externalTree bool
}

// commit lets a member commit, brings the commit to the others and the Welcome
// to the joiners, and checks that all agree.
func (s *stage) commit(by string, c commit) []byte {
	s.t.Helper()
	a := s.actor(by)
	made := call(s, a.rpc.Commit, &pb.CommitRequest{
		StateId: a.state, ByReference: c.refs, ByValue: c.values, ForcePath: c.forcePath, ExternalTree: c.externalTree,
	})
	s.handshake(made.Commit)
	if (len(made.RatchetTree) > 0) != c.externalTree {
		s.t.Errorf("a ratchet tree of %d bytes, asked for: %t", len(made.RatchetTree), c.externalTree)
	}
	a.state = call(s, a.rpc.HandlePendingCommit, &pb.HandlePendingCommitRequest{StateId: a.state}).StateId
	s.deliver(made.Commit, c.refs, c.leavers, by)
	for _, name := range c.joiners {
		j := s.actor(name)
		j.state = call(s, j.rpc.JoinGroup, &pb.JoinGroupRequest{
			TransactionId: j.transaction, Welcome: made.Welcome, EncryptHandshake: s.encrypt,
			Identity: []byte(name), RatchetTree: made.RatchetTree,
		}).StateId
		s.members = append(s.members, name)
	}
	s.agree()
	return made.Commit
}

// deliver brings a commit to all members but those named, and lets those go
// whom it removes.
func (s *stage) deliver(message []byte, refs [][]byte, leavers []string, not ...string) {
	s.t.Helper()
	for _, name := range s.members {
		if slices.Contains(not, name) {
			continue
		}
		a := s.actor(name)
		resp := call(s, a.rpc.HandleCommit, &pb.HandleCommitRequest{StateId: a.state, Proposal: refs, Commit: message})
		if leaves := slices.Contains(leavers, name); leaves != (len(resp.EpochAuthenticator) == 0) {
			s.t.Errorf("%s has an epoch authenticator of %d bytes, is removed: %t", name, len(resp.EpochAuthenticator), leaves)
		}
		a.state = resp.StateId
	}
	s.members = slices.DeleteFunc(s.members, func(name string) bool { return slices.Contains(leavers, name) })
}

// agree checks that all members have the same secrets.
func (s *stage) agree() {
	s.t.Helper()
	var first []byte
	for _, name := range s.members {
		a := s.actor(name)
		state := call(s, a.rpc.StateAuth, &pb.StateAuthRequest{StateId: a.state}).StateAuthSecret
		state = append(state, call(s, a.rpc.Export, &pb.ExportRequest{StateId: a.state, Label: "label", Context: []byte("context"), KeyLength: 40}).ExportedSecret...)
		if first == nil {
			first = state
		}
		if len(state) < 72 || !bytes.Equal(state, first) {
			s.t.Fatalf("%s does not agree with %s", name, s.members[0])
		}
	}
}

// installPSK gives an external PSK to actors and returns its identifier.
func (s *stage) installPSK(names ...string) []byte {
	s.t.Helper()
	id, secret := []byte(rand.Text()), []byte(rand.Text())
	for _, name := range names {
		a := s.actor(name)
		to := a.state
		if !slices.Contains(s.members, name) {
			to = a.transaction
		}
		call(s, a.rpc.StorePSK, &pb.StorePSKRequest{StateOrTransactionId: to, PskId: id, PskSecret: secret})
	}
	return id
}

// joinExternal lets an actor join by an external commit.
func (s *stage) joinExternal(name string, externalTree, removePrior bool, psks ...*pb.PreSharedKey) {
	s.t.Helper()
	info := s.info(externalTree)
	a := s.actor(name)
	joined := call(s, a.rpc.ExternalJoin, &pb.ExternalJoinRequest{
		GroupInfo: info.GroupInfo, RatchetTree: info.RatchetTree, EncryptHandshake: s.encrypt,
		Identity: []byte(name), RemovePrior: removePrior, Psks: psks,
	})
	var leavers []string
	if removePrior {
		leavers = []string{name}
	}
	s.deliver(joined.Commit, nil, leavers)
	a.state = joined.StateId
	s.members = append(s.members, name)
	s.agree()
}

// info is the GroupInfo that the first member makes.
func (s *stage) info(externalTree bool) *pb.GroupInfoResponse {
	s.t.Helper()
	a := s.actor(s.members[0])
	resp := call(s, a.rpc.GroupInfo, &pb.GroupInfoRequest{StateId: a.state, ExternalTree: externalTree})
	_, inside := s.parse(resp.GroupInfo).GroupInfo.Extensions.Find(mlscore.ExtensionTypeRatchetTree)
	if inside == externalTree || (len(resp.RatchetTree) > 0) != externalTree {
		s.t.Errorf("a ratchet tree of %d bytes, in the GroupInfo: %t, external: %t", len(resp.RatchetTree), inside, externalTree)
	}
	return resp
}

func (s *stage) protect(by, text string) []byte {
	s.t.Helper()
	a := s.actor(by)
	return call(s, a.rpc.Protect, &pb.ProtectRequest{StateId: a.state, AuthenticatedData: []byte("aad of " + text), Plaintext: []byte(text)}).Ciphertext
}

func (s *stage) unprotect(by string, message []byte, want string) {
	s.t.Helper()
	a := s.actor(by)
	got := call(s, a.rpc.Unprotect, &pb.UnprotectRequest{StateId: a.state, Ciphertext: message})
	if string(got.Plaintext) != want || string(got.AuthenticatedData) != "aad of "+want {
		s.t.Errorf("%q with %q, want %q", got.Plaintext, got.AuthenticatedData, want)
	}
}

// addSigner makes an external signer and lets a member commit it into the
// group's external_senders.
func (s *stage) addSigner(by, name string) {
	s.t.Helper()
	signer, a := s.actor(name), s.actor(by)
	made := call(s, signer.rpc.CreateExternalSigner, &pb.CreateExternalSignerRequest{CipherSuite: s.suite, Identity: []byte(name)})
	signer.signer = made.SignerId
	proposal := call(s, a.rpc.AddExternalSigner, &pb.AddExternalSignerRequest{StateId: a.state, ExternalSender: made.ExternalSender}).Proposal
	s.commit(by, commit{refs: [][]byte{s.handshake(proposal)}})
}

// sign lets an external signer propose, who is given the ratchet tree beside
// the GroupInfo and no signer_index, as by the official runner.
func (s *stage) sign(by string, list ...*pb.ProposalDescription) (messages [][]byte) {
	s.t.Helper()
	info, a := s.info(true), s.actor(by)
	for _, d := range list {
		messages = append(messages, call(s, a.rpc.ExternalSignerProposal, &pb.ExternalSignerProposalRequest{
			SignerId: a.signer, GroupInfo: info.GroupInfo, RatchetTree: info.RatchetTree, Description: d,
		}).Proposal)
	}
	return messages
}

// reInit closes the group by a proposal, and opens the next: the committer
// commits, the welcomer makes the new group.
func (s *stage) reInit(proposal []byte, next *pb.ReInitProposalRequest, committer, welcomer string, forcePath, externalTree bool) {
	s.t.Helper()
	a := s.actor(committer)
	made := call(s, a.rpc.ReInitCommit, &pb.CommitRequest{StateId: a.state, ByReference: [][]byte{proposal}})
	closed := make(map[string]*pb.HandleReInitCommitResponse)
	closed[committer] = call(s, a.rpc.HandlePendingReInitCommit, &pb.HandlePendingCommitRequest{StateId: a.state})
	for _, name := range s.members {
		if m := s.actor(name); name != committer {
			closed[name] = call(s, m.rpc.HandleReInitCommit, &pb.HandleCommitRequest{StateId: m.state, Proposal: [][]byte{proposal}, Commit: made.Commit})
		}
		if !bytes.Equal(closed[name].EpochAuthenticator, closed[committer].EpochAuthenticator) {
			s.t.Fatalf("%s does not agree with %s on the last epoch", name, committer)
		}
	}
	var keyPackages [][]byte
	for _, name := range s.members {
		if name != welcomer {
			keyPackages = append(keyPackages, closed[name].KeyPackage)
		}
	}
	w := s.actor(welcomer)
	welcome := call(s, w.rpc.ReInitWelcome, &pb.ReInitWelcomeRequest{
		ReinitId: closed[welcomer].ReinitId, KeyPackage: keyPackages, ForcePath: forcePath, ExternalTree: externalTree,
	})
	w.state = welcome.StateId
	for _, name := range s.members {
		if m := s.actor(name); name != welcomer {
			join := &pb.HandleReInitWelcomeRequest{ReinitId: closed[name].ReinitId, Welcome: welcome.Welcome}
			if externalTree {
				_, err := m.rpc.HandleReInitWelcome(context.Background(), join)
				refuses(s.t, "no ratchet tree", codes.InvalidArgument, err)
			}
			join.RatchetTree = welcome.RatchetTree
			m.state = call(s, m.rpc.HandleReInitWelcome, join).StateId
		}
	}
	s.suite, s.groupID = next.CipherSuite, next.GroupId
	s.is(1, next.Extensions, forcePath)
}

// branch lets a member branch a group of some members off.
func (s *stage) branch(by string, others []string, x []*pb.Extension, forcePath, externalTree bool) {
	s.t.Helper()
	a := s.actor(by)
	var keyPackages [][]byte
	for _, name := range others {
		keyPackages = append(keyPackages, s.keyPackage(name))
	}
	s.groupID = []byte(rand.Text())
	made := call(s, a.rpc.CreateBranch, &pb.CreateBranchRequest{
		StateId: a.state, GroupId: s.groupID, Extensions: x, KeyPackages: keyPackages, ForcePath: forcePath, ExternalTree: externalTree,
	})
	a.state = made.StateId
	for _, name := range others {
		m := s.actor(name)
		join := &pb.HandleBranchRequest{StateId: m.state, TransactionId: m.transaction, Welcome: made.Welcome}
		if externalTree {
			_, err := m.rpc.HandleBranch(context.Background(), join)
			refuses(s.t, "no ratchet tree", codes.InvalidArgument, err)
		}
		join.RatchetTree = made.RatchetTree
		m.state = call(s, m.rpc.HandleBranch, join).StateId
	}
	s.members = append([]string{by}, others...)
	s.is(1, x, forcePath)
}

// is checks what group the members are in, whether its creator, leaf 0, has
// committed with a path, that all agree, and that the group goes on.
func (s *stage) is(epoch uint64, x []*pb.Extension, path bool) {
	s.t.Helper()
	want, err := extensions(x)
	if err != nil {
		s.t.Fatal(err)
	}
	gc := s.parse(s.info(false).GroupInfo).GroupInfo.GroupContext
	if string(gc.GroupID) != string(s.groupID) || gc.Epoch != epoch || uint32(gc.CipherSuite) != s.suite ||
		!bytes.Equal(gc.Extensions.Append(nil), want.Append(nil)) {
		s.t.Errorf("the group is %+v", gc)
	}
	suite, err := mlscore.LookupSuite(gc.CipherSuite)
	if err != nil {
		s.t.Fatal(err)
	}
	tree, err := mlscore.ParseRatchetTree(suite, s.info(true).RatchetTree)
	if err != nil {
		s.t.Fatal(err)
	}
	if (tree.Leaf(0).Source == mlscore.LeafNodeSourceCommit) != path {
		s.t.Errorf("the creator's leaf has source %d, committed with a path: %t", tree.Leaf(0).Source, path)
	}
	s.agree()
	s.commit(s.members[len(s.members)-1], commit{})
}

// chat lets each member talk to all others.
func (s *stage) chat() {
	s.t.Helper()
	for i, from := range s.members {
		text := fmt.Sprintf("message %d", i)
		message := s.protect(from, text)
		for _, to := range s.members {
			if to != from {
				s.unprotect(to, message, text)
			}
		}
	}
}
