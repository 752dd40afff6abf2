package pulsartest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"time"
)

const magicChecksum = 0x0e01

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errChecksum = errors.New("checksum mismatch")
)

// metadata is the part of MessageMetadata that counts here. Slices point into the frame.
type metadata struct {
	raw              []byte
	producerName     []byte
	sequenceID       uint64
	publishTime      uint64
	key              []byte // nil: none
	keyIsBase64      bool
	orderingKey      []byte
	compression      Compression
	uncompressedSize uint32
	batched          bool
	numMessages      int
	eventTime        uint64
	null             bool
	nullKey          bool
	uuid             []byte
	chunks           int
	chunkID          int
	chunkTotalSize   int
}

// verifyChecksum cuts the checksum off a SEND's payload and reports whether it is right. A frame without one is
// accepted, as the broker does for clients from before it existed.
func verifyChecksum(b []byte) ([]byte, error) {
	if len(b) < 2 || binary.BigEndian.Uint16(b) != magicChecksum {
		return b, nil
	}
	if len(b) < 6 {
		return nil, fmt.Errorf("%w: checksum cut off", errMalformed)
	}
	want := binary.BigEndian.Uint32(b[2:])
	b = b[6:]
	if got := crc32.Checksum(b, castagnoli); got != want {
		return nil, fmt.Errorf("%w: received %08x, computed %08x", errChecksum, want, got)
	}
	return b, nil
}

// sized cuts a length-prefixed part off the front.
func sized(b []byte) (part, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("%w: size cut off", errMalformed)
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, fmt.Errorf("%w: part of %d bytes, %d left", errMalformed, n, len(b)-4)
	}
	return b[4 : 4+n], b[4+n:], nil
}

// decodeMetadata reads [size:4][MessageMetadata] and returns what follows: the payload, still compressed.
func decodeMetadata(b []byte) (metadata, []byte, error) {
	raw, payload, err := sized(b)
	if err != nil {
		return metadata{}, nil, fmt.Errorf("reading message metadata: %w", err)
	}
	m := metadata{raw: raw, numMessages: 1}
	r := fieldReader{rest: raw}
	for r.next() {
		switch r.number {
		case 1:
			m.producerName = r.bytes()
		case 2:
			m.sequenceID = r.uint()
		case 3:
			m.publishTime = r.uint()
		case 6:
			m.key = r.bytes()
		case 8:
			m.compression = Compression(int32(r.uint()))
		case 9:
			m.uncompressedSize = uint32(r.uint())
		case 11:
			// The mere presence of the count makes an entry a batch, even one of a single message.
			m.batched, m.numMessages = true, int(int32(r.uint()))
		case 12:
			m.eventTime = r.uint()
		case 17:
			m.keyIsBase64 = r.uint() != 0
		case 18:
			m.orderingKey = r.bytes()
		case 25:
			m.null = r.uint() != 0
		case 26:
			m.uuid = r.bytes()
		case 27:
			m.chunks = int(int32(r.uint()))
		case 28:
			m.chunkTotalSize = int(int32(r.uint()))
		case 29:
			m.chunkID = int(int32(r.uint()))
		case 30:
			m.nullKey = r.uint() != 0
		}
	}
	if r.err != nil {
		return metadata{}, nil, fmt.Errorf("reading message metadata: %w", r.err)
	}
	return m, payload, nil
}

// View is one message as it lies in the broker's read buffer. It is what a sink gets: nothing of it may be kept when the
// callback returns.
type View struct {
	// Topic is the full name of the topic, without the partition; Partition is -1 if it has none.
	Topic     string
	Partition int
	// LedgerID and EntryID are the place in the topic, which grows within a partition. Only a Sink is told them here.
	LedgerID, EntryID int64
	// Key is nil if the message has none.
	Key         []byte
	KeyIsBase64 bool
	// OrderingKey is nil if the message has none.
	OrderingKey []byte
	Payload     []byte
	// Null marks a message without a value (a tombstone), as opposed to one of zero bytes.
	Null bool
	// EventTimeMillis is 0 if the message has none.
	EventTimeMillis   uint64
	PublishTimeMillis uint64
	ProducerName      []byte
	SequenceID        uint64
	// BatchIndex is -1 for a message outside a batch, and BatchSize 0.
	BatchIndex  int
	BatchSize   int
	Compression Compression

	properties      []byte // the metadata that holds them
	propertiesField int
}

// Properties ranges over the message's properties in the order of the wire.
func (v *View) Properties() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		r := fieldReader{rest: v.properties}
		for r.next() {
			if int(r.number) != v.propertiesField {
				continue
			}
			key, value, err := keyValue(r.bytes())
			if err != nil || !yield(key, value) {
				return
			}
		}
	}
}

