package input

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
)

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
