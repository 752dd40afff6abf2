package kinesistest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

const (
	local      = "kinesis-local"
	kinesalite = "kinesalite"
	shard2     = "shardId-000000000002"
)

// behaviours are what every Kinesis does. What one of the others lacks is in lacks, with the reason; where it does something else
// than AWS, by the documentation, differs has it instead of what was wanted.
var behaviours = []struct {
	name    string
	run     func(*service)
	want    []string
	lacks   map[string]string
	differs map[string]map[string]string
}{
	{
		name: "a stream is created once, found, and deleted",
		run: func(k *service) {
			k.create(2)
			_, err := k.CreateStream(k.Context(), &kinesis.CreateStreamInput{StreamName: &k.stream, ShardCount: aws.Int32(1)})
			k.see("again: %s", code(err))
			out, err := k.DescribeStream(k.Context(), &kinesis.DescribeStreamInput{StreamName: &k.stream})
			must(k.T, err)
			d := out.StreamDescription
			k.see("%t %s %d hours", *d.StreamARN == "arn:aws:kinesis:us-east-1:000000000000:stream/"+k.stream, d.StreamStatus, *d.RetentionPeriodHours)
			k.see("%s tiled %t", lineage(d.Shards), tiled(d.Shards))
			_, err = k.DescribeStreamSummary(k.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("nothing")})
			k.see("unknown: %s", code(err))
			_, err = k.DeleteStream(k.Context(), &kinesis.DeleteStreamInput{StreamName: &k.stream})
			must(k.T, err)
			for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
				_, err := k.DescribeStreamSummary(k.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &k.stream})
				if err != nil || time.Now().After(deadline) {
					k.see("deleted: %s", code(err))
					return
				}
			}
		},
		want: []string{"again: ResourceInUseException", "true ACTIVE 24 hours", "00<,> open 01<,> open tiled true", "unknown: ResourceNotFoundException", "deleted: ResourceNotFoundException"},
	},
	{
		name: "records go where their hash key says, with rising numbers",
		run: func(k *service) {
			k.create(3)
			for _, sh := range k.list() {
				for _, key := range []*string{sh.HashKeyRange.StartingHashKey, sh.HashKeyRange.EndingHashKey} {
					k.see("%t", *k.put("x", *key).ShardId == *sh.ShardId)
				}
			}
			last := ""
			for range 20 {
				number := *k.put("y", "5").SequenceNumber
				if len(number) != 56 || number <= last {
					k.see("%s after %s", number, last)
				}
				last = number
			}
			_, err := k.PutRecord(k.Context(), &kinesis.PutRecordInput{StreamName: &k.stream, PartitionKey: aws.String("k"), Data: []byte("x"), ExplicitHashKey: aws.String(keySpace.String())})
			k.see("outside: %s", code(err))
			_, err = k.PutRecord(k.Context(), &kinesis.PutRecordInput{StreamName: aws.String("nothing"), PartitionKey: aws.String("k"), Data: []byte("x")})
			k.see("unknown: %s", code(err))
		},
		want: []string{"true", "true", "true", "true", "true", "true", "outside: InvalidArgumentException", "unknown: ResourceNotFoundException"},
	},
	{
		name: "a batch is put whole, in order",
		run: func(k *service) {
			k.create(1)
			var entries []types.PutRecordsRequestEntry
			for i := range 500 {
				entries = append(entries, types.PutRecordsRequestEntry{Data: fmt.Append(nil, i), PartitionKey: aws.String("k")})
			}
			out, err := k.PutRecords(k.Context(), &kinesis.PutRecordsInput{StreamName: &k.stream, Records: entries})
			must(k.T, err)
			k.see("%d failed of %d", *out.FailedRecordCount, len(out.Records))
			it, err := k.iterator(shard0, "TRIM_HORIZON", nil)
			must(k.T, err)
			got, _ := k.drain(it, 77)
			k.see("%d, from %s to %s, sorted %t", len(got), got[0], got[499], slices.IsSortedFunc(got, func(a, b string) int { return len(a) - len(b) }))
		},
		want: []string{"0 failed of 500", "500, from 0 to 499, sorted true"},
	},
	{
		name: "an iterator starts where it is told",
		run: func(k *service) {
			k.create(1)
			var numbers []string
			before := time.Now().Add(-time.Hour)
			for i := range 5 {
				numbers = append(numbers, *k.put(fmt.Sprint(i), "").SequenceNumber)
			}
			for _, tc := range []struct {
				kind   types.ShardIteratorType
				change func(*kinesis.GetShardIteratorInput)
			}{
				{"TRIM_HORIZON", nil}, {"LATEST", nil}, {"AT_SEQUENCE_NUMBER", at(numbers[2])}, {"AFTER_SEQUENCE_NUMBER", at(numbers[2])},
				{"AT_TIMESTAMP", func(in *kinesis.GetShardIteratorInput) { in.Timestamp = &before }},
			} {
				it, err := k.iterator(shard0, tc.kind, tc.change)
				must(k.T, err)
				got, _ := k.drain(it, 2)
				k.see("%s %v", tc.kind, got)
			}
			future := time.Now().Add(time.Hour)
			_, err := k.iterator(shard0, "AT_TIMESTAMP", func(in *kinesis.GetShardIteratorInput) { in.Timestamp = &future })
			k.see("future: %s", code(err))
			_, err = k.iterator(shard1, "LATEST", nil)
			k.see("unknown shard: %s", code(err))
			_, err = k.iterator(shard0, "AT_SEQUENCE_NUMBER", nil)
			k.see("no number: %s", code(err))
		},
		want: []string{"TRIM_HORIZON [0 1 2 3 4]", "LATEST []", "AT_SEQUENCE_NUMBER [2 3 4]", "AFTER_SEQUENCE_NUMBER [3 4]", "AT_TIMESTAMP [0 1 2 3 4]",
			"future: InvalidArgumentException", "unknown shard: ResourceNotFoundException", "no number: InvalidArgumentException"},
	},
	{
		name: "what is read is limited",
		run: func(k *service) {
			k.create(1)
			for i := range 5 {
				k.put(fmt.Sprint(i), "")
				time.Sleep(2 * time.Millisecond)
			}
			it, err := k.iterator(shard0, "TRIM_HORIZON", nil)
			must(k.T, err)
			out, err := k.GetRecords(k.Context(), &kinesis.GetRecordsInput{ShardIterator: it, Limit: aws.Int32(2)})
			must(k.T, err)
			k.see("%v, behind %t", texts(out.Records), *out.MillisBehindLatest > 0)
			got, last := k.drain(out.NextShardIterator, 10_000)
			k.see("%v, behind %t", got, *last.MillisBehindLatest > 0)
			for _, limit := range []int32{0, 10_001} {
				_, err = k.GetRecords(k.Context(), &kinesis.GetRecordsInput{ShardIterator: it, Limit: &limit})
				k.see("%d: %s", limit, code(err))
			}
		},
		want: []string{"[0 1], behind true", "[2 3 4], behind false", "0: ValidationException", "10001: ValidationException"},
		differs: map[string]map[string]string{
			local:      {"0: ValidationException": "0: InvalidArgumentException", "10001: ValidationException": "10001: InvalidArgumentException"},
			kinesalite: {"[0 1], behind true": "[0 1], behind false"}, // it is never behind
		},
	},
	{
		name: "a foreign iterator is refused",
		run: func(k *service) {
			k.create(1)
			for _, bad := range []string{"x", "AAAAAAAAAAGyxr4P0mwJ"} {
				_, err := k.GetRecords(k.Context(), &kinesis.GetRecordsInput{ShardIterator: &bad})
				k.see("%s", code(err))
			}
		},
		want:  []string{"InvalidArgumentException", "InvalidArgumentException"},
		lacks: map[string]string{local: "answers 500 with an empty body"},
	},
	{
		name: "a split closes the parent, whose records stay, and its children come after it",
		run: func(k *service) {
			k.create(2)
			parent := k.list()[0]
			k.put("parent", *parent.HashKeyRange.StartingHashKey)
			it, err := k.iterator(shard0, "TRIM_HORIZON", nil)
			must(k.T, err)
			_, err = k.SplitShard(k.Context(), &kinesis.SplitShardInput{StreamName: &k.stream, ShardToSplit: aws.String(shard0), NewStartingHashKey: aws.String(middle(parent))})
			must(k.T, err)
			k.awaitActive()
			shards := k.list()
			k.see("%s tiled %t", lineage(shards), tiled(shards))
			first := k.put("child", *parent.HashKeyRange.StartingHashKey)
			second := k.put("child", *parent.HashKeyRange.EndingHashKey)
			k.see("%s %s", *first.ShardId, *second.ShardId)
			got, _ := k.drainToEnd(it)
			k.see("%v, and the end", got)
			_, err = k.SplitShard(k.Context(), &kinesis.SplitShardInput{StreamName: &k.stream, ShardToSplit: aws.String("shardId-000000000009"), NewStartingHashKey: aws.String("1")})
			k.see("unknown: %s", code(err))
			_, err = k.SplitShard(k.Context(), &kinesis.SplitShardInput{StreamName: &k.stream, ShardToSplit: aws.String(shard2), NewStartingHashKey: aws.String("0")})
			k.see("at its start: %s", code(err))
		},
		want: []string{"00<,> closed 01<,> open 02<00,> open 03<00,> open tiled true", "shardId-000000000002 shardId-000000000003", "[parent], and the end",
			"unknown: ResourceNotFoundException", "at its start: InvalidArgumentException"},
		differs: map[string]map[string]string{local: {"at its start: InvalidArgumentException": "at its start: ok"}},
	},
	{
		name: "a merge has two parents",
		run: func(k *service) {
			k.create(3)
			_, err := k.MergeShards(k.Context(), &kinesis.MergeShardsInput{StreamName: &k.stream, ShardToMerge: aws.String(shard0), AdjacentShardToMerge: aws.String(shard2)})
			k.see("apart: %s", code(err))
			_, err = k.MergeShards(k.Context(), &kinesis.MergeShardsInput{StreamName: &k.stream, ShardToMerge: aws.String(shard0), AdjacentShardToMerge: aws.String(shard1)})
			must(k.T, err)
			k.awaitActive()
			shards := k.list()
			k.see("%s tiled %t", lineage(shards), tiled(shards))
			k.see("%s", *k.put("x", "0").ShardId)
			it, err := k.iterator(shard1, "TRIM_HORIZON", nil)
			must(k.T, err)
			got, _ := k.drainToEnd(it)
			k.see("%v, and the end", got)
		},
		want: []string{"apart: InvalidArgumentException", "00<,> closed 01<,> closed 02<,> open 03<00,01> open tiled true", "shardId-000000000003", "[], and the end"},
	},
	{
		name: "the last answer of a closed shard names its children",
		run: func(k *service) {
			k.create(2)
			k.put("x", "0")
			_, err := k.MergeShards(k.Context(), &kinesis.MergeShardsInput{StreamName: &k.stream, ShardToMerge: aws.String(shard0), AdjacentShardToMerge: aws.String(shard1)})
			must(k.T, err)
			k.awaitActive()
			it, err := k.iterator(shard0, "TRIM_HORIZON", nil)
			must(k.T, err)
			got, last := k.drainToEnd(it)
			k.see("%v", got)
			for _, child := range last.ChildShards {
				k.see("%s of %v from %s", *child.ShardId, child.ParentShards, *child.HashKeyRange.StartingHashKey)
			}
		},
		want:  []string{"[x]", "shardId-000000000002 of [shardId-000000000000 shardId-000000000001] from 0"},
		lacks: map[string]string{kinesalite: "knows no ChildShards"},
	},
	{
		name: "a closed shard is not split or merged again",
		run: func(k *service) {
			k.create(2)
			shards := k.list()
			_, err := k.SplitShard(k.Context(), &kinesis.SplitShardInput{StreamName: &k.stream, ShardToSplit: aws.String(shard0), NewStartingHashKey: aws.String(middle(shards[0]))})
			must(k.T, err)
			k.awaitActive()
			_, err = k.SplitShard(k.Context(), &kinesis.SplitShardInput{StreamName: &k.stream, ShardToSplit: aws.String(shard0), NewStartingHashKey: aws.String(middle(shards[0]))})
			k.see("split: %s", code(err))
			_, err = k.MergeShards(k.Context(), &kinesis.MergeShardsInput{StreamName: &k.stream, ShardToMerge: aws.String(shard0), AdjacentShardToMerge: aws.String(shard1)})
			k.see("merge: %s", code(err))
		},
		want:  []string{"split: ResourceInUseException", "merge: ResourceInUseException"},
		lacks: map[string]string{kinesalite: "splits a closed shard again"},
	},
	{
		name: "the count of shards is updated, within its limits",
		run: func(k *service) {
			k.create(4)
			for _, target := range []int32{9, 1, 8, 5} {
				out, err := k.UpdateShardCount(k.Context(), &kinesis.UpdateShardCountInput{StreamName: &k.stream, TargetShardCount: &target, ScalingType: types.ScalingTypeUniformScaling})
				k.see("%d: %s", target, code(err))
				if err != nil {
					continue
				}
				k.see("from %d to %d", *out.CurrentShardCount, *out.TargetShardCount)
				k.awaitActive()
				summary, err := k.DescribeStreamSummary(k.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &k.stream})
				must(k.T, err)
				k.see("%d open, tiled %t", *summary.StreamDescriptionSummary.OpenShardCount, tiled(k.list()))
			}
		},
		want:  []string{"9: LimitExceededException", "1: LimitExceededException", "8: ok", "from 4 to 8", "8 open, tiled true", "5: ok", "from 8 to 5", "5 open, tiled true"},
		lacks: map[string]string{kinesalite: "has no UpdateShardCount"},
		differs: map[string]map[string]string{
			local: {"9: LimitExceededException": "9: InvalidArgumentException", "1: LimitExceededException": "1: InvalidArgumentException"},
		},
	},
	{
		name: "shards are listed from one on, and those open now",
		run: func(k *service) {
			k.create(3)
			_, err := k.MergeShards(k.Context(), &kinesis.MergeShardsInput{StreamName: &k.stream, ShardToMerge: aws.String(shard0), AdjacentShardToMerge: aws.String(shard1)})
			must(k.T, err)
			k.awaitActive()
			out, err := k.ListShards(k.Context(), &kinesis.ListShardsInput{StreamName: &k.stream, ExclusiveStartShardId: aws.String(shard1)})
			must(k.T, err)
			k.see("%s", lineage(out.Shards))
			out, err = k.ListShards(k.Context(), &kinesis.ListShardsInput{StreamName: &k.stream, ShardFilter: &types.ShardFilter{Type: types.ShardFilterTypeAtLatest}})
			must(k.T, err)
			k.see("%s", lineage(out.Shards))
			var all []types.Shard
			for in := (&kinesis.ListShardsInput{StreamName: &k.stream, MaxResults: aws.Int32(1)}); in != nil; {
				page, err := k.ListShards(k.Context(), in)
				must(k.T, err)
				all = append(all, page.Shards...)
				if in = nil; page.NextToken != nil {
					in = &kinesis.ListShardsInput{NextToken: page.NextToken, MaxResults: aws.Int32(1)}
				}
			}
			k.see("%s", lineage(all))
		},
		want:  []string{"02<,> open 03<00,01> open", "02<,> open 03<00,01> open", "00<,> closed 01<,> closed 02<,> open 03<00,01> open"},
		lacks: map[string]string{kinesalite: "ignores ShardFilter and MaxResults"},
	},
	{
		name: "the retention period moves within its limits",
		run: func(k *service) {
			k.create(1)
			more := func(hours int32) {
				_, err := k.IncreaseStreamRetentionPeriod(k.Context(), &kinesis.IncreaseStreamRetentionPeriodInput{StreamName: &k.stream, RetentionPeriodHours: &hours})
				k.see("up to %d: %s", hours, code(err))
				k.awaitActive()
			}
			less := func(hours int32) {
				_, err := k.DecreaseStreamRetentionPeriod(k.Context(), &kinesis.DecreaseStreamRetentionPeriodInput{StreamName: &k.stream, RetentionPeriodHours: &hours})
				k.see("down to %d: %s", hours, code(err))
				k.awaitActive()
			}
			more(48)
			more(36)
			less(60)
			less(24)
			out, err := k.DescribeStreamSummary(k.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &k.stream})
			must(k.T, err)
			k.see("%d", *out.StreamDescriptionSummary.RetentionPeriodHours)
		},
		want: []string{"up to 48: ok", "up to 36: InvalidArgumentException", "down to 60: InvalidArgumentException", "down to 24: ok", "24"},
	},
	{
		name: "consumers are registered once, described, and deregistered",
		run: func(k *service) {
			k.create(1)
			arn := k.arn()
			consumer := k.consumer(arn, "reader")
			prefix, _, _ := strings.Cut(consumer, "/consumer/reader:")
			k.see("%t", prefix == arn)
			_, err := k.RegisterStreamConsumer(k.Context(), &kinesis.RegisterStreamConsumerInput{StreamARN: &arn, ConsumerName: aws.String("reader")})
			k.see("again: %s", code(err))
			_, err = k.DescribeStreamConsumer(k.Context(), &kinesis.DescribeStreamConsumerInput{StreamARN: &arn, ConsumerName: aws.String("nobody")})
			k.see("unknown: %s", code(err))
			list, err := k.ListStreamConsumers(k.Context(), &kinesis.ListStreamConsumersInput{StreamARN: &arn})
			must(k.T, err)
			k.see("%d: %t %s", len(list.Consumers), *list.Consumers[0].ConsumerARN == consumer, list.Consumers[0].ConsumerStatus)
			_, err = k.DeregisterStreamConsumer(k.Context(), &kinesis.DeregisterStreamConsumerInput{ConsumerARN: &consumer})
			must(k.T, err)
			for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
				_, err = k.DescribeStreamConsumer(k.Context(), &kinesis.DescribeStreamConsumerInput{StreamARN: &arn, ConsumerName: aws.String("reader")})
				if err != nil || time.Now().After(deadline) {
					k.see("gone: %s", code(err))
					return
				}
			}
		},
		want:  []string{"true", "again: ResourceInUseException", "unknown: ResourceNotFoundException", "1: true ACTIVE", "gone: ResourceNotFoundException"},
		lacks: map[string]string{kinesalite: "has no consumers"},
	},
	{
		name: "a stream with consumers is not deleted without force",
		run: func(k *service) {
			k.create(1)
			k.consumer(k.arn(), "reader")
			_, err := k.DeleteStream(k.Context(), &kinesis.DeleteStreamInput{StreamName: &k.stream})
			k.see("%s", code(err)) // and no more than that: kinesis-local refuses, and deletes it a little later
		},
		want:  []string{"ResourceInUseException"},
		lacks: map[string]string{kinesalite: "has no consumers"},
	},
	{
		name: "a subscription pushes what is there and what comes, and is resumed from its continuation number",
		run: func(k *service) {
			k.create(1)
			consumer := k.consumer(k.arn(), "reader")
			last := k.put("a", "")
			sub := k.subscribe(consumer, &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon})
			got, continuation := sub(1)
			k.see("%v, its own number %t", got, continuation == *last.SequenceNumber)
			k.put("b", "")
			k.put("c", "")
			got, continuation = sub(2)
			k.see("%v", got)
			other := k.consumer(k.arn(), "other")
			sub = k.subscribe(other, &types.StartingPosition{Type: types.ShardIteratorTypeAtSequenceNumber, SequenceNumber: last.SequenceNumber})
			got, _ = sub(3)
			k.see("%v", got)
			third := k.consumer(k.arn(), "third")
			sub = k.subscribe(third, &types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: &continuation})
			k.put("d", "")
			got, _ = sub(1)
			k.see("%v", got)
		},
		want:  []string{"[a], its own number true", "[b c]", "[a b c]", "[d]"},
		lacks: map[string]string{kinesalite: "has no SubscribeToShard"},
	},
}
