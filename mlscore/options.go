package mlscore

// Options tell how to judge a group. The zero value is usable.
type Options struct {
	// Registry holds the deployment's code points; nil is DefaultRegistry.
	Registry *Registry
	// Parallel verifies a GroupInfo and its tree; nil does so one after another.
	Parallel Parallel
	// Time is when the group is judged, in seconds since the Unix epoch; 0 is
	// not known, and no lifetime is judged. See PublicGroup.At.
	Time uint64
	// Lifetimes says what to do with a leaf outside its lifetime at that time
	// (RFC 9420, Section 7.3). The default reports FlagLifetime: members need
	// not look. Refuse makes a group unfollowable once one leaf has expired.
	Lifetimes Policy
	// RequireLeafNodeEpoch refuses every leaf without leaf_node_epoch, in key
	// packages too. draft-barnes-mls-replace leaves open how a group asks for it.
	RequireLeafNodeEpoch bool
	// ReplacedSignatureKey says what to do with a Replace whose leaf has another
	// signature_key than the one it replaces: a member may be impersonated that
	// way, and draft-barnes-mls-replace does not forbid it. The default reports
	// FlagReplacedSignatureKey, as members that follow the draft accept it.
	ReplacedSignatureKey Policy
}

// withDefaults fills in what is not set.
func (o Options) withDefaults() Options {
	if o.Registry == nil {
		o.Registry = DefaultRegistry()
	}
	return o
}

// Policy says what to do with something that members may accept.
type Policy uint8

// The policies.
const (
	// Report accepts and flags.
	Report Policy = iota
	// Refuse makes it ErrInvalid.
	Refuse
)
