package lease

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

// lent is a world in which A, which gives what it is asked for, holds the first lease at position 10.
func lent(t *testing.T, opts ...dynamotest.Option) (w *world, a *worker, h *Held) {
	w = newWorld(t, opts...)
	w.lease(shard0, at("1"))
	a = w.worker("A").grants().run()
	time.Sleep(100 * time.Millisecond)
	h = a.mustHold(shard0)
	h.Confirmed(at("10"), 0)
	time.Sleep(20 * sec)
	return w, a, h
}

// mustHaveIt expects that the worker holds the first lease, alone, from the position on.
func (k *worker) mustHaveIt(from string, others ...*worker) {
	k.w.t.Helper()
	h := k.mustHold(shard0)
	if h.Lease().Checkpoint != at(from) {
		k.w.t.Errorf("%s begins at %s, want %s", k.m.cfg.WorkerID, h.Lease().Checkpoint, from)
	}
	if l := k.w.read(shard0); l.Owner != k.m.cfg.WorkerID || l.Ask != "" || l.AskAt != 0 || l.Failover != k.m.cfg.Failover {
		k.w.t.Errorf("the item: %+v", l)
	}
	for _, o := range others {
		if o.held(shard0) != nil {
			k.w.t.Errorf("%s believes in it as well", o.m.cfg.WorkerID)
		}
	}
}

// r4.1 to r4.5: before GIVE A owns, after it B, nothing between. What is confirmed while A drains goes with the lease.
func TestALeaseIsHandedOverToTheWorkerThatAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, ha := lent(t)
		w.lease(shard1, at("5"))
		a.m.Rescan()
		var confirmed time.Time
		a.onDrain(func(h *Held) {
			go func() {
				time.Sleep(2 * sec) // the batch that is away comes back
				if !h.Fence().Open() || isOver(h) {
					t.Error("the lease is not ours any more while it drains")
				}
				h.Confirmed(at("20"), 0)
				confirmed = time.Now()
				h.Drained()
				h.Drained()
			}()
		})
		b := w.worker("B").wants(shard0).run()
		w.await("the hand-over", func() bool { return b.held(shard0) != nil })
		if gap := time.Since(confirmed); gap > 500*time.Millisecond {
			t.Errorf("nobody could read for %s", gap)
		}
		b.mustHaveIt("20", a)
		if !errors.Is(ha.Err(), ErrGiven) || !strings.Contains(ha.Err().Error(), "worker: B") {
			t.Errorf("A's run ended with %v", ha.Err())
		}
		if l := w.read(shard0); l.OwnerSwitches != 1 || !l.IsOurs() || strings.HasPrefix(l.Acquisition, "A#") {
			t.Errorf("the item: %+v", l)
		}
		time.Sleep(60 * sec)
		b.mustHaveIt("20", a)
		a.mustHold(shard1)
		if len(a.runs(shard0)) != 1 || len(b.runs(shard0)) != 1 {
			t.Errorf("%d runs of A, %d of B: the lease goes to and fro", len(a.runs(shard0)), len(b.runs(shard0)))
		}
		if n := append(a.log.warnings(), b.log.warnings()...); len(n) != 0 {
			t.Errorf("a hand-over is no trouble: %q", n)
		}
		if s := a.m.Stats(); s.Given != 1 || s.Held != 1 || s.Draining != 0 {
			t.Errorf("A's stats: %+v", s)
		}
		if s := b.m.Stats(); s.Received != 1 || s.Held != 1 || s.Asked != 0 {
			t.Errorf("B's stats: %+v", s)
		}
	})
}

