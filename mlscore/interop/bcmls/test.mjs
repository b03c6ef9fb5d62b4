import assert from "node:assert/strict"
import { existsSync } from "node:fs"
import { test } from "node:test"
import { startCommand } from "../driver-js/child.js"
import { ExternalSender } from "../driver-js/external.js"
import { base64, GROUP, Members, raw } from "../driver-js/members.js"

const TARGET = new URL("target", import.meta.url).pathname
const OTHER = new URL("../tsmls/main.js", import.meta.url).pathname
const NO_OTHER = !existsSync(new URL("../tsmls/node_modules", import.meta.url))

function driver(t, command, ...args) {
  const started = startCommand(command, ...args)
  t.after(() => started.stop())
  return started
}

function members(t, options) {
  return new Members(driver(t, "java", "-cp", `${TARGET}/classes:${TARGET}/lib/*`, "Driver"), options)
}

const suites = [
  { suite: 1, algorithm: "ed25519", secret: 32 },
  { suite: 2, algorithm: "p256", secret: 32 },
  { suite: 3, algorithm: "ed25519", secret: 32 },
  { suite: 4, algorithm: "ed448", secret: 57 },
  { suite: 6, algorithm: "ed448", secret: 57 },
]

for (const { suite, algorithm, secret } of suites) {
  test(`suite ${suite}: with ts-mls, every operation`, { skip: NO_OTHER && "npm ci in ../tsmls" }, async (t) => {
    const group = members(t, { suite, algorithm })
    const other = driver(t, process.execPath, OTHER)
    group.belongTo(other, "tina", "tom")
    await group.create("alice")
    const { signature_private } = await group.member("bob")
    assert.equal(raw(signature_private).length, secret)
    await group.add("alice", "bob", "tina")
    for (const committer of ["bob", "tina", "alice"]) await group.commit(committer, {})
    await group.propose("bob", { kind: "update" })
    await group.commit("tina", { by_reference: true })
    await group.propose("tina", { kind: "update" })
    await group.commit("alice", { by_reference: true })
    await group.agree("alice", "bob", "tina")

    for (const [joiner, from] of [["carol", "tina"], ["tom", "bob"]]) {
      await group.member(joiner)
      const { group_info } = await group.call("group_info", from)
      const { commit } = await group.call("external_join", joiner, { group_info })
      await group.everyoneElse(joiner, commit)
      group.names.push(joiner)
    }
    const { epoch } = await group.agree("alice", "bob", "tina", "carol", "tom")

    const remove = base64(group.sender.remove(GROUP, epoch, await group.leafOf("bob")))
    await group.everyoneElse(undefined, remove)
    const replies = await group.commit("carol", { by_reference: true })
    assert.deepEqual(replies.map((reply) => reply.removed), [false, true, false, false])
    group.names = group.names.filter((name) => name !== "bob")
    await group.agree("alice", "tina", "carol", "tom")
  })
}

for (const suite of [5, 7]) {
  test(`suite ${suite}: add and update`, async (t) => {
    const group = members(t, { suite })
    await group.create("alice", { external_senders: [] })
    await group.add("alice", "bob")
    await group.propose("bob", { kind: "update" })
    await group.commit("alice", { by_reference: true })
    await group.agree("alice", "bob")
  })
}

test("a removal that is not authentic removes nobody", async (t) => {
  const group = members(t)
  await group.create("alice")
  await group.add("alice", "bob", "carol")
  const { epoch } = await group.agree("alice", "bob", "carol")
  const forged = base64(new ExternalSender("ed25519").remove(GROUP, epoch, 1))
  assert.match((await group.ask("process", "bob", { message: forged })).error, /signature failed/)
  const remove = base64(group.sender.remove(GROUP, epoch, 1))
  await group.everyoneElse(undefined, remove)
  const { commit } = await group.call("commit", "alice", { by_reference: true })
  const spoilt = raw(commit)
  spoilt[spoilt.length - 1] ^= 1
  for (const name of ["bob", "carol"]) {
    assert.match((await group.ask("process", name, { message: base64(spoilt) })).error, /membership tag/)
  }
  assert.equal((await group.call("process", "bob", { message: commit })).removed, true)
})

