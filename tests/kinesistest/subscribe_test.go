package kinesistest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
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
	case <-time.After(patience):
		s.t.Fatal("no event")
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

// awaitSubscriptions waits until that many are served: the server learns a little later than the client that one has ended.
func awaitSubscriptions(t *testing.T, s *Server, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(s.Subscriptions("")) != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d subscriptions instead of %d", len(s.Subscriptions("")), n)
		}
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

func TestASubscriptionStartsWhereItIsTold(t *testing.T) {
	for _, tc := range []struct {
		kind types.ShardIteratorType
		of   int           // for the number of that record, −1 for the shard's start
		at   time.Duration // after noon
		want []string
	}{
		{kind: "TRIM_HORIZON", want: []string{"0", "1", "2", "3", "4"}},
		{kind: "LATEST"},
		{kind: "AT_SEQUENCE_NUMBER", of: 2, want: []string{"2", "3", "4"}},
		{kind: "AFTER_SEQUENCE_NUMBER", of: 2, want: []string{"3", "4"}},
		{kind: "AFTER_SEQUENCE_NUMBER", of: -1, want: []string{"0", "1", "2", "3", "4"}},
		{kind: "AT_TIMESTAMP", at: 3 * time.Second, want: []string{"3", "4"}},
		{kind: "AT_TIMESTAMP", at: -time.Hour, want: []string{"0", "1", "2", "3", "4"}},
		{kind: "AT_TIMESTAMP", at: 5 * time.Second},
	} {
		s, c, clock, arn := fanOut(t, 1, WithSubscriptionTimes(quick))
		number := s.Shards("orders")[0].StartingSequence
		for i := range 5 {
			record := put(t, s, "k", fmt.Sprint(i))[0]
			if i == tc.of {
				number = record.SequenceNumber
			}
			clock.Advance(time.Second)
		}
		in := subscribeInput(arn, shard0, tc.kind)
		switch tc.kind {
		case "AT_TIMESTAMP":
			in.StartingPosition.Timestamp = aws.Time(noon.Add(tc.at))
		case "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER":
			in.StartingPosition.SequenceNumber = &number
		}
		sub := subscribe(t, c, in)
		put(t, s, "k", "end")
		if got := sub.take(len(tc.want) + 1); !slices.Equal(got, append(tc.want, "end")) {
			t.Errorf("%v: got %q", tc, got)
		}
	}
}

func TestEmptyEventsTellProgressThatCanBeResumedFrom(t *testing.T) {
	s, c, clock, arn := fanOut(t, 1, WithSubscriptionTimes(SubscriptionTimes{CallEvery: -1, TakeOver: -1, Heartbeat: time.Millisecond}))
	last := put(t, s, "k", "before")[0].SequenceNumber
	sub := subscribe(t, c, subscribeInput(arn, shard0, "LATEST"))
	from := subscribeInput(arn, shard0, "AFTER_SEQUENCE_NUMBER")
	for i := range 3 {
		clock.Advance(time.Minute)
		e := sub.next()
		for number := *e.ContinuationSequenceNumber; number <= last; number = *e.ContinuationSequenceNumber {
			e = sub.next() // any number of them may be under way, and older than the clock
		}
		if len(e.Records) != 0 || e.ChildShards != nil || *e.MillisBehindLatest != 0 {
			t.Fatalf("heartbeat %d is %+v after %s", i, e, last)
		}
		from.StartingPosition.SequenceNumber = e.ContinuationSequenceNumber
		last = *e.ContinuationSequenceNumber
	}
	record := put(t, s, "k", "after")[0]
	if record.SequenceNumber <= last {
		t.Errorf("the next record's number %s is not above %s", record.SequenceNumber, last)
	}
	if got := subscribe(t, c, from).take(1); !slices.Equal(got, []string{"after"}) {
		t.Errorf("resumed with %q", got)
	}
}

