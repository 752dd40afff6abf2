package output

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// fakeClient stands in for pulsar.Client where a story needs a client that misbehaves at an exact moment.
type fakeClient struct {
	partitions func() ([]string, error)
	create     func(pulsar.ProducerOptions) (pulsar.Producer, error)
}

func (c *fakeClient) TopicPartitions(topic string) ([]string, error) {
	if c.partitions != nil {
		return c.partitions()
	}
	return []string{topic}, nil
}

func (c *fakeClient) CreateProducer(o pulsar.ProducerOptions) (pulsar.Producer, error) {
	return c.create(o)
}
func (c *fakeClient) Close() {}

type callback = func(pulsar.MessageID, *pulsar.ProducerMessage, error)

// fakeProducer keeps what it is sent, and calls back only when it is told to.
type fakeProducer struct {
	pulsar.Producer // for the methods that are not used

	onSend  func(p *fakeProducer, m *pulsar.ProducerMessage, done callback)
	onFlush func(context.Context) error
	onClose func()

	mu      sync.Mutex
	sent    []string
	waiting []func(pulsar.MessageID, error)
	flushes int
	closes  int
}

func (p *fakeProducer) Name() string { return "fake" }

func (p *fakeProducer) SendAsync(ctx context.Context, m *pulsar.ProducerMessage, done callback) {
	if ctx.Done() != nil {
		panic("SendAsync was given a context that can end")
	}
	p.mu.Lock()
	p.sent = append(p.sent, string(m.Payload))
	p.waiting = append(p.waiting, func(id pulsar.MessageID, err error) { done(id, m, err) })
	p.mu.Unlock()
	if p.onSend != nil {
		p.onSend(p, m, done)
	}
}

func (p *fakeProducer) FlushWithCtx(ctx context.Context) error {
	p.mu.Lock()
	p.flushes++
	p.mu.Unlock()
	if p.onFlush != nil {
		return p.onFlush(ctx)
	}
	return nil
}

func (p *fakeProducer) Close() {
	p.mu.Lock()
	p.closes++
	p.mu.Unlock()
	if p.onClose != nil {
		p.onClose()
	}
}

// receipts confirms the next n waiting messages.
func (p *fakeProducer) receipts(n int) {
	p.mu.Lock()
	due := p.waiting[:n]
	p.waiting = p.waiting[n:]
	p.mu.Unlock()
	for _, f := range due {
		f(fakeID{1, 1}, nil)
	}
}

func (p *fakeProducer) payloads() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sent)
}

func (p *fakeProducer) count(n *int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *n
}

type fakeID struct{ ledger, entry int64 }

func (i fakeID) Serialize() []byte   { return nil }
func (i fakeID) LedgerID() int64     { return i.ledger }
func (i fakeID) EntryID() int64      { return i.entry }
func (i fakeID) BatchIdx() int32     { return 0 }
func (i fakeID) PartitionIdx() int32 { return 0 }
func (i fakeID) BatchSize() int32    { return 0 }
func (i fakeID) String() string      { return "fake" }

// withFake makes a connected output on a fake client. Close it before the bubble ends.
func withFake(t *testing.T, c *fakeClient) *output {
	t.Helper()
	conf, err := parse(t, "url: pulsar://fake:6650\ntopic: t")
	if err != nil {
		t.Fatal(err)
	}
	return withConfig(conf, c)
}

func withConfig(conf *config, c *fakeClient) *output {
	o := newOutput(conf, service.MockResources())
	h := &health{log: o.log}
	o.session.Store(newSession(conf, c, h, &refusals{}, o.log, o.metrics))
	return o
}

// always makes one producer after the other.
func always(producers ...*fakeProducer) func(pulsar.ProducerOptions) (pulsar.Producer, error) {
	return func(pulsar.ProducerOptions) (pulsar.Producer, error) {
		if len(producers) == 0 {
			// As the client does: a nil pointer in a non-nil interface.
			return (*fakeProducer)(nil), errors.New("server error: ProducerBusy: no more producers")
		}
		p := producers[0]
		producers = producers[1:]
		return p, nil
	}
}

func closeOutput(t *testing.T, o *output) {
	t.Helper()
	if err := o.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if s := o.session.Load(); s != nil {
		<-s.finished
	}
}

// result runs WriteBatch in a goroutine.
func result(o *output, ctx context.Context, batch service.MessageBatch) <-chan error {
	done := make(chan error, 1)
	go func() { done <- o.WriteBatch(ctx, batch) }()
	return done
}
