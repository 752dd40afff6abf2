package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"

	_ "github.com/kinesis-pulsar/kinesis-pulsar/input"
	_ "github.com/kinesis-pulsar/kinesis-pulsar/output"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/iamtest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

var full = flag.Bool("e2e.full", false, "tell the stories at their full sizes")

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = flag.Set("test.parallel", "5") // most of a story is waiting
	}
	// Nothing of a pipeline may outlive it.
	pulsartest.VerifyTestMain(stack.StopAfter(withBinary{m}))
}

// withBinary has the binary built before the tests, and removed after them.
type withBinary struct{ m *testing.M }

func (w withBinary) Run() int {
	defer build()()
	return w.m.Run()
}

const (
	streamName = "orders"
	topic      = "orders"
	table      = "orders-app"
	// secret is what must never be seen in a log.
	secret = "hush-hush-secret"
	// stopWithin is the shutdown_timeout of the pipelines.
	// Three quarters of it are for what is under way to be confirmed, the rest for the leases to be released: neither may run out
	// because a busy machine stands still for a moment.
	stopWithin = 16 * time.Second
	// patience is how long a condition may take to come true on a busy machine.
	patience = 4 * time.Minute
)

// world is the services of one test: a stream, an empty DynamoDB, a broker with a partitioned topic.
type world struct {
	t        *testing.T
	kinesis  *kinesistest.Server
	dynamodb *dynamotest.Server
	broker   *pulsartest.Broker
	// What a test with real services puts others in the place of: the endpoints that configurations name, and how to
	// look into the services.
	dynamodbURL, pulsarURL string
	messages               func() []pulsartest.Message
	items                  func() []map[string]types.AttributeValue
	logged                 []*logs // of all pipelines and processes so far
}

func newWorld(t *testing.T, shards, partitions int, options ...pulsartest.Option) *world {
	t.Helper()
	w := &world{t: t, kinesis: kinesistest.NewServer(), dynamodb: dynamotest.NewServer(), broker: pulsartest.NewBroker(options...)}
	t.Cleanup(func() {
		iamtest.Check(t, w.kinesis, w.dynamodb.DB, iamtest.Names{Table: table, Application: table})
		w.kinesis.Close()
		w.dynamodb.Close()
		w.broker.Close()
		for _, problem := range w.broker.Problems() {
			if !pulsartest.IsLateSend(problem) {
				t.Errorf("the broker was sent what it can't understand: %v", problem)
			}
		}
	})
	w.dynamodbURL, w.pulsarURL = w.dynamodb.URL(), w.broker.URL()
	w.messages = func() []pulsartest.Message { return w.broker.Messages(topic) }
	w.items = func() []map[string]types.AttributeValue { return w.dynamodb.Items(table) }
	must(t, w.kinesis.CreateStream(streamName, shards))
	must(t, w.broker.CreatePartitionedTopic(topic, partitions))
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// config is a pipeline's configuration in the parts that tests change.
type config struct {
	input    map[string]string // fields that differ from the default, as YAML
	quick    bool              // the shortest failover time, for stories that wait for it. A busy machine may lose leases by it, and repeat records.
	steady   bool              // a failover time that is worth waiting for, too, and that a busy machine keeps
	pipeline string            // YAML under "pipeline:"
	pulsar   map[string]string // fields of the pulsar output
	output   string            // YAML under "output:"; PULSAR on a line of its own stands for the pulsar output. "": that alone.
	top      string            // more top-level YAML
}

// yaml writes the configuration: a plain user's, but for endpoints and a checkpoint every second.
func (w *world) yaml(c config) string {
	fields := map[string]string{
		"awsKinesisStreamName":         streamName,
		"awsRegion":                    "us-east-1",
		"awsEndpoint":                  w.kinesis.URL(),
		"dynamoEndpoint":               w.dynamodbURL,
		"awsCredentialPluginParam":     `'{"accessKey":"key","secretKey":"` + secret + `"}'`,
		"applicationName":              table,
		"initialPositionInStream":      "TRIM_HORIZON",
		"useEnhancedFanOut":            "false",
		"checkpointInterval":           "1000",
		"idleTimeBetweenReadsInMillis": "200",
	}
	if c.quick {
		fields["failoverTimeMillis"] = "3000"
	}
	if c.steady {
		fields["failoverTimeMillis"] = "6000"
	}
	for k, v := range c.input {
		fields[k] = v
	}
	var b strings.Builder
	b.WriteString("input:\n  kinesis_pulsar:\n")
	for k, v := range fields {
		if v != "" {
			fmt.Fprintf(&b, "    %s: %s\n", k, v)
		}
	}
	if c.pipeline != "" {
		b.WriteString("pipeline:\n" + indent(c.pipeline, 2))
	}
	pulsar := "pulsar:\n  url: " + w.pulsarURL + "\n  topic: " + topic + "\n"
	for k, v := range c.pulsar {
		pulsar += "  " + k + ": " + v + "\n"
	}
	output := c.output
	if output == "" {
		output = "PULSAR"
	}
	b.WriteString("output:\n")
	for line := range strings.Lines(output) {
		if at := strings.Index(line, "PULSAR"); at >= 0 {
			block := indent(pulsar, at+2)
			b.WriteString(strings.Repeat(" ", 2) + line[:at] + strings.TrimLeft(block, " "))
			continue
		}
		b.WriteString("  " + line)
	}
	b.WriteString("\n" + c.top)
	return b.String()
}

func indent(s string, by int) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimRight(s, "\n") + "\n") {
		b.WriteString(strings.Repeat(" ", by) + line)
	}
	return b.String()
}

