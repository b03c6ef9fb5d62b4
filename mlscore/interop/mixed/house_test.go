package mixed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"leavebroker/broker/delivery"
	"leavebroker/broker/natstest"
	"leavebroker/mlscore"
	"leavebroker/mlscore/keyfile"
)

// patience bounds every wait for the daemon: machines may be busy.
const patience = 60 * time.Second

// senderIdentity is the daemon's in the groups.
const senderIdentity = "leavebroker"

// customType is the code point of the LeafOperationProposal.
const customType mlscore.ProposalType = 0xf0a1

// tenantForm is what tenants differ in.
type tenantForm struct {
	selfRemove mlscore.ProposalType
	operations bool // removals are LeafOperationProposals
}

func (f tenantForm) name() string {
	if f.operations {
		return fmt.Sprintf("operations-%04x", uint16(f.selfRemove))
	}
	return fmt.Sprintf("removes-%04x", uint16(f.selfRemove))
}

func (f tenantForm) config(keys []string) string {
	text := fmt.Sprintf("  - name: %s\n    sender_identity: %s\n    keys:\n", f.name(), senderIdentity)
	for _, key := range keys {
		text += fmt.Sprintf("      - file: %s\n", key)
	}
	if f.operations {
		text += "    form: leaf_operation_proposal\n    body: opaque\n"
	}
	return text + fmt.Sprintf(`    code_points:
      self_remove: 0x%04x
      leaf_operation_proposal: 0x%04x
    authsvc:
      type: static
      credentials_vouched: true
      shared: %t
      rules:
        - match: basic
          encoding: utf8
          pattern: "(?P<subject>[^:]+):.*"
`, uint16(f.selfRemove), uint16(customType), f.operations)
}

var tenantForms = []tenantForm{{0x000a, false}, {0xf003, false}, {0x000a, true}, {0xf003, true}}

// house is a daemon, the NATS server that it uses, and the delivery services of
// its tenants.
type house struct {
	natstest.Process
	url     string
	signers map[mlscore.SignatureScheme]mlscore.Signer // of all tenants

	begun int64 // where the log of this process of the daemon begins

	mu    sync.Mutex
	inbox map[inboxKey][][]byte // proposals that came; guarded by mu
}

type inboxKey struct {
	group string
	epoch uint64
}

// newHouse starts a server and a daemon, and ends them with the test.
func newHouse(t testing.TB) *house {
	t.Helper()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	h := &house{
		url: natstest.Start(t, natstest.Options{}).URL(), inbox: map[inboxKey][][]byte{},
		signers: map[mlscore.SignatureScheme]mlscore.Signer{},
	}
	config := filepath.Join(dir, "config.yaml")
	h.Process = natstest.Process{T: t, LogPath: filepath.Join(dir, "log"), Command: func() *exec.Cmd {
		return exec.Command(binary, "serve", "--config", config)
	}}
	var keys []string
	for _, scheme := range []mlscore.SignatureScheme{mlscore.Ed25519, mlscore.Ed448, mlscore.ECDSAWithP256AndSHA256} {
		keys = append(keys, h.newKey(dir, scheme))
	}
	text := fmt.Sprintf("state_dir: %s\npartitions: 4\nnats:\n  url: %s\nack_wait: 1s\npin_ttl: 1s\ntenants:\n", filepath.Join(dir, "state"), h.url)
	for _, form := range tenantForms {
		text += form.config(keys)
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Start()
	h.awaitServing()
	t.Cleanup(func() {
		if running, _ := h.Running(); running {
			h.awaitServing()
			h.Stop()
		}
	})
	for _, form := range tenantForms {
		h.takeRemovals(form.name())
	}
	return h
}

func (h *house) newKey(dir string, scheme mlscore.SignatureScheme) (path string) {
	text, err := keyfile.Generate(scheme)
	if err != nil {
		h.T.Fatal(err)
	}
	path = filepath.Join(dir, scheme.String()+".pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		h.T.Fatal(err)
	}
	if h.signers[scheme], err = keyfile.Parse(text); err != nil {
		h.T.Fatal(err)
	}
	return path
}

func (h *house) awaitServing() {
	h.T.Helper()
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(10 * time.Millisecond) {
		log, err := os.ReadFile(h.LogPath)
		if err != nil {
			h.T.Fatal(err)
		}
		if bytes.Contains(log[h.begun:], []byte(`"serving"`)) {
			return
		}
		if running, err := h.Running(); !running {
			h.T.Fatalf("the daemon ended: %v", err)
		}
	}
	h.T.Fatalf("the daemon does not serve after %s", patience)
}

// sender is the encoded ExternalSender that groups of a suite install.
func (h *house) sender(suite *mlscore.Suite) []byte {
	s := mlscore.ExternalSender{SignatureKey: h.signers[suite.Signature].PublicKey(), Credential: mlscore.BasicCredential([]byte(senderIdentity))}
	return s.Append(nil)
}

// service connects a delivery service of a tenant.
func (h *house) service(t testing.TB, tenant string) *delivery.Service {
	t.Helper()
	nc, err := nats.Connect(h.url, nats.MaxReconnects(-1), nats.Timeout(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	ds, err := delivery.New(nc, "leave", tenant)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

// takeRemovals brings the outputs of a tenant into the inbox until the test
// ends.
func (h *house) takeRemovals(tenant string) {
	ds := h.service(h.T, tenant)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ds.Removals(ctx, h.take) }()
	h.T.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			h.T.Error(err)
		}
	})
}

func (h *house) take(r *delivery.Removal) {
	h.mu.Lock()
	key := inboxKey{string(r.GroupID), r.Epoch}
	for _, p := range r.Proposals { // an output comes again if the acknowledgement was lost
		known := false
		for _, had := range h.inbox[key] {
			known = known || bytes.Equal(had, p)
		}
		if !known {
			h.inbox[key] = append(h.inbox[key], p)
		}
	}
	h.mu.Unlock()
	_ = r.Done() // it comes again if this is lost
}

// arrived are the proposals that came for an epoch of a group.
func (h *house) arrived(groupID []byte, epoch uint64) [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([][]byte(nil), h.inbox[inboxKey{string(groupID), epoch}]...)
}

// restart ends the daemon, in order once it serves or as a crash would whatever
// it does, and starts it again.
func (h *house) restart(crash bool) {
	h.T.Helper()
	if crash {
		h.Kill()
	} else {
		h.awaitServing()
		h.Stop()
	}
	info, err := os.Stat(h.LogPath)
	if err != nil {
		h.T.Fatal(err)
	}
	h.begun = info.Size()
	h.Start()
}
