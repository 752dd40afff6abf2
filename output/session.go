package output

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/backoff"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redpanda-data/benthos/v4/public/service"
)

const (
	// discoveryInterval is how often the partitions of the topics in use are asked for: what the clients do by default.
	discoveryInterval = time.Minute

	// patience is how long a caller waits for something that the client does in the background, which itself goes on
	// for up to the operation timeout. The next caller joins it.
	patience = 10 * time.Second

	// grace is how long a cause of failure must be known before a wait is given up for it: the second try of a
	// connection often succeeds.
	grace = time.Second

	// downAfter is how long the broker must have been out of reach, without a single receipt, before writes report it
	// as a lost connection instead of waiting.
	downAfter = 5 * time.Second

	// keepAlive is half the time after which a connection without an answer counts as lost.
	keepAlive = 15 * time.Second

	// closeBound is the longest that closing the producers takes, lingerBound what the client's connections get on top.
	closeBound  = 3 * time.Second
	lingerBound = 500 * time.Millisecond
)

// client is what a session uses of pulsar.Client.
type client interface {
	TopicPartitions(topic string) ([]string, error)
	CreateProducer(pulsar.ProducerOptions) (pulsar.Producer, error)
	Close()
}

// session is one Pulsar client with the topics it writes to. It lives from the first Connect to Close: the client
// reconnects by itself.
//
// Invariants:
//   - What the client does in the background for us is one call per topic or partition at a time, however often it is
//     asked for: its calls cannot be cancelled, so those who give up waiting leave it to the next.
//   - Every goroutine is counted in tasks, or is a generation that is reached from topics or buried.
type session struct {
	conf       *config
	provider   pulsar.Authentication // nil for none
	client     client
	log        *service.Logger
	health     *health
	refusals   *refusals
	metrics    *metrics
	topics     *topics
	lanes      *lanes
	closeLimit time.Duration
	busyLimit  time.Duration
	// scanSilence is how long a topic that is read back may send nothing; see scan.
	scanSilence time.Duration
	// batchLimit is maxBatch.
	batchLimit int64

	deadLettersProven atomic.Bool
	// proven is set when the topic is known to de-duplicate, refusal when it is known not to.
	proven  atomic.Bool
	refusal atomic.Pointer[error]
	// wedged is set when the broker refuses a producer whose name this session has given up, see noteBusy.
	wedged atomic.Bool
	// asked is set when the admin API was asked whether it does, and unasked when it was warned that it did not answer.
	asked, unasked atomic.Bool

	stop     chan struct{} // closed when the session ends
	finished chan struct{} // closed when nothing of it is left, which may be later than close returns
	tasks    sync.WaitGroup

	mu struct {
		sync.Mutex
		closed      bool
		buried      []*topic // dismissed topics whose producers may still be closing
		lastReceipt time.Time
		named       map[string]bool // the names of producers that we gave, of all there were
		blocked     map[string]int  // partitions, with how many of their producers
	}
}

// openSession makes a client. It does not connect yet; errors are those of the configuration, such as a key file that
// cannot be read.
func openSession(conf *config, log *service.Logger, m *metrics) (*session, error) {
	h, r := &health{log: log, conf: conf}, &refusals{}
	provider, err := conf.auth.provider()
	if err != nil {
		return nil, err
	}
	options := pulsar.ClientOptions{
		URL:               conf.url,
		ConnectionTimeout: conf.connectionTimeout,
		OperationTimeout:  conf.operationTimeout,
		KeepAliveInterval: keepAlive,
		Authentication:    provider,
		TLSConfig:         conf.tls,
		Logger:            &clientLog{out: log, health: h, refusals: r},
		// A private registry: the default one is the host program's, and two outputs would share their series.
		MetricsRegisterer:  prometheus.NewRegistry(),
		MetricsCardinality: pulsar.MetricsCardinalityNone,
		// Off: the input bounds the bytes in flight, and waiting in the client cannot be cancelled safely.
		MemoryLimitBytes: -1,
		// The client's sweep of idle connections would only cost the next batch a reconnect.
		ConnectionMaxIdleTime: -1,
	}
	c, err := pulsar.NewClient(options)
	if err != nil {
		return nil, fmt.Errorf("making a Pulsar client for %s: %w", conf.url, err)
	}
	s := newSession(conf, c, h, r, log, m)
	s.provider = provider
	return s, nil
}

