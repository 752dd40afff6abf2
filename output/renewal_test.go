package output

import (
	"errors"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// held is an output whose producers of a shard have been given up, and which the broker keeps all the same.
func held(t *testing.T) (*pulsartest.Broker, *output, *exactShard) {
	b := exactBroker(t, 2)
	o := connected(t, b.URL(), exactly)
	o.session.Load().busyLimit = 300 * time.Millisecond
	s := (&counter{}).newRun()
	s.deliver(t, o, from(0, 50)...)
	b.KeepProducers("t", 2)
	l, err := o.session.Load().lanes.enter(t.Context(), s.run)
	if err != nil {
		t.Fatal(err)
	}
	for _, track := range l.tracks {
		g := track.partition.last()
		g.retire(errors.New("because of a test"))
		<-g.closed
	}
	l.leave()
	return b, o, s
}

// The broker keeps what the client has given up, with its name, as long as the connection lives: so another takes its place.
// Every record is there once, and the shard does not stand still.
func TestANameThatTheClientLeftWithTheBrokerIsFreed(t *testing.T) {
	b, o, s := held(t)
	before := o.session.Load()
	if replays := s.deliver(t, o, from(50, 50)...); replays == 0 {
		t.Error("nothing was held")
	}
	if o.session.Load() == before {
		t.Error("the connection is the same")
	}
	<-before.finished
	checkExactly(t, b, "t", 100)
}

// A name that was never ours is somebody else's: it is waited for, however long it takes.
func TestANameThatAnotherProcessHoldsIsWaitedFor(t *testing.T) {
	b := exactBroker(t, 2)
	other := connected(t, b.URL(), exactly)
	c := &counter{}
	theirs := c.newRun()
	theirs.deliver(t, other, from(0, 50)...)

	o := connected(t, b.URL(), exactly)
	before := o.session.Load()
	before.busyLimit = 100 * time.Millisecond
	s := c.newRun()
	batch, a := s.batch(from(50, 10)...)
	refused := 0
	for begin := time.Now(); time.Since(begin) < time.Second || refused == 0 && time.Since(begin) < busy; time.Sleep(20 * time.Millisecond) {
		if err := writeOf(t.Context(), o, batch, a); err != nil && passing(err) {
			refused++
		}
	}
	if refused == 0 || o.session.Load() != before {
		t.Errorf("%d refusals, and a new session: %t", refused, o.session.Load() != before)
	}
	theirs.run.End()
	s.deliver(t, o, from(50, 50)...)
	checkExactly(t, b, "t", 100)
}

// Where a renewal does not help the next one takes its time, or every shard would be disturbed again and again.
func TestRenewalsAreRare(t *testing.T) {
	_, o, _ := held(t)
	first := o.session.Load()
	now := time.Now()
	wedge := func() *session {
		s, err := o.open()
		if err != nil {
			t.Fatal(err)
		}
		s.wedged.Store(true)
		return s
	}
	wedge()
	o.renew(first, now)
	second := wedge()
	if second == first {
		t.Fatal("not renewed")
	}
	o.renew(second, now.Add(renewalPause-time.Second))
	if o.session.Load() != second || second.wedged.Load() {
		t.Error("renewed too soon, or still wedged")
	}
	wedge()
	o.renew(first, now.Add(renewalPause)) // by a batch that began before
	if o.session.Load() != second {
		t.Error("renewed for the old one's sake")
	}
	o.renew(second, now.Add(renewalPause))
	if wedge() == second {
		t.Error("not renewed again")
	}
}

// What is in doubt is known to the session alone. It is read back before another takes its place, or there would be copies.
func TestASessionInDoubtIsNotReplaced(t *testing.T) {
	b := exactBroker(t, 1)
	o := connected(t, b.URL(), exactly)
	s := (&counter{}).newRun()
	s.deliver(t, o, from(0, 5)...)
	before := o.session.Load()
	doubted(t, o, s)
	before.wedged.Store(true)
	o.renew(before, time.Now())
	if o.session.Load() != before {
		t.Fatal("the session is gone, and with it what was in doubt")
	}
	s.deliver(t, o, from(5, 5)...) // reads the topic back
	o.renew(before, time.Now())
	if o.session.Load() == before {
		t.Error("the session stays though nothing is in doubt any more")
	}
}
