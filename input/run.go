package input

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

const (
	// A batch takes what is ready of its shard, up to this.
	maxBatchRecords = 2000
	maxBatchBytes   = 1 << 20

	// A shard whose batch or replay has been away for so long gives its queue back (rule 32): a few stuck shards would
	// otherwise hold the whole budget and stop all the others.
	blockedAfter = 30 * time.Second
)

// held is what a run needs of its lease.
type held interface {
	Lease() lease.Lease
	Fence() *attempt.Fence
	Confirmed(p checkpoint.Position, records int64)
	Stored() checkpoint.Position
	numberer
	Lost() <-chan struct{}
	Drained()
}

var _ held = (*lease.Held)(nil)

// hooks are what a run has its worker do.
type hooks struct {
	// finish is called when the shard has ended, or is not found any more, and all that was read is confirmed. The read
	// is the last one; without its Ended the shard was not found. It returns nil when the end is written, and
	// shard.ErrOpen when the shard has not ended after all.
	finish func(context.Context, retrieval.Read) error
	// freeAt is when another worker may have the shard's place at Kinesis; in the past where there is no such thing.
	freeAt func() time.Time
	// spawn starts a goroutine that its owner waits for. Its context ends with the worker's.
	spawn func(func(context.Context))
	// sameStream returns an error unless the stream is the one that the lease was written for.
	sameStream func() error
}

// readerFrom makes a reader of the run's shard that starts at the given place.
type readerFrom func(retrieval.From) retrieval.Reader

// run is one run of a shard: from the taking of its lease to the loss, release or end of it. A reader goroutine fills
// the queue; ReadBatch hands out of it; acks come back. At most one batch is in flight (I7): it is what keeps the order
// through any number of pipeline threads and output slots.
type run struct {
	shard     string
	lease     held
	attempts  *attempt.Run
	prefix    string // of the names of the shard's producers
	newReader readerFrom
	from      retrieval.From
	budget    *retrieval.Budget
	ready     *dispatcher
	convert   *converter
	log       *service.Logger
	metrics   *metrics
	maxBatch  int // records
	hooks

	mu struct {
		sync.Mutex
		tracker *checkpoint.Tracker
		queue   []retrieval.Record // read, not yet handed out
		queued  int64              // their charge
		last    checkpoint.Position
		// behind is how far the last read was behind the tip of the shard, in milliseconds, and heard when that was told;
		// -1: never. unstored are positions that were handed out and not in a stored checkpoint at the last look.
		behind   int64
		heard    time.Time
		unstored []mark
		// numbered tells that the records of the shard are numbered, or have been.
		numbered bool
		// begins and trimmed are of a reader of which no new record has come yet; see retrieval.Read.
		begins, trimmed bool
		flight          *flight     // the batch that is away
		replay          []handed    // to be handed out before anything new
		timer           *time.Timer // wakes the run when the pause before the replay is over
		notYet          bool        // that pause
		failed          int         // failures in a row
		stuck           time.Time   // since when nothing was delivered although something was handed out; zero: not stuck
		warned          bool        // that it is stuck
		// patience gives the queue back when the shard has been stuck for too long.
		patience   *time.Timer
		dropped    bool // it was given back, and reading has not begun again
		handover   handover
		stopReader context.CancelFunc
		trouble    error         // of the reader's last call, nil after a good one
		since      time.Time     // of that trouble
		over       bool          // nothing more is handed out
		changed    chan struct{} // closed and replaced when the queue shrinks
	}
}

// handed is a record that was handed out, with its place in the tracker.
type handed struct {
	record retrieval.Record
	ticket checkpoint.Ticket
}

// flight is a batch that is away.
type flight struct {
	attempt *attempt.Attempt
	records []handed
	charge  int64
}

func newRun(l held, from retrieval.From, newReader readerFrom, shared *input, hooks hooks) *run {
	r := &run{
		shard: l.Lease().Key, lease: l, newReader: newReader, from: from,
		budget: shared.budget, ready: shared.ready, convert: shared.convert, log: shared.log, metrics: shared.metrics,
		maxBatch: min(maxBatchRecords, shared.config.ReceiveQueueSize),
		hooks:    hooks,
	}
	r.prefix = producerPrefix(shared.config.ApplicationName, shared.config.StreamName, r.shard)
	r.attempts = attempt.NewRun(r.shard, l.Fence(), r)
	r.mu.numbered = l.Lease().DedupEpoch != ""
	r.mu.tracker = checkpoint.NewTracker(l.Lease().Checkpoint)
	r.mu.behind = -1
	r.mu.changed = make(chan struct{})
	return r
}

