package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

// Why a run of a lease is over.
var (
	// ErrLost is returned when another worker has the lease, or the lease was deleted.
	ErrLost = errors.New("the lease was lost")
	// ErrFenced is returned when no renewal succeeded in time. The manager takes the lease again, as a new run, as soon
	// as the table answers and shows that nobody else has it.
	ErrFenced = errors.New("the lease could not be renewed in time")
	// ErrReleased is returned when the lease was given up on purpose.
	ErrReleased = errors.New("the lease was released")
	// ErrGiven is returned when the lease was handed over to another worker, which goes on from the position stored last.
	ErrGiven = errors.New("the lease was given to another worker")
	// ErrStopped is returned when the manager ended without a release.
	ErrStopped = errors.New("the lease manager has stopped")
)

// Held is one run of a lease, from the take to its end. It is safe for concurrent use.
type Held struct {
	m     *Manager
	lease Lease
	fence *attempt.Fence

	lost      chan struct{} // closed when the run is over
	over      chan struct{} // closed by the actor when the run's last write is done, if there is one
	wake      chan struct{} // holds one token: there is a new position
	releasing chan struct{} // closed by the first Release
	announced chan struct{} // closed when the handler has been told of the run

	mu struct {
		sync.Mutex
		confirmed, stored checkpoint.Position
		records           int64 // of the run, up to confirmed
		numbers           numbers
		numbered          chan struct{} // closed and replaced when an epoch has been written
		draining, drained bool          // a drain is wanted; everything that was handed out is confirmed
		answer            answerToAsk
		err               error
		releaseCtx        context.Context
		releaseErr        error
	}

	// The actor's own, and after its end that of Manager.Close.
	own       ownership
	stamps    stamps
	failures  int
	lastWrite time.Duration
	hand      handover
	giveAt    time.Duration // not before: a hand-over has just failed
}

// Lease returns the lease as it was when it was taken: the run starts from its Checkpoint.
func (h *Held) Lease() Lease { return h.lease }

// Fence returns the fence of the run: nothing may be handed to Pulsar once it is closed.
func (h *Held) Fence() *attempt.Fence { return h.fence }

// Confirmed tells how far everything is stored in Pulsar. It never blocks; the position is written with the next
// renewal, if it lies beyond the stored one. No sentinel is ever written except SHARD_END, which the caller may give
// only when the whole shard is confirmed and its children have leases. Records counts the user records of the run that
// lie at or before the position.
func (h *Held) Confirmed(p checkpoint.Position, records int64) {
	if p.IsSentinel() && p.Sequence != checkpoint.ShardEnd {
		return
	}
	h.mu.Lock()
	newer := p.Compare(h.mu.confirmed) > 0
	if newer {
		h.mu.confirmed, h.mu.records = p, max(h.mu.records, records)
	}
	h.mu.Unlock()
	if newer && h.m.cfg.CheckpointInterval > 0 {
		h.poke()
	}
}

// Drained tells that the drain which the handler was asked for is done: everything that was handed out is confirmed and
// nothing new will be, unless Resume comes. It never blocks. It may be called more than once, and has no effect when no
// drain is wanted.
func (h *Held) Drained() {
	h.mu.Lock()
	h.mu.drained = h.mu.draining
	h.mu.Unlock()
	h.poke()
}

// poke wakes the actor.
func (h *Held) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Stored returns the checkpoint as the table is known to have it.
func (h *Held) Stored() checkpoint.Position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.stored
}

// Lost is closed when the run is over, whatever the reason. Err tells it.
func (h *Held) Lost() <-chan struct{} { return h.lost }

// Err returns nil while the run goes on, afterwards why it ended: ErrLost, ErrFenced, ErrGiven, ErrReleased or
// ErrStopped.
func (h *Held) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.err
}

// Release ends the run, writes the last confirmed position and leaves the lease to whoever wants it, in one write. It
// returns when that is done, or when the run had ended before, or with an error when the table did not confirm it until
// ctx ended, the manager was stopped, or the lease would have expired anyway. The first call's ctx bounds the write.
func (h *Held) Release(ctx context.Context) error {
	h.mu.Lock()
	if h.mu.releaseCtx == nil {
		h.mu.releaseCtx = ctx
		close(h.releasing)
	}
	h.mu.Unlock()
	select {
	case <-h.over:
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.mu.releaseErr
	case <-ctx.Done():
		return fmt.Errorf("releasing lease %s: %w", h.lease.Key, context.Cause(ctx))
	}
}

