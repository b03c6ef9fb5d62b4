// A driver as a child process, for the tests of the drivers.
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"

/** A driver for Node.js. */
export const start = (main) => startCommand(process.execPath, main)

export function startCommand(command, ...args) {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    /** Sends a request and gives its reply, whatever it says. */
    async ask(request) {
      child.stdin.write(JSON.stringify(request) + "\n")
      const { value, done } = await lines.next()
      if (done) throw new Error("the driver has ended")
      return JSON.parse(value)
    },
    /** Sends a request that must succeed. */
    async call(op, member, fields = {}) {
      const reply = await this.ask({ op, member, ...fields })
      if (reply.error !== undefined) throw new Error(`${op} of ${member}: ${reply.error}`)
      return reply
    },
    stop: () => new Promise((resolve) => child.on("exit", resolve) && child.stdin.end()),
  }
}
