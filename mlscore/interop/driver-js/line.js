// The line protocol of drivers (../README.md), as far as it is the same for every stack.
import { createInterface } from "node:readline"

const DEADLINE_MS = 40_000

/** The stack has no such operation. */
export class Unsupported extends Error {}

/** The bytes of a field: an absent field is empty. */
export function bytes(text) {
  return new Uint8Array(Buffer.from(text ?? "", "base64"))
}

// JSON.stringify hands a replacer a Buffer as its own toJSON left it; the holder still has the bytes.
function base64OfBytes(key, value) {
  const held = this[key]
  return held instanceof Uint8Array ? Buffer.from(held).toString("base64") : value
}

function deadline(op, ms) {
  let timer
  const expired = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`hang: ${op} gave no answer in ${ms} ms`)), ms)
  })
  return { expired, cancel: () => clearTimeout(timer) }
}

/**
 * Answers requests until standard input ends. An operation takes the request and the member it names (undefined if
 * there is none) and gives `reply` and, where it changed, `member`. The member is replaced only once the operation has
 * succeeded in time, so members must not be altered in place.
 */
export async function serve(hello, operations, ms = DEADLINE_MS) {
  const members = new Map()
  const all = {
    hello: () => ({ reply: { ...hello, operations: Object.keys(all) } }),
    ...operations,
    forget: () => ({ member: null }),
  }
  for await (const line of createInterface({ input: process.stdin })) {
    const reply = await answer(line, all, members, ms)
    process.stdout.write(JSON.stringify(reply, base64OfBytes) + "\n")
  }
}

async function answer(line, operations, members, ms) {
  let limit
  try {
    const request = JSON.parse(line)
    limit = deadline(request.op, ms)
    if (!Object.hasOwn(operations, request.op)) throw new Unsupported(`no operation ${request.op}`)
    const done = Promise.resolve(operations[request.op](request, members.get(request.member)))
    const { reply, member } = await Promise.race([done, limit.expired])
    if (member === null) members.delete(request.member)
    else if (member !== undefined) members.set(request.member, member)
    return reply ?? {}
  } catch (err) {
    const failure = { error: `${err.name}: ${err.message}` }
    return err instanceof Unsupported ? { ...failure, unsupported: true } : failure
  } finally {
    limit?.cancel()
  }
}