test("a member is removed by value too", async (t) => {
  const group = members(t)
  await group.create("alice")
  await group.add("alice", "bob", "carol")
  const replies = await group.commit("alice", { proposals: [{ kind: "remove", leaf: await group.leafOf("bob") }] })
  assert.deepEqual(replies.map((reply) => reply.removed), [true, false])
})

test("a commit takes the proposals that go together, and not by reference unless asked", async (t) => {
  const group = members(t)
  await group.create("alice")
  await group.add("alice", "bob", "carol", "dave")
  const leaf = await group.leafOf("carol")
  await group.propose("carol", { kind: "update" })
  await group.propose("alice", { kind: "update" })
  await group.propose("bob", { kind: "remove", leaf })
  await group.propose("dave", { kind: "remove", leaf })
  const replies = await group.commit("alice", { by_reference: true })
  assert.equal(replies.filter((reply) => reply.removed).length, 1)
  group.names = group.names.filter((name) => name !== "carol")
  await group.agree("alice", "bob", "dave")

  await group.propose("bob", { kind: "remove", leaf: await group.leafOf("dave") })
  await group.commit("alice", {})
  await group.agree("alice", "bob", "dave")
})

test("a new context, with a path, and a forced path beside an Add", async (t) => {
  const group = members(t)
  await group.create("alice")
  await group.add("alice", "bob")
  group.sender = new ExternalSender("ed25519")
  const external_senders = [base64(group.sender.encode("another"))]
  await group.propose("bob", { kind: "group_context_extensions", external_senders })
  await group.commit("alice", { by_reference: true })
  await group.member("carol")
  const proposals = [await group.proposalToAdd("carol")]
  await group.commit("bob", { proposals, force_path: true }, ["carol"])
  const { epoch } = await group.agree("alice", "bob", "carol")
  await group.everyoneElse(undefined, base64(group.sender.remove(GROUP, epoch, 2)))
  await group.commit("alice", { by_reference: true })
})

test("a member that has lost its state takes its place again from outside", async (t) => {
  const group = members(t)
  await group.create("alice")
  await group.add("alice", "bob", "carol")
  const { group_info } = await group.call("group_info", "alice")
  const { commit } = await group.call("external_join", "bob", { group_info, resync: true })
  await group.everyoneElse("bob", commit)
  await group.agree("alice", "bob", "carol")
})

test("a pre-shared key enters the epoch", async (t) => {
  const group = members(t)
  await group.create("alice")
  await group.add("alice", "bob")
  const id = base64("key")
  for (const name of ["alice", "bob"]) await group.call("psk", name, { id, secret: base64("a secret") })
  await group.propose("alice", { kind: "psk", id })
  await group.commit("bob", { by_reference: true })
  await group.agree("alice", "bob")
})

test("an own Update outlives a commit that was refused", async (t) => {
  const group = members(t)
  await group.create("alice")
  await group.add("alice", "bob")
  await group.propose("bob", { kind: "update" })
  await group.call("commit", "bob", {})
  await group.call("discard", "bob")
  await group.commit("alice", { by_reference: true })
  await group.agree("alice", "bob")
})

// What the library in version 1.84 cannot do; README.md has the places. A later version that can fails these tests.

test("limit: another parent hash when the left half of the tree is empty", { skip: NO_OTHER && "npm ci in ../tsmls" }, async (t) => {
  const group = members(t)
  group.belongTo(driver(t, process.execPath, OTHER), "dave")
  await group.create("alice")
  await group.add("alice", "bob", "carol", "dave")
  const proposals = [{ kind: "remove", leaf: 0 }, { kind: "remove", leaf: 1 }]
  const { commit } = await group.call("commit", "carol", { proposals })
  assert.match((await group.ask("process", "dave", { message: commit })).error, /Parent hash did not match/)
})

test("limit: no commit with a path of a member that is or will be alone", async (t) => {
  const group = members(t)
  await group.create("alice")
  assert.match((await group.ask("commit", "alice")).error, /IndexOutOfBoundsException/)
  await group.add("alice", "bob")
  const proposals = [{ kind: "remove", leaf: 1 }]
  assert.match((await group.ask("commit", "alice", { proposals })).error, /IndexOutOfBoundsException/)
  await group.commit("bob", {})
  await group.agree("alice", "bob")
})
