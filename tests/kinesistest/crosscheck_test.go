package kinesistest

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
)

// service is a Kinesis of anybody's: what a behaviour is looked for in.
type service struct {
	*testing.T
	*kinesis.Client
	stream string
	seen   []string
}

// see notes something that has to be the same everywhere.
func (k *service) see(format string, args ...any) {
	k.seen = append(k.seen, fmt.Sprintf(format, args...))
}

// code is the exception's, or "ok".
func code(err error) string {
	var e smithy.APIError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return e.ErrorCode()
	}
	return err.Error()
}

func (k *service) create(shards int32) {
	k.Helper()
	_, err := k.CreateStream(k.Context(), &kinesis.CreateStreamInput{StreamName: &k.stream, ShardCount: &shards})
	must(k.T, err)
	k.awaitActive()
}

func (k *service) awaitActive() {
	k.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		out, err := k.DescribeStreamSummary(k.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &k.stream})
		if err == nil && out.StreamDescriptionSummary.StreamStatus == types.StreamStatusActive {
			return
		}
		if time.Now().After(deadline) {
			k.Fatalf("the stream does not become ACTIVE: %v", err)
		}
	}
}

func (k *service) arn() string {
	k.Helper()
	out, err := k.DescribeStreamSummary(k.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &k.stream})
	must(k.T, err)
	return *out.StreamDescriptionSummary.StreamARN
}

// put puts one record, at a hash key when one is given.
func (k *service) put(data, hashKey string) *kinesis.PutRecordOutput {
	k.Helper()
	in := &kinesis.PutRecordInput{StreamName: &k.stream, Data: []byte(data), PartitionKey: aws.String("key")}
	if hashKey != "" {
		in.ExplicitHashKey = &hashKey
	}
	out, err := k.PutRecord(k.Context(), in)
	must(k.T, err)
	return out
}

func (k *service) list() []types.Shard {
	k.Helper()
	out, err := k.ListShards(k.Context(), &kinesis.ListShardsInput{StreamName: &k.stream})
	must(k.T, err)
	return out.Shards
}

func (k *service) iterator(shard string, kind types.ShardIteratorType, change func(*kinesis.GetShardIteratorInput)) (*string, error) {
	in := &kinesis.GetShardIteratorInput{StreamName: &k.stream, ShardId: &shard, ShardIteratorType: kind}
	if change != nil {
		change(in)
	}
	out, err := k.GetShardIterator(k.Context(), in)
	if err != nil {
		return nil, err
	}
	return out.ShardIterator, nil
}

// drainToEnd reads from an iterator to the end of its shard, which may take reads that bring nothing.
func (k *service) drainToEnd(iterator *string) (got []string, last *kinesis.GetRecordsOutput) {
	k.Helper()
	for range 100 {
		more, last := k.drain(iterator, 10)
		got = append(got, more...)
		if iterator = last.NextShardIterator; iterator == nil {
			return got, last
		}
		time.Sleep(10 * time.Millisecond)
	}
	k.Fatal("the shard does not end")
	return nil, nil
}

// drain reads from an iterator to the tip or the end.
func (k *service) drain(iterator *string, limit int32) (got []string, last *kinesis.GetRecordsOutput) {
	k.Helper()
	for {
		out, err := k.GetRecords(k.Context(), &kinesis.GetRecordsInput{ShardIterator: iterator, Limit: &limit})
		must(k.T, err)
		got = append(got, texts(out.Records)...)
		if iterator = out.NextShardIterator; iterator == nil || len(out.Records) == 0 && *out.MillisBehindLatest == 0 {
			return got, out
		}
	}
}

func at(number string) func(*kinesis.GetShardIteratorInput) {
	return func(in *kinesis.GetShardIteratorInput) { in.StartingSequenceNumber = &number }
}

// lineage describes shards without what may differ: their numbers.
func lineage(shards []types.Shard) string {
	var lines []string
	for _, sh := range shards {
		state := "open"
		if sh.SequenceNumberRange.EndingSequenceNumber != nil {
			state = "closed"
		}
		short := func(id *string) string {
			return strings.TrimPrefix(strings.TrimPrefix(aws.ToString(id), "shardId-"), "0000000000")
		}
		lines = append(lines, fmt.Sprintf("%s<%s,%s> %s", short(sh.ShardId), short(sh.ParentShardId), short(sh.AdjacentParentShardId), state))
	}
	return strings.Join(lines, " ")
}

