package output

import (
	"context"
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
	topic := fmt.Sprintf("persistent://public/default/exact-%d", time.Now().UnixNano())
	if err := broker.CreatePartitionedTopic(ctx, topic, 2); err != nil {
		t.Fatal(err)
	}
	path := "/admin/v2/persistent/public/default/" + topic[len("persistent://public/default/"):] + "/deduplicationEnabled"
	if _, err := broker.Admin(ctx, "POST", path, true); err != nil {
		t.Fatal(err)
	}
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
	// The policy of a topic takes a moment to reach it, longer than the admin API takes to tell of it.
	waitFor(t, func() bool {
		for partition := range 2 {
			stats, err := broker.Admin(ctx, "GET", fmt.Sprintf("%s-partition-%d/stats", strings.TrimSuffix(path, "/deduplicationEnabled"), partition), nil)
			if err != nil || !strings.Contains(string(stats), `"deduplicationStatus":"Enabled"`) {
				return false
			}
		}
		return true
	})
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
