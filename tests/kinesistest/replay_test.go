package kinesistest

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

func replayIterator(t testing.TB, c *kinesis.Client, in *kinesis.GetShardIteratorInput) *string {
	in.StreamName = aws.String("bench")
	out, err := c.GetShardIterator(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out.ShardIterator
}

func TestAReplayedStreamIsReadLikeAStoredOne(t *testing.T) {
	for _, size := range []int{24, 25, 26, 27, 1024, replayMaxSize} {
		s, c, _ := start(t, 0)
		perShard := uint64(1000)
		if size > 10_000 {
			perShard = 2
		}
		rp, err := s.CreateReplay("bench", ReplayOptions{Shards: 3, RecordSize: size, PerShard: perShard, PerResponse: 400})
		must(t, err)
		for shard := range 3 {
			iterator := replayIterator(t, c, iteratorInput(shardID(uint32(shard)), "TRIM_HORIZON"))
			number, last := uint64(0), ""
			for number < perShard {
				limit := int32(1 + number%700)
				out := get(t, c, iterator, limit)
				if n := len(out.Records); n == 0 || n > min(int(limit), 400) {
					t.Fatalf("%d records for a limit of %d", n, limit)
				}
				for _, r := range out.Records {
					gotShard, n, err := rp.Check(*r.PartitionKey, r.Data)
					if err != nil || gotShard != shard || n != number+1 || *r.SequenceNumber <= last {
						t.Fatalf("after record %d of shard %d came %d of %d, %s: %v", number, shard, n, gotShard, *r.SequenceNumber, err)
					}
					number, last = n, *r.SequenceNumber
				}
				if behind := *out.MillisBehindLatest; (behind == 0) != (number == perShard) {
					t.Errorf("after %d of %d records: %d ms behind", number, perShard, behind)
				}
				iterator = out.NextShardIterator
			}
			end := get(t, c, iterator, 0)
			if len(end.Records) != 0 || end.NextShardIterator == nil {
				t.Fatalf("after the last record came %d", len(end.Records))
			}
			// From the middle, by a sequence number that was read.
			in := iteratorInput(shardID(uint32(shard)), "AT_SEQUENCE_NUMBER")
			in.StartingSequenceNumber = &last
			out := get(t, c, replayIterator(t, c, in), 0)
			if _, n, err := rp.Check(*out.Records[0].PartitionKey, out.Records[0].Data); err != nil || n != perShard || len(out.Records) != 1 {
				t.Errorf("at the last number came %d: %v", n, err)
			}
		}
	}
}

func TestAReplaysCheckFindsWhatIsWrong(t *testing.T) {
	s, c, _ := start(t, 0)
	rp, err := s.CreateReplay("bench", ReplayOptions{Shards: 2, RecordSize: 100})
	must(t, err)
	out := get(t, c, replayIterator(t, c, iteratorInput(shard1, "LATEST")), 1) // an endless one has no tip: it starts
	r := out.Records[0]
	if shard, n, err := rp.Check(*r.PartitionKey, r.Data); shard != 1 || n != 1 || err != nil {
		t.Fatal(shard, n, err)
	}
	for at := range r.Data {
		r.Data[at] ^= 1
		if shard, n, err := rp.Check(*r.PartitionKey, r.Data); err == nil && shard == 1 && n == 1 {
			t.Errorf("byte %d is changed", at)
		}
		r.Data[at] ^= 1
	}
	if _, _, err := rp.Check("key", r.Data); err == nil {
		t.Error("the key is another one")
	}
	if _, _, err := rp.Check(*r.PartitionKey, r.Data[:99]); err == nil {
		t.Error("the data is cut")
	}
	// Its keys are such as belong to its shards; it can't be changed.
	for shard, sh := range s.Shards("bench") {
		for n := range uint64(16) {
			key := rp.Key(shard, n)
			s.mu.Lock()
			if !s.streams["bench"].shards[shard].keys.contains(partitionHash(key)) {
				t.Errorf("%q does not belong to %s", key, sh.ID)
			}
			s.mu.Unlock()
		}
	}
	if _, err := s.Put("bench", "k", []byte("x")); err == nil {
		t.Error("a replayed stream was put to")
	}
	_, err = c.MergeShards(t.Context(), &kinesis.MergeShardsInput{
		StreamName: aws.String("bench"), ShardToMerge: aws.String(shard0), AdjacentShardToMerge: aws.String(shard1)})
	wantError[*types.InvalidArgumentException](t, err)
	for _, bad := range []ReplayOptions{{Shards: 1, RecordSize: 23}, {Shards: 1, RecordSize: 1 << 20}, {RecordSize: 100}} {
		if _, err := s.CreateReplay("bad", bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}