// tiled tells whether the open shards tile the key space.
func tiled(shards []types.Shard) bool {
	open := slices.DeleteFunc(slices.Clone(shards), func(sh types.Shard) bool { return sh.SequenceNumberRange.EndingSequenceNumber != nil })
	number := func(text *string) *big.Int {
		n, _ := new(big.Int).SetString(*text, 10)
		return n
	}
	slices.SortFunc(open, func(a, b types.Shard) int {
		return number(a.HashKeyRange.StartingHashKey).Cmp(number(b.HashKeyRange.StartingHashKey))
	})
	next := new(big.Int)
	for _, sh := range open {
		if next.Cmp(number(sh.HashKeyRange.StartingHashKey)) != 0 {
			return false
		}
		next.Add(number(sh.HashKeyRange.EndingHashKey), big.NewInt(1))
	}
	return next.Cmp(keySpace) == 0
}

// middle is the hash key at which a shard is split in half.
func middle(sh types.Shard) string {
	first, _ := new(big.Int).SetString(*sh.HashKeyRange.StartingHashKey, 10)
	last, _ := new(big.Int).SetString(*sh.HashKeyRange.EndingHashKey, 10)
	sum := first.Add(first, last)
	return sum.Add(sum.Rsh(sum, 1), big.NewInt(1)).String()
}

// consumer registers one and waits until it is ACTIVE.
func (k *service) consumer(stream, name string) string {
	k.Helper()
	out, err := k.RegisterStreamConsumer(k.Context(), &kinesis.RegisterStreamConsumerInput{StreamARN: &stream, ConsumerName: &name})
	must(k.T, err)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		d, err := k.DescribeStreamConsumer(k.Context(), &kinesis.DescribeStreamConsumerInput{ConsumerARN: out.Consumer.ConsumerARN})
		must(k.T, err)
		if d.ConsumerDescription.ConsumerStatus == types.ConsumerStatusActive {
			return *out.Consumer.ConsumerARN
		}
		if time.Now().After(deadline) {
			k.Fatal("the consumer does not become ACTIVE")
		}
	}
}

// subscribe gives what reads records of shard 0, and the continuation number after them.
func (k *service) subscribe(consumer string, from *types.StartingPosition) func(n int) ([]string, string) {
	k.Helper()
	ctx, cancel := context.WithCancel(k.Context())
	out, err := k.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{ConsumerARN: &consumer, ShardId: aws.String(shard0), StartingPosition: from}, OwnCodec)
	if err != nil {
		cancel()
		k.Fatal(err)
	}
	k.Cleanup(func() {
		cancel()
		out.GetStream().Close()
	})
	sub := &subscribed{k.T, out.GetStream()}
	return func(n int) (got []string, continuation string) {
		k.Helper()
		for len(got) < n {
			e := sub.next()
			if e == nil {
				k.Fatalf("the subscription ended after %v: %v", got, sub.stream.Err())
			}
			got, continuation = append(got, texts(e.Records)...), *e.ContinuationSequenceNumber
		}
		return got, continuation
	}
}

func checkBehaviours(t *testing.T, name string, c *kinesis.Client) {
	for i, b := range behaviours {
		t.Run(b.name, func(t *testing.T) {
			if why := b.lacks[name]; why != "" {
				t.Skipf("%s %s", name, why)
			}
			k := &service{T: t, Client: c, stream: fmt.Sprintf("behaviour-%d", i)}
			defer func() {
				c.DeleteStream(context.Background(), &kinesis.DeleteStreamInput{StreamName: &k.stream, EnforceConsumerDeletion: aws.Bool(true)})
			}()
			b.run(k)
			want := slices.Clone(b.want)
			for i, w := range want {
				if other, ok := b.differs[name][w]; ok {
					want[i] = other
				}
			}
			if !slices.Equal(k.seen, want) {
				t.Errorf("%s:\n%s\ninstead of\n%s", name, strings.Join(k.seen, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestBehavioursOfThisServer(t *testing.T) {
	s := NewServer()
	defer s.Close()
	checkBehaviours(t, "kinesistest", s.Client())
}

func TestBehavioursOfKinesisLocal(t *testing.T) {
	folder := emulators(t)
	port := freePort(t)
	env := []string{"KINESIS_MOCK_PLAIN_PORT=" + port, "KINESIS_MOCK_TLS_PORT=" + freePort(t), "SHARD_LIMIT=500", "LOG_LEVEL=ERROR"}
	for _, what := range []string{"CREATE_STREAM", "DELETE_STREAM", "DEREGISTER_STREAM_CONSUMER", "MERGE_SHARDS", "REGISTER_STREAM_CONSUMER", "SPLIT_SHARD", "UPDATE_SHARD_COUNT"} {
		env = append(env, what+"_DURATION=20ms")
	}
	checkBehaviours(t, local, startEmulator(t, folder, local, "main.js", port, env))
}

func TestBehavioursOfKinesalite(t *testing.T) {
	folder := emulators(t)
	port := freePort(t)
	checkBehaviours(t, kinesalite, startEmulator(t, folder, kinesalite, "cli.js", port, nil,
		"--port", port, "--shardLimit", "500", "--createStreamMs", "20", "--deleteStreamMs", "20", "--updateStreamMs", "20"))
}
