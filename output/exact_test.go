package output

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// counter is a lease's count of a shard: what is confirmed of the epoch, and by which name its producers go. It outlives
// the runs.
type counter struct {
	mu        sync.Mutex
	epoch     int   // guarded by mu
	confirmed int64 // records of the shard; guarded by mu
	began     int64 // of the shard's records, the first of the epoch; guarded by mu
	parts     int   // guarded by mu
	gone      bool  // the process is about to be killed, and writes no new epoch any more; guarded by mu
	// anonymous records have messages that do not tell which record they are of.
	anonymous bool
	// together is how many records share a Kinesis record; 0 and 1 for none.
	together int64
	arrival  time.Time // of all records
}

// exactShard plays one run of a shard: it hands out records 0, 1, 2 … of a stream without end from the confirmed one on.
type exactShard struct {
	*counter
	run   *attempt.Run
	fence *attempt.Fence
	first int64 // the shard's record that is the run's first
}

func (c *counter) newRun() *exactShard {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &exactShard{counter: c, first: c.confirmed, fence: attempt.NewFence(func() time.Duration { return 0 }, time.Hour)}
	s.run = attempt.NewRun("shardId-000000000000", s.fence, s)
	return s
}

func (s *exactShard) Sequence(_ context.Context, partitions int, not string) (attempt.Sequence, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := func() string { return fmt.Sprintf("app/stream/shardId-000000000000/%d", s.epoch) }
	if not == name() {
		if s.gone {
			return attempt.Sequence{}, errors.New("the process is about to be killed")
		}
		s.epoch++
		s.began, s.parts = s.confirmed, 0
	}
	if s.parts == 0 {
		s.parts = partitions
	}
	if s.parts != partitions {
		return attempt.Sequence{}, fmt.Errorf("there were %d partitions, now there are %d", s.parts, partitions)
	}
	return attempt.Sequence{Producer: name(), First: s.first - s.began}, nil
}

// batch hands out records of the shard, whose keys are their remainders by 7; every eleventh has none.
func (s *exactShard) batch(records ...int64) (service.MessageBatch, *attempt.Attempt) {
	a := s.run.Attempt(len(records), func(i int) attempt.Origin {
		return attempt.Origin{Ordinal: records[i] - s.first, PartitionKey: keyOf(records[i]), SequenceNumber: s.sequenceOf(records[i]), Sub: s.subOf(records[i]), Arrival: s.arrival}
	})
	ctx := a.Context(context.Background())
	batch := make(service.MessageBatch, len(records))
	for i, r := range records {
		m := service.NewMessageWithContext(ctx, []byte(strconv.FormatInt(r, 10)))
		if r%11 > 0 {
			m.MetaSetMut("pulsar_key", keyOf(r))
		}
		if !s.anonymous {
			m.MetaSetMut(sequenceProperty, s.sequenceOf(r))
		}
		m.MetaSetMut(attempt.RecordIDKey, a.ID(i))
		batch[i] = m
	}
	return batch, a
}

func (c *counter) sequenceOf(record int64) string {
	return strconv.FormatInt(1000000+record/max(1, c.together), 10)
}

func (c *counter) subOf(record int64) int64 {
	if c.together < 2 {
		return -1
	}
	return record % c.together
}

func keyOf(record int64) string { return "key-" + strconv.FormatInt(record%7, 10) }

func (s *exactShard) confirm(upTo int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed = max(s.confirmed, upTo)
}

// deliver writes records until they are confirmed, as input and engine do between them. A lost connection is looked
// after with Connect. It returns the number of replays.
func (s *exactShard) deliver(t testing.TB, o *output, records ...int64) (replays int) {
	t.Helper()
	deadline := time.Now().Add(busy)
	for len(records) > 0 {
		s.confirm(records[0])
		batch, a := s.batch(records...)
		err := writeOf(t.Context(), o, batch, a)
		if !a.Done(err != nil) {
			t.Fatal("acked before")
		}
		if err == nil {
			s.confirm(records[len(records)-1] + 1)
			return replays
		}
		if time.Now().After(deadline) {
			t.Fatalf("still failing: %v", err)
		}
		if errors.Is(err, service.ErrNotConnected) {
			_ = o.Connect(t.Context())
		}
		replays++
		replay, _ := a.Undelivered(func(int) string { return "" })
		var next []int64
		for _, i := range replay {
			next = append(next, records[i])
		}
		if len(next) == 0 {
			s.confirm(records[len(records)-1] + 1)
		}
		records = next
		time.Sleep(10 * time.Millisecond)
	}
	return replays
}

