package broker

import (
	"golang.org/x/time/rate"
	"leavebroker/intents"
	"leavebroker/mlscore"
)

// tenant is a tenant at work.
type tenant struct {
	Tenant
	policy  intents.Policy
	limiter *rate.Limiter // nil: no limit
}

func newTenant(t Tenant) *tenant {
	n := &tenant{Tenant: t, policy: t.Policy}
	n.policy.Tenant = t.Name
	n.policy.Parallel = Parallel
	n.policy.Association = t.AuthService != nil
	n.policy.SenderKeys = nil
	for _, s := range t.Signers {
		n.policy.SenderKeys = append(n.policy.SenderKeys, s.PublicKey())
	}
	if t.Quotas.IntentsPerSecond > 0 {
		n.limiter = rate.NewLimiter(rate.Limit(t.Quotas.IntentsPerSecond), t.Quotas.Burst)
	}
	return n
}

// wireFormat is that of the tenant's intents.
func (t *tenant) wireFormat() mlscore.WireFormat {
	if t.policy.CodePoints == (intents.CodePoints{}) {
		return intents.DefaultWireFormat
	}
	return t.policy.CodePoints.WireFormat
}
