package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

// stoppable is a context that ends like one whose time is up: a command line takes that for a request to stop in order.
type stoppable struct {
	context.Context
	done chan struct{}
}

func (s stoppable) Done() <-chan struct{} { return s.done }
func (s stoppable) Err() error {
	select {
	case <-s.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// logWatch waits for a line of the log, and keeps the others.
type logWatch struct {
	text string
	once sync.Once
	seen chan struct{}

	mu    sync.Mutex
	lines []string // guarded by mu
}

func (w *logWatch) has(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.lines, func(l string) bool { return strings.Contains(l, text) })
}

func (w *logWatch) Enabled(context.Context, slog.Level) bool { return true }
func (w *logWatch) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *logWatch) WithGroup(string) slog.Handler            { return w }
func (w *logWatch) Handle(_ context.Context, r slog.Record) error {
	w.mu.Lock()
	w.lines = append(w.lines, r.Message)
	w.mu.Unlock()
	if strings.Contains(r.Message, w.text) {
		w.once.Do(func() { close(w.seen) })
	}
	return nil
}

// streamsMode is a process in streams mode, with stand-ins for all that its streams need.
type streamsMode struct {
	t       *testing.T
	url     string
	kinesis *kinesistest.Server
	dynamo  *dynamotest.Server
	broker  *pulsartest.Broker
	log     *logWatch
}

// startStreamsMode starts it with streams, by id, and further lines of the service's config.
func startStreamsMode(t *testing.T, streams map[string]string, more ...string) *streamsMode {
	t.Helper()
	m := &streamsMode{t: t, kinesis: kinesistest.NewServer(), dynamo: dynamotest.NewServer(), broker: pulsartest.NewBroker()}
	for name, shards := range map[string]int{"orders": 4, "payments": 2, "refunds": 1} {
		if err := m.kinesis.CreateStream(name, shards); err != nil {
			t.Fatal(err)
		}
	}
	address := stack.FreeAddress(t)
	m.url = "http://" + address
	dir := t.TempDir()
	root := filepath.Join(dir, "service.yaml")
	files := map[string]string{root: fmt.Sprintf("http: { address: %q }\nlogger: { level: off }\nshutdown_timeout: 20s\n", address) + strings.Join(more, "")}
	args := []string{name, "streams", "-o", root}
	for id, config := range streams {
		file := filepath.Join(dir, id+".yaml")
		files[file] = m.config(config)
		args = append(args, file)
	}
	for file, text := range files {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Benthos serves before all of its endpoints are there, and a request in between is a data race of its router.
	up := &logWatch{text: "streams mode", seen: make(chan struct{})}
	m.log = up
	ctx := stoppable{context.Background(), make(chan struct{})}
	ended := make(chan int, 1)
	go func() {
		code, err := service.RunCLIToCode(ctx, append(options(args), service.CLIOptAddTeeLogger(slog.New(up)))...)
		if err != nil {
			t.Error(err)
		}
		ended <- code
	}()
	t.Cleanup(func() {
		close(ctx.done)
		if code := <-ended; code != 0 {
			t.Errorf("streams mode ended with %d", code)
		}
		m.kinesis.Close()
		m.dynamo.Close()
		m.broker.Close()
	})
	select {
	case <-up.seen:
	case <-time.After(3 * time.Minute):
		t.Fatal("streams mode does not start")
	}
	m.eventually("the API answers", func() bool { return m.call(http.MethodGet, "/ping", "", nil) == http.StatusOK })
	return m
}

// config is a stream's config, from its stream's name and further fields of the input.
func (m *streamsMode) config(stream string, more ...string) string {
	application := stream + "-app"
	for _, f := range more {
		if a, is := strings.CutPrefix(f, "applicationName: "); is {
			application = a
		}
	}
	more = slices.DeleteFunc(slices.Clone(more), func(f string) bool { return strings.HasPrefix(f, "applicationName: ") })
	return fmt.Sprintf(`input:
  kinesis_pulsar:
    awsKinesisStreamName: %s
    awsRegion: us-east-1
    awsEndpoint: %s
    dynamoEndpoint: %s
    awsCredentialPluginParam: '{"accessKey":"a","secretKey":"b"}'
    applicationName: %s
    initialPositionInStream: TRIM_HORIZON
    useEnhancedFanOut: false
    idleTimeBetweenReadsInMillis: 0
    %s
output:
  pulsar: { url: %q, topic: %s }
`, stream, m.kinesis.URL(), m.dynamo.URL(), application, strings.Join(more, "\n    "), m.broker.URL(), stream)
}

// call sends a request and decodes an answer in JSON, or into a string.
func (m *streamsMode) call(method, path, body string, into any) (status int) {
	m.t.Helper()
	request, err := http.NewRequest(method, m.url+path, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	switch into := into.(type) {
	case nil:
	case *string:
		*into = string(text)
	default:
		if err := json.Unmarshal(text, into); err != nil {
			m.t.Errorf("%s %s: %v in %s", method, path, err, text)
		}
	}
	return answer.StatusCode
}

func (m *streamsMode) want(method, path, body string, status int) {
	m.t.Helper()
	var text string
	if got := m.call(method, path, body, &text); got != status {
		m.t.Fatalf("%s %s: %d, %s; want %d", method, path, got, text, status)
	}
}

func (m *streamsMode) eventually(what string, holds func() bool) {
	m.t.Helper()
	const patience = 3 * time.Minute
	for deadline := time.Now().Add(patience); ; {
		began := time.Now()
		if holds() {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: not within %s", what, patience)
		}
		// A look at all messages is work, which on a slow machine may be more than what is waited for.
		time.Sleep(max(10*time.Millisecond, 3*time.Since(began)))
	}
}

// owned counts the leases of a table that have an owner.
func (m *streamsMode) owned(table string) (n int) {
	for _, item := range m.dynamo.Items(table) {
		if _, has := item["leaseOwner"].(*types.AttributeValueMemberS); has {
			n++
		}
	}
	return n
}

// load puts numbered records into a stream until it is stopped; it returns how many there are of each key.
func (m *streamsMode) load(stream string) (stop func() map[string]int) {
	sent := map[string]int{}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			key := fmt.Sprintf("key-%d", i%20)
			if _, err := m.kinesis.Put(stream, key, fmt.Appendf(nil, "%d", sent[key])); err != nil {
				m.t.Error(err)
				return
			}
			sent[key]++
		}
	}()
	return sync.OnceValue(func() map[string]int { close(done); <-ended; return sent })
}

