package output

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// twoPartitions is an output on a topic of two partitions, with the producers that each gets, and a key of each.
func twoPartitions(t *testing.T, yaml string, producers [2][]*fakeProducer) (o *output, keys [2]string) {
	t.Helper()
	conf, err := parse(t, "url: pulsar://fake:6650\ntopic: t\n"+yaml)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"t-partition-0", "t-partition-1"}
	makers := [2]func(pulsar.ProducerOptions) (pulsar.Producer, error){always(producers[0]...), always(producers[1]...)}
	o = withConfig(conf, &fakeClient{
		partitions: func() ([]string, error) { return names, nil },
		create: func(options pulsar.ProducerOptions) (pulsar.Producer, error) {
			return makers[slices.Index(names, options.Topic)](options)
		},
	})
	for _, key := range numbers(0, 100) {
		keys[conf.hashing.partitionOf(key, 2)] = key
	}
	return o, keys
}

// Rule 14: a failure in one partition stops the batch for all: what would be sent to the others now would be sent once more
// by the replay, or, with numbers, stand in front of what failed.
func TestAFailureInOnePartitionStopsTheBatchForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &fakeProducer{}, &fakeProducer{}
		first.onSend = func(_ *fakeProducer, m *pulsar.ProducerMessage, done callback) { done(nil, m, pulsar.ErrSendTimeout) }
		o, keys := twoPartitions(t, "", [2][]*fakeProducer{{first}, {second}})
		defer closeOutput(t, o)
		batch, a := newShard().batch(keys[1], keys[0], keys[1], keys[1])
		done := result(o, t.Context(), batch)
		synctest.Wait()
		if got := second.payloads(); !slices.Equal(got, []string{"0"}) {
			t.Errorf("sent %v to the other partition", got)
		}
		second.receipts(len(second.payloads()))
		if err := <-done; err == nil || errors.Is(err, service.ErrNotConnected) {
			t.Errorf("%v", err)
		}
		if replay, refused := undelivered(t, a); !slices.Equal(replay, []int{1, 2, 3}) || refused {
			t.Errorf("replay %v", replay)
		}
	})
}

// A batch waits for room in one partition while the producer of another ends. Nothing of it was sent yet, so it goes through
// the next producer and nobody hears of a failure.
func TestABatchThatWaitsForRoomTakesTheNextProducer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next, slow := &fakeProducer{}, &fakeProducer{}, &fakeProducer{}
		o, keys := twoPartitions(t, "max_pending_messages: 1", [2][]*fakeProducer{{old, next}, {slow}})
		defer closeOutput(t, o)
		before, _ := newShard().batch(keys[1])
		beforeDone := result(o, t.Context(), before)
		synctest.Wait()
		o.conf.maxPending = 2 // a batch of two in one part
		batch, _ := newShard().batch(keys[0], keys[1])
		done := result(o, t.Context(), batch)
		synctest.Wait()
		if len(old.payloads())+len(slow.payloads()) != 1 {
			t.Fatalf("sent %v and %v without room", old.payloads(), slow.payloads())
		}
		o.session.Load().topics.all()[0].layout.Load().partitions[0].live().retire(errors.New("the broker has ended it"))
		synctest.Wait()
		slow.receipts(1)
		synctest.Wait()
		if got := next.payloads(); !slices.Equal(got, []string{"0"}) {
			t.Errorf("the next producer has sent %v, the old one %v", got, old.payloads())
		}
		next.receipts(len(next.payloads()))
		slow.receipts(min(1, len(slow.payloads())-1))
		if err := errors.Join(<-beforeDone, <-done); err != nil {
			t.Error(err)
		}
	})
}

// A record comes in two messages, as when a processor copies it, and the second is not sent since something in front of it
// has failed: then the receipt of the first does not speak for the record.
func TestAMessageThatIsNotSentAnyMoreKeepsItsRecordUndelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{}
		p.onSend = func(_ *fakeProducer, m *pulsar.ProducerMessage, done callback) {
			if string(m.Payload) == "1" {
				done(nil, m, pulsar.ErrSendTimeout)
				return
			}
			done(fakeID{1, 1}, m, nil)
		}
		o := withFake(t, &fakeClient{create: always(p)})
		defer closeOutput(t, o)
		batch, a := newShard().batch("a", "b", "c")
		if err := o.WriteBatch(t.Context(), service.MessageBatch{batch[0].Copy()}); err != nil {
			t.Fatal(err)
		}
		if err := o.WriteBatch(t.Context(), service.MessageBatch{batch[1], batch[0]}); err == nil {
			t.Fatal("no error")
		}
		if replay, _ := undelivered(t, a); !slices.Equal(replay, []int{0, 1, 2}) {
			t.Errorf("replay %v", replay)
		}
	})
}

// Some refusals come from the client when it is given the message, and were not foreseen. Nothing behind such a message is
// sent before it is in the dead-letter topic.
func TestNothingOvertakesADeadLetterThatTheClientRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf, err := parse(t, "url: pulsar://fake:6650\ntopic: t\ndead_letter_topic: dead")
		if err != nil {
			t.Fatal(err)
		}
		p, dead := &fakeProducer{}, &fakeProducer{}
		p.onSend = func(_ *fakeProducer, m *pulsar.ProducerMessage, done callback) {
			if string(m.Payload) == "1" {
				done(nil, m, pulsar.ErrInvalidMessage)
				return
			}
			done(fakeID{1, 1}, m, nil)
		}
		o := withConfig(conf, &fakeClient{create: func(options pulsar.ProducerOptions) (pulsar.Producer, error) {
			if options.Topic == "dead" {
				return dead, nil
			}
			return p, nil
		}})
		defer closeOutput(t, o)
		batch, a := newShard().batch("a", "b", "c", "d")
		done := result(o, t.Context(), batch)
		synctest.Wait()
		if got := p.payloads(); !slices.Equal(got, []string{"0", "1"}) {
			t.Errorf("sent %v before the dead letter was confirmed", got)
		}
		if got := dead.payloads(); !slices.Equal(got, []string{"1"}) {
			t.Fatalf("dead letters %v", got)
		}
		dead.receipts(1)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := p.payloads(); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
			t.Errorf("sent %v", got)
		}
		if replay, _ := undelivered(t, a); len(replay) > 0 {
			t.Errorf("replay %v", replay)
		}
	})
}

