package input

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
	"github.com/kinesis-pulsar/kinesis-pulsar/input/retrieval"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
)

// newFanWorld is a world that is read by enhanced fan-out. A subscription may be taken over at once, as a real one may be
// after five seconds; the tests of that are retrieval's.
func newFanWorld(t *testing.T, shards int, options ...kinesistest.Option) *world {
	t.Helper()
	times := kinesistest.WithSubscriptionTimes(kinesistest.SubscriptionTimes{TakeOver: -1, Heartbeat: 200 * time.Millisecond})
	w := newWorld(t, shards, append([]kinesistest.Option{times}, options...)...)
	w.fanOut = true
	return w
}

func TestFanOutStopsAndGoesOnWithoutALossOrADuplicate(t *testing.T) {
	t.Parallel()
	w := newFanWorld(t, 1)
	w.put("k", "1", "2", "3")
	first := w.connected("kinesisRecordProperties: kinesis.stream.name,kinesis.subsequence.number")
	got := w.read(first, 3, nil)
	name, _ := got[0].MetaGet("kinesis.stream.name")
	sub, _ := got[0].MetaGet("kinesis.subsequence.number")
	if name != "stream" || sub != "0" {
		t.Errorf("the properties are %q and %q", name, sub)
	}
	if err := first.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if live := w.kinesis.Subscriptions("stream"); len(live) != 0 {
		w.eventually("the subscription is over", func() bool { return len(w.kinesis.Subscriptions("stream")) == 0 })
	}
	w.put("k", "4", "5")
	if got := texts(t, w.read(w.connected(), 2, nil)); fmt.Sprint(got) != "[4 5]" {
		t.Fatalf("got %v", got)
	}
	if n := w.kinesis.Count("RegisterStreamConsumer"); n != 1 {
		t.Errorf("the consumer was registered %d times", n)
	}
	if n := w.kinesis.Count("DeregisterStreamConsumer") + w.kinesis.Count("GetRecords"); n != 0 {
		t.Errorf("%d calls that must not be", n)
	}
	if w.lease(shard0, "checkpoint") == "" {
		t.Error("no checkpoint")
	}
}

func TestFanOutReadsThroughReshards(t *testing.T) {
	t.Parallel()
	w := newFanWorld(t, 1)
	next := map[string]int{}
	w.putNumbered(next, 40)
	children := w.split(shard0)
	w.putNumbered(next, 40)
	merged := w.merge(children[0], children[1])
	w.putNumbered(next, 40)
	in := w.connected()
	w.checkOrder(in, next, 120)
	w.eventually("the merged shard is read", func() bool { return w.lease(merged, "checkpoint") != checkpoint.TrimHorizon })
	// And while it is read.
	for i := range 3 {
		key := fmt.Sprint("late ", i)
		w.put(key, "1", "2")
	}
	grandchildren := w.split(merged)
	for i := range 3 {
		key := fmt.Sprint("late ", i)
		w.put(key, "3", "4")
	}
	byKey := map[string][]string{}
	for _, m := range w.read(in, 12, nil) {
		key, _ := m.MetaGet(keyMetadata)
		byKey[key] = append(byKey[key], texts(t, service.MessageBatch{m})...)
	}
	for key, got := range byKey {
		if fmt.Sprint(got) != "[1 2 3 4]" {
			t.Errorf("%s came as %v", key, got)
		}
	}
	for _, ended := range append([]string{shard0, merged}, children...) {
		if got := w.lease(ended, "checkpoint"); got != checkpoint.ShardEnd {
			t.Errorf("%s is at %s", ended, got)
		}
	}
	for _, open := range grandchildren {
		if got := w.lease(open, "checkpoint"); got == "" || got == checkpoint.ShardEnd {
			t.Errorf("%s is at %q", open, got)
		}
	}
}

