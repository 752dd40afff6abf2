package failures

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
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

	"github.com/apache/pulsar-client-go/pulsar"
	pulsarlog "github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kinesis-pulsar/kinesis-pulsar/tests/dynamotest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/kinesistest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/pulsartest"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/stack"
)

const (
	streamName = "orders"
	table      = "orders-app"
	shards     = 3
	keys       = 20
	// patience is how long something may take on a busy machine.
	patience = 4 * time.Minute
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a pipeline's surroundings: a stream and a lease table of its own, and a topic of the broker that all share.
type world struct {
	t          *testing.T
	broker     *stack.PulsarService
	kinesis    *kinesistest.Server
	dynamodb   *dynamotest.Server
	namespace  string // tenant/namespace
	topic      string // persistent://tenant/namespace/name
	partitions int    // 0: not partitioned
	put        int    // records so far

	earlier []message // of a topic that was deleted
}

// newWorld makes a namespace with a topic, 0 partitions for one that is not partitioned, and an empty stream.
func newWorld(t *testing.T, broker *stack.PulsarService, partitions int) *world {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
	w := &world{t: t, broker: broker, kinesis: kinesistest.NewServer(), dynamodb: dynamotest.NewServer(), partitions: partitions, namespace: "public/" + name}
	t.Cleanup(func() {
		w.kinesis.Close()
		w.dynamodb.Close()
	})
	w.topic = "persistent://" + w.namespace + "/orders"
	must(t, w.kinesis.CreateStream(streamName, shards))
	must(t, broker.CreateNamespace(t.Context(), w.namespace))
	// Whoever asks for the schemas of the topic, or the backlog of a subscription, needs the topic first.
	w.createTopic()
	return w
}

func (w *world) createTopic() {
	w.t.Helper()
	if w.partitions > 0 {
		w.admin("PUT", w.topicPath("/partitions"), w.partitions)
	} else {
		w.admin("PUT", w.topicPath(""), nil)
	}
}

// topicPath is the path of the topic in the admin API.
func (w *world) topicPath(rest string) string {
	return "/admin/v2/persistent/" + w.namespace + "/orders" + rest
}

func (w *world) namespacePath(rest string) string {
	return "/admin/v2/namespaces/" + w.namespace + rest
}

// admin calls the admin API, which must agree. It may take several tries: a topic that is being loaded, closed or fenced is for a
// moment neither there nor gone, which the broker answers by a conflict or an error of its own.
func (w *world) admin(method, path string, body any) {
	w.t.Helper()
	var err error
	maybeDone := false // a try may have been done although its answer says that it was not
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err = w.broker.Admin(w.t.Context(), method, path, body); err == nil {
			return
		}
		refused, is := errors.AsType[*stack.AdminError](err)
		switch {
		case !is || refused.Status >= 500:
			maybeDone = true
		case maybeDone && (method == http.MethodDelete && refused.Status == http.StatusNotFound || method == http.MethodPut && refused.Status == http.StatusConflict):
			return
		case refused.Status != http.StatusConflict && refused.Status != http.StatusPreconditionFailed:
			w.t.Fatal(err)
		}
		w.t.Logf("once more: %v", err)
		time.Sleep(300 * time.Millisecond)
	}
	w.t.Fatal(err)
}

// feed puts n records over the keys.
func (w *world) feed(n int) {
	w.t.Helper()
	records := make([]kinesistest.Record, n)
	for i := range records {
		records[i] = kinesistest.Record{PartitionKey: fmt.Sprintf("key-%d", w.put%keys), Data: fmt.Appendf(nil, "record %d", w.put)}
		w.put++
	}
	_, err := w.kinesis.PutRecords(streamName, records...)
	must(w.t, err)
}

// config is what differs between cases, as YAML: fields of the pulsar output; with wrap, PULSAR in it stands for that output.
type config struct {
	url    string // default: the broker's plain address
	pulsar string
	token  string // default: a superuser's
	auth   string // in place of token
	wrap   string
}

func (w *world) yaml(c config) string {
	if c.url == "" {
		c.url = w.broker.ServiceURL()
	}
	if c.token == "" {
		c.token = w.broker.Security().AdminToken
	}
	if c.auth == "" {
		c.auth = fmt.Sprintf("auth: { token: { enabled: true, token: %q } }", c.token)
	}
	pulsar := fmt.Sprintf("pulsar:\n  url: %s\n  topic: %s\n%s", c.url, w.topic, indent(c.auth+"\n"+c.pulsar, 2))
	output := indent(pulsar, 2)
	if c.wrap != "" {
		output = ""
		for line := range strings.Lines(c.wrap) {
			if at := strings.Index(line, "PULSAR"); at >= 0 {
				line = line[:at] + strings.TrimLeft(indent(pulsar, at+2), " ")
			}
			output += "  " + line
		}
	}
	return fmt.Sprintf(`
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
    checkpointInterval: 1000
output:
%s
`, streamName, w.kinesis.URL(), w.dynamodb.URL(), table, output)
}

