package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// testSeed is of the NKey user testNKey.
const (
	testSeed = "SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"
	testNKey = "UAT6BWCSCWLUKJT6K6MBJJOEOTXZ5AJDOYKNEVRFC7VNO6OA43N4TRNO"
)

// storeContext stores a context in a configuration folder of the test's own, and
// gives its path.
func storeContext(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	path := filepath.Join(dir, "nats", "context", name+".json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// everyKey is a context as the nats command writes it, with the keys that it
// leaves empty.
const everyKey = `{
  "name": "prod", "description": "the cluster", "color_scheme": "blue", "jetstream_event_prefix": "E",
  "url": "a.example:4222, tls://b.example", "socks_proxy": "", "nsc": "", "user_jwt": "", "user_seed": "",
  "token": "", "user": "", "password": "", "creds": "~/broker.creds", "nkey": "",
  "cert": "$CERTS/broker.pem", "key": "${CERTS}/broker.key", "ca": "/ca.pem", "tls_first": true,
  "jetstream_domain": "hub", "jetstream_api_prefix": "", "inbox_prefix": "_INBOX_lb",
  "windows_cert_store": "", "windows_cert_match_by": "", "windows_cert_match": "", "windows_ca_certs_match": null
}`

func TestLoadContext(t *testing.T) {
	path := storeContext(t, "prod", everyKey)
	t.Setenv("HOME", "/home/broker")
	t.Setenv("CERTS", "/certs")
	want := natsContext{
		URL: "nats://a.example:4222, tls://b.example", Creds: "/home/broker/broker.creds",
		CA: "/ca.pem", Cert: "/certs/broker.pem", Key: "/certs/broker.key", TLSFirst: true,
		Domain: "hub", InboxPrefix: "_INBOX_lb",
	}
	for _, name := range []string{"prod", path} {
		c, err := loadContext(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, c); diff != "" {
			t.Errorf("%s: (-want +loaded)\n%s", name, diff)
		}
	}

	// Without the variable it is the folder in the user's own.
	t.Setenv("HOME", t.TempDir())
	if err := os.Rename(os.Getenv("XDG_CONFIG_HOME"), filepath.Join(os.Getenv("HOME"), ".config")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CONFIG_HOME", "")
	if c, err := loadContext("prod"); err != nil || c.Domain != "hub" {
		t.Errorf("in ~/.config: %+v, %v", c, err)
	}
}

// What cannot be followed is refused, and no error shows a password.
func TestContextRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                      "unexpected end",
		`[]`:                     "cannot unmarshal array",
		`{"url": 4}`:             "cannot unmarshal number",
		`{"socks_proxy": "s:1"}`: `not supported: json: unknown field "socks_proxy"`,
		`{"user_jwt": "eyJ0"}`:   `unknown field "user_jwt"`,
		`{"nsc": "nsc://o/a/u"}`: `unknown field "nsc"`,
		`{"later": true}`:        `unknown field "later"`,
		`{"user": "u", "password": "op://s3cret"}`:    "values that begin with op:// are not supported",
		`{"creds": "data:;base64,s3cret"}`:            "values that begin with data: are not supported",
		`{"url": "nats://u:s3cret@ho st"}`:            "server 1 of the list",
		`{"url": "a,http://b"}`:                       "server 2 of the list",
		`{"user": "u", "password": "p", "nkey": "n"}`: "more than one of user, token, credentials and nkey",
		`{"key": "/k"}`:                               "a client certificate and its key go together",
	} {
		path := storeContext(t, "bad", text)
		_, err := loadContext("bad")
		exit := (*exitError)(nil)
		if !errors.As(err, &exit) || exit.code != exitConfig || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for name, code := range map[string]int{"absent": exitUsage, "/no/such.json": exitUsage, "../bad": exitConfig} {
		_, err := loadContext(name)
		if exit := (*exitError)(nil); !errors.As(err, &exit) || exit.code != code || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestContextOptions(t *testing.T) {
	seed := mustWrite(t, "user.nk", []byte(testSeed))
	for _, test := range []struct {
		c   natsContext
		set func(o nats.Options, err string) bool
	}{
		{natsContext{User: "u", Password: "p"}, func(o nats.Options, _ string) bool { return o.User == "u" && o.Password == "p" }},
		{natsContext{Token: "t"}, func(o nats.Options, _ string) bool { return o.Token == "t" }},
		{natsContext{NKey: seed}, func(o nats.Options, _ string) bool { return o.Nkey == testNKey }},
		{natsContext{TLSFirst: true}, func(o nats.Options, _ string) bool { return o.TLSHandshakeFirst }},
		{natsContext{InboxPrefix: "I"}, func(o nats.Options, _ string) bool { return o.InboxPrefix == "I" }},
		{natsContext{Creds: "/no/creds"}, func(_ nats.Options, err string) bool { return strings.Contains(err, "/no/creds") }},
		{natsContext{CA: "/no/ca"}, func(_ nats.Options, err string) bool { return strings.Contains(err, "/no/ca") }},
		{natsContext{Cert: "/no/cert", Key: seed}, func(_ nats.Options, err string) bool { return strings.Contains(err, "/no/cert") }},
	} {
		opts, err := test.c.options()
		if err != nil || len(opts) != 1 {
			t.Fatalf("%+v: %d options, %v", test.c, len(opts), err)
		}
		o := nats.GetDefaultOptions()
		if test.set(o, "") {
			t.Errorf("%+v is the default", test.c)
		}
		if err = opts[0](&o); !test.set(o, fmt.Sprint(err)) {
			t.Errorf("%+v has no effect: %v", test.c, err)
		}
	}
	if _, err := (natsContext{NKey: "/no/such"}).options(); err == nil {
		t.Error("an nkey that cannot be read is accepted")
	}
}

// What is given beside a context counts before it, and credentials take the
// place of all of the context's.
func TestContextOverride(t *testing.T) {
	c := natsContext{User: "u", Password: "p", CA: "/ca", Domain: "hub"}
	want := natsContext{Creds: "/c", CA: "/other", Domain: "hub"}
	if diff := cmp.Diff(want, c.override(natsContext{Creds: "/c", CA: "/other"})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(c, c.override(natsContext{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestConnOfContext: the daemon's connection is that of the context, which
// counts as a server elsewhere.
func TestConnOfContext(t *testing.T) {
	storeContext(t, "prod", everyKey)
	cfg := testConfig(t)
	cfg.NATS.Context, cfg.NATS.Replicas = "prod", 3
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	opts, err := brokerOptions(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	conn := opts.Conn
	if conn.URL != "nats://a.example:4222, tls://b.example" || conn.Domain != "hub" || conn.APIPrefix != "" ||
		conn.Name != "leavebroker" || len(conn.Options) != 5 {
		t.Errorf("%+v", conn)
	}
}

// startUserServer starts a NATS server that wants to know its users: lb with a
// password, testNKey, both of whom may listen to inboxes below _LB alone, and
// root.
func startUserServer(t *testing.T) (addr string) {
	t.Helper()
	allowed := &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{">"}},
		Subscribe: &server.SubjectPermission{Allow: []string{">"}, Deny: []string{"_INBOX.>"}},
	}
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: t.TempDir(), MaxPayload: loadMaxPayload,
		Users: []*server.User{{Username: "lb", Password: "s3cret", Permissions: allowed}, {Username: "root", Password: "r00t"}},
		Nkeys: []*server.NkeyUser{{Nkey: testNKey, Permissions: allowed}},
	})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the NATS server is not ready")
	}
	return srv.Addr().String()
}

// A daemon and commands reach a server with the user, the password and the
// prefix of inboxes of a context, and not without.
func TestServeByContext(t *testing.T) {
	addr := startUserServer(t)
	text, err := json.Marshal(map[string]any{"url": addr, "user": "lb", "password": "s3cret", "inbox_prefix": "_LB", "nsc": ""})
	if err != nil {
		t.Fatal(err)
	}
	storeContext(t, "mine", string(text))
	dir := t.TempDir()
	d := newProcess(t, dir, filepath.Join(dir, "state"), "nats://root:r00t@"+addr)
	d.configure("nats:\n  context: mine\n")
	d.Start()
	d.awaitReady()
	show := func(args ...string) (int, string) {
		code, out, errOut := run("", append([]string{"group", "show", "00"}, args...)...)
		return code, out + errOut
	}
	if code, out := show("--context", "mine"); code != 1 || !strings.Contains(out, "not known") {
		t.Errorf("exit code %d, %s", code, out)
	}
	t.Setenv("NATS_CONTEXT", "mine")
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 1, "not known"},
		{[]string{"--nkey", mustWrite(t, "user.nk", []byte(testSeed))}, 1, "not known"},
		{[]string{"--server", "nats://" + freeAddr(t)}, 1, "no servers available"},
		{[]string{"--context", "", "--server", addr}, 1, "Authorization"},
		{[]string{"--context", "other"}, 2, "no such file"},
		{[]string{"--nkey", "/no/such"}, 2, "no such file"},
		{[]string{"--nkey", "/n", "--creds", "/c"}, 2, "more than one"},
		{[]string{"--tlscert", "/c"}, 2, "go together"},
	} {
		if code, out := show(test.args...); code != test.code || !strings.Contains(out, test.says) {
			t.Errorf("%v: exit code %d, %s", test.args, code, out)
		}
	}
	d.Stop()
}
