// Package kpl takes apart records that the Kinesis Producer Library has aggregated: many user records, each with its own
// partition key, packed into one Kinesis record (the envelope).
//
// An envelope is the magic F3 89 9A C2, a protobuf message, and the MD5 of that message. The message holds a table of
// partition keys, a table of explicit hash keys, and the user records, which point into the tables by index.
//
// Invariants:
//   - All or nothing: an envelope is taken apart as a whole or is a plain record as a whole, never partly.
//   - A user record's sub-sequence number is its index in the envelope, counted before any filter. It is what KCL writes
//     into checkpoints, so a position inside an envelope means the same to both.
//   - A user record is delivered if it lies in the shard's hash range, whatever its neighbours in the envelope are.
//
// Where we differ from KCL, it is because KCL loses records:
//   - When one user record lies outside the shard's hash range, KCL drops the whole envelope. See Split.
//   - When an index points behind a table's end, KCL delivers the user records before that place and drops the rest.
//     To us such an envelope is a plain record, so its bytes arrive and somebody can look at them.
//   - When an explicit hash key is not a number, KCL drops that user record and those after it. We fall back to the
//     partition key, as if no explicit hash key were there.
package kpl

import (
	"bytes"
	"crypto/md5"
	"slices"
)

// magic is what every envelope begins with.
const magic = "\xf3\x89\x9a\xc2"

// UserRecord is one record as the producer's user handed it to the Kinesis Producer Library.
type UserRecord struct {
	// PartitionKey holds the bytes the producer wrote. They should be UTF-8; that is not checked.
	PartitionKey string
	// ExplicitHashKey is empty when the record has none, otherwise as the producer wrote it, valid or not.
	ExplicitHashKey string
	// Data aliases the envelope: it keeps the whole envelope alive, and whoever changes one changes the other. It is
	// never nil, and appending to it leaves the envelope alone.
	Data []byte
	// Sub is KCL's sub-sequence number: the index in the envelope, from 0.
	Sub int64
}

// Split appends to dst the user records of an envelope that lie in the shard's hash range, in the envelope's order.
// When aggregated is false, data is a plain record and nothing was appended. That includes everything that merely
// looks like an envelope: a wrong digest, a message that does not parse, an index behind a table's end. When
// aggregated is true, there may still be nothing to append: all of it may lie outside the range.
//
// A user record lies where its explicit hash key says, or else where the MD5 of its partition key says. A producer packs
// together what it takes for one shard's, so a user record outside the range means that its shard map was stale: the
// stream has just been resharded. The Kinesis Producer Library notices, from the shard id in Kinesis' answer, and sends
// the user records again. KCL relies on that and drops the envelope whole. But the producer may die before it has, or
// give up at its time to live, or be one of the other writers of this format, which do not look at that shard id; then
// KCL's rule loses what had arrived in the right shard. Ours delivers that: at worst twice, never not at all. What lies
// outside is dropped, since delivering it here too would put it out of order with its key's records in the other shard.
// Where a writer never sends it again, it is lost to our rule as to KCL's; the zero HashRange delivers everything.
//
// A plain record costs no allocation; an envelope one for all its table entries, and more only for dst to grow or for
// tables of unusual length.
func Split(dst []UserRecord, data []byte, in HashRange) (users []UserRecord, aggregated bool) {
	users, _, aggregated = SplitCounting(dst, data, in)
	return users, aggregated
}

// SplitCounting is Split for those who number user records: total is how many the envelope holds, inside the range or
// not; 0 for a plain record. Numbering must not depend on the range, which can be unknown to one owner of a lease (KCL
// before 2.3 wrote no hash range) and known to the next.
func SplitCounting(dst []UserRecord, data []byte, in HashRange) (users []UserRecord, total int, aggregated bool) {
	message, ok := open(data)
	if !ok {
		return dst, 0, false
	}
	found, ok := survey(message)
	if !ok {
		return dst, 0, false
	}
	if found.records == 0 {
		return dst, 0, true
	}

	// Two tables that fit into the stack for all but unusual envelopes.
	var shortKeys, shortHashKeys [24]entry
	keys, hashKeys := readTables(message, found, in, shortKeys[:0], shortHashKeys[:0])
	dst = slices.Grow(dst, found.records)
	sub := int64(0)
	for f := range fields(message) {
		if !f.is(fieldRecords) {
			continue
		}
		r, _ := parseRecord(f.bytes)
		user := UserRecord{PartitionKey: keys[r.key].text, Data: r.data, Sub: sub}
		sub++
		place := keys[r.key].place
		if r.hasHashKey {
			h := hashKeys[r.hashKey]
			user.ExplicitHashKey = h.text
			if h.place != nowhere {
				place = h.place
			}
		}
		if place == inside {
			dst = append(dst, user)
		}
	}
	return dst, found.records, true
}

// open returns the message of an envelope, or false when data is a plain record. Anybody may send a plain record that
// begins with the magic, so it is the digest that decides. KCL wants at least one byte between magic and digest.
func open(data []byte) (message []byte, ok bool) {
	if len(data) <= len(magic)+md5.Size || string(data[:len(magic)]) != magic {
		return nil, false
	}
	end := len(data) - md5.Size
	message = data[len(magic):end]
	digest := md5.Sum(message)
	return message, bytes.Equal(digest[:], data[end:])
}
