package mlstest

import (
	"runtime"
	"testing"
)

// allocationSlack is what a call may allocate whatever its input is, in bytes:
// errors, tables, the keys of a small group, and what the runtime does meanwhile.
const allocationSlack = 128 << 10

// DecodingFactor bounds what decoding structures of MLS may allocate for a byte
// of its input. The densest list is external_senders: 128 bytes for each 4, of
// which append allocates up to 6.25 times as many in all.
const DecodingFactor = 200

// CheckAllocation calls do, which reads an input of a size in bytes, and reports
// an error if that allocates more than factor bytes for each of them beside a
// constant. All that is allocated counts, not what is alive at a time. What other
// goroutines allocate counts too, so do is called again before it is blamed; it
// has to do the same every time.
func CheckAllocation(t testing.TB, size, factor int, do func()) {
	t.Helper()
	limit := uint64(factor*size + allocationSlack)
	least := allocated(do)
	for tries := 0; least > limit && tries < 4; tries++ {
		least = min(least, allocated(do))
	}
	if least > limit {
		t.Errorf("%d bytes allocated for an input of %d, more than %d", least, size, limit)
	}
}

// allocated is the bytes that the program allocates during a call.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
