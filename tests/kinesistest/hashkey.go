package kinesistest

import (
	"bytes"
	"crypto/md5"
	"math/big"
)

// hashKey is a point in the key space 0 … 2^128−1, big-endian, so that hash keys compare as bytes.
type hashKey [16]byte

var keySpace = new(big.Int).Lsh(big.NewInt(1), 128)

// partitionHash is where a partition key lies in the key space: its MD5.
func partitionHash(partitionKey string) hashKey { return md5.Sum([]byte(partitionKey)) }

// parseHashKey reads a decimal hash key; false when it is not one or lies outside the key space.
func parseHashKey(text string) (hashKey, bool) {
	n, ok := new(big.Int).SetString(text, 10)
	if !ok || n.Sign() < 0 || n.Cmp(keySpace) >= 0 || n.String() != text {
		return hashKey{}, false
	}
	return toHashKey(n), true
}

func toHashKey(n *big.Int) (k hashKey) {
	n.FillBytes(k[:])
	return k
}

func (k hashKey) int() *big.Int             { return new(big.Int).SetBytes(k[:]) }
func (k hashKey) String() string            { return k.int().String() }
func (k hashKey) compare(other hashKey) int { return bytes.Compare(k[:], other[:]) }

// hashRange is a shard's part of the key space, both ends belonging to it.
type hashRange struct{ first, last hashKey }

func (r hashRange) contains(k hashKey) bool { return r.first.compare(k) <= 0 && k.compare(r.last) <= 0 }

// evenRanges tiles the key space with n ranges that differ in size by the remainder only, which AWS gives to the last one.
func evenRanges(n int) []hashRange {
	step := new(big.Int).Div(keySpace, big.NewInt(int64(n)))
	ranges := make([]hashRange, n)
	for i := range ranges {
		first := new(big.Int).Mul(step, big.NewInt(int64(i)))
		next := new(big.Int).Add(first, step)
		if i == n-1 {
			next = keySpace
		}
		ranges[i] = hashRange{toHashKey(first), toHashKey(new(big.Int).Sub(next, big.NewInt(1)))}
	}
	return ranges
}
