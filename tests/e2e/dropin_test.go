package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kpltest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// allBytes holds every byte once.
func allBytes() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// awkwardValues are the payloads that the Java connector mangles, refuses or makes nothing of.
func awkwardValues(t *testing.T) map[string][]byte {
	t.Helper()
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write([]byte(strings.Repeat("a log line\n", 1000)))
	must(t, err)
	must(t, z.Close())
	return map[string][]byte{
		"text":        []byte("grün, 緑, зелёный"),
		"every byte":  allBytes(),
		"broken utf8": {0x1f, 0x8b, 0x08, 0x00, 0xff, 0x61, 0xc3, 0x28},
		"empty":       {},
		"one zero":    {0},
		"gzip":        zipped.Bytes(),
		"large":       bytes.Repeat([]byte("0123456789abcdef"), 1<<16-1), // with its key just below Kinesis' 1 MiB
		// What looks like an aggregated record and is none.
		"magic only":    {0xf3, 0x89, 0x9a, 0xc2},
		"broken digest": append(kpltest.Aggregate([]kpltest.Record{{PartitionKey: "k", Data: []byte("x")}})[:10:10], 1, 2, 3),
	}
}

func TestDropInValuesKeysAndPropertiesAreTheRecords(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("KMS=%v", encrypted), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, 4)
			if encrypted {
				must(t, w.kinesis.SetKeyID(streamName, "alias/aws/kinesis"))
			}
			for name, value := range awkwardValues(t) {
				for _, key := range []string{name, "日本語 key with = and ,", strings.Repeat("k", 256)} {
					_, err := w.kinesis.Put(streamName, key, value)
					must(t, err)
				}
			}
			w.start(config{})
			w.arrived(w.total())
			w.account().balanced().once()
			for _, m := range w.broker.Messages(topic) {
				if m.OrderingKey != nil || !m.EventTime.IsZero() || m.KeyIsBase64 {
					t.Fatalf("the Java connector sets neither ordering key nor event time: %+v", m)
				}
				if m.Compression != pulsartest.LZ4 {
					t.Fatalf("compression is %s", m.Compression)
				}
			}
		})
	}
}

// murmur3 is the 32-bit Murmur3 hash of Pulsar's clients, seed 0, with the sign bit off.
func murmur3(key string) uint32 {
	const c1, c2 = 0xcc9e2d51, 0x1b873593
	rotate := func(x uint32, by int) uint32 { return x<<by | x>>(32-by) }
	var h uint32
	data := []byte(key)
	for ; len(data) >= 4; data = data[4:] {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		h = rotate(h^rotate(k*c1, 15)*c2, 13)*5 + 0xe6546b64
	}
	var k uint32
	for i := len(data) - 1; i >= 0; i-- {
		k = k<<8 | uint32(data[i])
	}
	h ^= rotate(k*c1, 15) * c2
	h ^= uint32(len(key))
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return (h ^ h>>16) & 0x7fffffff
}

func TestDropInPartitionsFollowMurmur3(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 7)
	for i := range 300 {
		_, err := w.kinesis.Put(streamName, strings.Repeat("ключ", i%5)+fmt.Sprint("k", i), []byte("x"))
		must(t, err)
	}
	w.start(config{})
	w.arrived(300)
	used := map[int]bool{}
	for _, m := range w.broker.Messages(topic) {
		if want := int(murmur3(m.Key) % 7); m.Partition != want {
			t.Errorf("key %q is in partition %d, not %d", m.Key, m.Partition, want)
		}
		used[m.Partition] = true
	}
	if len(used) != 7 {
		t.Errorf("used partitions: %v", slices.Sorted(maps.Keys(used)))
	}
	w.account().balanced().once()
}

func TestDropInShardIDKeyMode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 4)
	w.put(90, 30)
	w.start(config{input: map[string]string{"messageKeyMode": "SHARD_ID", "kinesisRecordProperties": "kinesis.partition.key,kinesis.shard.id,kinesis.sequence.number"}})
	w.arrived(90)
	shardOf := map[string]string{}
	for shard, list := range w.kinesis.Records(streamName) {
		for _, r := range list {
			shardOf[r.SequenceNumber] = shard
		}
	}
	partitionOf := map[string]int{}
	for _, m := range w.broker.Messages(topic) {
		shard := shardOf[m.Properties[propertySequence]]
		if m.Key != shard || m.Properties["kinesis.shard.id"] != shard || !strings.HasPrefix(m.Properties[propertyKey], "key-") {
			t.Errorf("key %q, properties %v in shard %s", m.Key, m.Properties, shard)
		}
		if p, ok := partitionOf[shard]; ok && p != m.Partition {
			t.Errorf("shard %s is in partitions %d and %d", shard, p, m.Partition)
		}
		partitionOf[shard] = m.Partition
	}
}

