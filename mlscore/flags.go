package mlscore

import "slices"

// What is wrong but accepted, because members accept it: in Staged.Flags and
// PublicGroup.Flags. A member that enforces one of these leaves the group that
// the others are in, so an observer who did would be of no use to them.
const (
	// FlagPathSecretCount: an UpdatePath has more or fewer encrypted path
	// secrets for a node than members need; each looks only at its own
	// (RFC 9420, Section 7.6).
	FlagPathSecretCount = "encrypted_path_secret_count"
	// FlagDefaultCapability: a leaf's capabilities list a default type, which
	// they must not (RFC 9420, Section 7.2).
	FlagDefaultCapability = "default_capability"
	// FlagMissingCapability: a leaf's capabilities do not list the group's
	// version or cipher suite (RFC 9420, Section 7.2).
	FlagMissingCapability = "missing_capability"
	// FlagLifetime: a leaf is outside its lifetime (RFC 9420, Section 7.3).
	FlagLifetime = "lifetime"
	// FlagSharedKey: a leaf's encryption_key is also a member's signature_key
	// (RFC 9420, Section 16.8).
	FlagSharedKey = "shared_key"
	// FlagEncryptionKey: a leaf's encryption_key is no key of the suite's KEM.
	// Members notice when they encrypt to it.
	FlagEncryptionKey = "encryption_key"
	// FlagMisplacedExtension: an extension of RFC 9420 is where Section 17.3
	// does not put it.
	FlagMisplacedExtension = "misplaced_extension"
	// FlagExternalSenderKey: an entry of external_senders has no key of the
	// suite's signature scheme: nothing that it signs will verify
	// (RFC 9420, Section 12.1.8.1).
	FlagExternalSenderKey = "external_sender_key"
	// FlagExternalPub: external_pub is no key of the suite's KEM: nobody can
	// join by it (RFC 9420, Section 12.4.3.2).
	FlagExternalPub = "external_pub"
	// FlagResyncCredential: an external committer removed a leaf with another
	// credential than its own. Whether that one was its own is for the
	// application to judge (RFC 9420, Section 12.2).
	FlagResyncCredential = "resync_credential"
	// FlagReferenceInExternalCommit: an external commit contains a custom
	// proposal by reference, and the registry accepts that
	// (RFC 9420, Section 12.4.3.2).
	FlagReferenceInExternalCommit = "reference_in_external_commit"
	// FlagSecondSelfRemove: a member sent more than one SelfRemove in an epoch
	// (draft-ietf-mls-extensions).
	FlagSecondSelfRemove = "second_self_remove"
	// FlagRemoveBesideSelfRemove: a Remove of a leaf whose SelfRemove came
	// before (draft-ietf-mls-extensions).
	FlagRemoveBesideSelfRemove = "remove_beside_self_remove"
	// FlagLeafNodeEpoch: a leaf's leaf_node_epoch is not a uint64. It counts as
	// absent (draft-barnes-mls-replace).
	FlagLeafNodeEpoch = "leaf_node_epoch"
	// FlagReplacedSignatureKey: a Replace changes the signature_key
	// (draft-barnes-mls-replace).
	FlagReplacedSignatureKey = "replaced_signature_key"
)

// flags is a list in which each flag occurs once.
type flags []string

func (f *flags) add(flag string) {
	if !slices.Contains(*f, flag) {
		*f = append(*f, flag)
	}
}

// addIf adds a flag where a condition holds.
func (f *flags) addIf(wrong bool, flag string) {
	if wrong {
		f.add(flag)
	}
}
