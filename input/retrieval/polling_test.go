package retrieval

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/kpl"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kpltest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/leaktest"
)

func TestMain(m *testing.M) {
	// The tests over the wire wait for pauses that Kinesis' limits ask for, and hardly ever for a processor.
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	leaktest.VerifyTestMain(m)
}

const shard0 = "shardId-000000000000"

type bench struct {
	t      *testing.T
	server *kinesistest.Server
	ctx    context.Context // of all calls; one that lasts too long fails the test
	config PollingConfig
}

func newBench(t *testing.T, options ...kinesistest.Option) *bench {
	t.Helper()
	b := &bench{t: t, server: kinesistest.NewServer(options...)}
	t.Cleanup(b.server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	b.ctx = ctx
	if err := b.server.CreateStream("stream", 1); err != nil {
		t.Fatal(err)
	}
	client := b.server.Client(func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} })
	summary, err := client.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("stream")})
	if err != nil {
		t.Fatal(err)
	}
	b.config = PollingConfig{
		API: client, StreamARN: *summary.StreamDescriptionSummary.StreamARN, MaxRecords: 10_000,
		Backoff: 50 * time.Millisecond, Budget: NewBudget(64<<20, 1000),
	}
	return b
}

func (b *bench) put(data ...string) []kinesistest.Record {
	b.t.Helper()
	raw := make([][]byte, len(data))
	for i := range data {
		raw[i] = []byte(data[i])
	}
	records, err := b.server.Put("stream", "key", raw...)
	if err != nil {
		b.t.Fatal(err)
	}
	return records
}

func (b *bench) reader(from From) *Polling {
	return NewPolling(b.config, shard0, kpl.HashRange{}, from)
}

