package retrieval

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
)

// script is a Subscriber whose answers the test gives, one for each call. Time is simulated.
type script struct {
	t       *testing.T
	budget  *Budget
	answers chan answer
	missing error // what Missing returns

	calls  []call
	closed int
}

type call struct {
	at    time.Duration // since the script began
	start string
}

// answer is a subscription, or the error of the call.
type answer struct {
	events chan any // *types.SubscribeToShardEvent, error; closed: the subscription ends
	err    error
	slow   time.Duration
}

// newScript must be called in a synctest bubble.
func newScript(t *testing.T, answers ...answer) (*script, *FanOut) {
	s := &script{t: t, budget: NewBudget(64<<20, 1000), answers: make(chan answer, 100)}
	for _, a := range answers {
		s.answers <- a
	}
	began := time.Now()
	config := FanOutConfig{Subscriber: &scripted{s, began}, Calls: NewCallSpacing(), Backoff: 3 * time.Second, Budget: s.budget}
	f := NewFanOut(config, shard0, kpl.HashRange{}, horizon())
	t.Cleanup(f.Close)
	return s, f
}

type scripted struct {
	*script
	began time.Time
}

func (s *scripted) Missing(context.Context) error { return s.missing }

func (s *scripted) Subscribe(ctx context.Context, shard string, start *types.StartingPosition) (Subscription, error) {
	c := call{at: time.Since(s.began), start: string(start.Type)}
	if start.SequenceNumber != nil {
		c.start += " " + *start.SequenceNumber
	}
	s.calls = append(s.calls, c)
	select {
	case a := <-s.answers:
		if a.slow > 0 {
			select {
			case <-time.After(a.slow):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if a.err != nil {
			return nil, a.err
		}
		return &scriptedSubscription{s.script, ctx, a.events}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type scriptedSubscription struct {
	script *script
	live   context.Context
	events chan any
}

func (s *scriptedSubscription) Next(ctx context.Context) (*types.SubscribeToShardEvent, error) {
	select {
	case e, ok := <-s.events:
		switch e := e.(type) {
		case *types.SubscribeToShardEvent:
			return e, nil
		case error:
			return nil, e
		}
		if !ok {
			return nil, io.EOF
		}
		panic("a bad script")
	case <-s.live.Done():
		return nil, s.live.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *scriptedSubscription) Close() { s.script.closed++ }

// lasting is a subscription that brings what is given and stays.
func lasting(events ...any) answer {
	a := answer{events: make(chan any, 1000)}
	for _, e := range events {
		a.events <- e
	}
	return a
}

// ending is a subscription that brings what is given and ends cleanly.
func ending(events ...any) answer {
	a := lasting(events...)
	close(a.events)
	return a
}

func failing(err error) answer { return answer{err: err} }

// records is an event with the records of the given numbers.
func records(numbers ...int) *types.SubscribeToShardEvent {
	e := &types.SubscribeToShardEvent{MillisBehindLatest: aws.Int64(0)}
	for _, n := range numbers {
		e.Records = append(e.Records, types.Record{
			SequenceNumber: aws.String(strconv.Itoa(n)), PartitionKey: aws.String("k"), Data: []byte(strconv.Itoa(n)),
		})
	}
	e.ContinuationSequenceNumber = e.Records[len(numbers)-1].SequenceNumber
	return e
}

// heartbeat is an event without records.
func heartbeat(continuation int) *types.SubscribeToShardEvent {
	return &types.SubscribeToShardEvent{MillisBehindLatest: aws.Int64(0), ContinuationSequenceNumber: aws.String(strconv.Itoa(continuation))}
}

// expect calls Next until so many payloads have come, and returns the errors on the way.
func (s *script) expect(f *FanOut, want ...int) (errs []error) {
	s.t.Helper()
	var got []int
	for len(got) < len(want) {
		read, err := f.Next(s.t.Context(), always(true))
		if err != nil {
			errs = append(errs, err)
			if len(errs) > 100 {
				s.t.Fatalf("got %v of %v, and errors, the last: %v", got, want, err)
			}
			continue
		}
		for i := range read.Records {
			n, _ := strconv.Atoi(string(read.Records[i].Data))
			got = append(got, n)
		}
		s.deliver(read)
	}
	if !slices.Equal(got, want) {
		s.t.Fatalf("got %v, want %v", got, want)
	}
	return errs
}

// deliver gives back what a read brought.
func (s *script) deliver(read Read) {
	for i := range read.Records {
		s.budget.Release(read.Records[i].Charge())
	}
	s.budget.HandedOut(len(read.Records))
}

func (s *script) balanced() {
	s.t.Helper()
	if bytes, records := s.budget.Held(); bytes != 0 || records != 0 {
		s.t.Errorf("%d bytes and %d records stay charged", bytes, records)
	}
}

func TestASubscriptionIsRenewedAtOnceWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := lasting(records(1, 2)), lasting(records(3))
		beats := make(chan int, 200) // the continuation numbers of their empty events
		for i := range 120 {
			beats <- 100 + i
		}
		s, f := newScript(t, first, second, ending(heartbeat(9)), lasting(records(10)))
		go func() {
			for _, a := range []answer{first, second} {
				for range 60 {
					time.Sleep(5 * time.Second)
					a.events <- heartbeat(<-beats)
				}
				close(a.events)
			}
		}()
		if errs := s.expect(f, 1, 2, 3, 10); len(errs) > 0 {
			t.Fatalf("the end of its time is no error: %v", errs)
		}
		want := []call{
			{0, "TRIM_HORIZON"},
			{5 * time.Minute, "AFTER_SEQUENCE_NUMBER 159"},
			{10 * time.Minute, "AFTER_SEQUENCE_NUMBER 219"},
			{10*time.Minute + callSpacing, "AFTER_SEQUENCE_NUMBER 9"},
		}
		if !slices.Equal(s.calls, want) {
			t.Fatalf("calls %v, want %v", s.calls, want)
		}
		if s.closed != 3 {
			t.Fatalf("%d of 3 subscriptions were closed", s.closed)
		}
		s.balanced()
	})
}

func TestCallsForAShardAreASecondApartAlsoOfTwoReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newScript(t, lasting(records(1)), lasting(records(2)))
		s.expect(f, 1)
		f.Close()
		f = NewFanOut(f.config, shard0, kpl.HashRange{}, From{After: checkpoint.Position{Sequence: "1"}})
		defer f.Close()
		s.expect(f, 2)
		if want := []call{{0, "TRIM_HORIZON"}, {callSpacing, "AT_SEQUENCE_NUMBER 1"}}; !slices.Equal(s.calls, want) {
			t.Fatalf("calls %v, want %v", s.calls, want)
		}
	})
}

