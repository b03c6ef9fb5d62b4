// Signature keys: made here where the library's own are not those of RFC 9420, and told in the form of the protocol.
import { p256, p384, p521 } from "@noble/curves/nist.js"

const curves = { P256: p256, P384: p384, P521: p521 }
const SEED_BYTES = 32

/** A key pair for the library, and the private key as the protocol has it. */
export async function signatureKeys(suite, algorithm) {
  const curve = curves[algorithm]
  const pair = curve === undefined ? await suite.signature.keygen() : uncompressedPair(curve)
  // Of Ed25519 the library keeps a PKCS #8 document, which ends in the seed.
  const secret = algorithm === "Ed25519" ? pair.signKey.slice(-SEED_BYTES) : pair.signKey
  return { pair, secret }
}

// The library makes compressed points; RFC 9420 has uncompressed ones.
function uncompressedPair(curve) {
  const signKey = curve.utils.randomSecretKey()
  return { signKey, publicKey: curve.getPublicKey(signKey, false) }
}
