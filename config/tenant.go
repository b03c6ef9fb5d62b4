package config

// Tenant is one delivery service and its groups. Nothing is shared between
// tenants but the process and the streams.
type Tenant struct {
	// Name is a token of every subject of the tenant:
	// ^[a-z0-9][a-z0-9_-]{0,62}$. Required, and unlike any other tenant's.
	Name string `yaml:"name"`

	// Keys refer to the signing keys, at most one for each signature scheme in
	// use at a time, older ones after it. Instances that serve the same logs
	// need the same ones. Optional. Default: empty, which makes the keys in
	// state_dir on first start.
	Keys []KeyRef `yaml:"keys"`

	// SenderIdentity is the identity of the basic credential in the
	// ExternalSender that groups install (RFC 9420, Section 12.1.8.1); 1 to 255
	// bytes. Default: leavebroker.
	SenderIdentity string `yaml:"sender_identity"`

	// InfoTrust says when a state that begins with a GroupInfo may be acted on:
	// handshake, once a member-signed handshake verifies over it, or ds, at
	// once, as the delivery service vouches for it (needed where handshakes are
	// PrivateMessages). Default: handshake.
	InfoTrust string `yaml:"info_trust"`

	// Mode2 says what an intent with removal mode remove_associated_members
	// does: allow, as it asks; hold, until an operator approves; sender_only,
	// removes the sender's leaf alone. Default: allow.
	Mode2 string `yaml:"mode2"`

	// Form is the proposal that removals are made with: remove, a plain Remove
	// for each leaf (RFC 9420, Section 12.1.3), or leaf_operation_proposal, one
	// for each intent in groups in which every member's capabilities list that
	// type. The latter wants authsvc.shared. Default: remove.
	Form string `yaml:"form"`

	// FallbackEpochs is the number of epochs that may pass without progress of
	// an intent before its leaves are proposed by plain Removes whatever the
	// form, at least 1. Default: 3.
	FallbackEpochs int `yaml:"fallback_epochs"`

	// ParkTTL is how long an intent that cannot be judged is kept before it
	// expires, more than 0. Default: 24h.
	ParkTTL Duration `yaml:"park_ttl"`

	// LagWindow is how long after its intent came a leaf reference may stay
	// unknown; the intent is rejected when that has passed and another epoch has
	// begun. The broker's view of the group may lag behind the sender's by so
	// much. Default: 60s.
	LagWindow Duration `yaml:"lag_window"`

	// StalledAfter is the number of epochs that may pass by a pending removal
	// before a stalled event names the committers who left it out, at least 1.
	// Default: 5.
	StalledAfter int `yaml:"stalled_after"`

	// ReceiptTTL is how long the receipt of a finished intent is kept, at least
	// 1s. Default: 90d.
	ReceiptTTL Duration `yaml:"receipt_ttl"`

	// Pacing slows proposals down in bursts of epochs.
	Pacing Pacing `yaml:"pacing"`

	// OnReplace says what a Replace of the sender's leaf does to its intent:
	// superseded ends it. continue goes on with plain Removes, if the new leaf has
	// the same signature key and was made before the intent was verified, by its
	// leaf_node_epoch. Default: superseded.
	OnReplace string `yaml:"on_replace"`

	// Lifetimes says what becomes of a leaf outside its lifetime (RFC 9420,
	// Section 7.3): report follows it, as members may have; refuse takes the
	// message for invalid. Default: report.
	Lifetimes string `yaml:"lifetimes"`

	// RequireLeafNodeEpoch refuses every leaf without leaf_node_epoch, for
	// tenants whose clients all set it. Default: false.
	RequireLeafNodeEpoch bool `yaml:"require_leaf_node_epoch"`

	// ReplacedSignatureKey says what becomes of a Replace that changes the
	// signature key: report follows it, as members do that keep to the draft;
	// refuse takes its commit for invalid. Default: report.
	ReplacedSignatureKey string `yaml:"replaced_signature_key"`

	// Isolation is shared, one stream for all such tenants, or dedicated, a
	// stream of its own, PREFIX-log-NAME instead of PREFIX-log, with 8 partitions
	// at most. It cannot change once the tenant has a log: the start is then
	// refused. Default: shared.
	Isolation string `yaml:"isolation"`

	// CodePoints are the numbers that the tenant's clients give to what IANA
	// has no number for yet.
	CodePoints CodePoints `yaml:"code_points"`

	// CipherSuites are the suites of the tenant's groups beside 1 to 7, which
	// are always known. A group of another suite is refused. Default: those of
	// draft-ietf-mls-pq-ciphersuites-06 from 0xf001 on, in its order; IANA has
	// no numbers for them yet.
	CipherSuites []CipherSuite `yaml:"cipher_suites"`

	// Body is the form of a LeafOperationProposal inside a Proposal: raw, as
	// drafted, or opaque, wrapped in opaque<V> as stacks with custom proposals
	// do. Default: raw.
	Body string `yaml:"body"`

	// AcceptReferences follows external commits that include
	// LeafOperationProposals by reference, as some stacks do: an external commit
	// carries them by value (RFC 9420, Section 12.4.3.2). Default: false.
	AcceptReferences bool `yaml:"accept_references"`

	// Quotas bound what clients may send through intent.submit.
	Quotas Quotas `yaml:"quotas"`

	// Guards hold an intent that would remove more leaves than an operator
	// wants to see go unasked.
	Guards Guards `yaml:"guards"`

	// AuthService says which leaves belong to one user.
	AuthService AuthService `yaml:"authsvc"`
}

