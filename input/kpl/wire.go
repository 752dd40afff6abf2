package kpl

import (
	"iter"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages, in protobuf's older syntax, where a required field that is missing is a parse failure:
//
//	message AggregatedRecord {
//	  repeated string partition_key_table     = 1;
//	  repeated string explicit_hash_key_table = 2;
//	  repeated Record records                 = 3;
//	}
//	message Record {
//	  required uint64 partition_key_index     = 1;
//	  optional uint64 explicit_hash_key_index = 2;
//	  required bytes  data                    = 3;
//	  repeated Tag    tags                    = 4;
//	}
//	message Tag {
//	  required string key   = 1;
//	  optional string value = 2;
//	}
//
// They are read by hand: generated code would allocate an object per user record and copy its data.
var (
	fieldKeyTable     = kind{1, protowire.BytesType}
	fieldHashKeyTable = kind{2, protowire.BytesType}
	fieldRecords      = kind{3, protowire.BytesType}

	fieldKeyIndex     = kind{1, protowire.VarintType}
	fieldHashKeyIndex = kind{2, protowire.VarintType}
	fieldData         = kind{3, protowire.BytesType}
	fieldTags         = kind{4, protowire.BytesType}

	fieldTagKey = kind{1, protowire.BytesType}
)

// kind is a field's number and wire type. A known number with another wire type is an unknown field to protobuf, which
// skips it; so both are compared.
type kind struct {
	number protowire.Number
	wire   protowire.Type
}

// field is one field of a message: bytes for protowire.BytesType, varint for protowire.VarintType, else just skipped.
type field struct {
	kind
	bytes  []byte
	varint uint64
}

func (f field) is(k kind) bool { return f.kind == k }

// nextField takes one field off a message.
func nextField(message []byte) (f field, rest []byte, ok bool) {
	number, wire, n := protowire.ConsumeTag(message)
	if n < 0 || number > protowire.MaxValidNumber {
		return field{}, nil, false
	}
	message = message[n:]
	f.kind = kind{number, wire}
	switch wire {
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(message)
	case protowire.VarintType:
		f.varint, n = protowire.ConsumeVarint(message)
	default:
		n = protowire.ConsumeFieldValue(number, wire, message)
	}
	if n < 0 {
		return field{}, nil, false
	}
	return f, message[n:], true
}

// fields goes over a message that is known to parse.
func fields(message []byte) iter.Seq[field] {
	return func(yield func(field) bool) {
		for len(message) > 0 {
			f, rest, ok := nextField(message)
			if !ok || !yield(f) {
				return
			}
			message = rest
		}
	}
}

// contents is what a message holds: how many entries and records, and the bytes of all entries together.
type contents struct {
	keys, hashKeys, records int
	text                    int
}

// survey checks a whole message, nested ones and indexes included, before anything is made of it: whether it is an
// envelope at all may turn on its last byte. The tables need not come before the records that point into them.
func survey(message []byte) (found contents, ok bool) {
	var keysNeeded, hashKeysNeeded int
	for len(message) > 0 {
		var f field
		if f, message, ok = nextField(message); !ok {
			return contents{}, false
		}
		switch f.kind {
		case fieldKeyTable:
			found.keys++
			found.text += len(f.bytes)
		case fieldHashKeyTable:
			found.hashKeys++
			found.text += len(f.bytes)
		case fieldRecords:
			r, ok := parseRecord(f.bytes)
			if !ok {
				return contents{}, false
			}
			found.records++
			keysNeeded = max(keysNeeded, r.key+1)
			if r.hasHashKey {
				hashKeysNeeded = max(hashKeysNeeded, r.hashKey+1)
			}
		}
	}
	return found, keysNeeded <= found.keys && hashKeysNeeded <= found.hashKeys
}

// record is a user record as it stands in the message.
type record struct {
	key, hashKey int
	hasHashKey   bool
	data         []byte
}

// parseRecord reads a Record; of a field that is there more than once the last one counts, as protobuf has it. An index
// that no table can reach is refused here, so that the indexes fit an int (KCL cuts them to 32 bits, which can make
// them point at a wrong but existing entry).
func parseRecord(message []byte) (r record, ok bool) {
	hasKey := false
	for len(message) > 0 {
		var f field
		if f, message, ok = nextField(message); !ok {
			return record{}, false
		}
		switch f.kind {
		case fieldKeyIndex, fieldHashKeyIndex:
			if f.varint >= math.MaxInt32 {
				return record{}, false
			}
			if f.kind == fieldKeyIndex {
				r.key, hasKey = int(f.varint), true
			} else {
				r.hashKey, r.hasHashKey = int(f.varint), true
			}
		case fieldData:
			r.data = f.bytes[:len(f.bytes):len(f.bytes)]
		case fieldTags:
			if !validTag(f.bytes) {
				return record{}, false
			}
		}
	}
	return r, hasKey && r.data != nil
}

// validTag tells whether a Tag parses. Nothing reads tags, but to KCL's parser a bad one makes the envelope a plain
// record, and what is plain to KCL must be plain to us: its checkpoints would not fit otherwise.
func validTag(message []byte) (ok bool) {
	hasKey := false
	for len(message) > 0 {
		var f field
		if f, message, ok = nextField(message); !ok {
			return false
		}
		hasKey = hasKey || f.is(fieldTagKey)
	}
	return hasKey
}

// entry is one line of a table.
type entry struct {
	text  string
	place place
}

// place says where a key lies; nowhere is that of an explicit hash key that is no number in the key space.
type place uint8

const (
	nowhere place = iota
	inside
	outside
)

// readTables appends the tables' entries. All texts share one allocation: user records keep their envelope alive
// anyway, so that keys keep each other alive costs nothing more. Keys are hashed once each, not once per user record,
// and not at all when everything belongs.
func readTables(message []byte, found contents, in HashRange, keys, hashKeys []entry) (_, _ []entry) {
	var texts strings.Builder
	texts.Grow(found.text)
	add := func(text []byte) string {
		texts.Write(text)
		return texts.String()[texts.Len()-len(text):]
	}
	for f := range fields(message) {
		switch f.kind {
		case fieldKeyTable:
			e := entry{text: add(f.bytes), place: inside}
			if in != (HashRange{}) {
				e.place = in.place(hashOf(f.bytes))
			}
			keys = append(keys, e)
		case fieldHashKeyTable:
			e := entry{text: add(f.bytes)}
			if h, ok := parseHash(e.text); ok {
				e.place = in.place(h)
			}
			hashKeys = append(hashKeys, e)
		}
	}
	return keys, hashKeys
}

func (r HashRange) place(h hash) place {
	if r.contains(h) {
		return inside
	}
	return outside
}
