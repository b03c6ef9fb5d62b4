package main

import (
	"testing"

	"leavebroker/config"
	"leavebroker/intents"
)

// TestPolicyOfReplace: what a tenant says of Replace is what the fold does.
func TestPolicyOfReplace(t *testing.T) {
	for value, want := range map[string]intents.OnReplace{"superseded": intents.OnReplaceSuperseded, "continue": intents.OnReplaceContinue} {
		tenant := config.Default().Tenants[0]
		tenant.OnReplace = value
		if got := tenantPolicy(&tenant).OnReplace; got != want {
			t.Errorf("%s gives %d, want %d", value, got, want)
		}
	}
}
