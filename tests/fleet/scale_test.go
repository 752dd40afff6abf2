package fleet

import (
	"slices"
	"testing"
	"time"
)

// calm is a failover time that a busy machine does not break, for stories in which no lease may be lost.
const calm = 6 * time.Second

func TestWorkersThatComeAndGoRepeatNothing(t *testing.T) {
	story(t)
	f, workers := cold(t, settings{failover: calm, real: *full}, 3)

	added := time.Now()
	newcomers := f.startAll(2)
	f.awaitFair("two added", f.living(), added)

	removed := time.Now()
	f.stopAll(newcomers[0], workers[0])
	f.awaitFair("two removed", f.living(), removed)

	f.arrived()
	f.load.stop()
	f.arrived()
	f.stopAll(f.living()...)
	f.released()
	f.noneRepeated()
	f.logGaps()
}

func TestARollingRestartRepeatsNothing(t *testing.T) {
	story(t)
	f, workers := cold(t, settings{failover: calm, real: *full}, 3)
	for _, old := range workers {
		restarted := time.Now()
		took := old.stop()
		f.start()
		f.awaitFair("worker "+old.name+" restarted, which stopped in "+took.Round(time.Millisecond).String(), f.living(), restarted)
	}
	f.arrived()
	f.load.stop()
	f.arrived()
	f.stopAll(f.living()...)
	f.released()
	f.noneRepeated()
	f.logGaps()
}

func TestAReshardWhileLeasesAreHandedOver(t *testing.T) {
	story(t)
	f, _ := cold(t, settings{failover: calm, real: *full}, 2)

	began := time.Now()
	f.startAll(1)
	eventually(t, "a lease is asked for, or handed over", func() bool {
		for _, l := range f.leases() {
			if l["kp_ask"] != "" || f.workerOf(l.owner()) == "w3" {
				return true
			}
		}
		return false
	})
	open, err := f.kinesis.UpdateShardCount(streamName, shardCount*3/2)
	must(t, err)
	if len(open) != shardCount*3/2 {
		t.Fatalf("%d shards are open", len(open))
	}
	eventually(t, "every child has a lease, and every parent is read to its end", func() bool {
		leases := f.leases()
		for _, s := range f.kinesis.Shards(streamName) {
			if l, there := leases[s.ID]; !there || l.ended() == slices.Contains(open, s.ID) {
				return false
			}
		}
		return true
	})
	f.awaitFair("resharded, one added", f.living(), began)
	f.arrived()
	f.load.stop()
	f.arrived()
	f.stopAll(f.living()...)
	f.released()
	f.noneRepeated()
	f.logGaps()
}
