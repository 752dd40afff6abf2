package output

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// deliver writes the records of a shard as the input and the engine do between them: what is not proven delivered is
// replayed before anything new, and a lost connection is looked after with Connect. It returns what it saw.
func deliver(t *testing.T, o *output, keys, payloads []string) (replays int) {
	t.Helper()
	s := newShard()
	deadline := time.Now().Add(busy)
	for len(keys) > 0 {
		batch, a := s.batchOf(keys, payloads)
		err := o.WriteBatch(t.Context(), batch)
		for errors.Is(err, service.ErrNotConnected) {
			if err := o.Connect(t.Context()); err == nil || time.Now().After(deadline) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err == nil {
			return replays
		}
		if time.Now().After(deadline) {
			t.Fatalf("still failing: %v", err)
		}
		replays++
		replay, _ := undelivered(t, a)
		var nextKeys, nextPayloads []string
		for _, i := range replay {
			nextKeys, nextPayloads = append(nextKeys, keys[i]), append(nextPayloads, payloads[i])
		}
		keys, payloads = nextKeys, nextPayloads
		time.Sleep(10 * time.Millisecond) // the input's backoff
	}
	return replays
}

// checkDelivery holds what is promised over failures: every record is there, and per key the last copies are in order.
func checkDelivery(t *testing.T, messages []pulsartest.Message, n int) {
	t.Helper()
	last := map[string]int{}
	for place, m := range messages {
		last[m.Key+"/"+string(m.Payload)] = place
	}
	if len(last) != n {
		t.Errorf("%d of %d records are there", len(last), n)
	}
	type record struct{ number, place int }
	byKey := map[string][]record{}
	for id, place := range last {
		m := messages[place]
		number, err := strconv.Atoi(string(m.Payload))
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		byKey[m.Key] = append(byKey[m.Key], record{number, place})
	}
	for key, records := range byKey {
		slices.SortFunc(records, func(a, b record) int { return a.number - b.number })
		for i := 1; i < len(records); i++ {
			if records[i].place < records[i-1].place && messages[records[i].place].Partition == messages[records[i-1].place].Partition {
				t.Errorf("key %s: record %d is behind %d", key, records[i-1].number, records[i].number)
			}
		}
	}
	t.Logf("%d messages for %d records", len(messages), n)
}

// skipClientRace skips stories in which the broker ends a producer for good: the client then closes its channels while
// others may be sending to them. The output survives that (it recovers from the panic), the race detector does not.
func skipClientRace(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("pulsar-client-go v0.21.0 races with itself here; runs without the race detector")
	}
}

// story runs shards beside each other while something happens to the broker.
func story(t *testing.T, b *pulsartest.Broker, o *output, topic string, event func()) {
	t.Helper()
	const shards, batches, size = 4, 40, 50
	var wg sync.WaitGroup
	half := make(chan struct{}, shards)
	for shard := range shards {
		wg.Go(func() {
			for n := range batches {
				keys, payloads := make([]string, size), make([]string, size)
				for i := range keys {
					keys[i] = fmt.Sprintf("%d-%d", shard, i%7)
					payloads[i] = strconv.Itoa(n*size + i)
				}
				deliver(t, o, keys, payloads)
				if n == batches/4 {
					half <- struct{}{}
				}
			}
		})
	}
	<-half
	event()
	wg.Wait()
	checkDelivery(t, b.Messages(topic), shards*batches*size)
}

