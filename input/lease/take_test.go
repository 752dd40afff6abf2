package lease

import (
	"context"
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

// r3.5: the item shows the acquisition of the take whose answer was lost; it lives from its first try.
func TestLostAnswerOfATake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(Lease{Key: shard0, Owner: "dead", Counter: 7, Checkpoint: at("5")}, nil)
		sent := w.times(isTake)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.HangAnswer, When: isTake})
		k := w.worker("A").run()
		for k.held(shard0) == nil && time.Since(w.start) < 30*sec {
			time.Sleep(time.Millisecond)
		}
		h := k.mustHold(shard0)
		if s := sent(); h.Fence().Deadline() != s[0]+k.m.cfg.life() {
			t.Errorf("the fence closes at %s, takes were sent at %v: the first one counts", h.Fence().Deadline(), s)
		}
		if h.Lease().Checkpoint != at("5") || len(k.runs(shard0)) != 1 {
			t.Errorf("run %+v of %d", h.Lease(), len(k.runs(shard0)))
		}
		if l := w.read(shard0); l.OwnerSwitches != 1 || l.Counter != 8 || len(sent()) != 2 {
			t.Errorf("the take was counted wrongly: %+v", l)
		}
	})
}

// DynamoDB answers with an error of its own and has done the write all the same. Such a take is as old as its request, not as the
// next one, which finds it.
func TestATakeThatWasDoneThoughTheServiceFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(Lease{Key: shard0, Owner: "dead", Counter: 7, Checkpoint: at("5")}, nil)
		sent := w.times(isTake)
		w.db.Inject(dynamotest.Fault{Kind: dynamotest.AppliedInternalError, When: isTake})
		k := w.worker("A").run()
		for k.held(shard0) == nil && time.Since(w.start) < 30*sec {
			time.Sleep(time.Millisecond)
		}
		h := k.mustHold(shard0)
		if s := sent(); len(s) != 2 || h.Fence().Deadline() != s[0]+k.m.cfg.life() {
			t.Errorf("the fence closes at %s, takes were sent at %v: the first one counts", h.Fence().Deadline(), s)
		}
	})
}

// A take whose answers never came may still have been done: the scan shows it, and it is not left to expire.
func TestATakeThatIsFoundOutByTheNextScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("5"))
		late := w.db.Inject(dynamotest.Fault{Kind: dynamotest.LateWrite, Delay: 8 * sec, When: isTake, Count: -1})
		k := w.worker("A").run()
		time.Sleep(7900 * time.Millisecond)
		late.Remove()
		time.Sleep(5 * sec) // not the 9 s that an expiry takes
		k.mustHold(shard0)
	})
}

// r2.4 and r3.6: DynamoDB away for longer than F. The fence closes before anybody may take; afterwards somebody takes,
// by itself, and from the stored checkpoint.
func TestTheTableIsAwayForLongerThanF(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 5 {
			w.lease(fmt.Sprintf("shardId-%012d", i), at("1"))
		}
		a, b := w.worker("A").run(), w.worker("B").run()
		time.Sleep(30 * sec)
		owner := a
		if a.held(shard0) == nil {
			owner = b
		}
		h := owner.mustHold(shard0)
		h.Confirmed(at("50"), 0)
		time.Sleep(4 * sec)
		h.Confirmed(at("60"), 0)
		if err := owner.m.Err(); err != nil {
			t.Errorf("Err while the table answers: %v", err)
		}
		w.db.Stop()
		time.Sleep(40 * sec)
		if h.Fence().Open() || !errors.Is(h.Err(), ErrFenced) {
			t.Errorf("open 40 s after the last renewal: %v", h.Err())
		}
		if err := owner.m.Err(); err == nil || !strings.Contains(err.Error(), "lease table app could not be used for 9s") {
			t.Errorf("Err while the table is away: %v", err)
		}
		w.db.Restart()
		time.Sleep(5 * sec)
		for i := range 5 {
			key := fmt.Sprintf("shardId-%012d", i)
			if a.held(key) == nil && b.held(key) == nil {
				t.Errorf("nobody has %s 5 s after the table is back", key)
			}
		}
		for _, k := range []*worker{a, b} {
			if err := k.m.Err(); err != nil {
				t.Errorf("Err after the table is back: %v", err)
			}
			if n := len(k.log.warnings()); n > 5 {
				t.Errorf("%d warnings for one outage: %q", n, k.log.warnings())
			}
			for _, run := range k.runs(shard0) {
				if run.Lease().Counter > h.Lease().Counter && run.Lease().Checkpoint.Compare(at("50")) < 0 {
					t.Errorf("a new run starts at %s, 50 was stored", run.Lease().Checkpoint)
				}
			}
		}
	})
}

