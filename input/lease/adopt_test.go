package lease

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

// given is a world in which the first lease has just been given to B, by a worker that believes in a lease for 30 s.
func given(t *testing.T) (w *world, b *worker, l Lease) {
	t.Helper()
	w = newWorld(t)
	time.Sleep(100 * sec) // a clock that begins at 0 would hide a stamp that is missing
	w.put(Lease{Key: shard0, Owner: "B", Acquisition: "B#given.g", Counter: 7, Checkpoint: at("10"), Stream: testStream},
		map[string]types.AttributeValue{attrFailover: number(30_000)})
	return w, w.worker("B"), w.read(shard0)
}

// began expects that the run has begun from what the item says, after the answer to a write of B's.
func (w *world) began(h *Held, counter int64) {
	w.t.Helper()
	if h == nil {
		w.t.Fatal("no run")
	}
	l := w.read(shard0)
	if l.Owner != "B" || l.Acquisition != "B#given.g" || l.Counter != counter || l.Failover != 9*sec || l.Checkpoint != at("10") {
		w.t.Errorf("the item: %+v, want the counter %d", l, counter)
	}
	if h.Lease().Counter != l.Counter || h.Lease().Checkpoint != l.Checkpoint || h.own.counter != l.Counter {
		w.t.Errorf("the run begins from %+v", h.Lease())
	}
	if !h.Fence().Open() {
		w.t.Error("the run is over")
	}
}

// r4.5: the run begins with an answered write of ours, which says for how long we believe in the lease; its fence counts
// from before that was sent.
func TestTheRunOfAGivenLeaseBeginsWithARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b, l := given(t)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.SlowAnswer, Delay: sec, When: isAdopt})
		sent := b.m.cfg.Clock()
		h, _ := b.m.adoptGiven(t.Context(), l)
		w.began(h, 8)
		if d := h.Fence().Deadline() - sent; d != b.m.cfg.life() {
			t.Errorf("the fence closes %s after the write was sent", d)
		}
		if !b.m.acquisitions.isOwn(w.read(shard0)) {
			t.Error("not known as one's own after an outage")
		}
	})
}

// What became of a try that got no answer, the next one's answer tells. The stamp is that of the answered one: others of the
// same acquisition may have been done, and when nobody knows.
func TestLostAnswersOfAnAdoption(t *testing.T) {
	for _, c := range []struct {
		fault   dynamotest.Fault
		counter int64
	}{
		{dynamotest.Fault{Kind: dynamotest.LoseAnswer}, 9},
		{dynamotest.Fault{Kind: dynamotest.HangAnswer}, 9},
		{dynamotest.Fault{Kind: dynamotest.AppliedInternalError}, 9},
		{dynamotest.Fault{Kind: dynamotest.LoseAnswer, Count: 2}, 9}, // the second is a failed condition
		{dynamotest.Fault{Kind: dynamotest.LateWrite, Delay: 1550 * time.Millisecond}, 9},
		{dynamotest.Fault{Kind: dynamotest.LoseRequest}, 8},
		{dynamotest.Fault{Kind: dynamotest.Hang, Count: 2}, 8},
		{dynamotest.Fault{Kind: dynamotest.InternalError, Count: 3}, 8},
		{dynamotest.Fault{Kind: dynamotest.Throttle, Count: 2}, 8},
		{dynamotest.Fault{Kind: dynamotest.LateWrite, Delay: 4 * sec}, 8}, // it comes when it has no effect any more
	} {
		t.Run(fmt.Sprintf("%d/%s/%d", c.fault.Kind, c.fault.Delay, c.fault.Count), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, b, l := given(t)
				c.fault.When = isAdopt
				fault := w.db.Inject(c.fault)
				sent := w.times(isAdopt)
				h, _ := b.m.adoptGiven(t.Context(), l)
				if fault.Hits() != max(1, c.fault.Count) {
					t.Fatalf("%d hits", fault.Hits())
				}
				w.began(h, c.counter)
				s := sent()
				if d := h.Fence().Deadline() - s[len(s)-1]; d != b.m.cfg.life() {
					t.Errorf("the fence closes %s after the last write was sent", d)
				}
				time.Sleep(5 * sec)
				if l := w.read(shard0); l.Counter != c.counter {
					t.Errorf("moved by a late write: %+v", l)
				}
			})
		})
	}
}

// A scan from before the lease was given to us for good: the item that the write fails on is taken for it.
func TestAnOldPictureOfAGivenLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b, l := given(t)
		l.Counter, l.Checkpoint = 5, at("3")
		h, _ := b.m.adoptGiven(t.Context(), l)
		w.began(h, 8)
	})
}

