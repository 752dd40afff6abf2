package metrics

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/forget"
	"github.com/kinesis-pulsar/kinesis-pulsar/tests/leaktest"
)

func TestMain(m *testing.M) { leaktest.VerifyTestMain(m) }

func parse(t *testing.T, yaml string) (config, error) {
	t.Helper()
	parsed, err := Spec().ParseYAML(yaml, service.NewEnvironment())
	if err != nil {
		return config{}, err
	}
	return parseConfig(parsed)
}

func newTestExporter(t *testing.T, yaml string) *exporter {
	t.Helper()
	c, err := parse(t, yaml)
	if err != nil {
		t.Fatal(err)
	}
	e, err := newExporter(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func scrape(e *exporter) string {
	w := httptest.NewRecorder()
	e.HandlerFunc()(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func wantLines(t *testing.T, page string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains("\n"+page, "\n"+l+"\n") {
			t.Errorf("the line %q is missing in:\n%s", l, page)
		}
	}
}

func TestWhatComponentsCountIsScraped(t *testing.T) {
	e := newTestExporter(t, "")
	sent := e.NewCounterCtor("output_sent", "label", "path")
	sent("", "root.output").Incr(3)
	sent("", "root.output").Incr(4)
	e.NewGaugeCtor("kinesis_lag", "stream")("orders").Set(-7)
	e.NewTimerCtor("latency_ns")().Timing(1_500_000_000)
	wantLines(t, scrape(e),
		`output_sent{label="",path="root.output"} 7`, `kinesis_lag{stream="orders"} -7`,
		`latency_ns{quantile="0.99"} 1.5e+09`, `latency_ns_count 1`)
}

func TestHistogramsAreInSeconds(t *testing.T) {
	e := newTestExporter(t, "use_histogram_timing: true\nhistogram_buckets: [ 1, 2 ]")
	e.NewTimerCtor("latency_ns")().Timing(1_500_000_000)
	wantLines(t, scrape(e), `latency_ns_bucket{le="1"} 0`, `latency_ns_bucket{le="2"} 1`, `latency_ns_sum 1.5`)
}

func TestAGaugeThatIsTakenBackLeavesTheEndpoint(t *testing.T) {
	e := newTestExporter(t, "")
	made := e.NewGaugeCtor("lag", "stream")
	a, b := made("a"), made("b")
	a.Set(1)
	b.Set(2)
	forget.Series(asServiceGauge{made}, "a")
	page := scrape(e)
	wantLines(t, page, `lag{stream="b"} 2`)
	if strings.Contains(page, `stream="a"`) {
		t.Errorf("the gauge lingers:\n%s", page)
	}
	a.Set(3) // the stream is back
	wantLines(t, scrape(e), `lag{stream="a"} 3`)
}

// asServiceGauge sets as Benthos does: it makes the series anew each time.
type asServiceGauge struct {
	made service.MetricsExporterGaugeCtor
}

func (g asServiceGauge) Set(v int64, values ...string) { g.made(values...).Set(v) }
func (g asServiceGauge) SetFloat64(v float64, values ...string) {
	g.made(values...).(interface{ SetFloat64(float64) }).SetFloat64(v)
}

func TestAMetricThatCannotBeExportedCostsNothingElse(t *testing.T) {
	e := newTestExporter(t, "")
	e.NewCounterCtor("seen", "label")("x").Incr(1)
	e.NewCounterCtor("seen", "label", "more")("x", "y").Incr(1) // other labels
	e.NewGaugeCtor("seen", "label")("x").Set(1)                 // another kind
	e.NewGaugeCtor("bad\xff name")().Set(1)                     // a name that is no UTF-8
	e.NewGaugeCtor("bad\xff name")().Set(1)
	e.NewCounterCtor("seen", "label")("x", "too many").Incr(1)
	e.NewGaugeCtor("level", "label")("x", "too many").Set(1)
	e.NewCounterCtor("seen", "label")("x").Incr(-5) // counters never go back
	if page := scrape(e); strings.TrimSpace(strings.Join(samples(page), "")) != `seen{label="x"} 1` {
		t.Errorf("scraped:\n%s", page)
	}
}

func samples(page string) (lines []string) {
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestProcessAndRuntimeMetricsOnRequest(t *testing.T) {
	if page := scrape(newTestExporter(t, "")); len(samples(page)) != 0 {
		t.Errorf("without asking there is:\n%s", page)
	}
	page := scrape(newTestExporter(t, "add_process_metrics: true\nadd_go_metrics: true"))
	for _, want := range []string{"process_cpu_seconds_total ", "go_goroutines "} {
		if !strings.Contains(page, "\n"+want) {
			t.Errorf("%s is missing in:\n%s", want, page)
		}
	}
}

func TestTheLastValuesArePushedAndWritten(t *testing.T) {
	var mu sync.Mutex
	var got []string
	gateway := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.URL.Path+" "+user+":"+password+" "+string(body))
	}))
	defer gateway.Close()
	file := filepath.Join(t.TempDir(), "metrics.txt")
	e := newTestExporter(t, "push_url: "+strings.Replace(gateway.URL, "http://", "http://me:hush@", 1)+"\npush_interval: 1h\npush_job_name: nightly\nfile_output_path: "+file)
	e.NewCounterCtor("seen")().Incr(42)
	if err := e.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(got) != 1 || !strings.HasPrefix(got[0], "/metrics/job/nightly me:hush ") || !strings.Contains(got[0], "seen") {
		t.Errorf("pushed: %q", got)
	}
	written, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(written), "\nseen 42\n") {
		t.Errorf("written: %s, %v", written, err)
	}
}

func TestAnAbsentGatewayIsToldWithoutItsPassword(t *testing.T) {
	e := newTestExporter(t, "push_url: http://me:hush@127.0.0.1:1")
	err := e.Close(context.Background())
	if err == nil || !strings.Contains(err.Error(), "push_url") || strings.Contains(err.Error(), "hush") {
		t.Errorf("error: %v", err)
	}
}

func TestBadSettingsNameTheirField(t *testing.T) {
	for yaml, field := range map[string]string{
		"push_url: gateway:9091":                                       "push_url",
		"push_url: http://a:hush@":                                     "push_url",
		"push_interval: 5s":                                            "push_interval",
		"{push_url: http://g, push_interval: soon}":                    "push_interval",
		"{push_url: http://g, push_interval: 0s}":                      "push_interval",
		"{push_url: http://g, push_job_name: ''}":                      "push_job_name",
		"histogram_buckets: [ 2, 1 ]":                                  "histogram_buckets",
		"histogram_buckets: [ 1, 1 ]":                                  "histogram_buckets",
		"summary_quantiles_objectives: [ { quantile: 99, error: 0 } ]": "summary_quantiles_objectives",
		"use_histogram_timing: perhaps":                                "use_histogram_timing",
	} {
		if _, err := parse(t, yaml); err == nil || !strings.Contains(err.Error(), field) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", yaml, err)
		}
	}
}

// A `metrics:` block that was written for Redpanda Connect works as it is.
func TestConnectsFieldsAreAllThere(t *testing.T) {
	c, err := parse(t, `
use_histogram_timing: false
histogram_buckets: []
summary_quantiles_objectives: [ { quantile: 0.5, error: 0.05 } ]
add_process_metrics: true
add_go_metrics: true
push_url: http://gateway:9091
push_interval: 10s
push_job_name: benthos_push
push_basic_auth: { username: u, password: p }
file_output_path: ""
`)
	if err != nil || c.pushUser != "u" || c.objectives[0.5] != 0.05 {
		t.Errorf("%+v, %v", c, err)
	}
}
