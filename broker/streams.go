package broker

import (
	"context"
	"encoding/json"
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

	// logStart is the position before the first entry of a log. It is not 0, since
	// a server takes a consumer that was reset to sequence 1 for one that has done
	// nothing yet, and may give it an older state from its disk.
	logStart = 1
)

// assets are what the broker keeps on the server.
type assets struct {
	names       names
	maxMessage  int
	pinTTL      time.Duration
	ackWait     time.Duration
	eventMaxAge time.Duration
	tenants     []string
	replicas    int
	mayMake     bool // otherwise everything has to be there
	// dropConsumer removes what the server kept of a consumer that it cannot read
	// any more; nil where the server is elsewhere.
	dropConsumer func(stream, consumer string) error
}

// ensureLog makes or compares the stream of the logs and its consumers. Those of
// partitions begin after a position.
func (a assets) ensureLog(ctx context.Context, js jetstream.JetStream, position func(partition int) (uint64, error)) error {
	if err := a.ensureStream(ctx, js, a.logConfig()); err != nil {
		return err
	}
	for p := range a.names.partitions {
		if err := a.ensurePartition(ctx, js, p, position); err != nil {
			return err
		}
	}
	for _, t := range a.tenants {
		if err := a.ensureConsumer(ctx, js, a.removalsConfig(t)); err != nil {
			return err
		}
	}
	return nil
}

func (a assets) ensurePartition(ctx context.Context, js jetstream.JetStream, p int, position func(partition int) (uint64, error)) error {
	after, err := position(p)
	if err != nil {
		return err
	}
	return a.ensureConsumer(ctx, js, a.partitionConfig(p, after))
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
		FirstSeq:          logStart + 1,
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
		Replicas:          a.replicas,
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
		Replicas:          a.replicas,
	}
}

// ensureStream makes a stream or compares it. Its sizes, times and tenants are
// brought to the options' values; any other difference is an error.
func (a assets) ensureStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	s, err := js.Stream(ctx, want.Name)
	if isNotFound(err) {
		if !a.mayMake {
			return missingAsset("stream", want.Name, want)
		}
		_, err = js.CreateStream(ctx, want)
		return wrapAsset(err, "stream", want.Name)
	}
	if err != nil {
		return wrapAsset(err, "stream", want.Name)
	}
	have := s.CachedInfo().Config
	if err := a.compareStream(have, want); err != nil {
		return err
	}
	if len(changeable(have, want)) == 0 {
		return nil
	}
	if !a.mayMake {
		return refuseDifferences("stream", want.Name, changeable(have, want))
	}
	have.Subjects, have.MaxAge, have.MaxMsgSize, have.Duplicates = want.Subjects, want.MaxAge, want.MaxMsgSize, want.Duplicates
	_, err = js.UpdateStream(ctx, have)
	return wrapAsset(err, "stream", want.Name)
}

// changeable are the differences that may be changed while the stream is in
// use.
func changeable(have, want jetstream.StreamConfig) []difference {
	return differences([]difference{
		{"subjects", sorted(have.Subjects), sorted(want.Subjects)},
		{"max_age", have.MaxAge, want.MaxAge},
		{"max_msg_size", have.MaxMsgSize, want.MaxMsgSize},
		{"duplicate_window", have.Duplicates, want.Duplicates},
	})
}

// compareStream refuses what a stream stores, and how, where it is not what the
// broker needs.
func (a assets) compareStream(have, want jetstream.StreamConfig) error {
	return refuseDifferences("stream", want.Name, []difference{
		{"retention", have.Retention, want.Retention},
		{"storage", have.Storage, want.Storage},
		{"discard", have.Discard, want.Discard},
		{"num_replicas", have.Replicas, want.Replicas},
		{"max_msgs", have.MaxMsgs, want.MaxMsgs},
		{"max_msgs_per_subject", have.MaxMsgsPerSubject, want.MaxMsgsPerSubject},
		{"max_age of the log", logAge(a, have), logAge(a, want)},
		{"allow_direct", have.AllowDirect, want.AllowDirect},
		{"deny_delete", have.DenyDelete, want.DenyDelete},
		{"deny_purge", have.DenyPurge, want.DenyPurge},
		{"allow_rollup_hdrs", have.AllowRollup, want.AllowRollup},
		{"allow_msg_ttl", have.AllowMsgTTL, want.AllowMsgTTL},
		{"subject_transform", deref(have.SubjectTransform), deref(want.SubjectTransform)},
		{"republish", deref(have.RePublish), deref(want.RePublish)},
		{"mirror or sources", have.Mirror != nil || len(have.Sources) > 0, false},
		{"sealed", have.Sealed, false},
		{"no_ack", have.NoAck, false},
	})
}

