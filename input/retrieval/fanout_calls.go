package retrieval

import (
	"context"
	"sync"
	"time"
)

const (
	// callSpacing is how far apart Kinesis wants the SubscribeToShard calls of a consumer for one shard.
	callSpacing = time.Second
	// takeOver is how long after a successful call Kinesis refuses the next one for that consumer and shard, whoever makes it.
	takeOver = 5 * time.Second
)

// CallSpacing keeps the calls for a shard apart, also those of different readers, one after the other: a run that begins
// anew would otherwise make its first call right behind the last one.
type CallSpacing struct {
	mu struct {
		sync.Mutex
		answered map[string]time.Time // by shard; what is older than callSpacing is forgotten
		free     map[string]time.Time // by shard, when another subscription may be made; what has passed is forgotten
		made     int64                // subscriptions
	}
}

// NewCallSpacing returns one for the shards of one consumer.
func NewCallSpacing() *CallSpacing {
	c := &CallSpacing{}
	c.mu.answered, c.mu.free = map[string]time.Time{}, map[string]time.Time{}
	return c
}

// wait returns when the next call is allowed.
func (c *CallSpacing) wait(ctx context.Context, shard string) error {
	c.mu.Lock()
	last := c.mu.answered[shard]
	c.mu.Unlock()
	return sleepUntil(ctx, last.Add(callSpacing))
}

// answered notes the end of a call. Counted from there the next one can't arrive too early at Kinesis, whatever the network
// does; counted from the beginning, a slow first call and a quick second one could.
func (c *CallSpacing) answered(shard string) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, at := range c.mu.answered {
		if now.Sub(at) > callSpacing {
			delete(c.mu.answered, other)
		}
	}
	c.mu.answered[shard] = now
}

// subscribed notes a call that has succeeded, or of which it is not known that it has not.
func (c *CallSpacing) subscribed(shard string) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, at := range c.mu.free {
		if now.After(at) {
			delete(c.mu.free, other)
		}
	}
	c.mu.free[shard] = now.Add(takeOver)
	c.mu.made++
}

// Subscribed counts the subscriptions that were made, those included of which it is not known.
func (c *CallSpacing) Subscribed() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.made
}

// FreeAt tells when another reader with the same consumer may subscribe to the shard; the zero time: it may already.
func (c *CallSpacing) FreeAt(shard string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.free[shard]
}
