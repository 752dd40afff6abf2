package input

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
)

const (
	// troubledAfter is how long all reading must fail before the input says that it is not connected.
	troubledAfter = 10 * time.Second
	monitorPeriod = time.Second
	// stopTimeout bounds the final checkpoints and the release of the leases (I10: a stop takes under four seconds).
	stopTimeout = 3 * time.Second
)

// worker is the part of the input that lives from the first successful Connect to Close: lease keeping, one run for
// each lease that may be read, and the watch over both. It does not depend on the engine calling ReadBatch or Connect,
// so a blocked pipeline never costs a lease (I9).
type worker struct {
	in      *input
	stream  stream
	start   shard.Start
	clients *clients
	reader  func(shard string, hashes kpl.HashRange) readerFrom
	calls   *retrieval.CallSpacing // nil when shards are polled
	// freeAt is when another worker may have the shard's place at Kinesis.
	freeAt  func(shard string) time.Time
	manager *lease.Manager
	table   *lease.Table
	cancel  context.CancelFunc
	owned   sync.WaitGroup // all goroutines of the worker

	ctx context.Context

	mu struct {
		sync.Mutex
		leases  map[string]lease.Lease // as last scanned
		waiting map[string]*waiting    // held, but not to be read yet: parents first
		runs    map[string]*run
		refused map[string]refusal // held, and not readable for a reason that only a person can mend
		trouble error              // why the whole component can't work; nil: it works; ErrEndOfInput: it was stopped
		// turned is closed and replaced whenever trouble appears or goes.
		turned  chan struct{}
		stopped bool
		ended   bool // no lease is kept any more, and the trouble is why: it needs another worker
	}
}

