package main

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
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

// The rules that the example shows find the users of the example's credentials.
func TestExampleRules(t *testing.T) {
	text, err := os.ReadFile("../../config/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile(`(?m)^      #(   .*)$`).ReplaceAllString(string(text), "      $1")
	shown = strings.Replace(shown, "      rules: []", "", 1)
	at := strings.Index(shown, "         - match: basic")
	if at < 0 {
		t.Fatal("the example shows no rules")
	}
	shown = shown[:at] + "      rules:\n" + shown[at:]
	shown = strings.Replace(shown, "type: none", "type: static", 1)
	shown = strings.Replace(shown, "credentials_vouched: false", "credentials_vouched: true", 1)
	cfg, err := loadConfig(mustWrite(t, "shown.yaml", []byte(shown)))
	if err != nil {
		t.Fatal(err)
	}
	service, err := authService(&cfg.Tenants[0], zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	basic := func(identity string) mlscore.Credential {
		return mlscore.Credential{Type: mlscore.CredentialTypeBasic, Identity: []byte(identity)}
	}
	answer, err := service.Associate(t.Context(), "default", intents.Question{
		Sender: intents.Candidate{Leaf: 0, Credential: basic("alice:phone")},
		Candidates: []intents.Candidate{
			{Leaf: 1, Credential: basic("alice:laptop")}, {Leaf: 2, Credential: basic("bob:phone")}, {Leaf: 3, Credential: basic("alicea")},
			{Leaf: 4, Credential: basic("\x00\x00\x00\x00\x00\x00\x00\x07")},
		},
	})
	if err != nil || !slices.Equal(answer.Associated, []mlscore.LeafIndex{1}) || !slices.Contains(answer.Unrelated, 2) {
		t.Errorf("%+v, %v", answer, err)
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