// codeConsumerStore is the server's code for a consumer whose stored state it
// cannot use, which has no name in the client library.
const codeConsumerStore = 10012

// isCorrupt says whether the server cannot read what it stored of a consumer: a
// disk that was full, or lost its power, may leave it so.
func isCorrupt(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == codeConsumerStore
}

func isNotFound(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrBucketNotFound)
}

// logAge is the age limit of the log; that of the events may change.
func logAge(a assets, c jetstream.StreamConfig) time.Duration {
	if c.Name != a.names.logStream() {
		return 0
	}
	return c.MaxAge
}

// partitionConfig is the consumer that one instance at a time reads a
// partition with, one message after the other, beginning after a position.
func (a assets) partitionConfig(p int, after uint64) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:        a.names.partitionConsumer(p),
		FilterSubjects: a.names.partitionFilters(p),
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    after + 1,
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
	if isNotFound(err) {
		if !a.mayMake {
			return missingAsset("consumer", want.Durable, want)
		}
		_, err = js.CreateConsumer(ctx, a.names.logStream(), want)
		if isCorrupt(err) && a.dropConsumer != nil {
			err = a.dropConsumer(a.names.logStream(), want.Durable)
			if err == nil {
				_, err = js.CreateConsumer(ctx, a.names.logStream(), want)
			}
		}
		return wrapAsset(err, "consumer", want.Durable)
	}
	if err != nil {
		return wrapAsset(err, "consumer", want.Durable)
	}
	have := c.CachedInfo().Config
	if err := compareConsumer(have, want); err != nil {
		return err
	}
	times := differences([]difference{{"ack_wait", have.AckWait, want.AckWait}, {"priority_timeout", have.PinnedTTL, want.PinnedTTL}})
	if isPartition := want.MaxAckPending == 1; !isPartition || len(times) == 0 {
		return nil
	}
	if !a.mayMake {
		return refuseDifferences("consumer", want.Durable, times)
	}
	have.AckWait, have.PinnedTTL = want.AckWait, want.PinnedTTL
	_, err = js.UpdateConsumer(ctx, a.names.logStream(), have)
	return wrapAsset(err, "consumer", want.Durable)
}

// compareConsumer refuses a consumer that does not deliver as the broker needs.
// Where it began does not matter: its owner goes back to the last checkpoint.
func compareConsumer(have, want jetstream.ConsumerConfig) error {
	return refuseDifferences("consumer", want.Durable, []difference{
		{"filter_subjects", sorted(filters(have)), sorted(filters(want))},
		{"deliver_policy", deliversAll(have), true},
		{"ack_policy", have.AckPolicy, want.AckPolicy},
		{"max_deliver", have.MaxDeliver, want.MaxDeliver},
		{"priority_policy", have.PriorityPolicy, want.PriorityPolicy},
		{"priority_groups", sorted(have.PriorityGroups), sorted(want.PriorityGroups)},
		{"one message at a time", have.MaxAckPending == 1, want.MaxAckPending == 1},
		{"headers_only", have.HeadersOnly, false},
		{"sample_freq", have.SampleFrequency, want.SampleFrequency},
	})
}

// deliversAll says whether a consumer began at the first message or after a
// checkpoint.
func deliversAll(c jetstream.ConsumerConfig) bool {
	return c.DeliverPolicy == jetstream.DeliverAllPolicy || c.DeliverPolicy == jetstream.DeliverByStartSequencePolicy
}

func filters(c jetstream.ConsumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return c.FilterSubjects
}

func (a assets) ledgerConfig() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: a.names.ledgerBucket(), Description: "leavebroker: what is remembered of each group",
		History: 1, Storage: jetstream.FileStorage, Replicas: a.replicas,
	}
}

func (a assets) snapshotConfig() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: a.names.snapshotBucket(), Description: "leavebroker: groups as they were at some position of their logs",
		History: 1, Storage: jetstream.FileStorage, Replicas: a.replicas,
	}
}

