package output

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// A refused record is in the dead-letter topic as it is, with what is needed to find out about it, and the rest goes on.
func TestRefusedRecordsGoToTheDeadLetterTopic(t *testing.T) {
	t.Parallel()
	b := startBroker(t, pulsartest.MaxMessageSize(smallLimit))
	o := connected(t, b.URL(), `
topic: 't-${! @kind.or("a") }'
chunking: "off"
compression: none
event_time: '${! @when }'
dead_letter_topic: dead`)
	large := incompressible(3 * smallLimit)
	batch, a := newShard().batchOf([]string{"k0", "k1", "k2", "k3", "k4", "k5"}, []string{"0", large, "2", "3", "4", "5"})
	for i, m := range batch {
		m.MetaSetMut(sequenceMetadata, fmt.Sprint("4959", i))
	}
	batch[3].MetaSetMut("when", "yesterday")
	batch[4].MetaSetMut("kind", "not a topic")
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if replay, _ := undelivered(t, a); len(replay) > 0 {
		t.Errorf("records %v are not marked", replay)
	}
	if got := payloads(b.Messages("t-a")); !slices.Equal(got, []string{"0", "2", "5"}) {
		t.Errorf("stored %v", got)
	}
	dead := b.Messages("dead")
	if len(dead) != 3 || string(dead[0].Payload) != large || string(dead[1].Payload) != "3" || string(dead[2].Payload) != "4" {
		t.Fatalf("%d dead letters", len(dead))
	}
	for i, want := range []map[string]string{
		{propertyCause: "MaxMessageSize", propertyTopic: "t-a", propertySequence: "49591"},
		{propertyCause: "event_time", propertySequence: "49593"},
		{propertyCause: "not a valid topic name", propertyTopic: "t-not a topic", propertySequence: "49594"},
	} {
		want[propertyShard] = "shardId-000000000000"
		want[sequenceMetadata] = want[propertySequence]
		m := dead[i]
		if len(m.Properties) != len(want) || !strings.HasPrefix(m.Key, "k") {
			t.Errorf("key %q, properties %v", m.Key, m.Properties)
		}
		for name, value := range want {
			if got := m.Properties[name]; got != value && !(name == propertyCause && strings.Contains(got, value)) {
				t.Errorf("%s of dead letter %d is %q, want %q", name, i, got, value)
			}
		}
	}
	if problems := b.Problems(); len(problems) > 0 {
		t.Errorf("the broker saw %v", problems)
	}
}

// What follows a refused record is not sent before that is in the dead-letter topic; and while it can't be put there the
// record stays, and does not make copies of what follows.
func TestNothingOvertakesADeadLetter(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	o := makeOutput(t, b.URL(), "topic: t\nevent_time: '${! @when }'\ndead_letter_topic: dead\nreconnect_backoff:\n  initial_interval: 1ms")
	s, err := o.open()
	if err != nil {
		t.Fatal(err)
	}
	s.deadLettersProven.Store(true) // It could be written to once.
	if err := o.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	makeBatch := func() (service.MessageBatch, handedOut) {
		batch, a := newShard().batch("k", "k", "k", "k")
		batch[1].MetaSetMut("when", "yesterday")
		return batch, a
	}
	b.RefuseProducers("dead", pulsartest.Forever, pulsartest.PersistenceError, "no bookies")
	for range 3 {
		batch, a := makeBatch()
		failed, err := write(t, o, batch)
		if !slices.Equal(failed, []int{1, 2, 3}) || !strings.Contains(err.Error(), "yesterday") || !strings.Contains(err.Error(), "no bookies") || !strings.Contains(err.Error(), fieldDeadLetterTopic) {
			t.Errorf("failed %v: %v", failed, err)
		}
		if replay, refused := undelivered(t, a); !slices.Equal(replay, []int{1, 2, 3}) || refused {
			t.Errorf("replay %v, refused %v", replay, refused)
		}
	}
	if got := payloads(b.Messages("t")); !slices.Equal(got, []string{"0", "0", "0"}) {
		t.Errorf("stored %v", got)
	}
	b.ClearFaults()
	release := b.StallReceipts("dead")
	defer release()
	batch, _ := makeBatch()
	var done <-chan error
	eventually(t, func() error {
		// The refused producer is tried again after a pause.
		done = result(o, t.Context(), batch)
		for len(b.Messages("dead")) == 0 {
			select {
			case err := <-done:
				if err == nil {
					t.Fatal("written without a receipt for the dead letter")
				}
				return err
			case <-time.After(5 * time.Millisecond):
			}
		}
		return nil
	})
	for _, payload := range payloads(b.Messages("t")) {
		if payload != "0" {
			t.Errorf("%s was sent before the dead letter was confirmed", payload)
		}
	}
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := payloads(b.Messages("t"))
	if !slices.Equal(got[len(got)-3:], []string{"0", "2", "3"}) {
		t.Errorf("stored %v", got)
	}
}

