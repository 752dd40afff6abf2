package input

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

func TestWhatTheGaugesShowOfAShard(t *testing.T) {
	inBubble(t, 10, func(t *testing.T, s *stage) {
		expect := func(what string, wantLag, wantAge time.Duration, wantInFlight int) {
			t.Helper()
			synctest.Wait()
			lag, age, inFlight := s.run.measure(time.Now())
			if lag != wantLag || age != wantAge || inFlight != wantInFlight {
				t.Errorf("%s: lag %s, checkpoint age %s, %d in flight; want %s, %s, %d", what, lag, age, inFlight, wantLag, wantAge, wantInFlight)
			}
		}
		expect("nothing was read", 0, 0, 0)
		s.shard.put(3)
		_, _, ack := s.next()
		s.run.mu.Lock()
		s.run.mu.behind = 5000
		s.run.mu.Unlock()
		expect("a batch is away", 5*time.Second, 0, 3)
		time.Sleep(staleAfter)
		expect("it stays away", 5*time.Second, staleAfter, 3)
		time.Sleep(time.Second)
		expect("and the shard is not read any more", 5*time.Second+staleAfter+time.Second, staleAfter+time.Second, 3)
		_ = ack(t.Context(), nil)
		expect("delivered, and not in a checkpoint", 5*time.Second+staleAfter+time.Second, staleAfter+time.Second, 0)
		s.lease.mu.Lock()
		s.lease.stored = checkpoint.Position{Sequence: "3"}
		s.lease.mu.Unlock()
		expect("in a checkpoint", 5*time.Second+staleAfter+time.Second, 0, 0)
		// While records flow, the checkpoint is always behind the last one: what counts is how far.
		for i := range 5 {
			s.shard.put(1)
			_, _, ack := s.next()
			_ = ack(t.Context(), nil)
			synctest.Wait()
			s.run.measure(time.Now())
			time.Sleep(time.Second)
			s.lease.mu.Lock()
			s.lease.stored = checkpoint.Position{Sequence: strconv.Itoa(3 + i)} // one behind
			s.lease.mu.Unlock()
		}
		if _, age, _ := s.run.measure(time.Now()); age != time.Second {
			t.Errorf("records flow, and the checkpoint is a second behind: its age is %s", age)
		}
	})
}
