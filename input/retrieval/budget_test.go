package retrieval

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func always(holdsNothing bool) func() bool { return func() bool { return holdsNothing } }

func acquire(t *testing.T, b *Budget, records int, mean int64, holdsNothing bool) Grant {
	t.Helper()
	g, err := b.Acquire(context.Background(), Request{Records: records, MeanBytes: mean}, always(holdsNothing))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestI8AReadIsSizedToTheRoomLeft(t *testing.T) {
	b := NewBudget(1000, 100)
	if g := acquire(t, b, 50, 10, true); g.Records != 50 {
		t.Fatalf("got %d", g.Records)
	}
	if g := acquire(t, b, 80, 10, true); g.Records != 50 {
		t.Fatalf("with room for 50 records got %d", g.Records)
	}
	if bytes, records := b.Held(); bytes != 1000 || records != 100 {
		t.Fatalf("%d bytes, %d records", bytes, records)
	}
}

func TestARequestLargerThanTheBudgetIsCutToIt(t *testing.T) {
	b := NewBudget(100, 3)
	if g := acquire(t, b, 10_000, 60, true); g.Records != 1 {
		t.Fatalf("got %d", g.Records)
	}
	b = NewBudget(10, 3) // records larger than the whole budget: one at a time
	if g, err := b.Acquire(context.Background(), Request{Records: 5, MeanBytes: 60}, always(true)); err != nil || g.Records != 1 {
		t.Fatalf("got %d, %v", g.Records, err)
	}
}

func TestAShardThatHoldsNothingIsNeverStoppedByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1000, 100)
		acquire(t, b, 100, 10, true) // stuck shards hold all of it
		before := time.Now()
		if g := acquire(t, b, 100, 10, true); g.Records != 1 || time.Since(before) != smallReadAfter {
			t.Fatalf("%d records after %s", g.Records, time.Since(before))
		}
		// The exception is a debt like any other.
		if bytes, records := b.Held(); bytes != 1010 || records != 101 {
			t.Fatalf("%d bytes, %d records", bytes, records)
		}
	})
}

func TestAShardThatHoldsSomethingWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1000, 100)
		held := acquire(t, b, 100, 10, true)
		got := make(chan Grant, 1)
		go func() {
			g, _ := b.Acquire(t.Context(), Request{Records: 40, MeanBytes: 10}, always(false))
			got <- g
		}()
		time.Sleep(time.Hour)
		select {
		case g := <-got:
			t.Fatalf("granted %d records of a full budget", g.Records)
		default:
		}
		b.Settle(held, 67, 670) // 8 records are free beside the reserve: less than a quarter of what is asked for
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("a read was granted that is hardly worth it")
		}
		b.Release(20)
		b.HandedOut(2)
		if g := <-got; g.Records != 10 {
			t.Fatalf("got %d", g.Records)
		}
	})
}

func TestWaitersAreServedInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1000, 1000)
		acquire(t, b, 100, 10, true)
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				if _, err := b.Acquire(t.Context(), Request{Records: 10, MeanBytes: 10}, always(false)); err == nil {
					order <- i
				}
			}()
			synctest.Wait()
		}
		b.Release(250) // the reserve is not for them
		for i := range 3 {
			b.Release(100)
			if got := <-order; got != i {
				t.Fatalf("waiter %d was served as number %d", got, i)
			}
		}
	})
}

// The room comes at the very moment at which the reader has given up.
func TestRoomThatComesTooLateIsGivenBack(t *testing.T) {
	b := NewBudget(1000, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &waiter{request: Request{Records: 10, MeanBytes: 10}, granted: make(chan Grant, 1)}
	b.mu.Lock()
	element := b.mu.waiters.PushBack(w)
	b.serveLocked()
	_, done, err := b.reconsiderLocked(ctx, w, element, false)
	b.mu.Unlock()
	if !done || !errors.Is(err, context.Canceled) {
		t.Fatalf("done %v: %v", done, err)
	}
	if bytes, records := b.Held(); bytes != 0 || records != 0 {
		t.Errorf("%d bytes and %d records are held for good", bytes, records)
	}
}

func TestAWaiterThatGivesUpLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1000, 1000)
		held := acquire(t, b, 100, 10, true)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := b.Acquire(ctx, Request{Records: 100, MeanBytes: 10}, always(false))
			failed <- err
		}()
		synctest.Wait()
		second := make(chan Grant, 1)
		go func() {
			g, _ := b.Acquire(t.Context(), Request{Records: 1, MeanBytes: 10}, always(false))
			second <- g
		}()
		synctest.Wait()
		b.Release(270) // enough for the second, who stands behind the first
		synctest.Wait()
		if len(second) != 0 {
			t.Fatal("the second overtook the first")
		}
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if g := <-second; g.Records != 1 {
			t.Fatalf("got %d", g.Records)
		}
		b.Settle(held, 0, 270) // so many bytes went by Release above
		b.Settle(Grant{Records: 1, bytes: 10}, 0, 0)
		if bytes, records := b.Held(); bytes != 0 || records != 0 {
			t.Fatalf("%d bytes and %d records are left over", bytes, records)
		}
	})
}

