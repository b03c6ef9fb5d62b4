// A driver (../README.md) for members of davey, an implementation of Discord's DAVE protocol.
import davey from "@snazzah/davey"
import { bytes, serve, Unsupported } from "../driver-js/line.js"
import { vector } from "../driver-js/vector.js"
import { contentOfMessage, messageOfKeyPackage, messageOfWelcome, proposalRef, welcomeOfMessage } from "./framing.js"

const SUITE = 2
const ID_BYTES = 8
const APPEND = 0 // ProposalsOperationType, a const enum of the package
const REVOKE = 1

function decimalId(encoded, what) {
  const id = Buffer.from(bytes(encoded))
  if (id.length !== ID_BYTES) throw new Error(`a ${what} of ${id.length} bytes, where DAVE has ${ID_BYTES}`)
  return id.readBigUInt64BE().toString()
}

function idBytes(decimal) {
  const id = Buffer.alloc(ID_BYTES)
  id.writeBigUInt64BE(BigInt(decimal))
  return id
}

function member(request) {
  if (request.suite !== SUITE) throw new Unsupported(`DAVE has cipher suite ${SUITE} alone`)
  if ((request.proposals ?? []).length > 0) throw new Unsupported("davey's capabilities name no proposal types")
  const keys = davey.generateP256Keypair()
  const user = decimalId(request.identity, "user id")
  const member = { keys, user, known: [] }
  if (request.group_id !== undefined) enterChannel(member, request)
  return { reply: { signature_key: keys.public, signature_private: keys.private }, member }
}

/** A session in a channel; once it knows the external sender it has a local group of itself. */
function enterChannel(member, request) {
  const senders = request.external_senders ?? []
  if (senders.length !== 1) throw new Unsupported("DAVE has exactly one external sender")
  const channel = decimalId(request.group_id, "group id")
  member.session ??= new davey.DAVESession(davey.DAVE_PROTOCOL_VERSION, member.user, channel, member.keys)
  if (member.session.channelId !== channel) throw new Error("the member is of another group")
  member.session.setExternalSender(Buffer.from(bytes(senders[0])))
  inNewEpoch(member)
}

function inNewEpoch(member) {
  member.known = []
  member.made = undefined
}

function session(member) {
  if (member.session === undefined) throw new Error("davey must know the group_id and external_senders of the member")
  return member.session
}

function create(request, member) {
  if ((request.required_proposals ?? []).length > 0) throw new Unsupported("davey makes no required_capabilities")
  enterChannel(member, request)
  return {}
}

function keyPackage(_request, member) {
  return { reply: { key_package: messageOfKeyPackage(session(member).getSerializedKeyPackage()) } }
}

function join(request, member) {
  if (request.ratchet_tree !== undefined) throw new Unsupported("processWelcome takes no tree beside the Welcome")
  session(member).processWelcome(welcomeOfMessage(Buffer.from(bytes(request.welcome))))
  inNewEpoch(member)
  return {}
}

function processMessage(request, member) {
  const message = Buffer.from(bytes(request.message))
  const kind = contentOfMessage(message)
  if (kind === "proposal") {
    appendProposal(message, member)
    return { reply: { kind } }
  }
  const removed = processCommit(message, member)
  return { reply: { kind, removed } }
}

// davey takes the commit that removes it, and then throws as it wants keys of the epoch that it has no part in.
function processCommit(message, member) {
  let removed = false
  try {
    session(member).processCommit(message)
  } catch (err) {
    removed = err.message.includes("UseAfterEviction")
    if (!removed) throw err
  }
  inNewEpoch(member)
  return removed
}

// davey makes a commit of all that it knows with every proposal. What it cannot commit it has stored all the same: it
// is taken back, so that the member is as before, unless it removes the member itself, who may know it but not commit.
function appendProposal(message, member) {
  const own = session(member)
  try {
    own.processProposals(APPEND, vector(message))
  } catch (err) {
    if (!isOwnRemoval(err)) {
      takeBack(message, own)
      throw err
    }
  }
  member.known.push(message)
  member.made = undefined
}

const isOwnRemoval = (err) => err.message.includes("CannotRemoveSelf")

function takeBack(message, own) {
  try {
    own.processProposals(REVOKE, vector(vector(proposalRef(message))))
  } catch (err) {
    const harmless = err.message.includes("NotFound") || isOwnRemoval(err)
    if (!harmless) throw err
  }
}

// Of several calls only the last one's Adds bring a Welcome, so the commit is made anew of all proposals at once.
function commit(request, member) {
  if ((request.proposals ?? []).length > 0) throw new Unsupported("DAVE has no proposals by value")
  if (request.force_path) throw new Unsupported("davey has no way to ask for a path")
  if (!request.by_reference || member.known.length === 0) {
    throw new Unsupported("davey commits exactly the proposals that it knows")
  }
  member.made = session(member).processProposals(APPEND, vector(Buffer.concat(member.known)))
  const { commit, welcome } = member.made
  return { reply: { commit, welcome: welcome && messageOfWelcome(welcome) } }
}

function confirm(_request, member) {
  if (member.made?.commit === undefined) throw new Error("the member has no commit under way")
  session(member).processCommit(member.made.commit)
  inNewEpoch(member)
  return {}
}

/** The commit stays davey's own until it has another proposal or another member's commit. */
function discard(_request, member) {
  member.made = undefined
  return {}
}

function state(_request, member) {
  const own = session(member)
  if (own.epoch === null) throw new Error("the member is in no group")
  return {
    reply: {
      epoch: Number(own.epoch),
      epoch_authenticator: own.getEpochAuthenticator(),
      own_leaf: own.ownLeafIndex,
      user_ids: own.getUserIds().map(idBytes),
      voice_privacy_code: own.voicePrivacyCode,
    },
  }
}

/** An operation on a member that must exist; a session is altered in place, so the member stays the same object. */
function ofMember(operation) {
  return (request, member) => {
    if (member === undefined) throw new Error(`no member ${request.member}`)
    return operation(request, member)
  }
}

await serve(
  { stack: "davey", version: davey.VERSION, suites: [SUITE], self_remove: 0 },
  {
    member,
    key_package: ofMember(keyPackage),
    create: ofMember(create),
    join: ofMember(join),
    commit: ofMember(commit),
    confirm: ofMember(confirm),
    discard: ofMember(discard),
    process: ofMember(processMessage),
    state: ofMember(state),
  },
)
