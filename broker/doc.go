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
//	tenant.go     a tenant as it is served
//	members.go    which instances live; ownership.go: which works on a partition
//	inbound.go    a stored message -> an input of the fold
//	store.go      reads and writes the log
//	group.go      the log of a group -> its state; view.go: for services
//	snapshots.go  stored states; compact.go: purges the logs before them
//	objects.go    GroupInfos that are too large for a message
//	cache.go      which groups are held in memory
//	partition.go  consumes one partition; feed.go: how far its consumer is
//	hidden.go     what consuming cannot see
//	owner.go      owns the groups of a partition; the only caller of Step
//	opengroups.go which groups have something to do
//	ahead.go      intents that are folded before they come
//	effects.go    performs what a state calls for, in order
//	ledger.go     what is remembered of each group beside the log; watch.go: reads
//	              it as it is written; rebuild.go
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
//
// # Servers that lag behind
//
// A server of a cluster that led and was cut off, or stood still, still answers for
// some seconds when it is back, with what it had. So what is read counts only as far
// as something else bears it out:
//
//	outputs, ledger entries, records   written by compare-and-swap on what was read
//	of partitions, snapshots
//	the end of a log                   it has the message in hand, and the ledger's
//	                                   position; a group loaded for no message is
//	                                   compared when one comes (owner.go)
//	that a group is open already       it is written again by compare-and-swap, when
//	                                   the first message comes
//	the last snapshot                  by a write that is stored only if it is, and
//	                                   only by the server that leads (snapshots.go)
//	how far a consumer is              the message in hand is the next of the log
//	                                   (feed.go)
//
// What services answer may be as late as such a server.
//
// # Beyond one machine
//
// What 10,000 leaves and 100,000 commits a second would take, on paper, from what
// the parts cost on two cores of a small machine (go test -bench, suite 1; the
// server in the same process, one replica).
//
//	a commit of a group with nothing to do        24 µs of a core (raw: 22), sync later
//	a removal for a commit                        174 µs of crypto; 300 µs until it is stored, sync later; 810, always
//	an intent, verified, proposed and told        300 µs of a core, and 4 writes at least
//	a leave in all (intent, two outputs, five     10 writes, of which 5 events and 2 ledger entries
//	events, two ledger entries)
//	one stream, 64 publishers at a time           120,000 writes a second sync later, 21,500 always; eight streams, 30,500
//	three replicas on the same two cores          4,300 removals a second; a write takes 80 µs, 370 with sync always
//	a group that is known                         0.25 to 0.6 KB of the server for each subject, up to 8 subjects; none of ours
//	a group that is loaded, with replicas         two writes more with its first message: ledger, and snapshots
//	a group with an intent that waits             13 KB of ours while it is in memory; CacheBytes bounds it
//
// Processors: 100,000 commits are 2.4 cores if nobody leaves. If every tenth is of
// a group that somebody leaves, 10,000 removals a second are 3 cores more, and
// 10,000 intents another 3: some 10 cores of brokers, which the partitions (64 of
// the shared stream, 8 at most of a tenant's own) spread over as many instances;
// members are strangers to each other, so nothing but the log is shared.
//
// Writes: 100,000 commits, 10,000 intents and 20,000 outputs go into the logs. A
// replicated stream has one leader and one order; at some 15,000 writes a second
// for each on machines with a disk of their own, that is 9 streams of logs: tenants
// with a stream of their own (Tenant.Dedicated). One tenant cannot be larger than
// one stream: its groups would have to be two tenants.
//
// What breaks first: events and ledger are one stream each, whatever the number of
// streams of logs. 10,000 leaves a second are 50,000 events and 20,000 ledger
// entries; at 15,000 writes a second each, the events end it at some 3,000 leaves a
// second, the ledger at 7,500. They would be split by stream of logs first. Next is
// the number of subjects: 5 million for a server, so about a million groups for each
// stream of logs, before the restart of a server takes longer than its clients wait.
package broker
