package input

import (
	"context"
	"strconv"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
)

// keyMetadata is the metadata entry with the message key that messageKeyMode asks for; the output's default key.
const keyMetadata = "pulsar_key"

// converter makes messages of records.
type converter struct {
	properties []Property
	stream     string // its name
	keyMode    MessageKeyMode
}

// key is the message key of a record.
func (c *converter) key(shard string, r *retrieval.Record) string {
	if c.keyMode == KeyModeShardID {
		return shard
	}
	return r.PartitionKey
}

// messages makes the batch of one flight. All messages share the context that names the attempt, since batched
// processors move contexts from record to record; a record's own id travels in its metadata, which stays with it.
func (c *converter) messages(f *flight) service.MessageBatch {
	ctx := f.attempt.Context(context.Background())
	batch := make(service.MessageBatch, len(f.records))
	for i := range f.records {
		r := &f.records[i].record
		m := service.NewMessageWithContext(ctx, r.Data)
		m.MetaSetMut(attempt.RecordIDKey, f.attempt.ID(i))
		m.MetaSetMut(keyMetadata, c.key(f.attempt.Shard(), r))
		for _, p := range c.properties {
			if p == PropertyStreamName {
				m.MetaSetMut(string(p), c.stream)
			} else if value, ok := propertyValue(p, f.attempt.Shard(), r); ok {
				m.MetaSetMut(string(p), value)
			}
		}
		batch[i] = m
	}
	return batch
}

// propertyValue is the text that the Java connector gives a property, where it has it.
func propertyValue(p Property, shard string, r *retrieval.Record) (value string, ok bool) {
	switch p {
	case PropertyArrivalTimestamp:
		return formatInstant(r.Arrival), !r.Arrival.IsZero() // an emulator may leave it out
	case PropertyEncryptionType:
		return r.Encryption, true
	case PropertyPartitionKey:
		return r.PartitionKey, true
	case PropertySequenceNumber:
		return r.Position.Sequence, true
	case PropertyShardID:
		return shard, true
	case PropertySubSequenceNumber:
		return strconv.FormatInt(r.Position.Sub, 10), true
	case PropertyMillisBehindLatest:
		// Kinesis always tells it; an emulator may not, and the Java connector would then drop the whole batch.
		return strconv.FormatInt(r.MillisBehindLatest, 10), r.MillisBehindLatest >= 0
	}
	return "", false
}

// formatInstant writes a time as Java's Instant.toString does: UTC, the fraction left out when it is zero, else with
// three, six or nine digits.
func formatInstant(t time.Time) string {
	t = t.UTC()
	layout := "2006-01-02T15:04:05Z"
	switch nanos := t.Nanosecond(); {
	case nanos == 0:
	case nanos%int(time.Millisecond) == 0:
		layout = "2006-01-02T15:04:05.000Z"
	case nanos%int(time.Microsecond) == 0:
		layout = "2006-01-02T15:04:05.000000Z"
	default:
		layout = "2006-01-02T15:04:05.000000000Z"
	}
	return t.Format(layout)
}
