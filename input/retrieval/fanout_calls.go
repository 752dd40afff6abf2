package retrieval

import (
	"context"
	"sync"
	"time"
)

// callSpacing is how far apart Kinesis wants the SubscribeToShard calls of a consumer for one shard.
const callSpacing = time.Second

// CallSpacing keeps the calls for a shard apart, also those of different readers, one after the other: a run that begins
// anew would otherwise make its first call right behind the last one.
type CallSpacing struct {
	mu struct {
		sync.Mutex
		answered map[string]time.Time // by shard; what is older than callSpacing is forgotten
	}
}

// NewCallSpacing returns one for the shards of one consumer.
func NewCallSpacing() *CallSpacing {
	c := &CallSpacing{}
	c.mu.answered = map[string]time.Time{}
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
