package lease

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

func TestOneWorkerTakesKeepsAndReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		anchor := time.UnixMilli(1700000000123)
		w.lease(shard0, at(checkpoint.Latest))
		w.lease(shard1, at("100"))
		k := w.worker("A", func(c *Config) {
			c.AnchorFor = func(l Lease) time.Time {
				if l.Checkpoint.Sequence == checkpoint.Latest {
					return anchor
				}
				return time.Time{}
			}
		}).run()
		time.Sleep(100 * time.Millisecond)
		h0, h1 := k.mustHold(shard0), k.mustHold(shard1)
		l := w.read(shard0)
		if l.Owner != "A" || !l.IsOurs() || l.Counter != 1 || l.Stream != testStream || l.Failover != 9*sec || !l.Start.Equal(anchor) || l.OwnerSwitches != 0 {
			t.Errorf("taken lease: %+v", l)
		}
		if h1.Lease().Checkpoint != at("100") || !h1.Lease().Start.IsZero() {
			t.Errorf("the run must start from the stored checkpoint: %+v", h1.Lease())
		}

		h1.Confirmed(checkpoint.Position{Sequence: "200", Sub: 3}, 0)
		h1.Confirmed(at("150"), 0) // an older one that came late
		h1.Confirmed(at(checkpoint.TrimHorizon), 0)
		time.Sleep(30 * sec)
		if l := w.read(shard1); l.Checkpoint != (checkpoint.Position{Sequence: "200", Sub: 3}) || h1.Stored() != l.Checkpoint {
			t.Errorf("stored %s, known as stored %s", l.Checkpoint, h1.Stored())
		}
		if l := w.read(shard0); l.Checkpoint.Sequence != checkpoint.Latest || l.Counter < 9 || l.Counter > 14 {
			t.Errorf("about 10 bare renewals were due: %+v", l)
		}
		if isOver(h0) || len(k.log.warnings()) != 0 {
			t.Errorf("a healthy worker warns: %q", k.log.warnings())
		}
		if infos := k.log.infos(); len(infos) != 1 || !strings.HasPrefix(infos[0], "Took 2 leases") {
			t.Errorf("log: %q", infos)
		}

		h1.Confirmed(at("300"), 0)
		if err := k.m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, h := range []*Held{h0, h1} {
			if !isOver(h) || !errors.Is(h.Err(), ErrReleased) || h.Fence().Open() {
				t.Errorf("%s after Close: %v", h.Lease().Key, h.Err())
			}
			if l := w.read(h.Lease().Key); l.Owner != "" || l.IsOurs() {
				t.Errorf("not released: %+v", l)
			}
		}
		if got := w.read(shard1).Checkpoint; got != at("300") || h1.Stored() != got {
			t.Errorf("final checkpoint %s", got)
		}
		if err := k.m.Close(t.Context()); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

// r2.1: KCL's prepared checkpoint outlives bare renewals, and goes with the first checkpoint of ours.
func TestPendingCheckpointGoesWithTheFirstCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		item := goldenNamed(t, "g260-30-prepared-at-timestamp").items(t)[0]
		delete(item, attrOwner)
		item["applicationOwn"] = text("kept")
		w.db.Put(tableName, item)
		k := w.worker("A").run()
		time.Sleep(20 * sec)
		h := k.mustHold(shard0)
		if l := w.read(shard0); h.Lease().Checkpoint.Sequence != checkpoint.AtTimestamp || l.Pending.IsZero() || string(l.PendingState) != "app-state" {
			t.Errorf("after bare renewals: %+v", l)
		}
		h.Confirmed(at("7"), 0)
		time.Sleep(4 * sec)
		l := w.read(shard0)
		if l.Checkpoint != at("7") || !l.Pending.IsZero() || l.PendingState != nil {
			t.Errorf("after a checkpoint: %+v", l)
		}
		if v := w.item(shard0)["applicationOwn"]; v.(*types.AttributeValueMemberS).Value != "kept" {
			t.Error("an unknown attribute was lost")
		}
	})
}

func value(v types.AttributeValue) any {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberN:
		return v.Value
	case *types.AttributeValueMemberB:
		return v.Value
	case *types.AttributeValueMemberSS:
		return slices.Sorted(slices.Values(v.Value))
	}
	return v
}

