package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"leavebroker/mlscore/mlstest"
)

// home is an environment that gives a state directory and nothing else.
var home = []string{"HOME=/home/broker", "PATH=/bin"}

const homeState = "/home/broker/.local/state/leavebroker"

func mustLoad(t *testing.T, path string, environ []string) *Config {
	t.Helper()
	cfg, err := Load(path, environ)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadDefaults(t *testing.T) {
	want := Default()
	want.StateDir = homeState
	for name, path := range map[string]string{
		"no file":       "",
		"empty":         writeFile(t, ""),
		"comments only": writeFile(t, "# nothing\n"),
		"null document": writeFile(t, "---\n"),
		"minimal":       "testdata/minimal.yaml",
	} {
		if diff := cmp.Diff(&want, mustLoad(t, path, home)); diff != "" {
			t.Errorf("%s: (-default +loaded)\n%s", name, diff)
		}
	}
}

// The example states every key, and every value is the default.
func TestExample(t *testing.T) {
	path := writeFile(t, string(Example))
	want := Default()
	want.StateDir = homeState
	want.Tenants[0].Keys, want.Tenants[0].AuthService.Rules = []KeyRef{}, []Rule{}
	if diff := cmp.Diff(&want, mustLoad(t, path, home)); diff != "" {
		t.Errorf("(-default +example)\n%s", diff)
	}
	var stated map[string]any
	if err := yaml.Unmarshal(Example, &stated); err != nil {
		t.Fatal(err)
	}
	for key := range leaves(reflect.ValueOf(Default()), "") {
		if _, ok := leaves(reflect.ValueOf(stated), "")[key]; !ok {
			t.Errorf("the example does not state %s", key)
		}
	}
}

// leaves returns the values of a configuration by key, in lists too.
func leaves(v reflect.Value, key string) map[string]any {
	all := map[string]any{}
	add := func(v reflect.Value, key string) {
		for k, value := range leaves(v, key) {
			all[k] = value
		}
	}
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Map:
		for _, k := range v.MapKeys() {
			add(v.MapIndex(k), join(key, k.String()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			add(v.Field(i), join(key, yamlKey(v.Type().Field(i))))
		}
	case reflect.Slice:
		for i := range v.Len() {
			add(v.Index(i), fmt.Sprintf("%s[%d]", key, i))
		}
		if v.Len() == 0 {
			all[key] = nil
		}
	default:
		all[key] = v.Interface()
	}
	return all
}

// The full files set every key to something other than the default, and every
// one arrives.
func TestFull(t *testing.T) {
	arrived := map[string]bool{}
	defaults := leaves(reflect.ValueOf(Default()), "")
	for _, path := range []string{"testdata/full.yaml", "testdata/full_nkey.yaml", "testdata/full_context.yaml", "testdata/full_embedded.yaml"} {
		set := leaves(reflect.ValueOf(*mustLoad(t, path, home)), "")
		for key, value := range defaults {
			arrived[key] = arrived[key] || set[key] != value
		}
	}
	for key, value := range defaults {
		if !arrived[key] && value != nil {
			t.Errorf("%s keeps its default in the full files", key)
		}
	}

	cfg := mustLoad(t, "testdata/full.yaml", home)
	want := Tenant{
		Name: "acme-eu",
		Keys: []KeyRef{{File: "/etc/leavebroker/keys/acme.pem"}, {Credential: "acme-p256.pem"}, {Env: "ACME_KEY"}},

		SenderIdentity: "broker.acme.example", InfoTrust: "ds", Mode2: "hold", Form: "leaf_operation_proposal", FallbackEpochs: 4,
		ParkTTL: 2 * day, LagWindow: Duration(5 * time.Second), StalledAfter: 9, ReceiptTTL: 90*day + Duration(12*time.Hour),
		Pacing: Pacing{MinEpoch: Duration(250 * time.Millisecond)}, OnReplace: "continue", Isolation: "dedicated",
		Lifetimes: "refuse", RequireLeafNodeEpoch: true, ReplacedSignatureKey: "refuse",
		CodePoints: CodePoints{SelfRemove: 8, LeafOperationProposal: 0x0c, LeafOperationIntentWireFormat: 0xfe01, Replace: 0xf0b2, LeafNodeEpoch: 0xf0b3},
		CipherSuites: []CipherSuite{
			{0x0051, "MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65"}, {0x004d, "MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519"},
		},
		Body: "opaque", AcceptReferences: true, Quotas: Quotas{IntentsPerSecond: 7, Burst: 8, OpenIntents: 9}, Guards: Guards{MaxAssociated: 3, MaxFraction: 0.5},
		AuthService: AuthService{
			Type: "static", CredentialsVouched: true, Shared: true, OnError: "sender_only", Timeout: Duration(time.Second),
			Rules: []Rule{
				{Match: "basic", Encoding: "utf8", Pattern: `^(?P<subject>[^:]+):\d+$`},
				{Match: "basic", Encoding: "uint64be", Equality: "whole_identity"},
			},
		},
	}
	if diff := cmp.Diff(want, cfg.Tenants[0]); diff != "" {
		t.Errorf("(-want +loaded)\n%s", diff)
	}
	if diff := cmp.Diff(DefaultTenant("small"), cfg.Tenants[1]); diff != "" {
		t.Errorf("(-want +loaded)\n%s", diff)
	}
}

// Each file of testdata/invalid begins with comments that give every line of
// its error.
func TestInvalid(t *testing.T) {
	paths, err := filepath.Glob("testdata/invalid/*.yaml")
	if err != nil || len(paths) < 40 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for line := range strings.Lines(string(text)) {
			expected, ok := strings.CutPrefix(line, "#! ")
			if !ok {
				break
			}
			want = append(want, strings.TrimSpace(expected))
		}
		cfg, err := Load(path, home)
		if err == nil || cfg != nil {
			t.Errorf("%s: accepted", path)
			continue
		}
		got := strings.ReplaceAll(err.Error(), path, "FILE")
		if got != strings.Join(want, "\n") {
			t.Errorf("%s:\ngot  %s\nwant %s", path, got, strings.Join(want, "\n     "))
		}
	}
}

func TestEnvironment(t *testing.T) {
	texts := map[string]string{
		"nats.url": "tls://a:4222,wss://b", "nats.embedded.sync_always": "false", "nats.embedded.max_store": "10GiB",
		"nats.replicas": "5", "nats.create_assets": "false", "partitions": "8",
		"limits.intent_bytes": "2KiB", "limits.message_bytes": "3KiB", "limits.object_bytes": "4KiB",
		"cache.max_bytes": "1MiB", "compaction.entries": "11", "compaction.interval": "1s",
		"pin_ttl": "4s", "ack_wait": "5s", "events.max_age": "2d", "events.cleartext": "true",
		"log.level": "debug", "log.format": "json",
	}
	only := map[string]bool{"nats.context": true, "nats.embedded.listen": true, "nats.nkey": true, "nats.api_prefix": true, "tenants": true}
	environ := slices.Clone(home)
	count := 0
	walk(reflect.ValueOf(Default()), "", func(key string, field reflect.Value) {
		if only[key] {
			return
		}
		if _, ok := texts[key]; !ok {
			texts[key] = "x-" + strings.ReplaceAll(key, ".", "-")
		}
		count++
		environ = append(environ, variable(key)+"="+texts[key])
	})
	cfg := mustLoad(t, "testdata/minimal.yaml", environ)
	got := leaves(reflect.ValueOf(*cfg), "")
	for key, text := range texts {
		if value := got[key]; fmt.Sprint(value) != text {
			t.Errorf("%s: %v, want %s", key, value, text)
		}
	}
	if count < 20 {
		t.Errorf("%d keys only", count)
	}

	// The environment wins over the file, and an empty variable is none.
	cfg = mustLoad(t, "testdata/full.yaml", append(home, "LEAVEBROKER_PREFIX=other", "LEAVEBROKER_PARTITIONS="))
	if cfg.Prefix != "other" || cfg.Partitions != 16 {
		t.Errorf("prefix %q, partitions %d", cfg.Prefix, cfg.Partitions)
	}
	if cfg = mustLoad(t, "", append(home, "LEAVEBROKER_NATS_EMBEDDED_LISTEN=:4222")); cfg.NATS.Embedded.Listen != "127.0.0.1:4222" {
		t.Errorf("listen %q", cfg.NATS.Embedded.Listen)
	}
	if cfg = mustLoad(t, "", append(home, "LEAVEBROKER_NATS_CONTEXT=prod")); cfg.NATS.Context != "prod" || !cfg.NATS.External() {
		t.Errorf("context %q, external: %t", cfg.NATS.Context, cfg.NATS.External())
	}
}

func TestEnvironmentRefused(t *testing.T) {
	for entry, want := range map[string]string{
		"LEAVEBROKER_PARTITION=1":                    "LEAVEBROKER_PARTITION: unknown environment variable",
		"LEAVEBROKER_PARTITON=":                      "LEAVEBROKER_PARTITON: unknown environment variable",
		"LEAVEBROKER_NATS=x":                         "LEAVEBROKER_NATS: unknown environment variable",
		"LEAVEBROKER_TENANTS=x":                      "LEAVEBROKER_TENANTS: unknown environment variable",
		"LEAVEBROKER_PARTITIONS=8.5":                 `LEAVEBROKER_PARTITIONS: partitions: "8.5" is not a whole number`,
		"LEAVEBROKER_PARTITIONS=0":                   "LEAVEBROKER_PARTITIONS: partitions: 0 is not from 1 to 1024",
		"LEAVEBROKER_PIN_TTL=5":                      `LEAVEBROKER_PIN_TTL: pin_ttl: "5" is not a duration such as 500ms, 30s, 24h or 90d`,
		"LEAVEBROKER_EVENTS_CLEARTEXT=yes":           `LEAVEBROKER_EVENTS_CLEARTEXT: events.cleartext: "yes" is not true or false`,
		"LEAVEBROKER_LIMITS_INTENT_BYTES=16k":        `LEAVEBROKER_LIMITS_INTENT_BYTES: limits.intent_bytes: "16k" is not a size such as 65536, 16KiB, 1MiB or 10GiB`,
		"LEAVEBROKER_NATS_EMBEDDED_LISTEN=[::]:4222": `LEAVEBROKER_NATS_EMBEDDED_LISTEN: nats.embedded.listen: "::" is not a loopback address; the embedded server asks nobody for credentials, so others need a NATS server of their own and nats.url`,
	} {
		if _, err := Load("testdata/minimal.yaml", append(home, entry)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", entry, err)
		}
	}
	if _, err := Load("", append(home, "LEAVEBROKER_VECTORS=/v", "LEAVEBROKER_REQUIRE_VECTORS=1")); err != nil {
		t.Error(err)
	}
}

// The problems of the file, of the environment and of values come together.
func TestAllProblems(t *testing.T) {
	_, err := Load(writeFile(t, "prefix: a.b\nwrong: 1\nnats:\n  url: [\"nats://a\"]\n"), append(home, "LEAVEBROKER_WRONG=1"))
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 4 {
		t.Fatalf("%v", err)
	}
	for _, err := range joined.Unwrap() {
		if p := (*Problem)(nil); !errors.As(err, &p) {
			t.Errorf("%T: %v", err, err)
		}
	}
}

func TestNoFile(t *testing.T) {
	if _, err := Load("testdata/absent.yaml", home); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestStateDir(t *testing.T) {
	for _, c := range []struct {
		environ []string
		want    string
	}{
		{[]string{"STATE_DIRECTORY=/var/lib/leavebroker", "XDG_STATE_HOME=/x", "HOME=/h"}, "/var/lib/leavebroker"},
		{[]string{"STATE_DIRECTORY=/var/lib/a:/var/lib/b"}, "/var/lib/a"},
		{[]string{"XDG_STATE_HOME=/x", "HOME=/h"}, "/x/leavebroker"},
		{[]string{"XDG_STATE_HOME=relative", "HOME=/h"}, "/h/.local/state/leavebroker"},
		{[]string{"LEAVEBROKER_STATE_DIR=/s", "STATE_DIRECTORY=/var/lib/leavebroker"}, "/s"},
	} {
		if got := mustLoad(t, "", c.environ).StateDir; got != c.want {
			t.Errorf("%v: %s, want %s", c.environ, got, c.want)
		}
	}
	const want = "state_dir: missing, and none of $STATE_DIRECTORY, $XDG_STATE_HOME and $HOME is set"
	if _, err := Load("", nil); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

// A URL may hold a password, so no error repeats it.
func TestURLNotRepeated(t *testing.T) {
	for _, url := range []string{"http://u:s3cret@host", "nats://u:s3cret@ho st", "nats://u:s3cret@", "nats://u:s3cret@host:%zz"} {
		if _, err := Load("", append(home, "LEAVEBROKER_NATS_URL="+url)); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// FuzzLoad shows that no file makes Load panic or hang, and that what it accepts is
// valid.
func FuzzLoad(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.yaml")
	invalid, _ := filepath.Glob("testdata/invalid/*.yaml")
	for _, path := range append(paths, invalid...) {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var cfg *Config
		var err error
		// The parser makes a node and its tokens for every two bytes of a list: 240 for a byte.
		mlstest.CheckAllocation(t, len(text), 1000, func() { cfg, err = load("c.yaml", text, variables(home)) })
		if (err == nil) != (cfg != nil) {
			t.Fatalf("configuration and error: %v", err)
		}
		if cfg != nil && cfg.Validate() != nil {
			t.Fatal(cfg.Validate())
		}
	})
}
