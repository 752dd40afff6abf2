// Package retrieval reads one shard of a Kinesis stream from a position, in order.
//
// A Reader hides how: by polling (GetRecords) or by enhanced fan-out (SubscribeToShard). It decodes aggregated records
// into user records, keeps within Kinesis' read limits, and takes what it holds out of one byte budget that all shards
// share.
//
// Invariants:
//   - Records come in stream order, each position once per Reader, and none at or before the position it was started
//     behind.
//   - An error never skips anything: after it the Reader goes on behind the last record it returned.
//   - Only Kinesis itself ends a shard. A vanished stream or shard is an error, never an end.
//   - I8: a Reader reserves before it reads; what it returns is charged to the budget until the receiver releases it.
package retrieval

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// Errors of readers that a caller tells apart. Everything else is passing trouble: call Next again.
var (
	// ErrNotFound is returned when Kinesis does not know the stream or the shard. It is no end of the shard: a stream
	// deleted by mistake, a wrong region and a re-created stream all look like this.
	ErrNotFound = errors.New("kinesis does not know this stream or shard")
	// ErrForeignPosition is returned when the position to start from was not issued by this stream: the checkpoint
	// belongs to another stream, or to an earlier one of the same name.
	ErrForeignPosition = errors.New("the checkpoint was not issued by this stream")
	// ErrNoConsumer is returned when the consumer of enhanced fan-out is gone. The stream and its shards may be well.
	ErrNoConsumer = errors.New("kinesis does not know this consumer of enhanced fan-out")
	// ErrInvalidIterator is returned when Kinesis does not take the iterator that it gave before. The next call gets a new
	// one; whoever calls should make sure first that the stream is still the same.
	ErrInvalidIterator = errors.New("kinesis does not take its iterator any more")
	// ErrThrottled is returned, after the pause it asks for, when Kinesis refused a read because the shard's limits
	// (which all its readers share) are used up.
	ErrThrottled = errors.New("kinesis throttled reads of this shard")
)

// Record is one user record. It keeps the response that brought it alive.
type Record struct {
	// Position is the sequence number, and the sub-sequence number inside an aggregated record.
	Position checkpoint.Position
	// Aggregated tells that the Kinesis record has other user records, too: the sequence number alone does not name this one.
	Aggregated bool
	// PartitionKey is the user record's own.
	PartitionKey string
	// Data is the payload, byte for byte. It is shared with nobody, and never nil.
	Data []byte
	// Arrival is ApproximateArrivalTimestamp, to the millisecond.
	Arrival time.Time
	// Encryption is the stream's server-side encryption: NONE or KMS. The payload is plaintext in both cases.
	Encryption string
	// MillisBehindLatest is how far the read that brought the record was behind the tip of the stream; -1: not told.
	MillisBehindLatest int64
}

// recordOverhead is what a held record costs beside its payload: the Record, strings, its messages on the way through
// the pipeline, and the client's bookkeeping.
const recordOverhead = 400

// Charge is what the record costs in the byte budget.
func (r *Record) Charge() int64 { return int64(len(r.Data)+len(r.PartitionKey)) + recordOverhead }

// Read is what one call of Next brought: some records, or none.
type Read struct {
	Records []Record
	// MillisBehindLatest is -1 when Kinesis did not tell.
	MillisBehindLatest int64
	// Begins is set with the first records of a Reader. Trimmed tells, then, that the record which the Reader was to start
	// behind was not there any more, so that records behind it may be gone too.
	Begins, Trimmed bool
	// OutOfRange counts user records of aggregated records that were left out, because their hash lies outside the
	// shard: their producer packed them by a map of the shards that was out of date.
	OutOfRange int
	// Ended is set when Kinesis said that nothing follows: the shard was closed by a reshard and this is its last part.
	Ended bool
	// Children are the shards that go on where an ended one stops, as far as Kinesis told.
	Children []Child
	// Reached is set by enhanced fan-out when an event without records said how far the shard is read: behind every record
	// that was returned, and before every one that comes. It may be checkpointed once all that was returned is confirmed
	// (r5.6), so a shard without records gets on too. No position otherwise.
	Reached checkpoint.Position
}

// Child is a shard that a reshard has made, as the last read of its parent tells of it.
type Child struct {
	ID string
	// Parents are one (a split) or two (a merge).
	Parents []string
	// StartingHashKey and EndingHashKey are decimal, both inclusive.
	StartingHashKey, EndingHashKey string
}

// childrenOf converts what a response tells.
func childrenOf(told []types.ChildShard) (children []Child) {
	for _, c := range told {
		child := Child{ID: aws.ToString(c.ShardId), Parents: c.ParentShards}
		if c.HashKeyRange != nil {
			child.StartingHashKey = aws.ToString(c.HashKeyRange.StartingHashKey)
			child.EndingHashKey = aws.ToString(c.HashKeyRange.EndingHashKey)
		}
		children = append(children, child)
	}
	return children
}

// Reader reads one shard. It is used by one goroutine.
type Reader interface {
	// Next returns the next part of the shard, no earlier than limits, pacing and budget allow; it may be without
	// records. holdsNothing tells whether the shard holds nothing at all at this moment, neither queued nor in flight: such
	// a shard may always make one small read, however full the budget is. After Ended, Next must not be called again.
	Next(ctx context.Context, holdsNothing func() bool) (Read, error)
	// Close ends what the Reader has going on, such as a subscription, and waits for it. It may be called again.
	Close()
}

// From is the place at which a Reader starts.
type From struct {
	// Kind is TRIM_HORIZON, AT_TIMESTAMP, or "" for a sequence number.
	Kind string
	// Time goes with AT_TIMESTAMP.
	Time time.Time
	// After goes with a sequence number: reading starts behind this position.
	After checkpoint.Position
}

// String is used in logs and errors.
func (f From) String() string {
	switch f.Kind {
	case "":
		return fmt.Sprintf("after %s", f.After)
	case checkpoint.AtTimestamp:
		return fmt.Sprintf("%s %s", f.Kind, f.Time.UTC().Format(time.RFC3339Nano))
	}
	return f.Kind
}
