package input

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/shard"
	"github.com/kinesis-pulsar/kinesis-pulsar/internal/attempt"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/iamtest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/leaktest"
)

func TestMain(m *testing.M) { leaktest.VerifyTestMain(m) }

// world is a Kinesis with one stream, a DynamoDB, and what an input needs to find them.
type world struct {
	t        *testing.T
	kinesis  *kinesistest.Server
	dynamodb *dynamotest.Server
	fanOut   bool
	failover time.Duration
}

// shortFailover is twice the shortest failover time, with which a machine that stands still for two seconds loses leases: what is
// read again then is a copy to most stories.
const shortFailover = 6 * time.Second

func newWorld(t *testing.T, shards int, options ...kinesistest.Option) *world {
	t.Helper()
	w := &world{t: t, kinesis: kinesistest.NewServer(options...), dynamodb: dynamotest.NewServer(), failover: shortFailover}
	t.Cleanup(func() {
		iamtest.Check(t, w.kinesis, w.dynamodb.DB, iamtest.Names{})
		w.kinesis.Close()
		w.dynamodb.Close()
	})
	if err := w.kinesis.CreateStream("stream", shards); err != nil {
		t.Fatal(err)
	}
	return w
}

// config is the smallest config that reads the stream from its beginning, with more lines added.
func (w *world) config(more ...string) string {
	return fmt.Sprintf(`
awsKinesisStreamName: stream
awsRegion: us-east-1
awsEndpoint: %s
dynamoEndpoint: %s
awsCredentialPluginParam: '{"accessKey":"key","secretKey":"secret"}'
initialPositionInStream: TRIM_HORIZON
useEnhancedFanOut: %t
failoverTimeMillis: %d
applicationName: application
%s`, w.kinesis.URL(), w.dynamodb.URL(), w.fanOut, w.failover.Milliseconds(), strings.Join(more, "\n"))
}

func (w *world) input(more ...string) *input {
	w.t.Helper()
	parsed, err := Spec().ParseYAML(w.config(more...), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	config, err := ParseConfig(parsed)
	if err != nil {
		w.t.Fatal(err)
	}
	in, err := newInput(config, service.MockResources())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := in.Close(context.Background()); err != nil {
			w.t.Error(err)
		}
	})
	return in
}

// connected returns a connected input.
func (w *world) connected(more ...string) *input {
	w.t.Helper()
	in := w.input(more...)
	if err := in.Connect(w.ctx()); err != nil {
		w.t.Fatal(err)
	}
	return in
}

