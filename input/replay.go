package input

import "time"

// Pauses between replays: for passing trouble, and for a batch of nothing but records that Pulsar refuses.
const (
	firstReplayAfter, lastReplayAfter   = 100 * time.Millisecond, 5 * time.Second
	firstRefusedAfter, lastRefusedAfter = time.Second, time.Minute
)

// acked takes the result of a batch. The first call counts; it may come late, or after the run's end.
func (r *run) acked(f *flight, err error) {
	if err == nil {
		err = f.attempt.Withheld()
	}
	if !f.attempt.Done(err != nil) {
		return
	}
	r.mu.Lock()
	if r.mu.over {
		r.mu.Unlock()
		r.budget.Release(f.charge)
		return
	}
	r.mu.flight = nil
	if err == nil {
		for i := range f.records {
			r.mu.tracker.Confirm(f.records[i].ticket)
		}
		r.budget.Release(f.charge)
		r.deliveredLocked()
	} else {
		r.planReplayLocked(f, err)
	}
	// Under mu, so that a drain that finds nothing in flight any more finds its position confirmed.
	r.lease.Confirmed(r.mu.tracker.Confirmed(), r.mu.tracker.Records())
	r.drainLocked()
	offer := r.canHandOutLocked()
	r.mu.Unlock()

	if offer {
		r.ready.offer(r)
	}
}

// planReplayLocked decides what of a failed batch is handed out again, and when. It must be called with mu held.
//
// The engine's own per-record errors are not looked at: after a batched processor they name the wrong records, and
// taking those it calls fine for delivered loses data. Only what the pulsar output confirmed counts.
func (r *run) planReplayLocked(f *flight, err error) {
	again, refused := f.attempt.Undelivered(func(i int) string { return r.convert.key(r.shard, &f.records[i].record) })
	replay := make([]handed, 0, len(again))
	for next, i := 0, 0; i < len(f.records); i++ {
		if next < len(again) && again[next] == i {
			replay = append(replay, f.records[i])
			next++
			continue
		}
		r.mu.tracker.Confirm(f.records[i].ticket)
		r.budget.Release(f.records[i].record.Charge())
	}
	if len(replay) == 0 {
		// All of it is stored, though something else in the pipeline failed.
		r.deliveredLocked()
		return
	}
	r.metrics.replayed.Incr(int64(len(replay)), r.metrics.stream)
	r.mu.failed++
	pause := replayAfter(r.mu.failed, refused)
	r.log.Debugf("Shard %s: %d of %d records are handed out again in %s: %v", r.shard, len(replay), len(f.records), pause, err)
	if refused && r.mu.failed == 2 {
		r.log.Warnf("Shard %s is blocked by a record that can't be published, at %s; a dead_letter_topic of the pulsar output could take it: %v", r.shard, replay[0].record.Position, err)
	}
	r.mu.replay, r.mu.notYet = replay, true
	r.mu.timer = time.AfterFunc(pause, func() {
		r.mu.Lock()
		r.mu.notYet = false
		offer := r.canHandOutLocked()
		r.mu.Unlock()
		if offer {
			r.ready.offer(r)
		}
	})
}

// replayAfter doubles from the first pause to the last.
func replayAfter(failed int, refused bool) time.Duration {
	first, last := firstReplayAfter, lastReplayAfter
	if refused {
		first, last = firstRefusedAfter, lastRefusedAfter
	}
	if failed > 6 {
		return last
	}
	return min(last, first<<(failed-1))
}