// What was given is somebody else's by now, or nobody's, or gone. There is no run, no second try, and nothing is written.
func TestAGivenLeaseThatIsNotOursAnyMore(t *testing.T) {
	edit := func(change func(item map[string]types.AttributeValue)) func(*world) {
		return func(w *world) { w.edit(shard0, change) }
	}
	for story, c := range map[string]struct {
		happens func(*world)
		says    string
	}{
		"KCL 2.x stole it": {func(w *world) { w.kclSteals(shard0, "K") }, "to worker K"},
		"another of ours took it": {edit(func(item map[string]types.AttributeValue) {
			item[attrOwner], item[attrAcquisition], item[attrCounter] = text("C"), text("C#1"), number(8)
		}), "to worker C"},
		"it was taken, and given to us again": {edit(func(item map[string]types.AttributeValue) {
			item[attrAcquisition], item[attrCounter] = text("B#again.g"), number(12)
		}), "to worker B"},
		"it was released": {edit(func(item map[string]types.AttributeValue) {
			item[attrCounter] = number(8)
			delete(item, attrOwner)
		}), "took its owner away"},
		"it was deleted": {func(w *world) { w.remove(shard0) }, "was deleted"},
		"it was deleted and made anew": {func(w *world) {
			w.remove(shard0)
			w.lease(shard0, at("1"))
		}, "took its owner away"},
		"a leader of KCL 3.x wants another to have it": {func(w *world) { w.kclHandsOver(shard0, "K") }, "to worker K"},
		"the same, of a lease that it has given to us": {edit(func(item map[string]types.AttributeValue) {
			item[attrCheckpointOwner], item[attrCounter] = text("K"), number(9)
		}), "to worker B"},
	} {
		t.Run(story, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, b, l := given(t)
				c.happens(w)
				sent := w.times(isAdopt)
				before := w.item(shard0)
				h, e := b.m.adoptGiven(t.Context(), l)
				if h != nil || !errors.Is(e.cause, ErrLost) || !strings.Contains(e.cause.Error(), c.says) {
					t.Errorf("run %v, %v", h, e.cause)
				}
				if !e.known || e.found != (w.item(shard0) != nil) {
					t.Errorf("%+v", e)
				}
				if after := w.item(shard0); !reflect.DeepEqual(after, before) {
					t.Errorf("%v became %v", before, after)
				}
				if n := len(sent()); n != 1 {
					t.Errorf("%d writes", n)
				}
			})
		})
	}
}

// Somebody has taken the lease between two tries, of which the first got no answer.
func TestAnAdoptionThatIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b, l := given(t)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.HangAnswer, When: isAdopt})
		go func() {
			time.Sleep(sec)
			w.kclSteals(shard0, "K")
		}()
		h, e := b.m.adoptGiven(t.Context(), l)
		if h != nil || !errors.Is(e.cause, ErrLost) || e.lease.Owner != "K" {
			t.Errorf("run %v, %+v", h, e)
		}
	})
}

// The table does not answer for as long as the lease lives: nothing is known then, and the next scan shows it.
func TestAnAdoptionWithoutAnswersIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b, l := given(t)
		hang := w.db.Inject(dynamotest.Fault{Kind: dynamotest.Hang, Count: -1, When: isOwners})
		begin := time.Now()
		h, e := b.m.adoptGiven(t.Context(), l)
		if h != nil || !errors.Is(e.cause, errGaveUp) || e.known {
			t.Errorf("run %v, %+v", h, e)
		}
		if d := time.Since(begin); d < 7*sec || d > b.m.cfg.life()+minPause {
			t.Errorf("given up after %s", d)
		}
		if got := b.log.warnings(); len(got) != 1 || !strings.Contains(got[0], "given to us") {
			t.Errorf("warnings: %q", got)
		}
		hang.Remove()
		if b.close(); w.read(shard0).Owner != "B" {
			t.Error("what was given up before the end is left to the scan that comes then")
		}
	})
}

// A worker that ends in the middle of an adoption leaves the lease to others, whether its tries were done or not.
func TestAnAdoptionThatIsInterrupted(t *testing.T) {
	for _, kind := range []dynamotest.Kind{dynamotest.Hang, dynamotest.HangAnswer, dynamotest.Throttle} {
		t.Run(fmt.Sprintf("Close/%d", kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, b, l := given(t)
				w.db.Inject(dynamotest.Fault{Kind: kind, When: isAdopt})
				done := make(chan *Held)
				go func() {
					h, _ := b.m.adoptGiven(t.Context(), l)
					done <- h
				}()
				time.Sleep(500 * time.Millisecond)
				b.close()
				if h := <-done; h != nil {
					t.Error("a run of a worker that ends")
				}
				if l := w.read(shard0); l.Owner != "" || l.Checkpoint != at("10") || l.Counter <= 7 {
					t.Errorf("%+v", l)
				}
			})
		})
		t.Run(fmt.Sprintf("the end of Run/%d", kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, b, l := given(t)
				w.db.Inject(dynamotest.Fault{Kind: kind, When: isAdopt})
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				begin := time.Now()
				h, e := b.m.adoptGiven(ctx, l)
				if d := time.Since(begin); h != nil || !errors.Is(e.cause, errGaveUp) || d != 500*time.Millisecond {
					t.Errorf("run %v, %+v, after %s", h, e, d)
				}
				if w.read(shard0).Owner != "B" {
					t.Error("nothing is written when Run's context has ended")
				}
				if b.close(); w.read(shard0).Owner != "" {
					t.Error("Close has not released it")
				}
			})
		})
	}
}
