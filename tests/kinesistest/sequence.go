package kinesistest

import (
	"errors"
	"math/bits"
)

// A sequence number is 47 hexadecimal digits, written as a decimal number of 56 digits:
//
//	2 | shard created, seconds: 9 | shard index: 1 | record index: 16 | 0: 2 | record arrived, seconds: 9 | shard index: 8 | version 2: 1
//
// AWS documents none of this, but public samples of eleven years decode this way. The first digit makes all of
// them equally long, so that they compare as text; the record index makes them grow within a shard whatever the clock does.
type sequence struct {
	created int64  // seconds since 1970: the shard's stamp
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
	// high is below 10^19, so that each division shifts what is left down by a word.
	middle, rest := bits.Div64(high, middle, tenToThe19)
	low, groups[0] = bits.Div64(rest, low, tenToThe19)
	middle, rest = bits.Div64(0, middle, tenToThe19)
	groups[2], groups[1] = bits.Div64(rest, low, tenToThe19)
	_ = middle // 0: what is left is below 10^18
	var digits [sequenceDigits]byte
	putDigits(digits[:18], groups[2])
	putDigits(digits[18:37], groups[1])
	putDigits(digits[37:], groups[0])
	return append(b, digits[:]...)
}

// putDigits fills b with a number's lowest digits, two at a time.
func putDigits(b []byte, n uint64) {
	i := len(b)
	for ; i >= 2; i -= 2 {
		pair := n % 100
		n /= 100
		b[i-2], b[i-1] = digitPairs[2*pair], digitPairs[2*pair+1]
	}
	if i == 1 {
		b[0] = byte('0' + n%10)
	}
}

const digitPairs = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748" +
	"49505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697" + "9899"

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
