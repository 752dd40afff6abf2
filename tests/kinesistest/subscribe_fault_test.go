package kinesistest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
)

func TestEveryExceptionInsideASubscriptionIsTheSDKsOwnType(t *testing.T) {
	s, c, _, arn := fanOut(t, 1, WithSubscriptionTimes(quick))
	put(t, s, "k", "a")
	fails := func(code string) error {
		t.Helper()
		s.Inject(Fault{Operation: "SubscribeToShard", Kind: FailLater, Events: 1, Code: code, Message: "because of " + code})
		got, _, err := subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON")).end()
		wantCode(t, err, inStream(code))
		var e smithy.APIError
		if !slices.Equal(got, []string{"a"}) || !errors.As(err, &e) || e.ErrorMessage() != "because of "+code {
			t.Errorf("got %q, then %v", got, err)
		}
		return err
	}
	wantError[*types.InternalFailureException](t, fails(InternalFailure))
	wantError[*types.KMSAccessDeniedException](t, fails(KMSAccessDenied))
	wantError[*types.KMSDisabledException](t, fails(KMSDisabled))
	wantError[*types.KMSInvalidStateException](t, fails(KMSInvalidState))
	wantError[*types.KMSNotFoundException](t, fails(KMSNotFound))
	wantError[*types.KMSOptInRequired](t, fails(KMSOptInRequired))
	wantError[*types.KMSThrottlingException](t, fails(KMSThrottling))
	wantError[*types.ResourceInUseException](t, fails(ResourceInUse))
	wantError[*types.ResourceNotFoundException](t, fails(ResourceNotFound))
	fails(ServiceUnavailable) // one that the API does not declare there
}

func TestACallOfSubscribeToShardFailsLikeAnyOther(t *testing.T) {
	s, c, _, arn := fanOut(t, 2)
	s.Inject(Fault{Operation: "SubscribeToShard", Shard: shard1, Code: InternalFailure})
	s.Inject(Fault{Operation: "SubscribeToShard", Stream: "orders", Shard: shard1, Code: LimitExceeded})
	call := func(shard string) error {
		out, err := c.SubscribeToShard(t.Context(), subscribeInput(arn, shard, "LATEST"), OwnCodec)
		if err == nil {
			out.GetStream().Close()
		}
		return err
	}
	wantCode(t, call(shard1), InternalFailure)
	must(t, call(shard0))
	wantError[*types.LimitExceededException](t, call(shard1))
	must(t, call(shard1)) // a call that failed on purpose took no seat and is none against the rate
	if n := s.Counts()[Call{"SubscribeToShard", "orders", shard1}]; n != 3 {
		t.Errorf("counted %d calls", n)
	}
}

func TestASubscriptionCanBeCutOrEndAtAnyByte(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			s, _, _, arn := fanOut(t, 1, append(tr.options, WithSubscriptionTimes(quick))...)
			c := tr.client(s)
			put(t, s, "k", "a")
			_, err := s.SplitShard("orders", shard0) // one event, and the end
			must(t, err)
			whole := len(*encodeEvent(wholeEvent(s)))
			kinds := []Fault{{Kind: End}, {Kind: Cut}, {Kind: Cut, Connection: true}}
			for _, kind := range kinds {
				// Of the first event: nothing, within its prelude, its headers, its payload, its checksum; whole but for a byte.
				for _, bytes := range []int{0, 1, 11, 12, 60, 200, whole - 4, whole - 1} {
					f := kind
					f.Operation, f.Bytes = "SubscribeToShard", bytes
					s.Inject(f)
					got, last, err := subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON")).end()
					if len(got) != 0 || last != nil {
						t.Fatalf("%+v: a part of an event came as %q", f, got)
					}
					// For certain the SDK tells the reset of an HTTP/2 stream. A closed connection is a clean end to it, unless the
					// kernel has sent a reset because of something unread.
					if told := kind.Kind == Cut && tr.major == 2 && !kind.Connection; told != (err != nil) && !kind.Connection {
						t.Errorf("%+v: %v", f, err)
					}
				}
			}
			s.Inject(Fault{Operation: "SubscribeToShard", Kind: Cut, Bytes: whole})
			got, last, _ := subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON")).end()
			if !slices.Equal(got, []string{"a"}) || last.ChildShards == nil {
				t.Errorf("cut behind the event: got %q", got)
			}
			// From the body's first byte: the initial response too.
			for _, kind := range kinds {
				for _, bytes := range []int{0, 1, 30, len(initialResponse) - 1} {
					f := kind
					f.Operation, f.Bytes, f.Events = "SubscribeToShard", bytes, -1
					s.Inject(f)
					out, err := c.SubscribeToShard(t.Context(), subscribeInput(arn, shard0, "TRIM_HORIZON"), OwnCodec)
					if err == nil {
						out.GetStream().Close()
						t.Errorf("%+v: subscribed", f)
					}
				}
			}
			if _, last, err := subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON")).end(); err != nil || last.ChildShards == nil {
				t.Errorf("without a fault: %+v, %v", last, err)
			}
		})
	}
}

