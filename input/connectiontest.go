package input

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/credentials"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
)

// ConnectionTest implements service.ConnectionTestable: whether the input could run with these addresses and permissions. It
// changes nothing, creates nothing, and takes nothing away from workers that run. All that is wrong is told at once, since
// permissions are asked for by one person and given by another.
func (in *input) ConnectionTest(ctx context.Context) service.ConnectionTestResults {
	if err := in.test(ctx); err != nil {
		return service.ConnectionTestFailed(err).AsList()
	}
	return service.ConnectionTestSucceeded().AsList()
}

func (in *input) test(ctx context.Context) error {
	c, err := newClients(ctx, in.config, in.log)
	if err != nil {
		return err
	}
	defer c.close()
	s, err := describe(ctx, c.kinesis, in.config)
	if errors.Is(err, credentials.ErrNone) {
		return err // nothing else has a chance
	}
	errs := []error{err, in.table(c).Test(ctx, in.config.tableCreation())}
	if err != nil {
		return errors.Join(errs...)
	}
	shards, err := listShards(ctx, c.kinesis, s.identity.ARN, nil)
	errs = append(errs, err)
	switch {
	case in.config.UseEnhancedFanOut:
		// Subscribing would end the subscription of a worker that runs.
		errs = append(errs, newConsumer(c.kinesis, in.config, s).test(ctx))
	case len(shards) > 0:
		errs = append(errs, testReading(ctx, c.kinesis, s.identity.ARN, shards[len(shards)-1].ID))
	}
	return errors.Join(errs...)
}

// testReading reads one record at most, which takes one of the five reads a second that a shard's readers share.
func testReading(ctx context.Context, api retrieval.PollingAPI, arn, shard string) error {
	iterator, err := api.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamARN: &arn, ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeLatest,
	})
	if err != nil {
		return fmt.Errorf("reading shard %s: %w", shard, err)
	}
	_, err = api.GetRecords(ctx, &kinesis.GetRecordsInput{StreamARN: &arn, ShardIterator: iterator.ShardIterator, Limit: aws.Int32(1)})
	var throttled *types.ProvisionedThroughputExceededException
	if err != nil && !errors.As(err, &throttled) { // throttled is permitted
		return fmt.Errorf("reading shard %s: %w", shard, err)
	}
	return nil
}