// stamps decide how long the lease lives after a write: from before it was sent, and if tries before it got no answer,
// from the earliest of those (r2.3).
type stamps struct {
	earliest time.Duration
	open     bool
}

func (s *stamps) unanswered(sent time.Duration) {
	if !s.open {
		s.earliest, s.open = sent, true
	}
}

// settle returns the stamp that counts for a write sent now that has succeeded.
func (s *stamps) settle(sent time.Duration) time.Duration {
	if s.open {
		sent = s.earliest
	}
	s.open = false
	return sent
}

func newHeld(m *Manager, l Lease, stamp time.Duration) *Held {
	h := &Held{
		m: m, lease: l,
		fence: attempt.NewFence(m.cfg.Clock, stamp+m.cfg.life()),
		lost:  make(chan struct{}), over: make(chan struct{}),
		wake: make(chan struct{}, 1), releasing: make(chan struct{}), announced: make(chan struct{}),
		own:       ownership{key: l.Key, worker: l.Owner, acquisition: l.Acquisition, counter: l.Counter},
		lastWrite: stamp,
	}
	h.mu.stored = l.Checkpoint
	h.mu.numbers, h.mu.numbered = numbersOf(l), make(chan struct{})
	return h
}

// ending says why a run is over and, where an answer told it, how the lease looks now.
type ending struct {
	cause error
	known bool // an answer told the lease
	found bool
	lease Lease
}

// keep renews the lease until the run is over.
func (h *Held) keep(ctx context.Context) ending {
	cfg := &h.m.cfg
	// Leases taken together must not be renewed in lock-step for ever after.
	due := h.due(time.Duration(float64(cfg.Failover) / 3 * (0.4 + 0.6*cfg.Random())))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-h.m.closing:
			return h.end(ending{cause: ErrReleased})
		case <-h.releasing:
			return h.end(ending{cause: ErrReleased})
		case <-ctx.Done():
			return h.end(ending{cause: ErrStopped})
		default:
		}
		if !h.fence.Open() {
			return h.end(ending{cause: ErrFenced})
		}
		again, e := h.advance(ctx)
		if e != nil {
			return h.end(*e)
		}
		until := min(due, h.fence.Deadline())
		switch {
		case h.isGiving():
			// No renewal may move the counter under a hand-over that got no answer.
			until = min(again, h.fence.Deadline())
		case h.failures == 0 && (h.hand.isUrgent() || h.numberingWanted()):
			until = cfg.Clock() // somebody waits for it
		case again != 0:
			until = min(until, again)
		}
		// While somebody asks, the counter is the clock of the ask (r4.2), so nothing else may move it faster.
		if cfg.CheckpointInterval > 0 && h.failures == 0 && h.hand.asker == "" && !h.unwritten().position.IsZero() {
			until = min(until, h.lastWrite+cfg.CheckpointInterval)
		}
		if wait := until - cfg.Clock(); wait > 0 {
			timer.Reset(wait)
			select {
			case <-h.m.closing:
			case <-h.releasing:
			case <-ctx.Done():
			case <-h.wake:
			case <-timer.C:
			}
			continue
		}
		if h.isGiving() {
			continue
		}
		next, e := h.renew(ctx)
		if e != nil {
			return h.end(*e)
		}
		due = next
	}
}

// due is when to renew next: after the period, and early enough for more tries when the life left is short.
func (h *Held) due(period time.Duration) time.Duration {
	now := h.m.cfg.Clock()
	return now + min(period, max(0, h.fence.Deadline()-now)/2)
}

// unwritten returns the confirmed position if it lies beyond the stored one, else none, with what goes with it.
func (h *Held) unwritten() bracket {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b bracket
	if h.mu.confirmed.Compare(h.mu.stored) > 0 {
		b.position = h.mu.confirmed
	}
	b.marks = h.marksLocked(b.position)
	return b
}

