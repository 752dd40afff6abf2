package input

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

// fakeLease is a lease that is held until the test says otherwise.
type fakeLease struct {
	lease lease.Lease
	fence *attempt.Fence
	lost  chan struct{}

	mu        sync.Mutex
	confirmed checkpoint.Position // guarded by mu
	stored    checkpoint.Position // guarded by mu
	drained   []string            // the position at each Drained; guarded by mu
}

func (l *fakeLease) Lease() lease.Lease    { return l.lease }
func (l *fakeLease) Fence() *attempt.Fence { return l.fence }
func (l *fakeLease) Lost() <-chan struct{} { return l.lost }
func (l *fakeLease) Stored() checkpoint.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stored
}

func (l *fakeLease) Confirmed(p checkpoint.Position, _ int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.confirmed = p
}

func (l *fakeLease) Starts(checkpoint.Position, bool) {}
func (l *fakeLease) Miscounted()                      {}
func (l *fakeLease) Number(context.Context, lease.Numbered) (lease.Numbering, error) {
	return lease.Numbering{}, errors.New("not numbered")
}

// Drained notes the position that a hand-over would carry.
func (l *fakeLease) Drained() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drained = append(l.drained, l.confirmed.String())
}

func (l *fakeLease) position() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.confirmed.String()
}

// fakeReader plays a shard with the records 1, 2, 3 … of which `available` are there. It charges the budget as a real
// one does.
type fakeReader struct {
	shard *fakeShard
	next  int
}

type fakeShard struct {
	budget *retrieval.Budget
	size   int

	mu        sync.Mutex
	available int              // guarded by mu
	more      chan struct{}    // guarded by mu; closed when available grows
	started   []retrieval.From // guarded by mu
	fail      error            // guarded by mu
	ended     bool             // guarded by mu: the last available record is the shard's last
}

func (s *fakeShard) reader(from retrieval.From) retrieval.Reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = append(s.started, from)
	next := 1
	if n, err := strconv.Atoi(from.After.Sequence); err == nil {
		next = n + 1
	}
	return &fakeReader{shard: s, next: next}
}

func (s *fakeShard) put(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.available += n
	close(s.more)
	s.more = make(chan struct{})
}

func (r *fakeReader) Close() {}

func (r *fakeReader) Next(ctx context.Context, holdsNothing func() bool) (retrieval.Read, error) {
	for {
		r.shard.mu.Lock()
		available, more, fail, ended := r.shard.available, r.shard.more, r.shard.fail, r.shard.ended
		r.shard.mu.Unlock()
		if fail != nil {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			return retrieval.Read{}, fail
		}
		if r.next <= available {
			mean := int64(r.shard.size) + 400
			g, err := r.shard.budget.Acquire(ctx, retrieval.Request{Records: min(available-r.next+1, 1000), MeanBytes: mean}, holdsNothing)
			if err != nil {
				return retrieval.Read{}, err
			}
			var read retrieval.Read
			var charge int64
			for range min(g.Records, available-r.next+1) {
				record := retrieval.Record{
					Position:     checkpoint.Position{Sequence: strconv.Itoa(r.next)},
					PartitionKey: strconv.Itoa(r.next % 3),
					Data:         make([]byte, r.shard.size),
				}
				copy(record.Data, strconv.Itoa(r.next))
				charge += record.Charge()
				read.Records = append(read.Records, record)
				r.next++
			}
			r.shard.budget.Settle(g, len(read.Records), charge)
			read.Ended = ended && r.next > available
			return read, nil
		}
		if ended && available > 0 {
			return retrieval.Read{Ended: true}, nil // begun behind the last record
		}
		select {
		case <-more:
		case <-ctx.Done():
			return retrieval.Read{}, ctx.Err()
		}
	}
}

// stage is one run with everything around it faked.
type stage struct {
	t     *testing.T
	shard *fakeShard
	lease *fakeLease
	run   *run
	ready *dispatcher
	ends  chan error // what the next calls of finish return; it waits for one
	// sameStream is what the worker answers when the run doubts that the stream is the same.
	sameStream error
}

