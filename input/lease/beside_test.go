package lease

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

// kclHandsOver does what a leader of KCL 3.x does to a lease that it wants another worker to have: the counter stays.
func (w *world) kclHandsOver(key, to string) {
	w.edit(key, func(item map[string]types.AttributeValue) {
		item[attrCheckpointOwner], item[attrOwner] = item[attrOwner], text(to)
	})
}

// r8.4: the lease is kept by what stands in checkpointOwner, drained, and passed on by the removal of that.
func TestAHandOverOfKCL3IsCompleted(t *testing.T) {
	for name, fault := range map[string]*dynamotest.Fault{
		"":                             nil,
		"a renewal's answer was lost":  {Kind: dynamotest.HangAnswer, When: isKeep},
		"a renewal was lost":           {Kind: dynamotest.LoseRequest, When: isKeep, Skip: 1},
		"the last write's answer lost": {Kind: dynamotest.HangAnswer, When: isRelease},
		"the last write was lost":      {Kind: dynamotest.LoseRequest, When: isRelease},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, h := lent(t)
				a.onDrain(func(h *Held) {
					go func() {
						time.Sleep(12 * sec) // longer than F: it is kept meanwhile
						if !h.Fence().Open() {
							t.Error("not kept while it drains")
						}
						h.Confirmed(at("20"), 0)
						h.Drained()
					}()
				})
				if fault != nil {
					w.db.Inject(*fault)
				}
				w.kclHandsOver(shard0, "K")
				w.await("the end of the hand-over", func() bool { return w.read(shard0).CheckpointOwner == "" })
				if l := w.read(shard0); l.Owner != "K" || l.Checkpoint != at("20") {
					t.Errorf("%+v", l)
				}
				time.Sleep(3 * sec)
				if !errors.Is(h.Err(), ErrGiven) || h.Fence().Open() {
					t.Errorf("the run: %v", h.Err())
				}
				if got := a.log.warnings(); len(got) != 1 || !strings.Contains(got[0], "KCL 3.x") || !strings.Contains(got[0], "worker K") {
					t.Errorf("warnings: %q", got)
				}
				if s := a.m.Stats(); s.Beside != "K" {
					t.Errorf("stats: %+v", s)
				}
				time.Sleep(3 * sec)
				if got := a.log.infos(); !strings.Contains(got[len(got)-1], "KCL 3.x") || strings.Contains(got[len(got)-1], "asked") {
					t.Errorf("told: %q", got) // nobody has asked
				}
			})
		})
	}
}

// r8.4: after 30 s it is passed on as it is, and the fence is closed before.
func TestAHandOverOfKCL3DoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		a.onDrain(func(*Held) {})
		w.kclHandsOver(shard0, "K")
		w.await("the drain", func() bool { drains, _ := a.drainsAndResumes(); return drains == 1 })
		began := time.Now()
		w.db.OnRequest(func(r dynamotest.Request) *dynamotest.Fault {
			if isRelease(r) && (h.Fence().Open() || !isOver(h)) {
				t.Error("passed on while the run goes on")
			}
			return nil
		})
		w.await("the end of the hand-over", func() bool { return w.read(shard0).CheckpointOwner == "" })
		if d := time.Since(began); d < 30*sec || d > 31*sec {
			t.Errorf("passed on after %s", d)
		}
	})
}

// r8.4: the worker that is to have the lease has died, and the leader gives it back.
func TestAHandOverOfKCL3ThatIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		a.onDrain(func(*Held) {})
		w.kclHandsOver(shard0, "K")
		w.await("the drain", func() bool { drains, _ := a.drainsAndResumes(); return drains == 1 })
		n := w.read(shard0).Counter
		w.edit(shard0, func(item map[string]types.AttributeValue) {
			item[attrOwner], item[attrCounter] = text("A"), number(n+1)
			delete(item, attrCheckpointOwner)
		})
		w.await("the run resumes", func() bool { _, resumes := a.drainsAndResumes(); return resumes == 1 })
		time.Sleep(20 * sec)
		if isOver(h) || w.read(shard0).Owner != "A" {
			t.Errorf("%+v, %v", w.read(shard0), h.Err())
		}
	})
}

