package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

const (
	// startAgain is when to try again while the server cannot be reached.
	startAgain = time.Second
	// loadsAtStart bounds the groups that are woken at a time.
	loadsAtStart  = 8
	timerInterval = 100 * time.Millisecond
	wakeAgain     = time.Second
	// stuckAfter is how long one input may take before the broker counts as
	// stuck.
	stuckAfter = 2 * time.Minute
)

// Broker serves tenants on one NATS account.
type Broker struct {
	opts     Options
	names    names // for what is no stream of logs
	tenants  map[string]*tenant
	log      *zap.Logger
	embedded *embedded // nil: the server is elsewhere

	nc      *nats.Conn
	js      jetstream.JetStream
	api     string  // prefix of the JetStream API
	records records // set by ensure
	ledger  ledger  // records, but for a simulated one
	events  eventSink

	snapshots snapshots // set by ensure
	blobs     objects   // the broker's own; set by ensure
	infos     objects   // GroupInfos that inputs refer to; set by ensure

	groups     []*streamGroup
	all        []*owner // of all stream groups
	byTenant   map[string]*streamGroup
	byOwnerKey map[string]*owner
	members    *members
	health     health
	full       atomic.Bool // the server had no room for the last write
	owed       sync.Map    // groupKey: bool; groups whose inputs were acknowledged and not folded, and whether the ledger has a mark of it
	adopting   sync.Map    // groupKey -> revision: groups that another instance found open in a partition of this one

	watchPatience time.Duration // how long a claim waits for the watch of the ledger; none in a simulation
	rereading     sync.Mutex    // held while the ledger is read again

	cached  atomic.Int64 // bytes of the groups in memory
	open    openGroups
	timers  timers
	hub     hub
	metrics metrics

	work       context.Context // ends when the drain is over
	stopWork   context.CancelFunc
	background sync.WaitGroup                        // what runs beside the partitions: requests, questions
	spawn      func(func())                          // background.Go, but for a simulation
	woken      func(context.Context, groupKey) error // recoverDeliveries, but for a simulation
	requests   chan struct{}                         // a slot for each request at a time
	asking     chan struct{}                         // a slot for each question at a time
	loading    chan struct{}                         // a slot for each group that is woken in the background

	reconnected chan struct{} // has one when the ledger has to be watched anew

	ran    atomic.Bool
	phase  atomic.Pointer[string]    // what it is not ready for; nil: ready
	beat   atomic.Pointer[time.Time] // of the last round of the timers; nil: none yet
	closed sync.Once
}

// New makes a broker: it starts the embedded server and connects to it, or
// begins to connect to the one elsewhere. Close, or Run to its end, frees what
// it holds.
func New(opts Options) (_ *Broker, err error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	b := assemble(opts)
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	return b, b.connect()
}

// assemble makes a broker of valid options that reaches nothing yet.
func assemble(opts Options) *Broker {
	b := &Broker{
		opts: opts, log: opts.Logger, names: names{prefix: opts.Prefix},
		tenants: map[string]*tenant{}, byTenant: map[string]*streamGroup{}, byOwnerKey: map[string]*owner{},
		members: newMembers(opts.Instance, opts.PinTTL), requests: make(chan struct{}, maxRequests), asking: make(chan struct{}, maxAsking),
		loading: make(chan struct{}, loadsAtStart), reconnected: make(chan struct{}, 1), watchPatience: watchPatience,
		timers: timers{clock: opts.Clock},
	}
	b.health.tell, b.spawn, b.woken = b.tellTrouble, b.background.Go, b.recoverDeliveries
	b.work, b.stopWork = context.WithCancel(context.Background())
	b.setPhase("not started")
	for _, t := range opts.Tenants {
		b.tenants[t.Name] = newTenant(t)
	}
	b.makeGroups()
	b.hub.names = b.names
	return b
}

