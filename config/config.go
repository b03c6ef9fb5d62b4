// Package config holds the typed configuration of the leavebroker daemon and
// reads it from a YAML file and the environment.
//
// A value comes from the environment (LEAVEBROKER_ followed by the key in
// capitals, dots as underscores: nats.url is LEAVEBROKER_NATS_URL), else from
// the file, else it is the default. Tenants come from the file alone. A key,
// variable or value that means nothing is an error; every error is reported,
// with its file and line. [Example] shows each key with its default.
//
// The package is plain data: it opens no key, socket or store.
package config

// Config is the whole configuration of one daemon.
type Config struct {
	// StateDir is the folder of everything that the daemon keeps: the store of
	// the embedded server and the keys made on first start. Default: the first
	// folder of $STATE_DIRECTORY, else $XDG_STATE_HOME/leavebroker, else
	// ~/.local/state/leavebroker.
	StateDir string `yaml:"state_dir"`

	// NATS says which NATS server carries and stores the logs.
	NATS NATS `yaml:"nats"`

	// Instance names this process among those that serve the same logs: 1 to 32
	// of A-Z a-z 0-9 _ -, and unlike any other that runs, as two of one name
	// would both take themselves for the owner of a partition. Optional.
	// Default: empty, a random one at each start.
	Instance string `yaml:"instance"`

	// Prefix is the first token of every subject, and begins the names of
	// streams and buckets. 1 to 32 of A-Z a-z 0-9 _ -. Default:
	// leave.
	Prefix string `yaml:"prefix"`

	// Partitions is the number of partitions of a log, from 1 to 1024. It is
	// fixed when the log is first made: another value is then refused at start.
	// Default: 64.
	Partitions int `yaml:"partitions"`

	// Limits bounds what is accepted from others.
	Limits Limits `yaml:"limits"`

	// PinTTL is how long an instance that has gone silent keeps a partition,
	// from 100ms to 5m. Default: 3s.
	PinTTL Duration `yaml:"pin_ttl"`

	// AckWait is how long the server waits for the acknowledgement of an input
	// before it delivers it again, from 100ms to 5m. Default: 3s.
	AckWait Duration `yaml:"ack_wait"`

	// Cache bounds what is kept in memory.
	Cache Cache `yaml:"cache"`

	// Compaction shortens long logs in the background.
	Compaction Compaction `yaml:"compaction"`

	// Events says what is stored about what happened.
	Events Events `yaml:"events"`

	// Log says what is written to standard error.
	Log Log `yaml:"log"`

	// Tenants are those that the daemon serves, at least one, each with its own
	// name. Default: one, named default, with the defaults of [DefaultTenant].
	Tenants []Tenant `yaml:"tenants"`
}

// NATS is the connection to the NATS server.
type NATS struct {
	// URL is the server, or several separated by commas, each with a scheme:
	// nats, tls, ws or wss. Optional. Default: empty, which runs a server with
	// JetStream in this process.
	URL string `yaml:"url"`

	// Context is a context of the nats command (NATS ADR-21): its name, for
	// $XDG_CONFIG_HOME/nats/context/NAME.json (~/.config without the variable), or
	// the absolute path of its file. It counts as url, and it alone says what url,
	// credentials, nkey, tls, domain and api_prefix do; none of them is set beside
	// it. Optional. Default: empty.
	Context string `yaml:"context"`

	// Credentials is the path of a .creds file (user JWT and seed), read again
	// at each reconnect. Optional, with url only, instead of nkey. Default:
	// empty.
	Credentials string `yaml:"credentials"`

	// NKey is the path of a file with an NKey user seed. Optional, with url
	// only, instead of credentials. Default: empty.
	NKey string `yaml:"nkey"`

	// TLS authenticates the server, and this client to it.
	TLS TLS `yaml:"tls"`

	// Name is what the server lists this connection as. Default: leavebroker.
	Name string `yaml:"name"`

	// Domain is the JetStream domain. Optional, with url only, instead of
	// api_prefix. Default: empty.
	Domain string `yaml:"domain"`

	// APIPrefix is the subject prefix of the JetStream API where an account
	// imports it under another name. Optional, with url only, instead of
	// domain. Default: empty.
	APIPrefix string `yaml:"api_prefix"`

	// Replicas is the number of servers that store each message: 1, or with url
	// or context 3 or 5 of a cluster. What exists with another number is refused at start.
	// Default: 1.
	Replicas int `yaml:"replicas"`

	// CreateAssets makes the streams, consumers and buckets that are missing on
	// the server, and brings their sizes and times to the configured ones.
	// Without it they are only compared with what is needed, and a difference
	// ends the start. Default: true.
	CreateAssets bool `yaml:"create_assets"`

	// Embedded is the server in this process; it has effect without url and
	// context only.
	Embedded Embedded `yaml:"embedded"`
}

