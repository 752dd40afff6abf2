package lease

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

const sec = time.Second

func TestObserve(t *testing.T) {
	l := func(counter int64, owner string) Lease { return Lease{Key: shard0, Counter: counter, Owner: owner} }
	before := map[string]observation{shard0: {lease: l(5, "W"), seenAt: 10 * sec, tried: true}, "gone": {}}

	same := observe(before, []Lease{l(5, "X")}, 10*sec, 20*sec)
	if o := same[shard0]; o.seenAt != 10*sec || !o.confirmed || o.lease.Owner != "X" || o.tried {
		t.Errorf("an unchanged counter keeps its time, and other attributes follow: %+v", o)
	}
	if len(same) != 1 {
		t.Error("a lease that is gone must be forgotten")
	}
	if o := observe(before, []Lease{l(6, "W")}, 10*sec, 20*sec)[shard0]; o.seenAt != 20*sec || o.confirmed {
		t.Errorf("a greater counter starts the clock anew: %+v", o)
	}
	if o := observe(before, []Lease{l(0, "")}, 10*sec, 20*sec)[shard0]; o.lease.Counter != 5 || o.seenAt != 10*sec {
		t.Errorf("a lower counter is ignored: %+v", o)
	}
	// Three scans saw the counters 5, 0 and 5 again: between the first and the last the lease was deleted and made anew.
	anew := observe(observe(before, []Lease{l(0, "")}, 10*sec, 12*sec), []Lease{{Key: shard0, Counter: 5, Owner: "W", Acquisition: "W#2"}}, 10*sec, 20*sec)
	if o := anew[shard0]; o.seenAt != 20*sec || o.confirmed || o.lease.Acquisition != "W#2" {
		t.Errorf("the same counter of another run starts the clock anew: %+v", o)
	}
	if o := observe(before, []Lease{{Key: shard0, Counter: 5, Owner: "W", Checkpoint: at("7")}}, 10*sec, 20*sec)[shard0]; o.seenAt != 20*sec || o.confirmed {
		t.Errorf("the same counter with another checkpoint starts the clock anew: %+v", o)
	}
	if o := observe(nil, []Lease{l(3, "W")}, 10*sec, 20*sec)[shard0]; o.seenAt != 20*sec || o.confirmed {
		t.Errorf("first sight: %+v", o)
	}
}

