package input

import (
	"context"
	"time"
)

// drainLead is how long before the place at Kinesis is free a run stops reading: about what it takes until everything that
// was handed out is confirmed. Stopping sooner would widen the gap of the hand-over for nothing.
const drainLead = 100 * time.Millisecond

// handover is how far a run is on its way to another worker (r4.3). The fields are guarded by the run's mu.
//
// A drained run has handed nothing out that is not confirmed, so the next owner goes on at the very next record. What is
// queued is given back rather than kept: the run resumes seldom, and reads it again then.
type handover struct {
	wanted bool
	begun  bool // nothing new is read or handed out
	// closing is set while the producers that the output has of this run alone are being closed, closed when they are.
	// Nothing is handed out between that and the end of the drain, so none is made meanwhile.
	closing, closed bool
	// resumed counts the resumes: what was being closed before one says nothing of what the run was given after it.
	resumed int
	// timer looks again when the shard's place at Kinesis gets free.
	timer *time.Timer
	// finishing is set while the shard's end is being written, which ends the run as well.
	finishing bool
}

// drain stops reading and handing out, and tells the lease when all that was handed out is confirmed. With enhanced fan-out
// that is no sooner than the next owner may subscribe: before, it would only be refused, and nobody would read the shard.
// So the run goes on as if nothing was wanted of it until that time is near.
func (r *run) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.over || r.mu.handover.wanted {
		return
	}
	r.mu.handover.wanted = true
	r.drainLocked()
}

// resume takes a drain back: the run goes on behind the last record that it has handed out.
func (r *run) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.handover.wanted = false
	r.mu.handover.stop()
	if r.mu.handover.begun {
		r.mu.handover.begun, r.mu.handover.closed = false, false
		r.mu.handover.resumed++
		r.changedLocked()
	}
}

func (h *handover) stop() {
	if h.timer != nil {
		h.timer.Stop()
	}
}

// drainLocked takes the next step of a drain, if one is wanted and it is time. It must be called with mu held, whenever
// something has come to an end that a drain waits for.
func (r *run) drainLocked() {
	h := &r.mu.handover
	if !h.wanted || r.mu.over || h.finishing {
		return
	}
	h.stop()
	wait := time.Until(r.freeAt())
	if !h.begun {
		if wait > drainLead {
			r.drainLaterLocked(wait - drainLead)
			return
		}
		h.begun = true
		r.mu.dropped = true
		if r.mu.stopReader != nil {
			r.mu.stopReader()
		}
		r.dropQueueLocked()
		wait = time.Until(r.freeAt())
	}
	switch {
	case r.mu.flight != nil || len(r.mu.replay) > 0:
		// Its ack comes back here.
	case h.closing:
	case !h.closed:
		h.closing = true
		resumed := h.resumed
		r.spawn(func(ctx context.Context) { r.closeProducers(ctx, resumed) })
	case wait > 0:
		r.drainLaterLocked(wait)
	default:
		// Under mu, so that a resume and another drain cannot come in between.
		r.lease.Drained()
	}
}

// closeProducers ends what would keep the next owner's producers of the same names out.
func (r *run) closeProducers(ctx context.Context, resumed int) {
	err := r.attempts.CloseProducers(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &r.mu.handover
	h.closing = false
	if err != nil {
		return // the worker is over, and with it all that they would be closed for
	}
	h.closed = h.resumed == resumed
	r.drainLocked()
}

// drainLaterLocked must be called with mu held.
func (r *run) drainLaterLocked(after time.Duration) {
	r.mu.handover.timer = time.AfterFunc(after, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.drainLocked()
	})
}

// beginFinish claims the run for writing the shard's end; false when it is being drained.
func (r *run) beginFinish() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.handover.finishing = !r.mu.handover.begun
	return r.mu.handover.finishing
}

// endFinish gives the claim back.
func (r *run) endFinish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.handover.finishing = false
	r.drainLocked()
}
