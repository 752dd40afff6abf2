package input

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

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

// Rule 7: `fan_out_fail_fast` acks once for each error, and other outputs may do worse. A second ack of whatever kind must not
// move the position past a record that is being replayed, let a second batch out beside the one in flight, or bring records
// back that were delivered.
func TestOnlyTheFirstAckOfABatchCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := retrieval.NewBudget(64<<20, 1000)
		s := newStage(t, budget, 10)
		s.shard.put(2)
		got, _, first := s.next()
		expectNumbers(t, got, 1, 2)
		_ = first(t.Context(), errNack)
		_ = first(t.Context(), nil)
		if at := s.lease.position(); at != "TRIM_HORIZON" {
			t.Fatalf("a late ack without an error moved the position to %s, past what is to be replayed", at)
		}
		s.shard.put(1)
		got, _, second := s.next()
		expectNumbers(t, got, 1, 2)
		_ = first(t.Context(), errNack)
		_ = first(t.Context(), nil)
		time.Sleep(time.Minute)
		s.nothingReady("the replay is in flight")
		_ = second(t.Context(), nil)
		_ = second(t.Context(), errNack)
		got, _, third := s.next()
		expectNumbers(t, got, 3)
		_ = second(t.Context(), errNack)
		_ = third(t.Context(), nil)
		time.Sleep(time.Minute)
		s.nothingReady("all is delivered")
		if bytes, records := budget.Held(); bytes != 0 || records != 0 {
			t.Errorf("%d bytes and %d records are held", bytes, records)
		}
		if at := s.lease.position(); at != "3" {
			t.Errorf("at %s", at)
		}
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

// Copies of an ended run's records may still be on their way to the output; they are not sent behind what the next owner sends.
func TestWhatIsAwayWhenARunEndsIsNotSentAnyMore(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(1)
		_, ids, _ := s.next()
		closed := false
		if !ids[0].Attempt().Run().OnClose("output", func() <-chan struct{} { closed = true; return nil }) {
			t.Fatal("the run is over")
		}
		s.run.end()
		if !closed {
			t.Error("the output was not told to end the run's producers")
		}
		if !attempt.Withhold(ids[0].Attempt()) {
			t.Error("a record of an ended run would be sent, since its lease has not expired yet")
		}
	})
}

// What waits for its replay is in no queue and in no flight.
func TestARunThatEndsBeforeAReplayHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := retrieval.NewBudget(64<<20, 1000)
		s := newStage(t, budget, 10)
		s.shard.put(3)
		_, _, ack := s.next()
		_ = ack(t.Context(), errNack)
		s.run.end()
		if bytes, records := budget.Held(); bytes != 0 || records != 0 {
			t.Errorf("%d bytes and %d records are held for good", bytes, records)
		}
	})
}

// I1, r5.6: where Kinesis says that the shard goes on is checkpointed only when all that was read is confirmed, which is more
// than what was handed out: a queued record is not known to the tracker yet.
func TestAnEmptyEventPassesNothingThatIsUnconfirmed(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		event := retrieval.Read{Reached: checkpoint.Position{Sequence: "50"}, MillisBehindLatest: 0}
		s.shard.put(2)
		synctest.Wait()
		s.run.add(event)
		if at := s.lease.position(); at != "none" {
			t.Fatalf("at %s with records in the queue", at)
		}
		_, _, ack := s.next()
		s.run.add(event)
		if at := s.lease.position(); at != "none" {
			t.Fatalf("at %s with records in flight", at)
		}
		_ = ack(t.Context(), errNack)
		s.run.add(event)
		if at := s.lease.position(); at != "TRIM_HORIZON" {
			t.Fatalf("at %s with records to be replayed", at)
		}
		_, _, ack = s.next()
		_ = ack(t.Context(), nil)
		s.run.add(event)
		if at := s.lease.position(); at != "50" {
			t.Fatalf("at %s, want where the event says that the shard goes on", at)
		}
	})
}

// 25 g: the next owner of a numbered shard learns from the record at its position that nothing was trimmed behind it.
func TestANumberedShardIsNotMovedToAPositionThatIsNoRecords(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		event := retrieval.Read{Reached: checkpoint.Position{Sequence: "50"}, MillisBehindLatest: 0}
		s.run.mu.Lock()
		s.run.mu.numbered = true
		s.run.mu.Unlock()
		s.shard.put(2)
		_, _, ack := s.next()
		_ = ack(t.Context(), nil)
		s.run.add(event)
		if at := s.lease.position(); at != "2" {
			t.Errorf("at %s", at)
		}
	})
}

// Rule 2: what grows while the previous batch is away stays within 1 MiB, but for a single record that is larger.
func TestABatchStaysWithinItsBytes(t *testing.T) {
	for size, want := range map[int]int{300 << 10: 3, 2 << 20: 1} {
		inBubble(t, size, func(t *testing.T, s *stage) {
			s.shard.put(1)
			_, _, ack := s.next()
			s.shard.put(9)
			synctest.Wait()
			_ = ack(t.Context(), nil)
			got, _, ack := s.next()
			if len(got) > want {
				t.Errorf("a batch of %d records of %d bytes, want %d", len(got), size, want)
			}
			_ = ack(t.Context(), nil)
		})
	}
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
