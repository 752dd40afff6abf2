package retrieval

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func acquire(t *testing.T, b *Budget, records int, mean int64, small bool) Grant {
	t.Helper()
	g, err := b.Acquire(context.Background(), Request{Records: records, MeanBytes: mean}, small)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestI8AReadIsSizedToTheRoomLeft(t *testing.T) {
	b := NewBudget(1000, 100)
	if g := acquire(t, b, 50, 10, false); g.Records != 50 {
		t.Fatalf("got %d", g.Records)
	}
	if g := acquire(t, b, 80, 10, false); g.Records != 50 {
		t.Fatalf("with room for 50 records got %d", g.Records)
	}
	if bytes, records := b.Held(); bytes != 1000 || records != 100 {
		t.Fatalf("%d bytes, %d records", bytes, records)
	}
}

func TestARequestLargerThanTheBudgetIsCutToIt(t *testing.T) {
	b := NewBudget(100, 3)
	if g := acquire(t, b, 10_000, 60, false); g.Records != 1 {
		t.Fatalf("got %d", g.Records)
	}
	b = NewBudget(10, 3) // records larger than the whole budget: one at a time
	if g, err := b.Acquire(context.Background(), Request{Records: 5, MeanBytes: 60}, true); err != nil || g.Records != 1 {
		t.Fatalf("got %d, %v", g.Records, err)
	}
}

func TestAShardThatHoldsNothingIsNeverStoppedByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1000, 100)
		acquire(t, b, 100, 10, false) // stuck shards hold all of it
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
		held := acquire(t, b, 100, 10, false)
		got := make(chan Grant, 1)
		go func() {
			g, _ := b.Acquire(t.Context(), Request{Records: 40, MeanBytes: 10}, false)
			got <- g
		}()
		time.Sleep(time.Hour)
		select {
		case g := <-got:
			t.Fatalf("granted %d records of a full budget", g.Records)
		default:
		}
		b.Settle(held, 92, 920) // 8 records are free: less than a quarter of what is asked for
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
		acquire(t, b, 100, 10, false)
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				if _, err := b.Acquire(t.Context(), Request{Records: 10, MeanBytes: 10}, false); err == nil {
					order <- i
				}
			}()
			synctest.Wait()
		}
		for i := range 3 {
			b.Release(100)
			if got := <-order; got != i {
				t.Fatalf("waiter %d was served as number %d", got, i)
			}
		}
	})
}

func TestAWaiterThatGivesUpLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1000, 1000)
		held := acquire(t, b, 100, 10, false)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := b.Acquire(ctx, Request{Records: 100, MeanBytes: 10}, false)
			failed <- err
		}()
		synctest.Wait()
		second := make(chan Grant, 1)
		go func() {
			g, _ := b.Acquire(t.Context(), Request{Records: 1, MeanBytes: 10}, false)
			second <- g
		}()
		synctest.Wait()
		b.Release(20) // enough for the second, who stands behind the first
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
		b.Settle(held, 0, 20) // two records' bytes went by Release above
		b.Settle(Grant{Records: 1, bytes: 10}, 0, 0)
		if bytes, records := b.Held(); bytes != 0 || records != 0 {
			t.Fatalf("%d bytes and %d records are left over", bytes, records)
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
				return b.grantLocked(r)
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