func TestReadingGoesOnBehindTheLastEventThatWasReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Of the first subscription three events are on their way when it is given up: two of them are never asked for.
		s, f := newScript(t, lasting(records(1), records(2), records(3)), lasting(records(2), records(3)))
		s.expect(f, 1)
		f.Close()
		s.expect(f, 2, 3)
		if got := s.calls[1].start; got != "AFTER_SEQUENCE_NUMBER 1" {
			t.Fatalf("started %s", got)
		}
	})
}

func TestWhatACheckpointCoversIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newScript(t, lasting(records(4), records(5, 6)))
		f = NewFanOut(f.config, shard0, kpl.HashRange{}, From{After: checkpoint.Position{Sequence: "5"}})
		defer f.Close()
		s.expect(f, 6)
		if got := s.calls[0].start; got != "AT_SEQUENCE_NUMBER 5" {
			t.Fatalf("started %s", got)
		}
	})
}

func TestASilentSubscriptionIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newScript(t, lasting(records(1)), lasting(records(2)))
		s.expect(f, 1)
		began := time.Now()
		errs := s.expect(f, 2)
		if took := time.Since(began); took != stalledAfter || len(errs) != 1 || !errors.Is(errs[0], errStalled) {
			t.Fatalf("after %s: %v", took, errs)
		}
		if s.calls[1].start != "AFTER_SEQUENCE_NUMBER 1" || s.closed != 1 {
			t.Fatalf("calls %v, %d closed", s.calls, s.closed)
		}
	})
}

func TestTimeBlockedByThePipelineIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := lasting(records(1))
		s, f := newScript(t, first)
		s.expect(f, 1)
		time.Sleep(time.Hour) // the pipeline is blocked: nobody calls Next
		go func() {
			time.Sleep(stalledAfter - time.Second)
			first.events <- records(2)
		}()
		if errs := s.expect(f, 2); len(errs) > 0 || len(s.calls) != 1 {
			t.Fatalf("%v, calls %v", errs, s.calls)
		}
	})
}