// missing are the keys whose last copies are not all there in order, with what is wrong.
func (m *streamsMode) missing(topic string, sent map[string]int) (wrong []string) {
	at := map[string]map[string]int{}
	for i, message := range m.broker.Messages("persistent://public/default/" + topic) {
		if at[message.Key] == nil {
			at[message.Key] = map[string]int{}
		}
		at[message.Key][string(bytes.Clone(message.Payload))] = i
	}
	for _, key := range slices.Sorted(maps.Keys(sent)) {
		last := -1
		for n := range sent[key] {
			place, has := at[key][fmt.Sprint(n)]
			if !has || place < last {
				wrong = append(wrong, fmt.Sprintf("%s: record %d (there: %t)", key, n, has))
				break
			}
			last = place
		}
	}
	return wrong
}

// metric is a series of a stream, whose id is its name.
func metric(name, stream string) string {
	return fmt.Sprintf("%s{kinesis_stream=%q,label=\"\",path=\"root.input\",stream=%q}", name, stream, stream)
}

// Streams are created, read, changed and deleted over HTTP while records flow: leases are released and taken up again, and
// nothing is lost or out of order by any of it.
func TestStreamsModeLosesNothingByChangesOverHTTP(t *testing.T) {
	m := startStreamsMode(t, nil)
	stopOrders, stopPayments := m.load("orders"), m.load("payments")
	m.want(http.MethodPost, "/streams/orders", m.config("orders"), http.StatusOK)
	m.want(http.MethodPost, "/streams/payments", m.config("payments"), http.StatusOK)
	m.eventually("both are ready", func() bool { return m.call(http.MethodGet, "/ready", "", nil) == http.StatusOK })
	m.eventually("orders flow", func() bool { return len(m.broker.Messages("persistent://public/default/orders")) > 100 })

	var page string
	m.eventually("the gauges tell of both streams", func() bool {
		m.call(http.MethodGet, "/metrics", "", &page)
		return strings.Contains(page, metric("kinesis_leases_held", "orders")+" 4\n") && strings.Contains(page, metric("kinesis_leases_held", "payments")+" 2\n") &&
			strings.Contains(page, metric("kinesis_lag_milliseconds", "orders")+" ") && strings.Contains(page, metric("kinesis_records_received", "orders")+" ")
	})

	var read struct {
		Active bool
		Config struct{ Input map[string]any }
	}
	if status := m.call(http.MethodGet, "/streams/orders", "", &read); status != http.StatusOK || !read.Active || read.Config.Input["kinesis_pulsar"] == nil {
		t.Errorf("reading orders: %d, %+v", status, read)
	}
	for round := range 3 {
		m.want(http.MethodPut, "/streams/orders", m.config("orders", fmt.Sprintf("receiveQueueSize: %d", 500+round)), http.StatusOK)
		before := len(m.broker.Messages("persistent://public/default/orders"))
		m.eventually("orders flow after a PUT", func() bool { return len(m.broker.Messages("persistent://public/default/orders")) > before+50 })
	}
	m.want(http.MethodPatch, "/streams/orders", `{"input":{"kinesis_pulsar":{"receiveQueueSize":700}}}`, http.StatusOK)
	m.want(http.MethodDelete, "/streams/payments?timeout=30s", "", http.StatusOK)
	if n := m.owned("payments-app"); n != 0 {
		t.Errorf("%d leases of a deleted stream have an owner: the next one would wait for them to expire", n)
	}
	for _, gauge := range []string{"kinesis_leases_held", "kinesis_lag_milliseconds", "kinesis_buffered_bytes"} {
		m.eventually(gauge+" tells of orders alone", func() bool {
			m.call(http.MethodGet, "/metrics", "", &page)
			return !strings.Contains(page, metric(gauge, "payments")) && strings.Contains(page, metric(gauge, "orders"))
		})
	}
	if status := m.call(http.MethodGet, "/streams/payments", "", nil); status != http.StatusNotFound {
		t.Errorf("a deleted stream: %d", status)
	}
	m.want(http.MethodPost, "/streams/payments", m.config("payments"), http.StatusOK)
	orders, payments := stopOrders(), stopPayments()
	for topic, sent := range map[string]map[string]int{"orders": orders, "payments": payments} {
		m.eventually(topic+" are all there, in order", func() bool { return len(m.missing(topic, sent)) == 0 })
	}
}

