package pulsartest_test

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// sendAll sends payloads "0" … "n-1" with SendAsync, flushes, and returns the result of each in order.
func sendAll(t *testing.T, p pulsar.Producer, from, to int) *results {
	t.Helper()
	r := newResults(to - from)
	for i := from; i < to; i++ {
		p.SendAsync(context.Background(), &pulsar.ProducerMessage{Payload: []byte(strconv.Itoa(i))}, r.callback(i-from))
	}
	return r
}

// results collects the callbacks of a run of SendAsync.
type results struct {
	all chan struct{}
	mu  struct {
		sync.Mutex
		left int
		ids  []pulsar.MessageID
		errs []error
	}
}

func newResults(n int) *results {
	r := &results{all: make(chan struct{})}
	r.mu.left, r.mu.ids, r.mu.errs = n, make([]pulsar.MessageID, n), make([]error, n)
	return r
}

func (r *results) callback(i int) func(pulsar.MessageID, *pulsar.ProducerMessage, error) {
	return func(id pulsar.MessageID, _ *pulsar.ProducerMessage, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.mu.ids[i], r.mu.errs[i] = id, err
		if r.mu.left--; r.mu.left == 0 {
			close(r.all)
		}
	}
}

// wait returns the ids when every callback came without an error.
func (r *results) wait(t *testing.T) []pulsar.MessageID {
	t.Helper()
	ids, errs := r.outcome(t)
	for i, err := range errs {
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	return ids
}

func (r *results) outcome(t *testing.T) ([]pulsar.MessageID, []error) {
	t.Helper()
	select {
	case <-r.all:
	case <-testContext(t).Done():
		t.Fatalf("%d callbacks did not come", r.pending())
	}
	return r.mu.ids, r.mu.errs
}

func (r *results) pending() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.left
}

// payloads are the payloads of messages as strings.
func payloads(messages []pulsartest.Message) []string {
	out := make([]string, len(messages))
	for i, m := range messages {
		out[i] = string(m.Payload)
	}
	return out
}

func numbers(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, strconv.Itoa(i))
	}
	return out
}

func noProblems(t *testing.T, b *pulsartest.Broker) {
	t.Helper()
	for _, err := range b.Problems() {
		t.Errorf("the broker complains: %v", err)
	}
}

// allBytes is every byte value once: what any text handling on the way would damage.
var allBytes = func() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}()

func TestEveryFieldArrivesWhateverTheBatchingAndCompression(t *testing.T) {
	eventTime := time.UnixMilli(1700000000123)
	messages := []*pulsar.ProducerMessage{
		{Payload: allBytes, Key: "key ☃ \x00", Properties: map[string]string{"a": "1", "": "", "ü": "\xff"}, EventTime: eventTime},
		{Payload: []byte{}},
		{Payload: nil},
		{Payload: bytes.Repeat([]byte("compressible "), 5000), OrderingKey: "order", Key: "k"},
		{Payload: []byte{0x1f, 0x8b, 8, 0}, Properties: map[string]string{"only": "property"}},
	}
	b := newBroker(t)
	client := newClient(t, b.URL())
	for compression, name := range map[pulsar.CompressionType]string{
		pulsar.NoCompression: "NONE", pulsar.LZ4: "LZ4", pulsar.ZLib: "ZLIB", pulsar.ZSTD: "ZSTD", pulsar.SNAPPY: "SNAPPY",
	} {
		for _, batching := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/batching=%t", name, batching), func(t *testing.T) {
				topic := fmt.Sprintf("%s-%t", name, batching)
				p := newProducer(t, client, pulsar.ProducerOptions{
					Topic: topic, CompressionType: compression, DisableBatching: !batching,
					BatchingMaxPublishDelay: time.Hour,
				})
				r := newResults(len(messages))
				for i, m := range messages {
					p.SendAsync(context.Background(), m, r.callback(i))
				}
				if err := p.FlushWithCtx(testContext(t)); err != nil {
					t.Fatal(err)
				}
				ids := r.wait(t)

				got := b.Messages(topic)
				if len(got) != len(messages) {
					t.Fatalf("%d messages stored, %d sent", len(got), len(messages))
				}
				for i, m := range messages {
					g := got[i]
					if !bytes.Equal(g.Payload, m.Payload) || g.Null != (m.Payload == nil) {
						t.Errorf("message %d: payload %.40q, null %t", i, g.Payload, g.Null)
					}
					if g.Key != m.Key || g.HasKey != (m.Key != "") || string(g.OrderingKey) != m.OrderingKey {
						t.Errorf("message %d: key %q (present: %t), ordering key %q", i, g.Key, g.HasKey, g.OrderingKey)
					}
					if fmt.Sprint(g.Properties) != fmt.Sprint(m.Properties) {
						t.Errorf("message %d: properties %q instead of %q", i, g.Properties, m.Properties)
					}
					if !g.EventTime.Equal(m.EventTime) {
						t.Errorf("message %d: event time %v instead of %v", i, g.EventTime, m.EventTime)
					}
					if g.ProducerName != p.Name() || g.SequenceID != uint64(i) || g.Compression.String() != name {
						t.Errorf("message %d: producer %q, sequence id %d, %s", i, g.ProducerName, g.SequenceID, g.Compression)
					}
					if g.LedgerID != ids[i].LedgerID() || g.EntryID != ids[i].EntryID() {
						t.Errorf("message %d: stored as %d:%d, confirmed as %v", i, g.LedgerID, g.EntryID, ids[i])
					}
					wantIndex, wantSize := -1, 0
					if batching {
						wantIndex, wantSize = i, len(messages)
					}
					if g.BatchIndex != wantIndex || g.BatchSize != wantSize {
						t.Errorf("message %d: index %d of a batch of %d", i, g.BatchIndex, g.BatchSize)
					}
				}

				entries, c := b.Entries(topic), b.Counters(topic)
				wantFrames, wantBatches := len(messages), 0
				if batching {
					wantFrames, wantBatches = 1, 1
				}
				if len(entries) != wantFrames || c.Frames != wantFrames || c.Batches != wantBatches || c.Messages != len(messages) {
					t.Errorf("%d entries, %+v", len(entries), c)
				}
			})
		}
	}
	noProblems(t, b)
}

