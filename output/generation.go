package output

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
)

// producer is what a generation uses of pulsar.Producer.
type producer interface {
	Name() string
	SendAsync(context.Context, *pulsar.ProducerMessage, func(pulsar.MessageID, *pulsar.ProducerMessage, error))
	FlushWithCtx(context.Context) error
	Close()
}

// drainLimit bounds the flush of an orderly end. Without a flush the client forgets what it has not cut into a batch.
const drainLimit = 2 * time.Second

// generation is the life of one producer of one partition, from its creation to the moment in which the client can send
// nothing of it any more. Its messages are settled by then, and only then may the next generation begin: a producer that
// is still re-sending would put older copies behind newer ones.
//
// It dies at the first failure that is not the record's own fault, since the client goes on with what comes after a
// failed message: k would be missing and k+1 stored. Where the client reports no failure it re-sends by itself.
//
// Invariants:
//   - After retire no SendAsync begins; one that runs ends before the producer is closed.
//   - When closed is closed, every entry of the generation is settled.
type generation struct {
	name         string // of the partition topic
	producerName string
	producer     producer
	limits       producerLimits
	partition    *partition
	closeLimit   time.Duration

	// sending is read-held around SendAsync: the client panics when a producer is closed meanwhile. It is write-held
	// for a moment only, so that nobody who holds it for reading waits for anything. Several are taken in the order of
	// their partitions.
	sending sync.RWMutex
	dead    atomic.Bool
	// suspect is set when receipts of duplicates are not believed any more, see lanes.suspect.
	suspect atomic.Bool
	dying   chan struct{} // closed by retire
	closed  chan struct{}
	wakeup  chan struct{} // tells the flusher of a request
	flusher sync.WaitGroup

	mu struct {
		sync.Mutex
		cause       error // why it died
		orderly     bool
		torn        bool                  // chunks of a message may be missing, see tear
		flights     map[*flight]time.Time // since when
		flushWanted bool
		cancelFlush context.CancelFunc
	}
}

// producerLimits is what a generation must know of how its producer cuts batches.
type producerLimits struct {
	batching bool
	maxSize  int // bytes of payload in a batch
	// chunking producers have no send timeout of the client's, but one of ours; 0 for none.
	chunking bool
	timeout  time.Duration
}

// startGeneration takes over a new producer. The generation's goroutines end with it; closed tells when.
func startGeneration(p *partition, made producer, limits producerLimits, closeLimit time.Duration) *generation {
	g := &generation{
		name: p.name, producer: made, partition: p, limits: limits, closeLimit: closeLimit,
		dying: make(chan struct{}), closed: make(chan struct{}), wakeup: make(chan struct{}, 1),
	}
	g.mu.flights = map[*flight]time.Time{}
	g.producerName = made.Name()
	p.topic.session.refusals.watch(g.producerName)
	if limits.batching {
		g.flusher.Go(g.flushLoop)
	}
	go g.supervise()
	return g
}

// alone tells whether a message of this size is never batched with others: the client's batch builder takes a message
// above the batch's limit into an empty batch only, and nothing after it.
func (g *generation) alone(size int) bool { return !g.limits.batching || size > g.limits.maxSize }

// board registers a flight before it sends. It fails if the generation is dead.
func (g *generation) board(f *flight, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead.Load() {
		return g.mu.cause
	}
	g.mu.flights[f] = now
	return nil
}

// leave takes a flight off that is done.
func (g *generation) leave(f *flight) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.mu.flights, f)
}

// send gives an entry to the client. The caller holds sending for reading and has boarded the entry's flight.
func (g *generation) send(e *entry) {
	defer func() {
		// The broker can end a producer at any moment (topic terminated, deleted, fenced); the client then closes the
		// channel that SendAsync writes to.
		if r := recover(); r != nil {
			err := fmt.Errorf("%w: %v", errPanicked, r)
			e.flight.broken.Store(true)
			g.retire(err)
			e.flight.settle(e, transient, err)
		}
	}()
	// Never a context that can end: a cancelled waiter in the client's semaphore can hang the connection's reader.
	g.producer.SendAsync(context.Background(), &e.message, e.receive)
}

// retire begins the generation's end because of a failure. It never waits: callbacks of the client call it.
func (g *generation) retire(cause error) { g.end(cause, false) }

