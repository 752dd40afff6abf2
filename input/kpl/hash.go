package kpl

import (
	"cmp"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// ErrHashKey is returned for a hash key that is no decimal number from 0 to 2^128−1.
var ErrHashKey = errors.New("not a decimal number from 0 to 2^128-1")

// hash is a place in the key space 0 … 2^128−1, high half first.
type hash [2]uint64

// hashOf is the place of a partition key: its MD5, as Kinesis has it.
func hashOf(key []byte) hash {
	sum := md5.Sum(key)
	return hash{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:])}
}

// parseHash reads a decimal number. Kinesis itself refuses leading zeros; inside an envelope nobody has checked, and
// KCL's parser allows them. KCL's also takes a sign and the digits of other scripts, which no producer writes.
func parseHash(digits string) (h hash, ok bool) {
	for i := range len(digits) {
		d := uint64(digits[i]) - '0'
		if d > 9 {
			return hash{}, false
		}
		high, low := bits.Mul64(h[1], 10)
		low, carry := bits.Add64(low, d, 0)
		over, up := bits.Mul64(h[0], 10)
		up, overToo := bits.Add64(up, high, carry)
		if over != 0 || overToo != 0 {
			return hash{}, false
		}
		h = hash{up, low}
	}
	return h, digits != ""
}

func (h hash) compare(other hash) int {
	if c := cmp.Compare(h[0], other[0]); c != 0 {
		return c
	}
	return cmp.Compare(h[1], other[1])
}

// HashRange is a shard's part of the key space, both ends included. The zero value is the whole key space: everything
// belongs. Values may be compared with ==.
type HashRange struct {
	first hash
	// behind is how much of the key space lies behind the last hash that belongs. Holding that instead of the last hash
	// is what makes the zero value the whole key space, without taking the place of the range from 0 to 0.
	behind hash
}

// ParseHashRange reads the ends of a shard's hash range as ListShards tells them and lease items hold them: decimal,
// 0 to 2^128−1, both included. When both are empty everything belongs: leases written by KCL before 2.3 have no range.
// Errors wrap ErrHashKey when an end is no hash key.
func ParseHashRange(start, end string) (HashRange, error) {
	if start == "" && end == "" {
		return HashRange{}, nil
	}
	first, ok := parseHash(start)
	if !ok {
		return HashRange{}, fmt.Errorf("parsing starting hash key %q: %w", start, ErrHashKey)
	}
	last, ok := parseHash(end)
	if !ok {
		return HashRange{}, fmt.Errorf("parsing ending hash key %q: %w", end, ErrHashKey)
	}
	if first.compare(last) > 0 {
		return HashRange{}, fmt.Errorf("parsing hash range: starting hash key %s is above ending hash key %s", start, end)
	}
	return HashRange{first: first, behind: hash{^last[0], ^last[1]}}, nil
}

// Contains tells whether a record belongs: by its explicit hash key if that is a number in the key space, otherwise by
// the MD5 of its partition key.
func (r HashRange) Contains(partitionKey, explicitHashKey string) bool {
	h, ok := parseHash(explicitHashKey)
	if !ok {
		h = hashOf([]byte(partitionKey))
	}
	return r.contains(h)
}

func (r HashRange) contains(h hash) bool {
	last := hash{^r.behind[0], ^r.behind[1]}
	return r.first.compare(h) <= 0 && h.compare(last) <= 0
}
