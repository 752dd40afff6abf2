package kinesistest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

const shard0, shard1 = "shardId-000000000000", "shardId-000000000001"

func TestEveryIteratorTypeStartsWhereItSays(t *testing.T) {
	s, c, clock := start(t, 1)
	var records []Record
	for _, text := range []string{"a", "b", "c"} {
		records = append(records, put(t, s, "k", text)...)
		clock.Advance(time.Second)
	}
	at := func(kind types.ShardIteratorType, change func(*kinesis.GetShardIteratorInput)) *kinesis.GetShardIteratorInput {
		in := iteratorInput(shard0, kind)
		if change != nil {
			change(in)
		}
		return in
	}
	sequence := func(n string) func(*kinesis.GetShardIteratorInput) {
		return func(in *kinesis.GetShardIteratorInput) { in.StartingSequenceNumber = &n }
	}
	moment := func(d time.Duration) func(*kinesis.GetShardIteratorInput) {
		return func(in *kinesis.GetShardIteratorInput) { in.Timestamp = aws.Time(noon.Add(d)) }
	}
	start := s.Shards("orders")[0].StartingSequence
	for name, test := range map[string]struct {
		in   *kinesis.GetShardIteratorInput
		want []string
	}{
		"trim horizon":    {at("TRIM_HORIZON", nil), []string{"a", "b", "c"}},
		"latest":          {at("LATEST", nil), nil},
		"at a record":     {at("AT_SEQUENCE_NUMBER", sequence(records[1].SequenceNumber)), []string{"b", "c"}},
		"after a record":  {at("AFTER_SEQUENCE_NUMBER", sequence(records[1].SequenceNumber)), []string{"c"}},
		"after the last":  {at("AFTER_SEQUENCE_NUMBER", sequence(records[2].SequenceNumber)), nil},
		"at the start":    {at("AT_SEQUENCE_NUMBER", sequence(start)), []string{"a", "b", "c"}},
		"after the start": {at("AFTER_SEQUENCE_NUMBER", sequence(start)), []string{"a", "b", "c"}},
		"long ago":        {at("AT_TIMESTAMP", moment(-time.Hour)), []string{"a", "b", "c"}},
		"at an arrival":   {at("AT_TIMESTAMP", moment(time.Second)), []string{"b", "c"}},
		"just after it":   {at("AT_TIMESTAMP", moment(time.Second+time.Millisecond)), []string{"c"}},
		"at the present":  {at("AT_TIMESTAMP", moment(3*time.Second)), nil},
		"by the stream's ARN": {at("TRIM_HORIZON", func(in *kinesis.GetShardIteratorInput) {
			in.StreamName, in.StreamARN = nil, aws.String("arn:aws:kinesis:us-east-1:000000000000:stream/orders")
		}), []string{"a", "b", "c"}},
	} {
		iterator := getIterator(t, c, test.in)
		if got := texts(get(t, c, iterator, 0).Records); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q instead of %q", name, got, test.want)
		}
	}
	// LATEST is fixed when the iterator is made, not when it is used.
	latest := getIterator(t, c, at("LATEST", nil))
	put(t, s, "k", "d")
	if got := texts(get(t, c, latest, 0).Records); !slices.Equal(got, []string{"d"}) {
		t.Errorf("after latest came %q", got)
	}
}

func TestIteratorsAreRefusedWithTheDocumentedExceptions(t *testing.T) {
	s, c, clock := start(t, 2)
	mine := put(t, s, "k", "x")[0]
	other := shard0
	if mine.ShardID == shard0 {
		other = shard1
	}
	try := func(in *kinesis.GetShardIteratorInput) error {
		_, err := c.GetShardIterator(t.Context(), in)
		return err
	}
	in := iteratorInput(other, "AFTER_SEQUENCE_NUMBER")
	in.StartingSequenceNumber = &mine.SequenceNumber
	wantError[*types.InvalidArgumentException](t, try(in)) // another shard's number
	for _, bad := range []string{"0", "12", "-1", "TRIM_HORIZON", mine.SequenceNumber + "0"} {
		in := iteratorInput(mine.ShardID, "AT_SEQUENCE_NUMBER")
		in.StartingSequenceNumber = &bad
		wantError[*types.InvalidArgumentException](t, try(in))
	}
	wantError[*types.InvalidArgumentException](t, try(iteratorInput(shard0, "AT_SEQUENCE_NUMBER")))
	wantError[*types.InvalidArgumentException](t, try(iteratorInput(shard0, "AT_TIMESTAMP")))
	in = iteratorInput(shard0, "AT_TIMESTAMP")
	in.Timestamp = aws.Time(clock.Now().Add(time.Second))
	wantError[*types.InvalidArgumentException](t, try(in))
	wantError[*types.ResourceNotFoundException](t, try(iteratorInput("shardId-000000000002", "LATEST")))
	wantCode(t, try(iteratorInput(shard0, "SOMEWHERE")), Validation)
	in = iteratorInput(shard0, "LATEST")
	in.StreamName = aws.String("nothing")
	wantError[*types.ResourceNotFoundException](t, try(in))

	use := func(iterator string, limit int32) error {
		_, err := c.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: &iterator, Limit: &limit})
		return err
	}
	_, foreign, _ := start(t, 2)
	good := *getIterator(t, c, iteratorInput(shard0, "LATEST"))
	wantError[*types.InvalidArgumentException](t, use(*getIterator(t, foreign, iteratorInput(shard0, "LATEST")), 1))
	wantError[*types.InvalidArgumentException](t, use("AAAA", 1))
	wantError[*types.InvalidArgumentException](t, use(good[1:], 1))
	wantCode(t, use(good, 10_001), Validation)
	wantCode(t, use(good, 0), Validation)
	// A stream deleted and created again is another one.
	must(t, s.DeleteStream("orders"))
	wantError[*types.ResourceNotFoundException](t, use(good, 1))
	clock.Advance(time.Minute)
	must(t, s.CreateStream("orders", 2))
	wantError[*types.InvalidArgumentException](t, use(good, 1))
	in = iteratorInput(mine.ShardID, "AFTER_SEQUENCE_NUMBER")
	in.StartingSequenceNumber = &mine.SequenceNumber
	wantError[*types.InvalidArgumentException](t, try(in))
}

