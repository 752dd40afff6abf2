package retrieval

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
)

// PollingAPI is what polling needs of *kinesis.Client. Its retries should be off: they would be hidden reads that the
// pacing does not know of, with pauses of their own in place of backoffTime.
type PollingAPI interface {
	GetShardIterator(context.Context, *kinesis.GetShardIteratorInput, ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error)
	GetRecords(context.Context, *kinesis.GetRecordsInput, ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error)
}

// PollingConfig is what the readers of all shards share.
type PollingConfig struct {
	API PollingAPI
	// StreamARN names the stream. With the ARN a re-created stream in another account or region cannot be mixed up.
	StreamARN string
	// MaxRecords is the most that one GetRecords asks for, up to 10,000.
	MaxRecords int
	// Spacing is the time from the beginning of a read to the next one of the same shard; 0 turns all pacing off.
	Spacing time.Duration
	// Backoff is the pause after a throttled read.
	Backoff time.Duration
	Budget  *Budget
}

const (
	// requestTimeout bounds a read whose connection has died without a word; the SDK has no read timeout.
	requestTimeout = 30 * time.Second
	// meanBeforeFirstRead is what the first read of a shard, of one record, reserves.
	meanBeforeFirstRead = 16 << 10
	firstRetryAfter     = 100 * time.Millisecond
	lastRetryAfter      = 5 * time.Second
)

// Polling reads a shard by GetRecords.
type Polling struct {
	converter
	config PollingConfig
	shard  string

	from     From
	lastRead string  // sequence number of the last Kinesis record seen: behind it goes on
	iterator *string // nil: to be fetched

	mean      int64 // running mean charge of a Kinesis record with all its user records, 0 before the first
	notBefore time.Time
	failures  int
}

// NewPolling returns a reader of one shard. The hash range is the shard's; it decides which user records of an
// aggregated record belong here.
func NewPolling(config PollingConfig, shard string, hashes kpl.HashRange, from From) *Polling {
	return &Polling{config: config, shard: shard, converter: converter{hashes: hashes, last: from.After}, from: from}
}

// Next implements Reader.
func (p *Polling) Next(ctx context.Context, holdsNothing func() bool) (Read, error) {
	if err := sleepUntil(ctx, p.notBefore); err != nil {
		return Read{}, err
	}
	if p.iterator == nil {
		if err := p.fetchIterator(ctx); err != nil {
			return Read{}, p.failed(ctx, fmt.Errorf("getting an iterator for %s: %w", p.shard, err))
		}
	}
	request := Request{Records: readLimit(p.mean, p.config.MaxRecords), MeanBytes: p.mean}
	if request.MeanBytes == 0 {
		request.MeanBytes = meanBeforeFirstRead
	}
	grant, err := p.config.Budget.Acquire(ctx, request, holdsNothing)
	if err != nil {
		return Read{}, err
	}
	began := time.Now()
	out, err := p.getRecords(ctx, grant.Records)
	if err != nil {
		p.config.Budget.Settle(grant, 0, 0)
		if expired := new(types.ExpiredIteratorException); errors.As(err, &expired) {
			// Five minutes without a read, for instance behind a full budget. The next one continues behind the last
			// record that was read, never from the configured start.
			p.iterator = nil
			return Read{MillisBehindLatest: -1}, nil
		}
		return Read{}, p.failed(ctx, fmt.Errorf("reading %s: %w", p.shard, err))
	}
	p.failures = 0
	read := Read{MillisBehindLatest: millisBehind(out.MillisBehindLatest)}
	charge, brought := p.convert(&read, out.Records)
	if n := len(out.Records); n > 0 {
		p.lastRead = aws.ToString(out.Records[n-1].SequenceNumber)
	}
	p.config.Budget.Settle(grant, len(read.Records), charge)
	first := p.mean == 0
	if n := len(out.Records); n > 0 {
		// Per Kinesis record, since reads are limited in those: one may hold hundreds of user records. Of one that a
		// checkpoint lies in, a part is charged only, or nothing.
		p.mean = meanOf(p.mean, max(charge, brought+int64(n)*recordOverhead), n)
	}
	p.notBefore = nextRead(began, brought, p.config.Spacing)
	if first && len(out.Records) > 0 {
		// The first read only learnt how large records are: behind a checkpoint it brings nothing but the record that the
		// checkpoint names. Five reads a second leave room to follow it at once, and a pause here would be one in every
		// hand-over of a lease.
		p.notBefore = began
	}
	p.iterator = out.NextShardIterator
	read.Ended = p.iterator == nil
	read.Children = childrenOf(out.ChildShards)
	return read, nil
}

