package output

import (
	"context"

	"golang.org/x/sync/semaphore"
)

const (
	// maxInFlight is the number of messages that one partition may hold unconfirmed. At 10 ms a receipt it allows
	// 800,000 messages a second per partition. The client's queues cost 24 bytes for each, per partition.
	maxInFlight = 8192

	// maxPending is the client's own limit. It must never be reached: SendAsync would block in the client's semaphore,
	// with locks of ours held, and a cancelled waiter there can hang the connection's reader for good.
	maxPending = maxInFlight + 1
)

// limiter bounds the messages in flight of one partition, over all its producer generations. Waiters are served in
// order of arrival. A WriteBatch takes what all its messages need before it sends the first: a batch that waited half
// sent would hold its attempt's lock.
type limiter struct{ room *semaphore.Weighted }

func newLimiter(n int64) *limiter { return &limiter{room: semaphore.NewWeighted(n)} }

// acquire waits for room for n messages. n must not exceed the limit.
func (l *limiter) acquire(ctx context.Context, n int) error { return l.room.Acquire(ctx, int64(n)) }

func (l *limiter) release(n int) { l.room.Release(int64(n)) }
