package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"go.uber.org/zap"

	"leavebroker/authsvc"
	"leavebroker/broker"
	"leavebroker/config"
	"leavebroker/intents"
	"leavebroker/mlscore"
	"leavebroker/mlscore/keyfile"
)

// brokerOptions translates a configuration. It opens the keys, and makes those
// that a tenant does not name, on first start.
func brokerOptions(cfg *config.Config, log *zap.Logger) (broker.Options, error) {
	conn, err := natsConn(&cfg.NATS)
	if err != nil {
		return broker.Options{}, err
	}
	opts := broker.Options{
		Prefix:     cfg.Prefix,
		Partitions: cfg.Partitions,
		Embedded: broker.Embedded{
			StateDir: filepath.Join(cfg.StateDir, "nats"), Listen: cfg.NATS.Embedded.Listen,
			SyncLater: !cfg.NATS.Embedded.SyncAlways, MaxStore: int64(cfg.NATS.Embedded.MaxStore),
		},
		Conn:       conn,
		Instance:   cfg.Instance,
		Replicas:   cfg.NATS.Replicas,
		KeepAssets: !cfg.NATS.CreateAssets,
		Limits: broker.Limits{
			IntentBytes: int(cfg.Limits.IntentBytes), MessageBytes: int(cfg.Limits.MessageBytes), ObjectBytes: int(cfg.Limits.ObjectBytes),
		},
		PinTTL:          cfg.PinTTL.Std(),
		AckWait:         cfg.AckWait.Std(),
		CacheBytes:      int64(cfg.Cache.MaxBytes),
		CompactEntries:  cfg.Compaction.Entries,
		CompactInterval: cfg.Compaction.Interval.Std(),
		EventsMaxAge:    cfg.Events.MaxAge.Std(),
		Cleartext:       cfg.Events.Cleartext,
		Version:         semver(thisBuild().Version),
		Logger:          log,
	}
	var errs []error
	for i := range cfg.Tenants {
		t, err := brokerTenant(&cfg.Tenants[i], cfg.StateDir, log)
		if err != nil {
			errs = append(errs, fmt.Errorf("tenant %q: %w", cfg.Tenants[i].Name, err))
		}
		opts.Tenants = append(opts.Tenants, t)
	}
	warnOwnKeys(cfg, log)
	if opts.EventKey, err = eventKey(cfg.Events.KeyFile, cfg.StateDir); err != nil {
		errs = append(errs, err)
	}
	return opts, errors.Join(errs...)
}

// natsConn is the way to the server of a configuration, or of the context that
// it names.
func natsConn(n *config.NATS) (broker.Conn, error) {
	c := natsContext{
		URL: n.URL, Creds: n.Credentials, NKey: n.NKey, CA: n.TLS.CA, Cert: n.TLS.Cert, Key: n.TLS.Key,
		Domain: n.Domain, APIPrefix: n.APIPrefix,
	}
	var err error
	if n.Context != "" {
		if c, err = loadContext(n.Context); err != nil {
			return broker.Conn{}, err
		}
	}
	opts, err := c.options()
	return broker.Conn{URL: c.URL, Options: opts, Name: n.Name, Domain: c.Domain, APIPrefix: c.APIPrefix}, err
}

// warnOwnKeys names the tenants whose keys are made in the state directory while
// there may be other instances: those would make keys of their own, which no
// group authorises.
func warnOwnKeys(cfg *config.Config, log *zap.Logger) {
	if !cfg.NATS.External() {
		return
	}
	for i := range cfg.Tenants {
		if t := &cfg.Tenants[i]; len(t.Keys) == 0 {
			log.Warn("keys made in state_dir differ between instances; all that serve the same logs must have the same ones (tenants.keys)",
				zap.String("tenant", t.Name))
		}
	}
}

var semverPattern = regexp.MustCompile(`^v?(\d+\.\d+\.\d+)`)

// semver is a version as the service registry of NATS wants it.
func semver(version string) string {
	if m := semverPattern.FindStringSubmatch(version); m != nil {
		return m[1]
	}
	return "0.0.0"
}

