package output

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// entry is one message on its way to Pulsar. Its ProducerMessage, its map of properties and its callback are used again
// for another message once this one is settled: made anew they are most of what a message costs.
type entry struct {
	message    pulsar.ProducerMessage
	properties map[string]string
	receive    func(pulsar.MessageID, *pulsar.ProducerMessage, error)

	flight     *flight
	place      *place
	generation *generation // place's, from just before the batch is sent

	source *service.Message // that it was made of
	topic  string           // it is for, "" as long as that is not known

	// overhead is the bytes of the message's key and properties, with more than what each takes beside them.
	overhead int

	// attempt is the one that the message's context names, id the record that its metadata names; nil for a message
	// that did not come from our input.
	attempt *attempt.Attempt
	id      *attempt.RecordID
	// unmarked is set when another message of the same WriteBatch has the same id, so that a receipt proves nothing.
	unmarked bool

	// given is set when the client was given the message.
	given bool

	// sequence is the message's number, with de-duplication; SequenceID points to it.
	sequence int64

	// guarded by flight.mu until the flight is done
	settled bool
	class   failureClass
	err     error
	// With de-duplication: the place in the topic; or that the broker had the message, or one with a higher number, already;
	// or that the client has failed it and perhaps goes on with those behind it.
	stored    pulsar.MessageID
	duplicate bool
	doubtful  bool
}

// orderKey is what the order of messages is kept by: consumers are handed messages by ordering key if there is one.
func (e *entry) orderKey() string {
	if e.message.OrderingKey != "" {
		return e.message.OrderingKey
	}
	return e.message.Key
}

// cargo is the storage of a flight's entries, which is used again when nothing of it can be with the client any more.
type cargo struct{ entries []entry }

// grow makes room for n entries of a cargo that is not in use. Entries are never moved: callbacks hold their addresses.
func (c *cargo) grow(n int) {
	if n <= len(c.entries) {
		return
	}
	c.entries = make([]entry, n)
	for i := range c.entries {
		e := &c.entries[i]
		e.receive = func(id pulsar.MessageID, _ *pulsar.ProducerMessage, err error) { e.received(id, err) }
	}
}

// flight is a set of entries that are sent and waited for together.
//
// Invariants:
//   - It is done when every entry is settled: confirmed, failed by the client, failed by us without having been sent, or
//     failed with its generation. The room in the limiters goes back then and not before.
//   - Its cargo is used again only if it was never sent, or is done and nothing in it failed: after a failure the client
//     may still hold pointers into it. The flight itself is not used again, so that whoever still knows it finds it empty.
type flight struct {
	cargo   *cargo
	entries []entry // of the cargo; emptied, under mu, when the cargo is given away

	// broken is set at the first transient failure, so that the sending loop stops at once.
	broken atomic.Bool
	// halts makes the sending loop stop at the first refused entry too, when halted is set: what follows is not sent
	// before that is settled for good.
	halts  bool
	halted atomic.Bool
	// chunked is set if the flight is a single message that is cut into chunks.
	chunked bool
	done    chan struct{} // receives once when all entries are settled
	held    []*place      // the places in whose limiters it holds room

	mu struct {
		sync.Mutex
		waiting  int
		givenUp  bool
		failures int
	}
}

// place is what a flight has to do with one partition.
type place struct {
	partition  *partition
	messages   int   // of the flight that go there, all of which the limiter admits at once
	bytes      int64 // of their payload
	generation *generation
	track      *track // with de-duplication
}

// newFlight begins a flight of n entries in a cargo.
func newFlight(c *cargo, n int) *flight {
	c.grow(n)
	f := &flight{cargo: c, entries: c.entries[:n], done: make(chan struct{}, 1)}
	f.mu.waiting = n
	for i := range f.entries {
		f.entries[i].flight = f
	}
	return f
}

// unload ends the flight and returns its cargo, empty: a pooled cargo must not keep payloads alive.
func (f *flight) unload() *cargo {
	f.mu.Lock()
	entries := f.entries
	f.entries = nil
	f.mu.Unlock()
	for i := range entries {
		entries[i].reset()
	}
	return f.cargo
}

// reset empties an entry that is with nobody.
func (e *entry) reset() {
	clear(e.properties)
	*e = entry{properties: e.properties, receive: e.receive}
}

