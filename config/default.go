package config

import (
	_ "embed"
	"path/filepath"
	"time"
)

// Example is an annotated configuration file that states every key; its values
// are the defaults.
//
//go:embed example.yaml
var Example []byte

const day = Duration(24 * time.Hour)

// Default returns the configuration of an empty file and environment, except
// for StateDir, which [Load] fills in from the environment.
func Default() Config {
	return Config{
		NATS: NATS{
			Name:         "leavebroker",
			Replicas:     1,
			CreateAssets: true,
			Embedded:     Embedded{SyncAlways: true},
		},
		Prefix:     "leave",
		Partitions: 64,
		Limits:     Limits{IntentBytes: 16 << 10, MessageBytes: 1 << 20, ObjectBytes: 64 << 20},
		PinTTL:     Duration(3 * time.Second),
		AckWait:    Duration(3 * time.Second),
		Cache:      Cache{MaxBytes: 256 << 20},
		Compaction: Compaction{Entries: 1000, Interval: Duration(10 * time.Minute)},
		Events:     Events{MaxAge: 30 * day},
		Log:        Log{Level: "info", Format: "auto"},
		Tenants:    []Tenant{DefaultTenant("default")},
	}
}

// DefaultTenant returns a tenant of which the file says nothing but its name.
func DefaultTenant(name string) Tenant {
	return Tenant{
		Name:                 name,
		SenderIdentity:       "leavebroker",
		InfoTrust:            "handshake",
		Mode2:                "allow",
		Form:                 "remove",
		FallbackEpochs:       3,
		ParkTTL:              day,
		LagWindow:            Duration(60 * time.Second),
		StalledAfter:         5,
		ReceiptTTL:           90 * day,
		OnReplace:            "superseded",
		Lifetimes:            "report",
		ReplacedSignatureKey: "report",
		Isolation:            "shared",
		CodePoints: CodePoints{
			SelfRemove:                    0x000a,
			LeafOperationProposal:         0xf0a1,
			LeafOperationIntentWireFormat: 0xf0a1,
			Replace:                       0xf0a2,
			LeafNodeEpoch:                 0xf0a3,
			AppDataUpdate:                 draftSelfRemove,
		},
		CipherSuites: []CipherSuite{
			{0xf001, "MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519"},
			{0xf002, "MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519"},
			{0xf003, "MLS_128_MLKEM768P256_AES128GCM_SHA256_P256"},
			{0xf004, "MLS_128_MLKEM768P256_AES256GCM_SHA384_P256"},
			{0xf005, "MLS_192_MLKEM1024P384_AES256GCM_SHA384_P384"},
			{0xf006, "MLS_128_MLKEM768_AES256GCM_SHA384_Ed25519"},
			{0xf007, "MLS_128_MLKEM768_AES256GCM_SHA384_P256"},
			{0xf008, "MLS_192_MLKEM1024_AES256GCM_SHA384_P384"},
			{0xf009, "MLS_128_MLKEM768X25519_CHACHA20POLY1305_SHA384_MLDSA44"},
			{0xf00a, "MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65"},
			{0xf00b, "MLS_256_MLKEM1024_AES256GCM_SHA384_MLDSA87"},
		},
		Body:   "raw",
		Quotas: Quotas{IntentsPerSecond: 100, Burst: 1000, OpenIntents: 100_000},
		Guards: Guards{MaxAssociated: 32, MaxFraction: 1},
		AuthService: AuthService{
			Type:    "none",
			OnError: "hold",
			Timeout: Duration(2 * time.Second),
		},
	}
}

// draftSelfRemove is the proposal type that SelfRemove had in its first draft;
// it is AppDataUpdate's today.
const draftSelfRemove = 0x0008

// stateDir is the folder that systemd made for the unit, or the user's.
// It is empty if the environment names neither.
func stateDir(env map[string]string) string {
	if dirs := filepath.SplitList(env["STATE_DIRECTORY"]); len(dirs) > 0 {
		return dirs[0]
	}
	if dir := env["XDG_STATE_HOME"]; filepath.IsAbs(dir) {
		return filepath.Join(dir, "leavebroker")
	}
	if home := env["HOME"]; home != "" {
		return filepath.Join(home, ".local", "state", "leavebroker")
	}
	return ""
}
