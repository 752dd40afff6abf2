package output

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// BenchmarkWriteBatch compares WriteBatch with the client alone, both with a key and the four default properties, in
// batches of 1,000 of 1 KiB. An operation is one message. What WriteBatch costs beyond the client is the difference.
func BenchmarkWriteBatch(b *testing.B) {
	const size = 1000
	value := make([]byte, 1024)
	keys := make([]string, size)
	for i := range keys {
		keys[i] = fmt.Sprintf("customer-%d", i%100)
	}
	properties := map[string]string{
		"kinesis.arrival.timestamp": "2026-01-01T00:00:00.000Z",
		"kinesis.encryption.type":   "NONE",
		"kinesis.partition.key":     "customer",
		"kinesis.sequence.number":   "49590338271490256608559692538361571095921575989136588898",
	}

	b.Run("output", func(b *testing.B) {
		broker := startBroker(b, pulsartest.Sink(func(*pulsartest.View) {}))
		o := connected(b, broker.URL(), "topic: t\ncompression: none")
		s := newShard()
		// One batch, handed out again and again: making it is the input's work. Of the attempts only the marks count up.
		a := attempt.New("shardId-000000000000", s.fence, size)
		batch := make(service.MessageBatch, size)
		for i := range batch {
			m := service.NewMessageWithContext(a.Context(context.Background()), value)
			m.MetaSetMut("pulsar_key", keys[i])
			m.MetaSetMut(attempt.RecordIDKey, a.ID(i))
			for name, v := range properties {
				m.MetaSetMut(name, v)
			}
			batch[i] = m
		}
		b.ReportAllocs()
		b.ResetTimer()
		for n := 0; n < b.N; n += size {
			if err := o.WriteBatch(b.Context(), batch[:min(size, b.N-n)]); err != nil {
				b.Fatal(err)
			}
		}
	})

	b.Run("client", func(b *testing.B) {
		broker := startBroker(b, pulsartest.Sink(func(*pulsartest.View) {}))
		client, err := pulsar.NewClient(pulsar.ClientOptions{URL: broker.URL(), MetricsRegisterer: prometheus.NewRegistry(), Logger: log.DefaultNopLogger(), MemoryLimitBytes: -1})
		if err != nil {
			b.Fatal(err)
		}
		defer client.Close()
		p, err := client.CreateProducer(pulsar.ProducerOptions{Topic: "t", MaxPendingMessages: clientPending(maxInFlight), SendTimeout: -1})
		if err != nil {
			b.Fatal(err)
		}
		messages := make([]pulsar.ProducerMessage, size)
		for i := range messages {
			messages[i] = pulsar.ProducerMessage{Payload: value, Key: keys[i], Properties: properties}
		}
		b.ReportAllocs()
		b.ResetTimer()
		for n := 0; n < b.N; n += size {
			part := messages[:min(size, b.N-n)]
			var left atomic.Int64
			left.Store(int64(len(part)))
			done := make(chan struct{})
			receive := func(_ pulsar.MessageID, _ *pulsar.ProducerMessage, err error) {
				if err != nil {
					b.Error(err)
				}
				if left.Add(-1) == 0 {
					close(done)
				}
			}
			for i := range part {
				p.SendAsync(context.Background(), &part[i], receive)
			}
			if err := p.FlushWithCtx(context.Background()); err != nil {
				b.Fatal(err)
			}
			<-done
		}
	})
}
