package broker

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
)

// What a server was asked that fell silent is asked again, and read from where
// it fell silent. Here the first request of each kind is lost on its way, the
// second answer breaks off, and the first message of the third is lost.
func TestUnansweredRequestsAreRepeated(t *testing.T) {
	w := newWorld(t, nil)
	w.found("alice", "bob", "carol")
	for range 3 {
		w.empty(0)
	}
	w.noWork()
	ctx := testContext(t)
	var mu sync.Mutex
	requests := map[string]int{}
	_, err := w.nc.Subscribe("LOSSY.>", func(m *nats.Msg) {
		mu.Lock()
		requests[m.Subject]++
		n := requests[m.Subject]
		mu.Unlock()
		to, reply := "$JS.API."+strings.TrimPrefix(m.Subject, "LOSSY."), m.Reply
		switch n {
		case 1:
			return
		case 2, 3:
			if !strings.Contains(m.Subject, "DIRECT") {
				break
			}
			inbox, passed := w.nc.NewInbox(), 0
			_, err := w.nc.Subscribe(inbox, func(a *nats.Msg) {
				if passed++; n == 2 && passed > 2 || n == 3 && passed == 1 {
					return
				}
				a.Subject, a.Reply = m.Reply, ""
				_ = w.nc.PublishMsg(a)
			})
			if err != nil {
				t.Error(err)
				return
			}
			reply = inbox
		}
		_ = w.nc.PublishRequest(to, reply, m.Data)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	read := func(s *store) (seqs []uint64) {
		err := s.read(ctx, s.names.logOf(w.key()), 1, func(e entry) error {
			seqs = append(seqs, e.seq)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return seqs
	}
	lossy := *w.store()
	lossy.api = "LOSSY."
	have, want := read(&lossy), read(w.store())
	if !slices.Equal(have, want) || len(want) < 4 {
		t.Errorf("read %d, want %d", have, want)
	}
	mu.Lock()
	defer mu.Unlock()
	for subject, n := range requests {
		if n < 2 {
			t.Errorf("%s: %d requests", subject, n)
		}
	}
	if len(requests) != 2 {
		t.Errorf("requests %v", requests)
	}
}
