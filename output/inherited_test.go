package output

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// leftOutAndKilled writes records of which the broker leaves one out, behind so many others, and ends the process before a new
// name is in the lease.
func leftOutAndKilled(t *testing.T, b *pulsartest.Broker, o *output, s *exactShard, behind int, records ...int64) {
	t.Helper()
	if raceDetector {
		t.Skip("the Pulsar client races with itself here: unbatched, when a connection breaks")
	}
	s.gone = true
	before := len(b.Messages("t"))
	release := b.StallReceipts("t")
	b.PassSends("t", behind)
	b.CorruptSends("t", 1)
	ctx, cancel := context.WithCancel(t.Context())
	batch, a := s.batch(records...)
	written := make(chan error, 1)
	go func() { written <- writeOf(ctx, o, batch, a) }()
	waitFor(t, func() bool { return len(b.Messages("t")) == before+len(records)-1 })
	release()
	err := <-written
	cancel()
	if a.Done(err != nil); err == nil {
		t.Fatal("written")
	}
	killed(t, o, s)
}

// killed ends the process; what is behind the count is not known any more.
func killed(t *testing.T, o *output, s *exactShard) {
	t.Helper()
	s.run.End()
	if err := o.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = false
}

// copiesOf counts the messages of each record.
func copiesOf(b *pulsartest.Broker) map[int64]int {
	copies := map[int64]int{}
	for _, m := range b.Messages("t") {
		r, _ := strconv.ParseInt(string(m.Payload), 10, 64)
		copies[r]++
	}
	return copies
}

// The broker leaves a message out and stores later ones, and the process ends before the lease has the new name. The next
// owner sends it again under the old one, and is told of a duplicate.
func TestNothingThatWasLeftOutIsLostWithItsProcess(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		before, behind int64 // confirmed, and stored in front
		counter        *counter
	}{
		"behind others":                       {20, 5, &counter{}},
		"the first behind the checkpoint":     {20, 0, &counter{}},
		"the first of all":                    {0, 0, &counter{}},
		"the last but one":                    {20, 28, &counter{}},
		"messages that tell no record":        {20, 5, &counter{anonymous: true}},
		"the first of these":                  {20, 0, &counter{anonymous: true}},
		"several records in a Kinesis record": {20, 5, &counter{together: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			b := exactBroker(t, 1)
			c := tc.counter
			c.arrival = time.Now()
			o := connected(t, b.URL(), exactly)
			s := c.newRun()
			s.deliver(t, o, from(0, tc.before)...)
			leftOutAndKilled(t, b, o, s, int(tc.behind), from(tc.before, 30)...)
			o = connected(t, b.URL(), exactly)
			s = c.newRun()
			s.deliver(t, o, from(tc.before, 10)...)
			s.deliver(t, o, from(tc.before+10, 10)...)
			s.deliver(t, o, from(tc.before+20, 30)...)
			// What the earlier run had stored is known again over all the batches that it comes in.
			checkExactly(t, b, "t", tc.before+50, true, c.anonymous || c.together > 0)
			if c.epoch != 2 { // one that tells the next owner, and one that is used
				t.Errorf("%d new names", c.epoch)
			}
		})
	}
}

// The same where the process lives on, and the client has not told yet when the shard goes.
func TestNothingThatWasLeftOutIsLostWithItsRun(t *testing.T) {
	t.Parallel()
	if raceDetector {
		t.Skip("the Pulsar client races with itself here: unbatched, when a connection breaks")
	}
	b := exactBroker(t, 1)
	o := connected(t, b.URL(), exactly)
	c := &counter{}
	s := c.newRun()
	s.deliver(t, o, from(0, 5)...)
	release := b.StallReceipts("t")
	defer release()
	b.CorruptSends("t", 1)
	ctx, cancel := context.WithCancel(t.Context())
	batch, a := s.batch(from(5, 5)...)
	written := make(chan error, 1)
	go func() { written <- writeOf(ctx, o, batch, a) }()
	waitFor(t, func() bool { return len(b.Messages("t")) == 9 })
	cancel()
	err := <-written
	a.Done(err != nil)
	s.run.End()
	release()
	waitFor(t, func() bool { return named(b) == 0 })
	c.newRun().deliver(t, o, from(5, 10)...)
	checkExactly(t, b, "t", 15, true)
}

