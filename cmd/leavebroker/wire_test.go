package main

import (
	"slices"
	"testing"

	"leavebroker/config"
	"leavebroker/intents"
	"leavebroker/mlscore"
)

// TestTenantRegistry: a tenant without code points has the registry of the
// tools, and one with cipher suites has those alone.
func TestTenantRegistry(t *testing.T) {
	tenant := config.DefaultTenant("a")
	reg, err := tenantRegistry(&tenant)
	if err != nil {
		t.Fatal(err)
	}
	if want := toolRegistry(); !slices.Equal(reg.CipherSuites, want.CipherSuites) || reg.SelfRemove != want.SelfRemove ||
		reg.Replace != want.Replace || reg.LeafNodeEpoch != want.LeafNodeEpoch || reg.AppDataUpdate != want.AppDataUpdate {
		t.Errorf("got %+v, want %+v", reg, want)
	}

	tenant.CipherSuites = []config.CipherSuite{{ID: 0x51, Name: "MLS_192_MLKEM768_AES256GCM_SHA384_MLDSA65"}}
	if reg, err = tenantRegistry(&tenant); err != nil {
		t.Fatal(err)
	}
	if ids := reg.Suites(); !slices.Equal(ids, []mlscore.CipherSuite{1, 2, 3, 4, 5, 6, 7, 0x51}) {
		t.Errorf("suites %v", ids)
	}
	if list := schemes(reg); !slices.Contains(list, mlscore.MLDSA65) || slices.Contains(list, mlscore.MLDSA44) {
		t.Errorf("keys for %v", list)
	}

	for _, bad := range []config.CipherSuite{{ID: 1, Name: tenant.CipherSuites[0].Name}, {ID: 8, Name: "MLS_1_A_B_SHA256_C"}} {
		tenant.CipherSuites = []config.CipherSuite{bad}
		if _, err := tenantRegistry(&tenant); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// TestPolicyOfReplace: what a tenant says of Replace is what the fold does.
func TestPolicyOfReplace(t *testing.T) {
	for value, want := range map[string]intents.OnReplace{"superseded": intents.OnReplaceSuperseded, "continue": intents.OnReplaceContinue} {
		tenant := config.Default().Tenants[0]
		tenant.OnReplace = value
		if got := tenantPolicy(&tenant, mlscore.DefaultRegistry()).OnReplace; got != want {
			t.Errorf("%s gives %d, want %d", value, got, want)
		}
	}
}
