package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/redpanda-data/benthos/v4/public/service"
)

func startBroker(t testing.TB, options ...pulsartest.Option) *pulsartest.Broker {
	t.Helper()
	b := pulsartest.NewBroker(options...)
	t.Cleanup(b.Close)
	return b
}

// make returns an output that is not connected; it is closed at the end of the test.
func makeOutput(t testing.TB, url, yaml string) *output {
	t.Helper()
	conf, err := parse(t, "url: "+url+"\n"+yaml)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	o := newOutput(conf, service.MockResources(service.MockResourcesOptUseLogger(service.NewLoggerFromSlog(logger))))
	t.Cleanup(func() {
		if err := o.Close(context.Background()); err != nil {
			t.Errorf("closing: %v", err)
		}
		if s := o.session.Load(); s != nil {
			<-s.finished
		}
	})
	return o
}

// connected returns an output that is connected. Like the engine it tries again where the machine stood still for the ten
// seconds that the output waits for an answer; where something is wrong it fails at the third try.
func connected(t testing.TB, url, yaml string) *output {
	t.Helper()
	o := makeOutput(t, url, yaml)
	var err error
	for range 3 {
		if err = o.Connect(t.Context()); err == nil {
			return o
		}
	}
	t.Fatalf("connecting: %v", err)
	return nil
}

// shard makes batches as the input does.
type shard struct {
	fence *attempt.Fence
	next  int
}

func newShard() *shard {
	return &shard{fence: attempt.NewFence(func() time.Duration { return 0 }, time.Hour)}
}

// batch hands out an attempt of the records with these keys, "" for none. Payloads count up over the shard.
func (s *shard) batch(keys ...string) (service.MessageBatch, handedOut) {
	payloads := make([]string, len(keys))
	for i := range payloads {
		payloads[i] = strconv.Itoa(s.next)
		s.next++
	}
	return s.batchOf(keys, payloads)
}

func (s *shard) batchOf(keys, payloads []string) (service.MessageBatch, handedOut) {
	a := attempt.New("shardId-000000000000", s.fence, len(keys))
	ctx := a.Context(context.Background())
	batch := make(service.MessageBatch, len(keys))
	for i, key := range keys {
		m := service.NewMessageWithContext(ctx, []byte(payloads[i]))
		m.MetaSetMut("pulsar_key", key)
		m.MetaSetMut(attempt.RecordIDKey, a.ID(i))
		batch[i] = m
	}
	return batch, handedOut{a, keys}
}

// handedOut is an attempt with the keys that its records have.
type handedOut struct {
	*attempt.Attempt
	keys []string
}

// undelivered ends the attempt as failed and returns what would be replayed.
func undelivered(t testing.TB, a handedOut) (replay []int, allRefused bool) {
	t.Helper()
	if !a.Done(true) {
		t.Fatal("attempt has ended before")
	}
	return a.Undelivered(func(i int) string { return a.keys[i] })
}

func payloads(messages []pulsartest.Message) []string {
	var out []string
	for _, m := range messages {
		out = append(out, string(m.Payload))
	}
	return out
}

func numbers(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, strconv.Itoa(i))
	}
	return out
}

func repeat(key string, n int) []string { return slices.Repeat([]string{key}, n) }

// write writes the batch and returns the indexes of the messages that failed.
func write(t testing.TB, o *output, batch service.MessageBatch) ([]int, error) {
	t.Helper()
	index := batch.Index()
	err := o.WriteBatch(t.Context(), batch)
	var be *service.BatchError
	if !errors.As(err, &be) {
		if err != nil {
			t.Fatalf("not a batch error: %v", err)
		}
		return nil, nil
	}
	var failed []int
	be.WalkMessagesIndexedBy(index, func(i int, _ *service.Message, err error) bool {
		if err != nil {
			failed = append(failed, i)
		}
		return true
	})
	slices.Sort(failed)
	return failed, err
}

func TestBatchesOfAShardStayInOrder(t *testing.T) {
	b := startBroker(t)
	if err := b.CreatePartitionedTopic("t", 4); err != nil {
		t.Fatal(err)
	}
	o := connected(t, b.URL(), "topic: t")
	s := newShard()
	want := map[string][]string{}
	for range 20 {
		keys := make([]string, 100)
		for i := range keys {
			keys[i] = fmt.Sprintf("key-%d", (s.next+i)%7)
			want[keys[i]] = append(want[keys[i]], strconv.Itoa(s.next+i))
		}
		batch, a := s.batch(keys...)
		if err := o.WriteBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if replay, _ := undelivered(t, a); len(replay) > 0 {
			t.Fatalf("records %v are not marked", replay)
		}
	}
	got := map[string][]string{}
	for _, m := range b.Messages("t") {
		got[m.Key] = append(got[m.Key], string(m.Payload))
		if p := hashMurmur3.partitionOf(m.Key, 4); m.Partition != p {
			t.Errorf("key %s is in partition %d, not %d", m.Key, m.Partition, p)
		}
	}
	for key := range want {
		if !slices.Equal(got[key], want[key]) {
			t.Errorf("%s: %v", key, got[key])
		}
	}
	if problems := b.Problems(); len(problems) > 0 {
		t.Errorf("the broker saw %v", problems)
	}
}

