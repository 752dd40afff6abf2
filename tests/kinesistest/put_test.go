package kinesistest

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

func TestARecordGoesWhereItsHashKeyLies(t *testing.T) {
	s, c, _ := start(t, 5)
	ranges := map[string][2]*big.Int{}
	for _, sh := range s.Shards("orders") {
		first, _ := new(big.Int).SetString(sh.StartingHashKey, 10)
		last, _ := new(big.Int).SetString(sh.EndingHashKey, 10)
		ranges[sh.ID] = [2]*big.Int{first, last}
	}
	used := map[string]bool{}
	for i := range 100 {
		key := fmt.Sprint("key ", i)
		out, err := c.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String("orders"), PartitionKey: &key, Data: []byte("x")})
		must(t, err)
		sum := md5.Sum([]byte(key))
		hash := new(big.Int).SetBytes(sum[:])
		if r := ranges[*out.ShardId]; hash.Cmp(r[0]) < 0 || hash.Cmp(r[1]) > 0 {
			t.Errorf("%q with hash %s went to %s", key, hash, *out.ShardId)
		}
		used[*out.ShardId] = true
	}
	if len(used) != 5 {
		t.Errorf("100 keys went to %d shards only", len(used))
	}
	// An explicit hash key at either end of a range overrides the partition key's.
	for id, r := range ranges {
		for _, end := range r {
			out, err := c.PutRecord(t.Context(), &kinesis.PutRecordInput{
				StreamName: aws.String("orders"), PartitionKey: aws.String("key"), ExplicitHashKey: aws.String(end.String()), Data: []byte("x")})
			must(t, err)
			if *out.ShardId != id {
				t.Errorf("hash key %s went to %s instead of %s", end, *out.ShardId, id)
			}
		}
	}
	for _, bad := range []string{"-1", keySpace.String(), "0x1", "01"} {
		_, err := c.PutRecord(t.Context(), &kinesis.PutRecordInput{
			StreamName: aws.String("orders"), PartitionKey: aws.String("key"), ExplicitHashKey: &bad, Data: []byte("x")})
		wantError[*types.InvalidArgumentException](t, err)
	}
}

func TestBytesComeBackAsTheyWerePut(t *testing.T) {
	s, c, _ := start(t, 1)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	keys := []string{"a", strings.Repeat("ж", 256), "\"\\\u2028<>&\x00\x7f", "\U0001F680 rocket"}
	var want []types.PutRecordsRequestEntry
	for _, key := range keys {
		for _, data := range [][]byte{all, {}, {0}, []byte(`{"a":"\u0000"}`), bytes.Repeat([]byte{0xff}, 1000)} {
			want = append(want, types.PutRecordsRequestEntry{PartitionKey: aws.String(key), Data: data})
		}
	}
	out, err := c.PutRecords(t.Context(), &kinesis.PutRecordsInput{StreamName: aws.String("orders"), Records: want})
	must(t, err)
	if *out.FailedRecordCount != 0 || len(out.Records) != len(want) {
		t.Fatalf("%+v", out)
	}
	got := get(t, c, getIterator(t, c, iteratorInput("shardId-000000000000", types.ShardIteratorTypeTrimHorizon)), 0).Records
	held := s.Records("orders")["shardId-000000000000"]
	if len(got) != len(want) || len(held) != len(want) {
		t.Fatalf("%d records read, %d held", len(got), len(held))
	}
	for i, r := range got {
		if !bytes.Equal(r.Data, want[i].Data) || *r.PartitionKey != *want[i].PartitionKey || *r.SequenceNumber != *out.Records[i].SequenceNumber {
			t.Errorf("record %d is %q %q", i, *r.PartitionKey, r.Data)
		}
		if !bytes.Equal(held[i].Data, want[i].Data) || held[i].SequenceNumber != *r.SequenceNumber {
			t.Errorf("record %d is held as %q", i, held[i].Data)
		}
		if i > 0 && *r.SequenceNumber <= *got[i-1].SequenceNumber {
			t.Errorf("record %d has sequence number %s after %s", i, *r.SequenceNumber, *got[i-1].SequenceNumber)
		}
		if !r.ApproximateArrivalTimestamp.Equal(noon) {
			t.Errorf("record %d arrived at %v", i, r.ApproximateArrivalTimestamp)
		}
	}
}

