package main

import (
	"fmt"
	"slices"
	"sync"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// tally is what the sink has seen.
type tally struct {
	Records    uint64
	Bytes      uint64   // of payload
	Duplicates uint64   // records that were there before, the others not counted
	Problems   []string // the first few
}

// checker is the sink: it checks every message that the broker stores.
type checker struct {
	replay     *kinesistest.Replay
	keys       uint64 // of each shard
	properties bool   // whether messages must have them

	mu struct {
		sync.Mutex
		tally
		// next is the number of the record that comes next, by shard and key. A shard's keys take turns, so all records
		// of a key are known: any that is left out or overtaken shows.
		next [][]uint64
	}
}

const maxProblems = 10

func newChecker(replay *kinesistest.Replay, shards, keys int, properties bool) *checker {
	c := &checker{replay: replay, keys: uint64(keys), properties: properties}
	c.mu.next = make([][]uint64, shards)
	for i := range c.mu.next {
		c.mu.next[i] = make([]uint64, keys)
		for k := range c.mu.next[i] {
			c.mu.next[i][k] = uint64(k)
		}
		c.mu.next[i][0] = c.keys // records count from 1
	}
	return c
}

// visit takes one message.
func (c *checker) visit(v *pulsartest.View) {
	shard, n, err := c.replay.Check(string(v.Key), v.Payload)
	if err == nil {
		err = c.checkProperties(v)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.problemLocked(err.Error())
		return
	}
	switch next := &c.mu.next[shard][n%c.keys]; {
	case n < *next:
		c.mu.Duplicates++
		return
	case n > *next:
		c.problemLocked(fmt.Sprintf("shard %d, key %s: record %d came instead of %d", shard, v.Key, n, *next))
		fallthrough
	default:
		*next = n + c.keys
	}
	c.mu.Records++
	c.mu.Bytes += uint64(len(v.Payload))
}

func (c *checker) checkProperties(v *pulsartest.View) error {
	found := 0
	for name, value := range v.Properties() {
		if !slices.Contains(propertyNames[:], string(name)) || len(value) == 0 {
			return fmt.Errorf("the message with key %s has the property %q: %q", v.Key, name, value)
		}
		if string(name) == "kinesis.partition.key" && string(value) != string(v.Key) {
			return fmt.Errorf("the message with key %s names the partition key %s", v.Key, value)
		}
		found++
	}
	want := 0
	if c.properties {
		want = len(propertyNames)
	}
	if found != want {
		return fmt.Errorf("the message with key %s has %d properties instead of %d", v.Key, found, want)
	}
	return nil
}

// problemLocked must be called with mu held.
func (c *checker) problemLocked(text string) {
	if len(c.mu.Problems) < maxProblems {
		c.mu.Problems = append(c.mu.Problems, text)
	}
}

func (c *checker) tally() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.mu.tally
	t.Problems = slices.Clone(t.Problems)
	return t
}