func indent(s string, by int) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimRight(s, "\n") + "\n") {
		b.WriteString(strings.Repeat(" ", by) + line)
	}
	return b.String()
}

// eventually polls a condition.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// whileFed polls a condition, and feeds the stream meanwhile.
func (w *world) whileFed(what string, holds func() bool, feed func()) {
	w.t.Helper()
	feed = every(500*time.Millisecond, feed)
	w.eventually(what, func() bool {
		if holds() {
			return true
		}
		feed()
		return false
	})
}

// every returns a function that does something if it has not for a while.
func every(pause time.Duration, do func()) func() {
	var done time.Time
	return func() {
		if time.Since(done) >= pause {
			do()
			done = time.Now()
		}
	}
}

// quietly tells a story that may leave no trace, which it counts. A machine that stands still for as long as a lease lives, or
// as an operator is told after, leaves one in any story; it does not do so in three that follow each other.
func (w *world) quietly(what string, count func() int, tell func()) {
	w.t.Helper()
	n := 0
	for range 3 {
		before := count()
		tell()
		if n = count() - before; n == 0 {
			return
		}
		w.t.Logf("%d %s", n, what)
	}
	w.t.Errorf("%d %s, whenever the story is told", n, what)
}

// settled waits until the checkpoints stand at the last records: then everything is confirmed, and no replay is half way.
func (w *world) settled() {
	w.t.Helper()
	w.eventually("checkpoints at the last records", w.atTheEnd)
}

// atTheEnd tells whether the checkpoints stand at the last records.
func (w *world) atTheEnd() bool {
	at := map[string]string{}
	for _, item := range w.dynamodb.Items(table) {
		shard, ok := item["leaseKey"].(*types.AttributeValueMemberS)
		if checkpoint, has := item["checkpoint"].(*types.AttributeValueMemberS); ok && has {
			at[shard.Value] = checkpoint.Value
		}
	}
	for shard, list := range w.kinesis.Records(streamName) {
		if len(list) > 0 && at[shard] != list[len(list)-1].SequenceNumber {
			return false
		}
	}
	return true
}

// message is one of the topic, as a consumer is handed it.
type message struct {
	key, payload, sequence string
}

// client is a superuser's.
func (w *world) client() pulsar.Client {
	w.t.Helper()
	client, err := pulsar.NewClient(pulsar.ClientOptions{
		URL: w.broker.ServiceURL(), Logger: pulsarlog.DefaultNopLogger(), MetricsRegisterer: prometheus.NewRegistry(),
		Authentication: pulsar.NewAuthenticationToken(w.broker.Security().AdminToken),
	})
	must(w.t, err)
	return client
}

// read returns what the topic holds, partition after partition, as a superuser's consumer gets it.
func (w *world) read() []message {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	client := w.client()
	defer client.Close()
	names := []string{w.topic}
	if w.partitions > 0 {
		names = nil
		for i := range w.partitions {
			names = append(names, fmt.Sprintf("%s-partition-%d", w.topic, i))
		}
	}
	var all []message
	for _, name := range names {
		reader, err := client.CreateReader(pulsar.ReaderOptions{Topic: name, StartMessageID: pulsar.EarliestMessageID()})
		must(w.t, err)
		for reader.HasNext() {
			m, err := reader.Next(ctx)
			must(w.t, err)
			all = append(all, message{m.Key(), string(m.Payload()), m.Properties()["kinesis.sequence.number"]})
		}
		reader.Close()
	}
	return all
}

// account compares the stream with the topic: nothing lost, nothing changed, per key the last copies in order. Records that
// are known to be elsewhere are not looked for. It returns how many copies there are beyond the first ones.
func (w *world) account(elsewhere ...string) (extra int) {
	w.t.Helper()
	messages := append(slices.Clone(w.earlier), w.read()...)
	last := map[string]int{} // by sequence number and key
	for i, m := range messages {
		last[m.sequence+m.key] = i
	}
	lost, overtaken, foreign := 0, 0, len(last)
	for shard, list := range w.kinesis.Records(streamName) {
		before := map[string]int{}
		for _, r := range list {
			at, ok := last[r.SequenceNumber+r.PartitionKey]
			if !ok {
				if !slices.Contains(elsewhere, r.SequenceNumber) {
					lost++
					w.t.Logf("lost: %s of %s", r.Data[:min(len(r.Data), 20)], shard)
				}
				continue
			}
			foreign--
			if messages[at].payload != string(r.Data) {
				w.t.Errorf("record %s of %s has been changed", r.SequenceNumber, shard)
			}
			if at < before[r.PartitionKey] {
				overtaken++
			}
			before[r.PartitionKey] = at
		}
	}
	if lost > 0 || overtaken > 0 || foreign > 0 {
		w.t.Errorf("%d records lost, %d inversions, %d messages of no record", lost, overtaken, foreign)
	}
	extra = len(messages) - len(last)
	w.t.Logf("%d records, %d further copies", len(last), extra)
	return extra
}

// process is the built binary at work.
type process struct {
	w    *world
	cmd  *exec.Cmd
	http string // address of its API
	logs *logs
	done chan struct{}
}

