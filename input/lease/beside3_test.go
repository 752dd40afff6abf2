package lease

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

// r8.4: a worker of KCL 3.x that comes later is noticed by what it moves. What we have is kept, nothing is taken or asked
// for, and when it has left everything is as before.
func TestKCL3ComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, h := holding(t, "1")

		report := func() {
			w.db.Put(tableName, map[string]types.AttributeValue{
				attrKey: text("newcomer"), attrEntityType: text(entityTypeWorker), attrWorkerSeen: number(time.Now().Unix()),
			})
		}
		report()
		time.Sleep(4 * sec)
		w.lease(shard1, at("1"))
		for range 10 {
			time.Sleep(30 * sec)
			report()
		}
		if isOver(h) || len(a.runs(shard1)) > 0 {
			t.Error("keeps its own, takes none")
		}
		if s := a.m.Stats(); s.Beside != "newcomer" {
			t.Errorf("%+v", s)
		}
		if got := a.log.warnings(); len(got) != 1 || !strings.Contains(got[0], "newcomer") {
			t.Errorf("warnings: %q", got)
		}
		time.Sleep(besideSilence + besideMemory + 10*sec)
		if a.mustHold(shard1); a.m.Stats().Beside != "" {
			t.Errorf("%+v", a.m.Stats())
		}
	})
}

// KCL 3.0 to 3.4 keeps its state in tables of its own, which are looked at once a minute while KCL has leases, and only
// then: whether its workers are 3.x's is told by the version that they have stored.
func TestTheVersionOfLiveKCLWorkersIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lease(shard0, at("1"))
		a := w.worker("A").run()
		looks := w.times(func(r dynamotest.Request) bool { return r.Operation == "GetItem" && r.Table != tableName })
		time.Sleep(5 * time.Minute)
		if got := looks(); len(got) > 0 {
			t.Errorf("%d looks at KCL's tables, and KCL has nothing here", len(got))
		}
		w.put(Lease{Key: shard1, Owner: "K", Counter: 1, Checkpoint: at("1")}, nil)
		w.move(tableName, attrKey, shard1, 3*sec, beats)
		time.Sleep(10 * sec)
		store := func(version string) {
			w.db.Put(tableName+coordinatorSuffix, map[string]types.AttributeValue{"key": text(migrationKey), "cv": text(version)})
		}
		createGolden(t, w.db.API(), tableName+coordinatorSuffix, "key", false)
		store("CLIENT_VERSION_UPGRADE_FROM_2X")
		time.Sleep(5 * time.Minute)
		if got := a.log.warnings(); len(got) > 0 {
			t.Errorf("works as 2.x: %q", got)
		}
		if n := len(looks()); n < 5 || n > 12 {
			t.Errorf("%d looks in five minutes", n)
		}
		store("CLIENT_VERSION_3X")
		time.Sleep(70 * sec)
		if s := a.m.Stats(); s.Beside != "K" || len(a.log.warnings()) != 1 {
			t.Errorf("%+v, warnings %q", s, a.log.warnings())
		}
		// Rolled back by KCL's tool.
		store("CLIENT_VERSION_2X")
		time.Sleep(besideMemory + 70*sec)
		if s := a.m.Stats(); s.Beside != "" {
			t.Errorf("%+v", s)
		}
	})
}

// A read from before our take shows KCL's dead owner again. That is no sign of life.
func TestAStaleScanRaisesNoDead(t *testing.T) {
	w := witness{failover: 9 * sec}
	c := coordinator{version: "CLIENT_VERSION_3X"}
	dead := []Lease{{Key: shard0, Owner: "K", Counter: 7, Checkpoint: at("1")}}
	taken := []Lease{{Key: shard0, Owner: "A", Acquisition: "A#1", Counter: 8, Checkpoint: at("1")}}
	for i, leases := range [][]Lease{dead, dead, taken, dead, taken} {
		w.see(leases, c, time.Duration(i)*3*sec)
		if worker, what := w.alive(time.Duration(i) * 3 * sec); what != "" {
			t.Errorf("scan %d: %s has moved %s", i, worker, what)
		}
	}
	alive := dead[0]
	for i := range 3 {
		alive.Counter++
		w.see([]Lease{alive}, c, time.Duration(10+i)*3*sec)
	}
	if worker, _ := w.alive(12 * 3 * sec); worker != "K" {
		t.Errorf("%q lives", worker)
	}
	if worker, _ := w.alive(20 * 3 * sec); worker != "" {
		t.Errorf("%q has stopped", worker)
	}
}

// r8.3: workers of KCL 3.x coordinate as 2.x does until their migration is through, and again after a rollback; whatever moves
// then, also what only a 3.x worker writes, is that of a fleet which we may live beside.
func TestAWitnessHoldsNothingAgainstAFleetThatWorksAs2xDoes(t *testing.T) {
	for version, want := range map[string]string{"CLIENT_VERSION_UPGRADE_FROM_2X": "", "CLIENT_VERSION_2X": "", "CLIENT_VERSION_3X": "K", "": "K"} {
		w := witness{failover: 9 * sec}
		for i := range 3 {
			c := coordinator{version: version, workers: map[string]map[string]types.AttributeValue{
				"K": {attrWorkerID: text("K"), attrWorkerSeen: number(int64(1700000000 + 30*i))},
			}}
			w.see([]Lease{{Key: shard0, Owner: "K", Counter: int64(7 + i), Checkpoint: at("1")}}, c, time.Duration(i)*3*sec)
		}
		if worker, what := w.alive(6 * sec); worker != want {
			t.Errorf("version %q: %q has moved %s, want %q", version, worker, what, want)
		}
	}
}
