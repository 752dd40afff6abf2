package fleet

import (
	"slices"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// With de-duplication not even a kill leaves a copy behind, whoever reads the shard again.
func TestAFleetThatDeduplicatesRepeatsNothingWhateverHappens(t *testing.T) {
	story(t)
	f, workers := cold(t, settings{failover: quick, once: true}, 3)

	// Killed right after its renewals it would leave nothing to de-duplicate.
	eventually(t, "the topic has something of it that no checkpoint has passed", func() bool {
		workers[0].pause()
		eventually(t, "its last requests are answered", func() bool { return f.ledger.isQuiet(workers[0].name) })
		if f.hasUnstored(workers[0]) {
			return true
		}
		workers[0].resume()
		return false
	})
	workers[0].kill()
	killed := time.Now()
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

// hasUnstored tells whether the topic has records of a worker that lie behind the checkpoints of its leases.
func (f *fleet) hasUnstored(w *worker) bool {
	delivered := map[name]bool{}
	for _, m := range f.topic.messages() {
		if m.worker == w.name {
			delivered[m.name] = true
		}
	}
	leases := f.leases()
	for shard, records := range f.kinesis.Records(streamName) {
		l := leases[shard]
		if f.workerOf(l.owner()) != w.name {
			continue
		}
		stored := slices.IndexFunc(records, func(r kinesistest.Record) bool { return r.SequenceNumber == l["checkpoint"] })
		if slices.ContainsFunc(records[stored+1:], func(r kinesistest.Record) bool { return delivered[nameOf(r)] }) {
			return true
		}
	}
	return false
}
