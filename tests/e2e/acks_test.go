package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// wild is an engine that does all it can to reorder: many threads, many slots.
const wild = "threads: -1\n"

// upset makes the broker fail batches until the returned function is called: connections drop with messages stored or
// not, and producers are then refused, so that what was on its way fails instead of being sent again by the client.
func (w *world) upset(every time.Duration) (calm func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				w.broker.ClearFaults()
				return
			case <-ticker.C:
			}
			switch i % 3 {
			case 0:
				w.broker.RefuseProducers(topic, 1, pulsartest.ProducerBlockedQuotaExceededException, "the backlog is full")
				w.broker.DropBeforeStore(topic, 1)
			case 1:
				w.broker.RefuseProducers(topic, 1, pulsartest.ProducerBlockedQuotaExceededException, "the backlog is full")
				w.broker.DropAfterStore(topic, 1)
			case 2:
				w.broker.CloseProducers(topic)
			}
		}
	})
	calm = sync.OnceFunc(func() { close(stop); wg.Wait() })
	w.t.Cleanup(calm)
	return calm
}

// feed puts records bit by bit, so that there are many batches.
func (w *world) feed(rounds, each, keys int) {
	for range rounds {
		w.put(each, keys)
		time.Sleep(50 * time.Millisecond)
	}
}

func TestFailedBatchesAreReplayedInOrderAndNothingIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 4)
	p := w.start(config{pipeline: wild, pulsar: map[string]string{"max_in_flight": "64", "producer_batching": "{ max_messages: 7 }"}})
	w.arrived(w.put(100, 40)) // a slow start is not the story
	calm := w.upset(80 * time.Millisecond)
	w.feed(60, 100, 40)
	w.eventually("a batch fails", func() bool {
		if p.logs.has("are handed out again") {
			return true
		}
		w.put(20, 40)
		return false
	})
	calm()
	w.settled()
	a := w.account().balanced()
	t.Logf("%d of %d records more than once", len(a.duplicates), w.total())
	p.stop()
	w.released()
}

// The outputs that Benthos can put around ours ack early, late, twice, or send again themselves.
func TestFailedBatchesBehindBrokersOfBenthos(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		output string
		// mayDrop says that the configuration itself asks for records to be given up.
		mayDrop bool
	}{
		"fan_out":                      {output: "broker:\n  pattern: fan_out\n  outputs:\n    - PULSAR\n    - flaky: { every: 3 }"},
		"fan_out_fail_fast":            {output: "broker:\n  pattern: fan_out_fail_fast\n  outputs:\n    - PULSAR\n    - flaky: { every: 3 }"},
		"fan_out_fail_fast, both fail": {output: "broker:\n  pattern: fan_out_fail_fast\n  outputs:\n    - PULSAR\n    - flaky: { every: 2 }\n    - flaky: { every: 3 }"},
		"fan_out_sequential":           {output: "broker:\n  pattern: fan_out_sequential\n  outputs:\n    - flaky: { every: 3 }\n    - PULSAR"},
		"fan_out_sequential_fail_fast": {output: "broker:\n  pattern: fan_out_sequential_fail_fast\n  outputs:\n    - flaky: { every: 3 }\n    - PULSAR"},
		"retry":                        {output: "retry:\n  max_retries: 0\n  backoff: { initial_interval: 10ms, max_interval: 50ms }\n  output:\n    PULSAR"},
		"retry, a few times":           {output: "retry:\n  max_retries: 2\n  backoff: { initial_interval: 10ms, max_interval: 50ms }\n  output:\n    PULSAR"},
		"fallback":                     {output: "fallback:\n  - flaky: { every: 2 }\n  - PULSAR\n", mayDrop: true},
		"fallback to a dead letter":    {output: "fallback:\n  - PULSAR\n  - flaky: { every: 0 }\n", mayDrop: true},
		"fallback that fails too":      {output: "fallback:\n  - PULSAR\n  - flaky: { every: 1 }\n"},
		"drop_on error":                {output: "drop_on:\n  error: true\n  output:\n    PULSAR", mayDrop: true},
		"drop_on back pressure":        {output: "drop_on:\n  error: false\n  back_pressure: 10s\n  output:\n    PULSAR", mayDrop: true},
		"switch":                       {output: "switch:\n  retry_until_success: false\n  cases:\n    - check: '@pulsar_key.hash(\"xxhash64\").number() % 3 == 0'\n      output:\n        PULSAR\n    - output:\n        PULSAR"},
		"switch that tries on":         {output: "switch:\n  retry_until_success: true\n  cases:\n    - check: '@pulsar_key.hash(\"xxhash64\").number() % 2 == 0'\n      output:\n        PULSAR\n    - output:\n        PULSAR"},
		"round_robin":                  {output: "broker:\n  pattern: round_robin\n  outputs:\n    - PULSAR\n    - PULSAR"},
		"greedy":                       {output: "broker:\n  pattern: greedy\n  outputs:\n    - PULSAR\n    - PULSAR"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 3, 3)
			p := w.start(config{pipeline: wild, output: tc.output, pulsar: map[string]string{"max_in_flight": "64", "producer_batching": "{ max_messages: 7 }"}})
			calm := w.upset(80 * time.Millisecond)
			w.feed(30, 60, 20)
			calm()
			if tc.mayDrop {
				w.settled()
				a := w.account()
				a.lost = nil
				a.disorder = a.disorder[:0:0] // what was given up may have been stored earlier
				a.balanced()
			} else {
				w.settled()
				a := w.account().balanced()
				t.Logf("%d of 1800 records more than once", len(a.duplicates))
			}
			p.stop()
			w.released()
		})
	}
}

