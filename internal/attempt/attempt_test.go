package attempt

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// stopped is a clock that a test moves by hand.
type stopped struct {
	mu  sync.Mutex
	now time.Duration // guarded by mu
}

func (c *stopped) clock() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *stopped) set(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func open() *Fence { return NewFence((&stopped{}).clock, time.Hour) }

// send plays an output that sends the given records and has some of them confirmed.
func send(t *testing.T, output string, a *Attempt, records []int, confirmed ...int) {
	t.Helper()
	end, err := Begin(output, a)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range records {
		a.ID(i).Entered("key-" + string(rune('a'+i%3)))
	}
	end()
	for _, i := range confirmed {
		a.ID(i).Confirm()
	}
}

func undelivered(a *Attempt) []int {
	replay, _ := a.Undelivered(func(i int) string { return "key-" + string(rune('a'+i%3)) })
	return replay
}

func TestFenceClosesForEverAtItsDeadline(t *testing.T) {
	c := &stopped{}
	f := NewFence(c.clock, 10*time.Second)
	c.set(9 * time.Second)
	if !f.Open() || !f.Extend(12*time.Second) {
		t.Fatal("the fence must be open before its deadline")
	}
	if f.Extend(11 * time.Second); f.Deadline() != 12*time.Second {
		t.Fatalf("an extension moved the deadline back to %s", f.Deadline())
	}
	c.set(12 * time.Second)
	if f.Extend(time.Hour) {
		t.Fatal("a renewal that came too late brought the run back")
	}
	if c.set(0); f.Open() {
		t.Fatal("a closed fence opened again")
	}
}

func TestFenceNoticesAPauseWithoutBeingAsked(t *testing.T) {
	// The machine slept over the deadline; the first question afterwards comes from Extend, with a renewal's success.
	c := &stopped{}
	f := NewFence(c.clock, 10*time.Second)
	c.set(time.Minute)
	if f.Extend(2*time.Minute) || f.Open() {
		t.Fatal("the run must be over")
	}
}

func TestNothingIsSentForAFailedAttempt(t *testing.T) {
	// fan_out_fail_fast acks at the first error while another output still has the batch: its late copy would land
	// behind the replay.
	a := New("shard", open(), 2)
	a.Done(true)
	if _, err := Begin("out", a); !errors.Is(err, ErrStale) {
		t.Fatalf("got %v", err)
	}
}

func TestNothingIsSentBehindTheFence(t *testing.T) {
	f := open()
	a := New("shard", f, 2)
	f.Close()
	if _, err := Begin("out", a); !errors.Is(err, ErrFenced) {
		t.Fatalf("got %v", err)
	}
}

func TestAnAckedAttemptIsSentWhateverTheFenceSays(t *testing.T) {
	// A buffer acked early; refusing would lose what it holds.
	f := open()
	a := New("shard", f, 2)
	a.Done(false)
	f.Close()
	end, err := Begin("out", a)
	if err != nil {
		t.Fatal(err)
	}
	end()
}

func TestOneBadAttemptStopsAMergedBatchAndLeavesNoLock(t *testing.T) {
	good, bad := New("a", open(), 1), New("b", open(), 1)
	bad.Done(true)
	if _, err := Begin("out", good, bad, nil, good); !errors.Is(err, ErrStale) {
		t.Fatalf("got %v", err)
	}
	if !good.Done(false) { // would hang if Begin had kept the lock
		t.Fatal("the good attempt must still be open")
	}
}

func TestOnlyAttemptsThatAreOverAreWithheld(t *testing.T) {
	fence := open()
	running, failed, fenced, acked := New("a", open(), 1), New("b", open(), 1), New("c", fence, 1), New("d", fence, 1)
	failed.Done(true)
	acked.Done(false)
	fence.Close()
	if Withhold(failed, running) || Withhold(fenced, acked) {
		t.Fatal("withheld what may be sent")
	}
	if failed.Withheld() != nil || fenced.Withheld() != nil {
		t.Fatal("withheld a part")
	}
	if !Withhold(failed, fenced) || failed.Withheld() == nil || fenced.Withheld() == nil {
		t.Fatal("not withheld")
	}
	if running.Withheld() != nil || acked.Withheld() != nil {
		t.Fatal("withheld the wrong one")
	}
}

// A run that has ended confirms nothing any more, though its lease may be ours.
func TestAttemptsOfARunThatHasEndedAreWithheld(t *testing.T) {
	r := NewRun("a", open(), nil)
	a := r.Attempt(1, func(int) Origin { return Origin{} })
	if Withhold(a) {
		t.Fatal("withheld what may be sent")
	}
	r.End()
	if !Withhold(a) || !errors.Is(a.Withheld(), ErrFenced) {
		t.Fatalf("withheld: %v", a.Withheld())
	}
}

func TestOnlyWhatIsNotAckedIsPostponed(t *testing.T) {
	wait := errors.New("wait")
	running, failed, acked := New("a", open(), 1), New("b", open(), 1), New("c", open(), 1)
	failed.Done(true)
	acked.Done(false)
	if Postpone(wait, running, acked) || running.Withheld() != nil {
		t.Fatal("postponed what nobody hands out again")
	}
	if !Postpone(wait, running, failed) || !errors.Is(running.Withheld(), wait) {
		t.Fatalf("postponed: %v", running.Withheld())
	}
}

func TestTheFirstAckWins(t *testing.T) {
	a := New("shard", open(), 1)
	if !a.Done(true) || a.Done(false) {
		t.Fatal("the second ack must be ignored")
	}
	if _, err := Begin("out", a); !errors.Is(err, ErrStale) {
		t.Fatal("the attempt must stay failed")
	}
}

func TestUndelivered(t *testing.T) {
	for _, tc := range []struct {
		name   string
		play   func(t *testing.T, a *Attempt)
		replay []int
	}{
		{"no marks: all of it", func(*testing.T, *Attempt) {}, []int{0, 1, 2, 3, 4, 5}},
		{"all confirmed: nothing", func(t *testing.T, a *Attempt) {
			send(t, "out", a, []int{0, 1, 2, 3, 4, 5}, 0, 1, 2, 3, 4, 5)
		}, nil},
		{"record 1 failed: it, and record 4 of its key though confirmed", func(t *testing.T, a *Attempt) {
			send(t, "out", a, []int{0, 1, 2, 3, 4, 5}, 0, 2, 3, 4, 5)
		}, []int{1, 4}},
		{"record 2 was filtered out: it may as well have been lost", func(t *testing.T, a *Attempt) {
			send(t, "out", a, []int{0, 1, 3, 4, 5}, 0, 1, 3, 4, 5)
		}, []int{2, 5}},
		{"two outputs saw it: their marks prove nothing", func(t *testing.T, a *Attempt) {
			send(t, "out", a, []int{0, 1, 2, 3, 4, 5}, 0, 1, 2, 3, 4, 5)
			send(t, "other", a, nil)
		}, []int{0, 1, 2, 3, 4, 5}},
		{"a copy of record 3 was not confirmed: neither is the record", func(t *testing.T, a *Attempt) {
			send(t, "out", a, []int{0, 1, 2, 3, 3, 4, 5}, 0, 1, 2, 3, 4, 5)
		}, []int{3}},
		{"a second part of the batch with a copy of record 0 never got out", func(t *testing.T, a *Attempt) {
			send(t, "out", a, []int{0, 1, 2, 3, 4, 5}, 0, 1, 2, 3, 4, 5)
			end, err := Begin("out", a)
			if err != nil {
				t.Fatal(err)
			}
			a.ID(0).Skipped()
			end()
		}, []int{0, 3}},
		{"a refused record goes alone: its key went on without it on purpose", func(t *testing.T, a *Attempt) {
			send(t, "out", a, []int{0, 1, 2, 3, 4, 5}, 0, 2, 3, 4, 5)
			a.ID(1).Refuse()
		}, []int{1}},
		{"a mark after the ack is too late", func(t *testing.T, a *Attempt) {
			send(t, "out", a, []int{0, 1, 2, 3, 4, 5}, 0, 1, 2, 3, 4)
			a.Done(true)
			a.ID(5).Confirm()
			ConfirmAll([]*RecordID{a.ID(5), nil})
		}, []int{5}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := New("shard", open(), 6)
			tc.play(t, a)
			a.Done(true)
			if got := undelivered(a); !slices.Equal(got, tc.replay) {
				t.Fatalf("replay %v, want %v", got, tc.replay)
			}
		})
	}
}

