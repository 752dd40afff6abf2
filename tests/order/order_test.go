package order

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"

	_ "github.com/kinesis-pulsar/kinesis-pulsar/input"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/output"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
)

var full = flag.Bool("order.full", false, "a million records directly, 100,000 behind each broker, instead of a fiftieth")

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = flag.Set("test.parallel", "4") // half of a story is waiting
	}
	pulsartest.VerifyTestMain(m)
}

const (
	shards     = 16 // as many as threads: with one batch of a shard in flight, fewer would leave some idle
	keys       = 4  // of each shard: a batch holds several records of each
	partitions = 4
	recordSize = 48
	fraction   = 50 // of the full size, by default

	streamName = "orders"
	topic      = "orders"
	table      = "orders-app"

	shortFailover = 3 * time.Second

	// standstill is how long nothing may arrive and no checkpoint move. Benthos' fan_out and switch themselves wait for up to
	// a minute and a half between two tries of a batch that has failed often.
	standstill = 3 * time.Minute
)

// filtered says which records a processor drops. The last of a shard is never among them.
func filtered(n uint64) bool { return n%10 == 3 }

// processors do what leaves the engine's own bookkeeping pointing at the wrong records: delay, drop some of a batch, drop
// inside of a for_each, fail for 5 % of the records (which are delivered as they were, unless the output minds).
const processors = `
    - jitter: { up_to: 2ms }
    - mapping: 'root = if content().slice(7, 23).string().number() % 10 == 3 { deleted() }'
    - for_each:
        - mapping: 'root = content()'
    - mapping: 'root = if random_int(min: 1, max: 20) == 1 { throw("no luck") }'
    - jitter: { up_to: 2ms }
`

// story is one way to put the pulsar output into a configuration.
type story struct {
	name    string
	records int  // at full size
	calm    bool // the broker does not fail
	// losesLeases has the lease table away for longer than a lease lives, with batches on their way.
	losesLeases bool
	output      string // YAML; PULSAR stands for the pulsar output
}

var stories = []story{
	{name: "direct", records: 1_000_000, output: `PULSAR`},
	{name: "direct, nothing fails", records: 100_000, calm: true, output: `PULSAR`},
	{name: "fan_out", records: 100_000, output: `broker: { pattern: fan_out, outputs: [ PULSAR, { flaky: { fails: 0.05 } } ] }`},
	{name: "fan_out_fail_fast", records: 100_000, output: `broker: { pattern: fan_out_fail_fast, outputs: [ PULSAR, { flaky: { fails: 0.05 } } ] }`},
	{name: "retry", records: 100_000, output: `retry: { max_retries: 0, backoff: { initial_interval: 10ms, max_interval: 50ms }, output: PULSAR }`},
	{name: "fallback to an output that takes all", records: 100_000, output: `fallback: [ PULSAR, { flaky: { fails: 0, takes: true } } ]`},
	{name: "fallback to an output that fails, too", records: 100_000, output: `fallback: [ PULSAR, { flaky: { fails: 1 } } ]`},
	{name: "fallback from an output that takes half", records: 100_000, output: `fallback: [ { flaky: { fails: 0.5, takes: true } }, PULSAR ]`},
	{name: "drop_on, back pressure", records: 100_000, output: `drop_on: { error: false, back_pressure: 60s, output: PULSAR }`},
	// What is dropped goes through an output that takes note of it first.
	{name: "drop_on, error", records: 100_000, output: `drop_on: { error: true, output: { fallback: [ PULSAR, { flaky: { fails: 0, takes: true } } ] } }`},
	{name: "switch", records: 100_000, output: `switch: { retry_until_success: false, cases: [ { check: '@pulsar_key.hash("xxhash64").number() % 2 == 0', output: PULSAR }, { output: PULSAR } ] }`},
	{name: "switch that tries on", records: 100_000, output: `switch: { retry_until_success: true, cases: [ { check: '@pulsar_key.hash("xxhash64").number() % 2 == 0', output: PULSAR }, { output: PULSAR } ] }`},
	// 5 % of the records fail on their own, among others of their batch that are delivered. Each batch takes many tries.
	{name: "reject_errored", records: 10_000, output: `reject_errored: PULSAR`},
}

// Leases are lost, and taken again, while batches are on their way behind outputs that try again for ever. Nothing of the old
// runs may be sent any more, and nothing of the new ones may have to wait for that.
func TestLostLeases(t *testing.T) {
	for _, s := range stories {
		if !strings.HasPrefix(s.name, "fan_out") && !strings.HasPrefix(s.name, "retry") && !strings.HasPrefix(s.name, "switch") {
			continue
		}
		t.Run(strings.ReplaceAll(s.name, ",", ""), func(t *testing.T) {
			t.Parallel()
			s.records, s.losesLeases = 2000, true
			s.tell(t)
		})
	}
}

