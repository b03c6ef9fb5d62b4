// The framing of RFC 9420, Section 6, where DAVE has bare structures or vectors.
import { createHash } from "node:crypto"
import { uint, vector, vectorEnd } from "../driver-js/vector.js"

const VERSION = 1
const WIRE_PUBLIC = 1
const WIRE_WELCOME = 3
const WIRE_KEY_PACKAGE = 5
const CONTENT = { 2: "proposal", 3: "commit" }
const SENDER_WITH_INDEX = new Set([1, 2])

const header = (wireFormat) => Buffer.concat([uint(16, VERSION), uint(16, wireFormat)])

export const messageOfKeyPackage = (keyPackage) => Buffer.concat([header(WIRE_KEY_PACKAGE), keyPackage])
export const messageOfWelcome = (welcome) => Buffer.concat([header(WIRE_WELCOME), welcome])

export function welcomeOfMessage(message) {
  if (!message.subarray(0, 4).equals(header(WIRE_WELCOME))) throw new Error("not a Welcome")
  return message.subarray(4)
}

/** What a PublicMessage carries: "proposal" or "commit". */
export function contentOfMessage(message) {
  if (!message.subarray(0, 4).equals(header(WIRE_PUBLIC))) throw new Error("not a PublicMessage")
  const sender = vectorEnd(message, 4) + 8
  const data = sender + (SENDER_WITH_INDEX.has(message[sender]) ? 5 : 1)
  const content = CONTENT[message[vectorEnd(message, data)]]
  if (content === undefined) throw new Error("neither a proposal nor a commit")
  return content
}

/** The ProposalRef of an external proposal (RFC 9420, Section 5.2), whose PublicMessage ends in the signature. */
export function proposalRef(message) {
  const authenticatedContent = message.subarray(2)
  const label = Buffer.from("MLS 1.0 Proposal Reference")
  return createHash("sha256").update(vector(label)).update(vector(authenticatedContent)).digest()
}
