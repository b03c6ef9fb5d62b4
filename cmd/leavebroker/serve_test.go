package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leavebroker/intents"
	"leavebroker/mlscore/member"
)

// runProcess runs the program to its end in a process of its own.
func runProcess(t *testing.T, env []string, args ...string) (code int, output string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "leavebroker", args...)
	cmd.Env = append(os.Environ(), env...)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// keyFiles are the key files of a state directory with their content; all have
// to be for their owner alone.
func keyFiles(t *testing.T, stateDir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(stateDir, "keys"), func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		if !e.IsDir() {
			b, err := os.ReadFile(path)
			files[path] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Without a configuration the daemon makes its keys once, tells what groups
// install, and holds its folder and its port against others.
func TestServeDefault(t *testing.T) {
	t.Parallel()
	d := newDefaultDaemon(t)
	d.Start()
	d.awaitReady()
	keys := keyFiles(t, d.stateDir)
	if len(keys) != len(schemes(toolRegistry()))+1 {
		t.Errorf("%d key files", len(keys))
	}
	told := map[string]bool{}
	for _, line := range d.logLines() {
		if sender, ok := line["external_sender"].(string); ok && line["tenant"] == "default" {
			told[sender] = true
		}
	}
	for path := range keys {
		if filepath.Ext(path) != ".pem" {
			continue
		}
		code, out, _ := run("", "key", "show", "-o", "json", path)
		var k shownKey
		if err := json.Unmarshal([]byte(out), &k); err != nil || code != 0 || !told[k.ExternalSender] {
			t.Errorf("the log does not show the ExternalSender of %s: %v", path, err)
		}
	}

	listen := strings.TrimPrefix(d.url, "nats://")
	code, out := runProcess(t, append(d.env, "LEAVEBROKER_NATS_EMBEDDED_LISTEN="+freeAddr(t)), "serve")
	if code != 1 || !strings.Contains(out, "in use by another process") || !strings.Contains(out, d.stateDir) {
		t.Errorf("a second daemon in the same folder: exit code %d, %s", code, out)
	}
	code, out = runProcess(t, append(d.env, "LEAVEBROKER_STATE_DIR="+t.TempDir()), "serve")
	if code != 1 || !strings.Contains(out, listen) || !strings.Contains(out, "LEAVEBROKER_NATS_EMBEDDED_LISTEN") {
		t.Errorf("a second daemon on the same port: exit code %d, %s", code, out)
	}
	d.Stop()

	d.Start()
	d.awaitReady()
	again := keyFiles(t, d.stateDir)
	for path, text := range keys {
		if again[path] != text {
			t.Errorf("%s changed", path)
		}
	}
	d.Signal(syscall.SIGINT)
	if code := d.Wait(); code != 0 {
		t.Errorf("exit code %d after SIGINT", code)
	}
}

func TestServeRefusals(t *testing.T) {
	t.Parallel()
	bad := mustWrite(t, "bad.yaml", []byte("no_such_key: 1\n"))
	key := mustWrite(t, "key.yaml", []byte("state_dir: "+t.TempDir()+"\ntenants:\n  - name: acme\n    keys:\n      - file: /no/such/key.pem\n"))
	for _, test := range []struct {
		name string
		env  []string
		args []string
		code int
		says string
	}{
		{"unknown key", nil, []string{"--config", bad}, 78, "bad.yaml:1"},
		{"bad environment", []string{"LEAVEBROKER_PARTITIONS=many"}, nil, 78, "LEAVEBROKER_PARTITIONS"},
		{"public listener", []string{"LEAVEBROKER_NATS_EMBEDDED_LISTEN=0.0.0.0:4222"}, nil, 78, "loopback"},
		{"no file", nil, []string{"--config", "/no/such/file.yaml"}, 2, "no such file"},
		{"no context", []string{"LEAVEBROKER_NATS_CONTEXT=absent"}, nil, 2, "absent.json: no such file"},
		{"two servers", []string{"LEAVEBROKER_NATS_CONTEXT=a", "LEAVEBROKER_NATS_URL=nats://b"}, nil, 78, "only one of nats.context"},
		{"argument", nil, []string{"now"}, 2, "--help"},
		{"no key file", nil, []string{"--config", key}, 1, `tenant "acme"`},
	} {
		code, out := runProcess(t, append(test.env, "HOME="+t.TempDir()), append([]string{"serve"}, test.args...)...)
		if code != test.code || !strings.Contains(out, test.says) {
			t.Errorf("%s: exit code %d, %s", test.name, code, out)
		}
	}
}

// The daemon tells the service manager when it serves, what it does, that it is
// alive, and that it stops.
func TestServeNotify(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "tenants:\n  - name: acme\n")
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	d.env = append(d.env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=300000")
	await := func(want string) {
		t.Helper()
		buffer := make([]byte, 4096)
		if err := manager.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := manager.Read(buffer)
			if err != nil {
				t.Fatalf("waiting for %q: %v", want, err)
			}
			for line := range strings.SplitSeq(string(buffer[:n]), "\n") {
				if line == want {
					return
				}
			}
		}
	}
	d.Start()
	await("READY=1")
	c := newCrowd(t, d, "acme", "group")
	if err := c.ds.Request(t.Context(), "group.show", map[string][]byte{"group_id": c.id}, nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("ready, and then: %v", err)
	}
	await("WATCHDOG=1")
	await("WATCHDOG=1")
	c.found("alice", "bob", "carol")
	c.submit(c.leave(c.members[1], intents.SenderRemovalOnly))
	await("STATUS=1 open intents in 1 groups")
	d.Signal(syscall.SIGTERM)
	d.Signal(syscall.SIGTERM) // at once: taken for one
	await("STOPPING=1")
	if code := d.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// cli runs a command against a daemon and decodes what it prints. It asks again
// where no verdict came in the time that a request may wait.
func (c *crowd) cli(d *daemonProcess, into any, args ...string) (code int, stderr string) {
	args = append(args, "--server", d.url, "--tenant", c.tenant)
	begin := time.Now()
	code, out, errOut := run("", args...)
	for strings.Contains(out, `"state":"stored"`) && time.Since(begin) < patience {
		code, out, errOut = run("", args...)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(out), into); err != nil {
			c.check(fmt.Errorf("%v: exit code %d, %q, %s: %w", args, code, out, errOut, err))
		}
	}
	return code, errOut
}

// An intent's way by the commands alone.
func TestServeCommands(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "tenants:\n  - name: acme\n")
	d.Start()
	d.awaitReady()
	c := newCrowd(t, d, "acme", "by hand")
	c.found("alice", "bob", "carol", "dave")
	group := hex.EncodeToString(c.id)
	file := mustWrite(t, "leave.mls", c.leave(c.members[1], intents.SenderRemovalOnly))
	type receipt struct {
		ID, State, Reason string
		Targets, Gone     []uint32
		Confirmed         bool
	}
	var v receipt
	if code, stderr := c.cli(d, &v, "intent", "submit", "--wait", "10s", file); code != 0 || v.State != "pending" || len(v.ID) != 64 {
		t.Errorf("submit: exit code %d, %+v, %s", code, v, stderr)
	}
	id := v.ID
	if code, _ := c.cli(d, &v, "intent", "status", "--group-id", group, id); code != 0 || v.State != "pending" || len(v.Targets) != 1 || v.Targets[0] != 1 {
		t.Errorf("status: exit code %d, %+v", code, v)
	}
	proposals := c.awaitProposals(1)
	var pending struct {
		Epoch         uint64
		Proposals     [][]byte
		MustReference [][]byte `json:"must_reference"`
	}
	if code, _ := c.cli(d, &pending, "group", "pending", group); code != 0 || pending.Epoch != 1 ||
		len(pending.Proposals) != 1 || len(pending.MustReference) != 1 || !bytes.Equal(pending.Proposals[0], proposals[0]) {
		t.Errorf("pending: exit code %d, %+v", code, pending)
	}
	var shown struct {
		Epoch              uint64
		Members            int
		Authorised, Proven bool
		CipherSuite        int    `json:"cipher_suite"`
		TreeHash           string `json:"tree_hash"`
		Intents            []receipt
	}
	if code, _ := c.cli(d, &shown, "group", "show", group); code != 0 || shown.Epoch != 1 || shown.Members != 4 || shown.CipherSuite != 1 ||
		!shown.Authorised || len(shown.Intents) != 1 || shown.TreeHash != hex.EncodeToString(c.members[0].Public().Tree().TreeHash()) {
		t.Errorf("show: exit code %d, %+v", code, shown)
	}
	c.fanOut(proposals)
	c.commit(c.members[0], member.CommitOptions{})
	c.empty(c.members[1])
	c.awaitStatus(id, confirmed)
	d.consumed(c)
	if code, _ := c.cli(d, &v, "intent", "status", id); code != 0 || v.State != "removed" || !v.Confirmed || len(v.Gone) != 1 {
		t.Errorf("status in the end: exit code %d, %+v", code, v)
	}

	other := mustWrite(t, "other.mls", c.sign(c.members[2], intents.SenderRemovalOnly))
	c.cli(d, &v, "intent", "submit", "--wait", "10s", other)
	other = v.ID
	if code, _ := c.cli(d, &v, "intent", "cancel", "--by", "ops", "--group-id", group, "--wait", "10s", other); code != 0 || v.State != "cancelled" {
		t.Errorf("cancel: exit code %d, %+v", code, v)
	}
	if code, _ := c.cli(d, &v, "intent", "status", "--group-id", group, other); code != 1 || v.State != "cancelled" {
		t.Errorf("status of what was cancelled: exit code %d, %+v", code, v)
	}
	for _, test := range []struct {
		code int
		says string
		args []string
	}{
		{1, "no intent", []string{"intent", "status", "--group-id", group, strings.Repeat("0", 64)}},
		{2, "64 lowercase hex digits", []string{"intent", "status", "abc"}},
		{2, "is not hex", []string{"intent", "status", "--group-id", "xyz", id}},
		{2, "is not hex", []string{"group", "show", "xyz"}},
		{1, "is not known", []string{"group", "pending", "00"}},
		{2, "no such file", []string{"intent", "submit", "absent.mls"}},
		{2, "wait", []string{"intent", "submit", "--wait", "-1s", file}},
		{1, "no broker serves", []string{"group", "show", "--prefix", "nobody", group}},
		{1, "--server", []string{"group", "show", group, "--server", "nats://" + freeAddr(t)}},
	} {
		args := test.args
		if !strings.Contains(strings.Join(args, " "), "--server") {
			args = append(args, "--server", d.url)
		}
		if code, out, stderr := run("", append(args, "--tenant", "acme")...); code != test.code || !strings.Contains(stderr, test.says) || out != "" {
			t.Errorf("%v: exit code %d, %q, %s", args, code, out, stderr)
		}
	}
	if code, _, stderr := run("", "group", "show", group, "--server", d.url, "--tenant", "nobody"); code != 1 || !strings.Contains(stderr, `tenant "nobody" is not served`) {
		t.Errorf("another tenant: exit code %d, %s", code, stderr)
	}
	d.Stop()
}

