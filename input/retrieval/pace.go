package retrieval

import "time"

// Kinesis' read limits of a shard, shared by everybody who polls it: five GetRecords a second and 2 MB a second. A read
// may bring up to 10 MB at once; it is then paid off by refusals until the average is right again.
const (
	shardBytesPerSecond = 2 << 20
	maxReadRecords      = 10_000
)

// nextRead says when a shard may be read again: `spacing` after the last read began, and not before what that read
// brought is paid off at 2 MB/s. Spacing 0 turns pacing off altogether.
func nextRead(began time.Time, brought int64, spacing time.Duration) time.Time {
	if spacing == 0 {
		return began
	}
	paid := time.Duration(brought) * time.Second / shardBytesPerSecond
	return began.Add(max(spacing, paid))
}

// readLimit says how many records a read should ask for: about one batch by mean size, so that the next batch is there
// when the one in flight is acked, and a shard that gets stuck holds a few batches only. The very first read of a shard
// asks for one record: nothing is known yet, and with 64 shards of 1 MiB records anything more is a flood.
func readLimit(meanBytes int64, maxRecords int) int {
	if meanBytes == 0 {
		return 1
	}
	return int(min(max(1, readBytes/meanBytes), int64(maxRecords), maxReadRecords))
}

// readBytes is how much a read should bring, by estimate: one full batch.
const readBytes = 1 << 20

// meanOf moves the running mean of a shard's record charges. It follows growth at once and shrinks slowly: an estimate
// too high costs a smaller read, one too low costs memory beyond the budget.
func meanOf(mean, bytes int64, records int) int64 {
	if records == 0 {
		return mean
	}
	now := bytes / int64(records)
	if now >= mean {
		return now
	}
	return mean - (mean-now)/4
}
