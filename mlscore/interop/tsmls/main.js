// A driver (../README.md) for members of ts-mls.
import { bytes, serve, Unsupported } from "../driver-js/line.js"
import { decodeMessage, encodeMessage, externalPub, externalSenderKey, unwrappingExternalPub } from "./encoding.js"
import * as mls from "./library.js"
import { committable, contextOf, demandCommittable, makeProposal } from "./proposals.js"
import { signatureKeys } from "./signature.js"

const SUITES = [1, 2, 3, 4, 5, 6, 7]
const LIFETIME_SECONDS = 28 * 24 * 3600
const CLOCK_SKEW_SECONDS = 3600

const nameOfSuite = (suite) => Object.keys(mls.ciphersuites).find((name) => mls.ciphersuites[name] === suite)

async function member(request) {
  if (request.custom !== undefined) throw new Unsupported("ts-mls applies no custom proposal")
  if (!SUITES.includes(request.suite)) throw new Unsupported(`no cipher suite ${request.suite}`)
  const definition = mls.getCiphersuiteFromName(nameOfSuite(request.suite))
  const suite = await mls.getCiphersuiteImpl(definition)
  const { pair, secret } = await signatureKeys(suite, definition.signature)
  return {
    reply: { signature_key: pair.publicKey, signature_private: secret },
    member: {
      suite,
      pair,
      credential: { credentialType: "basic", identity: bytes(request.identity) },
      proposals: request.proposals ?? [],
      packages: [],
      psks: {},
      updates: {},
    },
  }
}

async function newPackage(member) {
  const now = BigInt(Math.floor(Date.now() / 1000))
  return mls.generateKeyPackageWithKey(
    member.credential,
    {
      versions: ["mls10"],
      ciphersuites: SUITES.map(nameOfSuite),
      extensions: [],
      proposals: member.proposals,
      credentials: ["basic"],
    },
    { notBefore: now - BigInt(CLOCK_SKEW_SECONDS), notAfter: now + BigInt(LIFETIME_SECONDS) },
    [],
    member.pair,
    member.suite,
  )
}

async function keyPackage(_request, member) {
  const made = await newPackage(member)
  return {
    reply: { key_package: encodeMessage({ wireformat: "mls_key_package", keyPackage: made.publicPackage }) },
    member: { ...member, packages: [...member.packages, made] },
  }
}

/** A member in another epoch or group: what belonged to the old one goes. */
function inEpoch(member, state) {
  return { ...member, state, pending: undefined, updates: {} }
}

async function create(request, member) {
  const made = await newPackage(member)
  const state = await mls.createGroup(
    bytes(request.group_id),
    made.publicPackage,
    made.privatePackage,
    contextOf(request),
    member.suite,
  )
  return { member: inEpoch(member, state) }
}

async function join(request, member) {
  const { welcome } = decodeMessage(bytes(request.welcome), "mls_welcome")
  const made = await packageOfWelcome(welcome, member)
  const tree = request.ratchet_tree === undefined ? undefined : mls.decodeRatchetTree(bytes(request.ratchet_tree), 0)[0]
  const state = await mls.joinGroup(
    welcome,
    made.publicPackage,
    made.privatePackage,
    mls.makePskIndex(undefined, member.psks),
    member.suite,
    tree,
  )
  return { member: { ...inEpoch(member, state), packages: member.packages.filter((other) => other !== made) } }
}

async function packageOfWelcome(welcome, member) {
  const wanted = welcome.secrets.map((secret) => Buffer.from(secret.newMember))
  for (const made of member.packages) {
    const reference = await mls.makeKeyPackageRef(made.publicPackage, member.suite.hash)
    if (wanted.some((ref) => ref.equals(reference))) return made
  }
  throw new Error("the Welcome is for none of the member's key packages")
}

async function externalJoin(request, member) {
  for (const field of ["self_removes", "custom", "psks"]) {
    if ((request[field] ?? []).length > 0) throw new Unsupported(`joinGroupExternal takes no ${field}`)
  }
  const { groupInfo } = decodeMessage(bytes(request.group_info), "mls_group_info")
  if (request.resync && !treeOfInfo(groupInfo).some((leaf) => isOwn(leaf, member))) {
    throw new Error("no former leaf of the member in the group") // ts-mls would look for its parents for ever
  }
  const made = await newPackage(member)
  const { publicMessage, newState } = await mls.joinGroupExternal(
    groupInfo,
    made.publicPackage,
    made.privatePackage,
    request.resync ?? false,
    unwrappingExternalPub(member.suite, groupInfo),
  )
  return {
    reply: { commit: encodeMessage({ wireformat: "mls_public_message", publicMessage }) },
    member: inEpoch(member, newState),
  }
}

