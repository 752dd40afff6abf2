package input

import (
	"context"
	"errors"
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
