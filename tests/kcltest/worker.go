package kcltest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Generation is the version of KCL that a worker simulates.
type Generation int

// The generations.
const (
	// KCL2 is KCL 2.6 to 2.7: everybody takes for himself.
	KCL2 Generation = iota
	// KCL3 is KCL 3.5 in its single table: a leader assigns, leases are handed over gracefully.
	KCL3
)

// Consumer is the application of a worker, and the stream that it reads. It is called by one goroutine per lease.
type Consumer interface {
	// Process is called again and again for a lease that the worker believes to hold and whose parents are done. At is
	// where the last call ended, at first the checkpoint that the worker has read.
	Process(ctx context.Context, shard string, at Position) Progress
}

// Progress is what a call of Process came to.
type Progress struct {
	At         Position // everything up to here is processed
	Checkpoint bool     // the application checkpoints there
	Ended      bool     // the shard has no more records; Children follow it
	Children   []Shard
}

// Event is a change that others may want to know of.
type Event struct {
	Kind EventKind
	Key  string
	// Counter is the lease's counter with Took and Stole.
	Counter int64
}

// EventKind is what happened to a lease.
type EventKind int

// The kinds of events.
const (
	Took   EventKind = iota // it was free or expired
	Stole                   // its owner was alive
	Lost                    // the worker has noticed that the lease is not its own any more
	Begun                   // parents are done and the checkpoint is read: processing begins
	Given                   // KCL3: a hand-over was completed
	Ended                   // SHARD_END is stored
	Failed                  // a scan was ended by an item that is no lease
)

// Config says who a worker is and where it works.
type Config struct {
	API        API
	Table      string
	WorkerID   string
	Generation Generation
	// Failover is failoverTimeMillis; 0 = 10 s.
	Failover time.Duration
	// MaxLeases is maxLeasesForWorker; 0 = any number.
	MaxLeases int
	// UnownedMustExpire is how KCL 2.0 to 2.5 see a lease that was given up: it must age like any other.
	UnownedMustExpire bool
	// InitialPosition is where shards without a checkpoint are read from; "" = LATEST.
	InitialPosition string
	// Shards lists the stream, closed shards included; nil means that the worker neither makes first leases nor audits.
	Shards func() []Shard
	// Consumer processes; nil = leases are kept and nothing is processed.
	Consumer Consumer
	// ProcessPause is the time between two calls of Process for one lease; 0 = 1 s.
	ProcessPause time.Duration
	// ParentPoll is the time between two looks at the parents; 0 = 10 s.
	ParentPoll time.Duration
	// CleanupPause is the time between two passes over ended leases; 0 = 5 min.
	CleanupPause time.Duration
	// RequestTimeout bounds a request with its repeats; 0 = 60 s.
	RequestTimeout time.Duration
	// Clock is the local monotonic clock; nil = the time since New.
	Clock func() time.Duration
	// Random decides what KCL leaves to chance; nil = a generator of its own.
	Random *rand.Rand
	// OnEvent is told what happens; nil = nobody. It must not block.
	OnEvent func(Event)
}

// Constants of KCL.
const (
	epsilon       = 25 * time.Millisecond
	veryOld       = 3 // × failover
	takeTries     = 3
	renewTries    = 2
	stealAtOnce   = 1
	firstAudit    = time.Minute
	auditPeriod   = 2 * time.Minute
	holeAudits    = 3
	electAfter    = time.Minute
	electPeriod   = 5 * time.Minute
	firstSyncWait = 30 * time.Second // at most, for somebody else to fill an empty table
)

// Worker is a KCL worker. It is safe for concurrent use.
type Worker struct {
	cfg   Config
	table *table

	random struct {
		sync.Mutex
		*rand.Rand
	}
	mu struct {
		sync.Mutex
		owned map[string]*held
		ended map[string]Lease // waiting for their cleanup
	}
	seen map[string]Lease // the taker's, or the leader's

	wg  sync.WaitGroup
	ctx context.Context
}

// held is a lease that the worker believes to hold.
type held struct {
	key string
	// writing has room for one: it is Java's lock on the lease, kept while a write is under way. (A mutex would keep a
	// bubble of testing/synctest from letting time pass.)
	writing chan struct{}
	cancel  context.CancelFunc // ends the consumer
	idle    chan struct{}      // closed when the consumer has ended

	// Guarded by Worker.mu.
	lease Lease
	stamp time.Duration // of the last success, taken when the answer had come
	next  string        // KCL3: whom it is being handed to
	// delivered is set once something was processed.
	delivered bool
}

