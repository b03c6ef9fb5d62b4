package broker

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// duplicateWindow is how long the server remembers message IDs: long
	// enough for a publisher's retries.
	duplicateWindow = 2 * time.Minute
	// removalsAckWait and removalsMaxAckPending are those of delivery services.
	removalsAckWait       = 30 * time.Second
	removalsMaxAckPending = 1000
	partitionMaxWaiting   = 64
)

// assets are what the broker keeps on the server.
type assets struct {
	names       names
	maxMessage  int
	pinTTL      time.Duration
	ackWait     time.Duration
	eventMaxAge time.Duration
	tenants     []string
}

// ensure makes what does not exist and compares what does. What can be changed
// safely is brought to the options' values; any other difference is an error
// that names it.
func (a assets) ensure(ctx context.Context, js jetstream.JetStream) (ledger jetstream.KeyValue, err error) {
	if err := a.ensureStream(ctx, js, a.logConfig()); err != nil {
		return nil, err
	}
	if err := a.ensureStream(ctx, js, a.eventConfig()); err != nil {
		return nil, err
	}
	for p := range a.names.partitions {
		if err := a.ensureConsumer(ctx, js, a.partitionConfig(p)); err != nil {
			return nil, err
		}
	}
	for _, t := range a.tenants {
		if err := a.ensureConsumer(ctx, js, a.removalsConfig(t)); err != nil {
			return nil, err
		}
	}
	return a.ensureLedger(ctx, js)
}

// logConfig is the stream of the logs of all groups. Nothing in it expires or
// is rolled up, and a full store refuses new messages instead of dropping old
// ones.
func (a assets) logConfig() jetstream.StreamConfig {
	source, destination := a.names.transform()
	liveSource, liveDestination := a.names.republish()
	return jetstream.StreamConfig{
		Name:              a.names.logStream(),
		Description:       "leavebroker: the log of each group",
		Subjects:          slices.Concat(a.names.inputs(), a.names.owned()),
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.FileStorage,
		Discard:           jetstream.DiscardNew,
		Duplicates:        duplicateWindow,
		MaxMsgSize:        int32(a.maxMessage + headerRoom),
		AllowDirect:       true,
		DenyDelete:        true,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgsPerSubject: -1,
		MaxConsumers:      -1,
		Replicas:          1,
		SubjectTransform:  &jetstream.SubjectTransformConfig{Source: source, Destination: destination},
		RePublish:         &jetstream.RePublish{Source: liveSource, Destination: liveDestination},
	}
}

func (a assets) eventConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              a.names.eventStream(),
		Description:       "leavebroker: what happened to intents and groups",
		Subjects:          []string{a.names.events()},
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.FileStorage,
		Discard:           jetstream.DiscardOld,
		MaxAge:            a.eventMaxAge,
		Duplicates:        min(duplicateWindow, a.eventMaxAge),
		AllowDirect:       true,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgsPerSubject: -1,
		MaxConsumers:      -1,
		MaxMsgSize:        -1,
		Replicas:          1,
	}
}

// ensureStream makes a stream or compares it. The sizes and times of a stream
// may change; what it stores, and how, may not.
func (a assets) ensureStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = js.CreateStream(ctx, want)
		return wrapAsset(err, "stream", want.Name)
	}
	if err != nil {
		return wrapAsset(err, "stream", want.Name)
	}
	have := s.CachedInfo().Config
	if err := refuseDifferences("stream", want.Name, []difference{
		{"subjects", sorted(have.Subjects), sorted(want.Subjects)},
		{"retention", have.Retention, want.Retention},
		{"storage", have.Storage, want.Storage},
		{"discard", have.Discard, want.Discard},
		{"max_msgs", have.MaxMsgs, want.MaxMsgs},
		{"max_msgs_per_subject", have.MaxMsgsPerSubject, want.MaxMsgsPerSubject},
		{"max_age of the log", logAge(a, have), logAge(a, want)},
		{"allow_direct", have.AllowDirect, want.AllowDirect},
		{"deny_delete", have.DenyDelete, want.DenyDelete},
		{"allow_rollup_hdrs", have.AllowRollup, want.AllowRollup},
		{"allow_msg_ttl", have.AllowMsgTTL, want.AllowMsgTTL},
		{"subject_transform", deref(have.SubjectTransform), deref(want.SubjectTransform)},
		{"republish", deref(have.RePublish), deref(want.RePublish)},
		{"mirror or sources", have.Mirror != nil || len(have.Sources) > 0, false},
		{"sealed", have.Sealed, false},
		{"no_ack", have.NoAck, false},
	}); err != nil {
		return err
	}
	if have.MaxAge == want.MaxAge && have.MaxMsgSize == want.MaxMsgSize && have.Duplicates == want.Duplicates {
		return nil
	}
	have.MaxAge, have.MaxMsgSize, have.Duplicates = want.MaxAge, want.MaxMsgSize, want.Duplicates
	_, err = js.UpdateStream(ctx, have)
	return wrapAsset(err, "stream", want.Name)
}

// logAge is the age limit of the log; that of the events may change.
func logAge(a assets, c jetstream.StreamConfig) time.Duration {
	if c.Name != a.names.logStream() {
		return 0
	}
	return c.MaxAge
}