// writeOf is WriteBatch with what the input makes of it.
func writeOf(ctx context.Context, o *output, batch service.MessageBatch, a *attempt.Attempt) error {
	if err := o.WriteBatch(ctx, batch); err != nil {
		return err
	}
	return a.Withheld()
}

func from(first, n int64) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = first + int64(i)
	}
	return out
}

// checkExactly holds the promise: every record once, and in order in each partition.
func checkExactly(t testing.TB, b *pulsartest.Broker, topic string, n int64, but ...bool) {
	t.Helper()
	disorder, copiesToo := len(but) > 0 && but[0], len(but) > 1 && but[1]
	copies := map[int64]int{}
	last := map[int]int64{}
	for _, m := range b.Messages(topic) {
		r, err := strconv.ParseInt(string(m.Payload), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		copies[r]++
		if before, ok := last[m.Partition]; ok && r <= before && !disorder {
			t.Errorf("record %d is behind %d in partition %d", r, before, m.Partition)
		}
		last[m.Partition] = r
	}
	wrong := 0
	for r := range n {
		if copies[r] == 0 || copies[r] > 1 && !copiesToo {
			if wrong++; wrong < 10 {
				t.Errorf("record %d is there %d times", r, copies[r])
			}
		}
	}
	if len(copies) != int(n) {
		t.Errorf("%d records are there, want %d", len(copies), n)
	}
}

const exactly = "topic: t\ndeduplication: true\nreconnect_backoff: {initial_interval: 20ms, max_interval: 200ms}"

func exactBroker(t testing.TB, partitions int, options ...pulsartest.Option) *pulsartest.Broker {
	t.Helper()
	b := startBroker(t, append(options, pulsartest.Deduplication())...)
	if err := b.CreatePartitionedTopic("t", partitions); err != nil {
		t.Fatal(err)
	}
	return b
}

// One message an entry, each with its number, by one producer for each partition.
func TestEveryRecordHasItsNumber(t *testing.T) {
	b := exactBroker(t, 3)
	o := connected(t, b.URL(), exactly)
	s := (&counter{}).newRun()
	if replays := s.deliver(t, o, from(0, 100)...); replays != 0 {
		t.Errorf("%d replays", replays)
	}
	if replays := s.deliver(t, o, from(100, 50)...); replays != 0 {
		t.Errorf("%d replays", replays)
	}
	checkExactly(t, b, "t", 150)
	messages := b.Messages("t")
	for i, e := range b.Entries("t") {
		if e.Batched || strconv.FormatUint(e.SequenceID, 10) != string(messages[i].Payload) || e.ProducerName != "app/stream/shardId-000000000000/0" {
			t.Fatalf("entry %+v of record %s", e, messages[i].Payload)
		}
	}
	// A message without a key goes where the same record goes every time.
	for _, m := range messages {
		r, _ := strconv.ParseInt(string(m.Payload), 10, 64)
		if want := hashMurmur3.partitionOf(keyOf(r), 3); m.Partition != want || m.HasKey != (r%11 > 0) {
			t.Errorf("record %d is in partition %d, with a key %v", r, m.Partition, m.HasKey)
		}
	}
}

// The next run of the shard sends again what the last one had sent and not seen confirmed.
func TestTheNextRunSendsTheSameNumbers(t *testing.T) {
	b := exactBroker(t, 3)
	c := &counter{}
	first, second := c.newRun(), c.newRun()
	o := connected(t, b.URL(), exactly)
	first.deliver(t, o, from(0, 100)...)
	// The count was not written: the process was killed.
	c.confirmed = 0
	first.run.End()
	second.deliver(t, o, from(0, 130)...)
	checkExactly(t, b, "t", 130)
}

// A zombie that goes on beside the next owner holds the names until it ends, and is waited for.
func TestAHandOverWaitsForTheNames(t *testing.T) {
	b := exactBroker(t, 2)
	c := &counter{}
	zombie := connected(t, b.URL(), exactly)
	old := c.newRun()
	old.deliver(t, zombie, from(0, 50)...)
	next := connected(t, b.URL(), exactly)
	owner := c.newRun()
	// Benthos writes an ERROR for each error of a batch, and its outputs that try again stop all else meanwhile.
	for range 3 {
		batch, a := owner.batch(from(50, 50)...)
		if err := next.WriteBatch(t.Context(), batch); err != nil || a.Withheld() == nil || !strings.Contains(a.Withheld().Error(), "ProducerBusy") {
			t.Errorf("%v, withheld %v", err, a.Withheld())
		}
		a.Done(true)
	}
	if n := len(b.Messages("t")); n != 50 {
		t.Errorf("%d messages beside the zombie", n)
	}
	closed := make(chan error, 1)
	go func() { closed <- old.run.CloseProducers(context.Background()) }()
	owner.deliver(t, next, from(50, 50)...)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	checkExactly(t, b, "t", 100)
}

// The producers of a run end with it, and their goroutines (which goleak sees) and lanes too.
func TestARunLeavesNothingBehind(t *testing.T) {
	b := exactBroker(t, 4)
	o := connected(t, b.URL(), exactly)
	c := &counter{}
	for range 5 {
		s := c.newRun()
		s.deliver(t, o, from(s.first, 40)...)
		if err := s.run.CloseProducers(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := named(b); n != 0 {
			t.Errorf("%d producers of a drained run are connected", n)
		}
		s.deliver(t, o, from(s.first+40, 10)...) // the drain was taken back
		s.run.End()
	}
	sess := o.session.Load()
	waitFor(t, func() bool { return named(b) == 0 })
	sess.lanes.mu.Lock()
	defer sess.lanes.mu.Unlock()
	if len(sess.lanes.mu.byRun) > 0 {
		t.Errorf("%d lanes are left", len(sess.lanes.mu.byRun))
	}
	checkExactly(t, b, "t", 250)
}

func named(b *pulsartest.Broker) (n int) {
	for _, p := range b.Producers("t") {
		if strings.HasPrefix(p.Name, "app/") {
			n++
		}
	}
	return n
}

func waitFor(t testing.TB, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(busy); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came")
		}
	}
}