func brokerTenant(t *config.Tenant, stateDir string, log *zap.Logger) (broker.Tenant, error) {
	service, err := authService(t, log)
	if err != nil {
		return broker.Tenant{}, err
	}
	registry, err := tenantRegistry(t)
	if err != nil {
		return broker.Tenant{}, err
	}
	signers, err := tenantSigners(t, registry, stateDir)
	if err != nil {
		return broker.Tenant{}, err
	}
	for _, s := range signers {
		k := showKey(s, t.SenderIdentity)
		log.Info("groups authorise the broker by this entry of external_senders", zap.String("tenant", t.Name),
			zap.String("scheme", k.Scheme), zap.String("external_sender", k.ExternalSender))
	}
	return broker.Tenant{
		Name:        t.Name,
		Signers:     signers,
		Dedicated:   t.Isolation == "dedicated",
		Policy:      tenantPolicy(t, registry),
		AuthService: service,
		AuthTimeout: t.AuthService.Timeout.Std(),
		Quotas: broker.Quotas{
			IntentsPerSecond: float64(t.Quotas.IntentsPerSecond), Burst: t.Quotas.Burst, OpenIntents: t.Quotas.OpenIntents,
		},
	}, nil
}

// tenantCodePoints are those of intents, which no mlscore.Registry names.
func tenantCodePoints(t *config.Tenant) intents.CodePoints {
	body := intents.BodyRaw
	if t.Body == "opaque" {
		body = intents.BodyOpaque
	}
	return intents.CodePoints{
		ProposalType: mlscore.ProposalType(t.CodePoints.LeafOperationProposal),
		WireFormat:   mlscore.WireFormat(t.CodePoints.LeafOperationIntentWireFormat), Body: body,
	}
}

// tenantRegistry has the numbers of a tenant.
func tenantRegistry(t *config.Tenant) (*mlscore.Registry, error) {
	p := t.CodePoints
	reg := mlscore.DefaultRegistry()
	reg.SelfRemove = mlscore.ProposalType(p.SelfRemove)
	reg.Replace = mlscore.ProposalType(p.Replace)
	reg.LeafNodeEpoch = mlscore.ExtensionType(p.LeafNodeEpoch)
	reg.AppDataUpdate = mlscore.ProposalType(p.AppDataUpdate)
	operation := tenantCodePoints(t).CustomProposal()
	operation.AcceptReferences = t.AcceptReferences
	reg.Custom = []mlscore.CustomProposal{operation}
	reg.CipherSuites = nil
	for _, s := range t.CipherSuites {
		suite, err := mlscore.NewSuite(mlscore.CipherSuite(s.ID), s.Name)
		if err != nil {
			return nil, &exitError{code: exitConfig, err: err}
		}
		reg.CipherSuites = append(reg.CipherSuites, suite)
	}
	if err := reg.Validate(); err != nil {
		return nil, &exitError{code: exitConfig, err: err}
	}
	return reg, nil
}

func tenantPolicy(t *config.Tenant, registry *mlscore.Registry) intents.Policy {
	onError, mode2 := intents.OnErrorHold, intents.Mode2Allow
	if t.AuthService.OnError == "sender_only" {
		onError = intents.OnErrorSenderOnly
	}
	onReplace := intents.OnReplaceSuperseded
	if t.OnReplace == "continue" {
		onReplace = intents.OnReplaceContinue
	}
	switch t.Mode2 {
	case "hold":
		mode2 = intents.Mode2Hold
	case "sender_only":
		mode2 = intents.Mode2SenderOnly
	}
	form := intents.FormRemove
	if t.Form == "leaf_operation_proposal" {
		form = intents.FormLeafOperation
	}
	return intents.Policy{
		Registry:             registry,
		CodePoints:           tenantCodePoints(t),
		InfoTrustDS:          t.InfoTrust == "ds",
		Form:                 form,
		Mode2:                mode2,
		OnError:              onError,
		OnReplace:            onReplace,
		Lifetimes:            groupPolicy(t.Lifetimes),
		RequireLeafNodeEpoch: t.RequireLeafNodeEpoch,
		ReplacedSignatureKey: groupPolicy(t.ReplacedSignatureKey),

		SharedAssociation: t.AuthService.Shared,
		FallbackEpochs:    t.FallbackEpochs,

		MaxAssociated: t.Guards.MaxAssociated,
		MaxFraction:   t.Guards.MaxFraction,
		ParkTTL:       t.ParkTTL.Std(),
		LagWindow:     t.LagWindow.Std(),
		ReceiptTTL:    t.ReceiptTTL.Std(),
		StalledAfter:  t.StalledAfter,
		MinEpoch:      t.Pacing.MinEpoch.Std(),
	}
}

