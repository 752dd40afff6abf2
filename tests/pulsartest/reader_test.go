package pulsartest_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/backoff"
)

func newReader(t *testing.T, client pulsar.Client, start pulsar.MessageID) pulsar.Reader {
	t.Helper()
	r, err := client.CreateReader(pulsar.ReaderOptions{
		Topic: "t", StartMessageID: start, ReceiverQueueSize: 10,
		BackoffPolicyFunc: func() backoff.Policy { return quickBackoff{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// A reader gets what there was and what comes, batches and single messages, from the place that it names.
func TestAReaderGetsEverythingFromItsPlaceOn(t *testing.T) {
	for _, from := range []int{0, 4} {
		b := newBroker(t)
		client := newClient(t, b.URL())
		single := newProducer(t, client, pulsar.ProducerOptions{Topic: "t", DisableBatching: true})
		ids := sendAll(t, single, 0, 10).wait(t)
		sendAll(t, newProducer(t, client, pulsar.ProducerOptions{Topic: "t", BatchingMaxPublishDelay: 10 * time.Millisecond}), 10, 20).wait(t)
		start := pulsar.EarliestMessageID()
		if from > 0 {
			start = ids[from-1]
		}
		r := newReader(t, client, start)
		last, err := r.GetLastMessageID()
		if entries := b.Entries("t"); err != nil || last.EntryID() != entries[len(entries)-1].EntryID {
			t.Errorf("the last is %v, %v", last, err)
		}
		for want := from; want < 20; want++ {
			expectNext(t, r, want)
		}
		sendAll(t, single, 20, 22).wait(t)
		expectNext(t, r, 20)
		expectNext(t, r, 21)
		if b.Readers("t") != 1 {
			t.Errorf("%d readers", b.Readers("t"))
		}
		r.Close()
		if b.Readers("t") != 0 {
			t.Errorf("%d readers", b.Readers("t"))
		}
		noProblems(t, b)
	}
}

func expectNext(t *testing.T, r pulsar.Reader, want int) {
	t.Helper()
	m, err := r.Next(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(m.Payload()); got != strconv.Itoa(want) {
		t.Fatalf("got %s, want %d", got, want)
	}
}

func TestAMarkerIsTheLastMessageAndNeverDelivered(t *testing.T) {
	b := newBroker(t)
	client := newClient(t, b.URL())
	sendAll(t, newProducer(t, client, oneByOne("t")), 0, 1).wait(t)
	b.AppendMarker("t")
	r := newReader(t, client, pulsar.EarliestMessageID())
	last, err := r.GetLastMessageID()
	if err != nil || last.EntryID() != 1 {
		t.Errorf("the last is %v, %v", last, err)
	}
	expectNext(t, r, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if m, err := r.Next(ctx); err == nil {
		t.Errorf("got %s", m.Payload())
	}
	release := b.StallDeliveries("t")
	stalled := newReader(t, client, pulsar.EarliestMessageID())
	if m, err := stalled.Next(ctx); err == nil {
		t.Errorf("got %s", m.Payload())
	}
	release()
	expectNext(t, stalled, 0)
}

func TestAnEmptyTopicHasNoLastMessage(t *testing.T) {
	b := newBroker(t)
	if err := b.CreateTopic("t"); err != nil {
		t.Fatal(err)
	}
	r := newReader(t, newClient(t, b.URL()), pulsar.EarliestMessageID())
	if last, err := r.GetLastMessageID(); err != nil || last.EntryID() != -1 {
		t.Errorf("the last is %v, %v", last, err)
	}
}

// Consumers keep their place at the broker, which this one cannot.
func TestConsumersAreRefused(t *testing.T) {
	b := newBroker(t)
	if err := b.CreateTopic("t"); err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, b.URL()).Subscribe(pulsar.ConsumerOptions{Topic: "t", SubscriptionName: "s"}); err == nil {
		t.Error("subscribed")
	}
}