// What the Java connector's producer would have sent.
func TestMessageContents(t *testing.T) {
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t\nordering_key: '${! @ok }'")
	s := newShard()
	batch, _ := s.batchOf([]string{"k", "", "k"}, []string{"bytes \x00\xff", "", "x"})
	batch[0].MetaSetMut("kinesis.partition.key", "k")
	batch[0].MetaSetMut("kinesis.millis.behind.latest", 12)
	batch[0].MetaSetMut("other", "not a property")
	batch[1].MetaDelete("pulsar_key")
	batch[1].SetBytes(nil)
	batch[2].MetaSetMut("ok", "group")
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	m := b.Messages("t")
	if len(m) != 3 {
		t.Fatalf("%d messages", len(m))
	}
	if string(m[0].Payload) != "bytes \x00\xff" || m[0].Key != "k" || m[0].OrderingKey != nil {
		t.Errorf("%+v", m[0])
	}
	if len(m[0].Properties) != 2 || m[0].Properties["kinesis.partition.key"] != "k" || m[0].Properties["kinesis.millis.behind.latest"] != "12" {
		t.Errorf("properties %v", m[0].Properties)
	}
	if m[1].HasKey || m[1].Null || len(m[1].Payload) != 0 || len(m[1].Properties) != 0 {
		t.Errorf("empty message without a key: %+v", m[1])
	}
	if string(m[2].OrderingKey) != "group" {
		t.Errorf("ordering key %q", m[2].OrderingKey)
	}
	if m[0].Compression.String() != "LZ4" {
		t.Errorf("compression %s", m[0].Compression)
	}
	if !m[0].EventTime.IsZero() {
		t.Errorf("event time %s", m[0].EventTime)
	}
}

