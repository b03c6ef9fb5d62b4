// Package broker runs the leave broker on NATS JetStream: it stores intents,
// handshakes and GroupInfos in one ordered log per group, folds each log with
// package intents, and signs and stores the removals that the fold calls for,
// in every epoch until the leaver is gone. To the groups it is an external
// sender (RFC 9420, Section 12.1.8.1).
//
//	subjects.go   every subject, stream, consumer and bucket name
//	options.go    Options
//	broker.go     Broker: New, Run, Close
//	embedded.go   the NATS server in this process
//	conn.go       the connection to a server elsewhere
//	streams.go    the streams, consumers and buckets: made, or compared
//	streamgroup.go  one stream of logs and those who work on it
//	members.go    which instances live; ownership.go: which works on a partition
//	inbound.go    a stored message -> an input of the fold
//	store.go      reads and writes the log
//	group.go      the log of a group -> its state; view.go: for services
//	snapshots.go  stored states; compact.go: purges the logs before them
//	objects.go    GroupInfos that are too large for a message
//	cache.go      which groups are held in memory
//	partition.go  consumes one partition; hidden.go: what consuming cannot see
//	owner.go      owns the groups of a partition; the only caller of Step
//	ahead.go      intents that are folded before they come
//	effects.go    performs what a state calls for, in order
//	ledger.go     what is remembered of each group beside the log; rebuild.go
//	ack.go        outcome of an input -> its acknowledgement
//	questions.go  asks the Authentication Service
//	events.go     advisories; delivered.go: those about delivery
//	timers.go     wakes groups whose time has come
//	api.go        the services of P.api; hub.go: who waits for a verdict
//	metrics.go    counters
//	health.go     what an operator has to mend
//
// asyncapi.yaml documents what others see.
//
// The state of a group is a function of its log; what is held in memory is a
// cache of it, dropped whenever the outcome of a write is not known. Inputs
// are acknowledged last, after everything they led to is stored.
package broker