// A kill with much behind the checkpoint, at various ages of the topic, costs no copies, no new name, and only as much reading
// as there is behind the checkpoint.
func TestWhatAnEarlierRunHasStoredIsKnownAgain(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		counter *counter
		age     func(b *pulsartest.Broker)
		most    int // deliveries
	}{
		"as it was":                           {&counter{}, func(*pulsartest.Broker) {}, 1000},
		"messages that tell no record":        {&counter{anonymous: true}, func(*pulsartest.Broker) {}, 1e6},
		"several records in a Kinesis record": {&counter{together: 3}, func(*pulsartest.Broker) {}, 1e6},
		"a new ledger":                        {&counter{}, func(b *pulsartest.Broker) { b.RollLedgers("t") }, 1000},
		"a marker":                            {&counter{}, func(b *pulsartest.Broker) { b.AppendMarker("t-partition-1") }, 1e6},
		"all of it deleted": {&counter{}, func(b *pulsartest.Broker) {
			b.RollLedgers("t")
			b.DeleteLedgers("t")
		}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			b := exactBroker(t, 2)
			c := tc.counter
			c.arrival = time.Now()
			o := connected(t, b.URL(), exactly)
			o.session.Load().scanSilence = 200 * time.Millisecond
			s := c.newRun()
			s.deliver(t, o, from(0, 3000)...)
			for first := int64(3000); first < 3300; first += 50 {
				s.deliver(t, o, from(first, 50)...)
			}
			c.confirmed = 3000
			killed(t, o, s)
			tc.age(b)
			o = connected(t, b.URL(), exactly)
			o.session.Load().scanSilence = 200 * time.Millisecond
			s = c.newRun()
			for first := int64(3000); first < 3500; first += 100 {
				if replays := s.deliver(t, o, from(first, 100)...); replays > 20 {
					t.Errorf("%d replays", replays)
				}
			}
			checkExactly(t, b, "t", 3500)
			if n := b.Counters("t").Deliveries; c.epoch != 0 || n > tc.most {
				t.Errorf("%d new names, %d messages read", c.epoch, n)
			}
		})
	}
}

// Consumers acknowledge, and Pulsar deletes, from the front: what is missing behind something that is left was left out.
func TestWhatIsDeletedIsNotTakenForLeftOut(t *testing.T) {
	t.Parallel()
	b := exactBroker(t, 1)
	c := &counter{arrival: time.Now()}
	o := connected(t, b.URL(), exactly)
	s := c.newRun()
	s.deliver(t, o, from(0, 100)...)
	s.deliver(t, o, from(100, 20)...)
	c.confirmed = 100
	b.RollLedgers("t")
	s.deliver(t, o, from(120, 20)...)
	c.confirmed = 100
	b.DeleteLedgers("t")
	killed(t, o, s)
	o = connected(t, b.URL(), exactly)
	s = c.newRun()
	s.deliver(t, o, from(100, 60)...)
	checkExactly(t, b, "t", 160)
	if c.epoch != 0 {
		t.Error("what Pulsar has deleted was taken for left out")
	}
	// Deleted in front, and left out behind.
	c.confirmed = 140
	b.RollLedgers("t")
	s.deliver(t, o, from(160, 5)...)
	b.DeleteLedgers("t")
	c.confirmed = 165
	leftOutAndKilled(t, b, o, s, 0, from(165, 20)...)
	c.confirmed = 150
	o = connected(t, b.URL(), exactly)
	c.newRun().deliver(t, o, from(150, 50)...)
	copies := copiesOf(b)
	for r := range int64(200) {
		// What was deleted comes again, since the name had to change.
		if n := copies[r]; n == 0 || n > 1 && (r < 150 || r >= 160) {
			t.Errorf("record %d is there %d times", r, n)
		}
	}
}

