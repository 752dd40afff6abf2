package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Handler is told what a manager does. It must not block.
type Handler interface {
	// Acquired begins a run. It may be over already. It is called from the manager's goroutine.
	Acquired(*Held)
	// Scanned brings all leases of the table, whoever owns them, as a possibly stale scan showed them. It is called from
	// the manager's goroutine.
	Scanned([]Lease)
	// Drain asks a run to stop reading and handing out, since another worker is to get the lease: when everything that
	// was handed out is confirmed, and the shard's exclusive producers are closed, call Held.Drained. Until then the
	// lease is ours and is renewed. It is called from the lease's actor, never before Acquired; the run may be over
	// already.
	Drain(*Held)
	// Resume takes Drain back: the run goes on as before, even when Drained was called. It is called from the lease's
	// actor.
	Resume(*Held)
}

// Manager takes leases and keeps them. Its one goroutine scans, observes, plans and starts an actor per lease; the
// actors take, renew and release.
type Manager struct {
	cfg          Config
	handler      Handler
	acquisitions *acquisitions
	plan         func(map[string]observation, view) decisions                        // makePlan, but for tests
	judge        func(map[string]observation, view, []Lease) (grant, refuse []Lease) // judgeAsks, but for tests
	reads        health
	writes       health
	asks         atomic.Int64  // under way
	kcl2         atomic.Bool   // a KCL 2.x worker lives beside us
	mayNotLook   atomic.Bool   // single leases may not be read: looked at by scans only
	notify       chan struct{} // holds one token: there are events, or a scan is wanted

	closing   chan struct{}   // closed by the first Close
	closeCtx  context.Context // of that Close; set before closing is closed
	closeDone chan struct{}   // closed when that Close returns
	closeErr  error           // set before closeDone is closed

	mu struct {
		sync.Mutex
		events     []event
		rescan     bool
		closed     bool
		ran        chan struct{} // nil before Run, closed when it returns
		cancelRun  context.CancelFunc
		left       []*Held // runs that ended with Run, not released
		unreleased []error
		beside     string // the worker of KCL 3.x that was last seen at work on the table
		besideAt   time.Duration
		stats      Stats
	}

	// The state of Run's goroutine.
	known    map[string]observation
	busy     map[string]bool // an actor takes, keeps or releases the lease
	starting int             // takes without an outcome
	asking   map[string]*asking
	askedAt  map[string]time.Duration // when an ask for the lease ended of which it is not known whether it was answered
	pending  map[string]askSeen       // asks of others that wait for a decision
	giving   map[string]string        // leases that drain for another worker, and which
	stoleAt  time.Duration
	since    time.Duration // when the first scan came
	took     []string
	lost     gathered
	fenced   gathered
	given    gathered      // to workers that asked
	passed   gathered      // to workers of KCL 3.x
	lacking  bool          // warned of leases that nobody may take
	missing  int           // scans in a row that found no table
	filled   bool          // the last scan that was not empty has shown work
	emptyAt  time.Duration // since when they are all gone, 0 = they are not
	emptied  bool          // for so long that they will not come back by themselves
	scanning bool
	scanned  bool // at least once
	nextScan time.Duration
	started  time.Duration // of the scan under way
	workers  int
	foreign  bool // warned of
	witness  witness
	kcl3     coordinator   // as last read
	kcl3At   time.Duration // when; meaningful once a KCL worker was seen
	broken   map[string]bool
	wg       sync.WaitGroup
}

// event is what an actor or a scan tells Run's goroutine.
type event struct {
	scan *scanResult

	key      string
	acquired *Held
	asked    *askSeen // somebody asks for the lease
	settled  bool     // nobody does any more, and the lease stays
	ended    *ending  // the lease has no actor any more
	ran      bool     // ended: it had been held
	way      way      // acquired, or ended without having been held: how it was to become ours
}

// way is how a lease becomes ours.
type way int

const (
	wayNone way = iota
	wayTake
	wayAsk   // asked for and given
	wayAdopt // given, when it was not waited for any more
)

// askSeen is an ask for a lease that we hold, as its actor has seen it.
type askSeen struct {
	held  *Held
	lease Lease
}

type scanResult struct {
	snapshot   Snapshot
	consistent bool
	// kcl3 is what lies in tables of KCL 3.x's own, nil if that was not read.
	kcl3 *coordinator
	at   time.Duration
	err  error
}