// newWorker gets nil for the consumer when shards are polled.
func newWorker(in *input, c *clients, s stream, start shard.Start, con *consumer) (*worker, error) {
	w := &worker{in: in, stream: s, start: start, clients: c, table: in.table(c)}
	w.freeAt = func(string) time.Time { return time.Time{} }
	if con != nil {
		w.reader, w.calls = in.fanOut(con)
		w.freeAt = w.calls.FreeAt
	} else {
		w.reader = in.polling(c, s)
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.mu.leases = map[string]lease.Lease{}
	w.mu.waiting = map[string]*waiting{}
	w.mu.runs = map[string]*run{}
	w.mu.refused = map[string]refusal{}
	w.mu.turned = make(chan struct{})
	brand := s.identity.Brand()
	var err error
	w.manager, err = lease.NewManager(lease.Config{
		Table:              w.table,
		WorkerID:           in.workerID,
		Stream:             brand,
		Failover:           in.config.FailoverTime,
		CheckpointInterval: in.config.CheckpointInterval,
		Backoff:            in.config.BackoffTime,
		NumRetries:         in.config.NumRetries,
		MaxLeases:          in.config.MaxLeasesForWorker,
		Clock:              in.clock,
		Log:                in.log,
		AnchorFor:          w.anchorFor,
		MayTake:            w.mayTake,
	}, w)
	return w, err
}

// anchorFor is the moment to store beside a sentinel that has none. Only what the sentinel already means may be stored:
// "now" would override the configuration, and lose records.
func (w *worker) anchorFor(l lease.Lease) time.Time {
	switch {
	case l.Checkpoint.Sequence == checkpoint.TrimHorizon:
	case l.Checkpoint.Sequence == w.start.Position:
		return w.start.At
	case l.Checkpoint.Sequence == checkpoint.Latest:
		// A KCL worker has made the row since we came, so it cannot mean more than what came since then.
		return w.stream.anchor()
	}
	return time.Time{}
}

func (w *worker) run() {
	w.owned.Go(w.monitor)
	w.owned.Go(w.audit)
	w.owned.Go(func() {
		if err := w.manager.Run(w.ctx); err != nil && w.ctx.Err() == nil {
			w.in.log.Errorf("Keeping leases has stopped: %v", err)
			w.mu.Lock()
			defer w.mu.Unlock()
			if !w.mu.stopped {
				w.mu.ended = true
				w.setTroubleLocked(err)
			}
		}
	})
}

// Acquired implements lease.Handler: a lease is ours and is being kept.
func (w *worker) Acquired(h *lease.Held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := h.Lease().Key
	w.mu.leases[key] = h.Lease()
	w.mu.waiting[key] = &waiting{held: h}
	w.startReadyLocked()
}

// Scanned implements lease.Handler: the table as it was read just now.
func (w *worker) Scanned(leases []lease.Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.leases = make(map[string]lease.Lease, len(leases))
	for _, l := range leases {
		w.mu.leases[l.Key] = l
	}
	maps.DeleteFunc(w.mu.refused, func(key string, r refusal) bool {
		l, has := w.mu.leases[key]
		return !has || !r.stands(l)
	})
	w.startReadyLocked()
}

// Drain implements lease.Handler. A shard that waits for its parents has nothing to drain.
func (w *worker) Drain(h *lease.Held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if waits := w.mu.waiting[h.Lease().Key]; waits != nil && waits.held == h {
		waits.draining = true
		h.Drained()
	}
	if r := w.mu.runs[h.Lease().Key]; r != nil && r.lease == held(h) {
		r.drain()
	}
}

// Resume implements lease.Handler.
func (w *worker) Resume(h *lease.Held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if waits := w.mu.waiting[h.Lease().Key]; waits != nil && waits.held == h {
		waits.draining = false
		w.startReadyLocked()
	}
	if r := w.mu.runs[h.Lease().Key]; r != nil && r.lease == held(h) {
		r.resume()
	}
}

// waiting is a lease that is held and not read yet.
type waiting struct {
	held     *lease.Held
	looking  bool            // a consistent look for its parents is under way
	absent   map[string]bool // parents that had no lease when it was looked for them
	draining bool            // another worker is to get the lease
}

// unseen are the parents that the scan shows no lease of, and that were not looked for. The scan may be stale: a merged
// shard's lease is made right behind that of its other parent, and may be seen before it.
func (w *waiting) unseen(leases map[string]lease.Lease) (unseen []string) {
	for _, p := range w.held.Lease().Parents {
		if _, has := leases[p]; !has && !w.absent[p] {
			unseen = append(unseen, p)
		}
	}
	return unseen
}

// lookForParents reads the leases of a waiting shard's parents consistently (r3.3). A look that fails is repeated after
// the next scan.
func (w *worker) lookForParents(waits *waiting, parents []string) {
	found, absent := map[string]lease.Lease{}, map[string]bool{}
	for _, p := range parents {
		l, has, err := w.table.Get(w.ctx, p)
		switch {
		case lease.IsAccessDenied(err):
			w.in.once.WarnOnce("get", "Shard %s waits until the credentials permit dynamodb:GetItem on the lease table, to look for its parent %s: %v", waits.held.Lease().Key, p, err)
		case err != nil:
			w.in.log.Debugf("Looking for a parent of %s failed, trying again: %v", waits.held.Lease().Key, err)
		case has:
			found[p] = l
		default:
			absent[p] = true
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.Copy(w.mu.leases, found)
	waits.looking = false
	if waits.absent == nil {
		waits.absent = map[string]bool{}
	}
	maps.Copy(waits.absent, absent)
	if len(found)+len(absent) == len(parents) { // else it would be tried again at once, without a pause
		w.startReadyLocked()
	}
}

// startReadyLocked starts the runs of the held leases whose parents have ended. It must be called with mu held.
func (w *worker) startReadyLocked() {
	if w.mu.stopped {
		return
	}
	for key, waits := range w.mu.waiting {
		h := waits.held
		select {
		case <-h.Lost():
			delete(w.mu.waiting, key)
			continue
		default:
		}
		if waits.draining || len(shard.WaitsFor(h.Lease(), w.mu.leases)) > 0 {
			continue
		}
		if unseen := waits.unseen(w.mu.leases); len(unseen) > 0 {
			if !waits.looking {
				waits.looking = true
				w.owned.Go(func() { w.lookForParents(waits, unseen) })
			}
			continue
		}
		delete(w.mu.waiting, key)
		from, err := shard.ReadFrom(h.Lease(), w.mu.leases, w.start)
		var hashes kpl.HashRange
		if err == nil {
			hashes, err = kpl.ParseHashRange(h.Lease().StartingHashKey, h.Lease().EndingHashKey)
		}
		if err != nil {
			w.refuseLocked(h, err)
			continue
		}
		w.startLocked(h, from, hashes)
	}
}

// refusal is a lease that can't be read from where it stands, until somebody changes it.
type refusal struct {
	checkpoint checkpoint.Position
	start      time.Time
	err        error
}

// stands tells whether the lease still is as it was refused.
func (r refusal) stands(l lease.Lease) bool {
	return r.checkpoint == l.Checkpoint && r.start.Equal(l.Start)
}

// refuseLocked gives a lease back that can't be read, and tells it once. Keeping it would only hide that nobody reads the
// shard; reading it from anywhere else would lose or repeat records. It must be called with mu held.
func (w *worker) refuseLocked(h *lease.Held, err error) {
	l := h.Lease()
	if w.mu.stopped {
		return
	}
	w.mu.refused[l.Key] = refusal{checkpoint: l.Checkpoint, start: l.Start, err: err}
	w.in.log.Warnf("Shard %s is not read until its lease is changed: %v", l.Key, err)
	w.owned.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, w.in.config.FailoverTime)
		defer cancel()
		if err := h.Release(ctx); err != nil {
			w.in.log.Debugf("Releasing the unreadable shard %s: %v", l.Key, err)
		}
	})
}

