// Encodings of RFC 9420 that ts-mls lacks or has in another form.
import * as mls from "./library.js"

const encodeVector = mls.encode(mls.varLenDataEncoder)
const decodeSenders = mls.decodeVarLenType(mls.decodeExternalSender)

function concat(parts) {
  return new Uint8Array(Buffer.concat(parts))
}

/** The GroupContext extensions of a request: each sender is an encoded ExternalSender. */
export function contextExtensions({ senders, requiredProposals }) {
  const extensions = []
  if (senders.length > 0) {
    extensions.push({ extensionType: mls.EXTERNAL_SENDERS, extensionData: encodeVector(concat(senders)) })
  }
  if (requiredProposals.length > 0) {
    const required = { extensionTypes: [], proposalTypes: requiredProposals, credentialTypes: [] }
    extensions.push({
      extensionType: "required_capabilities",
      extensionData: mls.encodeRequiredCapabilities(required),
    })
  }
  return extensions
}

/** The key of an external sender in a GroupContext. */
export function externalSenderKey(groupContext, senderIndex) {
  const extension = groupContext.extensions.find((e) => e.extensionType === mls.EXTERNAL_SENDERS)
  if (extension === undefined) throw new Error("the group has no external_senders")
  const [senders] = decodeSenders(extension.extensionData, 0)
  if (senders[senderIndex] === undefined) throw new Error(`the group has no external sender ${senderIndex}`)
  return senders[senderIndex].signaturePublicKey
}

/** The body of an external_pub extension: a key in a vector, where ts-mls has the bare key. */
export function externalPub(key) {
  return { extensionType: "external_pub", extensionData: encodeVector(key) }
}

/**
 * A cipher suite that reads the key of an external_pub extension out of its vector, for a library that takes the whole
 * body for the key. The GroupInfo itself must stay as it came, since it is signed.
 */
export function unwrappingExternalPub(suite, groupInfo) {
  const body = groupInfo.extensions.find((e) => e.extensionType === "external_pub")?.extensionData
  const importPublicKey = (key) =>
    suite.hpke.importPublicKey(key === body ? mls.decodeVarLenData(key, 0)[0] : key)
  return { ...suite, hpke: { ...suite.hpke, importPublicKey } }
}

/** Reads an MLSMessage of one of the wire formats. */
export function decodeMessage(encoded, wireformat) {
  const decoded = mls.decodeMlsMessage(encoded, 0)
  if (decoded === undefined) throw new Error("not an MLSMessage that ts-mls can read")
  const [message, length] = decoded
  if (length !== encoded.length) throw new Error("bytes after the MLSMessage")
  if (message.wireformat !== wireformat) throw new Error(`${message.wireformat} in place of ${wireformat}`)
  return message
}

export function encodeMessage(message) {
  return mls.encodeMlsMessage({ version: "mls10", ...message })
}