func TestAPartitionedTopicKeepsItsPartitionsApart(t *testing.T) {
	b := newBroker(t)
	if err := b.CreatePartitionedTopic("public/default/p", 3); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, b.URL())
	p := newProducer(t, client, pulsar.ProducerOptions{
		Topic: "persistent://public/default/p",
		MessageRouter: func(m *pulsar.ProducerMessage, topic pulsar.TopicMetadata) int {
			n, _ := strconv.Atoi(string(m.Payload))
			return n % int(topic.NumPartitions())
		},
	})
	sendAll(t, p, 0, 300).wait(t)
	for partition := range 3 {
		got := b.Messages(fmt.Sprintf("p-partition-%d", partition))
		if len(got) != 100 {
			t.Fatalf("partition %d holds %d messages", partition, len(got))
		}
		for i, m := range got {
			if want := strconv.Itoa(3*i + partition); string(m.Payload) != want || m.Partition != partition {
				t.Fatalf("partition %d, message %d: %q, partition %d", partition, i, m.Payload, m.Partition)
			}
		}
	}
	if n := len(b.Messages("p")); n != 300 {
		t.Errorf("the topic holds %d messages", n)
	}
	if n := len(b.Producers("p")); n != 3 {
		t.Errorf("%d producers are connected, one per partition is 3", n)
	}
	if got := b.Topics(); len(got) != 1 || got[0] != "persistent://public/default/p" {
		t.Errorf("topics: %q", got)
	}
	noProblems(t, b)
}

func TestPartitionsThatAreAddedAreFound(t *testing.T) {
	b := newBroker(t)
	if err := b.CreatePartitionedTopic("p", 1); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, b.URL())
	for _, n := range []int{1, 4} {
		partitions, err := client.TopicPartitions("p")
		if err != nil || len(partitions) != n {
			t.Fatalf("%d partitions expected: %v, %v", n, partitions, err)
		}
		if n == 1 {
			if err := b.GrowPartitions("p", 4); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := newProducer(t, client, pulsar.ProducerOptions{Topic: "p-partition-3"})
	sendAll(t, p, 0, 1).wait(t)
	if got := b.Messages("p"); len(got) != 1 || got[0].Partition != 3 {
		t.Errorf("%+v", got)
	}
}

func TestASinkSeesEveryMessageAndNothingIsKept(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	b := newBroker(t, pulsartest.Sink(func(v *pulsartest.View) {
		mu.Lock()
		defer mu.Unlock()
		line := fmt.Sprintf("%s %s %d/%d", v.Key, v.Payload, v.BatchIndex, v.BatchSize)
		for key, value := range v.Properties() {
			line += fmt.Sprintf(" %s=%s", key, value)
		}
		seen = append(seen, line)
	}))
	client := newClient(t, b.URL())
	p := newProducer(t, client, pulsar.ProducerOptions{Topic: "s", CompressionType: pulsar.LZ4, BatchingMaxPublishDelay: time.Hour})
	r := newResults(2)
	p.SendAsync(context.Background(), &pulsar.ProducerMessage{Payload: []byte("one"), Key: "k", Properties: map[string]string{"a": "b"}}, r.callback(0))
	p.SendAsync(context.Background(), &pulsar.ProducerMessage{Payload: []byte("two")}, r.callback(1))
	if err := p.FlushWithCtx(testContext(t)); err != nil {
		t.Fatal(err)
	}
	r.wait(t)
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(seen) != "[k one 0/2 a=b  two 1/2]" {
		t.Errorf("the sink saw %q", seen)
	}
	if len(b.Messages("s")) != 0 || len(b.Entries("s")) != 0 {
		t.Error("messages were kept")
	}
	if c := b.Counters("s"); c.Messages != 2 || c.Bytes != 6 || c.Frames != 1 {
		t.Errorf("%+v", c)
	}
}

func TestChunksBecomeOneMessage(t *testing.T) {
	b := newBroker(t, pulsartest.MaxMessageSize(64<<10))
	client := newClient(t, b.URL())
	for _, compression := range []pulsar.CompressionType{pulsar.NoCompression, pulsar.LZ4} {
		topic := fmt.Sprintf("chunks-%d", compression)
		p := newProducer(t, client, pulsar.ProducerOptions{
			Topic: topic, DisableBatching: true, EnableChunking: true, CompressionType: compression, ChunkMaxMessageSize: 500,
		})
		payload := bytes.Repeat(allBytes, 1000)
		if _, err := p.Send(testContext(t), &pulsar.ProducerMessage{Payload: payload, Key: "k"}); err != nil {
			t.Fatal(err)
		}
		got := b.Messages(topic)
		if len(got) != 1 || !bytes.Equal(got[0].Payload, payload) || got[0].Key != "k" {
			t.Fatalf("%d messages", len(got))
		}
		if n := len(b.Entries(topic)); n < 2 {
			t.Errorf("%d entries: it was not chunked", n)
		}
	}
	noProblems(t, b)
}
