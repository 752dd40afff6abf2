package lease

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

func isLook(r dynamotest.Request) bool { return r.Operation == "GetItem" }

// r4.1: without the permission to read single items hand-overs go on, by scans, and it is told once.
func TestWithoutThePermissionToLookScansDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := lent(t)
		w.lease(shard1, at("5"))
		a.m.Rescan()
		time.Sleep(sec)
		denied := w.db.Inject(dynamotest.Fault{Kind: dynamotest.AccessDenied, When: isLook, Count: -1})
		a.onDrain(func(h *Held) {
			go func() {
				time.Sleep(4 * sec) // scans show the ask standing meanwhile
				h.Drained()
			}()
		})
		b := w.worker("B").wants(shard0, shard1).run()
		w.await("the hand-over", func() bool { return b.held(shard0) != nil && b.held(shard1) != nil })
		b.mustHaveIt("10", a)
		if d := time.Since(w.start); d > 20*sec+20*sec {
			t.Errorf("it took until %s", d)
		}
		if n := denied.Hits(); n > 2 {
			t.Errorf("%d looks that were not permitted", n)
		}
		if warnings := b.log.warnings(); len(warnings) != 1 || !strings.Contains(warnings[0], "dynamodb:GetItem") {
			t.Errorf("warnings: %q", warnings)
		}
	})
}

// Whatever a worker asks for, its looks are bounded: one in 200 ms for each lease, 200 a second for all.
func TestLooksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const n = 60
		var keys []string
		for i := range n {
			keys = append(keys, fmt.Sprintf("shardId-%012d", i))
			w.lease(keys[i], at("1"))
		}
		a := w.worker("A").grants().run()
		a.onDrain(func(*Held) {})
		time.Sleep(5 * sec)
		looks := w.times(isLook)
		w.worker("B").wants(keys...).run()
		time.Sleep(4 * sec)
		perSecond := map[int]int{}
		for _, at := range looks() {
			perSecond[int(at/sec)]++
		}
		for second, looked := range perSecond {
			if looked > 250 { // the seconds are not the worker's
				t.Errorf("%d looks in second %d", looked, second)
			}
		}
		if len(looks()) < 400 {
			t.Errorf("%d looks in 4 s at %d leases", len(looks()), n)
		}
	})
}

// A look that fails slows the looking down, and costs nothing else.
func TestThrottledLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := lent(t)
		fault := w.db.Inject(dynamotest.Fault{Kind: dynamotest.Hang, When: isLook, Count: 4})
		b := w.worker("B").wants(shard0).run()
		w.await("the hand-over", func() bool { return b.held(shard0) != nil })
		if fault.Hits() != 4 {
			t.Errorf("%d looks were hit", fault.Hits())
		}
		b.mustHaveIt("10", a)
	})
}

// Two that ask for one lease: the second finds the ask of the first, and asks for another one.
func TestTwoThatAskForOneLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := lent(t)
		b, c := w.worker("B").wants(shard0).run(), w.worker("C").wants(shard0).run()
		w.await("a hand-over", func() bool { return b.held(shard0) != nil || c.held(shard0) != nil })
		got, other := b, c
		if c.held(shard0) != nil {
			got, other = c, b
		}
		if h := got.mustHold(shard0); h.Lease().Checkpoint != at("10") || a.held(shard0) != nil || other.held(shard0) != nil {
			t.Errorf("begins at %s; held by A: %t, by the other: %t", h.Lease().Checkpoint, a.held(shard0) != nil, other.held(shard0) != nil)
		}
		// The other wants it still, and may have asked the new owner for it by now.
		if l := w.read(shard0); l.Owner != got.m.cfg.WorkerID || l.Ask == got.m.cfg.WorkerID {
			t.Errorf("the item: %+v", l)
		}
	})
}

// r3.4 with r4: an ask does not keep the asker from taking what its dead owner leaves, and from taking it in time.
func TestTheOwnerDiesWhileItIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := lent(t)
		a.policy(func(p *policy) { p.silent = true })
		renewed := w.times(isKeep)
		b := w.worker("B").wants(shard0).run()
		w.await("the ask", func() bool { return w.read(shard0).Ask == "B" })
		time.Sleep(4 * sec)
		a.kill()
		r := renewed()
		last := r[len(r)-1]
		w.await("the take", func() bool { return b.held(shard0) != nil })
		if d := time.Since(w.start) - last; d > 9*sec+3*sec+1500*time.Millisecond {
			t.Errorf("taken %s after the last renewal", d)
		}
		b.mustHaveIt("10")
	})
}

