// Package member is a client's side of MLS (RFC 9420): a full member of groups,
// with all their secrets. It makes key packages, creates groups, joins by
// Welcome and by external commit, proposes, commits, processes what others
// send, and protects application data. Its cipher suites are 1 to 7 and those
// of draft-ietf-mls-pq-ciphersuites-06 with ML-KEM-768, ML-KEM-1024 or X-Wing
// (draft-ietf-hpke-pq-04), with Ed25519, ECDSA or ML-DSA. Of the drafts it
// knows SelfRemove (draft-ietf-mls-extensions), Replace with leaf_node_epoch
// (draft-barnes-mls-replace) and, where the registry tells how to expand it, the
// LeafOperationProposal (draft-kohbrok-mls-leaf-operation-intents), under the
// code points of the client's registry.
//
// A Group holds an mlscore.PublicGroup, which judges everything that can be
// judged without secrets, and adds the rest: it decrypts path secrets, derives
// the epoch's secrets and checks membership and confirmation tags. A leave
// broker and the members thus follow a group by the same code.
//
// A group changes by commits that a delivery service puts into one order. Make
// a commit, send it, and confirm it when the delivery service has accepted it:
//
//	alice := &member.Client{CipherSuite: 1, Signer: signer, Credential: mlscore.BasicCredential([]byte("alice"))}
//	group, err := alice.Create([]byte("book club"), nil, lifetime)
//	…
//	commit, err := group.Commit(member.CommitOptions{Proposals: []*mlscore.Proposal{member.Add(bobsKeyPackage)}})
//	… // send commit.Message to the group; when it is accepted:
//	err = group.ConfirmCommit()
//	… // send commit.Welcome to Bob, who does:
//	group, err := keys.Join(commit.Welcome, nil)
//
// All others hand every message to Process. Methods that fail leave the group
// as it was.
//
// To leave for good without waiting, a client needs from this package its
// OwnLeaf, the Public state and its Client's Signer, and signs a
// LeafOperationIntent with package intents.
//
// The package reads no clock: lifetimes are given, and those of others are not
// judged. It stores nothing: a Group lives in memory.
//
// Where to find what:
//
//	RFC 9420          file
//	Section 5.1       suites.go, kem.go, hpke.go
//	Section 6         message.go
//	Section 7.4-7.6   treekem.go
//	Section 8         keyschedule.go
//	Section 9         secrettree.go
//	Section 10        client.go
//	Section 11        group.go, successor.go
//	Section 12.1      propose.go
//	Section 12.2      select.go, associate.go
//	Section 12.4      commit.go, process.go
//	Section 12.4.3.1  welcome.go
//	Section 12.4.3.2  external.go
package member
