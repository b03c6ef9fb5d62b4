import assert from "node:assert/strict"
import { test } from "node:test"
import { startCommand } from "./child.js"

const LINE = new URL("line.js", import.meta.url).href

const SLOW_DRIVER = `
  import { serve, Unsupported } from ${JSON.stringify(LINE)}
  const later = (value) => new Promise((resolve) => setTimeout(resolve, 100, value))
  await serve({ stack: "slow" }, {
    member: () => ({ member: 1 }),
    late: () => later({ member: 2 }),
    hang: () => new Promise(() => {}),
    wait: () => later({}),
    state: (_request, member) => ({ reply: { member, bytes: Buffer.from([0, 255]) } }),
    refuse: () => { throw new Unsupported("no") },
  }, 50)`

function slow(t) {
  const driver = startCommand(process.execPath, "--input-type=module", "-e", SLOW_DRIVER)
  t.after(() => driver.stop())
  return driver
}

test("an operation that gives no answer in time fails and changes nothing, even later", async (t) => {
  const driver = slow(t)
  await driver.call("member", "m")
  for (const op of ["hang", "late", "wait"]) assert.match((await driver.ask({ op, member: "m" })).error, /hang: /)
  assert.deepEqual(await driver.call("state", "m"), { member: 1, bytes: "AP8=" })
})

test("each request has one reply, whatever it is", async (t) => {
  const driver = slow(t)
  assert.match((await driver.ask("not a request")).error, /no operation/)
  assert.equal((await driver.ask({ op: "unknown" })).unsupported, true)
  assert.deepEqual(await driver.ask({ op: "refuse" }), { error: "Error: no", unsupported: true })
  await driver.call("member", "m")
  await driver.call("forget", "m")
  assert.deepEqual(await driver.call("state", "m"), { bytes: "AP8=" })
})
