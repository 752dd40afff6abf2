package kinesistest

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

func TestPutAndGet(t *testing.T) {
	s := NewServer()
	defer s.Close()
	if err := s.CreateStream("orders", 4); err != nil {
		t.Fatal(err)
	}
	c := s.Client()
	put, err := c.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String("orders"), PartitionKey: aws.String("a"), Data: []byte("hello")})
	if err != nil {
		t.Fatal(err)
	}
	it, err := c.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{StreamName: aws.String("orders"), ShardId: put.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Records) != 1 || string(got.Records[0].Data) != "hello" || *got.Records[0].SequenceNumber != *put.SequenceNumber || got.NextShardIterator == nil {
		t.Fatalf("%+v", got)
	}
	list, err := c.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("orders")})
	if err != nil || len(list.Shards) != 4 {
		t.Fatal(list, err)
	}
	t.Log(*put.SequenceNumber, *list.Shards[3].HashKeyRange.EndingHashKey)
}
