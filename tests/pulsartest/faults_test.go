package pulsartest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// oneByOne makes each message a SEND of its own, so that a fault strikes a known message.
//
// Batches of one and not DisableBatching: there the client (v0.21.0) serialises its producer name while the reconnecting
// goroutine writes it, which the race detector counts as a failure of the test.
func oneByOne(topic string) pulsar.ProducerOptions {
	return pulsar.ProducerOptions{Topic: topic, BatchingMaxMessages: 1}
}

func wantPayloads(t *testing.T, got []pulsartest.Message, want []string) {
	t.Helper()
	if !slices.Equal(payloads(got), want) {
		t.Errorf("stored %q, want %q", payloads(got), want)
	}
}

func TestAFailedSendIsNotStoredAndComesAgainInOrder(t *testing.T) {
	// Every code but those which only silence the Go client's producer, and ChecksumError, which is below.
	for code := pulsartest.UnknownError; code <= pulsartest.ProducerFenced; code++ {
		switch code {
		case pulsartest.NotAllowedError, pulsartest.TopicTerminatedError, pulsartest.ChecksumError:
			continue
		}
		t.Run(code.String(), func(t *testing.T) {
			b := newBroker(t)
			p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
			b.PassSends("t", 3)
			b.FailSends("t", 2, code, "as the test wants it")
			sendAll(t, p, 0, 20).wait(t)
			wantPayloads(t, b.Messages("t"), numbers(0, 20))
			if c := b.Counters("t"); c.SendErrors != 2 || c.Frames != c.Stored+c.SendErrors+c.Ignored {
				t.Errorf("%+v", c)
			}
			noProblems(t, b)
		})
	}
}

func TestASilencedProducerLosesTheMessageUntilItsTimeout(t *testing.T) {
	for _, code := range []pulsartest.ServerError{pulsartest.NotAllowedError, pulsartest.TopicTerminatedError} {
		t.Run(code.String(), func(t *testing.T) {
			b := newBroker(t)
			options := oneByOne("t")
			options.SendTimeout = 50 * time.Millisecond
			p := newProducer(t, newClient(t, b.URL()), options)
			b.FailSends("t", 1, code, "")
			_, errs := sendAll(t, p, 0, 1).outcome(t)
			if !errors.Is(errs[0], pulsar.ErrSendTimeout) {
				t.Errorf("error %v", errs[0])
			}
			wantPayloads(t, b.Messages("t"), nil)
		})
	}
}

func TestABadChecksumIsRefused(t *testing.T) {
	b := newBroker(t)
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	b.CorruptSends("t", 1)
	sendAll(t, p, 0, 1).wait(t)
	wantPayloads(t, b.Messages("t"), numbers(0, 1))
	if c := b.Counters("t"); c.BadChecksum != 1 || c.SendErrors != 1 || c.Frames != 2 {
		t.Errorf("%+v", c)
	}
}

func TestAConnectionDroppedBeforeTheStoreLosesAndDoublesNothing(t *testing.T) {
	b := newBroker(t)
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	b.PassSends("t", 5)
	b.DropBeforeStore("t", 3)
	sendAll(t, p, 0, 50).wait(t)
	// What was confirmed into the dropped connection may come again; first copies are in order and complete.
	wantPayloads(t, firstCopies(b.Messages("t")), numbers(0, 50))
	noProblems(t, b)
}

func TestAConnectionDroppedAfterTheStoreDoublesTheMessage(t *testing.T) {
	b := newBroker(t)
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	sendAll(t, p, 0, 3).wait(t)
	b.DropAfterStore("t", 1)
	sendAll(t, p, 3, 4).wait(t)
	wantPayloads(t, b.Messages("t"), []string{"0", "1", "2", "3", "3"})
	if c := b.Counters("t"); c.Stored != 5 || c.Receipts != 4 {
		t.Errorf("%+v", c)
	}
}