// NewManager checks the configuration. Nothing is read or written before Run.
func NewManager(cfg Config, handler Handler) (*Manager, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Manager{
		cfg: cfg, handler: handler, acquisitions: newAcquisitions(cfg.WorkerID),
		reads: newHealth(cfg.Failover), writes: newHealth(cfg.Failover),
		plan: makePlan, judge: judgeAsks, notify: make(chan struct{}, 1),
		closing: make(chan struct{}), closeDone: make(chan struct{}),
		known: map[string]observation{}, busy: map[string]bool{}, broken: map[string]bool{}, workers: 1, witness: witness{failover: cfg.Failover},
		asking: map[string]*asking{}, askedAt: map[string]time.Duration{}, pending: map[string]askSeen{}, giving: map[string]string{},
	}, nil
}

// Run takes and keeps leases until ctx ends or Close is called, and returns when all its goroutines have ended. When ctx
// ends the runs end without a release; a Close afterwards still releases the leases. Run can be called once. It returns
// nil after Close, ErrTableGone when the lease table is there no more, otherwise the cause of ctx.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	if m.mu.closed {
		m.mu.Unlock()
		return nil
	}
	if m.mu.ran != nil {
		m.mu.Unlock()
		return errors.New("lease: Run was called twice")
	}
	ran := make(chan struct{})
	m.mu.ran, m.mu.cancelRun = ran, cancel
	m.mu.Unlock()
	defer close(ran)
	defer m.wg.Wait()

	scanCtx, cancelScan := context.WithCancel(ctx)
	defer cancelScan()
	timer := time.NewTimer(0)
	defer timer.Stop()
	m.nextScan = m.cfg.Clock()
	for {
		m.handle(m.drain())
		if m.missing >= enoughMissing || m.emptied {
			what := "gone; nothing is read until there is one again"
			if m.emptied {
				what = "empty, though it was in use; nothing is read until there are leases again"
			}
			m.cfg.Log.Warnf("Lease table %s is %s", m.cfg.Table.Name(), what)
			cancel()
			return fmt.Errorf("keeping leases in table %s: %w", m.cfg.Table.Name(), ErrTableGone)
		}
		now := m.cfg.Clock()
		if !m.scanning && (m.takeRescan() || now >= m.nextScan) {
			m.startScan(scanCtx, now)
		}
		next := m.act(ctx, now)
		timer.Reset(max(next-m.cfg.Clock(), time.Millisecond))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.closing:
			return nil
		case <-m.notify:
		case <-timer.C:
		}
	}
}

// ErrTableGone is returned when the lease table was deleted while it was in use, or all its leases were, as by somebody who
// has made the table anew. All runs have ended; what is to follow is what a start does with a missing table.
var ErrTableGone = errors.New("the lease table was deleted")

// enoughMissing is how many scans in a row must find no table: a replica of DynamoDB's directory may lag.
const enoughMissing = 2

// Rescan asks for a consistent scan at once, e.g. after leases were created.
func (m *Manager) Rescan() {
	m.mu.Lock()
	m.mu.rescan = true
	m.mu.Unlock()
	m.poke()
}

func (m *Manager) takeRescan() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.mu.rescan
	m.mu.rescan = false
	if r {
		m.scanned = false
	}
	return r
}

// Err tells why the table does not answer: reads or writes have failed for the failover time and none succeeded. It is
// nil while it answers.
func (m *Manager) Err() error {
	now := m.cfg.Clock()
	for _, h := range []*health{&m.reads, &m.writes} {
		if err := h.failing(now, m.cfg.Failover); err != nil {
			return fmt.Errorf("lease table %s could not be used for %s: %w", m.cfg.Table.Name(), m.cfg.Failover, err)
		}
	}
	return nil
}

// Close ends all runs and releases their leases in parallel, with their last confirmed positions. It returns when that
// is done, or with an error when ctx ended before. It may be called at any time and more than once; later calls wait
// for the first.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.mu.closed {
		m.mu.Unlock()
		select {
		case <-m.closeDone:
			return m.closeErr
		case <-ctx.Done():
			return fmt.Errorf("closing the lease manager: %w", context.Cause(ctx))
		}
	}
	m.mu.closed = true
	m.closeCtx = ctx
	close(m.closing)
	ran, cancelRun := m.mu.ran, m.mu.cancelRun
	m.mu.Unlock()

	defer close(m.closeDone)
	if ran != nil {
		// Tries under way may use up ctx, but not more.
		stop := context.AfterFunc(ctx, cancelRun)
		<-ran
		stop()
	}
	m.mu.Lock()
	left := m.mu.left
	m.mu.Unlock()
	var wg sync.WaitGroup
	for _, h := range left {
		wg.Go(func() {
			if _, _, err := h.release(ctx, h.parting()); err != nil {
				m.noteUnreleased(err)
			}
		})
	}
	wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.mu.unreleased); n > 0 {
		m.closeErr = fmt.Errorf("closing the lease manager: %d leases will expire instead of being released, the first: %w", n, m.mu.unreleased[0])
	}
	return m.closeErr
}

// leave notes a run that ended, or a take that may have been done, without a release.
func (m *Manager) leave(h *Held) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.left = append(m.mu.left, h)
}

