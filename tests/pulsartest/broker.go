package pulsartest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/heldport"
)

// DefaultMaxMessageSize is the broker's default limit for a message, in bytes, metadata included.
const DefaultMaxMessageSize = 5 << 20

// ErrRunning is returned when a broker that runs is restarted, ErrClosed when one is that was closed.
var (
	ErrRunning = errors.New("broker is running")
	ErrClosed  = errors.New("broker is closed")
)

// Option changes how a broker is made.
type Option func(*settings)

type settings struct {
	maxMessageSize int
	receiptDelay   time.Duration
	token          string
	tls            *tls.Config
	deduplication  bool
	noAutoCreation bool
	autoPartitions int
	sink           func(*View)
}

// MaxMessageSize sets the limit that clients are told in the handshake, in bytes.
func MaxMessageSize(n int) Option { return func(s *settings) { s.maxMessageSize = n } }

// ReceiptDelay confirms each SEND this much later, as a bookie's disk would. Throughput is not bounded by it.
func ReceiptDelay(d time.Duration) Option { return func(s *settings) { s.receiptDelay = d } }

// RequireToken refuses connections that do not present this token. ChangeToken changes it.
func RequireToken(token string) Option { return func(s *settings) { s.token = token } }

// TLS serves TLS with these certificates; URL is then a pulsar+ssl address.
func TLS(config *tls.Config) Option { return func(s *settings) { s.tls = config } }

// Deduplication drops a SEND whose sequence id is not above the highest that its producer name has stored in its topic or
// partition, and confirms it with the message id -1:-1. As at the real broker, a batch counts by the sequence id of the
// SEND alone.
func Deduplication() Option { return func(s *settings) { s.deduplication = true } }

// NoAutoCreation refuses topics that do not exist, where the default is to create them without partitions.
func NoAutoCreation() Option { return func(s *settings) { s.noAutoCreation = true } }

// AutoPartitions gives topics that are created by their first use n partitions.
func AutoPartitions(n int) Option { return func(s *settings) { s.autoPartitions = n } }

// Sink hands each message to a function instead of storing it, so that any number of them needs no memory: Messages and
// Entries stay empty, counters and sequence ids are kept. It is called from one goroutine per connection, in order,
// before the message is confirmed, and must not keep the View or anything in it. What a dropped connection has stored may
// still be handed over while the next one's is: the View's place tells the order in which a consumer would get them.
func Sink(visit func(*View)) Option { return func(s *settings) { s.sink = visit } }

// Broker is the fake. All its functions may be called from any goroutine, while clients are at work.
type Broker struct {
	settings settings
	address  string
	port     *heldport.Port
	readRate atomic.Int64 // bytes a second, 0: unlimited
	token    atomic.Pointer[string]
	tasks    sync.WaitGroup

	lookupGate, receiptGate, deliveryGate *gate // guarded by mu

	mu struct {
		sync.Mutex
		closed       bool
		listener     net.Listener // nil: stopped
		connections  map[*connection]struct{}
		topics       map[string]*topic // by base name
		lastLedger   int64
		lastProducer int // of the names that the broker made
		sendPlan     plan
		producerPlan plan
		readerPlan   plan
		closePlan    plan
		lookupPlan   plan
		deliveryPlan plan
		problems     []error
		changed      chan struct{} // closed at the next change; nil while nobody waits
	}
}

// NewBroker starts a broker on a free loopback port. It panics if there is none.
func NewBroker(options ...Option) *Broker {
	b := &Broker{settings: settings{maxMessageSize: DefaultMaxMessageSize}}
	for _, option := range options {
		option(&b.settings)
	}
	b.token.Store(&b.settings.token)
	b.mu.connections = map[*connection]struct{}{}
	b.mu.topics = map[string]*topic{}
	b.mu.sendPlan, b.mu.producerPlan, b.mu.readerPlan, b.mu.closePlan, b.mu.lookupPlan, b.mu.deliveryPlan = plan{}, plan{}, plan{}, plan{}, plan{}, plan{}
	b.lookupGate, b.receiptGate, b.deliveryGate = newGate(), newGate(), newGate()
	port, err := heldport.Hold()
	if err != nil {
		panic("pulsartest: " + err.Error())
	}
	b.port = port
	if err := b.listen(); err != nil {
		panic("pulsartest: " + err.Error())
	}
	return b
}

// URL is the service URL for clients. It stays the same over Stop and Restart.
func (b *Broker) URL() string {
	if b.settings.tls != nil {
		return "pulsar+ssl://" + b.address
	}
	return "pulsar://" + b.address
}

// Addr is the host and port of the broker.
func (b *Broker) Addr() string { return b.address }

// Stop drops all connections and refuses new ones until Restart. What was stored is kept. Receipts that were not written
// yet are lost.
func (b *Broker) Stop() {
	b.mu.Lock()
	listener := b.mu.listener
	b.mu.listener = nil
	if listener != nil {
		_ = listener.Close()
	}
	b.dropConnections()
	b.eachLog(topicName{partition: -1}, b.newLedger)
	b.mu.Unlock()
	b.tasks.Wait()
}

