package metrics

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// config is a `prometheus:` block. The zero value of a field means that what it stands for is off.
type config struct {
	histograms     bool
	buckets        []float64           // seconds; nil: Prometheus' own
	objectives     map[float64]float64 // quantile to its allowed error
	processMetrics bool
	goMetrics      bool

	pushURL      string
	pushInterval time.Duration // 0: only at the end
	pushJob      string
	pushUser     string
	pushPassword string

	file string
}

// Spec is the exporter's description: Redpanda Connect's fields under their names.
func Spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Summary("Serves the metrics of all components at `/metrics` (and `/stats`) in Prometheus' text format. It is the default of this binary.").
		Description("A gauge whose subject is gone, such as the lag of a stream that was deleted through the streams API, leaves the endpoint instead of keeping its last value.").
		Fields(
			service.NewBoolField("use_histogram_timing").Default(false).
				Description("Times become histograms, in seconds; otherwise summaries, in nanoseconds. Histograms can be summed up over processes, which summaries can't."),
			service.NewFloatListField("histogram_buckets").Default([]any{}).Advanced().
				Description("The upper bounds of the histograms' buckets, in seconds and ascending. Empty: Prometheus' own, 5 ms to 10 s."),
			service.NewObjectListField("summary_quantiles_objectives",
				service.NewFloatField("quantile").Default(0.0).Description("The quantile, between 0 and 1."),
				service.NewFloatField("error").Default(0.0).Description("How far it may be off, between 0 and 1."),
			).Default([]any{
				map[string]any{"quantile": 0.5, "error": 0.05},
				map[string]any{"quantile": 0.9, "error": 0.01},
				map[string]any{"quantile": 0.99, "error": 0.001},
			}).Advanced().Description("The quantiles that summaries tell. Not used with `use_histogram_timing`."),
			service.NewBoolField("add_process_metrics").Default(false).Advanced().
				Description("Adds the metrics of the process: CPU seconds, memory, open files."),
			service.NewBoolField("add_go_metrics").Default(false).Advanced().
				Description("Adds the metrics of the Go runtime: heap, garbage collection, goroutines."),
			service.NewStringField("push_url").Default("").Advanced().
				Description("The URL of a Prometheus Push Gateway to send the metrics to, for pipelines that end before anybody scrapes them. Empty: nothing is pushed."),
			service.NewStringField("push_interval").Default("").Advanced().
				Description("How often to push, such as `5s`. Empty: once, at the end. Needs `push_url`."),
			service.NewStringField("push_job_name").Default("benthos_push").Advanced().
				Description("The job name to push under."),
			service.NewObjectField("push_basic_auth",
				service.NewStringField("username").Default("").Description("The user's name; empty: no authentication."),
				service.NewStringField("password").Default("").Secret().Description("The user's password."),
			).Advanced().Description("Credentials for `push_url`, instead of some in the URL itself."),
			service.NewStringField("file_output_path").Default("").Advanced().
				Description("A file to write the metrics to when the process ends, for runs without a scraper. Empty: none."),
		).
		LintRule(`root = if this.push_interval.or("") != "" && this.push_url.or("") == "" { [ "push_interval: there is no push_url to push to; set push_url, or leave push_interval out" ] }`)
}

func parseConfig(parsed *service.ParsedConfig) (c config, err error) {
	read := func(field string, err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s: %w", field, err)
	}
	var interval string
	var buckets []float64
	var quantiles []*service.ParsedConfig
	for _, step := range []func() error{
		func() (err error) {
			c.histograms, err = parsed.FieldBool("use_histogram_timing")
			return read("use_histogram_timing", err)
		},
		func() (err error) {
			buckets, err = parsed.FieldFloatList("histogram_buckets")
			return read("histogram_buckets", err)
		},
		func() (err error) {
			quantiles, err = parsed.FieldObjectList("summary_quantiles_objectives")
			return read("summary_quantiles_objectives", err)
		},
		func() (err error) {
			c.processMetrics, err = parsed.FieldBool("add_process_metrics")
			return read("add_process_metrics", err)
		},
		func() (err error) {
			c.goMetrics, err = parsed.FieldBool("add_go_metrics")
			return read("add_go_metrics", err)
		},
		func() (err error) {
			c.pushURL, err = parsed.FieldString("push_url")
			return read("push_url", err)
		},
		func() (err error) {
			interval, err = parsed.FieldString("push_interval")
			return read("push_interval", err)
		},
		func() (err error) {
			c.pushJob, err = parsed.FieldString("push_job_name")
			return read("push_job_name", err)
		},
		func() (err error) {
			c.pushUser, err = parsed.FieldString("push_basic_auth", "username")
			return read("push_basic_auth.username", err)
		},
		func() (err error) {
			c.pushPassword, err = parsed.FieldString("push_basic_auth", "password")
			return read("push_basic_auth.password", err)
		},
		func() (err error) {
			c.file, err = parsed.FieldString("file_output_path")
			return read("file_output_path", err)
		},
	} {
		if err := step(); err != nil {
			return c, err
		}
	}
	if !slices.IsSorted(buckets) || len(slices.Compact(slices.Clone(buckets))) != len(buckets) {
		return c, fmt.Errorf("histogram_buckets: %v must ascend, such as [ 0.01, 0.1, 1 ]", buckets)
	}
	c.buckets = prometheus.DefBuckets
	if len(buckets) > 0 {
		c.buckets = buckets
	}
	c.objectives = map[float64]float64{}
	for _, q := range quantiles {
		quantile, err := q.FieldFloat("quantile")
		if err != nil {
			return c, fmt.Errorf("summary_quantiles_objectives.quantile: %w", err)
		}
		allowed, err := q.FieldFloat("error")
		if err != nil {
			return c, fmt.Errorf("summary_quantiles_objectives.error: %w", err)
		}
		if quantile < 0 || quantile > 1 || allowed < 0 || allowed > 1 {
			return c, fmt.Errorf("summary_quantiles_objectives: quantile %v with error %v; write both between 0 and 1", quantile, allowed)
		}
		c.objectives[quantile] = allowed
	}
	if c.pushURL != "" {
		u, err := url.Parse(c.pushURL)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return c, errors.New("push_url: this is no URL of a push gateway; write one such as http://gateway:9091") // may hold a password: not repeated
		}
		if c.pushUser == "" && u.User != nil {
			c.pushUser = u.User.Username()
			c.pushPassword, _ = u.User.Password()
			u.User = nil
			c.pushURL = u.String()
		}
	}
	if interval != "" {
		if c.pushInterval, err = time.ParseDuration(interval); err != nil || c.pushInterval <= 0 {
			return c, fmt.Errorf("push_interval: %q is no time between two pushes; write one such as 5s", interval)
		}
		if c.pushURL == "" {
			return c, errors.New("push_interval: there is no push_url to push to; set push_url, or leave push_interval out")
		}
	}
	if c.pushURL != "" && c.pushJob == "" {
		return c, errors.New("push_job_name: it is empty; a push gateway needs a job name")
	}
	return c, nil
}
