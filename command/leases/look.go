package leases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
)

// KinesisAPI is the part of *kinesis.Client that looking and repairing need.
type KinesisAPI interface {
	DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error)
	ListShards(context.Context, *kinesis.ListShardsInput, ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error)
	GetShardIterator(context.Context, *kinesis.GetShardIteratorInput, ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error)
	GetRecords(context.Context, *kinesis.GetRecordsInput, ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error)
	ListStreamConsumers(context.Context, *kinesis.ListStreamConsumersInput, ...func(*kinesis.Options)) (*kinesis.ListStreamConsumersOutput, error)
	DeregisterStreamConsumer(context.Context, *kinesis.DeregisterStreamConsumerInput, ...func(*kinesis.Options)) (*kinesis.DeregisterStreamConsumerOutput, error)
}

// Source is a stream and its lease table.
type Source struct {
	Kinesis KinesisAPI
	Table   *lease.Table
	// Stream is a name or an ARN.
	Stream string
	// Failover is how long an owner may be silent and still be alive.
	Failover time.Duration
}

// View is a table as it was looked at.
type View struct {
	Table  string    `json:"table"`
	Stream string    `json:"stream"`
	At     time.Time `json:"at"`
	Rows   []Row     `json:"leases"`
	// KCL3 are the traces that KCL 3.x has left: one of its workers was here at some time.
	KCL3 []string `json:"kcl3,omitempty"`
	// Handback is what a KCL would stumble over.
	Handback []string `json:"handback,omitempty"`
	// Trouble is what could not be looked at.
	Trouble []string `json:"trouble,omitempty"`

	snapshot lease.Snapshot
	shards   []shard.Shard
	arn      string
}

// Look reads the table, and asks Kinesis for its shards. A stream that cannot be asked is told in the view's trouble: the table
// alone is worth a look, above all then. With lag every shard that is being read costs one of the five reads a second that all
// its readers share.
func (s Source) Look(ctx context.Context, lag bool, now time.Time) (View, error) {
	v := View{Table: s.Table.Name(), Stream: s.Stream, At: now}
	var err error
	if v.snapshot, err = s.Table.Scan(ctx, true); err != nil {
		var missing *dynamotypes.ResourceNotFoundException
		if errors.As(err, &missing) {
			err = fmt.Errorf("%w: %s; the first run makes it, unless applicationName, tableName or awsRegion should name another", lease.ErrNoTable, s.Table.Name())
		}
		return v, err
	}
	if slices.ContainsFunc(v.snapshot.Foreign, func(f lease.Foreign) bool { return f.Key == "" }) {
		return v, fmt.Errorf("looking at table %s: %w; applicationName, tableName or awsRegion should name another", v.Table, lease.ErrNotALeaseTable)
	}
	marks, err := s.Table.Marks(ctx, v.snapshot)
	if err != nil {
		v.Trouble = append(v.Trouble, err.Error())
	}
	for _, unreadable := range marks.Unreadable {
		v.Trouble = append(v.Trouble, unreadable+": not permitted")
	}
	v.KCL3 = traces(marks)
	if v.arn, v.shards, err = s.list(ctx); err != nil {
		v.Trouble = append(v.Trouble, err.Error())
		v.shards = nil
	}
	v.Rows = Rows(v.snapshot, v.shards)
	v.Handback = Handback(v.snapshot)
	if lag && v.shards != nil {
		s.measure(ctx, &v)
	}
	return v, nil
}

func (s Source) list(ctx context.Context) (arn string, shards []shard.Shard, err error) {
	in := &kinesis.DescribeStreamSummaryInput{StreamName: &s.Stream}
	if len(s.Stream) > 4 && s.Stream[:4] == "arn:" {
		in = &kinesis.DescribeStreamSummaryInput{StreamARN: &s.Stream}
	}
	d, err := s.Kinesis.DescribeStreamSummary(ctx, in)
	if err != nil {
		return "", nil, fmt.Errorf("describing stream %s: %w", s.Stream, err)
	}
	if d.StreamDescriptionSummary == nil || d.StreamDescriptionSummary.StreamARN == nil {
		return "", nil, fmt.Errorf("describing stream %s: kinesis answered without a description", s.Stream)
	}
	arn = *d.StreamDescriptionSummary.StreamARN
	list := &kinesis.ListShardsInput{StreamARN: &arn}
	for {
		out, err := s.Kinesis.ListShards(ctx, list)
		if err != nil {
			return "", nil, fmt.Errorf("listing the shards of %s: %w", s.Stream, err)
		}
		for _, sh := range out.Shards {
			shards = append(shards, shard.FromKinesis(sh))
		}
		if aws.ToString(out.NextToken) == "" {
			return arn, shards, nil
		}
		list = &kinesis.ListShardsInput{NextToken: out.NextToken}
	}
}

// parallelReads bounds how many shards are asked at a time.
const parallelReads = 16

// measure asks Kinesis how far each lease is behind.
func (s Source) measure(ctx context.Context, v *View) {
	slots := make(chan struct{}, parallelReads)
	var wg sync.WaitGroup
	for i := range v.Rows {
		r := &v.Rows[i]
		listed := slices.ContainsFunc(v.shards, func(sh shard.Shard) bool { return sh.ID == r.Shard })
		if !listed || slices.Contains([]State{Ended, Missing, Broken, Waiting}, r.State) {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := s.read(ctx, v.arn, r); err != nil && ctx.Err() == nil {
				r.Notes = append(r.Notes, "its lag is not known: "+answered(err))
			}
		})
	}
	wg.Wait()
}

// answered is what a service has said, without the address and the number of the request, which would be there for every shard.
func answered(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode() + ": " + api.ErrorMessage()
	}
	return err.Error()
}

// read reads what comes next at a lease's position.
func (s Source) read(ctx context.Context, arn string, r *Row) error {
	in := &kinesis.GetShardIteratorInput{StreamARN: &arn, ShardId: &r.Shard}
	at := r.lease.Checkpoint
	switch {
	case !at.IsSentinel():
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAfterSequenceNumber, &at.Sequence
	case at.Sequence == checkpoint.TrimHorizon || len(r.Parents) > 0 && r.lease.Start.IsZero():
		in.ShardIteratorType = types.ShardIteratorTypeTrimHorizon
	case r.lease.Start.IsZero():
		return nil // what LATEST is depends on who looks
	default:
		in.ShardIteratorType, in.Timestamp = types.ShardIteratorTypeAtTimestamp, &r.lease.Start
	}
	iterator, err := s.Kinesis.GetShardIterator(ctx, in)
	if err != nil {
		return err
	}
	next := iterator.ShardIterator
	// A read can come back empty before the first record: Kinesis looks through a part of the shard at a time.
	for range 5 {
		out, err := s.Kinesis.GetRecords(ctx, &kinesis.GetRecordsInput{StreamARN: &arn, ShardIterator: next, Limit: aws.Int32(1)})
		var throttled *types.ProvisionedThroughputExceededException
		if errors.As(err, &throttled) {
			return errors.New("reads of this shard are throttled by Kinesis")
		}
		if err != nil {
			return err
		}
		behind := time.Duration(aws.ToInt64(out.MillisBehindLatest)) * time.Millisecond
		r.Lag = &behind
		if len(out.Records) > 0 {
			r.Arrived = out.Records[0].ApproximateArrivalTimestamp
			return nil
		}
		if next = out.NextShardIterator; next == nil || behind == 0 {
			return nil
		}
	}
	return nil
}
