package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	pulsarlog "github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

// consumerView is what readers of a topic's partitions have been handed by a real broker, in each partition's order.
type consumerView struct {
	mu       sync.Mutex
	messages []pulsartest.Message // guarded by mu
	seen     map[[3]int64]bool    // guarded by mu; a reader that reconnects may be handed a message again
	readers  sync.WaitGroup
}

func (v *consumerView) all() []pulsartest.Message {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.messages)
}

// consume reads the partitions until the test ends.
func consume(t *testing.T, client pulsar.Client, topic string, partitions int) *consumerView {
	t.Helper()
	v := &consumerView{seen: map[[3]int64]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	for partition := range partitions {
		reader, err := client.CreateReader(pulsar.ReaderOptions{Topic: topic + "-partition-" + strconv.Itoa(partition), StartMessageID: pulsar.EarliestMessageID()})
		must(t, err)
		v.readers.Go(func() {
			defer reader.Close()
			for {
				m, err := reader.Next(ctx)
				if err != nil {
					return
				}
				id := m.ID()
				v.mu.Lock()
				if key := [3]int64{id.LedgerID(), id.EntryID(), int64(id.BatchIdx())}; !v.seen[key] {
					v.seen[key] = true
					v.messages = append(v.messages, pulsartest.Message{
						Partition: partition, Key: m.Key(), HasKey: m.Key() != "", Payload: m.Payload(), Properties: m.Properties(),
					})
				}
				v.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		v.readers.Wait()
	})
	return v
}

// The stories again with Apache Pulsar and DynamoDB Local, one after the other over one stream: drop-in messages, a clean
// stop, kill -9, a broker that crashes in the middle, a lease table that is away for longer than the failover time.
func TestWithTheRealServices(t *testing.T) {
	broker := stack.Pulsar(t)
	db := stack.DynamoDB(t)
	t.Parallel() // not before: their start takes all processors
	const partitions = 4
	w := newWorld(t, 3, 1)
	w.dynamodbURL, w.pulsarURL = db.URL(), broker.ServiceURL()
	must(t, broker.CreatePartitionedTopic(t.Context(), "public/default/"+topic, partitions))
	client, err := pulsar.NewClient(pulsar.ClientOptions{URL: w.pulsarURL, Logger: pulsarlog.DefaultNopLogger(), MetricsRegisterer: prometheus.NewRegistry()})
	must(t, err)
	t.Cleanup(client.Close)
	view := consume(t, client, "persistent://public/default/"+topic, partitions)
	w.messages = view.all
	w.items = func() []map[string]types.AttributeValue {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		out, err := db.Client().Scan(ctx, &dynamodb.ScanInput{TableName: aws.String(table), ConsistentRead: aws.Bool(true)})
		if err != nil {
			return nil // not there yet, or away
		}
		return out.Items
	}

	for name, value := range awkwardValues(t) {
		_, err := w.kinesis.Put(streamName, "value: "+name, value)
		must(t, err)
	}
	for i := range 100 {
		_, err := w.kinesis.PutRecords(streamName, kinesistest.Record{PartitionKey: fmt.Sprint("ключ-", i), Data: fmt.Append(nil, i)})
		must(t, err)
	}
	p := w.start(config{})
	w.arrived(w.total())
	w.account().balanced().once()
	for _, m := range w.messages() {
		if want := int(murmur3(m.Key) % partitions); m.Partition != want {
			t.Errorf("key %q is in partition %d, not %d", m.Key, m.Partition, want)
		}
	}
	p.stop()
	w.released()

	t.Log("a clean stop")
	p = w.start(config{})
	w.arrived(w.put(500, 40))
	p.stop()
	w.released()
	w.account().balanced().once()

	t.Log("kill -9")
	killed := w.spawn(config{quick: true, input: map[string]string{"maxRecords": "200"}})
	w.put(3000, 40)
	w.eventually("some of it", func() bool { return w.delivered() > w.total()-2500 })
	killed.kill()
	stored := w.leases()
	var before *account
	w.eventually("the readers have been handed what there was at the kill", func() bool {
		n := len(w.messages())
		time.Sleep(time.Second)
		before = w.account()
		return len(w.messages()) == n && before.hasUpTo(stored)
	})
	q := w.spawn(config{quick: true, pipeline: wild})
	w.settled()
	w.arrived(w.total())
	a := w.account().balanced().sameUpTo(before, stored)
	t.Logf("%d of %d records more than once", len(a.duplicates), w.total())

	t.Log("the broker crashes")
	w.put(300, 40)
	broker.Kill()
	w.put(300, 40)
	w.eventually("not ready", func() bool { code, _ := q.ready(); return code == 503 })
	must(t, broker.Start(t.Context()))
	w.settled()
	w.arrived(w.total())
	w.account().balanced()

	t.Log("the lease table is away")
	db.Pause() // the data of DynamoDB Local would not survive its end
	w.put(300, 40)
	w.eventually("not ready", func() bool { code, _ := q.ready(); return code == 503 })
	db.Resume()
	w.settled()
	w.arrived(w.total())
	w.eventually("ready", func() bool { code, _ := q.ready(); return code == 200 })
	q.stop()
	a = w.account().balanced()
	t.Logf("%d of %d records more than once", len(a.duplicates), w.total())
	w.released()
}
