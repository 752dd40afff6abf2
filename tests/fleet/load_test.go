package fleet

import (
	"fmt"
	"sync"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// keyCount is many enough that every shard has a few keys.
const keyCount = 12 * shardCount

// load puts numbered records into the stream at a steady rate: each key counts its own.
type load struct {
	stop func() // ends the load, and returns when the last record is in
}

// begin starts a steady load, until it is stopped or the test ends.
func (f *fleet) begin(rate int) {
	f.t.Helper()
	end, ended := make(chan struct{}), make(chan struct{})
	f.load = &load{stop: sync.OnceFunc(func() { close(end); <-ended })}
	f.t.Cleanup(f.load.stop)
	go func() {
		defer close(ended)
		numbers := map[int]int{}
		began := time.Now()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			due := int(time.Since(began).Seconds() * float64(rate))
			var records []kinesistest.Record
			for ; n < due; n++ {
				key := n % keyCount
				records = append(records, kinesistest.Record{PartitionKey: fmt.Sprintf("customer-%03d", key), Data: payload(key, numbers[key])})
				numbers[key]++
			}
			if _, err := f.kinesis.PutRecords(streamName, records...); err != nil {
				f.t.Errorf("putting records: %v", err)
				return
			}
		}
	}()
}

// payload is what a record says: its key and its number among the records of the key.
func payload(key, number int) []byte {
	return fmt.Appendf(nil, "customer-%03d %d %0100d", key, number, number)
}

// total is how many records the stream holds.
func (f *fleet) total() (n int) {
	for _, records := range f.kinesis.Records(streamName) {
		n += len(records)
	}
	return n
}

// arrived waits until every record that the stream holds now is in the topic.
func (f *fleet) arrived() {
	f.t.Helper()
	records := f.kinesis.Records(streamName)
	want := map[name]bool{}
	for _, list := range records {
		for _, r := range list {
			want[name{r.SequenceNumber, r.PartitionKey}] = true
		}
	}
	missing := 0
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * pollEvery) {
		if f.topic.count() >= len(want) {
			there := map[name]bool{}
			for _, m := range f.topic.messages() {
				there[m.name] = true
			}
			missing = 0
			for n := range want {
				if !there[n] {
					missing++
				}
			}
			if missing == 0 {
				return
			}
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%d of %d records have not arrived after %s", missing, len(want), patience)
		}
	}
}