// read calls Next until n records have come, or the shard has ended; it returns every error on the way.
func (b *bench) read(p Reader, n int) (records []Record, errs []error) {
	b.t.Helper()
	for len(records) < n {
		read, err := p.Next(b.ctx, always(true))
		if b.ctx.Err() != nil {
			b.t.Fatalf("%d of %d records, then %v", len(records), n, errors.Join(errs...))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var charge int64
		for i := range read.Records {
			charge += read.Records[i].Charge()
		}
		b.config.Budget.HandedOut(len(read.Records))
		b.config.Budget.Release(charge)
		records = append(records, read.Records...)
	}
	return records, errs
}

func payloads(records []Record) string {
	var all []string
	for _, r := range records {
		all = append(all, string(r.Data))
	}
	return strings.Join(all, " ")
}

func horizon() From { return From{Kind: checkpoint.TrimHorizon} }

func (b *bench) expect(p Reader, want string) (records []Record, errs []error) {
	b.t.Helper()
	records, errs = b.read(p, len(strings.Fields(want)))
	if got := payloads(records); got != want {
		b.t.Fatalf("got %q, want %q", got, want)
	}
	return records, errs
}

func TestRecordsAreReadAsTheyAre(t *testing.T) {
	b := newBench(t)
	put := b.put("one", "", "\x00\xff")
	records, _ := b.read(b.reader(horizon()), 3)
	for i, r := range records {
		if string(r.Data) != string(put[i].Data) || r.Data == nil || r.Position.Sequence != put[i].SequenceNumber || r.PartitionKey != "key" || r.Encryption != "NONE" {
			t.Errorf("record %d is %+v, put was %+v", i, r, put[i])
		}
		if got := r.Arrival.Sub(put[i].Arrival).Abs(); got > time.Millisecond {
			t.Errorf("record %d arrived %s off", i, got)
		}
	}
	if bytes, queued := b.config.Budget.Held(); bytes != 0 || queued != 0 {
		t.Errorf("%d bytes and %d records stay charged", bytes, queued)
	}
}

func TestReadingGoesOnBehindACheckpoint(t *testing.T) {
	b := newBench(t)
	put := b.put("1", "2", "3")
	b.expect(b.reader(From{After: checkpoint.Position{Sequence: put[0].SequenceNumber}}), "2 3")
}

func TestReadingStartsAtATime(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	b := newBench(t, kinesistest.WithClock(func() time.Time { return now }))
	b.put("early")
	now = now.Add(time.Minute)
	b.put("late")
	b.expect(b.reader(From{Kind: checkpoint.AtTimestamp, Time: now.Add(-time.Second)}), "late")
}

func TestAnExpiredIteratorLosesAndRepeatsNothing(t *testing.T) {
	b := newBench(t)
	b.put("1", "2")
	p := b.reader(horizon())
	b.expect(p, "1 2")
	b.server.ExpireIterators()
	b.put("3")
	b.expect(p, "3")
}

func TestAnExpiredFirstIteratorStartsWhereItWasToldTo(t *testing.T) {
	b := newBench(t)
	put := b.put("1", "2")
	b.server.Inject(kinesistest.Fault{Operation: "GetRecords", Kind: kinesistest.Expire})
	b.expect(b.reader(From{After: checkpoint.Position{Sequence: put[0].SequenceNumber}}), "2")
}

func TestEveryPassingErrorIsSurvived(t *testing.T) {
	for _, fault := range []kinesistest.Fault{
		{Operation: "GetRecords", Kind: kinesistest.Fail, Count: 2},
		{Operation: "GetRecords", Kind: kinesistest.Fail, Code: "InternalFailure", Status: 500},
		{Operation: "GetRecords", Kind: kinesistest.Fail, Code: "KMSThrottlingException"},
		{Operation: "GetRecords", Kind: kinesistest.Fail, Code: "KMSAccessDeniedException"},
		{Operation: "GetRecords", Kind: kinesistest.Fail, Code: "InvalidArgumentException"},
		{Operation: "GetRecords", Kind: kinesistest.Fail, Code: "ResourceNotFoundException"},
		{Operation: "GetRecords", Kind: kinesistest.Cut, Bytes: 0},
		{Operation: "GetRecords", Kind: kinesistest.Cut, Bytes: 100},
		{Operation: "GetShardIterator", Kind: kinesistest.Fail},
		{Operation: "GetShardIterator", Kind: kinesistest.Cut},
	} {
		t.Run(fmt.Sprintf("%s/%d%s", fault.Operation, fault.Kind, fault.Code), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.put("1", "2", "3")
			f := b.server.Inject(fault)
			if _, errs := b.expect(b.reader(horizon()), "1 2 3"); len(errs) == 0 || f.Hits() == 0 {
				t.Fatalf("the fault did not happen: %v", errs)
			}
		})
	}
}

func TestAThrottleIsToldAndPausedFor(t *testing.T) {
	b := newBench(t)
	b.config.Backoff = time.Hour // nobody waits for it
	b.put("1")
	b.server.Inject(kinesistest.Fault{Operation: "GetRecords", Kind: kinesistest.Fail})
	p := b.reader(horizon())
	if _, err := p.Next(t.Context(), always(true)); !errors.Is(err, ErrThrottled) {
		t.Fatalf("got %v", err)
	}
	if pause := time.Until(p.notBefore); pause <= 0 || pause > b.config.Backoff {
		t.Fatalf("the pause is %s", pause)
	}
}

func TestAVanishedStreamIsNoEndOfTheShard(t *testing.T) {
	b := newBench(t)
	b.put("1")
	p := b.reader(horizon())
	b.expect(p, "1")
	if err := b.server.DeleteStream("stream"); err != nil {
		t.Fatal(err)
	}
	read, err := p.Next(t.Context(), always(true))
	if !errors.Is(err, ErrNotFound) || read.Ended {
		t.Fatalf("got %+v, %v", read, err)
	}
}

