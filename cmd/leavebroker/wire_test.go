package main

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"leavebroker/broker"
	"leavebroker/config"
	"leavebroker/intents"
	"leavebroker/mlscore"
)

// testConfig is the default configuration with a state directory.
func testConfig(t *testing.T) *config.Config {
	cfg := config.Default()
	cfg.StateDir = t.TempDir()
	return &cfg
}

// TestBrokerOptions: what the configuration says of instances, sizes and
// compaction reaches the broker.
func TestBrokerOptions(t *testing.T) {
	key := bytes.Repeat([]byte{7}, eventKeyBytes)
	cfg := testConfig(t)
	cfg.Instance = "node-1"
	cfg.NATS.Replicas, cfg.NATS.CreateAssets = 3, false
	cfg.Limits = config.Limits{IntentBytes: 1 << 10, MessageBytes: 2 << 10, ObjectBytes: 3 << 10}
	cfg.Cache.MaxBytes = 5 << 30
	cfg.Compaction = config.Compaction{Entries: 11, Interval: config.Duration(time.Minute)}
	cfg.Events.KeyFile = mustWrite(t, "events.key", key)
	cfg.Tenants = append(cfg.Tenants, config.DefaultTenant("alone"))
	cfg.Tenants[1].Isolation = "dedicated"
	opts, err := brokerOptions(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if opts.Instance != "node-1" || opts.Replicas != 3 || !opts.KeepAssets {
		t.Errorf("instance %q, %d replicas, keeping assets: %t", opts.Instance, opts.Replicas, opts.KeepAssets)
	}
	if want := (broker.Limits{IntentBytes: 1 << 10, MessageBytes: 2 << 10, ObjectBytes: 3 << 10}); opts.Limits != want {
		t.Errorf("limits %+v, want %+v", opts.Limits, want)
	}
	if opts.CacheBytes != 5<<30 || opts.CompactEntries != 11 || opts.CompactInterval != time.Minute {
		t.Errorf("cache of %d bytes, compaction above %d entries, every %s", opts.CacheBytes, opts.CompactEntries, opts.CompactInterval)
	}
	if !bytes.Equal(opts.EventKey, key) {
		t.Errorf("event key %x, want %x", opts.EventKey, key)
	}
	if opts.Tenants[0].Dedicated || !opts.Tenants[1].Dedicated {
		t.Errorf("dedicated: %t and %t, want the second alone", opts.Tenants[0].Dedicated, opts.Tenants[1].Dedicated)
	}
}

// TestOwnKeysWarning: keys made in the state directory are warned of where there
// may be other instances, and only there.
func TestOwnKeysWarning(t *testing.T) {
	for url, want := range map[string][]any{"": nil, "nats://127.0.0.1:4222": {"default"}} {
		cfg := testConfig(t)
		cfg.NATS.URL = url
		named := config.DefaultTenant("named")
		named.Keys = []config.KeyRef{{Env: "KEY"}}
		cfg.Tenants = append(cfg.Tenants, named)
		core, logs := observer.New(zap.WarnLevel)
		warnOwnKeys(cfg, zap.New(core))
		var got []any
		for _, entry := range logs.All() {
			got = append(got, entry.ContextMap()["tenant"])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: warned of %v, want %v", url, got, want)
		}
	}
}

// TestTenantRegistry: a tenant without code points has the registry of the
// tools, and one with cipher suites has those alone.
func TestTenantRegistry(t *testing.T) {
	tenant := config.DefaultTenant("a")
	reg, err := tenantRegistry(&tenant)
	if err != nil {
		t.Fatal(err)
	}
	if want := toolRegistry(); !slices.Equal(reg.CipherSuites, want.CipherSuites) || reg.SelfRemove != want.SelfRemove ||
		reg.Replace != want.Replace || reg.LeafNodeEpoch != want.LeafNodeEpoch || reg.AppDataUpdate != want.AppDataUpdate {
		t.Errorf("got %+v, want %+v", reg, want)
	}

	tenant.CipherSuites = []config.CipherSuite{{ID: 0x51, Name: "MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65"}}
	if reg, err = tenantRegistry(&tenant); err != nil {
		t.Fatal(err)
	}
	if ids := reg.Suites(); !slices.Equal(ids, []mlscore.CipherSuite{1, 2, 3, 4, 5, 6, 7, 0x51}) {
		t.Errorf("suites %v", ids)
	}
	if list := schemes(reg); !slices.Contains(list, mlscore.MLDSA65) || slices.Contains(list, mlscore.MLDSA44) {
		t.Errorf("keys for %v", list)
	}

	for _, bad := range []config.CipherSuite{{ID: 1, Name: tenant.CipherSuites[0].Name}, {ID: 8, Name: "MLS_1_A_B_SHA256_C"}} {
		tenant.CipherSuites = []config.CipherSuite{bad}
		if _, err := tenantRegistry(&tenant); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// TestPolicyOfReplace: what a tenant says of Replace is what the fold does.
func TestPolicyOfReplace(t *testing.T) {
	for value, want := range map[string]intents.OnReplace{"superseded": intents.OnReplaceSuperseded, "continue": intents.OnReplaceContinue} {
		tenant := config.Default().Tenants[0]
		tenant.OnReplace = value
		if got := tenantPolicy(&tenant, mlscore.DefaultRegistry()).OnReplace; got != want {
			t.Errorf("%s gives %d, want %d", value, got, want)
		}
	}
}