// dismiss begins an orderly end: what was sent is flushed first.
func (g *generation) dismiss() { g.end(errClosed, true) }

func (g *generation) end(cause error, orderly bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead.Load() {
		return
	}
	g.mu.cause, g.mu.orderly = cause, orderly
	g.dead.Store(true)
	close(g.dying)
	if g.mu.cancelFlush != nil {
		g.mu.cancelFlush()
	}
}

// cause tells why the generation died.
func (g *generation) cause() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.cause
}

// supervise owns the generation: it watches it while it lives and closes it when it dies.
func (g *generation) supervise() {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for !g.dead.Load() {
		select {
		case <-g.dying:
		case now := <-ticker.C:
			g.look(now)
		}
	}
	g.close()
}

func (g *generation) close() {
	g.awaitSenders()
	g.flusher.Wait()

	g.mu.Lock()
	cause, orderly, drain := g.mu.cause, g.mu.orderly, (g.mu.orderly || g.isExact()) && len(g.mu.flights) > 0
	g.mu.Unlock()
	if !orderly {
		g.partition.topic.session.ended(g.name, cause)
	}
	if drain {
		ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
		_ = g.flush(ctx) // what it could not deliver is failed below
		cancel()
	}
	g.closeProducer()
	g.failAll(cause)
	g.partition.topic.session.refusals.forget(g.producerName)
	close(g.closed)
}

// isExact tells whether the messages have numbers. Then nothing is lost by letting the client finish, which re-sends in
// order, and much is gained: while it closes a producer that is just connecting again it can send once more, leave the
// producer with the broker, where it holds the name, or come to grief over a receipt.
func (g *generation) isExact() bool { return g.partition.producer != "" }

// awaitSenders returns when no loop is sending any more: those that are running see dead at their next record, and those
// that come see it at their first.
func (g *generation) awaitSenders() {
	g.sending.Lock()
	defer g.sending.Unlock()
}

// closeProducer returns when the client can send nothing of this producer any more. The client waits for the broker's
// answer to a close for as long as an operation may take, whatever the caller wants. If the broker ends the producer at
// the same moment, the client can lose the request and never return at all: hence the limit.
func (g *generation) closeProducer() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }() // "send on closed channel", in the same race
		g.producer.Close()
	}()
	limit := time.NewTimer(g.closeLimit)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	}
}

// failAll settles what has got no callback.
func (g *generation) failAll(cause error) {
	g.mu.Lock()
	left := make([]*flight, 0, len(g.mu.flights))
	for f := range g.mu.flights {
		left = append(left, f)
	}
	g.mu.Unlock()
	for _, f := range left {
		f.failGeneration(g, fmt.Errorf("the producer on %s ended: %w", g.name, cause))
	}
}

// requestFlush asks the client to send what it has collected instead of waiting for its ticker. It does not wait. Requests
// that come while one is on its way are merged.
func (g *generation) requestFlush() {
	if !g.limits.batching {
		return
	}
	g.mu.Lock()
	g.mu.flushWanted = true
	if g.mu.cancelFlush != nil {
		// The flush that runs may have cut its batch already and be waiting for the receipts, which is nothing to us.
		g.mu.cancelFlush()
	}
	g.mu.Unlock()
	select {
	case g.wakeup <- struct{}{}:
	default:
	}
}

func (g *generation) flushLoop() {
	for {
		select {
		case <-g.dying:
			return
		case <-g.wakeup:
		}
		for {
			g.mu.Lock()
			if !g.mu.flushWanted || g.dead.Load() {
				g.mu.Unlock()
				break
			}
			g.mu.flushWanted = false
			ctx, cancel := context.WithCancel(context.Background())
			g.mu.cancelFlush = cancel
			g.mu.Unlock()

			err := g.flush(ctx)

			g.mu.Lock()
			g.mu.cancelFlush = nil
			g.mu.Unlock()
			cancel()
			if errors.Is(err, pulsar.ErrProducerClosed) {
				g.retire(err)
			}
		}
	}
}

// flush is FlushWithCtx with the client's panic, in the same race as in send, as an error.
func (g *generation) flush(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.Join(pulsar.ErrProducerClosed, fmt.Errorf("%w: %v", errPanicked, r))
		}
	}()
	return g.producer.FlushWithCtx(ctx)
}
