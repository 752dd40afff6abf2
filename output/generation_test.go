package output

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// The client keeps what follows a failed message and would store it: k is missing, k+1 is not. So nothing is sent after
// the first failure, the producer is closed, and only then the next one is made.
func TestFirstTransientFailureEndsTheGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &fakeProducer{}, &fakeProducer{}
		first.onSend = func(p *fakeProducer, m *pulsar.ProducerMessage, done callback) {
			if string(m.Payload) == "2" {
				done(nil, m, pulsar.ErrSendTimeout)
			}
		}
		// Closing takes the client half a minute when the broker does not answer.
		first.onClose = func() { time.Sleep(30 * time.Second) }
		o := withFake(t, &fakeClient{create: always(first, second)})
		defer closeOutput(t, o)
		s := newShard()
		batch, a := s.batch("a", "b", "c", "d", "e")
		done := result(o, t.Context(), batch)
		synctest.Wait()
		first.receipts(2)
		synctest.Wait()
		if got := first.payloads(); !slices.Equal(got, []string{"0", "1", "2"}) {
			t.Errorf("sent %v", got)
		}
		if err := <-done; err == nil || errors.Is(err, service.ErrNotConnected) {
			t.Fatalf("%v", err)
		}
		if replay, refused := undelivered(t, a); !slices.Equal(replay, []int{2, 3, 4}) || refused {
			t.Errorf("replay %v", replay)
		}
		begin := time.Now()
		batch, _ = s.batch("a")
		done = result(o, t.Context(), batch)
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if got := second.payloads(); len(got) > 0 {
			t.Errorf("the next producer sent %v while the old one was closing", got)
		}
		err := <-done
		if errors.Is(err, service.ErrNotConnected) { // its patience ended before the old producer did
			time.Sleep(30 * time.Second)
			batch, _ = s.batch("a")
			done = result(o, t.Context(), batch)
		}
		synctest.Wait()
		if got := second.payloads(); len(got) != 1 {
			t.Fatalf("after %v the next producer sent %v", time.Since(begin), got)
		}
		second.receipts(1)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Rule 8, for a batch that is sent in parts: when the first one is stored and there is no producer for the second, the
// error is one of the second's messages alone. ErrNotConnected would have the engine send all of them again, in place, and
// so would an error of the batch as a whole.
func TestABatchOfWhichAPartIsStoredIsNotSentAgainInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf, err := parse(t, "url: pulsar://fake:6650\ntopic: t\nmax_pending_messages: 2")
		if err != nil {
			t.Fatal(err)
		}
		p := &fakeProducer{}
		o := withConfig(conf, &fakeClient{create: always(p)})
		defer closeOutput(t, o)
		batch, a := newShard().batch("a", "b", "c", "d", "e")
		index := batch.Index()
		done := result(o, t.Context(), batch)
		synctest.Wait()
		if got := p.payloads(); !slices.Equal(got, []string{"0", "1"}) {
			t.Fatalf("the first part is %v", got)
		}
		stored := make(chan struct{})
		p.onClose = func() { <-stored }
		o.session.Load().topics.all()[0].layout.Load().partitions[0].live().retire(errors.New("the broker has ended it"))
		p.receipts(2)
		close(stored)
		err = <-done
		var parts *service.BatchError
		if errors.Is(err, service.ErrNotConnected) || !errors.As(err, &parts) {
			t.Fatalf("%v", err)
		}
		var failed []int
		parts.WalkMessagesIndexedBy(index, func(i int, _ *service.Message, err error) bool {
			if err != nil {
				failed = append(failed, i)
			}
			return true
		})
		if !slices.Equal(failed, []int{2, 3, 4}) {
			t.Errorf("messages %v failed", failed)
		}
		if replay, _ := undelivered(t, a); !slices.Equal(replay, []int{2, 3, 4}) {
			t.Errorf("replay %v", replay)
		}
	})
}

// The client loses the callbacks of messages that it had not cut into a batch when the broker ended the producer. The
// watch-dog notices, and the messages fail.
func TestLostCallbacksFailWithTheProducer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{}
		var ended atomic.Bool
		p.onFlush = func(context.Context) error {
			if ended.Load() {
				return pulsar.ErrProducerClosed
			}
			return nil
		}
		o := withFake(t, &fakeClient{create: always(p)})
		defer closeOutput(t, o)
		batch, a := newShard().batch("a", "b", "c")
		begin := time.Now()
		done := result(o, t.Context(), batch)
		synctest.Wait()
		p.receipts(1)
		ended.Store(true)
		err := <-done
		if err == nil || errors.Is(err, service.ErrNotConnected) || !strings.Contains(err.Error(), "already been closed") {
			t.Errorf("%v", err)
		}
		if waited := time.Since(begin); waited < probeAfter || waited > probeAfter+2*watchInterval+probeLimit {
			t.Errorf("after %v", waited)
		}
		if replay, _ := undelivered(t, a); !slices.Equal(replay, []int{1, 2}) {
			t.Errorf("replay %v", replay)
		}
		// Late receipts change nothing.
		p.receipts(2)
	})
}