func TestACheckpointOfAnotherStreamIsRefused(t *testing.T) {
	b := newBench(t)
	if err := b.server.CreateStream("other", 3); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		if _, err := b.server.Put("other", fmt.Sprint(i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	foreign := b.server.Records("other")["shardId-000000000001"][0].SequenceNumber
	_, err := b.reader(From{After: checkpoint.Position{Sequence: foreign}}).Next(t.Context(), always(true))
	if !errors.Is(err, ErrForeignPosition) {
		t.Fatalf("got %v", err)
	}
}

func TestReadsStayWithinKinesisLimits(t *testing.T) {
	b := newBench(t, kinesistest.WithReadLimits())
	b.config.Spacing = 250 * time.Millisecond
	p := b.reader(horizon())
	b.put(strings.Fields("1 2 3")...)
	for i := range 6 {
		if _, err := p.Next(t.Context(), always(true)); err != nil {
			t.Fatalf("read %d: %v", i, err)
		}
	}
}

func TestTheFirstReadLearnsHowLargeRecordsAre(t *testing.T) {
	b := newBench(t)
	large := strings.Repeat("x", 1<<20)
	b.put(large, large, large)
	p := b.reader(horizon())
	for i := range 3 {
		read, err := p.Next(t.Context(), always(true))
		if err != nil || len(read.Records) != 1 {
			t.Fatalf("read %d brought %d records, %v", i, len(read.Records), err)
		}
	}
	if bytes, _ := b.config.Budget.Held(); bytes < 3<<20 {
		t.Fatalf("%d bytes are charged", bytes)
	}
}

// Behind a checkpoint the first read brings only the record that the checkpoint names, which is delivered already. It
// used to be followed by a whole pause, in every restart and in every hand-over of a lease.
func TestTheReadAfterACheckpointFollowsAtOnce(t *testing.T) {
	b := newBench(t)
	b.config.Spacing = time.Hour
	records := b.put("1", "2", "3")
	p := b.reader(From{After: checkpoint.Position{Sequence: records[0].SequenceNumber}})
	b.expect(p, "2 3")
}

func TestAHangingReadEndsWithItsContext(t *testing.T) {
	b := newBench(t)
	f := b.server.Inject(kinesistest.Fault{Operation: "GetRecords", Kind: kinesistest.Hang})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-f.Hit()
		cancel()
	}()
	if _, err := b.reader(horizon()).Next(ctx, always(true)); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if bytes, records := b.config.Budget.Held(); bytes != 0 || records != 0 {
		t.Fatalf("%d bytes and %d records stay reserved", bytes, records)
	}
}

func TestAggregatedRecordsAreReadOneByOne(t *testing.T) {
	b := newBench(t)
	var users []kpltest.Record
	for i := range 6 {
		users = append(users, kpltest.Record{PartitionKey: fmt.Sprint("user ", i), Data: []byte(fmt.Sprint(i))})
	}
	b.put("plain", string(kpltest.Aggregate(users)), "last")
	p := b.reader(horizon())
	records, _ := b.expect(p, "plain 0 1 2 3 4 5 last")
	for i, r := range records[1:7] {
		if r.PartitionKey != fmt.Sprint("user ", i) || r.Position.Sub != int64(i) || r.Position.Sequence != records[1].Position.Sequence {
			t.Errorf("user record %d is %+v", i, r)
		}
	}
	// A checkpoint inside the aggregated record: the rest of it comes, and nothing twice.
	b.expect(b.reader(From{After: records[4].Position}), "4 5 last")
	// A user record that belongs elsewhere is left out, counted, and disturbs nothing.
	var err error
	if p.hashes, err = kpl.ParseHashRange("0", "0"); err != nil {
		t.Fatal(err)
	}
	b.put(string(kpltest.Aggregate(users[:2])))
	read, err := p.Next(t.Context(), always(true))
	if err != nil || read.OutOfRange != 2 || len(read.Records) != 0 {
		t.Fatalf("got %+v, %v", read, err)
	}
}

func TestFromIsReadable(t *testing.T) {
	var got []string
	for _, f := range []From{horizon(), {After: checkpoint.Position{Sequence: "7", Sub: 2}}, {Kind: checkpoint.AtTimestamp, Time: time.Unix(0, 0)}} {
		got = append(got, f.String())
	}
	if want := []string{"TRIM_HORIZON", "after 7/2", "AT_TIMESTAMP 1970-01-01T00:00:00Z"}; !slices.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
}