func TestDeduplicationConfirmsTheSecondCopyWithoutStoringIt(t *testing.T) {
	b := newBroker(t, pulsartest.Deduplication())
	options := oneByOne("t")
	options.Name = "named"
	p := newProducer(t, newClient(t, b.URL()), options)
	b.DropAfterStore("t", 1)
	ids := sendAll(t, p, 0, 2).wait(t)
	wantPayloads(t, b.Messages("t"), numbers(0, 2))
	if ids[0].LedgerID() != -1 || ids[0].EntryID() != -1 || ids[1].LedgerID() == -1 {
		t.Errorf("ids %v", ids)
	}
	if c := b.Counters("t"); c.Duplicates != 1 {
		t.Errorf("%+v", c)
	}
	if last := b.LastSequenceID("t", "named"); last != 1 {
		t.Errorf("the last sequence id is %d", last)
	}
	// The name carries its last sequence id over a new producer, and over a restart of the broker.
	p.Close()
	b.Stop()
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	again := newProducer(t, newClient(t, b.URL()), options)
	sendAll(t, again, 2, 3).wait(t)
	old := int64(1)
	if id, err := again.Send(testContext(t), &pulsar.ProducerMessage{Payload: []byte("old"), SequenceID: &old}); err != nil || id.LedgerID() != -1 {
		t.Errorf("%v, %v", id, err)
	}
	wantPayloads(t, b.Messages("t"), numbers(0, 3))
}

func TestASwallowedReceiptLeavesTheMessagePending(t *testing.T) {
	b := newBroker(t)
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	b.SwallowReceipts("t", 1)
	first := sendAll(t, p, 0, 1)
	if _, err := b.WaitForMessages(testContext(t), "t", 1); err != nil {
		t.Fatal(err)
	}
	if first.pending() != 1 {
		t.Fatal("the message was confirmed")
	}
	// The receipt of the next one shows the client the gap: it reconnects and sends both again.
	second := sendAll(t, p, 1, 2)
	first.wait(t)
	second.wait(t)
	wantPayloads(t, b.Messages("t"), []string{"0", "1", "0", "1"})
}

func TestStalledReceiptsComeInOrderWhenReleased(t *testing.T) {
	b := newBroker(t)
	client := newClient(t, b.URL())
	p := newProducer(t, client, oneByOne("t"))
	other := newProducer(t, client, oneByOne("other"))
	topic, partition := b.StallReceipts("t"), b.StallReceipts("persistent://public/default/t")
	stalled := sendAll(t, p, 0, 10)
	if _, err := b.WaitForMessages(testContext(t), "t", 10); err != nil {
		t.Fatal(err)
	}
	sendAll(t, other, 0, 1).wait(t) // another topic goes on
	topic()
	topic() // a second call does nothing: the other stall still holds
	sendAll(t, other, 1, 2).wait(t)
	if n := stalled.pending(); n != 10 {
		t.Fatalf("%d of 10 are pending", n)
	}
	partition()
	for i, id := range stalled.wait(t) {
		if id.EntryID() != int64(i) {
			t.Errorf("message %d has entry id %d", i, id.EntryID())
		}
	}
	sendAll(t, p, 10, 11).wait(t)
	wantPayloads(t, b.Messages("t"), numbers(0, 11))
}

func TestAProducersCloseWaitsBehindItsReceipts(t *testing.T) {
	b := newBroker(t, pulsartest.ReceiptDelay(30*time.Millisecond))
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	r := sendAll(t, p, 0, 5)
	if _, err := b.WaitForMessages(testContext(t), "t", 5); err != nil {
		t.Fatal(err)
	}
	p.Close()
	r.wait(t)
	if n := len(b.Producers("")); n != 0 {
		t.Errorf("%d producers are left", n)
	}
}

func TestAReceiptDelayDelaysEachReceiptButNotThroughput(t *testing.T) {
	b := newBroker(t, pulsartest.ReceiptDelay(50*time.Millisecond))
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	start := time.Now()
	sendAll(t, p, 0, 200).wait(t)
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("200 receipts came in %v", took)
	}
	wantPayloads(t, b.Messages("t"), numbers(0, 200))
}

