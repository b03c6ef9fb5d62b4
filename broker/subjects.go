package broker

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kind is the last token of a subject of the log: what the message is.
type kind string

// The kinds that others publish, and the broker's own.
const (
	kindIntent   kind = "intent"
	kindCommit   kind = "commit"
	kindProposal kind = "proposal"
	kindInfo     kind = "info"
	kindClosed   kind = "closed"

	kindRemoval kind = "removal"
	kindAnswer  kind = "answer"
	kindControl kind = "control"
)

// inputKinds come in through P.in, ownKinds are written by the broker, and
// consumedKinds are what partitions consume: all but the output.
var (
	inputKinds    = []kind{kindIntent, kindCommit, kindProposal, kindInfo, kindClosed}
	ownKinds      = []kind{kindRemoval, kindAnswer, kindControl}
	consumedKinds = slices.Concat(inputKinds, []kind{kindAnswer, kindControl})
)

// isWorkedOn says whether an input is folded when it comes even if its group has
// nothing to do: an intent and an operator's word always matter.
func (k kind) isWorkedOn() bool { return k == kindIntent || k == kindControl }

// nowhere stands for a tenant or group in the subject of an event about a
// message whose subject names none.
const nowhere = "_"

var (
	prefixPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)
	tenantPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	typePattern   = regexp.MustCompile(`^[a-z_]{1,32}$`)
)

// validTenant says whether a token may name a tenant.
func validTenant(name string) bool { return tenantPattern.MatchString(name) }

// maxGroupIDBytes is the longest group_id that a token holds itself.
const maxGroupIDBytes = 64