// KeyRef says where one private key is: an unencrypted PKCS#8 PEM of the
// signature scheme of a cipher suite. Exactly one field is set.
type KeyRef struct {
	// File is a path. Others than its owner must not be able to read it.
	// Optional.
	File string `yaml:"file,omitempty"`

	// Credential is the name of a file in $CREDENTIALS_DIRECTORY, as systemd's
	// LoadCredential= gives it. Optional.
	Credential string `yaml:"credential,omitempty"`

	// Env is the name of an environment variable that holds the PEM itself. It
	// must not begin with LEAVEBROKER_. Optional.
	Env string `yaml:"env,omitempty"`
}

// Pacing slows proposals down in bursts of epochs.
type Pacing struct {
	// MinEpoch is the age that an epoch must reach before removals are proposed
	// for it, from 0 to 1h. Default: 0s, at once.
	MinEpoch Duration `yaml:"min_epoch"`
}

// CodePoints are registry values; two meanings for one value in one registry
// are refused, as are values that RFC 9420, Section 17 gives away.
type CodePoints struct {
	// SelfRemove is the proposal type of SelfRemove. 0x0008, its value in the
	// first draft, disables app_data_update unless the file gives that another
	// value. Default: 0x000a.
	SelfRemove uint16 `yaml:"self_remove"`

	// LeafOperationProposal is the proposal type of LeafOperationProposal.
	// Default: 0xf0a1.
	LeafOperationProposal uint16 `yaml:"leaf_operation_proposal"`

	// LeafOperationIntentWireFormat is the wire format of a
	// LeafOperationIntent. Default: 0xf0a1.
	LeafOperationIntentWireFormat uint16 `yaml:"leaf_operation_intent_wire_format"`

	// Replace is the proposal type of Replace. Default: 0xf0a2.
	Replace uint16 `yaml:"replace"`

	// LeafNodeEpoch is the extension type of leaf_node_epoch. Default: 0xf0a3.
	LeafNodeEpoch uint16 `yaml:"leaf_node_epoch"`

	// AppDataUpdate is the proposal type of AppDataUpdate; 0 disables it.
	// Default: 0x0008.
	AppDataUpdate uint16 `yaml:"app_data_update"`
}

// CipherSuite gives a number to a cipher suite. Two numbers may mean one suite.
type CipherSuite struct {
	// ID is the number, not that of a suite in RFC 9420. Required.
	ID uint16 `yaml:"id"`

	// Name says what the suite is made of: MLS_LVL_KEM_AEAD_HASH_SIG (RFC 9420,
	// Section 17.1). HASH is SHA256, SHA384 or SHA512; SIG is Ed25519, Ed448,
	// P256, P384, P521, MLDSA44, MLDSA65 or MLDSA87; the broker uses nothing
	// else of it. Required.
	Name string `yaml:"name"`
}

// Quotas are rates and counts of one tenant, for each instance: of several, each
// takes so many. A group that another instance works on counts as one open intent.
type Quotas struct {
	// IntentsPerSecond is how many intents are taken per second over time.
	// Default: 100. 0 means no limit.
	IntentsPerSecond int `yaml:"intents_per_second"`

	// Burst is how many intents are taken at once, at least 1 where
	// intents_per_second is set. Default: 1000.
	Burst int `yaml:"burst"`

	// OpenIntents is how many intents may be parked, held or pending at a time.
	// Default: 100000. 0 means no limit.
	OpenIntents int `yaml:"open_intents"`
}

// Guards bound what one intent may remove before an operator is asked.
type Guards struct {
	// MaxAssociated is the largest number of leaves beside the sender's that one
	// intent removes, at least 1. Default: 32.
	MaxAssociated int `yaml:"max_associated"`

	// MaxFraction is the largest part of a group's members that one intent
	// removes beside the sender, more than 0 and at most 1. Default: 1, no limit.
	MaxFraction float64 `yaml:"max_fraction"`
}

// AuthService is the tenant's Authentication Service (RFC 9420, Section 5.3.1)
// as far as the broker asks it: which credentials belong to one subject.
type AuthService struct {
	// Type is none, which knows nobody, so that every intent removes its
	// sender's leaf alone, or static, which applies rules. Default: none.
	Type string `yaml:"type"`

	// CredentialsVouched states that the tenant's delivery service admits a
	// basic credential only from the user it names. Without it the rules decide
	// nothing, as anybody may claim any identity. Default: false.
	CredentialsVouched bool `yaml:"credentials_vouched"`

	// Shared states that the members ask the same service, so that an intent
	// which removes associated members means the same to all. It is needed for
	// form leaf_operation_proposal, and for joiners to include such intents.
	// Only for a type that is not none. Default: false.
	Shared bool `yaml:"shared"`

	// OnError says what happens to associated leaves while the service fails:
	// hold them and ask again, or sender_only, give them up. use_stale is not
	// supported yet. Default: hold.
	OnError string `yaml:"on_error"`

	// Timeout is how long one question may take in all, from 1ms to 1m.
	// Default: 2s.
	Timeout Duration `yaml:"timeout"`

	// Rules are tried in order; the first that matches a credential decides.
	// Required for type static, and for no other. Default: empty.
	Rules []Rule `yaml:"rules"`
}

// Rule finds the subject in a credential. Exactly one of Equality and Pattern
// is set.
type Rule struct {
	// Match is the credential type: basic. Default: basic.
	Match string `yaml:"match"`

	// Encoding turns the identity's bytes into the text that is matched: utf8
	// (anything else does not match), hex (lowercase), base64 (standard,
	// padded), uint64be (8 bytes, as a decimal number) or raw (bytes as they
	// are). Default: utf8.
	Encoding string `yaml:"encoding"`

	// Equality is whole_identity: the text is the subject. Optional.
	Equality string `yaml:"equality,omitempty"`

	// Pattern is an RE2 expression with a group named subject that matches the
	// whole text. Optional.
	Pattern string `yaml:"pattern,omitempty"`
}