// r2.2: try 1 was done but not answered, try 2 carries a newer position. What is stored is told by the item, and the
// life of the lease is counted from try 1 (r2.3) until a later write is answered.
func TestLostAnswerOfAKeepWithAPositionThatHasMovedOn(t *testing.T) {
	for name, opts := range map[string][]dynamotest.Option{"ALL_OLD": nil, "an emulator without ALL_OLD": {dynamotest.WithoutOldItemOnFailure()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, opts...)
				w.lease(shard0, at("1"))
				k := w.worker("A").run()
				time.Sleep(100 * time.Millisecond)
				h := k.mustHold(shard0)
				sent := w.times(isKeep)
				w.db.Inject(dynamotest.Fault{Kind: dynamotest.HangAnswer, When: isKeep})                     // try 1: done, no answer
				w.db.Inject(dynamotest.Fault{Kind: dynamotest.Hang, When: isKeep, Skip: 1})                  // try 3, after try 2 told the truth
				w.db.Inject(dynamotest.Fault{Kind: dynamotest.LoseRequest, When: isKeep, Skip: 1, Count: 2}) // tries 4, 5
				h.Confirmed(at("5"), 0)
				for len(sent()) < 1 {
					time.Sleep(10 * time.Millisecond)
				}
				h.Confirmed(at("7"), 0)
				for len(sent()) < 3 {
					time.Sleep(time.Millisecond)
				}
				if h.Stored() != at("5") || w.read(shard0).Checkpoint != at("5") {
					t.Errorf("after try 2 the memory has %s, the table %s; want 5 of try 1", h.Stored(), w.read(shard0).Checkpoint)
				}
				if want := sent()[0] + k.m.cfg.life(); h.Fence().Deadline() != want {
					t.Errorf("the fence closes at %s, want %s: the life of try 1", h.Fence().Deadline(), want)
				}
				time.Sleep(9 * sec)
				if isOver(h) {
					t.Fatalf("the run is over: %v", h.Err())
				}
				if h.Stored() != at("7") || w.read(shard0).Checkpoint != at("7") {
					t.Errorf("stored %s, table %s; want 7", h.Stored(), w.read(shard0).Checkpoint)
				}
			})
		})
	}
}

// r2.3: a write that DynamoDB has refused was not done and never will be, so it says nothing of how old the lease is. Were
// its stamp kept as that of an unanswered one, a throttled table would end runs whose renewals succeed.
func TestARefusedRenewalDoesNotShortenTheLifeOfTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, k, h := holding(t, "1")
		sent := w.times(isKeep)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.Throttle, When: isKeep, Count: 3})
		w.await("a renewal that succeeds", func() bool { return len(sent()) == 4 })
		time.Sleep(time.Millisecond)
		if want := sent()[3] + k.m.cfg.life(); h.Fence().Deadline() != want {
			t.Errorf("the fence closes at %s, want %s: the life of the one that was done", h.Fence().Deadline(), want)
		}
	})
}

// I5: nothing may be sent after stamp + F - margin, and the user learns it at that very moment.
func TestTheFenceClosesInTimeWithoutAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		k := w.worker("A").run()
		time.Sleep(100 * time.Millisecond)
		h := k.mustHold(shard0)
		deadline := h.Fence().Deadline()
		if deadline > 8*sec {
			t.Errorf("the fence of a take at 0 s closes at %s, want at most F - 1 s", deadline)
		}
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.Hang, When: func(r dynamotest.Request) bool { return r.Operation == "UpdateItem" }, Count: -1})
		<-h.Lost()
		if now := time.Since(w.start); now != deadline || h.Fence().Open() || !errors.Is(h.Err(), ErrFenced) {
			t.Errorf("lost at %s, fence was due at %s: %v", now, deadline, h.Err())
		}
		if n := len(k.log.warnings()); n > 3 {
			t.Errorf("%d warnings: %q", n, k.log.warnings())
		}
	})
}

func TestAKCLStealIsNoticedAtTheNextRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		k := w.worker("A").run()
		time.Sleep(20 * sec)
		h := k.mustHold(shard0)
		w.kclSteals(shard0, "K")
		stolen := time.Now()
		<-h.Lost()
		if d := time.Since(stolen); d > 3300*time.Millisecond {
			t.Errorf("noticed after %s, want F/3 + jitter at most", d)
		}
		if !errors.Is(h.Err(), ErrLost) || !strings.Contains(h.Err().Error(), "worker K") {
			t.Errorf("error %v", h.Err())
		}
		for range 10 {
			time.Sleep(3 * sec)
			w.kclSteals(shard0, "K") // that is: K renews
			if k.held(shard0) != nil {
				t.Fatal("a live KCL worker was robbed")
			}
		}
		died := time.Now()
		time.Sleep(12500 * time.Millisecond)
		k.mustHold(shard0)
		if l := w.read(shard0); l.OwnerSwitches != 1 {
			t.Errorf("owner switches: %+v", l)
		}
		t.Logf("taken back within %s", time.Since(died))
		if got := k.log.warnings(); len(got) != 1 || !strings.HasPrefix(got[0], "Lost 1 leases: "+shard0) {
			t.Errorf("warnings: %q", got)
		}
	})
}

