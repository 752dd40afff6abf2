package shard

import (
	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
)

// Holes returns the leases that a table with some leases still lacks, parents first: those of shards that a first start
// would have to read and that are no relation of any lease that reading could reach them through. A crash in the middle
// of a first start leaves such holes, and a lease deleted by hand.
//
// Candidates are the shards that a first start at the given position would list, all is the whole listing.
//
//   - A shard with a leased ancestor is left alone: it gets its lease when that ancestor ends.
//   - A shard with a descendant that has been begun is left alone too: it was read and cleaned up, while ListShards
//     shows it until the end of retention. Reading it again would replay it behind its children.
//
// They start where the first start would have put them; when nobody can tell any more where LATEST was (start.At is
// zero), at the beginning: too much is better than too little. Never "now".
func Holes(candidates, all []Shard, leases map[string]lease.Lease, start Start, stream string) []lease.Lease {
	if start.Position != checkpoint.TrimHorizon && start.At.IsZero() {
		start = Start{Position: checkpoint.TrimHorizon}
	}
	descends, begun := descendants(all, leases), begunBelow(all, leases)
	var holes []lease.Lease
	for _, s := range byStart(candidates) {
		if _, has := leases[s.ID]; !has && !descends[s.ID] && !begun[s.ID] {
			holes = append(holes, firstLease(s, start, stream))
		}
	}
	return holes
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

// begunBelow tells which shards have a descendant whose lease shows that it is being read or has been. Leases know their
// parents too, so it also works for shards that are listed no more.
func begunBelow(shards []Shard, leases map[string]lease.Lease) map[string]bool {
	begun := make(map[string]bool, len(shards))
	for _, l := range leases {
		if HasBegun(l) {
			for _, p := range l.Parents {
				begun[p] = true
			}
		}
	}
	sorted := byStart(shards)
	for i := len(sorted) - 1; i >= 0; i-- { // children before their parents
		s := sorted[i]
		l, has := leases[s.ID]
		if begun[s.ID] || has && HasBegun(l) {
			for _, p := range s.Parents {
				begun[p] = true
			}
		}
	}
	return begun
}

// HasBegun tells whether a shard may have been read already, as KCL judges it: only TRIM_HORIZON and AT_TIMESTAMP say
// for certain that it was not.
func HasBegun(l lease.Lease) bool {
	return l.Checkpoint.Sequence != checkpoint.TrimHorizon && l.Checkpoint.Sequence != checkpoint.AtTimestamp
}