func TestAnIteratorLivesFiveMinutesOfTheServersClock(t *testing.T) {
	s, c, clock := start(t, 1)
	put(t, s, "k", "x")
	iterator := getIterator(t, c, iteratorInput(shard0, "TRIM_HORIZON"))
	clock.Advance(5 * time.Minute)
	next := get(t, c, iterator, 0).NextShardIterator
	clock.Advance(time.Millisecond)
	_, err := c.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: iterator})
	wantError[*types.ExpiredIteratorException](t, err)
	get(t, c, next, 0) // it is younger

	s.ExpireIterators()
	_, err = c.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next})
	wantError[*types.ExpiredIteratorException](t, err)
	if got := read(t, c, iteratorInput(shard0, "TRIM_HORIZON")); !slices.Equal(got, []string{"x"}) {
		t.Errorf("with a new iterator: %q", got)
	}
}

func TestReadsArePagedByCountAndBytesWithoutGapOrRepetition(t *testing.T) {
	s, c, _ := start(t, 1)
	var want []string
	for i := range 25 {
		want = append(want, fmt.Sprint("record ", i))
	}
	put(t, s, "k", want...)
	var got []string
	iterator := getIterator(t, c, iteratorInput(shard0, "TRIM_HORIZON"))
	for page := range 4 {
		out := get(t, c, iterator, 10)
		if wantLen := min(10, 25-min(25, 10*page)); len(out.Records) != wantLen {
			t.Errorf("page %d has %d records", page, len(out.Records))
		}
		got = append(got, texts(out.Records)...)
		iterator = out.NextShardIterator
	}
	if !slices.Equal(got, want) {
		t.Errorf("read %q", got)
	}
	// The same iterator gives the same records again.
	again := getIterator(t, c, iteratorInput(shard0, "TRIM_HORIZON"))
	if a, b := texts(get(t, c, again, 3).Records), texts(get(t, c, again, 3).Records); !slices.Equal(a, b) {
		t.Errorf("%q and then %q", a, b)
	}

	must(t, s.CreateStream("many", 1))
	_, err := s.Put("many", "k", make([][]byte, 10_001)...)
	must(t, err)
	in := iteratorInput(shard0, "TRIM_HORIZON")
	in.StreamName = aws.String("many")
	first := get(t, c, getIterator(t, c, in), 0)
	second := get(t, c, first.NextShardIterator, 0)
	if len(first.Records) != 10_000 || len(second.Records) != 1 {
		t.Errorf("read %d and then %d empty records", len(first.Records), len(second.Records))
	}
}

func TestMillisBehindLatestIsTheAgeOfWhatIsReadUntilTheTip(t *testing.T) {
	s, c, clock := start(t, 1)
	put(t, s, "k", "a")
	clock.Advance(10 * time.Second)
	put(t, s, "k", "b")
	clock.Advance(5 * time.Second)
	iterator := getIterator(t, c, iteratorInput(shard0, "TRIM_HORIZON"))
	first := get(t, c, iterator, 1)
	if got := *first.MillisBehindLatest; got != 15_000 {
		t.Errorf("after the first record: %d ms behind", got)
	}
	if got := *get(t, c, first.NextShardIterator, 1).MillisBehindLatest; got != 0 {
		t.Errorf("at the tip: %d ms behind", got)
	}

	s, c, _ = start(t, 1, WithLag(func(_, _ string, actual time.Duration) time.Duration { return actual + time.Minute }))
	put(t, s, "k", "a")
	if got := *get(t, c, getIterator(t, c, iteratorInput(shard0, "TRIM_HORIZON")), 0).MillisBehindLatest; got != 60_000 {
		t.Errorf("with a lag of its own: %d ms behind", got)
	}
}

func TestARecordIsHiddenForTheVisibilityDelay(t *testing.T) {
	s, c, clock := start(t, 1, WithVisibilityDelay(time.Second))
	put(t, s, "k", "a")
	first := get(t, c, getIterator(t, c, iteratorInput(shard0, "TRIM_HORIZON")), 0)
	if len(first.Records) != 0 || first.NextShardIterator == nil {
		t.Fatalf("at once: %d records", len(first.Records))
	}
	_, err := s.SplitShard("orders", shard0)
	must(t, err)
	hidden := get(t, c, first.NextShardIterator, 0)
	if hidden.NextShardIterator == nil {
		t.Fatal("the shard ended before its last record could be seen")
	}
	clock.Advance(time.Second)
	out := get(t, c, hidden.NextShardIterator, 0)
	if got := texts(out.Records); !slices.Equal(got, []string{"a"}) || out.NextShardIterator != nil {
		t.Errorf("after the delay: %q", got)
	}
}