func TestARightfulOwnerDoesNotStarveOnResourceInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inUse := &types.ResourceInUseException{Message: aws.String("another")}
		var answers []answer
		for range 20 {
			answers = append(answers, failing(inUse))
		}
		// Also one that takes our subscription over in the middle of it.
		answers = append(answers, lasting(inUse), lasting(inUse), lasting(inUse), lasting(records(1)))
		s, f := newScript(t, answers...)
		if errs := s.expect(f, 1); len(errs) != 23 || !isInUse(errs[22]) {
			t.Fatalf("%d errors: %v", len(errs), errs)
		}
		for i := range s.calls[1:] {
			if pause := s.calls[i+1].at - s.calls[i].at; pause < callSpacing || pause > 3*callSpacing/2 {
				t.Fatalf("call %d came after %s", i+1, pause)
			}
		}
		s.balanced()
	})
}

func TestOnlySubscriptionsThatDieWithoutAnEventSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reset := errors.New("connection reset")
		s, f := newScript(t,
			ending(), lasting(reset), lasting(reset), ending(), lasting(reset), // escalates
			ending(heartbeat(1)), ending(heartbeat(2)), lasting(heartbeat(3), reset), // does not, and resets
			ending(), failing(reset), failing(reset), failing(reset), lasting(records(5)))
		s.expect(f, 5)
		for i, want := range []time.Duration{1, 2, 4, 8, 10, 1, 1, 1, 1, 1, 1, 1} {
			least, most := want*time.Second, want*time.Second*3/2
			if pause := s.calls[i+1].at - s.calls[i].at; pause < least || pause > most {
				t.Errorf("call %d came after %s, want %s to %s", i+1, pause, least, most)
			}
		}
		if len(s.calls) != 13 {
			t.Errorf("%d calls", len(s.calls))
		}
		s.balanced()
	})
}

func TestAThrottledCallPausesAsConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newScript(t, failing(&types.LimitExceededException{}), lasting(records(1)))
		errs := s.expect(f, 1)
		if len(errs) != 1 || !errors.Is(errs[0], ErrThrottled) || s.calls[1].at != 3*time.Second {
			t.Fatalf("%v, calls %v", errs, s.calls)
		}
	})
}

func TestACallWithoutAnAnswerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newScript(t, answer{slow: time.Hour}, lasting(records(1)))
		errs := s.expect(f, 1)
		if len(errs) != 1 || s.calls[1].at < requestTimeout || s.calls[1].at > requestTimeout+2*callSpacing {
			t.Fatalf("%v, calls %v", errs, s.calls)
		}
	})
}

func TestNextEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newScript(t, answer{slow: time.Hour}, lasting(records(1)), lasting(records(2)))
		for _, patience := range []time.Duration{time.Second, keepRoomFor / 2, keepRoomFor * 2} {
			ctx, cancel := context.WithTimeout(t.Context(), patience+callSpacing)
			for ctx.Err() == nil {
				read, err := f.Next(ctx, always(true))
				if ctx.Err() != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("got %v", err)
				}
				s.deliver(read)
			}
			cancel()
		}
		// The subscription ends with the context it was made in, and another one goes on behind it.
		s, f = newScript(t, lasting(records(1)), lasting(records(2)))
		ctx, cancel := context.WithCancel(t.Context())
		read, err := f.Next(ctx, always(true))
		if err != nil {
			t.Fatal(err)
		}
		s.deliver(read)
		cancel()
		if errs := s.expect(f, 2); len(errs) > 0 || s.calls[1].start != "AFTER_SEQUENCE_NUMBER 1" {
			t.Fatalf("%v, calls %v", errs, s.calls)
		}
		s.balanced()
	})
}

func TestOnlyChildShardsEndAShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last := records(2)
		last.ContinuationSequenceNumber = nil
		last.ChildShards = []types.ChildShard{{
			ShardId: aws.String("child"), ParentShards: []string{shard0},
			HashKeyRange: &types.HashKeyRange{StartingHashKey: aws.String("0"), EndingHashKey: aws.String("9")},
		}}
		noContinuation := records(1)
		noContinuation.ContinuationSequenceNumber = nil
		s, f := newScript(t, ending(noContinuation), ending(last))
		s.expect(f, 1) // the subscription ended, the shard did not
		read, err := f.Next(t.Context(), always(true))
		if err != nil || !read.Ended || len(read.Records) != 1 || len(read.Children) != 1 {
			t.Fatalf("got %+v, %v", read, err)
		}
		if c := read.Children[0]; c.ID != "child" || c.Parents[0] != shard0 || c.StartingHashKey != "0" || c.EndingHashKey != "9" {
			t.Fatalf("got %+v", c)
		}
		if s.calls[1].start != "AFTER_SEQUENCE_NUMBER 1" || s.closed != 2 {
			t.Fatalf("calls %v, %d closed", s.calls, s.closed)
		}
		s.deliver(read)
		s.balanced()
	})
}

