package kinesistest

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

func TestAShardTakesFiveReadsASecondFromAllItsReadersTogether(t *testing.T) {
	s, c, clock := start(t, 2, WithReadLimits())
	clients := []*kinesis.Client{c, s.Client()}
	iterators := []*string{
		getIterator(t, c, iteratorInput(shard0, "TRIM_HORIZON")),
		getIterator(t, c, iteratorInput(shard1, "TRIM_HORIZON")),
	}
	served := func(iterator *string, calls int) (n int) {
		for i := range calls {
			_, err := clients[i%2].GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: iterator})
			if err == nil {
				n++
			} else {
				wantError[*types.ProvisionedThroughputExceededException](t, err)
			}
		}
		return n
	}
	for shard, iterator := range iterators {
		if got := served(iterator, 8); got != 5 {
			t.Errorf("shard %d served %d of 8 calls at once", shard, got)
		}
	}
	clock.Advance(200 * time.Millisecond)
	if got := served(iterators[0], 3); got != 1 {
		t.Errorf("after a fifth of a second %d calls were served", got)
	}
	clock.Advance(time.Minute)
	if got := served(iterators[0], 8); got != 5 {
		t.Errorf("after a minute %d calls were served", got)
	}
}

func TestMoreThanTwoMebibytesASecondArePaidOffBeforeTheNextRead(t *testing.T) {
	s, c, clock := start(t, 1, WithReadLimits())
	_, err := s.Put("orders", "k", make([]byte, 3<<20-1), []byte("x"))
	must(t, err)
	iterator := getIterator(t, c, iteratorInput(shard0, "TRIM_HORIZON"))
	next := get(t, c, iterator, 1).NextShardIterator
	refused := func() {
		t.Helper()
		_, err := c.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next})
		wantError[*types.ProvisionedThroughputExceededException](t, err)
	}
	refused()
	clock.Advance(500 * time.Millisecond) // a MiB of debt
	refused()
	clock.Advance(time.Millisecond)
	get(t, c, next, 0)
}

func TestTenMebibytesAtOnceBlockAShardForAboutFiveSeconds(t *testing.T) {
	var l readLimit
	if !l.admit(noon) {
		t.Fatal("the first call is refused")
	}
	l.charge(10 << 20)
	for after, want := range map[time.Duration]bool{0: false, 2 * time.Second: false, 4 * time.Second: false, 4*time.Second + time.Millisecond: true} {
		again := l
		if got := again.admit(noon.Add(after)); got != want {
			t.Errorf("after %v a call is admitted: %v", after, got)
		}
	}
}

func TestAShardTakesAThousandRecordsAndAMebibyteASecond(t *testing.T) {
	_, c, clock := start(t, 1, WithWriteLimits())
	accepted := func(n, size int) int {
		in := &kinesis.PutRecordsInput{StreamName: aws.String("orders"), Records: make([]types.PutRecordsRequestEntry, n)}
		for i := range in.Records {
			in.Records[i] = types.PutRecordsRequestEntry{PartitionKey: aws.String("k"), Data: make([]byte, size)}
		}
		out, err := c.PutRecords(t.Context(), in)
		must(t, err)
		refused := 0
		for _, r := range out.Records {
			if r.ErrorCode != nil {
				refused++
				if *r.ErrorCode != ProvisionedThroughputExceeded || r.SequenceNumber != nil {
					t.Errorf("refused with %+v", r)
				}
			}
		}
		if refused != int(*out.FailedRecordCount) {
			t.Errorf("%d refused, FailedRecordCount %d", refused, *out.FailedRecordCount)
		}
		return n - refused
	}
	if got := accepted(500, 1) + accepted(500, 1) + accepted(500, 1); got != 1000 {
		t.Errorf("%d small records at once", got)
	}
	_, err := c.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String("orders"), PartitionKey: aws.String("k"), Data: []byte("x")})
	wantError[*types.ProvisionedThroughputExceededException](t, err)
	clock.Advance(time.Minute)
	if got := accepted(12, 128<<10-1); got != 8 {
		t.Errorf("%d records of 128 KiB at once", got)
	}
}

func TestTheAccountsShardLimitHolds(t *testing.T) {
	s, c, _ := start(t, 3, WithShardLimit(4))
	_, err := c.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: aws.String("more"), ShardCount: aws.Int32(2)})
	wantError[*types.LimitExceededException](t, err)
	_, err = s.SplitShard("orders", shard0)
	must(t, err)
	_, err = c.SplitShard(t.Context(), &kinesis.SplitShardInput{
		StreamName: aws.String("orders"), ShardToSplit: aws.String(shard1), NewStartingHashKey: aws.String(s.Shards("orders")[1].EndingHashKey)})
	wantError[*types.LimitExceededException](t, err)
}
