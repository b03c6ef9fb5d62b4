package broker

import (
	"encoding/json"
	"sync"

	"github.com/nats-io/nats.go"
)

// hub gives the events of intents to those who wait for one, whichever
// instance made them.
type hub struct {
	names   names
	mu      sync.Mutex
	waiting map[waitKey]map[chan event]struct{} // guarded by mu
}

type waitKey struct{ tenant, intent string }

// waitBuffer is how many events may come before the waiter looks.
const waitBuffer = 16

// wait gives the events of an intent from now on, until done is called.
func (h *hub) wait(tenant, intent string) (events <-chan event, done func()) {
	c := make(chan event, waitBuffer)
	k := waitKey{tenant, intent}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting == nil {
		h.waiting = map[waitKey]map[chan event]struct{}{}
	}
	if h.waiting[k] == nil {
		h.waiting[k] = map[chan event]struct{}{}
	}
	h.waiting[k][c] = struct{}{}
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.waiting[k], c)
		if len(h.waiting[k]) == 0 {
			delete(h.waiting, k)
		}
	}
}

// handle is given every event.
func (h *hub) handle(m *nats.Msg) {
	intent := m.Header.Get(headerIntent)
	if intent == "" {
		return
	}
	k, _, err := h.names.parseEvent(m.Subject)
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	waiting := h.waiting[waitKey{k.tenant, intent}]
	if len(waiting) == 0 {
		return
	}
	var e event
	if json.Unmarshal(m.Data, &e) != nil {
		return
	}
	for c := range waiting {
		select {
		case c <- e:
		default: // the waiter's time runs out: it does not look
		}
	}
}
