package retrieval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kpltest"
)

// directSubscriber subscribes with a consumer that is there.
type directSubscriber struct {
	client   *kinesis.Client
	decoding *Decoding
	arn      string
}

func (d directSubscriber) Subscribe(ctx context.Context, shard string, start *types.StartingPosition) (Subscription, error) {
	return Subscribe(ctx, d.client, d.decoding, d.arn, shard, start)
}

func (d directSubscriber) Missing(context.Context) error { return nil }

// fanBench is a bench whose shards are subscribed to.
type fanBench struct {
	*bench
	fan FanOutConfig
}

// noTakeOver lets tests subscribe again at once, as far as the spacing of calls does.
func noTakeOver(t kinesistest.SubscriptionTimes) kinesistest.Option {
	t.TakeOver = -1
	return kinesistest.WithSubscriptionTimes(t)
}

func newFanBench(t *testing.T, http2 bool, options ...kinesistest.Option) *fanBench {
	t.Helper()
	b := &fanBench{bench: newBench(t, options...)}
	arn, err := b.server.RegisterConsumer("stream", "consumer")
	if err != nil {
		t.Fatal(err)
	}
	client := b.server.Client()
	if http2 {
		client = b.server.HTTP2Client()
	}
	b.fan = FanOutConfig{
		Subscriber: directSubscriber{client, NewDecoding(16 << 20), arn}, Calls: NewCallSpacing(), Backoff: 50 * time.Millisecond, Budget: b.config.Budget,
	}
	return b
}

func (b *fanBench) reader(from From) *FanOut {
	f := NewFanOut(b.fan, shard0, kpl.HashRange{}, from)
	b.t.Cleanup(f.Close)
	return f
}

func transports(t *testing.T, test func(t *testing.T, http2 bool)) {
	t.Parallel()
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, http2)
		})
	}
}

func TestFanOutReadsRecordsAsTheyAre(t *testing.T) {
	transports(t, func(t *testing.T, http2 bool) {
		b := newFanBench(t, http2)
		put := b.put("one", "", "\x00\xff")
		f := b.reader(horizon())
		records, _ := b.read(f, 3)
		for i, r := range records {
			if string(r.Data) != string(put[i].Data) || r.Data == nil || r.Position.Sequence != put[i].SequenceNumber || r.PartitionKey != "key" || r.Encryption != "NONE" {
				t.Errorf("record %d is %+v, put was %+v", i, r, put[i])
			}
			if got := r.Arrival.Sub(put[i].Arrival).Abs(); got > time.Millisecond {
				t.Errorf("record %d arrived %s off", i, got)
			}
		}
		b.put("pushed")
		b.expect(f, "pushed")
		if bytes, queued := b.fan.Budget.Held(); bytes != 0 || queued != 0 {
			t.Errorf("%d bytes and %d records stay charged", bytes, queued)
		}
	})
}

func TestFanOutStartsAtEveryPosition(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var mu sync.Mutex
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	b := newFanBench(t, true, kinesistest.WithClock(clock), noTakeOver(kinesistest.SubscriptionTimes{CallEvery: -1}))
	put := b.put("1", "2")
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	b.put("3")
	b.expect(b.reader(From{After: checkpoint.Position{Sequence: put[0].SequenceNumber}}), "2 3")
	b.expect(b.reader(From{Kind: checkpoint.AtTimestamp, Time: clock().Add(-time.Second)}), "3")
}

func TestFanOutGoesOnInsideAnAggregatedRecord(t *testing.T) {
	t.Parallel()
	b := newFanBench(t, true, noTakeOver(kinesistest.SubscriptionTimes{}))
	var users []kpltest.Record
	for i := range 6 {
		users = append(users, kpltest.Record{PartitionKey: fmt.Sprint("user ", i), Data: []byte(fmt.Sprint(i))})
	}
	b.put("plain", string(kpltest.Aggregate(users)), "last")
	records, _ := b.expect(b.reader(horizon()), "plain 0 1 2 3 4 5 last")
	b.expect(b.reader(From{After: records[4].Position}), "4 5 last")
}