// Time alone is no reason to end a producer: the client re-sends when the broker is back, and a second producer would
// make copies.
func TestSlowBrokerIsNotDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{onFlush: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		o := withFake(t, &fakeClient{create: always(p)})
		defer closeOutput(t, o)
		batch, _ := newShard().batch("a", "b")
		done := result(o, t.Context(), batch)
		time.Sleep(time.Hour)
		synctest.Wait()
		if p.count(&p.closes) > 0 {
			t.Error("the producer was closed")
		}
		p.receipts(2)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The client panics with "send on closed channel" when the broker ends a producer in the middle of SendAsync.
func TestPanicInSendAsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &fakeProducer{}, &fakeProducer{}
		first.onSend = func(p *fakeProducer, m *pulsar.ProducerMessage, _ callback) {
			if string(m.Payload) == "1" {
				panic("send on closed channel")
			}
		}
		o := withFake(t, &fakeClient{create: always(first, second)})
		defer closeOutput(t, o)
		s := newShard()
		batch, a := s.batch("a", "b", "c")
		done := result(o, t.Context(), batch)
		synctest.Wait()
		err := <-done
		if err == nil || errors.Is(err, service.ErrNotConnected) {
			t.Fatalf("%v", err)
		}
		if got := first.payloads(); !slices.Equal(got, []string{"0", "1"}) {
			t.Errorf("sent %v", got)
		}
		if replay, _ := undelivered(t, a); !slices.Equal(replay, []int{0, 1, 2}) {
			t.Errorf("replay %v", replay)
		}
		batch, _ = s.batch("a")
		done = result(o, t.Context(), batch)
		synctest.Wait()
		second.receipts(1)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The client can lose a close that races with the broker's own, and then never returns from it.
func TestCloseThatNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forever := make(chan struct{})
		defer close(forever)
		first, second := &fakeProducer{onClose: func() { <-forever }}, &fakeProducer{}
		first.onSend = func(_ *fakeProducer, m *pulsar.ProducerMessage, done callback) {
			done(nil, m, pulsar.ErrProducerClosed)
		}
		o := withFake(t, &fakeClient{create: always(first, second)})
		defer closeOutput(t, o)
		s := newShard()
		batch, _ := s.batch("a")
		if err := o.WriteBatch(t.Context(), batch); err == nil {
			t.Fatal("written")
		}
		time.Sleep(o.session.Load().closeLimit)
		batch, _ = s.batch("a")
		done := result(o, t.Context(), batch)
		synctest.Wait()
		second.receipts(1)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A receipt with the id -1:-1 says that the broker took the message for a duplicate and threw it away.
func TestDuplicateReceiptIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{onSend: func(_ *fakeProducer, m *pulsar.ProducerMessage, done callback) {
			done(fakeID{-1, -1}, m, nil)
		}}
		o := withFake(t, &fakeClient{create: always(p)})
		defer closeOutput(t, o)
		batch, a := newShard().batch("a")
		if err := o.WriteBatch(t.Context(), batch); !errors.Is(err, errNotStored) && !strings.Contains(err.Error(), "did not store") {
			t.Errorf("%v", err)
		}
		if replay, _ := undelivered(t, a); len(replay) != 1 {
			t.Error("marked as delivered")
		}
	})
}

// Close while WriteBatch waits, which is what a hard stop does: both end, soon, and what has no receipt has failed.
func TestCloseWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{
			onFlush: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			onClose: func() { time.Sleep(30 * time.Second) },
		}
		o := withFake(t, &fakeClient{create: always(p)})
		batch, a := newShard().batch("a", "b")
		done := result(o, t.Context(), batch)
		synctest.Wait()
		p.receipts(1)
		begin := time.Now()
		closeSoon := make(chan struct{})
		go func() { _ = o.Close(context.Background()); close(closeSoon) }()
		<-closeSoon
		if took := time.Since(begin); took > closeBound+lingerBound {
			t.Errorf("Close took %v", took)
		}
		synctest.Wait()
		select {
		case err := <-done:
			if err == nil || errors.Is(err, service.ErrNotConnected) {
				t.Errorf("%v", err)
			}
		default:
			t.Error("WriteBatch still waits")
		}
		if replay, _ := undelivered(t, a); !slices.Equal(replay, []int{1}) {
			t.Errorf("replay %v", replay)
		}
		if err := o.Close(context.Background()); err != nil {
			t.Errorf("second Close: %v", err)
		}
		time.Sleep(time.Minute)
		<-o.session.Load().finished
	})
}

