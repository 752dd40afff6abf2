package kcltest

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"sync"
)

// Stream is a Kinesis stream as far as positions matter: shards with numbered records, which split and merge. Records are never
// trimmed. It is safe for concurrent use.
type Stream struct {
	mu       sync.Mutex
	sequence int64
	shards   []*streamShard // in order of creation, so parents come first
}

type streamShard struct {
	Shard
	records  []Position
	children []string
}

// NewStream returns a stream with so many shards that share the hash range.
func NewStream(shards int) *Stream {
	s := &Stream{sequence: 1000}
	all := new(big.Int).Lsh(big.NewInt(1), 128)
	edge := func(i int) *big.Int {
		e := new(big.Int).Mul(all, big.NewInt(int64(i)))
		return e.Div(e, big.NewInt(int64(shards)))
	}
	for i := range shards {
		s.add(nil, edge(i), new(big.Int).Sub(edge(i+1), big.NewInt(1)))
	}
	return s
}

// add must be called with mu held, or alone.
func (s *Stream) add(parents []string, from, to *big.Int) *streamShard {
	s.sequence++
	c := &streamShard{Shard: Shard{
		ID: fmt.Sprintf("shardId-%012d", len(s.shards)), Parents: parents,
		StartingHashKey: from.String(), EndingHashKey: to.String(), StartingSequence: strconv.FormatInt(s.sequence, 10),
	}}
	s.shards = append(s.shards, c)
	return c
}

// find must be called with mu held.
func (s *Stream) find(id string) *streamShard {
	i := slices.IndexFunc(s.shards, func(c *streamShard) bool { return c.ID == id })
	if i < 0 {
		panic("kcltest: no shard " + id)
	}
	return s.shards[i]
}

// Put adds records to an open shard; to a closed one it adds none.
func (s *Stream) Put(id string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(id)
	if c.Closed {
		return
	}
	for range n {
		s.sequence++
		c.records = append(c.records, Position{Sequence: strconv.FormatInt(s.sequence, 10)})
	}
}

func bounds(c *streamShard) (from, to *big.Int) {
	from, _ = new(big.Int).SetString(c.StartingHashKey, 10)
	to, _ = new(big.Int).SetString(c.EndingHashKey, 10)
	return from, to
}

// Split closes an open shard and opens two for it.
func (s *Stream) Split(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(id)
	if c.Closed {
		return
	}
	from, to := bounds(c)
	middle := new(big.Int).Add(from, to)
	middle.Rsh(middle, 1)
	c.Closed = true
	left := s.add([]string{id}, from, middle)
	right := s.add([]string{id}, new(big.Int).Add(middle, big.NewInt(1)), to)
	c.children = []string{left.ID, right.ID}
}

// Merge closes an open shard and its open neighbour above, if there is one, and opens one for both.
func (s *Stream) Merge(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(id)
	from, to := bounds(c)
	next := new(big.Int).Add(to, big.NewInt(1)).String()
	for _, other := range s.shards {
		if !c.Closed && !other.Closed && other.StartingHashKey == next {
			_, end := bounds(other)
			c.Closed, other.Closed = true, true
			child := s.add([]string{id, other.ID}, from, end)
			c.children, other.children = []string{child.ID}, []string{child.ID}
			return
		}
	}
}

// Shards lists all shards, closed ones included, parents first.
func (s *Stream) Shards() (shards []Shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.shards {
		shards = append(shards, c.Shard)
	}
	return shards
}

// Records are all records of a shard.
func (s *Stream) Records(id string) []Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.find(id).records)
}

// Between are the records of a shard behind one position and up to another. Sentinels but SHARD_END stand for the beginning.
func (s *Stream) Between(id string, after, upTo Position) (records []Position) {
	records, _, _ = s.Read(id, after, 1<<30)
	for i, p := range records {
		if p.Compare(upTo) > 0 {
			return records[:i]
		}
	}
	return records
}

// Read returns the records behind a position, at most so many. Ended tells that there are no more and never will be; then
// the children follow. A sentinel stands for the beginning.
func (s *Stream) Read(id string, after Position, most int) (records []Position, ended bool, children []Shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(id)
	rest := c.records
	if !after.isSentinel() {
		first, _ := slices.BinarySearchFunc(rest, after, func(p, after Position) int {
			if p.Compare(after) > 0 {
				return 1
			}
			return -1
		})
		rest = rest[first:]
	}
	if len(rest) > most {
		return slices.Clone(rest[:most]), false, nil
	}
	for _, id := range c.children {
		children = append(children, s.find(id).Shard)
	}
	return slices.Clone(rest), c.Closed, children
}

// App is a [Consumer] that reads a Stream.
type App struct {
	Stream *Stream
	// Most is how many records it takes at once; 0 = 10.
	Most int
	// CheckpointEvery is after how many calls with records it checkpoints; 0 = each.
	CheckpointEvery int
	// Deliver is told of every record, before its checkpoint; nil = nobody.
	Deliver func(shard string, p Position)

	mu    sync.Mutex
	calls int
}

// Process implements Consumer.
func (a *App) Process(_ context.Context, shard string, at Position) Progress {
	most := a.Most
	if most == 0 {
		most = 10
	}
	records, ended, children := a.Stream.Read(shard, at, most)
	for _, p := range records {
		if a.Deliver != nil {
			a.Deliver(shard, p)
		}
	}
	p := Progress{At: at, Ended: ended, Children: children}
	if len(records) > 0 {
		a.mu.Lock()
		a.calls++
		p.Checkpoint = a.CheckpointEvery == 0 || a.calls%a.CheckpointEvery == 0
		a.mu.Unlock()
		p.At = records[len(records)-1]
	}
	return p
}