func TestProducersAreRefusedWithTheGivenErrorUntilTheCountIsUsedUp(t *testing.T) {
	for _, code := range []pulsartest.ServerError{
		pulsartest.ProducerBusy, pulsartest.TopicTerminatedError, pulsartest.AuthorizationError,
		pulsartest.ProducerBlockedQuotaExceededError, pulsartest.ProducerBlockedQuotaExceededException,
	} {
		b := newBroker(t)
		client := newClient(t, b.URL())
		b.RefuseProducers("t", 2, code, "not now")
		for range 2 {
			_, err := createProducer(client, oneByOne("t"))
			if want := fmt.Sprintf("server error: %s: not now", code); err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		}
		sendAll(t, newProducer(t, client, oneByOne("t")), 0, 1).wait(t)
	}
}

func TestAQuotaFailsWhatIsPendingAndTheProducerRecovers(t *testing.T) {
	b := newBroker(t)
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	b.RefuseProducers("t", 1, pulsartest.ProducerBlockedQuotaExceededException, "Cannot create producer on topic with backlog quota exceeded")
	b.FailSends("t", 1, pulsartest.ProducerBlockedQuotaExceededException, "")
	_, errs := sendAll(t, p, 0, 1).outcome(t)
	if !errors.Is(errs[0], pulsar.ErrProducerBlockedQuotaExceeded) {
		t.Errorf("error %v", errs[0])
	}
	sendAll(t, p, 1, 2).wait(t)
	wantPayloads(t, b.Messages("t"), []string{"1"})
}

func TestATerminatedTopicFailsWhatIsPendingAndRefusesProducers(t *testing.T) {
	b := newBroker(t)
	client := newClient(t, b.URL())
	p := newProducer(t, client, oneByOne("t"))
	sendAll(t, p, 0, 1).wait(t)
	stalled := b.StallReceipts("t")
	defer stalled()
	r := sendAll(t, p, 1, 2)
	if _, err := b.WaitForMessages(testContext(t), "t", 2); err != nil {
		t.Fatal(err)
	}
	if err := b.TerminateTopic("t"); err != nil {
		t.Fatal(err)
	}
	_, errs := r.outcome(t)
	if !errors.Is(errs[0], pulsar.ErrTopicTerminated) {
		t.Errorf("error %v", errs[0])
	}
	if _, err := createProducer(client, oneByOne("t")); err == nil || !strings.Contains(err.Error(), "TopicTerminatedError") {
		t.Errorf("error %v", err)
	}
}

func TestAnUnloadedTopicGoesOnOnTheSameConnection(t *testing.T) {
	b := newBroker(t)
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	before := sendAll(t, p, 0, 10).wait(t)
	if n := b.CloseProducers("t"); n != 1 {
		t.Fatalf("%d producers closed", n)
	}
	after := sendAll(t, p, 10, 20).wait(t)
	wantPayloads(t, b.Messages("t"), numbers(0, 20))
	if before[0].LedgerID() == after[0].LedgerID() {
		t.Error("an unload starts a new ledger")
	}
	producers := b.Producers("t")
	if len(producers) != 1 || producers[0].Epoch != 1 || !producers[0].NameAssigned || producers[0].Name != p.Name() {
		t.Errorf("%+v", producers)
	}
}

func TestHungLookupsAreAnsweredWhenReleased(t *testing.T) {
	b := newBroker(t)
	client := newClient(t, b.URL())
	release := b.HangLookups("")
	done := make(chan error, 1)
	go func() {
		p, err := createProducer(client, oneByOne("t"))
		if err == nil {
			p.Close()
		}
		done <- err
	}()
	if err := b.Wait(testContext(t), func() bool { return b.Connections() > 0 }); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Fatalf("a producer was made without a lookup: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	release()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-testContext(t).Done():
		t.Error("the lookup was never answered")
	}
}

func TestAHungLookupEndsInTheClientsTimeout(t *testing.T) {
	b := newBroker(t)
	defer b.HangLookups("t")()
	client := newClient(t, b.URL(), func(o *pulsar.ClientOptions) { o.OperationTimeout = 100 * time.Millisecond })
	if _, err := createProducer(client, oneByOne("t")); err == nil {
		t.Error("a producer was made without a lookup")
	}
}

func TestAFailedLookupIsReported(t *testing.T) {
	b := newBroker(t)
	client := newClient(t, b.URL())
	b.FailLookups("t", 1, pulsartest.AuthorizationError, "no")
	if _, err := createProducer(client, oneByOne("t")); err == nil || !strings.Contains(err.Error(), "AuthorizationError") {
		t.Errorf("error %v", err)
	}
	sendAll(t, newProducer(t, client, oneByOne("t")), 0, 1).wait(t)
}