func TestWhatIsNotFoundIsToldApartAndEndsNothing(t *testing.T) {
	notFound := &types.ResourceNotFoundException{Message: aws.String("not found")}
	for name, first := range map[string]answer{"at the call": failing(notFound), "in the subscription": lasting(notFound)} {
		for _, missing := range []error{nil, fmt.Errorf("consumer c: %w", ErrNoConsumer)} {
			t.Run(fmt.Sprint(name, missing), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					again := lasting(records(1))
					if first.events != nil {
						first = lasting(notFound) // a channel of this bubble
					}
					s, f := newScript(t, first, again)
					s.missing = missing
					read, err := f.Next(t.Context(), always(true))
					if read.Ended || errors.Is(err, ErrNoConsumer) != (missing != nil) || errors.Is(err, ErrNotFound) != (missing == nil) {
						t.Fatalf("got %+v, %v", read, err)
					}
					s.expect(f, 1)
				})
			})
		}
	}
}

func TestACheckpointOfAnotherStreamIsRefusedByFanOutToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		invalid := &types.InvalidArgumentException{Message: aws.String("StartingSequenceNumber did not come from this stream")}
		_, f := newScript(t, failing(invalid))
		f = NewFanOut(f.config, shard0, kpl.HashRange{}, From{After: checkpoint.Position{Sequence: "7"}})
		if _, err := f.Next(t.Context(), always(true)); !errors.Is(err, ErrForeignPosition) {
			t.Fatalf("got %v", err)
		}
		s, f := newScript(t, failing(invalid), lasting(records(1)))
		if errs := s.expect(f, 1); len(errs) != 1 || errors.Is(errs[0], ErrForeignPosition) {
			t.Fatalf("without a checkpoint it is passing trouble: %v", errs)
		}
	})
}

func TestOnlyAnEmptyEventTellsHowFarTheShardIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nothing := &types.SubscribeToShardEvent{}
		s, f := newScript(t, lasting(records(1), heartbeat(7), nothing, heartbeat(8)))
		for i, want := range []string{"none", "7", "none", "8"} {
			read, err := f.Next(t.Context(), always(true))
			if err != nil || read.Reached.String() != want {
				t.Fatalf("event %d: %+v, %v", i, read, err)
			}
			if i == 2 && read.MillisBehindLatest != -1 {
				t.Fatalf("a lag that was not told is %d", read.MillisBehindLatest)
			}
			s.deliver(read)
		}
	})
}

func TestI8AWaitingShardKeepsNoRoomAndAnEventIsChargedInFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := lasting(records(1))
		s, f := newScript(t, first)
		s.expect(f, 1)
		got := make(chan Read)
		go func() {
			read, _ := f.Next(t.Context(), always(true))
			got <- read
		}()
		synctest.Wait()
		if bytes, n := s.budget.Held(); bytes == 0 || n != 1 {
			t.Fatalf("%d bytes and %d records are kept at first", bytes, n)
		}
		time.Sleep(keepRoomFor)
		synctest.Wait()
		s.balanced()
		big := records(2, 3, 4)
		big.Records[0].Data = make([]byte, 1<<20)
		first.events <- big
		read := <-got
		if bytes, n := s.budget.Held(); bytes < 1<<20 || n != 3 {
			t.Fatalf("%d bytes and %d records are charged", bytes, n)
		}
		s.deliver(read)
		s.balanced()
	})
}

func TestAFullBudgetStopsTheFlowOfAShardThatHoldsSomething(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, f := newScript(t, lasting(records(1)))
		full := acquire(t, s.budget, 1000, 64<<10, true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := f.Next(ctx, always(false)); !errors.Is(err, context.DeadlineExceeded) || len(s.calls) != 0 {
			t.Fatalf("got %v, calls %v", err, s.calls)
		}
		s.expect(f, 1) // one that holds nothing may always take an event
		s.budget.Settle(full, 0, 0)
		s.balanced()
	})
}