// Whatever happens, the log names no member and shows no intent and no key.
func TestServeLogSecrets(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "log:\n  level: debug\ntenants:\n  - name: acme\n")
	d.Start()
	d.awaitReady()
	c := newCrowd(t, d, "acme", "quiet")
	const name = "zanzibar-quokka"
	c.found(name+"-one", name+"-two", name+"-three", name+"-four")
	good := c.leave(c.members[3], intents.SenderRemovalOnly)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	messages := [][]byte{good, forged, good[:len(good)-1], c.sign(c.members[2], intents.RemoveAssociatedMembers)}
	for _, m := range messages {
		c.submit(m)
		c.publish("intent", m)
	}
	c.publish("commit", good)
	c.publish("info", got[[]byte](c)(c.members[0].GroupInfo())[:200])
	c.join(c.client(name + "-five"))
	c.fanOut(c.awaitProposals(2, 3))
	c.commit(c.members[0], member.CommitOptions{})
	c.empty(c.members[0])
	c.awaitStatus(c.intentID(good), confirmed)
	d.Kill()
	d.Start()
	d.awaitReady()
	d.Stop()

	log, err := os.ReadFile(d.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(log, []byte(`"serving"`)) || len(d.logLines()) < 8 {
		t.Fatalf("too little is logged:\n%s", log)
	}
	secrets := map[string][]byte{"a member's name": []byte(name)}
	for i, m := range messages {
		secrets[fmt.Sprintf("intent %d", i)] = m[len(m)-48 : len(m)-8] // of the signature
	}
	for path, text := range keyFiles(t, d.stateDir) {
		secret := []byte(text)
		if strings.HasPrefix(text, "-----BEGIN ") { // the event key is raw, and may hold line ends
			lines := strings.Split(text, "\n")
			secret = got[[]byte](c)(base64.StdEncoding.DecodeString(strings.Join(lines[1:len(lines)-2], "")))
			secret = secret[:min(len(secret), 48)] // the beginning of PKCS#8, with the private key
		}
		secrets["key "+path] = secret
	}
	for what, secret := range secrets {
		for _, form := range shapes(secret) {
			if bytes.Contains(log, form) {
				t.Errorf("the log shows %s as %q", what, form)
			}
		}
	}
}