// A message that was left out is missing, too, where everything in front was deleted, as long as the partition has something
// that is older than the record.
func TestSomethingOlderShowsThatNothingIsDeleted(t *testing.T) {
	t.Parallel()
	for _, older := range []bool{true, false} {
		t.Run(strconv.FormatBool(older), func(t *testing.T) {
			b := exactBroker(t, 1)
			c := &counter{arrival: time.Now()}
			o := connected(t, b.URL(), exactly)
			s := c.newRun()
			s.deliver(t, o, from(0, 10)...)
			b.RollLedgers("t")
			b.DeleteLedgers("t")
			stranger := connected(t, b.URL(), "topic: t")
			batch, _ := newShard().batch("k")
			batch[0].SetBytes([]byte("1000"))
			if err := stranger.WriteBatch(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			if older {
				c.arrival = c.arrival.Add(time.Hour)
			}
			leftOutAndKilled(t, b, o, s, 0, from(10, 10)...)
			o = connected(t, b.URL(), exactly)
			c.newRun().deliver(t, o, from(10, 20)...)
			if n := copiesOf(b)[10]; n != 1 && older || c.epoch > 0 != older {
				t.Errorf("%d times there, %d new names", n, c.epoch)
			}
		})
	}
}

// A start that has nothing behind its checkpoint reads nothing.
func TestAPlainStartReadsNothing(t *testing.T) {
	t.Parallel()
	b := exactBroker(t, 2)
	c := &counter{}
	for range 3 {
		o := connected(t, b.URL(), exactly)
		s := c.newRun()
		s.deliver(t, o, from(s.first, 100)...)
		killed(t, o, s)
	}
	checkExactly(t, b, "t", 300)
	// A start asks whether it may read, by a reader for each of the three.
	if c := b.Counters("t"); c.Readers > 3 || c.Deliveries > 0 {
		t.Errorf("%d readers, %d messages read", c.Readers, c.Deliveries)
	}
}

// The shard of a topic that cannot be read waits: what is not known to be stored is not taken for it.
func TestWhatCannotBeReadIsNotBelieved(t *testing.T) {
	t.Parallel()
	if raceDetector {
		t.Skip("the Pulsar client races with itself here: a reader whose connection breaks")
	}
	b := exactBroker(t, 1)
	c := &counter{arrival: time.Now()}
	o := connected(t, b.URL(), exactly)
	s := c.newRun()
	s.deliver(t, o, from(0, 50)...)
	c.confirmed = 20
	killed(t, o, s)
	b.DropDelivery("t", pulsartest.Forever)
	o = connected(t, b.URL(), exactly)
	s = c.newRun()
	batch, a := s.batch(from(20, 40)...)
	if err := writeOf(t.Context(), o, batch, a); err == nil {
		t.Fatal("believed")
	}
	a.Done(true)
	replay, _ := a.Undelivered(func(int) string { return "" })
	if want := slices.Collect(func(yield func(int) bool) {
		for i := range 30 {
			if !yield(i) {
				return
			}
		}
	}); !slices.Equal(replay, want) {
		t.Errorf("replay %v", replay)
	}
	b.ClearFaults()
	s.deliver(t, o, from(20, 40)...)
	checkExactly(t, b, "t", 60)
	if c.epoch != 0 {
		t.Error("a new name")
	}
}

// A role that may not consume does not get as far as a kill.
func TestARoleThatMayNotReadIsToldAtTheStart(t *testing.T) {
	t.Parallel()
	b := exactBroker(t, 2)
	b.RefuseReaders("t", pulsartest.Forever, pulsartest.AuthorizationError, "Client is not authorized to subscribe")
	connectFails(t, makeOutput(t, b.URL(), exactly), "deduplication: the role that is shown to the broker may not consume")
	connected(t, b.URL(), "topic: t") // who does not want to read may start
	b.ClearFaults()
	connected(t, b.URL(), exactly)
}

// Other failures to read may be over when it is needed, and keep nobody from starting.
func TestAReaderThatFailsAtTheStartIsNoReasonNotToStart(t *testing.T) {
	t.Parallel()
	b := exactBroker(t, 1)
	b.RefuseReaders("t", pulsartest.Forever, pulsartest.UnknownError, "a bad moment")
	connected(t, b.URL(), exactly)
}
