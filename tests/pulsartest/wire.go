package pulsartest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// framePadding is what the broker allows a frame beyond its maxMessageSize, for the command and the metadata.
const framePadding = 10 * 1024

var (
	// errFrameTooLong is returned for a frame above the limit. The real broker answers it with nothing but a closed
	// connection, so a client that sends one reconnects and sends it again, for ever.
	errFrameTooLong = errors.New("frame exceeds maxMessageSize and its padding")
	errMalformed    = errors.New("malformed frame")
)

// readFrame reads one frame, [size:4][frame], and returns the frame without its size. It uses buf if that is large
// enough. limit is the largest frame in bytes.
func readFrame(r *bufio.Reader, buf []byte, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if uint64(size) > uint64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", errFrameTooLong, size, limit)
	}
	if cap(buf) < int(size) {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return buf, nil
}

// splitFrame parts a frame, [command size:4][command][headers and payload], into its command and the rest, which only
// SEND has.
func splitFrame(frame []byte) (command, rest []byte, err error) {
	if len(frame) < 4 {
		return nil, nil, fmt.Errorf("%w: %d bytes are too few for a command size", errMalformed, len(frame))
	}
	size := binary.BigEndian.Uint32(frame)
	if uint64(size) > uint64(len(frame)-4) {
		return nil, nil, fmt.Errorf("%w: command of %d bytes in a frame of %d", errMalformed, size, len(frame))
	}
	return frame[4 : 4+size], frame[4+size:], nil
}

// fieldReader walks over the fields of one protobuf message.
//
// The client's generated types live in an internal package; a generator of our own would bring a second registration of
// the same names into the process, which the protobuf runtime refuses. So the dozen messages are read by hand.
type fieldReader struct {
	rest   []byte
	number protowire.Number
	kind   protowire.Type
	value  uint64 // of a varint or fixed field
	data   []byte // of a length-delimited field: a slice into the message
	err    error
}

// next moves to the next field and reports whether there is one. After the last, err tells whether the end was clean.
func (r *fieldReader) next() bool {
	if r.err != nil || len(r.rest) == 0 {
		return false
	}
	number, kind, n := protowire.ConsumeTag(r.rest)
	if n < 0 {
		r.err = fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(n))
		return false
	}
	r.rest = r.rest[n:]
	r.number, r.kind, r.value, r.data = number, kind, 0, nil
	switch kind {
	case protowire.VarintType:
		r.value, n = protowire.ConsumeVarint(r.rest)
	case protowire.BytesType:
		r.data, n = protowire.ConsumeBytes(r.rest)
	case protowire.Fixed64Type:
		r.value, n = protowire.ConsumeFixed64(r.rest)
	case protowire.Fixed32Type:
		var v uint32
		v, n = protowire.ConsumeFixed32(r.rest)
		r.value = uint64(v)
	default:
		n = protowire.ConsumeFieldValue(number, kind, r.rest)
	}
	if n < 0 {
		r.err = fmt.Errorf("%w: field %d: %w", errMalformed, number, protowire.ParseError(n))
		return false
	}
	r.rest = r.rest[n:]
	return true
}

// uint is the value of a varint field; any other wire type is an error.
func (r *fieldReader) uint() uint64 {
	if r.kind != protowire.VarintType && r.err == nil {
		r.err = fmt.Errorf("%w: field %d has wire type %d instead of a varint", errMalformed, r.number, r.kind)
	}
	return r.value
}

// bytes is the value of a length-delimited field; any other wire type is an error. It is never nil.
func (r *fieldReader) bytes() []byte {
	if r.kind != protowire.BytesType && r.err == nil {
		r.err = fmt.Errorf("%w: field %d has wire type %d instead of a length", errMalformed, r.number, r.kind)
	}
	if r.data == nil {
		return []byte{}
	}
	return r.data
}

// keyValue reads a KeyValue message.
func keyValue(b []byte) (key, value []byte, err error) {
	r := fieldReader{rest: b}
	for r.next() {
		switch r.number {
		case 1:
			key = r.bytes()
		case 2:
			value = r.bytes()
		}
	}
	return key, value, r.err
}