func TestPlan(t *testing.T) {
	const f = 10 * sec
	now := 100 * sec
	digits := at("123")
	obs := func(l Lease, age time.Duration, confirmed bool) observation {
		if l.Checkpoint.IsZero() {
			l.Checkpoint = digits
		}
		o := observation{lease: l, seenAt: now - age}
		if confirmed {
			o.confirmed, o.evidentAt = true, now-age+patience(l, f)/2
		}
		return o
	}
	base := view{
		worker: "A", stream: testStream, failover: f, now: now, busy: map[string]bool{},
		isOwn: func(l Lease) bool { return l.Acquisition == "A#mine" }, mayTake: func(Lease) bool { return true },
	}
	for _, c := range []struct {
		story   string
		o       observation
		edit    func(*view)
		take    bool
		release bool
		next    time.Duration
	}{
		{story: "nobody's lease is taken at first sight", o: obs(Lease{}, 0, false), take: true},
		{story: "a live owner is left alone until its time", o: obs(Lease{Owner: "K"}, 4*sec, true), next: now + 6*sec + 1},
		{story: "exactly F is not more than F", o: obs(Lease{Owner: "K"}, f, true), next: now + 1},
		{story: "an expired one is taken", o: obs(Lease{Owner: "K"}, f+1, true), take: true},
		{story: "not while no second scan has shown the counter", o: obs(Lease{Owner: "K"}, f+1, false)},
		{story: "r3.1: an owner of ours has its own time", o: obs(Lease{Owner: "B", Acquisition: "B#1", Failover: 30 * sec}, 20*sec, true), next: now + 10*sec + 1},
		{story: "r3.1: and then is taken", o: obs(Lease{Owner: "B", Acquisition: "B#1", Failover: 30 * sec}, 30*sec+1, true), take: true},
		{story: "the time of an owner before KCL's steal says nothing", o: obs(Lease{Owner: "K", Acquisition: "B#1", Failover: 30 * sec}, f+1, true), take: true},
		{story: "a shorter time of the owner is not ours to use", o: obs(Lease{Owner: "B", Acquisition: "B#1", Failover: 3 * sec}, 9*sec, true), next: now + 1*sec + 1},
		{story: "r3.7: a left-over hand-over is alive until it expires", o: obs(Lease{CheckpointOwner: "K"}, 5*sec, true), next: now + 5*sec + 1},
		{story: "r3.7: and then taken", o: obs(Lease{Owner: "L", CheckpointOwner: "K"}, f+1, true), take: true},
		{story: "an ended shard is nobody's work", o: obs(Lease{Checkpoint: at(checkpoint.ShardEnd)}, 0, true)},
		{story: "nor when its owner is dead", o: obs(Lease{Owner: "K", Checkpoint: at(checkpoint.ShardEnd)}, f+1, true)},
		{story: "r3.6: our own fenced run is taken at once", o: obs(Lease{Owner: "A", Acquisition: "A#mine"}, 0, false), take: true},
		{story: "r3.6: what came unasked is released", o: obs(Lease{Owner: "A", Acquisition: "A#given"}, 0, false), release: true},
		{story: "r3.6: so is what we do not want any more", o: obs(Lease{Owner: "A", Acquisition: "A#mine"}, 0, false), release: true,
			edit: func(v *view) { v.mayTake = func(Lease) bool { return false } }},
		{story: "our name without our acquisition is somebody else", o: obs(Lease{Owner: "A"}, 0, true), next: now + f + 1},
		{story: "who is nobody's when it stands still", o: obs(Lease{Owner: "A"}, f+1, true), take: true},
		{story: "r8.4: who hands over to KCL 3.x has its own time", o: obs(Lease{Owner: "K", CheckpointOwner: "B", Acquisition: "B#1", Failover: 30 * sec}, 20*sec, true), next: now + 10*sec + 1},
		{story: "the time of the next owner's last run says nothing", o: obs(Lease{Owner: "B", CheckpointOwner: "K", Acquisition: "B#1", Failover: 30 * sec}, f+1, true), take: true},
		{story: "an actor is at work already", o: obs(Lease{}, 0, false), edit: func(v *view) { v.busy = map[string]bool{shard0: true} }},
		{story: "MayTake", o: obs(Lease{}, 0, false), edit: func(v *view) { v.mayTake = func(Lease) bool { return false } }},
		{story: "MaxLeases", o: obs(Lease{}, 0, false), edit: func(v *view) { v.max, v.busy = 1, map[string]bool{"other": true} }},
		{story: "after a failed take the next scan comes first", o: observation{lease: Lease{Checkpoint: digits}, tried: true}},
		{story: "r7.1: nothing is taken from a table of another stream", o: obs(Lease{Stream: "other@1"}, 0, false)},
	} {
		v := base
		if c.edit != nil {
			c.edit(&v)
		}
		c.o.lease.Key = shard0
		d := makePlan(map[string]observation{shard0: c.o}, v)
		if len(d.take) == 1 != c.take || len(d.release) == 1 != c.release || d.next != c.next {
			t.Errorf("%s: take %v, release %v, next %s (want %s)", c.story, d.take, d.release, d.next, c.next)
		}
	}
}

// Leases of our own that are to be taken anew have no more room than any others; those that wait for it are not released.
func TestPlanTakesItsOwnAgainAFewAtATime(t *testing.T) {
	known := map[string]observation{}
	for i := range 100 {
		key := fmt.Sprint("fenced ", i)
		known[key] = observation{lease: Lease{Key: key, Owner: "A", Acquisition: "A#mine", Checkpoint: at("1")}}
	}
	v := view{worker: "A", failover: 10 * sec, now: 100 * sec, isOwn: func(Lease) bool { return true }, mayTake: func(Lease) bool { return true }}
	for _, c := range []struct {
		busy, pending, want int
	}{{0, 0, firstTakes}, {3, 3, firstTakes - 3}, {firstTakes, firstTakes, 0}, {20, 4, 12}, {90, 0, 10}, {60, 10, parallelTakes - 10}, {60, 32, 0}} {
		v.busy, v.pending = map[string]bool{}, c.pending
		for i := range c.busy {
			v.busy[fmt.Sprint("fenced ", i)] = true
		}
		if d := makePlan(known, v); len(d.take) != c.want || len(d.release) != 0 {
			t.Errorf("with %d busy, %d of them takes under way: takes %d, want %d; releases %d", c.busy, c.pending, len(d.take), c.want, len(d.release))
		}
	}
}

func TestPlanCountsWorkersAndKeepsToTheMaximum(t *testing.T) {
	known := map[string]observation{}
	for i, owner := range []string{"", "B", "B", "K", "dead", ""} {
		key := string(rune('a' + i))
		o := observation{lease: Lease{Key: key, Owner: owner, Checkpoint: at("1")}, seenAt: 90 * sec, confirmed: true, evidentAt: 95 * sec}
		if owner != "" {
			o.lease.Acquisition = owner + "#1"
		}
		if owner == "dead" {
			o.seenAt = 0
		}
		known[key] = o
	}
	d := makePlan(known, view{worker: "A", failover: 10 * sec, now: 100 * sec, max: 3, busy: map[string]bool{"held": true},
		isOwn: func(Lease) bool { return false }, mayTake: func(Lease) bool { return true }})
	if d.workers != 3 {
		t.Errorf("%d workers, want A, B and K", d.workers)
	}
	var got []string
	for _, l := range d.take {
		got = append(got, l.Key)
	}
	slices.Sort(got)
	if len(got) != 2 || !slices.Contains(got, "e") && !slices.Equal(got, []string{"a", "f"}) {
		t.Errorf("took %v, want two of a, e and f", got)
	}
}