// Go's clock stands still while a machine is suspended, the boot clock does not.
func TestASuspendedMachineWakesUpFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		k := w.worker("A").run()
		time.Sleep(20 * sec)
		h := k.mustHold(shard0)
		k.jumped.Store(int64(time.Hour))
		if h.Fence().Open() {
			t.Fatal("the fence is open after an hour of sleep")
		}
		time.Sleep(4 * sec)
		if !errors.Is(h.Err(), ErrFenced) {
			t.Errorf("error %v", h.Err())
		}
		again := k.mustHold(shard0)
		if again.Lease().Acquisition == h.Lease().Acquisition {
			t.Error("a fenced run must not go on")
		}
		if h.Fence().Open() {
			t.Error("the old fence is open again")
		}
	})
}

// The same with a lease that another worker gave it, whose name the process did not make: a release would leave the shard
// unread until a scan shows it free, and would be a write on the strength of a lease that is over.
func TestASuspendedMachineTakesAnewWhatItWasGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := lent(t)
		b := w.worker("B").wants(shard0).run()
		w.await("the hand-over", func() bool { return b.held(shard0) != nil })
		h := b.mustHold(shard0)
		a.kill()
		time.Sleep(20 * sec)
		writes := w.times(func(r dynamotest.Request) bool { return isRelease(r) || isTake(r) })
		b.jumped.Store(int64(time.Hour))
		time.Sleep(4 * sec)
		if !errors.Is(h.Err(), ErrFenced) {
			t.Errorf("error %v", h.Err())
		}
		if again := b.mustHold(shard0); again.Lease().Acquisition == h.Lease().Acquisition {
			t.Error("a fenced run must not go on")
		}
		if n := len(writes()); n != 1 {
			t.Errorf("%d releases and takes, one take is enough", n)
		}
	})
}

// The same, when somebody else took the lease meanwhile.
func TestASuspendedMachineRobsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		a := w.worker("A").run()
		time.Sleep(20 * sec)
		h := a.mustHold(shard0)
		w.put(Lease{Key: shard1, Owner: "K", Counter: 5, Checkpoint: at("1")}, nil) // dead, but not yet for B
		stop := w.db.Inject(dynamotest.Fault{Kind: dynamotest.LoseRequest, When: isKeep, Count: -1})
		b := w.worker("B").run()
		time.Sleep(7 * sec)
		a.jumped.Store(int64(time.Hour))
		stop.Remove()
		time.Sleep(30 * sec)
		if !isOver(h) {
			t.Error("the run goes on")
		}
		if (a.held(shard0) == nil) == (b.held(shard0) == nil) {
			t.Errorf("A %v, B %v", a.held(shard0), b.held(shard0))
		}
	})
}

// r3.2: a deleted and re-created lease starts with counter 0, which no scan comparison would ever let in.
func TestARecreatedLeaseIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(Lease{Key: shard0, Owner: "K", Counter: 50, Checkpoint: at("5")}, nil)
		k := w.worker("A").run()
		time.Sleep(4 * sec)
		w.put(Lease{Key: shard0, Counter: 0, Checkpoint: at(checkpoint.TrimHorizon)}, nil)
		time.Sleep(16 * sec)
		if h := k.mustHold(shard0); h.Lease().Checkpoint != at(checkpoint.TrimHorizon) {
			t.Errorf("run %+v", h.Lease())
		}
	})
}

