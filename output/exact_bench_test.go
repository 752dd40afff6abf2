//go:build unix

package output

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/redpanda-data/benthos/v4/public/service"
	"golang.org/x/sys/unix"
)

// BenchmarkDeduplication shows what de-duplication costs: batches of 1,000 and single messages, of 1 KiB with the four
// default properties, over four partitions, against a stand-in for the broker that answers at once. The CPU is that of
// the whole process, so with the stand-in, and a real broker's own cost and latency come on top.
func BenchmarkDeduplication(b *testing.B) {
	value := make([]byte, 1024)
	for _, size := range []int{1000, 1} {
		for _, exact := range []bool{false, true} {
			b.Run(fmt.Sprintf("batch=%d/deduplication=%v", size, exact), func(b *testing.B) {
				broker := startBroker(b, pulsartest.Deduplication(), pulsartest.Sink(func(*pulsartest.View) {}))
				if err := broker.CreatePartitionedTopic("t", 4); err != nil {
					b.Fatal(err)
				}
				o := connected(b, broker.URL(), fmt.Sprintf("topic: t\ncompression: none\ndeduplication: %v", exact))
				s := (&counter{}).newRun()
				next := int64(0)
				var waited time.Duration
				before := cpu(b)
				b.ResetTimer()
				for n := 0; n < b.N; n += size {
					a := s.run.Attempt(size, func(i int) attempt.Origin { return attempt.Origin{Ordinal: next + int64(i)} })
					ctx := a.Context(context.Background())
					batch := make(service.MessageBatch, size)
					for i := range batch {
						m := service.NewMessageWithContext(ctx, value)
						m.MetaSetMut("pulsar_key", keyOf(next+int64(i)))
						m.MetaSetMut(attempt.RecordIDKey, a.ID(i))
						m.MetaSetMut("kinesis.arrival.timestamp", "2026-01-01T00:00:00.000Z")
						m.MetaSetMut("kinesis.encryption.type", "NONE")
						m.MetaSetMut("kinesis.partition.key", "customer")
						m.MetaSetMut("kinesis.sequence.number", "49590338271490256608559692538361571095921575989136588898")
						batch[i] = m
					}
					next += int64(size)
					began := time.Now()
					if err := o.WriteBatch(b.Context(), batch); err != nil {
						b.Fatal(err)
					}
					waited += time.Since(began)
					a.Done(false)
				}
				batches := max(1, (b.N+size-1)/size)
				messages := float64(batches * size)
				b.ReportMetric(messages/(cpu(b)-before).Seconds(), "msg/CPU-s")
				b.ReportMetric(float64(waited.Microseconds())/float64(batches), "µs/batch")
			})
		}
	}
}

// cpu is the processor time of this process.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
