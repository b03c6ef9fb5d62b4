package main

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"leavebroker/mlscore"
	"leavebroker/mlscore/interop/mlsclient/pb"
	"leavebroker/mlscore/member"
)

// pastEpochs is how many epochs back application data is read.
const pastEpochs = 8

// server is the service. Its methods run one at a time, under mu, which
// intercept holds. All things have numbers of one sequence, since StorePSK takes
// a group or a key package.
type server struct {
	pb.UnsafeMLSClientServer // a method that is missing does not compile

	mu           sync.Mutex // protects all below
	last         uint32
	states       map[uint32]*state
	transactions map[uint32]*transaction
	successors   map[uint32]*successor
	signers      map[uint32]mlscore.Signer
}

func newServer() *server {
	return &server{
		states: make(map[uint32]*state), transactions: make(map[uint32]*transaction),
		successors: make(map[uint32]*successor), signers: make(map[uint32]mlscore.Signer),
	}
}

// party is a client, its raw signature key, and the external PSKs it was given.
type party struct {
	client  *member.Client
	private []byte
	psks    map[string][]byte
}

// state is a member's group. Its refs are the ProposalRefs of the epoch's
// proposals by the messages that carried them.
type state struct {
	*party
	group *member.Group
	refs  map[string][]byte
}

// transaction is a key package that waits for its Welcome.
type transaction struct {
	*party
	keyPackage *member.KeyPackage
}

// successor is a member of a closed group with its key package for the next.
type successor struct {
	*transaction
	old *member.Group
}

// newParty makes a client with a fresh signature key and a basic credential.
func newParty(id mlscore.CipherSuite, identity []byte, encrypt bool) (*party, error) {
	signer, private, err := newSigner(id)
	if err != nil {
		return nil, err
	}
	p := &party{private: private, psks: make(map[string][]byte)}
	p.client = &member.Client{
		CipherSuite: id, Signer: signer, Credential: mlscore.BasicCredential(identity),
		EncryptHandshakes: encrypt, PastEpochs: pastEpochs,
		PSK: func(id mlscore.PreSharedKeyID) ([]byte, bool) {
			value, ok := p.psks[string(id.ID)]
			return value, ok && id.Type == mlscore.PSKTypeExternal
		},
	}
	return p, nil
}

// newSigner draws a signature key of a suite; the raw key is in the form of
// mlscore.NewSigner.
func newSigner(id mlscore.CipherSuite) (mlscore.Signer, []byte, error) {
	suite, err := mlscore.LookupSuite(id)
	if err != nil {
		return nil, nil, err
	}
	private := make([]byte, keySizes[suite.Signature])
	for {
		rand.Read(private)
		if suite.Signature == mlscore.ECDSAWithP521AndSHA512 {
			private[0] &= 1
		}
		if signer, err := mlscore.NewSigner(suite.Signature, private); err == nil {
			return signer, private, nil
		} // a scalar out of range
	}
}

var keySizes = map[mlscore.SignatureScheme]int{
	mlscore.Ed25519: 32, mlscore.Ed448: 57,
	mlscore.ECDSAWithP256AndSHA256: 32, mlscore.ECDSAWithP384AndSHA384: 48, mlscore.ECDSAWithP521AndSHA512: 66,
}

// lifetime is that of a new leaf: some stacks refuse one that is longer than
// three months, or begins in their future.
func lifetime() mlscore.Lifetime {
	now := uint64(time.Now().Unix())
	return mlscore.Lifetime{NotBefore: now - 3600, NotAfter: now + 80*24*3600}
}

func (p *party) newTransaction() (*transaction, error) {
	k, err := p.client.NewKeyPackage(lifetime())
	return &transaction{p, k}, err
}

func (s *server) next() uint32 {
	s.last++
	return s.last
}

// keep gives a group a number.
func (s *server) keep(p *party, g *member.Group) uint32 {
	id := s.next()
	s.states[id] = &state{p, g, make(map[string][]byte)}
	return id
}

func (s *server) state(id uint32) (*state, error) { return find(s.states, id, "state") }

func find[T any](all map[uint32]T, id uint32, what string) (T, error) {
	v, ok := all[id]
	if !ok {
		return v, status.Errorf(codes.NotFound, "no %s %d", what, id)
	}
	return v, nil
}

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// intercept runs a call alone and gives its error a code.
func (s *server) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp, err := handler(ctx, req)
	if err != nil {
		return nil, withCode(err)
	}
	return resp, nil
}

// withCode gives an error the code that its kind has: what a member refuses is
// an invalid argument, what its group does not allow any more a precondition.
func withCode(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	is := func(kind error) bool { return errors.Is(err, kind) }
	code := codes.Internal
	switch {
	case slices.ContainsFunc([]error{member.ErrRemoved, member.ErrReInitialized, member.ErrNoPendingCommit}, is):
		code = codes.FailedPrecondition
	case slices.ContainsFunc([]error{member.ErrNotForUs, member.ErrUnknownPSK, member.ErrNotSuccessor}, is), mlscore.Reason(err) != "error":
		code = codes.InvalidArgument
	}
	return status.Error(code, err.Error())
}
