// Proposals: of requests, and those that a member knows and may commit.
import { bytes, Unsupported } from "../driver-js/line.js"
import { contextExtensions, decodeMessage } from "./encoding.js"

/** Has the fields of a GroupContext in a request. */
export function contextOf(request) {
  return contextExtensions({
    senders: (request.external_senders ?? []).map(bytes),
    requiredProposals: request.required_proposals ?? [],
  })
}

const makers = {
  add: (request) => ({
    proposalType: "add",
    add: { keyPackage: decodeMessage(bytes(request.key_package), "mls_key_package").keyPackage },
  }),
  remove: (request) => ({ proposalType: "remove", remove: { removed: request.leaf ?? 0 } }),
  psk: (request, suite) => ({
    proposalType: "psk",
    psk: {
      preSharedKeyId: {
        psktype: "external",
        pskId: bytes(request.id),
        pskNonce: suite.rng.randomBytes(suite.kdf.size),
      },
    },
  }),
  group_context_extensions: (request) => ({
    proposalType: "group_context_extensions",
    groupContextExtensions: { extensions: contextOf(request) },
  }),
}

/** A proposal that needs nothing of the group. */
export function makeProposal(request, suite) {
  const make = makers[request.kind]
  if (make === undefined) throw new Unsupported(`ts-mls has no ${request.kind} proposal here`)
  return make(request, suite)
}

/**
 * The known proposals that the member may commit together (RFC 9420, Section 12.2): ts-mls puts all that it knows in a
 * commit, and refuses the list if it does not hold together.
 */
export function committable(unapplied, ownLeaf, hasLeaf) {
  const entries = Object.entries(unapplied)
  const removed = new Set(leavesRemoved(entries))
  const chosen = new Map()
  for (const entry of entries) {
    const key = conflictKey(entry, removed)
    if (key !== undefined) chosen.set(key, entry)
  }
  return Object.fromEntries(chosen.values())

  function conflictKey([reference, { proposal, senderLeafIndex }], removed) {
    const leaf = proposal.proposalType === "remove" ? proposal.remove.removed : senderLeafIndex
    switch (proposal.proposalType) {
      case "remove":
        return leaf === ownLeaf || !hasLeaf(leaf) ? undefined : `leaf ${leaf}`
      case "update":
        return leaf === ownLeaf || removed.has(leaf) ? undefined : `leaf ${leaf}`
      case "group_context_extensions":
        return "context"
      default:
        return reference
    }
  }
}

function leavesRemoved(entries) {
  return entries
    .map(([, { proposal }]) => proposal)
    .filter((proposal) => proposal.proposalType === "remove")
    .map((proposal) => proposal.remove.removed)
}

/** Throws if ts-mls would make a commit of these proposals that others cannot take. */
export function demandCommittable(proposals, forced) {
  const types = new Set(proposals.map((proposal) => proposal.proposalType))
  if (types.has("group_context_extensions")) {
    throw new Unsupported("ts-mls sends no path for GroupContextExtensions, and encrypts one in the old GroupContext")
  }
  const sendsPath = types.size === 0 || types.has("update") || types.has("remove")
  if (forced && !sendsPath) throw new Unsupported("ts-mls sends a path only with an Update, a Remove or no proposal at all")
}
