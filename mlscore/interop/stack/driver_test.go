package stack

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// fakeEnv makes the test's own program a driver.
const fakeEnv = "LEAVEBROKER_FAKE_DRIVER"

func TestMain(m *testing.M) {
	if os.Getenv(fakeEnv) != "" {
		fakeDriver()
		return
	}
	os.Exit(m.Run())
}

// fakeDriver answers as a driver, with what the test looks for.
func fakeDriver() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var r map[string]any
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			panic(err)
		}
		switch r["op"] {
		case "hello":
			fmt.Println(`{"stack":"fake","version":"1","suites":[1,2],"self_remove":10,"operations":["member","state","process","propose","confirm","track"]}`)
		case "member":
			fmt.Println(`{"signature_key":"a2V5","signature_private":"c2VjcmV0"}`)
		case "propose":
			fmt.Printf(`{"message":"%s"}`+"\n", r["key_package"])
		case "process":
			fmt.Println(`{"error":"no such proposal","unsupported":true}`)
		case "confirm":
			fmt.Println(`{"error":"nothing to confirm"}`)
		case "state":
			fmt.Fprintln(os.Stderr, "out of cheese")
			return
		}
	}
}

func startFake(t *testing.T) Stack {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fakeEnv+"=1")
	s, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestDriver(t *testing.T) {
	s := startFake(t)
	if h := s.Hello(); h.Stack != "fake" || len(h.Suites) != 2 || h.SelfRemove != 10 || !h.Has("state") || h.Has("join") {
		t.Errorf("hello: %+v", h)
	}
	m, err := s.NewMember(MemberOptions{Suite: 1, Identity: []byte("alice")})
	if err != nil {
		t.Fatal(err)
	}
	if k := m.Keys(); string(k.Public) != "key" || string(k.Private) != "secret" {
		t.Errorf("keys %q", k)
	}
	if message, err := m.Propose(Add([]byte("a key package"))); err != nil || string(message) != "a key package" {
		t.Errorf("proposal %q, error %v", message, err)
	}
	var unsupported *Unsupported
	if _, err := m.Process([]byte("x")); !errors.As(err, &unsupported) || unsupported.Text != "no such proposal" {
		t.Errorf("unsupported: %v", err)
	}
	if err := m.Join([]byte("x")); !errors.As(err, &unsupported) {
		t.Errorf("an operation that is not there: %v", err)
	}
	if err := m.Confirm(); err == nil || errors.As(err, &unsupported) || !strings.Contains(err.Error(), "fake: confirm: nothing to confirm") {
		t.Errorf("refused: %v", err)
	}
}

// A driver that ends fails the request with what it said, and every one after.
func TestDriverEnds(t *testing.T) {
	m, err := startFake(t).NewMember(MemberOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := m.State(); err == nil || !strings.Contains(err.Error(), "out of cheese") {
			t.Errorf("a state of a driver that has ended: %v", err)
		}
	}
}

// Our own stack plays by the rules of the interface.
func TestOwn(t *testing.T) {
	s := Own(Points{SelfRemove: 0x000a, LeafNodeEpoch: 0xf0a3})
	newMember := func(name string) Member {
		m, err := s.NewMember(MemberOptions{Suite: 1, Identity: []byte(name)})
		check(t, err)
		return m
	}
	alice, bob, carol := newMember("alice"), newMember("bob"), newMember("carol")
	check(t, alice.Create([]byte("group"), Context{}))
	k, err := bob.KeyPackage()
	check(t, err)
	c, err := alice.Commit(CommitOptions{Proposals: []Proposal{Add(k)}})
	check(t, err)
	if state, err := alice.State(); err != nil || state.Epoch != 0 {
		t.Fatalf("before confirm: epoch %d, error %v", state.Epoch, err)
	}
	check(t, alice.Confirm())
	check(t, bob.Join(c.Welcome))
	info, err := bob.GroupInfo()
	check(t, err)
	tracker, _, err := s.NewTracker(info, TrackerOptions{})
	check(t, err)
	join, err := carol.ExternalJoin(ExternalJoin{GroupInfo: info})
	check(t, err)
	tracked, err := tracker.Track(join)
	check(t, err)
	for _, m := range []Member{alice, bob} {
		if r, err := m.Process(join); err != nil || r.Kind != "commit" || r.Removed {
			t.Fatalf("%+v, error %v", r, err)
		}
	}
	remove, err := carol.Propose(Remove(1))
	check(t, err)
	if r, err := alice.Process(remove); err != nil || r.Kind != "proposal" {
		t.Fatalf("%+v, error %v", r, err)
	}
	for _, m := range []Member{alice, bob, carol} {
		state, err := m.State()
		check(t, err)
		check(t, tracked.Differs(state))
	}
	tracked.TreeHash = []byte("another")
	if state, _ := alice.State(); tracked.Differs(state) == nil {
		t.Error("another tree hash is not seen")
	}
	last, err := alice.Commit(CommitOptions{ByReference: true})
	check(t, err)
	if r, err := bob.Process(last.Commit); err == nil {
		t.Errorf("a commit of a proposal that bob has not seen: %+v", r)
	}
	_, err = bob.Process(remove)
	check(t, err)
	if r, err := bob.Process(last.Commit); err != nil || !r.Removed {
		t.Errorf("%+v, error %v", r, err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