// Stuck shards with a full queue each have left the others nothing but reads of one record, until they gave their queues
// back after half a minute.
func TestP7WhatStuckShardsReadAheadLeavesTheOthersTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1<<20, 1000)
		stuck := 0
		for range 3 { // each of them would like to have it all
			go func() {
				for {
					g, err := b.Acquire(t.Context(), Request{Records: 1000, MeanBytes: 100}, always(false))
					if err != nil {
						return
					}
					stuck += g.Records
				}
			}()
			synctest.Wait()
		}
		if stuck != 750 {
			t.Fatalf("the stuck shards hold %d of 1000 records", stuck)
		}
		for range 100 {
			before := time.Now()
			g := acquire(t, b, 1000, 100, true)
			if waited := time.Since(before); g.Records != 250 || waited != 0 {
				t.Fatalf("a read of %d records after %s", g.Records, waited)
			}
			b.Settle(g, 200, 20_000)
			b.HandedOut(200)
			b.Release(20_000)
		}
		if stuck != 750 {
			t.Fatalf("the stuck shards hold %d of 1000 records", stuck)
		}
	})
}

// A read that waits for room while the shard's batch is away waited on when that batch was delivered, however long: it
// had asked as one of those that hold something. With records larger than the budget that was for ever.
func TestAShardThatCameToHoldNothingWhileItWaitsMakesItsSmallRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1<<20, 1000)
		first := acquire(t, b, 1, 1<<20+400, true)
		b.Settle(first, 1, 1<<20+400)
		var delivered atomic.Bool
		got := make(chan Grant, 1)
		go func() {
			g, _ := b.Acquire(t.Context(), Request{Records: 1, MeanBytes: 1<<20 + 400}, delivered.Load)
			got <- g
		}()
		time.Sleep(time.Hour)
		if len(got) != 0 {
			t.Fatal("granted beyond the budget")
		}
		b.HandedOut(1)
		b.Release(1<<20 + 400)
		delivered.Store(true)
		time.Sleep(3 * smallReadAfter)
		select {
		case g := <-got:
			if g.Records != 1 {
				t.Fatalf("got %d", g.Records)
			}
		default:
			t.Fatal("still waiting")
		}
	})
}

// TestI8TheBudgetAlwaysBalances: whatever is asked, brought, handed out and confirmed, all of it comes back.
func TestI8TheBudgetAlwaysBalances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.Int64Range(100, 5000).Draw(t, "bytes")
		b := NewBudget(capacity, 50)
		type held struct {
			records int
			bytes   int64
		}
		var all []held
		for range rapid.IntRange(1, 40).Draw(t, "reads") {
			r := Request{Records: rapid.IntRange(1, 80).Draw(t, "records"), MeanBytes: rapid.Int64Range(1, 200).Draw(t, "mean")}
			g, ok := func() (Grant, bool) {
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.grantLocked(r, true)
			}()
			if ok {
				if bytes, records := b.Held(); bytes > capacity || records > 50 {
					t.Fatalf("granted beyond the budget: %d bytes, %d records", bytes, records)
				}
				h := held{records: rapid.IntRange(0, g.Records).Draw(t, "brought")}
				h.bytes = int64(h.records) * r.MeanBytes
				b.Settle(g, h.records, h.bytes)
				all = append(all, h)
			}
			if len(all) > 0 && rapid.Bool().Draw(t, "deliver") {
				b.HandedOut(all[0].records)
				b.Release(all[0].bytes)
				all = all[1:]
			}
		}
		for _, h := range all {
			b.HandedOut(h.records)
			b.Release(h.bytes)
		}
		if bytes, records := b.Held(); bytes != 0 || records != 0 {
			t.Fatalf("%d bytes and %d records are left over", bytes, records)
		}
	})
}

func TestPacing(t *testing.T) {
	began := time.Unix(1000, 0)
	for _, tc := range []struct {
		name    string
		brought int64
		spacing time.Duration
		after   time.Duration
	}{
		{"an empty read", 0, 250 * time.Millisecond, 250 * time.Millisecond},
		{"half a second's share", 1 << 20, 250 * time.Millisecond, 500 * time.Millisecond},
		{"the most a read can bring", 10 << 20, 250 * time.Millisecond, 5 * time.Second},
		{"pacing is off", 10 << 20, 0, 0},
	} {
		if got := nextRead(began, tc.brought, tc.spacing).Sub(began); got != tc.after {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.after)
		}
	}
}

func TestReadsAreSizedByWhatRecordsWeigh(t *testing.T) {
	for _, tc := range []struct {
		mean  int64
		max   int
		limit int
	}{
		{0, 10_000, 1}, {1 << 10, 10_000, 1024}, {1 << 20, 10_000, 1}, {50 << 20, 10_000, 1}, {500, 1000, 1000}, {10, 20_000, 10_000},
	} {
		if got := readLimit(tc.mean, tc.max); got != tc.limit {
			t.Errorf("mean %d, at most %d: %d, want %d", tc.mean, tc.max, got, tc.limit)
		}
	}
	mean := int64(0)
	if mean = meanOf(mean, 100_000, 100); mean != 1000 {
		t.Fatalf("the first read sets it: %d", mean)
	}
	if mean = meanOf(mean, 0, 0); mean != 1000 {
		t.Fatalf("an empty read tells nothing: %d", mean)
	}
	if mean = meanOf(mean, 1<<20, 1); mean != 1<<20 {
		t.Fatalf("growth counts at once: %d", mean)
	}
	if next := meanOf(mean, 1000, 1); next >= mean || next < mean/2 {
		t.Fatalf("it shrinks slowly: %d", next)
	}
}

func TestRetriesSpreadAndAreBounded(t *testing.T) {
	if got := retryAfter(1, 0); got != firstRetryAfter {
		t.Fatalf("got %s", got)
	}
	for failures := 1; failures < 100; failures++ {
		long, short := retryAfter(failures, 0), retryAfter(failures, 1)
		if long > lastRetryAfter || short < long/2 || short >= long {
			t.Fatalf("%d failures: %s to %s", failures, short, long)
		}
	}
}