// pipeline is a stream that runs in this process.
type pipeline struct {
	w      *world
	stream *service.Stream
	logs   *logs
	done   chan struct{}
	err    error // of Run; after done
}

// start runs a configuration in this process until the test ends or stop is called.
func (w *world) start(c config) *pipeline {
	w.t.Helper()
	p := &pipeline{w: w, logs: w.newLogs(), done: make(chan struct{})}
	b := environment.NewStreamBuilder()
	b.SetLogger(slog.New(slog.NewTextHandler(p.logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
	yaml := w.yaml(c)
	if err := b.SetYAML(yaml); err != nil {
		w.t.Fatalf("%v in\n%s", err, yaml)
	}
	var err error
	p.stream, err = b.Build()
	must(w.t, err)
	go func() {
		defer close(p.done)
		p.err = p.stream.Run(context.Background())
	}()
	w.t.Cleanup(func() { p.stop() })
	return p
}

// stop ends the pipeline in good order and returns how long that took. Stopping twice does nothing.
func (p *pipeline) stop() time.Duration {
	p.w.t.Helper()
	began := time.Now()
	select {
	case <-p.done:
		return 0
	default:
	}
	for {
		err := p.stream.StopWithin(stopWithin)
		if err != nil && strings.Contains(err.Error(), "has not been run yet") {
			// Run is called in another goroutine, which has not come that far: it would run for ever.
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			p.w.t.Logf("stopping: %v", err) // whatever was blocked; the leases show whether it was a good end
		}
		break
	}
	<-p.done
	return time.Since(began)
}

// logs collects what was logged. It shows it when the test fails, and fails the test for a secret or a stack trace.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *world) newLogs() *logs {
	t, l := w.t, &logs{}
	w.logged = append(w.logged, l)
	t.Cleanup(func() {
		text := l.String()
		for line := range strings.Lines(text) {
			// Benthos itself logs what blocks a stop, at DEBUG.
			debug := strings.Contains(line, "level=debug") || strings.Contains(line, "level=DEBUG")
			for _, never := range []string{"goroutine ", "panic:", "DATA RACE"} {
				if !debug && strings.Contains(line, never) {
					t.Errorf("logged: %q", line)
				}
			}
			if strings.Contains(line, secret) {
				t.Errorf("logged a secret: %q", line)
			}
		}
		if t.Failed() {
			lines := strings.SplitAfter(text, "\n")
			if len(lines) > 150 {
				lines = append(append(lines[:75:75], fmt.Sprintf("... %d lines ...\n", len(lines)-150)), lines[len(lines)-75:]...)
			}
			t.Logf("logs:\n%s", strings.Join(lines, ""))
		}
	})
	return l
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// stalled tells whether a pipeline has said that it could not renew leases in time.
func (w *world) stalled() bool {
	return slices.ContainsFunc(w.logged, func(l *logs) bool { return l.has("whose leases could not be renewed") })
}

// has tells whether a line holds all of the texts.
func (l *logs) has(texts ...string) bool {
lines:
	for line := range strings.Lines(l.String()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue lines
			}
		}
		return true
	}
	return false
}

var binary struct {
	path string
	err  error
}

// build makes the binary, before the tests: it takes all processors, and leases are lost meanwhile.
func build() (remove func()) {
	dir, err := os.MkdirTemp("", "kinesis-pulsar-e2e-")
	if err != nil {
		binary.err = err
		return func() {}
	}
	binary.path = filepath.Join(dir, "kinesis-pulsar")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", binary.path, "github.com/kinesis-pulsar/kinesis-pulsar")
	if out, err := cmd.CombinedOutput(); err != nil {
		binary.err = fmt.Errorf("building the binary: %w: %s", err, out)
	}
	return func() { _ = os.RemoveAll(dir) }
}

// process is the built binary at work.
type process struct {
	w    *world
	cmd  *exec.Cmd
	http string // address of its API
	logs *logs
	done chan struct{}
	err  error // of Wait; after done
}

// spawn runs a configuration in a process of its own until the test ends.
func (w *world) spawn(c config) *process {
	w.t.Helper()
	address := stack.FreeAddress(w.t)
	c.top += "\nhttp: { address: " + address + " }\nlogger: { level: DEBUG }\nshutdown_timeout: " + stopWithin.String() + "\n"
	path := filepath.Join(w.t.TempDir(), "config.yaml")
	must(w.t, os.WriteFile(path, []byte(w.yaml(c)), 0o600))
	return w.exec(address, "run", path)
}

func (w *world) exec(address string, args ...string) *process {
	w.t.Helper()
	p := &process{w: w, http: "http://" + address, logs: w.newLogs(), done: make(chan struct{})}
	must(w.t, binary.err)
	p.cmd = exec.Command(binary.path, args...)
	p.cmd.Stdout, p.cmd.Stderr = p.logs, p.logs
	must(w.t, p.cmd.Start())
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	w.t.Cleanup(p.kill)
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// pause makes the process stand still; its kill ends that, too.
func (p *process) pause()  { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }
func (p *process) resume() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

// stop ends the process by SIGTERM and returns how long that took.
func (p *process) stop() time.Duration {
	p.w.t.Helper()
	began := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.w.t.Fatal("SIGTERM does not end the process")
	}
	if p.err != nil {
		p.w.t.Errorf("ended with %v", p.err)
	}
	return time.Since(began)
}

// ready asks /ready: its status code (0 while nobody listens) and body.
func (p *process) ready() (int, string) { return get(p.http + "/ready") }

func get(url string) (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	return do(req)
}

func do(req *http.Request) (int, string) {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body)
}