// decodeMessages calls visit with each message of an entry, in order. The payload is the entry's, decompressed. A batch
// must hold exactly as many messages as it names.
func decodeMessages(m *metadata, payload []byte, visit func(*View)) error {
	v := View{
		ProducerName:      m.producerName,
		PublishTimeMillis: m.publishTime,
		Compression:       m.compression,
	}
	if !m.batched {
		v.Key, v.KeyIsBase64, v.OrderingKey = m.key, m.keyIsBase64, m.orderingKey
		v.Payload, v.Null = payload, m.null
		v.EventTimeMillis, v.SequenceID = m.eventTime, m.sequenceID
		v.BatchIndex = -1
		v.properties, v.propertiesField = m.raw, 4
		if m.nullKey {
			v.Key = nil
		}
		visit(&v)
		return nil
	}
	v.BatchSize, v.propertiesField = m.numMessages, 1
	for i := range m.numMessages {
		v.BatchIndex = i
		rest, err := decodeSingle(&v, m, payload)
		if err != nil {
			return fmt.Errorf("reading message %d of a batch of %d: %w", i, m.numMessages, err)
		}
		payload = rest
		visit(&v)
	}
	if len(payload) > 0 {
		return fmt.Errorf("%w: %d bytes behind a batch of %d", errMalformed, len(payload), m.numMessages)
	}
	return nil
}

// decodeSingle reads [size:4][SingleMessageMetadata][payload] into v and returns what follows.
func decodeSingle(v *View, m *metadata, b []byte) ([]byte, error) {
	raw, rest, err := sized(b)
	if err != nil {
		return nil, err
	}
	v.Key, v.KeyIsBase64, v.OrderingKey, v.Null, v.EventTimeMillis = nil, false, nil, false, 0
	v.SequenceID = m.sequenceID + uint64(v.BatchIndex)
	v.properties = raw
	size, sizeSeen, nullKey := int32(0), false, false
	r := fieldReader{rest: raw}
	for r.next() {
		switch r.number {
		case 2:
			v.Key = r.bytes()
		case 3:
			size, sizeSeen = int32(r.uint()), true
		case 5:
			v.EventTimeMillis = r.uint()
		case 6:
			v.KeyIsBase64 = r.uint() != 0
		case 7:
			v.OrderingKey = r.bytes()
		case 8:
			v.SequenceID = r.uint()
		case 9:
			v.Null = r.uint() != 0
		case 10:
			nullKey = r.uint() != 0
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	if nullKey {
		v.Key = nil
	}
	if !sizeSeen || size < 0 || int(size) > len(rest) {
		return nil, fmt.Errorf("%w: payload size %d, %d bytes left", errMalformed, size, len(rest))
	}
	v.Payload = rest[:size]
	return rest[size:], nil
}

// Message is one stored message.
type Message struct {
	// Topic is the full name of the topic, without the partition; Partition is -1 if it has none.
	Topic     string
	Partition int
	// Key is meaningful if HasKey: a key may be present and empty.
	Key    string
	HasKey bool
	// KeyIsBase64 says that a client with byte keys encoded it.
	KeyIsBase64 bool
	// OrderingKey is nil if the message has none.
	OrderingKey []byte
	Payload     []byte
	// Null marks a message without a value (a tombstone), as opposed to one of zero bytes.
	Null bool
	// Properties is nil if the message has none.
	Properties map[string]string
	// EventTime is the zero time if the message has none. Both times have millisecond precision.
	EventTime    time.Time
	PublishTime  time.Time
	ProducerName string
	SequenceID   uint64
	// LedgerID and EntryID are those of the receipt. All messages of a batch share them.
	LedgerID int64
	EntryID  int64
	// BatchIndex is -1 for a message outside a batch, and BatchSize 0.
	BatchIndex  int
	BatchSize   int
	Compression Compression
}

// message copies the view into a Message; the payload is still the view's.
func (v *View) message() Message {
	m := Message{
		Key: string(v.Key), HasKey: v.Key != nil, KeyIsBase64: v.KeyIsBase64,
		OrderingKey: v.OrderingKey,
		Payload:     v.Payload, Null: v.Null,
		PublishTime:  time.UnixMilli(int64(v.PublishTimeMillis)),
		ProducerName: string(v.ProducerName), SequenceID: v.SequenceID,
		BatchIndex: v.BatchIndex, BatchSize: v.BatchSize,
		Compression: v.Compression,
	}
	if v.EventTimeMillis != 0 {
		m.EventTime = time.UnixMilli(int64(v.EventTimeMillis))
	}
	for key, value := range v.Properties() {
		if m.Properties == nil {
			m.Properties = map[string]string{}
		}
		m.Properties[string(key)] = string(value)
	}
	return m
}

// Entry is one stored SEND: a single message, a batch, or a chunk of a message.
type Entry struct {
	Topic     string
	Partition int
	LedgerID  int64
	EntryID   int64
	// ProducerName and SequenceID are those of the SEND: of the first message, for a batch of the Go client.
	ProducerName string
	SequenceID   uint64
	// Messages is the number of messages that the metadata names; Batched tells a batch of one from a single message.
	Messages    int
	Batched     bool
	Compression Compression
	// Size is the stored size in bytes, metadata and compressed payload; UncompressedSize is the payload's.
	Size             int
	UncompressedSize int
	// Chunks is the number of chunks of the message this entry is one of, 0 if it is whole.
	Chunks  int
	ChunkID int
}
