package kinesistest

import (
	"errors"
	"math/bits"
	"strconv"
	"time"
)

// A sequence number is 47 hexadecimal digits, written as a decimal number of 56 digits:
//
//	2 | shard created, seconds: 9 | shard index: 1 | record index: 16 | 0: 2 | record arrived, seconds: 9 | shard index: 8 | version 2: 1
//
// AWS documents none of this, but public samples of eleven years decode this way. The first digit makes all of
// them equally long, so that they compare as text; the record index makes them grow within a shard whatever the clock does.
type sequence struct {
	created int64  // seconds since 1970 at which the shard was created
	shard   uint32 // index of the shard in its stream
	index   uint64 // index of the record in its shard; 0 is the shard's start, which no record has
	arrived int64  // seconds since 1970 at which the record arrived
}

// sequenceDigits is the length of every sequence number.
const sequenceDigits = 56

const (
	sequenceVersion = 2
	// maxRecordIndex is the index in the ending sequence number of a closed shard: the largest a signed 64-bit number can hold.
	maxRecordIndex = 1<<63 - 1
	nineHexDigits  = 1<<36 - 1
	tenToThe19     = 10_000_000_000_000_000_000
)

var errSequence = errors.New("not a sequence number")

func (q sequence) words() (high, middle, low uint64) {
	created, arrived := uint64(q.created)&nineHexDigits, uint64(q.arrived)&nineHexDigits
	high = 2<<56 | created<<20 | uint64(q.shard&0xf)<<16 | q.index>>48
	middle = q.index<<16 | arrived>>28
	low = arrived<<36 | uint64(q.shard)<<4 | sequenceVersion
	return high, middle, low
}

func (q sequence) String() string { return string(q.appendTo(make([]byte, 0, sequenceDigits))) }

// appendTo writes the number in decimal without math/big, as every record put and every replayed record needs one.
func (q sequence) appendTo(b []byte) []byte {
	high, middle, low := q.words()
	var groups [3]uint64 // of 19 digits each, the lowest first
	for i := range groups {
		var rest uint64
		high, rest = bits.Div64(0, high, tenToThe19)
		middle, rest = bits.Div64(rest, middle, tenToThe19)
		low, groups[i] = bits.Div64(rest, low, tenToThe19)
	}
	b = strconv.AppendUint(b, groups[2], 10)
	for _, group := range [2]uint64{groups[1], groups[0]} {
		var digits [19]byte
		for i := len(digits) - 1; i >= 0; i-- {
			digits[i] = byte('0' + group%10)
			group /= 10
		}
		b = append(b, digits[:]...)
	}
	return b
}

// parseSequence is the inverse of String; it refuses every number that String would not write.
func parseSequence(text string) (sequence, error) {
	if len(text) != sequenceDigits {
		return sequence{}, errSequence
	}
	var high, middle, low uint64
	for i := range len(text) {
		digit := text[i] - '0'
		if digit > 9 {
			return sequence{}, errSequence
		}
		var c1, c2, carry uint64
		c1, low = bits.Mul64(low, 10)
		low, carry = bits.Add64(low, uint64(digit), 0)
		c2, middle = bits.Mul64(middle, 10)
		middle, carry = bits.Add64(middle, c1, carry)
		high = high*10 + c2 + carry // 56 digits are at most 187 bits: this cannot overflow
	}
	q := sequence{
		created: int64(high >> 20 & nineHexDigits),
		shard:   uint32(low >> 4),
		index:   high<<48 | middle>>16,
		arrived: int64((middle&0xff)<<28 | low>>36),
	}
	if h, m, l := q.words(); h != high || m != middle || l != low || q.index > maxRecordIndex {
		return sequence{}, errSequence
	}
	return q, nil
}

// start is the shard's StartingSequenceNumber.
func startSequence(created time.Time, shard uint32) sequence {
	return sequence{created: created.Unix(), shard: shard, arrived: created.Unix()}
}
