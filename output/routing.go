package output

import "math/bits"

// hashingScheme chooses the partition of a key. It must never change for a topic that is in use: the same key would
// land in another partition from then on.
type hashingScheme string

const (
	// hashMurmur3 is what Pulsar IO's own sinks and sources use, so the Java Kinesis connector too.
	hashMurmur3 hashingScheme = "murmur3_32"
	// hashJavaString is the default of the Go and Java clients, so of Redpanda Connect's pulsar output.
	hashJavaString hashingScheme = "java_string"
)

// partitionOf returns the partition, in [0, n), of a non-empty routing key. n must be positive.
func (s hashingScheme) partitionOf(key string, n int) int {
	if n == 1 {
		return 0
	}
	if s == hashJavaString {
		return int(javaStringHash(key) % uint32(n))
	}
	// Java has no unsigned remainder, so Pulsar drops the sign bit before it divides.
	return int(murmur3(key) & 0x7fffffff % uint32(n))
}

// murmur3 is MurmurHash3_x86_32 with seed 0 over the key's UTF-8 bytes, without an allocation.
func murmur3(key string) uint32 {
	const c1, c2 = 0xcc9e2d51, 0x1b873593
	var h uint32
	n := len(key)
	i := 0
	for ; i+4 <= n; i += 4 {
		k := uint32(key[i]) | uint32(key[i+1])<<8 | uint32(key[i+2])<<16 | uint32(key[i+3])<<24
		h ^= bits.RotateLeft32(k*c1, 15) * c2
		h = bits.RotateLeft32(h, 13)*5 + 0xe6546b64
	}
	var k uint32
	switch n - i {
	case 3:
		k = uint32(key[i+2]) << 16
		fallthrough
	case 2:
		k |= uint32(key[i+1]) << 8
		fallthrough
	case 1:
		k |= uint32(key[i])
		h ^= bits.RotateLeft32(k*c1, 15) * c2
	}
	h ^= uint32(n)
	h ^= h >> 16
	h *= 0x85ebca6b
	h ^= h >> 13
	h *= 0xc2b2ae35
	return h ^ h>>16
}

// javaStringHash is String.hashCode as pulsar-client-go computes it: over UTF-8 bytes, where Java has UTF-16 units, and
// with the sign bit kept. It exists to stay in the partitions that a Redpanda Connect config has used so far, and that
// one runs on the Go client.
func javaStringHash(key string) uint32 {
	var h uint32
	for i := range len(key) {
		h = 31*h + uint32(key[i])
	}
	return h
}