func TestASubscriptionEndsCleanlyWhenItsLifeIsOver(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			times := quick
			times.Life = 30 * time.Millisecond
			s, _, _, arn := fanOut(t, 1, append(tr.options, WithSubscriptionTimes(times))...)
			put(t, s, "k", "a")
			// A life may be over before its first event, on a machine that stands still; the next one has its own chance.
			for deadline := time.Now().Add(patience); ; {
				got, last, err := subscribe(t, tr.client(s), subscribeInput(arn, shard0, "TRIM_HORIZON")).end()
				if err != nil {
					t.Fatal(err)
				}
				if last == nil && time.Now().Before(deadline) {
					continue
				}
				if !slices.Equal(got, []string{"a"}) || last.ContinuationSequenceNumber == nil {
					t.Errorf("got %q, %+v", got, last)
				}
				break
			}
		})
	}
}

func TestSubscriptionsEndWhenTheyAreTold(t *testing.T) {
	s, c, _, arn := fanOut(t, 2, WithSubscriptionTimes(quick))
	a, b := subscribe(t, c, subscribeInput(arn, shard0, "LATEST")), subscribe(t, c, subscribeInput(arn, shard1, "LATEST"))
	if n := s.EndSubscriptions("other", "", ""); n != 0 {
		t.Errorf("%d of another stream ended", n)
	}
	if n := s.EndSubscriptions("orders", shard0, ""); n != 1 {
		t.Errorf("%d ended", n)
	}
	if _, _, err := a.end(); err != nil {
		t.Error(err)
	}
	if n := s.EndSubscriptions("", "", KMSThrottling); n < 1 {
		t.Errorf("%d ended", n)
	}
	_, _, err := b.end()
	wantError[*types.KMSThrottlingException](t, err)
}

func TestOneSubscriptionAtATime(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			s, _, clock, arn := fanOut(t, 2, tr.options...)
			c := tr.client(s)
			in := subscribeInput(arn, shard0, "LATEST")
			call := func() error {
				_, err := c.SubscribeToShard(t.Context(), in, OwnCodec)
				return err
			}
			first := subscribe(t, c, in)
			wantError[*types.LimitExceededException](t, call()) // one call a second
			clock.Advance(time.Second)
			wantError[*types.ResourceInUseException](t, call()) // taken
			wantError[*types.LimitExceededException](t, call()) // the refused one was a call too
			subscribe(t, c, subscribeInput(arn, shard1, "LATEST"))
			other, err := s.RegisterConsumer("orders", "other")
			must(t, err)
			subscribe(t, c, subscribeInput(other, shard0, "LATEST"))
			clock.Advance(3999 * time.Millisecond)
			wantError[*types.ResourceInUseException](t, call())
			put(t, s, "k", "a", "b")
			clock.Advance(time.Second)
			second := subscribe(t, c, in)
			_, _, err = first.end() // it has been taken over
			wantError[*types.ResourceInUseException](t, err)
			awaitSubscriptions(t, s, 3)
			// That the client has left is no reason to let it in sooner.
			must(t, second.stream.Close())
			clock.Advance(time.Second)
			wantError[*types.ResourceInUseException](t, call())
			clock.Advance(4 * time.Second)
			subscribe(t, c, in)
		})
	}
}