// What was asked for and has not come yet counts as held: it may all be given.
func TestWhatIsAskedForCountsAgainstTheMaximum(t *testing.T) {
	known := map[string]observation{}
	for _, key := range []string{"a", "b", "c"} {
		known[key] = observation{lease: Lease{Key: key, Checkpoint: at("1")}, seenAt: 90 * sec, confirmed: true}
	}
	v := view{worker: "A", failover: 10 * sec, now: 100 * sec, max: 3, busy: map[string]bool{"held": true}, asked: map[string]time.Duration{"asked": 99 * sec},
		isOwn: func(Lease) bool { return false }, mayTake: func(Lease) bool { return true }}
	if d := makePlan(known, v); len(d.take) != 1 {
		t.Errorf("takes %d beside one that is held and one that is asked for, of 3 at most", len(d.take))
	}
}

// r8.5: a KCL worker that has one lease above the floor loses one, and not one to each of us.
func TestNoMoreOfUsStealThanThereAreLeasesAboveTheFloor(t *testing.T) {
	known := map[string]observation{}
	add := func(owner string, n int) {
		for i := range n {
			l := Lease{Key: fmt.Sprint(owner, i), Owner: owner, Counter: 5, Checkpoint: at("1")}
			if owner != "K" {
				l.Acquisition = owner + "#1"
			}
			known[l.Key] = observation{lease: l, seenAt: 95 * sec}
		}
	}
	add("A", 2)
	add("B", 2)
	add("C", 2)
	add("K", 6) // the floor is 3
	thieves := func() (n int) {
		for _, w := range []string{"A", "B", "C"} {
			d := makePlan(known, view{worker: w, failover: 10 * sec, now: 100 * sec,
				isOwn: func(l Lease) bool { return l.Owner == w }, mayTake: func(Lease) bool { return true }, busy: map[string]bool{w + "0": true, w + "1": true}})
			if d.stolen {
				n++
			}
		}
		return n
	}
	if n := thieves(); n != 3 {
		t.Fatalf("%d of us steal of the 3 leases above the floor", n)
	}
	for i := range 2 { // now another of us has the rest of what is above the floor, and gives it when it is asked
		delete(known, fmt.Sprint("K", 5-i))
	}
	add("D", 5)
	if n := thieves(); n != 1 {
		t.Errorf("%d of us steal the one lease above the floor", n)
	}
}

func TestScansBecomeRarerWithManyWorkers(t *testing.T) {
	for workers, want := range map[int]time.Duration{1: 4 * sec, 16: 4 * sec, 32: 8 * sec, 40: 10 * sec} {
		if got := scanPeriod(12*sec, workers); got != want {
			t.Errorf("%d workers: %s, want %s", workers, got, want)
		}
	}
}

func TestCheckStream(t *testing.T) {
	const arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
	mine := StreamName(arn, 1700000000)
	for _, c := range []struct {
		stream string
		want   error
	}{{"", nil}, {mine, nil}, {StreamName(arn, 1800000000), ErrRecreatedStream}, {StreamName(arn+"2", 1700000000), ErrOtherStream}} {
		err := CheckStream([]Lease{{Key: shard0}, {Key: shard1, Stream: c.stream}}, mine)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.stream, err, c.want)
		}
		if err != nil && (!strings.Contains(err.Error(), mine) || !strings.Contains(err.Error(), c.stream)) {
			t.Errorf("%v does not name both streams", err)
		}
	}
}

func TestPauseLeavesTimeForMoreTries(t *testing.T) {
	c := Config{Failover: 12 * sec, Backoff: 30 * sec, Random: func() float64 { return 0.5 }}
	for _, x := range []struct {
		err       error
		failures  int
		remaining time.Duration
		want      time.Duration
	}{
		{errors.New("x"), 1, 9 * sec, 100 * time.Millisecond},
		{errors.New("x"), 3, 9 * sec, 400 * time.Millisecond},
		{errors.New("x"), 99, 9 * sec, sec},
		{throttled, 1, 9 * sec, 3 * sec},
		{throttled, 1, 90 * sec, 30 * sec},
		{throttled, 1, 0, minPause},
	} {
		if got := c.pause(x.err, x.failures, x.remaining); got != x.want {
			t.Errorf("%v, failure %d, %s left: %s, want %s", x.err, x.failures, x.remaining, got, x.want)
		}
	}
}