// mayTake implements what the manager asks before it takes a lease.
func (w *worker) mayTake(l lease.Lease) bool {
	// A finished shard needs no owner; and rows of another stream that turn up later are nobody's business here.
	if l.Ended() || l.Stream != "" && l.Stream != w.stream.identity.Brand() {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r, refused := w.mu.refused[l.Key]
	return !refused || !r.stands(l)
}

// startLocked must be called with mu held.
func (w *worker) startLocked(h *lease.Held, from retrieval.From, hashes kpl.HashRange) {
	key := h.Lease().Key
	r := newRun(h, from, w.reader(key, hashes), w.in, hooks{
		finish:     func(ctx context.Context, last retrieval.Read) error { return w.finish(ctx, h, last) },
		freeAt:     func() time.Time { return w.freeAt(key) },
		spawn:      func(f func(context.Context)) { w.owned.Go(func() { f(w.ctx) }) },
		sameStream: w.lookAgain,
	})
	w.mu.runs[key] = r
	w.in.log.Debugf("Reading shard %s %s", key, from)

	ctx, cancel := context.WithCancel(w.ctx)
	w.owned.Go(func() {
		if err := r.read(ctx); err != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.refuseLocked(h, err)
		}
	})
	w.owned.Go(func() {
		defer cancel()
		select {
		case <-h.Lost():
		case <-ctx.Done():
		}
		r.end()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.noteReachedLocked(r)
		if w.mu.runs[key] == r { // a later run of the same shard may have begun
			delete(w.mu.runs, key)
		}
	})
}

// monitor decides once a second whether the component as a whole works.
func (w *worker) monitor() {
	ticker := time.NewTicker(monitorPeriod)
	defer ticker.Stop()
	var looked time.Time
	var shards unreadable
	for {
		select {
		case <-ticker.C:
		case <-w.ctx.Done():
			return
		}
		err := w.manager.Err()
		if err == nil {
			err = w.readTrouble(time.Now())
		}
		if errors.Is(err, retrieval.ErrNotFound) && time.Since(looked) > troubledAfter {
			looked = time.Now()
			if again := w.lookAgain(); again != nil {
				err = again
			}
		}
		if err == nil {
			shards.tell(w, time.Now())
		}
		w.setTrouble(err)
		w.in.metrics.show(w.measure(time.Now()))
		w.count()
	}
}

// count brings the counters up to date.
func (w *worker) count() {
	subscribed := int64(0)
	if w.calls != nil {
		subscribed = w.calls.Subscribed()
	}
	w.in.metrics.count(w.manager.Stats(), subscribed)
}

// readTrouble returns an error when there are runs, and none of them could read for a while.
func (w *worker) readTrouble(now time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var first error
	for _, r := range w.mu.runs {
		err := r.readTrouble(now, troubledAfter)
		if err == nil {
			return nil
		}
		first = err
	}
	if first == nil && len(w.mu.runs) == 0 {
		for _, r := range w.mu.refused {
			return r.err
		}
	}
	return first
}

// lookAgain tells a vanished stream and a re-created one apart.
func (w *worker) lookAgain() error {
	ctx, cancel := context.WithTimeout(w.ctx, troubledAfter)
	defer cancel()
	s, err := describe(ctx, w.clients.kinesis, w.in.config)
	if err != nil {
		return err
	}
	if s.identity.Brand() != w.stream.identity.Brand() {
		return fmt.Errorf("%w: it was %s and is %s", lease.ErrRecreatedStream, w.stream.identity.Brand(), s.identity.Brand())
	}
	return nil
}

func (w *worker) setTrouble(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.stopped || w.mu.ended {
		return // that was told, and is final
	}
	w.setTroubleLocked(err)
}

// setTroubleLocked must be called with mu held.
func (w *worker) setTroubleLocked(err error) {
	turned := (err == nil) != (w.mu.trouble == nil)
	w.mu.trouble = err
	if turned {
		close(w.mu.turned)
		w.mu.turned = make(chan struct{})
	}
}

// hasEnded tells whether this worker will never work again.
func (w *worker) hasEnded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.ended
}

// state returns what is wrong with the component as a whole, and a channel that is closed when that turns.
func (w *worker) state() (turned <-chan struct{}, trouble error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.turned, w.mu.trouble
}

// stop ends the worker: stop reading, write the final checkpoints of what is confirmed, release the leases, done. It
// waits for every goroutine of the worker, which all end at once when the context does.
func (w *worker) stop(ctx context.Context) error {
	w.mu.Lock()
	w.mu.stopped = true
	// Both wake a ReadBatch or Connect that waits: wrappers of inputs close them without ending its context first.
	w.setTroubleLocked(nil)
	w.setTroubleLocked(service.ErrEndOfInput)
	for _, r := range w.mu.runs {
		r.end()
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := w.manager.Close(ctx)
	w.cancel()
	w.owned.Wait()
	w.count()
	w.in.metrics.forget()
	w.clients.close()
	return err
}