// ensureBucket makes a bucket or compares it.
func (a assets) ensureBucket(ctx context.Context, js jetstream.JetStream, want jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	kv, err := js.KeyValue(ctx, want.Bucket)
	if isNotFound(err) {
		if !a.mayMake {
			return nil, missingAsset("bucket", want.Bucket, want)
		}
		kv, err = js.CreateKeyValue(ctx, want)
		return kv, wrapAsset(err, "bucket", want.Bucket)
	}
	if err != nil {
		return nil, wrapAsset(err, "bucket", want.Bucket)
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return nil, wrapAsset(err, "bucket", want.Bucket)
	}
	return kv, refuseDifferences("bucket", want.Bucket, []difference{
		{"history", status.History(), int64(want.History)},
		{"ttl", status.TTL(), want.TTL},
		{"num_replicas", status.Config().Replicas, want.Replicas},
	})
}

// ensureObjects makes a bucket of objects or compares it.
func (a assets) ensureObjects(ctx context.Context, js jetstream.JetStream, bucket string) (jetstream.ObjectStore, error) {
	want := jetstream.ObjectStoreConfig{Bucket: bucket, Description: "leavebroker: what is too large for a message", Storage: jetstream.FileStorage, Replicas: a.replicas}
	s, err := js.ObjectStore(ctx, bucket)
	if isNotFound(err) {
		if !a.mayMake {
			return nil, missingAsset("object store", bucket, want)
		}
		s, err = js.CreateObjectStore(ctx, want)
		return s, wrapAsset(err, "object store", bucket)
	}
	if err != nil {
		return nil, wrapAsset(err, "object store", bucket)
	}
	status, err := s.Status(ctx)
	if err != nil {
		return nil, wrapAsset(err, "object store", bucket)
	}
	return s, refuseDifferences("object store", bucket, []difference{{"num_replicas", status.Replicas(), want.Replicas}})
}

// inspectStream compares a stream, and changes nothing.
func (a assets) inspectStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	s, err := js.Stream(ctx, want.Name)
	if err != nil {
		return wrapAsset(err, "stream", want.Name)
	}
	have := s.CachedInfo().Config
	return errors.Join(a.compareStream(have, want), refuseDifferences("stream", want.Name, changeable(have, want)))
}

// inspectConsumer compares a consumer, and changes nothing.
func (a assets) inspectConsumer(ctx context.Context, js jetstream.JetStream, want jetstream.ConsumerConfig) error {
	c, err := js.Consumer(ctx, a.names.logStream(), want.Durable)
	if err != nil {
		return wrapAsset(err, "consumer", want.Durable)
	}
	return compareConsumer(c.CachedInfo().Config, want)
}

// inspectBucket compares a bucket, and changes nothing.
func (a assets) inspectBucket(ctx context.Context, js jetstream.JetStream, want jetstream.KeyValueConfig) error {
	a.mayMake = false
	_, err := a.ensureBucket(ctx, js, want)
	return err
}

// inspectObjects compares a bucket of objects, and changes nothing.
func (a assets) inspectObjects(ctx context.Context, js jetstream.JetStream, bucket string) error {
	a.mayMake = false
	_, err := a.ensureObjects(ctx, js, bucket)
	return err
}

// AssetError tells how something that exists on the server differs from what
// the broker needs.
type AssetError struct {
	Kind, Name  string   // stream, consumer or bucket
	Differences []string // "field: is …, must be …"
}

func (e *AssetError) Error() string {
	s := fmt.Sprintf("%s %q is not as the broker needs it", e.Kind, e.Name)
	for _, d := range e.Differences {
		s += "; " + d
	}
	return s
}

type difference struct {
	field      string
	have, want any
}

// differences are those fields that differ.
func differences(fields []difference) []difference {
	return slices.DeleteFunc(fields, func(d difference) bool { return reflect.DeepEqual(d.have, d.want) })
}

func refuseDifferences(kind, name string, fields []difference) error {
	var found []string
	for _, d := range differences(fields) {
		found = append(found, fmt.Sprintf("%s: is %v, must be %v", d.field, d.have, d.want))
	}
	if found == nil {
		return nil
	}
	return &AssetError{kind, name, found}
}

// missingAsset refuses to go on without something that the broker may not make.
func missingAsset(kind, name string, config any) error {
	b, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return &AssetError{kind, name, []string{fmt.Sprintf("does not exist, and may not be made (nats.create_assets): make it as %s", b)}}
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