func (b *Broker) connect() (err error) {
	options := append(b.opts.Conn.natsOptions(b.log), nats.ErrorHandler(b.asyncError), nats.ReconnectHandler(func(nc *nats.Conn) {
		b.log.Info("reconnected to NATS", zap.String("server", nc.ConnectedServerName()))
		b.health.clear("permissions") // they come back if nothing was mended
		select {
		case b.reconnected <- struct{}{}:
		default:
		}
	}))
	url := b.opts.Conn.URL
	if url == "" {
		if b.embedded, err = startEmbedded(b.opts.Embedded, b.opts.Limits.MessageBytes, b.log); err != nil {
			return err
		}
		options = append(options, nats.InProcessServer(b.embedded.server))
		for _, g := range b.groups {
			g.assets.dropConsumer = b.embedded.dropConsumer
		}
	}
	if b.nc, err = nats.Connect(url, options...); err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	js, api, err := b.opts.Conn.jetStream(b.nc)
	if err != nil {
		return err
	}
	b.js, b.api, b.events = js, api, eventStream{js, b.names}
	for _, g := range b.groups {
		g.store = &store{nc: b.nc, js: js, api: api, names: g.names}
		g.log = g.store
	}
	return nil
}

// asyncError takes what the server reports by itself.
func (b *Broker) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	b.log.Warn("NATS reports an error", zap.String("subject", subject), zap.Error(err))
	if errors.Is(err, nats.ErrPermissionViolation) {
		b.health.report("permissions", fmt.Errorf("%w: %v", errPermission, err))
	}
}

// Connect connects a client to the server that the broker uses, as any client
// would: to the embedded server within this process, else by the same options.
func (b *Broker) Connect(options ...nats.Option) (*nats.Conn, error) {
	if b.embedded != nil {
		return nats.Connect("", append(options, nats.InProcessServer(b.embedded.server))...)
	}
	return nats.Connect(b.opts.Conn.URL, append(b.opts.Conn.natsOptions(b.log), options...)...)
}

// URL is where other programs reach the embedded server; empty where it does
// not listen or the server is elsewhere.
func (b *Broker) URL() string {
	if b.embedded == nil {
		return ""
	}
	return b.embedded.url()
}

// Run serves until the context ends, then finishes what is in hand, leaves in
// order and returns nil. It is called once.
func (b *Broker) Run(ctx context.Context) error {
	if b.ran.Swap(true) {
		return errors.New("the broker has run")
	}
	err := b.run(ctx)
	b.setPhase("stopped")
	return errors.Join(err, b.Close())
}

