package kinesistest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

// quick are times that let a test subscribe as it likes.
var quick = SubscriptionTimes{CallEvery: -1, TakeOver: -1, Heartbeat: -1}

// fanOut is a started server with the consumer "reader" of "orders".
func fanOut(t *testing.T, shards int, opts ...Option) (*Server, *kinesis.Client, *Clock, string) {
	t.Helper()
	s, c, clock := start(t, shards, opts...)
	arn, err := s.RegisterConsumer("orders", "reader")
	must(t, err)
	return s, c, clock, arn
}

func subscribeInput(arn, shard string, kind types.ShardIteratorType) *kinesis.SubscribeToShardInput {
	return &kinesis.SubscribeToShardInput{ConsumerARN: &arn, ShardId: &shard, StartingPosition: &types.StartingPosition{Type: kind}}
}

// subscribed is a subscription being read. It is closed with the test.
type subscribed struct {
	t      *testing.T
	stream *kinesis.SubscribeToShardEventStream
}

func subscribe(t *testing.T, c *kinesis.Client, in *kinesis.SubscribeToShardInput) *subscribed {
	t.Helper()
	out, err := c.SubscribeToShard(t.Context(), in, OwnCodec)
	must(t, err)
	t.Cleanup(func() { out.GetStream().Close() })
	return &subscribed{t, out.GetStream()}
}

// next waits for an event; nil at the end.
func (s *subscribed) next() *types.SubscribeToShardEvent {
	s.t.Helper()
	select {
	case e, ok := <-s.stream.Events():
		if !ok {
			return nil
		}
		return &e.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent).Value
	case <-time.After(20 * time.Second):
		s.t.Fatal("no event within 20 s")
		return nil
	}
}

// take waits for that many records.
func (s *subscribed) take(n int) []string {
	s.t.Helper()
	var got []string
	for len(got) < n {
		e := s.next()
		if e == nil {
			s.t.Fatalf("the subscription ended after %q: %v", got, s.stream.Err())
		}
		got = append(got, texts(e.Records)...)
	}
	return got
}

// end reads the rest, and returns the error at the end.
func (s *subscribed) end() (got []string, last *types.SubscribeToShardEvent, err error) {
	s.t.Helper()
	for {
		e := s.next()
		if e == nil {
			return got, last, s.stream.Err()
		}
		last = e
		got = append(got, texts(e.Records)...)
	}
}

// transports are the ways to reach a server: with an option for it, each.
var transports = []struct {
	name    string
	options []Option
	client  func(*Server) *kinesis.Client
	major   int
}{
	{"HTTP/1.1", nil, func(s *Server) *kinesis.Client { return s.Client() }, 1},
	{"HTTP/2 by prior knowledge", nil, func(s *Server) *kinesis.Client { return s.HTTP2Client() }, 2},
	{"HTTP/2 over TLS", []Option{WithTLS()}, func(s *Server) *kinesis.Client { return s.Client() }, 2},
}

func TestASubscriptionPushesRecordsAsTheyArePut(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			s, _, _, arn := fanOut(t, 2, append(tr.options, WithSubscriptionTimes(quick))...)
			c := tr.client(s)
			put(t, s, "k", "a", "b")
			shard := s.Records("orders")
			at := shard0
			if len(shard[shard1]) > 0 {
				at = shard1
			}
			sub := subscribe(t, c, subscribeInput(arn, at, "TRIM_HORIZON"))
			if got := sub.take(2); !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("got %q", got)
			}
			for i := range 20 {
				records := put(t, s, "k", fmt.Sprint(i))
				e := sub.next()
				if len(e.Records) != 1 || string(e.Records[0].Data) != fmt.Sprint(i) || *e.ContinuationSequenceNumber != records[0].SequenceNumber ||
					*e.Records[0].SequenceNumber != records[0].SequenceNumber || *e.Records[0].PartitionKey != "k" || *e.MillisBehindLatest != 0 || e.ChildShards != nil {
					t.Fatalf("event %d: %+v", i, e)
				}
			}
			if n := len(s.Subscriptions("orders")); n != 1 {
				t.Errorf("%d subscriptions", n)
			}
			must(t, sub.stream.Close())
		})
	}
}

func TestTheEndOfAShardIsToldOnceAndLast(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			s, _, _, arn := fanOut(t, 1, append(tr.options, WithSubscriptionTimes(quick))...)
			c := tr.client(s)
			live := subscribe(t, c, subscribeInput(arn, shard0, "LATEST"))
			put(t, s, "k", "a")
			if got := live.take(1); !slices.Equal(got, []string{"a"}) {
				t.Errorf("got %q", got)
			}
			children, err := s.SplitShard("orders", shard0)
			must(t, err)
			check := func(got []string, want []string, last *types.SubscribeToShardEvent, err error) {
				t.Helper()
				if err != nil || !slices.Equal(got, want) || last == nil || last.ContinuationSequenceNumber != nil || len(last.ChildShards) != 2 ||
					*last.ChildShards[0].ShardId != children[0] || *last.ChildShards[1].ShardId != children[1] || !slices.Equal(last.ChildShards[0].ParentShards, []string{shard0}) {
					t.Errorf("got %q, then %+v, %v", got, last, err)
				}
			}
			got, last, err := live.end()
			check(got, nil, last, err)
			got, last, err = subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON")).end()
			check(got, []string{"a"}, last, err)
		})
	}
}
