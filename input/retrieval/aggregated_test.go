package retrieval

import (
	"fmt"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kpltest"
)

// One Kinesis record may hold hundreds of user records, while a read is limited in Kinesis records.
func TestI8ReadsOfAggregatedRecordsAreSizedByWhatIsInThem(t *testing.T) {
	b := newBench(t)
	var users []kpltest.Record
	for i := range 500 {
		users = append(users, kpltest.Record{PartitionKey: fmt.Sprint(i), Data: []byte("x")})
	}
	for range 60 {
		b.put(string(kpltest.Aggregate(users)))
	}
	p := b.reader(horizon())
	for read := 0; read < 60*500; {
		before, _ := b.config.Budget.Held()
		got, err := p.Next(t.Context(), func() bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		read += len(got.Records)
		held, _ := b.config.Budget.Held()
		if brought := held - before; brought > 2*readBytes {
			t.Fatalf("a read that should bring %d bytes brought %d", readBytes, brought)
		}
		b.config.Budget.HandedOut(len(got.Records))
		b.config.Budget.Release(held)
	}
}

// Whether the sequence number alone names a record is known of each: not where others are, or were, in the same Kinesis record.
func TestRecordsThatShareAKinesisRecordAreToldFromOthers(t *testing.T) {
	b := newBench(t)
	user := func(key string) kpltest.Record { return kpltest.Record{PartitionKey: key, Data: []byte("x")} }
	b.put("plain", string(kpltest.Aggregate([]kpltest.Record{user("a"), user("b")})), string(kpltest.Aggregate([]kpltest.Record{user("c")})))
	p := b.reader(horizon())
	var shared []bool
	for len(shared) < 4 {
		got, err := p.Next(t.Context(), func() bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range got.Records {
			shared = append(shared, r.Aggregated)
		}
	}
	if got := fmt.Sprint(shared); got != "[false true true false]" {
		t.Errorf("shared: %s", got)
	}
}