func TestARecordMayBeAsLargeAsTheStreamAllows(t *testing.T) {
	_, c, _ := start(t, 1)
	in := func(size int) *kinesis.PutRecordInput {
		return &kinesis.PutRecordInput{StreamName: aws.String("orders"), PartitionKey: aws.String("k"), Data: make([]byte, size-1)}
	}
	_, err := c.PutRecord(t.Context(), in(1<<20))
	must(t, err)
	_, err = c.PutRecord(t.Context(), in(1<<20+1))
	wantCode(t, err, Validation)
	_, err = c.UpdateMaxRecordSize(t.Context(), &kinesis.UpdateMaxRecordSizeInput{
		StreamARN: aws.String("arn:aws:kinesis:us-east-1:000000000000:stream/orders"), MaxRecordSizeInKiB: aws.Int32(10240)})
	must(t, err)
	_, err = c.PutRecord(t.Context(), in(1<<20+1))
	must(t, err)
}

// The largest record there is fills a read that starts with it, and is left for the next one by a read that has begun.
func TestAReadIsCappedAtTenMebibytesButNeverEmptyForThat(t *testing.T) {
	s, c, _ := start(t, 1)
	large := bytes.Repeat([]byte("0123456789abcdef"), 10<<16)
	_, err := s.Put("orders", "k", []byte("small"), large, []byte("small"))
	must(t, err)
	iterator := getIterator(t, c, iteratorInput("shardId-000000000000", types.ShardIteratorTypeTrimHorizon))
	for i, want := range [][]byte{[]byte("small"), large, []byte("small")} {
		out := get(t, c, iterator, 0)
		if len(out.Records) != 1 || !bytes.Equal(out.Records[0].Data, want) {
			t.Fatalf("read %d brings %d records", i, len(out.Records))
		}
		iterator = out.NextShardIterator
	}
}

func TestPutRecordsKeepsItsLimits(t *testing.T) {
	s, c, _ := start(t, 1)
	entries := func(n, size int) *kinesis.PutRecordsInput {
		in := &kinesis.PutRecordsInput{StreamName: aws.String("orders"), Records: make([]types.PutRecordsRequestEntry, n)}
		for i := range in.Records {
			in.Records[i] = types.PutRecordsRequestEntry{PartitionKey: aws.String("k"), Data: make([]byte, size)}
		}
		return in
	}
	_, err := c.PutRecords(t.Context(), entries(500, 1))
	must(t, err)
	_, err = c.PutRecords(t.Context(), entries(501, 1))
	wantCode(t, err, Validation)
	// Ten MiB over the wire take seconds under the race detector.
	large := &putRecordsRequest{streamRef: streamRef{StreamName: "orders"}, Records: make([]entry, 11)}
	for i := range large.Records {
		large.Records[i] = entry{PartitionKey: "k", Data: make([]byte, 1<<20-1)}
	}
	if _, err := large.do(s, s.now()); err == nil || err.code != InvalidArgument {
		t.Errorf("11 MiB at once: %v", err)
	}
	_, err = c.PutRecords(t.Context(), entries(0, 0))
	wantCode(t, err, Validation)
	bad := entries(2, 1)
	bad.Records[1].PartitionKey = aws.String("")
	_, err = c.PutRecords(t.Context(), bad)
	wantCode(t, err, Validation)
	if got := len(s.Records("orders")["shardId-000000000000"]); got != 500 {
		t.Errorf("%d records are held: a refused request must store nothing", got)
	}
	_, err = c.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String("nothing"), PartitionKey: aws.String("k"), Data: []byte("x")})
	wantError[*types.ResourceNotFoundException](t, err)
}