func TestTheKeyOfTheSentMessageCounts(t *testing.T) {
	// A mapping gave all records one key: what the input thinks of as different keys is one sequence in the topic.
	a := New("shard", open(), 3)
	end, err := Begin("out", a)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		a.ID(i).Entered("the one key")
	}
	end()
	ConfirmAll([]*RecordID{nil, a.ID(1), a.ID(2)})
	a.Done(true)
	if got := undelivered(a); !slices.Equal(got, []int{0, 1, 2}) {
		t.Fatalf("replay %v", got)
	}
}

func TestWithChangedKeysARecordThatNeverCameTakesAllBehindItAlong(t *testing.T) {
	// A mapping set other keys, and record 1 was rejected by a processor: nobody knows the key it would have had.
	a := New("shard", open(), 4)
	end, err := Begin("out", a)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2, 3} {
		a.ID(i).Entered("mapped")
	}
	end()
	ConfirmAll([]*RecordID{a.ID(0), a.ID(2), a.ID(3)})
	a.Done(true)
	if got := undelivered(a); !slices.Equal(got, []int{1, 2, 3}) {
		t.Fatalf("replay %v", got)
	}
}

func TestAllRefusedIsTold(t *testing.T) {
	a := New("shard", open(), 2)
	send(t, "out", a, []int{0, 1}, 0)
	a.ID(1).Refuse()
	a.Done(true)
	if _, refused := a.Undelivered(func(int) string { return "" }); !refused {
		t.Fatal("nothing but a refused record is left")
	}
}