// Restart serves again after Stop, at the same address.
func (b *Broker) Restart() error {
	b.mu.Lock()
	running, closed := b.mu.listener != nil, b.mu.closed
	b.mu.Unlock()
	switch {
	case closed:
		return fmt.Errorf("restarting: %w", ErrClosed)
	case running:
		return fmt.Errorf("restarting: %w", ErrRunning)
	}
	return b.listen()
}

// Close stops the broker for good and waits for its goroutines. What was stored stays readable.
func (b *Broker) Close() {
	b.mu.Lock()
	b.mu.closed = true
	b.mu.Unlock()
	b.Stop()
	b.port.Release()
}

// DropConnections drops all connections; clients may connect again at once. It returns how many there were.
func (b *Broker) DropConnections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropConnections()
}

// ChangeToken makes another token the one that is required, "" for none. Connections that there are stay, as with a token
// that has expired at the real broker, until they are challenged.
func (b *Broker) ChangeToken(token string) { b.token.Store(&token) }

// Challenge asks all connected clients for their token as it is now, as the real broker does every minute. A client that
// answers with another than the required one is disconnected. It returns how many were asked.
func (b *Broker) Challenge() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.mu.connections {
		c.out.send(challengeFrame())
	}
	return len(b.mu.connections)
}

// Connections is the number of connections.
func (b *Broker) Connections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.mu.connections)
}

// Problems lists what clients did that the real broker would not take, or could not give back to a consumer: commands it does
// not know, frames it can't read, batches that do not hold what they say.
func (b *Broker) Problems() []error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]error(nil), b.mu.problems...)
}

// Wait returns when the condition holds, which is asked again at every change in the broker: a message stored, a producer
// or a connection come or gone. The condition may call the broker's functions.
func (b *Broker) Wait(ctx context.Context, condition func() bool) error {
	for {
		b.mu.Lock()
		if b.mu.changed == nil {
			b.mu.changed = make(chan struct{})
		}
		changed := b.mu.changed
		b.mu.Unlock()
		if condition() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the broker: %w", context.Cause(ctx))
		}
	}
}

// WaitForMessages returns the messages of a topic, or of one partition of it, as soon as there are n of them.
func (b *Broker) WaitForMessages(ctx context.Context, topic string, n int) ([]Message, error) {
	name := mustParse(topic)
	var found []Message
	err := b.Wait(ctx, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		found = b.messages(name)
		return len(found) >= n
	})
	if err != nil {
		return found, fmt.Errorf("%d of %d messages in %s: %w", len(found), n, name, err)
	}
	return found, nil
}

func (b *Broker) listen() error {
	listener, err := b.port.Listen()
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed || b.mu.listener != nil {
		_ = listener.Close()
		return ErrClosed
	}
	if b.address == "" { // written once: it is read without the lock
		b.address = listener.Addr().String()
	}
	b.mu.listener = listener
	b.tasks.Go(func() { b.accept(listener) })
	return nil
}

func (b *Broker) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // Stop closed it
		}
		b.mu.Lock()
		if b.mu.listener != listener {
			b.mu.Unlock()
			_ = conn.Close()
			continue
		}
		if b.settings.tls != nil {
			conn = tls.Server(conn, b.settings.tls)
		}
		c := &connection{
			broker:    b,
			conn:      conn,
			out:       newOutbox(b.settings.receiptDelay),
			producers: map[uint64]*producer{},
			former:    map[uint64]*partitionLog{},
			readers:   map[uint64]*reader{},
			gone:      make(chan struct{}),
		}
		b.mu.connections[c] = struct{}{}
		b.tasks.Go(func() { c.out.run(conn) })
		b.tasks.Go(c.run)
		b.notify()
		b.mu.Unlock()
	}
}

// dropConnections is called with the lock held.
func (b *Broker) dropConnections() int {
	n := len(b.mu.connections)
	for c := range b.mu.connections {
		b.forget(c)
		_ = c.conn.Close()
	}
	return n
}

// forget removes a connection and its producers; called with the lock held, by whoever ends the connection first.
func (b *Broker) forget(c *connection) {
	if b.forgotten(c) {
		return
	}
	delete(b.mu.connections, c)
	for _, p := range c.producers {
		b.removeProducer(p)
	}
	for _, r := range c.readers {
		b.removeReader(r)
	}
	close(c.gone)
	c.out.close()
	// The writer may be stuck in a client that does not read.
	_ = c.conn.SetWriteDeadline(time.Now().Add(flushLimit))
	b.notify()
}

// forgotten says that a connection was dropped, though its reader may still have commands in its buffer; called with the lock
// held.
func (b *Broker) forgotten(c *connection) bool {
	_, ok := b.mu.connections[c]
	return !ok
}

// problem records what a client did wrong; called with the lock held.
func (b *Broker) problem(err error) {
	// A client in a loop must not fill the memory of a long test.
	if len(b.mu.problems) < 1000 {
		b.mu.problems = append(b.mu.problems, err)
	}
	b.notify()
}

// notify wakes those who wait for a change; called with the lock held.
func (b *Broker) notify() {
	if b.mu.changed != nil {
		close(b.mu.changed)
		b.mu.changed = nil
	}
}
