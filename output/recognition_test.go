package output

import (
	"fmt"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"pgregory.net/rapid"
)

// lying is a message as it lies in a partition.
type lying struct {
	pulsar.Message // of which nothing else is asked
	place          int64
	producer       string
	sequence       string
	published      time.Time
}

func (m *lying) ID() pulsar.MessageID   { return pulsar.NewMessageID(1, m.place, -1, 0) }
func (m *lying) ProducerName() string   { return m.producer }
func (m *lying) PublishTime() time.Time { return m.published }
func (m *lying) Properties() map[string]string {
	return map[string]string{sequenceProperty: m.sequence}
}

// Whatever was confirmed before, stored, left out, sent to other partitions, and deleted since, and wherever the readings begin:
// what was stored and is there is known again, what was left out is found to be missing, but where nothing older is left, and
// what was stored and deleted is never taken for left out.
func TestWhatWasLeftOutIsToldFromWhatIsDeleted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		began := time.Unix(1700000000, 0)
		records := rapid.IntRange(1, 40).Draw(t, "records")
		checkpoint := rapid.IntRange(0, records-1).Draw(t, "checkpoint")
		stored := rapid.IntRange(checkpoint+1, records).Draw(t, "stored up to") // the last of them is, at least
		leftOut := map[int]bool{}
		if rapid.Bool().Draw(t, "with holes") {
			for i := checkpoint; i < stored-1; i++ {
				leftOut[i] = rapid.Bool().Draw(t, "left out")
			}
		}
		here := func(i int) bool { return (i*7)%3 > 0 } // others go to other partitions
		var all []*lying
		add := func(producer, sequence string, when time.Time) {
			all = append(all, &lying{place: int64(len(all)), producer: producer, sequence: sequence, published: when})
		}
		sequence := func(i int) string { return fmt.Sprint(990 + i) } // the number of digits changes
		arrival := func(i int) time.Time { return began.Add(time.Duration(i) * time.Minute) }
		place := map[int]int{}
		for i := range records {
			for range rapid.IntRange(0, 2).Draw(t, "others") {
				add("other", "5", arrival(i))
			}
			if here(i) && i < stored && !leftOut[i] {
				place[i] = len(all)
				add("mine", sequence(i), arrival(i).Add(time.Second))
			}
		}
		deleted := rapid.IntRange(0, len(all)).Draw(t, "deleted")
		there := all[deleted:]

		l := &lane{sequence: attempt.Sequence{First: int64(checkpoint)}}
		tr := &track{partition: &partition{producer: "mine"}, fresh: -1}
		var expected []*entry
		var numbers []int
		run := attempt.NewRun("shard", nil, nil)
		a := run.Attempt(records, func(i int) attempt.Origin {
			return attempt.Origin{Ordinal: int64(i), SequenceNumber: sequence(i), Sub: -1, Arrival: arrival(i)}
		})
		for i := checkpoint; i < stored; i++ {
			if here(i) {
				e := &entry{id: a.ID(i)}
				e.message.Properties = map[string]string{sequenceProperty: sequence(i)}
				expected, numbers = append(expected, e), append(numbers, i)
			}
		}
		// Pulsar calls those duplicates that are not above the last one that is stored here.
		for len(numbers) > 0 && leftOut[numbers[len(numbers)-1]] {
			expected, numbers = expected[:len(expected)-1], numbers[:len(numbers)-1]
		}
		if len(expected) == 0 {
			t.Skip("nothing is behind the checkpoint")
		}

		r := newRecognition(l, tr, expected)
		for decided := false; !decided; {
			begin := rapid.IntRange(0, len(there)).Draw(t, "begin")
			r.final = begin == 0
			r.reset()
			for _, m := range there[begin:] {
				if !r.visit(m) {
					break
				}
			}
			if decided = r.finish(); r.final && !decided {
				t.Fatal("nothing is decided at the beginning of the topic")
			}
		}
		known := r.next
		older := func(i int) bool { // something that shows that i would be there
			for _, m := range there {
				if m.producer == "mine" && compareSequences(m.sequence, sequence(i)) < 0 || m.published.Before(arrival(i).Add(-clockSkew)) {
					return true
				}
			}
			return false
		}
		for k, i := range numbers {
			switch {
			case k < known && leftOut[i] && (older(i) || l.sequence.First == 0):
				t.Fatalf("record %d was left out, and taken for stored", i)
			case k == known && !leftOut[i] && (place[i] >= deleted || l.sequence.First > 0):
				t.Fatalf("record %d was stored, and taken for left out", i)
			}
		}
	})
}