// newStage must be called in a synctest bubble.
func newStage(t *testing.T, budget *retrieval.Budget, size int) *stage {
	start := time.Now()
	clock := func() time.Duration { return time.Since(start) }
	s := &stage{t: t, ready: newDispatcher(), ends: make(chan error)}
	s.shard = &fakeShard{budget: budget, size: size, more: make(chan struct{})}
	s.lease = &fakeLease{
		lease: lease.Lease{Key: "shard", Checkpoint: checkpoint.Position{Sequence: checkpoint.TrimHorizon}},
		fence: attempt.NewFence(clock, 1000*time.Hour), lost: make(chan struct{}),
	}
	shared := &input{metrics: newMetrics(nil, "stream"),
		config: Config{ReceiveQueueSize: 1000}, budget: budget, ready: s.ready, convert: &converter{},
		log: service.MockResources().Logger(),
	}
	ctx, cancel := context.WithCancel(t.Context())
	var spawned sync.WaitGroup
	s.run = newRun(s.lease, retrieval.From{Kind: checkpoint.TrimHorizon}, s.shard.reader, shared, hooks{
		finish: func(ctx context.Context, _ retrieval.Read) error {
			select {
			case err := <-s.ends:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		freeAt:     func() time.Time { return time.Time{} },
		spawn:      func(f func(context.Context)) { spawned.Go(func() { f(ctx) }) },
		sameStream: func() error { return s.sameStream },
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.run.read(ctx)
	}()
	t.Cleanup(func() {
		s.run.end()
		cancel()
		<-done
		spawned.Wait()
	})
	return s
}

// next waits for the next batch.
func (s *stage) next() (numbers []int, ids []*attempt.RecordID, ack service.AckFunc) {
	s.t.Helper()
	for {
		r := s.ready.next(s.t.Context(), nil)
		batch, ack := r.handOut()
		if batch == nil {
			continue
		}
		for _, m := range batch {
			id, _ := m.MetaGetMut(attempt.RecordIDKey)
			ids = append(ids, id.(*attempt.RecordID))
			b, err := m.AsBytes()
			if err != nil {
				s.t.Fatal(err)
			}
			n, err := strconv.Atoi(string(slices.DeleteFunc(slices.Clone(b), func(c byte) bool { return c == 0 })))
			if err != nil {
				s.t.Fatal(err)
			}
			numbers = append(numbers, n)
		}
		return numbers, ids, ack
	}
}

func (s *stage) nothingReady(why string) {
	s.t.Helper()
	synctest.Wait()
	for {
		r := s.ready.pop()
		if r == nil {
			return
		}
		if batch, _ := r.handOut(); batch != nil {
			s.t.Fatalf("a batch of %d was handed out although %s", len(batch), why)
		}
	}
}

// confirm plays the output: it sends the records with the given ids and has some of them confirmed.
func confirm(t *testing.T, sent []*attempt.RecordID, confirmed ...*attempt.RecordID) {
	t.Helper()
	end, err := attempt.Begin("output", sent[0].Attempt())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range sent {
		id.Entered("key of " + strconv.Itoa(id.Index()%3))
	}
	end()
	attempt.ConfirmAll(confirmed)
}

var errNack = errors.New("nack")

func inBubble(t *testing.T, size int, story func(t *testing.T, s *stage)) {
	synctest.Test(t, func(t *testing.T) { story(t, newStage(t, retrieval.NewBudget(64<<20, 1000), size)) })
}

func expectNumbers(t *testing.T, got []int, want ...int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestTheBatchGrowsWhileThePreviousOneIsAway(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(1)
		got, _, ack := s.next()
		expectNumbers(t, got, 1)
		s.shard.put(2)
		synctest.Wait()
		s.shard.put(1)
		s.nothingReady("one is in flight")
		_ = ack(t.Context(), nil)
		got, _, ack = s.next()
		expectNumbers(t, got, 2, 3, 4)
		_ = ack(t.Context(), nil)
		if s.lease.position() != "4" {
			t.Fatalf("at %s", s.lease.position())
		}
	})
}

func TestOnlyWhatPulsarConfirmedCountsAsDelivered(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(6)
		got, ids, ack := s.next()
		expectNumbers(t, got, 1, 2, 3, 4, 5, 6)
		// 1, 2, 4, 5 and 6 are confirmed; 3 and 6 have one key.
		confirm(t, ids, ids[0], ids[1], ids[3], ids[4], ids[5])
		_ = ack(t.Context(), errNack)
		if s.lease.position() != "2" {
			t.Fatalf("the position is %s, and must stop before the gap", s.lease.position())
		}
		s.shard.put(4)
		s.nothingReady("the pause before the replay is not over")
		got, ids, ack = s.next()
		expectNumbers(t, got, 3, 6)
		confirm(t, ids, ids...)
		_ = ack(t.Context(), nil)
		if s.lease.position() != "6" {
			t.Fatalf("at %s", s.lease.position())
		}
		got, _, ack = s.next()
		expectNumbers(t, got, 7, 8, 9, 10)
		_ = ack(t.Context(), nil)
	})
}