// Processors that drop, split, group and fail records leave the engine's own errors pointing at the wrong ones.
func TestFailedBatchesBehindProcessors(t *testing.T) {
	t.Parallel()
	const keep = `content().string().re_find_all_submatch("record ([0-9]+)").0.1.number()`
	for name, tc := range map[string]struct {
		pipeline string
		inFlight string
		want     func(number int) bool // nil: all
	}{
		"filter":         {"processors:\n  - mapping: root = if " + keep + " % 5 == 2 { deleted() }\n", "64", func(n int) bool { return n%5 != 2 }},
		"filter all":     {"processors:\n  - mapping: root = if " + keep + " < 50 { deleted() }\n", "64", func(n int) bool { return n >= 50 }},
		"split":          {"processors:\n  - split: { size: 3 }\n", "1", nil},
		"group_by_value": {"processors:\n  - group_by_value: { value: '${! @pulsar_key }' }\n", "64", nil},
		"for_each":       {"processors:\n  - for_each:\n    - mapping: root = if " + keep + " % 5 == 2 { deleted() }\n    - mapping: root = content()\n", "64", func(n int) bool { return n%5 != 2 }},
		"try": {"processors:\n  - try:\n    - mapping: root = if " + keep + " % 7 == 3 { throw(\"no\") }\n    - mapping: root = if " + keep + " % 5 == 2 { deleted() }\n", "64",
			func(n int) bool { return n%5 != 2 || n%7 == 3 }},
		"parallel": {"processors:\n  - parallel:\n      cap: 8\n      processors:\n      - mapping: root = content()\n", "64", nil},
		"filter and split": {"processors:\n  - mapping: root = if " + keep + " % 5 == 2 { deleted() }\n  - split: { size: 4 }\n", "1",
			func(n int) bool { return n%5 != 2 }},
		"dedupe of what is replayed would lose it, so branch": {"processors:\n  - branch:\n      request_map: root = content()\n      processors: [ { mapping: 'root = content()' } ]\n      result_map: meta seen = \"yes\"\n", "64", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 3, 3)
			p := w.start(config{pipeline: wild + tc.pipeline, pulsar: map[string]string{"max_in_flight": tc.inFlight, "producer_batching": "{ max_messages: 7 }"}})
			calm := w.upset(80 * time.Millisecond)
			w.feed(30, 60, 20)
			calm()
			want := map[recordName]bool{}
			for _, list := range w.kinesis.Records(streamName) {
				for _, r := range list {
					var key string
					var n int
					_, err := fmt.Sscanf(string(r.Data), "%s record %d", &key, &n)
					must(t, err)
					if tc.want == nil || tc.want(n) {
						want[nameOf(r)] = true
					}
				}
			}
			w.settled()
			p.stop()
			a := w.accountOf(func(_ string, r record) bool { return want[nameOf(r)] }, w.broker.Messages(topic)).balanced()
			if len(a.copies) != len(want) {
				t.Fatalf("%d records arrived, want %d", len(a.copies), len(want))
			}
			t.Logf("%d of %d records more than once", len(a.duplicates), len(want))
			w.released()
		})
	}
}

