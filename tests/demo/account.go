package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// message is one message as a reader of the topic gets it.
type message struct {
	Key        string
	Payload    []byte
	Properties map[string]string
}

// lease is what the account needs of a row of the lease table.
type lease struct {
	Owner      string // "" when nobody owns it
	Checkpoint string // a sequence number, or a start position such as TRIM_HORIZON
}

// kill is a hard end of the pipeline's process, and what the lease table held after it.
type kill struct {
	At     time.Time
	Leases map[string]lease // by shard
}

// evidence is all that the account goes by. None of it comes from the pipeline, but for what may excuse copies.
type evidence struct {
	Records  map[string][]kinesistest.Record // by shard, in stream order
	Messages [][]message                     // by partition, in the topic's order
	Kills    []kill
	Leases   map[string]lease // by shard, after the clean stop
	// Stalled is set when the pipeline has told that it could not renew leases in time, and read their shards again
	// from the stored checkpoints. It happens where the machine gives it no processor for seconds.
	Stalled bool
}

// account is the outcome. It balances when there are no findings.
type account struct {
	Records, Messages, Shards, Partitions, Keys int
	Bytes                                       int64 // payload of the records
	Repeated                                    int   // records with more than one copy
	Window                                      int   // most records that the kills may repeat
	Excused                                     int   // records repeated beyond that, by a stall that the pipeline told of
	Findings                                    []finding
}

// finding is one way in which the account does not balance.
type finding struct {
	What     string
	Count    int
	Examples []string // the first few
}

// What can be found.
const (
	foundLost       = "records are not in the topic"
	foundForeign    = "messages belong to no record"
	foundBytes      = "messages have other bytes than their records"
	foundKey        = "messages have another key than their records' partition key"
	foundProperties = "messages lack a property, or have a wrong one"
	foundScattered  = "keys are spread over several partitions"
	foundFirst      = "records came for the first time before an earlier record of their key"
	foundLast       = "records lie for the last time before an earlier record of their key"
	foundRepeated   = "records came again although a checkpoint had passed them"
	foundCheckpoint = "checkpoints are not at the last record of their shard"
	foundStrange    = "checkpoints belong to no record"
	foundOwned      = "leases still have an owner after the clean stop"
)

// The properties that every message carries by default.
const (
	propertyKey        = "kinesis.partition.key"
	propertySequence   = "kinesis.sequence.number"
	propertyArrival    = "kinesis.arrival.timestamp"
	propertyEncryption = "kinesis.encryption.type"
)

// recordName tells records apart: a sequence number is unique within its shard, and a key has one shard at a time.
type recordName struct{ Sequence, Key string }

// place is where a message lies: order means something within a partition only.
type place struct{ partition, offset int }

func (p place) before(q place) bool { return p.partition == q.partition && p.offset < q.offset }

// copies is what the topic holds of one record.
type copies struct {
	count       int
	first, last place
}

// settle compares what was put into the stream with what the topic and the lease table hold.
//
// Order is that of a key: all a topic of several partitions can show. Kinesis orders the records of a shard, a key has
// one shard and one partition. The last copies of a key's records must be in stream order whatever has happened; the
// first ones too, since in the demo no single message fails: a kill repeats whole stretches.
func settle(e evidence) account {
	a := account{Shards: len(e.Records), Partitions: len(e.Messages)}
	byName := map[recordName]kinesistest.Record{}
	for _, records := range e.Records {
		for _, r := range records {
			byName[recordName{r.SequenceNumber, r.PartitionKey}] = r
			a.Records++
			a.Bytes += int64(len(r.Data))
		}
	}
	found := map[recordName]*copies{}
	homes := map[string]int{} // partition by key
	for partition, messages := range e.Messages {
		for offset, m := range messages {
			a.Messages++
			name := recordName{m.Properties[propertySequence], m.Properties[propertyKey]}
			r, known := byName[name]
			if !known {
				a.add(foundForeign, fmt.Sprintf("message %d of partition %d, key %q, properties %v", offset, partition, m.Key, m.Properties))
				continue
			}
			at := place{partition, offset}
			if c := found[name]; c != nil {
				c.count++
				c.last = at
			} else {
				found[name] = &copies{count: 1, first: at, last: at}
			}
			a.compare(r, m)
			if home, seen := homes[m.Key]; !seen {
				homes[m.Key] = partition
			} else if home != partition {
				a.add(foundScattered, fmt.Sprintf("%s is in partitions %d and %d", m.Key, home, partition))
			}
		}
	}
	a.Keys = len(homes)
	for _, shard := range sorted(e.Records) {
		a.settleShard(shard, e.Records[shard], found, e.Kills, e.Stalled)
		a.settleLease(shard, e.Records[shard], e.Leases)
	}
	return a
}

