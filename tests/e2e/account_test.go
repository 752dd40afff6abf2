package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// recordName tells records apart: sequence numbers are unique in a shard, and a key lives in one shard at a time.
type recordName struct{ sequence, key string }

const (
	propertyKey        = "kinesis.partition.key"
	propertySequence   = "kinesis.sequence.number"
	propertyArrival    = "kinesis.arrival.timestamp"
	propertyEncryption = "kinesis.encryption.type"
)

// account is every record of the stream against what the topic holds.
type account struct {
	t          *testing.T
	records    map[string][]record // by shard, in stream order
	copies     map[recordName]int
	duplicates []recordName // those with more than one copy
	lost       []recordName
	foreign    int // messages that are no record's
	wrong      []string
	disorder   []string // keys whose last copies are not in stream order
	stalled    bool     // a pipeline could not renew leases, of which copies come
}

type record = kinesistest.Record

// wanted says what of the stream has to be in the topic; nil: all of it.
type wanted func(shard string, r record) bool

// account compares all of the stream with all of the topic.
func (w *world) account() *account { return w.accountOf(nil, w.messages()) }

func (w *world) accountOf(want wanted, messages []pulsartest.Message) *account {
	w.t.Helper()
	a := newAccount(w.t, w.kinesis.Records(streamName), want, messages)
	a.stalled = w.stalled()
	return a
}

func newAccount(t *testing.T, records map[string][]record, want wanted, messages []pulsartest.Message) *account {
	t.Helper()
	a := &account{t: t, records: records, copies: map[recordName]int{}}
	byName := map[recordName]record{}
	for _, list := range records {
		for _, r := range list {
			byName[nameOf(r)] = r
		}
	}
	last := map[recordName]int{} // where in the topic the last copy lies
	for i := range messages {
		m := &messages[i]
		name := recordName{m.Properties[propertySequence], m.Properties[propertyKey]}
		r, known := byName[name]
		if !known {
			a.foreign++
			continue
		}
		if a.copies[name]++; a.copies[name] == 2 {
			a.duplicates = append(a.duplicates, name)
		}
		last[name] = i
		if problem := compare(r, m); problem != "" {
			a.wrong = append(a.wrong, fmt.Sprintf("%v: %s", name, problem))
		}
	}
	for shard, list := range records {
		reached := map[string]int{}
		for _, r := range list {
			name := nameOf(r)
			at, there := last[name]
			if !there {
				if want == nil || want(shard, r) {
					a.lost = append(a.lost, name)
				}
				continue
			}
			if before, ok := reached[r.PartitionKey]; ok && at < before {
				a.disorder = append(a.disorder, fmt.Sprintf("%v of %s lies before its predecessor", name, shard))
			}
			reached[r.PartitionKey] = at
		}
	}
	return a
}

func nameOf(r record) recordName { return recordName{r.SequenceNumber, r.PartitionKey} }

// compare tells what of a message is not as the Java connector's default would be with the bytes left alone.
func compare(r record, m *pulsartest.Message) string {
	encryption := r.EncryptionType
	if encryption == "" {
		encryption = "NONE"
	}
	properties := map[string]string{
		propertyKey: r.PartitionKey, propertySequence: r.SequenceNumber, propertyEncryption: encryption, propertyArrival: instant(r.Arrival),
	}
	switch {
	case !bytes.Equal(m.Payload, r.Data):
		return fmt.Sprintf("%d bytes are not the record's %d", len(m.Payload), len(r.Data))
	case m.Null:
		return "no value"
	case !m.HasKey || m.Key != r.PartitionKey:
		return fmt.Sprintf("key %q", m.Key)
	case len(m.Properties) != len(properties):
		return fmt.Sprintf("properties %v", m.Properties)
	}
	for name, value := range properties {
		if m.Properties[name] != value {
			return fmt.Sprintf("property %s is %q, not %q", name, m.Properties[name], value)
		}
	}
	return ""
}

// instant writes a time of whole milliseconds as Java does.
func instant(t time.Time) string {
	if t.Nanosecond() == 0 {
		return t.UTC().Format("2006-01-02T15:04:05Z")
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// balanced fails the test unless nothing is lost, wrong, foreign or out of order.
func (a *account) balanced() *account {
	a.t.Helper()
	if len(a.lost) > 0 || a.foreign > 0 || len(a.wrong) > 0 || len(a.disorder) > 0 {
		a.t.Fatalf("lost %d %v\nforeign %d\nwrong %d %v\nout of order %d %v", len(a.lost), some(a.lost), a.foreign, len(a.wrong), some(a.wrong), len(a.disorder), some(a.disorder))
	}
	return a
}

// once fails the test if a record has more than one copy, unless the machine has stood still for so long that leases were lost: that
// costs copies, as documented.
func (a *account) once() *account {
	a.t.Helper()
	if a.stalled {
		a.t.Logf("%d records have more than one copy, of leases that could not be renewed in time", len(a.duplicates))
		return a
	}
	return a.onceWhateverHappens()
}

// onceWhateverHappens fails the test if a record has more than one copy.
func (a *account) onceWhateverHappens() *account {
	a.t.Helper()
	if len(a.duplicates) > 0 {
		a.t.Fatalf("%d records have more than one copy: %v", len(a.duplicates), some(a.duplicates))
	}
	return a
}

// sameUpTo fails the test if a record that the checkpoints of an earlier moment had passed has got more copies since.
func (a *account) sameUpTo(before *account, leases map[string]lease) *account {
	a.t.Helper()
	for shard, list := range a.records {
		at := leases[shard]["checkpoint"]
		passed := len(at) > 20 // a sequence number, no sentinel
		for _, r := range list {
			if name := nameOf(r); passed && a.copies[name] != before.copies[name] {
				a.t.Fatalf("record %v of %s was delivered again, behind the checkpoint %s", name, shard, at)
			}
			passed = passed && r.SequenceNumber != at
		}
	}
	return a
}

// hasUpTo tells whether all records that the checkpoints have passed are there.
func (a *account) hasUpTo(leases map[string]lease) bool {
	for shard, list := range a.records {
		at := leases[shard]["checkpoint"]
		for i := slices.IndexFunc(list, func(r record) bool { return r.SequenceNumber == at }); i >= 0; i-- {
			if a.copies[nameOf(list[i])] == 0 {
				return false
			}
		}
	}
	return true
}

func some[T any](list []T) []T { return list[:min(5, len(list))] }

// arrived waits until the topic holds a copy of n different records.
func (w *world) arrived(n int) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%d records in the topic", n), func() bool { return w.delivered() >= n })
}

// delivered counts the different records in the topic.
func (w *world) delivered() int {
	if messages := w.messages(); len(messages) > 0 {
		names := make(map[recordName]struct{}, len(messages))
		for i := range messages {
			names[recordName{messages[i].Properties[propertySequence], messages[i].Properties[propertyKey]}] = struct{}{}
		}
		return len(names)
	}
	return 0
}

// settled waits until the checkpoints stand at the last records. Before that a replay may be half way, and its copies
// out of order.
func (w *world) settled() {
	w.t.Helper()
	w.eventually("checkpoints at the last records", func() bool {
		leases := w.leases()
		for shard, list := range w.kinesis.Records(streamName) {
			if len(list) > 0 && leases[shard]["checkpoint"] != list[len(list)-1].SequenceNumber {
				return false
			}
		}
		return true
	})
}