// Cancelling WriteBatch does not wait for receipts, and the room in the limiter comes back with them, not before: the
// client still holds the messages.
func TestCancelledWriteKeepsItsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{}
		o := withFake(t, &fakeClient{create: always(p)})
		defer closeOutput(t, o)
		s := newShard()
		ctx, cancel := context.WithCancel(t.Context())
		batch, a := s.batch(repeat("k", maxInFlight)...)
		done := result(o, ctx, batch)
		synctest.Wait()
		p.receipts(10)
		cancel()
		if err := <-done; err == nil {
			t.Error("written")
		}
		if replay, _ := undelivered(t, a); len(replay) != maxInFlight-10 || replay[0] != 10 {
			t.Errorf("%d to be replayed", len(replay))
		}
		batch, _ = s.batch("k")
		done = result(o, t.Context(), batch)
		synctest.Wait()
		if n := len(p.payloads()); n != maxInFlight {
			t.Errorf("%d sent", n)
		}
		p.receipts(maxInFlight - 10)
		synctest.Wait()
		p.receipts(1)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A refused producer is tried again with growing pauses; in between its error is the answer.
func TestRefusedProducerIsRetriedWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		o := withFake(t, &fakeClient{create: func(pulsar.ProducerOptions) (pulsar.Producer, error) {
			tries.Add(1)
			return (*fakeProducer)(nil), errors.New("server error: ProducerBusy: taken")
		}})
		defer closeOutput(t, o)
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			batch, _ := newShard().batch("a")
			if err := o.WriteBatch(t.Context(), batch); !errors.Is(err, service.ErrNotConnected) {
				t.Fatalf("%v", err)
			}
		}
		if n := tries.Load(); n < 10 || n > 20 {
			t.Errorf("%d tries in a minute", n)
		}
	})
}

// Flush requests are merged: many batches at once do not queue up for a client that is busy.
func TestFlushRequestsAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{onFlush: func(context.Context) error { time.Sleep(time.Second); return nil }}
		o := withFake(t, &fakeClient{create: always(p)})
		defer closeOutput(t, o)
		var results []<-chan error
		for range 50 {
			batch, _ := newShard().batch("a")
			results = append(results, result(o, t.Context(), batch))
		}
		time.Sleep(probeAfter - time.Millisecond)
		synctest.Wait()
		p.receipts(50)
		for _, r := range results {
			if err := <-r; err != nil {
				t.Error(err)
			}
		}
		if n := p.count(&p.flushes); n < 1 || n > 5 {
			t.Errorf("%d flushes for 50 batches", n)
		}
	})
}

// Growing topics: new partitions come into use, old ones keep their producers.
func TestPartitionsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		names := []string{"t-partition-0", "t-partition-1"}
		made := map[string]int{}
		locked := func(f func()) {
			mu.Lock()
			defer mu.Unlock()
			f()
		}
		o := withFake(t, &fakeClient{
			partitions: func() (current []string, err error) {
				locked(func() { current = names })
				return current, nil
			},
			create: func(opts pulsar.ProducerOptions) (pulsar.Producer, error) {
				locked(func() { made[opts.Topic]++ })
				return &fakeProducer{onSend: func(_ *fakeProducer, m *pulsar.ProducerMessage, done callback) {
					done(fakeID{1, 1}, m, nil)
				}}, nil
			},
		})
		defer closeOutput(t, o)
		write := func() {
			keys := make([]string, 100)
			for i := range keys {
				keys[i] = strings.Repeat("k", i+1)
			}
			batch, _ := newShard().batch(keys...)
			if err := o.WriteBatch(t.Context(), batch); err != nil {
				t.Error(err)
			}
		}
		if err := o.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		write()
		locked(func() { names = []string{"t-partition-0", "t-partition-1", "t-partition-2"} })
		time.Sleep(discoveryInterval + time.Second)
		write()
		if len(made) != 3 || made["t-partition-0"] != 1 || made["t-partition-2"] != 1 {
			t.Errorf("producers made: %v", made)
		}
		// Deleted and made anew, without partitions.
		locked(func() { names = []string{"t"} })
		time.Sleep(discoveryInterval + time.Second)
		write()
		if made["t"] != 1 {
			t.Errorf("producers made: %v", made)
		}
	})
}