// read is the run's reader goroutine. It returns nil when ctx ends, or when the shard's end is written; and an error when
// the shard cannot be read from its lease's checkpoint, which trying again does not mend.
func (r *run) read(ctx context.Context) error {
	reading, stop := r.readerContext(ctx)
	reader := r.newReader(r.from)
	defer func() {
		reader.Close()
		stop()
	}()
	anew := func() {
		reader.Close()
		stop()
		reading, stop = r.readerContext(ctx)
		reader = r.newReader(r.resumeFrom())
	}
	var ended *retrieval.Read // the last read of the shard, once it has come
	toldOutOfRange, doubtful := false, false
	for failures := 0; ; {
		enough := r.hasRoomLocked
		if ended != nil {
			enough = r.isDrainedLocked
		}
		dropped, err := r.wait(ctx, enough)
		if err != nil {
			return nil
		}
		if dropped {
			anew()
			ended = nil
		}
		if ended != nil {
			if !r.beginFinish() {
				continue // the next owner finds the end again
			}
			err := r.finish(ctx, *ended)
			r.endFinish()
			switch {
			case err == nil:
				return nil
			case errors.Is(err, shard.ErrOpen):
				anew()
				ended = nil
			default:
				r.readFailed(err)
			}
			failures++
			if sleep(ctx, replayAfter(failures, false)) != nil {
				return nil
			}
			continue
		}
		if doubtful {
			// What looks like a spoilt iterator may be a stream that was deleted and created again, whose shards have
			// the same ids. Reading on would take its records for the old one's.
			if err := r.sameStream(); err != nil {
				r.readFailed(err)
				failures++
				if sleep(ctx, replayAfter(failures, false)) != nil {
					return nil
				}
				continue
			}
			doubtful = false
		}
		read, err := reader.Next(reading, r.holdsNothing)
		if ctx.Err() != nil {
			r.discard(read)
			return nil
		}
		if reading.Err() != nil {
			r.discard(read)
			continue // the queue was given back
		}
		if err != nil {
			r.readFailed(err)
			if errors.Is(err, retrieval.ErrForeignPosition) {
				return err // falling back to another position would lose or repeat records
			}
			doubtful = errors.Is(err, retrieval.ErrInvalidIterator)
			if errors.Is(err, retrieval.ErrNotFound) {
				// Perhaps retention has taken the shard away, then this is its end. finish finds out.
				ended = &retrieval.Read{}
			}
			continue
		}
		failures = 0
		r.readSucceeded()
		if read.OutOfRange > 0 && !toldOutOfRange {
			toldOutOfRange = true
			r.log.Warnf("Shard %s holds aggregated records with user records that belong to other shards by their keys; those are left out, as KCL does with the whole aggregated record", r.shard)
		}
		if !r.add(read) {
			return nil
		}
		if read.Ended {
			ended = &retrieval.Read{Ended: true, Children: read.Children}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hasRoomLocked tells whether the next read is wanted. While a full batch is queued already it is not: what it would
// bring is asked for when it is needed, and a stuck shard holds a few MiB at most. It must be called with mu held.
func (r *run) hasRoomLocked() bool {
	return len(r.mu.queue) < r.maxBatch && r.mu.queued < maxBatchBytes
}

// isDrainedLocked tells whether everything that was read is confirmed. It must be called with mu held.
func (r *run) isDrainedLocked() bool {
	return len(r.mu.queue) == 0 && r.mu.flight == nil && len(r.mu.replay) == 0
}

// discard gives back what a read brought that came too late.
func (r *run) discard(read retrieval.Read) {
	var charge int64
	for i := range read.Records {
		charge += read.Records[i].Charge()
	}
	r.budget.HandedOut(len(read.Records))
	r.budget.Release(charge)
}

func (r *run) readFailed(err error) {
	if errors.Is(err, retrieval.ErrThrottled) {
		r.metrics.throttled.Incr(1, r.metrics.stream)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.trouble == nil {
		r.mu.since = time.Now()
	}
	r.mu.trouble = err
	r.log.Debugf("Reading failed, trying again: %v", err)
}

func (r *run) readSucceeded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.trouble = nil
}

// readTrouble returns the reader's error if it has not read anything for so long; ok means it reads.
func (r *run) readTrouble(now time.Time, longer time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.trouble != nil && (now.Sub(r.mu.since) >= longer || errors.Is(r.mu.trouble, retrieval.ErrForeignPosition)) {
		return r.mu.trouble
	}
	return nil
}

// wait blocks until there is enough of whatever is waited for. Dropped tells that the queue was given back meanwhile, so
// that reading has to begin again behind what was handed out; it returns so as soon as the shard moves again.
func (r *run) wait(ctx context.Context, enoughLocked func() bool) (dropped bool, err error) {
	for {
		r.mu.Lock()
		dropped, moving := r.mu.dropped, r.mu.stuck.IsZero() && !r.mu.handover.begun
		if dropped && moving {
			r.mu.dropped = false
			r.mu.Unlock()
			return true, nil
		}
		enough := !dropped && enoughLocked()
		changed := r.mu.changed
		r.mu.Unlock()
		if enough {
			return false, ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// readerContext is the context of one reader. It ends when the queue is given back, wherever the reader waits then: most
// of all behind the budget that is given back.
func (r *run) readerContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.stopReader = cancel
	if r.mu.dropped {
		cancel()
	}
	return ctx, cancel
}

// dropQueue gives back all that waits to be handed out, if the shard still is stuck, and ends reading until it moves.
func (r *run) dropQueue() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.over || r.mu.stuck.IsZero() || time.Since(r.mu.stuck) < blockedAfter {
		return
	}
	if !r.mu.warned {
		r.mu.warned = true
		r.log.Warnf("Shard %s is blocked: nothing of it was delivered for %s; it is read again when its batch gets through", r.shard, blockedAfter)
	}
	r.mu.dropped = true
	if r.mu.stopReader != nil {
		r.mu.stopReader()
	}
	r.dropQueueLocked()
}

// handedOutLocked starts the patience with a shard that holds a batch. It must be called with mu held.
func (r *run) handedOutLocked() {
	if r.mu.stuck.IsZero() {
		r.mu.stuck = time.Now()
		r.mu.patience = time.AfterFunc(blockedAfter, r.dropQueue)
	}
}

// deliveredLocked notes that the shard has got on. It must be called with mu held.
func (r *run) deliveredLocked() {
	r.mu.failed, r.mu.stuck, r.mu.warned = 0, time.Time{}, false
	r.mu.patience.Stop()
	r.changedLocked()
}

// dropQueueLocked must be called with mu held.
func (r *run) dropQueueLocked() {
	r.budget.HandedOut(len(r.mu.queue))
	r.budget.Release(r.mu.queued)
	r.mu.queue, r.mu.queued = nil, 0
	r.changedLocked()
}

// changedLocked tells the reader that the queue has shrunk or moves again. It must be called with mu held.
func (r *run) changedLocked() {
	close(r.mu.changed)
	r.mu.changed = make(chan struct{})
}

// resumeFrom is the place behind the last record that was handed out.
func (r *run) resumeFrom() retrieval.From {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.last.IsZero() {
		return r.from
	}
	return retrieval.From{After: r.mu.last}
}

// confirmed is the end of what is confirmed without a gap, or the checkpoint that the run began with.
func (r *run) confirmed() checkpoint.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.tracker.Confirmed()
}

// holdsNothing tells whether the shard holds no record at all.
func (r *run) holdsNothing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isDrainedLocked()
}

// add queues what a read brought. It returns false when the run is over.
func (r *run) add(read retrieval.Read) bool {
	r.mu.Lock()
	if r.mu.over {
		r.mu.Unlock()
		r.discard(read)
		return false
	}
	if r.mu.dropped {
		r.mu.Unlock()
		r.discard(read)
		return true
	}
	r.mu.queue = append(r.mu.queue, read.Records...)
	var bytes int64
	for i := range read.Records {
		r.mu.queued += read.Records[i].Charge()
		bytes += int64(len(read.Records[i].Data))
	}
	r.metrics.received(len(read.Records), bytes)
	if read.MillisBehindLatest >= 0 {
		r.mu.behind, r.mu.heard = read.MillisBehindLatest, time.Now()
	}
	r.countLocked(read)
	// What a record-less event tells may be checkpointed when nothing that came before it is unconfirmed (r5.6). It moves
	// the lease of a shard without records on from LATEST or a timestamp to a place that does not age.
	reached := !read.Reached.IsZero() && r.isDrainedLocked() && r.mayAdvanceLocked() && r.mu.tracker.Advance(read.Reached)
	records := r.mu.tracker.Records()
	offer := r.canHandOutLocked()
	r.mu.Unlock()
	if reached {
		r.lease.Confirmed(read.Reached, records)
	}
	if offer {
		r.ready.offer(r)
	}
	return true
}

// canHandOutLocked must be called with mu held.
func (r *run) canHandOutLocked() bool {
	if r.mu.over || r.mu.flight != nil || r.mu.notYet {
		return false
	}
	return len(r.mu.replay) > 0 || len(r.mu.queue) > 0
}

// handOut makes the shard's next batch: the replay if there is one, else what is queued. Nil when there is nothing.
func (r *run) handOut() (service.MessageBatch, service.AckFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A run whose fence is closed is over, though its keeper may not have noticed yet.
	if !r.canHandOutLocked() || !r.lease.Fence().Open() {
		return nil, nil
	}
	records := r.mu.replay
	r.mu.replay = nil
	if records == nil {
		if records = r.takeQueueLocked(); records == nil {
			return nil, nil
		}
	}
	f := &flight{records: records}
	f.attempt = r.attempts.Attempt(len(records), func(i int) attempt.Origin {
		record := &records[i].record
		origin := attempt.Origin{Ordinal: int64(records[i].ticket), PartitionKey: record.PartitionKey, SequenceNumber: record.Position.Sequence, Sub: -1, Arrival: record.Arrival}
		if record.Aggregated {
			origin.Sub = record.Position.Sub
		}
		return origin
	})
	for i := range records {
		f.charge += records[i].record.Charge()
	}
	r.mu.flight = f
	r.handedOutLocked()
	ack := func(_ context.Context, err error) error {
		r.acked(f, err)
		return nil
	}
	return r.convert.messages(f), ack
}

// takeQueueLocked registers a batch's worth of the queue and takes it out. It must be called with mu held.
//
// Records are registered when they are handed out rather than when they are read: the order is the same, and a queue
// that is given back leaves no trace in the tracker.
func (r *run) takeQueueLocked() []handed {
	n, bytes := 0, int64(0)
	for n < len(r.mu.queue) && n < r.maxBatch {
		charge := r.mu.queue[n].Charge()
		if n > 0 && bytes+charge > maxBatchBytes {
			break
		}
		bytes += charge
		n++
	}
	records := make([]handed, 0, n)
	for i := range n {
		ticket, err := r.mu.tracker.Register(r.mu.queue[i].Position)
		if err != nil {
			// Never seen with a sound reader. Going on could checkpoint past an undelivered record.
			r.log.Errorf("Shard %s stops: %v", r.shard, err)
			r.mu.trouble, r.mu.since = err, time.Time{}
			r.endLocked()
			return nil
		}
		records = append(records, handed{record: r.mu.queue[i], ticket: ticket})
	}
	r.mu.last = records[n-1].record.Position
	clear(r.mu.queue[:n]) // the array lives on under the rest of the queue
	r.mu.queue = r.mu.queue[n:]
	r.mu.queued -= bytes
	if len(r.mu.queue) == 0 {
		r.mu.queue = nil
	}
	r.budget.HandedOut(n)
	r.changedLocked()
	return records
}

// end stops the run: nothing more is handed out of it, what is queued is dropped. A batch that is away keeps its charge
// until its ack. The reader goroutine is ended by its context.
func (r *run) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked()
}

// endLocked must be called with mu held.
func (r *run) endLocked() {
	if r.mu.over {
		return
	}
	r.mu.over = true
	r.attempts.End()
	for _, timer := range []*time.Timer{r.mu.timer, r.mu.patience, r.mu.handover.timer} {
		if timer != nil {
			timer.Stop()
		}
	}
	for i := range r.mu.replay {
		r.budget.Release(r.mu.replay[i].record.Charge())
	}
	r.mu.replay = nil
	r.dropQueueLocked()
}
