package output

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

// filled is a topic of one partition with n messages, all of one shard, and an output on it.
func filled(t *testing.T, n int64) (*pulsartest.Broker, *output) {
	t.Helper()
	b := exactBroker(t, 1)
	o := connected(t, b.URL(), exactly)
	(&counter{}).newRun().deliver(t, o, from(0, n)...)
	return b, o
}

// scanned reads the topic behind a place.
func scanned(ctx context.Context, o *output, at pulsar.MessageID, silence time.Duration) (got []int64, err error) {
	s := &scan{session: o.session.Load(), topic: "t-partition-0", at: at, silence: silence}
	s.visit = func(m pulsar.Message) bool {
		n, _ := strconv.ParseInt(string(m.Payload()), 10, 64)
		got = append(got, n)
		return true
	}
	return got, s.run(ctx)
}

func expectRecords(t *testing.T, got []int64, first, n int64) {
	t.Helper()
	if int64(len(got)) != n {
		t.Fatalf("read %d messages, want %d: %v", len(got), n, got)
	}
	for i, r := range got {
		if r != first+int64(i) {
			t.Fatalf("read %v", got)
		}
	}
}

func TestATopicIsReadFromAPlaceToItsEnd(t *testing.T) {
	b, o := filled(t, 250) // more than a reader's queue
	got, err := scanned(t.Context(), o, pulsar.EarliestMessageID(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	expectRecords(t, got, 0, 250)
	place := func(m pulsartest.Message) pulsar.MessageID {
		return pulsar.NewMessageID(m.LedgerID, m.EntryID, -1, 0)
	}
	messages := b.Messages("t")
	if got, err = scanned(t.Context(), o, place(messages[199]), time.Minute); err != nil {
		t.Fatal(err)
	}
	expectRecords(t, got, 200, 50)
	if got, err = scanned(t.Context(), o, place(messages[249]), time.Minute); err != nil || len(got) != 0 {
		t.Errorf("behind the last: %v, %v", got, err)
	}
	waitFor(t, func() bool { return b.Readers("") == 0 })

	empty := exactBroker(t, 1)
	if got, err = scanned(t.Context(), connected(t, empty.URL(), exactly), pulsar.EarliestMessageID(), time.Minute); err != nil || len(got) != 0 {
		t.Errorf("an empty topic: %v, %v", got, err)
	}
}

// A large topic takes long, which is no reason to give up as long as something comes.
func TestOnlyALackOfProgressEndsAScan(t *testing.T) {
	t.Parallel()
	_, o := filled(t, 40)
	s := &scan{session: o.session.Load(), topic: "t-partition-0", at: pulsar.EarliestMessageID(), silence: time.Second}
	n := 0
	s.visit = func(pulsar.Message) bool {
		n++
		time.Sleep(40 * time.Millisecond)
		return true
	}
	if err := s.run(t.Context()); err != nil || n != 40 {
		t.Errorf("%d messages, %v", n, err)
	}
}

// Wherever the connection breaks, every message is read once. The client itself says then that there is no more, or goes on
// without the message that it had in hand.
func TestAScanLosesNothingWithItsConnection(t *testing.T) {
	if raceDetector {
		t.Skip("the Pulsar client races with itself here: a reader whose connection breaks")
	}
	b, o := filled(t, 150)
	for n := 0; n < 150; n += 7 {
		b.PassDeliveries("t", n)
		b.DropDelivery("t", 1+n%2)
		got, err := scanned(t.Context(), o, pulsar.EarliestMessageID(), time.Minute)
		if err != nil {
			t.Fatalf("broken at %d: %v", n, err)
		}
		expectRecords(t, got, 0, 150)
		b.ClearFaults()
	}
	// Where it never gets further it says so, and never that this was all.
	b.PassDeliveries("t", 20)
	b.DropDelivery("t", pulsartest.Forever)
	if got, err := scanned(t.Context(), o, pulsar.EarliestMessageID(), time.Minute); !errors.Is(err, errReaderTorn) {
		t.Errorf("%d messages, %v", len(got), err)
	}
}

// What a broker calls the last message is not always one that readers are given. A shard must not stand still for that.
func TestAScanEndsInFrontOfAMarker(t *testing.T) {
	t.Parallel()
	const silence = time.Second // three of it in a row end a scan: a machine may stand still for a while
	b, o := filled(t, 20)
	b.AppendMarker("t-partition-0")
	got, err := scanned(t.Context(), o, pulsar.EarliestMessageID(), silence)
	if err != nil {
		t.Fatal(err)
	}
	expectRecords(t, got, 0, 20)
	// What is slow is waited for.
	release := b.StallDeliveries("t")
	time.AfterFunc(silence*3/2, release)
	if got, err = scanned(t.Context(), o, pulsar.EarliestMessageID(), silence); err != nil {
		t.Fatal(err)
	}
	expectRecords(t, got, 0, 20)
}

// The client cannot be told to stop making a reader: whoever has given up the wait for it closes it nevertheless.
func TestAReaderThatComesTooLateIsClosed(t *testing.T) {
	b, o := filled(t, 20)
	sess := o.session.Load()
	watched := watchedClient{sess.client, make(chan struct{})}
	sess.client = watched
	release := b.HangLookups("t")
	defer release()
	time.AfterFunc(100*time.Millisecond, func() { sess.health.failed(errors.New("as the test wants it"), time.Now()) })
	if _, err := scanned(t.Context(), o, pulsar.EarliestMessageID(), time.Minute); err == nil || !strings.Contains(err.Error(), "as the test wants it") {
		t.Fatalf("%v", err)
	}
	release()
	select {
	case <-watched.closed:
	case <-time.After(busy):
		t.Fatal("no reader was closed")
	}
	waitFor(t, func() bool { return b.Readers("t") == 0 })
}

// watchedClient tells when a reader was closed: at the broker it comes and goes faster than anybody may look.
type watchedClient struct {
	client
	closed chan struct{}
}

func (c watchedClient) CreateReader(options pulsar.ReaderOptions) (pulsar.Reader, error) {
	r, err := c.client.(topicReader).CreateReader(options)
	if err != nil {
		return r, err
	}
	return watchedReader{r, c.closed}, nil
}

type watchedReader struct {
	pulsar.Reader
	closed chan struct{}
}

func (r watchedReader) Close() {
	r.Reader.Close()
	close(r.closed)
}

// Nobody waits for the end of a large topic when the shard is somebody else's.
func TestAScanEndsWithItsShard(t *testing.T) {
	b := exactBroker(t, 1)
	o := connected(t, b.URL(), exactly)
	s := (&counter{}).newRun()
	s.deliver(t, o, from(0, 20)...)
	doubted(t, o, s)
	release := b.StallDeliveries("t")
	defer release()
	waiting := make(chan error, 1)
	batch, a := s.batch(from(20, 5)...)
	go func() { waiting <- writeOf(t.Context(), o, batch, a) }()
	waitFor(t, func() bool { return b.Readers("t") > 0 })
	s.run.End()
	if err := <-waiting; err == nil {
		t.Error("delivered")
	}
	waitFor(t, func() bool { return b.Readers("t") == 0 })
}

// doubted puts all that a shard has written to in doubt.
func doubted(t *testing.T, o *output, s *exactShard) {
	t.Helper()
	l, err := o.session.Load().lanes.enter(t.Context(), s.run)
	if err != nil {
		t.Fatal(err)
	}
	defer l.leave()
	for _, tr := range l.tracks {
		tr.doubt, tr.last = tr.used, nil
	}
	l.bar(t.Context())
}

// The topic was deleted and made anew, with fewer partitions, while it was not known what the old one had.
func TestADoubtAboutPartitionsThatAreGone(t *testing.T) {
	b := exactBroker(t, 4)
	o := connected(t, b.URL(), exactly)
	s := (&counter{}).newRun()
	s.deliver(t, o, from(0, 40)...)
	doubted(t, o, s)
	l, _ := o.session.Load().lanes.enter(t.Context(), s.run)
	old := l.tracks
	l.leave()
	for _, tr := range old {
		tr.partition.dismiss()
		tr.partition.ended()
	}
	if err := b.DeleteTopic("t"); err != nil {
		t.Fatal(err)
	}
	if err := b.CreatePartitionedTopic("t", 2); err != nil {
		t.Fatal(err)
	}
	sess := o.session.Load()
	topic, _ := sess.topics.use("t", time.Now())
	if err := sess.await(t.Context(), topic.discover()); err != nil {
		t.Fatal(err)
	}
	s.deliver(t, o, from(40, 40)...)
	got := map[string]int{}
	for _, m := range b.Messages("t") {
		got[string(m.Payload)]++
	}
	if len(got) != 40 || got["40"] != 1 || got["79"] != 1 {
		t.Errorf("stored %v", got)
	}
}
