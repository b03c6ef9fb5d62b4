// The presentation language of RFC 9420, Section 2.1.

/** An unsigned integer, big-endian. */
export function uint(bits, value) {
  const encoded = Buffer.alloc(8)
  encoded.writeBigUInt64BE(BigInt(value))
  return encoded.subarray(8 - bits / 8)
}

/** A vector with its variable-size length header. */
export function vector(data) {
  return Buffer.concat([lengthHeader(data.length), data])
}

function lengthHeader(length) {
  if (length < 1 << 6) return uint(8, length)
  if (length < 1 << 14) return uint(16, length | 0x4000)
  return uint(32, (length | 0x80000000) >>> 0)
}

/** The index after the vector that begins at an index. */
export function vectorEnd(data, at) {
  const size = 1 << (data[at] >> 6)
  const valueBits = 8 * size - 2
  return at + size + (data.readUIntBE(at, size) % 2 ** valueBits)
}