func (m *Manager) noteUnreleased(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.unreleased = append(m.mu.unreleased, err)
}

func (m *Manager) isClosing() bool {
	select {
	case <-m.closing:
		return true
	default:
		return false
	}
}

func (m *Manager) post(e event) {
	m.mu.Lock()
	m.mu.events = append(m.mu.events, e)
	m.mu.Unlock()
	m.poke()
}

func (m *Manager) poke() {
	select {
	case m.notify <- struct{}{}:
	default:
	}
}

func (m *Manager) drain() []event {
	m.mu.Lock()
	defer m.mu.Unlock()
	events := m.mu.events
	m.mu.events = nil
	return events
}

// startScan reads the table in a goroutine of its own, so that a slow scan delays no take. The first scan, and one that
// was asked for, is consistent: leases that were just created must not be missed.
func (m *Manager) startScan(ctx context.Context, now time.Duration) {
	m.scanning, m.started = true, now
	consistent := !m.scanned
	isKCLDue := m.isKCLDue(now)
	if isKCLDue {
		m.kcl3At = now
	}
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, m.cfg.Failover)
		defer cancel()
		r := scanResult{consistent: consistent}
		r.snapshot, r.err = m.cfg.Table.Scan(ctx, consistent)
		r.at = m.cfg.Clock()
		if isKCLDue && r.err == nil {
			r.kcl3 = m.readKCL(ctx)
		}
		m.post(event{scan: &r})
	})
}

// view is what a plan is made from.
func (m *Manager) view(now time.Duration) view {
	asked := make(map[string]time.Duration, len(m.asking))
	for key, a := range m.asking {
		asked[key] = a.since
	}
	return view{
		worker: m.cfg.WorkerID, stream: m.cfg.Stream, isOwn: m.acquisitions.isOwn,
		failover: m.cfg.Failover, max: m.cfg.MaxLeases, busy: m.busy, asked: asked, giving: m.giving,
		pending: m.starting, mayTake: m.cfg.MayTake, beside: m.beside(now), stoleAt: m.stoleAt, since: m.since, now: now,
	}
}

// act makes a plan and starts what it says. It returns when to look again.
func (m *Manager) act(ctx context.Context, now time.Duration) (next time.Duration) {
	m.decideAsks(now)
	d := m.plan(m.known, m.view(now))
	m.workers = d.workers
	if d.stolen {
		m.stoleAt = now
	}
	if d.foreign != nil && !m.foreign {
		m.cfg.Log.Warnf("Taking no more leases: %v", CheckStream([]Lease{*d.foreign}, m.cfg.Stream))
	}
	m.foreign = d.foreign != nil
	if d.leftover > 0 && !m.lacking {
		m.cfg.Log.Warnf("%d leases have no owner, since this worker may hold no more than %d (maxLeasesForWorker) and no other comes for them; their shards are not read", d.leftover, m.cfg.MaxLeases)
	}
	m.lacking = d.leftover > 0
	for _, l := range d.take {
		if a := m.asking[l.Key]; a != nil {
			a.cancel() // it has its actor; the plan after that one's end takes it
			continue
		}
		m.busy[l.Key] = true
		m.starting++
		m.wg.Go(func() { m.actor(ctx, l.Key, wayTake, func() (*Held, ending) { return m.take(ctx, l) }) })
	}
	for _, l := range d.release {
		if m.asking[l.Key] != nil {
			continue // it was given just now
		}
		m.busy[l.Key] = true
		if at, asked := m.askedAt[l.Key]; asked && now-at < 2*m.cfg.Failover && l.IsOurs() && !m.acquisitions.isOwn(l) {
			// It was given when we had given up waiting (r3.6).
			delete(m.askedAt, l.Key)
			m.wg.Go(func() { m.actor(ctx, l.Key, wayAdopt, func() (*Held, ending) { return m.adoptGiven(ctx, l) }) })
			continue
		}
		m.wg.Go(func() { m.drop(ctx, l) })
	}
	for _, l := range d.ask {
		if m.asking[l.Key] == nil && !m.busy[l.Key] {
			m.startAsk(ctx, l, now)
		}
	}
	if m.starting == 0 && len(m.took) > 0 {
		m.cfg.Log.Infof("Took %d leases: %s", len(m.took), shortList(m.took))
		m.took = nil
	}
	m.publish(d)
	if d.contested {
		m.nextScan = min(m.nextScan, m.started+m.cfg.Failover/contestedScans)
	}
	next = now + m.cfg.Failover
	if !m.scanning {
		next = m.nextScan
	}
	if d.next != 0 {
		next = min(next, d.next)
	}
	if at := m.dropExpiredAsks(now); at != 0 {
		next = min(next, at)
	}
	for _, g := range []*gathered{&m.lost, &m.fenced, &m.given, &m.passed} {
		if len(g.keys) > 0 {
			next = min(next, g.at)
		}
	}
	return next
}

