package output

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/redpanda-data/benthos/v4/public/service"
)

func TestRefusalsStandUntilTheProducerIsConnected(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	after := func(d time.Duration) time.Time { return begin.Add(d) }
	refusal := errors.New("server error: AuthorizationError: not yours")
	r := &refusals{}
	standing := func(topic string, at time.Duration) string {
		cause, final := r.standing(topic, after(at))
		return fmt.Sprint(cause, " ", final)
	}
	told := func(want, topic string, at time.Duration) {
		t.Helper()
		if got := standing(topic, at); got != want {
			t.Errorf("%s after %s: %q, want %q", topic, at, got, want)
		}
	}
	r.watch("a")
	r.watch("b")
	told("<nil> false", "a", 0)
	r.observe("Failed to reconnect to broker, will retry later.", log.Fields{"producer_name": "a", "error": refusal}, begin)
	told("<nil> false", "a", downAfter-1)
	if got := r.latest("a"); got != refusal {
		t.Errorf("the latest word is %v", got)
	}
	r.observe("Failed to reconnect to broker, will retry later.", log.Fields{"producer_name": "a", "error": refusal}, after(downAfter))
	told(refusal.Error()+" false", "a", downAfter)
	told("<nil> false", "b", downAfter)
	r.observe("Reconnected producer to broker", log.Fields{"producer_name": "b"}, after(downAfter))
	told(refusal.Error()+" false", "a", downAfter)
	r.observe("Reconnected producer to broker", log.Fields{"producer_name": "a"}, after(downAfter))
	told("<nil> false", "a", time.Hour)

	r.observe("Topic not found, stop reconnecting, close the producer", log.Fields{"producer_name": "a"}, begin)
	told("the broker has ended the producer: Topic not found true", "a", 0)

	// The client may have a last try under way when a producer is closed. What comes of it is nobody's any more.
	r.forget("a")
	r.observe("Failed to reconnect to broker, will retry later.", log.Fields{"producer_name": "a", "error": refusal}, begin)
	told("<nil> false", "a", time.Hour)
	if n := len(r.mu.byProducer); n != 1 {
		t.Errorf("%d producers are known", n)
	}
}

func TestRefusedMessagesAreThoseAfterWhichTheClientForgetsTheProducer(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	r := &refusals{}
	r.observe("Received send error from server: [PersistenceError] : [no bookies]", nil, begin)
	if cause := r.messageSince(begin); cause != nil {
		t.Errorf("the client connects again after %v", cause)
	}
	r.observe("Received send error from server: [NotAllowedError] : [Exceed maximum message size]", nil, begin)
	if cause := r.messageSince(begin); cause == nil || !strings.Contains(cause.Error(), "Exceed maximum message size") {
		t.Errorf("the cause is %v", cause)
	}
	if cause := r.messageSince(begin.Add(1)); cause != nil {
		t.Errorf("a message that was sent later was refused earlier: %v", cause)
	}
}

func TestTroubleIsToldOnceAndEndsWithAReceipt(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	cause := errors.New("a reason")
	var tr trouble
	// Signs come from one producer, then from refused ones, then from the next.
	for at := time.Duration(0); at < blockedAfter; at += 5 * time.Second {
		if tr.note(begin.Add(at), begin.Add(at), cause) {
			t.Fatalf("told after %s", at)
		}
	}
	if !tr.note(begin.Add(blockedAfter), begin.Add(blockedAfter), cause) {
		t.Error("not told")
	}
	if tr.note(begin, begin.Add(2*blockedAfter), cause) {
		t.Error("told twice")
	}
	if !tr.end() {
		t.Error("forgot that it was told")
	}
	if tr.note(begin.Add(3*blockedAfter), begin.Add(3*blockedAfter), cause) || tr.end() {
		t.Error("the next trouble is told at once")
	}
	// Failures that have nothing to do with each other.
	for at := time.Duration(0); at < 10*blockedAfter; at += troubleMemory + time.Second {
		if tr.note(begin.Add(at), begin.Add(at), cause) {
			t.Fatal("single failures are told as one")
		}
	}
	// One message that has been waiting for long before anybody looked.
	tr = trouble{}
	if !tr.note(begin, begin.Add(blockedAfter), cause) {
		t.Error("a message that has waited is not told")
	}
}