func TestNothingIsLost(t *testing.T) {
	for name, event := range map[string]func(t *testing.T, b *pulsartest.Broker){
		"broker restarted": func(t *testing.T, b *pulsartest.Broker) {
			b.Stop()
			time.Sleep(200 * time.Millisecond)
			if err := b.Restart(); err != nil {
				t.Error(err)
			}
		},
		"connections dropped":         func(_ *testing.T, b *pulsartest.Broker) { b.DropConnections() },
		"stored, but no receipt":      func(_ *testing.T, b *pulsartest.Broker) { b.DropAfterStore("t", 3) },
		"dropped before it is stored": func(_ *testing.T, b *pulsartest.Broker) { b.DropBeforeStore("t", 3) },
		"topic unloaded":              func(_ *testing.T, b *pulsartest.Broker) { b.CloseProducers("t") },
		"write refused": func(_ *testing.T, b *pulsartest.Broker) {
			b.FailSends("t", 2, pulsartest.PersistenceError, "no bookies")
		},
		"checksum refused": func(_ *testing.T, b *pulsartest.Broker) { b.CorruptSends("t", 2) },
		"partitions added": func(t *testing.T, b *pulsartest.Broker) {
			if err := b.GrowPartitions("t", 5); err != nil {
				t.Error(err)
			}
		},
		// The client fails what is on its way, and goes on with what is not.
		"quota exceeded": func(_ *testing.T, b *pulsartest.Broker) {
			b.RefuseProducers("t", 3, pulsartest.ProducerBlockedQuotaExceededException, "the backlog is full")
			b.DropConnections()
		},
		"producers fenced": func(_ *testing.T, b *pulsartest.Broker) {
			b.RefuseProducers("t", 2, pulsartest.ProducerFenced, "fenced")
			b.DropConnections()
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "producers fenced" {
				skipClientRace(t)
			}
			t.Parallel()
			b := startBroker(t, pulsartest.ReceiptDelay(2*time.Millisecond))
			if err := b.CreatePartitionedTopic("t", 3); err != nil {
				t.Fatal(err)
			}
			o := connected(t, b.URL(), "topic: t")
			story(t, b, o, "t", func() { event(t, b) })
		})
	}
}

// A terminated topic ends the producer for good: the client forgets what it has not sent.
func TestTerminatedTopic(t *testing.T) {
	skipClientRace(t)
	t.Parallel()
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t")
	release := b.StallReceipts("t")
	defer release()
	s := newShard()
	batch, a := s.batch(repeat("k", 100)...)
	done := result(o, t.Context(), batch)
	ctx, cancel := context.WithTimeout(t.Context(), busy)
	defer cancel()
	if _, err := b.WaitForMessages(ctx, "t", 100); err != nil {
		t.Fatal(err)
	}
	if err := b.TerminateTopic("t"); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-done; err == nil {
		if replay, _ := undelivered(t, a); len(replay) > 0 {
			t.Errorf("replay %v of a batch that succeeded", replay)
		}
	} else if errors.Is(err, service.ErrNotConnected) {
		t.Error("ErrNotConnected after records were sent")
	}
	eventually(t, func() error {
		batch, _ := s.batch("k")
		if err := o.WriteBatch(t.Context(), batch); !errors.Is(err, service.ErrNotConnected) {
			return fmt.Errorf("write to a terminated topic: %v", err)
		}
		return nil
	})
	if err := o.Connect(t.Context()); err == nil {
		t.Error("connected to a terminated topic")
	}
}

// When the broker is away for longer the next write says so, and Connect tells the cause until it is back.
func TestLostConnectionShows(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t")
	b.Stop()
	s := o.session.Load()
	eventually(t, func() error {
		if _, cause := s.health.failure(); cause == nil {
			return errors.New("the client has not noticed")
		}
		return nil
	})
	since, _ := s.health.failure()
	if cause := s.down(since.Add(downAfter / 2)); cause != nil {
		t.Errorf("down too early: %v", cause)
	}
	if cause := s.down(since.Add(downAfter)); cause == nil {
		t.Error("not down")
	}
	s.received(since.Add(time.Second))
	if cause := s.down(since.Add(downAfter)); cause != nil {
		t.Errorf("down, although another broker confirms: %v", cause)
	}
	connectFails(t, o, "connection refused")
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return o.Connect(t.Context()) })
	eventually(t, func() error { return s.down(time.Now().Add(time.Hour)) })
}

