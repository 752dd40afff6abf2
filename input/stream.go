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

// firstStartFilter selects the shards that a first start has to read. For LATEST it is "open at the anchor", not "open
// now": a shard closed between the two still has a tail to be read.
func firstStartFilter(start shard.Start) *types.ShardFilter {
	if start.Position == checkpoint.TrimHorizon {
		return &types.ShardFilter{Type: types.ShardFilterTypeAtTrimHorizon}
	}
	return &types.ShardFilter{Type: types.ShardFilterTypeAtTimestamp, Timestamp: &start.At}
}
