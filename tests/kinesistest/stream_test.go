package kinesistest

import (
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

func TestAStreamIsCreatingThenActiveThenDeletingThenGone(t *testing.T) {
	s, c, clock := start(t, 0, WithStateDelay(30*time.Second))
	ctx, name := t.Context(), aws.String("orders")
	_, err := c.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: name, ShardCount: aws.Int32(2)})
	must(t, err)
	status := func() types.StreamStatus {
		out, err := c.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: name})
		must(t, err)
		return out.StreamDescriptionSummary.StreamStatus
	}
	if got := status(); got != types.StreamStatusCreating {
		t.Errorf("right after the creation it is %s", got)
	}
	_, err = c.GetShardIterator(ctx, iteratorInput("shardId-000000000000", types.ShardIteratorTypeTrimHorizon))
	wantError[*types.ResourceNotFoundException](t, err)
	_, err = c.ListShards(ctx, &kinesis.ListShardsInput{StreamName: name})
	wantError[*types.ResourceInUseException](t, err)
	_, err = c.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: name, ShardCount: aws.Int32(2)})
	wantError[*types.ResourceInUseException](t, err)

	clock.Advance(30 * time.Second)
	out, err := c.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: name})
	must(t, err)
	d := out.StreamDescriptionSummary
	if d.StreamStatus != types.StreamStatusActive || *d.OpenShardCount != 2 || *d.RetentionPeriodHours != 24 || d.EncryptionType != types.EncryptionTypeNone ||
		*d.StreamARN != "arn:aws:kinesis:us-east-1:000000000000:stream/orders" || !d.StreamCreationTimestamp.Equal(noon) {
		t.Errorf("it is described as %+v", d)
	}
	// By its ARN alone too.
	_, err = c.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamARN: d.StreamARN})
	must(t, err)
	_, err = c.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamARN: aws.String("arn:aws:kinesis:us-east-1:111111111111:stream/orders")})
	wantError[*types.ResourceNotFoundException](t, err)

	_, err = c.DeleteStream(ctx, &kinesis.DeleteStreamInput{StreamName: name})
	must(t, err)
	if got := status(); got != types.StreamStatusDeleting {
		t.Errorf("while it is deleted it is %s", got)
	}
	clock.Advance(30 * time.Second)
	_, err = c.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: name})
	wantError[*types.ResourceNotFoundException](t, err)
	if s.Records("orders") != nil || s.Shards("orders") != nil {
		t.Error("a deleted stream has shards")
	}
}

func TestTheShardsOfANewStreamTileTheKeySpace(t *testing.T) {
	s, _, _ := start(t, 0)
	for _, n := range []int{1, 2, 3, 7, 64, 1000} {
		name := fmt.Sprint("s", n)
		must(t, s.CreateStream(name, n))
		wantTiled(t, s, name)
	}
}

// wantTiled checks that the open shards of a stream cover every hash key once.
func wantTiled(t *testing.T, s *Server, stream string) {
	t.Helper()
	type span struct{ first, last *big.Int }
	var open []span
	for _, sh := range s.Shards(stream) {
		if sh.Closed.IsZero() {
			first, _ := new(big.Int).SetString(sh.StartingHashKey, 10)
			last, _ := new(big.Int).SetString(sh.EndingHashKey, 10)
			open = append(open, span{first, last})
		}
	}
	slices.SortFunc(open, func(a, b span) int { return a.first.Cmp(b.first) })
	next := new(big.Int)
	for _, sp := range open {
		if sp.first.Cmp(next) != 0 || sp.last.Cmp(sp.first) < 0 {
			t.Fatalf("%s: a shard covers %s to %s where one should start at %s", stream, sp.first, sp.last, next)
		}
		next.Add(sp.last, big.NewInt(1))
	}
	if next.Cmp(keySpace) != 0 {
		t.Fatalf("%s: the last shard ends before %s", stream, next)
	}
}