func (b *Broker) run(ctx context.Context) error {
	service, err := b.start(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	whole, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	serving, working := errgroup.WithContext(whole)
	for _, o := range b.all {
		serving.Go(func() error { return o.run(working) })
	}
	for _, task := range []func(context.Context) error{b.runTimers, b.watchHidden, b.keepMembers, b.runCheckpoints, b.compactLogs, b.inspect} {
		serving.Go(func() error { return task(working) })
	}
	b.setPhase("")
	b.log.Info("serving", zap.String("instance", b.opts.Instance), zap.Int("tenants", len(b.tenants)), zap.Int("open_groups", len(b.open.list())))
	select {
	case <-ctx.Done():
	case <-working.Done(): // a task has failed
	}
	b.setPhase("draining")
	b.leaveMembers() // before a partition is free: others know whose it is then
	stop()
	return errors.Join(service.Stop(), serving.Wait())
}

// retry does what the start needs, again until the server is there. One in this
// process is given a while: its disk may be slow.
func (b *Broker) retry(ctx context.Context, phase string, do func(context.Context) error) error {
	b.setPhase(phase)
	for begin := time.Now(); ; {
		err := do(ctx)
		var differs *AssetError
		if err == nil || errors.As(err, &differs) || ctx.Err() != nil || b.embedded != nil && time.Since(begin) > embeddedReadyTimeout {
			return err
		}
		b.log.Warn("NATS is not ready", zap.String("phase", phase), zap.Error(err))
		_ = pause(ctx, startAgain)
	}
}

// start finds what there is to do, and offers the services.
func (b *Broker) start(ctx context.Context) (service micro.Service, err error) {
	listening := false
	for _, step := range []struct {
		phase string
		do    func(context.Context) error
	}{
		{"preparing streams", b.ensure},
		{"reading the ledger", b.watchLedger},
		{"listening", func(context.Context) error {
			if listening {
				return nil
			}
			listening = true // a subscription does not need the server to be there
			_, err := b.nc.Subscribe(b.names.events(), b.hub.handle)
			return errors.Join(err, b.joinMembers(), b.watchDeliveries(b.work))
		}},
		{"offering services", func(context.Context) (err error) {
			service, err = b.addService()
			return err
		}},
		{"awaiting that the server knows of them", func(context.Context) error { return classify(b.nc.FlushTimeout(apiTimeout)) }},
	} {
		if err := b.retry(ctx, step.phase, step.do); err != nil {
			return nil, err
		}
	}
	if !b.alone() {
		_ = pause(ctx, b.members.ttl/beatsPerTTL) // others answer
	}
	return service, nil
}

// wakeOpen loads every open group of a partition that was taken and does what
// is due: what an input would do.
func (o *owner) wakeOpen(ctx context.Context) {
	for _, k := range o.b.open.list() {
		if ctx.Err() != nil || !o.holds.Load() {
			return
		}
		if o.b.tenants[k.tenant] == nil || o.b.owner(k) != o {
			continue
		}
		o.b.loading <- struct{}{}
		o.b.wake(k)
		if err := o.b.woken(ctx, k); err != nil && ctx.Err() == nil {
			o.b.log.Warn("deliveries of a group are not told", zap.Stringer("group", k), zap.Error(err))
		}
		<-o.b.loading
	}
}

// wake looks at a group, and again later if that fails.
func (b *Broker) wake(k groupKey) {
	err := b.owner(k).wake(b.work, k)
	if err != nil && !errors.Is(err, errTroubled) && b.work.Err() == nil { // an operator takes longer
		b.log.Warn("a group is looked at again later", zap.Stringer("group", k), zap.Error(err))
		b.timers.sooner(k, b.opts.Clock().Add(wakeAgain))
	}
}

// runTimers wakes groups whose time has come.
func (b *Broker) runTimers(ctx context.Context) error {
	tick := time.NewTicker(timerInterval)
	defer tick.Stop()
	var waking errgroup.Group
	waking.SetLimit(loadsAtStart)
	for {
		now := time.Now()
		b.beat.Store(&now)
		for _, k := range b.timers.due(b.opts.Clock()) {
			waking.Go(func() error {
				b.wake(k)
				return nil
			})
		}
		select {
		case <-ctx.Done():
			return waking.Wait()
		case <-tick.C:
		}
	}
}

func (b *Broker) setPhase(s string) {
	if s == "" {
		b.phase.Store(nil)
		return
	}
	b.phase.Store(&s)
}

// Ready says why the broker is not ready to serve, nil if it is.
func (b *Broker) Ready() error {
	if phase := b.phase.Load(); phase != nil {
		return errors.New(*phase)
	}
	if !b.nc.IsConnected() {
		return fmt.Errorf("NATS: %s", b.nc.Status())
	}
	if named, ofWhole := b.health.list(); ofWhole > 0 {
		return errors.New(strings.Join(named, "; "))
	}
	return nil
}

// Live says why the broker should be restarted, nil if it works: it does not
// depend on the server being reached.
func (b *Broker) Live() error {
	if last := b.beat.Load(); last != nil && time.Since(*last) > stuckAfter {
		return fmt.Errorf("the timers have stood still since %s", last.UTC().Format(time.RFC3339))
	}
	for _, o := range b.all {
		if since := o.busySince.Load(); since != nil && time.Since(*since) > stuckAfter {
			return fmt.Errorf("partition %d has worked on one input since %s", o.number, since.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// Summary counts the groups with something to do and their open intents.
func (b *Broker) Summary() (groups, open int) {
	return b.open.count()
}

// Close ends everything at once; Run does so in order.
func (b *Broker) Close() (err error) {
	b.closed.Do(func() {
		b.stopWork()
		b.background.Wait()
		if b.nc != nil {
			ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
			defer cancel()
			err = drain(ctx, b.nc)
		}
		if b.embedded != nil {
			err = errors.Join(err, b.embedded.stop())
		}
	})
	return err
}
