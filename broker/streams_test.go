package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestAssetsAreMadeOnceAndCompared(t *testing.T) {
	_, js, _ := testServer(t)
	ctx := testContext(t)
	a := testAssets(4)
	for range 2 {
		if _, err := ensureAll(ctx, a, js); err != nil {
			t.Fatal(err)
		}
	}
	// What may change, changes.
	a.ackWait, a.pinTTL, a.eventMaxAge, a.maxMessage = 2*time.Second, 2*time.Second, 2*time.Hour, 1<<19
	if _, err := ensureAll(ctx, a, js); err != nil {
		t.Fatal(err)
	}
	c, err := js.Consumer(ctx, a.names.logStream(), a.names.partitionConsumer(3))
	if err != nil {
		t.Fatal(err)
	}
	if have := c.CachedInfo().Config; have.AckWait != a.ackWait || have.PinnedTTL != a.pinTTL {
		t.Errorf("ack wait %s, pin TTL %s", have.AckWait, have.PinnedTTL)
	}
	s, err := js.Stream(ctx, a.names.eventStream())
	if err != nil {
		t.Fatal(err)
	}
	if have := s.CachedInfo().Config.MaxAge; have != a.eventMaxAge {
		t.Errorf("events for %s", have)
	}
}

func TestAssetDifferencesAreRefused(t *testing.T) {
	_, js, _ := testServer(t)
	for name, test := range map[string]struct {
		before func(a assets) error
		want   string
	}{
		"partitions": {func(a assets) error {
			a.names.partitions = 8
			_, err := ensureAll(testContext(t), a, js)
			return err
		}, "subject_transform"},
		"expiry": {func(a assets) error {
			cfg := a.logConfig()
			cfg.MaxAge = time.Hour
			_, err := js.CreateStream(testContext(t), cfg)
			return err
		}, "max_age of the log: is 1h0m0s, must be 0s"},
		"roll-up": {func(a assets) error {
			cfg := a.logConfig()
			cfg.AllowRollup = true
			_, err := js.CreateStream(testContext(t), cfg)
			return err
		}, "allow_rollup_hdrs: is true, must be false"},
		"consumer": {func(a assets) error {
			if err := a.ensureStream(testContext(t), js, a.logConfig()); err != nil {
				return err
			}
			cfg := a.partitionConfig(1, 0)
			cfg.FilterSubjects, cfg.MaxAckPending = cfg.FilterSubjects[1:], 10
			_, err := js.CreateConsumer(testContext(t), a.names.logStream(), cfg)
			return err
		}, `consumer "partition-0001" is not as the broker needs it; filter_subjects`},
		"bucket": {func(a assets) error {
			_, err := js.CreateKeyValue(testContext(t), jetstream.KeyValueConfig{Bucket: a.names.ledgerBucket(), History: 5})
			return err
		}, "history: is 5, must be 1"},
	} {
		t.Run(name, func(t *testing.T) {
			a := testAssets(4)
			a.names.prefix = strings.ReplaceAll(name, "-", "")
			if err := test.before(a); err != nil {
				t.Fatal(err)
			}
			_, err := ensureAll(testContext(t), a, js)
			var differs *AssetError
			if !errors.As(err, &differs) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}
