package attempt

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

type fixed struct{ first int64 }

func (f fixed) Sequence(context.Context, int, string) (Sequence, error) {
	return Sequence{Producer: "p", First: f.first}, nil
}

func TestARecordHasOneNumberInEveryAttempt(t *testing.T) {
	r := NewRun("shard", open(), fixed{first: -3})
	s, err := r.Sequence(t.Context(), 1, "")
	if err != nil {
		t.Fatal(err)
	}
	first := r.Attempt(3, func(i int) Origin { return Origin{Ordinal: int64(3 + i), PartitionKey: "k"} })
	replay := r.Attempt(1, func(int) Origin { return Origin{Ordinal: 5} })
	if a, b := s.Number(first.ID(2)), s.Number(replay.ID(0)); a != 2 || b != 2 {
		t.Errorf("numbers %d and %d", a, b)
	}
	if id := first.ID(1); id.Ordinal() != 4 || id.Origin().PartitionKey != "k" || id.Attempt().Run() != r {
		t.Errorf("%+v", id)
	}
	if _, err := New("shard", open(), 1).Run().Sequence(t.Context(), 1, ""); !errors.Is(err, ErrNoSequence) {
		t.Errorf("records of another input are numbered: %v", err)
	}
}

// A drain waits for the producers, and may be taken back; the end of the run is final.
func TestTheProducersOfARunEndWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRun("shard", open(), nil)
		if err := r.CloseProducers(t.Context()); err != nil {
			t.Fatal(err)
		}
		begun := 0
		done := make(chan struct{})
		end := func() <-chan struct{} { begun++; return done }
		if !r.OnClose("output", end) {
			t.Fatal("refused")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := r.CloseProducers(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if begun != 1 || r.CloseProducers(t.Context()) != nil || begun != 1 {
			t.Errorf("ended %d times", begun)
		}
		r.OnClose("output", end)
		r.OnClose("other", end)
		r.Forget("other")
		go func() {
			time.Sleep(time.Second)
			close(done)
		}()
		asked := time.Now()
		if err := r.CloseProducers(t.Context()); err != nil || begun != 2 || time.Since(asked) != time.Second {
			t.Errorf("%d after %s, %v", begun, time.Since(asked), err)
		}
		r.OnClose("output", end)
		r.End()
		if begun != 3 || r.OnClose("output", end) {
			t.Errorf("ended %d times", begun)
		}
	})
}

// What has a number is never sent behind a higher one: only what Pulsar has not confirmed comes back, whatever its key.
func TestNumberedRecordsComeBackAlone(t *testing.T) {
	a := New("shard", open(), 6)
	end, err := Begin("out", a)
	if err != nil {
		t.Fatal(err)
	}
	a.Exact()
	for i := range 5 {
		a.ID(i).Entered("the same key")
	}
	end()
	for _, i := range []int{0, 1, 3} {
		a.ID(i).Confirm()
	}
	a.Done(true)
	if replay, _ := a.Undelivered(func(int) string { return "the same key" }); !slices.Equal(replay, []int{2, 4, 5}) {
		t.Errorf("replay %v", replay)
	}
}

// A batch that comes once more, behind an output that tries again, and is held back then says nothing of what was stored.
func TestANumberedRecordStaysConfirmed(t *testing.T) {
	a := New("shard", open(), 2)
	for try := range 2 {
		end, err := Begin("out", a)
		if err != nil {
			t.Fatal(err)
		}
		if try == 0 {
			a.Exact()
			a.ID(0).Entered("k")
			a.ID(1).Entered("k")
		} else {
			a.ID(0).Skipped()
			a.ID(1).Skipped()
		}
		end()
		if try == 0 {
			a.ID(0).Confirm()
		}
	}
	a.Done(true)
	if replay, _ := a.Undelivered(func(int) string { return "k" }); !slices.Equal(replay, []int{1}) {
		t.Errorf("replay %v", replay)
	}
}