func TestANackAfterEverythingWasStoredMovesOn(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(2)
		_, ids, ack := s.next()
		confirm(t, ids, ids...)
		_ = ack(t.Context(), errNack)
		s.shard.put(1)
		got, _, ack := s.next()
		expectNumbers(t, got, 3)
		_ = ack(t.Context(), nil)
	})
}

func TestReplaysSlowDown(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(1)
		_, _, ack := s.next()
		for _, pause := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
			before := time.Now()
			_ = ack(t.Context(), errNack)
			_, _, ack = s.next()
			if got := time.Since(before); got != pause*time.Millisecond {
				t.Fatalf("the replay came after %s, want %s", got, pause*time.Millisecond)
			}
		}
		_ = ack(t.Context(), nil)
		s.shard.put(1)
		_, _, ack = s.next()
		before := time.Now()
		_ = ack(t.Context(), errNack)
		_, _, ack = s.next()
		if got := time.Since(before); got != firstReplayAfter {
			t.Fatalf("after a success the first replay came after %s", got)
		}
		_ = ack(t.Context(), nil)
	})
}

func TestARecordThatCannotBePublishedStopsItsShardAlone(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(6)
		_, ids, ack := s.next()
		confirm(t, ids, append(slices.Clone(ids[:2]), ids[3:]...)...)
		ids[2].Refuse()
		before := time.Now()
		_ = ack(t.Context(), errNack)
		got, ids, ack := s.next()
		expectNumbers(t, got, 3)
		if pause := time.Since(before); pause != firstRefusedAfter {
			t.Fatalf("it came back after %s", pause)
		}
		s.shard.put(10)
		for range 8 {
			ids[0].Refuse()
			_ = ack(t.Context(), errNack)
			s.nothingReady("the refused record blocks its shard")
			got, ids, ack = s.next()
			expectNumbers(t, got, 3)
		}
		_ = ack(t.Context(), nil) // a fallback output took it
		if s.lease.position() != "6" {
			t.Fatalf("at %s", s.lease.position())
		}
	})
}

func TestI5NothingIsHandedOutBehindTheFence(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(1)
		synctest.Wait()
		s.lease.fence.Close()
		s.nothingReady("the fence is closed")
	})
}

// The output takes a batch behind the fence without sending it, since an error would be tried again for ever by whatever
// lies between. Its ack says nothing, whether the run knows already that it is over or not.
func TestAnAckOfWithheldRecordsMovesNoPosition(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(3)
		_, ids, ack := s.next()
		s.lease.fence.Close()
		if !attempt.Withhold(ids[0].Attempt()) {
			t.Fatal("not withheld")
		}
		_ = ack(t.Context(), nil)
		if at := s.lease.position(); at != "TRIM_HORIZON" {
			t.Fatalf("at %s", at)
		}
		s.nothingReady("the fence is closed")
	})
}

func TestALateAckOfAnEndedRunCountsForTheBudgetOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := retrieval.NewBudget(64<<20, 1000)
		s := newStage(t, budget, 10)
		s.shard.put(5)
		_, _, ack := s.next()
		s.shard.put(5)
		synctest.Wait()
		s.run.end()
		if bytes, records := budget.Held(); bytes != 5*(10+1+400) || records != 0 {
			t.Fatalf("%d bytes, %d records: what is queued is dropped, what is away is not", bytes, records)
		}
		_ = ack(t.Context(), nil)
		if bytes, _ := budget.Held(); bytes != 0 {
			t.Fatalf("%d bytes are held for good", bytes)
		}
		if s.lease.position() != "none" {
			t.Fatalf("an ended run moved the position to %s", s.lease.position())
		}
	})
}

