package broker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nuid"
	"go.uber.org/zap"
	"leavebroker/intents"
	"leavebroker/mlscore"
)

// serviceName is the name of the micro service.
const serviceName = "leavebroker"

// Options say what a broker serves and where. Zero values are usable but for
// Tenants, and for Embedded.StateDir where there is no Conn.URL.
type Options struct {
	// Prefix is the first token of all subjects. Default: leave.
	Prefix string
	// Partitions is the number of partitions of the log; it cannot change
	// afterwards. Default: 64.
	Partitions int
	// Tenants are the tenants served, at least one.
	Tenants []Tenant

	// Embedded runs a server in this process, unless Conn has a URL.
	Embedded Embedded
	// Conn reaches a server elsewhere.
	Conn Conn

	// Instance names this process among those that serve the same logs. Default: a
	// random one.
	Instance string
	// Replicas is the number of servers that store each message: 1, 3 or 5. 1 for
	// the embedded server. Default: 1.
	Replicas int
	// KeepAssets makes nothing on the server: streams, consumers and buckets have
	// to be there, and as they are needed.
	KeepAssets bool

	// Limits bounds what is accepted from others.
	Limits Limits
	// PinTTL is how long an instance that has gone silent keeps a partition.
	// Default: 3s.
	PinTTL time.Duration
	// AckWait is how long the server waits for the acknowledgement of an input.
	// Default: 3s.
	AckWait time.Duration
	// EventsMaxAge is how long events are stored. Default: 30 days.
	EventsMaxAge time.Duration
	// Cleartext writes the credentials of users into events as they are.
	Cleartext bool
	// EventKey keys the hashes that stand for credentials otherwise. Empty:
	// events name no credential.
	EventKey []byte
	// CacheBytes bounds the groups held in memory, in bytes as they are estimated.
	// Default: 256 MiB.
	CacheBytes int64
	// CompactEntries is the number of entries in a group's log above which it is
	// compacted in the background. Default: 1,000.
	CompactEntries int
	// CompactInterval is how often all logs are looked through. Default: 10m.
	CompactInterval time.Duration

	// Version is the program's, as MAJOR.MINOR.PATCH. Default: 0.0.0.
	Version string
	// Logger takes what operators should read. Default: nothing is logged.
	Logger *zap.Logger
	// Clock is the time. Default: time.Now.
	Clock func() time.Time

	testOnlyFault func(step string) error // see effects.go
}

// Limits bounds inputs; zero is the default.
type Limits struct {
	IntentBytes  int // the largest intent, as an MLSMessage. Default: 16 KiB
	MessageBytes int // the largest other message. Default: 1 MiB
	ObjectBytes  int // the largest GroupInfo by reference. Default: 64 MiB
}

// Tenant is a delivery service and its groups.
type Tenant struct {
	// Name is a token of every subject of the tenant: ^[a-z0-9][a-z0-9_-]{0,62}$.
	Name string
	// Signers sign proposals: at most one for each signature scheme is used in
	// a group, the first that its external_senders list.
	Signers []mlscore.Signer
	// Dedicated gives the tenant a stream of its own. It cannot change once the
	// tenant has a log.
	Dedicated bool
	// Policy is the tenant's rules. Its Tenant, SenderKeys, Association and
	// Parallel are set by New.
	Policy intents.Policy
	// AuthService tells which members belong to one user. Optional: without it
	// an intent removes its sender alone.
	AuthService AuthenticationService
	// AuthTimeout bounds one question to it. Default: 2s.
	AuthTimeout time.Duration
	// Quotas bound what clients send through intent.submit.
	Quotas Quotas
}

// Quotas are the rates and counts of a tenant; 0 is no limit.
type Quotas struct {
	IntentsPerSecond float64
	Burst            int // how many at once; at least 1 where there is a rate
	OpenIntents      int // parked, held or pending at a time
}

// AuthenticationService tells which members of a group belong to one user
// (Section 2.5 of the draft).
type AuthenticationService interface {
	// Associate says which candidates of a question belong to the sender's
	// user. An answer is a subset of the question; an error is no answer, and
	// the question comes again. The deadline is that of ctx. It is called by
	// several goroutines at once.
	Associate(ctx context.Context, tenant string, q intents.Question) (intents.Answer, error)
}

const (
	defaultPrefix          = "leave"
	defaultPartitions      = 64
	maxPartitions          = 1024
	defaultIntentBytes     = 16 << 10
	defaultMessageBytes    = 1 << 20
	maxMessageBytes        = 8 << 20
	defaultPinTTL          = 3 * time.Second
	defaultAckWait         = 3 * time.Second
	defaultEventsMaxAge    = 30 * 24 * time.Hour
	defaultObjectBytes     = 64 << 20
	maxObjectBytes         = 1 << 30
	defaultCacheBytes      = 256 << 20
	defaultCompactEntries  = 1000
	defaultCompactInterval = 10 * time.Minute
	defaultAuthTimeout     = 2 * time.Second
)