// Each write of a hand-over, without an answer, done or not, at once or late: in the end B has the lease, from the last
// position, and at no time do both read (worker.Acquired).
func TestLostAnswersOfAHandOver(t *testing.T) {
	steps := map[string]func(dynamotest.Request) bool{"ASK": isAsk, "GIVE": isGive, "adoption": isAdopt}
	for step, which := range steps {
		for _, fault := range []dynamotest.Fault{
			{Kind: dynamotest.LoseAnswer}, {Kind: dynamotest.HangAnswer}, {Kind: dynamotest.AppliedInternalError},
			{Kind: dynamotest.LoseRequest}, {Kind: dynamotest.Hang}, {Kind: dynamotest.InternalError}, {Kind: dynamotest.Throttle},
			{Kind: dynamotest.LateWrite, Delay: 1600 * time.Millisecond}, {Kind: dynamotest.LateWrite, Delay: 4 * sec},
			{Kind: dynamotest.LoseAnswer, Count: 3}, {Kind: dynamotest.LoseRequest, Count: 3}, {Kind: dynamotest.HangAnswer, Count: 2},
		} {
			t.Run(fmt.Sprintf("%s/%d/%s/%d", step, fault.Kind, fault.Delay, fault.Count), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w, a, h := lent(t)
					a.onDrain(func(h *Held) {
						h.Confirmed(at("20"), 0)
						h.Drained()
					})
					fault.When = which
					hit := w.db.Inject(fault)
					b := w.worker("B").wants(shard0).run()
					w.await("the hand-over", func() bool { return b.held(shard0) != nil })
					time.Sleep(20 * sec)
					if hit.Hits() == 0 {
						t.Fatal("nothing was hit")
					}
					b.mustHaveIt("20", a)
					if !errors.Is(h.Err(), ErrGiven) {
						t.Errorf("A's run ended with %v", h.Err()) // it knows what became of its own write
					}
					if len(b.runs(shard0)) != 1 || len(a.runs(shard0)) != 1 {
						t.Errorf("runs of A: %d, of B: %d", len(a.runs(shard0)), len(b.runs(shard0)))
					}
				})
			})
		}
	}
}

// r4.4: the ask is gone when A has drained. A renews first and resumes then, so that a hand-over which is still on its
// way to the table finds another counter.
func TestAWithdrawnAskLetsTheRunGoOn(t *testing.T) {
	for name, late := range map[string]bool{"nothing on its way": false, "a hand-over on its way": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, h := lent(t)
				withdraw := func() {
					w.edit(shard0, func(item map[string]types.AttributeValue) {
						delete(item, attrAsk)
						delete(item, attrAskAt)
					})
				}
				var keeps func() []time.Duration
				a.onDrain(func(h *Held) {
					go func() {
						time.Sleep(sec)
						keeps = w.times(isKeep)
						if late {
							w.db.Inject(dynamotest.Fault{Kind: dynamotest.LateWrite, Delay: 3 * sec, When: isGive})
							h.Drained()
							time.Sleep(100 * time.Millisecond)
							withdraw()
							return
						}
						withdraw()
						h.Drained()
					}()
				})
				w.askFor(shard0, "B")
				w.await("the run resumes", func() bool { _, resumes := a.drainsAndResumes(); return resumes == 1 })
				if k := keeps(); len(k) == 0 || k[0] > time.Since(w.start) {
					t.Error("resumed without a renewal in front of it")
				}
				if l := w.read(shard0); l.Owner != "A" || !h.Fence().Open() || isOver(h) {
					t.Errorf("%+v, %v", l, h.Err())
				}
				h.Drained() // of no effect: nobody asks for a drain
				time.Sleep(20 * sec)
				if l := w.read(shard0); l.Owner != "A" || isOver(h) {
					t.Errorf("given away while the run goes on: %+v, %v", l, h.Err())
				}
				if drains, resumes := a.drainsAndResumes(); drains != 1 || resumes != 1 {
					t.Errorf("%d drains, %d resumes", drains, resumes)
				}
			})
		})
	}
}

// askFor asks as another worker does.
func (w *world) askFor(key, worker string) {
	w.t.Helper()
	l := w.read(key)
	w.edit(key, func(item map[string]types.AttributeValue) {
		item[attrAsk], item[attrAskAt] = text(worker), number(l.Counter)
	})
}

