package kpl_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kpltest"
)

func envelopeOf(users, distinctKeys, size int) []byte {
	records := make([]kpltest.Record, users)
	for i := range records {
		records[i] = kpltest.Record{PartitionKey: fmt.Sprintf("customer-%06d", i%distinctKeys), Data: bytes.Repeat([]byte{byte(i)}, size)}
	}
	return kpltest.Aggregate(records)
}

func TestAllocations(t *testing.T) {
	plain := bytes.Repeat([]byte("x"), 1024)
	forged := append([]byte{0xf3, 0x89, 0x9a, 0xc2}, plain...)
	broken := kpltest.Seal(wire(keyA, good, bytesField(3, wire(varintField(1, 1), dataX))))
	half := hashRange(t, upper, maxHash)
	users := make([]kpl.UserRecord, 0, 100)
	for name, c := range map[string]struct {
		data []byte
		in   kpl.HashRange
		want float64
	}{
		"plain record":              {plain, half, 0},
		"plain record, magic":       {forged, half, 0},
		"plain record, bad index":   {broken, half, 0},
		"aggregate of 100, 1 key":   {envelopeOf(100, 1, 100), half, 1},
		"aggregate of 100, 20 keys": {envelopeOf(100, 20, 100), half, 1},
	} {
		got := testing.AllocsPerRun(100, func() { kpl.Split(users, c.data, c.in) })
		if got != c.want {
			t.Errorf("%s: %v allocations, want %v", name, got, c.want)
		}
	}
}

func BenchmarkSplit(b *testing.B) {
	in := hashRange(b, "0", lowerLast)
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"plain=1KiB", bytes.Repeat([]byte("x"), 1024)},
		{"users=100,keys=10,size=100", envelopeOf(100, 10, 100)},
		{"users=100,keys=100,size=400", envelopeOf(100, 100, 400)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.data)))
			var users []kpl.UserRecord
			for b.Loop() {
				users, _ = kpl.Split(users[:0], c.data, in)
			}
		})
	}
}