// Close implements Reader. Between two reads, polling has nothing going on.
func (p *Polling) Close() {}

func (p *Polling) fetchIterator(ctx context.Context) error {
	in := &kinesis.GetShardIteratorInput{StreamARN: &p.config.StreamARN, ShardId: &p.shard}
	switch {
	case p.lastRead != "":
		in.ShardIteratorType = types.ShardIteratorTypeAfterSequenceNumber
		in.StartingSequenceNumber = &p.lastRead
	case p.from.Kind == checkpoint.TrimHorizon:
		in.ShardIteratorType = types.ShardIteratorTypeTrimHorizon
	case p.from.Kind == checkpoint.AtTimestamp:
		in.ShardIteratorType = types.ShardIteratorTypeAtTimestamp
		in.Timestamp = &p.from.Time
	default:
		// AT, not AFTER: the checkpoint may lie inside an aggregated record whose rest is still to come. What was
		// delivered of it is dropped by its position.
		in.ShardIteratorType = types.ShardIteratorTypeAtSequenceNumber
		in.StartingSequenceNumber = &p.from.After.Sequence
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	out, err := p.config.API.GetShardIterator(ctx, in)
	if err != nil {
		if invalid := new(types.InvalidArgumentException); errors.As(err, &invalid) && in.StartingSequenceNumber != nil {
			return fmt.Errorf("%w: %s: %s", ErrForeignPosition, *in.StartingSequenceNumber, invalid.ErrorMessage())
		}
		return err
	}
	if aws.ToString(out.ShardIterator) == "" {
		return errors.New("kinesis answered without an iterator")
	}
	p.iterator = out.ShardIterator
	return nil
}

func (p *Polling) getRecords(ctx context.Context, limit int) (*kinesis.GetRecordsOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return p.config.API.GetRecords(ctx, &kinesis.GetRecordsInput{
		StreamARN: &p.config.StreamARN, ShardIterator: p.iterator, Limit: aws.Int32(int32(limit)),
	})
}

// failed classifies an error and plans the pause before the next call.
func (p *Polling) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now := time.Now()
	switch {
	case isThrottle(err):
		p.notBefore = now.Add(p.config.Backoff)
		return fmt.Errorf("%w: %w", ErrThrottled, err)
	case isNotFound(err):
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	case isInvalidArgument(err) && p.iterator != nil:
		p.iterator = nil
		err = fmt.Errorf("%w: %w", ErrInvalidIterator, err)
	}
	p.failures++
	p.notBefore = now.Add(retryAfter(p.failures, rand.Float64()))
	return err
}

// retryAfter is the pause after so many failures in a row: doubling from 100 ms to 5 s, spread by up to a quarter so
// that the shards of a stream do not come back all at once.
func retryAfter(failures int, random float64) time.Duration {
	pause := lastRetryAfter
	if failures < 7 {
		pause = min(pause, firstRetryAfter<<(failures-1))
	}
	return pause - time.Duration(random*float64(pause)/4)
}

func isThrottle(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "ProvisionedThroughputExceededException", "LimitExceededException", "KMSThrottlingException", "ThrottlingException":
		return true
	}
	return false
}

func isNotFound(err error) bool {
	notFound := new(types.ResourceNotFoundException)
	return errors.As(err, &notFound)
}

func isInvalidArgument(err error) bool {
	invalid := new(types.InvalidArgumentException)
	return errors.As(err, &invalid)
}

func sleepUntil(ctx context.Context, t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