// r2.3 with r8.4: that a hand-over has begun is told by a renewal which fails. It shows that the lease is ours, but renews
// nothing: the fence stays where it was.
func TestTheNewsOfAHandOverIsNoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		a.onDrain(func(*Held) {})
		w.kclHandsOver(shard0, "K")
		deadline := h.Fence().Deadline()
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.LoseRequest, When: isKeep, Skip: 1, Count: -1})
		<-h.Lost()
		if now := time.Since(w.start); now != deadline {
			t.Errorf("the fence closed at %s, want %s", now, deadline)
		}
	})
}

// r8.4 with a stop, with an ask of ours that stands, and with a fence that closes.
func TestAHandOverOfKCL3MeetsOthers(t *testing.T) {
	t.Run("a stop completes it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, a, h := lent(t)
			h.Confirmed(at("20"), 0)
			w.kclHandsOver(shard0, "K")
			if err := a.m.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if l := w.read(shard0); l.Owner != "K" || l.CheckpointOwner != "" || l.Checkpoint != at("20") {
				t.Errorf("%+v", l)
			}
		})
	})
	t.Run("an ask of ours gives way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, a, _ := lent(t)
			a.onDrain(func(h *Held) {
				go func() {
					time.Sleep(sec)
					w.kclHandsOver(shard0, "K")
					h.Drained()
				}()
			})
			b := w.worker("B").wants(shard0).run()
			w.await("the end of the hand-over", func() bool { l := w.read(shard0); return l.CheckpointOwner == "" && l.Owner == "K" })
			time.Sleep(sec)
			if len(b.runs(shard0)) != 0 || a.held(shard0) != nil {
				t.Error("somebody of ours believes in it")
			}
		})
	})
	t.Run("the table is away: it expires", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, a, h := lent(t)
			a.onDrain(func(*Held) {})
			w.kclHandsOver(shard0, "K")
			w.await("the drain", func() bool { drains, _ := a.drainsAndResumes(); return drains == 1 })
			w.db.Stop()
			<-h.Lost()
			w.db.Restart()
			if !errors.Is(h.Err(), ErrFenced) {
				t.Errorf("%v", h.Err())
			}
			time.Sleep(3 * sec)
			if a.held(shard0) != nil {
				t.Error("taken at once from the worker that is to have it")
			}
		})
	})
}

// r6.5: while a KCL 2.x worker lives, the lease of a shard that we have ended is kept alive, or that worker would take
// it and count it as a part of its share. When the last of those is gone, it is released; and it may be deleted.
func TestEndedLeasesBesideKCL2(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w, a, h := lent(t)
			a.policy(func(p *policy) { p.kcl2 = true })
			w.await("the sight of K", a.m.kcl2.Load)
			h.Confirmed(at(checkpoint.ShardEnd), 0)
			if err := h.Release(t.Context()); err != nil || h.Stored().Sequence != checkpoint.ShardEnd {
				t.Errorf("writing the end: %v, stored %s", err, h.Stored())
			}
			if !isOver(h) || h.Fence().Open() {
				t.Error("the run goes on")
			}
			before := w.read(shard0)
			time.Sleep(30 * sec)
			after := w.read(shard0)
			if n := after.Counter - before.Counter; after.Owner != "A" || n < 8 || n > 12 {
				t.Errorf("%d renewals in 30 s: %+v", n, after)
			}
			if deleted {
				w.remove(shard0)
				time.Sleep(10 * sec)
				if w.item(shard0) != nil {
					t.Error("a deleted lease was brought back")
				}
				if s := a.m.Stats(); s.Held != 0 {
					t.Errorf("stats: %+v", s)
				}
			}
			a.policy(func(p *policy) { p.kcl2 = false })
			if !deleted {
				w.await("the release", func() bool { return w.read(shard0).Owner == "" })
				if l := w.read(shard0); !l.Ended() {
					t.Errorf("%+v", l)
				}
			}
			if n := len(a.log.warnings()); n != 0 {
				t.Errorf("warnings: %q", a.log.warnings())
			}
		})
	}
}

// r6.5: a stop releases it.
func TestCloseReleasesEndedLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := lent(t)
		a.policy(func(p *policy) { p.kcl2 = true })
		w.await("the sight of K", a.m.kcl2.Load)
		h.Confirmed(at(checkpoint.ShardEnd), 0)
		if err := h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if w.read(shard0).Owner != "A" {
			t.Error("not kept")
		}
		if err := a.m.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if l := w.read(shard0); l.Owner != "" || !l.Ended() {
			t.Errorf("%+v", l)
		}
	})
}