// decideAsks answers the asks for our leases.
func (m *Manager) decideAsks(now time.Duration) {
	if len(m.pending) == 0 {
		return
	}
	asked := make([]Lease, 0, len(m.pending))
	for _, a := range m.pending {
		asked = append(asked, a.lease)
	}
	grant, refuse := m.judge(m.known, m.view(now), asked)
	for _, l := range grant {
		m.giving[l.Key] = l.Ask
		m.pending[l.Key].held.answer(l, true)
	}
	for _, l := range refuse {
		m.pending[l.Key].held.answer(l, false)
	}
	clear(m.pending)
}

func (m *Manager) startAsk(ctx context.Context, l Lease, now time.Duration) {
	askCtx, cancel := context.WithCancel(ctx)
	a := &asking{since: now, cancel: cancel, news: make(chan Lease, 1)}
	m.asking[l.Key] = a
	m.asks.Add(1)
	m.wg.Go(func() {
		defer cancel()
		m.actor(ctx, l.Key, wayAsk, func() (*Held, ending) {
			defer m.asks.Add(-1)
			return m.ask(ctx, askCtx, a.news, l)
		})
	})
}

// dropExpiredAsks ends the asks whose leases their owners have lost: those are there to be taken. It returns when the
// next one may expire, 0 = none.
func (m *Manager) dropExpiredAsks(now time.Duration) (next time.Duration) {
	for key, a := range m.asking {
		o, ok := m.known[key]
		switch {
		case !ok || !o.confirmed || o.tried:
		case o.isExpired(m.cfg.Failover, now):
			a.cancel()
		default:
			if at := o.expiresAt(m.cfg.Failover); at > now && (next == 0 || at < next) {
				next = at
			}
		}
	}
	return next
}

// actor is the one goroutine that writes as the owner of a lease.
func (m *Manager) actor(ctx context.Context, key string, by way, become func() (*Held, ending)) {
	h, e := become()
	if h == nil {
		m.post(event{key: key, ended: &e, way: by})
		return
	}
	m.post(event{key: key, acquired: h, way: by})
	e = h.keep(ctx)
	switch {
	case errors.Is(e.cause, ErrStopped):
		m.leave(h)
	case errors.Is(e.cause, ErrReleased), errors.Is(e.cause, ErrGiven) && !e.known:
		e = m.finish(ctx, h, e)
	}
	h.closeOver()
	m.post(event{key: key, ended: &e, ran: true})
}

// finish is what comes after the end of a run that did not lose its lease.
func (m *Manager) finish(ctx context.Context, h *Held, e ending) ending {
	h.mu.Lock()
	releaseCtx := h.mu.releaseCtx
	h.mu.Unlock()
	writing := ctx
	switch {
	case releaseCtx != nil:
		// Whoever releases one lease may be more patient than whoever stops the manager, which ends ctx with its own patience.
		bounded, cancel := context.WithCancelCause(releaseCtx)
		defer cancel(nil)
		defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
		writing = bounded
	case m.isClosing():
		writing = m.closeCtx
	}
	p := h.parting()
	p.keep = h.isEnding() && m.kcl2.Load() && !m.isClosing()
	e = m.part(ctx, writing, h, p, e)
	if p.keep && e.known && e.found && stillOwns(h.own.worker, h.own.acquisition, e.lease, e.found) {
		h.closeOver()
		e = h.retain(ctx)
	}
	return e
}

// part does the last write of a run, under writing. What the end of Run's ctx has cut short is left to Close, which may be
// called only now.
func (m *Manager) part(ctx, writing context.Context, h *Held, p parting, e ending) ending {
	l, found, err := h.release(writing, p)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			m.leave(h)
		case m.isClosing():
			m.noteUnreleased(err)
		}
		// It may be ours still. If it is, the next scan shows it.
		return ending{cause: errors.Join(e.cause, errGaveUp)}
	}
	return ending{cause: e.cause, known: true, found: found, lease: l}
}

// drop releases a lease that is ours in the table only.
func (m *Manager) drop(ctx context.Context, l Lease) {
	own := ownership{key: l.Key, worker: l.Owner, acquisition: l.Acquisition, counter: l.Counter}
	e := ending{cause: errGaveUp}
	// Once and no more: if the table does not answer, the next scan brings us back here.
	a, err := m.try(ctx, m.cfg.tryTimeout(), releaseUpdate(own, bracket{}))
	if err == nil {
		e = ending{cause: ErrReleased, known: true, found: a.found, lease: a.lease}
	}
	m.post(event{key: l.Key, ended: &e})
}
