// Package kpltest makes records as the Kinesis Producer Library does, for tests that feed them to a stream.
package kpltest

import (
	"crypto/md5"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Record is one user record to be aggregated. An empty ExplicitHashKey is none.
type Record struct {
	PartitionKey, ExplicitHashKey string
	Data                          []byte
}

// Aggregate packs user records into one Kinesis record, in their order. Every distinct key has one entry in its table,
// in order of first use, as the library has it. Without records the result is nothing that Kinesis' readers take for
// an aggregate; the library never sends that.
func Aggregate(records []Record) []byte {
	keys, hashKeys := table{field: 1}, table{field: 2}
	var body, message []byte
	for _, r := range records {
		body = protowire.AppendTag(body[:0], 1, protowire.VarintType)
		body = protowire.AppendVarint(body, keys.index(r.PartitionKey))
		if r.ExplicitHashKey != "" {
			body = protowire.AppendTag(body, 2, protowire.VarintType)
			body = protowire.AppendVarint(body, hashKeys.index(r.ExplicitHashKey))
		}
		body = protowire.AppendTag(body, 3, protowire.BytesType)
		body = protowire.AppendBytes(body, r.Data)
		message = protowire.AppendTag(message, 3, protowire.BytesType)
		message = protowire.AppendBytes(message, body)
	}
	return Seal(slices.Concat(keys.wire, hashKeys.wire, message))
}

// Seal puts a message between magic and digest, whatever it is: for tests that need a message the library never writes.
func Seal(message []byte) []byte {
	digest := md5.Sum(message)
	sealed := append([]byte{0xf3, 0x89, 0x9a, 0xc2}, message...)
	return append(sealed, digest[:]...)
}

// table gives every distinct key the index of its entry.
type table struct {
	field   protowire.Number
	indexes map[string]uint64
	wire    []byte
}

// index returns a key's index; a key without an entry gets one.
func (t *table) index(key string) uint64 {
	if at, ok := t.indexes[key]; ok {
		return at
	}
	if t.indexes == nil {
		t.indexes = map[string]uint64{}
	}
	at := uint64(len(t.indexes))
	t.indexes[key] = at
	t.wire = protowire.AppendTag(t.wire, t.field, protowire.BytesType)
	t.wire = protowire.AppendString(t.wire, key)
	return at
}