func TestOrder(t *testing.T) {
	for _, s := range stories {
		t.Run(strings.ReplaceAll(s.name, ",", ""), func(t *testing.T) {
			t.Parallel()
			if !*full {
				s.records = max(2000, s.records/fraction)
			}
			s.tell(t)
		})
	}
}

func (s story) tell(t *testing.T) {
	perShard := s.records / shards
	k := kinesistest.NewServer()
	t.Cleanup(k.Close)
	replay, err := k.CreateReplay(streamName, kinesistest.ReplayOptions{
		Shards: shards, RecordSize: recordSize, PerShard: uint64(perShard), PerResponse: max(25, perShard/100), Keys: keys,
	})
	if err != nil {
		t.Fatal(err)
	}
	d := dynamotest.NewServer()
	t.Cleanup(d.Close)
	r := newReader(replay, shards, keys, perShard)
	b := pulsartest.NewBroker(pulsartest.Sink(r.visit), pulsartest.ReceiptDelay(time.Millisecond))
	t.Cleanup(b.Close)
	if err := b.CreatePartitionedTopic(topic, partitions); err != nil {
		t.Fatal(err)
	}

	logs := &counting{}
	t.Cleanup(func() { logs.show(t) })
	stream := s.build(t, environment(r), logs, k, d, b)
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(context.Background()) }()
	var upset sync.WaitGroup
	ctx, calm := context.WithCancel(t.Context())
	if !s.calm {
		upset.Go(func() { trouble(ctx, b) })
	}
	if s.losesLeases {
		upset.Go(func() { loseLeases(ctx, b, d) })
	}
	s.await(t, r, d)
	took := time.Since(began)
	calm()
	upset.Wait()
	if err := stream.StopWithin(20 * time.Second); err != nil {
		t.Errorf("stopping: %v", err)
	}
	<-ended
	b.Close() // what a dropped connection has stored is handed to the reader by now

	sum := r.account(t)
	for _, err := range b.Problems() {
		if pulsartest.IsLateSend(err) {
			continue
		}
		t.Errorf("the broker was sent what it can't understand: %v", err)
	}
	t.Logf("%d records in the topic, %d further copies, %d records elsewhere, %d dropped by the filter; %d batches handed out again; %s",
		sum.records, sum.extra, sum.elsewhere, sum.dropped, logs.replays(), took.Round(time.Millisecond))
	switch {
	case s.calm && (sum.extra > 0 || logs.replays() > 0):
		t.Errorf("nothing failed, but %d records were sent again, %d batches handed out again", sum.extra, logs.replays())
	case !s.calm && b.Counters(topic).Stored == sum.records && logs.replays() == 0:
		t.Error("nothing failed: the story is about nothing")
	}
}

// perSend is how many messages share a SEND at most. A batch is several, so that it can fail in the middle, but at full size
// not so many that the story consists of reconnects.
func (s story) perSend() int { return min(200, 5+s.records/4000) }

// build makes the pipeline: 16 threads, everything else at its default.
func (s story) build(t *testing.T, env *service.Environment, logs slog.Handler, k *kinesistest.Server, d *dynamotest.Server, b *pulsartest.Broker) *service.Stream {
	t.Helper()
	pulsar := fmt.Sprintf("{ pulsar: { url: %q, topic: %s, compression: none, producer_batching: { max_messages: %d } } }", b.URL(), topic, s.perSend())
	output := strings.ReplaceAll(s.output, "PULSAR", pulsar)
	if s.output == "PULSAR" {
		output = strings.TrimSuffix(strings.TrimPrefix(pulsar, "{ "), " }")
	}
	// Leases are long elsewhere, so that a busy machine does not lose them.
	failover := time.Minute
	if s.losesLeases {
		failover = shortFailover
	}
	yaml := fmt.Sprintf(`
input:
  kinesis_pulsar:
    awsKinesisStreamName: %s
    awsRegion: us-east-1
    awsEndpoint: %s
    dynamoEndpoint: %s
    awsCredentialPluginParam: '{"accessKey":"key","secretKey":"secret"}'
    applicationName: %s
    initialPositionInStream: TRIM_HORIZON
    useEnhancedFanOut: false
    idleTimeBetweenReadsInMillis: 0
    checkpointInterval: 1000
    failoverTimeMillis: %d
pipeline:
  threads: 16
  processors: %s
output:
  %s
`, streamName, k.URL(), d.URL(), table, failover.Milliseconds(), processors, output)
	builder := env.NewStreamBuilder()
	builder.SetLogger(slog.New(logs))
	if err := builder.SetYAML(yaml); err != nil {
		t.Fatalf("%v in\n%s", err, yaml)
	}
	stream, err := builder.Build()
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// await returns when the checkpoints stand at the last records. Before that a replay may be half way, with its copies out of
// order.
func (s story) await(t *testing.T, r *reader, d *dynamotest.Server) {
	t.Helper()
	progress, since := 0, time.Now()
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		at := checkpoints(d)
		if ends, all := r.ends(); all && !slices.ContainsFunc(ends, func(end string) bool { return !slices.Contains(at, end) }) {
			tick.Stop()
			return
		}
		if now := r.progress() + len(slices.Compact(slices.Sorted(slices.Values(at)))); now != progress {
			progress, since = now, time.Now()
		} else if time.Since(since) > standstill {
			var stacks strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			t.Fatalf("nothing has arrived for %s, %d messages are there; goroutines:\n%s", standstill, r.progress(), &stacks)
		}
	}
}