// r1.1: UpdateItem makes an item where there is none, unless its condition fails on it.
func TestALateWriteAfterADeletionMakesNoItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, which := range []func(dynamotest.Request) bool{isKeep, isTake, isRelease} {
			w := newWorld(t)
			w.lease(shard0, at("1"))
			late := w.db.Inject(dynamotest.Fault{Kind: dynamotest.LateWrite, When: which, Delay: 20 * sec, Count: -1})
			k := w.worker("A").run()
			time.Sleep(100 * time.Millisecond)
			if h := k.held(shard0); h != nil {
				go func() { _ = h.Release(t.Context()) }()
			}
			time.Sleep(4 * sec)
			if late.Hits() == 0 {
				time.Sleep(4 * sec)
			}
			w.remove(shard0)
			time.Sleep(60 * sec)
			if items := w.db.Items(tableName); len(items) != 0 {
				t.Errorf("a late write has made %v", items)
			}
			k.kill()
			time.Sleep(60 * sec)
		}
	})
}

// I1: a position at or before the stored one is not written, wherever it comes from.
func TestACheckpointNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, checkpoint.Position{Sequence: "1000", Sub: 4})
		k := w.worker("A").run()
		time.Sleep(sec)
		h := k.mustHold(shard0)
		for _, p := range []checkpoint.Position{at("999"), {Sequence: "1000", Sub: 3}, at(checkpoint.Latest), {}} {
			h.Confirmed(p, 0)
			time.Sleep(5 * sec)
			if got := w.read(shard0).Checkpoint; got != (checkpoint.Position{Sequence: "1000", Sub: 4}) {
				t.Errorf("%s was written over 1000/4: %s", p, got)
			}
		}
		h.Confirmed(checkpoint.Position{Sequence: "1000", Sub: 5}, 0)
		time.Sleep(5 * sec)
		if got := w.read(shard0).Checkpoint; got.Sub != 5 {
			t.Errorf("stored %s, want 1000/5", got)
		}
	})
}

func TestCheckpointIntervalBelowTheRenewalPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		k := w.worker("A", func(c *Config) { c.CheckpointInterval = 500 * time.Millisecond }).run()
		time.Sleep(20 * sec)
		h := k.mustHold(shard0)
		before := w.read(shard0).Counter
		for i := range 20 {
			p := at(fmt.Sprint(100 + i))
			h.Confirmed(p, 0)
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			if got := w.read(shard0).Checkpoint; got != p {
				t.Fatalf("%s is stored 500 ms after %s was confirmed", got, p)
			}
		}
		if n := w.read(shard0).Counter - before; n > 21 {
			t.Errorf("%d writes for 20 positions", n)
		}
		before = w.read(shard0).Counter
		time.Sleep(30 * sec)
		if n := w.read(shard0).Counter - before; n > 12 {
			t.Errorf("%d writes in 30 s without a new position", n)
		}
	})
}

func TestThrottledRenewalsWarnOnceAndDoNotCostTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		k := w.worker("A", func(c *Config) { c.Backoff, c.NumRetries = time.Minute, 2 }).run()
		time.Sleep(20 * sec)
		h := k.mustHold(shard0)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.Throttle, When: isKeep, Count: 3})
		time.Sleep(20 * sec)
		if isOver(h) {
			t.Errorf("a backoff of a minute cost the lease: %v", h.Err())
		}
		if got := k.log.warnings(); len(got) != 1 || !strings.Contains(got[0], "in 2 tries") {
			t.Errorf("warnings: %q", got)
		}
	})
}

// One request for one try: the SDK's own repetitions would blur when a write was first sent.
func TestTheSDKRepeatsNoOwnerWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		k := w.worker("A", func(c *Config) { c.Backoff = 2 * sec }).run()
		time.Sleep(100 * time.Millisecond)
		sent := w.times(isKeep)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.Throttle, When: isKeep})
		time.Sleep(6 * sec)
		s := sent()
		if len(s) < 2 || s[1]-s[0] < 1500*time.Millisecond {
			t.Errorf("renewals at %v: the second must wait for the backoff", s)
		}
		k.mustHold(shard0)
	})
}
