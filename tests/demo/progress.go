package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// ledger counts what goes in and what comes out while the demo runs. It is for the display and for the moments at which
// something is to happen; the account at the end goes by other sources.
type ledger struct {
	mu struct {
		sync.Mutex
		put       int
		putBytes  int64
		shards    map[string]int          // records by shard
		numbers   map[string]int          // by sequence number, the number of the record in its shard, from 1
		delivered map[recordName]struct{} // records with a copy in the topic
		messages  int
		bytes     int64 // payload of the messages
	}
}

func newLedger(shards []kinesistest.Shard) *ledger {
	l := &ledger{}
	l.mu.shards = map[string]int{}
	for _, s := range shards {
		l.mu.shards[s.ID] = 0
	}
	l.mu.numbers = map[string]int{}
	l.mu.delivered = map[recordName]struct{}{}
	return l
}

// put notes records that the stream has taken.
func (l *ledger) put(records []kinesistest.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		l.mu.put++
		l.mu.putBytes += int64(len(r.Data))
		l.mu.shards[r.ShardID]++
		l.mu.numbers[r.ShardID+r.SequenceNumber] = l.mu.shards[r.ShardID]
	}
}

// arrived notes a message that was seen in the topic.
func (l *ledger) arrived(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.messages++
	l.mu.bytes += int64(len(m.Payload))
	l.mu.delivered[recordName{m.Properties[propertySequence], m.Properties[propertyKey]}] = struct{}{}
}

// status is one moment of the demo.
type status struct {
	Put       int   // records in the stream
	Delivered int   // of them in the topic
	Bytes     int64 // payload of all messages in the topic
	Shards    []shardStatus
}

// shardStatus is one shard in that moment, with what the lease table says of it.
type shardStatus struct {
	Shard      string
	Put        int
	Checkpoint int    // records that the stored checkpoint has passed
	Owner      string // of the lease; "" for nobody
}

// status joins the counts with the lease table as it was read just now.
func (l *ledger) status(leases map[string]lease) status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := status{Put: l.mu.put, Delivered: len(l.mu.delivered), Bytes: l.mu.bytes}
	for _, shard := range sorted(l.mu.shards) {
		s.Shards = append(s.Shards, shardStatus{
			Shard: shard, Put: l.mu.shards[shard], Checkpoint: l.mu.numbers[shard+leases[shard].Checkpoint], Owner: leases[shard].Owner,
		})
	}
	return s
}

// behind is how many records of the stream are not in the topic. A message may be seen before its record was counted.
func (s status) behind() int { return max(0, s.Put-s.Delivered) }

// checkpointed is how many records the stored checkpoints have passed.
func (s status) checkpointed() (n int) {
	for _, shard := range s.Shards {
		n += shard.Checkpoint
	}
	return n
}

// owners are the workers that own leases.
func (s status) owners() (owners []string) {
	for _, shard := range s.Shards {
		if shard.Owner != "" && !slices.Contains(owners, shard.Owner) {
			owners = append(owners, shard.Owner)
		}
	}
	return owners
}

// pace is the speed of the last few moments.
type pace struct {
	samples []sample
}

type sample struct {
	at    time.Time
	bytes int64
}

const paceWindow = 2 * time.Second

// megabytesPerSecond takes the present number of bytes and returns the speed over the window.
func (p *pace) megabytesPerSecond(now time.Time, bytes int64) float64 {
	p.samples = append(p.samples, sample{now, bytes})
	for len(p.samples) > 2 && now.Sub(p.samples[1].at) >= paceWindow {
		p.samples = p.samples[1:]
	}
	first := p.samples[0]
	if seconds := now.Sub(first.at).Seconds(); seconds > 0 {
		return float64(bytes-first.bytes) / 1e6 / seconds
	}
	return 0
}

// names gives workers short names in the order of their appearance: the first process, the second.
type names struct{ known []string }

func (n *names) of(worker string) string {
	if worker == "" {
		return "nobody"
	}
	i := slices.Index(n.known, worker)
	if i < 0 {
		i = len(n.known)
		n.known = append(n.known, worker)
	}
	return fmt.Sprintf("process %d", i+1)
}

// maxShardLines is how many shards the terminal shows.
const maxShardLines = 8

// table is the picture of a moment for a terminal, the same number of lines each time. total is how many records there
// will be.
func (s status) table(total int, speed float64, workers *names) []string {
	lines := []string{
		fmt.Sprintf("in the stream %9s   in Pulsar %9s   behind %8s   %6.1f MB/s", grouped(s.Put), grouped(s.Delivered), grouped(s.behind()), speed),
	}
	for i, shard := range s.Shards {
		if i == maxShardLines {
			lines = append(lines, fmt.Sprintf("… and %d shards more", len(s.Shards)-maxShardLines))
			break
		}
		share := float64(total) / float64(len(s.Shards))
		lines = append(lines, fmt.Sprintf("shard %-3d %s  checkpoint %8s of %8s   %s",
			i, bar(float64(shard.Checkpoint)/share, float64(shard.Put)/share), grouped(shard.Checkpoint), grouped(shard.Put), workers.of(shard.Owner)))
	}
	return lines
}

// bar shows how far a shard's checkpoint and its records have come, as parts of 1.
func bar(checkpoint, put float64) string {
	const width = 30
	cells := func(part float64) int { return int(math.Round(width * min(1, max(0, part)))) }
	done, there := cells(checkpoint), cells(put)
	there = max(there, done)
	return strings.Repeat("█", done) + strings.Repeat("▒", there-done) + strings.Repeat("·", width-there)
}

// line is the same in one line, for logs.
func (s status) line(speed float64) string {
	checkpoints := make([]string, 0, maxShardLines+1)
	for i, shard := range s.Shards {
		if i == maxShardLines {
			checkpoints = append(checkpoints, "…")
			break
		}
		checkpoints = append(checkpoints, fmt.Sprintf("%7s", grouped(shard.Checkpoint)))
	}
	return fmt.Sprintf("in the stream %8s   in Pulsar %8s   behind %7s   %5.1f MB/s   checkpoints %s",
		grouped(s.Put), grouped(s.Delivered), grouped(s.behind()), speed, strings.Join(checkpoints, " "))
}
