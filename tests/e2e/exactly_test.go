package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	pulsarlog "github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

var (
	pipelineKills = flag.Int("e2e.pipelinekills", 5, "kills of the pipeline in TestExactlyOnceThroughKills; 50 take four minutes")
	brokerKills   = flag.Int("e2e.brokerkills", 1, "kills of the broker in TestExactlyOnceThroughKills; 10 take two minutes")
)

// exact is the plain pair with de-duplication.
func exact() config {
	return config{
		quick:  true,
		input:  map[string]string{"maxRecords": "150"},
		pulsar: map[string]string{"deduplication": "true"},
	}
}

// With de-duplication every record is in the topic once, and in order, whatever is killed: the pipeline at any moment, the
// broker in the middle of a backlog. The broker is a real one, a reader of the topic is the witness.
func TestExactlyOnceThroughKills(t *testing.T) {
	broker := stack.Pulsar(t)
	t.Parallel() // not before: its start takes all processors
	const partitions, keys = 4, 40
	w := newWorld(t, 3, 1)
	w.pulsarURL = broker.ServiceURL()
	must(t, broker.CreatePartitionedTopic(t.Context(), "public/default/"+topic, partitions))
	_, err := broker.Admin(t.Context(), "POST", "/admin/v2/persistent/public/default/"+topic+"/deduplicationEnabled", true)
	must(t, err)
	client, err := pulsar.NewClient(pulsar.ClientOptions{URL: w.pulsarURL, Logger: pulsarlog.DefaultNopLogger(), MetricsRegisterer: prometheus.NewRegistry()})
	must(t, err)
	t.Cleanup(client.Close)
	view := consume(t, client, "persistent://public/default/"+topic, partitions)
	w.messages = view.all
	// The policy of a topic takes a moment to reach it, longer than the admin API takes to tell of it.
	w.eventually("the partitions de-duplicate", func() bool {
		for partition := range partitions {
			stats, err := broker.Admin(t.Context(), "GET", fmt.Sprintf("/admin/v2/persistent/public/default/%s-partition-%d/stats", topic, partition), nil)
			if err != nil || !strings.Contains(string(stats), `"deduplicationStatus":"Enabled"`) {
				return false
			}
		}
		return true
	})

	w.kills(keys, *pipelineKills, *brokerKills, func() {
		broker.Kill()
		w.put(100, keys)
		must(t, broker.Start(t.Context()))
	})
}

// The same with a stand-in for the broker, which loses its connections instead of its process.
func TestExactlyOnceThroughKillsBesideAStandIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 4, pulsartest.Deduplication())
	w.kills(40, 3, 10, func() {
		w.broker.Stop()
		w.put(100, 40)
		time.Sleep(rand.N(time.Second))
		must(t, w.broker.Restart())
	})
}

// kills fills the stream, kills the pipeline and the broker in the middle of it, and checks that every record is in the
// topic once.
func (w *world) kills(keys, pipelines, brokers int, killBroker func()) {
	t := w.t
	t.Helper()
	p := w.spawn(exact())
	w.arrived(w.put(1000, keys))
	caught := 0
	for range pipelines {
		w.put(1000+rand.IntN(1000), keys)
		from, target := w.delivered(), w.total()
		some := from + rand.IntN(max(1, target-from))
		w.eventually("some of it", func() bool { return w.delivered() >= some })
		time.Sleep(rand.N(100 * time.Millisecond))
		p.kill()
		caught += max(0, w.delivered()-w.checkpointed())
		p = w.spawn(exact())
	}
	w.arrived(w.total())
	t.Logf("%d kills of the pipeline: %d records; %d were in the topic and behind no checkpoint when a kill came", pipelines, w.total(), caught)
	w.account().balanced().onceWhateverHappens()

	for range brokers {
		w.put(1500, keys)
		from, target := w.delivered(), w.total()
		some := from + rand.IntN(max(1, target-from))
		w.eventually("some of it", func() bool { return w.delivered() >= some })
		killBroker()
		w.arrived(w.total())
	}
	t.Logf("%d kills of the broker: %d records", brokers, w.total())
	w.settled()
	p.stop()
	w.account().balanced().onceWhateverHappens()
	w.releasedUnlessStalled()
}

// checkpointed is how many records the stored checkpoints have passed.
func (w *world) checkpointed() (n int) {
	leases := w.leases()
	for shard, records := range w.kinesis.Records(streamName) {
		for i, r := range records {
			if r.SequenceNumber == leases[shard]["checkpoint"] {
				n += i + 1
			}
		}
	}
	return n
}

// The same with stand-ins and in one process: shards go to and fro between workers that come and stop, and a filter
// drops records, over which the count goes on.
func TestExactlyOnceThroughHandOvers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 3, pulsartest.Deduplication())
	c := exact()
	c.pipeline = "processors:\n  - mapping: root = if @pulsar_key.has_suffix(\"7\") { deleted() }\n"
	a := w.start(c)
	w.put(2000, 60)
	for range 4 {
		b := w.start(c)
		w.put(1500, 60)
		time.Sleep(4 * time.Second)
		a.stop()
		w.put(1500, 60)
		a = b
	}
	w.eventually("all is done", func() bool { return w.checkpointed() == w.total() })
	a.stop()
	w.releasedUnlessStalled()
	kept := func(_ string, r record) bool { return !strings.HasSuffix(r.PartitionKey, "7") }
	w.accountOf(kept, w.messages()).balanced().onceWhateverHappens()
	if got := w.delivered(); got == w.total() {
		t.Error("the filter dropped nothing")
	}
}
