package shard

import (
	"fmt"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
)

// CheckTable tells whether the leases can be the stream's own: lease.ErrOtherStream or lease.ErrRecreatedStream if not.
// A table is keyed by shard id only, and every stream has a shardId-000000000000: taking another stream's row means
// reading this one from a position that has nothing to do with it.
//
// Our rows name their stream. Those that KCL wrote do not, and are held against the listing, which must be unfiltered.
// Not detectable: a stream created again before we came whose shards happen to fit.
func CheckTable(leases []lease.Lease, shards []Shard, stream Identity) error {
	if err := lease.CheckStream(leases, stream.Brand()); err != nil {
		return err
	}
	byID := make(map[string]Shard, len(shards))
	for _, s := range shards {
		byID[s.ID] = s
	}
	for _, l := range leases {
		s, listed := byID[l.Key]
		if l.Stream != "" || !listed { // not listed: past retention
			continue
		}
		if why := mismatch(l, s); why != "" {
			return fmt.Errorf("%w: lease %s %s", lease.ErrOtherStream, l.Key, why)
		}
	}
	return nil
}

// mismatch says why an unbranded lease cannot belong to the listed shard of the same id; "" if it can.
func mismatch(l lease.Lease, s Shard) string {
	if l.StartingHashKey != "" && (l.StartingHashKey != s.StartingHashKey || l.EndingHashKey != s.EndingHashKey) {
		return fmt.Sprintf("has the hash range %s-%s, the shard %s-%s", l.StartingHashKey, l.EndingHashKey, s.StartingHashKey, s.EndingHashKey)
	}
	if l.Ended() && !s.Closed {
		return "is at SHARD_END, but the shard is open"
	}
	if !l.Checkpoint.IsSentinel() && checkpoint.CompareSequence(l.Checkpoint.Sequence, s.StartingSequence) < 0 {
		return fmt.Sprintf("is at %s, before the shard's first sequence number %s", l.Checkpoint.Sequence, s.StartingSequence)
	}
	return ""
}