// Whatever happens to calls and subscriptions, no record is lost, repeated, or out of order, and nothing ends the shard.
func TestFanOutSurvivesEveryFault(t *testing.T) {
	var faults []kinesistest.Fault
	fault := func(f kinesistest.Fault) {
		f.Operation = "SubscribeToShard"
		faults = append(faults, f)
	}
	for _, code := range []string{
		"InternalFailure", "KMSAccessDeniedException", "KMSDisabledException", "KMSInvalidStateException", "KMSNotFoundException",
		"KMSOptInRequired", "KMSThrottlingException", "ResourceInUseException", "ResourceNotFoundException",
	} {
		fault(kinesistest.Fault{Kind: kinesistest.FailLater, Code: code, Events: 0})
		fault(kinesistest.Fault{Kind: kinesistest.FailLater, Code: code, Events: 2})
	}
	for _, code := range []string{"LimitExceededException", "ResourceInUseException", "ResourceNotFoundException", "InvalidArgumentException", "AccessDeniedException"} {
		fault(kinesistest.Fault{Kind: kinesistest.Fail, Code: code})
	}
	fault(kinesistest.Fault{Kind: kinesistest.Fail, Code: "InternalFailure", Status: 500})
	fault(kinesistest.Fault{Kind: kinesistest.Cut, Events: -1, Bytes: 0})
	for _, bytes := range []int{0, 1, 11, 13, 60, 200} { // at a frame's end, inside prelude, headers and payload
		fault(kinesistest.Fault{Kind: kinesistest.Cut, Events: -1, Bytes: bytes + 1})
		fault(kinesistest.Fault{Kind: kinesistest.Cut, Events: 1, Bytes: bytes})
		fault(kinesistest.Fault{Kind: kinesistest.Cut, Events: 1, Bytes: bytes, Connection: true})
		fault(kinesistest.Fault{Kind: kinesistest.End, Events: 1, Bytes: bytes})
	}
	fault(kinesistest.Fault{Kind: kinesistest.End, Events: 0})
	fault(kinesistest.Fault{Kind: kinesistest.Trickle, Bytes: 50, Delay: time.Millisecond})
	for _, f := range faults {
		t.Run(fmt.Sprintf("%d/%s/%d.%d.%v", f.Kind, f.Code, f.Events, f.Bytes, f.Connection), func(t *testing.T) {
			transports(t, func(t *testing.T, http2 bool) {
				b := newFanBench(t, http2, noTakeOver(kinesistest.SubscriptionTimes{Heartbeat: 50 * time.Millisecond}))
				hit := b.server.Inject(f)
				var want []string
				for i := range 30 {
					want = append(want, strconv.Itoa(i))
				}
				stop := make(chan struct{})
				defer close(stop)
				b.put(want[:10]...)
				go func() {
					for i := 10; i < 30; i++ {
						select {
						case <-time.After(20 * time.Millisecond):
							_, _ = b.server.Put("stream", "key", []byte(want[i]))
						case <-stop:
							return
						}
					}
				}()
				b.expect(b.reader(horizon()), strings.Join(want, " "))
				if hit.Hits() == 0 {
					t.Fatal("the fault did not happen")
				}
			})
		})
	}
}

func TestFanOutIsRenewedWithoutAGapAUserCouldSee(t *testing.T) {
	transports(t, func(t *testing.T, http2 bool) {
		const life = 1200 * time.Millisecond
		b := newFanBench(t, http2, noTakeOver(kinesistest.SubscriptionTimes{Life: life}))
		f := b.reader(horizon())
		stop, done := make(chan struct{}), make(chan int)
		go func() {
			n := 0
			for {
				select {
				case <-stop:
					done <- n
					return
				case <-time.After(2 * time.Millisecond):
					_, _ = b.server.Put("stream", "key", []byte(strconv.Itoa(n)))
					n++
				}
			}
		}()
		var got []Record
		var delays []time.Duration
		renewals := func() int { return b.server.Count("SubscribeToShard") - 1 }
		for began := time.Now(); time.Since(began) < 4*life || renewals() < 3; {
			records, errs := b.read(f, 1)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			for _, r := range records {
				delays = append(delays, time.Since(r.Arrival))
			}
			got = append(got, records...)
		}
		close(stop)
		if n := <-done; len(got) < n {
			rest, _ := b.read(f, n-len(got))
			got = append(got, rest...)
		}
		for i, r := range got {
			if string(r.Data) != strconv.Itoa(i) {
				t.Fatalf("record %d is %s", i, r.Data)
			}
		}
		slices.Sort(delays)
		t.Logf("%d renewals, %d records; from a record's arrival to its reading: p50 %s, p99 %s, at most %s", renewals(), len(got), delays[len(delays)/2], delays[len(delays)*99/100], delays[len(delays)-1])
	})
}

func TestFanOutWaitsUntilKinesisLetsGoOfTheSubscriptionBefore(t *testing.T) {
	t.Parallel()
	clock := kinesistest.NewClock(time.Now())
	b := newFanBench(t, true, kinesistest.WithClock(clock.Now), kinesistest.WithSubscriptionTimes(kinesistest.SubscriptionTimes{CallEvery: -1}))
	b.put("1")
	first := b.reader(horizon())
	records, _ := b.expect(first, "1")
	b.put("2")
	second := b.reader(From{After: records[0].Position})
	for range 2 {
		if read, err := second.Next(b.ctx, always(true)); !isInUse(err) {
			t.Fatalf("got %v, %v", read, err)
		}
	}
	clock.Advance(5 * time.Second)
	b.expect(second, "2")
	// The first reader finds its subscription taken over, and takes it back as long as nobody tells it to stop.
	if _, err := first.Next(b.ctx, always(true)); err != nil && !isInUse(err) {
		t.Fatalf("got %v", err)
	}
}

