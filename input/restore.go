package input

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
)

// errRestoring is returned while it is waited until nobody believes in a lease of the table that was deleted.
var errRestoring = errors.New("the lease table was deleted while it was in use; its leases are made again as soon as no worker can be reading by them any more")

// salvage is what was known of a lease table that was deleted under its workers. All of them know the positions, as old as
// the last scan; starting over at the configured position would lose records, or repeat all that the stream still has.
// KCL does that at its next restart, and until then reads nothing without a word.
type salvage struct {
	leases map[string]lease.Lease
	// free is when the last of their owners has stopped.
	free time.Time
}

// salvageFrom takes what a worker knows that has ended since the table is gone.
func salvageFrom(w *worker, now time.Time) *salvage {
	w.mu.Lock()
	defer w.mu.Unlock()
	longest := w.in.config.FailoverTime
	for _, l := range w.mu.leases {
		longest = max(longest, l.Failover)
	}
	return &salvage{leases: maps.Clone(w.mu.leases), free: now.Add(longest)}
}

// restore makes in the table the leases that it lacks, and returns how many those were. Another worker may be doing the
// same, and whoever comes second leaves what it finds. A table that came back with leases of its own is taken as it is:
// that is a backup, or somebody else's work. Only the work of a worker that has just started, and has taken the new table
// for that of a first start, is set right: what it would skip nobody else would read.
func (s *salvage) restore(ctx context.Context, table *lease.Table, how lease.Creation, now time.Time) (made int, err error) {
	if now.Before(s.free) {
		return 0, errRestoring
	}
	if _, err := table.EnsureExists(ctx, how); err != nil {
		return 0, err
	}
	snapshot, err := table.Scan(ctx, true)
	if err != nil || !s.holds(snapshot.Leases) {
		return 0, err
	}
	for _, l := range s.leases {
		current, created, err := table.Create(ctx, l)
		for err == nil && !created && skips(current, l) {
			// Its owner learns of it with the next renewal, as when KCL steals a lease, and reads on until then.
			if created, err = table.Reset(ctx, current, l.Checkpoint, anchorOf(l)); err == nil && !created {
				current, _, err = table.Create(ctx, l) // it has just been renewed
			}
		}
		if err != nil {
			return made, err
		}
		if created {
			made++
		}
	}
	return made, nil
}

// skips tells whether a lease is one that a first start at LATEST has made when there was the known one already, and is
// beyond it. The anchor tells: it stays with a lease, also when that has moved on, and in a backup it is the known one's.
func skips(found, known lease.Lease) bool {
	if known.Checkpoint.Sequence == checkpoint.Latest && known.Start.IsZero() {
		return false // nobody knows any more what it would skip
	}
	return found.Start.After(known.Start) &&
		(found.Checkpoint.Sequence == checkpoint.Latest || found.Checkpoint.Compare(known.Checkpoint) > 0)
}

// anchorOf is the moment that the lease's checkpoint needs, zero if it needs none.
func anchorOf(l lease.Lease) time.Time {
	if l.Checkpoint.Sequence == checkpoint.Latest || l.Checkpoint.Sequence == checkpoint.AtTimestamp {
		return l.Start
	}
	return time.Time{}
}

// holds tells whether the leases are but a part of those that are known, so that another worker, or an earlier try of our
// own, is at making them.
func (s *salvage) holds(leases []lease.Lease) bool {
	for _, l := range leases {
		if known, has := s.leases[l.Key]; !has || l.Stream != known.Stream {
			return false
		}
	}
	return true
}

// restoreTable is the part of a connection that brings back what was lost. It must be called with connecting held.
func (in *input) restoreTable(ctx context.Context, table *lease.Table) error {
	if in.lost == nil {
		return nil
	}
	made, err := in.lost.restore(ctx, table, in.config.tableCreation(), time.Now())
	if err != nil {
		return fmt.Errorf("lease table %q: %w", table.Name(), err)
	}
	in.log.Warnf("Lease table %s was deleted while it was in use, and is back; %d of its %d leases were made again, with the positions they were seen at last",
		table.Name(), made, len(in.lost.leases))
	in.lost = nil
	return nil
}

// noteReachedLocked remembers how far a run has come that is over. It must be called with mu held.
func (w *worker) noteReachedLocked(r *run) {
	l, has := w.mu.leases[r.shard]
	if at := r.confirmed(); has && at.Compare(l.Checkpoint) > 0 {
		l.Checkpoint = at
		w.mu.leases[r.shard] = l
	}
}