func newSession(conf *config, c client, h *health, r *refusals, log *service.Logger, m *metrics) *session {
	s := &session{
		conf: conf, client: c, log: log, health: h, refusals: r, metrics: m,
		closeLimit:  conf.operationTimeout + 5*time.Second,
		busyLimit:   busyLimit,
		scanSilence: patience, batchLimit: maxBatch,
		stop:     make(chan struct{}),
		finished: make(chan struct{}),
	}
	name, _ := conf.topic.static()
	s.topics = newTopics(s, name)
	s.lanes = newLanes(s)
	if conf.deduplication {
		line := s.lanes.observeLeftOut
		h.line.Store(&line)
	}
	tear := s.tear
	h.quotaExceeded.Store(&tear)
	s.spawn(s.rediscover)
	return s
}

// producerOptions are those of a partition's next producer, with what its generation must know of them. But for the chunks
// they are those of the Java connector's producer.
func (s *session) producerOptions(p *partition) (pulsar.ProducerOptions, producerLimits) {
	c := s.conf
	options := pulsar.ProducerOptions{
		Topic:                   p.name,
		Name:                    s.producerName(),
		SendTimeout:             c.sendTimeout,
		MaxPendingMessages:      clientPending(c.maxPending),
		CompressionType:         c.compression,
		CompressionLevel:        c.compressionLevel,
		DisableBatching:         !c.batching.enabled,
		BatchingMaxPublishDelay: c.batching.maxPublishDelay,
		BatchingMaxMessages:     uint(c.batching.maxMessages),
		BackOffPolicyFunc: func() backoff.Policy {
			return &reconnectBackoff{first: c.firstReconnect, last: c.lastReconnect}
		},
		// Each producer is of one partition: there is nothing to discover, and its ticker would only ask.
		PartitionsAutoDiscoveryInterval: 24 * 365 * time.Hour,
	}
	if p.producer != "" {
		// One by one, or the broker would know only the first number of a packet.
		options.Name, options.DisableBatching, options.MaxPendingMessages = p.producer, true, clientPending(exactPending)
		return options, producerLimits{}
	}
	if p.chunks == nil {
		return s.chunkingOptions(options)
	}
	size := s.batchSize()
	options.BatchingMaxSize = uint(size)
	return options, producerLimits{batching: c.batching.enabled, maxSize: size}
}

// producerName returns a name that no other producer has, "" if the broker is to make it: a broker refuses a name that is
// connected already, and after a lost connection the old one may be for a while.
func (s *session) producerName() string {
	if s.conf.producerName == "" {
		return ""
	}
	return s.conf.producerName + "-" + rand.Text()[:13]
}

// reconnectBackoff is the pauses between the client's tries to connect a producer again. The client's own policy grows to
// a minute, for which a topic would be left alone after a long outage.
type reconnectBackoff struct{ first, last, next time.Duration }

func (b *reconnectBackoff) Next() time.Duration {
	b.next = min(max(2*b.next, b.first), b.last)
	return b.next + mathrand.N(b.next/5+1)
}

func (b *reconnectBackoff) IsMaxBackoffReached() bool { return b.next >= b.last }

func (b *reconnectBackoff) Reset() { b.next = 0 }

// spawn runs f in a goroutine of the session. It returns false, and does not run it, when the session has ended.
func (s *session) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	s.tasks.Go(f)
	return true
}

// await waits for a call in the background and returns its error. It returns earlier, and the call goes on, when ctx or
// the session ends, when its patience does, or when the cause is known for which the broker cannot be reached.
func (s *session) await(ctx context.Context, c *call) error {
	select {
	case <-c.done:
		return c.err
	default:
	}
	began := time.Now()
	ticker := time.NewTicker(grace / 10)
	defer ticker.Stop()
	for {
		select {
		case <-c.done:
			// The client's own error after a long time is "connection error" and the like.
			if _, cause := s.health.failure(); c.err != nil && cause != nil {
				return fmt.Errorf("no connection to %s: %w", s.conf.url, cause)
			}
			return c.err
		case <-ctx.Done():
			return fmt.Errorf("%s: waiting for Pulsar at %s: %w", c.what, s.conf.url, context.Cause(ctx))
		case <-s.stop:
			return errClosed
		case now := <-ticker.C:
			if now.Sub(began) < grace {
				continue
			}
			if _, cause := s.health.failure(); cause != nil {
				return fmt.Errorf("no connection to %s: %w", s.conf.url, cause)
			}
			if now.Sub(began) >= patience {
				return fmt.Errorf("%s: no answer from Pulsar at %s within %s", c.what, s.conf.url, patience)
			}
		}
	}
}