// r3.2: a scan from a frozen replica shows every counter standing still.
func TestStaleScansRobNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		a := w.worker("A").run()
		time.Sleep(20 * sec)
		h := a.mustHold(shard0)
		thaw := w.db.FreezeReads(tableName)
		b := w.worker("B").run()
		time.Sleep(5 * time.Minute)
		if isOver(h) || len(b.runs(shard0)) != 0 {
			t.Errorf("A: %v; B had %d runs", h.Err(), len(b.runs(shard0)))
		}
		thaw()
		a.kill()
		time.Sleep(13 * sec)
		b.mustHold(shard0)
	})
}

// r3.1: the owner says in kp_fo how long it believes.
func TestAWorkerWithAShortFailoverTimeRobsNoneWithALong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		slow := w.worker("slow", func(c *Config) { c.Failover = 60 * sec }).run()
		time.Sleep(sec)
		h := slow.mustHold(shard0)
		quick := w.worker("quick", func(c *Config) { c.Failover = 3 * sec }).run()
		time.Sleep(5 * time.Minute)
		if isOver(h) {
			t.Fatalf("robbed: %v", h.Err())
		}
		last := w.read(shard0).Counter
		slow.kill()
		killed := time.Now()
		for quick.held(shard0) == nil && time.Since(killed) < 2*time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		if d := time.Since(killed); d < 30*sec || d > 63*sec {
			t.Errorf("taken after %s, counter %d", d, last)
		}
	})
}

// P8: takeover within F + F/3 + jitter after the last renewal.
func TestADeadWorkerIsReplacedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for i := range 6 {
			w := newWorld(t)
			for n := range 10 {
				w.lease(fmt.Sprintf("shardId-%012d", n), at("1"))
			}
			a := w.worker("A").run()
			time.Sleep(100 * time.Millisecond)
			b := w.worker("B").run()
			time.Sleep(20*sec + time.Duration(i)*500*time.Millisecond)
			died := time.Now()
			a.kill()
			for n := range 10 {
				key := fmt.Sprintf("shardId-%012d", n)
				for b.held(key) == nil && time.Since(died) < time.Minute {
					time.Sleep(10 * time.Millisecond)
				}
			}
			// The last renewal was before the death; one scan period and its jitter after it was seen first.
			if d := time.Since(died); d > 9*sec+3300*time.Millisecond+100*time.Millisecond {
				t.Errorf("all leases were taken over %s after the death", d)
			}
			b.kill()
		}
	})
}

func TestMaxLeasesAndMayTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 6 {
			w.lease(fmt.Sprintf("shardId-%012d", i), at("1"))
		}
		k := w.worker("A", func(c *Config) {
			c.MaxLeases = 3
			c.MayTake = func(l Lease) bool { return l.Key != shard0 }
		}).run()
		time.Sleep(30 * sec)
		n := 0
		for _, item := range w.db.Items(tableName) {
			if l, _ := Decode(item); l.Owner == "A" {
				n++
			}
		}
		if n != 3 || k.held(shard0) != nil {
			t.Errorf("%d leases", n)
		}
	})
}

// r7.1: a running worker that meets rows of another stream keeps what it has, takes nothing and says so.
func TestForeignRowsStopTheTaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, k, h := holding(t, "1")
		other := strings.Replace(testStream, "orders", "invoices", 1)
		w.put(Lease{Key: shard1, Checkpoint: at("1"), Stream: other}, nil)
		w.lease("shardId-000000000002", at("1"))
		time.Sleep(30 * sec)
		if isOver(h) || len(k.runs(shard1))+len(k.runs("shardId-000000000002")) != 0 {
			t.Error("keeps its own, takes none")
		}
		if got := k.log.warnings(); len(got) != 1 || !strings.Contains(got[0], other) {
			t.Errorf("warnings: %q", got)
		}
		w.remove(shard1)
		time.Sleep(4 * sec)
		k.mustHold("shardId-000000000002")
	})
}

func TestABrokenLeaseHidesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		w.put(Lease{Key: shard1, Checkpoint: at("1")}, map[string]types.AttributeValue{attrCheckpoint: text("LATETS")})
		k := w.worker("A").run()
		time.Sleep(20 * sec)
		k.mustHold(shard0)
		if got := k.log.warnings(); len(got) != 1 || !strings.Contains(got[0], shard1) {
			t.Errorf("warnings: %q", got)
		}
	})
}

func TestRescanFindsNewLeasesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		k := w.worker("A").run()
		time.Sleep(sec)
		w.db.SetReadLag(time.Minute)
		w.lease(shard0, at("1"))
		k.m.Rescan()
		time.Sleep(10 * time.Millisecond)
		k.mustHold(shard0)
	})
}

func TestManyLeasesAreTakenAtOnceAndNotRenewedInLockStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const n = 100
		for i := range n {
			w.lease(fmt.Sprintf("shardId-%012d", i), at("1"))
		}
		k := w.worker("A").run()
		time.Sleep(100 * time.Millisecond)
		for i := range n {
			k.mustHold(fmt.Sprintf("shardId-%012d", i))
		}
		if infos := k.log.infos(); len(infos) != 1 || !strings.Contains(infos[0], "Took 100 leases") {
			t.Errorf("log: %q", infos)
		}
		sent := w.times(isKeep)
		time.Sleep(9 * sec)
		perTenth := map[time.Duration]int{}
		for _, at := range sent() {
			perTenth[at.Truncate(100*time.Millisecond)]++
		}
		for at, count := range perTenth {
			if count > n/5 {
				t.Errorf("%d of %d leases are renewed within 100 ms at %s", count, n, at)
			}
		}
	})
}

func TestRunAfterTheEndOfItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		k := w.worker("A")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := k.m.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		if err := k.m.Run(t.Context()); err == nil {
			t.Error("a second Run must be refused")
		}
	})
}

// Workers that start together on new leases run into each other. That is nobody's trouble, and in the end they share.
func TestWorkersThatStartTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const leases, workers = 20, 3
		for i := range leases {
			w.lease(fmt.Sprintf("shardId-%012d", i), at("1"))
		}
		var all []*worker
		for i := range workers {
			all = append(all, w.worker(fmt.Sprint("W", i)).run())
		}
		time.Sleep(40 * sec)
		for _, k := range all {
			n := 0
			for i := range leases {
				if k.held(fmt.Sprintf("shardId-%012d", i)) != nil {
					n++
				}
			}
			if n < leases/workers || n > leases/workers+1 {
				t.Errorf("%s holds %d of %d leases", k.m.cfg.WorkerID, n, leases)
			}
			if got := k.log.warnings(); len(got) != 0 {
				t.Errorf("%s warns: %q", k.m.cfg.WorkerID, got)
			}
		}
	})
}

// What nobody may take is told once, and again only if it had been better meanwhile.
func TestLeasesThatNobodyMayTakeAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 4 {
			w.lease(fmt.Sprintf("shardId-%012d", i), at("1"))
		}
		k := w.worker("A", func(c *Config) { c.MaxLeases = 3 }).run()
		time.Sleep(60 * sec)
		if got := k.log.warnings(); len(got) != 1 || !strings.Contains(got[0], "maxLeasesForWorker") {
			t.Errorf("warnings: %q", got)
		}
		if s := k.m.Stats(); s.Leftover != 1 || s.Held != 3 {
			t.Errorf("stats: %+v", s)
		}
		b := w.worker("B").run()
		time.Sleep(60 * sec)
		if s := k.m.Stats(); s.Leftover != 0 {
			t.Errorf("stats: %+v", s)
		}
		if got := append(k.log.warnings()[1:], b.log.warnings()...); len(got) != 0 {
			t.Errorf("warnings: %q", got)
		}
	})
}

// A lease was deleted and made anew, and its counter has come as far as it was when this worker last looked. Its owner lives, and is not
// robbed.
func TestALeaseMadeAnewIsNotTheOneThatWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		seen := Lease{Key: shard0, Owner: "B", Acquisition: "B#1", Counter: 2, Checkpoint: at("5")}
		w.put(Lease{Key: shard0, Owner: "B", Acquisition: "B#2", Counter: 2, Checkpoint: at("5")}, nil)
		a, err := w.table.send(t.Context(), takeUpdate(seen, "A", "A#1", testStream, 9*sec, time.Time{}))
		if err != nil || !a.failed || w.read(shard0).Owner != "B" {
			t.Errorf("%+v, %v", a, err)
		}
	})
}
