// Package intents implements draft-kohbrok-mls-leaf-operation-intents-01: the
// LeafOperationIntent of a member who leaves, its signature and verification,
// the LeafOperationProposal that carries it, and the life of the intents of one
// group as a step function over that group's log.
//
//	Section 2        intent.go, proposal.go   structures
//	Section 2.3      verify.go                the checks, one error each
//	Section 2.4      due.go, form.go          what to propose, and as what
//	                 proposal.go, blocked.go  what others propose and commit
//	Section 2.5      association.go           what to ask the Authentication Service
//	"Replay" in the security considerations   lineage.go
//	none                     snapshot.go      the stored form of a State
//
// State is the fold: Step takes one Input and gives the next State with
// Notices, Due tells what ought to be done. Both are pure and total. State is
// an immutable value that shares its memory with its predecessors. A commit
// costs a look at each leaf that it changes and at each open intent; one that
// turns out to be false, what came since the last certain epoch once more.
//
// # Where the draft is silent or contradicts itself
//
// Code points. Neither the proposal type nor the wire format has a value, nor
// the registration its External and Path columns. CodePoints; private use by
// default. The proposal is taken to be allowed from external senders, as the
// text says, and to need a path, as the Removes do that it stands for.
//
// Body of the proposal. As drafted it begins with group_id<V>; the stacks that
// admit proposals of an application wrap any body in opaque<V> and cannot read
// it. Both are offered (Body).
//
// LeafNodeRef. It is a HashReference, that is opaque<V> of Nh bytes, over an
// unnamed "value": the encoded LeafNode, as received and not encoded again. A
// leaf of source key_package names neither group nor index, so its reference
// does not either.
//
// Undefined removal modes. The draft does not say that they are invalid. They
// decode, and are refused before anything else is checked: to guess what a
// mode removes is worse than to remove nobody.
//
// What group_id is compared with. "The group in which the proposal was sent"
// does not exist for an intent that comes alone: it is the group to which it
// was submitted.
//
// sender_index outside the tree, or a blank leaf. Not mentioned; there is no
// reference to match, so leaf_ref_mismatch. A reference that is not in the tree
// yet may be ours to wait for: it is parked for an epoch and a while, since
// intents are not ordered with commits.
//
// Who may turn an intent into what. "The recipient MAY create a
// LeafOperationProposal." We send plain Removes as an external sender, which
// RFC 9420, Section 12.1.8 allows and every member understands. To members they
// originate from us and not from the sender of the intent. Where every member's
// capabilities list the type, we may send LeafOperationProposals instead (Form),
// and offer them to external joiners (Pending).
//
// All or part. A LeafOperationProposal is one set of Removes; plain Removes may
// be committed one by one. The draft ends an intent when its sender is removed,
// which would leave the associated members in the group for good if the sender
// happens to go first. We go on with those who were candidates in the sender's
// last epoch, and never with a leaf added later.
//
// When association is decided. At processing, by each member alone: two answers
// would give two trees. The draft does not say how members come to one. Ours is
// asked once per leaf and credential and recorded before it is used. With plain
// Removes nothing of it is left to members; an intent that removes associated
// members becomes a LeafOperationProposal only where all ask the same service
// (Policy.SharedAssociation). When others commit one, we ask as they did, and
// hold the commit and what follows it until the answer is in the log; a commit
// that contradicts the answer is unresolvable. Whether association is symmetric
// is not said either: we ask for the sender against each other member.
//
// A Remove that is already there. A LeafOperationProposal beside a Remove,
// SelfRemove or Update of one of its leaves, or of the committer, makes the list
// invalid (RFC 9420, Section 12.2), without a rule which yields: a committer has
// to leave one out. We propose each leaf at most once in an epoch, and none that
// has a SelfRemove pending.
//
// External commits. "May include one or more LeafOperationProposals", by value
// or by reference is not said, and RFC 9420, Section 12.4.3.2 forbids
// references: by value only. mls-rs accepts references; a registry may say so
// too (mlscore.CustomProposal), and they are flagged.
//
// What a Path column would say. Removes need a path, so the proposal does.
//
// Until when an intent is valid. "Provided the leaf remains unchanged", "until
// the sender updates its own leaf", "as long as the creator's leaf doesn't
// change its state" differ where another changes it (Replace) or where it is
// removed and added by one commit. Any change of the leaf's bytes, a resync, and
// an Add of the sender's credential and key beside its removal end the intent:
// superseded. There is no expiry and no withdrawal; a client withdraws by
// updating its leaf. OnReplaceContinue makes one exception: a member could keep a
// leaver in by a Replace with any leaf that the leaver once signed. The intent
// goes on, by plain Removes since its reference is gone, if the signature key is
// the same and leaf_node_epoch is below the epoch in which the intent was
// verified; what the leaver signed after that is a change of mind.
//
// Replay. The draft names the danger of a KeyPackage that is used again, and no
// remedy. Every reference that left the tree is remembered for the group's life,
// and an intent with one is refused while the leaf is there. What cannot be
// told: an intent that was kept from us through the whole first life of its
// leaf, if our log does not reach back to it.
//
// Identity. Intents have none, and an ECDSA signature can be varied by anyone.
// ID is over tenant and TBS; submissions that share it are judged one by one,
// and one that fails never harms one that verified.
//
// The last member, and the end of a group. A group cannot remove its last
// member (RFC 9420, Section 12.2): the intent is kept, reason sole_member. A
// ReInit or a deleted group ends intents, reason group_closed, and the notice
// names the leaves that stay.
//
// A GroupInfo cannot be checked by an observer, and so no intent is acted on
// over one before a member's signature verifies over its GroupContext, unless
// the delivery service vouches. One of a later epoch than ours waits until a
// handshake of its epoch verifies over it, or commits are known to be missing: it
// may have overtaken its commit. A commit that contradicts a base puts it in doubt:
// another GroupInfo takes its place, whatever its epoch, unless a member signs over
// it first, and then nothing is left of the doubt. Nobody can check a commit of an
// earlier epoch, so it contradicts a base only if it came never before and is not
// older than what was certain before the base; a replay is neither.
// Across a gap an intent lives on if the leaf has the same bytes; a leaf with the
// same signature key or credential was updated; any other was removed. If more
// than one commit was missed, the sender may have changed its leaf before it
// left: what its intent says of others is held until an operator approves. And if
// a leaf left in an epoch that nobody had signed over, and is there across the gap,
// its removal was a lie, or it was added again with the same KeyPackage: held too.
//
// # What an observer cannot check
//
// The confirmation tag. A commit that members refuse looks like one that they
// take, and anybody can spoil the tag of a good one on its way. So every epoch is
// provisional, and we act in it all the same: members would hardly ever have
// spoken in time. fork.go keeps what competes and follows the deepest line; a
// member's signature over a GroupContext, or its GroupInfo, settles it. The tag
// itself is only in the GroupContext of the epoch after: commits that differ in
// nothing else stay side by side for one epoch more. What a line that was given
// up had ended is open again, as the inputs since are folded anew, and a notice
// says so: diverged, reverted. Answers that were asked about the leaves of that
// line count no more.
//
// What we sent out stays out. An external proposal is signed over group_id and
// epoch, and not over the GroupContext: a Remove made for one line is good in
// each that has our key at the same place of external_senders, where it removes
// whoever has the index. It is therefore what is out in any line of its epoch in
// which it verifies, whoever has the index there, and no leaf is proposed twice. As
// soon as we know two lines of an epoch, nothing is proposed that would be
// another leaf in the other. What cannot be helped: a Remove that went out before
// the true commit came, where that commit gave the index to somebody else. A
// LeafOperationProposal names the leaf and has no such danger.
//
// Who speaks. One signature of a member settles a line, and a member may lie
// twice: sign over its own false commit, or over a forged GroupInfo of a later
// epoch. Then only an operator's reset helps. An epoch that a base alone describes
// is no better than its signer: until somebody signs over it nothing is proposed,
// and what followed from it leaves no trace if it turns out to be false.
//
// # SelfRemove, read by mlscore
//
// draft-mahy-mls-selfremove-00 and draft-ietf-mls-extensions differ: code point
// 0x0008 or 0x000a (0x0008 is app_data_update in the latter; mls-rs uses
// 0xF003), External Y or N. We take the latter's, configurable; only a member
// can send one, since its sender is whom it removes. The seed says nothing about
// a Remove of the same leaf (the latter: invalid, and so do we), nor about the
// order of application (after Updates, before Removes). It is by reference even
// in external commits, against RFC 9420, Section 12.4.3.2. We cannot check its
// membership tag, so it suppresses our Remove for its epoch only.
//
// # Replace and leaf_node_epoch, read by mlscore
//
// draft-barnes-mls-replace-00 calls one field replaced, removed and to_replace:
// it is the struct's, replaced. No code points: Registry. Who may send it is not
// said: members. Beside a SelfRemove of the same leaf it is invalid, as beside a
// Remove, which is all that the draft says. An equal leaf_node_epoch is allowed
// as drafted, so a leaf of the same epoch can come back: an intent made for it
// is then reference_reused. The draft's open points, a flag that requires
// leaf_node_epoch and a new signature key, are options of mlscore; since its
// owner may never have chosen it, a new signature key always ends the intent.
package intents