// A record that Pulsar refuses for ever stops its shard, and that alone; with a fallback it goes there, and nothing else.
func TestAPoisonRecordStopsItsShardAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2, pulsartest.MaxMessageSize(50_000))
	whole := map[string]string{"chunking": `"off"`} // else it would go in pieces
	p := w.start(config{pulsar: whole})
	w.put(100, 20)
	w.arrived(100)
	poison, err := w.kinesis.Put(streamName, "key-1", make([]byte, 60_000))
	must(t, err)
	w.put(400, 20)
	w.eventually("the other shard goes on, and an operator is told", func() bool {
		leases := w.leases()
		for shard, last := range w.lastRecords() {
			if shard != poison[0].ShardID && leases[shard]["checkpoint"] != last {
				return false
			}
		}
		return p.logs.has("level=WARN", "blocked by a record", poison[0].SequenceNumber)
	})
	a := w.account()
	a.lost = nil
	a.balanced()
	p.stop()
	for shard, l := range w.leases() {
		if list := w.kinesis.Records(streamName)[shard]; shard == poison[0].ShardID && l["checkpoint"] >= poison[0].SequenceNumber {
			t.Errorf("the checkpoint %s has passed the refused record", l["checkpoint"])
		} else if shard != poison[0].ShardID && l["checkpoint"] != list[len(list)-1].SequenceNumber {
			t.Errorf("the other shard stands at %s", l["checkpoint"])
		}
	}

	w.start(config{pulsar: whole, output: "fallback:\n  - PULSAR\n  - flaky: { every: 0 }"})
	w.arrived(500)
	a = w.account()
	if len(a.lost) != 1 || a.lost[0] != nameOf(poison[0]) {
		t.Fatalf("the fallback got more than the poison: %v", a.lost)
	}
	a.lost = nil
	a.balanced()
}

// Acks come in any order over the shards: one shard's never holds up another's checkpoint.
func TestAStalledPartitionHoldsUpItsShardsOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 4)
	p := w.start(config{input: map[string]string{"messageKeyMode": "SHARD_ID", "kinesisRecordProperties": propertyKey + "," + propertySequence}})
	w.put(200, 40)
	w.eventually("200 messages", func() bool { return w.delivered() == 200 })
	stalled := int(murmur3("shardId-000000000001") % 4)
	release := w.broker.StallReceipts(fmt.Sprintf("%s-partition-%d", topic, stalled))
	defer release()
	w.put(400, 40)
	w.eventually("the other shards are delivered and checkpointed", func() bool {
		leases := w.leases()
		for shard, list := range w.kinesis.Records(streamName) {
			if int(murmur3(shard)%4) != stalled && leases[shard]["checkpoint"] != list[len(list)-1].SequenceNumber {
				return false
			}
		}
		return true
	})
	w.throughout(4*time.Second, "leases live on beside a blocked partition", func() bool { return w.owners() != nil && len(w.owners()) == 1 })
	if took := p.stop(); took > 2*stopWithin {
		t.Errorf("the stop took %s", took)
	}
	for shard, l := range w.leases() {
		list := w.kinesis.Records(streamName)[shard]
		if at := l["checkpoint"]; (int(murmur3(shard)%4) == stalled) == (at == list[len(list)-1].SequenceNumber) {
			t.Errorf("lease %s is at %s", shard, at)
		}
		if l["leaseOwner"] != "" {
			t.Errorf("lease %s is still owned", shard)
		}
	}
	release()
}