// compare checks one message against its record.
func (a *account) compare(r kinesistest.Record, m message) {
	if !bytes.Equal(m.Payload, r.Data) {
		a.add(foundBytes, fmt.Sprintf("%s: %s instead of %s", nameOf(r), shape(m.Payload), shape(r.Data)))
	}
	if m.Key != r.PartitionKey {
		a.add(foundKey, fmt.Sprintf("%s: key %q", nameOf(r), m.Key))
	}
	want := map[string]string{
		propertyKey: r.PartitionKey, propertySequence: r.SequenceNumber,
		propertyArrival: instant(r.Arrival), propertyEncryption: "NONE",
	}
	for _, name := range sorted(want) {
		if got, there := m.Properties[name]; !there {
			a.add(foundProperties, fmt.Sprintf("%s: no %s", nameOf(r), name))
		} else if got != want[name] {
			a.add(foundProperties, fmt.Sprintf("%s: %s is %q, not %q", nameOf(r), name, got, want[name]))
		}
	}
	for _, name := range sorted(m.Properties) {
		if _, wanted := want[name]; !wanted {
			a.add(foundProperties, fmt.Sprintf("%s: %s was not asked for", nameOf(r), name))
		}
	}
}

// settleShard checks that all records of a shard are there, in order, and not repeated without a reason.
func (a *account) settleShard(shard string, records []kinesistest.Record, found map[recordName]*copies, kills []kill, stalled bool) {
	// What a kill may repeat begins behind the checkpoint that was stored, and ends with what was there to be read.
	from := make([]int, len(kills))
	for k, kill := range kills {
		stored := kill.Leases[shard].Checkpoint
		from[k] = position(records, stored)
		if from[k] == 0 && strings.Trim(stored, "0123456789") == "" && stored != "" {
			a.add(foundStrange, fmt.Sprintf("%s at the kill: %s", shard, stored))
		}
	}
	before := map[string]*copies{} // of each key, the record before
	for i, r := range records {
		allowed := 1
		for k, kill := range kills {
			if i >= from[k] && !r.Arrival.After(kill.At) {
				allowed++
			}
		}
		if allowed > 1 {
			a.Window++
		}
		c := found[recordName{r.SequenceNumber, r.PartitionKey}]
		if c == nil {
			a.add(foundLost, fmt.Sprintf("%s of %s (number %d, %s)", nameOf(r), shard, i+1, shape(r.Data)))
			continue
		}
		if c.count > 1 {
			a.Repeated++
		}
		switch {
		case c.count <= allowed:
		case stalled:
			a.Excused++
		default:
			a.add(foundRepeated, fmt.Sprintf("%s of %s (number %d): %d copies", nameOf(r), shard, i+1, c.count))
		}
		if b := before[r.PartitionKey]; b != nil {
			if c.first.before(b.first) {
				a.add(foundFirst, fmt.Sprintf("%s of %s (number %d)", nameOf(r), shard, i+1))
			}
			if c.last.before(b.last) {
				a.add(foundLast, fmt.Sprintf("%s of %s (number %d)", nameOf(r), shard, i+1))
			}
		}
		before[r.PartitionKey] = c
	}
}

