package output

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
	"github.com/prometheus/client_golang/prometheus"
)

// What a real broker hands to a consumer: every message in the partition of its key, with its bytes, properties and event time. The
// client's own Murmur3 producer is the witness for the partitions.
func TestRealBroker(t *testing.T) {
	broker := stack.SharedPulsar(t)
	ctx, cancel := context.WithTimeout(t.Context(), busy)
	defer cancel()
	topic := fmt.Sprintf("persistent://public/default/output-%d", time.Now().UnixNano())
	const partitions = 5
	if err := broker.CreatePartitionedTopic(ctx, topic, partitions); err != nil {
		t.Fatal(err)
	}
	var keys, payloads []string
	for i := range 300 {
		keys = append(keys, strings.Repeat("k", i%9+1)+fmt.Sprint(i))
		payloads = append(payloads, fmt.Sprintf("%d \x00\xff", i))
	}
	keys[1], keys[2], keys[3] = "Grüße", "シャード", "\x00\x7f"
	payloads[4] = ""

	o := connected(t, broker.ServiceURL(), "topic: "+topic+"\nevent_time: '${! @when }'")
	batch, a := newShard().batchOf(keys, payloads)
	for i, m := range batch {
		m.MetaSetMut("kinesis.partition.key", keys[i])
		if i%3 > 0 {
			m.MetaSetMut("when", 1700000000000+int64(i))
		}
	}
	if err := o.WriteBatch(ctx, batch); err != nil {
		t.Fatal(err)
	}
	if replay, _ := undelivered(t, a); len(replay) > 0 {
		t.Errorf("%d records are not marked", len(replay))
	}

	client, err := pulsar.NewClient(pulsar.ClientOptions{URL: broker.ServiceURL(), Logger: log.DefaultNopLogger(), MetricsRegisterer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	witness, err := client.CreateProducer(pulsar.ProducerOptions{Topic: topic, HashingScheme: pulsar.Murmur3_32Hash, SendTimeout: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer witness.Close()
	for i := range keys {
		witness.SendAsync(ctx, &pulsar.ProducerMessage{Key: keys[i], Payload: []byte("witness")}, func(_ pulsar.MessageID, _ *pulsar.ProducerMessage, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := witness.FlushWithCtx(ctx); err != nil {
		t.Fatal(err)
	}

	ours, theirs := map[string]int{}, map[string]int{}
	stored, times := map[string]string{}, map[string]time.Time{}
	for p := range partitions {
		name := fmt.Sprintf("%s-partition-%d", topic, p)
		reader, err := client.CreateReader(pulsar.ReaderOptions{Topic: name, StartMessageID: pulsar.EarliestMessageID()})
		if err != nil {
			t.Fatal(err)
		}
		for reader.HasNext() {
			m, err := reader.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Payload()) == "witness" {
				theirs[m.Key()] = p
				continue
			}
			ours[m.Key()], stored[m.Key()], times[m.Key()] = p, string(m.Payload()), m.EventTime()
			if len(m.Properties()) != 1 || m.Properties()["kinesis.partition.key"] != m.Key() {
				t.Errorf("properties of %q: %v", m.Key(), m.Properties())
			}
			if _, ok := m.Properties()[attempt.RecordIDKey]; ok {
				t.Error("the record id has become a property")
			}
		}
		reader.Close()
	}
	for i, key := range keys {
		if p, ok := ours[key]; !ok || p != theirs[key] {
			t.Errorf("key %q is in partition %d, the client puts it into %d", key, p, theirs[key])
		}
		if stored[key] != payloads[i] {
			t.Errorf("payload of %q is %q", key, stored[key])
		}
		var when int64 // 0 is how the client tells that there is none
		if i%3 > 0 {
			when = 1700000000000 + int64(i)
		}
		if got := times[key].UnixMilli(); got != when {
			t.Errorf("event time of %q is %d, want %d", key, got, when)
		}
	}

	// Testing a connection without a topic must leave none behind.
	if r := makeOutput(t, broker.ServiceURL(), "topic: '${! @x }'").ConnectionTest(ctx); r[0].Err != nil {
		t.Error(r[0].Err)
	}
	for _, path := range []string{"", "/partitioned"} {
		topics, err := broker.Admin(ctx, "GET", "/admin/v2/persistent/public/default"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(topics), "connection-test") {
			t.Errorf("the connection test has made a topic: %s", topics)
		}
	}
}

// A real broker, and a consumer of the client: records of up to the size that Kinesis allows arrive whole and in their
// place, whether they compress or not.
func TestRealBrokerTakesChunks(t *testing.T) {
	broker := stack.SharedPulsar(t)
	ctx, cancel := context.WithTimeout(t.Context(), busy)
	defer cancel()
	topic := fmt.Sprintf("persistent://public/default/chunks-%d", time.Now().UnixNano())
	client, err := pulsar.NewClient(pulsar.ClientOptions{URL: broker.ServiceURL(), Logger: log.DefaultNopLogger(), MetricsRegisterer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	consumer, err := client.Subscribe(pulsar.ConsumerOptions{Topic: topic, SubscriptionName: "s", SubscriptionInitialPosition: pulsar.SubscriptionPositionEarliest})
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	const limit = pulsartest.DefaultMaxMessageSize
	payloads := []string{
		"first", incompressible(limit - 300), "second", incompressible(limit), incompressible(10 << 20),
		"third", strings.Repeat("compressible ", 10<<20/13), "last",
	}
	for _, compression := range []string{"lz4", "none"} {
		o := connected(t, broker.ServiceURL(), "topic: "+topic+"\ncompression: "+compression)
		if limit := o.session.Load().health.maxMessageSize(); limit != pulsartest.DefaultMaxMessageSize {
			t.Errorf("the broker's limit is taken for %d", limit)
		}
		batch, a := newShard().batchOf(repeat("k", len(payloads)), payloads)
		for _, m := range batch {
			m.MetaSetMut("kinesis.partition.key", "k")
		}
		if err := o.WriteBatch(ctx, batch); err != nil {
			t.Fatal(err)
		}
		if replay, _ := undelivered(t, a); len(replay) > 0 {
			t.Errorf("records %v are not marked", replay)
		}
		for i, want := range payloads {
			m, err := consumer.Receive(ctx)
			if err != nil {
				t.Fatalf("%s, message %d: %v", compression, i, err)
			}
			if got := string(m.Payload()); got != want || m.Key() != "k" || m.Properties()["kinesis.partition.key"] != "k" {
				t.Errorf("%s: message %d has %d bytes, want %d", compression, i, len(got), len(want))
			}
			if err := consumer.Ack(m); err != nil {
				t.Error(err)
			}
		}
	}
}
