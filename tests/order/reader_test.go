package order

import (
	"fmt"
	"sync"
	"testing"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// place is where a message lies in a partition; a reader gets messages in ascending places.
type place struct {
	ledger, entry int64
	index         int
}

func (p place) before(o place) bool {
	if p.ledger != o.ledger {
		return p.ledger < o.ledger
	}
	if p.entry != o.entry {
		return p.entry < o.entry
	}
	return p.index < o.index
}

// seen is what a reader has seen of one record.
type seen struct {
	copies    int
	partition int
	last      place // of the last copy
	elsewhere bool  // another output took it
}

// reader keeps, of all that the topic holds and other outputs took, what the account needs.
type reader struct {
	replay *kinesistest.Replay
	keys   uint64 // of each shard

	mu struct {
		sync.Mutex
		records  [][]seen // by shard and number; numbers count from 1
		messages int      // copies of all records
		ends     []string // by shard: the sequence number of its last record, "" until that was seen
		problems []string // the first few
	}
}

func newReader(replay *kinesistest.Replay, shards, keys, perShard int) *reader {
	r := &reader{replay: replay, keys: uint64(keys)}
	r.mu.records = make([][]seen, shards)
	r.mu.ends = make([]string, shards)
	for i := range r.mu.records {
		r.mu.records[i] = make([]seen, perShard+1)
	}
	return r
}

// visit takes a message of the topic.
func (r *reader) visit(v *pulsartest.View) {
	shard, n, err := r.replay.Check(string(v.Key), v.Payload)
	sequence := ""
	if err == nil {
		for name, value := range v.Properties() {
			if string(name) == sequenceProperty {
				sequence = string(value)
			}
		}
		if sequence == "" {
			err = fmt.Errorf("record %d of shard %d has no sequence number", n, shard)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.problemLocked("%v", err)
		return
	}
	s := r.noteLocked(shard, n, sequence)
	at := place{v.LedgerID, v.EntryID, v.BatchIndex}
	if s.copies > 0 && s.partition != v.Partition {
		r.problemLocked("record %d of shard %d is in the partitions %d and %d", n, shard, s.partition, v.Partition)
	}
	s.partition = v.Partition
	if s.copies == 0 || s.last.before(at) {
		s.last = at
	}
	s.copies++
	r.mu.messages++
}

// take notes a record that went to another output.
func (r *reader) take(key string, data []byte, sequence string) {
	shard, n, err := r.replay.Check(key, data)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.problemLocked("elsewhere: %v", err)
		return
	}
	r.noteLocked(shard, n, sequence).elsewhere = true
}

// noteLocked must be called with mu held.
func (r *reader) noteLocked(shard int, n uint64, sequence string) *seen {
	if int(n) == len(r.mu.records[shard])-1 {
		r.mu.ends[shard] = sequence
	}
	return &r.mu.records[shard][n]
}

// problemLocked must be called with mu held.
func (r *reader) problemLocked(format string, args ...any) {
	if len(r.mu.problems) < 10 {
		r.mu.problems = append(r.mu.problems, fmt.Sprintf(format, args...))
	}
}

// progress is a number that grows with everything that arrives.
func (r *reader) progress() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.messages
}

// ends are the sequence numbers of the shards' last records; false until all have arrived.
func (r *reader) ends() ([]string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, end := range r.mu.ends {
		if end == "" {
			return nil, false
		}
	}
	return r.mu.ends, true
}

// tally is the account of a story.
type tally struct {
	records   int // that are in the topic
	elsewhere int // that another output took
	extra     int // further copies in the topic
	dropped   int // by the filter
}

// account fails the test unless everything is as promised. Call it when the broker is closed.
func (r *reader) account(t *testing.T) (sum tally) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	lost, overtaken := 0, 0
	for shard, records := range r.mu.records {
		// Keys take turns, so the record before n of the same key is n − keys; of those that are in the topic at all.
		previous := make([]uint64, r.keys)
		for n := uint64(1); n < uint64(len(records)); n++ {
			s := &records[n]
			switch {
			case filtered(n):
				sum.dropped++
				if s.copies > 0 || s.elsewhere {
					r.problemLocked("record %d of shard %d was dropped by a processor and arrived nevertheless", n, shard)
				}
				continue
			case s.elsewhere:
				// Copies of it are leftovers of tries that failed, and stay where they are.
				sum.elsewhere++
				continue
			case s.copies == 0:
				if lost++; lost <= 5 {
					r.problemLocked("lost: record %d of shard %d", n, shard)
				}
				continue
			}
			sum.records++
			sum.extra += s.copies - 1
			key := n % r.keys
			if p := previous[key]; p > 0 && s.last.before(records[p].last) {
				if overtaken++; overtaken <= 5 {
					r.problemLocked("shard %d, key %s: record %d lies before %d", shard, r.replay.Key(shard, n), n, p)
				}
			}
			previous[key] = n
		}
	}
	for _, p := range r.mu.problems {
		t.Error(p)
	}
	if lost > 0 || overtaken > 0 {
		t.Errorf("%d records lost, %d inversions", lost, overtaken)
	}
	return sum
}
