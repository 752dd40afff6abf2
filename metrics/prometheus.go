package metrics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/internal/forget"
)

// Name is the exporter's name in a Benthos config.
const Name = "prometheus"

func init() {
	if err := Register(service.GlobalEnvironment()); err != nil {
		panic(err)
	}
}

// Register adds the exporter to an environment.
func Register(env *service.Environment) error {
	return env.RegisterMetricsExporter(Name, Spec(), func(parsed *service.ParsedConfig, log *service.Logger) (service.MetricsExporter, error) {
		c, err := parseConfig(parsed)
		if err != nil {
			return nil, err
		}
		return newExporter(c, log)
	})
}

// exporter implements service.MetricsExporter on a registry of its own: what libraries put into Prometheus' default one (the
// Pulsar client does) is not what the pipeline's dashboards are about.
type exporter struct {
	config   config
	log      *service.Logger
	registry *prometheus.Registry
	pushing  *pushing // nil: nothing is pushed

	mu struct {
		sync.Mutex
		vecs map[string]vec
	}
}

// vec is a metric by its name. Two components that name the same metric share it; its labels must be the same, since
// Prometheus knows one set of them for a name.
type vec struct {
	labels    []string
	collector prometheus.Collector // nil: it could not be registered, and is not exported
}

func newExporter(c config, log *service.Logger) (*exporter, error) {
	e := &exporter{config: c, log: log, registry: prometheus.NewRegistry()}
	e.mu.vecs = map[string]vec{}
	if c.processMetrics {
		if err := e.registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})); err != nil {
			return nil, fmt.Errorf("add_process_metrics: %w", err)
		}
	}
	if c.goMetrics {
		if err := e.registry.Register(collectors.NewGoCollector()); err != nil {
			return nil, fmt.Errorf("add_go_metrics: %w", err)
		}
	}
	if c.pushURL != "" {
		e.pushing = startPushing(c, e.registry, log)
	}
	forget.Understood()
	return e, nil
}

// register makes the metric of a name once. A nil collector means that it is not exported.
func register[C prometheus.Collector](e *exporter, name string, labels []string, make func() C) (collector C, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if v, has := e.mu.vecs[name]; has {
		collector, ok = v.collector.(C)
		if v.collector == nil {
			return collector, false
		}
		if !ok || !sameLabels(v.labels, labels) {
			e.log.Errorf("The metric %s is not exported for one component: it exists with other labels (%v, now %v) or as another kind", name, v.labels, labels)
			return collector, false
		}
		return collector, true
	}
	collector = make()
	if err := e.registry.Register(collector); err != nil {
		e.log.Errorf("The metric %s is not exported: %v", name, err)
		e.mu.vecs[name] = vec{labels: labels}
		return collector, false
	}
	e.mu.vecs[name] = vec{labels: labels, collector: collector}
	return collector, true
}

func sameLabels(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// NewCounterCtor implements service.MetricsExporter.
func (e *exporter) NewCounterCtor(name string, labels ...string) service.MetricsExporterCounterCtor {
	v, ok := register(e, name, labels, func() *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help("counter", name)}, labels)
	})
	return func(values ...string) service.MetricsExporterCounter {
		if ok {
			if c, err := v.GetMetricWithLabelValues(values...); err == nil {
				return counter{c}
			}
		}
		return nothing{}
	}
}

// NewTimerCtor implements service.MetricsExporter. Benthos tells times in nanoseconds; a histogram has seconds, as
// Prometheus wants, a summary nanoseconds, as Connect's has.
func (e *exporter) NewTimerCtor(name string, labels ...string) service.MetricsExporterTimerCtor {
	var with func(values ...string) (prometheus.Observer, error)
	unit := 1.0
	if e.config.histograms {
		v, ok := register(e, name, labels, func() *prometheus.HistogramVec {
			return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: "Benthos timing " + name + ", seconds", Buckets: e.config.buckets}, labels)
		})
		unit = float64(time.Second)
		if ok {
			with = v.GetMetricWithLabelValues
		}
	} else {
		v, ok := register(e, name, labels, func() *prometheus.SummaryVec {
			return prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: name, Help: "Benthos timing " + name + ", nanoseconds", Objectives: e.config.objectives}, labels)
		})
		if ok {
			with = v.GetMetricWithLabelValues
		}
	}
	return func(values ...string) service.MetricsExporterTimer {
		if with != nil {
			if o, err := with(values...); err == nil {
				return timer{observer: o, unit: unit}
			}
		}
		return nothing{}
	}
}

// NewGaugeCtor implements service.MetricsExporter.
func (e *exporter) NewGaugeCtor(name string, labels ...string) service.MetricsExporterGaugeCtor {
	v, ok := register(e, name, labels, func() *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help("gauge", name)}, labels)
	})
	return func(values ...string) service.MetricsExporterGauge {
		if !ok || len(values) != len(labels) {
			return nothing{}
		}
		return gauge{vec: v, values: values}
	}
}

// HandlerFunc is found by Benthos, which serves it at /metrics and /stats.
func (e *exporter) HandlerFunc() http.HandlerFunc {
	// One broken collector must not hide all the others.
	return promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP
}

// Close implements service.MetricsExporter: the last values are pushed and written.
func (e *exporter) Close(ctx context.Context) error {
	var errs []error
	if e.pushing != nil {
		errs = append(errs, e.pushing.stop(ctx))
	}
	if e.config.file != "" {
		if err := prometheus.WriteToTextfile(e.config.file, e.registry); err != nil {
			errs = append(errs, fmt.Errorf("writing file_output_path %s: %w", e.config.file, err))
		}
	}
	return errors.Join(errs...)
}

type counter struct{ prometheus.Counter }

func (c counter) Incr(n int64)           { c.IncrFloat64(float64(n)) }
func (c counter) IncrFloat64(by float64) { c.Add(max(0, by)) } // Prometheus panics when a counter goes back

type timer struct {
	observer prometheus.Observer
	unit     float64
}

func (t timer) Timing(nanoseconds int64) { t.observer.Observe(float64(nanoseconds) / t.unit) }

// gauge looks its series up when it is set, since it may have been dropped meanwhile.
type gauge struct {
	vec    *prometheus.GaugeVec
	values []string
}

func (g gauge) Set(value int64) { g.SetFloat64(float64(value)) }

func (g gauge) SetFloat64(value float64) {
	if math.IsNaN(value) {
		g.vec.DeleteLabelValues(g.values...)
		return
	}
	if series, err := g.vec.GetMetricWithLabelValues(g.values...); err == nil {
		series.Set(value)
	}
}

// nothing takes the values of a metric that is not exported.
type nothing struct{}

func (nothing) Incr(int64)   {}
func (nothing) Timing(int64) {}
func (nothing) Set(int64)    {}