// The partition of every shard in SHARD_ID mode is its own: one that is stuck stops itself only.
func TestStuckPartitionStopsOnlyItself(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	if err := b.CreatePartitionedTopic("t", 2); err != nil {
		t.Fatal(err)
	}
	o := connected(t, b.URL(), "topic: t")
	keys := map[int]string{}
	for i := 0; len(keys) < 2; i++ {
		key := fmt.Sprintf("shardId-%012d", i)
		keys[hashMurmur3.partitionOf(key, 2)] = key
	}
	release := b.StallReceipts("t-partition-0")
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stuck []<-chan error
	for range 6 { // more than the partition has room for
		batch, _ := newShard().batch(repeat(keys[0], 2000)...)
		stuck = append(stuck, result(o, ctx, batch))
	}
	for range 20 {
		batch, _ := newShard().batch(repeat(keys[1], 100)...)
		if err := o.WriteBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	release()
	for _, done := range stuck {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Partitions that are added come into use at the next look at the topic, of which every Connect is one.
func TestAddedPartitionsComeIntoUse(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	if err := b.CreatePartitionedTopic("t", 1); err != nil {
		t.Fatal(err)
	}
	o := connected(t, b.URL(), "topic: t")
	s := newShard()
	for range 2 {
		keys := make([]string, 50)
		for i := range keys {
			keys[i] = fmt.Sprint("key-", i)
		}
		batch, _ := s.batch(keys...)
		if err := o.WriteBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if b.Partitions("t") == 1 {
			if err := b.GrowPartitions("t", 3); err != nil {
				t.Fatal(err)
			}
			if err := o.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for p := range 3 {
		if len(b.Messages(fmt.Sprintf("t-partition-%d", p))) == 0 {
			t.Errorf("partition %d is empty", p)
		}
	}
}

// The whole output inside a Benthos stream: registration, config, batches, shutdown.
func TestInAStream(t *testing.T) {
	b := startBroker(t)
	if err := Register(service.NewEmptyEnvironment()); err != nil {
		t.Errorf("registering in another environment: %v", err)
	}
	builder := service.NewStreamBuilder()
	if err := builder.SetYAML(fmt.Sprintf(`
http:
  enabled: false
logger:
  level: NONE
output:
  pulsar:
    url: %s
    topic: t
    key: '${! json("id") }'
`, b.URL())); err != nil {
		t.Fatal(err)
	}
	send, err := builder.AddBatchProducerFunc()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := builder.Build()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(context.Background()) }()
	if err := send(t.Context(), service.MessageBatch{service.NewMessage([]byte(`{"id":"a"}`)), service.NewMessage([]byte(`{"id":"b"}`))}); err != nil {
		t.Fatal(err)
	}
	if err := stream.StopWithin(time.Minute); err != nil {
		t.Error(err)
	}
	<-ended
	if m := b.Messages("t"); len(m) != 2 || m[1].Key != "b" {
		t.Errorf("%v", m)
	}
	waitFor(t, func() bool { return len(b.Producers("t")) == 0 }) // the time of closing is bounded
}

// A broker that goes away while batches wait for their receipts: nothing else is written then that could notice, and the
// output looked well for as long as the outage lasted.
func TestAnOutageWithEverythingInFlightShows(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t")
	release := b.StallReceipts("t")
	batch, _ := newShard().batch("a", "b", "c")
	stuck := result(o, t.Context(), batch)
	if _, err := b.WaitForMessages(t.Context(), "t", 3); err != nil {
		t.Fatal(err)
	}
	b.Stop()
	release()
	select {
	case err := <-stuck:
		if err == nil || errors.Is(err, service.ErrNotConnected) || !strings.Contains(err.Error(), "connection refused") {
			t.Fatalf("got %v", err)
		}
	case <-time.After(busy):
		t.Fatal("the batch waits for ever")
	}
	again, _ := newShard().batch("a", "b", "c")
	if err := o.WriteBatch(t.Context(), again); !errors.Is(err, service.ErrNotConnected) {
		t.Fatalf("the next batch: %v", err)
	}
	connectFails(t, o, "connection refused")
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return o.Connect(t.Context()) })
	if err := o.WriteBatch(t.Context(), again); err != nil {
		t.Fatal(err)
	}
}
