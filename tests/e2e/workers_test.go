package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
)

// watchOwnership watches every change of the lease table: neither checkpoint nor counter of a lease ever goes back.
func (w *world) watchOwnership() {
	var mu sync.Mutex
	var wrong []string
	w.dynamodb.OnChange(func(c dynamotest.Change) {
		was, is := leaseOf(c.Old), leaseOf(c.New)
		if len(was) == 0 || len(is) == 0 {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if old, now := was["checkpoint"], is["checkpoint"]; len(old) > 20 && (len(now) < len(old) || len(now) == len(old) && now < old) {
			wrong = append(wrong, fmt.Sprintf("%s: checkpoint %s after %s", is["leaseKey"], now, old))
		}
		if old, now := was["leaseCounter"], is["leaseCounter"]; len(now) < len(old) || len(now) == len(old) && now < old {
			wrong = append(wrong, fmt.Sprintf("%s: counter %s after %s", is["leaseKey"], now, old))
		}
	})
	w.t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, text := range wrong {
			w.t.Error(text)
		}
	})
}

// handovers fails the test if messages of one shard come from more than one worker in turn: that both deliver it at a
// time. Each worker has a producer name of its own; a worker's end shows as the last message of its name.
func (w *world) handovers() int {
	w.t.Helper()
	shardOf := map[string]string{}
	for shard, list := range w.kinesis.Records(streamName) {
		for _, r := range list {
			shardOf[r.SequenceNumber] = shard
		}
	}
	last, seen, n := map[string]string{}, map[string]map[string]bool{}, 0
	for _, m := range w.broker.Messages(topic) {
		shard := shardOf[m.Properties[propertySequence]]
		if seen[shard] == nil {
			seen[shard] = map[string]bool{}
		}
		if m.ProducerName == last[shard] {
			continue
		}
		if seen[shard][m.ProducerName] {
			w.t.Fatalf("%s was delivered by %s, then by %s, then by %[2]s again", shard, m.ProducerName, last[shard])
		}
		if last[shard] != "" {
			n++
		}
		last[shard] = m.ProducerName
		seen[shard][m.ProducerName] = true
	}
	return n
}

func TestTwoWorkersInTwoProcesses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 1)
	w.watchOwnership()
	// Both are needed; and nothing may be repeated, so their leases have to survive a busy machine.
	half := map[string]string{"maxLeasesForWorker": "2", "failoverTimeMillis": "6000"}
	first := w.spawn(config{input: half})
	w.eventually("the first has its two", func() bool { return len(w.owners()) == 1 })
	second := w.spawn(config{input: half})
	w.eventually("each has two", func() bool {
		owners := w.owners()
		total := 0
		for _, n := range owners {
			total += n
		}
		return len(owners) == 2 && total == 4
	})
	w.arrived(w.put(2000, 80))
	w.account().balanced().once()

	// One dies: the other may hold two only, so a third takes over.
	w.put(2000, 80)
	first.kill()
	third := w.spawn(config{input: half})
	w.settled()
	a := w.account().balanced()
	t.Logf("%d of %d records more than once, %d shards changed hands", len(a.duplicates), w.total(), w.handovers())
	for _, p := range []*process{second, third} {
		p.stop()
	}
	w.released()
}

func TestTwoStreamsInOneProcessShareAStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 1)
	w.watchOwnership()
	half := config{input: map[string]string{"maxLeasesForWorker": "2"}}
	first, second := w.start(half), w.start(half)
	w.eventually("each has two", func() bool { return len(w.owners()) == 2 })
	w.arrived(w.put(1000, 80))
	w.account().balanced().once()
	// What a stop releases goes to whoever has room, at once and without a repetition.
	w.put(1000, 80)
	first.stop()
	third := w.start(config{})
	w.settled()
	w.account().balanced().once()
	t.Logf("%d shards changed hands", w.handovers())
	second.stop()
	third.stop()
	w.released()
}

// A worker whose process stands still for longer than its lease lives is replaced. When it goes on it must not deliver.
func TestAWorkerThatSleptThroughItsLeaseDeliversNothingNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1) // one shard, so that there is nothing to hand back when the sleeper asks for its share
	w.watchOwnership()
	first := w.spawn(config{steady: true})
	w.arrived(w.put(200, 20))
	w.settled() // or it goes on by sending again what was not confirmed
	first.pause()
	old := w.owners()
	w.put(500, 20)
	second := w.start(config{steady: true})
	w.arrived(700)
	w.eventually("other owners", func() bool { return len(w.owners()) == 1 && fmt.Sprint(w.owners()) != fmt.Sprint(old) })
	first.resume()
	w.eventually("the first notices", func() bool { return first.logs.has("level=warning", "Stopped", "shards") })
	w.arrived(w.put(500, 20))
	w.settled()
	a := w.account().balanced()
	t.Logf("%d of %d records more than once", len(a.duplicates), w.total())
	w.handovers()
	second.stop()
	first.stop()
}

func TestOneApplicationNameForTwoStreamsIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1)
	must(t, w.kinesis.CreateStream("returns", 1))
	p := w.start(config{})
	w.arrived(w.put(10, 5))
	other := config{input: map[string]string{"awsKinesisStreamName": "returns"}}

	same := w.start(other) // in one process
	w.eventually("refused in one process", func() bool {
		return same.logs.has("level=ERROR", "applicationName", "stream/orders")
	})
	same.stop()

	apart := w.spawn(other) // and in another, by what stands in the table
	w.eventually("refused in another process", func() bool {
		code, body := apart.ready()
		return code == 503 && strings.Contains(body, "applicationName") && strings.Contains(body, "stream/orders")
	})
	apart.stop()
	p.stop()
	refused := w.spawn(other)
	w.eventually("refused when the table is free", func() bool {
		code, body := refused.ready()
		return code == 503 && strings.Contains(body, "applicationName")
	})
	refused.stop()
	w.account().balanced().once()
	w.released()
}
