package verified

import "testing"

// TestMemory: a verdict is remembered for its key, message and signature, and for
// nothing else.
func TestMemory(t *testing.T) {
	asked := 0
	ask := func(m *Memory, verdict bool, parts ...string) bool {
		return m.Verify([]byte(parts[0]), []byte(parts[1]), []byte(parts[2]), func() bool { asked++; return verdict })
	}
	var none *Memory
	for range 2 {
		if !ask(none, true, "key", "message", "signature") {
			t.Error("no memory gives another verdict")
		}
	}
	if asked != 2 {
		t.Errorf("no memory asked %d times", asked)
	}
	m := new(Memory)
	asked = 0
	for i, c := range []struct {
		parts   []string
		verdict bool
		asked   int
	}{
		{[]string{"key", "message", "signature"}, true, 1},
		{[]string{"key", "message", "signature"}, false, 1},
		{[]string{"key", "messages", "ignature"}, false, 2},
		{[]string{"ke", "ymessage", "signature"}, false, 3},
		{[]string{"ke", "ymessage", "signature"}, true, 3},
	} {
		want := i < 2
		if got := ask(m, c.verdict, c.parts...); got != want || asked != c.asked {
			t.Errorf("%q: %t, asked %d times, want %t and %d", c.parts, got, asked, want, c.asked)
		}
	}
}
