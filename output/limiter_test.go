package output

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
)

// The client holds each payload and its frame until the receipt: a slow broker would make it hold whatever the input
// may hold, and half as much again.
func TestBytesInFlightOfAPartitionAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{}
		o := withFake(t, &fakeClient{create: always(p)})
		defer closeOutput(t, o)
		mebibyte := strings.Repeat("x", 1<<20)
		var results []<-chan error
		for range 20 {
			batch, _ := newShard().batchOf([]string{"k"}, []string{mebibyte})
			results = append(results, result(o, t.Context(), batch))
			synctest.Wait()
		}
		if n := len(p.payloads()); n != maxBytesInFlight>>20 {
			t.Fatalf("%d MiB in flight, want %d", n, maxBytesInFlight>>20)
		}
		for done := range results {
			p.receipts(1)
			if err := <-results[done]; err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n, want := len(p.payloads()), min(20, done+1+maxBytesInFlight>>20); n != want {
				t.Fatalf("%d sent after %d receipts, want %d", n, done+1, want)
			}
		}
	})
}

// What is larger than the limit must not wait for ever, nor keep others out afterwards.
func TestABatchBeyondTheBytesOfAPartitionGoesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{}
		o := withFake(t, &fakeClient{create: always(p)})
		defer closeOutput(t, o)
		small, _ := newShard().batch("k")
		first := result(o, t.Context(), small)
		synctest.Wait()
		half := strings.Repeat("x", maxBytesInFlight/2)
		large, _ := newShard().batchOf(repeat("k", 3), []string{half, half, half})
		second := result(o, t.Context(), large)
		synctest.Wait()
		last, _ := newShard().batch("k")
		third := result(o, t.Context(), last)
		for i, step := range []struct {
			sent, receipts int
			done           <-chan error
		}{{1, 1, first}, {4, 3, second}, {5, 1, third}} {
			synctest.Wait()
			if n := len(p.payloads()); n != step.sent {
				t.Fatalf("step %d: %d sent, want %d", i, n, step.sent)
			}
			p.receipts(step.receipts)
			if err := <-step.done; err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestGivingUpTheWaitForBytesGivesTheRoomForMessagesBack(t *testing.T) {
	l := newLimiter(maxInFlight, maxBytesInFlight)
	if err := l.acquire(t.Context(), 1, maxBytesInFlight); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.acquire(ctx, maxInFlight-1, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	l.release(1, maxBytesInFlight)
	if err := l.acquire(t.Context(), maxInFlight, 2*maxBytesInFlight); err != nil {
		t.Fatal(err)
	}
}