// r4.3: what is not drained within F stays where it is: first the ask goes, then the run resumes.
func TestAStuckRunIsNotGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := lent(t)
		a.onDrain(func(*Held) {})
		b := w.worker("B").wants(shard0).run()
		w.await("the drain", func() bool { drains, _ := a.drainsAndResumes(); return drains == 1 })
		began := time.Now()
		before := w.read(shard0).Counter
		w.await("the end of patience", func() bool { _, resumes := a.drainsAndResumes(); return resumes == 1 })
		if d := time.Since(began); d < 9*sec || d > 9100*time.Millisecond {
			t.Errorf("resumed after %s, want F", d)
		}
		a.mu.Lock()
		if ask := a.mu.askAtResume; ask != "" {
			t.Errorf("resumed with the ask of %s in place", ask)
		}
		a.mu.Unlock()
		if l := w.read(shard0); l.Ask != "" || l.Owner != "A" {
			t.Errorf("%+v", l)
		} else if n := l.Counter - before; n < 3 || n > 5 {
			t.Errorf("%d renewals in F of draining, want one each F/3", n)
		}
		asks := w.times(isAsk)
		time.Sleep(15 * sec)
		if n := len(asks()); n != 0 {
			t.Errorf("B asks again at once, %d times", n)
		}
		a.onDrain(nil)
		w.await("the next ask", func() bool { return b.held(shard0) != nil })
		b.mustHaveIt("10", a)
	})
}

// r4.5: an owner that never answers is left alone after F/3 + F + 2 s, and the ask does not stay behind.
func TestAnAskWithoutAnAnswerIsWithdrawn(t *testing.T) {
	for name, fault := range map[string]*dynamotest.Fault{
		"at once": nil,
		"in the second try, the first one having been done": {Kind: dynamotest.LoseAnswer, When: isWithdrawal},
		"late": {Kind: dynamotest.LateWrite, When: isWithdrawal, Delay: 2 * sec},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, h := lent(t)
				a.policy(func(p *policy) { p.silent = true })
				if fault != nil {
					w.db.Inject(*fault)
				}
				b := w.worker("B").wants(shard0).run()
				w.await("the ask", func() bool { return w.read(shard0).Ask == "B" })
				began := time.Now()
				w.await("the withdrawal", func() bool { return w.read(shard0).Ask == "" })
				if d := time.Since(began); d < 13900*time.Millisecond || d > 16500*time.Millisecond {
					t.Errorf("withdrawn after %s, want F/3 + F + 2 s", d)
				}
				time.Sleep(10 * sec)
				if s := b.m.Stats(); s.Asked != 0 || w.read(shard0).Ask != "" {
					t.Errorf("B asks again at once: %+v", s)
				}
				if isOver(h) || a.m.Stats().Draining != 0 {
					t.Errorf("A's run: %v", h.Err())
				}
			})
		})
	}
}

// r4.5: the lease is given in the very moment in which the ask is withdrawn.
func TestAnAskThatIsWithdrawnTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		a.policy(func(p *policy) { p.silent = true })
		b := w.worker("B").wants(shard0)
		w.db.OnRequest(func(r dynamotest.Request) *dynamotest.Fault {
			if isWithdrawal(r) {
				if l := w.read(shard0); l.Owner == "A" {
					h.Fence().Close()
					w.edit(shard0, func(item map[string]types.AttributeValue) {
						item[attrOwner], item[attrCounter], item[attrAcquisition] = text("B"), number(l.Counter+1), text("B#given")
						delete(item, attrAsk)
						delete(item, attrAskAt)
					})
				}
			}
			return nil
		})
		b.run()
		w.await("the adoption", func() bool { return b.held(shard0) != nil })
		time.Sleep(5 * sec)
		b.mustHaveIt("10", a)
	})
}