// groupPolicy is what to do with something that members may accept.
func groupPolicy(name string) mlscore.Policy {
	if name == "refuse" {
		return mlscore.Refuse
	}
	return mlscore.Report
}

// authService makes the tenant's Authentication Service. Rules over basic
// credentials decide nothing unless somebody vouches for the credentials:
// anyone may claim any identity.
func authService(t *config.Tenant, log *zap.Logger) (broker.AuthenticationService, error) {
	if t.AuthService.Type == "none" {
		return nil, nil
	}
	var rules []authsvc.Rule
	for _, r := range t.AuthService.Rules {
		rules = append(rules, authsvc.Rule{Encoding: authsvc.Encoding(r.Encoding), Whole: r.Equality != "", Pattern: r.Pattern})
	}
	service, err := authsvc.NewRules(rules)
	if err != nil {
		return nil, &exitError{code: exitConfig, err: err}
	}
	if !t.AuthService.CredentialsVouched {
		log.Warn("intents remove their sender alone: nobody vouches for the tenant's basic credentials (authsvc.credentials_vouched)", zap.String("tenant", t.Name))
		return nil, nil
	}
	return association{authsvc.Guard(service, t.AuthService.Timeout.Std())}, nil
}

// tenantSigners loads the keys that a tenant names; a tenant that names none
// has one for each signature scheme in the state directory.
func tenantSigners(t *config.Tenant, registry *mlscore.Registry, stateDir string) ([]mlscore.Signer, error) {
	var signers []mlscore.Signer
	var errs []error
	for _, ref := range t.Keys {
		s, err := loadKeyRef(ref)
		if err != nil {
			errs = append(errs, err)
		}
		signers = append(signers, s)
	}
	if len(t.Keys) > 0 {
		return signers, errors.Join(errs...)
	}
	dir := filepath.Join(stateDir, "keys", t.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for _, scheme := range schemes(registry) {
		s, err := ownKey(filepath.Join(dir, scheme.String()+".pem"), scheme)
		if err != nil {
			return nil, err
		}
		signers = append(signers, s)
	}
	return signers, nil
}

// ownKey loads a key of the state directory, and makes it if there is none.
func ownKey(path string, scheme mlscore.SignatureScheme) (mlscore.Signer, error) {
	s, err := keyfile.Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	text, err := keyfile.Generate(scheme)
	if err != nil {
		return nil, err
	}
	if err := keyfile.Create(path, text); err != nil {
		return nil, err
	}
	return keyfile.Load(path)
}

// loadKeyRef loads the key of a reference.
func loadKeyRef(ref config.KeyRef) (mlscore.Signer, error) {
	switch {
	case ref.File != "":
		return keyfile.Load(ref.File)
	case ref.Credential != "":
		// systemd decides who reads its credentials, not the file's mode.
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, fmt.Errorf("key %q: $CREDENTIALS_DIRECTORY is not set; the unit needs LoadCredential=%s:PATH", ref.Credential, ref.Credential)
		}
		text, err := os.ReadFile(filepath.Join(dir, ref.Credential))
		if err != nil {
			return nil, err
		}
		s, err := keyfile.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", ref.Credential, err)
		}
		return s, nil
	}
	text, ok := os.LookupEnv(ref.Env)
	if !ok {
		return nil, fmt.Errorf("key: the environment has no %s", ref.Env)
	}
	s, err := keyfile.Parse([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("key of $%s: %w", ref.Env, err)
	}
	return s, nil
}
