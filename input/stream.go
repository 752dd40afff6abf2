package input

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
)

// streamAPI is what describing and listing a stream needs of *kinesis.Client.
type streamAPI interface {
	DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error)
	ListShards(context.Context, *kinesis.ListShardsInput, ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error)
}

// stream is what a description told.
type stream struct {
	identity shard.Identity
	// answered is Kinesis' clock at the description. LATEST is resolved by it: the local clock may be an hour off, which
	// loses an hour of records, or asks for a start in the future.
	answered time.Time
	// horizon is the oldest moment of which the stream may still hold records: that of its creation, or of its retention.
	horizon time.Time
}

// describe asks for the configured stream.
func describe(ctx context.Context, api streamAPI, c Config) (stream, error) {
	in := &kinesis.DescribeStreamSummaryInput{}
	if c.StreamARN != "" {
		in.StreamARN = &c.StreamARN
	} else {
		in.StreamName = &c.StreamName
	}
	out, err := api.DescribeStreamSummary(ctx, in)
	if err != nil {
		if notFound := new(types.ResourceNotFoundException); errors.As(err, &notFound) {
			return stream{}, fmt.Errorf("awsKinesisStreamName: there is no stream %q in this account and region: %w", c.StreamName, err)
		}
		return stream{}, fmt.Errorf("describing stream %q: %w", c.StreamName, err)
	}
	d := out.StreamDescriptionSummary
	if d == nil || aws.ToString(d.StreamARN) == "" {
		return stream{}, fmt.Errorf("describing stream %q: kinesis answered without a description", c.StreamName)
	}
	switch d.StreamStatus {
	case types.StreamStatusActive, types.StreamStatusUpdating:
	default:
		return stream{}, fmt.Errorf("stream %q is %s; waiting until it is ACTIVE", c.StreamName, d.StreamStatus)
	}
	s := stream{identity: shard.Identity{ARN: *d.StreamARN, Created: aws.ToTime(d.StreamCreationTimestamp)}}
	var ok bool
	if s.answered, ok = awsmiddleware.GetServerTime(out.ResultMetadata); !ok {
		s.answered = time.Now()
	}
	s.horizon = s.identity.Created
	if hours := aws.ToInt32(d.RetentionPeriodHours); hours > 0 {
		if kept := s.answered.Add(-time.Duration(hours) * time.Hour); kept.After(s.horizon) {
			s.horizon = kept
		}
	}
	return s, nil
}

// anchor is the moment that LATEST means for a first start at the time of the description: one second earlier, since
// the server's Date header is cut to whole seconds.
func (s stream) anchor() time.Time { return s.answered.Add(-time.Second).Truncate(time.Millisecond) }

// listShards lists the stream's shards, all pages; all of them without a filter.
func listShards(ctx context.Context, api streamAPI, arn string, filter *types.ShardFilter) ([]shard.Shard, error) {
	var shards []shard.Shard
	in := &kinesis.ListShardsInput{StreamARN: &arn, ShardFilter: filter}
	for {
		out, err := api.ListShards(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("listing shards of %s: %w", arn, err)
		}
		for _, s := range out.Shards {
			shards = append(shards, shard.FromKinesis(s))
		}
		if aws.ToString(out.NextToken) == "" {
			return shards, nil
		}
		// A token stands for stream and filter; giving those again is refused.
		in = &kinesis.ListShardsInput{NextToken: out.NextToken}
	}
}

// listFirst lists the shards that a first start has to read. For LATEST it is those open at the anchor, not those open
// now: a shard closed between the two still has a tail to be read.
//
// Of a moment before the horizon Kinesis lists only the shards that were open then and are kept still: none for one
// before the stream's creation (a LATEST anchor right after it is such a moment), and of a stream that was resharded
// since then some, without the children of those that are gone. All that is left is wanted then, so it is
// the shards at the horizon. The same when nothing was open: shards come some time after the stream they are of.
func listFirst(ctx context.Context, api streamAPI, s stream, start shard.Start) ([]shard.Shard, error) {
	if start.Position != checkpoint.TrimHorizon && start.At.After(s.horizon) {
		shards, err := listShards(ctx, api, s.identity.ARN, &types.ShardFilter{Type: types.ShardFilterTypeAtTimestamp, Timestamp: &start.At})
		if err != nil || len(shards) > 0 {
			return shards, err
		}
	}
	return listShards(ctx, api, s.identity.ARN, &types.ShardFilter{Type: types.ShardFilterTypeAtTrimHorizon})
}