// r3.6: what is given when the ask is given up, and that is not even known, is adopted when a scan shows it.
func TestALeaseThatIsGivenAfterTheAskWasGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := lent(t)
		a.policy(func(p *policy) { p.silent = true })
		b := w.worker("B").wants(shard0)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.LoseRequest, When: isWithdrawal, Count: -1})
		b.run()
		w.await("the ask", func() bool { return b.m.Stats().Asked == 1 })
		w.await("the end of it", func() bool { return b.m.Stats().Asked == 0 })
		a.grants()
		w.edit(shard0, func(item map[string]types.AttributeValue) { item[attrAskAt] = number(w.read(shard0).Counter) })
		w.await("the adoption", func() bool { return b.held(shard0) != nil })
		b.mustHaveIt("10", a)
		if n := len(a.runs(shard0)) + len(b.runs(shard0)); n != 2 {
			t.Errorf("%d runs: it was released and taken instead", n)
		}
	})
}

// r4.2: a refusal takes the ask away at once, and the asker has seen that within a look.
func TestARefusedAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		a.refuses()
		asked := w.times(isAsk)
		b := w.worker("B").wants(shard0).run()
		w.await("the ask", func() bool { return w.read(shard0).Ask == "B" })
		w.await("the refusal", func() bool { return w.read(shard0).Ask == "" })
		time.Sleep(lookPeriod + 10*time.Millisecond)
		if s := b.m.Stats(); s.Asked != 0 {
			t.Errorf("B has not seen it: %+v", s)
		}
		time.Sleep(15 * sec)
		if n := len(asked()); n != 1 {
			t.Errorf("B asked %d times in 2F", n)
		}
		if drains, resumes := a.drainsAndResumes(); drains+resumes != 0 || isOver(h) {
			t.Errorf("a refusal disturbs the run: %d drains, %d resumes", drains, resumes)
		}
	})
}

// r4.2: an ask that is old when it is seen first was made by somebody who is gone, or has given up. And an ask while
// the shard ends comes too late.
func TestAsksThatAreNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		w.edit(shard0, func(item map[string]types.AttributeValue) {
			item[attrAsk], item[attrAskAt] = text("B"), number(w.read(shard0).Counter-3)
		})
		w.await("its removal", func() bool { return w.read(shard0).Ask == "" })
		h.Confirmed(at(checkpoint.ShardEnd), 0)
		w.askFor(shard0, "B")
		w.await("its removal", func() bool { return w.read(shard0).Ask == "" })
		if drains, _ := a.drainsAndResumes(); drains != 0 {
			t.Errorf("%d drains", drains)
		}
	})
}

// r4.2: the counter is the clock of an ask. While one stands, it moves with the renewals only.
func TestNoCheckpointsBetweenRenewalsWhileSomebodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		a := w.worker("A", func(c *Config) { c.CheckpointInterval = 100 * time.Millisecond }).grants().run()
		time.Sleep(100 * time.Millisecond)
		h := a.mustHold(shard0)
		a.onDrain(func(*Held) {})
		w.askFor(shard0, "B")
		h.Confirmed(at("2"), 0)
		w.await("the drain", func() bool { drains, _ := a.drainsAndResumes(); return drains == 1 })
		before := w.read(shard0).Counter
		for i := range 40 {
			h.Confirmed(at(fmt.Sprint(100+i)), 0)
			time.Sleep(200 * time.Millisecond)
		}
		if n := w.read(shard0).Counter - before; n < 2 || n > 3 {
			t.Errorf("%d writes in 8 s, want one each 3 s", n)
		}
	})
}

