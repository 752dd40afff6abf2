package input

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
)

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