// settleLease checks what the clean stop has left of a shard's lease.
func (a *account) settleLease(shard string, records []kinesistest.Record, leases map[string]lease) {
	l, there := leases[shard]
	switch {
	case !there:
		a.add(foundCheckpoint, shard+" has no lease")
		return
	case len(records) > 0 && l.Checkpoint != records[len(records)-1].SequenceNumber:
		a.add(foundCheckpoint, fmt.Sprintf("%s is at record %d of %d (%s)", shard, position(records, l.Checkpoint), len(records), l.Checkpoint))
	}
	if l.Owner != "" {
		a.add(foundOwned, shard+" belongs to "+l.Owner)
	}
}

// position is how many of a shard's records a checkpoint has passed; 0 for a start position.
func position(records []kinesistest.Record, checkpoint string) int {
	return 1 + slices.IndexFunc(records, func(r kinesistest.Record) bool { return r.SequenceNumber == checkpoint })
}

const maxExamples = 5

func (a *account) add(what, example string) {
	i := slices.IndexFunc(a.Findings, func(f finding) bool { return f.What == what })
	if i < 0 {
		i = len(a.Findings)
		a.Findings = append(a.Findings, finding{What: what})
	}
	f := &a.Findings[i]
	if f.Count++; len(f.Examples) < maxExamples {
		f.Examples = append(f.Examples, example)
	}
}

// lines are the account for people.
func (a *account) lines() []string {
	if len(a.Findings) > 0 {
		lines := []string{fmt.Sprintf("The account does NOT balance: %s records, %s messages.", grouped(a.Records), grouped(a.Messages))}
		for _, f := range a.Findings {
			lines = append(lines, fmt.Sprintf("  %s: %s", f.What, grouped(f.Count)))
			for _, example := range f.Examples {
				lines = append(lines, "      "+example)
			}
			if more := f.Count - len(f.Examples); more > 0 {
				lines = append(lines, fmt.Sprintf("      … and %s more", grouped(more)))
			}
		}
		return lines
	}
	row := func(n int, text string) string { return fmt.Sprintf("  %10s  %s", grouped(n), text) }
	lines := []string{
		"The account balances:",
		row(a.Records, fmt.Sprintf("records were put into the stream (%s)", megabytes(a.Bytes))),
		row(a.Messages, fmt.Sprintf("messages are in the topic, in %d partitions", a.Partitions)),
		row(0, "records are missing"),
		row(0, "differ in a byte, in their key, or in one of the four kinesis.* properties"),
		row(0, fmt.Sprintf("are out of order: %s keys, first and last copies", grouped(a.Keys))),
		row(a.Repeated, a.repeated()),
		row(a.Shards, "checkpoints are at the last record of their shard, and no lease has an owner"),
	}
	if a.Excused > 0 {
		lines = append(lines, row(a.Excused, "of the copies are due to a stall of this machine: leases could not be renewed in time, and their shards were read again"))
	}
	return lines
}

func (a *account) repeated() string {
	switch {
	case a.Window == 0:
		return "records came twice"
	case a.Excused > 0:
		return fmt.Sprintf("records came twice; %s lay behind the stored checkpoints at the kill", grouped(a.Window))
	case a.Repeated == 0:
		return fmt.Sprintf("records came twice, of %s that lay behind the stored checkpoints at the kill", grouped(a.Window))
	}
	return fmt.Sprintf("records came twice, by the kill; all are of the %s that lay behind the stored checkpoints", grouped(a.Window))
}

func nameOf(r kinesistest.Record) string {
	return fmt.Sprintf("%s…%s", r.PartitionKey, r.SequenceNumber[max(0, len(r.SequenceNumber)-10):])
}

// shape is a payload in a word.
func shape(data []byte) string {
	if len(data) == 0 {
		return "empty"
	}
	return fmt.Sprintf("%s bytes from %x", grouped(len(data)), data[:min(len(data), 6)])
}

// instant writes a time of whole milliseconds as Java's Instant does, which is what the property holds.
func instant(t time.Time) string {
	if t.Nanosecond() == 0 {
		return t.UTC().Format("2006-01-02T15:04:05Z")
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// grouped writes a number with its thousands apart.
func grouped(n int) string {
	digits := fmt.Sprint(max(n, -n))
	var b strings.Builder
	if n < 0 {
		b.WriteByte('-')
	}
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
