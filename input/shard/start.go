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

// MissingLeases returns the leases that a table with some leases still lacks: those of open shards of which no ancestor
// has one. Such a hole is what a crash in the middle of a first start leaves. (An open shard with a leased ancestor is
// created when that ancestor ends.) They start where the first start would have put them; when nobody can tell any more
// where LATEST was, at the beginning: too much is better than too little. Never "now".
func MissingLeases(shards []Shard, leases map[string]lease.Lease, start Start, stream string) []lease.Lease {
	if start.Position != checkpoint.TrimHorizon && start.At.IsZero() {
		start = Start{Position: checkpoint.TrimHorizon}
	}
	descends := descendants(shards, leases)
	var missing []lease.Lease
	for _, s := range byStart(shards) {
		if _, has := leases[s.ID]; !has && !s.Closed && !descends[s.ID] {
			missing = append(missing, firstLease(s, start, stream))
		}
	}
	return missing
}

// descendants tells which listed shards have an ancestor with a lease. Parents come before their children in the order
// of starting sequence numbers, so one pass is enough; following each shard's ancestors would be exponential after many
// merges.
func descendants(shards []Shard, leases map[string]lease.Lease) map[string]bool {
	descends := make(map[string]bool, len(shards))
	for _, s := range byStart(shards) {
		for _, p := range s.Parents {
			if _, has := leases[p]; has || descends[p] {
				descends[s.ID] = true
			}
		}
	}
	return descends
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