// r4.6: whoever dies in the middle of a hand-over, the lease is read again when it has expired, by one worker.
func TestDeathsDuringAHandOver(t *testing.T) {
	for name, story := range map[string]struct {
		diesA, diesB bool
		runs         int // of the heir, to wait for
		when         func(dynamotest.Request) bool
		before       bool // the write, else behind it
	}{
		"B behind its ask":      {diesB: true, runs: 2, when: isAsk},
		"B before it adopts":    {diesB: true, runs: 2, when: isAdopt, before: true},
		"B behind its adoption": {diesB: true, runs: 2, when: isAdopt},
		"A before it sees":      {diesA: true, runs: 1, when: isAsk},
		"A before it gives":     {diesA: true, runs: 1, when: isGive, before: true},
		"A behind its giving":   {diesA: true, runs: 1, when: isGive},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, _ := lent(t)
				b := w.worker("B").wants(shard0)
				dead, heir := b, a
				if story.diesA {
					dead, heir = a, b
				}
				died := make(chan time.Time, 1)
				if story.before {
					w.db.Inject(dynamotest.Fault{Kind: dynamotest.LoseRequest, When: func(r dynamotest.Request) bool {
						return story.when(r) && hasDied(died, dead)
					}})
				} else {
					w.db.Inject(dynamotest.Fault{Kind: dynamotest.SlowAnswer, Delay: time.Millisecond, When: func(r dynamotest.Request) bool {
						return story.when(r) && hasDied(died, dead)
					}})
				}
				b.run()
				at := <-died
				w.await("the heir has it", func() bool { return len(heir.runs(shard0)) == story.runs })
				if d := time.Since(at); d > 9*sec+2*9*sec/3+9*sec/6+2*sec {
					t.Errorf("nobody had the lease for %s", d)
				}
				time.Sleep(5 * sec)
				heir.mustHaveIt("10")
			})
		})
	}
}

// hasDied kills the worker, once, without waiting for it.
func hasDied(died chan<- time.Time, k *worker) bool {
	select {
	case died <- time.Now():
		k.cancel()
		return true
	default:
		return false
	}
}

// r4.6: KCL steals at each step. The one from whom it was stolen learns it at its next write, and nobody robs KCL.
func TestKCLStealsDuringAHandOver(t *testing.T) {
	for name, which := range map[string]func(dynamotest.Request) bool{"before the ask": isAsk, "before the giving": isGive, "before the adoption": isAdopt} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, _ := lent(t)
				b := w.worker("B").wants(shard0)
				stolen := make(chan struct{})
				w.db.OnRequest(func(r dynamotest.Request) *dynamotest.Fault {
					if which(r) {
						select {
						case <-stolen:
						default:
							w.kclSteals(shard0, "K")
							close(stolen)
						}
					}
					return nil
				})
				b.run()
				<-stolen
				for range 10 {
					time.Sleep(3 * sec)
					w.kclSteals(shard0, "K") // that is: K renews
				}
				if a.held(shard0) != nil || b.held(shard0) != nil {
					t.Error("somebody believes in a lease of a living KCL worker")
				}
				if l := w.read(shard0); l.Owner != "K" {
					t.Errorf("%+v", l)
				}
			})
		})
	}
}

// r4.5: a worker with a longer failover time than the giver's would be robbed before its fence, if the item did not say.
func TestTheReceiverSaysHowLongItBelieves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := lent(t)
		b := w.worker("B", func(c *Config) { c.Failover = 30 * sec }).wants(shard0).run()
		w.await("the hand-over", func() bool { return b.held(shard0) != nil })
		b.mustHaveIt("10", a)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.Hang, When: func(r dynamotest.Request) bool {
			return isKeep(r) && r.Values[":is_"+attrOwner].(*types.AttributeValueMemberS).Value == "B"
		}, Count: -1})
		h := b.mustHold(shard0)
		<-h.Lost()
		if a.held(shard0) != nil {
			t.Error("robbed before its fence closed")
		}
	})
}

// A hand-over that is written late finds neither a deleted lease nor makes one (r1.1).
func TestLateWritesOfAHandOverMakeNoItem(t *testing.T) {
	for name, which := range map[string]func(dynamotest.Request) bool{"ASK": isAsk, "GIVE": isGive, "adoption": isAdopt, "withdrawal": isWithdrawal} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, _ := lent(t)
				if name == "withdrawal" {
					a.policy(func(p *policy) { p.silent = true })
				}
				late := w.db.Inject(dynamotest.Fault{Kind: dynamotest.LateWrite, When: which, Delay: 20 * sec, Count: -1})
				b := w.worker("B").wants(shard0).run()
				w.await("the write", func() bool { return late.Hits() > 0 })
				w.remove(shard0)
				time.Sleep(60 * sec)
				if items := w.db.Items(tableName); len(items) != 0 {
					t.Errorf("made %v", items)
				}
				a.kill()
				b.kill()
				time.Sleep(60 * sec)
			})
		})
	}
}