func TestARunThatIsOverWritesNothing(t *testing.T) {
	b := exactBroker(t, 1)
	o := connected(t, b.URL(), exactly)
	s := (&counter{}).newRun()
	s.run.End()
	batch, a := s.batch(0, 1)
	// An error would be tried again for ever by an output around this one.
	if err := o.WriteBatch(t.Context(), batch); err != nil || a.Withheld() == nil {
		t.Errorf("%v, withheld %v", err, a.Withheld())
	}
	if n := len(b.Messages("t")); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// What would break the promise is refused, with what to change, and nothing of the batch is sent.
func TestBatchesThatAreNotInTheOrderOfTheirRecords(t *testing.T) {
	b := exactBroker(t, 1)
	o := connected(t, b.URL(), exactly)
	s := (&counter{}).newRun()
	for name, tc := range map[string]struct {
		change func(service.MessageBatch) service.MessageBatch
		want   error
	}{
		"swapped": {func(b service.MessageBatch) service.MessageBatch { b[0], b[1] = b[1], b[0]; return b }, errNotAscending},
		"split":   {func(b service.MessageBatch) service.MessageBatch { return append(b[:1:1], b...) }, errNotAscending},
		"no metadata": {func(b service.MessageBatch) service.MessageBatch {
			b[1].MetaDelete(attempt.RecordIDKey)
			return b
		}, errNotNumbered},
		"of another input": {func(service.MessageBatch) service.MessageBatch {
			return service.MessageBatch{service.NewMessage([]byte("x"))}
		}, errNotNumbered},
		"merged": {func(b service.MessageBatch) service.MessageBatch {
			other, _ := (&counter{}).newRun().batch(5, 6)
			return append(b, other...)
		}, errManyShards},
	} {
		t.Run(name, func(t *testing.T) {
			batch, a := s.batch(0, 1, 2)
			if err := o.WriteBatch(t.Context(), tc.change(batch)); !errors.Is(err, tc.want) {
				t.Errorf("%v", err)
			}
			a.Done(true)
			if replay, _ := a.Undelivered(func(int) string { return "" }); len(replay) != 3 {
				t.Errorf("replay %v", replay)
			}
		})
	}
	if n := len(b.Messages("t")); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
	// Records that were filtered out leave gaps, which are nothing to Pulsar.
	batch, _ := s.batch(0, 3, 4, 9)
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Error(err)
	}
}

func TestATopicThatDoesNotDeduplicateIsNoticed(t *testing.T) {
	b := startBroker(t)
	o := connected(t, b.URL(), exactly)
	s := (&counter{}).newRun()
	batch, a := s.batch(from(0, 10)...)
	if err := o.WriteBatch(t.Context(), batch); !errors.Is(err, errNotDeduplicated) {
		t.Fatalf("%v", err)
	}
	a.Done(true)
	if replay, _ := a.Undelivered(func(int) string { return "" }); len(replay) != 0 {
		t.Errorf("what was stored is replayed: %v", replay)
	}
	if n := len(b.Messages("t")); n != 11 {
		t.Errorf("%d messages, one twice is the price", n)
	}
	batch, _ = s.batch(from(10, 10)...)
	if err := o.WriteBatch(t.Context(), batch); !errors.Is(err, service.ErrNotConnected) {
		t.Errorf("%v", err)
	}
	if err := o.Connect(t.Context()); !errors.Is(err, errNotDeduplicated) {
		t.Errorf("%v", err)
	}
	if n := len(b.Messages("t")); n != 11 {
		t.Errorf("%d messages", n)
	}
}