// New checks the configuration. Nothing is read or written before Run.
func New(cfg Config) (*Worker, error) {
	if cfg.API == nil || cfg.Table == "" || cfg.WorkerID == "" {
		return nil, errors.New("kcltest: API, Table and WorkerID are needed")
	}
	orElse := func(d *time.Duration, or time.Duration) {
		if *d == 0 {
			*d = or
		}
	}
	orElse(&cfg.Failover, 10*time.Second)
	orElse(&cfg.ProcessPause, time.Second)
	orElse(&cfg.ParentPoll, 10*time.Second)
	orElse(&cfg.CleanupPause, 5*time.Minute)
	orElse(&cfg.RequestTimeout, time.Minute)
	if cfg.InitialPosition == "" {
		cfg.InitialPosition = Latest
	}
	if cfg.Clock == nil {
		start := time.Now()
		cfg.Clock = func() time.Duration { return time.Since(start) }
	}
	if cfg.Random == nil {
		cfg.Random = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(Event) {}
	}
	w := &Worker{cfg: cfg, table: &table{api: cfg.API, name: cfg.Table, timeout: cfg.RequestTimeout, three: cfg.Generation == KCL3}}
	w.random.Rand = cfg.Random
	w.mu.owned = map[string]*held{}
	w.mu.ended = map[string]Lease{}
	return w, nil
}

// Run works until ctx ends, and returns when all goroutines have ended. As with KCL, the leases stay with the worker's name
// on them: others wait until they expire.
func (w *Worker) Run(ctx context.Context) {
	w.ctx = ctx
	defer w.wg.Wait()
	w.adopt(ctx)
	w.firstSync(ctx)
	w.every(w.cfg.Failover/3-epsilon, w.renewAll)
	w.every(w.cfg.CleanupPause, w.cleanUp)
	if w.cfg.Generation == KCL3 {
		w.runThree()
	} else {
		w.every(2*(w.cfg.Failover+epsilon), w.takeLeases)
		w.wg.Go(func() { w.audit(ctx) })
	}
	<-ctx.Done()
}

// every calls f at once and then after each pause.
func (w *Worker) every(pause time.Duration, f func(context.Context)) {
	w.wg.Go(func() {
		for {
			f(w.ctx)
			if !sleep(w.ctx, pause) {
				return
			}
		}
	})
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// Holds tells whether the worker believes to hold the lease.
func (w *Worker) Holds(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.mu.owned[key]
	return h != nil && w.valid(h)
}

// valid must be called with mu held. A lease that was not renewed for the failover time is hidden from its consumer.
func (w *Worker) valid(h *held) bool { return w.cfg.Clock()-h.stamp <= w.cfg.Failover }

// isHeld tells whether this acquisition of the lease is still believed in.
func (w *Worker) isHeld(h *held) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.owned[h.key] == h && w.valid(h)
}

// keep adds a lease that the table has for the worker, and starts its consumer.
func (w *Worker) keep(l Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil || w.mu.owned[l.Key] != nil {
		return
	}
	ctx, cancel := context.WithCancel(w.ctx)
	h := &held{
		key: l.Key, writing: make(chan struct{}, 1), cancel: cancel, idle: make(chan struct{}),
		lease: l, stamp: w.cfg.Clock(),
	}
	w.mu.owned[l.Key] = h
	w.wg.Go(func() {
		defer close(h.idle)
		w.consume(ctx, h)
	})
}

// drop forgets a lease.
func (w *Worker) drop(h *held, why EventKind) {
	w.mu.Lock()
	mine := w.mu.owned[h.key] == h
	if mine {
		delete(w.mu.owned, h.key)
	}
	w.mu.Unlock()
	h.cancel()
	if mine {
		w.cfg.OnEvent(Event{Kind: why, Key: h.key})
	}
}

func (w *Worker) all() (all []*held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.mu.owned {
		all = append(all, h)
	}
	return all
}

// chance is true once in n.
func (w *Worker) chance(n int) bool {
	w.random.Lock()
	defer w.random.Unlock()
	return w.random.IntN(n) == 0
}

func (w *Worker) shuffle(leases []Lease) {
	w.random.Lock()
	defer w.random.Unlock()
	w.random.Shuffle(len(leases), func(i, j int) { leases[i], leases[j] = leases[j], leases[i] })
}
