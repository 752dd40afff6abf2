package kinesistest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

// ReplayOptions say what a replayed stream holds.
type ReplayOptions struct {
	Shards      int
	RecordSize  int    // bytes of data in each record: 24 … 1 MiB − 12
	PerShard    uint64 // records of each shard; 0 for endless ones
	PerResponse int    // most records in one answer, however many the call allows; 0 for as many as the API allows
	Keys        int    // partition keys of each shard, taken in turn; 0 for 16
}

// Replay is a stream whose records are not stored but written anew into each answer, for benchmarks of readers: each costs
// little more than copying its bytes. Record number n (from 1) of a shard always has the same partition key, data and
// sequence number, and Check verifies them. All arrived when the stream was created. A reader that has not reached
// the end is a second behind. It cannot be put to or resharded.
type Replay struct {
	options ReplayOptions
	keys    [][]string // by shard, each key as long as any other
}

const (
	replayHeader    = 24 // shard and number at the start of the data: a multiple of 3, so that it ends with a group of base64
	replayKeyLength = 12
	replayMaxSize   = 1<<20 - replayKeyLength
	replayWindows   = 4096 // in how many places of the filler a record may begin, so that a batch is not one record over and over
)

// replayFiller is what follows the header in a record, from a place that depends on its number: random bytes, the same in
// every process, and as base64.
var replayFiller = sync.OnceValues(func() (plain, base64Text []byte) {
	plain = make([]byte, replayMaxSize+3*replayWindows)
	random := rand.NewChaCha8([32]byte([]byte("filler of the replayed records..")))
	random.Read(plain)
	return plain, base64.StdEncoding.AppendEncode(nil, plain)
})

// replayWindow is the place of record n's filler, counted in groups of base64. The factor is odd: neighbours lie apart.
func replayWindow(n uint64) int { return int(n * 1597 % replayWindows) }

// CreateReplay makes an ACTIVE stream whose shards replay records.
func (s *Server) CreateReplay(name string, o ReplayOptions) (*Replay, error) {
	if o.RecordSize < replayHeader || o.RecordSize > replayMaxSize {
		return nil, fmt.Errorf("kinesistest: RecordSize must be %d to %d, not %d", replayHeader, replayMaxSize, o.RecordSize)
	}
	if o.PerShard > maxRecordIndex-1 || o.PerResponse < 0 || o.Keys < 0 {
		return nil, errors.New("kinesistest: PerShard must be below 2^63-1, PerResponse and Keys must not be negative")
	}
	if o.PerResponse == 0 || o.PerResponse > maxReadRecords {
		o.PerResponse = maxReadRecords
	}
	if o.Keys == 0 {
		o.Keys = 16
	}
	if err := s.CreateStream(name, o.Shards); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[name]
	rp := &Replay{options: o, keys: make([][]string, o.Shards)}
	// Every key is one that would have brought its record into the shard.
	for i, missing := 0, o.Shards; missing > 0; i++ {
		key := fmt.Sprintf("key-%08d", i)
		at := st.route(partitionHash(key)).index
		if len(rp.keys[at]) < o.Keys {
			if rp.keys[at] = append(rp.keys[at], key); len(rp.keys[at]) == o.Keys {
				missing--
			}
		}
	}
	for _, sh := range st.shards {
		sh.replay = rp
		sh.last = Record{index: o.PerShard, Arrival: st.created}
	}
	return rp, nil
}

// Key is the partition key of record n of a shard.
func (rp *Replay) Key(shard int, n uint64) string {
	keys := rp.keys[shard]
	return keys[n%uint64(len(keys))]
}

// Check tells which record of which shard this is, and an error when it is not, byte for byte, one of the stream.
func (rp *Replay) Check(partitionKey string, data []byte) (shard int, n uint64, err error) {
	if len(data) != rp.options.RecordSize {
		return 0, 0, fmt.Errorf("kinesistest: the record has %d bytes instead of %d", len(data), rp.options.RecordSize)
	}
	shard, err1 := strconv.Atoi(string(data[:6]))
	n, err2 := strconv.ParseUint(string(data[7:23]), 10, 64)
	if err1 != nil || err2 != nil || data[6] != ':' || data[23] != ' ' || shard < 0 || shard >= len(rp.keys) || n == 0 {
		return 0, 0, fmt.Errorf("kinesistest: the record does not start with its shard and number but with %q", data[:replayHeader])
	}
	filler, _ := replayFiller()
	if !bytes.Equal(data[replayHeader:], filler[3*replayWindow(n):][:len(data)-replayHeader]) {
		return shard, n, fmt.Errorf("kinesistest: the bytes of record %d of shard %d are changed", n, shard)
	}
	if want := rp.Key(shard, n); partitionKey != want {
		return shard, n, fmt.Errorf("kinesistest: record %d of shard %d has the partition key %q instead of %q", n, shard, partitionKey, want)
	}
	return shard, n, nil
}

// replayed is the part of a reading that is written, not read.
type replayed struct {
	shard *shard
	first uint64 // number of the first record
	count int
}

func (rp *Replay) read(sh *shard, position uint64, count, size int) reading {
	position = max(position, 1)
	perRecord := rp.options.RecordSize + replayKeyLength
	n := uint64(max(1, min(count, rp.options.PerResponse, size/perRecord)))
	left := uint64(maxRecordIndex - 1)
	if rp.options.PerShard > 0 {
		left = rp.options.PerShard
	}
	left -= min(left, position-1)
	n = min(n, left)
	rd := reading{
		replayed: replayed{sh, position, int(n)},
		size:     int(n) * perRecord,
		next:     position + n,
	}
	if n < left {
		rd.behind = time.Second
	}
	return rd
}

// appendTo writes the records as a JSON list's elements.
func (r *replayed) appendTo(b []byte) []byte {
	if r.count == 0 {
		return b
	}
	rp, sh := r.shard.replay, r.shard
	_, filler := replayFiller()
	plain, _ := replayFiller()
	arrival := appendTimestamp(nil, sh.created)
	var header [replayHeader]byte
	copy(header[:], fmt.Sprintf("%06d:%016d ", sh.index, 0))
	whole := (rp.options.RecordSize - replayHeader) / 3
	rest := (rp.options.RecordSize - replayHeader) % 3
	for i := range r.count {
		n := r.first + uint64(i)
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"SequenceNumber":"`...)
		b = sh.sequence(n, sh.created).appendTo(b)
		b = append(b, `","ApproximateArrivalTimestamp":`...)
		b = append(b, arrival...)
		b = append(b, `,"Data":"`...)
		putDigits(header[7:23], n)
		b = base64.StdEncoding.AppendEncode(b, header[:])
		from := replayWindow(n)
		b = append(b, filler[4*from:4*(from+whole)]...)
		if rest > 0 {
			b = base64.StdEncoding.AppendEncode(b, plain[3*(from+whole):][:rest])
		}
		b = append(b, `","PartitionKey":"`...)
		b = append(b, rp.Key(int(sh.index), n)...)
		b = append(b, `"}`...)
	}
	return b
}

// encodedSize is how long appendTo's text is, at most.
func (r *replayed) encodedSize() int {
	if r.count == 0 {
		return 0
	}
	return r.count * (base64.StdEncoding.EncodedLen(r.shard.replay.options.RecordSize) + 180)
}
