package kinesistest

import (
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// patience is how long something may take that comes at once where the machine is not busy.
const patience = time.Minute

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// start is a server with a clock that stands at noon, and a stream "orders".
func start(t *testing.T, shards int, opts ...Option) (*Server, *kinesis.Client, *Clock) {
	t.Helper()
	clock := NewClock(noon)
	s := NewServer(append([]Option{WithClock(clock.Now)}, opts...)...)
	t.Cleanup(s.Close)
	if shards > 0 {
		must(t, s.CreateStream("orders", shards))
	}
	return s, s.Client(), clock
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s *Server, key string, data ...string) []Record {
	t.Helper()
	bytes := make([][]byte, len(data))
	for i, d := range data {
		bytes[i] = []byte(d)
	}
	records, err := s.Put("orders", key, bytes...)
	must(t, err)
	return records
}

func iteratorInput(shard string, kind types.ShardIteratorType) *kinesis.GetShardIteratorInput {
	return &kinesis.GetShardIteratorInput{StreamName: aws.String("orders"), ShardId: &shard, ShardIteratorType: kind}
}

func getIterator(t *testing.T, c *kinesis.Client, in *kinesis.GetShardIteratorInput) *string {
	t.Helper()
	out, err := c.GetShardIterator(t.Context(), in)
	must(t, err)
	return out.ShardIterator
}

func get(t *testing.T, c *kinesis.Client, iterator *string, limit int32) *kinesis.GetRecordsOutput {
	t.Helper()
	in := &kinesis.GetRecordsInput{ShardIterator: iterator}
	if limit > 0 {
		in.Limit = &limit
	}
	out, err := c.GetRecords(t.Context(), in)
	must(t, err)
	return out
}

// read reads a shard of "orders" from an iterator of that type.
func read(t *testing.T, c *kinesis.Client, in *kinesis.GetShardIteratorInput) []string {
	t.Helper()
	return texts(get(t, c, getIterator(t, c, in), 0).Records)
}

func texts(records []types.Record) []string {
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = string(r.Data)
	}
	return out
}

// wantError wants the SDK's own type for an exception.
func wantError[E error](t *testing.T, err error) {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Errorf("got %v (%T) instead of a %T", err, err, e)
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code {
		t.Errorf("got %v instead of a %s", err, code)
	}
}

// serverTime is the Date header of an answer.
func serverTime(m middleware.Metadata) (time.Time, bool) { return awsmiddleware.GetServerTime(m) }
