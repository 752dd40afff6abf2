package input

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
)

const (
	// The lineage audit: everybody does it, spread out. With a leader, a dead one would leave the stream unattended.
	firstAudit  = time.Minute
	auditPeriod = 2 * time.Minute
	// holeAudits is how many audits in a row must find a hole before it is filled: another worker may just be at it.
	holeAudits = 3
	// cleanupAfter is how long a shard must have been at its end before its lease is deleted, as KCL has it.
	cleanupAfter = 5 * time.Minute
)

// finish writes the end of a shard of which everything is confirmed (I2). The order is what makes a crash at any point
// harmless: first the children's leases, which wait for the parent, then the parent's note of them, then its end.
func (w *worker) finish(ctx context.Context, h *lease.Held, last retrieval.Read) error {
	parent := h.Lease()
	// A stream created again under this name lists other shards under the same ids, or none of them.
	if err := w.lookAgain(); err != nil {
		return err
	}
	listed, err := listShards(ctx, w.clients.kinesis, w.stream.identity.ARN, nil)
	if err != nil {
		return err
	}
	children, err := shard.EndOf(parent, last, listed, w.stream.identity.Brand())
	if err != nil {
		return err
	}
	var ancestors []lease.Lease
	if slices.ContainsFunc(children, func(c lease.Lease) bool { return len(c.Parents) > 1 }) {
		snapshot, err := w.table.Scan(ctx, true)
		if err != nil {
			return err
		}
		ancestors = shard.MissingAncestors(children, listed, byKey(snapshot.Leases), w.stream.identity.Brand())
	}
	if err := createLeases(ctx, w.table, append(ancestors, children...)); err != nil {
		return err
	}
	var ids []string
	for _, c := range children {
		ids = append(ids, c.Key)
	}
	if len(ids) > 0 {
		if _, err := w.table.SetChildren(ctx, parent.Key, ids); err != nil {
			return err
		}
	}
	h.Confirmed(checkpoint.Position{Sequence: checkpoint.ShardEnd}, 0)
	// Not under ctx, which ends with the run, and the run ends before the release is sent.
	releasing, cancel := context.WithTimeout(w.ctx, w.in.config.FailoverTime)
	defer cancel()
	if err := h.Release(releasing); err != nil {
		return fmt.Errorf("writing the end of %s: %w", parent.Key, err)
	}
	if h.Stored().Sequence != checkpoint.ShardEnd {
		// Somebody has taken the lease before the end was written. He reads the rest again, and the children wait for him.
		return fmt.Errorf("writing the end of %s: %w", parent.Key, lease.ErrLost)
	}
	w.in.log.Infof("Shard %s is read to its end and followed by %v", parent.Key, ids)
	w.mu.Lock()
	parent.Checkpoint = checkpoint.Position{Sequence: checkpoint.ShardEnd}
	w.mu.leases[parent.Key] = parent
	w.startReadyLocked()
	w.mu.Unlock()
	w.manager.Rescan()
	return nil
}

func byKey(leases []lease.Lease) map[string]lease.Lease {
	keyed := make(map[string]lease.Lease, len(leases))
	for _, l := range leases {
		keyed[l.Key] = l
	}
	return keyed
}

// audit looks after the lineage as long as the worker lives.
func (w *worker) audit() {
	pause := firstAudit
	a := auditor{ended: map[string]time.Time{}, seen: map[string]int{}}
	for {
		if sleep(w.ctx, pause) != nil {
			return
		}
		if err := a.audit(w.ctx, w, time.Now()); err != nil && w.ctx.Err() == nil {
			w.in.log.Debugf("Auditing the shards failed, trying again: %v", err)
		}
		pause = auditPeriod/2 + rand.N(auditPeriod)
	}
}

// auditor remembers what the last audits saw.
type auditor struct {
	ended map[string]time.Time // since when a lease is known to be at SHARD_END
	seen  map[string]int       // in how many audits in a row a lease was missing
}

func (a *auditor) audit(ctx context.Context, w *worker, now time.Time) error {
	if err := w.lookAgain(); err != nil {
		return err
	}
	listed, err := listShards(ctx, w.clients.kinesis, w.stream.identity.ARN, nil)
	if err != nil {
		return err
	}
	snapshot, err := w.table.Scan(ctx, true)
	if err != nil {
		return err
	}
	if err := lease.CheckStream(snapshot.Leases, w.stream.identity.Brand()); err != nil {
		return err
	}
	leases := byKey(snapshot.Leases)
	brand := w.stream.identity.Brand()
	start := w.start
	if start.Position == checkpoint.Latest {
		start.At = earliestAnchor(snapshot.Leases)
	}
	missing := shard.MissingChildren(listed, leases, brand)
	holes, err := findHoles(ctx, w.clients.kinesis, w.stream, listed, leases, start)
	if err != nil {
		return err
	}
	due := a.due(append(missing, holes...))
	due = append(shard.MissingAncestors(due, listed, leases, brand), due...)
	if len(due) > 0 {
		w.in.log.Warnf("The lease table lacks leases of %d shards, %s the first; they are read from %s on", len(due), due[0].Key, due[0].Checkpoint)
		if err := createLeases(ctx, w.table, due); err != nil {
			return err
		}
		w.manager.Rescan()
	}
	return a.cleanUp(ctx, w, listed, leases, now)
}

// due returns what was missing in enough audits in a row.
func (a *auditor) due(missing []lease.Lease) (due []lease.Lease) {
	seen := make(map[string]int, len(missing))
	for _, l := range missing {
		seen[l.Key] = a.seen[l.Key] + 1
		if seen[l.Key] >= holeAudits {
			due = append(due, l)
		}
	}
	a.seen = seen
	return due
}

// cleanUp deletes the leases that have been of no use for long enough.
func (a *auditor) cleanUp(ctx context.Context, w *worker, listed []shard.Shard, leases map[string]lease.Lease, now time.Time) error {
	ended := make(map[string]time.Time, len(a.ended))
	for key, l := range leases {
		if l.Ended() {
			ended[key] = now
			if since, known := a.ended[key]; known {
				ended[key] = since
			}
		}
	}
	a.ended = ended
	for _, l := range shard.Cleanable(listed, leases) {
		if now.Sub(ended[l.Key]) < cleanupAfter {
			continue
		}
		deleted, err := w.table.DeleteEnded(ctx, l)
		if lease.IsAccessDenied(err) {
			w.in.once.WarnOnce("delete", "Not permitted to delete the leases of finished shards, which stay in the lease table: %v", err)
			return nil
		}
		if err != nil {
			return err
		}
		if deleted {
			w.in.log.Debugf("Deleted the lease of %s, which was read to its end", l.Key)
		}
	}
	return nil
}
