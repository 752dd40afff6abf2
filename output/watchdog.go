package output

import (
	"context"
	"errors"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
)

const (
	watchInterval = time.Second

	// blockedAfter is how long a message may wait for its receipt before its partition counts as blocked. A broker that
	// is restarted, or a topic that moves to another one, takes up to about that long.
	blockedAfter = 30 * time.Second

	// probeAfter is how long a message may wait before its producer is asked whether it still is one. The question costs
	// nothing, and a client that has lost messages with a producer would otherwise stop their shard until blockedAfter.
	probeAfter = 3 * time.Second

	// outageAfter is how long a message may wait while the broker is known to be out of reach. Longer than a restart takes,
	// short enough for an operator.
	outageAfter = 10 * time.Second

	// exactOutageAfter is the same with numbers. To close a producer while the client is connecting it again can leave it with
	// the broker, where it holds the name that the next one needs; so a restart of the broker is waited for.
	exactOutageAfter = time.Minute

	// probeLimit bounds the watch-dog's flush. It need not succeed: a live producer answers ErrProducerClosed at once
	// when it is not one any more.
	probeLimit = time.Second
)

// look is the watch-dog: it looks after a generation whose messages wait for long. It ends the generation if the client has
// closed the producer without telling the messages that it had not sent, which it does when the broker ends a topic. Time
// alone is no reason: the client re-sends by itself when the broker is back, and a second producer would only copy what it
// sends.
//
// An outage is: while every shard waits for receipts no batch is written, so nobody would ever be told that the output is
// not connected. Without a connection nothing is on its way, so ending the producer costs no more copies than its
// re-sending would.
//
// So is a refusal by the broker: see refusals for those of which the client tells nobody.
//
// It is called every watchInterval, by the generation's supervise goroutine.
func (g *generation) look(now time.Time) {
	s := g.partition.topic.session
	refusal, final := s.refusals.standing(g.producerName, now)
	if final {
		g.retire(refusal)
		return
	}
	waiting := g.waiting(now)
	if waiting < probeAfter {
		g.partition.quiet(now)
		return
	}
	sent := now.Add(-waiting)
	if cause := s.refusals.messageSince(sent); cause != nil {
		// Nobody knows whose message it was. If it was another partition's, the replay only costs copies.
		g.partition.suffer(sent, now, cause)
		g.retire(cause)
		return
	}
	g.partition.suffer(sent, now, s.silence(g.producerName))
	if g.limits.timeout > 0 && waiting >= g.limits.timeout {
		g.retire(pulsar.ErrSendTimeout)
		return
	}
	patience := outageAfter
	if g.isExact() {
		patience = exactOutageAfter
	}
	if waiting >= patience {
		cause := s.down(now)
		if cause == nil {
			cause = refusal
		}
		if cause != nil {
			g.retire(cause)
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	if err := g.flush(ctx); errors.Is(err, pulsar.ErrProducerClosed) {
		g.retire(err)
	}
}

// waiting tells for how long the oldest unconfirmed message has been waiting, 0 if that is less than probeAfter: flights
// are looked into only when they are old, since theirs may be other partitions' messages.
func (g *generation) waiting(now time.Time) time.Duration {
	g.mu.Lock()
	old := map[*flight]time.Duration{}
	for f, since := range g.mu.flights {
		if age := now.Sub(since); age >= probeAfter {
			old[f] = age
		}
	}
	g.mu.Unlock()
	var longest time.Duration
	for f, age := range old {
		if age > longest && f.waitsFor(g) {
			longest = age
		}
	}
	return longest
}
