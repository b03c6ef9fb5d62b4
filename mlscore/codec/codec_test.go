package codec

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"testing"

	"leavebroker/mlscore/mlstest"
)

func TestVarintVectors(t *testing.T) {
	var cases []struct {
		Header string `json:"vlbytes_header"`
		Length int    `json:"length"`
	}
	if err := json.Unmarshal(mlstest.Vectors(t, "mlswg/deserialization.json"), &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range cases {
		header, err := hex.DecodeString(c.Header)
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(header)
		if got := r.Varint(); got != c.Length || r.Finish() != nil {
			t.Errorf("%s: got %d, %v; want %d", c.Header, got, r.Err(), c.Length)
		}
		if got := AppendVarint(nil, c.Length); !bytes.Equal(got, header) {
			t.Errorf("%d: got %x, want %s", c.Length, got, c.Header)
		}
	}
}

func TestVarintRefusals(t *testing.T) {
	for name, in := range map[string][]byte{
		"empty":                  {},
		"reserved prefix":        {0xc0, 0, 0, 0},
		"two bytes for 63":       {0x40, 0x3f},
		"four bytes for 63":      {0x80, 0, 0, 0x3f},
		"four bytes for 0x3fff":  {0x80, 0, 0x3f, 0xff},
		"two-byte header, short": {0x40},
		"four-byte header short": {0x80, 0, 0x40},
	} {
		r := NewReader(in)
		if v := r.Varint(); v != 0 || !errors.Is(r.Err(), ErrMalformed) {
			t.Errorf("%s: got %d, %v", name, v, r.Err())
		}
	}
}

func TestOpaqueLengths(t *testing.T) {
	for _, n := range []int{0, 1, 0x3f, 0x40, 0x3ffe, 0x3fff, 0x4000, 0x4001} {
		v := bytes.Repeat([]byte{7}, n)
		whole := AppendOpaque(nil, v)
		nested := AppendVector(nil, func(b []byte) []byte { return append(b, v...) })
		if !bytes.Equal(whole, nested) {
			t.Errorf("%d: AppendVector and AppendOpaque differ", n)
		}
		r := NewReader(whole)
		if got := r.Opaque(); !bytes.Equal(got, v) || r.Finish() != nil {
			t.Errorf("%d: %v", n, r.Err())
		}
		r = NewReader(whole[:len(whole)-1])
		if got := r.Opaque(); got != nil || r.Err() == nil {
			t.Errorf("%d: a short input was accepted", n)
		}
	}
}

func TestHugeLengthAllocatesNothing(t *testing.T) {
	in := []byte{0xbf, 0xff, 0xff, 0xff, 1, 2, 3}
	n := testing.AllocsPerRun(100, func() {
		r := Reader{in: in}
		r.Varint()
		if r.Bytes(MaxVector) != nil {
			t.Error("bytes from nowhere")
		}
	})
	if n > 6 { // the error, no buffer
		t.Errorf("%v allocations", n)
	}
}

func TestStickyError(t *testing.T) {
	r := NewReader([]byte{2, 1})
	r.Opaque()
	first := r.Err()
	r.Uint64()
	r.Optional()
	v := r.Vector()
	if !v.Empty() {
		t.Error("a vector after an error has content")
	}
	r.Join(v)
	if r.Err() != first || r.Finish() != first {
		t.Errorf("got %v, want %v", r.Err(), first)
	}
}

func TestJoinRefusesLeftOver(t *testing.T) {
	r := NewReader([]byte{2, 1, 2})
	v := r.Vector()
	v.Uint8()
	r.Join(v)
	if !errors.Is(r.Err(), ErrMalformed) {
		t.Errorf("got %v", r.Err())
	}
}

func TestOptionalByte(t *testing.T) {
	r := NewReader([]byte{0, 1, 2})
	if r.Optional() || !r.Optional() || r.Err() != nil {
		t.Error(r.Err())
	}
	if r.Optional() || r.Err() == nil {
		t.Error("presence byte 2 accepted")
	}
}

func FuzzVarint(f *testing.F) {
	f.Add([]byte{0x40, 0x40})
	f.Add([]byte{0x80, 0, 0x40, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(in)
		n := r.Varint()
		mlstest.CheckAllocation(t, len(in), 0, func() { NewReader(in).Opaque() }) // reading never copies
		if r.Err() == nil && !bytes.Equal(AppendVarint(nil, n), in[:r.Offset()]) {
			t.Errorf("%x decodes to %d", in, n)
		}
	})
}
