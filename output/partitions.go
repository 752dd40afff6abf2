package output

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// topic is one topic as a set of partitions, each with a producer of its own. The client could do that itself, but its
// partitioned producer flushes one partition after the other and ends them all together.
type topic struct {
	name    string
	session *session

	// layout is nil until the partitions are known. A batch takes one and keeps to it.
	layout atomic.Pointer[layout]
	// turn counts the batches for the round robin of messages without a key.
	turn atomic.Uint32

	mu struct {
		sync.Mutex
		discovery *call // the one that runs, nil if none
		gone      bool
	}
}

// layout is the partitions of a topic at one time, in order. A topic that is not partitioned has one, named as the topic.
type layout struct{ partitions []*partition }

// call is an operation in the background that any number of goroutines may wait for.
type call struct {
	what string // it does, for the error of those who give up waiting
	done chan struct{}
	err  error // read after done
}

func newCall(what string) *call { return &call{what: what, done: make(chan struct{})} }

func newTopic(s *session, name string) *topic { return &topic{name: name, session: s} }

// discover asks the broker for the topic's partitions, in the background; a second caller joins the first's call.
func (t *topic) discover() *call {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.discovery != nil {
		return t.mu.discovery
	}
	c := newCall("asking for the partitions of topic " + t.name)
	if t.mu.gone || !t.session.spawn(func() {
		names, err := t.session.client.TopicPartitions(t.name)
		t.mu.Lock()
		if err == nil && !t.mu.gone {
			t.adopt(names)
		}
		t.mu.discovery = nil
		t.mu.Unlock()
		if err != nil {
			c.err = fmt.Errorf("%s: %w", c.what, err)
		}
		close(c.done)
	}) {
		c.err = errClosed
		close(c.done)
		return c
	}
	t.mu.discovery = c
	return c
}

// adopt makes the named partitions the current ones. Those that were there before keep their producers; those that are
// gone (the topic was deleted and made anew) lose theirs. It must be called with mu held.
func (t *topic) adopt(names []string) {
	var before []*partition
	if l := t.layout.Load(); l != nil {
		before = l.partitions
	}
	if len(before) == len(names) && slices.EqualFunc(before, names, func(p *partition, n string) bool { return p.name == n }) {
		return
	}
	after := make([]*partition, len(names))
	for i, name := range names {
		if k := slices.IndexFunc(before, func(p *partition) bool { return p.name == name }); k >= 0 {
			after[i] = before[k]
		} else {
			after[i] = newPartition(t, name, i)
		}
	}
	t.layout.Store(&layout{partitions: after})
	if before != nil {
		t.session.log.Infof("Topic %s has %d partitions now, it had %d", t.name, len(after), len(before))
	}
	for _, p := range before {
		if !slices.Contains(after, p) {
			p.dismiss()
		}
	}
}

// known returns the current partitions, asking for them if need be.
func (t *topic) known(ctx context.Context) (*layout, error) {
	if l := t.layout.Load(); l != nil {
		return l, nil
	}
	if err := t.session.await(ctx, t.discover()); err != nil {
		return nil, err
	}
	if l := t.layout.Load(); l != nil {
		return l, nil
	}
	return nil, errClosed
}

// live tells whether any partition has a producer that may send.
func (t *topic) live() bool {
	l, now := t.layout.Load(), time.Now()
	return l != nil && slices.ContainsFunc(l.partitions, func(p *partition) bool {
		g := p.live()
		if g == nil {
			return false
		}
		refusal, _ := t.session.refusals.standing(g.producerName, now)
		return refusal == nil
	})
}

// dismiss ends all producers of the topic in good order, in the background.
func (t *topic) dismiss() {
	t.mu.Lock()
	t.mu.gone = true
	l := t.layout.Load()
	t.mu.Unlock()
	if l == nil {
		return
	}
	for _, p := range l.partitions {
		p.dismiss()
	}
}

// partition is one partition of a topic over all its producer generations, of which one lives at a time.
type partition struct {
	name    string // of the partition topic, "topic-partition-3"
	index   int
	topic   *topic
	limiter *limiter
	// producer is the name of its producers when it is one of a lane, "" otherwise.
	producer string

	// chunks is the same partition with a producer that sends messages one by one and cuts them into chunks. It has no
	// chunks itself.
	chunks *partition

	// troubled is whether trouble is not zero: receipts are many, and trouble is rare.
	troubled atomic.Bool

	mu struct {
		sync.Mutex
		trouble    trouble
		generation *generation // the last one, nil before the first
		creation   *call       // the one that runs, nil if none
		// Of the last creation: ProducerBusy while an old connection is still known to the broker, a quota, a missing
		// right. The client does not retry that.
		refusal error
		retryAt time.Time
		pause   time.Duration
		// busySince is when the name was refused first, of refusals in a row.
		busySince time.Time
		gone      bool
	}
}

func newPartition(t *topic, name string, index int) *partition {
	conf := t.session.conf
	return &partition{
		name: name, index: index, topic: t, limiter: newLimiter(conf.maxPending, conf.maxPendingBytes),
		chunks: &partition{name: name, index: index, topic: t, limiter: newLimiter(1, conf.maxPendingBytes)},
	}
}

// live returns the generation that may send, nil if there is none now.
func (p *partition) live() *generation {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := p.mu.generation; g != nil && !g.dead.Load() {
		return g
	}
	return nil
}

