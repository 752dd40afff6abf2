package kcltest

import (
	"context"
	"time"
)

const (
	retryPause     = 500 * time.Millisecond
	mergeDropsOnce = 30 // in so many tries, a merge whose other parent is missing gives the lease away
)

// consume is the life of a shard's consumer: parents first, then the checkpoint, then records to the end.
func (w *Worker) consume(ctx context.Context, h *held) {
	if w.cfg.Consumer == nil || !w.waitForParents(ctx, h) {
		return
	}
	at, ok := w.initialise(ctx, h)
	if !ok {
		return
	}
	w.cfg.OnEvent(Event{Kind: Begun, Key: h.key})
	for at.Sequence != ShardEnd {
		if !w.isHeld(h) {
			w.drop(h, Lost)
			return
		}
		p := w.cfg.Consumer.Process(ctx, h.key, at)
		if ctx.Err() != nil {
			return
		}
		if p.At != at {
			w.mu.Lock()
			h.delivered = true
			w.mu.Unlock()
		}
		at = p.At
		if p.Checkpoint && !at.isSentinel() {
			w.checkpoint(ctx, h, at, w.childrenOf(h))
		}
		if p.Ended {
			if !w.end(ctx, h, p.Children) {
				return
			}
			break
		}
		if !sleep(ctx, w.cfg.ProcessPause) {
			return
		}
	}
	// The ended lease goes on being renewed until it is cleaned up.
	w.mu.Lock()
	w.mu.ended[h.key] = h.lease
	w.mu.Unlock()
}

func (p Position) isSentinel() bool {
	return p.Sequence == "" || p.Sequence[0] < '0' || p.Sequence[0] > '9'
}

func (w *Worker) childrenOf(h *held) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return h.lease.Children
}

// waitForParents polls until every parent that has a lease is at its end. A parent without a lease is not waited for.
func (w *Worker) waitForParents(ctx context.Context, h *held) bool {
	for {
		blocked := false
		for _, p := range h.lease.Parents { // never changes
			parent, found, err := w.table.get(ctx, p, false)
			if err != nil || found && parent.Checkpoint.Sequence != ShardEnd {
				blocked = true
			}
		}
		if !blocked {
			return ctx.Err() == nil
		}
		if !sleep(ctx, w.cfg.ParentPoll) {
			return false
		}
	}
}

// initialise reads the checkpoint to start from; the read may be stale.
func (w *Worker) initialise(ctx context.Context, h *held) (Position, bool) {
	for {
		l, found, err := w.table.get(ctx, h.key, false)
		if err == nil && found {
			return l.Checkpoint, true
		}
		if !sleep(ctx, retryPause) {
			return Position{}, false
		}
		if !w.isHeld(h) {
			w.drop(h, Lost) // or a renewal under way would keep a lease that has no consumer
			return Position{}, false
		}
	}
}

// end creates the children's leases, notes them on the parent, and stores SHARD_END.
func (w *Worker) end(ctx context.Context, h *held, children []Shard) bool {
	for {
		if !w.isHeld(h) {
			w.drop(h, Lost)
			return false
		}
		if w.makeChildren(ctx, h, children) {
			ids := childIDs(children)
			noted := len(ids) == 0
			if !noted {
				done, err := w.table.setChildren(ctx, h.key, ids)
				noted = err == nil && done
			}
			if noted && w.checkpoint(ctx, h, Position{Sequence: ShardEnd}, ids) {
				w.cfg.OnEvent(Event{Kind: Ended, Key: h.key})
				return true
			}
		}
		if !sleep(ctx, retryPause) {
			return false
		}
	}
}

func childIDs(children []Shard) (ids []string) {
	for _, c := range children {
		ids = append(ids, c.ID)
	}
	return ids
}

// makeChildren is false when it must be tried again.
func (w *Worker) makeChildren(ctx context.Context, h *held, children []Shard) bool {
	if len(children) == 1 && len(children[0].Parents) == 2 {
		// A merge waits until both parents have leases, or neither.
		present := 0
		for _, p := range children[0].Parents {
			_, found, err := w.table.get(ctx, p, false)
			if err != nil {
				return false
			}
			if found {
				present++
			}
		}
		if present == 1 {
			if w.chance(mergeDropsOnce) {
				w.drop(h, Lost)
			}
			return false
		}
	}
	for _, c := range children {
		if _, found, err := w.table.get(ctx, c.ID, false); err != nil {
			return false
		} else if found {
			continue
		}
		if _, err := w.table.create(ctx, leaseOf(c, TrimHorizon)); err != nil {
			return false
		}
	}
	return true
}

func leaseOf(s Shard, sentinel string) Lease {
	return Lease{
		Key: s.ID, Checkpoint: Position{Sequence: sentinel}, Parents: s.Parents,
		StartingHashKey: s.StartingHashKey, EndingHashKey: s.EndingHashKey,
	}
}

// cleanUp deletes the leases of shards that this worker has ended, once their own parents' leases are gone and their
// children have been begun.
func (w *Worker) cleanUp(ctx context.Context) {
	w.mu.Lock()
	ended := make([]Lease, 0, len(w.mu.ended))
	for _, l := range w.mu.ended {
		ended = append(ended, l)
	}
	w.mu.Unlock()
	for _, l := range ended {
		if !w.mayClean(ctx, l) || w.table.delete(ctx, l.Key) != nil {
			continue
		}
		w.mu.Lock()
		delete(w.mu.ended, l.Key)
		h := w.mu.owned[l.Key]
		w.mu.Unlock()
		if h != nil {
			w.drop(h, Lost)
		}
	}
}

func (w *Worker) mayClean(ctx context.Context, l Lease) bool {
	for _, p := range l.Parents {
		if _, found, err := w.table.get(ctx, p, false); err != nil || found {
			return false
		}
	}
	children := l.Children
	if len(children) == 0 {
		now, found, err := w.table.get(ctx, l.Key, false)
		if err != nil || !found {
			return false
		}
		children = now.Children
	}
	for _, c := range children {
		child, found, err := w.table.get(ctx, c, false)
		if err != nil || !found || child.Checkpoint.Sequence == TrimHorizon || child.Checkpoint.Sequence == AtTimestamp {
			return false
		}
	}
	return len(children) > 0
}
