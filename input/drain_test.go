package input

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// drains are the positions at which the run said that it is drained.
func (s *stage) drains() []string {
	synctest.Wait()
	s.lease.mu.Lock()
	defer s.lease.mu.Unlock()
	return slices.Clone(s.lease.drained)
}

func (s *stage) expectDrains(want ...string) {
	s.t.Helper()
	if got := s.drains(); !slices.Equal(got, want) {
		s.t.Fatalf("drained at %v, want %v", got, want)
	}
}

// r4.3: what the next owner goes on from is the last record that was handed out.
func TestR43ADrainWaitsForWhatIsInFlightAndHandsOutNothingNew(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(2)
		got, _, ack := s.next()
		expectNumbers(t, got, 1, 2)
		s.shard.put(5)
		synctest.Wait()
		s.run.drain()
		s.expectDrains()
		if bytes, records := s.run.budget.Held(); records != 0 || bytes != 2*(10+1+400) {
			t.Fatalf("%d records, %d bytes are held by a run that drains", records, bytes)
		}
		_ = ack(t.Context(), nil)
		s.expectDrains("2")
		s.nothingReady("the run is drained")
		s.shard.put(5)
		time.Sleep(time.Minute)
		s.nothingReady("the run is drained")
		s.expectDrains("2")
	})
}

func TestR43ADrainReplaysUntilAllIsConfirmed(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(3)
		_, _, ack := s.next()
		_ = ack(t.Context(), errNack)
		s.run.drain() // while the replay waits for its time
		s.expectDrains()
		got, _, ack := s.next()
		expectNumbers(t, got, 1, 2, 3)
		_ = ack(t.Context(), errNack)
		s.shard.put(3)
		got, _, ack = s.next()
		expectNumbers(t, got, 1, 2, 3)
		s.expectDrains()
		_ = ack(t.Context(), nil)
		s.expectDrains("3")
	})
}

func TestR43ARunThatHoldsNothingIsDrainedAtOnce(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		synctest.Wait()
		s.run.drain()
		s.expectDrains("none")
		s.run.drain() // wanted already
		s.expectDrains("none")
	})
}

func TestR44AResumedRunGoesOnWithoutALossOrARepeat(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(2)
		_, _, ack := s.next()
		s.shard.put(3)
		synctest.Wait()
		s.run.drain()
		s.run.resume() // before it was drained
		_ = ack(t.Context(), nil)
		s.expectDrains()
		got, _, ack := s.next()
		expectNumbers(t, got, 3, 4, 5)
		s.run.drain()
		s.shard.put(1)
		_ = ack(t.Context(), nil)
		s.expectDrains("5")
		s.run.resume() // after it
		got, _, ack = s.next()
		expectNumbers(t, got, 6)
		_ = ack(t.Context(), nil)
		s.expectDrains("5")
		s.run.drain() // and once more
		s.expectDrains("5", "6")
	})
}

// With enhanced fan-out Kinesis refuses the next owner until five seconds after our last subscription.
func TestR43WithFanOutReadingGoesOnUntilTheNextOwnerMaySubscribe(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		var free atomic.Value
		free.Store(time.Now().Add(4 * time.Second))
		s.run.freeAt = func() time.Time { return free.Load().(time.Time) }
		s.run.drain()
		for i := range 3 {
			s.shard.put(1)
			got, _, ack := s.next()
			expectNumbers(t, got, i+1)
			_ = ack(t.Context(), nil)
			time.Sleep(time.Second)
		}
		s.expectDrains()
		// The subscription was renewed meanwhile.
		free.Store(time.Now().Add(5 * time.Second))
		time.Sleep(2 * time.Second)
		s.shard.put(1)
		got, _, ack := s.next()
		expectNumbers(t, got, 4)
		_ = ack(t.Context(), nil)
		time.Sleep(time.Until(s.run.freeAt()) - drainLead/2)
		s.shard.put(1)
		s.nothingReady("the place is free in a moment")
		s.expectDrains()
		time.Sleep(drainLead)
		s.expectDrains("4")
	})
}

func TestR43AnEndedRunDoesNotDrain(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(2)
		_, _, ack := s.next()
		s.run.drain()
		s.run.end()
		_ = ack(t.Context(), nil)
		s.run.drain()
		s.expectDrains()
	})
}

// The end of a shard is written by one of the two; a drain that comes first leaves it to the next owner, who finds it
// again, and one that comes later waits until it is known whether the lease is ours still.
func TestR43ADrainAndTheEndOfAShardDoNotCross(t *testing.T) {
	ended := func(s *stage) {
		s.shard.mu.Lock()
		s.shard.ended = true
		s.shard.mu.Unlock()
	}
	inBubble(t, 10, func(t *testing.T, s *stage) {
		ended(s)
		s.shard.put(2)
		_, _, ack := s.next()
		s.run.drain()
		_ = ack(t.Context(), nil)
		s.expectDrains("2")
		select {
		case s.ends <- nil:
			t.Fatal("the end is written by a run that is drained")
		case <-time.After(time.Minute):
		}
		s.run.resume()
		s.ends <- nil
	})
	inBubble(t, 10, func(t *testing.T, s *stage) {
		ended(s)
		s.shard.put(2)
		_, _, ack := s.next()
		_ = ack(t.Context(), nil)
		synctest.Wait() // the end is being written
		s.run.drain()
		s.expectDrains()
		s.ends <- fmt.Errorf("the lease table is away")
		s.expectDrains("2")
	})
}

// A shard that was stuck for so long that its queue was given back drains like any other, and reads on when it is
// resumed and moves again.
func TestR43ABlockedShardDrains(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		s.shard.put(2)
		_, _, ack := s.next()
		s.shard.put(3)
		time.Sleep(blockedAfter + time.Second)
		s.run.drain()
		s.expectDrains()
		_ = ack(t.Context(), nil)
		s.expectDrains("2")
		s.nothingReady("the run is drained")
		s.run.resume()
		got, _, ack := s.next()
		expectNumbers(t, got, 3, 4, 5)
		_ = ack(t.Context(), nil)
	})
}

// The producers that the output has for this run alone keep the next owner's of the same names out (r4.3).
func TestR43TheRunsOwnProducersAreClosedFirst(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		closing, done := 0, make(chan struct{})
		register := func() {
			s.run.attempts.OnClose("output", func() <-chan struct{} { closing++; return done })
		}
		register()
		s.shard.put(2)
		_, _, ack := s.next()
		s.run.drain()
		synctest.Wait()
		if closing != 0 {
			t.Fatal("closed while a batch is away")
		}
		_ = ack(t.Context(), nil)
		s.expectDrains()
		if closing != 1 {
			t.Fatalf("%d told to close", closing)
		}
		// Resumed and drained again before they are closed: the output has made others meanwhile.
		s.run.resume()
		first := done
		done = make(chan struct{})
		register()
		s.run.drain()
		close(first)
		s.expectDrains()
		if closing != 2 {
			t.Fatalf("%d told to close", closing)
		}
		close(done)
		s.expectDrains("2")
	})
}