func TestFanOutEndsAShardThatWasSplitAndNotOneWhoseStreamIsGone(t *testing.T) {
	transports(t, func(t *testing.T, http2 bool) {
		b := newFanBench(t, http2, noTakeOver(kinesistest.SubscriptionTimes{}))
		b.put("1", "2")
		f := b.reader(horizon())
		b.expect(f, "1 2")
		children, err := b.server.SplitShard("stream", shard0)
		if err != nil {
			t.Fatal(err)
		}
		read, err := f.Next(b.ctx, always(true))
		for err == nil && !read.Ended {
			read, err = f.Next(b.ctx, always(true))
		}
		if err != nil || len(read.Children) != 2 || read.Children[0].ID != children[0] || read.Children[0].Parents[0] != shard0 || read.Children[0].StartingHashKey != "0" {
			t.Fatalf("got %+v, %v", read, err)
		}
		child := NewFanOut(b.fan, children[0], kpl.HashRange{}, horizon())
		defer child.Close()
		time.AfterFunc(100*time.Millisecond, func() { _ = b.server.DeleteStream("stream") })
		for err == nil {
			read, err = child.Next(b.ctx, always(true))
		}
		if !errors.Is(err, ErrNotFound) || read.Ended {
			t.Fatalf("got %+v, %v", read, err)
		}
	})
}

func TestSubscriptionsOfOneClientDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	b := newFanBench(t, true)
	if err := b.server.CreateStream("wide", 16); err != nil {
		t.Fatal(err)
	}
	arn, err := b.server.RegisterConsumer("wide", "consumer")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 800 {
		if _, err := b.server.Put("wide", strconv.Itoa(i), []byte(strings.Repeat("x", i))); err != nil {
			t.Fatal(err)
		}
	}
	config := b.fan
	direct := config.Subscriber.(directSubscriber)
	direct.arn = arn
	config.Subscriber = direct
	var wg sync.WaitGroup
	for shard, put := range b.server.Records("wide") {
		wg.Go(func() {
			f := NewFanOut(config, shard, kpl.HashRange{}, horizon())
			defer f.Close()
			records, errs := b.read(f, len(put))
			for i, r := range records {
				if string(r.Data) != string(put[i].Data) || r.PartitionKey != put[i].PartitionKey {
					t.Errorf("record %d of %s is not what was put", i, shard)
				}
			}
			if len(errs) > 0 {
				t.Error(errs)
			}
		})
	}
	wg.Wait()
}

// A reader that nobody asks holds nothing but the window of its connection, however much there is to read.
func TestI8NothingIsDecodedAhead(t *testing.T) {
	t.Parallel()
	b := newFanBench(t, true)
	var put []string
	for i := range 8 {
		put = append(put, strings.Repeat(strconv.Itoa(i), 900<<10))
	}
	b.put(put...)
	s, err := b.fan.Subscriber.Subscribe(t.Context(), shard0, &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 3 {
		event, err := s.Next(t.Context())
		if err != nil || len(event.Records) == 0 {
			t.Fatalf("got %v, %v", event, err)
		}
		select {
		case <-s.(*subscription).stream.Events():
			t.Fatal("an event lies ready that nobody has asked for")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Large events of many shards are decoded a few at a time, also such that are larger than the bound, and one that stops in
// the middle keeps its room only until it is given up.
func TestI8LargeEventsAreDecodedAFewAtATime(t *testing.T) {
	t.Parallel()
	b := newFanBench(t, true, noTakeOver(kinesistest.SubscriptionTimes{}))
	direct := b.fan.Subscriber.(directSubscriber)
	direct.decoding = NewDecoding(256 << 10)
	b.fan.Subscriber = direct
	large := strings.Repeat("x", 200<<10)
	b.put(large, large)
	stalled := b.server.Inject(kinesistest.Fault{Operation: "SubscribeToShard", Kind: kinesistest.Stall, Events: 0, Bytes: 100 << 10})
	ctx, cancel := context.WithCancel(b.ctx)
	first := b.reader(horizon())
	done := make(chan error, 1)
	go func() {
		_, err := first.Next(ctx, always(true))
		done <- err
	}()
	<-stalled.Hit()
	for direct.decoding.room.TryAcquire(256 << 10) { // until the event has begun
		direct.decoding.room.Release(256 << 10)
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	first.Close()
	b.expect(b.reader(horizon()), large+" "+large)
	if !direct.decoding.room.TryAcquire(256 << 10) {
		t.Fatal("room is kept for good")
	}
}
