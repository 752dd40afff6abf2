package shard

import (
	"errors"
	"fmt"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
)

// ErrNoStartTime is returned for a lease at AT_TIMESTAMP, written by KCL, when nobody says which time was meant: KCL
// keeps the timestamp in its configuration, not in the table.
var ErrNoStartTime = errors.New("the lease is at AT_TIMESTAMP, but its time is neither in the lease table nor in the configuration: set initialPositionInStream: AT_TIMESTAMP and startAtTime as the application that wrote the table had them")

// Start is where reading begins in shards that have no checkpoint.
type Start struct {
	// Position is LATEST, TRIM_HORIZON or AT_TIMESTAMP.
	Position string
	// At is the configured time of AT_TIMESTAMP, or the moment that LATEST was resolved to (the anchor).
	At time.Time
}

// FirstLeases returns the leases to create for the listed shards, parents first. The sentinel is written as KCL writes
// it, so that KCL can go on from the table; what it means stands beside it, for us.
func FirstLeases(shards []Shard, start Start, stream string) []lease.Lease {
	var leases []lease.Lease
	for _, s := range byStart(shards) {
		leases = append(leases, firstLease(s, start, stream))
	}
	return leases
}

func firstLease(s Shard, start Start, stream string) lease.Lease {
	l := lease.Lease{
		Key:             s.ID,
		Checkpoint:      checkpoint.Position{Sequence: start.Position},
		Parents:         s.Parents,
		StartingHashKey: s.StartingHashKey,
		EndingHashKey:   s.EndingHashKey,
		Stream:          stream,
	}
	if start.Position != checkpoint.TrimHorizon {
		l.Start = start.At
	}
	return l
}

// WaitsFor returns the parents whose end a shard has to wait for before it may be read (I3). A parent without a lease
// is not waited for: it was never ours to read, or was cleaned up after its end.
func WaitsFor(l lease.Lease, leases map[string]lease.Lease) []string {
	var waits []string
	for _, p := range l.Parents {
		if parent, has := leases[p]; has && parent.Checkpoint.Sequence != checkpoint.ShardEnd {
			waits = append(waits, p)
		}
	}
	return waits
}

// ReadFrom says where to start reading a lease that was just taken. Configured is the configured start; it matters for
// a lease at AT_TIMESTAMP without a time only.
func ReadFrom(l lease.Lease, leases map[string]lease.Lease, configured Start) (retrieval.From, error) {
	switch l.Checkpoint.Sequence {
	case checkpoint.TrimHorizon:
		return retrieval.From{Kind: checkpoint.TrimHorizon}, nil
	case checkpoint.Latest:
		for _, p := range l.Parents {
			if _, has := leases[p]; has {
				// The parent was ours, so all of the child is.
				return retrieval.From{Kind: checkpoint.TrimHorizon}, nil
			}
		}
		if l.Start.IsZero() {
			return retrieval.From{}, fmt.Errorf("reading %s: its lease is at LATEST and no moment is stored beside it", l.Key)
		}
		return retrieval.From{Kind: checkpoint.AtTimestamp, Time: l.Start}, nil
	case checkpoint.AtTimestamp:
		at := l.Start
		if at.IsZero() && configured.Position == checkpoint.AtTimestamp {
			at = configured.At
		}
		if at.IsZero() {
			return retrieval.From{}, fmt.Errorf("reading %s: %w", l.Key, ErrNoStartTime)
		}
		return retrieval.From{Kind: checkpoint.AtTimestamp, Time: at}, nil
	case checkpoint.ShardEnd:
		return retrieval.From{}, fmt.Errorf("reading %s: it was read to its end", l.Key)
	}
	return retrieval.From{After: l.Checkpoint}, nil
}
