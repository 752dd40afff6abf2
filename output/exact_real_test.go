package output

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
	"github.com/prometheus/client_golang/prometheus"
)

// What a real broker makes of numbers, and what its readers tell of messages: after a doubt the messages that were stored
// are known again, with and without a place to begin reading at, and one that was left out is missing.
func TestARealTopicIsReadBack(t *testing.T) {
	broker := stack.SharedPulsar(t)
	ctx, cancel := context.WithTimeout(t.Context(), busy)
	defer cancel()
	topic := deduplicated(ctx, t, broker, 2)
	o := connected(t, broker.ServiceURL(), "topic: "+topic+"\ndeduplication: true\nordering_key: '${! @group }'\nevent_time: '${! @when }'")
	s := (&counter{}).newRun()
	write := func(records ...int64) error {
		batch, _ := s.batch(records...)
		for i, m := range batch {
			m.MetaSetMut("kinesis.sequence.number", fmt.Sprint(1000+records[i]))
			if records[i]%2 > 0 {
				m.MetaSetMut("group", keyOf(records[i]))
				m.MetaSetMut("when", 1700000000000+records[i])
			}
		}
		return o.WriteBatch(ctx, batch)
	}
	if err := write(0, 1, 2, 3, 4, 5); err != nil {
		t.Fatal(err)
	}
	left := []int64{6, 7, 9, 10, 12} // 8 and 11 are left out
	if err := write(left...); err != nil {
		t.Fatal(err)
	}

	sess := o.session.Load()
	l, err := sess.lanes.enter(ctx, s.run)
	if err != nil {
		t.Fatal(err)
	}
	defer l.leave()
	all := from(6, 8)
	batch, _ := s.batch(all...)
	for i, m := range batch {
		m.MetaSetMut("kinesis.sequence.number", fmt.Sprint(1000+all[i]))
		if all[i]%2 > 0 {
			m.MetaSetMut("group", keyOf(all[i]))
			m.MetaSetMut("when", 1700000000000+all[i])
		}
	}
	expected := l.expected(o, batch, len(l.tracks))
	for _, begin := range []string{"behind the last one known", "at the beginning"} {
		for k, tr := range l.tracks {
			if begin == "at the beginning" {
				tr.last = nil
			} else if len(expected[k]) > 0 {
				tr.last = placeOf(t, broker, tr, 5)
			}
			found, err := l.readBack(ctx, tr, expected[k])
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range expected[k] {
				record := e.id.Ordinal() // the run began with record 0
				if want := slices.Contains(left, record); found[i] != want {
					t.Errorf("%s, partition %d: record %d found %v, want %v", begin, k, record, found[i], want)
				}
			}
		}
	}
}

// placeOf is the place of the track's last message of a record up to the given one, nil if there is none.
func placeOf(t *testing.T, broker *stack.PulsarService, tr *track, upTo int) (last pulsar.MessageID) {
	t.Helper()
	client, err := pulsar.NewClient(pulsar.ClientOptions{URL: broker.ServiceURL(), Logger: log.DefaultNopLogger(), MetricsRegisterer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	reader, err := client.CreateReader(pulsar.ReaderOptions{Topic: tr.partition.name, StartMessageID: pulsar.EarliestMessageID()})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for reader.HasNext() {
		m, err := reader.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscan(string(m.Payload()), &n); err == nil && n <= upTo {
			last = m.ID()
		}
	}
	return last
}

// deduplicated makes a topic, and waits until it de-duplicates.
func deduplicated(ctx context.Context, t testing.TB, broker *stack.PulsarService, partitions int) (topic string) {
	t.Helper()
	name := fmt.Sprintf("exact-%d", time.Now().UnixNano())
	topic = "persistent://public/default/" + name
	if err := broker.CreatePartitionedTopic(ctx, topic, partitions); err != nil {
		t.Fatal(err)
	}
	path := "/admin/v2/persistent/public/default/" + name
	if _, err := broker.Admin(ctx, "POST", path+"/deduplicationEnabled", true); err != nil {
		t.Fatal(err)
	}
	// The policy of a topic takes a moment to reach it, longer than the admin API takes to tell of it.
	waitFor(t, func() bool {
		for partition := range partitions {
			stats, err := broker.Admin(ctx, "GET", fmt.Sprintf("%s-partition-%d/stats", path, partition), nil)
			if err != nil || !strings.Contains(string(stats), `"deduplicationStatus":"Enabled"`) {
				return false
			}
		}
		return true
	})
	return topic
}

// behindCheckpoint is how many messages an earlier run has stored behind its checkpoint.
var behindCheckpoint = flag.Int64("exact-behind", 2000, "messages behind the checkpoint in TestARealTopicTellsWhatAnEarlierRunHasStored")

// On a real broker: what was stored behind the checkpoint is known again, also from a ledger that was closed meanwhile, and when
// its readers are told to begin in ledgers that are not the topic's; what was left out is sent. The time is that until the first
// new message is confirmed.
func TestARealTopicTellsWhatAnEarlierRunHasStored(t *testing.T) {
	broker := stack.SharedPulsar(t)
	ctx, cancel := context.WithTimeout(t.Context(), busy)
	defer cancel()
	for _, name := range []string{"as it was", "left out", "in a closed ledger", "left out, in a closed ledger"} {
		t.Run(name, func(t *testing.T) {
			topic := deduplicated(ctx, t, broker, 1)
			yaml := "topic: " + topic + "\ndeduplication: true"
			path := "/admin/v2/persistent/public/default/" + topic[len("persistent://public/default/"):]
			// Without a subscription a closed ledger is deleted.
			if _, err := broker.Admin(ctx, "PUT", path+"-partition-0/subscription/keep", map[string]any{"ledgerId": -1, "entryId": -1}); err != nil {
				t.Fatal(err)
			}
			c := &counter{arrival: time.Now()}
			o := connected(t, broker.ServiceURL(), yaml)
			s := c.newRun()
			s.deliver(t, o, from(0, 3000)...)
			n := *behindCheckpoint
			hole := strings.Contains(name, "left out")
			for first := int64(3000); first < 3000+n; first += 1000 {
				records := from(first, min(1000, 3000+n-first))
				if hole && first == 3000 {
					records = slices.Delete(records, 500, 501)
				}
				s.deliver(t, o, records...)
			}
			c.confirmed = 3000
			killed(t, o, s)
			if strings.Contains(name, "closed ledger") {
				if _, err := broker.Admin(ctx, "PUT", path+"-partition-0/unload", nil); err != nil {
					t.Fatal(err)
				}
			}
			o = connected(t, broker.ServiceURL(), yaml)
			s = c.newRun()
			began := time.Now()
			for first := int64(3000); first < 3000+n; first += 1000 {
				s.deliver(t, o, from(first, min(1000, 3000+n-first))...)
			}
			s.deliver(t, o, 3000+n)
			t.Logf("%d messages behind the checkpoint: %v", n, time.Since(began).Round(time.Millisecond))
			if (c.epoch > 0) != hole {
				t.Errorf("%d new names", c.epoch)
			}
			copies := map[int64]int{}
			all := &scan{session: o.session.Load(), topic: topic + "-partition-0", at: pulsar.EarliestMessageID(), silence: busy}
			all.visit = func(m pulsar.Message) bool {
				var r int64
				_, _ = fmt.Sscan(string(m.Payload()), &r)
				copies[r]++
				return true
			}
			if err := all.run(ctx); err != nil {
				t.Fatal(err)
			}
			for r := range 3001 + n {
				if copies[r] != 1 {
					t.Fatalf("record %d is there %d times", r, copies[r])
				}
			}
		})
	}
}