// On a stop the asks of a worker do not stay behind, and what was given to it in that moment is released.
func TestCloseWithdrawsTheAsks(t *testing.T) {
	for name, given := range map[string]bool{"in time": false, "too late": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, h := lent(t)
				a.policy(func(p *policy) { p.silent = true })
				b := w.worker("B").wants(shard0).run()
				w.await("the ask", func() bool { return b.m.Stats().Asked == 1 && w.read(shard0).Ask == "B" })
				if given {
					w.db.OnRequest(func(r dynamotest.Request) *dynamotest.Fault {
						if l := w.read(shard0); isWithdrawal(r) && l.Owner == "A" {
							h.Fence().Close()
							w.edit(shard0, func(item map[string]types.AttributeValue) {
								item[attrOwner], item[attrCounter], item[attrAcquisition] = text("B"), number(l.Counter+1), text("B#given")
								delete(item, attrAsk)
								delete(item, attrAskAt)
							})
						}
						return nil
					})
				}
				begin := time.Now()
				if err := b.m.Close(t.Context()); err != nil {
					t.Error(err)
				}
				if d := time.Since(begin); d > 100*time.Millisecond {
					t.Errorf("Close took %s", d)
				}
				if l := w.read(shard0); l.Ask != "" || l.Owner == "B" {
					t.Errorf("left behind: %+v", l)
				}
				if n := len(b.runs(shard0)); n != 0 {
					t.Errorf("%d runs of a worker that ends", n)
				}
			})
		})
	}
}

// r4.7: on a stop, whoever asks for a lease gets it, drained or not; the others are released; all at once.
func TestCloseGivesWhatIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const n = 20
		var keys []string
		for i := range n {
			keys = append(keys, fmt.Sprintf("shardId-%012d", i))
			w.lease(keys[i], at("1"))
		}
		a := w.worker("A").grants().run()
		time.Sleep(100 * time.Millisecond)
		a.onDrain(func(*Held) {})
		b := w.worker("B").wants(keys[:n/2]...).run()
		w.await("the drains", func() bool { drains, _ := a.drainsAndResumes(); return drains == n/2 })
		for _, key := range keys {
			a.mustHold(key).Confirmed(at("7"), 0)
		}
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.SlowAnswer, Delay: sec, When: func(r dynamotest.Request) bool { return isRelease(r) || isGive(r) }, Count: -1})
		begin := time.Now()
		if err := a.m.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d != sec {
			t.Errorf("%d last writes of 1 s each took %s", n, d)
		}
		time.Sleep(lookPeriod)
		for i, key := range keys {
			l := w.read(key)
			if want := map[bool]string{true: "B", false: ""}[i < n/2]; l.Owner != want || l.Checkpoint != at("7") {
				t.Errorf("%+v", l)
			}
			if i < n/2 {
				b.mustHold(key)
			}
		}
	})
}

// r4.7: the same without answers.
func TestLostAnswersOfTheLastGiving(t *testing.T) {
	for _, kind := range []dynamotest.Kind{dynamotest.LoseAnswer, dynamotest.HangAnswer, dynamotest.LoseRequest, dynamotest.Throttle} {
		synctest.Test(t, func(t *testing.T) {
			w, a, h := lent(t)
			a.onDrain(func(*Held) {})
			b := w.worker("B").wants(shard0).run()
			w.await("the drain", func() bool { drains, _ := a.drainsAndResumes(); return drains == 1 })
			h.Confirmed(at("20"), 0)
			w.db.Inject(dynamotest.Fault{Kind: kind, When: isGive})
			if err := a.m.Close(t.Context()); err != nil {
				t.Error(err)
			}
			w.await("the adoption", func() bool { return b.held(shard0) != nil })
			b.mustHaveIt("20", a)
		})
	}
}

// r4.7: whoever asked has gone since: the lease is released as if nobody had.
func TestCloseReleasesWhatIsNotAskedForAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		a.onDrain(func(*Held) {})
		w.askFor(shard0, "B")
		w.await("the drain", func() bool { drains, _ := a.drainsAndResumes(); return drains == 1 })
		h.Confirmed(at("20"), 0)
		w.edit(shard0, func(item map[string]types.AttributeValue) {
			delete(item, attrAsk)
			delete(item, attrAskAt)
		})
		if err := a.m.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if l := w.read(shard0); l.Owner != "" || l.Checkpoint != at("20") {
			t.Errorf("%+v", l)
		}
	})
}

// A worker that stops before it has seen an ask releases the lease; the asker sees that at its next look, not by a scan.
func TestTheOwnerStopsBeforeItSeesTheAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := lent(t)
		b := w.worker("B").wants(shard0).run()
		w.await("the ask", func() bool { return w.read(shard0).Ask == "B" })
		if err := a.m.Close(t.Context()); err != nil {
			t.Error(err)
		}
		released := time.Now()
		w.await("the take", func() bool { return b.held(shard0) != nil })
		if d := time.Since(released); d > lookPeriod+10*time.Millisecond {
			t.Errorf("taken %s after the release", d)
		}
		b.mustHaveIt("10", a)
	})
}

// Who only was too late may ask again when a scan shows that it can be had; who was refused waits, so as not to pester.
func TestTooLateIsNotRefused(t *testing.T) {
	for _, c := range []struct {
		cause error
		waits bool
	}{{ErrLost, false}, {errRefused, true}, {errGaveUp, true}} {
		l := of("A", 0)
		m := &Manager{cfg: Config{Failover: 9 * sec}, known: map[string]observation{l.Key: {lease: l, seenAt: 90 * sec}}}
		l.Ask, l.AskAt = "C", l.Counter
		m.handleEndOfAsk(l.Key, &ending{cause: c.cause, known: true, found: true, lease: l}, 100*sec)
		if o := m.known[l.Key]; !o.tried || (o.askAfter != 0) != c.waits || o.seenAt != 90*sec || o.lease.Ask != "C" {
			t.Errorf("%v: %+v", c.cause, o)
		}
	}
}