func TestFanOutGoesOnInsideTheInputWhateverHappensToItsSubscriptions(t *testing.T) {
	t.Parallel()
	w := newFanWorld(t, 2)
	in := w.connected()
	next := map[string]int{}
	for i, code := range []string{"", "InternalFailure", "ResourceInUseException", "ResourceNotFoundException", ""} {
		w.putNumbered(next, 10)
		w.eventually("both shards are subscribed to", func() bool { return len(w.kinesis.Subscriptions("stream")) == 2 })
		if i == 4 {
			w.kinesis.Stop()
			if err := w.kinesis.Restart(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		w.kinesis.EndSubscriptions("stream", "", code)
	}
	w.checkOrder(in, next, 50)
}

// Rule 5.6: an idle shard's lease leaves its sentinel, so that nothing depends on how long the moment in it is kept.
func TestFanOutMovesTheLeaseOfAnIdleShardToAPosition(t *testing.T) {
	t.Parallel()
	w := newFanWorld(t, 1)
	config := strings.Replace(w.config(), "TRIM_HORIZON", "LATEST", 1)
	in := w.inputOf(config)
	if err := in.Connect(w.ctx()); err != nil {
		t.Fatal(err)
	}
	w.eventually("the lease is at a number", func() bool {
		p, err := checkpoint.Parse(w.lease(shard0, "checkpoint"), 0)
		return err == nil && !p.IsSentinel()
	})
	reached := checkpoint.Position{Sequence: w.lease(shard0, "checkpoint")}
	w.put("k", "one", "two")
	batch, ack, err := in.ReadBatch(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	// While something is unconfirmed, no event moves the lease past it.
	time.Sleep(time.Second)
	if got := (checkpoint.Position{Sequence: w.kinesis.Records("stream")[shard0][0].SequenceNumber}); got.Compare(reached) <= 0 {
		t.Fatalf("%s is not behind %s", got, reached)
	}
	if err := in.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	_ = ack(context.Background(), nil)
	stored := checkpoint.Position{Sequence: w.lease(shard0, "checkpoint")}
	if first := (checkpoint.Position{Sequence: w.kinesis.Records("stream")[shard0][0].SequenceNumber}); stored.Compare(first) >= 0 || stored.IsSentinel() {
		t.Fatalf("the lease is at %s and record %s is unconfirmed", stored, first)
	}
	if texts(t, batch)[0] != "one" {
		t.Fatalf("got %v", texts(t, batch))
	}
	again := w.inputOf(config)
	if err := again.Connect(w.ctx()); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, w.read(again, 2, nil)); fmt.Sprint(got) != "[one two]" {
		t.Fatalf("got %v", got)
	}
}

// inputOf is an unconnected input with a whole config.
func (w *world) inputOf(yaml string) *input {
	w.t.Helper()
	parsed, err := Spec().ParseYAML(yaml, nil)
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

func TestAConsumerIsWaitedForUntilItIsActive(t *testing.T) {
	t.Parallel()
	w := newFanWorld(t, 1, kinesistest.WithConsumerDelay(1500*time.Millisecond))
	w.put("k", "1")
	in := w.connected("consumerName: reader")
	if got := texts(t, w.read(in, 1, nil)); got[0] != "1" {
		t.Fatalf("got %v", got)
	}
	if live := w.kinesis.Subscriptions("stream"); len(live) != 1 || !strings.Contains(live[0].ConsumerARN, "/consumer/reader:") {
		t.Fatalf("got %v", live)
	}
	// A start that is ended while it waits names what it waits for.
	w = newFanWorld(t, 1, kinesistest.WithConsumerDelay(time.Hour))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for w.kinesis.Count("DescribeStreamConsumer") < 3 && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
		cancel()
	}()
	defer func() { cancel(); <-ended }()
	if err := w.input().Connect(ctx); err == nil || !strings.Contains(err.Error(), `"application", which is CREATING`) {
		t.Fatalf("got %v", err)
	}
}

func TestAConsumerGivenByItsARNIsUsedAsItIs(t *testing.T) {
	t.Parallel()
	w := newFanWorld(t, 1)
	arn, err := w.kinesis.RegisterConsumer("stream", "theirs")
	if err != nil {
		t.Fatal(err)
	}
	w.put("k", "1")
	in := w.connected("consumerArn: " + arn)
	w.read(in, 1, nil)
	if n := w.kinesis.Count("DescribeStreamConsumer") + w.kinesis.Count("RegisterStreamConsumer"); n != 0 {
		t.Errorf("%d calls", n)
	}
	if live := w.kinesis.Subscriptions("stream"); len(live) != 1 || live[0].ConsumerARN != arn {
		t.Fatalf("got %v", live)
	}
	// When it is gone, that is told, nothing is registered in its place, and nothing ends.
	if err := w.kinesis.DeregisterConsumer(arn); err != nil {
		t.Fatal(err)
	}
	w.eventually("the trouble is known", func() bool {
		r := in.onlyRun()
		return r != nil && errors.Is(r.readTrouble(time.Now(), 0), retrieval.ErrNoConsumer)
	})
	if n := w.kinesis.Count("RegisterStreamConsumer"); n != 0 {
		t.Errorf("%d consumers were registered", n)
	}
	if got := w.lease(shard0, "checkpoint"); got == checkpoint.ShardEnd {
		t.Fatal("the shard was ended")
	}
}

func TestAConsumerThatIsGoneIsRegisteredAgain(t *testing.T) {
	t.Parallel()
	w := newFanWorld(t, 2)
	next := map[string]int{}
	w.putNumbered(next, 10)
	in := w.connected()
	w.eventually("both shards are subscribed to", func() bool { return len(w.kinesis.Subscriptions("stream")) == 2 })
	if err := w.kinesis.DeregisterConsumer(w.kinesis.Subscriptions("stream")[0].ConsumerARN); err != nil {
		t.Fatal(err)
	}
	w.putNumbered(next, 10)
	w.checkOrder(in, next, 20)
	if n := w.kinesis.Count("RegisterStreamConsumer"); n != 2 {
		t.Errorf("%d registrations", n)
	}
}

func TestWhatHindersAConsumerIsToldWithTheWayOut(t *testing.T) {
	t.Parallel()
	denied := func(operation string) kinesistest.Fault {
		return kinesistest.Fault{Operation: operation, Kind: kinesistest.Fail, Code: "AccessDeniedException", Count: 10}
	}
	for name, c := range map[string]struct {
		fault kinesistest.Fault
		full  bool
		want  []string
	}{
		"too many":              {full: true, want: []string{"consumerName", "consumerArn", "deregister"}},
		"may not be looked for": {fault: denied("DescribeStreamConsumer"), want: []string{"consumerName", "kinesis:DescribeStreamConsumer"}},
		"may not be registered": {fault: denied("RegisterStreamConsumer"), want: []string{"consumerName", "kinesis:RegisterStreamConsumer", "useEnhancedFanOut: false"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFanWorld(t, 1)
			if c.full {
				for i := range 20 {
					if _, err := w.kinesis.RegisterConsumer("stream", fmt.Sprint("other", i)); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				w.kinesis.Inject(c.fault)
			}
			err := w.input().Connect(w.ctx())
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not name %s: %v", want, err)
				}
			}
		})
	}
}

// A blocked output stops 64 shards with large events: what they hold is bounded, and no lease is lost (I8, I9).
func TestI8AndI9WithABlockedOutputFanOutHoldsABoundedNumberOfBytesAndEveryLease(t *testing.T) {
	const shards, budget, size, records = 64, 2 << 20, 16 << 10, 16
	w := newFanWorld(t, shards)
	for _, s := range w.kinesis.Shards("stream") {
		for i := range records {
			data := []byte(strings.Repeat(strconv.Itoa(i%10), size))
			if _, err := w.kinesis.PutRecords("stream", kinesistest.Record{PartitionKey: "k", ExplicitHashKey: s.StartingHashKey, Data: data}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// With short failover times, 64 leases are a test of the machine.
	w.failover = 20 * time.Second
	in := w.connected("maxBufferedBytes: "+strconv.Itoa(budget), "kinesisRecordProperties: kinesis.shard.id,kinesis.sequence.number")
	// Every batch is taken, as an engine with enough slots does, and none is acked for now.
	var acks []service.AckFunc
	got := map[string][]checkpoint.Position{}
	note := func(batch service.MessageBatch) {
		for _, m := range batch {
			id, _ := m.MetaGet("kinesis.shard.id")
			sequence, _ := m.MetaGet("kinesis.sequence.number")
			got[id] = append(got[id], checkpoint.Position{Sequence: sequence})
		}
	}
	for len(acks) < shards { // a shard has one batch away
		batch, ack, err := in.ReadBatch(w.ctx())
		if err != nil {
			t.Fatalf("%d of %d shards got through: %v", len(acks), shards, err)
		}
		note(batch)
		acks = append(acks, ack)
	}
	owners, counters := map[string]string{}, map[string]string{}
	for _, s := range w.kinesis.Shards("stream") {
		owners[s.ID], counters[s.ID] = w.lease(s.ID, "leaseOwner"), w.lease(s.ID, "leaseCounter")
	}
	most := int64(0)
	renewed := func() bool {
		for id, before := range counters {
			if w.lease(id, "leaseCounter") == before {
				return false
			}
		}
		return true
	}
	// A renewal comes within 7 s where the machine is not busy.
	for began := time.Now(); time.Since(began) < 4*time.Second || !renewed() && time.Since(began) < patience; time.Sleep(20 * time.Millisecond) {
		held, _ := in.budget.Held()
		most = max(most, held)
	}
	// One event may be all of a shard here: it is less than the largest event of AWS.
	if limit := int64(budget + shards*records*(size+1000)); most > limit {
		t.Errorf("%d bytes were held, more than %d", most, limit)
	}
	t.Logf("held at most %d KiB with a budget of %d KiB; %d subscriptions", most>>10, budget>>10, len(w.kinesis.Subscriptions("stream")))
	for id, owner := range owners {
		if now, counter := w.lease(id, "leaseOwner"), w.lease(id, "leaseCounter"); owner == "" || now != owner || counter == counters[id] {
			t.Errorf("the lease of %s went from %q to %q, its counter from %s to %s", id, owner, now, counters[id], counter)
		}
	}
	total := 0
	for _, ack := range acks {
		_ = ack(context.Background(), nil)
	}
	for _, positions := range got {
		total += len(positions)
	}
	note(w.read(in, shards*records-total, nil))
	for id, positions := range got {
		if len(positions) != records || !slices.IsSortedFunc(positions, checkpoint.Position.Compare) {
			t.Errorf("of %s came %d records, in order: %v", id, len(positions), slices.IsSortedFunc(positions, checkpoint.Position.Compare))
		}
	}
	w.eventually("the budget is given back", func() bool { held, records := in.budget.Held(); return held == 0 && records == 0 })
}

func TestConnectionsOfSubscriptionsAreWatched(t *testing.T) {
	transport := newBuildable().GetTransport()
	if !transport.ForceAttemptHTTP2 || transport.HTTP2 == nil || transport.HTTP2.SendPingTimeout != 15*time.Second || transport.HTTP2.MaxReceiveBufferPerStream != 256<<10 {
		t.Fatalf("got %+v", transport.HTTP2)
	}
}

// As with AWS: HTTPS, one HTTP/2 connection for all shards, an authority of one's own in AWS_CA_BUNDLE.
func TestFanOutOverTLSAndHTTP2(t *testing.T) {
	w := newFanWorld(t, 20, kinesistest.WithTLS())
	address := strings.TrimPrefix(w.kinesis.URL(), "https://")
	connection, err := tls.Dial("tcp", address, &tls.Config{RootCAs: w.kinesis.CertPool()})
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: connection.ConnectionState().PeerCertificates[0].Raw})
	_ = connection.Close()
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	if err := os.WriteFile(bundle, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	next := map[string]int{}
	w.putNumbered(next, 64)
	in := w.connected()
	w.checkOrder(in, next, 64)
	w.eventually("all shards are subscribed to", func() bool { return len(w.kinesis.Subscriptions("stream")) == 20 })

	in.mu.Lock()
	transport := in.mu.worker.clients.transport
	in.mu.Unlock()
	if transport.HTTP2 == nil || transport.HTTP2.PingTimeout == 0 {
		t.Error("connections are not watched")
	}
	request, err := http.NewRequestWithContext(w.ctx(), http.MethodPost, w.kinesis.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.ProtoMajor != 2 {
		t.Errorf("the connection speaks %s", response.Proto)
	}
}

func TestAConnectionTestLooksForTheConsumerAndRegistersNothing(t *testing.T) {
	t.Parallel()
	w := newFanWorld(t, 1)
	test := func(more ...string) error {
		for _, r := range w.input(more...).ConnectionTest(w.ctx()) {
			if r.Err != nil {
				return r.Err
			}
		}
		return nil
	}
	arn, err := w.kinesis.RegisterConsumer("stream", "theirs")
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{"consumerArn: " + arn, "consumerName: theirs", "consumerName: new"} {
		if err := test(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	if err := test("consumerArn: " + strings.Replace(arn, "theirs", "nobodys", 1)); err == nil || !strings.Contains(err.Error(), "consumerArn: there is no consumer") {
		t.Errorf("got %v", err)
	}
	w.kinesis.Inject(kinesistest.Fault{Operation: "DescribeStreamConsumer", Kind: kinesistest.Fail, Code: "AccessDeniedException", Count: 1})
	if err := test(); err == nil || !strings.Contains(err.Error(), "kinesis:DescribeStreamConsumer") {
		t.Errorf("got %v", err)
	}
	if n := w.kinesis.Count("RegisterStreamConsumer"); n != 0 {
		t.Errorf("%d registrations", n)
	}
}

func TestR73AStreamCreatedAgainGetsNoConsumerAndIsNotReadUnderTheOldLeases(t *testing.T) {
	t.Parallel()
	w := newFanWorld(t, 1)
	in := w.connected()
	w.eventually("the shard is subscribed to", func() bool { return len(w.kinesis.Subscriptions("stream")) == 1 })
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // creation times have seconds
	if err := w.kinesis.DeleteStream("stream"); err != nil {
		t.Fatal(err)
	}
	if err := w.kinesis.CreateStream("stream", 1); err != nil {
		t.Fatal(err)
	}
	w.put("k", "of the new stream")
	if err := w.troubled(in); !strings.Contains(err.Error(), lease.ErrRecreatedStream.Error()) {
		t.Fatalf("got %v", err)
	}
	if n := w.kinesis.Count("RegisterStreamConsumer"); n != 1 {
		t.Errorf("%d registrations", n)
	}
}