// A stream that would read another's positions is refused: the others go on, and the cause shows.
func TestStreamsModeRefusesOneTableForTwoStreams(t *testing.T) {
	m := startStreamsMode(t, map[string]string{"orders": "orders"})
	m.eventually("orders are ready", func() bool { return m.call(http.MethodGet, "/orders/ready", "", nil) == http.StatusOK })
	m.want(http.MethodPost, "/streams/refunds", m.config("refunds", "applicationName: orders-app"), http.StatusOK)
	var cause string
	m.eventually("refunds say why not", func() bool {
		return m.call(http.MethodGet, "/refunds/ready", "", &cause) == http.StatusServiceUnavailable && strings.Contains(cause, "applicationName")
	})
	m.eventually("orders go on", func() bool { return m.call(http.MethodGet, "/orders/ready", "", nil) == http.StatusOK })
	m.want(http.MethodPut, "/streams/refunds", m.config("refunds"), http.StatusOK)
	m.eventually("refunds are ready with a table of their own", func() bool { return m.call(http.MethodGet, "/ready", "", nil) == http.StatusOK })
}

// Two streams of one application and stream are two workers that share its shards.
func TestStreamsModeSharesOneApplication(t *testing.T) {
	m := startStreamsMode(t, map[string]string{"a": "orders", "b": "orders"})
	stop := m.load("orders")
	workers := func() int {
		owners := map[string]int{}
		for _, item := range m.dynamo.Items("orders-app") {
			if o, has := item["leaseOwner"].(*types.AttributeValueMemberS); has {
				owners[o.Value]++
			}
		}
		if len(owners) == 2 && slices.Max(slices.Collect(maps.Values(owners))) == 2 {
			return 2
		}
		return len(owners) % 2
	}
	m.eventually("each has two of the four shards", func() bool { return workers() == 2 })
	sent := stop()
	m.eventually("orders are all there, in order", func() bool { return len(m.missing("orders", sent)) == 0 })
}

