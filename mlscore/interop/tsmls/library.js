// What the driver takes of ts-mls. Some of it the package does not export by name; it is imported by path.
import { readFileSync } from "node:fs"

const root = new URL("./node_modules/ts-mls/", import.meta.url)
const part = (name) => import(new URL(`dist/src/${name}.js`, root))

export const version = JSON.parse(readFileSync(new URL("package.json", root), "utf8")).version

export const {
  ciphersuites,
  createCommit,
  createGroup,
  createProposal,
  decodeMlsMessage,
  defaultExtensionTypes,
  encodeMlsMessage,
  encodeRequiredCapabilities,
  generateKeyPackageWithKey,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  joinGroupExternal,
  makePskIndex,
  processPublicMessage,
} = await import("ts-mls")

export const { createGroupInfo } = await part("createCommit")
export const { processProposal } = await part("clientState")
export const { unprotectPublicMessage } = await part("messageProtectionPublic")
export const { decodeExternalSender } = await part("externalSender")
export const { signLeafNodeCommit } = await part("leafNode")
export const { makeKeyPackageRef } = await part("keyPackage")
export const { decodeRatchetTree, encodeRatchetTree } = await part("ratchetTree")
export const { decodeVarLenData, decodeVarLenType, varLenDataEncoder } = await part("codec/variableLength")
export const { encode } = await part("codec/tlsEncoder")

// The library takes the body of external_senders for one ExternalSender; RFC 9420 has a vector of them. Under another
// name the extension is opaque to the library: it keeps its bytes and code point, and leaves the senders to the driver.
export const EXTERNAL_SENDERS = "external_senders_vector"
defaultExtensionTypes[EXTERNAL_SENDERS] = defaultExtensionTypes.external_senders
delete defaultExtensionTypes.external_senders
