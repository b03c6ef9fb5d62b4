// A group of members, for the tests of the drivers.
import assert from "node:assert/strict"
import { ExternalSender } from "./external.js"

export const GROUP = Buffer.from("a group")

export const base64 = (data) => Buffer.from(data).toString("base64")
export const raw = (text) => Buffer.from(text, "base64")

/** Members of one cipher suite, each of a driver, and an external sender that is the test. */
export class Members {
  #drivers = new Map()

  /** The members are of the driver, but for those that belongTo gives to another. */
  constructor(driver, { suite = 1, algorithm = "ed25519" } = {}) {
    this.driver = driver
    this.suite = suite
    this.sender = new ExternalSender(algorithm)
    this.names = []
  }

  belongTo(driver, ...names) {
    for (const name of names) this.#drivers.set(name, driver)
  }

  driverOf(name) {
    return this.#drivers.get(name) ?? this.driver
  }

  call(op, member, fields) {
    return this.driverOf(member).call(op, member, fields)
  }

  /** The reply to a request, whatever it says. */
  ask(op, member, fields) {
    return this.driverOf(member).ask({ op, member, ...fields })
  }

  member(name, fields = {}) {
    return this.call("member", name, { suite: this.suite, identity: base64(name), ...fields })
  }

  async create(name, fields = {}) {
    await this.member(name, fields)
    const external_senders = [base64(this.sender.encode("sender"))]
    await this.call("create", name, { group_id: base64(GROUP), external_senders, ...fields })
    this.names = [name]
  }

  async proposalToAdd(name) {
    return { kind: "add", key_package: (await this.call("key_package", name)).key_package }
  }

  async everyoneElse(name, message) {
    const others = this.names.filter((other) => other !== name)
    return Promise.all(others.map((other) => this.call("process", other, { message })))
  }

  /** A commit that everyone accepts; those it adds join. */
  async commit(name, request, added = []) {
    const { commit, welcome } = await this.call("commit", name, request)
    const replies = await this.everyoneElse(name, commit)
    await this.call("confirm", name)
    for (const joiner of added) await this.call("join", joiner, { welcome })
    this.names.push(...added)
    return replies
  }

  async add(committer, ...names) {
    const proposals = []
    for (const name of names) {
      await this.member(name)
      proposals.push(await this.proposalToAdd(name))
    }
    return this.commit(committer, { proposals }, names)
  }

  async propose(name, fields) {
    const { message } = await this.call("propose", name, fields)
    await this.everyoneElse(name, message)
  }

  async leafOf(name) {
    return (await this.call("state", name)).own_leaf
  }

  /** All are in the same state, of which the members are these. */
  async agree(...identities) {
    const states = await Promise.all(this.names.map((name) => this.call("state", name)))
    const { own_leaf, ...shared } = states[0]
    for (const { own_leaf: leaf, ...state } of states) {
      assert.deepEqual(state, shared)
      assert.ok(state.members.some((member) => member.leaf === leaf))
    }
    assert.deepEqual(shared.members.map((member) => raw(member.identity).toString()), identities)
    return shared
  }
}