// versionPattern is what a micro service's version has to be.
var versionPattern = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

func setDefault[T comparable](p *T, v T) {
	if *p == *new(T) {
		*p = v
	}
}

// withDefaults is a copy with every default in place.
func (o Options) withDefaults() Options {
	setDefault(&o.Prefix, defaultPrefix)
	setDefault(&o.Partitions, defaultPartitions)
	setDefault(&o.Instance, nuid.Next())
	setDefault(&o.Replicas, 1)
	setDefault(&o.Limits.IntentBytes, defaultIntentBytes)
	setDefault(&o.Limits.MessageBytes, defaultMessageBytes)
	setDefault(&o.PinTTL, defaultPinTTL)
	setDefault(&o.AckWait, defaultAckWait)
	setDefault(&o.EventsMaxAge, defaultEventsMaxAge)
	setDefault(&o.Limits.ObjectBytes, max(defaultObjectBytes, o.Limits.MessageBytes))
	setDefault(&o.CacheBytes, defaultCacheBytes)
	setDefault(&o.CompactEntries, defaultCompactEntries)
	setDefault(&o.CompactInterval, defaultCompactInterval)
	setDefault(&o.Version, "0.0.0")
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	o.Tenants = slices.Clone(o.Tenants)
	for i := range o.Tenants {
		setDefault(&o.Tenants[i].AuthTimeout, defaultAuthTimeout)
	}
	return o
}

// validate reports everything that is wrong with options that have their
// defaults.
func (o *Options) validate() error {
	var errs []error
	check := func(ok bool, format string, v ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, v...))
		}
	}
	check(prefixPattern.MatchString(o.Prefix), "prefix %q is not 1 to 32 of A-Z a-z 0-9 _ -", o.Prefix)
	check(o.Partitions >= 1 && o.Partitions <= maxPartitions, "%d partitions, not 1 to %d", o.Partitions, maxPartitions)
	check(prefixPattern.MatchString(o.Instance), "instance %q is not 1 to 32 of A-Z a-z 0-9 _ -", o.Instance)
	check(o.Replicas == 1 || o.Conn.URL != "" && (o.Replicas == 3 || o.Replicas == 5), "%d replicas: not 1, or 3 or 5 on a server elsewhere", o.Replicas)
	check(o.Limits.MessageBytes > 0 && o.Limits.MessageBytes <= maxMessageBytes, "messages of %d bytes, not 1 to %d", o.Limits.MessageBytes, maxMessageBytes)
	check(o.Limits.IntentBytes > 0 && o.Limits.IntentBytes <= o.Limits.MessageBytes, "intents of %d bytes, not 1 to %d", o.Limits.IntentBytes, o.Limits.MessageBytes)
	check(o.Limits.ObjectBytes >= o.Limits.MessageBytes && o.Limits.ObjectBytes <= maxObjectBytes, "objects of %d bytes, not %d to %d", o.Limits.ObjectBytes, o.Limits.MessageBytes, maxObjectBytes)
	check(o.CacheBytes > 0, "a cache of %d bytes", o.CacheBytes)
	check(o.CompactEntries >= 10, "logs of %d entries are compacted, under 10", o.CompactEntries)
	check(o.CompactInterval >= time.Second, "logs are looked through every %s, under 1s", o.CompactInterval)
	check(o.PinTTL >= 100*time.Millisecond, "pin TTL %s is under 100ms", o.PinTTL)
	check(o.AckWait >= 100*time.Millisecond, "ack wait %s is under 100ms", o.AckWait)
	check(o.EventsMaxAge >= time.Minute, "events for %s, under 1m", o.EventsMaxAge)
	check(versionPattern.MatchString(o.Version), "version %q is not MAJOR.MINOR.PATCH", o.Version)
	check(len(o.Tenants) > 0, "no tenant")
	seen := map[string]bool{}
	for i := range o.Tenants {
		t := &o.Tenants[i]
		check(validTenant(t.Name), "tenant %q is not ^[a-z0-9][a-z0-9_-]{0,62}$", t.Name)
		check(!seen[t.Name], "tenant %q twice", t.Name)
		check(len(t.Signers) > 0, "tenant %q has no signer", t.Name)
		check(t.Quotas.IntentsPerSecond >= 0 && t.Quotas.OpenIntents >= 0, "tenant %q: a negative quota", t.Name)
		check(t.Quotas.IntentsPerSecond == 0 || t.Quotas.Burst >= 1, "tenant %q: a rate without burst", t.Name)
		seen[t.Name] = true
	}
	return errors.Join(errs...)
}