func TestSlowReadsArriveWhole(t *testing.T) {
	b := newBroker(t)
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	b.SlowReads(20_000)
	start := time.Now()
	if _, err := p.Send(testContext(t), &pulsar.ProducerMessage{Payload: make([]byte, 6000)}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("6 kB at 20 kB/s took %v", took)
	}
	b.SlowReads(0)
	if got := b.Messages("t"); len(got) != 1 || len(got[0].Payload) != 6000 {
		t.Errorf("%d messages", len(got))
	}
}

func TestABrokerThatReadsNothingStillStops(t *testing.T) {
	b := newBroker(t)
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	b.SlowReads(1)
	sendAll(t, p, 0, 1)
	b.Close()
}

func TestFaultsOfOnePartitionLeaveTheOthersAlone(t *testing.T) {
	b := newBroker(t)
	if err := b.CreatePartitionedTopic("p", 2); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, b.URL())
	b.RefuseProducers("p-partition-1", pulsartest.Forever, pulsartest.ProducerBusy, "")
	sendAll(t, newProducer(t, client, oneByOne("p-partition-0")), 0, 1).wait(t)
	for range 3 {
		if _, err := createProducer(client, oneByOne("p-partition-1")); err == nil {
			t.Error("a refusal for ever has ended")
		}
	}
	b.ClearFaults()
	sendAll(t, newProducer(t, client, oneByOne("p-partition-1")), 1, 2).wait(t)
	wantPayloads(t, b.Messages("p"), numbers(0, 2))
}

func TestABrokerThatComesBackGetsWhatIsPendingInOrder(t *testing.T) {
	b := newBroker(t)
	p := newProducer(t, newClient(t, b.URL()), oneByOne("t"))
	sendAll(t, p, 0, 10).wait(t)
	b.Stop()
	if n := b.Connections(); n != 0 {
		t.Errorf("%d connections after Stop", n)
	}
	pending := sendAll(t, p, 10, 30)
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(); !errors.Is(err, pulsartest.ErrRunning) {
		t.Errorf("a second restart: %v", err)
	}
	pending.wait(t)
	wantPayloads(t, b.Messages("t"), numbers(0, 30))
	noProblems(t, b)
}

func TestDroppedConnectionsLoseNothing(t *testing.T) {
	b := newBroker(t)
	p := newProducer(t, newClient(t, b.URL()), pulsar.ProducerOptions{Topic: "t", BatchingMaxMessages: 10})
	ctx, stop := context.WithCancel(testContext(t))
	defer stop()
	var dropped atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			dropped.Add(int64(b.DropConnections()))
			time.Sleep(20 * time.Millisecond)
		}
	}()
	sent := 0
	for ; sent < 3000 || dropped.Load() < 3 && ctx.Err() == nil; sent += 100 {
		sendAll(t, p, sent, sent+100).wait(t)
	}
	stop()
	<-done
	if n := dropped.Load(); n < 3 {
		t.Errorf("%d connections were dropped", n)
	}
	wantPayloads(t, firstCopies(b.Messages("t")), numbers(0, sent))
	noProblems(t, b)
}

// firstCopies drops what a client has sent again.
func firstCopies(messages []pulsartest.Message) []pulsartest.Message {
	seen := map[string]bool{}
	var out []pulsartest.Message
	for _, m := range messages {
		if !seen[string(m.Payload)] {
			seen[string(m.Payload)] = true
			out = append(out, m)
		}
	}
	return out
}

func TestAnUnloadUnderLoadReordersNothing(t *testing.T) {
	b := newBroker(t)
	client := newClient(t, b.URL())
	for i := range 20 {
		topic := fmt.Sprint("t", i)
		p := newProducer(t, client, pulsar.ProducerOptions{Topic: topic, BatchingMaxMessages: 10})
		sendAll(t, p, 0, 100).wait(t)
		b.CloseProducers(topic)
		sendAll(t, p, 100, 1000).wait(t)
		wantPayloads(t, b.Messages(topic), numbers(0, 1000))
	}
}
