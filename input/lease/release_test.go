package lease

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

func TestCloseReleasesAllInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const n = 50
		for i := range n {
			w.lease(fmt.Sprintf("shardId-%012d", i), at("1"))
		}
		k := w.worker("A").run()
		time.Sleep(100 * time.Millisecond)
		for i := range n {
			k.mustHold(fmt.Sprintf("shardId-%012d", i)).Confirmed(at("9"), 0)
		}
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.SlowAnswer, Delay: sec, When: isRelease, Count: -1})
		begin := time.Now()
		k.close()
		if d := time.Since(begin); d != sec {
			t.Errorf("%d releases of 1 s each took %s", n, d)
		}
		<-k.done // Run has returned
		for i := range n {
			if l := w.read(fmt.Sprintf("shardId-%012d", i)); l.Owner != "" || l.Checkpoint != at("9") {
				t.Errorf("not released: %+v", l)
			}
		}
	})
}

// r2.4: nothing may go out any more once the release has been sent, whether it is answered or not.
func TestTheFenceClosesBeforeTheRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, h := holding(t, "1")
		seen := false
		w.db.OnRequest(func(r dynamotest.Request) *dynamotest.Fault {
			if isRelease(r) {
				seen = true
				if h.Fence().Open() || !isOver(h) {
					t.Error("the run goes on while its release is sent")
				}
			}
			return nil
		})
		if err := h.Release(t.Context()); err != nil || !seen {
			t.Errorf("Release: %v, sent %v", err, seen)
		}
	})
}

func TestLostAnswerOfARelease(t *testing.T) {
	for _, kind := range []dynamotest.Kind{dynamotest.LoseAnswer, dynamotest.HangAnswer, dynamotest.AppliedInternalError, dynamotest.LoseRequest, dynamotest.Throttle} {
		synctest.Test(t, func(t *testing.T) {
			w, k, h := holding(t, "1")
			h.Confirmed(at("5"), 0)
			w.db.Inject(dynamotest.Fault{Kind: kind, When: isRelease})
			k.close()
			if l := w.read(shard0); l.Owner != "" || l.Checkpoint != at("5") || h.Stored() != at("5") {
				t.Errorf("fault %d: %+v, known as stored %s", kind, l, h.Stored())
			}
		})
	}
}

// The renewal under way was done, its answer lost: the release is sent on a counter that has moved, with a position
// that has moved on.
func TestReleaseAfterALostAnswerOfAKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, k, h := holding(t, "1")
		sent := w.times(isKeep)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.HangAnswer, When: isKeep})
		h.Confirmed(at("5"), 0)
		for len(sent()) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		h.Confirmed(at("7"), 0)
		begin := time.Now()
		k.close()
		if d := time.Since(begin); d > 1500*time.Millisecond {
			t.Errorf("Close took %s, want one try's time at most", d)
		}
		if l := w.read(shard0); l.Owner != "" || l.Checkpoint != at("7") {
			t.Errorf("%+v", l)
		}
	})
}

func TestCloseDuringATakeReleasesWhatItGot(t *testing.T) {
	for kind, delay := range map[dynamotest.Kind]time.Duration{dynamotest.SlowAnswer: sec, dynamotest.HangAnswer: 0} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.lease(shard0, at("1"))
			w.db.Inject(dynamotest.Fault{Kind: kind, Delay: delay, When: isTake})
			k := w.worker("A").run()
			time.Sleep(500 * time.Millisecond)
			if w.read(shard0).Owner != "A" {
				t.Fatal("the take is not under way")
			}
			k.close()
			if l := w.read(shard0); l.Owner != "" {
				t.Errorf("fault %d: still owned: %+v", kind, l)
			}
		})
	}
}

func TestCloseAfterRunHasEndedDuringATake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.HangAnswer, When: isTake})
		k := w.worker("A").run()
		time.Sleep(500 * time.Millisecond)
		k.kill()
		if w.read(shard0).Owner != "A" {
			t.Fatal("the take was not done")
		}
		if err := k.m.Close(t.Context()); err != nil || w.read(shard0).Owner != "" {
			t.Errorf("Close: %v, %+v", err, w.read(shard0))
		}
	})
}

func TestCloseIsBoundedByItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		w.lease(shard1, at("1"))
		k := w.worker("A").run()
		time.Sleep(sec)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.Hang, Count: -1, When: func(r dynamotest.Request) bool { return r.Operation == "UpdateItem" }})
		time.Sleep(3 * sec) // renewals hang
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		begin := time.Now()
		err := k.m.Close(ctx)
		if d := time.Since(begin); d > 500*time.Millisecond {
			t.Errorf("Close took %s", d)
		}
		if err == nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		if again := k.m.Close(t.Context()); again == nil || again.Error() != err.Error() {
			t.Errorf("a second Close tells the same: %v", again)
		}
		<-k.done
	})
}