// down returns why the broker is out of reach, nil if it is not or if that is not certain yet: one broker of several may
// be away while the others take messages.
func (s *session) down(now time.Time) error {
	since, cause := s.health.failure()
	if cause == nil || now.Sub(since) < downAfter {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.lastReceipt.After(since) {
		return nil
	}
	return fmt.Errorf("no connection to %s: %w", s.conf.url, cause)
}

// received notes that the broker has confirmed something.
func (s *session) received(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.lastReceipt = now
}

// rediscover asks for the partitions of the topics in use every now and then.
func (s *session) rediscover() {
	ticker := time.NewTicker(discoveryInterval)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-ticker.C:
			for _, t := range s.topics.sweep(now) {
				t.discover()
			}
			s.unearth()
		}
	}
}

// bury ends a topic's producers, in the background, and keeps it in sight until they are closed.
func (s *session) bury(t *topic) {
	t.dismiss()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.buried = append(s.mu.buried, t)
}

// unearth forgets the buried topics whose producers are closed. It looks at them without mu, which their partitions take
// with their own locks held.
func (s *session) unearth() {
	s.mu.Lock()
	buried := slices.Clone(s.mu.buried)
	s.mu.Unlock()
	buried = slices.DeleteFunc(buried, func(t *topic) bool { return len(t.open()) > 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.buried = slices.DeleteFunc(s.mu.buried, func(t *topic) bool { return slices.Contains(buried, t) })
}

// tear ends the generation that sends chunks to a partition, before the client fails what is pending there.
func (s *session) tear(partition string) {
	s.mu.Lock()
	all := slices.Clone(s.mu.buried)
	s.mu.Unlock()
	for _, t := range append(all, s.topics.all()...) {
		l := t.layout.Load()
		if l == nil {
			continue
		}
		for _, p := range l.partitions {
			if g := p.chunks.last(); g != nil && p.name == partition {
				g.tear(pulsar.ErrProducerBlockedQuotaExceeded)
			}
		}
	}
}

// open returns the generations of a topic that are not closed.
func (t *topic) open() []*generation {
	var open []*generation
	if l := t.layout.Load(); l != nil {
		for _, p := range l.partitions {
			for _, p := range []*partition{p, p.chunks} {
				if g := p.last(); g != nil && !g.isClosed() {
					open = append(open, g)
				}
			}
		}
	}
	return open
}

// blocked and unblocked tell of a partition that has not taken messages for long.
func (s *session) blocked(partition string, lasting time.Duration, cause error) {
	s.gauge(partition, 1)
	s.log.Warnf("Messages to %s have been waiting for %s: %v", partition, lasting.Round(time.Second), cause)
}

func (s *session) unblocked(partition string) {
	s.gauge(partition, -1)
	s.log.Infof("Messages to %s are confirmed again, or nobody sends any", partition)
}

// gauge counts what is blocked of a partition, which may have two producers, and sets its gauge.
func (s *session) gauge(partition string, change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.blocked == nil {
		s.mu.blocked = map[string]int{}
	}
	if s.mu.blocked[partition] += change; s.mu.blocked[partition] > 0 {
		s.metrics.blocked.Set(1, partition)
		return
	}
	delete(s.mu.blocked, partition)
	s.metrics.blocked.Set(0, partition)
}

// silence is why the messages of a producer wait, as far as it is known.
func (s *session) silence(producer string) error {
	if _, cause := s.health.failure(); cause != nil {
		return cause
	}
	if cause := s.refusals.latest(producer); cause != nil {
		return cause
	}
	return errors.New("the broker is connected, but does not confirm")
}

// ended tells of a producer that ended because of a failure, which the failed batches report.
func (s *session) ended(partition string, cause error) {
	s.metrics.ended.Incr(1)
	s.log.Debugf("The producer on %s ends and is made anew: %v", partition, cause)
}

// close ends the session: flush, close the producers, close the client. It is bounded; what the client has not finished
// by then ends by itself within the operation timeout, and messages without a receipt have failed.
func (s *session) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, closeBound)
	defer cancel()

	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return
	}
	s.mu.closed = true
	s.mu.Unlock()

	s.lanes.close()
	s.topics.close()
	s.mu.Lock()
	buried := s.mu.buried
	s.mu.Unlock()
	var open []*generation
	for _, t := range buried {
		open = append(open, t.open()...)
	}
	for _, g := range open {
		select {
		case <-g.closed:
		case <-ctx.Done():
			g.failAll(errClosed)
		}
	}
	close(s.stop)

	// The client's calls cannot be cancelled, and one that ended after the client was closed could leave a connection
	// behind that nobody closes. While the broker cannot be reached they try for up to the operation timeout, which
	// nobody has to wait for: they do nothing any more.
	go func() {
		defer close(s.finished)
		s.tasks.Wait()
		s.client.Close()
	}()
	linger := time.NewTimer(lingerBound)
	defer linger.Stop()
	select {
	case <-s.finished:
	case <-linger.C:
	case <-ctx.Done():
	}
}