func TestABlockedShardGivesItsQueueBackAndReadsItAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := retrieval.NewBudget(64<<20, 1000)
		s := newStage(t, budget, 10)
		s.shard.put(3)
		got, _, ack := s.next()
		expectNumbers(t, got, 1, 2, 3)
		s.shard.put(5000) // more than the queue takes
		synctest.Wait()
		if _, records := budget.Held(); records == 0 {
			t.Fatal("nothing was queued")
		}
		time.Sleep(blockedAfter + time.Second)
		synctest.Wait()
		if bytes, records := budget.Held(); records != 0 || bytes != 3*(10+1+400) {
			t.Fatalf("the blocked shard still holds %d records, %d bytes", records, bytes)
		}
		_ = ack(t.Context(), nil)
		want := 4
		for want <= 5003 {
			got, _, ack = s.next()
			for _, n := range got {
				if n != want {
					t.Fatalf("got %d, want %d", n, want)
				}
				want++
			}
			_ = ack(t.Context(), nil)
		}
		s.shard.mu.Lock()
		defer s.shard.mu.Unlock()
		if len(s.shard.started) != 2 || s.shard.started[1].After.Sequence != "3" {
			t.Fatalf("reading began at %v", s.shard.started)
		}
	})
}

// A queue that is not full, since the shard is quiet or the budget used up, is given back as well: the reader waits for
// records or for room then, not for the queue.
func TestRule32ABlockedShardGivesBackAQueueThatIsNotFull(t *testing.T) {
	for name, room := range map[string]int{"quiet": 1000, "behind the budget": 8} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				budget := retrieval.NewBudget(int64(room)*(400+11), 1000)
				s := newStage(t, budget, 10)
				s.shard.put(3)
				got, _, ack := s.next()
				for len(got) < 3 {
					_ = ack(t.Context(), nil)
					var more []int
					more, _, ack = s.next()
					got = append(got, more...)
				}
				s.shard.put(20)
				time.Sleep(blockedAfter / 2)
				synctest.Wait()
				away := int64(len(s.run.mu.flight.records))
				if _, records := budget.Held(); records == 0 {
					t.Fatal("nothing was queued")
				}
				time.Sleep(blockedAfter)
				synctest.Wait()
				if bytes, records := budget.Held(); records != 0 || bytes != away*(10+1+400) {
					t.Fatalf("the blocked shard still holds %d records, %d bytes", records, bytes)
				}
				_ = ack(t.Context(), nil)
				for want := 4; want <= 23; {
					got, _, ack = s.next()
					for _, n := range got {
						if n != want {
							t.Fatalf("got %d, want %d", n, want)
						}
						want++
					}
					_ = ack(t.Context(), nil)
				}
			})
		})
	}
}

func TestI8AStuckShardHoldsAFewBatchesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := retrieval.NewBudget(1<<30, 1_000_000)
		s := newStage(t, budget, 10_000)
		s.shard.put(100_000)
		s.next() // away for good
		time.Sleep(time.Second)
		synctest.Wait()
		if bytes, _ := budget.Held(); bytes > 32<<20 {
			t.Fatalf("one shard holds %d bytes", bytes)
		}
	})
}

func TestI2AShardEndsWhenAllOfItIsConfirmed(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.mu.Lock()
		s.shard.ended = true
		s.shard.mu.Unlock()
		s.shard.put(3)
		got, _, ack := s.next()
		expectNumbers(t, got, 1, 2, 3)
		notEnding := func(why string) {
			t.Helper()
			select {
			case s.ends <- nil:
				t.Fatalf("the end is written although %s", why)
			case <-time.After(10 * time.Second):
			}
		}
		notEnding("the last batch is away")
		_ = ack(t.Context(), errNack)
		notEnding("the last batch was nacked")
		got, _, ack = s.next()
		expectNumbers(t, got, 1, 2, 3)
		_ = ack(t.Context(), nil)
		s.ends <- errors.New("the lease table is away") // tried again
		s.ends <- nil
	})
}