// eventually polls a condition.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// throughout checks for a while that a condition keeps holding.
func (w *world) throughout(d time.Duration, what string, holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(d); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if !holds() {
			w.t.Fatalf("%s: no longer", what)
		}
	}
}

// put adds n records over a number of keys, in turn, and returns how many the stream holds now.
func (w *world) put(n, keys int) int {
	w.t.Helper()
	records := make([]kinesistest.Record, 0, n)
	for i := range n {
		key := fmt.Sprintf("key-%d", i%keys)
		records = append(records, kinesistest.Record{PartitionKey: key, Data: fmt.Appendf(nil, "%s record %d %d", key, i, rand.Uint64())})
	}
	_, err := w.kinesis.PutRecords(streamName, records...)
	must(w.t, err)
	return w.total()
}

func (w *world) total() (n int) {
	for _, records := range w.kinesis.Records(streamName) {
		n += len(records)
	}
	return n
}

// lease is one row of the lease table, as texts.
type lease map[string]string

// leases reads the lease table by shard.
func (w *world) leases() map[string]lease {
	leases := map[string]lease{}
	for _, item := range w.items() {
		l := leaseOf(item)
		leases[l["leaseKey"]] = l
	}
	return leases
}

func leaseOf(item map[string]types.AttributeValue) lease {
	l := lease{}
	for name, value := range item {
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			l[name] = v.Value
		case *types.AttributeValueMemberN:
			l[name] = v.Value
		}
	}
	return l
}

// released fails the test unless every lease is free and at its shard's last record.
func (w *world) released() {
	w.t.Helper()
	leases := w.leases()
	for shard, records := range w.kinesis.Records(streamName) {
		l := leases[shard]
		if owner := l["leaseOwner"]; owner != "" {
			w.t.Errorf("lease %s still belongs to %s", shard, owner)
		}
		if len(records) > 0 && l["checkpoint"] != records[len(records)-1].SequenceNumber {
			w.t.Errorf("lease %s is at %s, the last record at %s", shard, l["checkpoint"], records[len(records)-1].SequenceNumber)
		}
	}
}

// releasedUnlessStalled is for the stories whose leases are so short that a busy machine loses them: those can't be released.
func (w *world) releasedUnlessStalled() {
	w.t.Helper()
	if w.stalled() {
		w.t.Log("leases were lost, so it is not looked at whether they were released")
		return
	}
	w.released()
}

// owners are the workers that own leases.
func (w *world) owners() map[string]int {
	owners := map[string]int{}
	for _, l := range w.leases() {
		if o := l["leaseOwner"]; o != "" {
			owners[o]++
		}
	}
	return owners
}