// partitionConfig is the consumer that one instance at a time reads a
// partition with, one message after the other.
func (a assets) partitionConfig(p int) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:        a.names.partitionConsumer(p),
		FilterSubjects: a.names.partitionFilters(p),
		DeliverPolicy:  jetstream.DeliverAllPolicy,
		AckPolicy:      jetstream.AckExplicitPolicy,
		MaxAckPending:  1,
		MaxDeliver:     -1,
		MaxWaiting:     partitionMaxWaiting,
		AckWait:        a.ackWait,
		PriorityPolicy: jetstream.PriorityPolicyPinned,
		PriorityGroups: []string{priorityGroup},
		PinnedTTL:      a.pinTTL,
	}
}

// removalsConfig is the consumer of a tenant's delivery service. Every
// acknowledgement is sampled, which tells the broker of deliveries.
func (a assets) removalsConfig(tenant string) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:         a.names.removalsConsumer(tenant),
		FilterSubjects:  []string{a.names.removalsFilter(tenant)},
		DeliverPolicy:   jetstream.DeliverAllPolicy,
		AckPolicy:       jetstream.AckExplicitPolicy,
		MaxAckPending:   removalsMaxAckPending,
		MaxDeliver:      -1,
		AckWait:         removalsAckWait,
		SampleFrequency: "100",
	}
}

// ensureConsumer makes a consumer or compares it. Of an existing one only the
// times of a partition's change.
func (a assets) ensureConsumer(ctx context.Context, js jetstream.JetStream, want jetstream.ConsumerConfig) error {
	c, err := js.Consumer(ctx, a.names.logStream(), want.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		_, err = js.CreateConsumer(ctx, a.names.logStream(), want)
		return wrapAsset(err, "consumer", want.Durable)
	}
	if err != nil {
		return wrapAsset(err, "consumer", want.Durable)
	}
	have := c.CachedInfo().Config
	if err := refuseDifferences("consumer", want.Durable, []difference{
		{"filter_subjects", sorted(filters(have)), sorted(filters(want))},
		{"deliver_policy", have.DeliverPolicy, want.DeliverPolicy},
		{"ack_policy", have.AckPolicy, want.AckPolicy},
		{"max_deliver", have.MaxDeliver, want.MaxDeliver},
		{"priority_policy", have.PriorityPolicy, want.PriorityPolicy},
		{"priority_groups", sorted(have.PriorityGroups), sorted(want.PriorityGroups)},
		{"one message at a time", have.MaxAckPending == 1, want.MaxAckPending == 1},
		{"headers_only", have.HeadersOnly, false},
		{"sample_freq", have.SampleFrequency, want.SampleFrequency},
	}); err != nil {
		return err
	}
	isPartition := want.MaxAckPending == 1
	if !isPartition || have.AckWait == want.AckWait && have.PinnedTTL == want.PinnedTTL {
		return nil
	}
	have.AckWait, have.PinnedTTL = want.AckWait, want.PinnedTTL
	_, err = js.UpdateConsumer(ctx, a.names.logStream(), have)
	return wrapAsset(err, "consumer", want.Durable)
}

func filters(c jetstream.ConsumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return c.FilterSubjects
}

// ensureLedger makes the bucket of the ledger or compares it.
func (a assets) ensureLedger(ctx context.Context, js jetstream.JetStream) (jetstream.KeyValue, error) {
	name := a.names.ledgerBucket()
	kv, err := js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: name, Description: "leavebroker: what is remembered of each group",
			History: 1, Storage: jetstream.FileStorage, Replicas: 1,
		})
		return kv, wrapAsset(err, "bucket", name)
	}
	if err != nil {
		return nil, wrapAsset(err, "bucket", name)
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return nil, wrapAsset(err, "bucket", name)
	}
	return kv, refuseDifferences("bucket", name, []difference{
		{"history", status.History(), int64(1)},
		{"ttl", status.TTL(), time.Duration(0)},
	})
}

// AssetError tells how something that exists on the server differs from what
// the broker needs.
type AssetError struct {
	Kind, Name  string   // stream, consumer or bucket
	Differences []string // "field: is …, must be …"
}

func (e *AssetError) Error() string {
	s := fmt.Sprintf("%s %q exists and differs", e.Kind, e.Name)
	for _, d := range e.Differences {
		s += "; " + d
	}
	return s
}

type difference struct {
	field      string
	have, want any
}

func refuseDifferences(kind, name string, fields []difference) error {
	var found []string
	for _, d := range fields {
		if !reflect.DeepEqual(d.have, d.want) {
			found = append(found, fmt.Sprintf("%s: is %v, must be %v", d.field, d.have, d.want))
		}
	}
	if found == nil {
		return nil
	}
	return &AssetError{kind, name, found}
}

func wrapAsset(err error, kind, name string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %q: %w", kind, name, err)
}

func sorted(s []string) []string {
	s = append([]string{}, s...)
	slices.Sort(s)
	return s
}

func deref[T any](p *T) T {
	if p == nil {
		return *new(T)
	}
	return *p
}
