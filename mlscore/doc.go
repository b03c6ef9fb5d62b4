// Package mlscore is MLS (RFC 9420) as a public observer sees it: messages,
// the ratchet tree, and the public state of a group, which it follows from a
// GroupInfo through proposals and commits. It holds no group secret and can
// therefore check neither membership tags, nor confirmation tags, nor that
// path secrets decrypt. SelfRemove (draft-ietf-mls-extensions), Replace and
// leaf_node_epoch (draft-barnes-mls-replace) are read here too, and the cipher
// suites of draft-ietf-mls-pq-ciphersuites, under configurable code points
// (Registry).
//
// What members refuse is refused, each rule by its section (Error). What only
// some members refuse, or none although RFC 9420 forbids it, is accepted and
// flagged (flags.go): an observer who is stricter than members loses them.
//
// The package is pure: no clock, goroutine, logger or I/O. Values are immutable
// once made; nothing here changes its input. What is decoded points into the
// bytes it was decoded from, which must not be changed afterwards.
//
// Where to find what:
//
//	RFC 9420         file
//	Section 2.1      codec/codec.go       presentation language
//	Section 5.1, 5.2 ciphersuite.go, signature.go, mldsa.go, signer.go
//	Section 5.3      credential.go
//	Section 6        framing.go
//	Section 4, 7.1   tree.go, treenodes.go, treeblock.go
//	Section 7.4-7.7, 12.1.1-12.1.3  treeedit.go
//	Section 7.2      leafnode.go
//	Section 7.3      leafrules.go, options.go
//	Section 7.8, 7.9 treehash.go, parenthash.go, treeverify.go
//	Section 8.1      groupcontext.go
//	Section 8.2      transcript.go
//	Section 10       keypackage.go
//	Section 11.1, 12.1.8.1, 13.4  extension.go
//	Section 12.1     proposal.go
//	Section 12.1.8   external.go
//	Section 12.2, 12.3  proposallist.go, expansion.go
//	Section 12.4     commit.go, publicgroup.go, provisional.go, stagecommit.go
//	Section 12.4.3   groupinfo.go
//	Section 17.1     suitenames.go
//	Appendix C       treemath.go
//	none             snapshot.go          the stored form of a group
package mlscore