// shorten leaves only the first n entries in a flight of which nothing was sent.
func (f *flight) shorten(n int) {
	f.mu.Lock()
	before := f.mu.waiting
	for i := n; i < len(f.entries); i++ {
		if !f.entries[i].settled {
			f.mu.waiting--
		}
		f.entries[i].reset()
	}
	f.entries = f.entries[:n]
	done := before > 0 && f.mu.waiting == 0
	f.mu.Unlock()
	if done {
		f.finish()
	}
}

// received is the client's callback. It runs in the goroutine that reads the connection, or inside SendAsync: it must
// never wait.
func (e *entry) received(id pulsar.MessageID, err error) {
	if e.message.SequenceID != nil {
		if err == nil && notStored(id) && e.generation.suspect.Load() {
			err = errNotStored
		}
		e.receivedExact(id, err)
	} else if err == nil && notStored(id) {
		err = errNotStored
	}
	if err == nil && e.generation.limits.chunking && e.generation.isTorn() {
		err = errTorn
	}
	class := confirmed
	if errors.Is(err, pulsar.ErrProducerClosed) && e.generation.dead.Load() {
		// It was we who closed it, and we know why.
		err = fmt.Errorf("the producer on %s ended: %w", e.generation.name, e.generation.cause())
	}
	if err != nil {
		e.generation.partition.topic.session.learnLimit(err)
		class = classify(err, e.generation.alone(len(e.message.Payload)))
		if class == permanent && e.mayGoInChunks() {
			class = transient
		}
	}
	if class == permanent && e.flight.halts {
		e.flight.halted.Store(true)
	}
	if class == transient {
		e.flight.broken.Store(true)
		e.generation.retire(err)
	}
	if class == confirmed {
		e.generation.partition.relieve()
	}
	e.flight.settle(e, class, err)
}

// settle sets the outcome of an entry; the first one wins.
func (f *flight) settle(e *entry, class failureClass, err error) {
	f.mu.Lock()
	done := f.settleLocked(e, class, err)
	f.mu.Unlock()
	if done {
		f.finish()
	}
}

// settleLocked must be called with mu held. It returns true when this was the last entry.
func (f *flight) settleLocked(e *entry, class failureClass, err error) bool {
	if e.settled {
		return false
	}
	e.settled = true
	f.mu.waiting--
	// After giving up the entry belongs to whoever gave up, and reads it without the lock.
	if !f.mu.givenUp {
		e.class, e.err = class, err
		if class != confirmed {
			f.mu.failures++
		}
	}
	return f.mu.waiting == 0
}

// finish runs once, in the goroutine that settled the last entry.
func (f *flight) finish() {
	f.leave()
	f.done <- struct{}{}
}

// leave gives back what the flight holds. Nothing of it may be with the client any more.
func (f *flight) leave() {
	for _, p := range f.held {
		if p.generation != nil {
			p.generation.leave(f)
		}
		p.partition.limiter.release(p.messages, p.bytes)
	}
	clear(f.held)
	f.held = f.held[:0]
}

// waitsFor tells whether entries of a generation are unsettled.
func (f *flight) waitsFor(g *generation) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.entries {
		if e := &f.entries[i]; e.generation == g && !e.settled {
			return true
		}
	}
	return false
}

// failGeneration settles what a closed generation has left without a callback: the client loses callbacks of messages
// that it had not yet cut into a batch.
func (f *flight) failGeneration(g *generation, cause error) {
	f.broken.Store(true)
	f.mu.Lock()
	done := false
	for i := range f.entries {
		e := &f.entries[i]
		if e.generation == g {
			done = f.settleLocked(e, transient, cause) || done
		}
	}
	f.mu.Unlock()
	if done {
		f.finish()
	}
}

// giveUp ends the wait for a flight that is not done. What is unsettled counts as failed with cause; its receipts still
// give back the limiters' room when they come.
func (f *flight) giveUp(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.givenUp = true
	for i := range f.entries {
		if e := &f.entries[i]; !e.settled {
			e.class, e.err = transient, fmt.Errorf("no receipt from the broker: %w", cause)
			f.mu.failures++
		}
	}
}

// failed tells whether any entry of a flight that is done or given up has failed.
func (f *flight) failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.failures > 0
}