// A producer that may not connect again, because of a permission, a schema, or a quota that lets producers wait, is tried by
// the client for ever, which told nobody: the output looked connected while nothing got through.
func TestARefusedReconnectShows(t *testing.T) {
	t.Parallel()
	for _, code := range []pulsartest.ServerError{pulsartest.AuthorizationError, pulsartest.IncompatibleSchema, pulsartest.ProducerBlockedQuotaExceededError} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			b := startBroker(t)
			o := connected(t, b.URL(), "topic: t")
			b.SwallowReceipts("t", pulsartest.Forever)
			batch, a := newShard().batch("a", "b", "c")
			waiting := result(o, t.Context(), batch)
			if _, err := b.WaitForMessages(t.Context(), "t", 3); err != nil {
				t.Fatal(err)
			}
			b.RefuseProducers("t", pulsartest.Forever, code, "because of a test")
			b.CloseProducers("t")
			select {
			case err := <-waiting:
				if err == nil || errors.Is(err, service.ErrNotConnected) || !strings.Contains(err.Error(), "because of a test") {
					t.Fatalf("got %v", err)
				}
			case <-time.After(busy):
				t.Fatal("the batch waits for ever")
			}
			if replay, _ := undelivered(t, a); len(replay) != 3 {
				t.Errorf("replay %v", replay)
			}
			again, _ := newShard().batch("a", "b", "c")
			if err := o.WriteBatch(t.Context(), again); !errors.Is(err, service.ErrNotConnected) {
				t.Errorf("the next batch: %v", err)
			}
			connectFails(t, o, "because of a test")
			b.ClearFaults()
			eventually(t, func() error { return o.Connect(t.Context()) })
			if err := o.WriteBatch(t.Context(), again); err != nil {
				t.Error(err)
			}
		})
	}
}

// A refusal that nobody waits behind is told to the first who writes, and not by making him wait.
func TestARefusedReconnectOfAnIdleProducerShows(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t")
	b.RefuseProducers("t", pulsartest.Forever, pulsartest.AuthorizationError, "because of a test")
	b.CloseProducers("t")
	eventually(t, func() error {
		s := o.session.Load()
		for name := range s.refusals.names() {
			if cause, _ := s.refusals.standing(name, time.Now()); cause != nil {
				return nil
			}
		}
		return errors.New("no refusal stands")
	})
	batch, _ := newShard().batch("a")
	if err := o.WriteBatch(t.Context(), batch); !errors.Is(err, service.ErrNotConnected) {
		t.Errorf("write: %v", err)
	}
	connectFails(t, o, "because of a test")
	b.ClearFaults()
	eventually(t, func() error { return o.Connect(t.Context()) })
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Error(err)
	}
}

// A partitioned topic that is gone ends producers which have nothing in flight, too. They were taken for living ones, so
// that each batch failed by itself and the output looked connected.
func TestADeletedTopicShowsThoughItsProducersAreIdle(t *testing.T) {
	skipClientRace(t)
	t.Parallel()
	b := startBroker(t, pulsartest.NoAutoCreation())
	if err := b.CreatePartitionedTopic("t", 4); err != nil {
		t.Fatal(err)
	}
	o := connected(t, b.URL(), "topic: t")
	if err := b.DeleteTopic("t"); err != nil {
		t.Fatal(err)
	}
	batch, _ := newShard().batch("a")
	eventually(t, func() error {
		if err := o.WriteBatch(t.Context(), batch); !errors.Is(err, service.ErrNotConnected) {
			return fmt.Errorf("write: %v", err)
		}
		return nil
	})
	connectFails(t, o, "TopicNotFound")
	if err := b.CreatePartitionedTopic("t", 2); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return o.Connect(t.Context()) })
	eventually(t, func() error { return o.WriteBatch(t.Context(), batch) })
}

// A topic's own limit of size makes the broker refuse a message in a way after which the client forgets the producer. Its
// messages waited for ever, even when the limit was gone, and through restarts of the broker.
func TestARefusedMessageDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t\n"+onePacket)
	b.FailSends("t", 1, pulsartest.NotAllowedError, "Exceed maximum message size")
	batch, a := newShard().batch("a", "b")
	ctx, cancel := context.WithTimeout(t.Context(), busy)
	defer cancel()
	err := o.WriteBatch(ctx, batch)
	if err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "Exceed maximum message size") {
		t.Fatalf("got %v", err)
	}
	if replay, refused := undelivered(t, a); len(replay) != 2 || refused {
		t.Errorf("replay %v, refused %v", replay, refused)
	}
	again, _ := newShard().batch("a", "b")
	if err := o.WriteBatch(ctx, again); err != nil {
		t.Error(err)
	}
}

// names are the watched producers.
func (r *refusals) names() map[string]refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.mu.byProducer)
}