// GroupToken is the token that stands for a group in subjects: unpadded
// base64url of its group_id; "=" and unpadded base64url of the SHA-256 of the
// group_id where that is empty or longer than 64 bytes.
func GroupToken(groupID []byte) string {
	if len(groupID) == 0 || len(groupID) > maxGroupIDBytes {
		sum := sha256.Sum256(groupID)
		return "=" + base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return base64.RawURLEncoding.EncodeToString(groupID)
}

// parseGroupToken gives the group_id of a token, or nil where the token is a
// hash and the group_id has to be learnt from the log.
func parseGroupToken(token string) ([]byte, error) {
	hash, hashed := strings.CutPrefix(token, "=")
	b, err := base64.RawURLEncoding.Strict().DecodeString(hash)
	switch {
	case err != nil, base64.RawURLEncoding.EncodeToString(b) != hash: // decoding passes over line ends
		return nil, fmt.Errorf("group token %q is not unpadded base64url", token)
	case token == GroupToken(nil):
		return []byte{}, nil
	case hashed && len(b) == sha256.Size:
		return nil, nil
	case hashed || len(b) == 0 || len(b) > maxGroupIDBytes:
		return nil, fmt.Errorf("group token %q has %d bytes", token, len(b))
	}
	return b, nil
}

// groupKey names a group: tenant, and group token.
type groupKey struct{ tenant, group string }

func (k groupKey) String() string { return k.tenant + "." + k.group }

// parseGroupKey parses the key of the ledger.
func parseGroupKey(s string) (groupKey, error) {
	tenant, group, _ := strings.Cut(s, ".")
	if !validTenant(tenant) {
		return groupKey{}, fmt.Errorf("tenant %q", tenant)
	}
	if _, err := parseGroupToken(group); err != nil {
		return groupKey{}, err
	}
	return groupKey{tenant, group}, nil
}

// names builds and parses everything that has a name on the server, for one
// stream of logs.
type names struct {
	prefix     string
	partitions int
	// dedicated is the tenant that has the stream to itself; empty for the
	// stream that the others share.
	dedicated string
	// sharing are those others, named only where some tenant has a stream of its
	// own; empty: all tenants share.
	sharing []string
}

// tenantTokens are the tenants of the stream as tokens of its subjects.
func (n names) tenantTokens() []string {
	switch {
	case n.dedicated != "":
		return []string{n.dedicated}
	case len(n.sharing) > 0:
		return n.sharing
	}
	return []string{"*"}
}

// priorityGroup is the one priority group of the partitions' consumers.
const priorityGroup = "owner"

// partition is the partition of a group: FNV-1a of tenant and group token one
// after the other, modulo the number of partitions, which is what the server
// computes for {{partition(n,1,2)}}.
func (n names) partition(k groupKey) int {
	h := fnv.New32a()
	h.Write([]byte(k.tenant))
	h.Write([]byte(k.group))
	return int(h.Sum32() % uint32(n.partitions))
}

func (n names) logStream() string {
	if n.dedicated != "" {
		return n.prefix + "-log-" + n.dedicated
	}
	return n.prefix + "-log"
}
func (n names) eventStream() string                   { return n.prefix + "-events" }
func (n names) ledgerBucket() string                  { return n.prefix + "-ledger" }
func (n names) snapshotBucket() string                { return n.prefix + "-snapshots" }
func (n names) blobBucket() string                    { return n.prefix + "-blobs" }
func (n names) infoBucket() string                    { return n.prefix + "-infos" }
func (n names) instances() string                     { return n.prefix + ".instances" }
func (n names) partitionConsumer(p int) string        { return fmt.Sprintf("partition-%04d", p) }
func (n names) removalsConsumer(tenant string) string { return "removals-" + tenant }

// in is the subject of an input.
func (n names) in(k groupKey, what kind) string {
	return n.prefix + ".in." + k.tenant + "." + k.group + "." + string(what)
}

// inputs are the subjects by which the stream takes inputs.
func (n names) inputs() []string {
	var subjects []string
	for _, tenant := range n.tenantTokens() {
		for _, k := range inputKinds {
			subjects = append(subjects, n.prefix+".in."+tenant+".*."+string(k))
		}
	}
	return subjects
}

// transform is the source and destination of the rewriting of inputs.
func (n names) transform() (source, destination string) {
	return n.prefix + ".in.*.*.*",
		fmt.Sprintf("%s.log.{{partition(%d,1,2)}}.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}", n.prefix, n.partitions)
}

// log is the subject of a stored message.
func (n names) log(k groupKey, what kind) string {
	return fmt.Sprintf("%s.log.%d.%s.%s.%s", n.prefix, n.partition(k), k.tenant, k.group, what)
}

// logOf is the filter of everything stored about a group.
func (n names) logOf(k groupKey) string { return n.log(k, "*") }

// logOfPartition is the filter of everything stored in a partition.
func (n names) logOfPartition(p int) string { return fmt.Sprintf("%s.log.%d.>", n.prefix, p) }

// logOfAll is the filter of everything stored.
func (n names) logOfAll() string { return n.prefix + ".log.>" }

// logOfTenant is the filter of everything stored about a tenant.
func (n names) logOfTenant(tenant string) string { return n.prefix + ".log.*." + tenant + ".>" }

// owned are the subjects by which the stream takes what the broker writes.
func (n names) owned() []string {
	var subjects []string
	for _, tenant := range n.tenantTokens() {
		for _, k := range ownKinds {
			subjects = append(subjects, n.prefix+".log.*."+tenant+".*."+string(k))
		}
	}
	return subjects
}

// partitionFilters are the subjects that the consumer of a partition reads.
func (n names) partitionFilters(p int) []string {
	var subjects []string
	for _, k := range consumedKinds {
		subjects = append(subjects, fmt.Sprintf("%s.log.%d.*.*.%s", n.prefix, p, k))
	}
	return subjects
}

// isConsumed says whether a subject of the log is among the filters of its
// partition.
func isConsumed(subject string) bool {
	t := strings.Split(subject, ".")
	return len(t) == 6 && slices.Contains(consumedKinds, kind(t[5]))
}

// removalsFilter are the outputs of a tenant.
func (n names) removalsFilter(tenant string) string {
	return n.prefix + ".log.*." + tenant + ".*." + string(kindRemoval)
}

// republish is the source and destination of the live copy of outputs.
func (n names) republish() (source, destination string) {
	return n.prefix + ".log.*.*.*." + string(kindRemoval), n.prefix + ".removal.{{wildcard(2)}}.{{wildcard(3)}}"
}

// removal is the live subject of a group's outputs.
func (n names) removal(k groupKey) string { return n.prefix + ".removal." + k.tenant + "." + k.group }

// parseLog parses the subject of a stored message.
func (n names) parseLog(subject string) (groupKey, kind, error) {
	t := strings.Split(subject, ".")
	if len(t) != 6 || t[0] != n.prefix || t[1] != "log" {
		return groupKey{}, "", fmt.Errorf("subject %q is not of the log", subject)
	}
	k, err := parseGroupKey(t[3] + "." + t[4])
	if err != nil {
		return groupKey{}, "", fmt.Errorf("subject %q: %w", subject, err)
	}
	if t[2] != strconv.Itoa(n.partition(k)) {
		return groupKey{}, "", fmt.Errorf("subject %q: the partition is %d", subject, n.partition(k))
	}
	what := kind(t[5])
	if !slices.Contains(inputKinds, what) && !slices.Contains(ownKinds, what) {
		return groupKey{}, "", fmt.Errorf("subject %q: unknown kind", subject)
	}
	return k, what, nil
}

// event is the subject of an event.
func (n names) event(k groupKey, typ string) string {
	return n.prefix + ".event." + k.tenant + "." + k.group + "." + typ
}

// events are all events.
func (n names) events() string { return n.prefix + ".event.*.*.*" }

// parseEvent parses the subject of an event.
func (n names) parseEvent(subject string) (k groupKey, typ string, err error) {
	t := strings.Split(subject, ".")
	if len(t) != 5 || t[0] != n.prefix || t[1] != "event" || !typePattern.MatchString(t[4]) {
		return groupKey{}, "", fmt.Errorf("subject %q is not of an event", subject)
	}
	return groupKey{t[2], t[3]}, t[4], nil
}

// api is the subject of a service, tenant "*" for all tenants.
func (n names) api(tenant, endpoint string) string {
	return n.prefix + ".api." + tenant + "." + endpoint
}

// parseAPI gives the tenant of a request's subject.
func (n names) parseAPI(subject string) (tenant string, err error) {
	t := strings.Split(subject, ".")
	if len(t) != 5 || t[0] != n.prefix || t[1] != "api" || !validTenant(t[2]) {
		return "", fmt.Errorf("subject %q is not of a service", subject)
	}
	return t[2], nil
}

// ackMetric is where the server tells of acknowledgements by a tenant's
// delivery service.
func (n names) ackMetric(tenant string) string {
	return "$JS.EVENT.METRIC.CONSUMER.ACK." + n.logStream() + "." + n.removalsConsumer(tenant)
}
