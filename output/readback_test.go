package output

import (
	"context"
	"slices"
	"testing"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// What is taken for stored is not sent again. So it has to be the shard's own message, and of messages that are equal no more
// may count than there are; where older ones may be among them none counts.
func TestReadingBackTakesNoOtherMessageForARecords(t *testing.T) {
	t.Parallel()
	b := exactBroker(t, 1)
	o := connected(t, b.URL(), exactly)
	s := (&counter{anonymous: true}).newRun()
	s.deliver(t, o, from(0, 9)...)
	once, a := s.batch(9)
	once[0].SetBytes([]byte("same"))
	if err := writeOf(t.Context(), o, once, a); err != nil {
		t.Fatal(err)
	}
	strange := service.NewMessage([]byte("20"))
	strange.MetaSetMut("pulsar_key", keyOf(20))
	if err := connected(t, b.URL(), "topic: t").WriteBatch(t.Context(), service.MessageBatch{strange}); err != nil {
		t.Fatal(err)
	}

	l, err := o.session.Load().lanes.enter(t.Context(), s.run)
	if err != nil {
		t.Fatal(err)
	}
	defer l.leave()
	tr := l.tracks[0]
	for _, c := range []struct {
		name    string
		last    pulsar.MessageID
		records []int64
		same    bool
		want    []bool
	}{
		{name: "own and another's", records: []int64{5, 20}, want: []bool{true, false}},
		{name: "one of two equal ones, from the beginning", records: []int64{9, 16}, same: true, want: []bool{false, false}},
		{name: "one of two equal ones, behind what is known", last: pulsar.EarliestMessageID(), records: []int64{9, 16}, same: true, want: []bool{true, false}},
	} {
		tr.last = c.last
		batch, _ := s.batch(c.records...)
		for _, m := range batch {
			if c.same {
				m.SetBytes([]byte("same"))
			}
		}
		found, err := l.readBack(t.Context(), tr, l.expected(o, batch, 1)[0])
		if err != nil || !slices.Equal(found, c.want) {
			t.Errorf("%s: found %v, want %v: %v", c.name, found, c.want, err)
		}
	}
}

// 25 c: the name is one for all partitions, so what was sent to the others without a receipt is looked for as well as what
// the failure was about.
func TestADoubtIsAboutEveryPartitionOfTheName(t *testing.T) {
	t.Parallel()
	b := exactBroker(t, 2)
	o := connected(t, b.URL(), exactly)
	s := (&counter{}).newRun()
	s.deliver(t, o, from(0, 20)...)
	release := b.StallReceipts("t")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	batch, a := s.batch(from(20, 20)...)
	done := result(o, ctx, batch)
	waitFor(t, func() bool { return len(b.Messages("t")) == 40 })
	cancel()
	if err := <-done; err == nil || !a.Done(true) {
		t.Fatalf("%v without receipts", err)
	}
	l, err := o.session.Load().lanes.enter(t.Context(), s.run)
	if err != nil {
		t.Fatal(err)
	}
	l.tracks[0].doubt = true
	l.bar(t.Context())
	l.leave()
	release()
	s.deliver(t, o, from(20, 20)...)
	checkExactly(t, b, "t", 40)
}

// 25 a: records that come behind higher ones go on under a new name. An earlier run may have stored them, in front of all
// that this one knows of.
func TestWhatAnEarlierRunHasStoredIsLookedForWhenAPartComesTooLate(t *testing.T) {
	t.Parallel()
	b := exactBroker(t, 1)
	o := connected(t, b.URL(), exactly)
	c := &counter{}
	before := c.newRun()
	before.deliver(t, o, from(0, 5)...)
	batch, a := before.batch(from(5, 4)...) // stored, and the process ends before the count tells
	if err := writeOf(t.Context(), o, batch, a); err != nil {
		t.Fatal(err)
	}
	if err := before.run.CloseProducers(t.Context()); err != nil {
		t.Fatal(err)
	}
	before.run.End()

	s := c.newRun()
	batch, a = s.batch(from(5, 5)...)
	for _, p := range []service.MessageBatch{part(batch, 2, 5), part(batch, 0, 2)} {
		if err := writeOf(t.Context(), o, p, a); err != nil {
			t.Fatal(err)
		}
	}
	s.confirm(10)
	s.deliver(t, o, from(10, 5)...)
	checkExactly(t, b, "t", 15)
}

// 25 c: a message that the client fails by itself may be missing in front of stored ones, since it goes on with those behind it.
// Behind the end of a producer it sends nothing.
func TestAFailureThatTheClientGoesOnBehindLeavesADoubt(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{pulsar.ErrProducerBlockedQuotaExceeded, true},
		{pulsar.ErrSendTimeout, true},
		{pulsar.ErrProducerClosed, false},
		{pulsar.ErrTopicTerminated, false},
		{pulsar.ErrProducerFenced, false},
	} {
		f := newFlight(&cargo{}, 1)
		e := &f.entries[0]
		e.place = &place{track: &track{fresh: -1}}
		e.receivedExact(nil, c.err)
		f.settle(e, transient, c.err)
		(&lane{}).settled(f.entries)
		if got := e.place.track.doubt; got != c.want {
			t.Errorf("%v: in doubt %v, want %v", c.err, got, c.want)
		}
	}
}

// Under a new name nothing was sent yet: what comes below a number of the old name is in its turn.
func TestANewNameBeginsTheTurnsAnew(t *testing.T) {
	t.Parallel()
	b := exactBroker(t, 1)
	o := connected(t, b.URL(), exactly)
	s := (&counter{}).newRun()
	s.deliver(t, o, from(0, 5)...)
	doubted(t, o, s)
	l, err := o.session.Load().lanes.enter(t.Context(), s.run)
	if err != nil {
		t.Fatal(err)
	}
	defer l.leave()
	if l.turns.high != 4 {
		t.Fatalf("the highest number is %d", l.turns.high)
	}
	if err := l.prepare(t.Context(), l.topic, l.topic.layout.Load()); err != nil {
		t.Fatal(err)
	}
	if l.turns.high != -1 {
		t.Errorf("the highest number under the new name is %d, before anything was sent", l.turns.high)
	}
}