func TestListStreamsAndDescribeStreamPage(t *testing.T) {
	s, c, _ := start(t, 0)
	var want []string
	for i := range 5 {
		want = append(want, fmt.Sprintf("stream-%d", i))
		must(t, s.CreateStream(want[i], 1))
	}
	var got []string
	streams := kinesis.NewListStreamsPaginator(c, &kinesis.ListStreamsInput{Limit: aws.Int32(2)})
	for streams.HasMorePages() {
		page, err := streams.NextPage(t.Context())
		must(t, err)
		got = append(got, page.StreamNames...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("streams: %v", got)
	}

	must(t, s.CreateStream("wide", 150))
	in := &kinesis.DescribeStreamInput{StreamName: aws.String("wide")}
	first, err := c.DescribeStream(t.Context(), in)
	must(t, err)
	d := first.StreamDescription
	if len(d.Shards) != 100 || !*d.HasMoreShards {
		t.Fatalf("first page of %d shards, more: %v", len(d.Shards), *d.HasMoreShards)
	}
	in.ExclusiveStartShardId = d.Shards[99].ShardId
	second, err := c.DescribeStream(t.Context(), in)
	must(t, err)
	if d := second.StreamDescription; len(d.Shards) != 50 || *d.HasMoreShards || *d.Shards[0].ShardId != "shardId-000000000100" {
		t.Fatalf("second page of %d shards from %s", len(d.Shards), *d.Shards[0].ShardId)
	}
}

func TestEncryptionMarksRecordsPutWhileItIsOn(t *testing.T) {
	s, c, _ := start(t, 1)
	put(t, s, "a", "plain")
	_, err := c.StartStreamEncryption(t.Context(), &kinesis.StartStreamEncryptionInput{
		StreamName: aws.String("orders"), EncryptionType: types.EncryptionTypeKms, KeyId: aws.String("alias/aws/kinesis")})
	must(t, err)
	out, err := c.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String("orders"), PartitionKey: aws.String("a"), Data: []byte("secret")})
	must(t, err)
	if out.EncryptionType != types.EncryptionTypeKms {
		t.Errorf("put with %q", out.EncryptionType)
	}
	d, err := c.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("orders")})
	must(t, err)
	if sum := d.StreamDescriptionSummary; sum.EncryptionType != types.EncryptionTypeKms || *sum.KeyId != "alias/aws/kinesis" {
		t.Errorf("described with %q", sum.EncryptionType)
	}
	_, err = c.StopStreamEncryption(t.Context(), &kinesis.StopStreamEncryptionInput{
		StreamName: aws.String("orders"), EncryptionType: types.EncryptionTypeKms, KeyId: aws.String("alias/aws/kinesis")})
	must(t, err)
	put(t, s, "a", "plain again")
	var got []types.EncryptionType
	for _, r := range get(t, c, getIterator(t, c, iteratorInput("shardId-000000000000", types.ShardIteratorTypeTrimHorizon)), 0).Records {
		got = append(got, r.EncryptionType)
	}
	if want := []types.EncryptionType{"", types.EncryptionTypeKms, ""}; !slices.Equal(got, want) {
		t.Errorf("read with %q", got)
	}
}

func TestRetentionTrimsByTheClock(t *testing.T) {
	s, c, clock := start(t, 1)
	put(t, s, "a", "old")
	clock.Advance(time.Hour)
	put(t, s, "a", "new")
	horizon := iteratorInput("shardId-000000000000", types.ShardIteratorTypeTrimHorizon)

	clock.Advance(23*time.Hour - time.Millisecond)
	if got := read(t, c, horizon); !slices.Equal(got, []string{"old", "new"}) {
		t.Fatalf("just before the retention period ends: %q", got)
	}
	late := getIterator(t, c, horizon) // its position is trimmed before it is used
	clock.Advance(time.Millisecond)
	if got := texts(get(t, c, late, 0).Records); !slices.Equal(got, []string{"new"}) {
		t.Fatalf("at its end: %q", got)
	}
	_, err := c.IncreaseStreamRetentionPeriod(t.Context(), &kinesis.IncreaseStreamRetentionPeriodInput{
		StreamName: aws.String("orders"), RetentionPeriodHours: aws.Int32(48)})
	must(t, err)
	clock.Advance(24 * time.Hour)
	if got := read(t, c, horizon); !slices.Equal(got, []string{"new"}) {
		t.Fatalf("with a longer period: %q", got)
	}
	_, err = c.DecreaseStreamRetentionPeriod(t.Context(), &kinesis.DecreaseStreamRetentionPeriodInput{
		StreamName: aws.String("orders"), RetentionPeriodHours: aws.Int32(24)})
	must(t, err)
	if got := read(t, c, horizon); len(got) != 0 || len(s.Records("orders")["shardId-000000000000"]) != 0 {
		t.Fatalf("with a shorter period: %q", got)
	}
	_, err = c.IncreaseStreamRetentionPeriod(t.Context(), &kinesis.IncreaseStreamRetentionPeriodInput{
		StreamName: aws.String("orders"), RetentionPeriodHours: aws.Int32(8761)})
	wantError[*types.InvalidArgumentException](t, err)
}

func TestTheDateHeaderIsTheServersClock(t *testing.T) {
	_, c, clock := start(t, 1)
	clock.Advance(-2 * time.Hour)
	out, err := c.ListStreams(t.Context(), nil)
	must(t, err)
	date, ok := serverTime(out.ResultMetadata)
	if !ok || !date.Equal(noon.Add(-2*time.Hour)) {
		t.Errorf("Date is %v", date)
	}
}