func TestDropInProperties(t *testing.T) {
	t.Parallel()
	all := []string{propertyArrival, propertyEncryption, "kinesis.millis.behind.latest", propertyKey, propertySequence, "kinesis.shard.id"}
	for name, tc := range map[string]struct {
		field string
		want  []string
	}{
		"subset": {`" kinesis.shard.id , kinesis.partition.key,"`, []string{propertyKey, "kinesis.shard.id"}},
		"none":   {`""`, nil},
		"six":    {strings.Join(all, ","), all},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1, 1)
			w.put(5, 5)
			w.start(config{input: map[string]string{"kinesisRecordProperties": tc.field}})
			w.eventually("five messages", func() bool { return len(w.broker.Messages(topic)) == 5 })
			records := w.kinesis.Records(streamName)["shardId-000000000000"]
			for i, m := range w.broker.Messages(topic) {
				if got := slices.Sorted(maps.Keys(m.Properties)); !slices.Equal(got, tc.want) {
					t.Fatalf("properties %v, want %v", got, tc.want)
				}
				for name, want := range map[string]string{
					propertyArrival: instant(records[i].Arrival), propertyKey: records[i].PartitionKey, propertySequence: records[i].SequenceNumber,
					propertyEncryption: "NONE", "kinesis.shard.id": "shardId-000000000000",
				} {
					if got, has := m.Properties[name]; has && got != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
				if behind, has := m.Properties["kinesis.millis.behind.latest"]; has {
					if _, ok := new(big.Int).SetString(behind, 10); !ok {
						t.Errorf("millis behind latest is %q", behind)
					}
				}
			}
		})
	}
}

func TestAggregatedRecordsArriveAsTheirUserRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 4)
	var want []string
	for i := range 40 {
		var users []kpltest.Record
		for k := range 25 {
			value := fmt.Sprintf("aggregate %d user record %d", i, k)
			users = append(users, kpltest.Record{PartitionKey: fmt.Sprint("user-", k%7), Data: []byte(value)})
			want = append(want, value)
		}
		_, err := w.kinesis.PutRecords(streamName, kinesistest.Record{PartitionKey: "a", Data: kpltest.Aggregate(users)}, kinesistest.Record{PartitionKey: "plain", Data: fmt.Append(nil, "plain ", i)})
		must(t, err)
		want = append(want, fmt.Sprint("plain ", i))
	}
	p := w.spawn(config{quick: true, input: map[string]string{"maxRecords": "5"}, pulsar: map[string]string{"producer_batching": "{ max_messages: 10 }"}})
	values := func() map[string]int {
		copies := map[string]int{}
		for _, m := range w.broker.Messages(topic) {
			copies[string(m.Payload)]++
		}
		return copies
	}
	// Killed somewhere inside: the resume must neither skip the rest of an aggregate nor deliver it as a whole.
	w.eventually("a third of it", func() bool { return len(values()) > len(want)/3 })
	p.kill()
	w.start(config{quick: true})
	w.eventually("all of it", func() bool { return len(values()) >= len(want) })
	w.settled() // what the kill repeats may be half way, with its copies out of order
	got := values()
	for _, value := range want {
		if got[value] == 0 {
			t.Fatalf("lost: %s", value)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	last := map[string]int{}
	for i, m := range w.broker.Messages(topic) {
		if want := m.Key; want != "plain" && !strings.HasPrefix(want, "user-") {
			t.Fatalf("key %q", m.Key)
		}
		last[string(m.Payload)] = i
	}
	reached := map[string]int{}
	for i, value := range want {
		key := "plain"
		if !strings.HasPrefix(value, "plain") {
			key = fmt.Sprint("user-", i%26%7)
		}
		if at := last[value]; at < reached[key] {
			t.Fatalf("%q lies before its predecessor", value)
		} else {
			reached[key] = at
		}
	}
}