// run starts the binary, until the test ends or stop is called.
func (w *world) run(c config) *process {
	w.t.Helper()
	address := stack.FreeAddress(w.t)
	path := filepath.Join(w.t.TempDir(), "config.yaml")
	must(w.t, os.WriteFile(path, []byte(w.yaml(c)+"\nhttp: { address: "+address+" }\nlogger: { level: DEBUG }\nshutdown_timeout: 16s\n"), 0o600))
	p := &process{w: w, http: "http://" + address, logs: &logs{}, done: make(chan struct{})}
	p.cmd = exec.Command(binary, "run", path)
	p.cmd.Stdout, p.cmd.Stderr = p.logs, p.logs
	must(w.t, p.cmd.Start())
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	w.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		p.logs.check(w.t)
	})
	return p
}

// stop ends the process by SIGTERM.
func (p *process) stop() {
	p.w.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			p.w.t.Errorf("SIGTERM: exit code %d", code)
		}
	case <-time.After(patience):
		p.w.t.Error("SIGTERM does not end the process")
	}
}

var apiClient = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// get asks the process's API; status 0 means that nobody listens.
func (p *process) get(path string) (int, string) {
	res, err := apiClient.Get(p.http + path)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body)
}

// notReady waits until /ready tells a cause that holds all of the texts.
func (p *process) notReady(texts ...string) {
	p.w.t.Helper()
	p.notReadyBy(p.w.eventually, texts)
}

// notReadyWhileFed is notReady for a cause that a broker acts on at its own time: until then it takes what comes, and only a
// record that waits makes a pipeline not ready. So records go on coming.
func (p *process) notReadyWhileFed(texts ...string) {
	p.w.t.Helper()
	p.notReadyWhile(func() {}, texts...)
}

// notReadyWhileUnloaded is the same for a cause that is looked at when producers connect, by a picture that the broker may not
// have renewed yet: one that was let in stays in. So the topic is unloaded again and again.
func (p *process) notReadyWhileUnloaded(texts ...string) {
	p.w.t.Helper()
	p.notReadyWhile(every(15*time.Second, func() { p.w.admin("PUT", p.w.topicPath("/unload"), nil) }), texts...)
}

func (p *process) notReadyWhile(provoke func(), texts ...string) {
	p.w.t.Helper()
	p.notReadyBy(func(what string, holds func() bool) {
		p.w.t.Helper()
		p.w.whileFed(what, holds, func() {
			p.w.feed(20)
			provoke()
		})
	}, texts)
}

func (p *process) notReadyBy(wait func(what string, holds func() bool), texts []string) {
	p.w.t.Helper()
	var body string
	defer func() {
		if p.w.t.Failed() {
			p.w.t.Logf("/ready says: %s", body)
		}
	}()
	wait(fmt.Sprintf("/ready tells %q", texts), func() bool {
		var code int
		code, body = p.get("/ready")
		return code == http.StatusServiceUnavailable && !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(body, text) })
	})
}

// ready waits until /ready is content.
func (p *process) ready() {
	p.w.t.Helper()
	p.w.eventually("/ready", func() bool { code, _ := p.get("/ready"); return code == http.StatusOK })
}

// blocked is the number of partitions that the gauge calls blocked.
func (p *process) blocked() (n int) {
	_, body := p.get("/metrics")
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "pulsar_partition_blocked{") && strings.HasSuffix(strings.TrimSpace(line), " 1") {
			n++
		}
	}
	return n
}

// logs collects what a process writes.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
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

// count tells how many lines hold all of the texts.
func (l *logs) count(texts ...string) (n int) {
	for line := range strings.Lines(l.String()) {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			n++
		}
	}
	return n
}

// check fails the test for a panic or a token in the log, and shows the log of a test that failed.
func (l *logs) check(t *testing.T) {
	text := l.String()
	for line := range strings.Lines(text) {
		debug := strings.Contains(line, "level=debug")
		if !debug && (strings.Contains(line, "goroutine ") || strings.Contains(line, "panic:")) || strings.Contains(line, "eyJ") {
			t.Errorf("logged: %q", line)
		}
	}
	if dir := os.Getenv("KINESIS_PULSAR_TEST_LOGS"); dir != "" {
		_ = os.WriteFile(filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+".log"), []byte(text), 0o600)
	}
	if t.Failed() {
		lines := strings.SplitAfter(text, "\n")
		if len(lines) > 120 {
			lines = append(append(lines[:50:50], fmt.Sprintf("... %d lines ...\n", len(lines)-120)), lines[len(lines)-70:]...)
		}
		t.Logf("the log:\n%s", strings.Join(lines, ""))
	}
}

// binary is the path of the program under test, once build was called.
var binary string

func build(t *testing.T) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "kinesis-pulsar")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "github.com/kinesis-pulsar/kinesis-pulsar")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the binary: %v: %s", err, out)
	}
}

var full = flag.Bool("failures.full", false, "stop the broker in good order, too, and not only by a crash")

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = flag.Set("test.parallel", "8") // most of a story is waiting
	}
	pulsartest.VerifyTestMain(m)
}
