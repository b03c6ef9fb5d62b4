// Package stack puts MLS members and trackers of several stacks behind one
// interface: those that others wrote are in drivers, processes that speak the
// protocol of mlscore/interop/README.md; ours are in this process. Names of
// operations and fields are those of the protocol, where their meaning is.
//
//	stack.go   what a stack can do
//	driver.go  a stack in a driver process
//	build.go   the drivers of this repository: how they are built
//	own.go     mlscore/member as a stack
//	public.go  mlscore.PublicGroup as a tracker
package stack

import (
	"fmt"
	"slices"

	"leavebroker/mlscore"
)

// Stack is an implementation of MLS. Its members and trackers are used by one
// goroutine at a time, each by its own if wanted.
type Stack interface {
	Hello() Hello
	NewMember(MemberOptions) (Member, error)
	// NewTracker follows a group from a GroupInfo on, and gives its first state.
	NewTracker(groupInfo []byte, o TrackerOptions) (Tracker, *State, error)
	Close() error
}

// Hello is what a stack says of itself.
type Hello struct {
	Stack      string                `json:"stack"`
	Version    string                `json:"version"`
	Suites     []mlscore.CipherSuite `json:"suites"`
	SelfRemove mlscore.ProposalType  `json:"self_remove"` // 0: none
	Operations []string              `json:"operations"`
}

// Has says whether the stack has an operation.
func (h *Hello) Has(operation string) bool { return slices.Contains(h.Operations, operation) }

// Unsupported says that a stack cannot do something, and why.
type Unsupported struct {
	Stack, Op, Text string
}

func (u *Unsupported) Error() string {
	return fmt.Sprintf("%s cannot %s: %s", u.Stack, u.Op, u.Text)
}

// MemberOptions say what a member is.
type MemberOptions struct {
	Suite      mlscore.CipherSuite    `json:"suite"`
	Identity   []byte                 `json:"identity"`
	Proposals  []mlscore.ProposalType `json:"proposals,omitempty"`
	Custom     mlscore.ProposalType   `json:"custom,omitempty"`
	Associated [][][]byte             `json:"associated,omitempty"`
	// GroupID and ExternalSenders are what davey has to know of a group before it
	// joins one.
	GroupID         []byte   `json:"group_id,omitempty"`
	ExternalSenders [][]byte `json:"external_senders,omitempty"`
}

// Keys are a member's signature keys.
type Keys struct {
	Public  []byte `json:"signature_key"`
	Private []byte `json:"signature_private"`
}

// Context is what a group's GroupContext extensions are made of.
type Context struct {
	ExternalSenders   [][]byte               `json:"external_senders,omitempty"` // encoded ExternalSenders
	RequiredProposals []mlscore.ProposalType `json:"required_proposals,omitempty"`
}

// Member is a client in a group, or before it joins one.
type Member interface {
	Keys() Keys
	KeyPackage() ([]byte, error)
	Create(groupID []byte, c Context) error
	Join(welcome []byte) error
	ExternalJoin(ExternalJoin) (commit []byte, err error)
	Propose(Proposal) (message []byte, err error)
	Commit(CommitOptions) (*Commit, error)
	Confirm() error
	Discard() error
	Process(message []byte) (*Processed, error)
	StorePSK(id, secret []byte) error
	GroupInfo() ([]byte, error)
	State() (*State, error)
	Forget() error
}

// ExternalJoin says how to join by an external commit.
type ExternalJoin struct {
	GroupInfo   []byte   `json:"group_info"`
	Resync      bool     `json:"resync,omitempty"`
	SelfRemoves [][]byte `json:"self_removes,omitempty"` // MLSMessages
	Custom      [][]byte `json:"custom,omitempty"`       // Proposals
	PSKs        [][]byte `json:"psks,omitempty"`
}

// The kinds of Proposal.
const (
	KindAdd        = "add"
	KindUpdate     = "update"
	KindRemove     = "remove"
	KindSelfRemove = "self_remove"
	KindPSK        = "psk"
	KindContext    = "group_context_extensions"
)

// Proposal is what a member proposes or commits by value.
type Proposal struct {
	Kind       string             `json:"kind"`
	KeyPackage []byte             `json:"key_package,omitempty"`
	Leaf       *mlscore.LeafIndex `json:"leaf,omitempty"`
	ID         []byte             `json:"id,omitempty"` // of a PSK
	Context
}

// Add is the proposal of a key package.
func Add(keyPackage []byte) Proposal { return Proposal{Kind: KindAdd, KeyPackage: keyPackage} }

// Remove is the proposal to remove a leaf.
func Remove(leaf mlscore.LeafIndex) Proposal { return Proposal{Kind: KindRemove, Leaf: &leaf} }

// PSK is the proposal of an external pre-shared key.
func PSK(id []byte) Proposal { return Proposal{Kind: KindPSK, ID: id} }

// NewContext is the proposal of a whole new context.
func NewContext(c Context) Proposal { return Proposal{Kind: KindContext, Context: c} }

// CommitOptions say what a commit contains.
type CommitOptions struct {
	Proposals   []Proposal `json:"proposals,omitempty"`
	ByReference bool       `json:"by_reference,omitempty"`
	ForcePath   bool       `json:"force_path,omitempty"`
}

// Commit is a commit that waits for the delivery service.
type Commit struct {
	Commit  []byte `json:"commit"`
	Welcome []byte `json:"welcome"`
}

// Processed is what a message was to a member.
type Processed struct {
	Kind    string `json:"kind"` // proposal or commit
	Removed bool   `json:"removed"`
}

// State is a group as a member or tracker sees it. A field is empty where a
// stack does not tell it.
type State struct {
	Epoch                   uint64             `json:"epoch"`
	EpochAuthenticator      []byte             `json:"epoch_authenticator"`
	TreeHash                []byte             `json:"tree_hash"`
	ConfirmedTranscriptHash []byte             `json:"confirmed_transcript_hash"`
	OwnLeaf                 *mlscore.LeafIndex `json:"own_leaf"`
	Members                 []GroupMember      `json:"members"`
}

// GroupMember is a leaf in use.
type GroupMember struct {
	Leaf         mlscore.LeafIndex `json:"leaf"`
	Identity     []byte            `json:"identity"`
	SignatureKey []byte            `json:"signature_key"`
}

// TrackerOptions say what a tracker is told beside the group.
type TrackerOptions struct {
	Custom     mlscore.ProposalType `json:"custom,omitempty"`
	Associated [][][]byte           `json:"associated,omitempty"`
}

// Tracker follows a group without being in it.
type Tracker interface {
	// Track takes a message and gives the state after it.
	Track(message []byte) (*State, error)
	Untrack() error
}