// wholeEvent is the event of a shard's record and its end.
func wholeEvent(s *Server) *event {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.streams["orders"].shards[0]
	rd := sh.readFrom(0, maxReadRecords, maxEventBytes, s.now(), 0)
	return &event{reading: rd, children: sh.childShards()}
}

func TestAStalledSubscriptionStaysOpenAndSilent(t *testing.T) {
	for _, tr := range transports {
		for _, connection := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the connection %t", tr.name, connection), func(t *testing.T) {
				s, _, _, arn := fanOut(t, 1, append(tr.options, WithSubscriptionTimes(SubscriptionTimes{CallEvery: -1, TakeOver: -1, Heartbeat: time.Millisecond}))...)
				c := tr.client(s)
				put(t, s, "k", "a")
				fault := s.Inject(Fault{Operation: "SubscribeToShard", Kind: Stall, Events: 1, Bytes: 20, Connection: connection})
				sub := subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON"))
				sub.take(1)
				put(t, s, "k", "b")
				select {
				case e := <-sub.stream.Events():
					t.Fatalf("got %v: %v", e, sub.stream.Err())
				case <-time.After(50 * time.Millisecond):
				}
				// Calls over the same connection are answered, unless it is the connection that is stalled. HTTP/1.1 opens another.
				answers, limit := !connection || tr.major == 1, patience
				if !answers {
					limit = 200 * time.Millisecond
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				if _, err := c.ListStreams(ctx, nil); (err == nil) != answers {
					t.Errorf("another call: %v", err)
				}
				fault.Remove()
				if got, _, _ := sub.end(); len(got) > 0 {
					t.Errorf("after all: %q", got)
				}
			})
		}
	}
}

func TestSlowBytesOfASubscriptionArriveWhole(t *testing.T) {
	s, c, _, arn := fanOut(t, 1, WithSubscriptionTimes(quick))
	put(t, s, "k", "a", "b")
	s.Inject(Fault{Operation: "SubscribeToShard", Kind: Trickle, Bytes: 16, Delay: 50 * time.Microsecond})
	sub := subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON"))
	if got := sub.take(2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q", got)
	}
	put(t, s, "k", "c")
	sub.take(1)
	// The call itself may be slow, hang, or be lost.
	s.Inject(Fault{Operation: "SubscribeToShard", Kind: Slow, Delay: time.Millisecond})
	subscribe(t, c, subscribeInput(arn, shard0, "TRIM_HORIZON")).take(3)
	fault := s.Inject(Fault{Operation: "SubscribeToShard", Kind: Hang})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-fault.Hit()
		cancel()
	}()
	if _, err := c.SubscribeToShard(ctx, subscribeInput(arn, shard0, "TRIM_HORIZON"), OwnCodec); !errors.Is(err, context.Canceled) {
		t.Errorf("hanging: %v", err)
	}
	// A fault of subscriptions leaves other calls alone, and waits for one.
	end := s.Inject(Fault{Kind: End})
	_, err := c.ListStreams(t.Context(), nil)
	must(t, err)
	if end.Hits() != 0 {
		t.Error("it has hit another call")
	}
}

