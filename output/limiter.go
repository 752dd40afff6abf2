package output

import (
	"context"

	"golang.org/x/sync/semaphore"
)

const (
	// maxInFlight is the default number of messages that one partition may hold unconfirmed. At 10 ms a receipt it allows
	// 800,000 messages a second per partition. The client's queues cost 24 bytes for each, per partition.
	maxInFlight = 8192

	// maxBytesInFlight is the default number of bytes of payload that one partition may hold unconfirmed; what does not
	// fit is admitted when nothing else is in flight. The client makes a frame half as large again as the payload and
	// keeps both until the receipt, so whatever the input may hold, more than twice that would be held in front of a slow
	// broker. At 10 ms a receipt it allows 400 MB a second per partition.
	maxBytesInFlight = 4 << 20
)

// clientPending is the client's own limit where ours is n messages. It must never be reached: SendAsync would block in the
// client's semaphore, with locks of ours held, and a cancelled waiter there can hang the connection's reader for good.
func clientPending(n int) int { return n + 1 }

// limiter bounds what one partition has in flight, over all its producer generations. Waiters are served in order of
// arrival. A WriteBatch takes what all its messages need before it sends the first: a batch that waited half sent would
// hold its attempt's lock.
type limiter struct {
	messages, bytes *semaphore.Weighted
	maxBytes        int64
}

// newLimiter admits so many messages at a time, and so many bytes.
func newLimiter(messages, bytes int) *limiter {
	return &limiter{messages: semaphore.NewWeighted(int64(messages)), bytes: semaphore.NewWeighted(int64(bytes)), maxBytes: int64(bytes)}
}

// acquire waits for room for so many messages, at most those of newLimiter, of so many bytes together. Those who hold only the
// room for the messages wait for others that hold both, never the other way round.
func (l *limiter) acquire(ctx context.Context, messages int, bytes int64) error {
	if err := l.messages.Acquire(ctx, int64(messages)); err != nil {
		return err
	}
	if err := l.bytes.Acquire(ctx, min(bytes, l.maxBytes)); err != nil {
		l.messages.Release(int64(messages))
		return err
	}
	return nil
}

// release gives back what acquire was called with.
func (l *limiter) release(messages int, bytes int64) {
	l.bytes.Release(min(bytes, l.maxBytes))
	l.messages.Release(int64(messages))
}