// acquire returns a living generation. It waits for the end of a dying one and for the creation of its successor, and
// fails with the cause if there can't be one now.
func (p *partition) acquire(ctx context.Context) (*generation, error) {
	for {
		g, wait, err := p.step()
		if g != nil || err != nil {
			return g, err
		}
		if err := p.topic.session.await(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// step returns a living generation, or what to wait for, or why there is none.
func (p *partition) step() (*generation, *call, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.mu.generation
	switch {
	case p.mu.gone:
		return nil, nil, fmt.Errorf("sending to %s: %w", p.name, errClosed)
	case g != nil && !g.dead.Load():
		if cause, final := p.topic.session.refusals.standing(g.producerName, time.Now()); final {
			g.retire(cause)
		} else if cause != nil {
			return nil, nil, fmt.Errorf("the producer on %s cannot connect: %w", p.name, cause)
		} else {
			return g, nil, nil
		}
		return nil, &call{what: "closing the last producer on " + p.name, done: g.closed}, nil
	case p.mu.creation != nil:
		return nil, p.mu.creation, nil
	case g != nil && !g.isClosed():
		return nil, &call{what: "closing the last producer on " + p.name, done: g.closed}, nil
	case p.mu.refusal != nil && time.Now().Before(p.mu.retryAt):
		return nil, nil, p.mu.refusal
	}
	c := newCall("creating a producer on " + p.name)
	if !p.topic.session.spawn(func() { p.create(c) }) {
		return nil, nil, fmt.Errorf("sending to %s: %w", p.name, errClosed)
	}
	p.mu.creation = c
	return nil, c, nil
}

// create makes the next generation and ends the call.
func (p *partition) create(c *call) {
	s := p.topic.session
	if p.last() != nil {
		// The last one failed. Perhaps the topic was made anew with other partitions.
		p.topic.discover()
	}
	options, limits := s.producerOptions(p)
	made, err := s.client.CreateProducer(options)
	p.mu.Lock()
	p.mu.creation = nil
	if err != nil {
		// made is not to be looked at: it is a nil pointer in a non-nil interface.
		c.err = fmt.Errorf("%s: %w", c.what, withAdvice(s.conf, err))
		p.mu.pause = min(max(2*p.mu.pause, s.conf.firstReconnect), s.conf.lastReconnect)
		p.mu.refusal, p.mu.retryAt = c.err, time.Now().Add(p.mu.pause)
		p.noteBusyLocked(err, time.Now())
	} else {
		p.mu.refusal, p.mu.pause, p.mu.busySince = nil, 0, time.Time{}
		s.gaveName(p.producer)
		p.mu.generation = startGeneration(p, made, limits, s.closeLimit)
		if p.mu.gone {
			p.mu.generation.dismiss()
		}
	}
	p.mu.Unlock()
	close(c.done)
	if err != nil {
		now := time.Now()
		p.suffer(now, now, c.err)
		// The topic may have been made anew with other partitions.
		p.topic.discover()
	}
}

// dismiss ends the partition in good order, in the background.
func (p *partition) dismiss() {
	defer p.relieve() // or the gauge would say for ever that it is blocked
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.gone = true
	if p.mu.generation != nil {
		p.mu.generation.dismiss()
	}
	if p.chunks != nil {
		p.chunks.dismiss()
	}
}

// last returns the partition's last generation, nil if there was none. There may be no partition: a lane's has no chunks.
func (p *partition) last() *generation {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.generation
}

// suffer notes that messages to the partition do not get through, and since when.
func (p *partition) suffer(since, now time.Time, cause error) {
	p.mu.Lock()
	if p.mu.gone {
		p.mu.Unlock()
		return
	}
	p.troubled.Store(true)
	tell := p.mu.trouble.note(since, now, cause)
	lasting := now.Sub(p.mu.trouble.since)
	p.mu.Unlock()
	if tell {
		p.topic.session.blocked(p.name, lasting, cause)
	}
}

// relieve notes a receipt: whatever the trouble was, it is over.
func (p *partition) relieve() {
	if !p.troubled.Load() {
		return
	}
	p.mu.Lock()
	p.troubled.Store(false)
	told := p.mu.trouble.end()
	p.mu.Unlock()
	if told {
		p.topic.session.unblocked(p.name)
	}
}

// quiet notes that a living producer has nothing that waits: if nobody tries any more, there is no trouble to tell of.
func (p *partition) quiet(now time.Time) {
	if !p.troubled.Load() {
		return
	}
	p.mu.Lock()
	over := p.mu.trouble.over(now)
	p.mu.Unlock()
	if over {
		p.relieve()
	}
}

func (g *generation) isClosed() bool {
	select {
	case <-g.closed:
		return true
	default:
		return false
	}
}

// produceable waits until the topic's partitions are known and each has a producer or has failed to get one. It fails if
// none has one; what the others lack is told in the log.
func (t *topic) produceable(ctx context.Context) error {
	// Always a fresh question: it is the proof that the broker can be reached now.
	if err := t.session.await(ctx, t.discover()); err != nil {
		return err
	}
	l, err := t.known(ctx)
	if err != nil {
		return err
	}
	failures := make([]error, len(l.partitions))
	var wg sync.WaitGroup
	for i, p := range l.partitions {
		wg.Go(func() { _, failures[i] = p.acquire(ctx) })
	}
	wg.Wait()
	if t.live() {
		for _, err := range failures {
			if err != nil {
				t.session.log.Warnf("A partition cannot be written to, the others can: %v", err)
			}
		}
		return nil
	}
	return errors.Join(distinct(failures)...)
}

// distinct drops errors of the same text but for the partition's number: 100 partitions fail for one reason.
func distinct(errs []error) []error {
	seen := map[string]bool{}
	var out []error
	for _, err := range errs {
		if err == nil {
			continue
		}
		cause := err
		if inner := errors.Unwrap(err); inner != nil {
			cause = inner
		}
		if !seen[cause.Error()] {
			seen[cause.Error()] = true
			out = append(out, err)
		}
	}
	return out
}
