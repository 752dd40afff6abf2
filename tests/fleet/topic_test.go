package fleet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	pulsarlog "github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

const topicName = "persistent://public/default/orders"

// name tells records apart: a sequence number is unique within its shard, and a key has one shard at a time.
type name struct{ sequence, key string }

// message is one message of the topic.
type message struct {
	name
	partition int
	worker    string
	published time.Time // by the worker's clock, which is this machine's, in whole milliseconds
	payload   string
}

// topic shows what has arrived.
type topic interface {
	// messages are all so far; those of one partition are in its order.
	messages() []message
	// count is how many there are.
	count() int
	// address is the service URL and the name of the topic.
	address() (url, name string)
}

// standInTopic looks into the stand-in of a broker.
type standInTopic struct{ broker *pulsartest.Broker }

func newStandInTopic(t testing.TB, options ...pulsartest.Option) standInTopic {
	t.Helper()
	broker := pulsartest.NewBroker(options...)
	t.Cleanup(func() {
		broker.Close()
		for _, problem := range broker.Problems() {
			if !pulsartest.IsLateSend(problem) {
				t.Errorf("the broker was sent what it can't understand: %v", problem)
			}
		}
	})
	must(t, broker.CreatePartitionedTopic(topicName, partitions))
	return standInTopic{broker}
}

func (s standInTopic) address() (url, name string) { return s.broker.URL(), topicName }

func (s standInTopic) count() int { return s.broker.Counters(topicName).Messages }

func (s standInTopic) messages() []message {
	stored := s.broker.Messages(topicName)
	all := make([]message, len(stored))
	for i := range stored {
		all[i] = newMessage(stored[i].Partition, stored[i].Properties, stored[i].PublishTime, stored[i].Payload)
	}
	return all
}

func newMessage(partition int, properties map[string]string, published time.Time, payload []byte) message {
	return message{
		name:      name{properties["kinesis.sequence.number"], properties["kinesis.partition.key"]},
		partition: partition, worker: properties[workerProperty], published: published, payload: string(payload),
	}
}

// realTopic is a topic of Apache Pulsar, followed by a reader of each partition.
type realTopic struct {
	url, name string

	mu   sync.Mutex
	all  []message         // guarded by mu
	seen map[[3]int64]bool // guarded by mu; a reader that reconnects may be handed a message again
}

func newRealTopic(t testing.TB) *realTopic {
	t.Helper()
	broker := stack.SharedPulsar(t)
	full := topicName + "-" + fmt.Sprint(time.Now().UnixNano())
	must(t, broker.CreatePartitionedTopic(t.Context(), full, partitions))
	client, err := pulsar.NewClient(pulsar.ClientOptions{URL: broker.ServiceURL(), Logger: pulsarlog.DefaultNopLogger(), MetricsRegisterer: prometheus.NewRegistry()})
	must(t, err)
	r := &realTopic{url: broker.ServiceURL(), name: full, seen: map[[3]int64]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		readers.Wait()
		client.Close()
	})
	for partition := range partitions {
		reader, err := client.CreateReader(pulsar.ReaderOptions{Topic: fmt.Sprintf("%s-partition-%d", full, partition), StartMessageID: pulsar.EarliestMessageID()})
		must(t, err)
		readers.Go(func() {
			defer reader.Close()
			for {
				m, err := reader.Next(ctx)
				if err != nil {
					return
				}
				r.add(partition, m)
			}
		})
	}
	return r
}

func (r *realTopic) address() (url, name string) { return r.url, r.name }

func (r *realTopic) add(partition int, m pulsar.Message) {
	id := m.ID()
	r.mu.Lock()
	defer r.mu.Unlock()
	// Ledgers are of one partition each.
	if key := [3]int64{id.LedgerID(), id.EntryID(), int64(id.BatchIdx())}; !r.seen[key] {
		r.seen[key] = true
		r.all = append(r.all, newMessage(partition, m.Properties(), m.PublishTime(), m.Payload()))
	}
}

func (r *realTopic) messages() []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

func (r *realTopic) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}