func TestWhatCannotBeSubscribedToIsRefused(t *testing.T) {
	s, c, _, arn := fanOut(t, 1, WithSubscriptionTimes(quick))
	call := func(in *kinesis.SubscribeToShardInput) error {
		_, err := c.SubscribeToShard(t.Context(), in, OwnCodec)
		return err
	}
	wantError[*types.ResourceNotFoundException](t, call(subscribeInput(arn, shard1, "LATEST")))
	wantError[*types.ResourceNotFoundException](t, call(subscribeInput(arn+"0", shard0, "LATEST")))
	wantCode(t, call(subscribeInput(s.streamARN("orders"), shard0, "LATEST")), Validation)
	wantCode(t, call(subscribeInput(arn, shard0, "SOMEWHERE")), Validation)
	in := subscribeInput(arn, shard0, "AT_TIMESTAMP")
	wantError[*types.InvalidArgumentException](t, call(in))
	in.StartingPosition.Timestamp = new(time.Time)
	*in.StartingPosition.Timestamp = noon.Add(time.Hour)
	wantError[*types.InvalidArgumentException](t, call(in))
	in = subscribeInput(arn, shard0, "AFTER_SEQUENCE_NUMBER")
	wantError[*types.InvalidArgumentException](t, call(in))
	for _, bad := range []string{"0", "x", "49579844037727333356165064238440708846556371693205002258"} {
		in.StartingPosition.SequenceNumber = &bad
		wantError[*types.InvalidArgumentException](t, call(in))
	}
	in = subscribeInput(arn, shard0, "LATEST")
	dry := true
	in.DryRun = &dry
	wantError[*types.DryRunOperationException](t, call(in))
	if n := len(s.Subscriptions("")); n != 0 {
		t.Errorf("%d subscriptions", n)
	}
}

func TestASubscriptionLearnsThatItsStreamOrConsumerIsGone(t *testing.T) {
	for _, gone := range []func(*Server, *kinesis.Client, string) error{
		func(s *Server, _ *kinesis.Client, arn string) error { return s.DeregisterConsumer(arn) },
		func(s *Server, _ *kinesis.Client, _ string) error { return s.DeleteStream("orders") },
		func(s *Server, c *kinesis.Client, _ string) error {
			name, force := "orders", true
			_, err := c.DeleteStream(context.Background(), &kinesis.DeleteStreamInput{StreamName: &name, EnforceConsumerDeletion: &force})
			return err
		},
	} {
		s, c, _, arn := fanOut(t, 1, WithSubscriptionTimes(quick))
		put(t, s, "k", "a")
		sub := subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON"))
		sub.take(1)
		must(t, gone(s, c, arn))
		_, last, err := sub.end()
		wantError[*types.ResourceNotFoundException](t, err)
		if last != nil {
			t.Errorf("an event before that: %+v", last)
		}
	}
}

func TestEventsAreBoundedInSize(t *testing.T) {
	s, c, clock, arn := fanOut(t, 1, WithSubscriptionTimes(quick))
	_, err := c.UpdateMaxRecordSize(t.Context(), &kinesis.UpdateMaxRecordSizeInput{StreamARN: aws.String(s.streamARN("orders")), MaxRecordSizeInKiB: aws.Int32(10240)})
	must(t, err)
	var sizes []int
	for i := range 12 {
		sizes = append(sizes, 100<<10+i)
	}
	sizes = append(sizes, 10<<20-1, 3, 2<<20)
	for i, size := range sizes {
		data := make([]byte, size)
		data[0] = byte(i)
		_, err := s.Put("orders", "k", data)
		must(t, err)
	}
	clock.Advance(time.Minute)
	sub := subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON"))
	events := 0
	for i := 0; i < len(sizes); events++ {
		e := sub.next()
		total := 0
		for _, r := range e.Records {
			if len(r.Data) != sizes[i] || r.Data[0] != byte(i) {
				t.Fatalf("record %d has %d bytes", i, len(r.Data))
			}
			total += len(r.Data) + 1
			i++
		}
		if len(e.Records) == 0 || len(e.Records) > 1 && total > maxEventBytes {
			t.Errorf("an event of %d records and %d bytes", len(e.Records), total)
		}
		if behind := *e.MillisBehindLatest; (behind == 0) != (i == len(sizes)) {
			t.Errorf("%d ms behind after record %d of %d", behind, i, len(sizes))
		}
	}
	if events != 2+3 {
		t.Errorf("%d events", events)
	}
}

