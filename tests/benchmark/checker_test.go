package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// checked is a checker behind a broker, a stream's first 200 records, and a producer to send them with.
type checked struct {
	*checker
	records  []types.Record
	producer pulsar.Producer
}

func newChecked(t *testing.T, properties bool) *checked {
	k := kinesistest.NewServer()
	t.Cleanup(k.Close)
	replay, err := k.CreateReplay(streamName, kinesistest.ReplayOptions{Shards: 1, RecordSize: 64, PerShard: 200, Keys: 4})
	if err != nil {
		t.Fatal(err)
	}
	api := k.Client()
	it, err := api.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
		StreamName: aws.String(streamName), ShardId: aws.String("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	if err != nil {
		t.Fatal(err)
	}
	read, err := api.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
	if err != nil {
		t.Fatal(err)
	}
	c := &checked{checker: newChecker(replay, 1, 4, properties), records: read.Records}
	broker := pulsartest.NewBroker(pulsartest.Sink(c.visit))
	t.Cleanup(broker.Close)
	client, err := pulsar.NewClient(pulsar.ClientOptions{URL: broker.URL(), Logger: log.DefaultNopLogger(), MetricsRegisterer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if c.producer, err = client.CreateProducer(pulsar.ProducerOptions{Topic: topicName}); err != nil {
		t.Fatal(err)
	}
	return c
}

// send sends record i as the pipeline would; change may spoil it.
func (c *checked) send(t *testing.T, i int, change func(*pulsar.ProducerMessage)) {
	t.Helper()
	r := c.records[i]
	m := &pulsar.ProducerMessage{Key: *r.PartitionKey, Payload: append([]byte(nil), r.Data...)}
	if c.properties {
		m.Properties = map[string]string{}
		for _, name := range propertyNames {
			m.Properties[name] = "x"
		}
		m.Properties["kinesis.partition.key"] = *r.PartitionKey
	}
	if change != nil {
		change(m)
	}
	if _, err := c.producer.Send(context.Background(), m); err != nil {
		t.Fatal(err)
	}
}

func TestTheSinkPassesAWholeStream(t *testing.T) {
	for _, properties := range []bool{false, true} {
		c := newChecked(t, properties)
		for i := range c.records {
			c.send(t, i, nil)
		}
		got := c.tally()
		if got.Records != 200 || got.Bytes != 200*64 || got.Duplicates != 0 || len(got.Problems) != 0 {
			t.Errorf("properties %v: %+v", properties, got)
		}
	}
}

func TestTheSinkSeesEveryFault(t *testing.T) {
	for name, fault := range map[string]struct {
		change func(*pulsar.ProducerMessage) // of record 5
		skip   bool
		want   string
	}{
		"a changed byte":      {change: func(m *pulsar.ProducerMessage) { m.Payload[40] ^= 1 }, want: "the bytes of record 6 of shard 0 are changed"},
		"a byte less":         {change: func(m *pulsar.ProducerMessage) { m.Payload = m.Payload[:63] }, want: "63 bytes instead of 64"},
		"a wrong key":         {change: func(m *pulsar.ProducerMessage) { m.Key = "other" }, want: `the partition key "other" instead of`},
		"no key":              {change: func(m *pulsar.ProducerMessage) { m.Key = "" }, want: `the partition key "" instead of`},
		"a property missing":  {change: func(m *pulsar.ProducerMessage) { delete(m.Properties, "kinesis.encryption.type") }, want: "3 properties instead of 4"},
		"an unknown property": {change: func(m *pulsar.ProducerMessage) { m.Properties["kp_record"] = "1" }, want: `the property "kp_record"`},
		"an empty property":   {change: func(m *pulsar.ProducerMessage) { m.Properties["kinesis.sequence.number"] = "" }, want: `"kinesis.sequence.number": ""`},
		"another's property":  {change: func(m *pulsar.ProducerMessage) { m.Properties["kinesis.partition.key"] = "b" }, want: "names the partition key b"},
		"a record left out":   {skip: true, want: "record 10 came instead of 6"},
	} {
		c := newChecked(t, true)
		for i := range c.records {
			switch {
			case i != 5:
				c.send(t, i, nil)
			case !fault.skip:
				c.send(t, i, fault.change)
			}
		}
		if got := strings.Join(c.tally().Problems, "\n"); !strings.Contains(got, fault.want) {
			t.Errorf("%s: problems %q, want %q", name, got, fault.want)
		}
	}
}

func TestTheSinkCountsDuplicatesApart(t *testing.T) {
	c := newChecked(t, false)
	for _, i := range []int{0, 1, 2, 3, 0, 1, 4, 4} {
		c.send(t, i, nil)
	}
	if got := c.tally(); got.Records != 5 || got.Duplicates != 3 || len(got.Problems) != 0 {
		t.Errorf("%+v, want 5 records and 3 duplicates", got)
	}
}

func TestTheSinkSeesAnOvertakenRecord(t *testing.T) {
	c := newChecked(t, false)
	for _, i := range []int{0, 1, 2, 3, 8, 4, 5} { // 8 and 4 have one key
		c.send(t, i, nil)
	}
	if got := c.tally(); len(got.Problems) != 1 || got.Duplicates != 1 {
		t.Errorf("%+v, want the overtaking once, and the late record as a duplicate", got)
	}
}

func TestOnlyTheFirstProblemsAreKept(t *testing.T) {
	c := newChecker(nil, 1, 1, false)
	for i := range 100 {
		c.mu.Lock()
		c.problemLocked(fmt.Sprint(i))
		c.mu.Unlock()
	}
	if got, _ := json.Marshal(c.tally().Problems); string(got) != `["0","1","2","3","4","5","6","7","8","9"]` {
		t.Errorf("problems %s", got)
	}
}
