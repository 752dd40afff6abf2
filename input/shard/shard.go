// Package shard knows the lineage of a stream's shards, and plans by it: which leases a first start creates, which
// shards may be read, from where, and whether a lease table belongs to the stream at all.
//
// Everything here is a pure function of what Kinesis listed and what the lease table holds.
//
// Invariants:
//   - I3: a shard may be read only when every parent that has a lease is at SHARD_END.
//   - A child of a leased parent is read from its very beginning, whatever the configured start position is.
//   - I6: LATEST is read from the fixed moment stored beside it, never from "now".
package shard

import (
	"cmp"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// Shard is a shard as ListShards tells of it.
type Shard struct {
	ID string
	// Parents are the shards it came from: none, one (a split) or two (a merge). They may be past retention already.
	Parents []string
	// StartingHashKey and EndingHashKey are decimal, both inclusive.
	StartingHashKey, EndingHashKey string
	// StartingSequence is the first sequence number that the shard could hold.
	StartingSequence string
	// Closed tells that a reshard has ended it. (The ending sequence number itself is wrong in some emulators, and not
	// needed.)
	Closed bool
}

// FromKinesis converts one shard of a listing.
func FromKinesis(s types.Shard) Shard {
	out := Shard{ID: aws.ToString(s.ShardId)}
	for _, parent := range []*string{s.ParentShardId, s.AdjacentParentShardId} {
		if p := aws.ToString(parent); p != "" {
			out.Parents = append(out.Parents, p)
		}
	}
	if s.HashKeyRange != nil {
		out.StartingHashKey = aws.ToString(s.HashKeyRange.StartingHashKey)
		out.EndingHashKey = aws.ToString(s.HashKeyRange.EndingHashKey)
	}
	if s.SequenceNumberRange != nil {
		out.StartingSequence = aws.ToString(s.SequenceNumberRange.StartingSequenceNumber)
		out.Closed = aws.ToString(s.SequenceNumberRange.EndingSequenceNumber) != ""
	}
	return out
}

// byStart orders shards by their first sequence number, parents before children.
func byStart(shards []Shard) []Shard {
	sorted := slices.Clone(shards)
	slices.SortStableFunc(sorted, func(a, b Shard) int {
		return cmp.Or(checkpoint.CompareSequence(a.StartingSequence, b.StartingSequence), cmp.Compare(a.ID, b.ID))
	})
	return sorted
}
