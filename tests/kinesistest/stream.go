package kinesistest

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// Record is one record as a stream holds it. Its Data is shared with the server: read it only.
type Record struct {
	ShardID         string
	SequenceNumber  string
	PartitionKey    string
	ExplicitHashKey string // "" when the partition key's MD5 chose the shard
	Data            []byte
	Arrival         time.Time // in whole milliseconds
	EncryptionType  string    // "KMS", or "" for none

	index uint64 // in its shard, from 1
}

// size is what the record counts against the limits of a response and of a shard.
func (r *Record) size() int { return len(r.Data) + len(r.PartitionKey) }

// stream is what lives under a stream's name. Guarded by Server.mu.
type stream struct {
	name, arn     string
	created       time.Time
	readyAt       time.Time // CREATING before it
	updatedAt     time.Time // UPDATING before it
	deletedAt     time.Time // DELETING before it, gone after it; zero when not deleted
	onDemand      bool
	retention     time.Duration
	maxRecordSize int    // bytes
	keyID         string // of KMS; "" when the stream is not encrypted
	shards        []*shard
	open          []*shard // by hash range
	consumers     []*consumer
	registrations map[string]int64 // by a consumer's name: the last one's moment, seconds since 1970
}

type shard struct {
	id       string
	index    uint32
	keys     hashRange
	parents  []*shard // none, one (split) or two (merge; the first is the one named ShardToMerge)
	children []*shard
	created  time.Time
	stamp    int64     // created, in seconds since 1970, as its sequence numbers have it: above its parents', however soon it came
	closed   time.Time // zero while open
	last     Record    // the latest put: its index and arrival; the zero Record before it
	// records are those still held, oldest first. The elements never change and the slice only grows at its end and
	// is re-sliced at its front, so a part of it may be read without the lock.
	records []Record
	replay  *Replay // nil for a shard that stores its records
	read    readLimit
	write   writeLimit
	changed chan struct{} // nil while nobody waits; closed when there is something new to read
}

// changing is closed when a record is put or the shard is closed.
func (sh *shard) changing() <-chan struct{} {
	if sh.changed == nil {
		sh.changed = make(chan struct{})
	}
	return sh.changed
}

func (sh *shard) change() {
	if sh.changed != nil {
		close(sh.changed)
		sh.changed = nil
	}
}

func shardID(index uint32) string { return fmt.Sprintf("shardId-%012d", index) }

func (st *stream) status(now time.Time) string {
	switch {
	case !st.deletedAt.IsZero():
		return "DELETING"
	case now.Before(st.readyAt):
		return "CREATING"
	case now.Before(st.updatedAt):
		return "UPDATING"
	}
	return "ACTIVE"
}

// serves tells whether records can be put and read. A stream that is being created or deleted has none yet, or no more.
func (st *stream) serves(now time.Time) bool {
	status := st.status(now)
	return status == "ACTIVE" || status == "UPDATING"
}

func (st *stream) addShard(now time.Time, keys hashRange, parents ...*shard) *shard {
	sh := &shard{index: uint32(len(st.shards)), keys: keys, parents: parents, created: now, stamp: now.Unix()}
	sh.id = shardID(sh.index)
	for _, p := range parents {
		sh.stamp = max(sh.stamp, p.stamp+1)
		p.children = append(p.children, sh)
	}
	st.shards = append(st.shards, sh)
	at, _ := slices.BinarySearchFunc(st.open, keys.first, func(s *shard, k hashKey) int { return s.keys.first.compare(k) })
	st.open = slices.Insert(st.open, at, sh)
	return sh
}

func (st *stream) closeShard(sh *shard, now time.Time) {
	sh.closed = now
	sh.change()
	st.open = slices.DeleteFunc(st.open, func(s *shard) bool { return s == sh })
}

// route is the open shard that a hash key belongs to. The open shards tile the key space, so there is exactly one.
func (st *stream) route(k hashKey) *shard {
	i := sort.Search(len(st.open), func(i int) bool { return st.open[i].keys.first.compare(k) > 0 })
	return st.open[i-1]
}

