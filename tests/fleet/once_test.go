package fleet

import (
	"testing"
	"time"
)

// With de-duplication not even a kill leaves a copy behind, whoever reads the shard again.
func TestAFleetThatDeduplicatesRepeatsNothingWhateverHappens(t *testing.T) {
	story(t)
	f, workers := cold(t, settings{failover: quick, once: true}, 3)

	killed := time.Now()
	workers[0].kill()
	f.awaitFair("one of three killed", f.living(), killed)
	added := time.Now()
	f.startAll(2)
	f.awaitFair("two added", f.living(), added)
	stopped := time.Now()
	workers[1].stop()
	f.awaitFair("one stopped", f.living(), stopped)

	f.arrived()
	f.load.stop()
	f.arrived()
	f.stopAll(f.living()...)
	f.released()
	a := f.balance(map[string]time.Time{workers[0].name: killed})
	if a.messages != a.records {
		t.Errorf("%d messages of %d records", a.messages, a.records)
	}
	broker := f.topic.(standInTopic).broker
	if dropped := broker.Counters(topicName).Duplicates; dropped == 0 {
		t.Errorf("the broker dropped nothing: the kill left nothing to de-duplicate, of %d records that it exposed", a.exposed)
	}
}