function treeOfInfo(groupInfo) {
  const extension = groupInfo.extensions.find((e) => e.extensionType === "ratchet_tree")
  if (extension === undefined) throw new Error("a group info without a tree")
  return leavesOf(mls.decodeRatchetTree(extension.extensionData, 0)[0])
}

function isOwn({ leaf }, member) {
  return Buffer.from(leaf.signaturePublicKey).equals(member.pair.publicKey)
}

function leavesOf(tree) {
  return tree.flatMap((node, i) => (node?.nodeType === "leaf" ? [{ index: i / 2, leaf: node.leaf }] : []))
}

async function propose(request, member) {
  const { proposal, secret } =
    request.kind === "update" ? await ownUpdate(member) : { proposal: makeProposal(request, member.suite) }
  const { newState, message } = await mls.createProposal(inGroup(member), true, proposal, member.suite)
  const updates = { ...member.updates }
  if (secret !== undefined) {
    const reference = Object.keys(newState.unappliedProposals).find((ref) => !(ref in member.state.unappliedProposals))
    updates[reference] = secret
  }
  return { reply: { message: mls.encodeMlsMessage(message) }, member: { ...member, state: newState, updates } }
}

function inGroup(member) {
  if (member.state === undefined) throw new Error("the member is in no group")
  return member.state
}

async function ownUpdate(member) {
  const { suite } = member
  const state = inGroup(member)
  const keys = await suite.hpke.generateKeyPair()
  const { leafIndex } = state.privatePath
  const old = state.ratchetTree[2 * leafIndex].leaf
  const leafNode = await mls.signLeafNodeCommit(
    {
      leafNodeSource: "update",
      hpkePublicKey: await suite.hpke.exportPublicKey(keys.publicKey),
      signaturePublicKey: old.signaturePublicKey,
      credential: old.credential,
      capabilities: old.capabilities,
      extensions: old.extensions,
      groupId: state.groupContext.groupId,
      leafIndex,
    },
    state.signaturePrivateKey,
    suite.signature,
  )
  return {
    proposal: { proposalType: "update", update: { leafNode } },
    secret: await suite.hpke.exportPrivateKey(keys.privateKey),
  }
}

async function commit(request, member) {
  const state = inGroup(member)
  const extraProposals = (request.proposals ?? []).map((proposal) => makeProposal(proposal, member.suite))
  const unappliedProposals = request.by_reference
    ? committable(state.unappliedProposals, state.privatePath.leafIndex, (leaf) => state.ratchetTree[2 * leaf] !== undefined)
    : {}
  const referenced = Object.values(unappliedProposals).map(({ proposal }) => proposal)
  demandCommittable([...referenced, ...extraProposals], request.force_path ?? false)
  const made = await mls.createCommit(
    {
      state: { ...state, unappliedProposals },
      cipherSuite: member.suite,
      pskIndex: mls.makePskIndex(state, member.psks),
    },
    { wireAsPublicMessage: true, extraProposals, ratchetTreeExtension: true },
  )
  const welcome =
    made.welcome && encodeMessage({ wireformat: "mls_welcome", welcome: made.welcome })
  return {
    reply: { commit: mls.encodeMlsMessage(made.commit), welcome },
    member: { ...member, pending: made.newState },
  }
}

async function confirm(_request, member) {
  if (member.pending === undefined) throw new Error("the member has no commit under way")
  return { member: inEpoch(member, member.pending) }
}

async function discard(_request, member) {
  return { member: { ...member, pending: undefined } }
}

async function processMessage(request, member) {
  const { publicMessage } = decodeMessage(bytes(request.message), "mls_public_message")
  const state = inGroup(member)
  if (publicMessage.content.contentType === "proposal") {
    return { reply: { kind: "proposal" }, member: { ...member, state: await known(publicMessage, state, member) } }
  }
  refuseFarRemoves(publicMessage.content, state)
  const { newState } = await mls.processPublicMessage(
    withUpdateKey(publicMessage.content.commit, state, member.updates),
    publicMessage,
    mls.makePskIndex(state, member.psks),
    member.suite,
  )
  const removed = newState.groupActiveState.kind === "removedFromGroup"
  return { reply: { kind: "commit", removed }, member: inEpoch(member, newState) }
}