// What the server writes in place is what the SDK's encoder would have written.
func TestFramesAreTheSDKsOwn(t *testing.T) {
	s, _, _, _ := fanOut(t, 1)
	for i := range 50 {
		key := strings.Repeat("k", i%20+1)
		_, err := s.Put("orders", key+"\u00e9\u2028<>\"", []byte(strings.Repeat("x", i*i)))
		must(t, err)
	}
	_, err := s.SplitShard("orders", shard0)
	must(t, err)
	for _, ev := range []*event{wholeEvent(s), {continuation: "123"}} {
		frame := *encodeEvent(ev)
		payload := frame[len(eventPrefix) : len(frame)-4]
		if want := encodeFrame(eventHeaders("SubscribeToShardEvent"), payload); !slices.Equal(frame, want) {
			t.Errorf("the frame is %q instead of %q", frame[:80], want[:80])
		}
	}
}

func TestASubscriptionIsAnsweredWithTheEventStreamsType(t *testing.T) {
	s, _, _, arn := fanOut(t, 1, WithSubscriptionTimes(SubscriptionTimes{Life: time.Millisecond, Heartbeat: -1}))
	body := fmt.Sprintf(`{"ConsumerARN":%q,"ShardId":%q,"StartingPosition":{"Type":"LATEST"}}`, arn, shard0)
	r, err := http.NewRequest(http.MethodPost, s.URL(), strings.NewReader(body))
	must(t, err)
	r.Header.Set("X-Amz-Target", targetPrefix+"SubscribeToShard")
	response, err := (&http.Client{Transport: s.transport}).Do(r)
	must(t, err)
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	must(t, err)
	if response.Header.Get("Content-Type") != "application/vnd.amazon.eventstream" || response.Header.Get("X-Amzn-Requestid") == "" || !slices.Equal(got, initialResponse) {
		t.Errorf("%v: %q", response.Header, got)
	}
}

func TestAReplayedStreamIsSubscribedToLikeAStoredOne(t *testing.T) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			s, _, _ := start(t, 0, append(tr.options, WithSubscriptionTimes(quick))...)
			const perShard = 1500
			rp, err := s.CreateReplay("bench", ReplayOptions{Shards: 2, RecordSize: 200, PerShard: perShard, PerResponse: 400})
			must(t, err)
			arn, err := s.RegisterConsumer("bench", "reader")
			must(t, err)
			c := tr.client(s)
			for shard := range 2 {
				in := subscribeInput(arn, shardID(uint32(shard)), "TRIM_HORIZON")
				sub := subscribe(t, c, in)
				var continuation string
				number := uint64(0)
				read := func(until uint64) {
					t.Helper()
					for number < until {
						e := sub.next()
						for _, r := range e.Records {
							gotShard, n, err := rp.Check(*r.PartitionKey, r.Data)
							if err != nil || gotShard != shard || n != number+1 {
								t.Fatalf("after record %d of shard %d came %d of %d: %v", number, shard, n, gotShard, err)
							}
							number = n
						}
						if len(e.Records) > 400 || len(e.Records) == 0 || *e.ContinuationSequenceNumber != *e.Records[len(e.Records)-1].SequenceNumber {
							t.Fatalf("an event of %d records, up to %s", len(e.Records), *e.ContinuationSequenceNumber)
						}
						continuation = *e.ContinuationSequenceNumber
					}
				}
				read(perShard / 2)
				must(t, sub.stream.Close())
				in = subscribeInput(arn, shardID(uint32(shard)), "AFTER_SEQUENCE_NUMBER")
				in.StartingPosition.SequenceNumber = &continuation
				sub = subscribe(t, c, in)
				read(perShard)
				select {
				case e := <-sub.stream.Events():
					t.Errorf("after the last record: %v", e)
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
}