// A release that somebody began with more patience than Close has does not hold Close up.
func TestCloseIsNotBoundToARelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, k, h := holding(t, "1")
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.Hang, Count: -1, When: isRelease})
		released := make(chan error)
		go func() { released <- h.Release(t.Context()) }()
		time.Sleep(sec)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		begin := time.Now()
		err := k.m.Close(ctx)
		if d := time.Since(begin); d != 500*time.Millisecond {
			t.Errorf("Close took %s", d)
		}
		if err == nil {
			t.Error("Close does not tell of the lease that was not released")
		}
		if err := <-released; err == nil {
			t.Error("Release tells of success")
		}
		<-k.done
	})
}

// The same when Run's context ends: the release goes on in Close.
func TestAReleaseThatIsCutShortIsDoneByClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, k, h := holding(t, "1")
		h.Confirmed(at("5"), 0)
		hang := w.db.Inject(dynamotest.Fault{Kind: dynamotest.Hang, Count: -1, When: isRelease})
		released := make(chan error)
		go func() { released <- h.Release(t.Context()) }()
		time.Sleep(sec)
		begin := time.Now()
		k.kill()
		if d := time.Since(begin); d > 0 {
			t.Errorf("Run returned after %s", d)
		}
		if err := <-released; err == nil {
			t.Error("Release tells of success")
		}
		hang.Remove()
		if err := k.m.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if l := w.read(shard0); l.Owner != "" || l.Checkpoint != at("5") {
			t.Errorf("%+v", l)
		}
	})
}

// The same when Close is called in that very moment.
func TestAReleaseThatIsCutShortWhileCloseBeginsIsDoneByClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, k, h := holding(t, "1")
		h.Confirmed(at("5"), 0)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.Hang, When: isRelease})
		go func() { _ = h.Release(t.Context()) }()
		time.Sleep(sec)
		ctx, stop := context.WithCancel(t.Context())
		context.AfterFunc(ctx, func() {
			if err := k.m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
		stop()
		k.kill()
		synctest.Wait()
		if l := w.read(shard0); l.Owner != "" || l.Checkpoint != at("5") {
			t.Errorf("%+v", l)
		}
	})
}

func TestCloseWithoutRunAndRunAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		k := w.worker("A")
		if err := k.m.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := k.m.Run(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
		if w.read(shard0).Owner != "" {
			t.Error("a closed manager took a lease")
		}
	})
}

func TestCloseAfterRunHasEndedStillReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, k, h := holding(t, "1")
		h.Confirmed(at("5"), 0)
		k.kill()
		if !isOver(h) || h.Fence().Open() || !errors.Is(h.Err(), ErrStopped) || w.read(shard0).Owner != "A" {
			t.Fatalf("after the end of Run: %v, %+v", h.Err(), w.read(shard0))
		}
		k.close()
		if l := w.read(shard0); l.Owner != "" || l.Checkpoint != at("5") {
			t.Errorf("%+v", l)
		}
	})
}

// r6.5: the release carries SHARD_END, and nobody takes an ended lease.
func TestTheEndOfAShardIsStoredWithItsRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		k := w.worker("A").run()
		other := w.worker("B").run()
		time.Sleep(sec)
		if k.held(shard0) == nil {
			k, other = other, k
		}
		h := k.mustHold(shard0)
		if _, err := w.table.SetChildren(t.Context(), shard0, []string{shard1, "shardId-000000000002"}); err != nil {
			t.Fatal(err)
		}
		h.Confirmed(at(checkpoint.ShardEnd), 0)
		if err := h.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		counter := w.read(shard0).Counter
		time.Sleep(time.Minute)
		if l := w.read(shard0); !l.Ended() || l.Owner != "" || l.Counter != counter || len(l.Children) != 2 {
			t.Errorf("%+v", l)
		}
		if !isOver(h) || other.held(shard0) != nil || len(k.runs(shard0)) != 1 {
			t.Error("an ended lease was taken")
		}
		if err := h.Release(t.Context()); err != nil {
			t.Errorf("second Release: %v", err)
		}
	})
}

// A shard that has been read to its end is given to nobody, though somebody asks for it: not when its end was stored by a
// renewal already, either, which leaves the release nothing to write.
func TestTheEndOfAShardIsNotGivenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		a.onDrain(func(*Held) {})
		b := w.worker("B").wants(shard0).run()
		w.await("the drain", func() bool { drains, _ := a.drainsAndResumes(); return drains == 1 })
		h.Confirmed(at(checkpoint.ShardEnd), 0)
		w.await("the renewal", func() bool { return w.read(shard0).Ended() })
		if err := h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(20 * sec)
		if l := w.read(shard0); l.Owner != "" || !l.Ended() || l.Ask != "" {
			t.Errorf("%+v", l)
		}
		if n := len(b.runs(shard0)); n != 0 {
			t.Errorf("%d runs of a shard that has nothing left", n)
		}
	})
}

func TestAReleasedLeaseGoesToAnotherWorkerWithinOneScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		a := w.worker("A").run()
		time.Sleep(sec)
		a.mustHold(shard0).Confirmed(at("5"), 0)
		b := w.worker("B").run()
		time.Sleep(7 * sec)
		a.close()
		time.Sleep(3300 * time.Millisecond)
		if h := b.mustHold(shard0); h.Lease().Checkpoint != at("5") {
			t.Errorf("starts at %s", h.Lease().Checkpoint)
		}
	})
}