func TestCompressions(t *testing.T) {
	b := startBroker(t)
	for name := range compressions {
		t.Run(name, func(t *testing.T) {
			o := connected(t, b.URL(), "topic: "+name+"\ncompression: "+name)
			batch, _ := newShard().batchOf(repeat("k", 3), repeat(strings.Repeat("compressible ", 100), 3))
			if err := o.WriteBatch(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			m := b.Messages(name)
			if len(m) != 3 || !strings.EqualFold(m[0].Compression.String(), name) || len(m[2].Payload) != 1300 {
				t.Errorf("%d messages with %s", len(m), m[0].Compression)
			}
		})
	}
}

// Messages without a key go to the partitions in turn, a batch to each, so that they can be packed.
func TestKeylessBatchesGoRound(t *testing.T) {
	b := startBroker(t)
	if err := b.CreatePartitionedTopic("t", 3); err != nil {
		t.Fatal(err)
	}
	o := connected(t, b.URL(), "topic: t")
	s := newShard()
	for range 6 {
		batch, _ := s.batch("", "", "", "")
		if err := o.WriteBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	for p := range 3 {
		if n := len(b.Messages(fmt.Sprintf("t-partition-%d", p))); n != 8 {
			t.Errorf("%d messages in partition %d", n, p)
		}
	}
}

// Messages of other inputs have no attempt and no record id.
func TestMessagesOfOtherInputs(t *testing.T) {
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t\nkey: '${! json(\"id\") }'")
	batch := service.MessageBatch{service.NewMessage([]byte(`{"id":"a"}`)), service.NewMessage([]byte(`{"id":"b"}`)), service.NewMessage([]byte(`not json`))}
	if failed, err := write(t, o, batch); !slices.Equal(failed, []int{2}) {
		t.Errorf("failed %v: %v", failed, err)
	}
	if m := b.Messages("t"); len(m) != 2 || m[0].Key != "a" || m[1].Key != "b" {
		t.Errorf("%v", m)
	}
}

// A record that can never be published must not take its neighbours with it, nor be taken for delivered.
func TestOversizeRecordIsRefusedAlone(t *testing.T) {
	const limit = 200 << 10
	b := startBroker(t, pulsartest.MaxMessageSize(limit))
	for name, size := range map[string]int{"payload too large": limit + 1, "payload and metadata too large": limit - 2} {
		t.Run(name, func(t *testing.T) {
			topic := strings.ReplaceAll(name, " ", "-")
			o := connected(t, b.URL(), "topic: "+topic+"\ncompression: none\nchunking: off")
			batch, a := newShard().batchOf(repeat("k", 5), []string{"0", "1", strings.Repeat("x", size), "3", "4"})
			if failed, err := write(t, o, batch); !slices.Equal(failed, []int{2}) {
				t.Errorf("failed %v: %v", failed, err)
			}
			if got := payloads(b.Messages(topic)); !slices.Equal(got, []string{"0", "1", "3", "4"}) {
				t.Errorf("stored %d messages", len(got))
			}
			if replay, allRefused := undelivered(t, a); !slices.Equal(replay, []int{2}) || !allRefused {
				t.Errorf("replay %v, all refused %v", replay, allRefused)
			}
		})
	}
}

// The same record twice in a batch: both copies are sent, and no receipt proves anything.
func TestRecordTwiceInABatchIsNotMarked(t *testing.T) {
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t")
	batch, a := newShard().batch("a", "b", "c")
	batch = append(batch, batch[1].Copy())
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got := payloads(b.Messages("t")); !slices.Equal(got, []string{"0", "1", "2", "1"}) {
		t.Errorf("stored %v", got)
	}
	if replay, _ := undelivered(t, a); !slices.Equal(replay, []int{1}) {
		t.Errorf("replay %v", replay)
	}
}

// A mapping with meta = deleted() takes the id: the record is sent, and replayed if its batch fails.
func TestRecordWithoutIDIsNotMarked(t *testing.T) {
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t")
	batch, a := newShard().batch("a", "b", "c")
	batch[1].MetaDelete(attempt.RecordIDKey)
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if replay, _ := undelivered(t, a); !slices.Equal(replay, []int{1}) || len(b.Messages("t")) != 3 {
		t.Errorf("replay %v", replay)
	}
}

func TestStaleAndFencedAttemptsSendNothing(t *testing.T) {
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t")
	stale, a := newShard().batch("a", "b")
	a.Done(true)
	if err := o.WriteBatch(t.Context(), stale); err != nil {
		t.Errorf("stale: %v", err)
	}
	s := newShard()
	fenced, f := s.batch("a", "b")
	s.fence.Close()
	if err := o.WriteBatch(t.Context(), fenced); err != nil {
		t.Errorf("fenced: %v", err)
	}
	if f.Withheld() == nil {
		t.Error("the fenced attempt looks delivered")
	}
	// Merged on the way with what may be sent, or with what is not ours.
	good, g := newShard().batch("a")
	if err := o.WriteBatch(t.Context(), append(slices.Clone(fenced), good...)); !errors.Is(err, attempt.ErrFenced) {
		t.Errorf("merged: %v", err)
	}
	if g.Withheld() != nil {
		t.Error("an attempt that may be sent was withheld")
	}
	if err := o.WriteBatch(t.Context(), append(slices.Clone(fenced), service.NewMessage([]byte("stranger")))); !errors.Is(err, attempt.ErrFenced) {
		t.Errorf("merged with a stranger: %v", err)
	}
	// Acked already, by a buffer: refusing it would lose it.
	acked, a := s.batch("a", "b")
	a.Done(false)
	if err := o.WriteBatch(t.Context(), acked); err != nil {
		t.Errorf("acked: %v", err)
	}
	if got := len(b.Messages("t")); got != 2 {
		t.Errorf("%d messages stored", got)
	}
}

// A failed attempt gives back what it held, or the partition would be full one day.
func TestRefusedBatchesGiveTheirRoomBack(t *testing.T) {
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t")
	for range 20 {
		batch, a := newShard().batch(repeat("k", 1000)...)
		a.Done(true)
		if err := o.WriteBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), busy)
	defer cancel()
	batch, _ := newShard().batch(repeat("k", maxInFlight)...)
	if err := o.WriteBatch(ctx, batch); err != nil {
		t.Fatal(err)
	}
}

// A batch beyond the limit of a partition is sent in parts.
func TestBatchAboveTheLimit(t *testing.T) {
	b := startBroker(t)
	o := connected(t, b.URL(), "topic: t")
	n := 2*maxInFlight + 17
	batch, a := newShard().batch(repeat("k", n)...)
	if err := o.WriteBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got := payloads(b.Messages("t")); !slices.Equal(got, numbers(0, n)) {
		t.Errorf("%d messages, or out of order", len(got))
	}
	if replay, _ := undelivered(t, a); len(replay) > 0 {
		t.Errorf("%d records not marked", len(replay))
	}
}

func TestUnboundedKeys(t *testing.T) {
	b := startBroker(t, pulsartest.AutoPartitions(5))
	o := connected(t, b.URL(), "topic: t")
	s := newShard()
	for i := range 10 {
		keys := make([]string, 1000)
		for k := range keys {
			keys[k] = fmt.Sprintf("key-%d-%d", i, k)
		}
		batch, _ := s.batch(keys...)
		if err := o.WriteBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(b.Messages("t")); n != 10000 {
		t.Errorf("%d messages", n)
	}
}

func TestWriteWithoutConnect(t *testing.T) {
	o := makeOutput(t, "pulsar://127.0.0.1:1", "topic: t")
	batch, _ := newShard().batch("a")
	if err := o.WriteBatch(t.Context(), batch); !errors.Is(err, service.ErrNotConnected) {
		t.Errorf("%v", err)
	}
}