// A mapping that refuses every record must not cost a round trip for each.
func TestManyDeadLettersGoTogether(t *testing.T) {
	t.Parallel()
	b := startBroker(t, pulsartest.ReceiptDelay(20*time.Millisecond))
	o := connected(t, b.URL(), "topic: t\nevent_time: yesterday-${! @x }\ndead_letter_topic: dead\nmax_pending_messages: 700\n"+onePacket)
	n := 2000
	batch, a := newShard().batch(repeat("k", n)...)
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if replay, _ := undelivered(t, a); len(replay) > 0 {
		t.Errorf("%d records are not marked", len(replay))
	}
	if got := payloads(b.Messages("dead")); !slices.Equal(got, numbers(0, n)) {
		t.Errorf("%d dead letters, or out of order", len(got))
	}
	if frames := b.Counters("dead").Frames; frames > 20 {
		t.Errorf("%d packets", frames)
	}
	if b.Counters("t").Frames > 0 {
		t.Error("something was sent to the topic itself")
	}
}

// Not even metadata that no broker takes keep a record from its grave.
func TestDeadLetterOfTooMuchMetadata(t *testing.T) {
	t.Parallel()
	b := startBroker(t, pulsartest.MaxMessageSize(smallLimit))
	o := connected(t, b.URL(), "topic: t\ndead_letter_topic: dead")
	batch, _ := newShard().batch("k", "k")
	batch[0].MetaSetMut("kinesis.x", strings.Repeat("x", 2*smallLimit))
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	dead := b.Messages("dead")
	if len(dead) != 1 || string(dead[0].Payload) != "0" || dead[0].Properties[propertyCut] == "" || dead[0].HasKey {
		t.Errorf("%+v", dead)
	}
	if got := payloads(b.Messages("t")); !slices.Equal(got, []string{"1"}) {
		t.Errorf("stored %v", got)
	}
}

func TestDeadLettersOfOtherInputs(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t\nkey: '${! json(\"id\") }'\ndead_letter_topic: dead")
	batch := service.MessageBatch{service.NewMessage([]byte(`{"id":"a"}`)), service.NewMessage([]byte(`not json`)), service.NewMessage([]byte(`{"id":"b"}`))}
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	dead := b.Messages("dead")
	if len(dead) != 1 || string(dead[0].Payload) != "not json" || len(dead[0].Properties) != 1 {
		t.Errorf("%+v", dead)
	}
	if m := b.Messages("t"); len(m) != 2 || m[1].Key != "b" {
		t.Errorf("%v", m)
	}
}

// A zombie must not bury either: its shard is another worker's.
func TestFencedRunsBuryNothing(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t\ndead_letter_topic: dead")
	s := newShard()
	batch, a := s.batch("k")
	s.fence.Close()
	e := &entry{source: batch[0], attempt: a.Attempt}
	if err := o.deadLetters(t.Context(), []*entry{e}, []error{errors.New("because of a test")})[0]; !errors.Is(err, attempt.ErrFenced) {
		t.Errorf("%v", err)
	}
	if n := len(b.Messages("dead")); n > 0 {
		t.Errorf("%d dead letters", n)
	}
	without := connected(t, b.URL(), "topic: t")
	if err := without.deadLetters(t.Context(), []*entry{e}, []error{errors.New("because of a test")})[0]; !errors.Is(err, errNoDeadLetterTopic) {
		t.Errorf("%v", err)
	}
}

// A dead-letter topic that can't be used is a mistake in the configuration when the output starts, and no reason to stop
// the others later.
func TestConnectChecksTheDeadLetterTopicOnce(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.RefuseProducers("dead", pulsartest.Forever, pulsartest.AuthorizationError, "not yours")
	o := makeOutput(t, b.URL(), "topic: t\ndead_letter_topic: dead")
	connectFails(t, o, "not yours", fieldDeadLetterTopic)
	b.ClearFaults()
	eventually(t, func() error { return o.Connect(t.Context()) })
	b.RefuseProducers("dead", pulsartest.Forever, pulsartest.AuthorizationError, "not yours any more")
	b.DropConnections()
	if err := o.Connect(t.Context()); err != nil {
		t.Error(err)
	}
}

// One line a minute, not one a record.
func TestDeadLettersAreTold(t *testing.T) {
	var text lockedBuffer
	logger := service.NewLoggerFromSlog(slog.New(slog.NewTextHandler(&text, nil)))
	var g gravedigger
	now := time.Now()
	for range 100 {
		g.note(logger, 3, "dead", context.Canceled, now)
		now = now.Add(time.Second)
	}
	if n := strings.Count(text.String(), "level=WARN"); n != 2 || !strings.Contains(text.String(), "180 messages") {
		t.Errorf("%d lines: %s", n, text.String())
	}
}