func TestContextNamesTheAttempt(t *testing.T) {
	a := New("shard", open(), 1)
	if FromContext(a.Context(context.Background())) != a || FromContext(context.Background()) != nil {
		t.Fatal("the context must carry its attempt, and only its own")
	}
	if a.ID(0).Attempt() != a || a.ID(0).Index() != 0 || a.Shard() != "shard" || a.Len() != 1 {
		t.Fatal("the id must lead back to its attempt")
	}
}

func TestMergedBatchesLockInOneOrder(t *testing.T) {
	// Two outputs with the same two attempts in opposite order, many times: a deadlock here hangs the test.
	a, b := New("a", open(), 1), New("b", open(), 1)
	var both sync.WaitGroup
	for _, pair := range [][]*Attempt{{a, b}, {b, a}} {
		both.Go(func() {
			for range 1000 {
				end, err := Begin("out", pair...)
				if err != nil {
					t.Error(err)
					return
				}
				end()
			}
		})
	}
	both.Wait()
}

func TestBootClockGoesForward(t *testing.T) {
	if first := BootClock(); BootClock() < first {
		t.Fatal("the clock went back")
	}
}

// Batches that were merged on the way hold several attempts, in any order. Locked as they come, two of them could wait for each
// other for ever; so an attempt that has to wait for an earlier one is not locked meanwhile.
func TestMergedBatchesAreLockedInOneOrder(t *testing.T) {
	first, second := New("shard", open(), 1), New("shard", open(), 1)
	first.mu.Lock()
	done := make(chan error, 1)
	go func() {
		end, err := Begin("output", second, first)
		if err == nil {
			end()
		}
		done <- err
	}()
	for range 100 {
		if !second.mu.TryLock() {
			t.Error("the later attempt is locked while the earlier one is waited for")
			break
		}
		second.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	first.mu.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