// checkpoints are those of all shards, in no order: sequence numbers of different shards differ.
func checkpoints(d *dynamotest.Server) []string {
	var at []string
	for _, item := range d.Items(table) {
		if v, ok := item["checkpoint"].(*types.AttributeValueMemberS); ok {
			at = append(at, v.Value)
		}
	}
	return at
}

// loseLeases waits until something has arrived. Receipts then stay out for as long as the lease table is away, so that every
// shard has a batch on its way that fails when its lease is lost.
func loseLeases(ctx context.Context, b *pulsartest.Broker, d *dynamotest.Server) {
	if b.Wait(ctx, func() bool { return b.Counters(topic).Frames >= 20 }) != nil {
		return
	}
	release := b.StallReceipts(topic)
	d.Stop()
	select {
	case <-time.After(2 * shortFailover):
	case <-ctx.Done():
	}
	b.RefuseProducers(topic, partitions, pulsartest.ProducerBlockedQuotaExceededException, "the backlog is full")
	b.DropConnections()
	release()
	d.Restart()
}

// trouble makes the broker fail, at random, so that about one SEND of twenty comes to nothing or counts twice: connections
// drop before a batch is stored or after, and one or more producers are then refused, so that what was on its way fails
// instead of being sent again by the client; or a topic is unloaded, which fails nothing but has the client send again.
// Trouble comes by what has arrived, not by time, so there is as much of it on a slow machine.
func trouble(ctx context.Context, b *pulsartest.Broker) {
	for {
		next := b.Counters(topic).Frames + 30 + rand.IntN(120)
		if b.Wait(ctx, func() bool { return b.Counters(topic).Frames >= next }) != nil {
			b.ClearFaults()
			return
		}
		// What the last trouble has left must not pile up: a dozen refusals in a row have Benthos wait for minutes.
		b.ClearFaults()
		partition := fmt.Sprintf("%s-partition-%d", topic, rand.IntN(partitions))
		refuse := func() {
			b.RefuseProducers(topic, 1+rand.IntN(2*partitions), pulsartest.ProducerBlockedQuotaExceededException, "the backlog is full")
		}
		switch rand.IntN(6) {
		case 0:
			refuse()
			b.DropBeforeStore(partition, 1)
		case 1, 2:
			refuse()
			b.DropAfterStore(partition, 1)
		case 3:
			refuse()
			b.DropConnections()
		case 4:
			b.CloseProducers(topic)
		case 5:
			b.FailSends(partition, 1, pulsartest.PersistenceError, "no bookies")
		}
	}
}

// counting is a log that counts replays and keeps the last lines, for a story that fails.
type counting struct {
	mu   sync.Mutex
	n    int      // guarded by mu
	last []string // guarded by mu
}

func (c *counting) Enabled(context.Context, slog.Level) bool { return true }
func (c *counting) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *counting) WithGroup(string) slog.Handler            { return c }
func (c *counting) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.Contains(r.Message, "are handed out again") {
		c.n++
	}
	if c.last = append(c.last, r.Time.Format("15:04:05.000 ")+r.Message); len(c.last) > 1000 {
		c.last = append(c.last[:0:0], c.last[500:]...)
	}
	return nil
}

// show writes the last lines to the log of a test that failed.
func (c *counting) show(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.Failed() {
		t.Logf("the last lines of the log:\n%s", strings.Join(c.last, "\n"))
	}
}

func (c *counting) replays() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
