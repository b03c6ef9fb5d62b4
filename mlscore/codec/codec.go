// Package codec reads and writes the TLS presentation language with the
// variable-size vectors of MLS (RFC 9420, Section 2.1 and RFC 8446, Section 3).
//
// Reading is strict: a length is compared with the bytes that remain before
// anything is allocated, lengths must be minimal, the prefix 11 is refused, and
// Finish refuses bytes left over. What decodes therefore re-encodes to the same
// bytes. Reading never copies: byte slices point into the input, which the
// caller must not change afterwards.
//
// Writing appends to a slice and cannot fail.
package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed says that bytes are not a valid encoding: too short, too long,
// a length that is not minimal, or a field out of its range.
var ErrMalformed = errors.New("malformed")

// MaxVector is the largest length that a vector header can state, in bytes
// (RFC 9420, Section 2.1.2: the two-bit prefix leaves 30 bits).
const MaxVector = 1<<30 - 1

// Reader reads fields in order and keeps its first error: after it, every
// method returns zero values. The zero Reader is empty.
type Reader struct {
	in  []byte
	off int
	err error
}

// NewReader reads from in without copying it.
func NewReader(in []byte) *Reader { return &Reader{in: in} }

// Err is the first error met, nil if there was none.
func (r *Reader) Err() error { return r.err }

// Finish is Err, or an error if input remains.
func (r *Reader) Finish() error {
	if r.err == nil && r.off < len(r.in) {
		r.Fail("%d bytes left over", r.Len())
	}
	return r.err
}

// Fail records an error that wraps ErrMalformed, unless there is one already.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: at byte %d: %s", ErrMalformed, r.off, fmt.Sprintf(format, args...))
	}
}

// Empty reports whether no input remains, or reading has failed: the condition
// that ends the loop over a vector's elements.
func (r *Reader) Empty() bool { return r.err != nil || r.off == len(r.in) }

// Offset is the number of bytes read so far.
func (r *Reader) Offset() int { return r.off }

// Len is the number of bytes that remain.
func (r *Reader) Len() int { return len(r.in) - r.off }

// Since is the input from an earlier Offset up to here.
func (r *Reader) Since(offset int) []byte { return r.in[offset:r.off:r.off] }

// Bytes reads n bytes.
func (r *Reader) Bytes(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > r.Len() {
		r.Fail("%d bytes wanted, %d remain", n, r.Len())
		return nil
	}
	b := r.in[r.off : r.off+n : r.off+n]
	r.off += n
	return b
}

// Rest reads everything that remains.
func (r *Reader) Rest() []byte { return r.Bytes(r.Len()) }

// Uint8 reads a uint8.
func (r *Reader) Uint8() uint8 {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Uint16 reads a big-endian uint16.
func (r *Reader) Uint16() uint16 {
	if b := r.Bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// Uint32 reads a big-endian uint32.
func (r *Reader) Uint32() uint32 {
	if b := r.Bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Uint64 reads a big-endian uint64.
func (r *Reader) Uint64() uint64 {
	if b := r.Bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Varint reads a vector length (RFC 9420, Section 2.1.2): 1, 2 or 4 bytes, the
// shortest form only.
func (r *Reader) Varint() int {
	first := r.Uint8()
	if r.err != nil {
		return 0
	}
	var v, least uint32
	switch first >> 6 {
	case 0:
		return int(first)
	case 1:
		v, least = uint32(first&0x3f)<<8|uint32(r.Uint8()), 1<<6
	case 2:
		b := r.Bytes(3)
		if b == nil {
			return 0
		}
		v, least = uint32(first&0x3f)<<24|uint32(b[0])<<16|uint32(b[1])<<8|uint32(b[2]), 1<<14
	default:
		r.Fail("length with the reserved prefix 11")
		return 0
	}
	if r.err == nil && v < least {
		r.Fail("length %d is not in its shortest form", v)
	}
	if r.err != nil {
		return 0
	}
	return int(v)
}

// Opaque reads opaque<V>. It is nil only after an error.
func (r *Reader) Opaque() []byte { return r.Bytes(r.Varint()) }

// Vector reads the length of a vector and returns a Reader of its content.
// Errors of that Reader reach r only through Join.
func (r *Reader) Vector() *Reader { return &Reader{in: r.Opaque(), err: r.err} }

// Join ends a vector that Vector began: its error, or its bytes left over,
// become the error of r.
func (r *Reader) Join(vector *Reader) {
	if err := vector.Finish(); err != nil && r.err == nil {
		r.err = err
	}
}

// Optional reads the presence byte of optional<T> (RFC 9420, Section 2.1.1).
func (r *Reader) Optional() bool {
	switch v := r.Uint8(); v {
	case 0:
		return false
	case 1:
		return true
	default:
		r.Fail("presence byte %d", v)
		return false
	}
}

// AppendUint16 appends a big-endian uint16.
func AppendUint16(b []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(b, v) }

// AppendUint32 appends a big-endian uint32.
func AppendUint32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }

// AppendUint64 appends a big-endian uint64.
func AppendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// AppendVarint appends a vector length in its shortest form. It panics above
// MaxVector: no caller holds that much.
func AppendVarint(b []byte, n int) []byte {
	switch {
	case n < 1<<6:
		return append(b, byte(n))
	case n < 1<<14:
		return append(b, 1<<6|byte(n>>8), byte(n))
	case n <= MaxVector:
		return append(b, 2<<6|byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	panic("internal error: vector longer than 2^30-1 bytes")
}

// AppendOpaque appends opaque<V>.
func AppendOpaque(b, v []byte) []byte { return append(AppendVarint(b, len(v)), v...) }

// AppendVector appends the length of what body appends, then that.
func AppendVector(b []byte, body func([]byte) []byte) []byte {
	start := len(b)
	b = body(append(b, 0)) // room for the shortest length
	n := len(b) - start - 1
	if n < 1<<6 {
		b[start] = byte(n)
		return b
	}
	header := AppendVarint(make([]byte, 0, 4), n)
	b = append(b, header[1:]...)
	copy(b[start+len(header):], b[start+1:start+1+n])
	copy(b[start:], header)
	return b
}

// AppendOptional appends the presence byte of optional<T>.
func AppendOptional(b []byte, present bool) []byte {
	if present {
		return append(b, 1)
	}
	return append(b, 0)
}