// renew tries to write once. It returns when to write next, or why the run is over.
func (h *Held) renew(ctx context.Context) (time.Duration, *ending) {
	cfg := &h.m.cfg
	sent := cfg.Clock()
	timeout := min(cfg.tryTimeout(), h.fence.Deadline()-sent)
	if timeout <= 0 {
		return sent, nil // the loop sees the fence closed
	}
	a, err := h.m.try(ctx, timeout, keepUpdate(h.own, h.unwritten(), h.hand.phase == phaseRefuse))
	if err != nil {
		if !isRefused(err) {
			h.stamps.unanswered(sent)
		}
		h.failures++
		remaining := h.fence.Deadline() - cfg.Clock()
		if h.failures == max(1, cfg.NumRetries) && ctx.Err() == nil && h.m.writes.warn() {
			cfg.Log.Warnf("Lease %s could not be renewed in %d tries, its shard stops in %s unless one succeeds: %v",
				h.own.key, h.failures, max(0, remaining).Round(time.Millisecond), err)
		}
		return cfg.Clock() + cfg.pause(err, h.failures, remaining), nil
	}
	stale := a.failed
	if a.failed && judgeKeep(h.own.worker, h.own.acquisition, a.lease, a.found) == verdictLost {
		return 0, lostTo(a)
	}
	if a.failed && (a.lease.Counter == h.own.counter || !h.stamps.open) {
		// None of our tries has won: the lease is ours, but a hand-over of KCL 3.x has begun since. Or a try has won that this
		// run knows nothing of, of an adoption that was given up before it; when it was sent nobody knows. Renewed is nothing.
		h.adopt(a.lease)
		h.follow(a.lease)
		return sent, nil
	}
	// One of our tries has won; which one, and so what is stored now, only the item knows.
	h.failures = 0
	h.lastWrite = sent
	h.adopt(a.lease)
	if !h.fence.Extend(h.stamps.settle(sent) + cfg.life()) {
		return 0, &ending{cause: ErrFenced}
	}
	h.follow(a.lease)
	if stale {
		// The stamp is an old one, and perhaps an older position was stored: write on at once.
		return sent, nil
	}
	return h.due(cfg.jitter(cfg.Failover / 3)), nil
}

// adopt takes counter, checkpoint and owners from the item.
func (h *Held) adopt(l Lease) {
	h.own = h.own.of(l)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.stored = l.Checkpoint
	h.adoptNumbersLocked(l)
}

func lostTo(a answer) *ending {
	cause := fmt.Errorf("%w: it was deleted", ErrLost)
	switch {
	case a.found && a.lease.Owner != "":
		cause = fmt.Errorf("%w to worker %s", ErrLost, a.lease.Owner)
	case a.found:
		cause = fmt.Errorf("%w: another worker took its owner away", ErrLost)
	}
	return &ending{cause: cause, known: true, found: a.found, lease: a.lease}
}

// end closes the run for its user. The fence goes first: whoever sees Lost closed must find it closed.
func (h *Held) end(e ending) ending {
	h.fence.Close()
	h.mu.Lock()
	h.mu.err = fmt.Errorf("lease %s: %w", h.own.key, e.cause)
	h.mu.Unlock()
	close(h.lost)
	if !e.known {
		// As far as we know, it is still ours.
		l := h.lease
		l.Counter, l.Checkpoint = h.own.counter, h.Stored()
		if h.own.next != "" {
			l.Owner, l.CheckpointOwner = h.own.next, h.own.worker
		}
		e.lease, e.found = l, true
	}
	return e
}

// closeOver tells those who wait for the release that there is nothing to wait for any more.
func (h *Held) closeOver() {
	select {
	case <-h.over:
	default:
		close(h.over)
	}
}

// release does the last write after the run has ended. It returns how the lease looks then.
func (h *Held) release(ctx context.Context, p parting) (l Lease, found bool, err error) {
	l, found, err = h.m.release(ctx, h.own, p, h.unwritten, h.adopt)
	if err == nil && found {
		h.own = h.own.of(l)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && found {
		h.mu.stored = l.Checkpoint
	}
	h.mu.releaseErr = err
	return l, found, err
}

// parting is how the run leaves its lease. A shard at its end is given to nobody, written or not: the renewal that stored it
// may have come before the release.
func (h *Held) parting() parting {
	if h.isEnding() {
		return parting{}
	}
	return parting{asker: h.hand.giveTo()}
}