func TestStreamsModeTellsWhatIsWrong(t *testing.T) {
	m := startStreamsMode(t, nil)
	for want, config := range map[string]string{
		"numRetries":           m.config("orders", "numRetries: many"),
		"not recognised":       m.config("orders", "numRetrys: 3"),
		"awsKinesisStreamName": "input: { kinesis_pulsar: { awsRegion: r } }\noutput: { drop: {} }\n",
		"receiveQueueSize":     m.config("orders", "receiveQueueSize: 0"),
	} {
		var answer string
		if status := m.call(http.MethodPost, "/streams/bad", config, &answer); status != http.StatusBadRequest || !strings.Contains(answer, want) {
			t.Errorf("%s: %d, %s", want, status, answer)
		}
	}
}

// What lint refuses, the streams API refuses, and answers in the same words: nothing is created or changed by it.
func TestStreamsModeRefusesWhatLintFinds(t *testing.T) {
	m := startStreamsMode(t, map[string]string{"orders": "orders"}, "processor_resources: [ { label: cut, split: {} } ]\n")
	m.eventually("orders are ready", func() bool { return m.call(http.MethodGet, "/orders/ready", "", nil) == http.StatusOK })
	buffered := m.config("payments") + "buffer: { memory: {} }\n"
	for _, tc := range []struct{ method, path, body, place, rule string }{
		{http.MethodPost, "/streams/payments", buffered, "(15,9) buffer: ", "buffer-acks-early"},
		{http.MethodPut, "/streams/orders", m.config("orders") + "buffer: { memory: {} }\n", "(15,9) buffer: ", "buffer-acks-early"},
		{http.MethodPatch, "/streams/orders", `{"buffer":{"memory":{}}}`, "buffer: ", "buffer-acks-early"},
		{http.MethodPatch, "/streams/orders", `{"output":{"pulsar":{"max_in_flight":"64"}}}`, "output.pulsar.max_in_flight: ", "wrong-type"},
		{http.MethodPost, "/streams/payments", m.config("payments") + "pipeline: { processors: [ { resource: cut } ] }\n", "processor_resources.0: ", "split-overtakes"},
		{http.MethodPost, "/streams", `{"orders":{"input":{"kinesis_pulsar":{"awsKinesisStreamName":"orders","awsRegion":"r"}},"output":{"drop":{}}},"refunds":{"input":{"kinesis_pulsar":{"awsKinesisStreamName":"refunds","awsRegion":"r"}},"output":{"drop":{}}}}`,
			"stream 'refunds': (1,", "one-table-two-streams"},
	} {
		var answer struct {
			Errors []string `json:"lint_errors"`
		}
		status := m.call(tc.method, tc.path, tc.body, &answer)
		if status != http.StatusBadRequest || len(answer.Errors) != 1 || !strings.Contains(answer.Errors[0], tc.place) || !strings.Contains(answer.Errors[0], "["+tc.rule+"]") {
			t.Errorf("%s %s, %s: %d, %q", tc.method, tc.path, tc.rule, status, answer.Errors)
		}
	}
	if status := m.call(http.MethodGet, "/streams/payments", "", nil); status != http.StatusNotFound {
		t.Errorf("a refused stream was created: %d", status)
	}
	var orders struct{ Config map[string]any }
	if m.call(http.MethodGet, "/streams/orders", "", &orders); orders.Config["buffer"] != nil {
		t.Error("a refused change was made")
	}
	m.want(http.MethodPatch, "/streams/orders", `{"input":{"kinesis_pulsar":{"receiveQueueSize":700}}}`, http.StatusOK)
	m.want(http.MethodPost, "/streams/payments?chilled=true", buffered, http.StatusOK)
	m.eventually("what is allowed by chilled=true is warned of", func() bool { return m.log.has("POST /streams/payments: ") })
	m.want(http.MethodPatch, "/streams/none", `{}`, http.StatusNotFound)
	m.want(http.MethodPost, "/streams/half", "{ a", http.StatusBadRequest)
	m.want(http.MethodPost, "/streams", "[ a ]", http.StatusBadRequest)
}

