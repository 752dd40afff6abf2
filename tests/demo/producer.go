package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"math"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// What Kinesis takes for a shard in a second.
const (
	shardRecords = 1000
	shardBytes   = 1 << 20
)

const (
	// keyCount is many enough that every shard and every partition gets some.
	keyCount = 200
	// largeEvery is how often a record is a large one, largeTimes as big as the others.
	largeEvery, largeTimes = 100, 16
	// maxPayload stays below the 1 MiB that Kinesis takes for a record and its key.
	maxPayload = 1_000_000
)

// mostRate is the most records a second that Kinesis takes on so many shards, with bytes as the mean size.
func mostRate(shards, bytes int) float64 {
	return float64(shards) * math.Min(shardRecords, shardBytes/float64(max(bytes, 1)))
}

// payload makes the data of record n, of about size bytes: what people put into streams, and what has broken connectors.
func payload(n, size int) []byte {
	if n%largeEvery == largeEvery-1 {
		return allBytes(n, min(largeTimes*size, maxPayload))
	}
	switch n % 8 {
	case 0:
		return []byte{}
	case 1, 2:
		return allBytes(n, size)
	case 3:
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write(text(n, size)) // into memory
		_ = w.Close()
		return b.Bytes()
	default:
		return text(n, size)
	}
}

// text is a JSON document that says something else in each record, with letters that are no ASCII.
func text(n, size int) []byte {
	const filler = "naïve café, 東京, Ωμέγα; "
	b := fmt.Appendf(nil, `{"order":%d,"note":"`, n)
	for len(b) < size-len(filler)-2 {
		b = append(b, filler...)
	}
	return append(b, `"}`...)
}

// allBytes has every value of a byte in turn, from another one on in each record.
func allBytes(n, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(n + i)
	}
	return b
}

// produce puts count records into the stream, evenly at rate a second, until all are in or ctx ends. It tells put about
// each portion.
func produce(ctx context.Context, k *kinesistest.Server, count, size int, rate float64, put func([]kinesistest.Record)) error {
	const period = 20 * time.Millisecond
	tick := time.NewTicker(period)
	defer tick.Stop()
	began := time.Now()
	for sent := 0; sent < count; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		due := min(count, int(time.Since(began).Seconds()*rate)+1)
		portion := make([]kinesistest.Record, 0, due-sent)
		for ; sent < due; sent++ {
			portion = append(portion, kinesistest.Record{PartitionKey: fmt.Sprintf("customer-%03d", sent*7%keyCount), Data: payload(sent, size)})
		}
		if len(portion) == 0 {
			continue
		}
		stored, err := k.PutRecords(streamName, portion...)
		if err != nil {
			return fmt.Errorf("putting records: %w", err)
		}
		put(stored)
	}
	return nil
}
