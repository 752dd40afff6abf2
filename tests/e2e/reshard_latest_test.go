package e2e

import (
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// movable is Kinesis' clock, off the local one by a settable time.
type movable struct{ clock *kinesistest.Clock }

// newMovable makes a clock that is off by a time. It stands still; passing moves it.
func newMovable(off time.Duration) movable {
	return movable{kinesistest.NewClock(time.Now().Add(off))}
}

func (m movable) pass(d time.Duration) { m.clock.Advance(d) }

// old fills the stream with what a first start at LATEST leaves alone, and lets it be certainly older than the anchor.
func (l *lineage) old(clock movable) (began time.Time) {
	l.number(48, 24)
	clock.pass(10 * time.Second)
	return clock.clock.Now()
}

// since checks that exactly what came after a moment is in the topic.
func (l *lineage) since(began time.Time, n int) *family {
	l.t.Helper()
	l.arrived(n)
	f := newFamily(l.t, l.kinesis.Records(streamName), arrivedFrom(began), l.messages()).balanced()
	f.stalled = l.stalled()
	if len(f.copies) != n {
		l.t.Fatalf("%d records arrived, want the %d of after the start", len(f.copies), n)
	}
	return f
}

// withClocks tells a story with both readers, each with a clock of Kinesis' own.
func withClocks(t *testing.T, off time.Duration, shards int, story func(*lineage, movable)) {
	t.Helper()
	for name, fanOut := range map[string]bool{"polling": false, "fan-out": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := newMovable(off)
			story(newLineage(t, fanOut, shards, kinesistest.WithClock(clock.clock.Now)), clock)
		})
	}
}

// The first start writes one lease of four and dies. Hours later another comes: every shard is read from the first
// start's moment on.
func TestI6LatestAfterACrashAtTheFirstLeaseIsTheFirstStartsHoursLater(t *testing.T) {
	t.Parallel()
	withClocks(t, 0, 4, func(l *lineage, clock movable) {
		began := l.old(clock)
		denied := l.dynamodb.Inject(dynamotest.Fault{Operation: "PutItem", Kind: dynamotest.AccessDenied, Skip: 1, Count: -1})
		p := l.start(l.config("initialPositionInStream", "LATEST"))
		l.eventually("one lease", func() bool { return denied.Hits() > 0 && len(l.leases()) == 1 })
		p.stop()
		denied.Remove()
		l.number(240, 24)
		clock.pass(3 * time.Hour)
		l.number(240, 24)
		l.split(firstShard)
		l.number(240, 24)
		l.start(l.config("initialPositionInStream", "LATEST"))
		l.since(began, 720).once()
	})
}

// Two workers start for the first time at once, and one of them is held up between its look at the clock and its writes.
func TestI6LatestOfTwoFirstStartersIsTheEarlierOfBothReaders(t *testing.T) {
	t.Parallel()
	withClocks(t, 0, 4, func(l *lineage, clock movable) {
		began := l.old(clock)
		hold := l.dynamodb.Inject(dynamotest.Fault{Operation: "PutItem", Kind: dynamotest.Delay, Delay: 400 * time.Millisecond, Count: 4})
		l.start(l.config("initialPositionInStream", "LATEST", "maxLeasesForWorker", "2"))
		l.eventually("the first is held up", func() bool { return hold.Hits() > 0 })
		l.number(120, 24)
		clock.pass(time.Minute)
		l.start(l.config("initialPositionInStream", "LATEST", "maxLeasesForWorker", "2"))
		l.number(120, 24)
		l.since(began, 240)
	})
}

// A shard that closes between the first start's look at the clock and its listing has a tail that belongs to the stream.
func TestI6AShardThatClosesBetweenTheAnchorAndTheListingIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	withClocks(t, 0, 2, func(l *lineage, clock movable) {
		began := l.old(clock)
		listing := l.kinesis.Inject(kinesistest.Fault{Operation: "ListShards", Kind: kinesistest.Hang})
		l.start(l.config("initialPositionInStream", "LATEST"))
		<-listing.Hit()
		l.number(120, 24)
		clock.pass(time.Minute)
		children := l.split(firstShard)
		l.number(120, 24)
		clock.pass(time.Minute)
		l.merge(children[1], secondShard)
		l.number(120, 24)
		listing.Remove()
		l.since(began, 360).once()
		l.readToTheEnd()
	})
}

// LATEST is Kinesis' own: a local clock that is an hour off moves it neither way, and a crash before the first
// checkpoint doesn't either.
func TestI6LatestDoesNotDependOnTheLocalClock(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]time.Duration{"an hour fast": -time.Hour, "an hour slow": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withClocks(t, off, 2, func(l *lineage, clock movable) {
				began := l.old(clock)
				release := l.broker.StallReceipts("")
				p := l.start(l.config("initialPositionInStream", "LATEST"))
				l.eventually("leases", func() bool { return len(l.leases()) == 2 && len(l.owners()) == 1 })
				l.number(120, 24)
				clock.pass(time.Minute)
				l.split(secondShard)
				l.number(120, 24)
				p.stop()
				release()
				clock.pass(time.Minute)
				l.number(120, 24)
				l.start(l.config("initialPositionInStream", "LATEST"))
				l.since(began, 360)
			})
		})
	}
}

// A KCL application that started at LATEST and never got a record leaves rows that it would read from now on at each
// start. With us the first look fixes the moment, and the rows stay ones that KCL can read.
func TestI6ALatestRowOfKCLIsReadFromOurFirstLookOn(t *testing.T) {
	t.Parallel()
	withClocks(t, 0, 2, func(l *lineage, clock movable) {
		began := l.old(clock)
		items := goldenTable(l.t, "g272-01-fresh-latest")
		for _, item := range items {
			delete(item, "leaseOwner") // the application has been stopped
		}
		l.install(items, nil)
		c := l.config("initialPositionInStream", "TRIM_HORIZON") // the table says where, not this
		p := l.start(c)
		l.eventually("leases are owned", func() bool { return len(l.owners()) == 1 })
		p.stop()
		for shard, row := range l.leases() {
			if row["checkpoint"] != "LATEST" && !l.fanOut { // by fan-out an idle shard has a position soon
				l.t.Errorf("the lease of %s is at %s, without a record", shard, row["checkpoint"])
			}
		}
		l.number(120, 24) // while nobody is there
		clock.pass(time.Hour)
		l.split(firstShard)
		l.number(120, 24)
		l.start(c)
		l.since(began, 240).once()
	})
}

// vmware-go-kcl, harlow's consumer, Bento and Redpanda Connect open the children of a split at the configured LATEST,
// and lose what they hold by then. An initial position is for the shards there were at the first start.
func TestChildrenOfALatestStartAreReadFromTheirBeginning(t *testing.T) {
	t.Parallel()
	withClocks(t, 0, 1, func(l *lineage, clock movable) {
		began := l.old(clock)
		c := l.config("initialPositionInStream", "LATEST")
		p := l.start(c)
		l.eventually("a lease", func() bool { return len(l.owners()) == 1 })
		l.number(120, 24)
		children := l.split(firstShard)
		l.number(120, 24)
		clock.pass(time.Minute)
		l.arrived(240)
		l.readToTheEnd()
		p.stop()
		l.merge(children[0], children[1]) // and while nobody is there
		l.number(120, 24)
		clock.pass(time.Minute)
		l.scale(2)
		l.number(120, 24)
		l.start(c)
		l.since(began, 480).once()
	})
}