func TestAnEndThatIsNoneIsReadOn(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.mu.Lock()
		s.shard.ended = true
		s.shard.mu.Unlock()
		s.shard.put(3)
		_, _, ack := s.next()
		_ = ack(t.Context(), nil)
		s.shard.mu.Lock()
		s.shard.ended = false
		s.shard.mu.Unlock()
		s.ends <- fmt.Errorf("asked: %w", shard.ErrOpen)
		s.shard.put(2)
		got, _, ack := s.next()
		expectNumbers(t, got, 4, 5)
		_ = ack(t.Context(), nil)
	})
}

func TestABlockedShardThatHasEndedGivesItsQueueBackToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := retrieval.NewBudget(64<<20, 1000)
		s := newStage(t, budget, 10)
		s.shard.put(3)
		_, _, ack := s.next()
		s.shard.mu.Lock()
		s.shard.ended = true
		s.shard.mu.Unlock()
		s.shard.put(5)
		time.Sleep(blockedAfter + time.Second)
		synctest.Wait()
		if _, records := budget.Held(); records != 0 {
			t.Fatalf("%d records are still held", records)
		}
		_ = ack(t.Context(), nil)
		got, _, ack := s.next()
		expectNumbers(t, got, 4, 5, 6, 7, 8)
		_ = ack(t.Context(), nil)
		s.ends <- nil
	})
}

func TestReadTroubleIsKnownAndForgotten(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		trouble := errors.New("away")
		s.shard.mu.Lock()
		s.shard.fail = trouble
		s.shard.mu.Unlock()
		s.shard.put(1) // the reader was waiting for records; now it fails
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := s.run.readTrouble(time.Now(), troubledAfter); !errors.Is(err, trouble) {
			t.Fatalf("got %v", err)
		}
		s.shard.mu.Lock()
		s.shard.fail = nil
		s.shard.mu.Unlock()
		_, _, ack := s.next()
		_ = ack(t.Context(), nil)
		if err := s.run.readTrouble(time.Now(), 0); err != nil {
			t.Fatalf("got %v", err)
		}
	})
}

func TestFormatInstantAsJavaDoes(t *testing.T) {
	for nanos, want := range map[int]string{
		0:           "2019-03-05T19:28:58Z",
		120_000_000: "2019-03-05T19:28:58.120Z",
		120_500_000: "2019-03-05T19:28:58.120500Z",
		1:           "2019-03-05T19:28:58.000000001Z",
	} {
		at := time.Date(2019, 3, 5, 20, 28, 58, nanos, time.FixedZone("", 3600))
		if got := formatInstant(at); got != want {
			t.Errorf("%d: %s, want %s", nanos, got, want)
		}
	}
}

func TestConverterProperties(t *testing.T) {
	r := retrieval.Record{
		Position: checkpoint.Position{Sequence: "42", Sub: 3}, PartitionKey: "pk", Data: []byte("v"),
		Arrival: time.Unix(0, 0), Encryption: "KMS", MillisBehindLatest: 7,
	}
	all := []Property{PropertyArrivalTimestamp, PropertyEncryptionType, PropertyPartitionKey, PropertySequenceNumber, PropertyShardID, PropertyMillisBehindLatest, PropertySubSequenceNumber}
	got := map[Property]string{}
	for _, p := range all {
		got[p], _ = propertyValue(p, "shardId-1", &r)
	}
	want := map[Property]string{
		PropertyArrivalTimestamp: "1970-01-01T00:00:00Z", PropertyEncryptionType: "KMS", PropertyPartitionKey: "pk",
		PropertySequenceNumber: "42", PropertyShardID: "shardId-1", PropertyMillisBehindLatest: "7", PropertySubSequenceNumber: "3",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %v", got)
	}
	r.MillisBehindLatest = -1
	if _, ok := propertyValue(PropertyMillisBehindLatest, "s", &r); ok {
		t.Fatal("a lag that Kinesis did not tell became a property")
	}
	if key := (&converter{keyMode: KeyModeShardID}).key("shardId-1", &r); key != "shardId-1" {
		t.Fatalf("got %s", key)
	}
	if key := (&converter{keyMode: KeyModePartitionKey}).key("shardId-1", &r); key != "pk" {
		t.Fatalf("got %s", key)
	}
}