// Of an external commit ts-mls does not check which leaf it removes, and looks for the parents of a leaf outside the
// tree until memory ends.
function refuseFarRemoves({ sender, commit }, state) {
  if (sender.senderType !== "new_member_commit") return
  const leaves = (state.ratchetTree.length + 1) / 2
  const removes = commit.proposals.map(({ proposal }) => proposal?.remove).filter((remove) => remove !== undefined)
  const far = removes.find(({ removed }) => removed >= leaves)
  if (far !== undefined) throw new Error(`a Remove of leaf ${far.removed}, of ${leaves}`)
}

/** The state with a proposal known. For an external sender the library is given the key, which it cannot find. */
async function known(message, state, { psks, suite }) {
  const { sender } = message.content
  if (sender.senderType !== "external") {
    const { newState } = await mls.processPublicMessage(state, message, mls.makePskIndex(state, psks), suite)
    return newState
  }
  if (message.content.epoch !== state.groupContext.epoch) throw new Error("a proposal of another epoch")
  const key = externalSenderKey(state.groupContext, sender.senderIndex)
  const { membershipKey } = state.keySchedule
  const authentic = await mls.unprotectPublicMessage(
    membershipKey, state.groupContext, state.ratchetTree, message, suite, key,
  )
  return mls.processProposal(state, authentic, message.content.proposal, suite.hash)
}

/** The state with the private key of the member's own Update, if the commit has it: the library keeps none. */
function withUpdateKey(commit, state, updates) {
  const references = commit.proposals.filter((p) => p.proposalOrRefType === "reference")
  const own = references.map((p) => updates[Buffer.from(p.reference).toString("base64")]).find((key) => key !== undefined)
  if (own === undefined) return state
  const { leafIndex, privateKeys } = state.privatePath
  return { ...state, privatePath: { leafIndex, privateKeys: { ...privateKeys, [2 * leafIndex]: own } } }
}

async function psk(request, member) {
  const id = Buffer.from(bytes(request.id)).toString("base64")
  return { member: { ...member, psks: { ...member.psks, [id]: bytes(request.secret) } } }
}

async function groupInfo(_request, member) {
  const { suite } = member
  const state = inGroup(member)
  const { publicKey } = await suite.hpke.deriveKeyPair(state.keySchedule.externalSecret)
  const extensions = [
    externalPub(await suite.hpke.exportPublicKey(publicKey)),
    { extensionType: "ratchet_tree", extensionData: mls.encodeRatchetTree(state.ratchetTree) },
  ]
  const info = await mls.createGroupInfo(state.groupContext, state.confirmationTag, state, extensions, suite)
  return { reply: { group_info: encodeMessage({ wireformat: "mls_group_info", groupInfo: info }) } }
}

async function stateOf(_request, member) {
  const state = inGroup(member)
  const { epoch, treeHash, confirmedTranscriptHash } = state.groupContext
  return {
    reply: {
      epoch: Number(epoch),
      epoch_authenticator: state.keySchedule.epochAuthenticator,
      tree_hash: treeHash,
      confirmed_transcript_hash: confirmedTranscriptHash,
      own_leaf: state.privatePath.leafIndex,
      members: leavesOf(state.ratchetTree).map(({ index, leaf }) => ({
        leaf: index,
        identity: leaf.credential.identity,
        signature_key: leaf.signaturePublicKey,
      })),
    },
  }
}

/** An operation on a member that must exist. */
function ofMember(operation) {
  return (request, member) => {
    if (member === undefined) throw new Error(`no member ${request.member}`)
    return operation(request, member)
  }
}

await serve(
  { stack: "ts-mls", version: mls.version, suites: SUITES, self_remove: 0 },
  {
    member,
    key_package: ofMember(keyPackage),
    create: ofMember(create),
    join: ofMember(join),
    external_join: ofMember(externalJoin),
    propose: ofMember(propose),
    commit: ofMember(commit),
    confirm: ofMember(confirm),
    discard: ofMember(discard),
    process: ofMember(processMessage),
    psk: ofMember(psk),
    group_info: ofMember(groupInfo),
    state: ofMember(stateOf),
  },
)
