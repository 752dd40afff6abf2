package kinesistest

import "time"

// The limits of one shard per second.
const (
	readCallsPerSecond    = 5
	readBytesPerSecond    = 2 << 20
	writeRecordsPerSecond = 1000
	writeBytesPerSecond   = 1 << 20
)

// bucket is a token bucket of one second's worth. It may run into debt, which is paid off before anything more is let through:
// that is how AWS answers 10 MB at once and then refuses that shard's readers for five seconds.
type bucket struct {
	level float64
	at    time.Time // when level was true; zero for a full bucket that was never used
}

func (b *bucket) refill(now time.Time, perSecond float64) {
	if b.at.IsZero() {
		b.level = perSecond
	} else if d := now.Sub(b.at); d > 0 {
		b.level = min(perSecond, b.level+d.Seconds()*perSecond)
	}
	b.at = now
}

// readLimit is shared by everyone who polls the shard.
type readLimit struct{ calls, bytes bucket }

// admit takes one call, or tells that the shard's limit is reached. The bytes of the answer are charged afterwards.
func (l *readLimit) admit(now time.Time) bool {
	l.calls.refill(now, readCallsPerSecond)
	l.bytes.refill(now, readBytesPerSecond)
	if l.calls.level < 1 || l.bytes.level <= 0 {
		return false
	}
	l.calls.level--
	return true
}

func (l *readLimit) charge(size int) { l.bytes.level -= float64(size) }

type writeLimit struct{ records, bytes bucket }

// admit takes one record of size bytes whole, or not at all.
func (l *writeLimit) admit(now time.Time, size int) bool {
	l.records.refill(now, writeRecordsPerSecond)
	l.bytes.refill(now, writeBytesPerSecond)
	// A record larger than a second's worth (up to 10 MiB) is let through by a full bucket and leaves it in debt.
	enough := l.bytes.level >= float64(size) || l.bytes.level >= writeBytesPerSecond
	if l.records.level < 1 || !enough {
		return false
	}
	l.records.level--
	l.bytes.level -= float64(size)
	return true
}
