package output

import (
	"strings"
	"testing"

	reference "github.com/spaolacci/murmur3"
	"pgregory.net/rapid"
)

// The values are those of org.apache.pulsar.common.util.Murmur3_32Hash (the low 31 bits of MurmurHash3_x86_32, seed 0), of
// which the first ones are published test vectors of the algorithm.
func TestMurmur3Vectors(t *testing.T) {
	for key, want := range map[string]uint32{
		"":              0,
		"a":             0x3c2569b2,
		"abc":           0xb3dd93fa,
		"test":          0xba6bd213,
		"Hello, world!": 0xc0363e43,
		"The quick brown fox jumps over the lazy dog": 0x2e4ff723,
	} {
		if got := murmur3(key); got != want {
			t.Errorf("murmur3(%q) = %#x, want %#x", key, got, want)
		}
	}
	// From the Java client's own tests of the hash.
	for key, want := range map[string]uint32{"k1": 2110152746, "k2": 1479966664, "key1": 462881061, "key2": 1936800180, "key01": 39696932, "key02": 751761803} {
		if got := murmur3(key) & 0x7fffffff; got != want {
			t.Errorf("masked murmur3(%q) = %d, want %d", key, got, want)
		}
	}
}

// Whatever bytes a key has, the hash must be the one that the client itself uses, here by the library that it uses.
func TestMurmur3IsTheClientsOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 0, 67).Draw(t, "key")
		n := rapid.IntRange(1, 1000).Draw(t, "partitions")
		// Not reference.Sum32, which breaks Go's pointer rules at the end of a key.
		hash := reference.New32()
		_, _ = hash.Write(key)
		if got, want := murmur3(string(key)), hash.Sum32(); got != want {
			t.Fatalf("murmur3(%x) = %#x, want %#x", key, got, want)
		}
		if p := hashMurmur3.partitionOf(string(key), n); p != int(hash.Sum32()&0x7fffffff)%n {
			t.Fatalf("partition %d of %d", p, n)
		}
	})
}

func TestJavaStringHashVectors(t *testing.T) {
	for key, want := range map[string]uint32{"": 0, "hello": 0x5e918d2, "test": 0x364492, "polygenelubricants": 0x80000000} {
		if got := javaStringHash(key); got != want {
			t.Errorf("javaStringHash(%q) = %#x, want %#x", key, got, want)
		}
	}
	// The Go client keeps the sign bit, so this is partition 2 of 7 and not, as with Java, partition 0.
	if p := hashJavaString.partitionOf("polygenelubricants", 7); p != 2 {
		t.Errorf("partition %d", p)
	}
}

func TestRoutingDoesNotAllocate(t *testing.T) {
	key := strings.Repeat("k", 200)
	sum := 0
	if n := testing.AllocsPerRun(100, func() { sum += hashMurmur3.partitionOf(key, 16) }); n != 0 {
		t.Errorf("%v allocations per key", n)
	}
}
