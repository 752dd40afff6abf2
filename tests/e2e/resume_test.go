package e2e

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestEveryRecordArrivesOnceAndACleanStopRepeatsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 4)
	for range 3 {
		p := w.start(config{})
		w.arrived(w.put(2000, 50))
		p.stop()
		w.released()
	}
	w.account().balanced().once()
}

// Pipelines are stopped in the middle of the work: what is under way is either delivered and checkpointed, or
// neither.
func TestACleanStopInTheMiddleOfTheWorkRepeatsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 4)
	total := w.put(6000, 100)
	for w.delivered() < total {
		before := w.delivered()
		p := w.start(config{input: map[string]string{"maxRecords": "300"}})
		w.eventually("some more records", func() bool { return w.delivered() >= min(total, before+500) })
		p.stop()
		for shard, l := range w.leases() {
			if l["leaseOwner"] != "" {
				t.Fatalf("lease %s was not released", shard)
			}
		}
	}
	w.account().balanced().once()
	w.released()
}

func TestAKilledProcessLosesNothingAndRepeatsOnlyWhatNoRenewalHadStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2)
	kills := 5
	if *full {
		kills = 50
	}
	stored, before := w.leases(), w.account()
	for range kills {
		had := w.delivered() // before it runs, or it may have delivered all that there is
		w.put(1500, 40)
		p := w.spawn(config{quick: true, input: map[string]string{"maxRecords": "200"}})
		some := had + 300 + rand.IntN(600)
		w.eventually("some more records", func() bool { return w.delivered() >= some })
		p.kill()
		after := w.account().sameUpTo(before, stored)
		stored, before = w.leases(), after
	}
	p := w.start(config{quick: true})
	w.settled() // what the last kill repeats may be half way, with its copies out of order
	a := w.account().balanced().sameUpTo(before, stored)
	t.Logf("%d records, %d of them more than once after %d kills", w.total(), len(a.duplicates), kills)
	p.stop()
	w.released()
}

func TestDuplicatesOfAKillBeginBehindTheStoredCheckpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	w.put(500, 10)
	p := w.spawn(config{steady: true})
	w.arrived(500)
	last := w.kinesis.Records(streamName)["shardId-000000000000"][499].SequenceNumber
	w.eventually("a renewal stores the position", func() bool { return w.leases()["shardId-000000000000"]["checkpoint"] == last })
	w.put(300, 10)
	w.arrived(800)
	p.kill()
	stored, before := w.leases(), w.account()
	w.put(200, 10)
	began := time.Now()
	second := w.start(config{steady: true})
	w.arrived(1000)
	t.Logf("taken over within %s", time.Since(began))
	second.stop()
	a := w.account().balanced().sameUpTo(before, stored)
	if len(a.duplicates) > 300 {
		t.Fatalf("%d duplicates of 300 records that no renewal had stored", len(a.duplicates))
	}
	w.released()
}
