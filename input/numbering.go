package input

import (
	"context"
	"fmt"
	"strings"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

// numberer is what a run needs of its lease to number records for Pulsar's de-duplication.
type numberer interface {
	Starts(first checkpoint.Position, trimmed bool)
	Miscounted()
	Number(context.Context, lease.Numbered) (lease.Numbering, error)
}

var _ attempt.Sequencer = (*run)(nil)

// producerPrefix is what the names of a shard's producers begin with. Two applications, two streams or two shards that
// write to one topic must not take each other's numbers for their own.
func producerPrefix(application, stream, shard string) string {
	return application + "/" + stream + "/" + shard + "/"
}

// Sequence implements attempt.Sequencer: the output asks for it when it de-duplicates. What is numbered anew begins with
// the first record that is not confirmed; the batch for which the output asks is in flight, so there is one.
func (r *run) Sequence(ctx context.Context, partitions int, not string) (attempt.Sequence, error) {
	r.mu.Lock()
	asked := lease.Numbered{
		Partitions: int64(partitions),
		Records:    r.mu.tracker.Records(),
		Next:       r.mu.tracker.Next(),
		Not:        strings.TrimPrefix(not, r.prefix),
	}
	r.mu.numbered = true
	r.mu.Unlock()
	if asked.Next.IsZero() {
		return attempt.Sequence{}, fmt.Errorf("numbering the records of shard %s: the batch is not in flight any more", r.shard)
	}
	n, err := r.lease.Number(ctx, asked)
	if err != nil {
		return attempt.Sequence{}, err
	}
	return attempt.Sequence{Producer: r.prefix + n.Epoch, First: n.First}, nil
}

// countLocked tells the lease what a read says about the count of the shard's records: which is the first of the run, and
// whether some that should be counted are gone. A reader's first records may all be known already, then the next read has
// the first one. It must be called with mu held.
func (r *run) countLocked(read retrieval.Read) {
	if read.Begins {
		r.mu.begins, r.mu.trimmed = true, read.Trimmed
	}
	if !r.mu.begins || len(read.Records) == 0 {
		return
	}
	r.mu.begins = false
	if r.mu.last.IsZero() {
		r.lease.Starts(read.Records[0].Position, r.mu.trimmed)
	} else if r.mu.trimmed {
		r.lease.Miscounted()
	}
}

// mayAdvanceLocked tells whether a position that is no record's may be checkpointed. The next owner of a numbered shard
// knows by the record at its position that nothing was trimmed behind it, so it has to be one; at a sentinel it goes by
// the first record. It must be called with mu held.
func (r *run) mayAdvanceLocked() bool {
	return !r.mu.numbered || r.mu.tracker.Confirmed().IsSentinel()
}