// shapes are the forms in which bytes may be found in a text.
func shapes(b []byte) [][]byte {
	forms := [][]byte{b, []byte(hex.EncodeToString(b)), []byte(strings.ToUpper(hex.EncodeToString(b))), []byte(strings.Trim(fmt.Sprint(b), "[]"))}
	for shift := range 3 { // base64 within a longer one: the whole groups of four
		if from := (3 - shift) % 3; len(b) > from+3 {
			whole := b[from : len(b)-(len(b)-from)%3]
			forms = append(forms, []byte(base64.StdEncoding.EncodeToString(whole)), []byte(base64.URLEncoding.EncodeToString(whole)))
		}
	}
	return forms
}

// A secret is found in a text wherever it begins.
func TestShapes(t *testing.T) {
	secret := []byte("0123456789 a secret")
	for before := range 4 {
		text := append(make([]byte, before), append(bytes.Clone(secret), 1, 2, 3)...)
		for _, form := range []string{
			string(text), hex.EncodeToString(text), base64.StdEncoding.EncodeToString(text), base64.RawURLEncoding.EncodeToString(text), fmt.Sprint(text),
		} {
			found := false
			for _, shape := range shapes(secret) {
				found = found || bytes.Contains([]byte(form), shape)
			}
			if !found {
				t.Errorf("not found in %q", form)
			}
		}
	}
}

// consumed waits until every partition has been worked off.
func (d *daemonProcess) consumed(c *crowd) {
	d.T.Helper()
	js := got[jetstream.JetStream](c)(jetstream.New(c.nc))
	for p := range 4 {
		for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			consumer := got[jetstream.Consumer](c)(js.Consumer(c.ctx, "leave-log", fmt.Sprintf("partition-%04d", p)))
			info := consumer.CachedInfo()
			if info.NumPending == 0 && info.NumAckPending == 0 {
				break
			}
			if time.Since(begin) > patience {
				d.T.Fatalf("partition %d: %d messages wait, %d are in hand", p, info.NumPending, info.NumAckPending)
			}
		}
	}
}