// External says that the server is not the one in this process.
func (n *NATS) External() bool { return n.URL != "" || n.Context != "" }

// TLS names the files of a TLS connection to the NATS server.
type TLS struct {
	// CA is the path of a PEM file with the roots that the server's
	// certificate must lead to. Optional, with nats.url only. Default: empty,
	// the roots of the system.
	CA string `yaml:"ca"`

	// Cert is the path of a PEM file with this client's certificate chain.
	// Optional, with key only. Default: empty.
	Cert string `yaml:"cert"`

	// Key is the path of a PEM file with the private key of cert. Optional,
	// with cert only. Default: empty.
	Key string `yaml:"key"`
}

// Embedded is the NATS server inside the daemon. Its store is a folder of
// state_dir.
type Embedded struct {
	// Listen is the host:port where other programs of this machine reach the
	// server; without a host it is 127.0.0.1, and only a loopback address is
	// accepted, because the embedded server asks nobody for credentials.
	// Optional. Default: empty, no listener.
	Listen string `yaml:"listen"`

	// SyncAlways makes every write durable before it is acknowledged. Without
	// it a power loss takes up to half a minute of acknowledged messages along.
	// Default: true.
	SyncAlways bool `yaml:"sync_always"`

	// MaxStore bounds the store on disk, in bytes. Default: 0, three quarters
	// of the disk space free at start.
	MaxStore ByteSize `yaml:"max_store"`
}

// Limits bounds inputs; what is above is refused as too_large, an object as
// object. A group is loaded by the limits of the time: they can be raised, but
// lowered only to what nothing in the logs exceeds.
type Limits struct {
	// IntentBytes is the largest intent in bytes, as an MLSMessage; at least
	// 1KiB and at most message_bytes. Default: 16KiB.
	IntentBytes ByteSize `yaml:"intent_bytes"`

	// MessageBytes is the largest other message in bytes, from 1KiB to 8MiB.
	// The max_payload of an external server must be a little larger, as it
	// counts headers. A GroupInfo with its tree takes some 200 bytes for each
	// member in suite 1, and 7 KB with ML-DSA-65. Default: 1MiB.
	MessageBytes ByteSize `yaml:"message_bytes"`

	// ObjectBytes is the largest GroupInfo in bytes that is given by reference
	// into the object store; at least message_bytes and at most 1GiB. Default:
	// 64MiB.
	ObjectBytes ByteSize `yaml:"object_bytes"`
}

// Cache is the memory of groups that are loaded.
type Cache struct {
	// MaxBytes is the memory for loaded groups in bytes as they are estimated, at
	// least 1MiB. Groups beyond it are loaded when they are needed. Default:
	// 256MiB.
	MaxBytes ByteSize `yaml:"max_bytes"`
}

// Compaction replaces what is old in a group's log by a snapshot.
type Compaction struct {
	// Entries is the number of entries in a group's log from which on it is
	// compacted, at least 10. Default: 1000.
	Entries int `yaml:"entries"`

	// Interval is how often logs are looked through for such groups, at least
	// 1s. Default: 10m.
	Interval Duration `yaml:"interval"`
}

// Events is the stored record of what happened to intents and groups.
type Events struct {
	// MaxAge is how long events are stored, at least 1m. Default: 30d.
	MaxAge Duration `yaml:"max_age"`

	// Cleartext writes credentials and subjects of users into events as they
	// are, instead of as keyed hashes. Default: false.
	Cleartext bool `yaml:"cleartext"`

	// KeyFile is the path of a file with the secret that keys those hashes: 32
	// random bytes, as head -c 32 /dev/urandom gives. Instances that serve the
	// same logs need the same one, or one user has different hashes in the
	// events of each. Optional. Default: empty, keys/events.key in state_dir,
	// made on first start.
	KeyFile string `yaml:"key_file"`
}

// Log is the daemon's own log.
type Log struct {
	// Level is the least severe level written: debug, info, warn or error.
	// Default: info.
	Level string `yaml:"level"`

	// Format is json, console, or auto: console on a terminal and json
	// elsewhere. Default: auto.
	Format string `yaml:"format"`
}