func TestRecordsPutWhileAReaderIsSlowAreNotLost(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			s, _, _, arn := fanOut(t, 1, append(tr.options, WithSubscriptionTimes(quick))...)
			sub := subscribe(t, tr.client(s), subscribeInput(arn, shard0, "TRIM_HORIZON"))
			const n = 300
			big := make([]byte, 2<<10)
			for i := range n {
				_, err := s.Put("orders", fmt.Sprint(i), big)
				must(t, err)
			}
			for i := 0; i < n; {
				e := sub.next()
				for _, r := range e.Records {
					if *r.PartitionKey != fmt.Sprint(i) {
						t.Fatalf("%s instead of %d", *r.PartitionKey, i)
					}
					i++
				}
			}
		})
	}
}

// A client that does not read is dropped, whatever the server still had for it.
func TestABlockedSubscriptionEndsWithItsLife(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			times := quick
			times.Life = 50 * time.Millisecond
			s, _, _, arn := fanOut(t, 1, append(tr.options, WithSubscriptionTimes(times))...)
			for range 64 {
				_, err := s.Put("orders", "k", make([]byte, 1<<20-1))
				must(t, err)
			}
			sub := subscribe(t, tr.client(s), subscribeInput(arn, shard0, "TRIM_HORIZON"))
			awaitSubscriptions(t, s, 0)
			must(t, sub.stream.Close())
		})
	}
}

func TestHiddenAndThrottledRecordsComeWhenTheClockSaysSo(t *testing.T) {
	s, c, clock, arn := fanOut(t, 1, WithSubscriptionTimes(quick), WithVisibilityDelay(time.Second), WithReadLimits())
	sub := subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON"))
	for range 5 {
		_, err := s.Put("orders", "k", make([]byte, 1<<20-1))
		must(t, err)
	}
	arrived := 0
	quiet := func() {
		t.Helper()
		select {
		case e := <-sub.stream.Events():
			t.Fatalf("too soon: %v", e)
		case <-time.After(4 * recheck):
		}
	}
	quiet()
	clock.Advance(time.Second)
	for ; arrived < 2; arrived++ {
		sub.take(1)
	}
	quiet() // 2 MiB a second
	clock.Advance(time.Second)
	sub.take(2)
	clock.Advance(time.Second)
	sub.take(1)
}

func TestARestartedServerLosesItsSubscriptionsOnly(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			s, _, _, arn := fanOut(t, 1, append(tr.options, WithSubscriptionTimes(quick))...)
			c := tr.client(s)
			put(t, s, "k", "a")
			sub := subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON"))
			sub.take(1)
			s.Stop()
			sub.end()
			if n := len(s.Subscriptions("")); n != 0 {
				t.Errorf("%d subscriptions", n)
			}
			must(t, s.Restart())
			subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON")).take(1)
		})
	}
}

func TestWithLagSpeaksForEventsToo(t *testing.T) {
	s, c, _, arn := fanOut(t, 1, WithSubscriptionTimes(quick), WithLag(func(stream, shard string, actual time.Duration) time.Duration {
		return actual + time.Hour
	}))
	put(t, s, "k", "a")
	if e := subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON")).next(); *e.MillisBehindLatest != time.Hour.Milliseconds() {
		t.Errorf("%d ms behind", *e.MillisBehindLatest)
	}
}

func TestAClientOfItsOwnTrustsTheServerByItsPool(t *testing.T) {
	s, _, _, arn := fanOut(t, 1, WithTLS(), WithSubscriptionTimes(quick))
	put(t, s, "k", "a")
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CertPool()}} // without ForceAttemptHTTP2 it speaks HTTP/1.1
	defer transport.CloseIdleConnections()
	c := s.Client(func(o *kinesis.Options) { o.HTTPClient = &http.Client{Transport: WholeBodies(transport)} })
	subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON")).take(1)
	strange := &http.Transport{}
	defer strange.CloseIdleConnections()
	if _, err := s.Client(func(o *kinesis.Options) { o.HTTPClient = &http.Client{Transport: strange} }).ListStreams(t.Context(), nil); err == nil {
		t.Error("a client without the pool trusts the server")
	}
	if plain := NewServer(); plain.CertPool() != nil {
		t.Error("a server without TLS has a pool")
	} else {
		plain.Close()
	}
}