// A batch that comes while the flush of another is waiting for receipts does not wait for them (rule 3).
func TestAFlushDoesNotWaitForTheReceiptsOfTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{onFlush: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		o := withFake(t, &fakeClient{create: always(p)})
		defer closeOutput(t, o)
		first, _ := newShard().batch("a")
		second, _ := newShard().batch("b")
		firstDone := result(o, t.Context(), first)
		synctest.Wait()
		secondDone := result(o, t.Context(), second)
		synctest.Wait()
		if n := p.count(&p.flushes); n != 2 {
			t.Errorf("%d flushes for two batches, one after the other", n)
		}
		p.receipts(2)
		if err := errors.Join(<-firstDone, <-secondDone); err != nil {
			t.Error(err)
		}
	})
}

// The client forgets what it has not cut into a batch when its producer is closed. In good order that is flushed before.
func TestAnOrderlyEndFlushesWhatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var closing atomic.Bool
		p := &fakeProducer{}
		p.onFlush = func(context.Context) error {
			if closing.Load() {
				p.receipts(1)
			}
			return nil
		}
		o := withFake(t, &fakeClient{create: always(p)})
		batch, _ := newShard().batch("a")
		done := result(o, t.Context(), batch)
		synctest.Wait()
		closing.Store(true)
		closeOutput(t, o)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// underWay sends one message through a generation of its own, whose producer has the name.
func underWay(t *testing.T, o *output, p *fakeProducer, name string) (*generation, *entry) {
	t.Helper()
	on := newPartition(newTopic(o.session.Load(), "t"), "t", 0)
	on.producer = name
	g := startGeneration(on, p, producerLimits{}, time.Second)
	f := newFlight(&cargo{}, 1)
	e := &f.entries[0]
	e.generation = g
	if err := g.board(f, time.Now()); err != nil {
		t.Fatal(err)
	}
	g.send(e)
	return g, e
}

// With numbers nothing is lost by letting the client finish, whatever the producer ends for, and the name stays free.
func TestAProducerWithNumbersFinishesBeforeItIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{}
		p.onFlush = func(context.Context) error { p.receipts(1); return nil }
		o := withFake(t, &fakeClient{})
		defer closeOutput(t, o)
		g, e := underWay(t, o, p, "application/stream/shard/epoch")
		g.retire(errors.New("no connection"))
		<-g.closed
		if e.class != confirmed {
			t.Errorf("the message failed though the client had still sent it: %v", e.err)
		}
	})
}

// A producer with numbers that is closed while the client connects it again can stay with the broker and hold its name. So a
// broker that is restarted is waited for, where others are given up after ten seconds.
func TestAProducerWithNumbersWaitsForARestartOfTheBroker(t *testing.T) {
	for name, patience := range map[string]time.Duration{"": outageAfter, "application/stream/shard/epoch": exactOutageAfter} {
		synctest.Test(t, func(t *testing.T) {
			o := withFake(t, &fakeClient{})
			defer closeOutput(t, o)
			o.session.Load().health.failed(errors.New("connection refused"), time.Now())
			began := time.Now()
			g, _ := underWay(t, o, &fakeProducer{}, name)
			<-g.dying
			if waited := time.Since(began); waited < patience || waited > patience+2*watchInterval {
				t.Errorf("producer %q was given up after %s, want %s", name, waited, patience)
			}
		})
	}
}

// Rule 22: the client panics when it is given a message while its producer is being closed, or, worse, takes it without a
// word. So a producer that has ended is closed when the loop that is sending through it has.
func TestAProducerIsNotClosedUnderASender(t *testing.T) {
	t.Parallel()
	sending := make(chan struct{})
	p := &fakeProducer{}
	p.onSend = func(*fakeProducer, *pulsar.ProducerMessage, callback) { <-sending }
	o := withFake(t, &fakeClient{create: always(p)})
	defer closeOutput(t, o)
	batch, _ := newShard().batch("a", "b")
	done := result(o, t.Context(), batch)
	waitFor(t, func() bool { return len(p.payloads()) == 1 })
	g := o.session.Load().topics.all()[0].layout.Load().partitions[0].live()
	g.retire(errors.New("the broker has ended it"))
	waitFor(t, func() bool {
		if p.count(&p.closes) > 0 {
			return true
		}
		waits := !g.sending.TryRLock() // as soon as somebody waits to write there are no more readers
		if !waits {
			g.sending.RUnlock()
		}
		return waits
	})
	if p.count(&p.closes) > 0 {
		t.Error("the producer was closed while a message was given to it")
	}
	close(sending)
	if err := <-done; err == nil {
		t.Error("no error")
	}
	if got := p.payloads(); len(got) != 1 {
		t.Errorf("sent %v, the second one through a producer that has ended", got)
	}
	if p.count(&p.closes) != 1 {
		t.Error("the producer was not closed")
	}
}