func TestChangedPartitionsStopTheShard(t *testing.T) {
	b := exactBroker(t, 2)
	c := &counter{}
	o := connected(t, b.URL(), exactly)
	c.newRun().deliver(t, o, from(0, 10)...)
	if err := b.GrowPartitions("t", 3); err != nil {
		t.Fatal(err)
	}
	sess := o.session.Load()
	topic, _ := sess.topics.use("t", time.Now())
	if err := sess.await(t.Context(), topic.discover()); err != nil {
		t.Fatal(err)
	}
	s := c.newRun()
	batch, _ := s.batch(from(10, 10)...)
	if err := o.WriteBatch(t.Context(), batch); err == nil || !strings.Contains(err.Error(), "partitions") {
		t.Errorf("%v", err)
	}
	checkExactly(t, b, "t", 10)
}

// A record that can never be published stops its shard, or goes to the dead-letter topic before what follows it.
func TestARefusedRecordStopsTheShard(t *testing.T) {
	b := exactBroker(t, 1, pulsartest.MaxMessageSize(100<<10))
	s := (&counter{}).newRun()
	big := func(o *output) (service.MessageBatch, *attempt.Attempt) {
		batch, a := s.batch(from(0, 10)...)
		batch[4].SetBytes([]byte(strings.Repeat("x", 200<<10)))
		return batch, a
	}
	o := connected(t, b.URL(), exactly+"\ncompression: none")
	for range 2 {
		batch, a := big(o)
		if err := o.WriteBatch(t.Context(), batch); err == nil {
			t.Fatal("no error")
		}
		a.Done(true)
		if replay, refused := a.Undelivered(func(int) string { return "" }); !slices.Equal(replay, []int{4, 5, 6, 7, 8, 9}) || !refused {
			t.Errorf("replay %v, refused %v", replay, refused)
		}
		if got := payloads(b.Messages("t")); !slices.Equal(got, numbers(0, 4)) {
			t.Errorf("stored %v", got)
		}
	}
	if err := s.run.CloseProducers(t.Context()); err != nil {
		t.Fatal(err)
	}
	o = connected(t, b.URL(), exactly+"\ncompression: none\ndead_letter_topic: refused")
	batch, _ := big(o)
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got, want := payloads(b.Messages("t")), append(numbers(0, 4), numbers(5, 10)...); !slices.Equal(got, want) {
		t.Errorf("stored %v", got)
	}
	if n := len(b.Messages("refused")); n != 1 {
		t.Errorf("%d dead letters", n)
	}
}

// exactRounds is the size in CI; a hundred take ten minutes.
var exactRounds = flag.Int("exact-rounds", 4, "rounds of TestExactlyOnceUnderRandomFaults")

// Every failure that the fake can play, at random places, with runs that end in the middle and are begun anew from an
// older count: every record is there once and in order.
func TestExactlyOnceUnderRandomFaults(t *testing.T) {
	for seed := range *exactRounds {
		t.Run(strconv.Itoa(seed), func(t *testing.T) { randomFaults(t, uint64(seed), seed%2 == 1, seed%4 == 3, seed%3 == 2) })
	}
}

// A message that the broker leaves out is told of in the client's log alone. When that comes after the caller has gone, nothing
// may be sent again under the old name: the broker would call it a duplicate.
func TestALeftOutMessageIsKnownThoughNobodyWaitedForIt(t *testing.T) {
	if raceDetector {
		t.Skip("the Pulsar client races with itself here: unbatched, when a connection breaks")
	}
	b := exactBroker(t, 1)
	o := connected(t, b.URL(), exactly)
	c := &counter{}
	s := c.newRun()
	s.deliver(t, o, from(0, 5)...)
	producer := o.session.Load().lanes.mu.byRun[s.run].tracks[0].partition
	release := b.StallReceipts("t")
	defer release()
	b.CorruptSends("t", 1)
	ctx, cancel := context.WithCancel(t.Context())
	batch, a := s.batch(from(5, 5)...)
	written := make(chan error, 1)
	go func() { written <- writeOf(ctx, o, batch, a) }()
	waitFor(t, func() bool { return len(b.Messages("t")) == 9 }) // the first of the five was left out
	cancel()
	err := <-written
	a.Done(err != nil)
	if err == nil {
		t.Fatal("written without a receipt")
	}
	release()
	waitFor(t, func() bool { return producer.live() == nil })
	s.deliver(t, o, from(5, 5)...)
	checkExactly(t, b, "t", 10, true)
}