// listed are the shards that ListShards knows at now: a closed shard is forgotten when its last record can't be read any more.
func (st *stream) listed(now time.Time) []*shard {
	shards := make([]*shard, 0, len(st.shards))
	for _, sh := range st.shards {
		if !sh.expired(st, now) {
			shards = append(shards, sh)
		}
	}
	return shards
}

// find is nil when the stream has no such shard at now.
func (st *stream) find(id string, now time.Time) *shard {
	for _, sh := range st.shards {
		if sh.id == id && !sh.expired(st, now) {
			return sh
		}
	}
	return nil
}

func (sh *shard) expired(st *stream, now time.Time) bool {
	return !sh.closed.IsZero() && !sh.closed.Add(st.retention).After(now)
}

func (sh *shard) startingSequence() string { return sh.sequence(0, sh.created).String() }

func (sh *shard) isOpen() bool { return sh.closed.IsZero() }

// sequence is the number of a record; that of index 0 is the shard's StartingSequenceNumber.
func (sh *shard) sequence(index uint64, arrival time.Time) sequence {
	return sequence{created: sh.stamp, shard: sh.index, index: index, arrived: arrival.Unix()}
}

// append stores a record. Arrival times never run backwards within a shard, so that AT_TIMESTAMP can search them.
func (sh *shard) append(r Record, now time.Time) Record {
	r.Arrival = now.Truncate(time.Millisecond)
	if r.Arrival.Before(sh.last.Arrival) {
		r.Arrival = sh.last.Arrival
	}
	r.ShardID = sh.id
	r.index = sh.last.index + 1
	r.SequenceNumber = sh.sequence(r.index, r.Arrival).String()
	sh.records = append(sh.records, r)
	sh.last = Record{index: r.index, Arrival: r.Arrival}
	sh.change()
	return r
}

// trim forgets the records that are older than the retention period.
func (sh *shard) trim(st *stream, now time.Time) {
	horizon := now.Add(-st.retention)
	if len(sh.records) == 0 || sh.records[0].Arrival.After(horizon) {
		return
	}
	n := sort.Search(len(sh.records), func(i int) bool { return sh.records[i].Arrival.After(horizon) })
	if n == len(sh.records) {
		sh.records = nil
		return
	}
	sh.records = sh.records[n:]
}

// from is the index in records of the first one at or after a position.
func (sh *shard) from(position uint64) int {
	return sort.Search(len(sh.records), func(i int) bool { return sh.records[i].index >= position })
}

// reading is what one read of a shard brings.
type reading struct {
	records []Record
	replayed
	size   int           // bytes of data and partition keys
	next   uint64        // the position after them
	behind time.Duration // MillisBehindLatest, before it is rounded
	ended  bool          // the shard is closed and nothing comes after records
}

// len is how many records they are.
func (rd *reading) len() int { return len(rd.records) + rd.count }

// readFrom reads at most count records and, unless the first one alone is larger, at most size bytes.
// Records younger than delay are not visible yet.
func (sh *shard) readFrom(position uint64, count, size int, now time.Time, delay time.Duration) reading {
	if sh.replay != nil {
		return sh.replay.read(sh, position, count, size)
	}
	first := sh.from(position)
	visible := sort.Search(len(sh.records), func(i int) bool { return sh.records[i].Arrival.After(now.Add(-delay)) })
	last, total := first, 0
	for last < visible && last-first < count {
		next := total + sh.records[last].size()
		if next > size && last > first {
			break
		}
		total = next
		last++
	}
	rd := reading{next: position, size: total}
	if last > first {
		rd.records = sh.records[first:last:last]
		rd.next = sh.records[last-1].index + 1
	}
	if last < visible {
		// The tip is now, not the last record: a reader that is behind is as far from now as what it reads is old.
		rd.behind = max(now.Sub(sh.records[max(last-1, first)].Arrival), time.Millisecond)
	}
	rd.ended = !sh.isOpen() && last >= len(sh.records)
	return rd
}
