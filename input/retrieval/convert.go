package retrieval

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
)

// converter turns Kinesis records into user records. Both kinds of Readers embed it, so that a shard looks the same
// however it is read.
type converter struct {
	hashes kpl.HashRange       // the shard's; decides which user records of an aggregated record belong here
	last   checkpoint.Position // of the last user record returned: nothing at or before it is returned again
	users  []kpl.UserRecord    // reused
	begun  bool                // records have come
}

// convert adds the user records of a response to read, whose MillisBehindLatest is set already. It returns the charge
// of what it added, and how many payload bytes Kinesis counts for the response.
func (c *converter) convert(read *Read, records []types.Record) (charge, brought int64) {
	if len(records) > 0 {
		if !c.begun {
			// Kinesis gives the very record of the position first, for as long as it has it.
			c.begun, read.Begins = true, true
			read.Trimmed = !c.last.IsZero() && aws.ToString(records[0].SequenceNumber) != c.last.Sequence
		}
		read.Records = make([]Record, 0, len(records))
	}
	for i := range records {
		brought += int64(len(records[i].Data))
		c.appendUsers(read, &records[i])
	}
	for i := range read.Records {
		charge += read.Records[i].Charge()
	}
	return charge, brought
}

// appendUsers adds the user records of one Kinesis record that lie behind the last one returned.
func (c *converter) appendUsers(read *Read, r *types.Record) {
	record := Record{
		Position:           checkpoint.Position{Sequence: aws.ToString(r.SequenceNumber)},
		PartitionKey:       aws.ToString(r.PartitionKey),
		Data:               r.Data,
		Arrival:            aws.ToTime(r.ApproximateArrivalTimestamp),
		Encryption:         string(r.EncryptionType),
		MillisBehindLatest: read.MillisBehindLatest,
	}
	if record.Encryption == "" {
		record.Encryption = string(types.EncryptionTypeNone)
	}
	users, total, aggregated := kpl.SplitCounting(c.users[:0], r.Data, c.hashes)
	if !aggregated {
		if record.Data == nil {
			record.Data = []byte{}
		}
		read.Records = c.appendNew(read.Records, record)
		return
	}
	read.OutOfRange += total - len(users)
	record.Aggregated = total > 1
	for i := range users {
		record.Position.Sub, record.PartitionKey, record.Data = users[i].Sub, users[i].PartitionKey, users[i].Data
		read.Records = c.appendNew(read.Records, record)
	}
	clear(users) // no envelope is kept alive by the scratch slice
	c.users = users
}

func (c *converter) appendNew(dst []Record, r Record) []Record {
	if r.Position.Compare(c.last) <= 0 {
		return dst
	}
	c.last = r.Position
	return append(dst, r)
}

// millisBehind is -1 when Kinesis did not tell.
func millisBehind(told *int64) int64 {
	if told == nil {
		return -1
	}
	return *told
}
