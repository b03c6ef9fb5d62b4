// An external sender (RFC 9420, Section 12.1.8), for the tests of the drivers.
import { generateKeyPairSync, sign } from "node:crypto"
import { uint, vector } from "./vector.js"

const VERSION = 1
const PUBLIC_MESSAGE = 1
const SENDER_EXTERNAL = 2
const CONTENT_PROPOSAL = 2
const PROPOSAL_ADD = 1
const PROPOSAL_REMOVE = 3
const CREDENTIAL_BASIC = 1

const makers = {
  ed25519: () => generateKeyPairSync("ed25519"),
  ed448: () => generateKeyPairSync("ed448"),
  p256: () => generateKeyPairSync("ec", { namedCurve: "P-256" }),
}

export class ExternalSender {
  #keys
  #hash

  constructor(algorithm) {
    this.#keys = makers[algorithm]()
    this.#hash = algorithm === "p256" ? "sha256" : null
  }

  /** The encoded ExternalSender. */
  encode(identity) {
    const { x, y } = this.#keys.publicKey.export({ format: "jwk" })
    const point = (coordinate) => Buffer.from(coordinate, "base64url")
    const key = y === undefined ? point(x) : Buffer.concat([uint(8, 4), point(x), point(y)])
    return Buffer.concat([vector(key), uint(16, CREDENTIAL_BASIC), vector(Buffer.from(identity))])
  }

  /** An Add of a key package, an MLSMessage. */
  add(groupId, epoch, keyPackage) {
    return this.#propose(groupId, epoch, Buffer.concat([uint(16, PROPOSAL_ADD), keyPackage.subarray(4)]))
  }

  remove(groupId, epoch, leaf) {
    return this.#propose(groupId, epoch, Buffer.concat([uint(16, PROPOSAL_REMOVE), uint(32, leaf)]))
  }

  #propose(groupId, epoch, proposal) {
    const header = Buffer.concat([uint(16, VERSION), uint(16, PUBLIC_MESSAGE)])
    const sender = Buffer.concat([uint(8, SENDER_EXTERNAL), uint(32, 0)])
    const content = Buffer.concat([
      vector(groupId), uint(64, epoch), sender, vector(Buffer.alloc(0)), uint(8, CONTENT_PROPOSAL), proposal,
    ])
    const label = vector(Buffer.from("MLS 1.0 FramedContentTBS"))
    const signed = Buffer.concat([label, vector(Buffer.concat([header, content]))])
    return Buffer.concat([header, content, vector(sign(this.#hash, signed, this.#keys.privateKey))])
  }
}
