// Command leavebroker is the MLS leave broker and its tools: the daemon, a
// demonstration, and commands that make, read and judge LeafOperationIntents
// (draft-kohbrok-mls-leaf-operation-intents) and the public state of MLS groups
// (RFC 9420).
//
// Scripts depend on the formats and on the exit codes: 0 for success, 1 for a
// negative result or a failure, 2 for wrong usage or a file that cannot be
// read, 78 for a configuration that is refused.
package main

import "os"

func main() {
	os.Exit(execute(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