// patience is how long a condition may take to come true on a busy machine.
const patience = 3 * time.Minute

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) put(key string, data ...string) {
	w.t.Helper()
	for _, d := range data {
		if _, err := w.kinesis.Put("stream", key, []byte(d)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// read takes batches until n records have come; it acks them with err.
func (w *world) read(in *input, n int, err error) (messages service.MessageBatch) {
	w.t.Helper()
	for len(messages) < n {
		batch, ack, readErr := in.ReadBatch(w.ctx())
		if readErr != nil {
			w.t.Fatalf("after %d of %d records: %v", len(messages), n, readErr)
		}
		if ackErr := ack(context.Background(), err); ackErr != nil {
			w.t.Fatal(ackErr)
		}
		messages = append(messages, batch...)
	}
	return messages
}

// lease returns an attribute of a lease item as text.
func (w *world) lease(shard, attribute string) string {
	for _, item := range w.dynamodb.Items("application") {
		if key, ok := item["leaseKey"].(*types.AttributeValueMemberS); !ok || key.Value != shard {
			continue
		}
		switch v := item[attribute].(type) {
		case *types.AttributeValueMemberS:
			return v.Value
		case *types.AttributeValueMemberN:
			return v.Value
		}
	}
	return ""
}

func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func texts(t *testing.T, batch service.MessageBatch) (texts []string) {
	t.Helper()
	for _, m := range batch {
		b, err := m.AsBytes()
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	return texts
}

const shard0 = "shardId-000000000000"

func TestRecordsArriveWithTheDocumentedKeyAndProperties(t *testing.T) {
	w := newWorld(t, 1)
	w.put("a key", "one", "", "three\xff\x00")
	got := w.read(w.connected(), 3, nil)
	if s := fmt.Sprintf("%q", texts(t, got)); s != `["one" "" "three\xff\x00"]` {
		t.Fatalf("got %s", s)
	}
	record := w.kinesis.Records("stream")[shard0][0]
	metadata := map[string]any{}
	_ = got[0].MetaWalkMut(func(key string, value any) error {
		metadata[key] = value
		return nil
	})
	for key, want := range map[string]any{
		"pulsar_key":                "a key",
		"kinesis.partition.key":     "a key",
		"kinesis.encryption.type":   "NONE",
		"kinesis.sequence.number":   record.SequenceNumber,
		"kinesis.arrival.timestamp": formatInstant(record.Arrival.Truncate(time.Millisecond)),
	} {
		if metadata[key] != want {
			t.Errorf("%s is %v, want %v", key, metadata[key], want)
		}
	}
	if _, ok := metadata[attempt.RecordIDKey].(*attempt.RecordID); !ok || len(metadata) != 6 {
		t.Errorf("got %v", metadata)
	}
	if b, err := got[1].AsBytes(); err != nil || b == nil {
		t.Error("an empty record must be an empty message, not a null one")
	}
}

func TestCleanStopAndStartGoesOnWithoutALossOrADuplicate(t *testing.T) {
	w := newWorld(t, 1)
	w.put("k", "1", "2", "3")
	first := w.connected()
	w.read(first, 3, nil)
	if err := first.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	records := w.kinesis.Records("stream")[shard0]
	if got := w.lease(shard0, "checkpoint"); got != records[2].SequenceNumber {
		t.Fatalf("the lease is at %s, not at the last record", got)
	}
	if owner := w.lease(shard0, "leaseOwner"); owner != "" {
		t.Fatalf("the lease is still owned by %s", owner)
	}
	w.put("k", "4", "5")
	second := w.connected()
	if got := texts(t, w.read(second, 2, nil)); fmt.Sprint(got) != "[4 5]" {
		t.Fatalf("got %v", got)
	}
}

func TestI1TheCheckpointNeverPassesWhatIsUnconfirmed(t *testing.T) {
	w := newWorld(t, 1)
	w.put("k", "1")
	in := w.connected()
	w.read(in, 1, nil)
	w.put("k", "2", "3")
	batch, _, err := in.ReadBatch(w.ctx()) // never acked
	if err != nil || len(batch) == 0 {
		t.Fatal(err)
	}
	if err := in.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, want := w.lease(shard0, "checkpoint"), w.kinesis.Records("stream")[shard0][0].SequenceNumber; got != want {
		t.Fatalf("the lease is at %s, want %s", got, want)
	}
}

func TestI7AShardHasOneBatchInFlight(t *testing.T) {
	w := newWorld(t, 1)
	w.put("k", "1")
	in := w.connected()
	_, ack, err := in.ReadBatch(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	w.put("k", "2")
	w.eventually("the second record is queued", func() bool {
		r := in.onlyRun()
		if r == nil {
			return false
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.mu.queue) == 1
	})
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if batch, _, err := in.ReadBatch(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, %v", batch, err)
	}
	_ = ack(context.Background(), nil)
	if got := texts(t, w.read(in, 1, nil)); got[0] != "2" {
		t.Fatalf("got %v", got)
	}
}

func (in *input) onlyRun() *run {
	in.mu.Lock()
	w := in.mu.worker
	in.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.mu.runs {
		return r
	}
	return nil
}

func TestANackIsReplayedBeforeAnythingNew(t *testing.T) {
	w := newWorld(t, 1)
	w.put("k", "1", "2")
	in := w.connected()
	var first []string
	for len(first) < 2 {
		batch, ack, err := in.ReadBatch(w.ctx())
		if err != nil {
			t.Fatal(err)
		}
		first = append(first, texts(t, batch)...)
		w.put("k", "new")
		if len(first) == 2 {
			_ = ack(context.Background(), errors.New("not today"))
			_ = ack(context.Background(), nil) // a second ack changes nothing
			again := texts(t, w.read(in, len(batch), nil))
			if fmt.Sprint(again) != fmt.Sprint(texts(t, batch)) {
				t.Fatalf("replayed %v of %v", again, texts(t, batch))
			}
			return
		}
		_ = ack(context.Background(), nil)
	}
}

func TestLateAndMissingAcksDoNotHoldUpClose(t *testing.T) {
	w := newWorld(t, 2)
	for i := range 20 {
		w.put(fmt.Sprint(i), "x")
	}
	in := w.connected()
	_, ack, err := in.ReadBatch(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := in.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	// It waits for 3 s at most; the rest is for a busy machine.
	if took := time.Since(began); took > 30*time.Second {
		t.Fatalf("Close took %s", took)
	}
	_ = ack(context.Background(), nil)
	if err := in.Close(context.Background()); err != nil {
		t.Fatalf("the second Close: %v", err)
	}
	if err := in.Connect(context.Background()); !errors.Is(err, service.ErrEndOfInput) {
		t.Fatalf("Connect after Close: %v", err)
	}
}

func TestCloseWithoutConnect(t *testing.T) {
	in := newWorld(t, 1).input()
	if _, _, err := in.ReadBatch(context.Background()); !errors.Is(err, service.ErrNotConnected) {
		t.Fatalf("got %v", err)
	}
	if err := in.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestConnectNamesTheMissingStreamAndGoesOnWhenItIsThere(t *testing.T) {
	w := newWorld(t, 1)
	if err := w.kinesis.DeleteStream("stream"); err != nil {
		t.Fatal(err)
	}
	in := w.input()
	if err := in.Connect(w.ctx()); err == nil || !strings.Contains(err.Error(), `there is no stream "stream"`) {
		t.Fatalf("got %v", err)
	}
	if err := w.kinesis.CreateStream("stream", 1); err != nil {
		t.Fatal(err)
	}
	if err := in.Connect(w.ctx()); err != nil {
		t.Fatal(err)
	}
}

func TestCloseWakesAReadBatchThatWaits(t *testing.T) {
	in := newWorld(t, 1).connected()
	read := make(chan error)
	go func() {
		_, _, err := in.ReadBatch(context.Background())
		read <- err
	}()
	time.Sleep(10 * time.Millisecond) // usually it waits by now; the outcome is the same
	if err := in.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-read:
		if !errors.Is(err, service.ErrEndOfInput) {
			t.Fatalf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("ReadBatch waits for ever")
	}
	if _, _, err := in.ReadBatch(context.Background()); !errors.Is(err, service.ErrEndOfInput) {
		t.Fatalf("after Close: %v", err)
	}
}

func TestR5AnUnanchoredLatestRowIsReadWhateverTheConfiguredStartIs(t *testing.T) {
	in := newWorld(t, 1).connected() // TRIM_HORIZON
	w := in.mu.worker
	l := lease.Lease{Key: shard0, Checkpoint: checkpoint.Position{Sequence: checkpoint.Latest}}
	if at := w.anchorFor(l); !at.Equal(w.stream.anchor()) {
		t.Fatalf("the anchor is %s, and without one the shard is never read", at)
	}
	for _, other := range []string{checkpoint.TrimHorizon, checkpoint.AtTimestamp, "5", checkpoint.ShardEnd} {
		l.Checkpoint.Sequence = other
		if at := w.anchorFor(l); !at.IsZero() {
			t.Fatalf("%s got the anchor %s", other, at)
		}
	}
}

// r5.3: a row at AT_TIMESTAMP means the configured moment. "Now" beside it would override the configuration for whoever comes
// next, and lose what came in between.
func TestR5TheAnchorOfATimestampIsTheConfiguredMoment(t *testing.T) {
	at := time.UnixMilli(1700000000000)
	w := &worker{start: shard.Start{Position: checkpoint.AtTimestamp, At: at}}
	if got := w.anchorFor(lease.Lease{Key: shard0, Checkpoint: checkpoint.Position{Sequence: checkpoint.AtTimestamp}}); !got.Equal(at) {
		t.Errorf("the anchor is %s, want %s", got, at)
	}
}