// Benthos takes a change without looking: a field that does not exist was answered with 200, a value of a wrong type stopped the stream for
// good, and POST /streams without a body stopped all of them.
func TestStreamsModeChangesNothingForABadRequest(t *testing.T) {
	m := startStreamsMode(t, map[string]string{"orders": "orders"})
	m.eventually("orders are ready", func() bool { return m.call(http.MethodGet, "/orders/ready", "", nil) == http.StatusOK })
	for _, tc := range []struct{ method, path, body, want string }{
		{http.MethodPatch, "/streams/orders", `{"output":{"pulsar":{"tpic":"other"}}}`, "tpic"},
		{http.MethodPatch, "/streams/orders", `{"output":{"pulsar":{"topic":[1]}}}`, "expected string"},
		{http.MethodPatch, "/streams/orders", `{"input":{"kinesis_pulsar":{"numRetries":"many"}}}`, "numRetries"},
		{http.MethodPatch, "/streams/orders", `{"input":{"kinesis_pulser":{}}}`, "kinesis_pulser"},
		{http.MethodPatch, "/streams/orders", `{"output":null}`, "expected object"},
		{http.MethodPatch, "/streams/orders", "just a text", "mapping"},
		{http.MethodPatch, "/streams/orders", "", "no body"},
		{http.MethodPut, "/streams/orders", m.config("orders") + "output: { drop: {} }\n", "output is there twice, first in line 13"},
		{http.MethodPost, "/streams/two", m.config("orders") + "---\n" + m.config("payments"), "a second config begins here"},
		{http.MethodPost, "/streams", "", "no body"},
		{http.MethodPost, "/streams", `{"a":{},"a":{}}`, "a is there twice"},
	} {
		var answer string
		if status := m.call(tc.method, tc.path, tc.body, &answer); status != http.StatusBadRequest || !strings.Contains(answer, tc.want) {
			t.Errorf("%s %s %s: %d, %s; want %q", tc.method, tc.path, tc.body, status, answer, tc.want)
		}
	}
	var now struct{ Active bool }
	if status := m.call(http.MethodGet, "/streams/orders", "", &now); status != http.StatusOK || !now.Active {
		t.Errorf("the stream that was not to be changed: %d, %+v", status, now)
	}
	if m.log.has("Streams CRUD Error") {
		t.Error("a bad request has come as far as Benthos")
	}
}

// Whoever allows a buffer is told what it does, as soon as it does it.
func TestStreamsModeWarnsOfABuffer(t *testing.T) {
	m := startStreamsMode(t, nil, "lint: { allow: [ buffer-acks-early ] }\n")
	stop := m.load("orders")
	m.want(http.MethodPost, "/streams/orders", m.config("orders")+"buffer: { memory: {} }\n", http.StatusOK)
	m.eventually("the buffer is warned of", func() bool { return m.log.has("buffer-acks-early") })
	sent := stop()
	m.eventually("orders arrive all the same", func() bool {
		n := 0
		for _, of := range sent {
			n += of
		}
		return len(m.broker.Messages("persistent://public/default/orders")) >= n
	})
}
